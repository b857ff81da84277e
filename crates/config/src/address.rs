//! Addresses: what `[http] listen` opens, and what `outbound` grants.

use crate::formation::Outbound;
use crate::normal::without_last_dot;
use crate::spelling::quoted;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why a text is no address: what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

impl AddressError {
    pub(crate) fn new(message: String) -> Self {
        AddressError(message)
    }
}

/// `https://HOST[:PORT]`, `http://HOST[:PORT]` or `HOST:PORT`, as in `outbound`.
///
/// # Errors
///
/// Anything else: other schemes, paths, a missing port, port 0, `*` other than as a first label.
impl FromStr for Outbound {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.contains('@') {
            // The text before the @ is most likely a password: it isn't repeated.
            return Err(AddressError(
                "found an address with a user or a password, expected the host and port alone".to_owned(),
            ));
        }
        let found = quoted(text);
        let expected = "\"https://HOST\", \"http://HOST\" or \"HOST:PORT\"";
        let (scheme, address) = match text.split_once("://") {
            Some((scheme, address)) => (Some(scheme.to_ascii_lowercase()), address),
            None => (None, text),
        };
        let default_port = match scheme.as_deref() {
            None => None,
            Some("https") => Some(443),
            Some("http") => Some(80),
            Some(_) => return Err(AddressError(format!("found {found}, expected {expected}"))),
        };
        let address = if scheme.is_some() { address.strip_suffix('/').unwrap_or(address) } else { address };
        if address.contains(['/', '?', '#']) {
            return Err(AddressError(format!(
                "found {found}, expected {expected}: a grant is for a whole host, without a path"
            )));
        }
        if address == "*" || address.starts_with("*:") {
            return Err(AddressError(format!(
                "found {found}, expected {expected}; for every host, write network = \"all\""
            )));
        }
        let (host, port) =
            split_port(address).ok_or_else(|| AddressError(format!("found {found}, expected {expected}")))?;
        let port = match (port, default_port) {
            (Some(0), _) => {
                return Err(AddressError(format!("found {found}, expected a port from 1 to 65535")));
            }
            (Some(port), _) | (None, Some(port)) => port,
            (None, None) => {
                return Err(AddressError(format!("found {found}, without a port; expected {expected}")));
            }
        };
        let (wildcard, name) = match host.strip_prefix("*.") {
            Some(name) => ("*.", name),
            None => ("", host),
        };
        match canonical_host(name) {
            Some(name) if wildcard.is_empty() || is_host_name(&name) => {
                Ok(Outbound { scheme, host: format!("{wildcard}{name}"), port })
            }
            _ => Err(AddressError(format!(
                "found {found}, whose host is no host name and no IP address; expected {expected}"
            ))),
        }
    }
}

/// Checks `[http] listen`: a host name or an IP address, and a port, 0 for any free one.
pub(crate) fn check_listen(text: &str) -> Result<(), AddressError> {
    let expected = "a host and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"";
    let found = quoted(text);
    match split_port(text) {
        Some(("" | "*", Some(port))) => Err(AddressError(format!(
            "found {found}, expected {expected}; for every address, write \"0.0.0.0:{port}\""
        ))),
        Some((host, Some(_))) if canonical_host(host).is_some() => Ok(()),
        _ => Err(AddressError(format!("found {found}, expected {expected}"))),
    }
}

/// Host, without brackets, and port, where it has one. A bare IPv6 address has none.
fn split_port(address: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = address.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port_number(port)?))),
            None if after.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match address.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => None,
        Some((host, port)) => Some((host, Some(port_number(port)?))),
        None => Some((address, None)),
    }
}

/// `u16::from_str` alone would take `+80`.
fn port_number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A host name in lower case and without a dot at its end, or an IP address in its usual form; `None` where it is
/// neither.
pub(crate) fn canonical_host(host: &str) -> Option<String> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Some(address.to_string());
    }
    let host = without_last_dot(host).to_ascii_lowercase();
    (host.parse::<Ipv4Addr>().is_ok() || is_host_name(&host)).then_some(host)
}

/// Labels of letters, digits, `-` and `_` (which container networks use), and a last one that isn't a number:
/// that would be a mistaken IP address.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number =
        host.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    host.len() <= 253 && host.split('.').all(label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outbound(text: &str) -> Result<String, String> {
        text.parse::<Outbound>().map(|outbound| outbound.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn outbound_takes_a_scheme_or_a_port() {
        for (text, shown) in [
            ("https://api.stripe.com", "https://api.stripe.com:443"),
            ("http://API.stripe.com/", "http://api.stripe.com:80"),
            ("https://api.stripe.com:8443", "https://api.stripe.com:8443"),
            ("postgres.internal:5432", "postgres.internal:5432"),
            ("redis:6379", "redis:6379"),
            ("https://*.example.com", "https://*.example.com:443"),
            ("https://*.example.com.", "https://*.example.com:443"),
            ("postgres.internal.:5432", "postgres.internal:5432"),
            ("[::1]:5432", "[::1]:5432"),
            ("https://[0:0::1]", "https://[::1]:443"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            assert_eq!(outbound(text).as_deref(), Ok(shown), "{text}");
            assert_eq!(outbound(shown).as_deref(), Ok(shown), "{shown}");
        }
    }

    #[test]
    fn outbound_refuses_what_it_can_not_grant() {
        for text in [
            "",
            ":",
            "api.stripe.com",
            "https://",
            "https://a/b",
            "ftp://a",
            "a:0",
            "a:+80",
            "a:65536",
            "a:b",
            "*",
            "*:443",
            "*.10.0.0.1:80",
            "*.*.com:80",
            "a..b:1",
            "a..:1",
            ".:1",
            "::1",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[a]:80",
            "-a:1",
            "10.0.0.256:80",
            "ä:1",
        ] {
            assert!(outbound(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        assert!(!outbound("postgres://me:hunter2@db:5432/app").unwrap_err().contains("hunter2"));
    }

    #[test]
    fn listen_takes_a_host_and_a_port() {
        for text in ["127.0.0.1:8080", "[::1]:0", "localhost:80", "0.0.0.0:0"] {
            assert_eq!(check_listen(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "8080",
            ":8080",
            "*:8080",
            "localhost",
            "::1:80",
            "localhost:70000",
            "http://localhost:80",
            "a:b:1",
        ] {
            assert!(check_listen(text).is_err(), "{text}");
        }
        assert_eq!(
            check_listen(":8080").unwrap_err().to_string(),
            "found \":8080\", expected a host and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"; \
             for every address, write \"0.0.0.0:8080\""
        );
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_is_refused(text in "[a0-9:.*\\[\\]/@-]{0,12}|\\PC*") {
            let _ = outbound(&text);
            let _ = check_listen(&text);
        }
    }
}
