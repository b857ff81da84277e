//! A request that is measured: how it came out, how long it took and how many bytes its bodies had are counted when it is
//! over, which is when its answer is through, or its client has gone.

use std::sync::Arc;
use std::time::Instant;

use http::Response;
use http_body_util::Either;
use hyper::body::Body;

use super::Answer;
use super::answer::WASMHOST_ERROR;
use super::body::{Fault, RequestBody};
use super::traced;
use super::web::Web;
use crate::measures::{Answered, Measures, Outcome};
use crate::traces::Open;

/// See the module. It counts when it is dropped.
pub(super) struct Measured {
    /// None where nobody asks for metrics: then nothing is counted.
    begun: Option<Instant>,
    /// The request's own handle of its type. A second one would be a counter that all threads write.
    pub(super) web: Arc<Web>,
    outcome: Outcome,
    /// The facts that are known of the request's body, if it has one.
    body: Option<Arc<Fault>>,
    sent_bytes: u64,
    /// Its span, if it is recorded, until there is an answer and then until that is through.
    span: Option<Box<Open>>,
    has_answer: bool,
}

impl Measured {
    /// A request that is for this type.
    pub(super) fn begin(
        begun: Option<Instant>,
        mut span: Option<Box<Open>>,
        web: Arc<Web>,
        body: &RequestBody,
    ) -> Measured {
        let body = begun.and_then(|_| body.fault());
        if let Some(span) = &mut span {
            traced::is_for(span, web.failures.process());
        }
        Measured { begun, web, outcome: Outcome::GONE, body, sent_bytes: 0, span, has_answer: false }
    }

    /// There is an answer. A code that a guest has made up is none.
    pub(super) fn answered(&mut self, answer: &Answer) {
        if self.begun.is_some() {
            self.outcome = outcome(answer);
        }
        self.has_answer = true;
        if let Some(span) = &mut self.span {
            traced::answered(span, answer);
        }
    }

    /// A piece of the answer passes.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }
}

/// Counts a request that no type has to do with.
pub(super) fn unrouted(
    measures: &Measures,
    begun: Option<Instant>,
    span: Option<Box<Open>>,
    answer: &Answer,
) {
    if let Some(mut span) = span {
        traced::answered(&mut span, answer);
    }
    let Some(begun) = begun else { return };
    let (outcome, took) = (outcome(answer), begun.elapsed());
    let sent_bytes = answer.body().size_hint().exact().unwrap_or_default();
    measures.unrouted.requests.answered(Answered { outcome, took, received_bytes: 0, sent_bytes });
}

fn outcome<G, H>(answer: &Response<Either<G, H>>) -> Outcome {
    let code = match answer.body() {
        Either::Left(_) => None,
        Either::Right(_) => answer.headers().get(WASMHOST_ERROR).and_then(|code| code.to_str().ok()),
    };
    Outcome::of(answer.status(), code)
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some(span) = self.span.as_mut().filter(|_| !self.has_answer) {
            span.facts.fail("client_gone");
        }
        let Some(begun) = self.begun else { return };
        self.web.pool.counts.requests.answered(Answered {
            outcome: self.outcome,
            took: begun.elapsed(),
            received_bytes: self.body.as_ref().map_or(0, |body| body.received_bytes()),
            sent_bytes: self.sent_bytes,
        });
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn a_guests_own_code_is_none() {
        let mut answer: Response<Either<(), ()>> = Response::new(Either::Left(()));
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer.headers_mut().insert(WASMHOST_ERROR, HeaderValue::from_static("H11"));
        assert_eq!(outcome(&answer).code(), "");
        assert_eq!(outcome(&answer.map(|_| Either::<(), ()>::Right(()))).code(), "H11");
    }
}
