//! A request's head, before it's routed: what the host refuses, whom the request is for, how it came here, and the
//! names that it is known by in every log.
//!
//! | header | from anybody | from a trusted proxy |
//! | --- | --- | --- |
//! | `X-Forwarded-For` | the peer | what was there, and the peer |
//! | `X-Forwarded-Proto`, `-Host` | the connection's own | kept, and believed |
//! | `Forwarded`, `X-Real-IP`, any other `X-Forwarded-*` | removed | kept |
//! | `X-Request-Id`, `traceparent` | kept if they are well-formed, otherwise made | the same |

use std::net::IpAddr;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use wasmhost_engine::RequestScheme;

use super::answer::Failure;
use super::framing::Found;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const REQUEST_ID_BYTES_MAX: usize = 128;

/// The most headers that are added to a request.
const ADDED_MAX: usize = 6;

/// The other end of a connection.
pub(super) struct Peer {
    /// None of a unix socket.
    pub(super) address: Option<IpAddr>,
    /// The address, as a header's value.
    pub(super) shown: Option<HeaderValue>,
    /// Whether it is a proxy that says the truth about its client.
    pub(super) trusted: bool,
    pub(super) scheme: RequestScheme,
    /// Whom a request is for that doesn't say.
    pub(super) authority: HeaderValue,
}

/// What a request's head says, after it has been put in order.
pub(super) struct Head {
    pub(super) authority: HeaderValue,
    pub(super) scheme: RequestScheme,
}

/// The headers that were there, of those that matter here.
#[derive(Default)]
struct Seen {
    connection: bool,
    /// `Transfer-Encoding`.
    encoding: bool,
    expect: bool,
    upgrade: bool,
    /// `Forwarded`, `X-Forwarded-*` or `X-Real-IP`.
    forwarding: bool,
    request_id: bool,
    traceparent: bool,
    tracestate: bool,
}

/// Puts a head in order. Its id is known whatever is wrong with it. `found` is what its
/// bytes have shown that it doesn't show any more.
pub(super) fn settle<B>(
    request: &mut Request<B>,
    peer: &Peer,
    found: Found,
) -> (HeaderValue, Result<Head, Failure>) {
    let seen = Seen::look(request.headers());
    request.headers_mut().reserve(ADDED_MAX);
    let request_id = identify(request.headers_mut(), &seen);
    let head = check(request, &seen, found).and_then(|()| {
        if seen.connection {
            remove_hop_by_hop(request.headers_mut());
        }
        let (authority, scheme) = forward(request, &seen, peer)?;
        Ok(Head { authority, scheme })
    });
    (request_id, head)
}

/// The client at the far end of the proxies that are trusted.
pub(super) fn client<B>(
    request: &Request<B>,
    peer: &Peer,
    trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut client = peer.address;
    let mut is_trusted = peer.trusted;
    if !is_trusted {
        return client;
    }
    let lines: Vec<_> = request.headers().get_all(X_FORWARDED_FOR).iter().collect();
    let addresses =
        lines.iter().rev().filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
    for address in addresses {
        let Some(address) = address.trim().parse().ok().filter(|_| is_trusted) else { break };
        client = Some(address);
        is_trusted = trusted(address);
    }
    client
}

impl Seen {
    fn look(headers: &HeaderMap) -> Seen {
        let mut seen = Seen::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => seen.connection = true,
                "expect" => seen.expect = true,
                "transfer-encoding" => seen.encoding = true,
                "upgrade" => seen.upgrade = true,
                "x-request-id" => seen.request_id = true,
                "traceparent" => seen.traceparent = true,
                "tracestate" => seen.tracestate = true,
                name => seen.forwarding |= is_forwarding(name),
            }
        }
        seen
    }
}

fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

/// What the host doesn't do.
fn check<B>(request: &Request<B>, seen: &Seen, found: Found) -> Result<(), Failure> {
    if found.has(Found::BARE_LF) {
        return Err(Failure::BARE_LF);
    }
    if found.has(Found::LENGTH) && seen.encoding {
        return Err(Failure::TWO_LENGTHS);
    }
    if request.method() == Method::CONNECT {
        return Err(Failure::UPGRADE);
    }
    let all = |name, is: fn(&[u8]) -> bool| request.headers().get_all(name).iter().all(|v| is(v.as_bytes()));
    // An offer of HTTP/2, which curl makes, may be ignored (RFC 9110, section 7.8): the answer is as good in HTTP/1.1.
    if seen.upgrade && !all(header::UPGRADE, |value| value.eq_ignore_ascii_case(b"h2c")) {
        return Err(Failure::UPGRADE);
    }
    if seen.expect && !all(header::EXPECT, |value| value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Failure::EXPECTATION);
    }
    Ok(())
}

