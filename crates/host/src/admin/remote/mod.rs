//! `[admin]`: the admin API for those who show a token, by TCP, and by TLS where other machines reach it.
//!
//! `place` accepts, `strangers` has the connections that have shown nothing yet, and `door` lets in who shows the token. What
//! is inside is the same as at the socket. A browser gets the dashboard there (`browser`). A release with another `[admin]` opens its new places before the old ones close; a
//! token and certificates that have changed in their files are read again by a deploy.

mod browser;
mod door;
mod place;
mod strangers;
mod token;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use wasmhost_config::Admin as Wanted;

use crate::host::{Lasting, StartError};
use crate::ingress::{self, Certificates, HTTP_1, Listener, ServedAt, Sockets};
use crate::places::Places;
pub(super) use door::Api;
use door::Door;
pub use token::AdminToken;

/// Mode of the unix sockets that are made.
const SOCKET_MODE: u32 = 0o600;

/// How long connections may take at the end.
const ENDED_MAX: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Remote {
    door: Arc<Door>,
    lasting: Lasting,
    answering: Box<dyn Fn(&ServedAt) + Send + Sync>,
    serving: Mutex<Serving>,
}

#[derive(Default)]
struct Serving {
    /// `[admin]` of the release that the places are of.
    wanted: Option<Wanted>,
    token: Option<AdminToken>,
    certificates: Option<Arc<Certificates>>,
    present: Option<Places>,
    served_at: Vec<ServedAt>,
}

/// A change of the places where it is served, before anybody is let in there.
#[must_use]
pub(crate) struct Opened {
    change: Change,
}

enum Change {
    /// They stay as they are.
    Nothing,
    /// There are none any more.
    Close,
    Open(Box<New>),
}

/// Places that are open, and their keys.
struct New {
    wanted: Wanted,
    token: AdminToken,
    certificates: Option<Arc<Certificates>>,
    tls: Option<TlsAcceptor>,
    listeners: Vec<Listener>,
}

/// The secrets of an `[admin]`, as its files have them now.
struct Secrets {
    token: AdminToken,
    certificates: Option<Arc<Certificates>>,
}

/// Secrets that were read again, and have changed.
pub(crate) struct Renewal {
    remote: Arc<Remote>,
    token: Option<(PathBuf, AdminToken)>,
    certificates: Option<ingress::Renewal>,
}

impl Opened {
    /// Serves there from now on, and nowhere else.
    pub(crate) fn serve(self, remote: &Remote) {
        match self.change {
            Change::Nothing => {}
            Change::Close => remote.close(),
            Change::Open(new) => remote.serve(*new),
        }
    }
}

impl Remote {
    /// `answering` is told each place where it is served.
    pub(super) fn new(
        api: Api,
        lasting: &Lasting,
        answering: Box<dyn Fn(&ServedAt) + Send + Sync>,
    ) -> Arc<Remote> {
        let (door, lasting) = (Door::new(api), lasting.clone());
        Arc::new(Remote { door, lasting, answering, serving: Mutex::default() })
    }

    /// Opens all places that a release's `[admin]` names, if they aren't those that are open.
    pub(crate) async fn open(
        &self,
        wanted: Option<&Wanted>,
        sockets: &mut Sockets,
    ) -> Result<Opened, StartError> {
        let Some(wanted) = wanted else { return Ok(Opened { change: Change::Close }) };
        if self.lock().wanted.as_ref() == Some(wanted) {
            return Ok(Opened { change: Change::Nothing });
        }
        let Secrets { token, certificates } = read(wanted).await.map_err(StartError::Admin)?;
        let tls = certificates.as_ref().map(|certificates| certificates.acceptor(&[HTTP_1])).transpose();
        let tls = tls.map_err(|err| StartError::Admin(format!("TLS can't be served for [admin]: {err}")))?;
        let listeners = sockets.open_admin(wanted, SOCKET_MODE).await?;
        if let Some(far) =
            listeners.iter().find(|listener| !listener.is_tls() && !listener.is_on_this_machine())
        {
            return Err(StartError::Admin(format!(
                "{} of [admin] may be reached by other machines, and without a certificate its token would pass the network in clear: add [admin.tls] with `cert` and `key`, or listen on 127.0.0.1",
                far.served_at()
            )));
        }
        let wanted = wanted.clone();
        Ok(Opened { change: Change::Open(Box::new(New { wanted, token, certificates, tls, listeners })) })
    }

    fn close(&self) {
        let mut serving = std::mem::take(&mut *self.lock());
        if let Some(before) = serving.present.take() {
            before.leave();
            self.door.lock();
        }
    }

