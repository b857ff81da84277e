//! The way to the writer. Every caller with an operation waits at the door of its line until there is room in the line, and so
//! waits for others of its line alone. See [`lines`](crate::lines).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::StoreError;
use crate::lines::LineId;

/// Operations of one line that wait for the writer; past it callers wait to get in.
const WAITING_MAX: usize = 1_024;

/// A message to the writer, whose operations are of type `O` and questions of type `Q`. The channel has no bound of its own: places in the lines are the bound.
pub(crate) enum Message<O, Q> {
    Operation(LineId, O, OwnedSemaphorePermit),
    /// A question, where there is no reader. It sees all that was answered.
    Question(Q, OwnedSemaphorePermit),
    /// Finish what was accepted, accept no more, and say when the file is closed.
    Close(oneshot::Sender<()>),
}

/// See the module. Clones lead to the same line.
pub(crate) struct Door<O, Q> {
    writer: UnboundedSender<Message<O, Q>>,
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
        self.room.clone().acquire_owned().await.map_err(|_| StoreError::Closed)
    }
}

impl<O, Q> Clone for Door<O, Q> {
    fn clone(&self) -> Self {
        Door { writer: self.writer.clone(), line: self.line.clone(), lines: self.lines.clone() }
    }
}

impl<O, Q> Door<O, Q> {
    /// That of the line which has no name.
    pub(crate) fn new(writer: UnboundedSender<Message<O, Q>>) -> Door<O, Q> {
        Door { writer, line: Line::new(LineId::UNNAMED), lines: Arc::default() }
    }

    /// That of a source's line. Lines aren't forgotten: there are as many as process types were ever named.
    pub(crate) fn of(&self, source: &str) -> Door<O, Q> {
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

    pub(crate) async fn send(&self, operation: O) -> Result<(), StoreError> {
        let place = self.line.place().await?;
        let message = Message::Operation(self.line.id, operation, place);
        self.writer.send(message).map_err(|_| StoreError::Closed)
    }

    pub(crate) async fn ask(&self, question: Q) -> Result<(), StoreError> {
        let place = self.line.place().await?;
        self.writer.send(Message::Question(question, place)).map_err(|_| StoreError::Closed)
    }

    /// False where the writer takes no more already.
    pub(crate) fn close(&self, closed: oneshot::Sender<()>) -> bool {
        self.writer.send(Message::Close(closed)).is_ok()
    }

    /// Waits until the writer has ended.
    pub(crate) async fn closed(&self) {
        self.writer.closed().await;
    }

    /// Operations of the line that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        WAITING_MAX - self.line.room.available_permits()
    }

    pub(crate) fn downgrade(&self) -> WeakDoor<O, Q> {
        WeakDoor { writer: self.writer.downgrade(), line: self.line.clone() }
    }
}

/// A door that doesn't keep the store open.
pub(crate) struct WeakDoor<O, Q> {
    writer: WeakUnboundedSender<Message<O, Q>>,
    line: Line,
}

impl<O, Q> WeakDoor<O, Q> {
    /// For one who can't wait: the operation is lost where the line is full, or the store closed.
    pub(crate) fn try_send(&self, operation: O) {
        if let (Some(writer), Ok(place)) = (self.writer.upgrade(), self.line.room.clone().try_acquire_owned())
        {
            let _ = writer.send(Message::Operation(self.line.id, operation, place));
        }
    }
}
