//! `GET /v1/events` and `wasmhost events`: everything that changes, as it happens.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::harness::{Formation, Host, PATIENCE, Process, eventually};

/// One who follows by HTTP, as a browser does.
struct Follower {
    lines: BufReader<UnixStream>,
}

impl Follower {
    /// Follows from the moment on when this returns.
    #[track_caller]
    fn new(formation: &Formation, query: &str, head: &str) -> Follower {
        let mut stream = UnixStream::connect(formation.path(".wasmhost/admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET /v1/events{query} HTTP/1.1\r\nhost: x\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut follower = Follower { lines: BufReader::new(stream) };
        let head: Vec<String> =
            std::iter::from_fn(|| Some(follower.line()).filter(|line| !line.is_empty())).collect();
        assert!(head[0].contains(" 200 "), "{head:?}");
        assert!(
            head.iter().any(|field| field.eq_ignore_ascii_case("content-type: text/event-stream")),
            "{head:?}"
        );
        follower
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The next event, with the id and the name that it has outside of its JSON.
    #[track_caller]
    fn next(&mut self) -> Value {
        let (mut id, mut name) = (String::new(), String::new());
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", text)) => id = text.to_owned(),
                Some(("event", text)) => name = text.to_owned(),
                Some(("data", json)) => {
                    let event: Value = serde_json::from_str(json).unwrap();
                    assert_eq!(
                        (event["id"].to_string(), event["kind"].as_str()),
                        (id, Some(&*name)),
                        "{event}"
                    );
                    return event;
                }
                // Sizes of chunks, and ends of events.
                _ => {}
            }
        }
    }

    /// The next one of this kind and state.
    #[track_caller]
    fn wait_for(&mut self, kind: &str, state: &str) -> Value {
        loop {
            let event = self.next();
            if event["kind"] == kind && event["state"] == state {
                return event;
            }
        }
    }
}

/// One who follows by the command line.
fn follow(formation: &Formation, arguments: &[&str]) -> Process {
    let follower = formation.start_of([&["events"], arguments].concat());
    follower.stderr.wait_for("following what changes");
    follower
}

#[test]
fn a_scale_is_told_with_each_instance_that_it_starts_and_ends() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let mut follower = Follower::new(&formation, "?type=web", "");
    host.cli(["scale", "web=2"]).done();
    let count = follower.next();
    assert_eq!(
        (&count["kind"], &count["from"], &count["to"]),
        (&json!("count"), &json!(1), &json!(2)),
        "{count}"
    );
    let starting = follower.next();
    let of = (&starting["kind"], &starting["state"], &starting["instance"], &starting["release"]);
    assert_eq!(of, (&json!("instance"), &json!("starting"), &json!("web.2"), &json!(1)), "{starting}");
    assert_eq!(follower.next()["state"], "serving");
    host.cli(["scale", "web=1"]).done();
    assert_eq!(follower.next()["to"], 1);
    for state in ["draining", "ended"] {
        let event = follower.next();
        assert_eq!((&event["state"], &event["instance"]), (&json!(state), &json!("web.2")), "{event}");
    }
    host.get("/trap");
    let crashed = follower.wait_for("instance", "crashed");
    assert!(crashed["why"].as_str().is_some_and(|why| !why.is_empty()), "{crashed}");
    assert_eq!(follower.next()["state"], "starting");
}

#[test]
fn a_jobs_way_is_told() {
    let formation =
        Formation::web("").process("worker", "job-test", "queue = \"q\"\nattempts = 2\nbackoff = [\"0s\"]");
    let host = Host::run(&formation);
    let mut follower = Follower::new(&formation, "?kind=job,queue,jobs", "");
    host.cli(["enqueue", "q", "ok"]).done();
    let mut states: Vec<String> = vec![];
    while states.len() < 3 {
        let event = follower.next();
        assert_eq!(
            (&event["kind"], &event["job"], &event["queue"]),
            (&json!("job"), &json!("1"), &json!("q")),
            "{event}"
        );
        states.push(event["state"].as_str().unwrap().to_owned());
    }
    // A worker may be quicker than the one who tells that the job is there.
    assert_eq!(states.last().map(String::as_str), Some("done"), "{states:?}");
    states.sort();
    assert_eq!(states, ["done", "enqueued", "running"]);

    host.cli(["enqueue", "q", "retry:no"]).done();
    let retrying = follower.wait_for("job", "retrying");
    assert!(retrying["again_at"].is_string() && retrying["error"].is_string(), "{retrying}");
    let dead = follower.wait_for("job", "dead");
    let of = (&dead["attempt"], &dead["attempts_max"], &dead["instance"], &dead["process"]);
    assert_eq!(of, (&json!(2), &json!(2), &json!("worker.1"), &json!("worker")), "{dead}");

    host.cli(["jobs", "pause", "q"]).done();
    assert_eq!(follower.wait_for("queue", "paused")["queue"], "q");
    host.cli(["jobs", "retry", "2"]).done();
    assert_eq!(follower.next()["state"], "retried");
    host.cli(["jobs", "cancel", "--all"]).done();
    let cancelled = follower.next();
    assert_eq!(
        (&cancelled["kind"], &cancelled["state"], &cancelled["count"]),
        (&json!("jobs"), &json!("cancelled"), &json!(1))
    );
}

