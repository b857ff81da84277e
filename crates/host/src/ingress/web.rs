//! One http type: a request waits for an instance of it, and becomes that instance's call.
//!
//! A request that an instance crashes on is repeated once, on a fresh one, if the instance had been called before
//! (so that the fault may be its own, and not the request's), nothing was answered yet, and HTTP lets a proxy repeat
//! it: its method is safe, and it has no body. While the type moves from one version to another, such a request is
//! repeated on an instance of the other version, whether its instance had been called before or not: it's the version that
//! may be at fault. So is one that crashed a canary, on the live version. A request that its guest never saw is repeated
//! once whatever its method, if it has no body. An error code that the guest answers with is an answer, and never repeated.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{Either, Empty};
use hyper::body::Body;
use wasmhost_engine::{BoxError, CallEnd, CallLimits, Finished, RequestScheme, ResponseBody};

use super::Answer;
use super::access::Served;
use super::body::{ReadAhead, RequestBody};
use super::failures::{FailureLog, Outcome};
use super::outgoing::check;
use super::rounds::TypeRounds;
use crate::pool::{Lease, Lent, Need, NoInstance, Pool, Reused, Slot};
use crate::share::Share;
use crate::traces::{CallSpan, Line};

/// How long a refusal is held back when there are very many. A client that is refused asks again at once, and refusing
/// hundreds of those over and over would take the time in which others are served. One that was in the line until its
/// time was over has been held already.
const REFUSAL_HELD: Duration = Duration::from_millis(100);

/// An http type, as the ingress sees it.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) pool: Arc<Pool>,
    pub(crate) limits: CallLimits,
    pub(crate) wait_max: Duration,
    pub(crate) failures: Arc<FailureLog>,
    pub(crate) body_bytes_max: Option<u64>,
    pub(crate) version: Shared,
    /// Its turns among other types.
    pub(crate) rounds: Arc<TypeRounds>,
}

/// Whether a type's requests are shared between two versions.
#[derive(Clone)]
pub(crate) enum Shared {
    /// There is one version.
    Not,
    /// This is the live one, and that the canary.
    WithCanary(Arc<Web>, Share),
    /// This is the canary, and that the live one: it answers where this one has no instance to give.
    WithLive(Arc<Web>),
}

/// The result of a call.
struct Called {
    slot: Arc<Slot>,
    reused: Reused,
    answer: Result<Response<ResponseBody>, CallEnd>,
}

/// A call that gets another instance: its own crashed, or had taken no more calls.
struct Failed<'a> {
    slot: &'a Slot,
    reused: Reused,
    end: CallEnd,
}

impl Web {
    /// The version that is to answer the next request. A canary without instances is passed over, so that a version that
    /// doesn't start costs nobody an answer.
    pub(super) fn version(self: &Arc<Self>) -> &Arc<Self> {
        match &self.version {
            Shared::WithCanary(canary, share) if share.falls_to_canary() && canary.pool.live() > 0 => canary,
            _ => self,
        }
    }

    pub(super) async fn serve(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
        scheme: RequestScheme,
        room: &ReadAhead,
        served: &mut Served,
    ) -> Answer {
        let has_body = !request.body().is_end_stream();
        let repeatable = request.method().is_safe() && !has_body;
        let need = self.pool.need(repeatable);
        let fault = request.body().fault();
        if has_body {
            request.body_mut().read_ahead(room).await;
            if let Some(failure) = fault.as_ref().and_then(|fault| fault.failure()) {
                served.process = Some(self.failures.process().clone());
                return failure.response().map(Either::Right);
            }
        }
        if let Some(turn) = self.rounds.enter() {
            let _ = turn.await;
        }
        let (head, body) = request.into_parts();
        let line = self.line(served);
        let lent = match self.pool.lend_in_turn(need, self.wait_max).await {
            Ok(lent) => lent,
            Err(none) => {
                drop(line);
                if let Some(live) = self.stand_in(none) {
                    let request = Request::from_parts(head, body);
                    return Box::pin(live.serve(request, scheme, room, served)).await;
                }
                return self.refuse(&head, none, served).await;
            }
        };
        // A failure needs it, and by then the request is gone.
        let head = Arc::new(head);
        let called = match lent {
            Lent::Now(lease) => Ok(self.call(lease, &head, body, scheme, line).await),
            Lent::InTurn(promise) => {
                let (web, head) = (self.clone(), head.clone());
                let call = async move {
                    match promise.redeem(web.wait_max).await {
                        Ok(lease) => Ok(web.call(lease, &head, body, scheme, line).await),
                        Err(none) => Err((none, body)),
                    }
                };
                self.pool.on_compute(call).await
            }
        };
        let Called { slot, reused, answer } = match called {
            Ok(called) => called,
            Err((none, body)) => {
                if let Some(live) = self.stand_in(none) {
                    let request = Request::from_parts(Parts::clone(&head), body);
                    return Box::pin(live.serve(request, scheme, room, served)).await;
                }
                return self.refuse(&head, none, served).await;
            }
        };
        served.slot = Some(slot.clone());
        let end = match answer {
            Ok(answer) => {
                if need == Need::Fresh {
                    self.pool.was_served_fresh(&slot);
                }
                return self.pass(answer, &head, &slot);
            }
            Err(end) => end,
        };
        if (end.is_crash() || matches!(end, CallEnd::Returned(_) | CallEnd::ErrorCode(_)))
            && let Some(failure) = fault.and_then(|fault| fault.failure())
        {
            // The client is to blame, who is told so, and not the guest, whatever it did about a body that broke off.
            return failure.response().map(Either::Right);
        }
        let has_other = || self.other_version(slot.version.release).is_some();
        let to_blame = end.is_crash() && (reused != Reused::Not || repeatable && has_other());
        let unseen = matches!(end, CallEnd::Refused(_));
        if to_blame && repeatable || unseen && !has_body {
            // Boxed, since it would make every request's future twice as large.
            let failed = Failed { slot: &slot, reused, end };
            return Box::pin(self.repeat(head, scheme, failed, served)).await;
        }
        if to_blame {
            self.pool.was_not_repeated(&slot, reused);
        }
        self.failures.ended(&head, &slot.name.to_string(), &end).response().map(Either::Right)
    }

