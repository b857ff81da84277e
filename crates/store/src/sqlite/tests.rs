//! Properties of SQLite's store alone: files, group commit, faults.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tempfile::TempDir;

use super::writer::Tx;
use super::*;
use crate::counts::{CountChange, CountTo};
use crate::jobs::{ClaimQueue, JobState};
use crate::{Counts, Ticks};

pub(super) struct Fixture {
    /// Removed when the test ends.
    pub(super) folder: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        Fixture { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    pub(super) fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path()).unwrap()
    }

    /// The error of `open` about this file, which it must leave as it is.
    fn refusal(&self, content: &[u8]) -> String {
        std::fs::write(self.path(), content).unwrap();
        let error = SqliteStore::open(&self.path()).err().expect("refused");
        assert_eq!(std::fs::read(self.path()).unwrap(), content);
        error.to_string()
    }
}

/// A new store's connection.
fn new_file(path: &Path) -> Connection {
    schema::create(path).unwrap();
    schema::open_writer(path).unwrap().0
}

pub(super) fn job(payload: usize) -> NewJob {
    NewJob { queue: "mail".to_string(), payload: vec![7; payload], ..NewJob::default() }
}

pub(super) fn web(count: u32) -> CountChange {
    CountChange { process: "web".to_string(), in_file: 1, to: CountTo::Exactly(count) }
}

pub(super) fn claim() -> Claim {
    Claim {
        owner: "host/boot-1".to_string(),
        queues: vec![ClaimQueue { name: "mail".to_string(), weight: 1, concurrency: None }],
        limit: 1,
        lease: Duration::from_secs(30),
        attempts_default: 25,
    }
}

/// An operation that a test makes up.
struct Custom<F>(F);

impl<F: Fn(&Tx<'_>) -> rusqlite::Result<()> + Send + 'static> Write for Custom<F> {
    type Answer = ();

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<()> {
        (self.0)(tx)
    }
}

/// Keeps the writer busy until `go` is dropped, so that what is sent meanwhile becomes one batch.
pub(super) async fn hold_writer(store: &SqliteStore) -> Sender<()> {
    let (go, wait): (Sender<()>, Receiver<()>) = channel();
    let (started, begun) = oneshot::channel();
    let (wait, started) = (Mutex::new(wait), Mutex::new(Some(started)));
    let (operation, _) = operation::operation(Custom(move |_: &Tx<'_>| {
        started.lock().unwrap().take().map(|started| started.send(()));
        let _ = wait.lock().unwrap().recv();
        Ok(())
    }));
    assert!(store.writer.send(operation).await.is_ok());
    begun.await.unwrap();
    go
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let files = AtomicU32::new(0);
    crate::conformance::exercise(async |clock| {
        let number = files.fetch_add(1, Ordering::Relaxed);
        SqliteStore::open_with_clock(&folder.path().join(format!("{number}.db")), clock).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_conformance_suite_without_a_file() {
    crate::conformance::exercise(async |clock| SqliteStore::in_memory_with_clock(clock).unwrap()).await;
}

#[tokio::test]
async fn a_store_without_a_file_answers_questions_by_what_was_committed() {
    let store = SqliteStore::in_memory().unwrap();
    let go = hold_writer(&store).await;
    // `join!` polls in order: each is in line when the next is polled.
    let (enqueued, counts, ()) =
        tokio::join!(store.enqueue(vec![job(10)]), store.counts(), async { drop(go) });
    assert_eq!((enqueued.unwrap().len(), counts.unwrap()[0].available), (1, 1));
    assert_eq!(SqliteStore::in_memory().unwrap().counts().await.unwrap(), [], "each is one of its own");
    store.close().await;
    assert_eq!(store.counts().await.err(), Some(errors::closed()));
}

#[tokio::test]
async fn a_store_without_a_file_rolls_back_and_can_be_copied() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::in_memory().unwrap();
    let (made_up, jobs) = among_neighbours(&store, |tx| {
        tx.sql("INSERT INTO counts (process_type, count) VALUES ('half', 1)")?.execute([])?;
        tx.sql("INSERT INTO counts (process_type, count) VALUES ('whole', NULL)")?.execute([]).map(drop)
    })
    .await;
    assert!(made_up.is_err() && jobs.iter().all(Result::is_ok) && store.load().await.unwrap().is_empty());
    store.backup(&folder.path().join("copy.db")).await.unwrap();
    assert!(store.backup(&folder.path().join("copy.db")).await.is_err(), "nothing is replaced");
    let copy = SqliteStore::open(&folder.path().join("copy.db")).unwrap();
    assert_eq!(copy.counts().await.unwrap(), store.counts().await.unwrap());
}

#[tokio::test]
async fn keeps_everything_when_it_is_opened_again() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let ids = store.enqueue(vec![job(9), job(9), NewJob { priority: -1, ..job(9) }]).await.unwrap();
    let done = store.claim(claim()).await.unwrap().remove(0);
    store.complete(done.lease).await.unwrap();
    let leased = store.claim(claim()).await.unwrap().remove(0);
    store.take("clock", Timestamp(5), false, "host/boot-1").await.unwrap();
    store.change(vec![web(3)]).await.unwrap();
    let counts = store.counts().await.unwrap();
    // Without `close`: as a host that just ends would.
    drop(store);

    let store = fixture.open();
    assert_eq!(store.counts().await.unwrap(), counts);
    assert_eq!(store.get(ids[2].id).await.unwrap().unwrap().payload, [7; 9]);
    assert_eq!(store.cursor("clock").await.unwrap(), Some(Timestamp(5)));
    assert_eq!(store.history("clock", 9).await.unwrap().len(), 1);
    assert_eq!(store.load().await.unwrap()["web"], 3);

    assert_eq!(store.free_leases("host/").await.unwrap(), 1);
    let again = store.claim(claim()).await.unwrap().remove(0);
    assert_eq!((again.lease.id, again.attempt), (leased.lease.id, 2));
    assert_eq!(store.complete(leased.lease).await.unwrap(), Settled::Stale);
    assert_eq!(store.complete(again.lease).await.unwrap(), Settled::Done);
}

#[tokio::test]
async fn a_copy_taken_without_closing_holds_what_was_answered() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let id = store.enqueue(vec![job(100)]).await.unwrap()[0].id;
    let copy = Fixture::new();
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(fixture.folder.path().join(name), copy.folder.path().join(name)).unwrap();
    }
    assert!(copy.open().get(id).await.unwrap().is_some());
}

