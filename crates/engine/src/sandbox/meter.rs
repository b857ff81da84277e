//! The use of one instance, and the way to stop it. The store (whose callbacks write it), the driver that polls the call
//! and observers outside share it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::call::{Deadline, Shortage, Spent};

/// In `Meter::interrupted`: no call runs in this instance any more.
const EVERY_CALL: u64 = u64::MAX;

/// The CPU time that a call may have on I/O threads, in however many slices: one that waits between short slices, as one
/// that reads a long body does, would otherwise never leave them.
const IO_NS_MAX: u64 = 10_000_000;

/// The figures of one instance. All of them may be read at any time.
#[derive(Default)]
pub struct Meter {
    cpu_ns: AtomicU64,
    memory: AtomicU64,
    memory_peak: AtomicU64,
    memory_refused: AtomicBool,
    /// The guest's wish when memory was last refused.
    shortage: Mutex<Option<Shortage>>,
    /// The bounds that the library enforces, for those who tell of them.
    bounds: OnceLock<Bounds>,
    /// Descriptors of the host that the guest's handles hold.
    descriptors: Arc<AtomicU32>,
    /// The tick at which the present poll began.
    slice_tick: AtomicU64,
    /// A guest that has computed for a whole tick on an I/O thread is to go on elsewhere.
    wants_move: AtomicBool,
    /// The number of the call under way, or of the last one.
    call: AtomicU64,
    /// The number of the call that is to end, or [`EVERY_CALL`].
    interrupted: AtomicU64,
    /// The number of the call that ended otherwise than by returning, if one has.
    failed: AtomicU64,
    /// A slice of the guest has held an I/O thread for long.
    held_thread: AtomicBool,
    waker: AtomicWaker,
    deadline: Mutex<Option<Deadline>>,
    /// The guest is being polled.
    in_slice: AtomicBool,
    /// The guest yielded in its last poll, and didn't wait.
    yielded: AtomicBool,
    /// Since when it has computed without waiting.
    held_since: Mutex<Option<Instant>>,
    /// The highest `cpu_ns` of the call under way; 0 is no limit.
    cpu_ns_max: AtomicU64,
    /// The `cpu_ns` with which it began.
    cpu_ns_before: AtomicU64,
    /// The highest one with which it may be on an I/O thread.
    io_ns_max: AtomicU64,
    /// The last lines on standard error since the call under way began, and whether there are any.
    words: Mutex<String>,
    has_words: AtomicBool,
}

/// Bounds of an instance that are met in the library, which says so without their numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) handles_max: usize,
    /// Bytes that one host call may copy out of the guest.
    pub(crate) copied_bytes_max: usize,
}

/// How much of a guest's last words is kept, in bytes.
const WORDS_BYTES_MAX: usize = 1 << 10;

