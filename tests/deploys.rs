//! Deploys: from one release to the next while the host serves.

use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::http::Request;
use crate::harness::{Formation, Host, Load, eventually, setting, versioned_web};

/// A worker that notes each call in `out/log`.
fn worker(formation: Formation, keys: &str) -> Formation {
    let dirs = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    formation.directory("out").process("worker", "job-test", &format!("{dirs}\n{keys}"))
}

/// How often workers have run each job, by `out/log`.
fn runs(formation: &Formation) -> Vec<String> {
    let mut runs: Vec<_> = formation.read("out/log").lines().map(str::to_owned).collect();
    runs.sort();
    runs
}

#[test]
fn a_changed_component_is_served_without_a_failed_request() {
    let formation = versioned_web("one", "count = 4");
    let host = Host::run(&formation);
    let load = host.load_of_versions(4, &["one", "two"]);
    load.wait_for(200);
    formation.build("web", "web-test", "two");
    let said = host.cli(["deploy"]).done();
    assert!(said.lines().any(|line| line.starts_with("web: ")), "{said}");
    assert!(said.ends_with("v2 is live\n"), "{said}");
    // All of them have moved when it is said.
    for _ in 0..8 {
        assert_eq!(host.version(), "two");
    }
    load.wait_for(200);
    load.stop();
    assert_eq!(host.ps().number("web", "actual"), 4);
    assert_eq!(host.live(), 2);
    host.stop().done();
}

#[test]
fn requests_that_compute_or_take_long_finish_where_they_are() {
    let formation = versioned_web("one", "count = 3");
    let host = Host::run(&formation);
    host.compute_until_known();
    let loads = [Load::get(host.address(), 3, "/spin?ms=3"), Load::get(host.address(), 3, "/sleep?ms=20")];
    loads.iter().for_each(|load| load.wait_for(20));
    for version in ["two", "three", "four"] {
        formation.build("web", "web-test", version);
        host.cli(["deploy"]).done();
        loads.iter().for_each(|load| load.wait_for(20));
    }
    assert_eq!(host.version(), "four");
    for load in loads {
        load.stop();
    }
}

#[test]
fn an_answer_under_way_is_finished_by_the_old_version() {
    let formation = versioned_web("one", "count = 8");
    let host = Host::run(&formation);
    let held = host.hold();
    formation.build("web", "web-test", "two");
    let mut deploy = host.cli_beside(["deploy"]);
    eventually("the new version answers", || (host.version() == "two").then_some(()));
    held.end();
    eventually("the deploy has ended", || deploy.has_ended().then_some(()));
    deploy.wait().done();
}

#[test]
fn types_that_did_not_change_keep_their_instances() {
    let formation = versioned_web("one", "").process("other", "web-test", "route = \"/ok\"\ncount = 2");
    let formation =
        worker(formation, "queue = \"default\"").process("clock", "tick-test", "schedule = \"@yearly\"");
    let host = Host::run(&formation);
    host.get("/ok").ok();
    let job = host.enqueue("default", "ok");
    host.store().wait_for(job, "done");
    host.is_idle_after("other", 1);
    host.is_idle_after("worker", 1);
    let names = ["other", "worker", "clock"];
    let before = names.map(|name| host.instances_of(name));
    formation.build("web", "web-test", "two");
    let said = host.cli(["deploy"]).done();
    assert!(names.iter().all(|name| !said.contains(&format!("{name}:"))), "{said}");
    assert_eq!(host.version(), "two");
    assert_eq!(names.map(|name| host.instances_of(name)), before);
}

