//! A guest's standard output and error: lines under the instance's name, at the pace at which the host takes them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::sandbox::meter::Meter;
use crate::services::{InstanceName, LogSink, Stream};

/// A line longer than this, in bytes, is cut in pieces of this length.
const LINE_BYTES_MAX: usize = 16 << 10;

/// What a guest may write at once, in bytes.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One of an instance's two streams. All its clones share one unfinished line.
#[derive(Clone)]
pub(crate) struct LineWriter {
    shared: Arc<Shared>,
}

struct Shared {
    name: InstanceName,
    stream: Stream,
    sink: Arc<dyn LogSink>,
    meter: Arc<Meter>,
    unfinished: Mutex<Vec<u8>>,
}

impl LineWriter {
    pub(crate) fn new(name: InstanceName, stream: Stream, sink: Arc<dyn LogSink>, meter: Arc<Meter>) -> Self {
        LineWriter { shared: Arc::new(Shared { name, stream, sink, meter, unfinished: Mutex::default() }) }
    }

    fn write_bytes(&self, bytes: &[u8]) {
        let mut unfinished = self.shared.unfinished.lock().unwrap_or_else(|poison| poison.into_inner());
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            unfinished.extend_from_slice(piece);
            if unfinished.ends_with(b"\n") || unfinished.len() >= LINE_BYTES_MAX {
                self.shared.emit(&mut unfinished);
            }
        }
    }
}

impl Shared {
    fn emit(&self, line: &mut Vec<u8>) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        for piece in text.chunks(LINE_BYTES_MAX) {
            let piece = String::from_utf8_lossy(piece);
            if self.stream == Stream::Stderr {
                self.meter.add_words(&piece);
            }
            self.sink.line(&self.name, self.stream, &piece);
        }
        if text.is_empty() {
            self.sink.line(&self.name, self.stream, "");
        }
        line.clear();
    }
}

impl Drop for Shared {
    /// What an instance wrote last counts also where no line end follows it.
    fn drop(&mut self) {
        let mut rest = std::mem::take(self.unfinished.get_mut().unwrap_or_else(|poison| poison.into_inner()));
        if !rest.is_empty() {
            self.emit(&mut rest);
        }
    }
}

impl IsTerminal for LineWriter {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineWriter {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(AsyncLines { writer: self.clone(), waiting: Mutex::new(None) })
    }
}

impl OutputStream for LineWriter {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_bytes(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.shared.sink.has_room() { WRITE_BYTES_MAX } else { 0 })
    }
}

#[async_trait]
impl Pollable for LineWriter {
    async fn ready(&mut self) {
        self.shared.sink.room().await;
    }
}

/// The same for WASI 0.3 and 0.1.
struct AsyncLines {
    writer: LineWriter,
    /// A mutex only since the trait object must be `Sync`.
    waiting: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl AsyncWrite for AsyncLines {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let waiting = this.waiting.get_mut().unwrap_or_else(|poison| poison.into_inner());
        while !this.writer.shared.sink.has_room() {
            let room = waiting.get_or_insert_with(|| this.writer.shared.sink.room());
            std::task::ready!(room.as_mut().poll(cx));
            *waiting = None;
        }
        let taken = &buf[..buf.len().min(WRITE_BYTES_MAX)];
        this.writer.write_bytes(taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl LogSink for Kept {
        fn has_room(&self) -> bool {
            true
        }
        fn line(&self, instance: &InstanceName, _stream: Stream, text: &str) {
            self.0.lock().unwrap().push(format!("{instance}|{text}"));
        }
        fn room(&self) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    fn written(pieces: &[&[u8]]) -> Vec<String> {
        let sink = Arc::new(Kept::default());
        let name = InstanceName { process: "web".into(), index: 1 };
        let writer = LineWriter::new(name, Stream::Stdout, sink.clone(), Arc::default());
        pieces.iter().for_each(|piece| writer.write_bytes(piece));
        drop(writer);
        let lines = sink.0.lock().unwrap();
        lines.clone()
    }

    #[test]
    fn pieces_become_lines_and_the_last_needs_no_end() {
        assert_eq!(written(&[b"a", b"b\nc\r\n\nd"]), ["web.1|ab", "web.1|c", "web.1|", "web.1|d"]);
    }

    #[test]
    fn what_is_not_text_is_replaced() {
        assert_eq!(written(&[b"\xff!\n"]), ["web.1|\u{fffd}!"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let lines = written(&[&vec![b'x'; 3 * LINE_BYTES_MAX + 1]]);
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX + 6), "{}", lines.len());
        assert_eq!(lines.iter().map(|line| line.len() - 6).sum::<usize>(), 3 * LINE_BYTES_MAX + 1);
    }
}
