//! Routes: a host and a path prefix.

use crate::address::canonical_host;
use crate::formation::Route;
use crate::normal::{has_whole_escapes, normal_host, normal_path};
use crate::spelling::quoted;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Why a text is no route: what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RouteError(String);

/// `/`, `/v1`, `api.example.com`, `api.example.com/v1`, `[2001:db8::1]/v1`. A host of one label needs its `/`: `shop/`.
/// Hosts and paths are kept in the form in which they are compared: `/café` is `/caf%C3%A9`.
///
/// # Errors
///
/// Anything else: a scheme, a port, `*`, a query, empty or dotted segments, a `%` without two digits.
impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let found = quoted(text);
        let expected = "a path prefix, a host, or both, such as \"/v1\" or \"api.example.com/v1\"";
        let refuse = |why: &str| Err(RouteError(format!("found {found}, expected {expected}{why}")));
        if text.contains("://") {
            return refuse("; a route has no scheme");
        }
        if text.contains('*') {
            return refuse("; there is no \"*\": a prefix matches all that is below it");
        }
        let (host, path) = match text.find('/') {
            Some(slash) => text.split_at(slash),
            None => (text, ""),
        };
        let host = match host {
            "" if path.is_empty() => return refuse(""),
            "" => None,
            host if host.starts_with('[') => match bracketed(host) {
                Some(host) => Some(host),
                None => return refuse("; an IPv6 address is in brackets, and a route has no port"),
            },
            host if host.parse::<Ipv6Addr>().is_ok() => {
                return refuse(&format!("; an IPv6 address is in brackets: \"[{host}]/\""));
            }
            host if host.contains(':') => return refuse("; a route has no port"),
            host if path.is_empty() && !host.contains('.') && host != "localhost" => {
                // "v1" is far more often a forgotten slash than a host, and would match nothing at all.
                return refuse(&format!(
                    "; a path starts with \"/\", and a host of that name is \"{host}/\""
                ));
            }
            host => match canonical_host(host) {
                Some(host) => Some(host),
                None => return refuse("; the host is no host name"),
            },
        };
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.contains(['?', '#', '\\']) || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return refuse("; a path has no query, space or backslash");
        }
        if !has_whole_escapes(path.as_bytes()) {
            return refuse("; two hexadecimal digits follow each \"%\" of a path");
        }
        let path = normal_path(path);
        if path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
            return refuse("; a path's segments can't be empty, \".\" or \"..\"");
        }
        Ok(Route { host, path: if path.is_empty() { "/".to_owned() } else { path.into_owned() } })
    }
}

/// `[2001:DB8::1]` -> `[2001:db8::1]`
fn bracketed(host: &str) -> Option<String> {
    let address = host.strip_prefix('[')?.strip_suffix(']')?;
    address.parse::<Ipv6Addr>().ok()?;
    Some(normal_host(host).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn routes_are_read() {
        for (text, host, path) in [
            ("/", None, "/"),
            ("/v1", None, "/v1"),
            ("/v1/", None, "/v1"),
            ("API.example.com", Some("api.example.com"), "/"),
            ("api.example.com/", Some("api.example.com"), "/"),
            ("api.example.com/v1/x", Some("api.example.com"), "/v1/x"),
            ("shop/", Some("shop"), "/"),
            ("localhost", Some("localhost"), "/"),
            ("10.0.0.1/a", Some("10.0.0.1"), "/a"),
            ("[2001:DB8:0::1]/a", Some("[2001:db8::1]"), "/a"),
            ("[::1]", Some("[::1]"), "/"),
            ("admin.example.com./a", Some("admin.example.com"), "/a"),
            ("/café", None, "/caf%C3%A9"),
            ("/caf%c3%a9", None, "/caf%C3%A9"),
            ("/%7Euser", None, "/~user"),
        ] {
            let route = Route { host: host.map(str::to_owned), path: path.to_owned() };
            assert_eq!(text.parse(), Ok(route), "{text}");
        }
    }

    #[test]
    fn what_is_no_route_is_refused() {
        for text in [
            "",
            "v1",
            "//",
            "/a//b",
            "/a/../b",
            "/a?b",
            "/a b",
            "https://a.com/",
            "a.com:80/",
            "*.a.com",
            "/a/*",
            "a..b/",
            "/a//",
            "[::1]:80/",
            "[::1/",
            "[a]/",
            "::1/",
            "/%",
            "/%zz",
            "/a/%2e%2e/b",
            "café.example/",
        ] {
            assert!(text.parse::<Route>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_route_or_is_refused(text in "[a./:*-]{0,12}|\\PC*") {
            if let Ok(route) = text.parse::<Route>() {
                let host = route.host.as_deref().unwrap_or_default();
                prop_assert_eq!(format!("{host}{}", route.path).parse(), Ok(route.clone()));
            }
        }
    }
}
