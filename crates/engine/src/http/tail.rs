//! A call whose answer is under way: how long it may stay so, and what becomes of it when the answer ends, or its client
//! goes.
//!
//! From the head on a call has its `timeout` again with each piece of its answer, so that a stream of events may last.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use crate::call::{CallEnd, Deadline};
use crate::calls::seat::Seat;
use crate::calls::solo::end_soon;
use crate::sandbox::meter::Meter;

/// See the module. Where it is dropped before the answer's end, the client has gone, and the call ends soon.
pub(super) struct Tail {
    kind: Kind,
    timeout: Option<Duration>,
}

enum Kind {
    /// The instance's only call.
    Solo {
        meter: Arc<Meter>,
        call: u64,
    },
    /// One of those that share an instance: nothing else ends it when its time is over.
    Seat {
        seat: Seat,
        deadline: Option<Deadline>,
        timer: Option<Pin<Box<Sleep>>>,
    },
    Over,
}

impl Tail {
    pub(super) fn solo(meter: Arc<Meter>, call: u64, timeout: Option<Duration>) -> Tail {
        Tail { kind: Kind::Solo { meter, call }, timeout }
    }

    pub(super) fn seat(seat: Seat, timeout: Option<Duration>) -> Tail {
        Tail { kind: Kind::Seat { seat, deadline: None, timer: None }, timeout }
    }

    /// A part of the answer is taken.
    pub(super) fn roll(&mut self) {
        match &mut self.kind {
            Kind::Solo { meter, call } => meter.roll_deadline(*call, self.timeout),
            Kind::Seat { seat, deadline, .. } => {
                *deadline = self.timeout.and_then(|timeout| Deadline::after(Instant::now(), timeout));
                seat.put_off_deadline(*deadline);
            }
            Kind::Over => {}
        }
    }

    /// Ends when the answer has stalled for too long.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Kind::Seat { deadline: Some(deadline), timer, .. } = &mut self.kind else { return Poll::Pending };
        let at = deadline.at.into();
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }

    /// The answer has stalled for too long.
    pub(super) fn expire(mut self) {
        if let Kind::Seat { seat, deadline, .. } = self.settle() {
            let spent = deadline.map(|deadline| deadline.spent()).unwrap_or_default();
            seat.give_up(CallEnd::Timeout(spent));
        }
    }

    /// The answer has come to its end.
    pub(super) fn finish(mut self) {
        if let Kind::Seat { seat, .. } = self.settle() {
            seat.leave();
        }
    }

    fn settle(&mut self) -> Kind {
        std::mem::replace(&mut self.kind, Kind::Over)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        match self.settle() {
            Kind::Solo { meter, call } => end_soon(&meter, call),
            Kind::Seat { seat, .. } => seat.leave_soon(),
            Kind::Over => {}
        }
    }
}
