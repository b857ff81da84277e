//! The stream that a guest of WASI 0.3 writes to a file in a directory with a bound. The library's write as much as the
//! disk takes.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Source, StreamConsumer, StreamResult};
use wasmtime_wasi::p3::bindings::filesystem::types::ErrorCode;

use super::bounded::Bounded;

/// Bytes that are written at once.
const PIECE_BYTES_MAX: usize = 64 << 10;

pub(super) struct Consumer {
    file: Arc<File>,
    bounded: Bounded,
    /// Where the next piece goes; `None` is the file's end.
    position: Option<u64>,
    /// The piece that is being written, and how long it is.
    piece: Option<(JoinHandle<io::Result<()>>, usize)>,
    /// Is told how it ended.
    ended: Option<oneshot::Sender<Result<(), ErrorCode>>>,
}

impl Consumer {
    pub(super) fn new(
        file: Arc<File>,
        bounded: Bounded,
        position: Option<u64>,
        ended: oneshot::Sender<Result<(), ErrorCode>>,
    ) -> Consumer {
        Consumer { file, bounded, position, piece: None, ended: Some(ended) }
    }

    fn end(&mut self, result: Result<(), ErrorCode>) {
        if let Some(ended) = self.ended.take() {
            // The guest may not want to know.
            let _ = ended.send(result);
        }
    }
}

impl<D> StreamConsumer<D> for Consumer {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        let this = &mut *self;
        let (task, bytes) = this.piece.get_or_insert_with(|| {
            let rest = source.remaining();
            let piece = Bytes::copy_from_slice(&rest[..rest.len().min(PIECE_BYTES_MAX)]);
            let bytes = piece.len();
            (this.bounded.begin_write(this.file.clone(), this.position, piece), bytes)
        });
        // A write that has begun can't be taken back, so that this waits also where the guest would cancel it.
        let written = ready!(Pin::new(task).poll(cx)).unwrap_or_else(|err| Err(io::Error::other(err)));
        let bytes = *bytes;
        this.piece = None;
        match written {
            Ok(()) => {
                source.mark_read(bytes);
                this.position = this.position.map(|position| position.saturating_add(bytes as u64));
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(err) => {
                this.end(Err(err.into()));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}
