//! The thread that reads, so that a long list doesn't hold up the writer.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::damage::Damage;
use super::errors;
use crate::clock::Moment;
use crate::{Clock, StoreError};

/// Questions that wait for the reader; past it callers wait to get in.
pub(super) const WAITING_MAX: usize = 256;

/// One question, which answers its caller itself.
pub(super) type Question = Box<dyn FnOnce(&Connection, Moment, &Damage) + Send>;

/// The reader thread's own things.
pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) damage: Arc<Damage>,
    pub(super) inbox: mpsc::Receiver<Message>,
}

/// A message to the reader thread.
pub(super) enum Message {
    Question(Question),
    /// Answer what was accepted, and accept no more.
    Close,
}

impl Reader {
    /// Works until every handle is gone or one says `Close`.
    pub(super) fn run(mut self) {
        while let Some(message) = self.inbox.blocking_recv() {
            match message {
                Message::Question(question) => {
                    question(&self.connection, Moment::of(&*self.clock), &self.damage);
                }
                Message::Close => self.inbox.close(),
            }
        }
    }
}

/// A question, and where its answer will come. It may be asked twice.
pub(super) fn question<A, F>(ask: F) -> (Question, oneshot::Receiver<Result<A, StoreError>>)
where
    A: Send + 'static,
    F: Fn(&Connection, Moment) -> rusqlite::Result<A> + Send + 'static,
{
    let (caller, answer) = oneshot::channel();
    let question = move |connection: &Connection, moment: Moment, damage: &Damage| {
        let ask = || ask(connection, moment).map_err(|error| errors::from_sqlite(connection, &error));
        let answer = match ask() {
            Err(StoreError::Damaged(_)) => ask().map_err(|error| damage.judge(error)),
            answer => answer,
        };
        let _ = caller.send(answer);
    };
    (Box::new(question), answer)
}
