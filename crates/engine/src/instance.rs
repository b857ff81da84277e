//! One live sandbox, and the calls it serves: a job, a tick, a run of `main`. Requests are in [`crate::http`].
//!
//! A call takes the instance and gives it back in [`Finished`], unless the call has ended it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use crate::call::{CallEnd, CallLimits, CallReport, Job, JobFailure, Tick};
use crate::calls::over::{CallStart, Over};
use crate::calls::service::Service;
use crate::calls::solo::{Solo, wrong_entry};
use crate::capability::state::Input;
use crate::sandbox::meter::Meter;
use crate::services::Trace;

/// A live sandbox. Dropping it frees its memories and its slot.
pub struct Instance {
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// Serves one call at a time.
    Solo(Solo),
    /// Serves several calls at once.
    Service(Arc<Service>),
}

/// A call that is over.
pub struct Finished<T = ()> {
    /// The instance, if it can take another call.
    pub instance: Option<Instance>,
    /// The call's report.
    pub report: CallReport<T>,
}

/// Giving back this much memory takes milliseconds.
const LARGE_BYTES: u64 = 16 << 20;

impl Instance {
    /// The figures of its use, and the way to interrupt it. The meter outlives the instance.
    pub fn meter(&self) -> &Arc<Meter> {
        match &self.kind {
            Kind::Solo(solo) => &solo.meter,
            Kind::Service(service) => service.meter(),
        }
    }

    /// Another handle on it, for a call beside those that run in it; none where it serves one at a time. The type's
    /// `concurrency` is for the caller to heed.
    pub fn share(&self) -> Option<Instance> {
        match &self.kind {
            Kind::Solo(_) => None,
            Kind::Service(service) => Some(Instance { kind: Kind::Service(service.clone()) }),
        }
    }

    /// Whether it would take another call now: one that shares its instance with others may have ended with them.
    pub fn is_open(&self) -> bool {
        match &self.kind {
            Kind::Solo(_) => true,
            Kind::Service(service) => service.is_open(),
        }
    }

    /// Whether to free it takes longer than a thread that serves requests should be held.
    pub fn is_large(&self) -> bool {
        self.meter().memory() >= LARGE_BYTES
    }

    /// Frees what it has, on another thread where that takes long.
    pub async fn discard(self) {
        if !self.is_large() {
            return;
        }
        let lane = match &self.kind {
            Kind::Solo(solo) => solo.lane.clone(),
            Kind::Service(service) => service.lane().clone(),
        };
        // An error says that the compute threads are going, and the host with them.
        let _ = lane.spawn(async move { drop(self) }).await;
    }

    /// Does one job, until it is done, or `stop` is: then the call is interrupted. A command gets the payload as its
    /// standard input; exit code 0 is done, 65 buries.
    pub async fn call_job(
        self,
        job: Job,
        limits: CallLimits,
        trace: Trace,
        stop: impl Future<Output = ()>,
    ) -> Finished<Result<(), JobFailure>> {
        match self.kind {
            Kind::Service(service) => service.call_job(job, limits, trace, stop).await.into(),
            Kind::Solo(solo) => {
                let meter = solo.meter.clone();
                let mut call = pin!(solo.call_job(job, limits, trace));
                tokio::select! {
                    over = &mut call => return over.into(),
                    () = stop => meter.interrupt(),
                }
                call.await.into()
            }
        }
    }

    /// Serves one tick. The error is the guest's own; of a command, that it exited with another code than 0.
    pub async fn call_tick(
        self,
        tick: Tick,
        limits: CallLimits,
        trace: Trace,
    ) -> Finished<Result<(), String>> {
        match self.kind {
            Kind::Service(service) => service.call_tick(tick, limits, trace).await.into(),
            Kind::Solo(solo) => solo.call_tick(tick, limits, trace).await.into(),
        }
    }

    /// Runs `main`, which answers with its exit code. The instance can't run it again.
    pub async fn call_command(self, limits: CallLimits) -> Finished<i32> {
        match self.kind {
            Kind::Solo(solo) => {
                solo.run_main(Input::default(), limits, None).await.map_exit(|code| code).into()
            }
            Kind::Service(service) => {
                let start = CallStart { at: Instant::now(), call: 0, cpu: service.meter().cpu() };
                let end = CallEnd::Host(wrong_entry("runs").to_string());
                Over::<Arc<Service>, _>::ended(start, service.meter(), end).into()
            }
        }
    }
}

impl From<Solo> for Instance {
    fn from(solo: Solo) -> Self {
        Instance { kind: Kind::Solo(solo) }
    }
}

impl From<Arc<Service>> for Instance {
    fn from(service: Arc<Service>) -> Self {
        Instance { kind: Kind::Service(service) }
    }
}

impl<I: Into<Instance>, T> From<Over<I, T>> for Finished<T> {
    fn from(Over { instance, report }: Over<I, T>) -> Self {
        Finished { instance: instance.map(Into::into), report }
    }
}
