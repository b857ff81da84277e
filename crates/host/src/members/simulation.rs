//! Many hosts, one store, and all that goes wrong between them, in a time of its own.
//!
//! Hosts beat every two seconds by clocks that run fast or slow, and act on the answers as they come: late, or never.
//! They are killed, frozen, stopped and started; the store is away for a minute. Each slot's owners are counted all the
//! while. A seed decides, and is printed where something doesn't hold.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::contact::{Contact, Seen, Standing};
use super::split::Ring;

const BEAT_MS: u64 = 2_000;
/// A heartbeat that isn't answered is given up.
const PATIENCE_MS: u64 = 5_000;
const SECOND: u64 = 1_000;

/// The network between hosts and their store.
#[derive(Debug, Clone, Copy)]
struct Network {
    delay_ms_max: u64,
    /// One of so many messages is lost; none where it is 0.
    lost_one_in: u64,
}

const GOOD: Network = Network { delay_ms_max: 100, lost_one_in: 0 };
const BAD: Network = Network { delay_ms_max: 1_500, lost_one_in: 40 };

/// The slots of a host, which all hosts that know the same list share.
type Slots = Rc<Vec<u32>>;

struct Host {
    name: Arc<str>,
    contact: Contact,
    /// Events of boots that are over find another number.
    boot: u64,
    standing: Standing,
    is_alive: bool,
    frozen_until: u64,
    /// Its clock runs so much faster, in thousandths, from a time of its own.
    fast: i64,
    began_at: u64,
    slots: Slots,
    next_beat: u64,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    seen: u64,
    standing: Standing,
}

enum Event {
    /// The heartbeat of that number, unless another one is due instead.
    Beat(u64),
    Arrives,
    /// The age that the own row had, and all rows.
    Answer(Option<u64>, Rc<Vec<(usize, Standing, u64)>>),
    Thaw,
}

struct Simulation {
    now: u64,
    rng: Rng,
    network: Network,
    hosts: Vec<Host>,
    rows: Vec<Option<Row>>,
    store_is_away: bool,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    pending: HashMap<u64, (usize, u64, Event)>,
    next: u64,
    splits: HashMap<Vec<Arc<str>>, Rc<Vec<Slots>>>,
    owners: Vec<u32>,
    unowned_since: Vec<u64>,
    /// The longest that a slot has been without an owner since the last look.
    longest_unowned: u64,
    moves: u64,
}

impl Simulation {
    /// So many hosts of which none has started, and so many slots.
    fn new(seed: u64, hosts: usize, slots: usize, network: Network) -> Simulation {
        let mut rng = Rng::with_seed(seed);
        let host = |host: usize| Host {
            name: format!("host-{host:05}").into(),
            contact: Contact::default(),
            boot: 0,
            standing: Standing::Joined,
            is_alive: false,
            frozen_until: 0,
            fast: rng.i64(-5..=5),
            began_at: rng.u64(..1 << 40),
            slots: Rc::default(),
            next_beat: 0,
        };
        let hosts: Vec<Host> = (0..hosts).map(host).collect();
        Simulation {
            now: 0,
            network,
            rows: vec![None; hosts.len()],
            hosts,
            store_is_away: false,
            events: BinaryHeap::new(),
            pending: HashMap::new(),
            next: 0,
            splits: HashMap::new(),
            owners: vec![0; slots],
            unowned_since: vec![0; slots],
            longest_unowned: 0,
            moves: 0,
            rng,
        }
    }

    // --- what happens to hosts

    fn start(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.boot += 1;
        it.contact = Contact::default();
        it.standing = Standing::Joined;
        it.is_alive = true;
        it.frozen_until = 0;
        let wait = self.rng.u64(..BEAT_MS);
        self.beat_in(wait, host);
    }

    fn kill(&mut self, host: usize) {
        self.disown(host);
        let it = &mut self.hosts[host];
        it.slots = Rc::default();
        it.is_alive = false;
        it.boot += 1;
    }

