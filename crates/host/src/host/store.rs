//! The store of a host: opened, taken over from the boot before, and copied.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};
use wasmhost_config::{Formation, StoreUrl};
use wasmhost_engine::services::{Enqueue, EnqueueRefusal, NewJob, Receipt};
use wasmhost_store::{
    Components, Counts, Jobs, Members, PostgresStore, Releases, SqliteStore, StoreError, Ticks, Written,
};

use super::{Lasting, StartError};
use crate::measures::Measures;
use crate::release::Begin;
use crate::services::{KnownQueues, Queues};
use crate::state_dir::{Identity, StateDir, StateDirError};

/// The store's parts, of one backend.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) jobs: Arc<dyn Jobs>,
    pub(super) ticks: Arc<dyn Ticks>,
    pub(super) counts: Arc<dyn Counts>,
    pub(super) releases: Arc<dyn Releases>,
    /// The hosts that use it, where more than one can.
    pub(super) members: Option<Arc<dyn Members>>,
    /// The components that they hand on to each other.
    pub(super) components: Option<Arc<dyn Components>>,
    /// All of them, to be copied and closed.
    pub(super) backend: Backend,
}

/// A store as one thing. All that isn't a trait's is here.
#[derive(Clone)]
pub(crate) enum Backend {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl Backend {
    /// Copies it to a new file.
    pub(crate) async fn backup(&self, to: &Path) -> Result<(), StoreError> {
        match self {
            Backend::Sqlite(store) => store.backup(to).await,
            Backend::Postgres(_) => Err(no_backup()),
        }
    }

    /// How much was written since it was opened.
    pub(crate) fn written(&self) -> Written {
        match self {
            Backend::Sqlite(store) => store.written(),
            Backend::Postgres(store) => store.written(),
        }
    }

    async fn ended(&self) {
        match self {
            Backend::Sqlite(store) => store.ended().await,
            Backend::Postgres(store) => store.ended().await,
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Backend::Sqlite(store) => store.close().await,
            Backend::Postgres(store) => store.close().await,
        }
    }
}

fn no_backup() -> StoreError {
    let text = "this store is a schema of a PostgreSQL database, which is backed up by PostgreSQL's own means, such as \
                `pg_dump --schema=\"wasmhost_NAME\" DATABASE`";
    StoreError::Backend(text.to_owned())
}

impl Store {
    /// Whether other hosts may use it at the same time.
    pub(super) fn is_shared(&self) -> bool {
        self.members.is_some()
    }

    /// Its threads last as long as the host.
    pub(super) fn watch(&self, lasting: &Lasting) {
        let backend = self.backend.clone();
        lasting.spawn("the store's thread", async move { backend.ended().await });
    }
}

pub(super) async fn open(url: &StoreUrl) -> Result<Store, StartError> {
    let failed = |err| StartError::Store { url: url.to_string(), err };
    let opened = match url {
        StoreUrl::Postgres(url) => {
            let postgres = Arc::new(PostgresStore::open(url).await.map_err(failed)?);
            return Ok(Store {
                jobs: postgres.clone(),
                ticks: postgres.clone(),
                counts: postgres.clone(),
                releases: postgres.clone(),
                members: Some(postgres.clone()),
                components: Some(postgres.clone()),
                backend: Backend::Postgres(postgres),
            });
        }
        StoreUrl::Memory => SqliteStore::in_memory(),
        StoreUrl::Sqlite(path) => {
            if let Some(parent) = path.parent() {
                // Opening says what is wrong, should this fail.
                let _ = std::fs::create_dir_all(parent);
            }
            SqliteStore::open(path)
        }
    };
    let sqlite = Arc::new(opened.map_err(failed)?);
    Ok(Store {
        jobs: sqlite.clone(),
        ticks: sqlite.clone(),
        counts: sqlite.clone(),
        releases: sqlite.clone(),
        members: None,
        components: None,
        backend: Backend::Sqlite(sqlite),
    })
}

/// Stores why a start could not make its release live. One that was live before stays it.
pub(super) async fn release_failed(store: &Store, begin: Begin, why: &StartError) {
    if begin.was_live {
        return;
    }
    if let Err(err) = store.releases.fail(begin.number, why.to_string()).await {
        warn!("that v{} failed could not be stored: {err}", begin.number);
    }
}

/// Copies a store that no host need be using. Returns the copy's length in bytes.
pub async fn backup_store(url: &StoreUrl, to: &Path) -> Result<u64, StoreError> {
    let StoreUrl::Sqlite(path) = url else {
        return Err(match url {
            StoreUrl::Postgres(_) => no_backup(),
            _ => StoreError::Invalid(format!("{url} can't be backed up: only a SQLite store can")),
        });
    };
    if !path.exists() {
        return Err(StoreError::Open(format!("there is no store at {} yet", path.display())));
    }
    let (path, copy) = (path.clone(), to.to_owned());
    let copied = tokio::task::spawn_blocking(move || SqliteStore::copy_file(&path, &copy)).await;
    copied.map_err(|err| StoreError::Backend(err.to_string()))??;
    Ok(std::fs::metadata(to).map(|file| file.len()).unwrap_or_default())
}

/// Enqueues jobs that a process type makes, on the store of a formation that no host runs. The state directory is locked
/// meanwhile, so that no host has the store; one that starts waits for it.
///
/// # Errors
///
/// The state directory can't be had: a host has it, [`StateDirError::InUse`]. Whatever else keeps the jobs from being
/// stored is a refusal.
pub async fn enqueue_without_host(
    formation: &Formation,
    process: &str,
    queue: &str,
    jobs: Vec<NewJob>,
) -> Result<Result<Vec<Receipt>, EnqueueRefusal>, StateDirError> {
    let _lock = StateDir::borrow(&formation.state_dir, &formation.file)?;
    if matches!(formation.store, StoreUrl::Memory) {
        let message = "the store is in the memory of a host, and no host runs".to_owned();
        return Ok(Err(EnqueueRefusal::Unavailable(message)));
    }
    let url = formation.store.clone();
    let store = match open(&url).await {
        Ok(store) => store,
        Err(err) => return Ok(Err(EnqueueRefusal::Unavailable(err.to_string()))),
    };
    let queues = Queues::new(store.jobs.clone(), Measures::new(), Arc::default());
    queues.know(KnownQueues { settings: formation.queues.clone(), ..KnownQueues::default() });
    let enqueued = queues.enqueue(process, queue, jobs).await;
    store.backend.close().await;
    Ok(enqueued)
}

/// Names this boot, and ends what earlier boots of this host had begun: they are dead, since the state directory's
/// lock is held here. Their jobs are freed, and their ticks marked as interrupted. A store that no other host can use has
/// only those of this one, under whatever id it had.
pub(super) async fn take_ownership(
    url: &StoreUrl,
    store: &Store,
    identity: &Identity,
) -> Result<String, StartError> {
    let own = format!("host/{}/", identity.host);
    let dead = if store.is_shared() { own.as_str() } else { "host/" };
    let freed = store.jobs.free_leases(dead).await;
    let freed = freed.map_err(|err| StartError::Store { url: url.to_string(), err })?;
    if freed > 0 {
        info!("{freed} jobs that the last run had begun will run again");
    }
    let left = store.ticks.interrupt(dead).await;
    let left = left.map_err(|err| StartError::Store { url: url.to_string(), err })?;
    if left > 0 {
        info!("{left} ticks that the last run had begun were interrupted by its end, and are not run again");
    }
    Ok(format!("{own}{}-{:x}", std::process::id(), fastrand::u64(..)))
}
