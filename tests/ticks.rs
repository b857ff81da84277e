//! Schedules.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::harness::{Formation, Host, Store, eventually, setting};

fn clock(keys: &str) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::new().directory("out").process("clock", "tick-test", &format!("{dirs}\n{keys}"))
}

/// The lines that the clock wrote: nominal time, manual or scheduled, its type.
fn written(formation: &Formation) -> Vec<(i64, String, String)> {
    let text = formation.read("out/ticks");
    let words = text.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    words.map(|words| (words[0].parse().unwrap(), words[1].clone(), words[2].clone())).collect()
}

#[test]
fn a_tick_runs_when_a_person_says_so() {
    let formation = clock("schedule = \"@yearly\"");
    let host = Host::run(&formation);
    host.cli(["tick", "clock"]).done();
    let ticks = written(&formation);
    assert_eq!(ticks.len(), 1);
    assert_eq!((ticks[0].1.as_str(), ticks[0].2.as_str()), ("manual", "clock"));
    let rows = host.store().ticks("clock");
    assert_eq!(
        (rows[0].nominal, rows[0].manual, rows[0].ended, &rows[0].error),
        (ticks[0].0, true, true, &None)
    );
    let json: Value = serde_json::from_str(&host.cli(["tick", "clock", "--json"]).done()).unwrap();
    assert!(json["error"].is_null() && json["nominal"].is_string(), "{json}");
}

#[test]
fn a_schedule_of_each_second_ticks_once_each_second() {
    // A busy machine may take longer than a second for one.
    let formation = clock("schedule = \"* * * * * *\"\noverlap = \"allow\"");
    let host = Host::run(&formation);
    eventually("four ticks", || (written(&formation).len() >= 4).then_some(()));
    host.stop().done();
    let ticks: Vec<i64> = written(&formation).iter().map(|tick| tick.0).collect();
    assert!(ticks.iter().all(|nominal| nominal % 1000 == 0), "{ticks:?}");
    assert!(
        ticks.windows(2).all(|pair| pair[1] == pair[0] + 1000),
        "none is left out and none is twice: {ticks:?}"
    );
    let store = Store::open(&formation.path(".wasmhost/store.db"));
    let rows = store.ticks("clock");
    assert_eq!(rows.iter().map(|row| row.nominal).collect::<Vec<_>>(), ticks);
    assert!(rows.iter().all(|row| !row.manual && row.ended && row.error.is_none()), "{rows:?}");
    assert!(written(&formation).iter().all(|tick| tick.1 == "scheduled"));
}

#[test]
fn a_tick_that_fails_says_why_and_is_not_repeated() {
    // It has no /out to write to.
    let host = Host::run(&Formation::new().process("clock", "tick-test", "schedule = \"@yearly\""));
    host.cli(["tick", "clock"]).failed(1, "the tick failed: ");
    let rows = host.store().ticks("clock");
    assert_eq!(rows.len(), 1);
    assert!(rows[0].error.is_some(), "{rows:?}");
}

#[test]
fn a_type_without_a_schedule_has_no_ticks() {
    let host = Host::run(&Formation::web(""));
    host.cli(["tick", "web"]).failed(1, "no process type \"web\" with a schedule");
    host.cli(["tick", "nobody"]).failed(1, "nobody");
}

/// How often the times of the last five hours run that passed while no host did.
fn missed(rule: &str) -> usize {
    // Half an hour away from now: none is due while the test runs.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let minute = (now / 60 + 30) % 60;
    let formation = clock(&format!("schedule = \"{minute} * * * *\"\n{rule}"));
    let host = Host::run(&formation);
    // By then the schedule has begun.
    host.cli(["tick", "clock"]).done();
    eventually("the schedule has begun", || (host.store().schedules() == 1).then_some(()));
    host.stop().done();
    Store::open(&formation.path(".wasmhost/store.db"))
        .set_schedule_back("clock", Duration::from_secs(5 * 3600));

    let host = Host::run(&formation);
    let expected = match rule {
        all if all.contains("all") => 5,
        "missed = \"skip\"" => 0,
        _ => 1,
    };
    eventually("what was missed has run", || {
        let rows = host.store().ticks("clock");
        let ended = rows.iter().filter(|row| !row.manual && row.ended).count();
        (ended >= expected && host.store().schedule_is_recent("clock")).then_some(())
    });
    host.stop().done();
    let mut ticks: Vec<_> = written(&formation).into_iter().filter(|tick| tick.1 == "scheduled").collect();
    ticks.sort();
    ticks.dedup();
    if let (false, Some(last)) = (ticks.is_empty(), ticks.last()) {
        let age = now as i64 - last.0 / 1000;
        assert!((0..3600).contains(&age), "the newest is among them: {ticks:?}");
    }
    ticks.len()
}

