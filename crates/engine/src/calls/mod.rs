//! A call in an instance, from its beginning to its end: what drives it ([`drive`]), an instance that serves one at a
//! time ([`solo`]) or several at once ([`service`]), and how a call comes out ([`over`]).

pub(crate) mod drive;
mod guest;
pub(crate) mod module;
pub(crate) mod over;
mod request;
pub(crate) mod service;
pub(crate) mod solo;
