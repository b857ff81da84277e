//! The hosts that share one formation: who they are ([`contact`]) and which of them has which slots ([`split`]). Both are
//! functions of what heartbeats tell, without clocks, stores or tasks; `simulation` runs a thousand hosts of them.

pub(crate) mod contact;
#[cfg(test)]
mod simulation;
pub(crate) mod split;
