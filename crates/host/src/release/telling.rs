//! Releases' part of the feed.

use crate::admin::api::{DeployEvent, HostEvent, ReleaseChange};
use crate::feed;

/// A release has changed.
pub(super) fn changed(release: u64, state: ReleaseChange) -> HostEvent {
    HostEvent::Release { release: Some(release), state, percent: None, why: None }
}

/// A release has failed for this reason. One that failed early has no number.
pub(super) fn failed(release: Option<u64>, why: &str) -> HostEvent {
    HostEvent::Release { release, state: ReleaseChange::Failed, percent: None, why: Some(feed::text(why)) }
}

/// The event of a deploy's step, if a release has changed by it.
pub(super) fn of_step(step: &DeployEvent) -> Option<HostEvent> {
    match step {
        DeployEvent::Begun { release } => Some(changed(*release, ReleaseChange::Pending)),
        DeployEvent::Live { release } => Some(changed(*release, ReleaseChange::Live)),
        DeployEvent::Canary { release, percent, .. } => Some(HostEvent::Release {
            release: Some(*release),
            state: ReleaseChange::Canary,
            percent: Some(*percent),
            why: None,
        }),
        DeployEvent::Aborted { release, .. } => Some(failed(Some(*release), "aborted")),
        DeployEvent::Failed { release, why, .. } => Some(failed(*release, why)),
        DeployEvent::Changes { .. }
        | DeployEvent::Compiling { .. }
        | DeployEvent::Step { .. }
        | DeployEvent::Trying { .. }
        | DeployEvent::Moving { .. }
        | DeployEvent::Unchanged { .. } => None,
    }
}
