use http::Request;

use super::*;
use crate::sessions::{LASTS_FOR, SESSIONS_MAX, UNUSED_FOR};

const HOST: &str = "127.0.0.1:4321";

/// A guard, and what a browser that is in has.
struct Door {
    guard: Guard,
    by_tls: bool,
    now: Instant,
    cookie: String,
    page_key: String,
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

impl Door {
    /// With nobody in.
    fn closed() -> Door {
        let guard = Guard::by_link(vec![HOST.into(), "localhost:4321".into()]);
        Door { guard, by_tls: false, now: Instant::now(), cookie: String::new(), page_key: String::new() }
    }

    /// With one browser in.
    fn open() -> Door {
        let mut door = Door::closed();
        let link = door.guard.link(door.now).unwrap();
        let answer = door.ask("GET", &link, &[("host", HOST)]);
        assert_eq!(answer.status, 200);
        let set = answer.header("set-cookie").unwrap();
        for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/"] {
            assert!(set.contains(part), "{set}");
        }
        door.cookie = set.split(';').next().unwrap().to_owned();
        let page = String::from_utf8(answer.body.to_vec()).unwrap();
        door.page_key =
            page.split_once("name=\"page-key\" content=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
        assert_eq!(door.page_key.len(), 64, "{page}");
        door
    }

    #[track_caller]
    fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        match self.guard.judge(&request(method, target, headers), self.by_tls, self.now) {
            Verdict::Answer(answer) | Verdict::Page(answer) => answer,
            Verdict::Api(_) => panic!("{method} {target} is let through"),
        }
    }

    /// The session's end, where the admin API is asked.
    fn api(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Option<CancellationToken> {
        match self.guard.judge(&request(method, target, headers), self.by_tls, self.now) {
            Verdict::Api(ended) => Some(ended),
            Verdict::Answer(_) | Verdict::Page(_) => None,
        }
    }

    /// Whether the admin API is asked; with what a browser that is in says, and some more.
    fn is_let_through(&mut self, method: &str, target: &str, more: &[(&str, &str)]) -> bool {
        let (cookie, key) = (self.cookie.clone(), self.page_key.clone());
        let mut headers = vec![("cookie", cookie.as_str()), (PAGE_KEY, key.as_str())];
        let is_given = |name: &str| more.iter().any(|(given, _)| *given == name);
        headers.retain(|(name, _)| !is_given(name));
        if !is_given("host") {
            headers.push(("host", HOST));
        }
        headers.extend(more.iter().filter(|(_, value)| !value.is_empty()));
        self.api(method, target, &headers).is_some()
    }
}

#[test]
fn one_who_has_the_link_is_in() {
    let mut door = Door::open();
    assert!(door.is_let_through("GET", "/v1/overview?after=1", &[]));
    let own = [("origin", "http://127.0.0.1:4321"), ("sec-fetch-site", "same-origin")];
    assert!(door.is_let_through("POST", "/v1/scale", &own));
    assert!(door.is_let_through("DELETE", "/v1/jobs/7", &own));
    let cookie = door.cookie.clone();
    let page = door.ask("GET", "/", &[("host", "localhost:4321"), ("cookie", &cookie)]);
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, Some("text/html; charset=utf-8")));
}

#[test]
fn a_link_is_good_once_and_not_for_long() {
    let mut door = Door::closed();
    let link = door.guard.link(door.now).unwrap();
    let get = |door: &mut Door, link: &str| door.ask("GET", link, &[("host", HOST)]).status.as_u16();
    assert_eq!(get(&mut door, "/open"), 403);
    assert_eq!(get(&mut door, &format!("{link}0")), 403);
    assert!(door.guard.has_link());
    assert_eq!(get(&mut door, &link), 200);
    assert!(!door.guard.has_link());
    assert_eq!(get(&mut door, &link), 403, "replayed");

    let old = door.guard.link(door.now).unwrap();
    door.now += LINK_FOR + Duration::from_secs(1);
    assert_eq!(get(&mut door, &old), 403, "too old");
    let (before, next) = (door.guard.link(door.now).unwrap(), door.guard.link(door.now).unwrap());
    assert_eq!((get(&mut door, &before), get(&mut door, &next)), (403, 200));
}

