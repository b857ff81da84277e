//! Everything that a guest can reach, one file for each kind. Every one of them asks the grants first.
//!
//! [`state`] is what a store holds: the instance's own side of [`logs`], [`network`] and [`outbound`]. The other files
//! are host functions that work on it.

pub(crate) mod client;
pub(crate) mod dial;
pub(crate) mod fields;
pub(crate) mod files;
mod framing;
mod held;
pub(crate) mod logs;
pub(crate) mod name_lookup;
mod near;
pub(crate) mod network;
pub(crate) mod outbound;
pub(crate) mod queue;
mod replace;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod streams;
pub(crate) mod traced;
