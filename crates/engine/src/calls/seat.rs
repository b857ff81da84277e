//! A call's place in an instance that serves several: how it leaves, or is given up.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::drive::Placed;
use super::service::{Done, Entered, Service, Terms};
use super::work::Work;
use crate::call::{CallEnd, DETACHED_MAX, Deadline};

/// See the module.
pub(crate) struct Seat {
    service: Arc<Service>,
    call: u64,
    run: u64,
}

impl Seat {
    /// Adds a call, and begins a run where there is none. If the call is refused, `done` and the reply have been told.
    pub(crate) fn take(
        service: &Arc<Service>,
        work: Work,
        terms: Terms,
        done: Done,
    ) -> Result<(Option<Placed<()>>, Seat), CallEnd> {
        let Entered { call, run, begun } = service.enter(work, terms, done)?;
        Ok((begun, Seat { service: service.clone(), call, run }))
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The call has got on with its answer, and has time until then.
    pub(crate) fn put_off_deadline(&self, deadline: Option<Deadline>) {
        self.service.meter().put_off_deadline(deadline);
    }

    /// The answer has come to its end.
    pub(crate) fn leave(&self) {
        if self.service.leave(self.call) {
            let (service, run) = (self.service.clone(), self.run);
            after_detached(move || service.end_if_alone(run));
        }
    }

    /// The client has gone before the end of its answer, which the guest sees when it writes. It goes on for a moment.
    pub(crate) fn leave_soon(self) {
        self.leave();
        after_detached(move || self.service.end_if_alone(self.run));
    }

    /// It won't have its answer.
    pub(crate) fn give_up(&self, reason: CallEnd) {
        self.service.give_up(self.call, reason);
    }

    /// The client has gone before its answer began.
    pub(crate) fn give_up_soon(self) {
        after_detached(move || self.service.give_up(self.call, CallEnd::Interrupted));
    }

    /// Ends what the guest does without any call.
    pub(super) fn end_if_alone(&self) {
        self.service.end_if_alone(self.run);
    }
}

fn after_detached(act: impl FnOnce() + Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            tokio::time::sleep(DETACHED_MAX).await;
            act();
        })),
        Err(_) => act(),
    }
}
