//! `wasi:http`, as a client. The arguments are the `HOST:PORT` of the service in `wasi02-service`, and that of a
//! listener that never says anything. The caller passes `--outbound` for both, with `http://` and with `https://`; for
//! `http://127.0.0.1:1`, where nobody listens; and for `http://nobody.invalid`, a name that nobody has.

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    OutgoingResponse, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

pub(crate) const CASES: &[crate::Case] = &[
    ("get", get),
    ("methods", methods),
    ("post_is_echoed", post_is_echoed),
    ("streams_both_ways", streams_both_ways),
    ("headers", headers),
    ("trailers", trailers),
    ("statuses", statuses),
    ("what_the_service_sees", what_the_service_sees),
    ("a_late_answer_is_given_up", a_late_answer_is_given_up),
    ("an_answer_that_stops_coming_is_given_up", an_answer_that_stops_coming_is_given_up),
    ("connecting_is_given_up", connecting_is_given_up),
    ("errors", errors),
    ("a_body_of_the_wrong_length", a_body_of_the_wrong_length),
    ("a_cut_answer", a_cut_answer),
    ("fields", |_| fields()),
    ("requests_are_checked", |_| requests_are_checked()),
    ("options", |_| options()),
    ("responses_are_checked", |_| responses_are_checked()),
];

fn new(method: &Method, authority: &str, target: &str, headers: Fields) -> OutgoingRequest {
    let request = OutgoingRequest::new(headers);
    request.set_method(method).unwrap();
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(target)).unwrap();
    request
}

fn send(request: OutgoingRequest, options: Option<RequestOptions>) -> Result<IncomingResponse, ErrorCode> {
    answer(&handle(request, options)?)
}

fn answer(future: &wasip2::http::types::FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    future.subscribe().block();
    let answer = future.get().expect("it is there").expect("it is taken once");
    assert!(future.get().expect("it is there").is_err(), "and not twice");
    answer
}

/// The whole body, and the trailers after it.
fn body(response: &IncomingResponse) -> (Vec<u8>, Option<Fields>) {
    let body = response.consume().unwrap();
    assert!(response.consume().is_err(), "once");
    let stream = body.stream().unwrap();
    let mut read = Vec::new();
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(bytes) => read.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(err)) => panic!("{}", err.to_debug_string()),
        }
    }
    drop(stream);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    (read, trailers.get().unwrap().unwrap().unwrap())
}

fn text(response: &IncomingResponse) -> String {
    String::from_utf8(body(response).0).unwrap()
}

fn get(arguments: &[String]) {
    let response = send(new(&Method::Get, &arguments[0], "/hello", Fields::new()), None).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers().get("content-type"), [b"text/plain".to_vec()]);
    assert_eq!(text(&response), "hello\n");
}

fn methods(arguments: &[String]) {
    let methods = [
        Method::Get,
        Method::Post,
        Method::Put,
        Method::Delete,
        Method::Options,
        Method::Patch,
        Method::Other("PURGE".to_owned()),
    ];
    for method in methods {
        let request = new(&method, &arguments[0], "/method", Fields::new());
        OutgoingBody::finish(request.body().unwrap(), None).unwrap();
        let expected = match &method {
            Method::Other(name) => name.clone(),
            known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
        };
        assert_eq!(text(&send(request, None).unwrap()), expected);
    }
    let response = send(new(&Method::Head, &arguments[0], "/hello", Fields::new()), None).unwrap();
    assert_eq!((response.status(), text(&response).as_str()), (200, ""));
}

fn post_is_echoed(arguments: &[String]) {
    let request = new(&Method::Post, &arguments[0], "/echo", Fields::new());
    let sent = request.body().unwrap();
    assert!(request.body().is_err(), "once");
    let response = handle(request, None).unwrap();
    let stream = sent.write().unwrap();
    stream.blocking_write_and_flush(b"to be echoed").unwrap();
    drop(stream);
    OutgoingBody::finish(sent, None).unwrap();
    let response = answer(&response).unwrap();
    assert_eq!((response.status(), text(&response).as_str()), (200, "to be echoed"));
}

/// More than what lies between the two can hold: each piece comes back before the next is sent.
fn streams_both_ways(arguments: &[String]) {
    let request = new(&Method::Post, &arguments[0], "/echo", Fields::new());
    let sent = request.body().unwrap();
    let future = handle(request, None).unwrap();
    let output = sent.write().unwrap();
    output.blocking_write_and_flush(b"first").unwrap();
    let response = answer(&future).unwrap();
    let received = response.consume().unwrap();
    let input = received.stream().unwrap();
    assert_eq!(input.blocking_read(100).unwrap(), b"first");
    for n in 0..200 {
        let piece = vec![(n % 256) as u8; 4096];
        output.blocking_write_and_flush(&piece).unwrap();
        let mut back = Vec::new();
        while back.len() < piece.len() {
            back.extend(input.blocking_read(4096).unwrap());
        }
        assert!(back == piece, "piece {n}");
    }
    drop(output);
    OutgoingBody::finish(sent, None).unwrap();
    assert!(matches!(input.blocking_read(1), Err(StreamError::Closed)));
}

