//! The store of a host: opened, taken over from the boot before, pruned, and copied.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wasmhost_config::{Formation, StoreUrl};
use wasmhost_store::jobs::Retention;
use wasmhost_store::{Counts, Jobs, MemoryStore, SqliteStore, StoreError, Ticks};

use super::{Lasting, StartError};

/// How often ended jobs are looked through.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// The store's parts, of one backend.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) jobs: Arc<dyn Jobs>,
    pub(super) ticks: Arc<dyn Ticks>,
    pub(super) counts: Arc<dyn Counts>,
    /// The file that is closed last.
    pub(super) sqlite: Option<Arc<SqliteStore>>,
}

impl Store {
    /// Its threads last as long as the host.
    pub(super) fn watch(&self, lasting: &Lasting) {
        if let Some(sqlite) = self.sqlite.clone() {
            lasting.spawn("the store's thread", async move { sqlite.ended().await });
        }
    }
}

pub(super) fn open(url: &StoreUrl) -> Result<Store, StartError> {
    match url {
        StoreUrl::Memory => {
            let store = Arc::new(MemoryStore::new());
            Ok(Store { jobs: store.clone(), ticks: store.clone(), counts: store, sqlite: None })
        }
        StoreUrl::Sqlite(path) => {
            if let Some(parent) = path.parent() {
                // Opening says what is wrong, should this fail.
                let _ = std::fs::create_dir_all(parent);
            }
            let store =
                SqliteStore::open(path).map_err(|err| StartError::Store { url: url.to_string(), err })?;
            let store = Arc::new(store);
            Ok(Store {
                jobs: store.clone(),
                ticks: store.clone(),
                counts: store.clone(),
                sqlite: Some(store),
            })
        }
    }
}

/// Copies a store that no host need be using. Returns the copy's length in bytes.
pub async fn backup_store(url: &StoreUrl, to: &Path) -> Result<u64, StoreError> {
    let StoreUrl::Sqlite(path) = url else {
        return Err(StoreError::Invalid(format!("{url} can't be backed up: only a SQLite store can")));
    };
    if !path.exists() {
        return Err(StoreError::Open(format!("there is no store at {} yet", path.display())));
    }
    let store = SqliteStore::open(path)?;
    let copied = store.backup(to).await;
    store.close().await;
    copied.map(|()| std::fs::metadata(to).map(|file| file.len()).unwrap_or_default())
}

/// Names this boot, and ends what earlier boots of this host had begun: they are dead, since the state directory's
/// lock is held here. Their jobs are freed, and their ticks marked as interrupted.
pub(super) async fn take_ownership(url: &StoreUrl, store: &Store) -> Result<String, StartError> {
    const PREFIX: &str = "host/";
    let freed = store.jobs.free_leases(PREFIX).await;
    let freed = freed.map_err(|err| StartError::Store { url: url.to_string(), err })?;
    if freed > 0 {
        info!("{freed} jobs that the last run had begun will run again");
    }
    let left = store.ticks.interrupt(PREFIX).await;
    let left = left.map_err(|err| StartError::Store { url: url.to_string(), err })?;
    if left > 0 {
        info!("{left} ticks that the last run had begun were interrupted by its end, and are not run again");
    }
    Ok(format!("{PREFIX}{}-{:x}", std::process::id(), fastrand::u64(..)))
}

pub(super) fn retention(formation: &Formation) -> Retention {
    let wasmhost_config::Retention { done_for, done_max, dead_for, dead_max } = formation.retention;
    Retention { done_for, done_max, dead_for, dead_max }
}

/// Deletes jobs that have ended and been kept for long enough, from time to time.
pub(super) async fn prune(jobs: Arc<dyn Jobs>, retention: Retention, intake: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PRUNE_EVERY) => {}
            () = intake.cancelled() => return,
        }
        loop {
            match jobs.prune(retention).await {
                Ok(0) => break,
                Ok(_) => tokio::task::yield_now().await,
                Err(err) => {
                    warn!("old jobs could not be deleted: {err}");
                    break;
                }
            }
        }
    }
}
