//! One http type: a request waits for an instance of it, and becomes that instance's call.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use http_body_util::Either;
use hyper::body::Incoming;
use tracing::{error, warn};
use wasmhost_engine::{CallEnd, CallLimits, RequestScheme};

use super::Answer;
use super::answer::Failure;
use crate::pool::Pool;

/// An http type, as the ingress sees it.
pub(crate) struct Web {
    pub(crate) name: Arc<str>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) limits: CallLimits,
    pub(crate) wait_max: Duration,
}

impl Web {
    pub(super) async fn serve(&self, request: Request<Incoming>) -> Answer {
        let mut lease = match self.pool.lend(self.wait_max).await {
            Ok(lease) => lease,
            Err(none) => {
                let failure = Failure::of_no_instance(none);
                warn!(code = failure.code, process = %self.name, "{} {}", request.method(), request.uri().path());
                return failure.response().map(Either::Right);
            }
        };
        let Some(instance) = lease.take() else {
            return Failure::of_call(&CallEnd::Host(String::new())).response().map(Either::Right);
        };
        let slot = lease.slot().clone();
        // Only a failure needs them, and by then the request is gone.
        let what = (request.method().clone(), request.uri().clone());
        let done = move |finished| lease.give_back(finished);
        match instance.call_http(request, RequestScheme::Http, self.limits, done).await {
            Ok(response) => response.map(Either::Left),
            Err(end) => {
                let failure = Failure::of_call(&end);
                report(&end, failure, &slot.name.to_string(), &what.0, what.1.path());
                failure.response().map(Either::Right)
            }
        }
    }
}

/// One line for each request that got no answer from its guest, with the backtrace of a trap.
fn report(end: &CallEnd, failure: Failure, instance: &str, method: &Method, path: &str) {
    let code = failure.code;
    match end {
        CallEnd::Trap(backtrace) => warn!(code, instance, "{method} {path}: {backtrace}"),
        CallEnd::Host(message) => error!(code, instance, "{method} {path}: {message}"),
        end => warn!(code, instance, "{method} {path}: the call {}", end.summary()),
    }
}
