//! `/metrics`: what is counted, and that all of it is documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::harness::http::Request;
use crate::harness::{Formation, Host, Metrics, eventually, repository};

/// A formation with every trigger.
pub(crate) fn every_trigger() -> Formation {
    let out = "dirs = [{ host = \"out\", guest = \"/out\", access = \"write\" }]";
    Formation::web("count = 2\nenqueue = [\"mail\"]")
        .directory("out")
        .process("worker", "job-test", &format!("queue = \"mail\"\n{out}"))
        .process("clock", "tick-test", &format!("schedule = \"* * * * * *\"\n{out}"))
        .health()
}

/// The table of docs/metrics.md: of each metric its kind and its labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows =
        text.lines().filter(|line| line.starts_with("| `wasmhost_") || line.starts_with("| `process_"));
    let row = |line: &str| {
        let cells = cells(line);
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`').to_owned());
        (
            cells[1].trim_matches('`').to_owned(),
            (cells[2].clone(), labels.filter(|label| !label.is_empty()).collect()),
        )
    };
    rows.map(row).collect()
}

#[test]
fn metrics_are_those_that_the_documentation_has() {
    let host = Host::run(&every_trigger());
    host.get("/ok").ok();
    let metrics = host.metrics();
    let documented = documented();
    let served: BTreeMap<String, String> = metrics.families.clone();
    let kinds: BTreeMap<String, String> =
        documented.iter().map(|(name, (kind, _))| (name.clone(), kind.clone())).collect();
    assert_eq!(served, kinds, "left: served, right: docs/metrics.md");
    let labels = metrics.labels();
    for (name, (_, expected)) in &documented {
        let found: BTreeSet<String> =
            labels.get(name.as_str()).into_iter().flatten().map(|label| (*label).to_owned()).collect();
        assert_eq!(found, *expected, "the labels of {name}");
    }
}

#[test]
fn requests_are_counted_by_type_status_and_code() {
    let formation = Formation::web("max_body = \"1KiB\"")
        .process("off", "web-test", "route = \"/off\"\ncount = 0")
        .health();
    let host = Host::run(&formation);
    let requests =
        |metrics: &Metrics, labels: &str| metrics.get(&format!("wasmhost_http_requests_total{{{labels}}}"));
    for _ in 0..3 {
        host.get("/ok").ok();
    }
    host.get("/status?code=404");
    host.get("/trap").is_error(502, "H13");
    host.get("/off").is_error(503, "H14");
    assert_eq!(host.post("/echo", "hello").ok(), "hello");
    assert_eq!(host.post("/echo", vec![b'x'; 2_000]).status, 413);
    assert_eq!(host.send(&Request::get("/ok").header("expect", "much")).status, 417);
    let metrics = eventually("all are over", || {
        let metrics = host.metrics();
        (metrics.sum("wasmhost_http_requests_total", &[]) == 9.0).then_some(metrics)
    });
    let web = |status: &str, code: &str| {
        requests(&metrics, &format!("type=\"web\",status=\"{status}\",code=\"{code}\""))
    };
    assert_eq!((web("2xx", ""), web("4xx", ""), web("5xx", "H13"), web("5xx", "")), (4.0, 1.0, 1.0, 0.0));
    assert_eq!(requests(&metrics, "type=\"off\",status=\"5xx\",code=\"H14\""), 1.0);
    assert_eq!(requests(&metrics, "type=\"_none\",status=\"4xx\",code=\"\""), 2.0);
    let of_web = |name: &str| metrics.get(&format!("{name}{{type=\"web\"}}"));
    assert_eq!(of_web("wasmhost_http_request_duration_seconds_count"), 6.0);
    assert!(of_web("wasmhost_http_request_duration_seconds_sum") > 0.0);
    assert_eq!(of_web("wasmhost_http_request_body_bytes_total"), 5.0);
    assert!(of_web("wasmhost_http_response_body_bytes_total") >= 5.0 + 3.0 * 3.0);
    assert!(of_web("wasmhost_call_wait_seconds_count") >= 6.0);
    assert!(metrics.get("wasmhost_http_connections_accepted_total") >= 9.0);
}