#[test]
fn a_newer_schema_is_refused() {
    let fixture = Fixture::new();
    let connection = new_file(&fixture.path());
    connection.pragma_update(None, "user_version", 1_000).unwrap();
    drop(connection);
    let error = SqliteStore::open(&fixture.path()).err().unwrap();
    let path = fixture.path().display().to_string();
    assert_eq!(error, StoreError::NewerSchema { path, found: 1_000, known: 4 });
    assert!(error.to_string().contains("run a newer one"));
}

#[test]
fn what_is_no_database_is_reported_and_kept() {
    for content in [&b"not a database, but somebody's only copy of a poem"[..], &[0x5a; 20_000]] {
        let text = Fixture::new().refusal(content);
        assert!(text.contains("is not a SQLite database, and was left as it is"), "{text}");
    }
}

#[test]
fn another_programs_database_is_reported_and_kept() {
    let fixture = Fixture::new();
    let connection = Connection::open(fixture.path()).unwrap();
    connection.execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    drop(connection);
    let content = std::fs::read(fixture.path()).unwrap();
    let text = fixture.refusal(&content);
    assert!(text.contains("is another program's database, and was left as it is"), "{text}");
}

#[test]
fn a_damaged_file_is_reported() {
    let fixture = Fixture::new();
    drop(new_file(&fixture.path()));
    let mut content = std::fs::read(fixture.path()).unwrap();
    content[100..].fill(0xff);
    let text = fixture.refusal(&content);
    assert!(text.contains("damaged"), "{text}");
}

#[test]
fn an_empty_file_becomes_a_store() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path(), b"").unwrap();
    fixture.open();
}

#[test]
fn what_cannot_be_written_says_what_to_do() {
    let fixture = Fixture::new();
    let refused = |path: PathBuf| SqliteStore::open(&path).err().expect("refused").to_string();
    // Nobody can make a file in /proc, root neither.
    if cfg!(target_os = "linux") {
        let text = refused(PathBuf::from("/proc/store.db"));
        assert!(
            text.starts_with("/proc/store.db can't be created") && text.contains("[store] url"),
            "{text}"
        );
    }
    let text = refused(fixture.folder.path().join("no/such/folder/store.db"));
    assert!(text.contains("can't be created") && text.contains("directory"), "{text}");
    // A directory is no file.
    let text = refused(fixture.folder.path().to_path_buf());
    assert!(text.contains("can't be opened"), "{text}");
}

