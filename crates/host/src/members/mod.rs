//! The hosts that share one formation: who they are ([`contact`]) and which of them has which slots ([`split`]). Both are
//! functions of what heartbeats tell, without clocks, stores or tasks; `simulation` runs a thousand hosts of them. [`heart`]
//! is the task that beats, [`clock`] the time that all hosts agree on, and [`said`] has the texts that hosts have for each other and for people.

pub(crate) mod clock;
pub(crate) mod contact;
pub(crate) mod heart;
pub(crate) mod said;
#[cfg(test)]
mod simulation;
pub(crate) mod split;