    /// A guest's answer, if it may be sent.
    fn pass(&self, mut answer: Response<ResponseBody>, head: &Parts, slot: &Slot) -> Answer {
        match check(&mut answer, &head.method) {
            Ok(()) => answer.map(Either::Left),
            Err(why) => {
                self.failures.unsendable(head, &slot.name.to_string(), why).response().map(Either::Right)
            }
        }
    }

    /// The live version, where this is a canary that has no instance to give: it has too much to do, or leaves.
    fn stand_in(&self, none: NoInstance) -> Option<&Arc<Web>> {
        match &self.version {
            Shared::WithLive(live) if none != NoInstance::TimedOut => Some(live),
            _ => None,
        }
    }

    /// There is no instance for it.
    async fn refuse(&self, head: &Parts, none: NoInstance, served: &mut Served) -> Answer {
        let (failure, flood) = self.failures.refused(head, none);
        served.process = Some(self.failures.process().clone());
        if flood && none != NoInstance::TimedOut {
            tokio::time::sleep(REFUSAL_HELD.min(self.wait_max)).await;
        }
        failure.response().map(Either::Right)
    }

    /// Lets another instance answer: one of the other version where there are two, or a fresh one, if a reused one crashed.
    async fn repeat(
        &self,
        head: Arc<Parts>,
        scheme: RequestScheme,
        failed: Failed<'_>,
        served: &mut Served,
    ) -> Answer {
        let Failed { slot: failed_slot, reused, end } = failed;
        let instance = failed_slot.name.to_string();
        let crashed = end.is_crash();
        let other = if crashed { self.other_version(failed_slot.version.release) } else { None };
        let is_other = other.is_some();
        let (web, need) = other.unwrap_or((self, if crashed { Need::Fresh } else { Need::Any }));
        let line = self.line(served);
        let Some((web, lease)) = web.lend_again(need).await else {
            return self.failures.ended(&head, &instance, &end).response().map(Either::Right);
        };
        let Called { slot, answer, .. } = web.call(lease, &head, Empty::<Bytes>::new(), scheme, line).await;
        let again = slot.name.to_string();
        served.slot = Some(slot.clone());
        match answer {
            Ok(answer) if !crashed => self.pass(answer, &head, &slot),
            Ok(answer) => {
                self.failures.repeated(&head, &instance, &end, &again);
                // The answer of one version says nothing of the other.
                if !is_other && std::ptr::eq(web, self) {
                    self.pool.was_repeated(failed_slot, reused);
                }
                self.pass(answer, &head, &slot)
            }
            Err(end) => self.failures.ended(&head, &again, &end).response().map(Either::Right),
        }
    }

    /// Where two versions serve: whose instance may answer in place of one of this release's, and which.
    fn other_version(&self, release: u64) -> Option<(&Web, Need)> {
        if self.pool.has_other_than(release) {
            return Some((self, Need::OtherThan(release)));
        }
        let Shared::WithLive(live) = &self.version else { return None };
        // While the canary is promoted the live version's instances are replaced by some of its own release.
        let need = if live.pool.has(release) { Need::OtherThan(release) } else { Need::Any };
        live.pool.has_other_than(release).then_some((live, need))
    }

    /// Another instance, and whose it is: the live version's, where this is a canary that has none to give.
    async fn lend_again(&self, need: Need) -> Option<(&Web, Lease)> {
        let none = match self.pool.lend(need, self.wait_max).await {
            Ok(lease) => return Some((self, lease)),
            Err(none) => none,
        };
        let live = self.stand_in(none)?;
        let lease = live.pool.lend(need, live.wait_max).await.ok()?;
        Some((live, lease))
    }

    /// A request's place in the line, where traces are on.
    fn line(&self, served: &Served) -> Option<Line> {
        Line::enter(served.trace.as_ref(), self.failures.process())
    }

    async fn call<B>(
        &self,
        mut lease: Lease,
        head: &Arc<Parts>,
        body: B,
        scheme: RequestScheme,
        line: Option<Line>,
    ) -> Called
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (slot, reused) = (lease.slot().clone(), lease.reused());
        let Some(instance) = lease.take() else {
            let answer = Err(CallEnd::Host("the instance was lent out already".into()));
            return Called { slot, reused, answer };
        };
        let outcome = Outcome::new(self.failures.clone(), head.clone(), slot.clone());
        let mut request = Request::from_parts(Parts::clone(head), body);
        let span = line.map(|line| line.lent(&slot));
        let trace = span.as_ref().and_then(CallSpan::trace);
        if let Some(span) = &span {
            span.put_on(request.headers_mut());
        }
        let done = {
            let outcome = outcome.clone();
            move |finished: Finished| {
                outcome.end(&finished.report.end);
                if let Some(span) = span {
                    span.end(&finished.report);
                }
                lease.give_back(finished);
            }
        };
        let answer = instance.call_http(request, scheme, self.limits, trace, done).await;
        if answer.is_ok() {
            outcome.answer();
        }
        Called { slot, reused, answer }
    }
}
