//! Answering HTTP requests.

mod body;
mod form;
mod request;
mod response;

use std::fmt::Display;
use std::io::Write;

pub use body::{Body, BodyWriter};
pub use form::form_pairs;
pub use request::{Method, Request};
pub use response::Response;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

/// Makes this component answer HTTP: `handler`, a `fn(Request) -> Response`, is called with each request.
///
/// The handler may return a `Result<Response, E>` too, where `E` is anything that can be displayed: see
/// [`IntoResponse`].
///
/// ```no_run
/// use wasmhost_guest::http::{Method, Request, Response};
///
/// wasmhost_guest::http!(handle);
///
/// fn handle(request: Request) -> Result<Response, std::io::Error> {
///     Ok(match (request.method(), request.path()) {
///         (Method::Get, "/") => Response::text("Say hello: POST your name to /hello\n"),
///         (Method::Post, "/hello") => {
///             let name = request.into_body().read_all(1024)?;
///             Response::text(format!("Hello, {}!\n", String::from_utf8_lossy(&name)))
///         }
///         _ => Response::text("There is nothing here\n").status(404),
///     })
/// }
/// ```
#[macro_export]
macro_rules! http {
    ($handler:path) => {
        const _: () = {
            struct Web;

            impl $crate::wasi::exports::http::incoming_handler::Guest for Web {
                fn handle(
                    request: $crate::wasi::http::types::IncomingRequest,
                    response_out: $crate::wasi::http::types::ResponseOutparam,
                ) {
                    $crate::http::call($handler, request, response_out);
                }
            }

    $crate::wasi::http::proxy::export!(Web with_types_in $crate::wasi);
        };
    };
}

/// A type that a handler may return.
///
/// An error is written to stderr, where the host puts the instance's name before it, and the client gets a 500
/// that doesn't say what it was.
pub trait IntoResponse {
    /// The response to send.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl<E: Display> IntoResponse for Result<Response, E> {
    fn into_response(self) -> Response {
        self.unwrap_or_else(|error| {
            complain(&error);
            Response::text("Internal Server Error\n").status(500)
        })
    }
}

/// The function that [`http!`](crate::http!) exports.
#[doc(hidden)]
pub fn call<R: IntoResponse>(handler: fn(Request) -> R, request: IncomingRequest, out: ResponseOutparam) {
    handler(Request::new(request)).into_response().send(out);
}

/// Says on stderr what the client isn't told. Where even that fails there is nobody left to tell.
fn complain(error: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "error: {error}");
}
