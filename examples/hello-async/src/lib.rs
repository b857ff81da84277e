//! A web process for WASI 0.3: one instance may serve several requests at once, as an async server in a process does.

use std::cell::Cell;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::ErrorCode;
use wasip3::http_compat::{
    IncomingRequestBody, http_from_wasi_request, http_from_wasi_response, http_into_wasi_request,
    http_into_wasi_response,
};

const BODY_BYTES_MAX: usize = 1 << 20;

struct Web;

wasip3::http::service::export!(Web);

impl wasip3::exports::http::handler::Guest for Web {
    async fn handle(
        request: wasip3::http::types::Request,
    ) -> Result<wasip3::http::types::Response, ErrorCode> {
        let request = http_from_wasi_request(request)?;
        let is_head = request.method() == Method::HEAD;
        let mut response = serve(request).await;
        if is_head {
            response.body_mut().clear();
        }
        http_into_wasi_response(response)
    }
}

async fn serve(request: Request<IncomingRequestBody>) -> Response<String> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => text(StatusCode::OK, "Hello, world!\n"),
        (&Method::GET, "/together") => together().await,
        (&Method::GET, "/upstream") => match ask_upstream().await {
            Ok(answer) => answer,
            Err(error) => text(StatusCode::BAD_GATEWAY, format!("{error}\n")),
        },
        (&Method::POST, "/shout") => shout(request).await,
        _ => text(StatusCode::NOT_FOUND, "There is nothing here\n"),
    }
}

/// Waits for 100 ms, and says how many requests waited here meanwhile, itself included.
async fn together() -> Response<String> {
    thread_local! {
        static WAITING: Cell<u32> = const { Cell::new(0) };
        static MOST: Cell<u32> = const { Cell::new(0) };
    }
    WAITING.set(WAITING.get() + 1);
    MOST.set(MOST.get().max(WAITING.get()));
    monotonic_clock::wait_for(Duration::from_millis(100).as_nanos() as u64).await;
    let most = MOST.get();
    WAITING.set(WAITING.get() - 1);
    if WAITING.get() == 0 {
        MOST.set(0);
    }
    text(StatusCode::OK, format!("{most}\n"))
}

/// A request to another server: the formation names it, and grants it. Other requests of this instance go on meanwhile.
async fn ask_upstream() -> Result<Response<String>, Box<dyn std::error::Error + Send + Sync>> {
    let request = Request::get(std::env::var("UPSTREAM")?).body(String::new())?;
    let answer = http_from_wasi_response(client::send(http_into_wasi_request(request)?).await?)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await?;
    let body = body.to_bytes();
    Ok(text(StatusCode::OK, format!("{}: {}", status.as_u16(), String::from_utf8_lossy(&body))))
}

/// The request's body in capitals.
async fn shout(request: Request<IncomingRequestBody>) -> Response<String> {
    let Ok(body) = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "At most a megabyte\n");
    };
    text(StatusCode::OK, String::from_utf8_lossy(&body.to_bytes()).to_uppercase())
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}