#[cfg(unix)]
#[test]
fn what_is_read_only_is_reported() {
    use std::os::unix::fs::PermissionsExt;
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for read_only in ["store.db", "store.db-wal", ""] {
        let fixture = Fixture::new();
        drop(new_file(&fixture.path()));
        assert_eq!(std::fs::metadata(fixture.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let path = fixture.folder.path().join(read_only);
        if read_only == "store.db-wal" {
            std::fs::write(&path, b"").unwrap();
        }
        set_mode(&path, if path.is_dir() { 0o500 } else { 0o400 });
        // Modes don't bind root, who may run the tests.
        let bound = if path.is_dir() {
            std::fs::write(path.join("probe"), b"").is_err()
        } else {
            std::fs::OpenOptions::new().write(true).open(&path).is_err()
        };
        let opened = SqliteStore::open(&fixture.path());
        set_mode(&path, 0o700);
        assert_eq!(opened.is_err(), bound, "{}", path.display());
        if let Err(error) = opened {
            assert!(error.to_string().contains("writable for this user"), "{error}");
            // Nothing was left beside the file that would still be read-only when it no longer is.
            fixture.open();
        }
    }
}

#[test]
fn the_file_is_set_up_for_durability() {
    let fixture = Fixture::new();
    let connection = new_file(&fixture.path());
    let text = |name| connection.pragma_query_value(None, name, |row| row.get::<_, String>(0)).unwrap();
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(text("journal_mode"), "wal");
    assert_eq!((number("synchronous"), number("auto_vacuum"), number("user_version")), (2, 2, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_committed_together() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let before = store.written();
    let go = hold_writer(&store).await;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.enqueue(vec![job(10)]).await })
        })
        .collect();
    while store.writer.waiting() < 100 {
        tokio::task::yield_now().await;
    }
    drop(go);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let after = store.written();
    assert_eq!(after.operations - before.operations, 101);
    // The one that held the writer, and the hundred.
    assert_eq!(after.commits - before.commits, 2);
}

/// Sends these with a job before and one after as one batch, and returns how the made-up one and the jobs fared.
async fn among_neighbours(
    store: &SqliteStore,
    made_up: impl Fn(&Tx<'_>) -> rusqlite::Result<()> + Send + 'static,
) -> (Result<(), StoreError>, Vec<Result<Vec<Enqueued>, EnqueueError>>) {
    let go = hold_writer(store).await;
    // `join!` polls in order: each is in line when the next is polled.
    let (before, made_up, after, ()) = tokio::join!(
        store.enqueue(vec![job(10)]),
        store.write(Custom(made_up)),
        store.enqueue(vec![job(10)]),
        async { drop(go) }
    );
    (made_up, vec![before, after])
}

#[tokio::test]
async fn one_that_fails_does_not_fail_its_neighbours() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let (made_up, jobs) = among_neighbours(&store, |tx| {
        tx.sql("INSERT INTO counts (process_type, count) VALUES ('half', 1)")?.execute([])?;
        tx.sql("INSERT INTO counts (process_type, count) VALUES ('whole', NULL)")?.execute([]).map(drop)
    })
    .await;
    assert!(matches!(made_up, Err(StoreError::Backend(_))));
    assert!(jobs.iter().all(Result::is_ok));
    assert!(store.load().await.unwrap().is_empty());
    assert_eq!(store.counts().await.unwrap()[0].available, 2);
}

