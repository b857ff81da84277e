//! A server that gives the answers of `bench/guests/web` by hyper alone. It is the limit that a host of components can
//! come near to.
//!
//! `native-hyper [ADDRESS]` prints where it listens, and serves until it is killed. It is set up as a host is that
//! runs on all cores: one task for each connection on tokio's threads, `TCP_NODELAY`, timeouts off, mimalloc.

use std::convert::Infallible;
use std::io::Write;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The body of `/body`.
static MIB: [u8; 1 << 20] = [b'x'; 1 << 20];

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address).await?;
    println!("Serving HTTP on http://{}/", listener.local_addr()?);
    std::io::stdout().flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // An error is the client's affair.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    match (request.method(), request.uri().path()) {
        (_, "/") => *response.body_mut() = Full::new(Bytes::from_static(b"Hello, world!\n")),
        (_, "/body") => *response.body_mut() = Full::new(Bytes::from_static(&MIB)),
        (&Method::POST, "/sink") => {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(Ok(frame)) = body.frame().await {
                length += frame.data_ref().map_or(0, Bytes::len);
            }
            *response.body_mut() = Full::new(Bytes::from(format!("{length}\n")));
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}
