//! The boundaries of HTTP/1 requests, followed in a connection's bytes as they go by, and what hyper doesn't tell of
//! their heads.
//!
//! ```text
//! head -> body by its length, in chunks, or none -> head           a head that must not be served -> lost, for good
//! ```
//!
//! A request with both a `Content-Length` and a `Transfer-Encoding` is how one is smuggled past a proxy that believes
//! the other of the two (RFC 9112, section 6.1): hyper believes the encoding and drops the length without a word. A
//! line that ends without a CR is another way to be read as two different requests, and hyper takes it.
//!
//! A request is served only if its head was judged here. A stream that is read here in another way than by hyper so
//! ends in a refusal, and never in a request that nobody looked at.

use std::ops::BitOr;

/// Why a head must not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Found(pub(super) u8);

impl Found {
    /// A length and an encoding.
    pub(super) const TWO_LENGTHS: Found = Found(1);
    pub(super) const BARE_LF: Found = Found(2);
    /// Nobody knows where this request begins.
    pub(super) const LOST: Found = Found(4);

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

/// The facts about heads that some bytes made known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Judged {
    /// Heads that are whole, and may be served.
    pub(super) heads: u32,
    /// Why the head after those must not be served.
    pub(super) found: Found,
    /// A part of a head has come, and its rest hasn't.
    pub(super) in_head: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Requests {
    at: At,
    head: Head,
}

#[derive(Default, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    Chunks(Chunk),
    /// The rest isn't looked at.
    Lost,
}

/// One head.
#[derive(Default)]
struct Head {
    /// A line that isn't empty has come.
    begun: bool,
    line: Line,
    last: u8,
    found: Found,
    length: Option<Length>,
    /// It has a `Transfer-Encoding`.
    encoded: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    /// So many bytes agree with a name that matters.
    Agrees(&'static [u8], usize),
    /// The value of `Content-Length`.
    Length(Length),
    /// The rest doesn't matter.
    Other,
}

/// A length that is being read.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct Length {
    bytes: u64,
    part: Part,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Before,
    Digits,
    After,
    /// hyper refuses it.
    Wrong,
}

/// Where a body in chunks stands: RFC 9112, section 7.1, with CR LF alone as the end of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size {
        bytes: u64,
        digits: bool,
    },
    /// After the size, up to its CR.
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a line after the last chunk.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