#[test]
fn of_missed_ticks_one_is_made_up_for() {
    assert_eq!(missed(""), 1);
    assert_eq!(missed("missed = \"one\""), 1);
}

#[test]
fn all_missed_ticks_are_made_up_for_where_the_formation_says_so() {
    assert_eq!(missed("missed = \"all\"\noverlap = \"allow\""), 5);
}

#[test]
fn all_missed_ticks_run_one_after_another_where_they_may_not_overlap() {
    assert_eq!(missed("missed = \"all\""), 5);
}

#[test]
fn missed_ticks_are_skipped_where_the_formation_says_so() {
    assert_eq!(missed("missed = \"skip\""), 0);
}

#[test]
fn a_tick_is_skipped_while_the_one_before_it_runs() {
    let keys = "schedule = \"* * * * * *\"\nargs = [\"sleep\", \"2500\"]";
    let host = Host::run(&Formation::new().process("clock", "cmd-test", keys));
    let rows = eventually("one has run and one was skipped", || {
        let rows = host.store().ticks("clock");
        let has = |result| rows.iter().any(|row| row.result == result);
        (has("done") && has("skipped")).then_some(rows)
    });
    let why: Vec<_> = rows.iter().filter_map(|row| row.error.as_deref()).collect();
    assert!(why.iter().all(|why| *why == "the tick before it was still running"), "{why:?}");
    assert_eq!(host.ps().instances("clock").len(), 1);
}

#[test]
fn a_tick_that_a_person_asks_for_heeds_overlap_too() {
    let keys = "schedule = \"@yearly\"\ncount = 2\nargs = [\"sleep\", \"6000\"]";
    let host = Host::run(&Formation::new().process("clock", "cmd-test", keys));
    let first = host.cli_beside(["tick", "clock"]);
    eventually("it runs", || (!host.store().ticks("clock").is_empty()).then_some(()));
    host.cli(["tick", "clock"]).failed(1, "a tick of \"clock\" is still running");
    first.wait().done();
    assert_eq!(host.store().ticks("clock").len(), 1, "it isn't recorded either");
    // Where the formation says that they may, they do.
    let keys = format!("{keys}\noverlap = \"allow\"");
    let host = Host::run(&Formation::new().process("clock", "cmd-test", &keys));
    let first = host.cli_beside(["tick", "clock"]);
    eventually("it runs", || (!host.store().ticks("clock").is_empty()).then_some(()));
    host.cli(["tick", "clock"]).done();
    first.wait().done();
}

