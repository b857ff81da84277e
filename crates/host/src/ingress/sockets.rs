//! All sockets that the host has open for requests. A release finds there what it wants to listen on, whichever release
//! opened it: a system doesn't let anybody open an address a second time.
//!
//! Sockets that were handed over stay open as long as the host does, since nobody can open them again. The others are
//! open as long as a listener is on them.
//!
//! Those of `[health]` and of `[admin]` are apart: no socket that was opened for requests is ever given to probes, nor the other
//! way round.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use wasmhost_config::{Admin, Health, Http, Listen};

use super::HandedOver;
use super::handed_over::Named;
use super::listener::{Listener, Purpose, Wanted};
use super::open::{Claim, Open};
use super::socket::{Place, Socket, SocketFile, is_one_file, overlap};
use crate::host::StartError;

/// See the module.
pub(crate) struct Sockets {
    handed_over: Vec<Given>,
    /// In the order in which they were opened.
    made: Vec<Weak<Open>>,
}

/// A socket that was handed over.
struct Given {
    name: String,
    /// An error where it is no listening socket.
    open: Result<Arc<Open>, (io::ErrorKind, String)>,
    /// A release has taken it for `[health]` or `[admin]`: nobody's requests come by it any more.
    kept_for: Option<Purpose>,
}

/// The sockets of one `[http]`, `[health]` or `[admin]`, while they are opened. None of them is taken twice.
struct Taking<'a> {
    sockets: &'a mut Sockets,
    taken: Vec<Taken>,
    purpose: Purpose,
}

/// A socket, and the place of `[http]` that it is taken for.
struct Taken {
    open: Arc<Open>,
    by: Listen,
}

impl Sockets {
    pub(crate) fn new(HandedOver(given): HandedOver) -> Sockets {
        let given = given.into_iter().map(|Named { name, socket }| {
            let open = socket.and_then(Open::handed_over).map_err(|err| (err.kind(), err.to_string()));
            Given { name, open, kept_for: None }
        });
        Sockets { handed_over: given.collect(), made: vec![] }
    }

    /// A listener at each place that `[http]` names, on the socket that is open there, or else on a new one. None
    /// accepts before its turn.
    pub(crate) async fn open(&mut self, http: &Http) -> Result<Vec<Listener>, StartError> {
        self.open_all(Wanted::by(http), http.socket_mode, Purpose::Requests).await
    }

    /// The same for `[health]`. Its unix sockets have the mode that those of `[http]` have by default.
    pub(crate) async fn open_health(&mut self, health: &Health) -> Result<Vec<Listener>, StartError> {
        self.open_apart(Wanted::by_health(health), Http::default().socket_mode, Purpose::Probes).await
    }

    /// The same for `[admin]`, whose unix sockets have this mode.
    pub(crate) async fn open_admin(&mut self, admin: &Admin, mode: u32) -> Result<Vec<Listener>, StartError> {
        self.open_apart(Wanted::by_admin(admin), mode, Purpose::Admin).await
    }

    async fn open_apart(
        &mut self,
        places: Vec<Wanted>,
        mode: u32,
        purpose: Purpose,
    ) -> Result<Vec<Listener>, StartError> {
        let listeners = self.open_all(places, mode, purpose).await?;
        for given in &mut self.handed_over {
            let is_of = |listener: &Listener| given.open.as_ref().is_ok_and(|open| listener.is_on(open));
            if listeners.iter().any(is_of) {
                given.kept_for = Some(purpose);
            }
        }
        Ok(listeners)
    }

