//! `[health]`: `/livez` and `/readyz`.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::harness::http::{Answer, Connection, Request};
use crate::harness::{Formation, Host, Load, address_of_its_own, eventually};
use crate::ingress_listen::{activated, exchange};

#[track_caller]
fn is(answer: &Answer, status: u16, text: &str) {
    assert!(answer.status == status && answer.text().contains(text), "{status} {text:?}: {answer:?}");
}

#[test]
fn probes_are_answered_where_health_says_and_nothing_else_is() {
    let host = Host::run(&Formation::web("").health());
    let mut connection = Connection::open(host.health()).unwrap();
    for target in ["/livez", "/readyz", "/readyz?type=web"] {
        assert_eq!(connection.send(&Request::get(target)).unwrap().ok(), "ok\n", "{target}");
        let head = connection.send(&Request::head(target)).unwrap();
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("3"), 0));
    }
    let answer = connection.send(&Request::get("/metrics")).unwrap();
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for target in ["/", "/ok", "/v1/formation", "/livez/", "/metrics/x"] {
        is(&connection.send(&Request::get(target)).unwrap(), 404, "there are /livez, /readyz");
    }
    let refused = connection.send(&Request::post("/livez", "x")).unwrap();
    is(&refused, 405, "for GET and HEAD");
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    assert!(!connection.closes());
    // The ingress has its own paths.
    assert_ne!(host.get("/livez").text(), "ok\n");
    let ps = host.ps();
    assert_eq!(ps.0["health"][0], format!("http://{}/", host.health()));
    assert!(host.cli(["ps"]).done().contains(&format!("probes http://{}/", host.health())));
}

#[test]
fn a_host_without_health_answers_no_probes() {
    let host = Host::run(&Formation::web(""));
    assert!(host.probed_at().is_empty());
    assert_eq!(host.ps().0["health"].as_array().unwrap().len(), 0);
}

#[test]
fn a_host_that_starts_is_alive_and_not_ready() {
    let step = "run = \"release\"\nargs = [\"sleep\", \"600000\"]";
    let formation = Formation::web("").process("step", "cmd-test", step).health();
    let host = Host::spawn(&formation);
    is(&host.probe("/livez"), 200, "ok");
    is(&host.probe("/readyz"), 503, "the host is starting");
    is(&host.probe("/readyz?type=web"), 503, "the host is starting");
    assert_eq!(host.metrics().get("wasmhost_ready"), 0.0);
    host.terminate();
    host.wait().done();
}

#[test]
fn a_host_that_drains_is_alive_and_not_ready() {
    let host = Host::run(&Formation::web("").top("grace = \"10m\"").health());
    let held = host.hold();
    host.terminate();
    host.stderr().wait_for("draining: 1 call is under way");
    is(&host.probe("/readyz"), 503, "the host is draining");
    is(&host.probe("/livez"), 200, "ok");
    assert_eq!(host.metrics().get("wasmhost_calls{type=\"web\"}"), 1.0);
    held.end();
    host.wait().done();
}

#[test]
fn a_type_is_ready_while_some_instance_of_it_serves() {
    let formation = Formation::web("")
        .process("off", "web-test", "route = \"/off\"\ncount = 0")
        .process("tool", "cmd-test", "run = \"never\"")
        .health();
    let host = Host::run(&formation);
    is(&host.probe("/readyz?type=web"), 200, "ok");
    is(&host.probe("/readyz?type=off"), 503, "the count of \"off\" is 0");
    is(&host.probe("/readyz?type=tool"), 404, "keeps no instances");
    is(&host.probe("/readyz?type=wbe"), 404, "this formation has");
    is(&host.probe("/readyz?verbose"), 400, "expected type=NAME");
    host.cli(["scale", "off=1", "web=0"]).done();
    is(&host.probe("/readyz?type=off"), 200, "ok");
    is(&host.probe("/readyz?type=web"), 503, "the count of \"web\" is 0");
    is(&host.probe("/readyz"), 200, "ok");
}

