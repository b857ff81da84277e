//! `wasmhost dashboard` without a browser: who is let in, and what passes through it.

use std::net::SocketAddr;
use std::process::ChildStdin;

use serde_json::Value;

use crate::harness::http::{Answer, Connection, Request};
use crate::harness::tls::certify;
use crate::harness::{Formation, Host, Lines, Process, TOKEN};

/// A dashboard that runs beside a host.
pub(crate) struct Dashboard {
    process: Process,
    stdin: ChildStdin,
    pub(crate) address: SocketAddr,
    /// The link that it printed.
    pub(crate) link: String,
}

impl Dashboard {
    pub(crate) fn start(formation: &Formation) -> Dashboard {
        Dashboard::of(formation.start_with_stdin(["dashboard", "--no-open", "--json"]))
    }

    /// One that was started.
    fn of((stdin, process): (ChildStdin, Process)) -> Dashboard {
        let line = process.stdout.wait_for("url");
        let printed: Value = serde_json::from_str(&line).unwrap();
        let address = printed["address"].as_str().unwrap().parse().unwrap();
        Dashboard { process, stdin, address, link: printed["url"].as_str().unwrap().to_owned() }
    }

    fn stderr(&self) -> &Lines {
        &self.process.stderr
    }

    #[track_caller]
    fn send(&self, request: &Request) -> Answer {
        Connection::open(self.address).unwrap().send(request).unwrap()
    }

    fn path(&self) -> &str {
        path(&self.link)
    }
}

/// Path and query of a link.
fn path(link: &str) -> &str {
    let rest = link.strip_prefix("http://").unwrap();
    &rest[rest.find('/').unwrap()..]
}

/// The cookie and the page's key of a browser that has come by a link.
#[track_caller]
fn enter(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict; Path=/"), "{cookie}");
    let page = answer.text();
    let key = page.split_once("name=\"page-key\" content=\"").unwrap().1.split_once('"').unwrap().0;
    (cookie.split(';').next().unwrap().to_owned(), key.to_owned())
}

fn own(request: Request, (cookie, key): &(String, String)) -> Request {
    request.header("cookie", cookie).header("wasmhost-page-key", key)
}

