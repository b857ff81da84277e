//! The task that reads, on a connection of its own, so that a long list doesn't hold up the writer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join;
use tokio::sync::{mpsc, oneshot};

use super::connect::Connector;
use super::errors::{self, Kind};
use super::session::{Db, Session};
use super::shared::Shared;
use super::writer::Open;
use crate::clock::Moment;
use crate::{StoreError, Timestamp};

/// Questions that wait for the reader; past it callers wait to get in.
pub(super) const WAITING_MAX: usize = 256;

/// How long a question may take.
const QUESTION_MAX: Duration = Duration::from_secs(8);

/// After a failure to connect questions are refused for so long, without another try.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// One question. It may be asked twice.
#[async_trait]
pub(super) trait Read: Send + Sync + 'static {
    type Answer: Send + 'static;

    async fn ask(&self, view: &View<'_>) -> Db<Self::Answer>;
}

/// One state of the tables, and the time.
pub(super) struct View<'s> {
    pub(super) session: &'s Session,
    pub(super) now: Timestamp,
    /// See [`Tx`](super::tx::Tx).
    pub(super) steady: Timestamp,
}

/// A question and its caller.
#[async_trait]
pub(super) trait Question: Send {
    /// Asks, and answers unless the connection is lost. The error says why it is.
    async fn ask(&mut self, session: &Session, shared: &Shared) -> Result<(), StoreError>;
    fn refuse(self: Box<Self>, why: StoreError);
    fn is_abandoned(&self) -> bool;
}

struct Asked<R: Read> {
    question: R,
    caller: Option<oneshot::Sender<Result<R::Answer, StoreError>>>,
}

/// Where an answer will come.
pub(super) type Awaited<A> = oneshot::Receiver<Result<A, StoreError>>;

/// A question with its caller, and where its answer will come.
pub(super) fn question<R: Read>(question: R) -> (Box<dyn Question>, Awaited<R::Answer>) {
    let (caller, answer) = oneshot::channel();
    (Box::new(Asked { question, caller: Some(caller) }), answer)
}

#[async_trait]
impl<R: Read> Question for Asked<R> {
    async fn ask(&mut self, session: &Session, shared: &Shared) -> Result<(), StoreError> {
        let place = &shared.place;
        let asked = async {
            let (begun, now) = join(
                session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
                shared.time.now(session),
            )
            .await;
            begun?;
            let Moment { now, steady } = now?;
            let answer = self.question.ask(&View { session, now, steady }).await?;
            session.run("COMMIT").await?;
            Ok(answer)
        };
        let answer = match tokio::time::timeout(QUESTION_MAX, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let told: tokio_postgres::Error = error;
                if errors::kind(&told) == Kind::Away || session.run("ROLLBACK").await.is_err() {
                    return Err(errors::away(place, &errors::text(&told)));
                }
                Err(errors::from_postgres(place, &told))
            }
            Err(_) => {
                return Err(errors::away(
                    place,
                    &format!("it gave no answer within {} s", QUESTION_MAX.as_secs()),
                ));
            }
        };
        if let Some(caller) = self.caller.take() {
            let _ = caller.send(answer);
        }
        Ok(())
    }

    fn refuse(mut self: Box<Self>, why: StoreError) {
        if let Some(caller) = self.caller.take() {
            let _ = caller.send(Err(why));
        }
    }

    fn is_abandoned(&self) -> bool {
        self.caller.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// Answers questions until there will be no more.
pub(super) async fn run(
    connector: Arc<Connector>,
    shared: Arc<Shared>,
    mut inbox: mpsc::Receiver<Box<dyn Question>>,
    first: Open,
) {
    let mut open = Some(first);
    let mut refused: Option<(Instant, StoreError)> = None;
    while let Some(mut question) = inbox.recv().await {
        // The connection may have been lost while nobody asked: one that is lost is opened again, once.
        for last in [false, true] {
            if question.is_abandoned() {
                break;
            }
            if open.as_ref().is_none_or(|open| open.session.is_closed()) {
                if let Some((at, why)) = &refused
                    && at.elapsed() < REFUSED_FOR
                {
                    question.refuse(why.clone());
                    break;
                }
                match connector.connect().await {
                    Ok(connected) => (open, refused) = (Some(Open::of(connected)), None),
                    Err(error) => {
                        let why = errors::away(&shared.place, &error.to_string());
                        refused = Some((Instant::now(), why.clone()));
                        question.refuse(why);
                        break;
                    }
                }
            }
            let Some(on) = &open else { break };
            match question.ask(&on.session, &shared).await {
                Ok(()) => break,
                Err(why) => {
                    open = None;
                    if last {
                        question.refuse(why);
                        break;
                    }
                }
            }
        }
    }
}
