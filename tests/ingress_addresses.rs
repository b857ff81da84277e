//! The hosts and paths that a request is for, in all the ways in which they are written.

use crate::harness::http::{Answer, Request};
use crate::harness::http2::Http2;
use crate::harness::{Formation, Host};

/// The type that answered `/env`.
fn served_by(answer: Answer) -> String {
    let text = answer.ok();
    text.lines().find_map(|line| line.strip_prefix("WASMHOST_TYPE=")).unwrap().to_owned()
}

fn raw(host: &Host, head: &str) -> Answer {
    let mut connection = host.connect();
    connection.send_raw(head.as_bytes()).unwrap();
    connection.read_answer(false).unwrap()
}

#[test]
fn a_host_is_compared_without_the_dot_at_its_end() {
    let formation = Formation::new()
        .http("trusted_proxies = [\"127.0.0.1\"]")
        .process("web", "web-test", "")
        .process("admin", "web-test", "route = \"admin.example.com\"")
        .process("full", "web-test", "route = \"full.example.com./env\"");
    let host = Host::run(&formation);
    for (authority, process) in [
        ("admin.example.com", "admin"),
        ("admin.example.com.", "admin"),
        ("Admin.Example.Com.:8080", "admin"),
        ("%61dmin.example.com", "admin"),
        ("full.example.com", "full"),
        ("full.example.com.:", "full"),
        ("admin.example.com..", "web"),
        ("admin.example.org.", "web"),
    ] {
        let by_host = Request::get("/env").header("host", authority);
        assert_eq!(served_by(host.send(&by_host)), process, "{authority}");
        let forwarded = Request::get("/env").header("host", "inner").header("x-forwarded-host", authority);
        assert_eq!(served_by(host.send(&forwarded)), process, "{authority}");
    }
    let http2 = Http2::open(host.address());
    let answer = http2.send("GET", "http://admin.example.com./env", &[], "").unwrap();
    assert_eq!(served_by(answer), "admin");
    let absolute = "GET http://admin.example.com./env HTTP/1.1\r\nhost: other\r\n\r\n";
    assert_eq!(served_by(raw(&host, absolute)), "admin");
}

#[test]
fn an_ipv6_address_has_a_route() {
    let formation = Formation::new().process("web", "web-test", "").process(
        "six",
        "web-test",
        "route = \"[2001:DB8:0::1]/env\"",
    );
    let host = Host::run(&formation);
    for (authority, process) in
        [("[2001:db8::1]", "six"), ("[2001:0db8::0001]:80", "six"), ("[2001:db8::2]", "web")]
    {
        assert_eq!(
            served_by(host.send(&Request::get("/env").header("host", authority))),
            process,
            "{authority}"
        );
    }
}

#[test]
fn a_route_takes_its_path_in_each_spelling() {
    let formation = Formation::new().process("café", "web-test", "route = \"/café\"").process(
        "tilde",
        "web-test",
        "route = \"/%7euser\"",
    );
    let formation = formation.replace("[process.café]", "[process.cafe]");
    let host = Host::run(&formation);
    for target in ["/caf%C3%A9", "/caf%c3%a9/x", "/%63af%C3%a9", "/~user", "/%7Euser", "/%7euser"] {
        // The guest's own answer, and the path as it came.
        assert_eq!(host.get(target).text(), "no such path\n", "{target}");
    }
    for target in ["/caf%C3%A8", "/cafe", "/%7Fuser", "/caf%25C3%25A9"] {
        assert_eq!(host.get(target).text(), "no such page\n", "{target}");
    }
}

#[test]
fn a_host_is_what_the_grammar_says() {
    let host = Host::run(&Formation::web("").http("trusted_proxies = [\"127.0.0.1\"]"));
    for authority in [
        "x:80:80", "[::1", "::1", "[::1]x", "[zz]", "x:65536", "x:a", "x:-1", ":80", "a%zz", "a%", "a/b",
        "a@b", "a b", "\"a\"",
    ] {
        assert_eq!(host.send(&Request::get("/ok").header("host", authority)).status, 400, "{authority}");
        let forwarded = Request::get("/ok").header("x-forwarded-host", authority);
        assert_eq!(host.send(&forwarded).status, 400, "{authority}");
    }
    for authority in [
        "x",
        "x:0",
        "x:65535",
        "x:",
        "[::1]",
        "[::1]:80",
        "1.2.3.4:80",
        "a_b",
        "a%C3%A9",
        "xn--caf-dma.example",
    ] {
        assert_eq!(host.send(&Request::get("/ok").header("host", authority)).status, 200, "{authority}");
    }
    assert_eq!(raw(&host, "GET /ok HTTP/1.1\r\nhost:\r\n\r\n").status, 400);
}

