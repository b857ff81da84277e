//! The first instance of a new version is tried before anything moves: it is started and, where the type has a `ready`
//! path, asked until it answers 2xx. It serves nobody, and goes again.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use tokio::sync::oneshot;
use wasmhost_config::Trigger;
use wasmhost_engine::{CallEnd, CallLimits, Instance, RequestScheme};

use crate::pool::Version;
use crate::trigger::release::Leash;

/// How long to wait before it's asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The bytes of an answer that are read. A longer one is an answer too.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A version on trial.
pub(super) struct Trial<'a> {
    pub(super) process: &'a str,
    pub(super) trigger: &'a Trigger,
    /// Where requests are asked, if the type takes them.
    pub(super) ready: Option<&'a str>,
    pub(super) version: &'a Version,
    pub(super) limits: CallLimits,
    /// The name's number: one that no instance has.
    pub(super) index: u32,
}

impl Trial<'_> {
    /// Returns when the version has shown that it starts, and is ready. `asked` is told how the last question ended.
    pub(super) async fn run(&self, mut asked: impl FnMut(String)) -> Result<(), String> {
        let mut leash = Leash::default();
        let mut instance = self.start(&leash).await?;
        let (Some(path), Trigger::Http { .. }) = (self.ready, self.trigger) else {
            instance.discard().await;
            return Ok(());
        };
        loop {
            asked(format!("\"{}\" had not answered GET {path}", self.process));
            let (answer, left) = self.ask(instance, path).await?;
            if answer.is_success() {
                if let Some(instance) = left {
                    instance.discard().await;
                }
                return Ok(());
            }
            asked(format!("\"{}\" answers GET {path} with {answer}", self.process));
            tokio::time::sleep(ASK_AGAIN).await;
            instance = match left {
                Some(instance) => instance,
                None => {
                    leash = Leash::default();
                    self.start(&leash).await?
                }
            };
        }
    }

    async fn start(&self, leash: &Leash) -> Result<Instance, String> {
        let started = self.version.component.start(self.index, leash.meter()).await;
        started.map_err(|end| format!("\"{}\" failed to start: {}", self.process, told(&end)))
    }

    /// Returns the instance too, if it can take another call.
    async fn ask(
        &self,
        instance: Instance,
        path: &str,
    ) -> Result<(http::StatusCode, Option<Instance>), String> {
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, "wasmhost")
            .body(Empty::<Bytes>::new())
            .map_err(|err| format!("`ready` of \"{}\" can't be asked: {err}", self.process))?;
        let (done, finished) = oneshot::channel();
        let answer = instance
            .call_http(request, RequestScheme::Http, self.limits, None, move |over| drop(done.send(over)))
            .await
            .map_err(|end| format!("\"{}\" {} when it was asked for {path}", self.process, told(&end)))?;
        let (head, body) = answer.into_parts();
        // The call ends when its body was read, or is given up.
        drop(Limited::new(body, ANSWER_BYTES_MAX).collect().await);
        let over = finished.await.map_err(|_| format!("the call of \"{}\" was lost", self.process))?;
        match over.report.end {
            CallEnd::Returned(()) => Ok((head.status, over.instance)),
            end => Err(format!("\"{}\" {} when it was asked for {path}", self.process, told(&end))),
        }
    }
}

/// With the backtrace of a trap: nobody else will tell it.
fn told<T>(end: &CallEnd<T>) -> String {
    match end {
        CallEnd::Trap(backtrace) => format!("trapped: {backtrace}"),
        end => end.summary(),
    }
}
