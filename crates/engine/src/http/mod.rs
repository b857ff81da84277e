//! A request's call. The guest runs on the task that read the request, until it would wait. A small answer is whole by
//! then, and goes out in one piece, with its length. A guest gets a task of its own only if it outlives its answer's head,
//! and changes threads only if it computes for longer than a slice.

mod body;
mod gathering;
mod shared;
mod solo;
mod tail;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

pub use self::body::{BoxError, ResponseBody};
use crate::call::{CallEnd, CallLimits, RequestScheme};
use crate::instance::{Finished, Instance, Kind};
use crate::services::Trace;

impl Instance {
    /// Serves a request whose URI or `Host` has an authority. Answers as soon as there is a head, or with the call's
    /// end if it ended without one (`Returned` then means that the guest gave no answer).
    ///
    /// `done` is called once, when the call is over, which may be long after the head; also where this future, or
    /// the answer's body, is dropped.
    pub async fn call_http<B, D>(
        self,
        request: Request<B>,
        scheme: RequestScheme,
        limits: CallLimits,
        trace: Trace,
        done: D,
    ) -> Result<Response<ResponseBody>, CallEnd>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        D: FnOnce(Finished) + Send + 'static,
    {
        match self.kind {
            Kind::Solo(solo) => {
                solo::call(solo, request, scheme, limits, trace, |over| done(over.into())).await
            }
            Kind::Service(service) => {
                shared::call(service, request, scheme, limits, trace, |over| done(over.into())).await
            }
        }
    }
}
