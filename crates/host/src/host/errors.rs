//! Why a host does not start, for the program that wanted one.

use wasmhost_engine::{EngineError, LoadError};
use wasmhost_store::StoreError;

use crate::capacity::TooMany;
use crate::state_dir::StateDirError;
use crate::trigger::release::ReleaseFailed;

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A component can't be loaded.
    #[error("process.{process}: {component} {err}")]
    Load {
        /// The type.
        process: String,
        /// Its component.
        component: String,
        /// The problem with it.
        err: LoadError,
    },
    /// The engine can't be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The state directory can't be had.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The store can't be opened.
    #[error("can't open the store {url}: {err}")]
    Store {
        /// Which.
        url: String,
        /// Why.
        err: StoreError,
    },
    /// It can't be one of the hosts that share the store.
    #[error("can't join the hosts that share the store: {0}")]
    NotJoined(String),
    /// The certificates can't be used.
    #[error("{0}; correct `cert` and `key` under [http.tls]")]
    Certificates(String),
    /// The port is taken, or not ours to take.
    #[error("can't listen on {listen}: {err}{}", hint(.err))]
    Listen {
        /// Where.
        listen: String,
        /// Why.
        err: std::io::Error,
    },
    /// The same for `[health]` or `[admin]`.
    #[error("can't listen on {listen} for {table}: {err}; set its `listen` to another place")]
    ListenApart {
        /// Which of the two.
        table: &'static str,
        /// Where.
        listen: String,
        /// Why.
        err: std::io::Error,
    },
    /// The formation names one place twice.
    #[error(
        "can't listen on {listen} and on {other}, which are one place: remove one of the two from `listen` under [http], [http.tls], [health] and [admin]"
    )]
    ListenTwice {
        /// The place that couldn't be opened.
        listen: String,
        /// The one that was.
        other: String,
    },
    /// The admin API can't be served where `[admin]` says.
    #[error("{0}")]
    Admin(String),
    /// The release that was live can't be run again, and the file isn't to be.
    #[error("{0}")]
    Lost(String),
    /// Somebody asked that the host stops, before it had started.
    #[error("it was told to stop before it had started")]
    Stopped,
    /// A release step failed.
    #[error(transparent)]
    Release(#[from] ReleaseFailed),
    /// The counts don't fit.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The system refused something.
    #[error("can't start: {0}")]
    Io(#[from] std::io::Error),
}

fn hint(err: &std::io::Error) -> &'static str {
    match err.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; another program listens there: stop it, or set `listen` under [http] to another place"
        }
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need a privilege, and a socket needs a writable directory: correct `listen` under [http]"
        }
        _ => "; correct `listen` under [http]",
    }
}
