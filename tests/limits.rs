//! The limits of an instance: each holds for every kind of instance, whoever meets one is told which and with what numbers,
//! and `ps` shows how far each instance is from its own.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use crate::harness::http::Request;
use crate::harness::{Formation, Host, eventually, repository, versioned_web};

// --- what is told of a limit

/// A request to a hostile guest, and the words in the host's log.
struct Met {
    guest: &'static str,
    keys: &'static str,
    target: &'static str,
    status: u16,
    code: &'static str,
    /// A `*` stands for any text.
    said: &'static str,
}

impl Met {
    fn is_said_by(&self, text: &str) -> bool {
        self.said.split('*').all(|part| text.contains(part))
    }
}

const MET: &[Met] = &[
    Met {
        guest: "web-test",
        keys: "memory = \"8MiB\"",
        target: "/fill?mib=16",
        status: 502,
        code: "H13",
        said: "ran out of the memory granted to it (memory: wanted 17",
    },
    Met {
        guest: "web-test",
        keys: "timeout = \"300ms\"",
        target: "/loop",
        status: 504,
        code: "H12",
        said: " s of 0.3 s)",
    },
    Met {
        guest: "web-test",
        keys: "timeout = \"300ms\"",
        target: "/sleep?ms=60000",
        status: 504,
        code: "H12",
        said: "took longer than its timeout (ran * s of 0.3 s)",
    },
    Met {
        guest: "web-test",
        keys: "cpu = \"200ms\"",
        target: "/loop",
        status: 504,
        code: "H12",
        said: "used more CPU than its budget (computed * s of 0.2 s)",
    },
    Met {
        guest: "hostile02",
        keys: "",
        target: "/streams?20000",
        status: 502,
        code: "H13",
        said: "(handles: wanted 10001, the limit is 10000)",
    },
    Met {
        guest: "hostile03",
        keys: "",
        target: "/timers?300000",
        status: 502,
        code: "H13",
        said: "(handles: wanted 10001, the limit is 10000)",
    },
    Met {
        guest: "hostile02",
        keys: "",
        target: "/fields?10000",
        status: 502,
        code: "H13",
        said: "bytes of header fields and requests, the limit is 16777216",
    },
    Met {
        guest: "hostile02",
        keys: "",
        target: "/stdout?40000000",
        status: 502,
        code: "H13",
        said: "(strings and lists: the limit is 32 MiB in one call)",
    },
];

#[test]
fn one_line_says_which_limit_has_ended_a_call_and_with_what_numbers() {
    let mut formation = Formation::new().top("max_instances = 20");
    for (number, met) in MET.iter().enumerate() {
        let keys = format!("route = \"met{number}.example\"\n{}", met.keys);
        formation = formation.process(&format!("met{number}"), met.guest, &keys);
    }
    let host = Host::run(&formation);
    for (number, met) in MET.iter().enumerate() {
        let request = Request::get(met.target).header("host", &format!("met{number}.example"));
        host.send(&request).is_error(met.status, met.code);
        let instance = format!("met{number}.1");
        eventually(met.said, || {
            let lines = host.stderr().all();
            let is_told = |line: &&String| line.contains(&instance) && met.is_said_by(line);
            lines.iter().find(is_told).map(|_| ())
        });
        // A person who looks for it later finds the same.
        let process = format!("met{number}");
        eventually(met.said, || {
            let crash = host.ps().process(&process)["last_crash"].clone();
            crash["message"].as_str().is_some_and(|message| met.is_said_by(message)).then_some(())
        });
    }
    host.stop().done();
}

#[test]
fn a_call_that_is_refused_memory_and_returns_is_told_of() {
    let text = "(module (memory (export \"memory\") 1) (func (export \"_start\") (drop (memory.grow (i32.const 64)))))";
    let keys = "queue = \"q\"\nmemory = \"1MiB\"";
    let host = Host::run(&module("worker", text, keys, Formation::new()));
    for _ in 0..3 {
        let job = host.enqueue("q", "x");
        host.store().wait_for(job, "done");
    }
    let line = host.stderr().wait_for("a call was refused memory, and returned");
    assert!(line.contains("(memory: wanted 4.1 MiB, the limit is 1 MiB)"), "{line}");
    host.stop().done();
}

