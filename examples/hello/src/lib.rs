//! The smallest web process: it greets.

use wasmhost_guest::http::{Request, Response};

wasmhost_guest::http!(hello);

fn hello(_request: Request) -> Response {
    Response::text("Hello, world!\n")
}