/// Headers that were for the next hop alone, which is this host. (Those that are always so, such as `Keep-Alive`, the
/// engine keeps from guests.)
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for line in headers.get_all(header::CONNECTION) {
        let names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        named.extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
    for name in named {
        // What frames a message, or says whom it is for, isn't a client's to take away.
        if ![header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TE].contains(&name) {
            headers.remove(name);
        }
    }
}

/// Whom the request is for and by which scheme it was sent, as far as that can be believed; and what guests are told
/// of it.
fn forward<B>(
    request: &mut Request<B>,
    seen: &Seen,
    peer: &Peer,
) -> Result<(HeaderValue, RequestScheme), Failure> {
    if seen.forwarding && !peer.trusted {
        let headers = request.headers_mut();
        let theirs: Vec<_> = headers.keys().filter(|name| is_forwarding(name.as_str())).cloned().collect();
        theirs.into_iter().for_each(|name| drop(headers.remove(name)));
    }
    let mut authority = match authority(request)? {
        Some(authority) => authority,
        // Only HTTP/1.1 asks for a host: RFC 9112, section 3.3.
        None if request.version() < Version::HTTP_11 => {
            request.headers_mut().insert(header::HOST, peer.authority.clone());
            peer.authority.clone()
        }
        None => return Err(Failure::NO_AUTHORITY),
    };
    let mut scheme = peer.scheme;
    if seen.forwarding && peer.trusted {
        if let Some(host) = first(request.headers(), &X_FORWARDED_HOST) {
            let host = HeaderValue::from_str(host).ok().filter(is_authority).ok_or(Failure::NO_AUTHORITY)?;
            set_authority(request, &host)?;
            authority = host;
        }
        scheme = match first(request.headers(), &X_FORWARDED_PROTO) {
            Some(proto) if proto.eq_ignore_ascii_case("https") => RequestScheme::Https,
            Some(proto) if proto.eq_ignore_ascii_case("http") => RequestScheme::Http,
            _ => scheme,
        };
        add_peer(request.headers_mut(), peer);
    } else if let Some(address) = &peer.shown {
        request.headers_mut().insert(X_FORWARDED_FOR, address.clone());
    }
    let proto = match scheme {
        RequestScheme::Http => "http",
        RequestScheme::Https => "https",
    };
    let headers = request.headers_mut();
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(X_FORWARDED_HOST, authority.clone());
    Ok((authority, scheme))
}

/// The first of a list: what the proxy nearest to the client has said.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?;
    value.split(',').next().map(str::trim).filter(|first| !first.is_empty())
}

/// Adds the peer to those that the request has come by.
fn add_peer(headers: &mut HeaderMap, peer: &Peer) {
    let Some(address) = &peer.shown else { return };
    let mut list = Vec::new();
    for line in headers.get_all(X_FORWARDED_FOR) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(address.as_bytes());
    if let Ok(list) = HeaderValue::from_maybe_shared(Bytes::from(list)) {
        headers.insert(X_FORWARDED_FOR, list);
    }
}

/// Makes a request one for this authority.
fn set_authority<B>(request: &mut Request<B>, authority: &HeaderValue) -> Result<(), Failure> {
    if request.uri().authority().is_some() {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = Some(Authority::try_from(authority.as_bytes()).map_err(|_| Failure::NO_AUTHORITY)?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Failure::NO_AUTHORITY)?;
    }
    if request.headers().contains_key(header::HOST) || request.uri().authority().is_none() {
        request.headers_mut().insert(header::HOST, authority.clone());
    }
    Ok(())
}

