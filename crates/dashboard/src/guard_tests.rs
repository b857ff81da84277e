use http::Request;

use super::*;

const HOST: &str = "127.0.0.1:4321";

/// A guard, and what a browser that is in has.
struct Door {
    guard: Guard,
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
        let guard = Guard::new(vec![HOST.into(), "localhost:4321".into()], "4321");
        Door { guard, now: Instant::now(), cookie: String::new(), page_key: String::new() }
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
        match self.guard.judge(&request(method, target, headers), self.now) {
            Verdict::Answer(answer) => answer,
            Verdict::Api => panic!("{method} {target} is let through"),
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
        matches!(self.guard.judge(&request(method, target, &headers), self.now), Verdict::Api)
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
    assert_eq!(door.guard.sessions.len(), SESSIONS_MAX);
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
