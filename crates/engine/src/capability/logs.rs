//! A guest's standard output and error: lines under the instance's name, at the pace at which the host takes them.
//!
//! A line ends with its line end, with the call that wrote it (where several calls share an instance, when none of them
//! runs any more), or with the instance.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::sandbox::log_rate::LogRate;
use crate::sandbox::meter::Meter;
use crate::services::{InstanceName, LogSink, Stream};

/// A line longer than this, in bytes, is cut in pieces of at most this length.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Bytes that a guest may write at once. Each of them may be a line.
const WRITE_BYTES_MAX: usize = 8 << 10;

/// One of an instance's two streams. All its clones share one unfinished line.
#[derive(Clone)]
pub(crate) struct LineWriter {
    shared: Arc<Shared>,
}

struct Shared {
    name: InstanceName,
    stream: Stream,
    sink: Arc<dyn LogSink>,
    rate: LogRate,
    meter: Arc<Meter>,
    unfinished: Mutex<Vec<u8>>,
}

impl LineWriter {
    pub(crate) fn new(
        name: InstanceName,
        stream: Stream,
        sink: Arc<dyn LogSink>,
        rate: LogRate,
        meter: Arc<Meter>,
    ) -> Self {
        LineWriter {
            shared: Arc::new(Shared { name, stream, sink, rate, meter, unfinished: Mutex::default() }),
        }
    }

    /// Ends a line that has no end yet.
    pub(crate) fn end_line(&self) {
        let mut unfinished = self.shared.lock();
        if !unfinished.is_empty() {
            self.shared.emit(&mut unfinished);
        }
    }

    fn has_room(&self) -> bool {
        self.shared.sink.has_room(&self.shared.name)
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        self.shared.sink.room(&self.shared.name)
    }

    fn write_bytes(&self, bytes: &[u8]) {
        let mut unfinished = self.shared.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            unfinished.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.shared.emit(&mut unfinished);
            } else {
                self.shared.emit_what_is_too_long(&mut unfinished);
            }
        }
    }
}

impl Shared {
    /// A whole line, whose end may be missing.
    fn emit(&self, line: &mut Vec<u8>) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let mut rest = text.strip_suffix(b"\r").unwrap_or(text);
        while rest.len() > LINE_BYTES_MAX {
            let (piece, after) = rest.split_at(cut(rest));
            self.emit_piece(piece);
            rest = after;
        }
        self.emit_piece(rest);
        line.clear();
    }

    /// The beginning of a line that has become too long, whatever follows: a byte more may be the first one of its end.
    fn emit_what_is_too_long(&self, line: &mut Vec<u8>) {
        while line.len() > LINE_BYTES_MAX + 1 {
            let end = cut(line);
            self.emit_piece(&line[..end]);
            line.drain(..end);
        }
    }

    fn emit_piece(&self, piece: &[u8]) {
        let fits = self.rate.take(piece.len());
        if !fits {
            self.sink.past_rate(&self.name, self.rate.bytes_per_second());
        }
        let text = String::from_utf8_lossy(piece);
        if self.stream == Stream::Stderr {
            self.meter.add_words(&text);
        }
        if fits {
            self.sink.line(&self.name, self.stream, &text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.unfinished.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Where to cut a line that is too long: not inside of a character, as far as it is text.
fn cut(line: &[u8]) -> usize {
    let is_inside = |at: usize| line[at] & 0xc0 == 0x80;
    // No character has more than four bytes.
    (LINE_BYTES_MAX - 3..=LINE_BYTES_MAX).rev().find(|at| !is_inside(*at)).unwrap_or(LINE_BYTES_MAX)
}

impl Drop for Shared {
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
        Box::new(PermittedLines { writer: self.clone(), permitted: 0 })
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(AsyncLines { writer: self.clone(), waiting: Mutex::new(None) })
    }
}

/// For WASI 0.2, where a guest asks how much it may write, and traps if it writes more.
struct PermittedLines {
    writer: LineWriter,
    /// Bytes.
    permitted: usize,
}

impl PermittedLines {
    fn take_permit(&mut self, bytes: usize) -> StreamResult<()> {
        match self.permitted.checked_sub(bytes) {
            Some(left) => {
                self.permitted = left;
                Ok(())
            }
            None => Err(StreamError::trap("the guest wrote more than check-write permitted")),
        }
    }
}

impl OutputStream for PermittedLines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take_permit(bytes.len())?;
        self.writer.write_bytes(&bytes);
        Ok(())
    }

    fn write_zeroes(&mut self, count: usize) -> StreamResult<()> {
        self.take_permit(count)?;
        self.writer.write_bytes(&vec![0; count]);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.permitted = if self.writer.has_room() { WRITE_BYTES_MAX } else { 0 };
        Ok(self.permitted)
    }
}

