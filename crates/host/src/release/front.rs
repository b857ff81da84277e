//! The front: the ingress of the live release. A release with other routes changes its router. One with another `[http]`
//! gets an ingress of its own: new listeners open before the old ones close, and have the sockets that are open already, so
//! that no client is refused in between.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use wasmhost_config::{Http, Route};

use crate::admin::{self, Remote};
use crate::capacity::Capacity;
use crate::health::{self, Health};
use crate::host::{Lasting, StartError};
use crate::ingress::{Certificates, Ingress, Listener, Renewal, Rounds, ServedAt, Sockets, Web};
use crate::measures::Measures;
use crate::output;

/// How often it is looked whether an ingress has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module.
pub(crate) struct Front {
    /// The turns of the types, whichever ingress serves them.
    pub(crate) rounds: Arc<Rounds>,
    lasting: Lasting,
    stderr: output::Stream,
    capacity: Capacity,
    measures: Arc<Measures>,
    /// One that opens places at a time.
    sockets: tokio::sync::Mutex<Sockets>,
    serving: Mutex<Serving>,
}

/// The ingresses that there are.
#[derive(Default)]
struct Serving {
    present: Option<Present>,
    /// Those that were replaced, and finish.
    replaced: Vec<(Arc<Ingress>, JoinHandle<()>)>,
    is_draining: bool,
}

struct Present {
    ingress: Arc<Ingress>,
    ended: JoinHandle<()>,
    certificates: Option<Arc<Certificates>>,
}

/// Places that are open, before anybody is served there.
pub(crate) struct Opened {
    listeners: Vec<Listener>,
    certificates: Option<Arc<Certificates>>,
}

/// The places that a release changes, open already.
pub(crate) struct Openings {
    /// None where requests come by the same places as before, or where there are none.
    pub(crate) http: Option<Opened>,
    /// None where nothing was asked of it.
    pub(crate) health: Option<health::Opened>,
    /// The same for the admin API by TCP.
    pub(crate) admin: Option<admin::Opened>,
}

impl Opened {
    /// Opens all places that `[http]` names, on the sockets that are open there already.
    pub(crate) async fn open(http: &Http, sockets: &mut Sockets) -> Result<Opened, StartError> {
        let listeners = sockets.open(http).await?;
        let certificates = http.tls.as_ref().map(|tls| Certificates::load(&tls.certificates)).transpose();
        Ok(Opened { listeners, certificates: certificates.map_err(StartError::Certificates)? })
    }

    pub(crate) fn served_at(&self) -> Vec<ServedAt> {
        self.listeners.iter().map(|listener| listener.served_at().clone()).collect()
    }
}

impl Front {
    pub(crate) fn new(
        lasting: Lasting,
        stderr: output::Stream,
        capacity: Capacity,
        sockets: Sockets,
        measures: Arc<Measures>,
    ) -> Front {
        let sockets = tokio::sync::Mutex::new(sockets);
        let rounds = Arc::default();
        Front { rounds, lasting, stderr, capacity, measures, sockets, serving: Mutex::default() }
    }

    /// Connections that are open, those of places that were left too.
    pub(crate) fn open_connections(&self) -> usize {
        let serving = self.lock();
        let replaced = serving.replaced.iter().map(|(ingress, _)| ingress);
        let all = serving.present.iter().map(|present| &present.ingress).chain(replaced);
        all.map(|ingress| ingress.open_connections()).sum()
    }

    /// Opens the places where a release has probes answered.
    pub(crate) async fn open_health(
        &self,
        health: &Health,
        wanted: Option<&wasmhost_config::Health>,
    ) -> Result<health::Opened, StartError> {
        health.open(wanted, &mut *self.sockets.lock().await).await
    }

    /// Opens the places where a release has the admin API served.
    pub(crate) async fn open_admin(
        &self,
        remote: &Remote,
        wanted: Option<&wasmhost_config::Admin>,
    ) -> Result<admin::Opened, StartError> {
        remote.open(wanted, &mut *self.sockets.lock().await).await
    }

    /// Opens all places that `[http]` names. Where the host listens already, it goes on until the new ingress serves.
    pub(crate) async fn open(&self, http: &Http) -> Result<Opened, StartError> {
        Opened::open(http, &mut *self.sockets.lock().await).await
    }