#[test]
fn where_nothing_has_changed_nothing_is_done() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    let before = host.instances_of("web");
    assert_eq!(host.cli(["deploy"]).done(), "nothing changes: v1 is live\n");
    // The same bytes again are no change, and neither is a comment.
    formation.build("web", "web-test", "one");
    let formation = formation.replace("[process.web]", "# the one\n[process.web]");
    assert_eq!(host.cli(["deploy"]).done(), "nothing changes: v1 is live\n");
    assert_eq!(host.instances_of("web"), before);
    assert_eq!(host.releases().len(), 1);
    drop(formation);
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let formation = versioned_web("one", "count = 2");
    let host = Host::run(&formation);
    let before = host.instances_of("web");
    formation.build("web", "web-test", "two");
    let formation = formation.replace("count = 2", "count = 3\nmemory = \"64MiB\"");
    let said = host.cli(["deploy", "--dry-run"]).done();
    assert!(said.contains("web: ") && said.contains("memory") && said.contains("count"), "{said}");
    assert!(said.ends_with("v1 is live: this was a dry run, and nothing was changed\n"), "{said}");
    assert_eq!(host.instances_of("web"), before);
    assert_eq!(host.version(), "one");
    assert_eq!(host.releases().len(), 1);
    drop(formation);
}

#[test]
fn counts_that_were_set_live_survive_a_deploy() {
    let formation =
        versioned_web("one", "count = 2").process("other", "web-test", "route = \"/ok\"\ncount = 2");
    let host = Host::run(&formation);
    host.cli(["scale", "web=5"]).done();
    formation.build("web", "web-test", "two");
    let formation = formation
        .replace("web.wasm\"\ncount = 2", "web.wasm\"\ncount = 3")
        .replace("route = \"/ok\"\ncount = 2", "route = \"/ok\"\ncount = 1");
    host.cli(["deploy"]).done();
    eventually("the counts are live", || {
        let ps = host.ps();
        let counts = |name| ["desired", "in_file", "actual"].map(|field| ps.number(name, field));
        (counts("web") == [5, 3, 5] && counts("other") == [1, 1, 1]).then_some(())
    });
    assert_eq!(host.version(), "two");
    host.cli(["scale", "--reset"]).done();
    assert_eq!(host.ps().number("web", "actual"), 3);
    drop(formation);
}

#[test]
fn types_are_added_and_removed() {
    let one = versioned_web("one", "");
    let host = Host::run(&one);
    let text = one.text();
    let load = host.load_of_versions(2, &["one"]);
    let both = worker(one, "queue = \"default\"").process("other", "web-test", "route = \"/instance\"");
    host.cli(["deploy"]).done();
    assert!(host.get("/instance").ok().starts_with("other\n"));
    let job = host.enqueue("default", "write:log");
    host.store().wait_for(job, "done");
    host.cli(["scale", "other=3"]).done();

    let one = both.with_text(&text);
    let said = host.cli(["deploy"]).done();
    assert!(said.contains("other") && said.contains("worker"), "{said}");
    assert!(host.get("/instance").ok().starts_with("web\n"));
    eventually("they are gone", || (host.ps().0["types"].as_array().unwrap().len() == 1).then_some(()));
    host.cli(["scale", "other=1"]).failed(1, "other");
    load.wait_for(50);
    load.stop();
    host.stop().done();
    drop(one);
}

#[test]
fn routes_change_at_once_and_no_request_is_without_one() {
    let formation = Formation::new().process("one", "web-test", "route = \"/instance\"").process(
        "two",
        "web-test",
        "route = \"/ok\"",
    );
    let host = Host::run(&formation);
    let check = |_, answer| match answer {
        Ok(crate::harness::http::Answer { status: 200, body, .. })
            if body.starts_with(b"one\n") || body.starts_with(b"two\n") =>
        {
            Ok(true)
        }
        other => Err(format!("{other:?}")),
    };
    let load = Load::start(host.address(), 3, |_| Request::get("/instance"), check);
    load.wait_for(50);
    let mut formation = formation;
    for owner in ["two", "one", "two", "one"] {
        formation = formation
            .replace("\"/instance\"", "\"/between\"")
            .replace("\"/ok\"", "\"/instance\"")
            .replace("\"/between\"", "\"/ok\"");
        host.cli(["deploy"]).done();
        assert!(host.get("/instance").ok().starts_with(&format!("{owner}\n")));
        load.wait_for(20);
    }
    load.stop();
    drop(formation);
}

