//! A request's part in a trace: taken from its client, or begun here.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Request, Version};
use wasmhost_engine::RequestScheme;

use super::Answer;
use super::answer::WASMHOST_ERROR;
use super::head::Head;
use crate::traces::{Context, Kind, Open, Scope, TRACEPARENT, Traces, known_method};

/// A request arrives, whose head has been put in order: it says a trace by now. `remote` is the one that it said before.
pub(super) fn enter(traces: &Arc<Traces>, remote: Option<Context>, headers: &mut HeaderMap) -> Arc<Scope> {
    let made = || Context::of_headers(headers).unwrap_or_else(Context::new);
    let scope = traces.enter(remote, made);
    let says = headers.get(TRACEPARENT).and_then(|value| Context::parse(value.as_bytes()));
    // Where it is recorded the call tells its guest.
    if !scope.is_recorded() && says.is_none_or(|says| says.is_sampled()) {
        scope.put_on(headers);
    }
    scope
}

/// The span of a request, if it is recorded. Nothing of its query and its headers is in it, but for whom it is for.
pub(super) fn begin<B>(
    scope: &Arc<Scope>,
    request: &Request<B>,
    head: Option<&Head>,
    remote: impl FnOnce() -> Option<IpAddr>,
) -> Option<Box<Open>> {
    let method = known_method(request.method());
    let mut span = Box::new(scope.own(method.unwrap_or("HTTP"), Kind::Server)?);
    let facts = &mut span.facts;
    facts.set("http.request.method", method.unwrap_or("_OTHER"));
    facts.set("url.path", request.uri().path().to_owned());
    if let Some(head) = head {
        let https = head.scheme == RequestScheme::Https;
        facts.set("url.scheme", if https { "https" } else { "http" });
        if let Some(authority) =
            head.authority.to_str().ok().and_then(|text| text.parse::<http::uri::Authority>().ok())
        {
            facts.set("server.address", authority.host().to_owned());
            let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
            facts.set("server.port", u64::from(port));
        }
    }
    facts.set("network.protocol.name", "http");
    facts.set(
        "network.protocol.version",
        match request.version() {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        },
    );
    if let Some(remote) = remote() {
        facts.set("client.address", remote.to_string());
    }
    Some(span)
}

/// The request is for this type.
pub(super) fn is_for(span: &mut Open, process: &str) {
    span.name.push(' ');
    span.name.push_str(process);
    span.facts.set("wasmhost.type", process.to_owned());
}

/// There is an answer.
pub(super) fn answered(span: &mut Open, answer: &Answer) {
    let status = answer.status();
    span.facts.set("http.response.status_code", u64::from(status.as_u16()));
    if status.is_server_error() {
        let code = match answer.body() {
            http_body_util::Either::Left(_) => None,
            http_body_util::Either::Right(_) => answer.headers().get(WASMHOST_ERROR),
        };
        let code = code.and_then(|code| code.to_str().ok()).unwrap_or(status.as_str());
        span.facts.fail(code.to_owned());
    }
}
