//! Deploys that fail, in every way there is: each leaves the release that was live as it was.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::harness::{
    Ended, Formation, Host, Load, Standing, compile_ahead, eventually, guest_file, versioned_web,
};

/// A host under load, and how it was before a deploy that is to fail.
struct Before {
    host: Host,
    load: Load,
    formation: Formation,
    text: String,
    other: Vec<Standing>,
}

impl Before {
    /// A type `web` of the version `one`, with these keys, and a second one that is none of the deploys' business.
    fn new(keys: &str) -> Before {
        Before::of(versioned_web("one", keys))
    }

    fn of(formation: Formation) -> Before {
        let formation = formation.process("other", "web-test", "route = \"/ok\"");
        let host = Host::run(&formation);
        host.get("/ok").ok();
        host.is_idle_after("other", 1);
        let load = host.load_of_versions(2, &["one"]);
        load.wait_for(20);
        let (text, other) = (formation.text(), host.instances_of("other"));
        Before { host, load, formation, text, other }
    }

    fn change(mut self, old: &str, new: &str) -> Before {
        self.formation = self.formation.replace(old, new);
        self
    }

    fn build(self, version: &str) -> Before {
        self.formation.build("web", "web-test", version);
        self
    }

    /// Puts another of the guests in the place of the component.
    fn put(self, guest: &str) -> Before {
        std::fs::copy(guest_file(guest), self.formation.path("web.wasm")).unwrap();
        self
    }

    /// Deploys, which fails for this reason; then nothing has changed, and a deploy of what is right still works.
    #[track_caller]
    fn fails(self, why: &str) {
        self.fails_with(&["deploy"], why);
    }

    #[track_caller]
    fn fails_with(self, verb: &[&str], why: &str) {
        let ended = self.host.cli_of(verb.to_vec()).failed(1, why);
        assert!(ended.stderr.contains("v1 is live, as before"), "{ended:#?}");
        self.holds_unharmed(&ended);
    }

    #[track_caller]
    fn holds_unharmed(self, ended: &Ended) {
        let Before { host, load, formation, text, other } = self;
        // A verb looks for the host where the file says.
        let formation = formation.with_text(&text);
        assert_eq!(host.live(), 1, "{ended:#?}");
        assert_eq!(host.version(), "one");
        assert_eq!(host.instances_of("other"), other);
        load.wait_for(20);
        load.stop();
        let ps = eventually("all instances are there, and no others", || {
            let ps = host.ps();
            let (actual, all) = (ps.number("web", "actual"), ps.instances("web").len() as u64);
            (ps.number("web", "desired") == actual && actual == all).then_some(ps)
        });
        assert_eq!(ps.0["types"].as_array().unwrap().len(), 2, "{ps:#?}");
        // The failure is known, and no number is used twice.
        let made = host.releases().len();
        formation.build("web", "web-test", "two");
        let said = host.cli(["deploy"]).done();
        assert!(said.ends_with(&format!("v{} is live\n", made + 1)), "{said}");
        assert_eq!(host.version(), "two");
        host.stop().never_panicked().done();
    }
}

#[test]
fn a_file_with_errors() {
    let before = Before::new("count = 2").build("two").change("count = 2", "cuont = 2\nmemory = \"lots\"");
    let ended = before.host.cli(["deploy"]).failed(1, "formation.toml:");
    for found in ["process.web.cuont", "process.web.memory", "v1 is live, as before"] {
        assert!(ended.stderr.contains(found), "{found} in {ended:#?}");
    }
    before.holds_unharmed(&ended);
}

#[test]
fn a_file_that_is_no_toml_or_not_there() {
    let before = Before::new("");
    std::fs::write(before.formation.file(), "this is no formation").unwrap();
    let ended = before.host.cli(["deploy"]).failed(1, "v1 is live, as before");
    std::fs::remove_file(before.formation.file()).unwrap();
    assert_ne!(before.host.cli(["deploy"]).never_panicked().code, 0);
    before.holds_unharmed(&ended);
}

