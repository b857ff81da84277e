//! A client of HTTP/1.1 that sends one request after the other on a connection, and does no more than that needs. A load
//! generator takes its share of the machine from the server that is measured.

use std::io::{ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends a request; the answer's status, and whether the connection can take another request.
pub async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
) -> Result<(u16, bool)> {
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut answer).await? == 0 || answer.len() > ANSWER_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        if let Some(head) = Head::parse(&answer)
            && head.body.is_whole(&answer[head.bytes..])
        {
            return Ok((head.status, head.stays));
        }
    }
}

/// The head of an answer, as far as it is used.
struct Head {
    status: u16,
    bytes: usize,
    body: Length,
    stays: bool,
}

/// How the end of a body is told.
#[derive(Debug, PartialEq)]
enum Length {
    Bytes(usize),
    /// By a chunk without bytes, and without trailers behind it.
    Chunked,
}

impl Length {
    fn is_whole(&self, body: &[u8]) -> bool {
        match self {
            Length::Bytes(bytes) => body.len() >= *bytes,
            Length::Chunked => body == b"0\r\n\r\n" || body.ends_with(b"\r\n0\r\n\r\n"),
        }
    }
}

impl Head {
    fn parse(answer: &[u8]) -> Option<Head> {
        let bytes = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&answer[..bytes]).ok()?.to_ascii_lowercase();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let body = match value("transfer-encoding:") {
            Some(_) => Length::Chunked,
            None => Length::Bytes(value("content-length:")?.parse().ok()?),
        };
        let stays = value("connection:") != Some("close");
        Some(Head { status: text.get(9..12)?.parse().ok()?, bytes, body, stays })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_long_the_answer_is() {
        let head = Head::parse(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nbu").unwrap();
        assert_eq!((head.status, &head.body, head.stays), (503, &Length::Bytes(5), true));
        assert!(!head.body.is_whole(b"bu") && head.body.is_whole(b"busy\n"));
        assert!(
            !Head::parse(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap().stays
        );
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n").is_none());
        let chunked = Head::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert!(!chunked.body.is_whole(b"2\r\nab\r\n") && chunked.body.is_whole(b"2\r\nab\r\n0\r\n\r\n"));
    }
}
