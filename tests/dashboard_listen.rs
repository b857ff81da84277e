//! The dashboard at `[admin] listen`: for browsers that have shown the token.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::admin_listen::{CHALLENGE, WRONG, ask, is_refused, showing};
use crate::harness::browser::Browser;
use crate::harness::http::{Answer, Request};
use crate::harness::tls::certify;
use crate::harness::{Formation, Host, TOKEN};
use crate::ingress_listen::exchange;

const OTHER: &str = "another-token-0123456789abcdef0123456789";

/// A browser's cookie, and its page's key.
struct Keys {
    cookie: String,
    page_key: String,
}

fn log_in(token: &str) -> Request {
    showing(token, Request::post("/login", ""))
}

/// Logs in at an address.
#[track_caller]
fn enter(address: SocketAddr) -> Keys {
    let answer = ask(address, &log_in(TOKEN));
    assert_eq!(answer.status, 200, "{answer:?}");
    let set = answer.header("set-cookie").unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Strict; Path=/"), "{set}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let cookie = set.split(';').next().unwrap().to_owned();
    Keys { cookie, page_key: body["page_key"].as_str().unwrap().to_owned() }
}

impl Keys {
    fn on(&self, request: Request) -> Request {
        request.header("cookie", &self.cookie).header("wasmhost-page-key", &self.page_key)
    }
}

fn page(request: Request) -> Request {
    request.header("accept", "text/html,*/*")
}

fn scale(count: u32) -> Request {
    let change = json!({ "changes": [{ "process": "web", "to": { "count": count } }], "wait_s": 60 });
    Request::post("/v1/scale", change.to_string())
}