#[test]
fn a_component_that_is_missing() {
    let before = Before::new("");
    std::fs::remove_file(before.formation.path("web.wasm")).unwrap();
    before.fails("web.wasm");
}

#[test]
fn a_component_that_is_none() {
    let before = Before::new("");
    std::fs::write(before.formation.path("web.wasm"), "this is no component").unwrap();
    before.fails("web");
}

#[test]
fn a_component_that_is_cut_short() {
    let before = Before::new("");
    let whole = std::fs::read(before.formation.path("web.wasm")).unwrap();
    std::fs::write(before.formation.path("web.wasm"), &whole[..whole.len() / 2]).unwrap();
    before.fails("web");
}

#[test]
fn a_component_that_can_not_serve_its_type() {
    Before::new("")
        .put("cmd-test")
        .change("component = \"web.wasm\"", "component = \"web.wasm\"\nroute = \"/\"")
        .fails("web");
}

#[test]
fn an_instance_that_traps_at_its_start() {
    Before::new("count = 4").put("trap-start").fails("web");
}

#[test]
fn an_instance_that_never_gets_ready() {
    let before = Before::new("count = 4").put("spin-start");
    let begun = Instant::now();
    let ended = before.host.cli(["deploy", "--timeout", "2s"]).failed(1, "web");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(ended.stderr.contains("v1 is live, as before"), "{ended:#?}");
    before.holds_unharmed(&ended);
}

#[test]
fn a_web_type_whose_ready_path_never_answers_well() {
    compile_ahead("two");
    for path in ["/status?code=503", "/nowhere", "/trap"] {
        Before::new("")
            .build("two")
            .change("component = \"web.wasm\"", &format!("component = \"web.wasm\"\nready = \"{path}\""))
            .fails_with(&["deploy", "--timeout", "3s"], path);
    }
}

#[test]
fn a_command_that_dies_during_the_move() {
    let component = guest_file("cmd-test");
    let extra =
        format!("[process.extra]\ncomponent = {component:?}\nargs = [\"exit\", \"1\"]\n[process.other]");
    Before::new("count = 4").change("[process.other]", &extra).fails("extra.1 exited with code 1");
}

/// Nobody asks meanwhile: those of these instances that start crash in each call.
#[test]
fn instances_that_die_during_the_move() {
    // All of them start with a probability of one in a billion.
    let formation = versioned_web("one", "count = 30");
    let host = Host::run(&formation);
    fs::copy(guest_file("flaky-start"), formation.path("web.wasm")).unwrap();
    host.cli(["deploy"]).failed(1, "v1 is live, as before");
    assert_eq!((host.live(), host.version().as_str()), (1, "one"));
    assert_eq!(host.ps().number("web", "actual"), 30);
    host.stop().done();
}

/// The new version starts, and has too little memory for any call.
#[test]
fn a_version_that_crashes_in_every_call_costs_no_safe_request() {
    let formation = versioned_web("one", "count = 8\nmemory = \"64MiB\"");
    let host = Host::run(&formation);
    // Six of eight instances are busy at any time. So each batch of two waits for calls that end, and calls begin on
    // those that are new meanwhile: the move can't be over before three of them crashed.
    let load = Load::get(host.address(), 6, "/fill?mib=32&ms=300");
    load.wait_for(6);
    let _formation = formation.replace("64MiB", "16MiB");
    host.cli(["deploy"]).failed(1, "3 instances crashed during the move");
    load.wait_for(6);
    load.stop();
    host.stderr().wait_for("was repeated on another instance (web.");
    assert_eq!((host.live(), host.version().as_str()), (1, "one"));
    host.stop().never_panicked().done();
}

fn with_step(args: &str) -> Before {
    let step = "args = [\"echo\", \"prepared\"]\nrun = \"release\"";
    let mut before = Before::of(versioned_web("one", "").process("prepare", "cmd-test", step));
    before = before.build("two").change("args = [\"echo\", \"prepared\"]", args);
    before
}