#[test]
fn an_instance_that_takes_too_long_to_start_is_told_of() {
    let host = Host::launch(&Formation::new().process("web", "spin-start", ""));
    let line = host.stderr().wait_for("failed to start: took longer than its timeout (ran ");
    assert!(line.contains(" s of 10 s)"), "{line}");
    host.stop().done();
}

// --- tables

/// Its table would have an element more than any may.
const GROWS: &str = "(module (table $table 1 funcref) (func (export \"_start\")
    (if (i32.eq (table.grow $table (ref.null func) (i32.const 200000)) (i32.const -1)) (then unreachable))))";

const TABLE: &str = "(table: wanted 200001 elements, the limit is 200000)";

/// Another process type, whose component is this.
fn module(name: &str, text: &str, keys: &str, formation: Formation) -> Formation {
    fs::write(formation.path(&format!("{name}.wasm")), wat::parse_str(text).unwrap()).unwrap();
    formation.table(&format!("[process.{name}]\ncomponent = \"{name}.wasm\"\n{keys}"))
}

#[test]
fn a_table_grows_no_further_whatever_its_instance_is_for() {
    let mut formation = Formation::new();
    for (name, keys) in [
        ("always", "run = \"always\""),
        ("by-hand", "run = \"never\""),
        ("worker", "queue = \"q\""),
        ("clock", "schedule = \"@yearly\""),
    ] {
        formation = module(name, GROWS, keys, formation);
    }
    let host = Host::launch(&formation);
    eventually("a command that runs always", || {
        let crash = host.ps().process("always")["last_crash"].to_string();
        crash.contains(TABLE).then_some(())
    });
    host.cli(["exec", "by-hand"]).failed(134, TABLE);
    let job = host.enqueue("q", "x");
    let job = host.store().wait_for(job, "retrying");
    assert!(job.last_error.as_ref().unwrap().contains(TABLE), "{job:?}");
    host.cli(["tick", "clock"]).failed(1, TABLE);
    host.stop().done();
}

#[test]
fn a_release_step_has_the_same_tables() {
    let formation = module("step", GROWS, "run = \"release\"", Formation::new());
    formation.run_to_end().failed(3, TABLE);
    let formation = module("step", GROWS, "run = \"never\"", Formation::new());
    let host = Host::launch(&formation);
    fs::write(formation.file(), formation.text().replace("never", "release")).unwrap();
    host.cli(["deploy"]).failed(1, TABLE);
    host.stop().done();
}

/// The table of a core module in a component, as its instance starts.
#[test]
fn so_has_a_component_as_it_starts() {
    let text = fs::read_to_string(repository().join("tests/guests/wat/spin-start.wat")).unwrap();
    let spins = "(func $start (loop $again br $again))";
    assert!(text.contains(spins));
    let grows = "(table $table 1 funcref) (func $start
        (if (i32.eq (table.grow $table (ref.null func) (i32.const 200000)) (i32.const -1)) (then unreachable)))";
    let host = Host::launch(&module("web", &text.replace(spins, grows), "", Formation::new()));
    let line = host.stderr().wait_for(TABLE);
    assert!(line.contains("failed to start"), "{line}");
    host.stop().done();
}

// --- log lines

#[test]
fn lines_past_max_log_are_dropped_counted_and_told() {
    let formation =
        Formation::web("max_log = \"16KiB/s\"").process("other", "web-test", "route = \"other.example\"");
    let host = Host::run(&formation);
    // 64 KiB fit at once, and 16 KiB more each second. A line counts for 100 bytes beside its own, of which there are 8 to 15.
    let begun = Instant::now();
    host.get("/log?lines=1000").ok();
    let room = (64 << 10) as f64 + (16 << 10) as f64 * begun.elapsed().as_secs_f64();
    let line = host.stderr().wait_for("lines of \\\"web\\\" were dropped");
    assert!(line.contains("it writes more than its `max_log` of 16KiB/s"), "{line}");
    let ps = host.ps();
    let dropped = ps.number("web", "lines_past_max_log");
    let (least, most) = (2_000_u64.saturating_sub((room / 108.0) as u64), 2_002 - (64 << 10) / 115);
    assert!((least..=most).contains(&dropped), "{dropped} of 2001 were dropped, not {least} to {most}");
    assert_eq!(ps.number("web", "lines_dropped"), 0);
    let text = host.cli(["ps", "web"]).done();
    let told = "lines that it wrote were dropped: they were more than its `max_log`";
    assert!(text.contains(told), "{text}");
    // Neither is another type's affair, nor one that writes as much as a program may.
    host.send(&Request::get("/log?lines=1000").header("host", "other.example")).ok();
    assert_eq!(host.ps().number("other", "lines_past_max_log"), 0);
    host.stop().done();
}

