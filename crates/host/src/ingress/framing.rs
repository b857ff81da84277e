//! What hyper doesn't tell of an HTTP/1 head, seen as its bytes go by.
//!
//! A request with both a `Content-Length` and a `Transfer-Encoding` is how one is smuggled past a proxy that believes
//! the other of the two (RFC 9112, section 6.1): hyper believes the encoding and drops the length without a word. A
//! line that ends without a CR is another way to be read as two different requests, and hyper takes it.

use std::ops::BitOr;

const NAME: &[u8] = b"content-length:";

/// What was found in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found(pub(super) u8);

impl Found {
    pub(super) const LENGTH: Found = Found(1);
    pub(super) const BARE_LF: Found = Found(2);

    pub(super) fn has(self, what: Found) -> bool {
        self.0 & what.0 != 0
    }
}

impl BitOr for Found {
    type Output = Found;

    fn bitor(self, other: Found) -> Found {
        Found(self.0 | other.0)
    }
}

/// Looks at one head.
#[derive(Default)]
pub(super) struct HeadWatch {
    /// How many bytes of this line agree with [`NAME`].
    agreed: usize,
    line: Line,
    last: u8,
    /// A line that isn't empty has come.
    begun: bool,
    is_over: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    /// It may become [`NAME`].
    Agrees,
    Differs,
}

impl HeadWatch {
    /// Looks at more of the head. What follows the head isn't looked at.
    pub(super) fn look(&mut self, mut bytes: &[u8]) -> Found {
        let mut found = Found::default();
        while !self.is_over && !bytes.is_empty() {
            if self.line == Line::Differs {
                // The rest of such a line doesn't matter, and that is most of what there is.
                let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
                if end > 0 {
                    self.last = bytes[end - 1];
                    bytes = &bytes[end..];
                    continue;
                }
            }
            let byte = bytes[0];
            bytes = &bytes[1..];
            match byte {
                b'\n' => {
                    if self.last != b'\r' {
                        found = found | Found::BARE_LF;
                    }
                    self.is_over = self.begun && self.line == Line::Empty;
                    (self.agreed, self.line) = (0, Line::Empty);
                }
                b'\r' => {}
                byte if NAME[self.agreed] == byte.to_ascii_lowercase() => {
                    (self.line, self.begun) = (Line::Agrees, true);
                    self.agreed += 1;
                    if self.agreed == NAME.len() {
                        found = found | Found::LENGTH;
                        (self.agreed, self.line) = (0, Line::Differs);
                    }
                }
                _ => (self.agreed, self.line, self.begun) = (0, Line::Differs, true),
            }
            self.last = byte;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut.
    #[track_caller]
    fn check(head: &str, expected: Found) {
        for cut in 0..head.len() {
            let mut watch = HeadWatch::default();
            let (first, rest) = head.as_bytes().split_at(cut);
            let found = watch.look(first) | watch.look(rest);
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_length_is_found_wherever_it_stands() {
        let length = Found::LENGTH;
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            length,
        );
        check("\r\n\r\nPOST / HTTP/1.1\r\ncontent-LENGTH:1\r\n\r\n", length);
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        let none = Found::default();
        check("POST / HTTP/1.1\r\nHost: a\r\nX-Content-Length: 1\r\nContent-Lengths: 1\r\n\r\n", none);
        check("POST /content-length: HTTP/1.1\r\nHost: content-length: 1\r\n\r\n", none);
        check("POST / HTTP/1.1\r\nHost: a\r\n\r\nContent-Length: 1\nmore\n", none);
    }

    #[test]
    fn a_bare_line_feed_is_found() {
        for head in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
        ] {
            check(head, Found::BARE_LF);
        }
    }
}
