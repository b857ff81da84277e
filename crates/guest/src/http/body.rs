//! Bodies: streams both ways, of which the host holds a bounded part at a time.

use std::io;

use wasip2::http::types::{IncomingBody, IncomingRequest, OutgoingBody};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// How much is asked of the host at once: what a copy costs is little then beside the call for it.
const CHUNK_BYTES: u64 = 64 * 1024;

/// The body of a request, read as it arrives.
///
/// It is an [`io::Read`] too, so that [`io::copy`] streams it somewhere else.
// The stream is a child of the body: WASI wants it dropped first, which is the order of the fields.
#[derive(Debug)]
pub struct Body {
    stream: Option<InputStream>,
    _body: Option<IncomingBody>,
}

impl Body {
    pub(super) fn of(request: &IncomingRequest) -> Self {
        let body = request.consume().ok();
        let stream = body.as_ref().and_then(|body| body.stream().ok());
        Self { stream, _body: body }
    }

    /// The whole body, which may have `limit` bytes at most.
    ///
    /// # Errors
    ///
    /// An error of the kind [`FileTooLarge`](io::ErrorKind::FileTooLarge) if there are more, whatever the request's
    /// `Content-Length` said; one of another kind if the client went away.
    pub fn read_all(mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(mut chunk) = self.chunk()? {
            if chunk.len() > limit - all.len() {
                let message = format!("the body has more than {limit} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            // Most bodies are one chunk, which needs no copy.
            if all.is_empty() {
                all = chunk;
            } else {
                all.append(&mut chunk);
            }
        }
        Ok(all)
    }

    /// The next bytes, as many as are there (at most 64 KiB), or `None` at the end. Waits until there are some.
    ///
    /// # Errors
    ///
    /// If the client went away before the end.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.read_up_to(CHUNK_BYTES)
    }

    fn read_up_to(&mut self, bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(stream) = &self.stream else { return Ok(None) };
        loop {
            match stream.blocking_read(bytes) {
                // Not the end: a host may say so when woken for nothing.
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => return Ok(Some(chunk)),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(io::Error::other(error.to_debug_string()));
                }
            }
        }
    }
}

impl io::Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some(chunk) = self.read_up_to((buffer.len() as u64).min(CHUNK_BYTES))? else { return Ok(0) };
        let filled = chunk.len().min(buffer.len());
        buffer[..filled].copy_from_slice(&chunk[..filled]);
        Ok(filled)
    }
}

/// Where the body of a [streamed response](super::Response::stream) is written.
///
/// A write waits until the client, through the host, takes more. An error means that it is gone.
// As in `Body`, the child comes first.
#[derive(Debug)]
pub struct BodyWriter {
    stream: Option<OutputStream>,
    body: Option<OutgoingBody>,
}

impl BodyWriter {
    pub(super) fn of(body: OutgoingBody) -> Self {
        let stream = body.write().ok();
        Self { stream, body: Some(body) }
    }

    /// Ends the body, where there is more to do afterwards that the client need not wait for. Returning `Ok` from
    /// the function that writes the body does the same.
    ///
    /// The host ends an instance that works on for too long after its response.
    ///
    /// # Errors
    ///
    /// If fewer or more bytes were written than a `Content-Length` promised.
    pub fn finish(&mut self) -> io::Result<()> {
        drop(self.stream.take());
        match self.body.take() {
            Some(body) => OutgoingBody::finish(body, None).map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

impl io::Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            // An empty write would still ask the host whether it may.
            _ if bytes.is_empty() => Ok(0),
            Some(stream) => io::Write::write(stream, bytes),
            None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the body has ended")),
        }
    }

    /// Waits until what was written is on its way to the client.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Some(stream) => io::Write::flush(stream),
            None => Ok(()),
        }
    }
}
