//! Hosts and paths in the one form in which they are compared. Two spellings of one host, or of one path, become the
//! same text here, wherever one of them comes from: a formation, a request, or a guest.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A host without its port, as it is compared: in lower case, without the dot that may end a name, an IPv6 address in
/// its usual form. Brackets around an IPv6 address stay.
///
/// ```
/// # use wasmhost_config::normal_host;
/// assert_eq!(normal_host("Admin.Example.com."), "admin.example.com");
/// assert_eq!(normal_host("[0:0::1]"), "[::1]");
/// ```
pub fn normal_host(host: &str) -> Cow<'_, str> {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]").into(),
            Err(_) => host.to_ascii_lowercase().into(),
        };
    }
    if host.bytes().any(|byte| byte == b'%' || byte.is_ascii_uppercase()) {
        let host = normal_escapes(host).to_ascii_lowercase();
        return without_last_dot(&host).to_owned().into();
    }
    without_last_dot(host).into()
}

/// A name without the one dot that may end it: `example.com.` is the same name, written in full. Behind a bracket it is
/// no such dot.
pub(crate) fn without_last_dot(name: &str) -> &str {
    match name.strip_suffix('.') {
        Some(rest) if !rest.is_empty() && !rest.ends_with(['.', ']']) => rest,
        _ => name,
    }
}

/// A path as it is compared: bytes outside of ASCII are percent-encoded in capitals, and letters, digits, `-`, `.`, `_`
/// and `~` are not (RFC 3986, section 6.2.2).
///
/// ```
/// # use wasmhost_config::normal_path;
/// assert_eq!(normal_path("/café"), "/caf%C3%A9");
/// assert_eq!(normal_path("/c%61f%c3%a9"), "/caf%C3%A9");
/// ```
pub fn normal_path(path: &str) -> Cow<'_, str> {
    match path.bytes().any(|byte| byte == b'%' || !byte.is_ascii()) {
        true => normal_escapes(path).into(),
        false => path.into(),
    }
}

/// Whether each `%` begins an escape: two hexadecimal digits follow it.
pub fn has_whole_escapes(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        if escaped(&rest[at..]).is_none() {
            return false;
        }
        rest = &rest[at + 3..];
    }
    true
}

/// A `%` that begins no escape stays as it is.
fn normal_escapes(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        match escaped(rest) {
            Some(byte) if is_unreserved(byte) => normal.push(char::from(byte)),
            Some(byte) => push_escape(&mut normal, byte),
            None if byte.is_ascii() => normal.push(char::from(*byte)),
            None => push_escape(&mut normal, *byte),
        }
        rest = if escaped(rest).is_some() { &rest[3..] } else { after };
    }
    normal
}

/// The byte that an escape at the beginning stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn push_escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_dot_at_the_end_is_no_part_of_a_name() {
        for (host, normal) in [
            ("example.com.", "example.com"),
            ("EXAMPLE.com", "example.com"),
            ("ex%61mple.com", "example.com"),
            ("example.com..", "example.com.."),
            (".", "."),
            ("", ""),
            ("[0:0::1]", "[::1]"),
            ("[::FFFF:1.2.3.4]", "[::ffff:1.2.3.4]"),
            ("10.0.0.1.", "10.0.0.1"),
            ("[0:0::1].", "[0:0::1]."),
            ("[0:0::1]%2E", "[0:0::1]."),
        ] {
            assert_eq!(normal_host(host), normal, "{host}");
        }
    }

    #[test]
    fn a_path_has_one_form() {
        for (path, normal) in [
            ("/café", "/caf%C3%A9"),
            ("/caf%C3%A9", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%7euser", "/~user"),
            ("/a%2fb", "/a%2Fb"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(normal_path(path), normal, "{path}");
        }
    }

    #[test]
    fn an_escape_has_two_digits() {
        assert!(has_whole_escapes(b"/a%20b%FF") && has_whole_escapes(b""));
        for broken in ["%", "%2", "a%zz", "%2%20", "%g0"] {
            assert!(!has_whole_escapes(broken.as_bytes()), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn what_is_normal_stays_as_it_is(text in "[a%2Ff~.A\\[\\]:é]{0,12}|\\PC*") {
            // A dot may be left at the end where there were two.
            let path = normal_path(&text).into_owned();
            prop_assert_eq!(normal_path(&path), path.as_str());
            prop_assert!(path.is_ascii());
        }
    }
}