    /// It says that it drains, or is through with that already, and has taken its row away.
    fn stop(&mut self, host: usize) {
        self.hosts[host].standing = Standing::Apart;
        let drains = Row { seen: self.now, standing: Standing::Apart };
        self.rows[host] = self.rng.bool().then_some(drains);
        self.kill(host);
    }

    fn freeze(&mut self, host: usize, ms: u64) {
        self.disown(host);
        self.hosts[host].frozen_until = self.now + ms;
        self.at(self.now + ms, host, Event::Thaw);
    }

    fn alive(&mut self) -> usize {
        let now = self.now;
        let alive = |host: &Host| host.is_alive && host.frozen_until <= now;
        let alive: Vec<usize> =
            self.hosts.iter().enumerate().filter(|(_, host)| alive(host)).map(|(host, _)| host).collect();
        alive[self.rng.usize(..alive.len())]
    }

    fn dead(&mut self) -> Option<usize> {
        let dead = self.hosts.iter().enumerate().filter(|(_, host)| !host.is_alive);
        let dead: Vec<usize> = dead.map(|(host, _)| host).collect();
        (!dead.is_empty()).then(|| dead[self.rng.usize(..dead.len())])
    }

    // --- time

    fn at(&mut self, at: u64, host: usize, event: Event) {
        self.events.push(Reverse((at, self.next)));
        self.pending.insert(self.next, (host, self.hosts[host].boot, event));
        self.next += 1;
    }

    fn run(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(Reverse((at, number))) = self.events.peek().copied()
            && at <= until
        {
            self.events.pop();
            self.now = at;
            let Some((host, boot, event)) = self.pending.remove(&number) else { continue };
            if self.hosts[host].boot == boot {
                self.happen(host, event);
            }
        }
        self.now = until;
        for (slot, owners) in self.owners.iter().enumerate() {
            if *owners == 0 {
                self.longest_unowned = self.longest_unowned.max(until - self.unowned_since[slot]);
            }
        }
    }

    fn happen(&mut self, host: usize, event: Event) {
        let frozen_until = self.hosts[host].frozen_until;
        // A message on its way to the store goes on without its host.
        if frozen_until > self.now && !matches!(event, Event::Arrives) {
            return self.at(frozen_until, host, event);
        }
        match event {
            Event::Beat(number) if number != self.hosts[host].next_beat => {}
            Event::Beat(_) => {
                self.beat_in(PATIENCE_MS, host);
                self.send(host, Event::Arrives);
            }
            Event::Arrives if self.store_is_away => {}
            Event::Arrives => {
                let row = Row { seen: self.now, standing: self.hosts[host].standing };
                let own = self.rows[host].replace(row).map(|row| self.now - row.seen);
                let rows = self.rows.iter().enumerate();
                let rows =
                    rows.filter_map(|(host, row)| row.map(|row| (host, row.standing, self.now - row.seen)));
                let rows = Rc::new(rows.collect());
                self.send(host, Event::Answer(own, rows));
            }
            Event::Answer(own, rows) => {
                let wait = BEAT_MS + self.rng.u64(..100);
                self.beat_in(wait, host);
                self.hear(host, own, &rows);
            }
            Event::Thaw => self.own(host),
        }
    }

    /// The next heartbeat is then, and at no other time.
    fn beat_in(&mut self, ms: u64, host: usize) {
        self.hosts[host].next_beat += 1;
        self.at(self.now + ms, host, Event::Beat(self.hosts[host].next_beat));
    }

    fn send(&mut self, host: usize, event: Event) {
        let Network { delay_ms_max, lost_one_in } = self.network;
        if lost_one_in == 0 || self.rng.u64(..lost_one_in) > 0 {
            let delay = self.rng.u64(1..=delay_ms_max);
            self.at(self.now + delay, host, event);
        }
    }

    fn hear(&mut self, host: usize, own: Option<u64>, rows: &[(usize, Standing, u64)]) {
        let it = &self.hosts[host];
        let passed = self.now.cast_signed() * (1_000 + it.fast) / 1_000;
        let steady = Duration::from_millis(it.began_at + passed.cast_unsigned());
        let mut contact = std::mem::take(&mut self.hosts[host].contact);
        let seen = rows.iter().map(|(host, standing, age)| Seen {
            host: &self.hosts[*host].name,
            standing: *standing,
            age: Duration::from_millis(*age),
        });
        let has_changed = contact.heard(steady, own.map(Duration::from_millis), seen);
        self.hosts[host].contact = contact;
        if has_changed {
            self.split(host);
        }
    }

