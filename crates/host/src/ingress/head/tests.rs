use super::super::forwarding::client;
use super::*;

fn request(target: &str, headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::builder().uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

fn peer(trusted: bool) -> Peer {
    Peer {
        address: Some("192.0.2.1".parse().unwrap()),
        shown: Some(HeaderValue::from_static("192.0.2.1")),
        trusted,
        scheme: RequestScheme::Http,
        authority: HeaderValue::from_static("127.0.0.1:80"),
    }
}

#[test]
fn only_a_trusted_proxy_says_who_asked_for_what() {
    let headers = [
        ("host", "inner"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "444"),
        ("forwarded", "for=203.0.113.7"),
    ];
    let settled = |trusted| {
        let mut request = request("/", &headers);
        let head = settle(&mut request, &peer(trusted), Found::default()).1.unwrap();
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let names = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "host"];
        let client = client(&request, &peer(trusted), |_| false).unwrap().to_string();
        (names.map(header), head.authority.to_str().unwrap().to_owned(), head.scheme, client)
    };
    let some = |text: &str| Some(text.to_owned());
    let told = [some("192.0.2.1"), some("inner"), some("http"), None, some("inner")];
    assert_eq!(settled(false), (told, "inner".into(), RequestScheme::Http, "192.0.2.1".into()));
    let told = [
        some("203.0.113.7, 192.0.2.1"),
        some("shop.example"),
        some("https"),
        some("444"),
        some("shop.example"),
    ];
    assert_eq!(settled(true).0, told);
    assert_eq!(settled(true).1, "shop.example");
    assert_eq!(settled(true).2, RequestScheme::Https);
}

#[test]
fn names_are_kept_if_they_are_well_formed() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("host", "a"), ("x-request-id", "abc"), ("traceparent", trace), ("tracestate", "a=1")];
    let mut kept = request("/", &headers);
    assert_eq!(settle(&mut kept, &peer(false), Found::default()).0, "abc");
    assert_eq!(kept.headers()["traceparent"], trace);
    assert_eq!(kept.headers()["tracestate"], "a=1");
    let bad = [("host", "a"), ("x-request-id", "a b"), ("traceparent", "00-0"), ("tracestate", "a=1")];
    let mut made = request("/", &bad);
    let id = settle(&mut made, &peer(false), Found::default()).0;
    let id = id.to_str().unwrap();
    assert_eq!((id.len(), &made.headers()["x-request-id"]), (32, &HeaderValue::from_str(id).unwrap()));
    let trace = made.headers()["traceparent"].to_str().unwrap();
    assert_eq!((&trace[..3], &trace[3..35]), ("00-", id), "{trace}");
    assert!(!made.headers().contains_key("tracestate"));
}

#[test]
fn what_the_connection_header_names_stays_here() {
    let headers = [("host", "a"), ("connection", "close, X-Secret, host"), ("x-secret", "1"), ("x-two", "2")];
    let mut request = request("/", &headers);
    settle(&mut request, &peer(false), Found::default()).1.unwrap();
    assert!(!request.headers().contains_key("x-secret"));
    assert!(request.headers().contains_key("x-two") && request.headers().contains_key("host"));
}

/// The status that a head is refused with.
fn refusal(version: Version, headers: &[(&'static str, &str)]) -> Option<u16> {
    let mut request = request("/", &[&[("host", "a")], headers].concat());
    *request.version_mut() = version;
    settle(&mut request, &peer(false), Found::default()).1.err().map(|failure| failure.status.as_u16())
}

#[test]
fn an_expectation_is_met_or_refused() {
    let refused = |value| refusal(Version::HTTP_11, &[("expect", value)]);
    assert_eq!((refused("100-Continue"), refused("wonders")), (None, Some(417)));
}

#[test]
fn an_upgrade_is_heeded_where_it_is_one() {
    let with =
        |version, connection, upgrade| refusal(version, &[("connection", connection), ("upgrade", upgrade)]);
    use Version as V;
    assert_eq!(with(V::HTTP_11, "upgrade", "websocket"), Some(501));
    assert_eq!(with(V::HTTP_11, "keep-alive, Upgrade", "h2c, WebSocket"), Some(501));
    for (version, connection, upgrade) in [
        (V::HTTP_11, "upgrade, http2-settings", "h2c"),
        (V::HTTP_11, "keep-alive", "websocket"),
        (V::HTTP_11, "upgrade", ""),
        (V::HTTP_11, "upgrade", " , "),
        (V::HTTP_10, "upgrade", "websocket"),
    ] {
        assert_eq!(with(version, connection, upgrade), None, "{version:?} {connection:?} {upgrade:?}");
    }
    assert_eq!(refusal(V::HTTP_11, &[("upgrade", "websocket")]), None);
}

#[test]
fn chunks_are_the_only_coding() {
    let refused = |lines: &[&str]| {
        let headers: Vec<_> = lines.iter().map(|line| ("transfer-encoding", *line)).collect();
        refusal(Version::HTTP_11, &headers)
    };
    assert_eq!((refused(&["chunked"]), refused(&["CHUNKED"])), (None, None));
    for lines in [&["gzip, chunked"][..], &["identity, chunked"], &["gzip", "chunked"], &["x;a=b, chunked"]] {
        assert_eq!(refused(lines), Some(501), "{lines:?}");
    }
    for lines in [
        &["chunked, chunked"][..],
        &["chunked", "chunked"],
        &["chunked, gzip, chunked"],
        &[", chunked"],
        &["gzip"],
        &[""],
    ] {
        assert_eq!(refused(lines), Some(400), "{lines:?}");
    }
}

#[test]
fn what_was_found_in_the_bytes_is_refused() {
    for found in [Found::BARE_LF, Found::TWO_LENGTHS, Found::LOST] {
        let refused = settle(&mut request("/", &[("host", "a")]), &peer(false), found).1.err().unwrap();
        assert_eq!(refused.status, 400);
    }
}

#[test]
fn a_name_with_an_underscore_does_not_reach_a_guest() {
    let headers = [("host", "a"), ("x_forwarded_for", "203.0.113.7"), ("x_y", "1"), ("x-y", "2")];
    let mut request = request("/", &headers);
    settle(&mut request, &peer(true), Found::default()).1.unwrap();
    assert!(request.headers().keys().all(|name| !name.as_str().contains('_')));
    assert_eq!(request.headers()["x-y"], "2");
}

#[test]
fn cookies_of_http2_are_one_header() {
    let cookies = |version, lines: &[&str]| {
        let headers: Vec<_> =
            [("host", "a")].into_iter().chain(lines.iter().map(|line| ("cookie", *line))).collect();
        let mut request = request("/", &headers);
        *request.version_mut() = version;
        settle(&mut request, &peer(false), Found::default()).1.unwrap();
        let lines = request.headers().get_all("cookie").iter().map(|line| line.to_str().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(cookies(Version::HTTP_2, &["a=1", "b=2; c=3", "d=4"]), ["a=1; b=2; c=3; d=4"]);
    assert_eq!(cookies(Version::HTTP_2, &["a=1"]), ["a=1"]);
    assert!(cookies(Version::HTTP_2, &[]).is_empty());
    // Nobody splits them on HTTP/1: they stay as they came.
    assert_eq!(cookies(Version::HTTP_11, &["a=1", "b=2"]), ["a=1", "b=2"]);
}
