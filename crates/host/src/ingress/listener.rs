//! A listener accepts the connections that come to one socket.
//!
//! Accepting is apart from serving: what comes out is a plain stream of the system, for whatever thread serves it.
//!
//! A socket of our own takes three steps to close, so that no client is reset: it begins no more handshakes, waits for
//! those under way, and hands out what has connected by then. A listener whose socket lives on closes at once: what waits
//! in it is for the next host, or for the next listener of this one.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use wasmhost_config::{Admin, Health, Http, Listen};

use super::open::{Claim, Open};
use super::socket::{Place, Socket, Stream};

/// Where the host serves requests, as it is printed: `http://127.0.0.1:8080/`, `unix:/run/app.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedAt {
    place: Place,
    tls: bool,
}

impl fmt::Display for ServedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(address) => write!(f, "http{}://{address}/", if self.tls { "s" } else { "" }),
            Place::Unix(path) => {
                write!(f, "unix:{}{}", path.display(), if self.tls { " (TLS)" } else { "" })
            }
        }
    }
}

/// The place and purpose that a listener is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) place: Listen,
    pub(crate) tls: bool,
    pub(crate) purpose: Purpose,
}

/// The purpose of a socket. None goes from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `[http]`
    Requests,
    /// `[health]`
    Probes,
    /// `[admin]`
    Admin,
}

impl Purpose {
    /// The table of the formation that names its places.
    pub(super) fn table(self) -> &'static str {
        match self {
            Purpose::Requests => "[http]",
            Purpose::Probes => "[health]",
            Purpose::Admin => "[admin]",
        }
    }
}

impl Wanted {
    /// All places that `[http]` names.
    pub(crate) fn by(http: &Http) -> Vec<Wanted> {
        let plain = http.listen.iter().map(|place| (place, false));
        let tls = http.tls.iter().flat_map(|tls| &tls.listen).map(|place| (place, true));
        let wanted =
            |(place, tls): (&Listen, bool)| Wanted { place: place.clone(), tls, purpose: Purpose::Requests };
        plain.chain(tls).map(wanted).collect()
    }

    /// All places that `[health]` names.
    pub(crate) fn by_health(health: &Health) -> Vec<Wanted> {
        let wanted = |place: &Listen| Wanted { place: place.clone(), tls: false, purpose: Purpose::Probes };
        health.listen.iter().map(wanted).collect()
    }

    /// All places that `[admin]` names.
    pub(crate) fn by_admin(admin: &Admin) -> Vec<Wanted> {
        let wanted = |place: &Listen| Wanted {
            place: place.clone(),
            tls: admin.is_tls(place),
            purpose: Purpose::Admin,
        };
        admin.listen.iter().map(wanted).collect()
    }
}

/// See the module. It accepts from its turn on.
pub(crate) struct Listener {
    source: Source,
    served_at: ServedAt,
    claim: Claim,
}

enum Source {
    Tcp(TcpListener),
    /// Another one takes its place where its file was lost.
    Unix(ArcSwap<Unix>),
}

struct Unix {
    listener: UnixListener,
    /// How often the socket was made again before this one.
    made_again: u64,
}

impl Listener {
    pub(super) fn new(claim: Claim, tls: bool) -> io::Result<Listener> {
        let source = Source::of(&claim.open)?;
        let served_at = ServedAt { place: claim.open.place.clone(), tls };
        Ok(Listener { source, served_at, claim })
    }

    /// The same listener, polled by another runtime.
    pub(crate) fn on(self, runtime: &Handle) -> io::Result<Listener> {
        let _entered = runtime.enter();
        let source = Source::of(&self.claim.open)?;
        Ok(Listener { source, ..self })
    }

    /// This one accepts from now on, and no other on the same socket. `mode` is for a unix socket that the host made.
    pub(crate) fn take_turn(&self, mode: u32) {
        self.claim.take_turn(mode);
    }

    pub(super) fn is_on(&self, open: &Arc<Open>) -> bool {
        Arc::ptr_eq(&self.claim.open, open)
    }

    /// Where it is, with the port that it got.
    pub(crate) fn served_at(&self) -> &ServedAt {
        &self.served_at
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.served_at.tls
    }

    /// Whether no other machine reaches it.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        match &self.served_at.place {
            Place::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Place::Unix(_) => true,
        }
    }

    /// The authority that a request that names no host was most likely sent to.
    pub(super) fn authority(&self) -> String {
        match &self.served_at.place {
            Place::Tcp(address) => address.to_string(),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        // Out of this runtime again: it may be served by another.
        match &self.source {
            Source::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Stream::Tcp(stream.into_std()?, peer))
            }
            Source::Unix(unix) => loop {
                let known = unix.load_full();
                tokio::select! {
                    accepted = known.listener.accept() => return accepted?.0.into_std().map(Stream::Unix),
                    () = self.claim.open.is_made_again(known.made_again) => {
                        if let Source::Unix(now) = Source::of(&self.claim.open)? {
                            unix.store(now.into_inner());
                        }
                    }
                }
            },
        }
    }

    /// Ends when another listener accepts on the same socket.
    pub(crate) async fn is_succeeded(&self) {
        self.claim.is_over().await;
    }

    /// The first step to the socket's end. False where the socket lives on: then this listener is to be dropped.
    /// `is_replaced` says that this host goes on.
    pub(crate) fn begin_end(&self, is_replaced: bool) -> bool {
        self.claim.begin_end(is_replaced)
    }

    /// The last step: closes, and returns the connections that it had taken by then. Their clients were promised an
    /// answer, and closing alone would reset them.
    pub(crate) fn close(self) -> Vec<Stream> {
        let mut waiting = Vec::new();
        // The runtime may not know yet of connections that are there, but the system does.
        while let Ok(stream) = self.claim.open.socket.accept() {
            waiting.push(stream);
        }
        waiting
    }
}

impl Source {
    fn of(open: &Open) -> io::Result<Source> {
        // Should it be made again in between, it is looked at once more.
        let made_again = open.times_made_again();
        match open.socket.share()? {
            Socket::Tcp(listener) => TcpListener::from_std(listener).map(Source::Tcp),
            Socket::Unix(listener) => {
                let listener = UnixListener::from_std(listener.load().try_clone()?)?;
                Ok(Source::Unix(ArcSwap::from_pointee(Unix { listener, made_again })))
            }
        }
    }
}