    // --- who has which slots

    fn split(&mut self, host: usize) {
        let list = self.hosts[host].contact.hosts().to_vec();
        let count = u32::try_from(self.owners.len()).unwrap();
        let split = self.splits.entry(list).or_insert_with_key(|list| {
            let ring = Ring::of(list.iter().cloned());
            let mut slots = vec![vec![]; list.len()];
            for (slot, owner) in (0..).zip(ring.owners("web", count)) {
                slots[owner as usize].push(slot);
            }
            Rc::new(slots.into_iter().map(Rc::new).collect())
        });
        let it = &self.hosts[host];
        let place = it.contact.hosts().binary_search(&it.name);
        let slots = place.map(|place| split[place].clone()).unwrap_or_default();
        let before = std::mem::replace(&mut self.hosts[host].slots, slots);
        self.own(host);
        before.iter().for_each(|slot| self.leave(*slot));
    }

    fn own(&mut self, host: usize) {
        for slot in self.hosts[host].slots.clone().iter() {
            let slot = *slot as usize;
            if self.owners[slot] == 0 {
                self.longest_unowned = self.longest_unowned.max(self.now - self.unowned_since[slot]);
            }
            self.owners[slot] += 1;
            self.moves += 1;
        }
    }

    fn disown(&mut self, host: usize) {
        self.hosts[host].slots.clone().iter().for_each(|slot| self.leave(*slot));
    }

    fn leave(&mut self, slot: u32) {
        let slot = slot as usize;
        self.owners[slot] -= 1;
        if self.owners[slot] == 0 {
            self.unowned_since[slot] = self.now;
        }
    }

    // --- what must hold

    /// The owner of each slot. Panics where one has none or several.
    fn settled(&mut self) -> Vec<usize> {
        assert!(self.owners.iter().all(|owners| *owners == 1), "each slot has one owner");
        let mut owners = vec![0; self.owners.len()];
        let alive: Vec<_> = self.hosts.iter().filter(|host| host.is_alive).map(|host| &host.name).collect();
        for (place, host) in self.hosts.iter().enumerate() {
            host.slots.iter().for_each(|slot| owners[*slot as usize] = place);
            let hosts = host.contact.hosts().iter();
            assert!(!host.is_alive || hosts.eq(alive.iter().copied()), "{} knows others", host.name);
        }
        self.longest_unowned = 0;
        self.splits.clear();
        owners
    }

    fn longest_unowned(&mut self) -> u64 {
        std::mem::take(&mut self.longest_unowned)
    }
}

/// Runs this, and prints the seed where it panics.
#[expect(clippy::print_stderr, reason = "a panic's message is another's")]
fn with_seed(run: impl FnOnce(u64)) {
    struct Told(u64);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("WASMHOST_FAULT_SEED={} repeats this", self.0);
            }
        }
    }
    let given = std::env::var("WASMHOST_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    let _told = Told(seed);
    run(seed);
}

/// Moves, and the fewest that they could have been.
fn compare(before: &[usize], after: &[usize]) -> (u64, u64) {
    let mut more = HashMap::<usize, i64>::new();
    after.iter().for_each(|host| *more.entry(*host).or_default() += 1);
    before.iter().for_each(|host| *more.entry(*host).or_default() -= 1);
    let moved = before.iter().zip(after).filter(|(before, after)| before != after).count();
    (moved as u64, more.into_values().filter(|more| *more > 0).sum::<i64>().cast_unsigned())
}

fn begun(seed: u64, all: usize, alive: usize, slots: usize, network: Network) -> Simulation {
    let mut simulation = Simulation::new(seed, all, slots, network);
    (0..alive).for_each(|host| {
        // All at once: a list for each that comes would be many.
        simulation.rows[host] = Some(Row { seen: 0, standing: Standing::Joined });
        simulation.start(host);
    });
    simulation.run(15 * SECOND);
    simulation.settled();
    simulation
}