#[tokio::test]
async fn a_commit_that_fails_fails_all_of_its_batch() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let changes = store.changes();
    // A deferred constraint is looked at by COMMIT.
    let (made_up, jobs) = among_neighbours(&store, |tx| {
        tx.connection().execute_batch(
            "CREATE TABLE a (id INTEGER PRIMARY KEY);
             CREATE TABLE b (a INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO b VALUES (1);",
        )
    })
    .await;
    assert!(matches!(made_up, Err(StoreError::Unavailable(_))), "{made_up:?}");
    for result in jobs {
        assert!(matches!(result, Err(EnqueueError::Store(StoreError::Unavailable(_)))));
    }
    assert!(!changes.has_changed().unwrap());
    assert_eq!(store.counts().await.unwrap(), []);
    store.enqueue(vec![job(10)]).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let limit_pages = |pages: u32| {
        Custom(move |tx: &Tx<'_>| {
            tx.connection().query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
        })
    };
    let leased = store.enqueue(vec![job(10)]).await.unwrap()[0].id;
    let lease = store.claim(claim()).await.unwrap()[0].lease;
    store.write(limit_pages(100)).await.unwrap();
    let batch = vec![job(10), job(200_000), job(400_000)];
    match store.enqueue(batch.clone()).await {
        Err(EnqueueError::Store(StoreError::Full(text))) => assert!(text.contains("full"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.counts().await.unwrap()[0].available, 0);
    // An answer needs no room, and still works.
    assert_eq!(store.complete(lease).await.unwrap(), Settled::Done);
    assert_eq!(store.get(leased).await.unwrap().unwrap().view.state, JobState::Done);
    store.write(limit_pages(1_000_000)).await.unwrap();
    assert_eq!(store.enqueue(batch).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_claim_without_a_caller_is_undone() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let id = store.enqueue(vec![job(10)]).await.unwrap()[0].id;
    let mut changes = store.changes();
    changes.mark_unchanged();
    let go = hold_writer(&store).await;
    let waiting = tokio::time::timeout(Duration::ZERO, store.claim(claim())).await;
    assert!(waiting.is_err());
    drop(go);
    tokio::time::timeout(Duration::from_secs(60), changes.changed())
        .await
        .expect("it is given back")
        .unwrap();
    let view = store.get(id).await.unwrap().unwrap().view;
    // It was claimed, and is back.
    assert_eq!((view.state, view.claim, view.attempt), (JobState::Available, 1, 0));
}

#[tokio::test]
async fn closing_finishes_what_was_accepted() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let go = hold_writer(&store).await;
    let (accepted, (), (), ()) = tokio::join!(
        store.enqueue(vec![job(10)]),
        store.close(),
        // A second one waits for the same end.
        store.close(),
        async { drop(go) }
    );
    let id = accepted.unwrap()[0].id;
    // The last connection to close tidied up.
    assert!(!fixture.folder.path().join("store.db-wal").exists());
    let closed = StoreError::Closed;
    assert_eq!(store.enqueue(vec![job(10)]).await, Err(EnqueueError::Store(closed.clone())));
    assert_eq!(store.get(id).await.err(), Some(closed.clone()));
    assert_eq!(store.claim(claim()).await.err(), Some(closed));
    store.close().await;
    assert!(fixture.open().get(id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_dropped_store_closes_its_file() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.enqueue(vec![job(10)]).await.unwrap();
    let mut changes = store.changes();
    changes.mark_unchanged();
    drop(store);
    // The writer's end of it goes when the writer does.
    assert!(changes.changed().await.is_err());
}

#[tokio::test]
async fn pruning_shortens_the_file() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let jobs = store.enqueue(vec![job(1 << 20); 16]).await.unwrap().len();
    for leased in store.claim(Claim { limit: 16, ..claim() }).await.unwrap() {
        store.complete(leased.lease).await.unwrap();
    }
    let pages = async || {
        store
            .read(|connection, _| connection.query_row("PRAGMA page_count", [], |row| row.get::<_, u64>(0)))
            .await
    };
    let before = pages().await.unwrap();
    let none = Retention { done_for: Duration::ZERO, done_max: 0, ..Retention::default() };
    assert_eq!(store.prune(none).await.unwrap(), jobs as u64);
    for _ in 0..20 {
        store.prune(none).await.unwrap();
    }
    let after = pages().await.unwrap();
    assert!(after < before / 2, "{before} pages, then {after}");
}

#[tokio::test]
async fn people_may_change_tables_with_sqlite3() {
    let fixture = Fixture::new();
    let store = fixture.open();
    store.enqueue(vec![job(10), job(10), job(10)]).await.unwrap();
    let other = Connection::open(fixture.path()).unwrap();
    other
        .execute_batch("DELETE FROM jobs WHERE id = 1; UPDATE jobs SET state = 'dead' WHERE id = 2")
        .unwrap();
    let left: u64 = other.query_row("SELECT count(*) FROM payloads", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 2);
    let counts = store.counts().await.unwrap().remove(0);
    assert_eq!((counts.available, counts.dead), (1, 1));
    assert_eq!(store.claim(claim()).await.unwrap()[0].lease.id, JobId(3));
}