#[test]
fn grants_and_limits_change_with_a_deploy() {
    let formation = Formation::web("env = { COLOUR = \"red\" }\nmax_body = \"1KiB\"");
    let host = Host::run(&formation);
    assert!(host.get("/env").ok().contains("COLOUR=red"));
    assert_eq!(host.post("/echo", vec![b'x'; 4096]).status, 413);
    let formation = formation.replace("red", "blue").replace("1KiB", "1MiB");
    host.cli(["deploy"]).done();
    assert!(host.get("/env").ok().contains("COLOUR=blue"));
    assert_eq!(host.post("/echo", vec![b'x'; 4096]).ok().len(), 4096);
    drop(formation);
}

#[test]
fn a_job_that_runs_is_finished_and_its_successors_go_to_the_new_version() {
    let formation = worker(Formation::new(), "queue = \"default\"\ncount = 2\nenv = { RELEASE = \"one\" }");
    let host = Host::run(&formation);
    let running = [(); 2].map(|()| host.enqueue("default", "write:log\nprint:begun\nsleep:1500"));
    host.stdout().wait_until("both are begun", |lines| {
        (lines.iter().filter(|line| line.contains("begun")).count() == 2).then_some(())
    });
    let formation = formation.replace("\"one\"", "\"two\"");
    host.cli(["deploy"]).done();
    let next = host.enqueue("default", "write:log");
    for id in [running[0], running[1], next] {
        assert_eq!(host.store().wait_for(id, "done").attempt, 1);
    }
    assert_eq!(runs(&formation).len(), 3, "{:?}", runs(&formation));
    host.stop().done();
}

#[test]
fn a_worker_goes_to_another_queue_and_no_job_is_lost_or_done_twice() {
    let formation =
        worker(Formation::web("enqueue = [\"first\", \"second\"]"), "queue = \"first\"\ncount = 4");
    let host = Host::run(&formation);
    let first: Vec<_> = (0..40).map(|_| host.post("/enqueue?queue=first", "write:log\nsleep:20")).collect();
    assert!(first.iter().all(|answer| answer.status == 201));
    let formation = formation.replace("queue = \"first\"", "queue = { first = 1, second = 2 }");
    host.cli(["deploy"]).done();
    for _ in 0..40 {
        assert_eq!(host.post("/enqueue?queue=second", "write:log").status, 201);
    }
    eventually("all jobs are done", || {
        host.store().jobs().iter().all(|job| job.state == "done").then_some(())
    });
    let formation = formation.replace("queue = { first = 1, second = 2 }", "queue = \"second\"");
    host.cli(["deploy"]).done();
    let left = host.enqueue("first", "write:log");
    let done = host.enqueue("second", "write:log");
    host.store().wait_for(done, "done");
    assert_eq!(host.store().job(left).state, "available");
    assert!(host.store().jobs().iter().all(|job| job.attempt == i64::from(job.id != left)));
    assert_eq!(runs(&formation).len(), 81);
    host.stop().done();
}

#[test]
fn a_schedule_changes() {
    let clock = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]\nschedule = \"@yearly\"";
    let formation = Formation::new().directory("out").process("clock", "tick-test", clock);
    let host = Host::run(&formation);
    host.cli(["tick", "clock"]).done();
    let formation = formation.replace("schedule = \"@yearly\"", "every = \"1s\"");
    host.cli(["deploy"]).done();
    eventually("it ticks", || formation.read("out/ticks").contains("scheduled").then_some(()));
    let formation = formation.replace("every = \"1s\"", "schedule = \"@yearly\"");
    host.cli(["deploy"]).done();
    // The last tick of the schedule before may still run, and then another one is refused.
    eventually("a tick runs", || (host.cli(["tick", "clock"]).code == 0).then_some(()));
    let formation = formation.replace("schedule = \"@yearly\"", "queue = \"default\"");
    // The guest takes no jobs.
    host.cli(["deploy"]).failed(1, "clock");
    host.cli(["tick", "clock"]).done();
    drop(formation);
}