fn headers(arguments: &[String]) {
    let headers = Fields::new();
    headers.append("x-one", b"1").unwrap();
    headers.append("X-Many", b"a").unwrap();
    headers.append("x-many", b"b, c").unwrap();
    headers.append("x-bytes", b"\xff\xfe").unwrap();
    let response = send(new(&Method::Get, &arguments[0], "/headers", headers), None).unwrap();
    let seen = body(&response).0;
    let has = |line: &[u8]| seen.split(|byte| *byte == b'\n').any(|found| found == line);
    assert!(has(b"x-one: 1") && has(b"x-many: a") && has(b"x-many: b, c") && has(b"x-bytes: \xff\xfe"));
    assert_eq!(response.headers().get("X-Twice"), [b"1".to_vec(), b"2".to_vec()]);
    assert!(matches!(response.headers().append("x-new", b"1"), Err(HeaderError::Immutable)));
}

/// On HTTP/1.1 trailers come only to who says that it takes them, and only those that were announced.
fn announced() -> Fields {
    let headers = [("te", "trailers"), ("trailer", "x-sum")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    Fields::from_list(&headers).unwrap()
}

fn trailers(arguments: &[String]) {
    let request = new(&Method::Post, &arguments[0], "/trailers", announced());
    let sent = request.body().unwrap();
    let future = handle(request, None).unwrap();
    sent.write().unwrap().blocking_write_and_flush(b"body").unwrap();
    let trailers = Fields::from_list(&[("x-sum".to_owned(), b"42".to_vec())]).unwrap();
    OutgoingBody::finish(sent, Some(trailers)).unwrap();
    let response = answer(&future).unwrap();
    let (read, trailers) = body(&response);
    assert_eq!(read, b"body");
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers.get("x-sum"), [b"42".to_vec()], "sent back");
    assert_eq!(trailers.get("x-of-service"), [b"yes".to_vec()]);
}

fn statuses(arguments: &[String]) {
    for status in [200, 201, 204, 304, 404, 418, 500, 599] {
        let response =
            send(new(&Method::Get, &arguments[0], &format!("/status/{status}"), Fields::new()), None);
        assert_eq!(response.unwrap().status(), status);
    }
}

fn what_the_service_sees(arguments: &[String]) {
    let response = send(new(&Method::Get, &arguments[0], "/seen/a%20b?c=d&e", Fields::new()), None).unwrap();
    assert_eq!(text(&response), format!("Method::Get Scheme::Http {} /seen/a%20b?c=d&e", arguments[0]));
}

fn a_late_answer_is_given_up(arguments: &[String]) {
    let options = RequestOptions::new();
    options.set_first_byte_timeout(Some(100_000_000)).unwrap();
    let start = monotonic_clock::now();
    let answer = send(new(&Method::Get, &arguments[0], "/late", Fields::new()), Some(options));
    let passed = monotonic_clock::now() - start;
    let err = answer.err().expect("no answer");
    assert!(matches!(err, ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout), "{err:?}");
    assert!((100_000_000..20_000_000_000).contains(&passed), "{passed}");
}

fn an_answer_that_stops_coming_is_given_up(arguments: &[String]) {
    let options = RequestOptions::new();
    options.set_between_bytes_timeout(Some(1_000_000_000)).unwrap();
    let request = new(&Method::Post, &arguments[0], "/echo", Fields::new());
    let sent = request.body().unwrap();
    let future = handle(request, Some(options)).unwrap();
    let output = sent.write().unwrap();
    output.blocking_write_and_flush(b"first").unwrap();
    let received = answer(&future).unwrap().consume().unwrap();
    let input = received.stream().unwrap();
    assert_eq!(input.blocking_read(100).unwrap(), b"first");
    // Nothing is sent that could be echoed.
    let Err(StreamError::LastOperationFailed(err)) = input.blocking_read(100) else { panic!("it goes on") };
    let err = err.to_debug_string();
    assert!(err.to_lowercase().replace(' ', "").contains("connectionreadtimeout"), "{err}");
}

fn connecting_is_given_up(arguments: &[String]) {
    let options = RequestOptions::new();
    options.set_connect_timeout(Some(100_000_000)).unwrap();
    let request = new(&Method::Get, &arguments[1], "/", Fields::new());
    request.set_scheme(Some(&Scheme::Https)).unwrap();
    let start = monotonic_clock::now();
    let err = send(request, Some(options)).err();
    assert!(matches!(err, Some(ErrorCode::ConnectionTimeout)), "{err:?}");
    // The host gives up itself after 10 s.
    let passed = monotonic_clock::now() - start;
    assert!((100_000_000..8_000_000_000).contains(&passed), "{passed}");
}

fn errors(arguments: &[String]) {
    let err = |request| send(request, None).err();
    let refused = err(new(&Method::Get, "127.0.0.1:1", "/", Fields::new()));
    assert!(matches!(refused, Some(ErrorCode::ConnectionRefused)), "{refused:?}");
    let unknown = err(new(&Method::Get, "nobody.invalid", "/", Fields::new()));
    assert!(matches!(unknown, Some(ErrorCode::DnsError(_))), "{unknown:?}");
    let request = new(&Method::Get, &arguments[0], "/", Fields::new());
    request.set_scheme(Some(&Scheme::Https)).unwrap();
    let no_tls = err(request);
    assert!(matches!(no_tls, Some(ErrorCode::TlsProtocolError)), "{no_tls:?}");
}

