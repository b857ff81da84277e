//! Jobs and ticks beside others in one instance. Such a call is over when the guest has nothing else to do.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::over::{CallStart, Over};
use super::seat::Seat;
use super::service::{Service, Terms};
use super::work::{Answer, Work};
use crate::call::{CallEnd, CallLimits, CallReport, DETACHED_MAX, Job, JobFailure, Tick};
use crate::services::Trace;

impl Service {
    /// Does one job, beside others.
    pub(crate) async fn call_job(
        self: Arc<Self>,
        job: Job,
        limits: CallLimits,
        trace: Trace,
        stop: impl Future<Output = ()>,
    ) -> Over<Arc<Service>, Result<(), JobFailure>> {
        let (work, answer) = Work::job(job, trace);
        self.call_on_compute(work, answer, limits, stop).await
    }

    /// Serves one tick, beside others.
    pub(crate) async fn call_tick(
        self: Arc<Self>,
        tick: Tick,
        limits: CallLimits,
        trace: Trace,
    ) -> Over<Arc<Service>, Result<(), String>> {
        let (work, answer) = Work::tick(tick, trace);
        self.call_on_compute(work, answer, limits, pending()).await
    }

    /// A call whose answer is all that it gives. After the answer the guest has a moment for what else it does, unless
    /// others are under way: then they have the instance.
    async fn call_on_compute<T>(
        self: Arc<Self>,
        work: Work,
        answer: oneshot::Receiver<Answer<T>>,
        limits: CallLimits,
        stop: impl Future<Output = ()>,
    ) -> Over<Arc<Service>, T> {
        let (over, mut is_over) = oneshot::channel();
        let done = Box::new(move |finished| drop(over.send(finished)));
        let deadline = limits.deadline(Instant::now());
        let terms = Terms { deadline, cpu: limits.cpu, long: true };
        let guard = match Seat::take(&self, work, terms, done) {
            // A run that was begun goes on by itself.
            Ok((_running, seat)) => Some(Abandoned(Some(seat))),
            Err(_) => None,
        };
        let late = async {
            match deadline {
                Some(deadline) => {
                    tokio::time::sleep_until(deadline.at.into()).await;
                    deadline.spent()
                }
                None => pending().await,
            }
        };
        let answer = tokio::select! {
            answer = answer => answer.unwrap_or_else(|_| Err(CallEnd::Host("the call was dropped".into()))),
            spent = late => Err(CallEnd::Timeout(spent)),
            () = stop => Err(CallEnd::Interrupted),
        };
        let seat = guard.and_then(Abandoned::keep);
        match (&seat, &answer) {
            (Some(seat), Ok(_)) => seat.leave(),
            (Some(seat), Err(end)) => seat.give_up(end.clone()),
            (None, _) => {}
        }
        let end = match answer {
            Ok(answer) => CallEnd::Returned(answer),
            Err(end) => end.without_answer(),
        };
        let over = match tokio::time::timeout(DETACHED_MAX, &mut is_over).await {
            Ok(over) => over,
            Err(_) => {
                if let Some(seat) = &seat {
                    seat.end_if_alone();
                }
                is_over.await
            }
        };
        match over {
            Ok(Over { instance, report: CallReport { wall, cpu, memory_peak, .. } }) => {
                Over { instance, report: CallReport { end, wall, cpu, memory_peak } }
            }
            Err(_) => {
                let start = CallStart { at: Instant::now(), call: 0, cpu: self.meter().cpu() };
                Over::ended(start, self.meter(), end)
            }
        }
    }
}

/// Gives a call up whose caller has gone.
struct Abandoned(Option<Seat>);

impl Abandoned {
    fn keep(mut self) -> Option<Seat> {
        self.0.take()
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(seat) = self.0.take() {
            seat.give_up(CallEnd::Interrupted);
        }
    }
}
