//! `wasi:http`, as a client of the service in `wasi02-service` or `wasi03-service`: see `wasi02`.

use std::pin::pin;

use futures::future::{Either, join, select};
use wasip3::clocks::monotonic_clock;
use wasip3::http::client::send;
use wasip3::http::types::{
    ErrorCode, Fields, HeaderError, Method, Request, RequestOptions, Response, Scheme, Trailers,
};
use wasip3::wit_bindgen::rt::async_support::StreamReader;
use wasip3::{wit_future, wit_stream};

use crate::case;

pub(crate) const CASES: &[crate::Case] = &[
    case!(get),
    case!(methods),
    case!(post_is_echoed),
    case!(streams_both_ways),
    case!(headers),
    case!(trailers),
    case!(statuses),
    case!(what_the_service_sees),
    case!(a_late_answer_is_given_up),
    case!(an_answer_that_stops_coming_is_given_up),
    case!(connecting_is_given_up),
    case!(errors),
    case!(a_body_that_fails_is_the_guests_own_error),
    case!(whether_a_request_was_sent),
    case!(no_path_is_the_root),
    case!(several_at_once),
    case!(fields),
];

fn new(
    method: &Method,
    authority: &str,
    target: &str,
    headers: Fields,
    body: Option<StreamReader<u8>>,
    trailers: Option<Trailers>,
    options: Option<RequestOptions>,
) -> Request {
    let (writer, reader) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(headers, body, reader, options);
    if let Some(trailers) = trailers {
        wasip3::spawn_local(async move { writer.write(Ok(Some(trailers))).await.unwrap() });
    }
    request.set_method(method).unwrap();
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(target)).unwrap();
    request
}

fn getting(authority: &str, target: &str) -> Request {
    new(&Method::Get, authority, target, Fields::new(), None, None, None)
}

async fn body(response: Response) -> (Vec<u8>, Option<Trailers>) {
    let (_done, done) = wit_future::new(|| Ok(()));
    let (stream, trailers) = Response::consume_body(response, done);
    let bytes = stream.collect().await;
    (bytes, trailers.await.unwrap())
}

async fn text(response: Response) -> String {
    String::from_utf8(body(response).await.0).unwrap()
}

async fn get(arguments: Vec<String>) {
    let response = send(getting(&arguments[0], "/hello")).await.unwrap();
    assert_eq!(response.get_status_code(), 200);
    assert_eq!(response.get_headers().get("content-type"), [b"text/plain".to_vec()]);
    assert_eq!(text(response).await, "hello\n");
}

async fn methods(arguments: Vec<String>) {
    for name in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE"] {
        let request = getting(&arguments[0], "/method");
        request.set_method(&Method::Other(name.to_owned())).unwrap();
        assert_eq!(text(send(request).await.unwrap()).await, name);
    }
}

async fn post_is_echoed(arguments: Vec<String>) {
    let (mut writer, reader) = wit_stream::new();
    let request = new(&Method::Post, &arguments[0], "/echo", Fields::new(), Some(reader), None, None);
    let writing = async {
        assert!(writer.write_all(b"to be echoed".to_vec()).await.is_empty());
        drop(writer);
    };
    let (answer, ()) = join(send(request), writing).await;
    assert_eq!(text(answer.unwrap()).await, "to be echoed");
}

/// Each piece comes back before the next is sent.
async fn streams_both_ways(arguments: Vec<String>) {
    let (mut writer, reader) = wit_stream::new();
    let request = new(&Method::Post, &arguments[0], "/echo", Fields::new(), Some(reader), None, None);
    let (answer, left) = join(send(request), writer.write_all(b"first".to_vec())).await;
    assert!(left.is_empty());
    let (_done, done) = wit_future::new(|| Ok(()));
    let (mut stream, trailers) = Response::consume_body(answer.unwrap(), done);
    let mut expect = b"first".to_vec();
    for n in 0..50 {
        for byte in expect {
            assert_eq!(stream.next().await, Some(byte), "piece {n}");
        }
        expect = vec![n; 500];
        assert!(writer.write_all(expect.clone()).await.is_empty());
    }
    drop(writer);
    assert_eq!(stream.collect().await.len(), 500);
    trailers.await.unwrap();
}

