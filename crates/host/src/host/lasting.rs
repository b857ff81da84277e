//! Tasks and threads that last as long as the host. One that ends before the host is told to, or that panics, leaves a
//! host that looks alive and isn't: such an end is told to [`Lasting::lost`], and the host drains and stops with an
//! error.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// How often it is looked whether a thread still works.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Lasting(Arc<Watched>);

struct Watched {
    /// The first of them that was lost.
    lost: watch::Sender<Option<Lost>>,
    /// The host is going: ends are expected from now on.
    released: AtomicBool,
}

/// Something ended that the host can't do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    name: String,
    how: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, and the host can't do without: this is a defect of wasmhost", self.name, self.how)
    }
}

impl Lasting {
    pub(crate) fn new() -> Lasting {
        Lasting(Arc::new(Watched { lost: watch::channel(None).0, released: AtomicBool::new(false) }))
    }

    /// Spawns a task that ends with the host, and not before.
    pub(crate) fn spawn(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(self.watch(name.into(), task))
    }

    /// The same, for a task that somebody else waits for too.
    pub(crate) fn spawn_on(
        &self,
        tracker: &TaskTracker,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        tracker.spawn(self.watch(name.into(), task));
    }

    /// The same, for a task that is told to end by `stop`, while the host goes on.
    pub(crate) fn spawn_until(
        &self,
        tracker: &TaskTracker,
        name: impl Into<String>,
        stop: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        tracker.spawn(self.watch_until(name.into(), move || stop.is_cancelled(), task))
    }

    /// The same, for one that nobody else waits for.
    pub(crate) fn spawn_replaced(
        &self,
        name: impl Into<String>,
        replaced: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(self.watch_until(name.into(), move || replaced.is_cancelled(), task))
    }

    /// Looks from time to time whether a thread still works.
    pub(crate) fn watch_thread(&self, name: &str, works: impl Fn() -> bool + Send + 'static) {
        self.spawn(name, async move {
            while works() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    /// The host is going: what ends from now on was told to.
    pub(crate) fn release(&self) {
        self.0.released.store(true, SeqCst);
    }

    /// The first loss, if something was lost.
    pub(crate) fn first_lost(&self) -> Option<Lost> {
        self.0.lost.borrow().clone()
    }

    /// Waits until something is lost, for ever if nothing is.
    pub(crate) fn lost(&self) -> impl Future<Output = Lost> + Send + use<> {
        let mut lost = self.0.lost.subscribe();
        // Keeps the sender alive: its end is no loss.
        let this = self.clone();
        async move {
            let first = lost.wait_for(Option::is_some).await.ok().and_then(|first| first.clone());
            drop(this);
            match first {
                Some(first) => first,
                None => std::future::pending().await,
            }
        }
    }

    fn watch(
        &self,
        name: String,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.watch_until(name, || false, task)
    }

    fn watch_until(
        &self,
        name: String,
        may_end: impl FnOnce() -> bool + Send + 'static,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        let task = injected::ending(name.clone(), task);
        async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) if this.0.released.load(SeqCst) || may_end() => {}
                Ok(()) => this.lose(name, "has ended".to_owned()),
                Err(panic) => this.lose(name, format!("has panicked ({})", message(&*panic))),
            }
        }
    }

    fn lose(&self, name: String, how: String) {
        let lost = Lost { name, how };
        error!("{lost}");
        self.0.lost.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(lost);
            is_first
        });
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Ends and panics on purpose, for the tests of the program.
#[cfg(debug_assertions)]
mod injected {
    use std::path::Path;
    use std::time::Duration;

    const LOOK_EVERY: Duration = Duration::from_millis(10);

    /// `WASMHOST_FAULT_END=the supervisor:FILE` ends the task of this name when there is such a file;
    /// `WASMHOST_FAULT_PANIC` lets it panic, and `WASMHOST_FAULT_HANG` keeps it from going on.
    pub(super) async fn ending(name: String, task: impl Future<Output = ()> + Send + 'static) {
        let file = |variable| {
            let given = std::env::var(variable).ok()?;
            given.strip_prefix(&name)?.strip_prefix(':').map(str::to_owned)
        };
        let (end, panic) = (file("WASMHOST_FAULT_END"), file("WASMHOST_FAULT_PANIC"));
        let hang = file("WASMHOST_FAULT_HANG");
        let Some(file) = panic.as_ref().or(end.as_ref()).or(hang.as_ref()) else { return task.await };
        let wanted = async {
            while !Path::new(file).exists() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let mut task = std::pin::pin!(task);
        tokio::select! {
            () = &mut task => {}
            () = wanted => assert!(panic.is_none(), "a test wants it"),
        }
        if hang.is_some() {
            tracing::warn!("{name} hangs: a test wants it");
            std::future::pending().await
        }
    }
}

#[cfg(not(debug_assertions))]
mod injected {
    pub(super) fn ending<T>(_name: String, task: T) -> T {
        task
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_lost() {
        let lasting = Lasting::new();
        let task = lasting.spawn("the clock", async { panic!("no springs") });
        let lost = lasting.lost().await;
        assert!(lost.to_string().starts_with("the clock has panicked (no springs)"), "{lost}");
        // Who waits for the task isn't told a second time.
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_ends_is_lost_unless_the_host_is_going() {
        let lasting = Lasting::new();
        let _going_on = lasting.spawn("the one", std::future::pending());
        let _ended = lasting.spawn("the other", async {});
        assert!(lasting.lost().await.to_string().starts_with("the other has ended"));

        let lasting = Lasting::new();
        lasting.release();
        lasting.spawn("the other", async {}).await.unwrap();
        assert!(lasting.lost().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_panic_is_lost_also_where_the_host_is_going() {
        let lasting = Lasting::new();
        lasting.release();
        let _task = lasting.spawn("the clock", async { panic!("{} springs", 0) });
        assert!(lasting.lost().await.to_string().contains("(0 springs)"));
    }

    #[tokio::test]
    async fn a_thread_is_lost_when_it_has_ended() {
        let lasting = Lasting::new();
        let thread = std::thread::spawn(|| {});
        lasting.watch_thread("the writer", move || !thread.is_finished());
        assert!(lasting.lost().await.to_string().starts_with("the writer has ended"));
    }

    #[tokio::test]
    async fn the_first_loss_is_what_is_told() {
        let lasting = Lasting::new();
        lasting.spawn("the first", async {}).await.unwrap();
        lasting.spawn("the second", async {}).await.unwrap();
        assert!(lasting.lost().await.to_string().starts_with("the first"));
    }
}
