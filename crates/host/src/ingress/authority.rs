//! The grammar of an authority: `uri-host [ ":" port ]`, as RFC 9112, section 3.2, and RFC 3986, section 3.2.2, have it.
//! `Host`, `:authority` and `X-Forwarded-Host` are read by it alone.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use wasmhost_config::{has_whole_escapes, normal_host};
use wasmhost_engine::RequestScheme;

/// A host, which isn't empty, and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    /// As it was written, with the brackets of an IPv6 address.
    pub(super) host: &'a str,
    /// None where no port was given: `example.com` and `example.com:`.
    pub(super) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads one. There is none in a text with a user, with a second colon, with a port above 65535, and so on.
    pub(super) fn parse(text: &'a [u8]) -> Option<Authority<'a>> {
        let (host, rest) = match text {
            [b'[', ..] => {
                let end = memchr::memchr(b']', text)? + 1;
                let (literal, rest) = text.split_at(end);
                if !is_ip_literal(&literal[1..end - 1]) {
                    return None;
                }
                (literal, rest)
            }
            _ => {
                let end = memchr::memchr(b':', text).unwrap_or(text.len());
                let (name, rest) = text.split_at(end);
                if !is_reg_name(name) {
                    return None;
                }
                (name, rest)
            }
        };
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        Some(Authority { host: std::str::from_utf8(host).ok()?, port })
    }

    /// The host as routes are compared with it.
    pub(super) fn normal_host(&self) -> Cow<'a, str> {
        normal_host(self.host)
    }

    /// Whether both name one server: the scheme's own port may be written or left out.
    pub(super) fn is_same(&self, other: &Authority<'_>, scheme: RequestScheme) -> bool {
        let default = match scheme {
            RequestScheme::Http => 80,
            RequestScheme::Https => 443,
        };
        self.port.unwrap_or(default) == other.port.unwrap_or(default)
            && (self.host == other.host || self.normal_host() == other.normal_host())
    }
}

/// `reg-name`, which an IPv4 address is, too. An empty one names nobody.
fn is_reg_name(name: &[u8]) -> bool {
    let mut has_escapes = false;
    let allowed = name.iter().all(|byte| {
        has_escapes |= *byte == b'%';
        is_unreserved_or_sub_delim(*byte) || *byte == b'%'
    });
    !name.is_empty() && allowed && (!has_escapes || has_whole_escapes(name))
}

fn is_unreserved_or_sub_delim(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// Whether this text may stand in brackets: an IPv6 address without a zone, or `IPvFuture`.
fn is_ip_literal(inside: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = inside {
        let Some(dot) = memchr::memchr(b'.', future) else { return false };
        let (version, address) = (&future[..dot], &future[dot + 1..]);
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(|byte| is_unreserved_or_sub_delim(*byte) || *byte == b':');
    }
    std::str::from_utf8(inside).is_ok_and(|inside| inside.parse::<Ipv6Addr>().is_ok())
}

/// Digits alone, however many zeros they begin with: `u16::from_str` would take `+80`.
fn port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |port, digit| {
        let digit = digit.is_ascii_digit().then(|| u16::from(digit - b'0'))?;
        port.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<(&str, Option<u16>)> {
        Authority::parse(text.as_bytes()).map(|found| (found.host, found.port))
    }

    #[test]
    fn a_host_may_have_a_port() {
        for (text, host, port) in [
            ("a.example", "a.example", None),
            ("a.example:80", "a.example", Some(80)),
            ("a.example:", "a.example", None),
            ("a:0", "a", Some(0)),
            ("a:65535", "a", Some(65_535)),
            ("a:00080", "a", Some(80)),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080)),
            ("[::1]", "[::1]", None),
            ("[::1]:443", "[::1]", Some(443)),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", None),
            ("[v1.a:b]", "[v1.a:b]", None),
            ("under_score", "under_score", None),
            ("a%20b%C3%a9", "a%20b%C3%a9", None),
            ("a!$&'()*+,;=~", "a!$&'()*+,;=~", None),
        ] {
            assert_eq!(parse(text), Some((host, port)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_authority() {
        for text in [
            "",
            ":",
            ":80",
            "x:80:80",
            "x::80",
            "x:a",
            "x:-1",
            "x:+1",
            "x: 80",
            "x:65536",
            "x:99999999999999999999",
            "[",
            "[]",
            "[::1",
            "::1]",
            "::1",
            "[::1]80",
            "[::1]:",
            "[::1]]",
            "[[::1]]",
            "[::1%25eth0]",
            "[1.2.3.4]",
            "[a]",
            "[v.a]",
            "[v1.]",
            "[vg.a]",
            "x[::1]",
            "a%",
            "a%z",
            "a%zz",
            "a%2",
            "%",
            "me@a",
            "me:pw@a",
            "a/b",
            "a?b",
            "a#b",
            "a b",
            "a\tb",
            "a\"b",
            "a<b",
            "a\\b",
            "a^b",
            "a|b",
            "a{b}",
            "a\u{e9}",
            "a\0",
            "a\u{7f}",
        ] {
            let expected = if text == "[::1]:" { Some(("[::1]", None)) } else { None };
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_schemes_own_port_and_a_last_dot_make_no_difference() {
        let same = |one: &str, other: &str, scheme| {
            let [one, other] = [one, other].map(|text| Authority::parse(text.as_bytes()).unwrap());
            one.is_same(&other, scheme)
        };
        use RequestScheme::{Http, Https};
        assert!(same("a.example", "A.example:80", Http) && same("a.example:", "a.example.", Http));
        assert!(same("a:443", "a", Https) && same("[0:0::1]:443", "[::1]", Https));
        assert!(!same("a:443", "a", Http) && !same("a", "b", Http) && !same("a:1", "a:2", Http));
    }

    proptest! {
        #[test]
        fn any_text_is_an_authority_or_none(text in "[a:%0-9\\[\\].@]{0,10}|\\PC*") {
            let Some((host, port)) = parse(&text) else { return Ok(()) };
            // It reads back as what it says.
            let shown = port.map_or(host.to_owned(), |port| format!("{host}:{port}"));
            prop_assert_eq!(parse(&shown), Some((host, port)));
            prop_assert!(text.starts_with(host) && !host.is_empty());
            prop_assert!(host.starts_with('[') || !host.contains([':', '[', ']', '@']));
        }

        #[test]
        fn every_port_is_one(port: u32) {
            let shown = format!("a:{port}");
            let expected = u16::try_from(port).ok().map(|port| ("a", Some(port)));
            prop_assert_eq!(parse(&shown), expected);
        }
    }
}
