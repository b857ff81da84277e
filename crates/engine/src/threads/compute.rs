//! The compute threads: one for each core, at a lower priority, so that they never keep an I/O thread from running.
//!
//! A process type has a [`Lane`] on them, which all its versions share. A task that is spawned there waits in the type's line,
//! and runs in slices; [`Turns`] says whose turn it is. A task keeps its place within its type for some turns, also if it waits in between. So
//! its data are still in the processor's caches, and a task that waits often doesn't stand behind all others each time. A
//! runtime beside the threads drives guests' timers and sockets, and the threads are in it as far as the guests' host
//! calls can tell.

use std::any::Any;
use std::collections::HashMap;
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_task::{ScheduleInfo, WithInfo};
use futures_util::FutureExt;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

use super::after_slices;
use super::current::{mark_compute_thread, prepare_thread, thread_cpu};
use super::turns::{PlaceInLine, Turns, TypeId};

/// How much lower than the host's the compute threads' priority is, as `nice` counts it.
const COMPUTE_NICE: i32 = 10;

/// Turns that a call may have before it stands behind the others of its type again.
const TURNS_MAX: u32 = 10;

/// A task that can go on; and how many turns it has had, or is about to have, since it stood behind the others.
type Runnable = async_task::Runnable<AtomicU32>;

/// The threads. They end when this is dropped, each with the slice that it runs, and what waits is dropped.
pub(crate) struct Compute {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

/// A process type's line on the compute threads. It is forgotten with the last of these and of what was spawned on it.
#[derive(Clone)]
pub(crate) struct Lane(Arc<Line>);

struct Line {
    id: TypeId,
    process: Arc<str>,
    queue: Arc<Queue>,
}

/// A task that was spawned, and goes on if this is dropped. Its output is missing if the threads have ended first.
pub(crate) type Spawned<T> = oneshot::Receiver<Result<T, Panic>>;

/// The value that a task panicked with.
pub(crate) type Panic = Box<dyn Any + Send>;

/// A turn that is over, and what it took.
struct Turn {
    id: TypeId,
    cpu: Duration,
}

#[derive(Default)]
struct Queue {
    inner: Mutex<Inner>,
    awake: Condvar,
}

#[derive(Default)]
struct Inner {
    turns: Turns<Runnable>,
    /// The lines that there are, by their types' names.
    lines: HashMap<Arc<str>, Weak<Line>>,
    /// Threads that wait and that nobody has woken yet; more than there are, if one woke by itself.
    asleep: usize,
    stopped: bool,
}

impl Compute {
    /// Starts the threads.
    pub(crate) fn start() -> std::io::Result<Compute> {
        let mut compute = Compute { queue: Arc::default(), threads: vec![] };
        let io = Arc::new(Io::start()?);
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            let (queue, io) = (compute.queue.clone(), io.clone());
            let thread = thread::Builder::new().name("wasmhost-compute".into());
            compute.threads.push(thread.spawn(move || run(&queue, &io))?);
        }
        Ok(compute)
    }

    /// Whether all threads still work.
    pub(crate) fn is_alive(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// The line of the process type of this name: the one that there is, or a new one of weight 1.
    pub(crate) fn lane(&self, process: &Arc<str>) -> Lane {
        let mut inner = self.queue.lock();
        if let Some(line) = inner.lines.get(process).and_then(Weak::upgrade) {
            return Lane(line);
        }
        let id = inner.turns.add();
        let line = Arc::new(Line { id, process: process.clone(), queue: self.queue.clone() });
        inner.lines.insert(process.clone(), Arc::downgrade(&line));
        Lane(line)
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        // Not waited for: this may be one of them, and a slice may be a long host call.
        self.queue.stop();
    }
}

impl Lane {
    /// Where types compete for the threads, this one gets so many times the time of one of weight 1.
    pub(crate) fn weigh(&self, weight: u32) {
        self.0.queue.lock().turns.weigh(self.0.id, weight);
    }

    /// Runs `work` on the compute threads, to its end.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Spawned<T> {
        let (sender, spawned) = oneshot::channel();
        let work = async move {
            let output = AssertUnwindSafe(work).catch_unwind().await;
            // Nobody may wait for it any more.
            let _ = sender.send(output);
        };
        let lane = self.clone();
        let schedule = move |runnable: Runnable, info: ScheduleInfo| {
            let turns = runnable.metadata().load(Relaxed);
            let place = if turns == 0 { PlaceInLine::Last } else { PlaceInLine::First };
            runnable.metadata().store((turns + 1) % TURNS_MAX, Relaxed);
            // A task that yielded is picked up by the same thread, so no other needs waking. (If that thread takes
            // another first, the push of that one woke a thread.)
            lane.0.queue.push(lane.0.id, runnable, place, !info.woken_while_running);
        };
        // An output that nobody waits for may panic too, as it is dropped.
        let task = async_task::Builder::new().propagate_panic(true).metadata(AtomicU32::new(0));
        let (runnable, task) = task.spawn(move |_| work, WithInfo(schedule));
        task.detach();
        runnable.schedule();
        spawned
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut inner = self.queue.lock();
        let waiting = inner.turns.remove(self.id);
        // Since this one ended, the type may have been given another.
        if inner.lines.get(&self.process).is_some_and(|line| line.strong_count() == 0) {
            inner.lines.remove(&self.process);
        }
        drop(inner);
        // All that was spawned holds its line.
        debug_assert!(waiting.is_empty());
    }
}

