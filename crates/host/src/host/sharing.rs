//! A host that shares its store with others: what it tells them, and how it follows them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;
use wasmhost_store::{Clock, SystemClock};

use super::{Lasting, Store};
use crate::ingress::ServedAt;
use crate::members::heart::{Heart, Membership};
use crate::members::said::Said;
use crate::release::{Deployer, Live, Release, Shelf, follow, hand_on};
use crate::supervisor::Action;

/// The parts of a host that other hosts have to do with.
pub(super) struct Sharing<'a> {
    pub(super) membership: &'a Membership,
    pub(super) actions: &'a mpsc::Sender<Action>,
    pub(super) store: &'a Store,
    pub(super) live: &'a Arc<ArcSwap<Live>>,
    pub(super) deployer: &'a Deployer,
}

impl Sharing<'_> {
    /// Begins to tell the others how this host stands, until `end`, and to follow them, until `intake`. `stop` is cancelled
    /// where another host has taken this one's place.
    pub(super) fn begin(
        self,
        lasting: &Lasting,
        triggers: &TaskTracker,
        intake: CancellationToken,
        stop: CancellationToken,
        end: CancellationToken,
    ) {
        let Sharing { membership, actions, store, live, deployer } = self;
        let heart = Heart {
            membership: membership.clone(),
            actions: actions.clone(),
            ticks: store.ticks.clone(),
            about: about(live.clone()),
            intake: intake.clone(),
            stop,
        };
        lasting.spawn("what tells the other hosts", heart.run(end));
        let follow = follow(membership.clone(), deployer.clone(), live.clone(), intake);
        lasting.spawn_on(triggers, "what follows the other hosts", follow);
    }
}

/// The clock that schedules go by: the store's, where hosts share one.
pub(super) fn clock(membership: Option<&Membership>) -> Arc<dyn Clock> {
    match membership {
        Some(membership) => membership.clock(),
        None => Arc::new(SystemClock::new()),
    }
}

/// The part of what a host says to others that its live release says.
fn about(live: Arc<ArcSwap<Live>>) -> Box<dyn Fn() -> Said + Send + Sync> {
    Box::new(move || {
        let live = live.load();
        let http = live.http.iter().map(ServedAt::to_string).collect();
        Said { release: live.number, http, pid: std::process::id(), ..Said::default() }
    })
}

/// Hands the components of a release on to the hosts that come later, as soon as they are kept.
pub(super) fn hand_on_in_background(
    store: &Store,
    shelf: &Arc<Shelf>,
    release: &Release,
    kept: JoinHandle<()>,
) {
    let Some(components) = &store.components else { return };
    let digests = release.types.iter().map(|kind| kind.digest.clone()).collect();
    let hand_on = hand_on(components.clone(), shelf.clone(), digests);
    tokio::spawn(async move {
        let _ = kept.await;
        if let Err(why) = hand_on.await {
            warn!("{why}");
        }
    });
}
