//! What the programs beside this have in common.

pub mod http;
