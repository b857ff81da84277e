//! The address of a host: `https://HOST[:PORT]`, `http://` for this machine, or `unix:PATH`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use hyper::Uri;
use hyper::http::uri::Scheme;
use wasmhost_config::shown::{NAME_BYTES_MAX, one_line};

const EXPECTED: &str = "expected https://HOST:PORT, http://127.0.0.1:PORT or unix:PATH";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// The socket, or the state directory that it is in.
    Unix(PathBuf),
    Url(Url),
}

/// A host that is asked by TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(super) is_tls: bool,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `shop.example:9443`, as it was written.
    pub(super) authority: String,
}

impl Address {
    /// Reads it; an error says what was found. Secrets in it aren't shown.
    pub(super) fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///run/a.sock` is how other programs write it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.is_empty() {
                true => Err(format!("found \"unix:\" without a path, {EXPECTED}")),
                false => Ok(Address::Unix(path.into())),
            };
        }
        let has_user = text.split_once("://").is_some_and(|(_, rest)| {
            rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
        });
        if has_user {
            return Err(
                "found a user or a password before \"@\", which everybody sees in the list of processes; \
                        a token is read from the file that --token-file names"
                    .to_owned(),
            );
        }
        let found = || format!("found \"{}\", {EXPECTED}", one_line(text, NAME_BYTES_MAX));
        let uri: Uri = text.parse().map_err(|_| found())?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(found()) };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(format!("{}, and nothing behind it", found()));
        }
        let is_tls = *scheme == Scheme::HTTPS;
        if !is_tls && *scheme != Scheme::HTTP {
            return Err(found());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
            "" if is_tls => 443,
            "" => 80,
            port => port.trim_start_matches(':').parse().map_err(|_| found())?,
        };
        let url = Url { is_tls, host, port, authority: authority.as_str().to_owned() };
        match url.is_tls || url.is_on_this_machine() {
            true => Ok(Address::Url(url)),
            false => Err(format!(
                "found \"http://{}\", which isn't this machine: the token would pass the network in clear; use https://, or a tunnel to 127.0.0.1",
                one_line(&url.authority, NAME_BYTES_MAX)
            )),
        }
    }
}

impl Url {
    fn is_on_this_machine(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Url(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.is_tls { "s" } else { "" }, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_scheme_a_host_and_perhaps_a_port() {
        for (text, is_tls, host, port) in [
            ("https://shop.example", true, "shop.example", 443),
            ("https://shop.example:9443/", true, "shop.example", 9443),
            ("https://[2001:db8::1]:1", true, "2001:db8::1", 1),
            ("http://localhost:8", false, "localhost", 8),
            ("http://127.0.0.1", false, "127.0.0.1", 80),
            ("http://[::1]:8", false, "::1", 8),
        ] {
            let Ok(Address::Url(url)) = Address::parse(text) else { panic!("{text}") };
            assert_eq!((url.is_tls, url.host.as_str(), url.port), (is_tls, host, port), "{text}");
            assert_eq!(url.to_string(), text.trim_end_matches('/'));
        }
        for text in ["unix:/run/a.sock", "unix:///run/a.sock"] {
            assert_eq!(Address::parse(text), Ok(Address::Unix("/run/a.sock".into())));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "shop.example",
            "shop.example:9443",
            "ftp://a",
            "https://",
            "https://a:",
            "https://a:99999",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://a b",
            "unix:",
            "/run/a.sock",
        ] {
            assert!(Address::parse(text).unwrap_err().contains("expected https://HOST:PORT"), "{text}");
        }
        for text in ["http://shop.example", "http://192.0.2.1:80", "http://localhost.example"] {
            assert!(Address::parse(text).unwrap_err().contains("in clear"), "{text}");
        }
        let told = Address::parse("https://me:secret@shop.example").unwrap_err();
        assert!(told.contains("--token-file") && !told.contains("secret@"), "{told}");
    }
}
