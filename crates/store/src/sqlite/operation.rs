//! The writer's work, one kind of operation at a time: its cost, its effect and its answer.

use tokio::sync::oneshot;

use super::errors;
use super::writer::Tx;
use crate::StoreError;

/// Bytes of payload that cost as much as a row.
const BYTES_A_ROW: usize = 16 << 10;

/// One kind of operation.
pub(super) trait Write: Send + 'static {
    /// The answer that its caller gets after the commit.
    type Answer: Send + 'static;

    /// Does it. It may be called again, after a rollback.
    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Self::Answer>;

    /// About how many rows it writes: by these it has its turn among others.
    fn rows(&self) -> usize {
        1
    }

    /// How much payload it writes, in bytes.
    fn bytes(&self) -> usize {
        0
    }

    /// Whether it puts jobs into the store. These are refused first when the disk is full.
    fn adds(&self) -> bool {
        false
    }

    /// Whether jobs of a queue may come to wait, or wait no more, by something else than what an enqueue counts itself.
    fn moves_waiting(&self) -> bool {
        true
    }

    /// Called once the answer is true, before it is sent.
    fn committed(_answer: &mut Self::Answer) {}
}

/// A [`Write`] with its answer and who waits for it.
pub(super) trait Operation: Send {
    /// In rows.
    fn cost(&self) -> usize;
    fn adds(&self) -> bool;
    fn moves_waiting(&self) -> bool;
    fn apply(&mut self, tx: &Tx<'_>) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, failure: Option<StoreError>);
}

struct Waiting<W: Write> {
    write: W,
    answer: Option<W::Answer>,
    caller: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Write> Operation for Waiting<W> {
    fn cost(&self) -> usize {
        (self.write.rows() + self.write.bytes() / BYTES_A_ROW).max(1)
    }

    fn adds(&self) -> bool {
        self.write.adds()
    }

    fn moves_waiting(&self) -> bool {
        self.write.moves_waiting()
    }

    fn apply(&mut self, tx: &Tx<'_>) -> rusqlite::Result<()> {
        self.answer = Some(self.write.apply(tx)?);
        Ok(())
    }

    fn answer(mut self: Box<Self>, failure: Option<StoreError>) {
        let answer = match (failure, self.answer.take()) {
            (None, Some(mut answer)) => {
                W::committed(&mut answer);
                Ok(answer)
            }
            (failure, _) => Err(failure.unwrap_or_else(errors::closed)),
        };
        // A caller that went away doesn't want to know.
        let _ = self.caller.send(answer);
    }
}

/// Where an operation's answer will come.
pub(super) type Awaited<A> = oneshot::Receiver<Result<A, StoreError>>;

/// An operation for the writer, and where its answer will come.
pub(super) fn operation<W: Write>(write: W) -> (Box<dyn Operation>, Awaited<W::Answer>) {
    let (caller, answer) = oneshot::channel();
    (Box::new(Waiting { write, answer: None, caller }), answer)
}
