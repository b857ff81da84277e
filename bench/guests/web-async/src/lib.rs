//! The web process that benchmarks load, for WASI 0.3: several requests at once in one instance.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::StreamResult;
use wasip3::{wit_future, wit_stream};

/// How much of a request's body is asked for at once, as `wasmhost-guest` does for WASI 0.2.
const CHUNK_BYTES: usize = 64 * 1024;

struct Web;

wasip3::http::service::export!(Web);

impl wasip3::exports::http::handler::Guest for Web {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let path = target.split_once('?').map_or(target.as_str(), |(path, _)| path);
        Ok(match path {
            "/" => text(200, bench_work::HELLO),
            "/body" => text(200, bench_work::body()),
            "/sink" => {
                let bytes = sink(request).await?;
                text(200, format!("{bytes}\n"))
            }
            "/compute" => text(200, bench_work::compute()),
            "/loop" => bench_work::endless(),
            _ => text(404, "no such path\n"),
        })
    }
}

async fn sink(request: Request) -> Result<usize, ErrorCode> {
    // This side says nothing of the body until it has read all of it.
    let (_read, reading) = wit_future::new(|| Ok(()));
    let (mut body, trailers) = Request::consume_body(request, reading);
    let mut bytes = 0;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    loop {
        let result;
        (result, chunk) = body.read(chunk).await;
        bytes += chunk.len();
        chunk.clear();
        if !matches!(result, StreamResult::Complete(_)) {
            break;
        }
    }
    trailers.await?;
    Ok(bytes)
}

/// The head goes first; the body is written while the host sends it.
fn text(status: u16, body: impl Into<Vec<u8>>) -> Response {
    let body = body.into();
    let headers = [("content-type".to_string(), b"text/plain; charset=utf-8".to_vec())];
    let headers = Fields::from_list(&headers).expect("these headers are allowed");
    let (mut writer, reader) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(reader), trailers);
    response.set_status_code(status).expect("these statuses are allowed");
    wasip3::spawn_local(async move {
        // A client that went away leaves something over.
        writer.write_all(body).await;
    });
    response
}