impl Meter {
    /// Guest CPU time since the instance was started.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Relaxed))
    }

    /// Bytes of linear memories and tables now.
    pub fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    /// The most there have been.
    pub fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Relaxed)
    }

    /// Descriptors of the host that its handles hold now: opened files, sockets, requests under way.
    pub fn descriptors(&self) -> u32 {
        self.descriptors.load(Relaxed)
    }

    /// The guest's wish when it was last refused memory, if it was.
    pub fn shortage(&self) -> Option<Shortage> {
        match self.memory_refused() {
            true => *self.shortage.lock().unwrap_or_else(|poison| poison.into_inner()),
            false => None,
        }
    }

    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        let _ = self.bounds.set(bounds);
    }

    pub(crate) fn bounds(&self) -> Option<&Bounds> {
        self.bounds.get()
    }

    /// Where its descriptors are counted.
    pub(crate) fn descriptor_count(&self) -> Arc<AtomicU32> {
        self.descriptors.clone()
    }

    /// Ends the call under way, at the latest at the guest's next tick; a call that has not begun yet ends when it
    /// begins.
    pub fn interrupt(&self) {
        self.interrupted.store(EVERY_CALL, SeqCst);
        self.waker.wake();
    }

    /// Ends this call, unless it is over.
    pub(crate) fn interrupt_call(&self, call: u64) {
        let earlier = self.interrupted.load(SeqCst);
        // Should somebody else be faster, then it is to stop every call.
        if earlier != EVERY_CALL
            && self.interrupted.compare_exchange(earlier, call, SeqCst, SeqCst).is_ok()
            && self.is_interrupted()
        {
            self.waker.wake();
        }
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        let interrupted = self.interrupted.load(SeqCst);
        interrupted == EVERY_CALL || (interrupted != 0 && interrupted == self.call.load(SeqCst))
    }

    /// Begins the next call, which may spend so much CPU time, and returns its number, from 1.
    pub(crate) fn begin_call(&self, deadline: Option<Deadline>, cpu: Option<Duration>) -> u64 {
        if self.has_words.swap(false, Relaxed) {
            self.words().clear();
        }
        self.cpu_ns_before.store(self.cpu_ns.load(Relaxed), Relaxed);
        let cpu_max = cpu.map_or(Duration::ZERO, |cpu| self.cpu().saturating_add(cpu));
        self.cpu_ns_max.store(nanoseconds(cpu_max), Relaxed);
        self.io_ns_max.store(self.cpu_ns.load(Relaxed).saturating_add(IO_NS_MAX), Relaxed);
        let mut current = self.deadline.lock().unwrap_or_else(|poison| poison.into_inner());
        *current = deadline;
        self.call.fetch_add(1, SeqCst) + 1
    }

    pub(crate) fn wake_on_interrupt(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Says that the call under way doesn't return. To be said before its store goes: what hangs on the store, such
    /// as the rest of an answer, looks finished from then on.
    pub(crate) fn fail_call(&self) {
        self.failed.store(self.call.load(SeqCst), SeqCst);
    }

    /// Whether a call has failed, and its instance with it.
    pub(crate) fn has_ended_badly(&self) -> bool {
        self.failed.load(SeqCst) != 0
    }

    /// A slice has held an I/O thread for long.
    pub(crate) fn hold_thread(&self) {
        self.held_thread.store(true, Relaxed);
    }

    pub(crate) fn has_held_thread(&self) -> bool {
        self.held_thread.load(Relaxed)
    }

    pub(crate) fn add_cpu(&self, spent: Duration) {
        self.cpu_ns.fetch_add(nanoseconds(spent), Relaxed);
    }

    /// Another call has joined the one under way: what each may spend, they may spend together.
    pub(crate) fn add_budget(&self, joined: Option<Duration>) {
        self.io_ns_max.fetch_add(IO_NS_MAX, Relaxed);
        let Some(joined) = joined else { return };
        self.cpu_ns_max.fetch_add(nanoseconds(joined), Relaxed);
    }

    /// The CPU time of the call under way, if that is more than it may spend.
    pub(crate) fn out_of_cpu(&self) -> Option<Spent> {
        let (max, spent) = (self.cpu_ns_max.load(Relaxed), self.cpu_ns.load(Relaxed));
        (max != 0 && spent > max).then(|| {
            let before = self.cpu_ns_before.load(Relaxed);
            let since = |ns: u64| Duration::from_nanos(ns.saturating_sub(before));
            Spent { time: since(spent), max: since(max) }
        })
    }

    /// Whether it has had so much of the I/O threads that it is no short call, whether it waits in between or not. Where
    /// calls share an instance, those that joined count too.
    pub(crate) fn is_out_of_io(&self) -> bool {
        self.cpu_ns.load(Relaxed) > self.io_ns_max.load(Relaxed)
    }

    pub(crate) fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Relaxed);
        self.memory_peak.fetch_max(bytes, Relaxed);
    }

    pub(crate) fn refuse_memory(&self, wanted: Shortage) {
        *self.shortage.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(wanted);
        self.memory_refused.store(true, Relaxed);
    }

    /// Whether the guest has asked for more than it may have.
    pub(crate) fn memory_refused(&self) -> bool {
        self.memory_refused.load(Relaxed)
    }

    /// A line on standard error.
    pub(crate) fn add_words(&self, line: &str) {
        let mut words = self.words();
        words.push_str(&line[..line.floor_char_boundary(WORDS_BYTES_MAX)]);
        words.push('\n');
        if words.len() > WORDS_BYTES_MAX {
            let at = words.ceil_char_boundary(words.len() - WORDS_BYTES_MAX);
            let at = words[at..].find('\n').map_or(at, |newline| at + newline + 1).min(words.len());
            words.drain(..at);
        }
        self.has_words.store(true, Relaxed);
    }

    /// The guest's last output on standard error, in the call under way or the one that is over: whole lines,
    /// at most 1 KiB. A program that dies says there why.
    pub fn last_words(&self) -> String {
        self.words().trim_end().to_owned()
    }

    fn words(&self) -> MutexGuard<'_, String> {
        self.words.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    pub(crate) fn begin_slice(&self, tick: u64) {
        self.slice_tick.store(tick, Relaxed);
        self.in_slice.store(true, Relaxed);
    }

    /// The guest has used up its slice.
    pub(crate) fn has_yielded(&self) {
        self.yielded.store(true, Relaxed);
    }

    /// A poll is over, which took so much CPU time.
    pub(crate) fn end_slice(&self, cpu: Duration) {
        self.add_cpu(cpu);
        self.in_slice.store(false, Relaxed);
    }

    /// A poll was over in which the guest has not come to its end.
    pub(crate) fn goes_on(&self) {
        let yielded = self.yielded.swap(false, Relaxed);
        let mut held_since = self.held_since();
        *held_since = yielded.then(|| held_since.unwrap_or_else(Instant::now));
    }

    /// Whether the guest computes: it runs now, or yielded when it ran last. A guest that doesn't waits for something.
    pub(crate) fn is_computing(&self) -> bool {
        self.in_slice.load(Relaxed) || self.held_since().is_some()
    }

    /// How long the guest has computed without waiting for anything.
    pub(crate) fn held_for(&self) -> Duration {
        self.held_since().map(|since| since.elapsed()).unwrap_or_default()
    }

    fn held_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.held_since.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    pub(crate) fn slice_tick(&self) -> u64 {
        self.slice_tick.load(Relaxed)
    }

    pub(crate) fn ask_to_move(&self) {
        self.wants_move.store(true, Relaxed);
    }

    pub(crate) fn take_move(&self) -> bool {
        self.wants_move.load(Relaxed) && self.wants_move.swap(false, Relaxed)
    }

    /// When the call under way must be over; of several, the last one.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        *self.deadline.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Another call has joined those under way.
    pub(crate) fn put_off_deadline(&self, joined: Option<Deadline>) {
        let mut deadline = self.deadline.lock().unwrap_or_else(|poison| poison.into_inner());
        *deadline = deadline.zip(joined).map(|(one, other)| one.later(other));
    }

    /// A call has got on with its answer, and has time from now on.
    pub(crate) fn roll_deadline(&self, call: u64, timeout: Option<Duration>) {
        let later = timeout.and_then(|timeout| Deadline::after(Instant::now(), timeout));
        let Some(later) = later else { return };
        let mut deadline = self.deadline.lock().unwrap_or_else(|poison| poison.into_inner());
        // The next call gets its number under the same lock.
        if self.call.load(SeqCst) == call && deadline.is_some_and(|deadline| deadline.at < later.at) {
            *deadline = Some(later);
        }
    }

    /// The time of the call under way, if that is over.
    pub(crate) fn overdue(&self) -> Option<Spent> {
        self.deadline().filter(Deadline::is_past).map(|deadline| deadline.spent())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_of_one_call_spares_the_next() {
        let meter = Meter::default();
        let first = meter.begin_call(None, None);
        meter.interrupt_call(first);
        assert!(meter.is_interrupted());
        meter.begin_call(None, None);
        assert!(!meter.is_interrupted());
        meter.interrupt_call(first);
        assert!(!meter.is_interrupted());
    }

    #[test]
    fn an_interrupt_of_the_instance_is_not_taken_back() {
        let meter = Meter::default();
        meter.interrupt();
        let call = meter.begin_call(None, None);
        meter.interrupt_call(call - 1);
        assert!(meter.is_interrupted());
    }

    #[test]
    fn only_the_call_under_way_puts_its_deadline_off() {
        let meter = Meter::default();
        let minute = Some(Duration::from_secs(60));
        let now = Deadline::after(Instant::now(), Duration::ZERO).unwrap();
        let first = meter.begin_call(Some(now), None);
        meter.roll_deadline(first, minute);
        assert!(meter.deadline().unwrap().at > now.at);
        // A deadline never comes nearer.
        let later = meter.deadline();
        meter.roll_deadline(first, Some(Duration::ZERO));
        assert_eq!(meter.deadline(), later);
        meter.begin_call(Some(now), None);
        meter.roll_deadline(first, minute);
        assert_eq!(meter.deadline(), Some(now));
        let endless = meter.begin_call(None, None);
        meter.roll_deadline(endless, minute);
        assert_eq!(meter.deadline(), None);
    }

    #[test]
    fn the_last_words_are_those_of_one_call() {
        let meter = Meter::default();
        (0..1000).for_each(|line| meter.add_words(&format!("line {line}")));
        let words = meter.last_words();
        assert!(words.starts_with("line ") && words.ends_with("line 999"), "{words}");
        assert!((900..=1024).contains(&words.len()), "{}", words.len());
        meter.add_words(&"ö".repeat(5_000));
        assert!(meter.last_words().len() <= 1024);
        meter.begin_call(None, None);
        assert_eq!(meter.last_words(), "");
    }

    #[test]
    fn a_call_of_many_short_slices_leaves_the_io_threads() {
        let meter = Meter::default();
        let slices = |count: u32| (0..count).for_each(|_| meter.end_slice(Duration::from_micros(100)));
        meter.begin_call(None, None);
        slices(100);
        assert!(!meter.is_out_of_io());
        slices(1);
        assert!(meter.is_out_of_io());
        meter.begin_call(None, None);
        assert!(!meter.is_out_of_io(), "the next call has time of its own");
        // Each of two calls in one instance has as much.
        meter.add_budget(None);
        slices(200);
        assert!(!meter.is_out_of_io());
        slices(1);
        assert!(meter.is_out_of_io());
    }

    #[test]
    fn each_call_has_a_budget_of_its_own() {
        let meter = Meter::default();
        meter.begin_call(None, Some(Duration::from_millis(5)));
        meter.add_cpu(Duration::from_millis(5));
        assert_eq!(meter.out_of_cpu(), None);
        meter.begin_call(None, Some(Duration::from_millis(5)));
        meter.add_cpu(Duration::from_millis(5));
        assert_eq!(meter.out_of_cpu(), None);
        meter.add_cpu(Duration::from_nanos(1));
        let (time, max) = (Duration::from_nanos(5_000_001), Duration::from_millis(5));
        assert_eq!(meter.out_of_cpu(), Some(Spent { time, max }));
        meter.begin_call(None, None);
        assert_eq!(meter.out_of_cpu(), None);
    }
}
