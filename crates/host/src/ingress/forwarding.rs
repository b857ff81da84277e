//! The path of a request to this host: whom it is for, by which scheme its client sent it, and who its client is, as far
//! as that can be believed; and the `X-Forwarded-*` headers that tell guests so.
//!
//! | header | from anybody | from a trusted proxy |
//! | --- | --- | --- |
//! | `X-Forwarded-For` | the peer | what was there, and the peer |
//! | `X-Forwarded-Proto`, `-Host` | the connection's own | kept, and believed |
//! | `Forwarded`, `X-Real-IP`, any other `X-Forwarded-*` | removed | kept |

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};
use wasmhost_engine::RequestScheme;

use super::answer::Failure;
use super::authority::Authority;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The other end of a connection.
pub(super) struct Peer {
    /// None of a unix socket.
    pub(super) address: Option<IpAddr>,
    /// The address, as a header's value.
    pub(super) shown: Option<HeaderValue>,
    /// Whether it is a proxy that says the truth about its client.
    pub(super) trusted: bool,
    pub(super) scheme: RequestScheme,
    /// The authority of a request that names none.
    pub(super) authority: HeaderValue,
}

/// Whether a header says how a request has come here.
pub(super) fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip"
}

/// The authority and the scheme of a request. Its headers say the same to the guest. `forwarded` says whether any header
/// is there that [`is_forwarding`].
pub(super) fn forward<B>(
    request: &mut Request<B>,
    forwarded: bool,
    peer: &Peer,
) -> Result<(HeaderValue, RequestScheme), Failure> {
    if forwarded && !peer.trusted {
        let headers = request.headers_mut();
        let theirs: Vec<_> = headers.keys().filter(|name| is_forwarding(name.as_str())).cloned().collect();
        theirs.into_iter().for_each(|name| drop(headers.remove(name)));
    }
    let mut authority = match authority(request, peer.scheme)? {
        Some(authority) => authority,
        // Only HTTP/1.1 asks for a host: RFC 9112, section 3.3.
        None if request.version() < Version::HTTP_11 => {
            request.headers_mut().insert(header::HOST, peer.authority.clone());
            peer.authority.clone()
        }
        None => return Err(Failure::NO_AUTHORITY),
    };
    let mut scheme = peer.scheme;
    if forwarded && peer.trusted {
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
    let members = lines.iter().rev().filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
    // An empty member of a list says nothing: RFC 9110, section 5.6.1.2.
    for member in members.map(str::trim).filter(|member| !member.is_empty()) {
        let Some(address) = node(member).filter(|_| is_trusted) else { break };
        client = Some(address);
        is_trusted = trusted(address);
    }
    client
}

/// The address of one hop, in the forms that proxies write: bare, with a port, in brackets, in quotes. An IPv4 address
/// in the clothes of IPv6 is one of IPv4.
fn node(member: &str) -> Option<IpAddr> {
    let quoted = member.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = quoted.unwrap_or(member).trim();
    let bare = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    bare().or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
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
        let authority = http::uri::Authority::try_from(authority.as_bytes());
        parts.authority = Some(authority.map_err(|_| Failure::NO_AUTHORITY)?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Failure::NO_AUTHORITY)?;
    }
    if request.headers().contains_key(header::HOST) || request.uri().authority().is_none() {
        request.headers_mut().insert(header::HOST, authority.clone());
    }
    Ok(())
}

/// The authority that a request names. On HTTP/1 a target with an authority is believed and `Host` isn't, though it must
/// be there (RFC 9112, section 3.2); on HTTP/2 both have to name one server (RFC 9113, section 8.3.1).
fn authority<B>(request: &Request<B>, scheme: RequestScheme) -> Result<Option<HeaderValue>, Failure> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return Err(Failure::NO_AUTHORITY);
    }
    let host = host.filter(|host| !host.is_empty());
    let parsed =
        host.map(|host| Authority::parse(host.as_bytes()).ok_or(Failure::NO_AUTHORITY)).transpose()?;
    let Some(target) = request.uri().authority() else { return Ok(host.cloned()) };
    let of_target = Authority::parse(target.as_str().as_bytes()).ok_or(Failure::NO_AUTHORITY)?;
    if let Some(host) = parsed
        && request.version() >= Version::HTTP_2
        && !host.is_same(&of_target, scheme)
    {
        return Err(Failure::NO_AUTHORITY);
    }
    HeaderValue::from_str(target.as_str()).map(Some).map_err(|_| Failure::NO_AUTHORITY)
}