#[test]
fn a_client_that_leaves_early_is_counted_too() {
    let host = Host::run(&Formation::web("").health());
    let mut connection = host.connect();
    connection.send_raw(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    eventually("it is served", || (host.metrics().get("wasmhost_calls{type=\"web\"}") == 1.0).then_some(()));
    assert_eq!(host.metrics().get("wasmhost_http_connections_open"), 1.0);
    drop(connection);
    eventually("it is over", || {
        let metrics = host.metrics();
        (metrics.sum("wasmhost_http_requests_total", &["type=\"web\""]) == 1.0).then_some(())
    });
}

#[test]
fn figures_are_those_of_ps() {
    let host = Host::run(&Formation::web("count = 3").health());
    for _ in 0..10 {
        host.get("/ok").ok();
    }
    host.get("/trap").is_error(502, "H13");
    host.get("/exit?code=3");
    host.cli(["restart", "web"]).done();
    let stands = || {
        let ps = host.ps();
        let is_over = ps.instances("web").len() == 3 && ps.in_state("web", "idle") == 3;
        (is_over && ps.number("web", "restarts") >= 2).then_some(ps)
    };
    let ps = eventually("all is idle again", stands);
    let metrics = host.metrics();
    let of_web = |name: &str| metrics.get(&format!("{name}{{type=\"web\"}}")) as u64;
    assert_eq!(metrics.get("wasmhost_instances{type=\"web\",state=\"idle\"}"), 3.0);
    assert_eq!(of_web("wasmhost_instances_desired"), ps.number("web", "desired"));
    let restarts = metrics.sum("wasmhost_instance_restarts_total", &["type=\"web\""]);
    assert_eq!(restarts as u64, ps.number("web", "restarts"));
    assert!(metrics.get("wasmhost_instance_restarts_total{type=\"web\",cause=\"trap\"}") >= 1.0);
    assert_eq!(of_web("wasmhost_instance_recycles_total"), ps.number("web", "recycled"));
    let starts = 3 + ps.number("web", "restarts") + ps.number("web", "recycled");
    // A request that is repeated may have an instance renewed in its place.
    assert!((starts..=starts + 2).contains(&of_web("wasmhost_instance_starts_total")), "{starts}");
    assert!(metrics.get("wasmhost_cpu_seconds_total{type=\"web\"}") >= ps.cpu_s("web"));
    assert!(of_web("wasmhost_memory_bytes") > 0);
}

#[test]
fn jobs_are_counted_by_queue_and_result_and_names_that_people_make_up_are_none() {
    let formation = every_trigger();
    let host = Host::run(&formation);
    let id = host.enqueue("mail", "write:a");
    host.store().wait_for(id, "done");
    let id = host.enqueue("mail", "bury:no");
    host.store().wait_for(id, "dead");
    assert_eq!(host.post("/enqueue?queue=mail", "write:b").status, 201);
    for n in 0..50 {
        host.enqueue(&format!("made-up-{n}"), "x");
    }
    let metrics = eventually("three jobs are over", || {
        let metrics = host.metrics();
        (metrics.sum("wasmhost_jobs_total", &[]) == 3.0).then_some(metrics)
    });
    let mail = |name: &str, label: &str| metrics.get(&format!("{name}{{queue=\"mail\"{label}}}"));
    assert_eq!(mail("wasmhost_jobs_total", ",result=\"done\""), 2.0);
    assert_eq!(mail("wasmhost_jobs_total", ",result=\"dead\""), 1.0);
    assert_eq!(mail("wasmhost_jobs_enqueued_total", ""), 3.0);
    assert_eq!(mail("wasmhost_job_duration_seconds_count", ""), 3.0);
    assert_eq!(mail("wasmhost_queue_jobs", ",state=\"dead\""), 1.0);
    assert_eq!(mail("wasmhost_queue_oldest_job_age_seconds", ""), 0.0);
    assert!(metrics.get("wasmhost_job_claim_duration_seconds_count{type=\"worker\"}") >= 1.0);
    assert!(metrics.get("wasmhost_store_operations_total") >= 55.0);
    assert!(metrics.get("wasmhost_store_commit_duration_seconds_count") >= 3.0);
    // All that nobody named is one.
    assert_eq!(metrics.get("wasmhost_jobs_enqueued_total{queue=\"_other\"}"), 50.0);
    assert_eq!(metrics.get("wasmhost_queue_jobs{queue=\"_other\",state=\"available\"}"), 50.0);
    assert!(metrics.get("wasmhost_queue_oldest_job_age_seconds{queue=\"_other\"}") >= 0.0);
    assert!(metrics.series.keys().all(|series| !series.contains("made-up")), "{:#?}", metrics.series);
    host.cli(["jobs", "pause", "mail"]).done();
    assert_eq!(host.metrics().get("wasmhost_queue_paused{queue=\"mail\"}"), 1.0);
}

#[test]
fn ticks_grants_and_dropped_lines_are_counted() {
    let formation = every_trigger().replace("[process.web]", "[process.web]\nmax_log = \"1KiB/s\"");
    let host = Host::run(&formation);
    let metrics = eventually("a tick is over", || {
        let metrics = host.metrics();
        (metrics.get("wasmhost_ticks_total{type=\"clock\",result=\"done\"}") >= 2.0).then_some(metrics)
    });
    assert!(metrics.get("wasmhost_tick_lateness_seconds_count{type=\"clock\"}") >= 2.0);
    let refused = "wasmhost_grants_refused_total{type=\"web\",grant=\"enqueue\"}";
    assert_eq!(metrics.get(refused), 0.0);
    host.post("/enqueue?queue=secret", "x");
    host.post("/enqueue?queue=secret", "x");
    assert_eq!(host.metrics().get(refused), 2.0);
    host.get("/log?lines=1000").ok();
    let dropped = host.metrics().get("wasmhost_log_lines_dropped_total{type=\"web\",reason=\"max_log\"}");
    assert!(dropped > 0.0 && dropped as u64 <= host.ps().number("web", "lines_past_max_log"));
    assert_eq!(metrics.get("wasmhost_release_number"), 1.0);
    assert!(metrics.sum("wasmhost_components_loaded_total", &[]) >= 3.0);
}

#[test]
fn counters_go_on_when_a_release_changes_and_go_with_their_type() {
    let formation =
        Formation::new().versioned("web", "web-test", "1", "").process("old", "web-test", "route = \"/old\"");
    let formation = formation.health();
    let host = Host::run(&formation);
    host.get("/ok").ok();
    host.get("/old");
    let before = host.metrics();
    assert_eq!(before.get("wasmhost_instances_desired{type=\"old\"}"), 1.0);
    let text = formation.text();
    let at = text.find("[process.old]").unwrap();
    let health = text.find("[health]").unwrap();
    let formation = formation.with_text(&format!("{}{}", &text[..at], &text[health..]));
    formation.build("web", "web-test", "2");
    host.cli(["deploy"]).done();
    host.get("/ok").ok();
    let after = eventually("the old type is gone", || {
        let metrics = host.metrics();
        metrics.series.keys().all(|series| !series.contains("type=\"old\"")).then_some(metrics)
    });
    for (series, value) in &before.series {
        let name = series.split('{').next().unwrap();
        let is_counter = name.ends_with("_total") || name.ends_with("_bucket") || name.ends_with("_count");
        if is_counter && !series.contains("type=\"old\"") {
            assert!(after.get(series) >= *value, "{series}: {value} -> {}", after.get(series));
        }
    }
    assert_eq!(after.get("wasmhost_release_number"), 2.0);
    assert_eq!(after.get("wasmhost_deploys_total{result=\"live\"}"), 1.0);
    assert!(after.get("wasmhost_instance_starts_total{type=\"web\"}") >= 2.0);
    let count = "wasmhost_http_request_duration_seconds_count{type=\"web\"}";
    eventually("both requests are counted", || (host.metrics().get(count) == 2.0).then_some(()));
}

#[test]
fn counters_go_on_through_a_canary_and_its_end() {
    let formation = Formation::new().versioned("web", "web-test", "1", "count = 2").health();
    let host = Host::run(&formation);
    formation.build("web", "web-test", "2");
    host.cli(["deploy", "--canary", "50%"]).done();
    assert_eq!(host.metrics().get("wasmhost_canary_ratio"), 0.5);
    for _ in 0..20 {
        host.get("/ok").ok();
    }
    let requests = || host.metrics().sum("wasmhost_http_requests_total", &["type=\"web\"", "2xx"]);
    eventually("all are over", || (requests() == 20.0).then_some(()));
    let before = host.metrics();
    host.cli(["abort"]).done();
    let cpu = "wasmhost_cpu_seconds_total{type=\"web\"}";
    let starts = "wasmhost_instance_starts_total{type=\"web\"}";
    eventually("the canary is gone", || {
        let after = host.metrics();
        assert!(after.get(cpu) >= before.get(cpu) && after.get(starts) >= before.get(starts));
        (after.get("wasmhost_instances_desired{type=\"web\"}") == 2.0).then_some(())
    });
    assert_eq!(requests(), 20.0);
    assert_eq!(host.metrics().get("wasmhost_canary_ratio"), 0.0);
}
