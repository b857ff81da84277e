//! Components, by their digest: what a host of a formation hands to the others in a deploy.

use async_trait::async_trait;

use crate::StoreError;

/// The most that the components of one release may come to that are handed on by the store.
pub const COMPONENTS_BYTES_MAX: u64 = 64 << 20;

/// The bytes of components, for hosts that don't have them yet.
#[async_trait]
pub trait Components: Send + Sync + 'static {
    /// Keeps these bytes under their SHA-256, in 64 lower-case hexadecimal digits. Nothing where they are there already.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] where they are more than [`COMPONENTS_BYTES_MAX`].
    async fn put(&self, digest: &str, bytes: Vec<u8>) -> Result<(), StoreError>;

    /// The bytes of that digest; `None` where nobody has put them.
    async fn fetch(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Forgets all but these. Returns how many.
    async fn keep_only(&self, digests: &[String]) -> Result<u64, StoreError>;
}
