//! Schedules.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::{Formation, Host, eventually};

fn clock(keys: &str) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::new().directory("out").process("clock", "tick-test", &format!("{dirs}\n{keys}"))
}

/// What the clock wrote: nominal time, manual or scheduled, its type.
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
    let json: serde_json::Value =
        serde_json::from_str(&host.cli(["tick", "clock", "--json"]).done()).unwrap();
    assert!(json["error"].is_null() && json["nominal"].is_string(), "{json}");
}

#[test]
fn a_schedule_of_each_second_ticks_once_each_second() {
    let formation = clock("schedule = \"* * * * * *\"");
    let host = Host::run(&formation);
    eventually("four ticks", || (written(&formation).len() >= 4).then_some(()));
    host.stop().done();
    let ticks: Vec<i64> = written(&formation).iter().map(|tick| tick.0).collect();
    assert!(ticks.iter().all(|nominal| nominal % 1000 == 0), "{ticks:?}");
    assert!(
        ticks.windows(2).all(|pair| pair[1] == pair[0] + 1000),
        "none is left out and none is twice: {ticks:?}"
    );
    let store = crate::harness::Store::open(&formation.path(".wasmhost/store.db"));
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
    crate::harness::Store::open(&formation.path(".wasmhost/store.db"))
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
        let ran = rows.iter().any(|row| row.ended && row.error.is_none());
        (ran && rows.iter().any(|row| row.error.is_some())).then_some(rows)
    });
    let skipped: Vec<_> = rows.iter().filter_map(|row| row.error.as_deref()).collect();
    assert!(skipped.iter().all(|why| why.contains("skipped")), "{skipped:?}");
    assert_eq!(host.ps().instances("clock").len(), 1);
}
