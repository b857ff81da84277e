//! The host's file descriptors that guests hold: opened files, streams of them, sockets, and requests that go out.
//! Each is counted for its instance and for the host, and given back when the guest drops it. A guest past its bound
//! gets the error that systems give a program past its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::Semaphore;

use super::lookups::{self, Lookups};

/// Descriptors that one instance of a formation may hold.
pub const INSTANCE_MAX: u32 = 256;

/// Descriptors that an instance gets as long as there are any. An instance that has these gets more only while a
/// quarter of the host's are free, so that few instances can't keep all others from opening a file.
const INSTANCE_ASSURED: u32 = 16;

/// The descriptors of a host that guests may hold, all instances together.
#[derive(Debug)]
pub(crate) struct Room {
    /// Look-ups of names, which take a thread beside a descriptor.
    lookups: Arc<Semaphore>,
    held: AtomicU32,
    max: u32,
}

impl Room {
    pub(crate) fn new(max: u32) -> Arc<Room> {
        Arc::new(Room { lookups: lookups::of_host(), held: AtomicU32::new(0), max })
    }

    /// For what no one instance holds: a connection that all of them share.
    pub(crate) fn take_shared(self: &Arc<Self>) -> Option<Permit> {
        self.take(self.max).then(|| Permit::new(Some(self.clone()), None))
    }

    fn take(&self, max: u32) -> bool {
        self.held.fetch_update(Relaxed, Relaxed, |held| (held < max).then_some(held + 1)).is_ok()
    }
}

/// Where an instance's descriptors are counted.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    room: Arc<Room>,
    held: Arc<AtomicU32>,
    max: u32,
}

/// The right to hold one descriptor. All its clones are for the same one.
#[derive(Debug, Clone)]
pub(crate) struct Permit {
    _counted: Arc<Counted>,
}

#[derive(Debug)]
struct Counted {
    /// `None` where the host counts it elsewhere.
    room: Option<Arc<Room>>,
    /// `None` where no instance holds it.
    held: Option<Arc<AtomicU32>>,
}

impl Counter {
    /// For an instance of a formation; `held` is where others see how many it has.
    pub(crate) fn new(room: &Arc<Room>, held: Arc<AtomicU32>) -> Counter {
        Counter { room: room.clone(), held, max: INSTANCE_MAX }
    }

    /// For a program that a person runs: the system's own limit is its bound.
    pub(crate) fn of_program(room: &Arc<Room>, held: Arc<AtomicU32>) -> Counter {
        Counter { max: u32::MAX, ..Counter::new(room, held) }
    }

    /// Where the look-ups of the same instance are counted.
    pub(crate) fn lookups(&self) -> Lookups {
        Lookups::new(&self.room.lookups)
    }

    /// `None` where the instance, or all of them, hold as many as they may.
    pub(crate) fn take(&self) -> Option<Permit> {
        let held = self.held.load(Relaxed);
        if held >= self.max {
            return None;
        }
        let assured = held < INSTANCE_ASSURED || self.max == u32::MAX;
        let max = if assured { self.room.max } else { self.room.max - self.room.max / 4 };
        self.room.take(max).then(|| self.count(Some(self.room.clone())))
    }

    /// For what uses a descriptor that is counted as shared.
    pub(crate) fn take_use(&self) -> Option<Permit> {
        (self.held.load(Relaxed) < self.max).then(|| self.count(None))
    }

    fn count(&self, room: Option<Arc<Room>>) -> Permit {
        self.held.fetch_add(1, Relaxed);
        Permit::new(room, Some(self.held.clone()))
    }
}

impl Permit {
    fn new(room: Option<Arc<Room>>, held: Option<Arc<AtomicU32>>) -> Permit {
        Permit { _counted: Arc::new(Counted { room, held }) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.fetch_sub(1, Relaxed);
        }
        if let Some(room) = &self.room {
            room.held.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
impl Counter {
    pub(crate) fn held(&self) -> u32 {
        self.held.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(counter: &Counter) -> Vec<Permit> {
        std::iter::from_fn(|| counter.take()).collect()
    }

    #[test]
    fn an_instance_is_bounded_and_gets_back_what_it_drops() {
        let room = Room::new(10_000);
        let counter = Counter::new(&room, Arc::default());
        let mut permits = take_all(&counter);
        assert_eq!(permits.len() as u32, INSTANCE_MAX);
        permits.truncate(10);
        assert_eq!(room.held.load(Relaxed), 10);
        assert_eq!(take_all(&counter).len() as u32, INSTANCE_MAX - 10);
    }

    #[test]
    fn few_instances_do_not_keep_others_from_opening_a_file() {
        let room = Room::new(400);
        let greedy: Vec<_> = (0..4).map(|_| Counter::new(&room, Arc::default())).collect();
        let held: Vec<_> = greedy.iter().map(take_all).collect();
        assert!(room.held.load(Relaxed) <= 300 + 4 * INSTANCE_ASSURED);
        assert_eq!(take_all(&Counter::new(&room, Arc::default())).len() as u32, INSTANCE_ASSURED);
        drop(held);
        assert_eq!(room.held.load(Relaxed), 0);
    }

    #[test]
    fn a_descriptor_is_given_back_with_the_last_that_holds_it() {
        let room = Room::new(10);
        let counter = Counter::new(&room, Arc::default());
        let permits = [counter.take().unwrap(), room.take_shared().unwrap(), counter.take_use().unwrap()];
        assert_eq!((room.held.load(Relaxed), counter.held()), (2, 2));
        let clones = permits.clone();
        drop(permits);
        assert_eq!((room.held.load(Relaxed), counter.held()), (2, 2));
        drop(clones);
        assert_eq!((room.held.load(Relaxed), counter.held()), (0, 0));
    }

    #[test]
    fn a_program_is_bounded_by_the_system_alone() {
        let counter = Counter::of_program(&Room::new(1_000), Arc::default());
        assert_eq!(take_all(&counter).len(), 1_000);
    }
}