#[test]
fn a_thousand_hosts_with_a_hundred_thousand_slots_lose_one_and_get_one() {
    with_seed(|seed| {
        let mut simulation = begun(seed, 1_001, 1_000, 100_000, GOOD);
        let before = simulation.settled();
        let gone = simulation.alive();
        simulation.kill(gone);
        simulation.run(16 * SECOND);
        let unowned = simulation.longest_unowned();
        assert!(unowned <= 13 * SECOND, "a killed host's slots were nobody's for {unowned} ms");
        let after = simulation.settled();
        let (moved, least) = compare(&before, &after);
        assert!(moved <= 1_000, "{moved} moves of 100,000 slots, where {least} would do");
        simulation.start(1_000);
        simulation.run(6 * SECOND);
        let unowned = simulation.longest_unowned();
        assert!(unowned <= 3 * SECOND, "slots were nobody's for {unowned} ms while a host came");
        simulation.settled();
    });
}

#[test]
fn slots_are_nobodys_for_no_longer_than_is_said() {
    with_seed(|seed| {
        let mut simulation = begun(seed, 24, 20, 200, GOOD);
        let (mut moved, mut least) = (0, 0);
        for _ in 0..100 {
            let before = simulation.settled();
            let host = simulation.alive();
            // In seconds: the longest that any slot may be without an owner.
            let (what, at_most) = match simulation.rng.u32(..6) {
                0 if simulation.hosts.iter().filter(|host| host.is_alive).count() > 3 => {
                    simulation.kill(host);
                    ("killed", 13)
                }
                1 if simulation.hosts.iter().filter(|host| host.is_alive).count() > 3 => {
                    simulation.stop(host);
                    ("stopped", 3)
                }
                2 => {
                    simulation.freeze(host, 30 * SECOND);
                    ("frozen for 30 s", 13)
                }
                3 => {
                    simulation.freeze(host, 7 * SECOND);
                    ("frozen for 7 s", 7)
                }
                4 => {
                    simulation.store_is_away = true;
                    simulation.run(60 * SECOND);
                    simulation.store_is_away = false;
                    ("without a store for a minute", 0)
                }
                _ => {
                    if let Some(host) = simulation.dead() {
                        simulation.start(host);
                    }
                    ("started", 3)
                }
            };
            simulation.run(50 * SECOND);
            let unowned = simulation.longest_unowned();
            assert!(unowned <= at_most * SECOND, "{what}: slots were nobody's for {unowned} ms");
            let after = simulation.settled();
            let (moves, fewest) = compare(&before, &after);
            (moved, least) = (moved + moves, least + fewest);
        }
        let times = moved as f64 / least as f64;
        assert!(times < 2.2, "{moved} slots moved, {least} had to: {times:.2} times");
    });
}

#[test]
fn all_faults_at_once_over_a_bad_network_leave_every_slot_with_one_owner() {
    with_seed(|seed| {
        let mut simulation = begun(seed, 40, 30, 300, GOOD);
        for _ in 0..30 {
            simulation.network = BAD;
            for _ in 0..simulation.rng.u32(1..20) {
                let host = simulation.alive();
                let alive = simulation.hosts.iter().filter(|host| host.is_alive).count();
                let ms = simulation.rng.u64(100..40 * SECOND);
                match simulation.rng.u32(..6) {
                    0 if alive > 5 => simulation.kill(host),
                    1 if alive > 5 => simulation.stop(host),
                    2 if alive > 5 => simulation.freeze(host, ms),
                    3 => simulation.store_is_away = !simulation.store_is_away,
                    _ => {
                        if let Some(host) = simulation.dead() {
                            simulation.start(host);
                        }
                    }
                }
                let ms = simulation.rng.u64(..10 * SECOND);
                simulation.run(ms);
            }
            simulation.store_is_away = false;
            // Frozen hosts wake, and then comes a minute over the bad network: most have had ten seconds of contact.
            simulation.run(100 * SECOND);
            simulation.network = GOOD;
            simulation.run(30 * SECOND);
            simulation.settled();
        }
    });
}
