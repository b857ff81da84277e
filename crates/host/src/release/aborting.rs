//! A person's `abort` while a deploy is under way: the deploy fails at its next wait, and whoever aborted it hears of that.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::admin::api::DeployEvent;

/// Why a release failed that a person has aborted.
pub(super) const ABORTED: &str = "aborted";

/// An order, for those who may abort it.
#[derive(Clone)]
pub(super) struct Abortable(Arc<Shared>);

struct Shared {
    aborted: CancellationToken,
    /// Those who have, and wait for the end. None when it has ended.
    asked: Mutex<Option<Vec<UnboundedSender<DeployEvent>>>>,
}

impl Abortable {
    pub(super) fn new() -> Abortable {
        Abortable(Arc::new(Shared { aborted: CancellationToken::new(), asked: Mutex::new(Some(vec![])) }))
    }

    /// No order: there is nothing to abort.
    pub(super) fn ended() -> Abortable {
        Abortable(Arc::new(Shared { aborted: CancellationToken::new(), asked: Mutex::new(None) }))
    }

    /// Aborts it, unless it has ended. Its end comes out.
    pub(super) fn abort(&self) -> Option<UnboundedReceiver<DeployEvent>> {
        let mut asked = self.asked();
        let asked = asked.as_mut()?;
        let (events, end) = unbounded_channel();
        asked.push(events);
        self.0.aborted.cancel();
        Some(end)
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.0.aborted.is_cancelled()
    }

    /// Returns once it is.
    pub(super) fn aborted(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.aborted.clone().cancelled_owned()
    }

    /// Tells those who aborted it how it has ended.
    pub(super) fn end(&self, end: &DeployEvent) {
        let asked = self.asked().take().unwrap_or_default();
        for events in asked {
            // They may have gone.
            let _ = events.send(of_abort(end));
        }
    }

    fn asked(&self) -> MutexGuard<'_, Option<Vec<UnboundedSender<DeployEvent>>>> {
        self.0.asked.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// The end of a deploy, for the one who aborted it. It may have been faster, or failed by itself: that is told as it is.
fn of_abort(end: &DeployEvent) -> DeployEvent {
    match end {
        DeployEvent::Failed { release: Some(release), live, why } if why == ABORTED => {
            DeployEvent::Aborted { release: *release, live: *live }
        }
        // Before it had a number.
        DeployEvent::Failed { release: None, live, why } if why == ABORTED => {
            DeployEvent::Unchanged { release: *live }
        }
        end => end.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_aborts_hears_of_the_end() {
        let order = Abortable::new();
        assert!(!order.is_aborted());
        let mut ends = [order.abort().unwrap(), order.abort().unwrap()];
        assert!(order.is_aborted());
        order.end(&DeployEvent::Failed { release: Some(7), live: 6, why: ABORTED.to_owned() });
        for end in &mut ends {
            assert!(matches!(end.try_recv(), Ok(DeployEvent::Aborted { release: 7, live: 6 })));
        }
        assert!(order.abort().is_none(), "it has ended");
        assert!(Abortable::ended().abort().is_none());
    }

    #[test]
    fn a_deploy_that_was_faster_is_told_as_it_is() {
        let order = Abortable::new();
        let mut end = order.abort().unwrap();
        order.end(&DeployEvent::Live { release: 7 });
        assert!(matches!(end.try_recv(), Ok(DeployEvent::Live { release: 7 })));
        let order = Abortable::new();
        let mut end = order.abort().unwrap();
        order.end(&DeployEvent::Failed { release: None, live: 6, why: ABORTED.to_owned() });
        assert!(matches!(end.try_recv(), Ok(DeployEvent::Unchanged { release: 6 })));
    }
}
