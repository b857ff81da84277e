//! A call in an instance, from its beginning to its end.
//!
//! [`drive`] polls it in slices, and moves it to other threads. [`solo`] is an instance that serves one call at a time,
//! and [`service`] one that serves several, with their [`seat`]s. A request's answer goes by its [`exchange`]. [`over`]
//! says how a call came out.

mod beside;
pub(crate) mod drive;
mod error_code;
pub(crate) mod exchange;
mod guest;
pub(crate) mod history;
mod lists;
pub(crate) mod module;
pub(crate) mod over;
mod request;
pub(crate) mod seat;
pub(crate) mod service;
pub(crate) mod solo;
pub(crate) mod work;
