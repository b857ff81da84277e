//! A request's call. The guest runs where the request was read, until it would wait: a small answer is then there
//! whole, with its length, and goes out in one piece. Only a guest that outlives its answer's head gets a task of
//! its own, and only one that computes for longer than a slice changes threads.

mod body;
mod shared;
mod solo;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use wasmtime_wasi_http::Error;

pub use self::body::ResponseBody;
pub(crate) use self::shared::answer_request;
use crate::call::{CallEnd, CallLimits};
use crate::instance::{Finished, Instance, Kind};

/// How long a call goes on whose client has gone away. Ending it costs the instance, so that a guest that is almost
/// done should be let.
pub(crate) const DETACHED_MAX: Duration = Duration::from_secs(1);

/// An error on its way through hyper.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The scheme that the client used, as far as the ingress knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestScheme {
    /// Plain.
    Http,
    /// By TLS, here or at a proxy that is trusted.
    Https,
}

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
        done: D,
    ) -> Result<Response<ResponseBody>, CallEnd>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        D: FnOnce(Finished) + Send + 'static,
    {
        match self.kind {
            Kind::Solo(solo) => solo::call(solo, request, scheme, limits, done).await,
            Kind::Service(service) => shared::call(service, request, scheme, limits, done).await,
        }
    }
}

fn body_error(err: impl Into<BoxError>) -> Error {
    match err.into().downcast::<hyper::Error>() {
        Ok(err) => Error::Hyper(*err),
        Err(err) => Error::InternalError(Some(err.to_string())),
    }
}
