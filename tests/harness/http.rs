//! An HTTP/1.1 client that hides nothing: no silent retries, and an answer is either whole or said to be cut.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;

/// Bytes that the kernel takes without anybody reading them: more are written while the answer is read.
const WRITTEN_AT_ONCE: usize = 64 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer, or not all of it.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nobody listens.
    Refused(#[allow(dead_code, reason = "shown")] io::Error),
    /// The connection ended before the first byte of an answer.
    Unanswered(#[allow(dead_code, reason = "shown")] io::Error),
    /// The head came, and not all of the body.
    Cut(Answer),
    /// The bytes that came aren't HTTP.
    NotHttp(#[allow(dead_code, reason = "shown")] String),
}

impl Request {
    fn new(method: &'static str, target: &str) -> Request {
        Request { method, target: target.to_owned(), headers: vec![], body: vec![] }
    }

    pub(crate) fn get(target: &str) -> Request {
        Request::new("GET", target)
    }

    pub(crate) fn head(target: &str) -> Request {
        Request::new("HEAD", target)
    }

    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Request {
        Request { body: body.into(), ..Request::new("POST", target) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Request {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn head_text(&self, address: SocketAddr) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let given = |wanted: &str| self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        if !given("host") {
            text += &format!("host: {address}\r\n");
        }
        if !self.body.is_empty() && !given("transfer-encoding") {
            text += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text + "\r\n"
    }
}

impl Answer {
    pub(crate) fn new(status: u16, headers: Vec<(String, String)>, body: Vec<u8>) -> Answer {
        Answer { status, headers, body }
    }

    pub(crate) fn header(&self, wanted: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        header.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// It is 200.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.text()
    }

    /// It is the host's own, with this status and code, and says nothing internal.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.header("wasmhost-error")), (status, Some(code)), "{self:?}");
        assert!(self.text().starts_with(code) && self.body.len() < 100, "{self:?}");
        assert_eq!(self.header("retry-after").is_some(), status == 503, "{self:?}");
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    closes: bool,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Connection, Failed> {
        let stream = TcpStream::connect(address).map_err(Failed::Refused)?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(Connection { stream: BufReader::new(stream), address, closes: false })
    }

    /// Whether the server has said that no more requests are taken.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    /// Sends these bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Whether anything comes within this time.
    pub(crate) fn has_answer(&self, within: Duration) -> bool {
        let stream = self.stream.get_ref();
        stream.set_read_timeout(Some(within)).unwrap();
        let come = stream.peek(&mut [0; 1]).is_ok_and(|bytes| bytes > 0);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        come
    }

    /// Sends nothing more.
    pub(crate) fn finish(&self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    /// Sends a request, and reads the answer.
    pub(crate) fn send(&mut self, request: &Request) -> Result<Answer, Failed> {
        let mut bytes = request.head_text(self.address).into_bytes();
        bytes.extend_from_slice(&request.body);
        if bytes.len() <= WRITTEN_AT_ONCE {
            // Should it fail: an answer may have come before the request was through.
            let written = self.send_raw(&bytes);
            return self.read_answer(request.method == "HEAD").map_err(|failed| match (failed, written) {
                (Failed::Unanswered(_), Err(err)) => Failed::Unanswered(err),
                (failed, _) => failed,
            });
        }
        let mut writer = self.stream.get_ref().try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&bytes));
            self.read_answer(request.method == "HEAD")
        })
    }

    /// Reads an answer.
    pub(crate) fn read_answer(&mut self, to_head: bool) -> Result<Answer, Failed> {
        let first = self.read_line().map_err(Failed::Unanswered)?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: u16 = status.ok_or_else(|| Failed::NotHttp(first.clone()))?;
        let mut answer = Answer { status, headers: vec![], body: vec![] };
        loop {
            let Ok(line) = self.read_line() else { return Err(Failed::Cut(answer)) };
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| Failed::NotHttp(line.clone()))?;
            answer.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        self.closes |= answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if to_head || matches!(status, 100..=199 | 204 | 304) {
            return Ok(answer);
        }
        match self.read_body(&mut answer) {
            Ok(()) => Ok(answer),
            Err(_) => Err(Failed::Cut(answer)),
        }
    }

    fn read_body(&mut self, answer: &mut Answer) -> io::Result<()> {
        if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks(&mut answer.body);
        }
        match answer.header("content-length").map(|value| value.parse().map_err(io::Error::other)) {
            Some(length) => self.read_bytes(length?, &mut answer.body),
            None => {
                self.closes = true;
                self.stream.read_to_end(&mut answer.body).map(drop)
            }
        }
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.read_line()?;
            let length = line.split(';').next().unwrap_or(&line);
            let length = u64::from_str_radix(length, 16).map_err(io::Error::other)?;
            self.read_bytes(length, body)?;
            // The end of the chunk, or of (no) trailers.
            if !self.read_line()?.is_empty() {
                return Err(io::Error::other("not the end of a chunk"));
            }
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn read_bytes(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.stream).take(length).read_to_end(body)?;
        if read as u64 == length { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// A line without its end.
    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A client that keeps its connection, as browsers and proxies do: where the server has closed it in the meantime, the
/// request is sent again on a fresh one. A fresh one that gives no answer is a failure.
pub(crate) struct Client {
    address: SocketAddr,
    kept: Option<Connection>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        Client { address, kept: None }
    }

    pub(crate) fn send(&mut self, request: &Request) -> Result<Answer, Failed> {
        if let Some(mut connection) = self.kept.take() {
            match connection.send(request) {
                Err(Failed::Unanswered(_)) => {}
                answer => return self.keep(connection, answer),
            }
        }
        let mut connection = Connection::open(self.address)?;
        let answer = connection.send(request);
        self.keep(connection, answer)
    }

    fn keep(&mut self, connection: Connection, answer: Result<Answer, Failed>) -> Result<Answer, Failed> {
        if answer.is_ok() && !connection.closes() {
            self.kept = Some(connection);
        }
        answer
    }
}