#[test]
fn a_tick_that_a_person_wants_is_run_by_one_schedule_or_the_other() {
    let keys = "schedule = \"@yearly\"\noverlap = \"allow\"\n\
                dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let formation = Formation::new().directory("out").process("clock", "tick-test", keys);
    let host = Host::run(&formation);
    thread::scope(|scope| {
        let deploys = scope.spawn(|| {
            let mut formation = formation;
            for (old, new) in [("@yearly", "@monthly"), ("@monthly", "@yearly")].repeat(4) {
                formation = formation.replace(old, new);
                host.cli(["deploy"]).done();
            }
            formation
        });
        while !deploys.is_finished() {
            let ended = host.cli(["tick", "clock"]);
            // Two in one millisecond are one.
            assert!(ended.code == 0 || ended.stderr.contains("of the same millisecond"), "{ended:#?}");
        }
        deploys.join().unwrap()
    });
    host.stop().done();
}

#[test]
fn sighup_deploys() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    host.signal(Signal::HUP);
    eventually("the new version answers", || (host.version() == "two").then_some(()));
    eventually("it is live", || (host.live() == 2).then_some(()));
    // A broken file is told of, and changes nothing.
    let formation = formation.replace("component", "componet");
    host.signal(Signal::HUP);
    host.stderr().wait_for("componet");
    assert_eq!((host.version().as_str(), host.live()), ("two", 2));
    host.stop().done();
    drop(formation);
}

#[test]
fn a_deploy_goes_on_when_nobody_waits_for_it_any_more() {
    let formation = versioned_web(
        "one",
        "ready = \"/read?path=/out/ready\"\n\
         dirs = [{ host = \"out\", guest = \"/out\", access = \"read\" }]",
    )
    .directory("out");
    std::fs::write(formation.path("out/ready"), "yes").unwrap();
    let host = Host::run(&formation);
    std::fs::remove_file(formation.path("out/ready")).unwrap();
    formation.build("web", "web-test", "two");
    let deploy = host.cli_beside(["deploy"]);
    deploy.stderr.wait_for("v2: starting a first instance of web");
    assert_eq!(host.version(), "one");
    host.cli(["deploy"]).failed(1, "another deploy is under way");
    host.cli(["rollback"]).failed(1, "another deploy is under way");
    deploy.signal(Signal::INT);
    let ended = deploy.wait();
    assert_eq!(ended.code, 130, "{ended:#?}");
    assert!(ended.stderr.contains("v2 goes on in the host"), "{ended:#?}");
    let states = |host: &Host| -> Vec<Value> {
        host.releases().iter().map(|release| release["state"].clone()).collect()
    };
    assert_eq!(states(&host), ["pending", "live"]);
    std::fs::write(formation.path("out/ready"), "yes").unwrap();
    eventually("the new version answers", || (host.version() == "two").then_some(()));
    eventually("it is live", || (states(&host) == ["live", "replaced"]).then_some(()));
}

#[test]
fn who_does_not_wait_has_the_releases_number() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    let said = host.cli(["deploy", "--no-wait"]).done();
    assert!(said.contains("v2 goes on in the host"), "{said}");
    eventually("it is live", || (host.live() == 2).then_some(()));
    assert_eq!(host.version(), "two");
}

#[test]
fn programs_are_told_of_each_step() {
    let formation = versioned_web("one", "count = 2");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    let events: Vec<Value> = host
        .cli(["deploy", "--json"])
        .done()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"changes"), "{events:#?}");
    assert!(
        names.contains(&"begun") && names.contains(&"trying") && names.contains(&"moving"),
        "{events:#?}"
    );
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["release"]), (&"live".into(), &2.into()), "{events:#?}");
    let again: Value =
        serde_json::from_str(host.cli(["deploy", "--json"]).done().lines().last().unwrap()).unwrap();
    assert_eq!((&again["event"], &again["release"]), (&"unchanged".into(), &2.into()));
}

