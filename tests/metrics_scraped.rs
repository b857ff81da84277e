//! Metrics as Prometheus reads them, and the dashboard and the alerts that are made of them. Tests that need Prometheus are
//! left out where it isn't: `cargo xtask test` fetches it where it can.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::harness::http::{Connection, Request};
use crate::harness::{Formation, Host, eventually, repository};
use crate::metrics::every_trigger;

/// A program of Prometheus: on the path, or where `cargo xtask test` puts it. None where there is none.
fn program(name: &str) -> Option<PathBuf> {
    let fetched = std::env::var_os("WASMHOST_PROMETHEUS").map(PathBuf::from);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = fetched.into_iter().chain(std::env::split_paths(&on_path));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.exists());
    if found.is_none() {
        eprintln!("LEFT OUT: {name} isn't here (Debian: `apt-get install prometheus`)");
    }
    found
}

fn monitoring() -> PathBuf {
    repository().join("docs/monitoring")
}

fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new(program("promtool")?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[track_caller]
fn is_clean(output: &Output) {
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success(), "{said:?}");
}

#[test]
fn promtool_finds_nothing_wrong_with_metrics() {
    let host = Host::run(&every_trigger());
    host.get("/ok").ok();
    let Some(checked) = promtool(&["check", "metrics"], &host.probe("/metrics").ok()) else { return };
    is_clean(&checked);
    assert!(checked.stdout.is_empty() && checked.stderr.is_empty(), "{checked:?}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts() {
    let rules = monitoring().join("alerts.yml");
    let Some(checked) = promtool(&["check", "rules", rules.to_str().unwrap()], "") else { return };
    is_clean(&checked);
    let tests = monitoring().join("alerts_test.yml");
    if let Some(tested) = promtool(&["test", "rules", tests.to_str().unwrap()], "") {
        is_clean(&tested);
    }
}

/// A Prometheus that scrapes one host.
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(folder: &Path, host: SocketAddr) -> Option<Prometheus> {
        let program = program("prometheus")?;
        let rules = monitoring().join("alerts.yml");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n- job_name: wasmhost\n  static_configs: [{{ targets: [\"{host}\"] }}]\n"
        );
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(program);
        command.current_dir(folder).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={address}"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Prometheus { process, address })
    }

    fn ask(&self, path: &str) -> Option<Value> {
        let answer = Connection::open(self.address).ok()?.send(&Request::get(path)).ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// The values that an expression has now.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.ask(&format!("/api/v1/query?query={encoded}"))?;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        Some(answer["data"]["result"].as_array().unwrap().clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn prometheus_scrapes_a_host_and_the_dashboard_and_the_alerts_have_what_they_ask_for() {
    let formation = every_trigger();
    let host = Host::run(&formation);
    host.get("/ok").ok();
    let folder = formation.path("prometheus");
    fs::create_dir(&folder).unwrap();
    let Some(prometheus) = Prometheus::start(&folder, host.health()) else { return };
    eventually("it has scraped the host twice", || {
        let scraped = prometheus.query("count_over_time(up{job=\"wasmhost\"}[1m])")?;
        let count: f64 = scraped.first()?["value"][1].as_str()?.parse().ok()?;
        (count >= 3.0).then_some(())
    });
    let up = prometheus.query("up{job=\"wasmhost\"}").unwrap();
    assert_eq!(up[0]["value"][1], "1", "{up:?}");
    for expression in expressions_of_dashboard() {
        let of_now =
            expression.replace("$type", ".+").replace("$host", ".+").replace("$__rate_interval", "1m");
        assert!(prometheus.query(&of_now).is_some(), "{expression}");
    }
    let rules = prometheus.ask("/api/v1/rules").unwrap();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() >= 5 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
    let firing: Vec<_> = rules.iter().filter(|rule| rule["state"] == "firing").collect();
    assert!(firing.is_empty(), "nothing is wrong: {firing:?}");
}

fn expressions_of_dashboard() -> Vec<String> {
    let text = fs::read_to_string(monitoring().join("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The metrics that a text names.
fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("wasmhost_") || word.starts_with("process_"));
    names.map(str::to_owned).collect()
}

/// Facts about a host that don't change, which are no curves.
const FACTS: [&str; 2] = ["process_start_time_seconds", "wasmhost_build_info"];

#[test]
fn the_dashboard_and_the_alerts_name_all_metrics_that_there_are_and_no_others() {
    let host = Host::run(&Formation::web("").health());
    let metrics = host.metrics();
    let is_there = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let histogram = of_histogram.and_then(|name| metrics.families.get(name));
        histogram.is_some_and(|kind| kind == "histogram") || metrics.families.contains_key(name)
    };
    let alerts = fs::read_to_string(monitoring().join("alerts.yml")).unwrap();
    let named: BTreeSet<String> =
        expressions_of_dashboard().iter().flat_map(|text| named_in(text)).chain(named_in(&alerts)).collect();
    let unknown: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let is_named =
        |name: &str| ["", "_bucket", "_count"].iter().any(|end| named.contains(&format!("{name}{end}")));
    let left_out: Vec<_> = metrics.families.keys().filter(|name| !is_named(name)).collect();
    assert_eq!(left_out, FACTS, "neither docs/monitoring/dashboard.json nor alerts.yml has them");
}