#[test]
fn a_link_that_is_no_page_of_its_own_is_not_followed() {
    let mut door = Door::closed();
    let link = door.guard.link(door.now).unwrap();
    for destination in ["image", "empty", "iframe", "script"] {
        let headers = [("host", HOST), ("sec-fetch-dest", destination)];
        assert_eq!(door.ask("GET", &link, &headers).status, 403, "{destination}");
    }
    assert_eq!(door.ask("POST", &link, &[("host", HOST)]).status, 405);
    let sent = [("host", HOST), ("sec-fetch-dest", "document"), ("sec-fetch-site", "cross-site")];
    assert_eq!(door.ask("GET", &link, &sent).status, 200, "a person may be sent it in any program");
}

#[test]
fn nobody_is_in_without_a_cookie_or_with_another_one() {
    let mut door = Door::open();
    assert!(!door.is_let_through("GET", "/v1/overview", &[("cookie", "")]));
    let other = format!("wasmhost-dashboard-4321={}", "0".repeat(64));
    assert!(!door.is_let_through("GET", "/v1/overview", &[("cookie", &other)]));
    let status = |door: &mut Door, target: &str| door.ask("GET", target, &[("host", HOST)]).status;
    assert_eq!(
        [status(&mut door, "/"), status(&mut door, "/app.js"), status(&mut door, "/v1/jobs")],
        [401; 3]
    );
    assert_eq!(status(&mut door, "/style.css"), 200, "the page that says so has it");
    // One beside it that another server has set.
    let two = format!("{other}; x=y; {}", door.cookie);
    assert!(door.is_let_through("GET", "/v1/overview", &[("cookie", &two)]));
}

#[test]
fn a_cookie_alone_is_not_enough() {
    let mut door = Door::open();
    assert!(!door.is_let_through("GET", "/v1/overview", &[(PAGE_KEY, "")]));
    assert!(!door.is_let_through("GET", "/v1/overview", &[(PAGE_KEY, &"0".repeat(64))]));
    let other = Door::open();
    assert!(!door.is_let_through("GET", "/v1/overview", &[(PAGE_KEY, &other.page_key)]));
}

#[test]
fn a_name_that_is_not_ours_is_refused() {
    let mut door = Door::open();
    for host in ["evil.example:4321", "127.0.0.1:4322", "127.0.0.1", "127.0.0.1:4321.evil.example", ""] {
        assert!(!door.is_let_through("GET", "/v1/overview", &[("host", host)]), "{host}");
        let link = door.guard.link(door.now).unwrap();
        assert_eq!(door.ask("GET", &link, &[("host", host)]).status, 403, "{host}");
        assert!(door.guard.has_link());
    }
    assert!(door.is_let_through("GET", "/v1/overview", &[("host", "LOCALHOST:4321")]));
}

