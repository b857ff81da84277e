//! Single requests, by hand: whether a server answers, and what the admin API says. The load that is measured comes from
//! [`super::load`].

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How long an answer may take: a host that scales answers when it is done.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// The status of `GET path`.
pub(super) fn status_of(address: &str, path: &str) -> Result<u16> {
    Ok(get(address, path)?.0)
}

/// The body of the answer to `GET path`, as it was sent.
pub(super) fn body_of(address: &str, path: &str) -> Result<Vec<u8>> {
    Ok(get(address, path)?.1)
}

fn get(address: &str, path: &str) -> Result<(u16, Vec<u8>)> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_nodelay(true)?;
    exchange(stream, "GET", path, "")
}

/// A request that is sent, and whose answer nobody reads: it lasts until this is dropped.
pub(super) fn begin(address: &str, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    Ok(stream)
}

/// A host's admin API.
pub(super) struct Admin<'a> {
    /// The folder of its formation, whose `state_dir` is not set.
    pub(super) folder: &'a Path,
}

impl Admin<'_> {
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.ask("GET", path, "")
    }

    /// Answers when there are as many instances.
    pub(super) fn scale(&self, process: &str, count: u32) -> Result<()> {
        let change = serde_json::json!({ "process": process, "to": { "count": count } });
        let request = serde_json::json!({ "changes": [change], "wait_s": 100.0 });
        let answer = self.ask("POST", "/v1/scale", &request.to_string())?;
        ensure!(answer["settled"] == true, "the host has not {count} instances after 100 s: {answer}");
        Ok(())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let stream = UnixStream::connect(self.folder.join(".wasmhost/admin.sock"))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        let (status, body) = exchange(stream, method, path, body)?;
        let body: Value = serde_json::from_slice(&body).context("the host didn't answer with JSON")?;
        ensure!(status == 200, "{}", body["detail"].as_str().unwrap_or("the host refused"));
        Ok(body)
    }
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>)> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    // In one piece, so that it is one segment.
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &[u8]) -> Result<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no whole answer")?;
    let head = std::str::from_utf8(&answer[..end])?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).context("no HTTP/1.1")?;
    Ok((status.parse()?, answer[end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\nbusy\n";
        assert_eq!(parse(answer).unwrap(), (503, b"busy\n".to_vec()));
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse(b"").is_err());
    }
}
