//! What a guest can reach, one file for each kind. Every one of them asks the grants first.

pub(crate) mod client;
pub(crate) mod logs;
pub(crate) mod network;
pub(crate) mod outbound;
pub(crate) mod queue;