    async fn open_all(
        &mut self,
        places: Vec<Wanted>,
        mode: u32,
        purpose: Purpose,
    ) -> Result<Vec<Listener>, StartError> {
        self.made.retain(|open| open.strong_count() > 0);
        let mut taking = Taking { sockets: self, taken: vec![], purpose };
        // Those that are known by their addresses first: `systemd` takes all that are left.
        let mut claims = vec![];
        for wanted in places {
            let claim = taking.find(&wanted).await;
            claims.push((wanted, claim));
        }
        let mut listeners = vec![];
        for (wanted, found) in claims {
            let failed = |err| {
                let listen = wanted.place.to_string();
                match purpose {
                    Purpose::Requests => StartError::Listen { listen, err },
                    apart => StartError::ListenApart { table: apart.table(), listen, err },
                }
            };
            let claims = match found {
                Some(claim) => vec![claim],
                None => match taking.make(&wanted, mode).await {
                    Ok(claims) => claims,
                    Err(err) => {
                        return Err(taking.in_the_way(&wanted.place, &err).await.unwrap_or(failed(err)));
                    }
                },
            };
            let made = claims.into_iter().map(|claim| Listener::new(claim, wanted.tls));
            listeners.append(&mut made.collect::<io::Result<Vec<_>>>().map_err(failed)?);
        }
        Ok(listeners)
    }

    /// Those that were handed over. `[health]` and `[admin]` may take any of them, and keep it.
    fn given(&self, purpose: Purpose) -> impl Iterator<Item = Arc<Open>> {
        let given = self.handed_over.iter().filter(move |given| given.is_for(purpose));
        given.filter_map(|given| given.open.as_ref().ok()).cloned()
    }

    fn made(&self, purpose: Purpose) -> impl DoubleEndedIterator<Item = Arc<Open>> {
        let made = self.made.iter().filter_map(Weak::upgrade);
        made.filter(move |open| open.made_for().is_some_and(|wanted| wanted.purpose == purpose))
    }

    fn made_for_others(&self, purpose: Purpose) -> impl Iterator<Item = Arc<Open>> {
        let made = self.made.iter().filter_map(Weak::upgrade);
        made.filter(move |open| open.made_for().is_some_and(|wanted| wanted.purpose != purpose))
    }

    /// Those that were handed over first, then the latest.
    fn all(&self, purpose: Purpose) -> impl Iterator<Item = Arc<Open>> {
        self.given(purpose).chain(self.made(purpose).rev())
    }
}

impl Given {
    fn is_for(&self, purpose: Purpose) -> bool {
        self.kept_for.is_none_or(|kept| kept == purpose)
    }
}

