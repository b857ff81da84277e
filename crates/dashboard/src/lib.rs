//! The dashboard: a page for a browser that shows a host by its admin API, and lets a person change it. This crate has the
//! page's files ([`assets`]) and decides who may have what ([`Guard`]). It serves nothing by itself: whoever does asks
//! [`Guard::judge`] about each request, and answers `/v1/...` from the admin API where the verdict is [`Verdict::Api`].
//!
//! ```text
//! a link with a key, good once  ->  a cookie, and the page's own key  ->  the page  ->  the admin API
//! the token of the admin API    ->
//! ```
//!
//! Nothing that a guest has written is ever HTML: the page builds elements and texts, and its policy forbids the rest.

#![forbid(unsafe_code)]

mod answers;
pub mod assets;
mod guard;
mod secret;
mod sessions;
mod until;

pub use answers::{Answer, secure};
pub use guard::{COOKIE, Guard, LOG_IN, Refusal, Verdict};
pub use secret::NoRandom;
pub use until::Until;
