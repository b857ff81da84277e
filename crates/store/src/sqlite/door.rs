//! The way to the writer. Every caller with an operation waits at the door of its line until there is room in the line, and so
//! waits for others of its line alone. See [`lines`](super::lines).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::errors;
use super::lines::LineId;
use super::operation::Operation;
use super::reader::Question;
use crate::StoreError;

/// Operations of one line that wait for the writer; past it callers wait to get in.
const WAITING_MAX: usize = 1_024;

/// A message to the writer thread. The channel has no bound of its own: places in the lines are the bound.
pub(super) enum Message {
    Operation(LineId, Box<dyn Operation>, OwnedSemaphorePermit),
    /// A question, where there is no reader. It sees all that was answered.
    Question(Question, OwnedSemaphorePermit),
    /// Finish what was accepted, accept no more, and say when the file is closed.
    Close(oneshot::Sender<()>),
}

/// See the module. Clones lead to the same line.
#[derive(Clone)]
pub(super) struct Door {
    writer: UnboundedSender<Message>,
    line: Line,
    /// Those of named sources.
    lines: Arc<Mutex<HashMap<String, Line>>>,
}

#[derive(Clone)]
struct Line {
    id: LineId,
    room: Arc<Semaphore>,
}

impl Line {
    fn new(id: LineId) -> Line {
        Line { id, room: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        self.room.clone().acquire_owned().await.map_err(|_| errors::closed())
    }
}

impl Door {
    /// That of the line which has no name.
    pub(super) fn new(writer: UnboundedSender<Message>) -> Door {
        Door { writer, line: Line::new(LineId::UNNAMED), lines: Arc::default() }
    }

    /// That of a source's line. Lines aren't forgotten: there are as many as process types were ever named.
    pub(super) fn of(&self, source: &str) -> Door {
        let mut lines = self.lines.lock().unwrap_or_else(|poison| poison.into_inner());
        let line = match lines.get(source) {
            Some(line) => line.clone(),
            None => {
                let line = Line::new(LineId(lines.len() + 1));
                lines.insert(source.to_owned(), line.clone());
                line
            }
        };
        Door { line, ..self.clone() }
    }

    pub(super) async fn send(&self, operation: Box<dyn Operation>) -> Result<(), StoreError> {
        let place = self.line.place().await?;
        let message = Message::Operation(self.line.id, operation, place);
        self.writer.send(message).map_err(|_| errors::closed())
    }

    pub(super) async fn ask(&self, question: Question) -> Result<(), StoreError> {
        let place = self.line.place().await?;
        self.writer.send(Message::Question(question, place)).map_err(|_| errors::closed())
    }

    /// False where the writer takes no more already.
    pub(super) fn close(&self, closed: oneshot::Sender<()>) -> bool {
        self.writer.send(Message::Close(closed)).is_ok()
    }

    /// Waits until the writer has ended.
    pub(super) async fn closed(&self) {
        self.writer.closed().await;
    }

    /// Operations of the line that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        WAITING_MAX - self.line.room.available_permits()
    }

    pub(super) fn downgrade(&self) -> WeakDoor {
        WeakDoor { writer: self.writer.downgrade(), line: self.line.clone() }
    }
}

/// A door that doesn't keep the store open.
pub(super) struct WeakDoor {
    writer: WeakUnboundedSender<Message>,
    line: Line,
}

impl WeakDoor {
    /// For one who can't wait: the operation is lost where the line is full, or the store closed.
    pub(super) fn try_send(&self, operation: Box<dyn Operation>) {
        if let (Some(writer), Ok(place)) = (self.writer.upgrade(), self.line.room.clone().try_acquire_owned())
        {
            let _ = writer.send(Message::Operation(self.line.id, operation, place));
        }
    }
}
