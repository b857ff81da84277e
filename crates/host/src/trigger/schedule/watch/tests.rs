use std::collections::BTreeSet;
use std::time::Duration;

use wasmhost_config::{Missed, Overlap, Schedule, Times};
use wasmhost_store::{Clock, ManualClock, SqliteStore, Ticks};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn every(interval: Duration) -> Schedule {
    let times = Times::Every(interval);
    Schedule { times, jitter: Duration::ZERO, missed: Missed::One, overlap: Overlap::Skip }
}

fn cron(expression: &str, time_zone: &str) -> Schedule {
    let times = Times::Cron { expression: expression.into(), time_zone: time_zone.into() };
    Schedule { times, ..every(SECOND) }
}

/// Hosts that share a store and a clock that the test moves. Nothing sleeps: time passes when the test says so.
struct Hosts {
    clock: Arc<ManualClock>,
    timeline: Arc<Timeline>,
    taken: Vec<Timestamp>,
}

impl Hosts {
    /// A schedule that began at this time.
    async fn new(schedule: Schedule, now: &str) -> (Hosts, Watch) {
        let clock = Arc::new(ManualClock::new(at(now)));
        let store = Arc::new(SqliteStore::in_memory_with_clock(clock.clone()).unwrap());
        Hosts::over(store, clock, schedule).await
    }

    async fn over(ticks: Arc<dyn Ticks>, clock: Arc<ManualClock>, schedule: Schedule) -> (Hosts, Watch) {
        let (process, owner) = ("clock".into(), "host/1".to_owned());
        let timeline = Arc::new(Timeline { process, schedule, ticks, clock: clock.clone(), owner });
        let mut hosts = Hosts { clock, timeline, taken: vec![] };
        let mut first = hosts.start();
        hosts.look(&mut first).await;
        assert_eq!(hosts.taken, [], "a new schedule begins now");
        (hosts, first)
    }

    /// Another host, or the same one started again.
    fn start(&self) -> Watch {
        Watch::new(self.timeline.clone())
    }

    async fn look(&mut self, watch: &mut Watch) -> Duration {
        let look = watch.look().await;
        self.taken.extend(look.taken);
        look.wait
    }

    /// Lets a host run until this much time has passed.
    async fn run(&mut self, watch: &mut Watch, time: Duration) {
        let until = self.clock.steady() + time;
        loop {
            let wait = self.look(watch).await;
            let left = until.since(self.clock.steady());
            if left <= wait {
                self.clock.advance(left);
                return;
            }
            self.clock.advance(wait);
        }
    }

    /// The times that were taken since this was called last.
    fn taken(&mut self) -> Vec<Timestamp> {
        std::mem::take(&mut self.taken)
    }

    /// The times of the schedule in a span, its beginning left out.
    fn times(&self, after: Timestamp, until: Timestamp) -> Vec<Timestamp> {
        self.timeline.after(after).map(|time| time.nominal).take_while(|nominal| *nominal <= until).collect()
    }
}

#[tokio::test]
async fn each_time_is_taken_once_and_in_order() {
    let (mut hosts, mut host) = Hosts::new(every(10 * SECOND), "2026-11-21T12:00:03Z").await;
    hosts.run(&mut host, MINUTE).await;
    let expected: Vec<_> = (1..=6).map(|tens| at("2026-11-21T12:00:00Z") + 10 * SECOND * tens).collect();
    assert_eq!(hosts.taken(), expected);
}