impl Queue {
    fn push(&self, id: TypeId, runnable: Runnable, place: PlaceInLine, may_wake: bool) {
        let mut inner = self.lock();
        if inner.stopped {
            drop(inner);
            // Which drops what it would have run.
            return drop(runnable);
        }
        let refused = inner.turns.push(id, runnable, place);
        let wake = may_wake && inner.asleep > 0;
        if wake {
            inner.asleep -= 1;
        }
        drop(inner);
        if wake {
            self.awake.notify_one();
        }
        debug_assert!(refused.is_ok());
    }

    /// Waits for the next turn; `over` is the one before, and what it took. There is none when the threads are to end.
    fn next(&self, over: Option<Turn>) -> Option<(TypeId, Runnable)> {
        let mut inner = self.lock();
        if let Some(Turn { id, cpu }) = over {
            inner.turns.spent(id, cpu);
        }
        loop {
            if inner.stopped {
                return None;
            }
            if let Some(next) = inner.turns.take() {
                return Some(next);
            }
            inner.asleep += 1;
            inner = self.awake.wait(inner).unwrap_or_else(|poison| poison.into_inner());
        }
    }

    fn stop(&self) {
        let mut inner = self.lock();
        inner.stopped = true;
        let turns = std::mem::take(&mut inner.turns);
        drop(inner);
        self.awake.notify_all();
        // As they go they wake others, and forget their lines.
        drop(turns);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under the lock panics.
        self.inner.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// The life of a compute thread.
fn run(queue: &Queue, io: &Io) {
    mark_compute_thread();
    begin_thread();
    let mut over = None;
    let mut cpu = thread_cpu();
    let turns = std::future::poll_fn(|cx| {
        let Some((id, runnable)) = queue.next(over.take()) else { return Poll::Ready(()) };
        after_slices::slice(|| runnable.run());
        // The thread's own clock, which stands still while the thread waits or isn't let run.
        let now = thread_cpu();
        over = Some(Turn { id, cpu: now.saturating_sub(cpu) });
        cpu = now;
        // A turn a poll: each poll may take only so much that is ready from a socket or a channel.
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    io.handle.block_on(turns);
}

fn begin_thread() {
    prepare_thread();
    // Not being allowed to is no reason to stop: the threads then have the same priority.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), COMPUTE_NICE);
}

/// The runtime that drives guests' timers and sockets. It lasts as long as any of the compute threads, since a timer
/// that is polled without it panics.
struct Io {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Io {
    fn start() -> std::io::Result<Io> {
        let runtime = Builder::new_multi_thread()
            .thread_name("wasmhost-guest-io")
            .enable_all()
            .on_thread_start(begin_thread)
            .build()?;
        Ok(Io { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Otherwise it would wait for what blocks, such as a guest's read of a file.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Waker;

    use tokio::task::yield_now;

    use super::*;

    fn lane(compute: &Compute, process: &str) -> Lane {
        compute.lane(&process.into())
    }

    #[test]
    fn what_panics_tells_who_waits_and_costs_no_thread() {
        let compute = Compute::start().unwrap();
        let lane = lane(&compute, "web");
        let panics: Vec<Spawned<()>> =
            (0..100).map(|number| lane.spawn(async move { panic!("{number}") })).collect();
        for (number, panic) in panics.into_iter().enumerate() {
            let panic: Panic = panic.blocking_recv().unwrap().unwrap_err();
            assert_eq!(panic.downcast_ref::<String>(), Some(&number.to_string()));
        }
        assert_eq!(lane.spawn(async { 7 }).blocking_recv().unwrap().unwrap(), 7);
    }

    #[test]
    fn an_output_that_panics_when_nobody_waits_for_it_costs_no_thread() {
        struct Output {
            _left: Arc<()>,
        }
        impl Drop for Output {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let compute = Compute::start().unwrap();
        let lane = lane(&compute, "web");
        let left = Arc::new(());
        for _ in 0..100 {
            let output = left.clone();
            let (unwanted, is_unwanted) = oneshot::channel::<()>();
            drop(lane.spawn(async move {
                // Were it to come earlier, it would be dropped here.
                let _ = is_unwanted.await;
                Output { _left: output }
            }));
            drop(unwanted);
        }
        while Arc::strong_count(&left) > 1 {
            thread::yield_now();
        }
        assert_eq!(lane.spawn(async { 7 }).blocking_recv().unwrap().unwrap(), 7);
    }

    #[test]
    fn what_nobody_waits_for_goes_on() {
        let compute = Compute::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        drop(lane(&compute, "web").spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::task::spawn_blocking(move || sender.send(7).unwrap()).await.unwrap();
        }));
        assert_eq!(receiver.recv(), Ok(7));
    }

    #[test]
    fn no_wake_is_lost() {
        let compute = Compute::start().unwrap();
        let (one, other) = (lane(&compute, "one"), lane(&compute, "other"));
        let (ping, mut pings) = tokio::sync::mpsc::channel(1);
        let (pong, mut pongs) = tokio::sync::mpsc::channel(1);
        let count = one.spawn(async move {
            for number in 0..20_000_u32 {
                ping.send(number).await.unwrap();
                assert_eq!(pongs.recv().await, Some(number));
            }
        });
        drop(other.spawn(async move {
            while let Some(number) = pings.recv().await {
                pong.send(number).await.unwrap();
            }
        }));
        count.blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn those_that_never_end_let_others_of_their_type_have_a_turn() {
        let compute = Compute::start().unwrap();
        let lane = lane(&compute, "web");
        let threads = thread::available_parallelism().unwrap().get();
        for _ in 0..threads {
            drop(lane.spawn(async {
                loop {
                    yield_now().await;
                }
            }));
        }
        for _ in 0..3 {
            lane.spawn(yield_now()).blocking_recv().unwrap().unwrap();
        }
    }

    #[test]
    fn a_wake_that_comes_during_a_turn_leads_to_another() {
        let compute = Compute::start().unwrap();
        let (wakers, to_wake) = mpsc::channel::<(Waker, mpsc::Sender<()>)>();
        thread::spawn(move || {
            for (waker, woken) in to_wake {
                waker.wake();
                let _ = woken.send(());
            }
        });
        let mut left = 1_000;
        let polled = std::future::poll_fn(move |cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            let (woken, is_woken) = mpsc::channel();
            wakers.send((cx.waker().clone(), woken)).unwrap();
            is_woken.recv().unwrap();
            Poll::Pending
        });
        lane(&compute, "web").spawn(polled).blocking_recv().unwrap().unwrap();
    }

    #[test]
    fn what_is_left_is_dropped_at_the_end() {
        let compute = Compute::start().unwrap();
        let (held, left) = mpsc::channel::<()>();
        let mut spawned = Vec::new();
        for lane in [lane(&compute, "one"), lane(&compute, "other")] {
            for _ in 0..100 {
                let held = held.clone();
                spawned.push(lane.spawn(async move {
                    let _held = held;
                    loop {
                        yield_now().await;
                    }
                }));
            }
        }
        drop((held, compute));
        assert!(left.recv().is_err());
        assert!(spawned.into_iter().all(|spawned: Spawned<()>| spawned.blocking_recv().is_err()));
    }

    #[test]
    fn the_last_task_to_end_may_drop_the_threads() {
        let compute = Arc::new(Compute::start().unwrap());
        let lane = lane(&compute, "web");
        let (ended, has_ended) = oneshot::channel::<()>();
        let shared = compute.clone();
        let last = lane.spawn(async move {
            yield_now().await;
            drop((shared, ended));
        });
        drop(compute);
        // Nobody says anything: it is dropped.
        assert!(has_ended.blocking_recv().is_err());
        let last: Result<Result<(), Panic>, _> = last.blocking_recv();
        assert!(!matches!(last, Ok(Err(_))), "it panicked");
        // Nothing runs any more, or it is the last of what was already there.
        assert!(!matches!(lane.spawn(async {}).blocking_recv(), Ok(Err(_))));
    }

    #[test]
    fn all_versions_of_a_type_have_one_share() {
        let compute = Compute::start().unwrap();
        let (live, canary) = (lane(&compute, "web"), lane(&compute, "web"));
        assert!(Arc::ptr_eq(&live.0, &canary.0));
        assert!(!Arc::ptr_eq(&live.0, &lane(&compute, "worker").0));
        drop(live);
        assert!(Arc::ptr_eq(&canary.0, &lane(&compute, "web").0));
    }

    #[test]
    fn a_type_that_is_gone_is_forgotten() {
        let compute = Compute::start().unwrap();
        let lane = lane(&compute, "web");
        let line = Arc::downgrade(&lane.0);
        lane.spawn(async {}).blocking_recv().unwrap().unwrap();
        drop(lane);
        while line.strong_count() > 0 {
            thread::yield_now();
        }
        // The line is gone a little before its type is.
        while !compute.queue.lock().turns.has_no_types() {
            thread::yield_now();
        }
        assert!(compute.queue.lock().lines.is_empty());
    }
}