async fn headers(arguments: Vec<String>) {
    let headers = Fields::new();
    headers.append("x-one", b"1").unwrap();
    headers.append("X-Many", b"a").unwrap();
    headers.append("x-many", b"b, c").unwrap();
    let request = new(&Method::Get, &arguments[0], "/headers", headers, None, None, None);
    let response = send(request).await.unwrap();
    assert_eq!(response.get_headers().get("X-Twice"), [b"1".to_vec(), b"2".to_vec()]);
    assert!(matches!(response.get_headers().append("x-new", b"1"), Err(HeaderError::Immutable)));
    let seen = text(response).await;
    for line in ["x-one: 1", "x-many: a", "x-many: b, c"] {
        assert!(seen.lines().any(|found| found == line), "{line} in {seen}");
    }
}

async fn trailers(arguments: Vec<String>) {
    // On HTTP/1.1 trailers come only to who says that it takes them, and only those that were announced.
    let announced = [("te", "trailers"), ("trailer", "x-sum")];
    let announced = announced.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let announced = Fields::from_list(&announced).unwrap();
    let (mut writer, reader) = wit_stream::new();
    let trailers = Fields::from_list(&[("x-sum".to_owned(), b"42".to_vec())]).unwrap();
    let request =
        new(&Method::Post, &arguments[0], "/trailers", announced, Some(reader), Some(trailers), None);
    let writing = async {
        assert!(writer.write_all(b"body".to_vec()).await.is_empty());
        drop(writer);
    };
    let (answer, ()) = join(send(request), writing).await;
    let (read, trailers) = body(answer.unwrap()).await;
    assert_eq!(read, b"body");
    let trailers = trailers.expect("trailers");
    assert_eq!(trailers.get("x-sum"), [b"42".to_vec()], "sent back");
    assert_eq!(trailers.get("x-of-service"), [b"yes".to_vec()]);
}

async fn statuses(arguments: Vec<String>) {
    for status in [200, 201, 204, 304, 404, 418, 500, 599] {
        let response = send(getting(&arguments[0], &format!("/status/{status}"))).await.unwrap();
        assert_eq!(response.get_status_code(), status);
    }
}

async fn what_the_service_sees(arguments: Vec<String>) {
    let response = send(getting(&arguments[0], "/seen/a%20b?c=d&e")).await.unwrap();
    assert_eq!(text(response).await, format!("Method::Get Scheme::Http {} /seen/a%20b?c=d&e", arguments[0]));
}

async fn a_late_answer_is_given_up(arguments: Vec<String>) {
    let options = RequestOptions::new();
    options.set_first_byte_timeout(Some(100_000_000)).unwrap();
    let start = monotonic_clock::now();
    let request = new(&Method::Get, &arguments[0], "/late", Fields::new(), None, None, Some(options));
    let err = send(request).await.err().expect("no answer");
    assert!(matches!(err, ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout), "{err:?}");
    let passed = monotonic_clock::now() - start;
    assert!((100_000_000..20_000_000_000).contains(&passed), "{passed}");
}

async fn an_answer_that_stops_coming_is_given_up(arguments: Vec<String>) {
    let options = RequestOptions::new();
    options.set_between_bytes_timeout(Some(1_000_000_000)).unwrap();
    let (mut writer, reader) = wit_stream::new();
    let request =
        new(&Method::Post, &arguments[0], "/echo", Fields::new(), Some(reader), None, Some(options));
    let (answer, left) = join(send(request), writer.write_all(b"first".to_vec())).await;
    assert!(left.is_empty());
    let (_done, done) = wit_future::new(|| Ok(()));
    let (stream, trailers) = Response::consume_body(answer.unwrap(), done);
    // Nothing more is sent that could be echoed.
    assert_eq!(stream.collect().await, b"first");
    let err = trailers.await.err();
    assert!(matches!(err, Some(ErrorCode::ConnectionReadTimeout)), "{err:?}");
}

async fn connecting_is_given_up(arguments: Vec<String>) {
    let options = RequestOptions::new();
    options.set_connect_timeout(Some(100_000_000)).unwrap();
    let request = new(&Method::Get, &arguments[1], "/", Fields::new(), None, None, Some(options));
    request.set_scheme(Some(&Scheme::Https)).unwrap();
    let start = monotonic_clock::now();
    let err = send(request).await.err();
    assert!(matches!(err, Some(ErrorCode::ConnectionTimeout)), "{err:?}");
    // The host gives up itself after 10 s.
    let passed = monotonic_clock::now() - start;
    assert!((100_000_000..8_000_000_000).contains(&passed), "{passed}");
}