#[test]
fn max_log_is_shown_with_its_default() {
    let formation = Formation::web("").process("other", "web-test", "route = \"/x\"\nmax_log = \"1MiB/s\"");
    let shown = formation.cli(["check"]).done();
    assert!(shown.contains("max_log = \"16MiB/s\"") && shown.contains("max_log = \"1MiB/s\""), "{shown}");
}

#[test]
fn a_version_beside_another_or_after_it_has_no_max_log_of_its_own() {
    let formation = versioned_web("one", "max_log = \"1KiB/s\"");
    let host = Host::run(&formation);
    let past = || host.ps().number("web", "lines_past_max_log");
    for (version, deploy) in [("two", vec!["deploy"]), ("three", vec!["deploy", "--canary", "99%"])] {
        // 4 KiB fit at once, and these are two hundred.
        host.get("/log?lines=1000").ok();
        let (before, since) = (past(), Instant::now());
        formation.build("web", "web-test", version);
        host.cli_of(deploy).done();
        host.get("/log?lines=1000").ok();
        let written = 2_001_u64.saturating_sub(past() - before);
        // About nine lines fit in each second that has passed. A bucket of its own would have had room for 35 more.
        let fit = 10.0 + 9.5 * since.elapsed().as_secs_f64();
        assert!(written as f64 <= fit, "{written} lines of {version} were written, {fit} fit");
    }
    host.stop().done();
}

// --- use against limit

#[test]
fn ps_shows_the_use_of_an_instance_beside_its_limits() {
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = outside.local_addr().unwrap();
    let keys = format!("memory = \"64MiB\"\noutbound = [\"http://{address}\"]");
    let host = Host::run(&Formation::web(&keys));
    let instance = || host.ps().instances("web")[0].clone();
    let number = |field: &str| instance()[field].as_u64().unwrap();
    let before = number("memory_bytes");
    assert_eq!((number("memory_max_bytes"), number("descriptors")), (64 << 20, 0));
    assert_eq!(number("descriptors_max"), 256);
    assert_eq!(number("memory_peak_bytes"), before);
    host.get("/fill?mib=16").ok();
    let peak = number("memory_peak_bytes");
    assert!(peak >= before + (16 << 20) && peak <= 64 << 20, "{peak}");
    // A request to a server that doesn't answer.
    thread::scope(|scope| {
        let fetching = scope.spawn(|| host.get(&format!("/fetch?url=http://{address}/")).status);
        let (connection, _) = outside.accept().unwrap();
        eventually("it holds a descriptor", || (number("descriptors") > 0).then_some(()));
        drop(connection);
        assert_eq!(fetching.join().unwrap(), 500);
    });
    eventually("it has given it back", || (number("descriptors") == 0).then_some(()));
    let text = host.cli(["ps"]).done();
    assert!(text.contains("MEMORY") && text.contains("LIMIT") && text.contains("64MiB"), "{text}");
    let text = host.cli(["ps", "web"]).done();
    assert!(text.contains("PEAK") && text.contains("FILES") && text.contains("256"), "{text}");
    host.stop().done();
}

// --- stacks

