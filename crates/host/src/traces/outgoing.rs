//! Requests and jobs of a guest, or of a person in its place. They are told of the trace, also where it isn't
//! recorded, and where it is they have spans of their own.

use std::sync::Arc;

use http::{HeaderMap, Method, Uri};
use wasmhost_engine::services::{Receipt, Sending};
use wasmhost_store::jobs::{METADATA_BYTES_MAX, METADATA_ENTRIES_MAX};

use super::context::{TRACEPARENT, TRACESTATE};
use super::{Context, Kind, Open, Scope};

/// Something that is sent, and recorded.
pub(crate) struct Sent {
    open: Open,
    is_over: bool,
}

/// A request goes out. A guest that has made a span itself is taken at its word: its header stays, and this request's span
/// is below that one. A header that only repeats what the guest was told is replaced.
pub(super) fn request(scope: &Scope, method: &Method, uri: &Uri, headers: &mut HeaderMap) -> Option<Sent> {
    let theirs = headers.contains_key(TRACEPARENT).then(|| Context::of_headers(headers));
    let is_repeated = matches!(&theirs, Some(Some(theirs))
        if (theirs.trace, theirs.span) == (scope.context.trace, scope.context.span));
    if !scope.is_recorded() {
        if theirs.is_none() {
            scope.put_on(headers);
        }
        return None;
    }
    let parent = match &theirs {
        Some(Some(theirs)) if theirs.trace == scope.context.trace => theirs.span,
        _ => scope.context.span,
    };
    let method = known(method);
    let mut open = scope.begin_now(method.unwrap_or("HTTP").to_owned(), Kind::Client, parent);
    if theirs.is_none() || is_repeated {
        headers.insert(TRACEPARENT, open.context().header());
        if theirs.is_none()
            && let Some(state) = &scope.context.state
        {
            headers.insert(TRACESTATE, state.clone());
        }
    }
    open.facts.set("http.request.method", method.unwrap_or("_OTHER"));
    let scheme = uri.scheme_str().unwrap_or("http").to_owned();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let host = uri.host().unwrap_or_default().to_owned();
    // Without the query, which may have secrets in it; so may nothing else here.
    open.facts.set("url.full", format!("{scheme}://{host}:{port}{}", uri.path()));
    open.facts.set("server.address", host);
    open.facts.set("server.port", u64::from(port));
    Some(Sent { open, is_over: false })
}

/// A guest's jobs go on a queue.
pub(super) fn jobs<'a>(
    scope: &Scope,
    queue: &str,
    metadata: impl Iterator<Item = &'a mut Vec<(String, String)>>,
) -> Option<Sent> {
    let begin = |name| scope.begin_now(name, Kind::Producer, scope.context.span);
    let open = scope.is_recorded().then(|| begin(name_of_jobs(queue)));
    tell_jobs(scope, open, queue, metadata)
}

/// The same where that is all that there is in this scope.
pub(crate) fn send_jobs<'a>(
    scope: &Arc<Scope>,
    queue: &str,
    metadata: impl Iterator<Item = &'a mut Vec<(String, String)>>,
) -> Option<Sent> {
    tell_jobs(scope, scope.own(name_of_jobs(queue), Kind::Producer), queue, metadata)
}

fn name_of_jobs(queue: &str) -> String {
    format!("send {queue}")
}

/// Metadata that has a trace, or no room for one, stays as it is.
fn tell_jobs<'a>(
    scope: &Scope,
    open: Option<Open>,
    queue: &str,
    metadata: impl Iterator<Item = &'a mut Vec<(String, String)>>,
) -> Option<Sent> {
    let context = open.as_ref().map_or_else(|| scope.context.clone(), Open::context);
    let mut count: u64 = 0;
    for metadata in metadata {
        count += 1;
        put_into(&context, metadata);
    }
    let mut open = open?;
    open.facts.set("messaging.system", "wasmhost");
    open.facts.set("messaging.operation.name", "send");
    open.facts.set("messaging.operation.type", "send");
    open.facts.set("messaging.destination.name", queue.to_owned());
    if count != 1 {
        open.facts.set("messaging.batch.message_count", count);
    }
    Some(Sent { open, is_over: false })
}

fn put_into(context: &Context, metadata: &mut Vec<(String, String)>) {
    if metadata.iter().any(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT.as_str())) {
        return;
    }
    let mut bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    let state = context.state_text().map(|state| (TRACESTATE, state.to_owned()));
    for (name, value) in [(TRACEPARENT, context.string())].into_iter().chain(state) {
        bytes += name.as_str().len() + value.len();
        if metadata.len() < METADATA_ENTRIES_MAX && bytes <= METADATA_BYTES_MAX {
            metadata.push((name.as_str().to_owned(), value));
        }
    }
}

impl Sent {
    /// Jobs with these numbers are on their queue.
    pub(crate) fn are_on(&mut self, mut ids: impl Iterator<Item = String>) {
        self.is_over = true;
        if let (Some(id), None) = (ids.next(), ids.next()) {
            self.open.facts.set("messaging.message.id", id);
        }
    }

