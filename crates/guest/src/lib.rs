//! Write the process types of a [wasmhost](https://github.com/wasmhost/wasmhost) formation in Rust.
//!
//! A process type is one WASI component. Its exports decide what it can be called with, and one macro says
//! which:
//!
//! | macro | the handler | a process type with |
//! | --- | --- | --- |
//! | [`http!`] | `fn(Request) -> Response` | `route = "/"`, or no trigger at all |
//! | [`job!`] | `fn(Job) -> Result<(), Failure>`, or with [`Json<T>`](job::Json) | `queue = "default"` |
//! | [`tick!`] | `fn(Tick) -> Result<(), E>` | `schedule = "*/5 * * * *"` |
//!
//! A command (`run = "always"` or `"release"`) needs nothing from here: it is a program with a `main`.
//!
//! ```no_run
//! use wasmhost_guest::http::{Request, Response};
//!
//! wasmhost_guest::http!(hello);
//!
//! fn hello(_request: Request) -> Response {
//!     Response::text("Hello, world!\n")
//! }
//! ```
//!
//! Such a guest is a library of the kind `cdylib`, built for `wasm32-wasip2`:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//! ```
//!
//! All of these are for WASI 0.2 and block: an instance serves one call at a time, and the formation's `count` says
//! how many instances there are. With the feature `async`, `async_job!` and `async_tick!` take an `async fn` in place
//! of a `fn`, and make components of WASI 0.3, whose instances serve several calls at once. Statics live as long as their instance, which may serve many calls but never shares
//! memory with another: use them as caches, never as a place for what must not be lost.
//!
//! Only a wasm build can call the host. Natively this crate compiles, so that a guest's own logic can be tested
//! with `cargo test`; what would call the host panics there.

pub mod http;
pub mod job;
pub mod queue;
pub mod tick;

#[doc(hidden)]
pub mod bindings;

/// The bindings of WASI 0.2 themselves, for what this crate has no words for: outgoing HTTP, sockets, clocks.
pub use wasip2 as wasi;
/// The bindings of WASI 0.3 themselves: what an `async fn` can wait for.
#[cfg(feature = "async")]
pub use wasip3;