/// A command of WASI 0.3 made of so many components and one more, each of which waits in a call of its own.
fn waits_in(parts: usize) -> String {
    let each = |text: &dyn Fn(usize) -> String| (0..parts).map(text).collect::<String>();
    let instances = each(&|n| format!("(instance $w{n} (instantiate $waits (with \"wait\" (func $wait))))"));
    let wanted = each(&|n| format!("(import \"f{n}\" (func $f{n} async))"));
    let lowered = each(&|n| format!("(core func $f{n} (canon lower (func $f{n}) async))"));
    let imports = each(&|n| format!("(import \"host\" \"f{n}\" (func $f{n} (result i32)))"));
    let calls = each(&|n| format!("(drop (call $f{n}))"));
    let exports = each(&|n| format!("(export \"f{n}\" (func $f{n}))"));
    let given = each(&|n| format!("(with \"f{n}\" (func $w{n} \"f\"))"));
    format!(
        r#"(component
  (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
    (export "wait-for" (func async (param "how-long" u64)))))
  (alias export $clock "wait-for" (func $wait))
  (component $waits
    (import "wait" (func $wait async (param "how-long" u64)))
    (core func $wait (canon lower (func $wait)))
    (core module $code
      (import "host" "wait" (func $wait (param i64)))
      (func (export "f") (call $wait (i64.const 600000000000))))
    (core instance $code (instantiate $code (with "host" (instance (export "wait" (func $wait))))))
    (func (export "f") async (canon lift (core func $code "f"))))
  {instances}
  (component $main
    (import "wait" (func $wait async (param "how-long" u64)))
    {wanted}
    (core func $wait (canon lower (func $wait)))
    {lowered}
    (core module $code
      (import "host" "wait" (func $wait (param i64)))
      {imports}
      (func (export "run") (result i32) {calls} (call $wait (i64.const 600000000000)) (i32.const 0)))
    (core instance $code (instantiate $code
      (with "host" (instance (export "wait" (func $wait)) {exports}))))
    (func (export "run") async (result (result)) (canon lift (core func $code "run"))))
  (instance $main (instantiate $main (with "wait" (func $wait)) {given}))
  (instance $export (export "run" (func $main "run")))
  (export "wasi:cli/run@0.3.0" (instance $export)))"#
    )
}

#[test]
fn an_instance_of_many_components_takes_no_stack_from_others() {
    let formation = Formation::new().top("max_instances = 10").process("web", "wasi03-service", "count = 2");
    let formation = module("evil", &waits_in(90), "run = \"always\"\ncount = 3", formation);
    let host = Host::run(&formation);
    eventually("all of the evil wait", || (host.ps().in_state("evil", "busy") == 3).then_some(()));
    for _ in 0..3 {
        assert_eq!(host.get("/hello").ok(), "hello\n");
        host.cli(["restart", "web"]).done();
    }
    assert_eq!(host.stderr().count("for fibers reached"), 0, "{}", host.stderr().text());
    host.stop();
    if has_any_number_of_maps() {
        return;
    }
    // Its stacks are part of what a machine has room for.
    let many = formation.replace("max_instances = 10", "max_instances = 100000");
    many.run_to_end().failed(2, "x 91 stacks of process.evil x 2");
}

fn maps_max() -> u64 {
    fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap()
}

/// Some distributions set no bound that a formation of a test could meet.
fn has_any_number_of_maps() -> bool {
    let has_any = maps_max() > 3_000_000;
    if has_any {
        eprintln!("left out: vm.max_map_count is {}, more than these stacks need", maps_max());
    }
    has_any
}

/// To run out of memory maps in the middle of it would end the host.
#[test]
fn a_deploy_of_a_component_with_too_many_stacks_is_refused() {
    if has_any_number_of_maps() {
        return;
    }
    // Many distributions raise it to a million.
    let instances = if maps_max() < 200_000 { 1_000 } else { 20_000 };
    let top = format!("max_instances = {instances}");
    let before = Formation::new().top(&top).process("web", "wasi03-service", "");
    let host = Host::run(&before);
    module("evil", &waits_in(90), "run = \"always\"", before);
    // 100 core instances are the most that a component has.
    host.cli(["deploy"]).failed(1, "has 91 stacks, and a pool for it needs ");
    assert_eq!(host.get("/hello").ok(), "hello\n");
    host.stop().done();
}