#[test]
fn a_target_with_a_host_is_believed() {
    let host = Host::run(&Formation::web(""));
    for (head, authority) in [
        ("GET http://a.example/headers HTTP/1.1\r\nhost: b.example\r\n\r\n", "a.example"),
        ("GET http://a.example/headers HTTP/1.1\r\nhost: a.example:80\r\n\r\n", "a.example"),
        ("GET http://a.example:80/headers HTTP/1.1\r\nhost: a.example\r\n\r\n", "a.example:80"),
        ("GET http://a.example/headers HTTP/1.0\r\n\r\n", "a.example"),
    ] {
        let told = raw(&host, head).ok();
        assert_eq!(told.lines().nth(2), Some(authority), "{told}");
        assert!(told.contains(&format!("x-forwarded-host: {authority}\n")), "{told}");
    }
    for head in [
        "GET http://a.example/ok HTTP/1.1\r\n\r\n",
        "GET http://a.example/ok HTTP/1.1\r\nhost: a.example\r\nhost: a.example\r\n\r\n",
        "GET http://a.example/ok HTTP/1.1\r\nhost: x:80:80\r\n\r\n",
        "GET http://me@a.example/ok HTTP/1.1\r\nhost: a.example\r\n\r\n",
    ] {
        assert_eq!(raw(&host, head).status, 400, "{head}");
    }
    // On HTTP/2 both name one server.
    let http2 = Http2::open(host.address());
    let status = |host| http2.send("GET", "http://a.example/ok", &[("host", host)], "").unwrap().status;
    assert_eq!(
        [status("a.example"), status("A.example:80"), status("a.example."), status("b.example")],
        [200, 200, 200, 400]
    );
}

#[test]
fn a_request_of_http2_has_one_cookie_header() {
    let host = Host::run(&Formation::web(""));
    let http2 = Http2::open(host.address());
    let cookies = [("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")];
    let told = http2.send("GET", "http://a/headers", &cookies, "").unwrap().ok();
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with("cookie")).collect();
    assert_eq!(lines, ["cookie: a=1; b=2; c=3; d=4"], "{told}");
}

#[test]
fn a_name_with_an_underscore_does_not_reach_a_guest() {
    let host = Host::run(&Formation::web("").http("trusted_proxies = [\"127.0.0.1\"]"));
    let request = Request::get("/headers")
        .header("x_forwarded_for", "203.0.113.7")
        .header("X-Forwarded_Proto", "https")
        .header("x_request_id", "mine")
        .header("x-plain", "1");
    let told = host.send(&request).ok();
    assert!(!told.contains('_') && told.contains("x-plain: 1\n"), "{told}");
    let told =
        Http2::open(host.address()).send("GET", "http://a/headers", &[("x_real_ip", "1")], "").unwrap().ok();
    assert!(!told.contains('_'), "{told}");
}

#[test]
fn the_access_log_knows_the_client_in_each_form_that_proxies_write() {
    let host =
        Host::run(&Formation::web("").http("access_log = \"json\"\ntrusted_proxies = [\"127.0.0.1\"]"));
    for (id, list, remote) in [
        ("with-port", "203.0.113.7:4711", "203.0.113.7"),
        ("brackets", "[2001:db8::1]:4711", "2001:db8::1"),
        ("quotes", "\"[2001:db8::1]\"", "2001:db8::1"),
        ("empty-member", "203.0.113.7, ", "203.0.113.7"),
        ("mapped", "::ffff:203.0.113.7", "203.0.113.7"),
    ] {
        host.send(&Request::get("/ok").header("x-request-id", id).header("x-forwarded-for", list)).ok();
        let line = host.stderr().wait_for(id);
        assert!(line.contains(&format!("\"remote\":\"{remote}\"")), "{line}");
    }
}