async fn errors(arguments: Vec<String>) {
    let refused = send(getting("127.0.0.1:1", "/")).await.err();
    assert!(matches!(refused, Some(ErrorCode::ConnectionRefused)), "{refused:?}");
    let unknown = send(getting("nobody.invalid", "/")).await.err();
    assert!(matches!(unknown, Some(ErrorCode::DnsError(_))), "{unknown:?}");
    let request = getting(&arguments[0], "/");
    request.set_scheme(Some(&Scheme::Https)).unwrap();
    let no_tls = send(request).await.err();
    assert!(matches!(no_tls, Some(ErrorCode::TlsProtocolError)), "{no_tls:?}");
}

async fn a_body_that_fails_is_the_guests_own_error(arguments: Vec<String>) {
    let length = Fields::from_list(&[("content-length".to_owned(), b"10".to_vec())]).unwrap();
    let (mut writer, reader) = wit_stream::new();
    let request = new(&Method::Post, &arguments[1], "/", length, Some(reader), None, None);
    let writing = async {
        writer.write_all(b"short".to_vec()).await;
        drop(writer);
    };
    let (answer, ()) = join(send(request), writing).await;
    let err = answer.err();
    assert!(matches!(err, Some(ErrorCode::HttpRequestBodySize(Some(5)))), "{err:?}");
}

async fn whether_a_request_was_sent(arguments: Vec<String>) {
    let ask = async |authority: &str| {
        let (_none, trailers) = wit_future::new(|| Ok(None));
        let (request, sent) = Request::new(Fields::new(), None, trailers, None);
        request.set_scheme(Some(&Scheme::Http)).unwrap();
        request.set_authority(Some(authority)).unwrap();
        request.set_path_with_query(Some("/hello")).unwrap();
        (send(request).await.is_ok(), sent.await)
    };
    let sent = ask(&arguments[0]).await;
    assert!(matches!(sent, (true, Ok(()))), "{sent:?}");
    let refused = ask("127.0.0.1:1").await;
    assert!(matches!(refused, (false, Err(ErrorCode::ConnectionRefused))), "{refused:?}");
    // One that is given up before it's answered.
    let (_none, trailers) = wit_future::new(|| Ok(None));
    let (request, sent) = Request::new(Fields::new(), None, trailers, None);
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(&arguments[1])).unwrap();
    let soon = pin!(monotonic_clock::wait_for(10_000_000));
    assert!(matches!(select(soon, pin!(send(request))).await, Either::Left(_)));
    let given_up = sent.await;
    assert!(given_up.is_err(), "{given_up:?}");
}

async fn no_path_is_the_root(arguments: Vec<String>) {
    let request = getting(&arguments[0], "/");
    request.set_path_with_query(None).unwrap();
    assert_eq!(text(send(request).await.unwrap()).await, "nothing here\n");
}

async fn several_at_once(arguments: Vec<String>) {
    let ask = || async { text(send(getting(&arguments[0], "/hello")).await.unwrap()).await };
    let ((one, two), three) = join(join(ask(), ask()), ask()).await;
    assert_eq!([one, two, three], ["hello\n"; 3]);
}

async fn fields(_: Vec<String>) {
    let fields = Fields::new();
    fields.set("A", &[b"1".to_vec(), b"2".to_vec()]).unwrap();
    fields.append("a", b"3").unwrap();
    assert_eq!(fields.get("a"), [b"1".to_vec(), b"2".to_vec(), b"3".to_vec()]);
    let copy = fields.clone();
    assert_eq!(fields.get_and_delete("a").unwrap().len(), 3);
    assert!(!fields.has("a") && copy.has("a"), "a copy is apart");
    for (name, value) in [("", "x"), ("with space", "x"), ("a", "line\nend"), ("ü", "x")] {
        let found = fields.append(name, value.as_bytes());
        assert!(matches!(found, Err(HeaderError::InvalidSyntax)), "{name:?}");
    }
    for name in ["Connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"] {
        assert!(matches!(fields.append(name, b"x"), Err(HeaderError::Forbidden)), "{name}");
    }
}
