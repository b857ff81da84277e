//! Orders that a person may give by a signal, besides the host's end.

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::Host;
use crate::admin::api::{HostChange, HostEvent, ScaleChange, ScaleTo};
use crate::supervisor::Action;

/// Which way a signal scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One instance more.
    Up,
    /// One instance fewer, and not less than one.
    Down,
}

impl Host {
    /// Claims no jobs and takes no ticks, until [`go_on`](Host::go_on). Those that were taken run to their end.
    pub fn pause(&self) {
        if self.is_taking.send_replace(false) {
            self.state.feed.tell(|| HostEvent::Host { state: HostChange::Paused });
            info!("jobs and ticks are paused: those that run go on to their end, and SIGUSR2 takes more");
        }
    }

    /// Claims jobs and takes ticks again.
    pub fn go_on(&self) {
        if !self.is_taking.send_replace(true) {
            self.state.feed.tell(|| HostEvent::Host { state: HostChange::Resumed });
            info!("jobs and ticks are taken again");
        }
    }

    /// Scales the first type that serves requests. A signal has nobody to answer, so that the log says what came of it.
    pub fn scale_http(&self, step: Step) {
        // The store may take its time, and other signals are not to wait for it.
        tokio::spawn(scale_http(self.actions.clone(), step));
    }
}

async fn scale_http(actions: mpsc::Sender<Action>, step: Step) {
    let (reply, views) = oneshot::channel();
    let _ = actions.send(Action::Look { reply }).await;
    // An error says that the host is going.
    let Ok(views) = views.await else { return };
    let Some(web) = views.into_iter().find(|process| process.trigger == "http") else {
        return warn!("no type of this formation serves requests, so that none is scaled");
    };
    let to = match step {
        Step::Up => ScaleTo::More(1),
        Step::Down if web.count > 1 => ScaleTo::Count(web.count - 1),
        Step::Down => return info!("{}={} stays as it is", web.process, web.count),
    };
    let (reply, changed) = oneshot::channel();
    let changes = vec![ScaleChange { process: web.process.clone(), to }];
    let _ = actions.send(Action::Scale { changes, reply }).await;
    match changed.await {
        Ok(Ok(counts)) => {
            let count = counts.get(&web.process).copied().unwrap_or_default();
            info!("scaled to {}={count}, as a signal ordered", web.process);
        }
        Ok(Err(refused)) => warn!("{} is not scaled: {refused}", web.process),
        Err(_) => {}
    }
}
