//! The tools that the tests are written with: a [`Formation`] in a temporary folder, a [`Host`] that runs it, [`http`]
//! to talk to it, and a [`Store`] to look at what it keeps.

pub(crate) mod browser;
mod collector;
mod formation;
mod host;
pub(crate) mod http;
pub(crate) mod http2;
mod ledger;
mod load;
mod metrics;
mod outside;
/// That of the store's own tests.
#[allow(dead_code, reason = "each of the two uses a part of it")]
#[path = "../../crates/store/tests/postgres/server.rs"]
pub(crate) mod postgres;
mod process;
mod releases;
mod service_manager;
mod store;
pub(crate) mod tls;
pub(crate) mod tmux;
mod variant;
pub(crate) mod wasm;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) use collector::{Collector, Kind, Span};
pub(crate) use formation::{Formation, TOKEN, guest_file, guests, repository};
pub(crate) use host::{Host, Ps};
pub(crate) use ledger::{Ledger, Promise};
pub(crate) use load::{Load, Shop};
pub(crate) use metrics::Metrics;
pub(crate) use outside::{Asked, Outside};
pub(crate) use process::{Ended, Lines, Process, command};
pub(crate) use releases::{Standing, compile_ahead, versioned_web, versioned_worker};
pub(crate) use service_manager::ServiceManager;
pub(crate) use store::Store;
pub(crate) use variant::variant;

/// Longer than anything takes on a busy machine. Things that are awaited are there at once on a free one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An address that nobody else has: each address of 127.0.0.0/8 is this machine's, and ports from here on are none that a
/// system gives by itself.
pub(crate) fn address_of_its_own() -> SocketAddr {
    let ip = [127, fastrand::u8(1..), fastrand::u8(..), fastrand::u8(1..255)];
    SocketAddr::from((ip, fastrand::u16(20_000..32_000)))
}

/// A number that whoever runs the tests may set, by an environment variable.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.replace('_', "").parse().ok()).unwrap_or(default)
}