#[test]
fn a_type_whose_instances_do_not_start_keeps_the_host_from_being_ready() {
    let formation = Formation::web("").process("bad", "trap-start", "route = \"/bad\"").health();
    let host = Host::launch(&formation);
    host.get("/ok").ok();
    is(&host.probe("/readyz"), 503, "the host is starting");
    host.cli(["scale", "bad=0"]).done();
    eventually("it is ready", || (host.probe("/readyz").status == 200).then_some(()));
    host.cli(["scale", "bad=1", "--no-wait"]).done();
    eventually("its backoff is told", || {
        let answer = host.probe("/readyz?type=bad");
        (answer.status == 503 && answer.text().contains("all wait after a failure")).then_some(())
    });
    is(&host.probe("/readyz"), 200, "ok");
}

#[test]
fn a_type_with_a_ready_path_is_asked_for_it() {
    let keys = "ready = \"/read?path=/out/ready\"\n\
                dirs = [{ host = \"out\", guest = \"/out\", access = \"read\" }]";
    let formation = Formation::web(keys).directory("out").health();
    let host = Host::run(&formation);
    is(&host.probe("/readyz?type=web"), 503, "\"web\" answers GET /read?path=/out/ready with ");
    fs::write(formation.path("out/ready"), "yes").unwrap();
    is(&host.probe("/readyz?type=web"), 200, "ok");
    is(&host.probe("/readyz"), 200, "ok");
}

#[test]
fn a_host_whose_supervisor_hangs_still_answers() {
    let formation = Formation::web("").health();
    let file = formation.path("now");
    let hang = format!("the supervisor:{}", file.display());
    let formation = formation.variable("WASMHOST_FAULT_HANG", hang);
    let host = Host::run(&formation);
    fs::write(&file, "").unwrap();
    host.stderr().wait_for("the supervisor hangs");
    is(&host.probe("/livez"), 200, "ok");
    is(&host.probe("/readyz"), 200, "ok");
    is(&host.probe("/readyz?type=web"), 503, "the supervisor doesn't answer");
    let metrics = host.metrics();
    assert_eq!(metrics.get("wasmhost_scrape_failures_total{part=\"supervisor\"}"), 1.0);
    assert!(metrics.get("process_resident_memory_bytes") > 0.0);
    assert_eq!(metrics.find("wasmhost_instances{type=\"web\",state=\"idle\"}"), None);
    host.kill();
}

#[test]
fn a_host_whose_store_takes_nothing_still_answers() {
    let formation = Formation::web("").process("worker", "job-test", "queue = \"mail\"").health();
    let host = Host::run(&formation);
    let store = host.store();
    store.hold();
    let enqueue = host.cli_beside(["enqueue", "mail", "job"]);
    for _ in 0..3 {
        is(&host.probe("/livez"), 200, "ok");
        is(&host.probe("/readyz"), 200, "ok");
        is(&host.probe("/readyz?type=worker"), 200, "ok");
        assert!(host.metrics().get("process_resident_memory_bytes") > 0.0);
    }
    store.release();
    enqueue.wait().done();
}

#[test]
fn a_host_that_has_more_to_do_than_it_can_still_answers() {
    let keys = "count = 4\nbacklog = 4\nqueue_timeout = \"300ms\"\ntimeout = \"1s\"";
    let formation = Formation::web(keys).health();
    let host = Host::run(&formation);
    let check = |_, answer: Result<Answer, _>| match answer {
        Ok(answer) => Ok(answer.status == 504 || answer.status == 503),
        Err(failed) => Err(format!("{failed:?}")),
    };
    let load = Load::start(host.address(), 32, |_| Request::get("/loop"), check);
    load.wait_for(32);
    for _ in 0..3 {
        is(&host.probe("/livez"), 200, "ok");
        is(&host.probe("/readyz"), 200, "ok");
        assert!(host.metrics().get("process_resident_memory_bytes") > 0.0);
    }
    load.stop();
}

