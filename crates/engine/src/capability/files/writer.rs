//! A stream of WASI 0.2 that writes to a file in a directory with a bound. The library's write as much as the disk takes.

use std::fs::File;
use std::io;
use std::mem;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinHandle;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::bounded::Bounded;

/// Bytes that are taken at once: as many as the library's streams take.
const PERMITTED: usize = 64 << 10;

pub(super) struct Writer {
    file: Arc<File>,
    bounded: Bounded,
    /// Where the next write goes; `None` is the file's end.
    position: Option<u64>,
    state: Writing,
}

enum Writing {
    Ready,
    Under {
        task: JoinHandle<io::Result<()>>,
        bytes: u64,
    },
    /// The last write failed, which the guest is to be told.
    Failed(io::Error),
    Closed,
}

impl Writer {
    pub(super) fn new(file: Arc<File>, bounded: Bounded, position: Option<u64>) -> Writer {
        Writer { file, bounded, position, state: Writing::Ready }
    }

    /// Tells of a write that failed, once.
    fn look(&mut self) -> StreamResult<()> {
        match &self.state {
            Writing::Ready | Writing::Under { .. } => Ok(()),
            Writing::Closed => Err(StreamError::Closed),
            Writing::Failed(_) => match mem::replace(&mut self.state, Writing::Closed) {
                Writing::Failed(err) => Err(StreamError::LastOperationFailed(err.into())),
                _ => Err(StreamError::Closed),
            },
        }
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, data: Bytes) -> StreamResult<()> {
        self.look()?;
        if let Writing::Under { .. } = self.state {
            return Err(StreamError::Trap(wasmtime::format_err!(
                "writes to a file's stream before `check-write` permits it"
            )));
        }
        let bytes = data.len() as u64;
        let task = self.bounded.begin_write(self.file.clone(), self.position, data);
        self.state = Writing::Under { task, bytes };
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.look()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.look()?;
        Ok(if let Writing::Under { .. } = self.state { 0 } else { PERMITTED })
    }

    async fn cancel(&mut self) {
        if let Writing::Under { task, .. } = mem::replace(&mut self.state, Writing::Closed) {
            // The part that was begun is written, as by the library.
            let _ = task.await;
        }
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        if let Writing::Under { task, bytes } = &mut self.state {
            let bytes = *bytes;
            self.state = match task.await.unwrap_or_else(|err| Err(io::Error::other(err))) {
                Ok(()) => {
                    self.position = self.position.map(|position| position.saturating_add(bytes));
                    Writing::Ready
                }
                Err(err) => Writing::Failed(err),
            };
        }
    }
}
