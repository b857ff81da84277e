//! Counts that a person set while the host ran: they survive its restart.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::StoreError;

/// The counts set live, by process type. A type that isn't there has the formation's count.
#[async_trait]
pub trait Counts: Send + Sync + 'static {
    /// All of them.
    async fn load(&self) -> Result<BTreeMap<String, u32>, StoreError>;

    /// Sets each of these, or forgets it where `None`: all or none.
    async fn save(&self, changes: BTreeMap<String, Option<u32>>) -> Result<(), StoreError>;
}