#[async_trait]
impl Pollable for PermittedLines {
    async fn ready(&mut self) {
        self.writer.room().await;
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
        while !this.writer.has_room() {
            let room = waiting.get_or_insert_with(|| this.writer.room());
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
        fn has_room(&self, _instance: &InstanceName) -> bool {
            true
        }
        fn line(&self, instance: &InstanceName, _stream: Stream, text: &str) {
            self.0.lock().unwrap().push(format!("{instance}|{text}"));
        }
        fn past_rate(&self, instance: &InstanceName, bytes_per_second: u64) {
            self.0.lock().unwrap().push(format!("{instance}|past {bytes_per_second}"));
        }
        fn room(&self, _instance: &InstanceName) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    fn writer() -> (LineWriter, Arc<Kept>) {
        writer_of(Stream::Stdout, 1 << 30, Arc::default())
    }

    fn writer_of(stream: Stream, bytes_per_second: u64, meter: Arc<Meter>) -> (LineWriter, Arc<Kept>) {
        let sink = Arc::new(Kept::default());
        let name = InstanceName { process: "web".into(), index: 1 };
        let rate = LogRate::new(bytes_per_second);
        (LineWriter::new(name, stream, sink.clone(), rate, meter), sink)
    }

    fn written(pieces: &[&[u8]]) -> Vec<String> {
        let (writer, sink) = writer();
        pieces.iter().for_each(|piece| writer.write_bytes(piece));
        drop(writer);
        let lines = sink.0.lock().unwrap();
        lines.iter().map(|line| line.strip_prefix("web.1|").unwrap().to_owned()).collect()
    }

    fn lengths(pieces: &[&[u8]]) -> Vec<usize> {
        written(pieces).iter().map(String::len).collect()
    }

    #[test]
    fn pieces_become_lines_and_the_last_needs_no_end() {
        assert_eq!(written(&[b"a", b"b\nc\r\n\nd"]), ["ab", "c", "", "d"]);
    }

    #[test]
    fn a_line_is_ended_once_by_the_end_of_its_call() {
        let (writer, sink) = writer();
        writer.write_bytes(b"whole\npart");
        writer.end_line();
        writer.end_line();
        writer.write_bytes(b"next\n");
        writer.end_line();
        assert_eq!(*sink.0.lock().unwrap(), ["web.1|whole", "web.1|part", "web.1|next"]);
    }

    #[test]
    fn what_is_not_text_is_replaced() {
        assert_eq!(written(&[b"\xff!\n"]), ["\u{fffd}!"]);
        // Also where there is no character's end to cut at.
        let lines = written(&[&[0x80; 2 * LINE_BYTES_MAX]]);
        assert_eq!(lines, vec!["\u{fffd}".repeat(LINE_BYTES_MAX); 2]);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_in_pieces() {
        const MAX: usize = LINE_BYTES_MAX;
        assert_eq!(lengths(&[&vec![b'x'; 3 * MAX + 1]]), [MAX, MAX, MAX, 1]);
        let line = |length: usize, end: &str| ["x".repeat(length).as_bytes(), end.as_bytes()].concat();
        for end in ["", "\n", "\r\n"] {
            assert_eq!(lengths(&[&line(MAX, end)]), [MAX], "{end:?}");
            assert_eq!(lengths(&[&line(MAX - 1, end)]), [MAX - 1], "{end:?}");
            assert_eq!(lengths(&[&line(MAX + 1, end)]), [MAX, 1], "{end:?}");
            assert_eq!(lengths(&[&line(2 * MAX, end)]), [MAX, MAX], "{end:?}");
            // The end comes by itself.
            assert_eq!(lengths(&[&line(MAX, ""), end.as_bytes()]), [MAX], "{end:?}");
        }
    }

    #[test]
    fn a_line_is_not_cut_inside_of_a_character() {
        for character in ["ä", "€", "🙂"] {
            for shift in 0..character.len() {
                let text = format!("{}{}", "x".repeat(shift), character.repeat(LINE_BYTES_MAX));
                // However it arrives.
                for size in [text.len(), 1_000, 1] {
                    let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                    let lines = written(&pieces);
                    assert!(lines.iter().all(|line| line.len() <= LINE_BYTES_MAX));
                    assert!(lines.len() <= text.len() / (LINE_BYTES_MAX - 3) + 1);
                    assert_eq!(lines.concat(), text);
                }
            }
        }
    }

    #[test]
    fn lines_past_the_rate_are_counted_and_the_last_words_are_heard_nevertheless() {
        let meter = Arc::<Meter>::default();
        let (writer, sink) = writer_of(Stream::Stderr, 1, meter.clone());
        writer.write_bytes(b"first\nsecond\nlast\n");
        assert_eq!(*sink.0.lock().unwrap(), ["web.1|first", "web.1|past 1", "web.1|past 1"]);
        assert_eq!(meter.last_words(), "first\nsecond\nlast");
    }

    #[test]
    fn a_write_beyond_its_permit_is_a_trap() {
        let (writer, sink) = writer();
        let mut stream = writer.p2_stream();
        assert!(matches!(stream.write(Bytes::from_static(b"x\n")), Err(StreamError::Trap(_))));
        assert_eq!(stream.check_write().unwrap(), WRITE_BYTES_MAX);
        stream.write(Bytes::from_static(b"x\n")).unwrap();
        assert!(matches!(stream.write(vec![b'\n'; WRITE_BYTES_MAX].into()), Err(StreamError::Trap(_))));
        assert!(matches!(stream.write_zeroes(usize::MAX), Err(StreamError::Trap(_))));
        stream.write_zeroes(1).unwrap();
        assert_eq!(*sink.0.lock().unwrap(), ["web.1|x"]);
    }
}