#[test]
fn a_page_of_another_origin_is_refused() {
    let mut door = Door::open();
    for origin in
        ["http://evil.example", "null", "http://127.0.0.1:4322", "http://localhost:4321", "127.0.0.1:4321"]
    {
        assert!(!door.is_let_through("POST", "/v1/scale", &[("origin", origin)]), "{origin}");
    }
    for site in ["cross-site", "same-site", "odd"] {
        assert!(!door.is_let_through("GET", "/v1/overview", &[("sec-fetch-site", site)]), "{site}");
    }
    assert!(!door.is_let_through("POST", "/v1/scale", &[("sec-fetch-site", "none")]));
    assert!(door.is_let_through("GET", "/v1/overview", &[("sec-fetch-site", "none")]));
    let cookie = door.cookie.clone();
    let framed = [("host", HOST), ("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(door.ask("GET", "/", &framed).status, 403);
}

#[test]
fn parts_of_the_api_that_the_page_has_no_use_for_are_not_there() {
    let mut door = Door::open();
    for target in ["/v1/store/backup", "/v1/releases/live/source", "/v1/stop", "/v1/../x", "/v2/x", "/livez"]
    {
        assert!(!door.is_let_through("POST", target, &[]), "{target}");
    }
    assert!(!door.is_let_through("PUT", "/v1/scale", &[]));
    assert!(!door.is_let_through("OPTIONS", "/v1/scale", &[]));
}

#[test]
fn a_browser_that_asks_nothing_for_long_is_out_and_so_is_the_oldest_of_too_many() {
    let mut door = Door::open();
    door.now += UNUSED_FOR;
    assert!(door.is_let_through("GET", "/v1/overview", &[]), "used again");
    door.now += UNUSED_FOR + Duration::from_secs(1);
    assert!(!door.is_let_through("GET", "/v1/overview", &[]));

    let mut door = Door::open();
    for _ in 0..SESSIONS_MAX {
        door.now += Duration::from_secs(1);
        let link = door.guard.link(door.now).unwrap();
        assert_eq!(door.ask("GET", &link, &[("host", HOST)]).status, 200);
    }
    assert_eq!(door.guard.sessions.count(), SESSIONS_MAX);
    assert!(!door.is_let_through("GET", "/v1/overview", &[]));
}

#[test]
fn every_answer_forbids_what_the_page_does_not_need() {
    let mut door = Door::open();
    let cookie = door.cookie.clone();
    let headers = [("host", HOST), ("cookie", cookie.as_str())];
    for target in ["/", "/app.js", "/style.css", "/open?key=x", "/nothing"] {
        let answer = door.ask("GET", target, &headers);
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"), "{target}");
        assert!(policy.contains("frame-ancestors 'none'"), "{target}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{target}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{target}");
    }
}

#[test]
fn a_person_is_told_in_a_page_and_a_program_in_json() {
    let mut door = Door::closed();
    let page = door.ask("GET", "/", &[("host", HOST), ("accept", "text/html,*/*")]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(String::from_utf8_lossy(&page.body).contains("wasmhost dashboard"));
    let json = door.ask("GET", "/v1/overview", &[("host", HOST)]);
    assert_eq!((json.status.as_u16(), json.header("content-type")), (401, Some("application/problem+json")));
}

#[test]
fn one_who_leaves_is_out_and_what_still_goes_on_ends() {
    let mut door = Door::open();
    let (cookie, key) = (door.cookie.clone(), door.page_key.clone());
    let own = [("host", HOST), ("cookie", cookie.as_str()), (PAGE_KEY, key.as_str())];
    let ended = door.api("GET", "/v1/logs?follow=true", &own).unwrap();
    assert_eq!(door.ask("POST", "/logout", &own[..2]).status, 403, "a page of another origin can't do it");
    assert_eq!(door.ask("GET", "/logout", &own).status, 405);
    assert!(!ended.is_cancelled());
    let left = door.ask("POST", "/logout", &own);
    assert_eq!(left.status, 204);
    assert!(left.header("set-cookie").unwrap().starts_with("wasmhost-dashboard-4321=; "));
    assert!(left.header("set-cookie").unwrap().contains("; Max-Age=0"));
    assert!(ended.is_cancelled() && door.api("GET", "/v1/overview", &own).is_none());
    assert_eq!(door.ask("GET", "/", &own).status, 401, "replayed");
}

#[test]
fn a_browser_is_out_after_a_week_however_much_it_asks() {
    let mut door = Door::open();
    let until = door.now + LASTS_FOR;
    while door.now + UNUSED_FOR < until {
        door.now += UNUSED_FOR;
        assert!(door.is_let_through("GET", "/v1/overview", &[]));
    }
    door.now = until + Duration::from_secs(1);
    assert!(!door.is_let_through("GET", "/v1/overview", &[]));
}

mod by_token {
    use super::*;

    const HOST: &str = "admin.example:9091";
    const PAGE: [(&str, &str); 2] = [("host", HOST), ("accept", "text/html")];

    fn closed(by_tls: bool) -> Door {
        let guard = Guard::by_token(|name| ["admin.example", "[::1]"].contains(&name));
        Door { guard, by_tls, now: Instant::now(), cookie: String::new(), page_key: String::new() }
    }

    impl Door {
        #[track_caller]
        fn log_in(&mut self, headers: &[(&str, &str)]) -> Answer {
            self.guard.log_in(&request("POST", LOG_IN, headers), self.by_tls, self.now)
        }
    }

    fn open(by_tls: bool) -> Door {
        let mut door = closed(by_tls);
        let answer = door.log_in(&[("host", HOST), ("origin", "https://admin.example:9091")]);
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/json")));
        let set = answer.header("set-cookie").unwrap();
        assert!(set.contains("; HttpOnly; SameSite=Strict; Path=/"), "{set}");
        assert_eq!((set.starts_with("__Host-"), set.ends_with("; Secure")), (by_tls, by_tls), "{set}");
        door.cookie = set.split(';').next().unwrap().to_owned();
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        door.page_key =
            body.strip_prefix("{\"page_key\":\"").unwrap().strip_suffix("\"}").unwrap().to_owned();
        door
    }

    #[test]
    fn one_who_has_shown_the_token_is_in() {
        for by_tls in [true, false] {
            let mut door = open(by_tls);
            let (cookie, key) = (door.cookie.clone(), door.page_key.clone());
            let own = [("host", HOST), ("cookie", cookie.as_str()), (PAGE_KEY, key.as_str())];
            assert!(door.api("POST", "/v1/scale", &own).is_some());
            assert!(door.api("POST", "/v1/scale", &own[..2]).is_none(), "a cookie alone");
            assert_eq!(door.ask("GET", "/app.js", &own[..2]).status, 200);
            assert_eq!(door.ask("GET", "/v1/releases/live/source", &own).status, 404);
            // A cookie of this name that came by TLS isn't taken without it.
            door.by_tls = !by_tls;
            assert!(door.api("GET", "/v1/overview", &own).is_none());
        }
    }

    #[test]
    fn one_who_has_not_gets_the_page_that_asks_for_it() {
        let mut door = closed(true);
        let page = door.ask("GET", "/", &PAGE);
        assert_eq!(
            (page.status.as_u16(), page.header("content-type")),
            (401, Some("text/html; charset=utf-8"))
        );
        assert!(String::from_utf8_lossy(&page.body).contains("type=\"password\""));
        assert!(page.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
        for (target, status) in
            [("/login.js", 200), ("/style.css", 200), ("/app.js", 401), ("/v1/overview", 401)]
        {
            assert_eq!(door.ask("GET", target, &PAGE[..1]).status, status, "{target}");
        }
        assert_eq!(door.ask("GET", "/open?key=", &PAGE).status, 404, "there are no links");
        assert!(!door.guard.has_link());
    }

    #[test]
    fn a_person_may_come_from_anywhere_and_a_page_of_elsewhere_may_not() {
        let mut door = open(true);
        let cookie = door.cookie.clone();
        let come = |site, mode, dest| {
            [
                ("host", HOST),
                ("cookie", cookie.as_str()),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ]
        };
        assert_eq!(door.ask("GET", "/", &come("cross-site", "navigate", "document")).status, 200);
        assert_eq!(door.ask("GET", "/", &come("cross-site", "navigate", "iframe")).status, 403);
        assert_eq!(door.ask("GET", "/", &come("cross-site", "no-cors", "image")).status, 403);
        assert_eq!(door.ask("GET", "/app.js", &come("cross-site", "navigate", "document")).status, 403);
        assert_eq!(door.ask("POST", "/", &come("cross-site", "navigate", "document")).status, 403);
        assert_eq!(door.log_in(&[("host", HOST), ("origin", "https://evil.example")]).status, 403);
        assert_eq!(door.log_in(&[("host", HOST), ("sec-fetch-site", "cross-site")]).status, 403);
    }

    #[test]
    fn a_name_that_is_not_ours_is_refused_whatever_its_port() {
        let mut door = open(true);
        for host in ["evil.example:9091", "admin.example.evil.example", "", ":9091"] {
            assert_eq!(door.ask("GET", "/", &[("host", host)]).status, 403, "{host}");
            assert_eq!(door.log_in(&[("host", host)]).status, 403, "{host}");
        }
        for host in ["admin.example", "admin.example:1", "[::1]:9091", "[::1]"] {
            assert_eq!(door.ask("GET", "/", &[("host", host)]).status, 401, "{host}");
        }
    }

    #[test]
    fn a_cookie_is_named_by_the_port_that_the_browser_knows() {
        for (host, by_tls, name) in [
            ("admin.example", true, "__Host-wasmhost-dashboard-443="),
            ("[::1]", false, "wasmhost-dashboard-80="),
            ("[::1]:9091", true, "__Host-wasmhost-dashboard-9091="),
            ("admin.example:a;b", false, "wasmhost-dashboard-80="),
        ] {
            let answer = closed(by_tls).log_in(&[("host", host)]);
            assert!(answer.header("set-cookie").unwrap().starts_with(name), "{host}");
        }
    }
}