    fn serve(&self, new: New) {
        let New { wanted, token, certificates, tls, listeners } = new;
        let mut serving = self.lock();
        // A place that both have isn't closed: the claim of the new listener keeps its socket.
        if let Some(before) = serving.present.take() {
            before.leave();
        }
        let served_at: Vec<ServedAt> =
            listeners.iter().map(|listener| listener.served_at().clone()).collect();
        served_at.iter().filter(|place| !serving.served_at.contains(place)).for_each(&self.answering);
        self.door.is_named_by(certificates.clone());
        self.door.expect(&token);
        let present = self.begin(listeners, tls, certificates.clone());
        *serving = Serving {
            wanted: Some(wanted),
            token: Some(token),
            certificates,
            present: Some(present),
            served_at,
        };
    }

    fn begin(
        &self,
        listeners: Vec<Listener>,
        tls: Option<TlsAcceptor>,
        certificates: Option<Arc<Certificates>>,
    ) -> Places {
        let mut places = Places::new(&self.lasting);
        for listener in listeners {
            listener.take_turn(SOCKET_MODE);
            let name = format!("what serves the admin API at {}", listener.served_at());
            let tls = tls.clone().filter(|_| listener.is_tls());
            let accept = place::accept(self.door.clone(), listener, tls, places.left().clone());
            places.spawn(name, accept);
        }
        if let Some(certificates) = certificates {
            let until = places.left().clone();
            let follow =
                async move { until.run_until_cancelled(certificates.follow()).await.unwrap_or_default() };
            places.spawn("what follows the certificates of the admin API".to_owned(), follow);
        }
        places
    }

    /// Reads the secrets again that a release goes on with. None where they are as they were. Those of an `[admin]` that has
    /// changed are only looked at: they are read when it is opened.
    pub(crate) async fn read_again(
        self: &Arc<Self>,
        next: Option<&Wanted>,
    ) -> Result<Option<Renewal>, StartError> {
        let (wanted, before, certificates) = {
            let serving = self.lock();
            (serving.wanted.clone(), serving.token.clone(), serving.certificates.clone())
        };
        let Some(next) = next else { return Ok(None) };
        let secrets = read(next).await.map_err(StartError::Admin)?;
        if wanted.as_ref() != Some(next) {
            return Ok(None);
        }
        let certificates = match certificates {
            Some(certificates) => {
                let read = tokio::task::spawn_blocking(move || certificates.read_again());
                read.await.map_err(std::io::Error::other)?.map_err(StartError::Admin)?
            }
            None => None,
        };
        let token = (before.as_ref() != Some(&secrets.token)).then(|| (next.token.clone(), secrets.token));
        let renewal = Renewal { remote: self.clone(), token, certificates };
        Ok((!renewal.changes().is_empty()).then_some(renewal))
    }

    /// The places where it is served.
    pub(crate) fn served_at(&self) -> Vec<ServedAt> {
        self.lock().served_at.clone()
    }

    /// Closes all places, and answers what was asked until now.
    pub(super) async fn end(&self) {
        let present = self.lock().present.take();
        if let Some(places) = present {
            places.end(ENDED_MAX).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Serving> {
        // No code that runs under the lock panics.
        self.serving.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Renewal {
    /// The changes, each for a person.
    pub(crate) fn changes(&self) -> Vec<String> {
        let token = self.token.iter().map(|(file, _)| format!("admin.token {} has changed", file.display()));
        let certificates = self.certificates.iter().flat_map(ingress::Renewal::changed);
        let certificates = certificates.map(|file| format!("admin.tls.cert {} has changed", file.display()));
        token.chain(certificates).collect()
    }

    /// From now on nobody gets in without the new token, and new connections get the new certificates.
    pub(crate) fn take_effect(self) {
        let Renewal { remote, token, certificates } = self;
        if let Some((_, token)) = token {
            remote.door.expect(&token);
            remote.lock().token = Some(token);
            info!("the token of the admin API has changed: connections with the one from before end");
        }
        if let Some(certificates) = certificates {
            certificates.take_effect();
        }
    }
}

/// Reads the secrets that an `[admin]` names. A disk may take its time.
async fn read(wanted: &Wanted) -> Result<Secrets, String> {
    let wanted = wanted.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let (token, warning) = AdminToken::read(&wanted.token)
            .map_err(|why| format!("{why}; `token` under [admin] names that file"))?;
        if let Some(warning) = warning {
            warn!("{warning}");
        }
        let certificates = wanted.certificates().map(Certificates::load).transpose();
        let certificates =
            certificates.map_err(|why| format!("{why}; correct `cert` and `key` under [admin.tls]"))?;
        Ok(Secrets { token, certificates })
    });
    reading.await.map_err(|err| err.to_string())?
}