    pub(crate) fn fail(&mut self, error: &str) {
        self.is_over = true;
        self.open.facts.fail(error.to_owned());
    }
}

impl Sending for Sent {
    fn answered(&mut self, status: u16) {
        self.is_over = true;
        self.open.facts.set("http.response.status_code", u64::from(status));
        if status >= 400 {
            self.open.facts.fail(status.to_string());
        }
    }

    fn enqueued(&mut self, receipts: &[Receipt]) {
        self.are_on(receipts.iter().map(|receipt| receipt.id.clone()));
    }

    fn failed(&mut self, error: &str) {
        self.fail(error);
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // The guest has given it up, or has ended.
        if !self.is_over {
            self.open.facts.fail("cancelled");
        }
    }
}

/// The methods that have names in the conventions.
pub(crate) fn known(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| method.as_str() == *known)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::traces::{Sampler, Span, Traces};

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    /// The scope of a call whose client says this, and where its spans come.
    fn scope(flags: &str) -> (Arc<Scope>, Receiver<Span>) {
        let (queue, spans) = mpsc::channel(10);
        let traces = Traces::new(Sampler::default(), queue, Arc::default());
        let remote = Context::parse(format!("00-{TRACE}-00f067aa0ba902b7-{flags}").as_bytes());
        (traces.enter(remote, Context::new), spans)
    }

    /// The `traceparent` with which a request goes out that the guest has given this one, and its span.
    fn sent(scope: &(Arc<Scope>, Receiver<Span>), theirs: Option<&str>) -> (String, Option<u64>) {
        let mut headers = HeaderMap::new();
        if let Some(theirs) = theirs {
            headers.insert(TRACEPARENT, HeaderValue::from_str(theirs).unwrap());
        }
        let uri = "http://a:secret@x.example/path?secret".parse().unwrap();
        let sent = request(&scope.0, &Method::GET, &uri, &mut headers);
        let id = sent.as_ref().map(|sent| sent.open.context().span);
        (headers[TRACEPARENT].to_str().unwrap().to_owned(), id)
    }

    #[test]
    fn a_request_is_told_of_its_own_span() {
        let mut recorded = scope("01");
        let (header, id) = sent(&recorded, None);
        assert_eq!(header, format!("00-{TRACE}-{:016x}-01", id.unwrap()));
        let span = recorded.1.try_recv().unwrap();
        assert_eq!((span.id, span.parent), (id.unwrap(), recorded.0.context.span));
        assert!(!format!("{span:?}").contains("secret"), "{span:?}");
        assert!(span.facts.failed, "it was given up");
    }

    #[test]
    fn a_header_that_repeats_what_the_guest_was_told_is_replaced() {
        let recorded = scope("01");
        let (header, id) = sent(&recorded, Some(&recorded.0.context.string()));
        assert_eq!(header, format!("00-{TRACE}-{:016x}-01", id.unwrap()));
    }

    #[test]
    fn a_guests_own_span_is_kept_and_the_request_is_below_it() {
        let mut recorded = scope("01");
        let theirs = format!("00-{TRACE}-00000000000000aa-01");
        assert_eq!(sent(&recorded, Some(&theirs)).0, theirs);
        assert_eq!(recorded.1.try_recv().unwrap().parent, 0xaa);
        // One of a trace of its own is kept, too, but that is another trace.
        let other = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-00000000000000aa-01";
        assert_eq!(sent(&recorded, Some(other)).0, other);
        assert_eq!(recorded.1.try_recv().unwrap().parent, recorded.0.context.span);
        assert_eq!(sent(&recorded, Some("mine")).0, "mine");
    }

    #[test]
    fn a_trace_that_is_not_recorded_is_passed_on() {
        let mut passed = scope("00");
        let told = format!("00-{TRACE}-00f067aa0ba902b7-00");
        assert_eq!(sent(&passed, None), (told.clone(), None));
        let mut metadata = vec![("x".to_owned(), "y".to_owned())];
        assert!(jobs(&passed.0, "mail", [&mut metadata].into_iter()).is_none());
        assert_eq!(metadata[1], ("traceparent".to_owned(), told));
        assert!(passed.1.try_recv().is_err());
    }

    #[test]
    fn metadata_that_has_a_trace_or_no_room_for_one_stays_as_it_is() {
        let recorded = scope("01");
        let entry = |name: &str, bytes: usize| (name.to_owned(), "x".repeat(bytes));
        for before in [
            vec![entry("Traceparent", 3)],
            vec![entry("a", METADATA_BYTES_MAX - 10)],
            vec![entry("a", 1); METADATA_ENTRIES_MAX],
        ] {
            let mut metadata = before.clone();
            assert!(jobs(&recorded.0, "mail", [&mut metadata].into_iter()).is_some());
            assert_eq!(metadata, before);
        }
    }
}