fn is_authority(value: &HeaderValue) -> bool {
    Authority::parse(value.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, target: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn authority_of(version: Version, target: &str, hosts: &[&str]) -> Option<String> {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let found = authority(&request(version, target, &headers), RequestScheme::Http).ok()??;
        Some(found.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_request_has_one_authority_or_none() {
        for (target, hosts, expected) in [
            ("/", &["a.example"][..], "a.example"),
            ("/", &["[::1]:80"], "[::1]:80"),
            ("http://A.example/", &["a.example"], "A.example"),
            ("http://a.example/", &["b.example"], "a.example"),
            ("http://a.example:80/", &["a.example"], "a.example:80"),
            ("http://a.example/", &[""], "a.example"),
        ] {
            let found = authority_of(Version::HTTP_11, target, hosts);
            assert_eq!(found.as_deref(), Some(expected), "{target} {hosts:?}");
        }
        for (target, hosts) in [
            ("/", &["a.example", "b.example"][..]),
            ("/", &["a.example", "a.example"]),
            ("/", &[]),
            ("/", &[""]),
            ("/", &["a b"]),
            ("/", &["me@a.example"]),
            ("/", &["a/b"]),
            ("/", &["x:80:80"]),
            ("http://a.example/", &[]),
            ("http://a.example/", &["a/b"]),
            ("http://me@a.example/", &["a.example"]),
            ("http://a.example:65536/", &["a.example"]),
        ] {
            assert_eq!(authority_of(Version::HTTP_11, target, hosts), None, "{target} {hosts:?}");
        }
        assert_eq!(authority_of(Version::HTTP_10, "http://a.example/", &[]).as_deref(), Some("a.example"));
    }

    #[test]
    fn both_authorities_of_http2_name_one_server() {
        let of = |host: &str| authority_of(Version::HTTP_2, "http://a.example/", &[host]);
        for host in ["a.example", "A.Example", "a.example:80", "a.example.", ""] {
            assert_eq!(of(host).as_deref(), Some("a.example"), "{host}");
        }
        for host in ["b.example", "a.example:8080", "a.example.b", "a b"] {
            assert_eq!(of(host), None, "{host}");
        }
        assert_eq!(authority_of(Version::HTTP_2, "http://a.example/", &[]).as_deref(), Some("a.example"));
    }

    #[test]
    fn the_client_is_the_last_address_that_no_proxy_has() {
        let peer = Peer {
            address: Some("192.0.2.1".parse().unwrap()),
            shown: None,
            trusted: true,
            scheme: RequestScheme::Http,
            authority: HeaderValue::from_static("127.0.0.1:80"),
        };
        let by = |list: &str| {
            let request = request(Version::HTTP_11, "/", &[("x-forwarded-for", list)]);
            let trusted = |address: IpAddr| address.to_string().starts_with("10.");
            client(&request, &peer, trusted).unwrap().to_string()
        };
        for (list, expected) in [
            ("198.51.100.1, 203.0.113.7, 10.0.0.1", "203.0.113.7"),
            ("10.0.0.2,10.0.0.1", "10.0.0.2"),
            ("nonsense", "192.0.2.1"),
            ("198.51.100.1, nonsense, 10.0.0.1", "10.0.0.1"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("\"203.0.113.7\"", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, [::ffff:10.0.0.1]:80", "203.0.113.7"),
            ("203.0.113.7, ", "203.0.113.7"),
            (",203.0.113.7,\t,10.0.0.1,", "203.0.113.7"),
            ("203.0.113.7:99999", "192.0.2.1"),
            ("unknown", "192.0.2.1"),
            ("_hidden, 10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(by(list), expected, "{list:?}");
        }
    }
}