impl Taking<'_> {
    /// Takes the socket that listens on this address or path already, if there is one. systemd opens what the formation
    /// names, so that one formation runs with it and without it.
    async fn find(&mut self, wanted: &Wanted) -> Option<Claim> {
        // A start without any has no name to look up yet.
        self.sockets.all(self.purpose).next()?;
        match &wanted.place {
            Listen::Tcp(address) => {
                // A name that can't be looked up is told of by binding to it.
                let addresses: Vec<_> = tokio::net::lookup_host(address).await.ok()?.collect();
                self.take(&wanted.place, |open| match &open.place {
                    // Any port is right, and the one that it has is the best.
                    Place::Tcp(_) if addresses.iter().any(|address| address.port() == 0) => {
                        open.is_made_for(wanted)
                    }
                    Place::Tcp(address) => addresses.contains(address),
                    Place::Unix(_) => false,
                })
            }
            Listen::Unix(path) => {
                self.take(&wanted.place, |open| matches!(&open.place, Place::Unix(place) if place == path))
            }
            Listen::HandedOver(_) => None,
        }
    }

    fn take(&mut self, by: &Listen, is_wanted: impl Fn(&Open) -> bool) -> Option<Claim> {
        let candidates = self.sockets.all(self.purpose).filter(|open| is_wanted(open) && !self.has(open));
        let claim = candidates.filter_map(|open| open.claim()).next()?;
        self.taken.push(Taken { open: claim.open.clone(), by: by.clone() });
        Some(claim)
    }

    fn has(&self, open: &Arc<Open>) -> bool {
        self.taken.iter().any(|taken| Arc::ptr_eq(&taken.open, open))
    }

    /// Opens one place: one socket, or as many as were handed over for it. `mode` is a unix socket's.
    async fn make(&mut self, wanted: &Wanted, mode: u32) -> io::Result<Vec<Claim>> {
        let (socket, file) = match &wanted.place {
            Listen::Tcp(address) => {
                let addresses: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
                let others: Vec<_> = self.sockets.made(self.purpose).filter(|open| !self.has(open)).collect();
                let others: Vec<_> = others.iter().filter_map(|open| open.tcp()).collect();
                (Socket::tcp(&addresses, &others)?, None)
            }
            Listen::Unix(path) => {
                let (listener, file) = SocketFile::listen(path, mode)?;
                (Socket::unix(listener), Some(file))
            }
            Listen::HandedOver(name) => return self.take_given(&wanted.place, name.as_deref()),
        };
        let open = Open::made(socket, file, wanted.clone())?;
        self.sockets.made.push(Arc::downgrade(&open));
        self.taken.push(Taken { open: open.clone(), by: wanted.place.clone() });
        Ok(open.claim().into_iter().collect())
    }

    /// Takes the sockets of this name that were handed over, or all that are left. There has to be one.
    fn take_given(&mut self, by: &Listen, name: Option<&str>) -> io::Result<Vec<Claim>> {
        let left = self.sockets.handed_over.iter().filter(|given| match &given.open {
            Ok(open) => !self.has(open) && given.is_for(self.purpose),
            Err(_) => true,
        });
        let left: Vec<&Given> = left.collect();
        let wanted = left.iter().filter(|given| name.is_none_or(|name| given.name == name));
        let wanted: Vec<_> = wanted.map(|given| given.open.clone()).collect();
        if wanted.is_empty() {
            let lacks = lacks(name, self.sockets.handed_over.is_empty(), &left);
            return Err(io::Error::new(io::ErrorKind::NotFound, lacks));
        }
        let mut claims = vec![];
        for open in wanted {
            let open = open.map_err(|(kind, why)| io::Error::new(kind, why))?;
            claims.extend(open.claim());
            self.taken.push(Taken { open, by: by.clone() });
        }
        Ok(claims)
    }

    /// The error where another place of the same formation keeps this one from being opened.
    async fn in_the_way(&self, place: &Listen, err: &io::Error) -> Option<StartError> {
        if !matches!(err.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::NotFound) {
            return None;
        }
        let addresses: Vec<SocketAddr> = match place {
            Listen::Tcp(address) => tokio::net::lookup_host(address).await.ok()?.collect(),
            Listen::Unix(_) | Listen::HandedOver(_) => vec![],
        };
        let is_one = |taken: &&Taken| match (place, &taken.open.place) {
            (Listen::Tcp(_), Place::Tcp(there)) => addresses.iter().any(|address| overlap(address, there)),
            (Listen::Unix(path), Place::Unix(there)) => is_one_file(path, there),
            (Listen::HandedOver(Some(name)), _) => self.sockets.handed_over.iter().any(|given| {
                given.name == *name && given.open.as_ref().is_ok_and(|open| Arc::ptr_eq(open, &taken.open))
            }),
            _ => false,
        };
        let apart = self.sockets.made_for_others(self.purpose).filter_map(|open| {
            let by = open.made_for()?.place.clone();
            Some(Taken { open, by })
        });
        let apart: Vec<Taken> = apart.collect();
        let other = self.taken.iter().chain(&apart).find(is_one)?.by.to_string();
        Some(StartError::ListenTwice { listen: place.to_string(), other })
    }
}

fn lacks(name: Option<&str>, is_nothing_given: bool, left: &[&Given]) -> String {
    if is_nothing_given {
        return "no socket was handed over (LISTEN_FDS and LISTEN_PID say which)".to_owned();
    }
    if left.is_empty() || name.is_none() {
        return "every socket that was handed over is taken already".to_owned();
    }
    let names = left.iter().map(|given| format!("{:?}", given.name));
    format!("no socket of this name was handed over; there are {}", names.collect::<Vec<_>>().join(", "))
}
