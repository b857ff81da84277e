//! The part of a host that follows the others: it prepares releases that another host deploys, and moves to the one that
//! is live.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Deployer, Live, TIMEOUT_DEFAULT, Wanted};
use crate::admin::api::DeployEvent;
use crate::members::heart::{Known, Membership};

/// How long a host waits before it tries again to move to the live release.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Follows until `intake`.
pub(crate) async fn follow(
    membership: Membership,
    deployer: Deployer,
    live: Arc<ArcSwap<Live>>,
    intake: CancellationToken,
) {
    let mut known = membership.watch();
    loop {
        let now = known.borrow_and_update().clone();
        let again = tokio::select! {
            again = look(&now, &membership, &deployer, &live) => again,
            () = intake.cancelled() => return,
        };
        tokio::select! {
            changed = known.changed() => if changed.is_err() { return intake.cancelled().await },
            () = tokio::time::sleep(AGAIN_AFTER), if again => {}
            () = intake.cancelled() => return,
        }
    }
}

/// Does what is to be done now. Returns whether to try again soon.
async fn look(
    known: &Known,
    membership: &Membership,
    deployer: &Deployer,
    live: &Arc<ArcSwap<Live>>,
) -> bool {
    if let Some(deploy) = known.deploy.as_ref().filter(|deploy| deploy.release > 0)
        && deploy.boot != membership.boot()
        && !membership.has_prepared(deploy)
    {
        let Some(end) = carry_out(deployer, Wanted::Prepare(deploy.release)).await else { return true };
        membership.prepared(deploy, end.err());
    }
    // Numbers rise, those of rollbacks too: a lower one is from before a deploy of this host's own.
    let Some(number) = known.live.filter(|number| *number > live.load().number) else { return false };
    // A way back of this host's own is under way, or the answer is from before it.
    if known.deploy.as_ref().is_some_and(|deploy| deploy.boot == membership.boot()) {
        return true;
    }
    match carry_out(deployer, Wanted::Follow(number)).await {
        Some(Ok(())) => false,
        Some(Err(why)) => {
            warn!("v{number} is live on other hosts, and this one can't move to it: {why}; it tries again");
            true
        }
        None => true,
    }
}

/// Returns how it ended; nothing where another deploy is under way here.
async fn carry_out(deployer: &Deployer, wanted: Wanted) -> Option<Result<(), String>> {
    let mut steps = deployer.order(wanted, TIMEOUT_DEFAULT).ok()?;
    let mut end = Err("the host is stopping".to_owned());
    while let Some(step) = steps.recv().await {
        end = match step {
            DeployEvent::Failed { why, .. } => Err(why),
            _ => Ok(()),
        };
    }
    Some(end)
}