/// From the noon before each change of the clocks, also where it is half an hour.
#[tokio::test]
async fn changes_of_a_zones_clocks_neither_leave_out_nor_repeat_a_time() {
    let changes = [
        ("Europe/Berlin", "2026-03-28T12:00:00Z", "30 2 * * *", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-10-24T12:00:00Z", "30 2 * * *", "2026-10-25T00:30:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T12:00:00Z", "45 1 * * *", "2026-04-04T14:45:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T12:00:00Z", "15 2 * * *", "2026-10-03T15:30:00Z"),
    ];
    for (zone, noon, nightly, expected) in changes {
        let (mut hosts, mut host) = Hosts::new(cron(nightly, zone), noon).await;
        hosts.run(&mut host, 22 * HOUR).await;
        assert_eq!(hosts.taken(), [at(expected)], "{nightly} in {zone}");
        // A time that comes each quarter of an hour does so whatever the clocks say.
        let (mut hosts, mut host) = Hosts::new(cron("*/15 * * * *", zone), noon).await;
        hosts.run(&mut host, 6 * HOUR + SECOND).await;
        let quarters: Vec<_> = (1..=6 * 4).map(|quarters| at(noon) + 15 * MINUTE * quarters).collect();
        assert_eq!(hosts.taken(), quarters, "{zone}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_repeats_nothing_and_goes_on_at_the_next_time() {
    let (mut hosts, mut host) = Hosts::new(every(5 * MINUTE), "2026-11-21T12:01:00Z").await;
    hosts.run(&mut host, HOUR).await;
    assert_eq!(hosts.taken().last(), Some(&at("2026-11-21T13:00:00Z")));

    // In the midst of a wait for 13:05.
    hosts.clock.set(at("2026-11-21T12:01:00Z"));
    hosts.run(&mut host, 63 * MINUTE).await;
    assert_eq!(hosts.taken(), [], "all of these were taken");
    hosts.run(&mut host, 2 * MINUTE).await;
    assert_eq!(hosts.taken(), [at("2026-11-21T13:05:00Z")], "not a look later than its time");

    // So does a host that starts meanwhile.
    hosts.clock.set(at("2026-11-21T12:01:00Z"));
    let mut again = hosts.start();
    hosts.run(&mut again, 69 * MINUTE + SECOND).await;
    assert_eq!(hosts.taken(), [at("2026-11-21T13:10:00Z")]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_by_a_second_is_nothing() {
    let (mut hosts, mut host) = Hosts::new(every(SECOND), "2026-11-21T12:00:00.500Z").await;
    hosts.run(&mut host, 10 * SECOND).await;
    hosts.clock.set(hosts.clock.now() - SECOND);
    hosts.run(&mut host, 10 * SECOND).await;
    let taken = hosts.taken();
    assert_eq!(taken, hosts.times(at("2026-11-21T12:00:00Z"), hosts.clock.now()));
}

/// How many of an hour of seconds are taken when the clock is set forth by an hour.
async fn after_an_hour_forth(missed: Missed) -> Vec<Timestamp> {
    let schedule = Schedule { missed, ..every(SECOND) };
    let (mut hosts, mut host) = Hosts::new(schedule, "2026-11-21T12:00:00.500Z").await;
    hosts.run(&mut host, 10 * SECOND).await;
    hosts.taken();
    hosts.clock.set(hosts.clock.now() + HOUR);
    hosts.look(&mut host).await;
    let taken = hosts.taken();
    assert_eq!(taken.last(), Some(&at("2026-11-21T13:00:10Z")), "the newest is on time");
    hosts.run(&mut host, 3 * SECOND).await;
    assert_eq!(hosts.taken().len(), 3, "and it goes on from there");
    taken
}

#[tokio::test]
async fn a_clock_that_is_set_forth_makes_no_storm() {
    assert_eq!(after_an_hour_forth(Missed::Skip).await.len(), 1);
    assert_eq!(after_an_hour_forth(Missed::One).await.len(), 1);
    let all = after_an_hour_forth(Missed::All).await;
    assert_eq!(all.len(), super::super::timeline::MISSED_MAX);
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + SECOND));
}

#[tokio::test]
async fn a_host_that_starts_again_makes_up_for_what_passed_as_asked() {
    for (missed, expected) in [(Missed::Skip, 0), (Missed::One, 1), (Missed::All, 6)] {
        let schedule = Schedule { missed, ..every(10 * MINUTE) };
        let (mut hosts, _) = Hosts::new(schedule, "2026-11-21T12:01:00Z").await;
        hosts.clock.advance(HOUR);
        let mut again = hosts.start();
        hosts.look(&mut again).await;
        let taken = hosts.taken();
        assert_eq!(taken.len(), expected, "{missed:?}");
        if expected > 0 {
            assert_eq!(taken.last(), Some(&at("2026-11-21T13:00:00Z")));
        }
        hosts.run(&mut again, 10 * MINUTE).await;
        assert_eq!(hosts.taken(), [at("2026-11-21T13:10:00Z")], "{missed:?}");
    }
}

/// Within the 30 s that a time may be late, too.
#[tokio::test]
async fn a_quick_start_does_not_run_all_of_a_dense_schedule() {
    for (missed, expected) in [(Missed::Skip, 1), (Missed::One, 1), (Missed::All, 8)] {
        let schedule = Schedule { missed, ..every(SECOND) };
        let (mut hosts, _) = Hosts::new(schedule, "2026-11-21T12:00:00.500Z").await;
        hosts.clock.advance(8 * SECOND);
        let mut again = hosts.start();
        hosts.look(&mut again).await;
        let taken = hosts.taken();
        assert_eq!(taken.len(), expected, "{missed:?}");
        assert_eq!(taken.last(), Some(&at("2026-11-21T12:00:08Z")), "the newest is on time");
    }
}

#[tokio::test]
async fn a_time_that_comes_during_a_quick_start_is_on_time() {
    let schedule = Schedule { missed: Missed::Skip, ..cron("0 4 * * *", "UTC") };
    let (mut hosts, mut host) = Hosts::new(schedule, "2026-11-21T03:00:00Z").await;
    hosts.run(&mut host, HOUR - SECOND).await;
    hosts.clock.advance(10 * SECOND);
    let mut again = hosts.start();
    hosts.look(&mut again).await;
    assert_eq!(hosts.taken(), [at("2026-11-21T04:00:00Z")]);
}

#[tokio::test]
async fn a_busy_host_runs_each_time_late() {
    let schedule = Schedule { missed: Missed::Skip, ..every(SECOND) };
    let (mut hosts, mut host) = Hosts::new(schedule, "2026-11-21T12:00:00.500Z").await;
    hosts.look(&mut host).await;
    hosts.clock.advance(20 * SECOND);
    hosts.look(&mut host).await;
    assert_eq!(hosts.taken().len(), 20);
    // One that was stopped has missed them.
    hosts.clock.advance(MINUTE);
    hosts.look(&mut host).await;
    assert_eq!(hosts.taken(), [at("2026-11-21T12:01:20Z")]);
}

#[tokio::test]
async fn hosts_that_share_a_store_take_each_time_once() {
    let folder = std::env::temp_dir().join(format!("wasmhost-watch-{:x}", fastrand::u64(..)));
    std::fs::create_dir(&folder).unwrap();
    let clock = Arc::new(ManualClock::new(at("2026-11-21T12:00:00.500Z")));
    let store = SqliteStore::open_with_clock(&folder.join("store.db"), clock.clone()).unwrap();
    let store = Arc::new(store);
    let jitter = Duration::from_millis(900);
    let schedule = Schedule { missed: Missed::All, jitter, ..every(SECOND) };
    let (hosts, first) = Hosts::over(store.clone(), clock.clone(), schedule).await;
    let mut watches = vec![first, hosts.start(), hosts.start()];
    let mut taken = Vec::new();
    for round in 0..100 {
        clock.advance(Duration::from_millis(fastrand::u64(0..3_000)));
        if round % 10 == 0 {
            // One of them is started again.
            watches[round / 10 % 3] = hosts.start();
        }
        let looks: Vec<_> = watches
            .into_iter()
            .map(|mut watch| {
                tokio::spawn(async move {
                    let look = watch.look().await;
                    (watch, look.taken)
                })
            })
            .collect();
        watches = Vec::new();
        for look in looks {
            let (watch, taken_by_it) = look.await.unwrap();
            watches.push(watch);
            taken.extend(taken_by_it);
        }
    }
    let distinct: BTreeSet<_> = taken.iter().copied().collect();
    assert_eq!(distinct.len(), taken.len(), "none is taken twice");
    let expected = hosts.times(at("2026-11-21T12:00:00.500Z"), *distinct.last().unwrap());
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), expected, "and none is left out");
    assert_eq!(store.history("clock", 1_000).await.unwrap().len(), taken.len());
    store.close().await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn jitter_delays_each_time_and_keeps_their_order() {
    // As long as sixty of its intervals: the times would overtake each other.
    let schedule = Schedule { jitter: MINUTE, ..cron("* * * * * *", "UTC") };
    let (mut hosts, mut host) = Hosts::new(schedule, "2026-11-21T12:00:00.500Z").await;
    let (mut early, mut late) = (0, 0);
    for _ in 0..600 {
        hosts.run(&mut host, SECOND).await;
        for nominal in std::mem::take(&mut hosts.taken) {
            let delay = hosts.timeline.schedule.delay("clock", nominal.0);
            let waited = hosts.clock.now().since(nominal);
            assert!(waited >= delay, "{nominal} was taken after {waited:?}, before its delay of {delay:?}");
            assert!(waited <= MINUTE + SECOND, "{nominal} was taken after {waited:?}");
            (early, late) = if waited <= delay + SECOND { (early + 1, late) } else { (early, late + 1) };
        }
    }
    assert!(early > 0 && late > 0, "some wait for those before them: {early} {late}");
    let cursor = hosts.timeline.cursor().await.unwrap().unwrap();
    let history = hosts.timeline.ticks.history("clock", 1_000).await.unwrap();
    let mut nominal: Vec<_> = history.into_iter().map(|tick| tick.nominal).collect();
    nominal.reverse();
    assert_eq!(nominal, hosts.times(at("2026-11-21T12:00:00.500Z"), cursor), "none is left out");
}

#[tokio::test]
async fn the_next_times_are_known_with_their_delays() {
    let schedule = Schedule { jitter: 10 * SECOND, ..every(MINUTE) };
    let (mut hosts, mut host) = Hosts::new(schedule, "2026-11-21T12:00:30Z").await;
    hosts.run(&mut host, MINUTE).await;
    let (cursor, next) = hosts.timeline.upcoming(2).await.unwrap();
    assert_eq!(cursor, Some(at("2026-11-21T12:01:00Z")));
    assert_eq!(next[0].nominal, at("2026-11-21T12:02:00Z"));
    assert_eq!(next[1].nominal, at("2026-11-21T12:03:00Z"));
    assert_eq!(next[0].due, next[0].nominal + hosts.timeline.schedule.delay("clock", next[0].nominal.0));
    hosts.taken();
    hosts.run(&mut host, next[0].due.since(hosts.clock.now()) + SECOND).await;
    assert_eq!(hosts.taken(), [next[0].nominal]);
}

/// The times that a host takes which starts at `now` with this schedule, where another one ran until a minute before.
async fn taken_after_a_change(first: Schedule, second: Schedule, now: &str) -> Vec<Timestamp> {
    let (hosts, _) = Hosts::new(first, "2026-11-21T08:00:00Z").await;
    hosts.clock.set(at(now));
    let timeline = Arc::new(Timeline {
        process: "clock".into(),
        schedule: second,
        ticks: hosts.timeline.ticks.clone(),
        clock: hosts.clock.clone(),
        owner: "host/2".to_owned(),
    });
    let mut again = Hosts { clock: hosts.clock.clone(), timeline, taken: vec![] };
    let mut watch = again.start();
    again.look(&mut watch).await;
    let taken = again.taken();
    // It goes on from there.
    let next = again.times(at(now), again.clock.now() + 48 * HOUR)[0];
    again.run(&mut watch, next.since(again.clock.now()) + SECOND).await;
    assert_eq!(again.taken(), [next]);
    taken
}

#[tokio::test]
async fn a_schedule_that_was_changed_begins_now() {
    let now = "2026-11-21T10:00:30Z";
    let nightly = || cron("0 4 * * *", "UTC");
    for changed in [
        cron("0 9 * * *", "UTC"),
        cron("0 9 * * *", "Europe/Berlin"),
        cron("0 4 * * *", "America/New_York"),
        Schedule { missed: Missed::All, ..cron("* * * * *", "UTC") },
        every(HOUR),
    ] {
        assert_eq!(taken_after_a_change(nightly(), changed, now).await, []);
    }
    assert_eq!(taken_after_a_change(every(HOUR), every(MINUTE), now).await, []);
    // One that says the same in other words goes on, and so does one whose other keys have changed.
    let same = Schedule { overlap: Overlap::Allow, jitter: SECOND, ..cron(" 0  9 * * * ", "UTC") };
    assert_eq!(taken_after_a_change(cron("0 9 * * *", "UTC"), same, now).await, [at("2026-11-21T09:00:00Z")]);
}