#[test]
fn a_release_step_that_fails() {
    let before = with_step("args = [\"exit\", \"1\"]");
    let ended = before.host.cli(["deploy"]).failed(1, "prepare");
    unharmed_with_step(before, &ended);
}

#[test]
fn a_release_step_that_traps() {
    let before = with_step("args = [\"trap\"]");
    let ended = before.host.cli(["deploy"]).failed(1, "prepare");
    unharmed_with_step(before, &ended);
}

#[test]
fn a_release_step_that_hangs() {
    compile_ahead("two");
    for step in ["args = [\"loop\"]", "args = [\"sleep\", \"5000\"]"] {
        let before = with_step(step);
        let begun = Instant::now();
        let why = "it wasn't done within 3s: the release step \"prepare\" was running";
        let ended = before.host.cli(["deploy", "--timeout", "3s"]).failed(1, why);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let lines = before.host.stdout().clone();
        if step.contains("sleep") {
            // It would have come to its end by then.
            std::thread::sleep(Duration::from_millis(2500));
        }
        unharmed_with_step(before, &ended);
        assert_eq!(lines.count("slept"), 0, "the step ran on: {}", lines.text());
    }
}

/// A step has no instance that would be counted.
#[track_caller]
fn unharmed_with_step(before: Before, ended: &Ended) {
    let Before { host, load, formation, text, other } = before;
    assert!(ended.stderr.contains("v1 is live, as before"), "{ended:#?}");
    assert_eq!((host.live(), host.version().as_str()), (1, "one"));
    assert_eq!(host.instances_of("other"), other);
    load.stop();
    let formation = formation.with_text(&text);
    formation.build("web", "web-test", "three");
    host.cli(["deploy"]).done();
    assert_eq!(host.version(), "three");
    host.stop().done();
}

#[test]
fn more_instances_than_there_is_room_for() {
    Before::of(versioned_web("one", "count = 2").top("max_instances = 10"))
        .change("count = 2", "count = 40")
        .fails("instances");
}

#[test]
fn room_is_looked_at_before_a_release_step_is_run() {
    let step = "args = [\"touch\", \"/out/prepared\"]\nrun = \"release\"\ndirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    let formation = versioned_web("one", "count = 2").process("prepare", "cmd-test", step).directory("out");
    let formation = formation.top("max_instances = 10");
    let host = Host::run(&formation);
    let prepared = formation.path("out/prepared");
    fs::remove_file(&prepared).unwrap();
    let formation = formation.replace("count = 2", "count = 40");
    for verb in [&["deploy"][..], &["deploy", "--dry-run"]] {
        host.cli_of(verb.to_vec())
            .failed(1, "web 40 + prepare 0 = 40 instances, and this host has room for 10");
    }
    assert!(!prepared.exists(), "the step was run");
    host.stop().done();
    drop(formation);
}

#[test]
fn a_listener_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Before::new("")
        .build("two")
        .change("listen = \"127.0.0.1:0\"", &format!("listen = \"{address}\""))
        .fails(&address);
}

#[test]
fn a_state_directory_or_a_store_that_would_be_another() {
    for (old, new, keys) in [
        ("name = \"test\"", "name = \"test\"\nstate_dir = \"elsewhere\"", &["state_dir", "store.url"][..]),
        ("[http]", "[store]\nurl = \"sqlite:elsewhere.db\"\n\n[http]", &["store.url"]),
    ] {
        let before = Before::new("").build("two").change(old, new);
        // The host is found though the file says that it is elsewhere.
        let ended = before.host.cli(["deploy"]).failed(1, "this can't change while the host runs: ");
        for key in keys {
            assert_eq!(ended.stderr.matches(key).count(), 1, "{key} in {ended:#?}");
        }
        assert_eq!(ended.stderr.matches("while the host runs").count(), 1, "{ended:#?}");
        assert!(ended.stderr.contains("Stop the host, and start it again"), "{ended:#?}");
        before.holds_unharmed(&ended);
    }
}

