//! The answers of the host itself, where no guest answers. They are short, with nothing internal in them. One match
//! gives status and code for each way to fail.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use wasmhost_engine::CallEnd;

use crate::pool::NoInstance;

pub(super) const WASMHOST_ERROR: HeaderName = HeaderName::from_static("wasmhost-error");

/// A status, a code in Heroku's manner where it has one, and a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) code: Option<&'static str>,
    pub(crate) text: &'static str,
}

impl Failure {
    const fn new(status: StatusCode, code: Option<&'static str>, text: &'static str) -> Self {
        Failure { status, code, text }
    }

    pub(crate) const NO_ROUTE: Failure = Failure::new(StatusCode::NOT_FOUND, None, "no such page");
    pub(crate) const NO_AUTHORITY: Failure =
        Failure::new(StatusCode::BAD_REQUEST, None, "the request doesn't name one host");
    pub(crate) const TWO_LENGTHS: Failure = Failure::new(
        StatusCode::BAD_REQUEST,
        None,
        "the request says the length of its body twice: Content-Length and Transfer-Encoding",
    );
    pub(crate) const BARE_LF: Failure = Failure::new(
        StatusCode::BAD_REQUEST,
        None,
        "a line of the request's head ends with LF alone; it must be CR LF",
    );
    pub(crate) const LOST: Failure =
        Failure::new(StatusCode::BAD_REQUEST, None, "the beginning of the request can't be told");
    pub(crate) const BAD_ENCODING: Failure =
        Failure::new(StatusCode::BAD_REQUEST, None, "Transfer-Encoding has to be chunked, once");
    pub(crate) const ENCODING: Failure =
        Failure::new(StatusCode::NOT_IMPLEMENTED, None, "no Transfer-Encoding is supported but chunked");
    pub(crate) const EXPECTATION: Failure =
        Failure::new(StatusCode::EXPECTATION_FAILED, None, "no expectation is met but 100-continue");
    pub(crate) const BODY_TOO_LONG: Failure =
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, None, "the request's body is too long");
    pub(crate) const BODY_STALLED: Failure =
        Failure::new(StatusCode::REQUEST_TIMEOUT, None, "the rest of the request's body didn't come");
    pub(crate) const BODY_BROKEN: Failure =
        Failure::new(StatusCode::BAD_REQUEST, None, "the request's body can't be read to its end");
    pub(crate) const UPGRADE: Failure =
        Failure::new(StatusCode::NOT_IMPLEMENTED, None, "CONNECT and upgrades are not supported");

    /// A guest's answer that no client may see.
    pub(crate) const UNSENDABLE: Failure =
        Failure::new(StatusCode::BAD_GATEWAY, Some("H13"), "the application's answer can't be sent");

    // The client sees the status of these alone: they are told before there is a request.
    pub(crate) const HEAD_STALLED: Failure =
        Failure::new(StatusCode::REQUEST_TIMEOUT, None, "the rest of a request's head didn't come");
    pub(crate) const HEAD_TOO_LONG: Failure =
        Failure::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, None, "a request's head is too long");
    pub(crate) const TARGET_TOO_LONG: Failure =
        Failure::new(StatusCode::URI_TOO_LONG, None, "a request's target is too long");
    pub(crate) const NOT_HTTP: Failure =
        Failure::new(StatusCode::BAD_REQUEST, None, "a request's head can't be read");

    /// How a connection ended that the library ended by itself, if that is because of a head.
    pub(crate) fn of_connection(err: &hyper::Error) -> Option<Failure> {
        match (err.is_parse(), err.is_parse_too_large()) {
            (false, _) => None,
            (true, false) => Some(Failure::NOT_HTTP),
            // It has one name for both.
            (true, true) if err.to_string().starts_with("URI") => Some(Failure::TARGET_TOO_LONG),
            (true, true) => Some(Failure::HEAD_TOO_LONG),
        }
    }

    pub(crate) fn of_no_instance(none: NoInstance) -> Failure {
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        match none {
            NoInstance::AllInBackoff => Failure::new(busy, Some("H10"), "the application is not running"),
            NoInstance::LineFull => Failure::new(busy, Some("H11"), "too many requests are waiting"),
            NoInstance::TimedOut => {
                Failure::new(StatusCode::GATEWAY_TIMEOUT, Some("H12"), "the request waited too long")
            }
            NoInstance::NoCount => Failure::new(busy, Some("H14"), "the application is switched off"),
        }
    }

    /// How a call ended that gave no answer.
    pub(crate) fn of_call(end: &CallEnd) -> Failure {
        let bad_gateway = StatusCode::BAD_GATEWAY;
        match end {
            CallEnd::Timeout(_) => {
                Failure::new(StatusCode::GATEWAY_TIMEOUT, Some("H12"), "the application took too long")
            }
            CallEnd::OutOfCpu(_) => Failure::new(
                StatusCode::GATEWAY_TIMEOUT,
                Some("H12"),
                "the application computed for too long",
            ),
            CallEnd::Interrupted => Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Some("H13"),
                "the application was stopped while it worked on this",
            ),
            CallEnd::Returned(()) => Failure::new(bad_gateway, Some("H13"), "the application gave no answer"),
            CallEnd::Exited(_) | CallEnd::Trap(_) | CallEnd::OutOfMemory(_) => {
                Failure::new(bad_gateway, Some("H13"), "the application crashed")
            }
            CallEnd::Host(_) => {
                Failure::new(StatusCode::INTERNAL_SERVER_ERROR, Some("H13"), "the host failed")
            }
            CallEnd::ErrorCode(_) => Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Some("H15"),
                "the application answered with an error",
            ),
            CallEnd::Refused(_) => Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Some("H13"),
                "the application took no more requests",
            ),
        }
    }

    /// Whether the client may be sending still what nobody reads any more, or what it sends can't be told apart.
    fn closes(self) -> bool {
        matches!(self.status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT)
            || [Failure::TWO_LENGTHS, Failure::BARE_LF, Failure::LOST].contains(&self)
            || [Failure::BAD_ENCODING, Failure::ENCODING, Failure::BODY_BROKEN].contains(&self)
    }

    pub(crate) fn response(self) -> Response<Full<Bytes>> {
        let text = match self.code {
            Some(code) => format!("{code}: {}\n", self.text),
            None => format!("{}\n", self.text),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(code) = self.code {
            headers.insert(WASMHOST_ERROR, HeaderValue::from_static(code));
        }
        if self.closes() {
            // On HTTP/2 there is no such header, and it is left out there.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
