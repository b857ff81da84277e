//! Jobs' part of the feed.

use wasmhost_store::Timestamp;
use wasmhost_store::jobs::Settled;

use super::job_log::Tried;
use crate::admin::api::{HostEvent, JobChange};
use crate::feed;

/// An instance has the job.
pub(super) fn running(tried: &Tried) -> HostEvent {
    event(tried, JobChange::Running, None, None)
}

/// The event of what the store made of a try, unless the job isn't this host's any more. `error` says how it failed.
pub(super) fn settled(tried: &Tried, settled: Settled, error: Option<&str>) -> Option<HostEvent> {
    match settled {
        Settled::Done => Some(event(tried, JobChange::Done, None, None)),
        Settled::Retrying(at) => Some(event(tried, JobChange::Retrying, Some(at), error)),
        Settled::Released => Some(event(tried, JobChange::Back, None, None)),
        Settled::Dead => Some(event(tried, JobChange::Dead, None, error)),
        // The one who cancelled it has told so.
        Settled::Stale => None,
    }
}

fn event(tried: &Tried, state: JobChange, again_at: Option<Timestamp>, error: Option<&str>) -> HostEvent {
    HostEvent::Job {
        job: tried.id.to_string(),
        queue: Some(tried.queue.clone()),
        state,
        process: Some(tried.instance.process.to_string()),
        instance: Some(tried.instance.to_string()),
        attempt: Some(tried.attempt),
        attempts_max: Some(tried.attempts_max),
        again_at,
        error: error.map(feed::text),
    }
}
