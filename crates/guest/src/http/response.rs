use std::fmt;
use std::io::{self, Write};

use wasip2::http::types::{ErrorCode, Fields, HeaderError, OutgoingResponse, ResponseOutparam};

use super::body::BodyWriter;
use super::complain;

/// An HTTP response.
///
/// ```no_run
/// # use wasmhost_guest::http::Response;
/// # let id = 1;
/// Response::text("ordered\n").status(202).header("location", format!("/receipts/{id}"))
/// # ;
/// ```
#[derive(Debug)]
#[must_use = "a response is sent by returning it"]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    content: Content,
}

type WriteBody = dyn FnOnce(&mut BodyWriter) -> io::Result<()>;

enum Content {
    Bytes(Vec<u8>),
    Stream(Box<WriteBody>),
}

impl Response {
    /// An empty response with this status.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), content: Content::Bytes(Vec::new()) }
    }

    /// A 200 with a body of plain text in UTF-8.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::new(200).header("content-type", "text/plain; charset=utf-8").body(text)
    }

    /// A 200 whose body is written by `write`, which is called after the head was sent.
    ///
    /// If it returns an error, it is written to stderr and the body is cut off, which the client can tell from one
    /// that is complete.
    ///
    /// ```no_run
    /// # use std::io::Write;
    /// # use wasmhost_guest::http::Response;
    /// Response::stream(|out| (1..=1_000_000).try_for_each(|n| writeln!(out, "{n}")))
    /// # ;
    /// ```
    pub fn stream(write: impl FnOnce(&mut BodyWriter) -> io::Result<()> + 'static) -> Self {
        Self { content: Content::Stream(Box::new(write)), ..Self::new(200) }
    }

    /// With another status: a number from 200 to 599. Any other is an error of the guest, and its client gets a 500.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With one more header. `Content-Length` needs none: the host knows it, or sends the body in chunks. It is for
    /// answers without a body, to say how long that would be: those to HEAD, and a 304.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With these bytes as its body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.content = Content::Bytes(body.into());
        self
    }

    /// Sends it: the head first, so that the host isn't asked to hold a body that nobody takes yet.
    pub(super) fn send(self, out: ResponseOutparam) {
        let head = match head(self.status, &self.headers) {
            Ok(head) => head,
            Err(error) => {
                complain(&error);
                return ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some(error.to_string()))));
            }
        };
        if matches!(&self.content, Content::Bytes(bytes) if bytes.is_empty()) {
            // A body that is opened has to be as long as `Content-Length` says.
            return ResponseOutparam::set(out, Ok(head));
        }
        // Only a second call of `body` fails.
        let Ok(body) = head.body() else { return };
        let mut writer = BodyWriter::of(body);
        ResponseOutparam::set(out, Ok(head));

        let written = match self.content {
            // Where the client is gone there is nobody to complain to: not an error of the guest.
            Content::Bytes(bytes) => writer.write_all(&bytes).or(Ok(())),
            Content::Stream(write) => write(&mut writer),
        };
        // Not finishing the body is how WASI says that it is cut off.
        if let Err(error) = written.and_then(|()| writer.finish()) {
            complain(&error);
        }
    }
}

fn head(status: u16, headers: &[(String, Vec<u8>)]) -> Result<OutgoingResponse, Refused> {
    if !(200..600).contains(&status) {
        return Err(Refused::Status(status));
    }
    let fields = Fields::from_list(headers).map_err(Refused::Headers)?;
    let head = OutgoingResponse::new(fields);
    // 200 is what it starts with.
    if status != 200 {
        head.set_status_code(status).map_err(|()| Refused::Status(status))?;
    }
    Ok(head)
}

/// Why the host would not take a response.
enum Refused {
    Headers(HeaderError),
    Status(u16),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Headers(error) => write!(f, "the response's headers can't be sent: {error:?}"),
            Self::Status(status) => {
                write!(f, "{status} is no status of a response, which is from 200 to 599")
            }
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}
