//! A request's head, before it is routed: the host refuses what it doesn't do, and removes or rewrites the headers that
//! a guest must not take for something else. Where the request came from is [`super::forwarding`]'s, and its names are
//! [`super::identity`]'s.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use wasmhost_engine::RequestScheme;

use super::answer::Failure;
use super::forwarding::{Peer, forward, is_forwarding};
use super::framing::Found;
use super::identity::{Names, identify};

/// The most headers that are added to a request.
const ADDED_MAX: usize = 6;

/// The authority and scheme that a request's head says, after it has been put in order.
pub(super) struct Head {
    pub(super) authority: HeaderValue,
    pub(super) scheme: RequestScheme,
}

/// The headers that were there, of those that matter here.
#[derive(Default)]
struct Seen {
    connection: bool,
    cookie: bool,
    /// `Transfer-Encoding`.
    encoding: bool,
    expect: bool,
    upgrade: bool,
    /// `Forwarded`, `X-Forwarded-*` or `X-Real-IP`.
    forwarding: bool,
    /// A name with an underscore.
    underscore: bool,
    names: Names,
}

/// Puts a head in order. Its id is known whatever is wrong with it. `found` is why it must not be served, as its bytes
/// have shown.
pub(super) fn settle<B>(
    request: &mut Request<B>,
    peer: &Peer,
    found: Found,
) -> (HeaderValue, Result<Head, Failure>) {
    let seen = Seen::look(request.headers());
    request.headers_mut().reserve(ADDED_MAX);
    let request_id = identify(request.headers_mut(), &seen.names);
    let head = check(request, &seen, found).and_then(|()| {
        if seen.connection {
            remove_hop_by_hop(request.headers_mut());
        }
        if seen.underscore {
            remove_underscores(request.headers_mut());
        }
        if seen.cookie && request.version() == Version::HTTP_2 {
            join_cookies(request.headers_mut());
        }
        let (authority, scheme) = forward(request, seen.forwarding, peer)?;
        Ok(Head { authority, scheme })
    });
    (request_id, head)
}

impl Seen {
    fn look(headers: &HeaderMap) -> Seen {
        let mut seen = Seen::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => seen.connection = true,
                "cookie" => seen.cookie = true,
                "expect" => seen.expect = true,
                "transfer-encoding" => seen.encoding = true,
                "upgrade" => seen.upgrade = true,
                "x-request-id" => seen.names.request_id = true,
                "traceparent" => seen.names.traceparent = true,
                "tracestate" => seen.names.tracestate = true,
                name => {
                    seen.forwarding |= is_forwarding(name);
                    seen.underscore |= name.as_bytes().contains(&b'_');
                }
            }
        }
        seen
    }
}

/// Refuses what the host doesn't do, and what another program may read as another request.
fn check<B>(request: &Request<B>, seen: &Seen, found: Found) -> Result<(), Failure> {
    if found != Found::default() {
        return Err(match found {
            found if found.has(Found::BARE_LF) => Failure::BARE_LF,
            found if found.has(Found::TWO_LENGTHS) => Failure::TWO_LENGTHS,
            _ => Failure::LOST,
        });
    }
    if seen.encoding {
        check_encoding(request.headers())?;
    }
    if request.method() == Method::CONNECT || (seen.upgrade && asks_for_upgrade(request)) {
        return Err(Failure::UPGRADE);
    }
    let met = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if seen.expect && !request.headers().get_all(header::EXPECT).iter().all(met) {
        return Err(Failure::EXPECTATION);
    }
    Ok(())
}

/// `chunked`, once and alone: nothing else is decoded here. (hyper refuses a request in which it doesn't come last, and
/// one in HTTP/1.0 that has any.)
fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    let mut chunked = 0;
    let mut others = false;
    for coding in members(headers, header::TRANSFER_ENCODING) {
        match coding {
            b"" => return Err(Failure::BAD_ENCODING),
            coding if coding.eq_ignore_ascii_case(b"chunked") => chunked += 1,
            _ => others = true,
        }
    }
    match (chunked, others) {
        (1, false) => Ok(()),
        (1, true) => Err(Failure::ENCODING),
        _ => Err(Failure::BAD_ENCODING),
    }
}

/// Whether a client wants to go on in another protocol: RFC 9110, section 7.8. An offer of HTTP/2, which curl makes, may
/// be ignored, since the answer is as good in HTTP/1.1.
fn asks_for_upgrade<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_11
        && members(headers, header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && members(headers, header::UPGRADE)
            .any(|protocol| !protocol.is_empty() && !protocol.eq_ignore_ascii_case(b"h2c"))
}

/// The members of a list in a header, in all of its lines.
fn members(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

/// Removes headers that were for the next hop alone, which is this host. (Those that are always so, such as
/// `Keep-Alive`, the engine keeps from guests.)
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> =
        members(headers, header::CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in named {
        // A header that frames a message, or says whom it is for, isn't a client's to take away.
        if ![header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TE].contains(&name) {
            headers.remove(name);
        }
    }
}

/// Removes `x_forwarded_for` and the like: CGI, WSGI and others take them for the headers with a hyphen, which this host
/// vouches for.
fn remove_underscores(headers: &mut HeaderMap) {
    let theirs: Vec<_> =
        headers.keys().filter(|name| name.as_str().as_bytes().contains(&b'_')).cloned().collect();
    theirs.into_iter().for_each(|name| drop(headers.remove(name)));
}

/// HTTP/2 may split the cookies over several headers, and a guest is to see one: RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    if lines.nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(lines.join(&b"; "[..]))) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
#[path = "head/tests.rs"]
mod tests;