    /// Reads the certificates again that are in use. None where their files are as they were.
    pub(crate) async fn read_certificates(&self) -> Result<Option<Renewal>, StartError> {
        let present = self.lock().present.as_ref().and_then(|present| present.certificates.clone());
        let Some(certificates) = present else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || certificates.read_again());
        read.await.map_err(std::io::Error::other)?.map_err(StartError::Certificates)
    }

    /// Serves at these places from now on, and nowhere else. The ingress before accepts where nobody else does for
    /// `drain_delay`, and finishes what it has within `grace` after that.
    pub(crate) fn serve(
        &self,
        http: &Http,
        opened: Opened,
        routes: Vec<(Route, Arc<Web>)>,
        drain_delay: Duration,
        grace: Duration,
    ) {
        let Opened { listeners, certificates } = opened;
        let connections_max = self.capacity.connections(http.connections_max);
        let ingress =
            Ingress::new(http, connections_max, routes.clone(), &self.stderr, self.measures.clone());
        let mut serving = self.lock();
        if serving.is_draining {
            return;
        }
        let before = serving.present.take();
        // First: its listeners end where the new ones have their turn.
        before.iter().for_each(|before| before.ingress.replaced().cancel());
        listeners.iter().for_each(|listener| listener.take_turn(http.socket_mode));
        let (running, watch, followed) = (ingress.clone(), self.lasting.clone(), certificates.clone());
        let run = async move { running.run(listeners, followed, &watch).await };
        let ended = self.lasting.spawn_replaced("the ingress", ingress.replaced(), run);
        serving.present = Some(Present { ingress, ended, certificates });
        serving.leave(before, drain_delay, grace);
        serving.route_replaced(&routes);
    }

    /// Requests go these ways from now on.
    pub(crate) fn set_routes(&self, routes: Vec<(Route, Arc<Web>)>) {
        let serving = self.lock();
        serving.route_replaced(&routes);
        if let Some(present) = &serving.present {
            present.ingress.set_routes(routes);
        }
    }

    /// No type takes requests any more. Those that come within `drain_delay` still go the ways from before.
    pub(crate) fn close(&self, drain_delay: Duration, grace: Duration) {
        let mut serving = self.lock();
        let before = serving.present.take();
        serving.leave(before, drain_delay, grace);
    }

    /// Waits until the ingresses that were replaced have ended, or for this long. False where the host drains.
    pub(crate) async fn closed(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        loop {
            let (is_open, is_draining) = {
                let serving = self.lock();
                (serving.replaced.iter().any(|(_, ended)| !ended.is_finished()), serving.is_draining)
            };
            if is_draining || !is_open || Instant::now() >= until {
                return !is_draining;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The host drains: nobody is served who comes after this.
    pub(crate) fn drain(&self, drain_delay: Duration, grace: Duration) {
        let mut serving = self.lock();
        serving.is_draining = true;
        // They were left already.
        serving.replaced.iter().for_each(|(ingress, _)| ingress.close());
        if let Some(present) = &mut serving.present {
            present.ingress.drain(drain_delay, grace);
        }
    }

    /// Waits until every connection is done.
    pub(crate) async fn ended(&self) {
        let (present, replaced) = {
            let mut serving = self.lock();
            (serving.present.take(), std::mem::take(&mut serving.replaced))
        };
        let replaced = replaced.into_iter().map(|(_, ended)| ended);
        for ended in replaced.chain(present.map(|present| present.ended)) {
            let _ = ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Serving> {
        // No code that runs under the lock panics.
        self.serving.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Serving {
    /// An ingress finishes.
    fn leave(&mut self, before: Option<Present>, drain_delay: Duration, grace: Duration) {
        let Some(Present { ingress, ended, .. }) = before else { return };
        ingress.replaced().cancel();
        ingress.drain(drain_delay, grace);
        self.replaced.retain(|(_, ended)| !ended.is_finished());
        self.replaced.push((ingress, ended));
    }

    /// Connections that are left of those before go where the present release says.
    fn route_replaced(&self, routes: &[(Route, Arc<Web>)]) {
        self.replaced.iter().for_each(|(ingress, _)| ingress.set_routes(routes.to_vec()));
    }
}