/// Whatever a person sees in the course of it. `INSTANCES=1000` makes it larger.
#[test]
fn a_move_never_has_more_than_a_quarter_more_instances() {
    let count = setting("INSTANCES", 40);
    let formation = versioned_web("one", &format!("count = {count}\nmemory = \"16MiB\""));
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    thread::scope(|scope| {
        let deploy = scope.spawn(|| host.cli(["deploy"]).done());
        while !deploy.is_finished() {
            let ps = host.ps();
            let (all, serving) = (ps.instances("web").len(), ps.number("web", "actual"));
            let fits = all <= count + count / 4 && serving >= count as u64;
            assert!(fits, "{all} instances, of which {serving} serve: {ps:#?}");
        }
        deploy.join().unwrap();
    });
    let ps = host.ps();
    assert_eq!((ps.instances("web").len(), ps.number("web", "actual")), (count, count as u64));
}

#[test]
fn a_type_with_fresh_instances_for_each_call_is_moved_too() {
    let formation = versioned_web("one", "count = 4\nisolation = \"call\"");
    let host = Host::run(&formation);
    let load = host.load_of_versions(3, &["one", "two"]);
    load.wait_for(50);
    formation.build("web", "web-test", "two");
    host.cli(["deploy"]).done();
    for _ in 0..8 {
        assert_eq!(host.version(), "two");
    }
    load.wait_for(50);
    load.stop();
}

#[test]
fn a_type_that_serves_several_calls_at_once_is_moved_too() {
    let formation = Formation::new().versioned("web", "wasi03-service", "one", "count = 2\nconcurrency = 8");
    let host = Host::run(&formation);
    let load = Load::get(host.address(), 6, "/hello");
    load.wait_for(100);
    for version in ["two", "three"] {
        formation.build("web", "wasi03-service", version);
        host.cli(["deploy"]).done();
        load.wait_for(50);
    }
    load.stop();
}

#[test]
fn a_command_that_always_runs_is_replaced() {
    let formation = Formation::new().directory("out").process(
        "tool",
        "cmd-test",
        "args = [\"wait\", \"/out\"]\n\
         env = { RELEASE = \"one\" }\ndirs = [{ host = \"out\", guest = \"/out\", access = \"read\" }]",
    );
    let host = Host::run(&formation);
    host.stdout().wait_for("waits");
    let formation = formation.replace("\"one\"", "\"two\"");
    host.cli(["deploy"]).done();
    host.stdout().wait_until("it runs again", |lines| {
        (lines.iter().filter(|line| line.contains("waits")).count() == 2).then_some(())
    });
    assert_eq!(host.ps().number("tool", "restarts"), 0);
    drop(formation);
}

#[test]
fn a_type_that_comes_back_while_its_instances_finish_gives_new_ones_other_names() {
    let formation = Formation::web("").process("other", "web-test", "route = \"/ok\"");
    let host = Host::run(&formation);
    let text = formation.text();
    let held = host.hold();
    let (without, rest) = text.split_once("[process.web]").unwrap();
    let other = rest.split_once("[process.other]").unwrap().1;
    let formation = formation.with_text(&format!("{without}[process.other]{other}"));
    host.cli(["deploy"]).done();
    assert_eq!(host.get("/instance").status, 404);
    let formation = formation.with_text(&text);
    host.cli(["deploy"]).done();
    assert!(host.get("/instance").ok().starts_with("web\nweb.2\n"), "web.1 finishes a request");
    held.end();
    drop(formation);
}

#[test]
fn the_instance_that_is_tried_first_has_a_name_of_its_own() {
    let formation = versioned_web("one", "count = 2");
    let host = Host::run(&formation);
    let held = host.hold();
    host.cli(["scale", "web=1"]).done();
    // Often it's web.2.
    let ps = host.ps();
    let serving = ps.instances("web")[0]["name"].as_str().unwrap();
    formation.build("web", "web-test", "two");
    let formation = formation.replace("count = 2", "count = 2\nready = \"/log?lines=1\"");
    let deploy = host.cli_beside(["deploy"]);
    let line: Value = serde_json::from_str(&host.stdout().wait_for("\"line\"")).unwrap();
    assert_ne!(line["instance"], serving);
    held.end();
    deploy.wait().done();
    drop(formation);
}