#[test]
fn releases_ticks_refusals_and_the_end_are_told() {
    let formation = Formation::web("").process("clock", "tick-test", "schedule = \"@yearly\"");
    let host = Host::run(&formation);
    let mut follower = Follower::new(&formation, "?kind=release,tick,refusal,host", "");
    host.post("/enqueue?queue=nope", "x");
    let refusal = follower.next();
    assert_eq!((&refusal["kind"], &refusal["process"]), (&json!("refusal"), &json!("web")), "{refusal}");
    assert_eq!(refusal["tried"], "to enqueue on \"nope\"");
    host.cli(["tick", "clock"]);
    let tick = follower.next();
    assert_eq!(
        (&tick["kind"], &tick["state"], &tick["manual"]),
        (&json!("tick"), &json!("running"), &json!(true))
    );
    assert_eq!(follower.next()["nominal"], tick["nominal"]);
    formation.replace("[process.web]\n", "[process.web]\nenv = { NEW = \"1\" }\n");
    host.cli(["deploy", "--dry-run"]).done();
    host.cli(["deploy"]).done();
    for (release, state) in [(2, "pending"), (1, "replaced"), (2, "live")] {
        let event = follower.next();
        assert_eq!((&event["release"], &event["state"]), (&json!(release), &json!(state)), "{event}");
    }
    host.cli(["stop"]).done();
    let draining = follower.next();
    assert_eq!((&draining["kind"], &draining["state"]), (&json!("host"), &json!("draining")), "{draining}");
}

#[test]
fn one_that_comes_back_goes_on_behind_its_last_event() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let mut follower = Follower::new(&formation, "?kind=count", "");
    host.cli(["scale", "web=2"]).done();
    let id = follower.next()["id"].as_u64().unwrap();
    drop(follower);
    host.cli(["scale", "web=3"]).done();
    let head = format!("last-event-id: {id}\r\n");
    let mut again = Follower::new(&formation, "?kind=count", &head);
    let event = again.next();
    assert_eq!((&event["from"], &event["to"]), (&json!(2), &json!(3)), "{event}");
    let mut stranger = Follower::new(&formation, "?kind=count", "last-event-id: 17\r\n");
    let missed = stranger.next();
    assert_eq!((&missed["kind"], &missed["count"]), (&json!("missed"), &Value::Null), "{missed}");
    assert_eq!(stranger.next()["to"], 2, "it has those that there are");
}

#[test]
fn one_that_does_not_read_holds_up_no_job_and_is_told_what_it_missed() {
    let formation = Formation::web("").process("worker", "job-test", "count = 4\nqueue = \"q\"");
    let host = Host::run(&formation);
    let mut slow = Follower::new(&formation, "", "");
    let lines = "ok\n".repeat(6_000);
    host.cli_with_input(["enqueue", "q", "--lines"], &lines).done();
    eventually("all jobs are done", || {
        let stats: Value = serde_json::from_str(&host.cli(["jobs", "stats", "--json"]).done()).ok()?;
        (stats["queues"][0]["done"] == 6_000).then_some(())
    });
    let mut before = 0;
    let missed = loop {
        let event = slow.next();
        if event["kind"] == "missed" {
            break event;
        }
        before += 1;
    };
    let count = missed["count"].as_u64().unwrap();
    assert!(count > 0 && before > 0, "{missed}");
    assert_eq!(slow.next()["id"].as_u64(), missed["id"].as_u64().map(|id| id + 1));
}

#[test]
fn the_command_line_prints_a_line_for_each_event_and_ends_with_the_host() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let (text, json) =
        (follow(&formation, &["--type", "web"]), follow(&formation, &["--kind", "count", "--json"]));
    host.cli(["scale", "web=2"]).done();
    text.stdout.wait_for(" count     web 1 -> 2");
    text.stdout.wait_for(" instance  web.2 serving (v1)");
    json.stdout.wait_for("\"to\":2");
    host.cli(["stop"]).done();
    let ended = text.wait();
    assert_eq!(ended.code, 0, "{ended:?}");
    let events = json.wait().done();
    let lines: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["kind"]), (1, &json!("count")), "{events}");
}

#[test]
fn what_can_not_be_followed_is_refused() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    host.cli(["events", "--type", "wbe"]).failed(1, "there is no process type \"wbe\"");
    host.cli(["events", "--kind", "weather"]).failed(2, "weather");
    host.cli(["events", "--after", "x"]).failed(2, "--after");
    host.stop().done();
    formation.cli(["events"]).failed(5, "no host runs formation.toml");
}