/// The service never sees a body that is shorter than what was said.
fn a_body_of_the_wrong_length(arguments: &[String]) {
    let headers = Fields::from_list(&[("content-length".to_owned(), b"10".to_vec())]).unwrap();
    let request = new(&Method::Post, &arguments[0], "/echo", headers);
    let sent = request.body().unwrap();
    let _future = handle(request, None).unwrap();
    let output = sent.write().unwrap();
    output.blocking_write_and_flush(b"short").unwrap();
    drop(output);
    let err = OutgoingBody::finish(sent, None).unwrap_err();
    assert!(matches!(err, ErrorCode::HttpRequestBodySize(Some(5))), "{err:?}");

    let headers = Fields::from_list(&[("content-length".to_owned(), b"3".to_vec())]).unwrap();
    let request = new(&Method::Post, &arguments[0], "/echo", headers);
    let sent = request.body().unwrap();
    let _future = handle(request, None).unwrap();
    let output = sent.write().unwrap();
    assert!(output.blocking_write_and_flush(b"long").is_err());
}

fn a_cut_answer(arguments: &[String]) {
    let response = send(new(&Method::Get, &arguments[0], "/cut", Fields::new()), None).unwrap();
    let body = response.consume().unwrap();
    let stream = body.stream().unwrap();
    let err = loop {
        match stream.blocking_read(100) {
            Ok(_) => {}
            Err(err) => break err,
        }
    };
    assert!(matches!(err, StreamError::LastOperationFailed(_)), "it seemed whole");
}

fn fields() {
    let fields = Fields::new();
    assert!(fields.entries().is_empty() && !fields.has("a") && fields.get("a").is_empty());
    fields.set("A", &[b"1".to_vec(), b"2".to_vec()]).unwrap();
    fields.append("a", b"3").unwrap();
    assert_eq!(fields.get("a"), [b"1".to_vec(), b"2".to_vec(), b"3".to_vec()]);
    assert!(fields.has("A"));
    let copy = fields.clone();
    fields.delete("a").unwrap();
    assert!(!fields.has("a") && copy.has("a"), "a copy is apart");
    fields.set("b", &[]).unwrap();
    assert!(!fields.has("b"));
    for (name, value) in [("", "x"), ("with space", "x"), ("a", "line\nend"), ("a:", "x"), ("ü", "x")] {
        let found = Fields::from_list(&[(name.to_owned(), value.as_bytes().to_vec())]);
        assert!(matches!(found, Err(HeaderError::InvalidSyntax)), "{name:?}");
        let found = fields.append(name, value.as_bytes());
        assert!(matches!(found, Err(HeaderError::InvalidSyntax)), "{name:?}");
    }
    for name in [
        "Connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "host",
        "http2-settings",
    ] {
        let found = Fields::from_list(&[(name.to_owned(), b"x".to_vec())]);
        assert!(matches!(found, Err(HeaderError::Forbidden)), "{name}");
        let found = fields.set(name, &[b"x".to_vec()]);
        assert!(matches!(found, Err(HeaderError::Forbidden)), "{name}");
    }
}

fn requests_are_checked() {
    let request = OutgoingRequest::new(Fields::new());
    assert!(matches!(request.method(), Method::Get));
    assert!(
        request.scheme().is_none() && request.authority().is_none() && request.path_with_query().is_none()
    );
    assert!(request.set_method(&Method::Other("not a method".to_owned())).is_err());
    assert!(request.set_authority(Some("not an authority")).is_err());
    assert!(request.set_path_with_query(Some("not a path\n")).is_err());
    assert!(request.set_scheme(Some(&Scheme::Other("1:x".to_owned()))).is_err());
    request.set_path_with_query(Some("/a?b")).unwrap();
    assert_eq!(request.path_with_query().as_deref(), Some("/a?b"));
    assert!(matches!(request.headers().append("a", b"b"), Err(HeaderError::Immutable)));
}

fn options() {
    let options = RequestOptions::new();
    assert_eq!(options.connect_timeout(), None);
    options.set_connect_timeout(Some(1)).unwrap();
    options.set_first_byte_timeout(Some(2)).unwrap();
    options.set_between_bytes_timeout(Some(3)).unwrap();
    assert_eq!(
        (options.connect_timeout(), options.first_byte_timeout(), options.between_bytes_timeout()),
        (Some(1), Some(2), Some(3))
    );
    options.set_connect_timeout(None).unwrap();
    assert_eq!(options.connect_timeout(), None);
}

fn responses_are_checked() {
    let response = OutgoingResponse::new(Fields::new());
    assert_eq!(response.status_code(), 200);
    response.set_status_code(418).unwrap();
    assert_eq!(response.status_code(), 418);
    assert!(response.set_status_code(1000).is_err());
    assert!(response.body().is_ok() && response.body().is_err());
}
