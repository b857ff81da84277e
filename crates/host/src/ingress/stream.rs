//! The stream between the system and HTTP notes a connection's bytes in its [`Gauge`] as they pass.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::framing::Requests;
use super::gauge::Gauge;
use super::socket::Stream;

/// The bytes that a client begins HTTP/2 with: RFC 9113, section 3.4.
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to half a request, as far as the system takes it at once.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How long, and for how many bytes, a connection is read on that closes with something unread: see
/// [`Gauge::lingers`].
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A stream of the runtime that serves it.
pub(crate) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream that HTTP is spoken on.
pub(crate) enum Transport {
    Plain(Plain),
    Tls(Box<TlsStream<Plain>>),
}

impl Plain {
    pub(crate) fn new(stream: Stream) -> io::Result<Plain> {
        match stream {
            Stream::Tcp(stream, _) => {
                // Without it small answers would wait for acknowledgements; failing is no reason not to serve.
                let _ = stream.set_nodelay(true);
                TcpStream::from_std(stream).map(Plain::Tcp)
            }
            Stream::Unix(stream) => UnixStream::from_std(stream).map(Plain::Unix),
        }
    }

    pub(crate) async fn by_tls(self, acceptor: &TlsAcceptor) -> io::Result<Transport> {
        acceptor.accept(self).await.map(|stream| Transport::Tls(Box::new(stream)))
    }
}

impl Transport {
    /// Whether the client has chosen HTTP/2 in its handshake. Without one, its first bytes say.
    fn has_chosen_http2(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(super::tls::HTTP_2),
        }
    }
}

/// See the module.
pub(super) struct Watched {
    transport: Transport,
    /// Read already, and not handed on.
    begun: BytesMut,
    http2: bool,
    gauge: Arc<Gauge>,
    requests: Requests,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Watched {
    pub(super) fn new(transport: Transport, gauge: Arc<Gauge>) -> Watched {
        let http2 = transport.has_chosen_http2();
        let requests = Requests::default();
        Watched { transport, begun: BytesMut::new(), http2, gauge, requests, linger: None }
    }

    /// Reads until it's clear what the client speaks.
    pub(super) async fn is_http2(&mut self) -> io::Result<bool> {
        while !self.http2 {
            let known = self.begun.len().min(HTTP_2_PREFACE.len());
            if self.begun[..known] != HTTP_2_PREFACE[..known] {
                break;
            }
            self.http2 = known == HTTP_2_PREFACE.len();
            if self.http2 {
                self.gauge.forget_heads();
            }
            if !self.http2 && poll_fn(|cx| self.poll_begin(cx)).await? == 0 {
                break;
            }
        }
        Ok(self.http2)
    }

    /// Reads what there is, for a look at it.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [0; 4096];
        let mut buf = ReadBuf::new(&mut scratch);
        if self.transport.poll_read(cx, &mut buf)?.is_pending() {
            self.gauge.await_bytes();
            return Poll::Pending;
        }
        self.hear(buf.filled());
        self.begun.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn hear(&mut self, bytes: &[u8]) {
        if !self.http2 {
            self.gauge.hear(self.requests.look(bytes));
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (until, left) = self.linger.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES_MAX));
        let mut scratch = [0; 4096];
        while *left > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            match self.transport.poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    *left = left.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending => return until.as_mut().poll(cx).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.begun.has_remaining() {
            let count = this.begun.len().min(buf.remaining());
            buf.put_slice(&this.begun.split_to(count));
            return Poll::Ready(Ok(()));
        }
        if this.gauge.has_expired() {
            if !this.http2 {
                // The rest is dropped if not all of it goes out at once.
                let _ = this.transport.poll_write(cx, TOO_SLOW)?;
                let _ = this.transport.poll_flush(cx)?;
            }
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        match this.transport.poll_read(cx, buf) {
            Poll::Pending => {
                this.gauge.await_bytes();
                Poll::Pending
            }
            read => {
                if buf.filled().len() > before {
                    this.hear(&buf.filled()[before..]);
                }
                read
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.transport.poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        };
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.transport.poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(self.transport.poll_shutdown(cx))?;
            if !self.gauge.lingers() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_linger(cx)
    }
}

impl Watched {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        match written {
            Poll::Pending => self.gauge.stick(),
            Poll::Ready(_) => self.gauge.flow(),
        }
        written
    }
}

impl Transport {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_shutdown(cx)
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Plain::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Plain::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Plain::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Plain::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Plain::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Plain::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Plain::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Plain::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Plain::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Plain::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