#[test]
fn nobody_uses_it_but_the_browser_that_has_come_by_the_link() {
    let formation = Formation::web("count = 2");
    let host = Host::run(&formation);
    let dashboard = Dashboard::start(&formation);
    let get = Request::get("/v1/overview");
    assert_eq!(dashboard.send(&get).status, 401, "without a cookie");
    assert_eq!(dashboard.send(&Request::get("/")).status, 401);
    let scale = || Request::post("/v1/scale", r#"{"changes":[{"process":"web","to":{"count":3}}]}"#);
    assert_eq!(dashboard.send(&scale()).status, 401);

    let entered = enter(&dashboard.send(&Request::get(dashboard.path())));
    assert_eq!(dashboard.send(&Request::get(dashboard.path())).status, 403, "a replayed link");
    let ok = |request: Request| dashboard.send(&own(request, &entered)).status;
    assert_eq!((ok(Request::get("/")), ok(get.clone())), (200, 200));
    assert_eq!(ok(get.clone().header("host", "evil.example")), 403, "a wrong Host");
    let port = dashboard.address.port();
    assert_eq!(ok(get.clone().header("host", &format!("evil.example:{port}"))), 403);
    assert_eq!(ok(scale().header("origin", "http://evil.example")), 403, "a page of another origin");
    assert_eq!(ok(scale().header("sec-fetch-site", "cross-site")), 403);
    assert_eq!(dashboard.send(&scale().header("cookie", &entered.0)).status, 403, "a cookie alone");
    assert_eq!(host.ps().number("web", "actual"), 2, "nothing of this was done");

    let here = format!("http://{}", dashboard.address);
    assert_eq!(ok(scale().header("origin", &here).header("sec-fetch-site", "same-origin")), 200);
    assert_eq!(host.ps().number("web", "desired"), 3);
}

#[test]
fn answers_of_the_host_pass_as_they_are_and_forbid_what_the_page_does_not_need() {
    let formation = Formation::web("");
    let host = Host::run(&formation);
    let dashboard = Dashboard::start(&formation);
    let entered = enter(&dashboard.send(&Request::get(dashboard.path())));
    let ask = |request: Request| dashboard.send(&own(request, &entered));
    let refused = ask(Request::get("/v1/jobs/77"));
    assert_eq!((refused.status, refused.header("content-type")), (404, Some("application/problem+json")));
    let policy = refused.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self'"), "{policy}");
    assert_eq!(ask(Request::get("/v1/releases/live/source")).status, 404, "passwords may be in it");
    assert_eq!(ask(Request::post("/v1/store/backup", r#"{"file":"/tmp/x"}"#)).status, 404);

    let overview: Value = serde_json::from_str(&ask(Request::get("/v1/overview?type=web")).ok()).unwrap();
    assert_eq!(overview["formation"]["types"][0]["instances"].as_array().unwrap().len(), 1);
    host.stop().done();
    let lost = ask(Request::get("/v1/overview"));
    assert_eq!(lost.status, 502, "{lost:?}");
    assert!(lost.text().contains("no host runs"), "{lost:?}");
    let _host = Host::run(&formation);
    assert_eq!(ask(Request::get("/v1/overview")).status, 200, "it is found again");
}

#[test]
fn a_host_elsewhere_is_shown_too_and_its_token_stays_with_the_command() {
    let formation = Formation::web("").admin().table("[admin.tls]\ncert = \"far.pem\"\nkey = \"far.key\"");
    certify("127.0.0.1").write(&formation, "far");
    let host = Host::run(&formation);
    let (token, ca) = (formation.path("admin.token"), formation.path("far.pem"));
    let options = ["--token-file", token.to_str().unwrap(), "--ca", ca.to_str().unwrap()];
    let at = format!("https://{}", host.admin());
    let verb = ["-H", &at, "dashboard", "--no-open", "--json"];
    let folder = tempfile::tempdir().unwrap();
    let dashboard =
        Dashboard::of(Process::start_with_stdin(folder.path(), options.into_iter().chain(verb), &[]));
    assert_eq!(dashboard.send(&Request::get("/v1/overview")).status, 401, "it lets nobody in by itself");
    let entered = enter(&dashboard.send(&Request::get(dashboard.path())));
    let ask = |request: Request| dashboard.send(&own(request, &entered));
    let overview = ask(Request::get("/v1/overview"));
    assert!(overview.text().contains("\"process\":\"web\""), "{overview:?}");
    assert!(!format!("{overview:?}").contains(TOKEN), "{overview:?}");
    let scale = r#"{"changes":[{"process":"web","to":{"count":2}}],"wait_s":60}"#;
    assert_eq!(ask(Request::post("/v1/scale", scale)).status, 200);
    assert_eq!(host.ps().number("web", "actual"), 2);
    // A token that was replaced lets nobody in any more, by this way either.
    let formation = formation.with_token("admin.token", "another-token-0123456789abcdef0123456789");
    host.cli(["deploy"]).done();
    let refused = ask(Request::get("/v1/overview"));
    assert_eq!(refused.status, 401, "{refused:?}");
    host.stop().done();
    assert_eq!(ask(Request::get("/v1/overview")).status, 502);
    drop(formation);
}

#[test]
fn enter_prints_another_link_and_each_is_good_once() {
    use std::io::Write;

    let formation = Formation::web("");
    let _host = Host::run(&formation);
    let mut dashboard = Dashboard::start(&formation);
    dashboard.stdin.write_all(b"\n").unwrap();
    let next = dashboard.process.stdout.wait_until("another link", |lines| lines.get(1).cloned());
    let next: Value = serde_json::from_str(&next).unwrap();
    let next = next["url"].as_str().unwrap();
    assert_eq!(dashboard.send(&Request::get(dashboard.path())).status, 403, "the one before");
    let first = enter(&dashboard.send(&Request::get(path(next))));
    assert_eq!(dashboard.send(&own(Request::get("/v1/overview"), &first)).status, 200);
    assert!(dashboard.stderr().all().is_empty(), "{:?}", dashboard.stderr().all());
}

#[test]
fn it_is_no_dashboard_without_a_host_or_on_a_port_that_is_taken() {
    let formation = Formation::web("");
    formation.cli(["dashboard", "--no-open"]).failed(5, "no host runs");
    let _host = Host::run(&formation);
    let dashboard = Dashboard::start(&formation);
    let port = dashboard.address.port().to_string();
    let taken = formation.cli(["dashboard", "--no-open", "--port", &port]);
    taken.failed(1, &format!("can't listen on 127.0.0.1:{port}"));
}

#[test]
fn the_overview_has_the_last_hour_and_only_the_instances_that_are_wanted() {
    let formation = Formation::web("count = 3").process("worker", "job-test", "queue = \"mail\"");
    let host = Host::run(&formation);
    let dashboard = Dashboard::start(&formation);
    let entered = enter(&dashboard.send(&Request::get(dashboard.path())));
    let overview = |query: &str| -> Value {
        let request = own(Request::get(&format!("/v1/overview{query}")), &entered);
        serde_json::from_str(&dashboard.send(&request).ok()).unwrap()
    };
    let first = overview("");
    let lengths: Vec<_> = first["formation"]["types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["instances"].as_array().unwrap().len())
        .collect();
    assert_eq!(lengths, [0, 0]);
    // Requests are measured from the first look on.
    let measured = crate::harness::eventually("requests are in it", || {
        host.get("/ok").ok();
        let history = overview("?after=0")["history"].clone();
        let web = history["types"].as_array()?.iter().find(|of| of["process"] == "web")?.clone();
        let rate = web["per_s"].as_array()?.last()?.as_f64()?;
        (rate > 0.0).then_some(history)
    });
    let newest = measured["newest"].as_u64().unwrap();
    let times = measured["times_ms"].as_array().unwrap().len() as u64;
    assert_eq!(times, newest, "from the first sample on");
    let web = measured["types"].as_array().unwrap().iter().find(|of| of["process"] == "web").unwrap();
    for figure in ["p50_s", "p99_s"] {
        assert!(web[figure].as_array().unwrap().last().unwrap().as_f64().unwrap() > 0.0, "{figure}: {web}");
    }
    assert_eq!(web["serving"].as_array().unwrap().last().unwrap(), 3);
    let rest = overview(&format!("?after={newest}&type=web"));
    assert!(rest["history"]["times_ms"].as_array().unwrap().len() < times as usize);
    assert_eq!(rest["formation"]["types"][0]["instances"].as_array().unwrap().len(), 3);
    assert!(measured["queues"].as_array().unwrap().iter().any(|of| of["queue"] == "mail"));
}