#[test]
fn clients_that_stall_are_put_off_and_shut_nobody_out_for_long() {
    let host = Host::run(&Formation::web("").health());
    // As many as there may be.
    let mut stalled: Vec<Connection> = (0..64).map(|_| Connection::open(host.health()).unwrap()).collect();
    for connection in &mut stalled {
        connection.send_raw(b"GET /livez HTTP/1.1\r\n").unwrap();
    }
    is(&host.probe("/livez"), 200, "ok");
    for mut connection in stalled {
        // The library says nothing to those whose head it gives up.
        let closed = connection.read_answer(false);
        assert!(closed.as_ref().map_or(true, |answer| answer.status == 408), "{closed:?}");
    }
}

#[test]
fn a_deploy_opens_moves_and_closes_where_probes_are_answered() {
    let (one, two) = (address_of_its_own(), address_of_its_own());
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let formation = formation.table(&format!("[health]\nlisten = \"{one}\""));
    let said = host.cli(["deploy"]).done();
    assert!(said.contains(&format!("health.listen none -> {one}\n")), "{said}");
    is(&host.probe("/readyz"), 200, "ok");
    let mut kept = Connection::open(one).unwrap();
    kept.send(&Request::get("/livez")).unwrap().ok();

    let formation = formation.replace(&one.to_string(), &two.to_string());
    host.cli(["deploy"]).done();
    assert_eq!(host.health(), two);
    is(&host.probe("/readyz"), 200, "ok");
    eventually("the old place is closed", || Connection::open(one).is_err().then_some(()));

    // Both: the place that stays is never closed.
    let formation = formation.replace(&format!("\"{two}\""), &format!("[\"{two}\", \"{one}\"]"));
    host.cli(["deploy"]).done();
    for place in [one, two] {
        is(&Connection::open(place).unwrap().send(&Request::get("/livez")).unwrap(), 200, "ok");
    }

    let text = formation.text();
    let without = &text[..text.find("[health]").unwrap()];
    let _formation = formation.with_text(without);
    host.cli(["deploy"]).done();
    for place in [one, two] {
        eventually("it is closed", || Connection::open(place).is_err().then_some(()));
    }
    host.get("/ok").ok();
    host.stop().done();
}

#[test]
fn a_place_that_is_taken_is_an_error_that_names_health() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap();
    let health = format!("[health]\nlisten = \"{place}\"");
    let formation = Formation::web("").table(&health);
    let expected = format!("can't listen on {place} for [health]: ");
    formation.run_to_end().failed(3, &expected);
    drop(taken);
    // The ingress's own is no place for probes, however it is written.
    let all = format!("[health]\nlisten = \"0.0.0.0:{}\"", place.port());
    let formation = Formation::web("").http(&format!("listen = \"{place}\"")).table(&all);
    formation.run_to_end().failed(3, "which are one place");
}

#[test]
fn a_failed_deploy_leaves_probes_where_they_are() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let formation = Formation::web("").health();
    let host = Host::run(&formation);
    let before = host.health();
    let place = taken.local_addr().unwrap().to_string();
    let tables = format!("[health]\nlisten = \"{place}\"");
    let _formation = formation.replace("[health]\nlisten = \"127.0.0.1:0\"", &tables);
    host.cli(["deploy"]).failed(1, "for [health]");
    assert_eq!(host.health(), before);
    is(&host.probe("/readyz"), 200, "ok");
}

#[test]
fn sockets_may_be_unix_ones_or_handed_over_by_name() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let formation = Formation::web("")
        .http("listen = \"systemd\"")
        .table("[health]\nlisten = [\"fd:probes\", \"unix:probes.sock\"]");
    let mut host = activated(&formation, &[tcp.as_fd(), web.as_fd()], "probes:web");
    let mut connection = Connection::open(tcp.local_addr().unwrap()).unwrap();
    assert_eq!(connection.send(&Request::get("/livez")).unwrap().ok(), "ok\n");
    let mut connection = Connection::open(web.local_addr().unwrap()).unwrap();
    assert_eq!(connection.send(&Request::get("/ok")).unwrap().ok(), "ok\n");
    let socket = formation.path("probes.sock");
    let answer = exchange(UnixStream::connect(&socket).unwrap(), b"GET /livez HTTP/1.0\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    formation.cli(["stop"]).done();
    assert!(host.wait().unwrap().success());
    assert!(!socket.exists());
}
