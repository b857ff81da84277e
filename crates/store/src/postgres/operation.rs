//! The writer's work, one kind of operation at a time: its cost, its effect and its answer.

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::claim::ClaimJobs;
use super::enqueue::Enqueue;
use super::session::Db;
use super::settle::Complete;
use super::shared::Shared;
use super::tx::Tx;
use crate::StoreError;

/// Bytes of payload that cost as much as a row.
const BYTES_A_ROW: usize = 16 << 10;

/// One kind of operation.
#[async_trait(?Send)]
pub(super) trait Write: Send + 'static {
    /// The answer that its caller gets after the commit.
    type Answer: Send + 'static;

    /// Does it. It may be called again, after a rollback.
    async fn apply(&self, tx: &Tx<'_>) -> Db<Self::Answer>;

    /// About how many rows it writes: by these it has its turn among others.
    fn rows(&self) -> usize {
        1
    }

    /// How much payload it writes, in bytes.
    fn bytes(&self) -> usize {
        0
    }

    /// Called once the answer is true, before it is sent.
    fn committed(_answer: &mut Self::Answer) {}

    /// The commit was sent, and its answer was lost; or nobody heard the answer. True where it can be done again all the
    /// same, since it finds out whether it was done.
    fn is_unsure(&mut self, _answer: Option<Self::Answer>, _shared: &Shared) -> bool {
        false
    }
}

/// A [`Write`] with its answer and who waits for it.
pub(super) struct Waiting<W: Write> {
    pub(super) write: W,
    pub(super) answer: Option<W::Answer>,
    caller: oneshot::Sender<Result<W::Answer, StoreError>>,
}

/// The same of whatever kind.
#[async_trait(?Send)]
pub(super) trait Applied: Send {
    /// In rows.
    fn cost(&self) -> usize;
    async fn apply(&mut self, tx: &Tx<'_>) -> Db<()>;
    fn answer(self: Box<Self>, failure: Option<StoreError>, shared: &Shared);
    fn is_unsure(&mut self, shared: &Shared) -> bool;
    /// Its caller has gone.
    fn is_abandoned(&self) -> bool;
}

/// An operation on its way. Those that there are many of are merged into one statement each.
pub(super) enum Operation {
    Complete(Box<Waiting<Complete>>),
    Enqueue(Box<Waiting<Enqueue>>),
    Claim(Box<Waiting<ClaimJobs>>),
    Other(Box<dyn Applied>),
}

#[async_trait(?Send)]
impl<W: Write> Applied for Waiting<W> {
    fn cost(&self) -> usize {
        (self.write.rows() + self.write.bytes() / BYTES_A_ROW).max(1)
    }

    async fn apply(&mut self, tx: &Tx<'_>) -> Db<()> {
        self.answer = Some(self.write.apply(tx).await?);
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>, shared: &Shared) {
        let Waiting { mut write, answer, caller } = *self;
        let answer = match (failure, answer) {
            (None, Some(mut answer)) => {
                W::committed(&mut answer);
                Ok(answer)
            }
            (failure, _) => Err(failure.unwrap_or(StoreError::Closed)),
        };
        if let Err(Ok(unheard)) = caller.send(answer) {
            write.is_unsure(Some(unheard), shared);
        }
    }

    fn is_unsure(&mut self, shared: &Shared) -> bool {
        self.write.is_unsure(self.answer.take(), shared)
    }

    fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
    }
}

impl Operation {
    fn applied(&self) -> &dyn Applied {
        match self {
            Operation::Complete(waiting) => &**waiting,
            Operation::Enqueue(waiting) => &**waiting,
            Operation::Claim(waiting) => &**waiting,
            Operation::Other(other) => &**other,
        }
    }

    pub(super) fn cost(&self) -> usize {
        self.applied().cost()
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.applied().is_abandoned()
    }

    pub(super) fn is_unsure(&mut self, shared: &Shared) -> bool {
        match self {
            Operation::Complete(waiting) => Applied::is_unsure(&mut **waiting, shared),
            Operation::Enqueue(waiting) => Applied::is_unsure(&mut **waiting, shared),
            Operation::Claim(waiting) => Applied::is_unsure(&mut **waiting, shared),
            Operation::Other(other) => other.is_unsure(shared),
        }
    }

    pub(super) fn answer(self, failure: Option<StoreError>, shared: &Shared) {
        match self {
            Operation::Complete(waiting) => waiting.answer(failure, shared),
            Operation::Enqueue(waiting) => waiting.answer(failure, shared),
            Operation::Claim(waiting) => waiting.answer(failure, shared),
            Operation::Other(other) => other.answer(failure, shared),
        }
    }
}

/// Where an operation's answer will come.
pub(super) type Awaited<A> = oneshot::Receiver<Result<A, StoreError>>;

/// An operation with its caller, and where its answer will come.
pub(super) fn waiting<W: Write>(write: W) -> (Box<Waiting<W>>, Awaited<W::Answer>) {
    let (caller, answer) = oneshot::channel();
    (Box::new(Waiting { write, answer: None, caller }), answer)
}

/// An operation that is done though nobody waits for its answer.
pub(super) struct Unheard<W: Write> {
    pub(super) waiting: Box<Waiting<W>>,
    /// As long as it is there the operation isn't abandoned.
    pub(super) _answer: Awaited<W::Answer>,
}

#[async_trait(?Send)]
impl<W: Write> Applied for Unheard<W> {
    fn cost(&self) -> usize {
        self.waiting.cost()
    }

    async fn apply(&mut self, tx: &Tx<'_>) -> Db<()> {
        self.waiting.apply(tx).await
    }

    fn answer(self: Box<Self>, failure: Option<StoreError>, shared: &Shared) {
        self.waiting.answer(failure, shared);
    }

    /// To do it twice does no harm.
    fn is_unsure(&mut self, _shared: &Shared) -> bool {
        true
    }

    fn is_abandoned(&self) -> bool {
        false
    }
}