impl Requests {
    /// Looks at the next bytes of a connection.
    pub(super) fn look(&mut self, mut bytes: &[u8]) -> Judged {
        let mut judged = Judged::default();
        while !bytes.is_empty() {
            let taken = match &mut self.at {
                At::Lost => break,
                At::Head => {
                    let (taken, is_whole) = self.head.look(bytes);
                    if is_whole {
                        self.at = std::mem::take(&mut self.head).follow(&mut judged);
                    }
                    taken
                }
                At::Body(left) => {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    if *left == 0 {
                        self.at = At::Head;
                    }
                    taken
                }
                At::Chunks(chunk) => {
                    let (taken, next) = chunk.look(bytes);
                    self.at = next;
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
        judged.in_head = self.at == At::Head && self.head.begun;
        judged
    }
}

impl Head {
    /// How many bytes belong to it, and whether it is whole then.
    fn look(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < bytes.len() {
            if self.line == Line::Other {
                // Most of what there is.
                let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
                if end > at {
                    self.last = bytes[end - 1];
                    at = end;
                    continue;
                }
            }
            let byte = bytes[at];
            at += 1;
            if byte == b'\n' {
                if self.end_line() {
                    return (at, true);
                }
            } else if byte != b'\r' {
                self.add(byte);
            }
            self.last = byte;
        }
        (at, false)
    }

    /// Whether the head is whole.
    fn end_line(&mut self) -> bool {
        if self.last != b'\r' {
            self.found = self.found | Found::BARE_LF;
        }
        let line = std::mem::take(&mut self.line);
        if let Line::Length(length) = line {
            // hyper takes a length that is said twice if both are the same.
            let is_wrong = self.length.is_some_and(|before| before.bytes != length.bytes);
            let part = if is_wrong || length.part == Part::Before { Part::Wrong } else { length.part };
            self.length = Some(Length { part, ..length });
        }
        self.begun && line == Line::Empty
    }

    fn add(&mut self, byte: u8) {
        self.begun = true;
        let line = std::mem::replace(&mut self.line, Line::Other);
        self.line = match line {
            Line::Empty => match byte | 0x20 {
                b'c' => Line::Agrees(CONTENT_LENGTH, 1),
                b't' => Line::Agrees(TRANSFER_ENCODING, 1),
                _ => Line::Other,
            },
            Line::Agrees(name, count) if name[count] != byte.to_ascii_lowercase() => Line::Other,
            Line::Agrees(name, count) if count + 1 < name.len() => Line::Agrees(name, count + 1),
            Line::Agrees(CONTENT_LENGTH, _) => Line::Length(Length::default()),
            Line::Agrees(..) => {
                self.encoded = true;
                Line::Other
            }
            Line::Length(length) => Line::Length(length.add(byte)),
            Line::Other => Line::Other,
        };
    }

    /// It is whole. Says what follows it.
    fn follow(self, judged: &mut Judged) -> At {
        let mut found = self.found;
        match self.length {
            Some(_) if self.encoded => found = found | Found::TWO_LENGTHS,
            Some(Length { part: Part::Wrong, .. }) => found = found | Found::LOST,
            _ => {}
        }
        if found != Found::default() {
            judged.found = found;
            return At::Lost;
        }
        judged.heads += 1;
        match self.length {
            _ if self.encoded => At::Chunks(Chunk::START),
            None | Some(Length { bytes: 0, .. }) => At::Head,
            Some(Length { bytes, .. }) => At::Body(bytes),
        }
    }
}

impl Length {
    fn add(mut self, byte: u8) -> Length {
        self.part = match (self.part, byte) {
            (Part::Before | Part::Digits, b'0'..=b'9') => {
                let bytes =
                    self.bytes.checked_mul(10).and_then(|bytes| bytes.checked_add(u64::from(byte - b'0')));
                self.bytes = bytes.unwrap_or(0);
                if bytes.is_some() { Part::Digits } else { Part::Wrong }
            }
            (Part::Before, b' ' | b'\t') => Part::Before,
            (Part::Digits | Part::After, b' ' | b'\t') => Part::After,
            _ => Part::Wrong,
        };
        self
    }
}

impl Chunk {
    const START: Chunk = Chunk::Size { bytes: 0, digits: false };

    /// How many bytes belong to this part, and what follows them. Hyper refuses chunks that aren't well-formed.
    fn look(self, bytes: &[u8]) -> (usize, At) {
        let byte = bytes[0];
        let next = match self {
            Chunk::Size { bytes, digits } => match char::from(byte).to_digit(16) {
                Some(digit) if bytes < 1 << 60 => {
                    Chunk::Size { bytes: bytes << 4 | u64::from(digit), digits: true }
                }
                None if digits && byte == b'\r' => Chunk::SizeLf(bytes),
                None if digits && matches!(byte, b' ' | b'\t' | b';') => Chunk::Extension(bytes),
                _ => return (1, At::Lost),
            },
            Chunk::Extension(size) => match memchr::memchr2(b'\r', b'\n', bytes) {
                None => return (bytes.len(), At::Chunks(self)),
                Some(end) if bytes[end] == b'\r' => return (end + 1, At::Chunks(Chunk::SizeLf(size))),
                Some(end) => return (end + 1, At::Lost),
            },
            Chunk::SizeLf(0) if byte == b'\n' => Chunk::TrailerStart,
            Chunk::SizeLf(size) if byte == b'\n' => Chunk::Data(size),
            Chunk::Data(left) => {
                let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let next = match left - taken as u64 {
                    0 => Chunk::DataCr,
                    left => Chunk::Data(left),
                };
                return (taken, At::Chunks(next));
            }
            Chunk::DataCr if byte == b'\r' => Chunk::DataLf,
            Chunk::DataLf if byte == b'\n' => Chunk::START,
            Chunk::TrailerStart if byte == b'\r' => Chunk::EndLf,
            Chunk::TrailerStart | Chunk::Trailer => {
                // hyper's lines end at a CR alone here.
                return match memchr::memchr(b'\r', bytes) {
                    Some(end) => (end + 1, At::Chunks(Chunk::TrailerLf)),
                    None => (bytes.len(), At::Chunks(Chunk::Trailer)),
                };
            }
            Chunk::TrailerLf if byte == b'\n' => Chunk::TrailerStart,
            Chunk::EndLf if byte == b'\n' => return (1, At::Head),
            _ => return (1, At::Lost),
        };
        (1, At::Chunks(next))
    }
}

#[cfg(test)]
#[path = "framing/tests.rs"]
mod tests;