/// `KILLS=100` makes it longer, `SEED=...` repeats one.
#[test]
fn each_tick_happens_once_however_often_the_host_is_killed() {
    let kills = setting("KILLS", 6);
    let seed = setting("SEED", fastrand::usize(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let formation = clock("every = \"1s\"\nmissed = \"all\"\noverlap = \"allow\"");
    for _ in 0..kills {
        let host = Host::run(&formation);
        let store = host.store();
        let more = store.ticks("clock").len() + random.usize(1..3);
        // At the moment that a tick is taken, or shortly after: while it is called.
        eventually("it is time for the kill", || (store.ticks("clock").len() >= more).then_some(()));
        std::thread::sleep(Duration::from_millis(random.u64(0..10)));
        host.kill();
    }
    let host = Host::run(&formation);
    let store = host.store();
    let last = store.ticks("clock").last().unwrap().nominal;
    eventually("two more ticks", || (store.ticks("clock").last()?.nominal >= last + 2_000).then_some(()));
    host.stop().done();

    let rows = store.ticks("clock");
    let nominal: Vec<_> = rows.iter().map(|row| row.nominal).collect();
    assert!(nominal.windows(2).all(|pair| pair[1] == pair[0] + 1_000), "each second is taken: {nominal:?}");
    let mut calls: HashMap<i64, usize> = HashMap::new();
    for (nominal, ..) in written(&formation) {
        *calls.entry(nominal).or_default() += 1;
    }
    for row in &rows {
        let calls = calls.remove(&row.nominal).unwrap_or(0);
        match row.result.as_str() {
            "done" => assert_eq!(calls, 1, "{row:?}"),
            // The guest came to it, or it didn't; nobody calls it again.
            "interrupted" => assert!(calls <= 1 && !row.ended && row.error.is_some(), "{row:?}"),
            _ => panic!("{row:?}"),
        }
    }
    assert!(calls.is_empty(), "called and not taken: {calls:?}");
}

#[test]
fn a_tick_that_its_hosts_end_cut_off_is_interrupted() {
    let keys = "schedule = \"@yearly\"\nargs = [\"sleep\", \"60000\"]";
    let formation = Formation::new().top("grace = \"0s\"").process("clock", "cmd-test", keys);
    let begin = || {
        let host = Host::run(&formation);
        let asked = host.cli_beside(["tick", "clock"]);
        let busy = || (host.ps().in_state("clock", "busy") == 1).then_some(());
        eventually("it runs", busy);
        (host, asked)
    };
    let (host, asked) = begin();
    assert_eq!(host.stop().code, 124);
    assert_ne!(asked.wait().code, 0);
    let store = Store::open(&formation.path(".wasmhost/store.db"));
    let drained = store.ticks("clock").remove(0);
    assert_eq!((drained.result.as_str(), drained.ended), ("interrupted", true), "{drained:?}");

    let (host, _asked) = begin();
    assert_eq!(store.ticks("clock")[1].result, "running");
    host.kill();
    let host = Host::run(&formation);
    host.stderr().wait_for("1 ticks that the last run had begun were interrupted");
    let killed = store.ticks("clock").remove(1);
    assert_eq!((killed.result.as_str(), killed.ended), ("interrupted", false), "{killed:?}");
    let listed = host.cli(["ticks", "clock"]).done();
    assert_eq!(listed.matches("interrupted (manual)").count(), 2, "{listed}");
}

#[test]
fn what_became_of_ticks_is_listed_with_the_next_ones() {
    let formation = clock("schedule = \"0 0 1 1 *\"\njitter = \"1h\"");
    let formation = formation.process("broken", "tick-test", "every = \"365d\"");
    let host = Host::run(&formation);
    let nothing = host.cli(["ticks", "clock"]).done();
    assert!(nothing.starts_with("clock: next at 20") && nothing.contains("-01-01T00:00:00Z"), "{nothing}");

    host.cli(["tick", "clock"]).done();
    host.cli(["tick", "broken"]).failed(1, "the tick failed: ");
    host.cli(["tick", "clock"]).done();
    let ticks = |arguments: &[&str]| -> Vec<Value> {
        let printed = match arguments {
            [process] => host.cli(["ticks", process, "--json"]),
            _ => host.cli(["ticks", "-n", "2", "--json"]),
        };
        printed.done().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let clock = ticks(&["clock"]);
    assert_eq!(clock.len(), 2);
    assert!(clock[0]["nominal"].as_str() > clock[1]["nominal"].as_str(), "the newest first: {clock:?}");
    for tick in &clock {
        assert_eq!((&tick["result"], &tick["manual"]), (&"done".into(), &true.into()), "{tick}");
        assert!(
            tick["duration_s"].is_f64() && tick["error"].is_null() && tick["ended_at"].is_string(),
            "{tick}"
        );
    }
    // The newest two of all types are listed.
    let newest: Vec<_> = ticks(&[]).iter().map(|tick| tick["process"].as_str().unwrap().to_owned()).collect();
    assert_eq!(newest, ["clock", "broken"]);
    let broken = ticks(&["broken"]).remove(0);
    assert_eq!(broken["result"], "failed");
    assert!(!broken["error"].as_str().unwrap().is_empty());
    let text = host.cli(["ticks"]).done();
    assert!(text.starts_with("TYPE") && text.contains("\nbroken: next at "), "{text}");
    host.cli(["ticks", "web"]).failed(1, "no process type \"web\" with a schedule");
}

#[test]
fn jitter_delays_ticks_and_leaves_none_out() {
    // Two may be so close that the first is still under way.
    let formation = clock("every = \"1s\"\njitter = \"900ms\"\noverlap = \"allow\"");
    let host = Host::run(&formation);
    eventually("four ticks", || (written(&formation).len() >= 4).then_some(()));
    host.stop().done();
    let mut ticks: Vec<i64> = written(&formation).iter().map(|tick| tick.0).collect();
    ticks.sort_unstable();
    assert!(ticks.windows(2).all(|pair| pair[1] == pair[0] + 1000), "{ticks:?}");
}

#[test]
fn a_schedule_that_is_ahead_of_the_clock_is_told_and_can_begin_anew() {
    let formation = clock("every = \"1s\"");
    let run_once = || {
        let before = written(&formation).len();
        let host = Host::run(&formation);
        eventually("a tick", || (written(&formation).len() > before).then_some(()));
        host.stop().done();
    };
    run_once();
    let store = Store::open(&formation.path(".wasmhost/store.db"));
    store.set_schedule_ahead("clock", Duration::from_secs(3_600));
    let host = Host::run(&formation);
    host.stderr().wait_for("no time before that is run again");
    host.stop().done();
    store.begin_anew("clock");
    run_once();
    let mut nominal: Vec<i64> = written(&formation).iter().map(|tick| tick.0).collect();
    let calls = nominal.len();
    nominal.dedup();
    assert_eq!(nominal.len(), calls, "none is run twice");
}

#[test]
fn a_schedule_that_was_changed_begins_now() {
    let formation = clock("schedule = \"30 4 * * *\"\nmissed = \"all\"");
    let host = Host::run(&formation);
    eventually("the schedule has begun", || (host.store().schedules() == 1).then_some(()));
    host.stop().done();
    let back = || {
        let store = Store::open(&formation.path(".wasmhost/store.db"));
        store.set_schedule_back("clock", Duration::from_secs(5 * 24 * 3600));
    };
    // Another expression, another zone, an interval in its place; and one that was away meanwhile.
    let mut text = formation.text();
    for (old, new) in [
        ("schedule = \"30 4 * * *\"", "schedule = \"*/10 * * * *\""),
        ("schedule = \"*/10 * * * *\"", "schedule = \"*/10 * * * *\"\ntime_zone = \"Asia/Kathmandu\""),
        ("schedule = \"*/10 * * * *\"\ntime_zone = \"Asia/Kathmandu\"", "every = \"1h\""),
    ] {
        back();
        assert!(text.contains(old), "{text}");
        text = text.replace(old, new);
        std::fs::write(formation.file(), &text).unwrap();
        let host = Host::run(&formation);
        eventually("it has begun anew", || host.store().schedule_is_recent("clock").then_some(()));
        host.stop().done();
    }
    let without = Formation::web("").text();
    std::fs::write(formation.file(), without).unwrap();
    back();
    Host::run(&formation).stop().done();
    std::fs::write(formation.file(), &text).unwrap();
    let host = Host::run(&formation);
    eventually("it has begun anew", || {
        let store = host.store();
        (store.schedules() == 1 && store.schedule_is_recent("clock")).then_some(())
    });
    // A full hour may have come in the meantime, and no more than that.
    let ran = host.store().ticks("clock").len();
    assert!(ran <= 2, "{:?}", host.store().ticks("clock"));
}

#[test]
fn a_schedule_of_a_type_that_was_scaled_to_none_is_silent() {
    let formation = clock("schedule = \"* * * * * *\"");
    let host = Host::run(&formation);
    host.cli(["scale", "clock=0"]).done();
    const WHY: &str = "the type's count is 0";
    let skipped = || {
        let rows = host.store().ticks("clock");
        rows.iter().filter(|row| row.result == "skipped" && row.error.as_deref() == Some(WHY)).count()
    };
    eventually("three ticks are skipped", || (skipped() >= 3).then_some(()));
    host.stderr().wait_for(WHY);
    assert_eq!(host.stderr().count(WHY), 1);
}

/// The second tick waits in an instance that then takes no more.
#[test]
fn a_tick_that_its_guest_has_not_seen_is_given_to_another_instance() {
    let keys = "schedule = \"@yearly\"\noverlap = \"allow\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let formation = Formation::new().process("clock", "tick-async", keys).directory("out");
    let host = Host::run(&formation);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| host.cli(["tick", "clock"]));
        host.stdout().wait_for("began");
        let second = scope.spawn(|| host.cli(["tick", "clock"]));
        eventually("both are in it", || (host.ps().instances("clock")[0]["calls_now"] == 2).then_some(()));
        fs::write(formation.path("out/go"), "").unwrap();
        first.join().unwrap().done();
        second.join().unwrap().done();
    });
    host.stdout().wait_until("both have ended", |lines| {
        (lines.iter().filter(|line| line.contains("ended")).count() >= 2).then_some(())
    });
    for instances_line in ["began", "ended"] {
        let printed = host.stdout().count(instances_line);
        assert_eq!(printed, 2, "each tick ran once: {}", host.stdout().text());
    }
    let ticks = host.cli(["ticks", "clock"]).done();
    assert_eq!(ticks.matches("done (manual)").count(), 2, "{ticks}");
}

/// Its ticks are never begun, and nobody waits for them.
#[test]
fn a_clock_that_takes_no_ticks_from_its_start_on_fails_them() {
    let formation = Formation::web("").process("clock", "full-start", "schedule = \"@yearly\"");
    let host = Host::run(&formation);
    for _ in 0..3 {
        host.cli(["tick", "clock"]).failed(1, "the guest has set backpressure, and has nothing left to do");
        assert_eq!(host.get("/ok").ok(), "ok\n");
    }
    assert_eq!(host.ps().number("web", "restarts"), 0);
    assert_eq!(host.stop().never_panicked().code, 0);
}
