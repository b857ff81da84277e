//! A call's request, job or tick for an instance that serves several at once, and the way of its answer.

use std::sync::Arc;

use http::Request;
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiBody;

use super::exchange::Exchange;
use crate::call::{CallEnd, Job, JobFailure, RequestScheme, Tick};
use crate::services::Trace;

/// See the module.
pub(crate) struct Work {
    pub(super) given: Given,
    pub(super) reply: Reply,
}

pub(super) struct Given {
    pub(super) call: GivenCall,
    pub(super) trace: Trace,
}

pub(super) enum GivenCall {
    Request(Request<WasiBody>, RequestScheme),
    Job(Job),
    Tick(Tick),
}

/// The way of an answer to the caller. There is one for each kind of call.
pub(super) enum Reply {
    Request(Arc<Exchange>),
    Job(oneshot::Sender<Answer<Result<(), JobFailure>>>),
    Tick(oneshot::Sender<Answer<Result<(), String>>>),
    /// The call has its answer already.
    Given,
}

/// The guest's answer, or why there is none.
pub(super) type Answer<T> = Result<T, CallEnd>;

impl Work {
    /// The answer goes by `exchange`.
    pub(crate) fn request(
        request: Request<WasiBody>,
        scheme: RequestScheme,
        trace: Trace,
        exchange: Arc<Exchange>,
    ) -> Work {
        let given = Given { call: GivenCall::Request(request, scheme), trace };
        Work { given, reply: Reply::Request(exchange) }
    }

    pub(super) fn job(job: Job, trace: Trace) -> (Work, oneshot::Receiver<Answer<Result<(), JobFailure>>>) {
        let (reply, answer) = oneshot::channel();
        let given = Given { call: GivenCall::Job(job), trace };
        (Work { given, reply: Reply::Job(reply) }, answer)
    }

    pub(super) fn tick(tick: Tick, trace: Trace) -> (Work, oneshot::Receiver<Answer<Result<(), String>>>) {
        let (reply, answer) = oneshot::channel();
        let given = Given { call: GivenCall::Tick(tick), trace };
        (Work { given, reply: Reply::Tick(reply) }, answer)
    }
}

impl Reply {
    /// The answer to a request, which may be under way.
    pub(super) fn exchange(&self) -> Option<&Arc<Exchange>> {
        match self {
            Reply::Request(exchange) => Some(exchange),
            Reply::Job(_) | Reply::Tick(_) | Reply::Given => None,
        }
    }

    /// The call has ended. The caller that waited may have gone, and then there is nobody to tell.
    pub(super) fn end(self, end: CallEnd) {
        match self {
            Reply::Request(exchange) => exchange.end(end),
            Reply::Job(reply) => drop(reply.send(Err(end))),
            Reply::Tick(reply) => drop(reply.send(Err(end))),
            Reply::Given => {}
        }
    }
}
