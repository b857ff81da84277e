//! Components in PostgreSQL.

use async_trait::async_trait;

use super::PostgresStore;
use super::operation::Write;
use super::reader::{Read, View};
use super::session::Db;
use super::tx::Tx;
use crate::components::COMPONENTS_BYTES_MAX;
use crate::{Components, StoreError};

#[async_trait]
impl Components for PostgresStore {
    async fn put(&self, digest: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        if bytes.len() as u64 > COMPONENTS_BYTES_MAX {
            return Err(StoreError::Invalid(format!(
                "a component of {} bytes is not handed on by the store; {COMPONENTS_BYTES_MAX} is the most",
                bytes.len()
            )));
        }
        self.write(Put { digest: digest.to_owned(), bytes }).await
    }

    async fn fetch(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(Fetch(digest.to_owned())).await
    }

    async fn keep_only(&self, digests: &[String]) -> Result<u64, StoreError> {
        self.write(KeepOnly(digests.to_vec())).await
    }
}

struct Put {
    digest: String,
    bytes: Vec<u8>,
}

#[async_trait(?Send)]
impl Write for Put {
    type Answer = ();

    fn bytes(&self) -> usize {
        self.bytes.len()
    }

    async fn apply(&self, tx: &Tx<'_>) -> Db<()> {
        let put = "INSERT INTO components (digest, bytes) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        tx.execute(put, &[&self.digest, &self.bytes]).await.map(drop)
    }
}

struct Fetch(String);

#[async_trait]
impl Read for Fetch {
    type Answer = Option<Vec<u8>>;

    async fn ask(&self, view: &View<'_>) -> Db<Option<Vec<u8>>> {
        let rows = view.session.query("SELECT bytes FROM components WHERE digest = $1", &[&self.0]).await?;
        rows.first().map(|row| row.try_get(0)).transpose()
    }
}

struct KeepOnly(Vec<String>);

#[async_trait(?Send)]
impl Write for KeepOnly {
    type Answer = u64;

    async fn apply(&self, tx: &Tx<'_>) -> Db<u64> {
        tx.execute("DELETE FROM components WHERE NOT digest = ANY($1::text[])", &[&self.0]).await
    }
}