#[test]
fn a_path_that_alone_is_new_and_never_answers_well() {
    let ready = "component = \"web.wasm\"\nready = ";
    Before::new("")
        .change("component = \"web.wasm\"", &format!("{ready}\"/status?code=503\""))
        .fails_with(&["deploy", "--timeout", "3s"], "GET /status?code=503 with 503");
    let before = Before::new("").change("component = \"web.wasm\"", &format!("{ready}\"/ok\""));
    let ended = before.host.cli(["deploy"]);
    assert!(ended.stderr.contains("starting a first instance of web"), "{ended:#?}");
    ended.done();
    assert_eq!((before.host.live(), before.host.version().as_str()), (2, "one"));
    before.load.stop();
}

#[test]
fn a_supervisor_that_hangs_holds_up_neither_a_deploy_nor_a_drain() {
    compile_ahead("two");
    let formation = versioned_web("one", "");
    let now = formation.path("now");
    let formation = formation.variable("WASMHOST_FAULT_HANG", format!("the supervisor:{}", now.display()));
    let host = Host::run(&formation);
    fs::write(now, "").unwrap();
    host.stderr().wait_for("the supervisor hangs");
    formation.build("web", "web-test", "two");
    let why = "it wasn't done within 3s: the supervisor had not answered";
    host.cli(["deploy", "--timeout", "3s"]).failed(1, why);
    assert_eq!((host.live(), host.version().as_str()), (1, "one"));
    host.stop().never_panicked().done();
}

#[test]
fn a_time_that_is_too_short() {
    Before::new("count = 4").build("two").fails_with(&["deploy", "--timeout", "1ms"], "1ms");
}

#[test]
fn a_client_that_asks_for_what_makes_no_sense() {
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    host.cli(["deploy", "--timeout", "0s"]).failed(2, "timeout_s");
    assert_eq!(host.cli(["deploy", "--timeout", "soon"]).code, 2);
    assert_eq!(host.cli(["rollback", "seven"]).code, 2);
    host.cli(["rollback", "v7"]).failed(1, "there is no release v7; the nearest is v1");
    host.cli(["rollback"]).failed(1, "v1");
    host.cli(["releases", "show", "v7"]).failed(1, "there is no release v7; the nearest is v1");
    assert_eq!(host.live(), 1);
}

#[test]
fn a_host_that_is_killed_in_the_middle() {
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
    host.kill();
    let ended = deploy.wait();
    assert!(ended.stderr.contains("the host went away before v2 had ended"), "{ended:#?}");
    assert_eq!(ended.code, 1);
    std::fs::write(formation.path("out/ready"), "yes").unwrap();
    let host = Host::run(&formation);
    assert_eq!((host.version().as_str(), host.live()), ("one", 1));
    let states: Vec<_> = host.releases().iter().map(|release| release["state"].clone()).collect();
    assert_eq!(states, ["failed", "live"]);
    host.stderr().wait_for("v1 runs, as before");
    // Who wants it now gets it.
    host.cli(["deploy"]).done();
    assert_eq!((host.version().as_str(), host.live()), ("two", 3));
}

#[test]
fn storing_a_release_is_within_the_time_of_a_deploy() {
    compile_ahead("two");
    let formation = versioned_web("one", "");
    let host = Host::run(&formation);
    formation.build("web", "web-test", "two");
    // Below the time after which the store itself gives up.
    let store = host.store();
    store.hold();
    let ended = host.cli(["deploy", "--timeout", "3s"]);
    store.release();
    let ended = ended.failed(1, "it wasn't done within 3s: the release was being stored");
    assert!(ended.stderr.contains("v1 is live, as before"), "{ended:#?}");
    assert_eq!(host.version(), "one");
    // One that the store took later has failed.
    eventually("none is pending", || (!host.states().contains(&"pending".to_owned())).then_some(()));
    host.cli(["deploy"]).done();
    assert_eq!(
        (host.version().as_str(), host.live()),
        ("two", host.releases()[0]["number"].as_u64().unwrap())
    );
    host.stop().never_panicked().done();
}
