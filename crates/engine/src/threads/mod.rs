//! Threads and clocks: where guests run, whose turn it is, and who is woken when. Nothing here knows of WebAssembly, but
//! that a thread prepares for it ([`current::prepare_thread`]) and that the ticker raises wasmtime's epochs.

pub(crate) mod after_slices;
pub(crate) mod compute;
pub(crate) mod current;
pub(crate) mod pace;
pub(crate) mod quiet;
pub(crate) mod ticker;
mod turns;
