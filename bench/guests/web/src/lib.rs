//! The web process that benchmarks load, for WASI 0.2. `bench/guests/README.md` lists its paths.

use wasmhost_guest::http::{Request, Response};

wasmhost_guest::http!(handle);

fn handle(request: Request) -> Response {
    match request.path() {
        "/" => Response::text(bench_work::HELLO),
        "/body" => Response::text(bench_work::body()),
        "/sink" => sink(request),
        "/compute" => Response::text(bench_work::compute()),
        "/loop" => bench_work::endless(),
        "/bomb" => bench_work::bomb(),
        "/flood" => bench_work::flood(),
        _ => Response::text("no such path\n").status(404),
    }
}

fn sink(request: Request) -> Response {
    let mut body = request.into_body();
    let mut bytes = 0;
    loop {
        match body.chunk() {
            Ok(Some(chunk)) => bytes += chunk.len(),
            Ok(None) => return Response::text(format!("{bytes}\n")),
            Err(error) => return Response::text(format!("{error}\n")).status(500),
        }
    }
}
