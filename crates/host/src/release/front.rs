//! The front: the ingress of the live release. A release with other routes changes its router. One with another `[http]`
//! gets an ingress of its own: new listeners open before the old ones close, and a socket that both want is shared, so that
//! no client is refused in between.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinHandle;
use wasmhost_config::{Http, Route};

use crate::capacity::Capacity;
use crate::host::{Lasting, StartError};
use crate::ingress::{
    Certificates, HandedOver, Ingress, Listener, ServedAt, Spare, Wanted, Web, listen, listen_on_open,
};
use crate::output;

/// See the module.
pub(crate) struct Front {
    lasting: Lasting,
    stderr: output::Stream,
    capacity: Capacity,
    /// One that opens places at a time.
    handed_over: tokio::sync::Mutex<HandedOver>,
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
    /// For the next ingress, which may want the same places.
    spares: Vec<(Wanted, Spare)>,
}

/// Places that are open, before anybody is served there.
pub(crate) struct Opened {
    listeners: Vec<(Wanted, Listener, Spare)>,
    certificates: Option<Certificates>,
}

impl Opened {
    /// The listeners that are open before there is a front.
    pub(crate) async fn first(http: &Http, handed_over: &mut HandedOver) -> Result<Opened, StartError> {
        Opened::open(http, handed_over, |_| Ok(vec![])).await
    }

    async fn open(
        http: &Http,
        handed_over: &mut HandedOver,
        shared: impl Fn(&Wanted) -> std::io::Result<Vec<Listener>>,
    ) -> Result<Opened, StartError> {
        let places = Wanted::by(http);
        // Sockets that were handed over are found by their addresses first: `systemd` takes all that are left.
        let mut found = Vec::new();
        for wanted in &places {
            let mut listeners = shared(wanted)?;
            if listeners.is_empty() {
                listeners.extend(listen_on_open(wanted, handed_over).await?);
            }
            found.push(listeners);
        }
        let mut opened = Vec::new();
        for (wanted, mut listeners) in places.into_iter().zip(found) {
            if listeners.is_empty() {
                listeners = listen(&wanted, http.socket_mode, handed_over).await?;
            }
            for listener in listeners {
                let spare = listener.spare()?;
                opened.push((wanted.clone(), listener, spare));
            }
        }
        let certificates = http.tls.as_ref().map(Certificates::load).transpose();
        Ok(Opened { listeners: opened, certificates: certificates.map_err(StartError::Certificates)? })
    }

    pub(crate) fn served_at(&self) -> Vec<ServedAt> {
        self.listeners.iter().map(|(_, listener, _)| listener.served_at().clone()).collect()
    }
}

impl Front {
    pub(crate) fn new(
        lasting: Lasting,
        stderr: output::Stream,
        capacity: Capacity,
        handed_over: HandedOver,
    ) -> Front {
        let handed_over = tokio::sync::Mutex::new(handed_over);
        Front { lasting, stderr, capacity, handed_over, serving: Mutex::default() }
    }

    /// Opens all places that `[http]` names. Those where the present ingress listens are shared with it.
    pub(crate) async fn open(&self, http: &Http) -> Result<Opened, StartError> {
        let mut handed_over = self.handed_over.lock().await;
        Opened::open(http, &mut handed_over, |wanted| self.shared(wanted)).await
    }

    fn shared(&self, wanted: &Wanted) -> std::io::Result<Vec<Listener>> {
        let serving = self.lock();
        let spares = serving.present.iter().flat_map(|present| &present.spares);
        spares.filter(|(place, _)| place == wanted).map(|(_, spare)| spare.listener()).collect()
    }

    /// Serves at these places from now on, and nowhere else. The ingress before finishes what it has, within `grace`.
    pub(crate) fn serve(
        &self,
        http: &Http,
        opened: Opened,
        routes: Vec<(Route, Arc<Web>)>,
        drain_delay: Duration,
        grace: Duration,
    ) {
        let Opened { listeners, certificates } = opened;
        let mut spares = vec![];
        let mut accepting = vec![];
        for (wanted, listener, spare) in listeners {
            spares.push((wanted, spare));
            accepting.push(listener);
        }
        let connections_max = self.capacity.connections(http.connections_max);
        let ingress = Ingress::new(http, connections_max, routes.clone(), &self.stderr);
        let mut serving = self.lock();
        if serving.is_draining {
            return;
        }
        let (running, watch) = (ingress.clone(), self.lasting.clone());
        let run = async move { running.run(accepting, certificates, drain_delay, &watch).await };
        let ended = self.lasting.spawn_replaced("the ingress", ingress.replaced(), run);
        let before = serving.present.replace(Present { ingress, ended, spares });
        serving.leave(before, grace);
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

    /// No type takes requests any more.
    pub(crate) fn close(&self, grace: Duration) {
        let mut serving = self.lock();
        let before = serving.present.take();
        serving.leave(before, grace);
    }

    /// The host drains: nobody is served who comes after this.
    pub(crate) fn drain(&self, grace: Duration) {
        let mut serving = self.lock();
        serving.is_draining = true;
        if let Some(present) = &mut serving.present {
            present.spares.clear();
            present.ingress.drain(grace);
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
    /// An ingress finishes. Sockets that the present one shares with it stay open.
    fn leave(&mut self, before: Option<Present>, grace: Duration) {
        let Some(Present { ingress, ended, spares }) = before else { return };
        let now: Vec<&Wanted> =
            self.present.iter().flat_map(|present| &present.spares).map(|(wanted, _)| wanted).collect();
        spares.iter().filter(|(wanted, _)| now.contains(&wanted)).for_each(|(_, spare)| spare.keep());
        drop(spares);
        ingress.replaced().cancel();
        ingress.drain(grace);
        self.replaced.retain(|(_, ended)| !ended.is_finished());
        self.replaced.push((ingress, ended));
    }

    /// Connections that are left of those before go where the present release says.
    fn route_replaced(&self, routes: &[(Route, Arc<Web>)]) {
        self.replaced.iter().for_each(|(ingress, _)| ingress.set_routes(routes.to_vec()));
    }
}