#[test]
fn nobody_uses_it_but_a_browser_that_has_shown_the_token() {
    let host = Host::run(&Formation::web("").admin());
    let address = host.admin();
    let status = |request: &Request| ask(address, request).status;
    let asked = ask(address, &page(Request::get("/")));
    assert_eq!((asked.status, asked.header("content-type")), (401, Some("text/html; charset=utf-8")));
    assert!(asked.text().contains("type=\"password\""), "{asked:?}");
    assert_eq!(asked.header("connection"), Some("close"), "it is a stranger's");
    // A program is told as it was.
    is_refused(&ask(address, &Request::get("/")), 401, CHALLENGE, "needs the token of [admin]");
    assert_eq!(status(&log_in(WRONG)), 401);
    assert_eq!(status(&Request::post("/login", "")), 401);
    assert_eq!(status(&log_in(TOKEN).header("host", "evil.example")), 403, "a name that points here");
    assert_eq!(status(&log_in(TOKEN).header("origin", "http://evil.example")), 403);
    assert!(host.stderr().text().contains("had a wrong token"));

    let keys = enter(address);
    let ok = |request: Request| status(&keys.on(request));
    assert_eq!((ok(Request::get("/")), ok(Request::get("/app.js"))), (200, 200));
    assert_eq!(ok(Request::get("/v1/overview")), 200);
    let own = format!("http://{address}");
    assert_eq!(ok(scale(2).header("origin", &own).header("sec-fetch-site", "same-origin")), 200);
    assert_eq!(host.ps().number("web", "actual"), 2);

    assert_eq!(status(&scale(3).header("cookie", &keys.cookie)), 403, "a cookie alone");
    assert_eq!(status(&scale(3).header("wasmhost-page-key", &keys.page_key)), 401, "a key alone");
    assert_eq!(ok(scale(3).header("host", "evil.example")), 403, "a wrong Host");
    assert_eq!(ok(scale(3).header("origin", "http://evil.example")), 403, "a page of another origin");
    assert_eq!(ok(scale(3).header("origin", "http://127.0.0.1:1")), 403, "another port");
    assert_eq!(ok(scale(3).header("sec-fetch-site", "cross-site")), 403);
    let framed = Request::get("/").header("sec-fetch-site", "cross-site").header("sec-fetch-dest", "iframe");
    assert_eq!(ok(framed), 403);
    assert_eq!(ok(Request::post("/v1/stop", "")), 404);
    assert_eq!(ok(Request::post("/v1/store/backup", r#"{"file":"/tmp/x"}"#)), 404);
    assert_eq!(ok(Request::get("/v1/releases/live/source")), 404, "passwords may be in it");
    assert_eq!(host.ps().number("web", "desired"), 2, "nothing of this was done");

    assert_eq!(ok(Request::post("/logout", "")), 204);
    assert_eq!((ok(Request::get("/v1/overview")), ok(Request::get("/"))), (401, 401), "a replayed session");
    let said = host.stderr().text();
    assert!(!said.contains(TOKEN) && !said.contains(&keys.page_key), "{said}");
}

#[test]
fn every_answer_to_a_browser_keeps_others_from_framing_and_changing_it() {
    let host = Host::run(&Formation::web("").admin());
    let address = host.admin();
    let keys = enter(address);
    let is_kept = |answer: Answer| {
        let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{answer:?}"));
        assert!(
            policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    };
    for target in ["/", "/login.js", "/nothing", "/v1/overview"] {
        is_kept(ask(address, &page(Request::get(target))));
        is_kept(ask(address, &keys.on(page(Request::get(target)))));
    }
    is_kept(ask(address, &log_in(TOKEN)));
    is_kept(ask(address, &keys.on(Request::get("/v1/jobs/77"))));
}

#[test]
fn a_session_goes_with_the_token_that_it_began_with_and_what_it_follows_too() {
    let formation = Formation::web("").admin();
    let host = Host::run(&formation);
    let address = host.admin();
    let (keys, leaving) = (enter(address), enter(address));
    let follows = |keys: &Keys| {
        let request = keys.on(Request::get("/v1/logs?target=host&follow=true"));
        std::thread::spawn(move || ask(address, &request).text())
    };
    let [following, left] = [&keys, &leaving].map(follows);
    // Each has its first lines before the end of its session.
    host.cli(["scale", "web=2"]).done();
    assert_eq!(ask(address, &leaving.on(Request::post("/logout", ""))).status, 204);
    left.join().unwrap();
    assert_eq!(ask(address, &keys.on(Request::get("/v1/overview"))).status, 200, "another one goes on");

    let formation = formation.with_token("admin.token", OTHER);
    host.cli(["deploy"]).done();
    assert_eq!(ask(address, &keys.on(Request::get("/v1/overview"))).status, 401);
    following.join().unwrap();
    assert_eq!(ask(address, &log_in(TOKEN)).status, 401);
    assert_eq!(ask(address, &log_in(OTHER)).status, 200);
    drop(formation);
}

#[test]
fn wrong_tokens_of_browsers_are_bounded_as_all_are() {
    let host = Host::run(&Formation::web("").admin());
    let address = host.admin();
    let statuses = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..40).map(|_| scope.spawn(|| ask(address, &log_in(WRONG)).status)).collect();
        enter(address);
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    let said = host.stderr().count("had a wrong token");
    assert!((1..40).contains(&said), "{said} lines:\n{}", host.stderr().text());
}

/// A host that serves its dashboard by TLS, with a certificate for this name.
fn by_tls(name: &str) -> (Formation, Host) {
    let formation =
        Formation::web("count = 2").admin().table("[admin.tls]\ncert = \"admin.pem\"\nkey = \"admin.key\"");
    certify(name).write(&formation, "admin");
    let host = Host::run(&formation);
    (formation, host)
}

#[test]
fn a_name_is_good_that_the_certificate_is_for() {
    let admin = certify("admin.example");
    let formation =
        Formation::web("").admin().table("[admin.tls]\ncert = \"admin.pem\"\nkey = \"admin.key\"");
    admin.write(&formation, "admin");
    let host = Host::run(&formation);
    let address = host.admin();
    for (name, status) in [("admin.example:9", "401"), ("Admin.Example", "401"), ("other.example", "403")] {
        let stream = admin.connect(address, "admin.example", &[]).unwrap();
        let get = format!("GET / HTTP/1.1\r\nhost: {name}\r\naccept: text/html\r\n\r\n");
        let answer = exchange(stream, get.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
    }
    let stream = admin.connect(address, "admin.example", &[]).unwrap();
    let login = format!(
        "POST /login HTTP/1.1\r\nhost: admin.example\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    );
    let answer = exchange(stream, login.as_bytes());
    assert!(answer.contains("set-cookie: __Host-wasmhost-dashboard-443="), "{answer}");
    assert!(answer.contains("; HttpOnly; SameSite=Strict; Path=/; Secure\r\n"), "{answer}");
}

#[test]
fn a_person_logs_in_by_tls_scales_a_type_and_logs_out() {
    let Some(browser) = Browser::start(1280, 900) else { return };
    let (_formation, host) = by_tls("127.0.0.1");
    let url = format!("https://{}/", host.admin());
    browser.go(&url);
    browser.sees("Log in");
    for width in [1280, 360] {
        browser.resize(width, 900);
        let wrong = browser.run(include_str!("harness/page_check.js"));
        assert_eq!(wrong, json!([]), "the page that asks for the token, {width} wide");
    }
    browser.resize(1280, 900);
    browser.until("document.activeElement.id === 'token'");
    browser.keys(&format!("{WRONG}\u{e007}"));
    browser.sees("This is not the token.");
    // The field has the focus, and its text is chosen: what is typed takes its place.
    browser.keys(&format!("{TOKEN}\u{e007}"));
    browser.sees("2 serving");
    assert_eq!(browser.url(), url);
    assert_eq!(browser.run("return document.cookie"), "", "no script reads it");
    let kept = browser.run("return JSON.stringify({ ...localStorage, ...sessionStorage }) + location");
    assert!(!kept.as_str().unwrap().contains(TOKEN), "{kept}");
    browser.press("One instance of web more");
    browser.sees("3 serving");
    assert_eq!(host.ps().number("web", "actual"), 3);
    let wrong = browser.run(include_str!("harness/page_check.js"));
    assert_eq!(wrong, json!([]), "the formation");

    browser.press("Log out");
    browser.until("document.getElementById('token')");
    browser.go(&url);
    browser.until("document.getElementById('token')");
    assert_eq!(browser.run("return fetch('/v1/overview').then((answer) => answer.status)"), 401);
    let requests = browser.requests();
    let is_own =
        |request: &&String| [url.as_str(), "data:", "chrome"].iter().any(|begin| request.starts_with(begin));
    assert!(requests.iter().all(|request| is_own(&request)), "{requests:?}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_page_whose_session_is_over_says_so_and_leads_to_the_log_in() {
    let Some(browser) = Browser::start(1280, 900) else { return };
    let (formation, host) = by_tls("127.0.0.1");
    let url = format!("https://{}/", host.admin());
    browser.go(&url);
    browser.until("document.activeElement.id === 'token'");
    browser.keys(&format!("{TOKEN}\u{e007}"));
    browser.sees("2 serving");
    browser.run("location.hash = '#/queues'");
    let formation = formation.with_token("admin.token", OTHER);
    host.cli(["deploy"]).done();
    browser.sees("This browser is not logged in");
    browser.press("Load the page again");
    browser.until("document.activeElement.id === 'token'");
    browser.keys(&format!("{OTHER}\u{e007}"));
    browser.sees("2 serving");
    drop(formation);
}
