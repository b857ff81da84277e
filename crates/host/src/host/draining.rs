//! The parts of a drain: what it waits for, and how it ends what it can't wait for.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::supervisor::Action;
use crate::systemd::ServiceManager;

/// The time that is left to a call that was interrupted: for a tick, and for the way back.
pub(super) const INTERRUPTED_MAX: Duration = Duration::from_secs(5);

/// How long a drain looks at what it waits for.
pub(super) const LOOK_MAX: Duration = Duration::from_millis(500);

/// How often a drain says what it waits for.
const TELL_OF_DRAIN_EVERY: Duration = Duration::from_secs(5);

/// Says from time to time what a drain waits for. Never ends.
pub(super) async fn tell_of_drain(actions: &mpsc::Sender<Action>, manager: &ServiceManager) {
    loop {
        tokio::time::sleep(TELL_OF_DRAIN_EVERY).await;
        let at_work_now = at_work(actions).await;
        info!("still draining: {at_work_now}");
        manager.status(&format!("draining: {at_work_now}"));
    }
}

/// How many calls are under way, by type: `3 calls are under way (web 2, worker 1)`.
pub(super) async fn at_work(actions: &mpsc::Sender<Action>) -> String {
    let look = async {
        let (reply, types) = oneshot::channel();
        let _ = actions.send(Action::Look { reply }).await;
        types.await.unwrap_or_default()
    };
    // A supervisor that waits for the disk is no reason to wait for it here.
    let types = tokio::time::timeout(LOOK_MAX, look).await.unwrap_or_default();
    let mut calls: Vec<(&str, u64)> = vec![];
    for view in &types {
        let count = view.instances.iter().map(|instance| u64::from(instance.calls_now)).sum();
        // A type's count is that of all its versions together.
        match calls.iter_mut().find(|(process, _)| *process == view.process) {
            Some((_, calls)) => *calls += count,
            None => calls.push((&view.process, count)),
        }
    }
    calls.retain(|(_, count)| *count > 0);
    let each: Vec<_> = calls.iter().map(|(process, count)| format!("{process} {count}")).collect();
    match calls.iter().map(|(_, count)| count).sum() {
        0 => "no call is under way".to_owned(),
        1 => format!("1 call is under way ({})", each.join(", ")),
        total => format!("{total} calls are under way ({})", each.join(", ")),
    }
}

/// Ends every instance; says how many were busy. A supervisor that hangs ends none, and holds nothing up.
pub(super) async fn interrupt(actions: &mpsc::Sender<Action>) -> usize {
    let (reply, interrupted) = oneshot::channel();
    let interrupt = async {
        let _ = actions.send(Action::InterruptAll { reply }).await;
        interrupted.await.unwrap_or(0)
    };
    let busy = tokio::time::timeout(INTERRUPTED_MAX, interrupt).await;
    busy.unwrap_or_else(|_| {
        warn!("the supervisor doesn't answer: calls that run are not counted, and end with the process");
        0
    })
}
