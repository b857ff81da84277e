//! Counts that a person set while the host ran: they survive its restart, and are the same for all hosts.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::StoreError;

/// A change of one type's count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountChange {
    /// The process type.
    pub process: String,
    /// The formation's count of it, which [`CountTo::More`] and [`CountTo::Fewer`] go from where none was set live.
    pub in_file: u32,
    /// The count that it is to have.
    pub to: CountTo,
}

/// The count that a type is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountTo {
    /// This one.
    Exactly(u32),
    /// So many more than it has, [`u32::MAX`] at most.
    More(u32),
    /// So many fewer than it has, none at least.
    Fewer(u32),
    /// The formation's.
    InFile,
}

impl CountTo {
    /// The count to be kept, where this one was or none.
    pub fn after(self, live: Option<u32>, in_file: u32) -> Option<u32> {
        let before = live.unwrap_or(in_file);
        match self {
            CountTo::Exactly(count) => Some(count),
            CountTo::More(by) => Some(before.saturating_add(by)),
            CountTo::Fewer(by) => Some(before.saturating_sub(by)),
            CountTo::InFile => None,
        }
    }
}

/// The counts set live, by process type. A type that isn't there has the formation's count.
#[async_trait]
pub trait Counts: Send + Sync + 'static {
    /// All of them.
    async fn load(&self) -> Result<BTreeMap<String, u32>, StoreError>;

    /// Makes these changes, all or none, and returns all counts that are set live then. Changes of several hosts come one
    /// after another: each begins with what the one before it came to.
    async fn change(&self, changes: Vec<CountChange>) -> Result<BTreeMap<String, u32>, StoreError>;
}