/// The one authority that a request names: in its target, or in `Host`. Two that differ are an error.
fn authority<B>(request: &Request<B>) -> Result<Option<HeaderValue>, Failure> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Failure::NO_AUTHORITY);
    }
    let host = host.filter(|host| !host.is_empty());
    if host.is_some_and(|host| !is_authority(host)) {
        return Err(Failure::NO_AUTHORITY);
    }
    let Some(target) = request.uri().authority() else { return Ok(host.cloned()) };
    if host.is_some_and(|host| !target.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())) {
        return Err(Failure::NO_AUTHORITY);
    }
    let target = HeaderValue::from_str(target.as_str()).ok().filter(is_authority);
    target.map(Some).ok_or(Failure::NO_AUTHORITY)
}

/// Whether this is a host with or without a port, by its characters: RFC 3986, section 3.2, without a user.
fn is_authority(value: &HeaderValue) -> bool {
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']' | b'%')
    };
    !value.is_empty() && value.as_bytes().iter().all(allowed)
}

/// Keeps what names the request, or makes it. A request without either gets one number for both, so that logs and
/// traces can be put together.
fn identify(headers: &mut HeaderMap, seen: &Seen) -> HeaderValue {
    let kept_id = if seen.request_id { only(headers, &X_REQUEST_ID, is_request_id) } else { None };
    let kept_trace =
        if seen.traceparent { only(headers, &TRACEPARENT, is_traceparent).is_some() } else { false };
    if let (Some(id), true) = (&kept_id, kept_trace) {
        return id.clone();
    }
    let (trace, number) = make_trace();
    if !kept_trace {
        headers.insert(TRACEPARENT, trace);
        if seen.tracestate {
            // It belongs to a trace that nobody knows.
            headers.remove(TRACESTATE);
        }
    }
    match kept_id {
        Some(id) => id,
        None => {
            headers.insert(X_REQUEST_ID, number.clone());
            number
        }
    }
}

/// The only value of a header, if it is well-formed.
fn only(headers: &HeaderMap, name: &HeaderName, is_sound: fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| is_sound(value.as_bytes()))?;
    values.next().is_none().then(|| value.clone())
}

fn is_request_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

/// `00-<trace id>-<parent id>-<flags>`, in lower case: W3C Trace Context, section 3.2. Later versions may go on after
/// a `-`.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value[range].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |range: std::ops::Range<usize>| value[range].iter().all(|byte| *byte == b'0');
    value.len() >= 55
        && (value.len() == 55 || (&value[..2] != b"00" && value[55] == b'-'))
        && [2, 35, 52].iter().all(|at| value[*at] == b'-')
        && [0..2, 3..35, 36..52, 53..55].into_iter().all(hex)
        && &value[..2] != b"ff"
        && !zero(3..35)
        && !zero(36..52)
}

/// A new trace, and its number. It is marked as sampled, which leaves the choice to whoever records it: unmarked, most
/// would record nothing of it.
fn make_trace() -> (HeaderValue, HeaderValue) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    write_hex(&fastrand::u128(1..).to_be_bytes(), &mut text[3..35]);
    write_hex(&fastrand::u64(1..).to_be_bytes(), &mut text[36..52]);
    let text = Bytes::copy_from_slice(&text);
    let value = |text: Bytes| HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static("-"));
    (value(text.clone()), value(text.slice(3..35)))
}

fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn peer(trusted: bool) -> Peer {
        Peer {
            address: Some("192.0.2.1".parse().unwrap()),
            shown: Some(HeaderValue::from_static("192.0.2.1")),
            trusted,
            scheme: RequestScheme::Http,
            authority: HeaderValue::from_static("127.0.0.1:80"),
        }
    }

    fn authority_of(target: &str, hosts: &[&str]) -> Option<String> {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let found = authority(&request(target, &headers)).ok()??;
        Some(found.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_request_has_one_authority_or_none() {
        assert_eq!(authority_of("/", &["a.example"]).as_deref(), Some("a.example"));
        assert_eq!(authority_of("http://A.example/", &["a.example"]).as_deref(), Some("A.example"));
        assert_eq!(authority_of("/", &["[::1]:80"]).as_deref(), Some("[::1]:80"));
        for (target, hosts) in [
            ("http://b.example/", &["a.example"][..]),
            ("/", &["a.example", "b.example"]),
            ("/", &[]),
            ("/", &[""]),
            ("/", &["a b"]),
            ("/", &["me@a.example"]),
            ("/", &["a/b"]),
        ] {
            assert_eq!(authority_of(target, hosts), None, "{target} {hosts:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_says_who_asked_for_what() {
        let headers = [
            ("host", "inner"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "444"),
            ("forwarded", "for=203.0.113.7"),
        ];
        let settled = |trusted| {
            let mut request = request("/", &headers);
            let head = settle(&mut request, &peer(trusted), Found::default()).1.unwrap();
            let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            let names =
                ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "host"];
            let client = client(&request, &peer(trusted), |_| false).unwrap().to_string();
            (names.map(header), head.authority.to_str().unwrap().to_owned(), head.scheme, client)
        };
        let some = |text: &str| Some(text.to_owned());
        let told = [some("192.0.2.1"), some("inner"), some("http"), None, some("inner")];
        assert_eq!(settled(false), (told, "inner".into(), RequestScheme::Http, "192.0.2.1".into()));
        let told = [
            some("203.0.113.7, 192.0.2.1"),
            some("shop.example"),
            some("https"),
            some("444"),
            some("shop.example"),
        ];
        assert_eq!(settled(true).0, told);
        assert_eq!(settled(true).1, "shop.example");
        assert_eq!(settled(true).2, RequestScheme::Https);
    }

    #[test]
    fn the_client_is_the_last_address_that_no_proxy_has() {
        let by = |list: &str| {
            let request = request("/", &[("x-forwarded-for", list)]);
            let trusted = |address: IpAddr| address.to_string().starts_with("10.");
            client(&request, &peer(true), trusted).unwrap().to_string()
        };
        assert_eq!(by("198.51.100.1, 203.0.113.7, 10.0.0.1"), "203.0.113.7");
        assert_eq!(by("10.0.0.2,10.0.0.1"), "10.0.0.2");
        assert_eq!(by("nonsense"), "192.0.2.1");
        assert_eq!(by("198.51.100.1, nonsense, 10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn names_are_kept_if_they_are_well_formed() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [("host", "a"), ("x-request-id", "abc"), ("traceparent", trace), ("tracestate", "a=1")];
        let mut kept = request("/", &headers);
        assert_eq!(settle(&mut kept, &peer(false), Found::default()).0, "abc");
        assert_eq!(kept.headers()["traceparent"], trace);
        assert_eq!(kept.headers()["tracestate"], "a=1");
        let bad = [("host", "a"), ("x-request-id", "a b"), ("traceparent", "00-0"), ("tracestate", "a=1")];
        let mut made = request("/", &bad);
        let id = settle(&mut made, &peer(false), Found::default()).0;
        let id = id.to_str().unwrap();
        assert_eq!((id.len(), &made.headers()["x-request-id"]), (32, &HeaderValue::from_str(id).unwrap()));
        let trace = made.headers()["traceparent"].to_str().unwrap();
        assert!(is_traceparent(trace.as_bytes()) && &trace[3..35] == id, "{trace}");
        assert!(!made.headers().contains_key("tracestate"));
    }

    #[test]
    fn a_trace_of_another_form_is_none() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(trace.as_bytes()));
        assert!(is_traceparent(format!("cc{}-later", &trace[2..]).as_bytes()));
        for bad in [
            trace.to_uppercase(),
            format!("{trace}-more"),
            format!("ff{}", &trace[2..]),
            trace.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            trace.replace("00f067aa0ba902b7", &"0".repeat(16)),
            trace[..54].to_owned(),
            String::new(),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn what_the_connection_header_names_stays_here() {
        let headers =
            [("host", "a"), ("connection", "close, X-Secret, host"), ("x-secret", "1"), ("x-two", "2")];
        let mut request = request("/", &headers);
        settle(&mut request, &peer(false), Found::default()).1.unwrap();
        assert!(!request.headers().contains_key("x-secret"));
        assert!(request.headers().contains_key("x-two") && request.headers().contains_key("host"));
    }

    #[test]
    fn only_what_can_be_done_is_promised() {
        let status = |headers: &[(&'static str, &str)]| {
            settle(&mut request("/", headers), &peer(false), Found::default())
                .1
                .map(drop)
                .map_err(|failure| failure.status.as_u16())
        };
        assert_eq!(status(&[("host", "a"), ("upgrade", "h2c")]), Ok(()));
        assert_eq!(status(&[("host", "a"), ("upgrade", "websocket")]), Err(501));
        assert_eq!(status(&[("host", "a"), ("expect", "100-Continue")]), Ok(()));
        assert_eq!(status(&[("host", "a"), ("expect", "wonders")]), Err(417));
    }
}
