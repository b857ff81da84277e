//! Files that are old, damaged, full or copied.

use super::tests::{Fixture, claim, job, web};
use super::*;
use crate::jobs::{JobState, Order, Unique, UniqueScope};
use crate::ticks::{Begun, TickResult};
use crate::{Counts, Ticks};

/// A file as version 1 left it, with jobs in all states.
fn version_1(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch(include_str!("schema_1.sql")).unwrap();
    connection
        .execute_batch(
            "INSERT INTO jobs (id, queue, state, unique_key, enqueued_at, run_at, attempt, attempts_max, crashes,
                               claim, lease_owner, lease_until, ended_at, last_error) VALUES
               (1, 'mail', 'scheduled', 'a', 1, 9000000000000, 0, NULL, 0, 0, NULL, NULL, NULL, NULL),
               (2, 'mail', 'available', 'b', 1, 1, 0, NULL, 0, 0, NULL, NULL, NULL, NULL),
               (3, 'mail', 'leased', 'c', 1, 1, 1, 25, 0, 1, 'host/old', 9000000000000, NULL, NULL),
               (4, 'mail', 'retrying', 'd', 1, 9000000000000, 1, 25, 0, 1, NULL, NULL, NULL, 'it failed'),
               (5, 'mail', 'done', 'a', 1, 1, 1, 25, 0, 1, NULL, NULL, 2, NULL),
               (6, 'mail', 'dead', 'b', 1, 1, 25, 25, 3, 25, NULL, NULL, 2, 'it failed'),
               (7, 'mail', 'cancelled', NULL, 1, 1, 0, NULL, 0, 0, NULL, NULL, 2, NULL);
             INSERT INTO payloads (job_id, content_type, metadata, payload) SELECT id, '', NULL, x'07' FROM jobs;
             INSERT INTO ticks (schedule, nominal, manual, started_at, ended_at, error) VALUES
               ('clock', 1, 0, 1, 2, NULL), ('clock', 2, 0, 2, 3, 'no'), ('clock', 3, 1, 3, NULL, NULL),
               ('clock', 4, 0, 4, 5, 'skipped: the tick before it was still running');
             INSERT INTO schedules VALUES ('clock', 4);
             INSERT INTO counts VALUES ('web', 3);
             PRAGMA application_id = 2003658867;
             PRAGMA user_version = 1;",
        )
        .unwrap();
}

#[tokio::test]
async fn a_file_of_version_1_is_migrated() {
    let fixture = Fixture::new();
    version_1(&fixture.path());
    let store = fixture.open();
    for (id, state) in (1..).map(JobId).zip(JobState::ALL) {
        let detail = store.get(id).await.unwrap().unwrap();
        assert_eq!((detail.view.state, detail.payload.as_slice()), (state, &[7][..]));
        let only = JobFilter { states: vec![state], ..JobFilter::default() };
        let listed = store.list(only, Page { order: Order::Oldest, ..Page::default() }).await.unwrap();
        assert!(listed.len() == 1 && listed[0].id == id);
    }
    // Keys of jobs that haven't ended are held, others aren't.
    let keyed = |key: &str| {
        let unique = Unique { key: key.to_string(), scope: UniqueScope::Running };
        vec![NewJob { unique: Some(unique), ..job(1) }]
    };
    for (key, holder) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        let receipt = store.enqueue(keyed(key)).await.unwrap()[0];
        assert_eq!(receipt, Enqueued { id: JobId(holder), created: false });
    }
    assert_eq!(store.retry(JobId(6)).await.unwrap(), Intervened::KeyHeld { holder: JobId(2) });
    assert_eq!(store.free_leases("host/").await.unwrap(), 1);
    let jobs = store.claim(Claim { limit: 9, ..claim() }).await.unwrap();
    assert_eq!(jobs.len(), 2);
    for leased in jobs {
        assert_eq!(store.complete(leased.lease).await.unwrap(), Settled::Done);
    }
    assert!(store.enqueue(keyed("b")).await.unwrap()[0].created);
    let ticks = store.history("clock", 9).await.unwrap();
    use TickResult::*;
    let results: Vec<TickResult> = ticks.iter().map(|tick| tick.result).collect();
    assert_eq!(results, [Skipped, Interrupted, Failed, Done]);
    assert_eq!(store.load().await.unwrap()["web"], 3);
    store.close().await;
    fixture.open();
}

#[tokio::test]
async fn a_file_of_version_2_is_migrated() {
    let fixture = Fixture::new();
    version_1(&fixture.path());
    let connection = Connection::open(fixture.path()).unwrap();
    connection.execute_batch(include_str!("schema_2.sql")).unwrap();
    connection
        .execute_batch("UPDATE jobs SET unique_scope = 'waiting' WHERE id IN (1, 2); PRAGMA user_version = 2")
        .unwrap();
    drop(connection);
    let store = fixture.open();
    // Ids go on: an older wasmhost has kept no mark beside the file.
    let keyed = |key: &str, max_bytes| {
        let unique = Unique { key: key.to_string(), scope: UniqueScope::Waiting };
        vec![NewJob { unique: Some(unique), max_bytes: Some(max_bytes), ..job(1) }]
    };
    assert_eq!(store.enqueue(keyed("new", 1 << 20)).await.unwrap()[0].id, JobId(8));
    // Scheduled, available, retrying, and the new one: a byte of payload each.
    let bytes = 4 * (crate::jobs::JOB_BYTES + 1);
    let full = store.enqueue(keyed("newer", bytes)).await;
    assert_eq!(full, Err(EnqueueError::FullOfBytes { queue: "mail".to_string(), bytes, max: bytes }));
    // A key is held until the call begins.
    let leased = store.claim(claim()).await.unwrap().remove(0);
    assert_eq!((leased.lease.id, leased.holds_key, leased.alone), (JobId(2), true, false));
    assert!(!store.enqueue(keyed("b", 1 << 20)).await.unwrap()[0].created);
    assert!(store.begin_call(leased.lease).await.unwrap());
    assert!(store.enqueue(keyed("b", 1 << 20)).await.unwrap()[0].created);
    // A schedule is taken for what it is now, and goes on.
    assert_eq!(store.begin_schedule("clock", "0 4 * * * UTC").await, Begun::After(Timestamp(4)));
    assert_eq!(store.begin_schedule("clock", "0 9 * * * UTC").await, Begun::Changed);
}

#[tokio::test]
async fn a_file_of_version_3_is_migrated() {
    use crate::releases::{NewRelease, Releases};
    let fixture = Fixture::new();
    version_1(&fixture.path());
    let connection = Connection::open(fixture.path()).unwrap();
    for step in [include_str!("schema_2.sql"), include_str!("schema_3.sql"), "PRAGMA user_version = 3"] {
        connection.execute_batch(step).unwrap();
    }
    drop(connection);
    let store = fixture.open();
    assert_eq!(store.live().await.unwrap(), None);
    let release = NewRelease {
        author: "start".to_string(),
        of_file: true,
        formation: "[process.web]".to_string(),
        dotenv: None,
        fingerprint: "print".to_string(),
        components: Vec::new(),
    };
    assert_eq!(store.add(release).await.unwrap(), 1);
    store.make_live(1).await.unwrap();
    store.close().await;
    // Jobs are as they were, and the release outlives the host.
    let store = fixture.open();
    assert_eq!(store.get(JobId(7)).await.unwrap().unwrap().view.state, JobState::Cancelled);
    assert_eq!(store.live().await.unwrap().unwrap().formation, "[process.web]");
}

impl SqliteStore {
    async fn begin_schedule(&self, schedule: &str, times: &str) -> Begun {
        Ticks::begin(self, schedule, times, Timestamp(9)).await.unwrap()
    }
}

/// A closed store with so many jobs of 1,000 bytes, and its content.
async fn filled(fixture: &Fixture, jobs: usize) -> Vec<u8> {
    let store = fixture.open();
    for _ in 0..jobs / 1_000 {
        store.enqueue(vec![job(1_000); 1_000]).await.unwrap();
    }
    store.close().await;
    std::fs::read(fixture.path()).unwrap()
}

/// Uses the store until it says that its file is damaged.
async fn until_damaged(path: &Path) -> String {
    let store = match SqliteStore::open(path) {
        Ok(store) => store,
        Err(error) => return error.to_string(),
    };
    let failed = async {
        for _ in 0..2_000 {
            if let Err(error) = store.get(JobId(1)).await {
                return error;
            }
            match store.claim(Claim { limit: 10, ..claim() }).await {
                Err(error) => return error,
                Ok(jobs) if jobs.is_empty() => break,
                Ok(_) => {}
            }
        }
        panic!("the damage was not seen");
    };
    let error = failed.await;
    assert!(matches!(error, StoreError::Damaged(_)), "{error:?}");
    store.close().await;
    error.to_string()
}

#[tokio::test]
async fn damage_is_told_with_what_to_do() {
    let fixture = Fixture::new();
    let content = filled(&fixture, 3_000).await;
    let middle = content.len() / 3..content.len() * 2 / 3;
    let truncated = content[..content.len() / 2].to_vec();
    let mut zeroed = content.clone();
    zeroed[middle.clone()].fill(0);
    let mut garbled = content.clone();
    garbled[middle].iter_mut().for_each(|byte| *byte = fastrand::u8(..));
    for damaged in [truncated, zeroed, garbled] {
        let fixture = Fixture::new();
        std::fs::write(fixture.path(), &damaged).unwrap();
        let text = until_damaged(&fixture.path()).await;
        let path = fixture.path().display().to_string();
        for part in [path.as_str(), "is damaged", "is kept as it is", "stop the host", "backup", ".recover"] {
            assert!(text.contains(part), "{part} in: {text}");
        }
    }
}

#[tokio::test]
async fn nothing_is_written_to_a_file_once_it_was_found_damaged() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let made_up = store.write(Corrupt).await;
    assert!(matches!(made_up, Err(StoreError::Damaged(_))), "{made_up:?}");
    let refused = store.enqueue(vec![job(10)]).await;
    assert!(matches!(refused, Err(EnqueueError::Store(StoreError::Damaged(_)))));
    store.close().await;
    // The log is kept too.
    assert!(fixture.folder.path().join("store.db-wal").exists());
}

/// The error of SQLite about a damaged page.
struct Corrupt;

impl Write for Corrupt {
    type Answer = ();

    fn apply(&self, _: &writer::Tx<'_>) -> rusqlite::Result<()> {
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None))
    }
}

#[tokio::test]
async fn a_garbled_end_of_the_log_costs_nothing_that_was_answered() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let id = store.enqueue(vec![job(5_000)]).await.unwrap()[0].id;
    let copy = Fixture::new();
    std::fs::copy(fixture.path(), copy.path()).unwrap();
    let mut log = std::fs::read(fixture.folder.path().join("store.db-wal")).unwrap();
    log.extend((0..20_000).map(|_| fastrand::u8(..)));
    std::fs::write(copy.folder.path().join("store.db-wal"), log).unwrap();
    let store = copy.open();
    assert_eq!(store.get(id).await.unwrap().unwrap().payload, [7; 5_000]);
    assert_eq!(store.claim(claim()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_backup_is_a_store() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let ids = store.enqueue(vec![job(100); 50]).await.unwrap();
    let done = store.claim(claim()).await.unwrap().remove(0);
    store.complete(done.lease).await.unwrap();
    let to = fixture.folder.path().join("copies");
    std::fs::create_dir(&to).unwrap();
    // While others write.
    let busy = {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                store.enqueue(vec![job(100)]).await.unwrap();
            }
        })
    };
    store.backup(&to.join("backup.db")).await.unwrap();
    busy.await.unwrap();
    let names: Vec<_> = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["backup.db"]);

    let copy = SqliteStore::open(&to.join("backup.db")).unwrap();
    for receipt in &ids {
        assert!(copy.get(receipt.id).await.unwrap().is_some());
    }
    assert_eq!(copy.get(done.lease.id).await.unwrap().unwrap().view.state, JobState::Done);
    // Ids go on after the last one.
    assert!(copy.enqueue(vec![job(1)]).await.unwrap()[0].id > ids[49].id);
}

#[tokio::test]
async fn a_backup_replaces_nothing_and_leaves_no_parts() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let path = fixture.folder.path().join("poem");
    std::fs::write(&path, "roses").unwrap();
    let error = store.backup(&path).await.err().unwrap().to_string();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"roses");
    // Nor the store itself.
    assert!(store.backup(&fixture.path()).await.is_err());
    let error = store.backup(&fixture.folder.path().join("no/such/backup")).await.err().unwrap().to_string();
    assert!(error.contains("can't be written"), "{error}");
    let names = || std::fs::read_dir(fixture.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let beside = ["poem", "store.db", "store.db-wal", "store.db-shm", "store.db-host", "store.db-reserve"];
    assert!(
        names().all(|name| beside.contains(&name.to_str().unwrap())),
        "{:?}",
        names().collect::<Vec<_>>()
    );
}

/// A file system of 4 MiB, where this process may mount one.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "wasmhost-test"]).arg(folder.path());
        mount.stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(SmallDisk(folder))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// See also `a_full_disk_is_said_and_survived`, which runs everywhere.
#[cfg(target_os = "linux")]
#[tokio::test]
#[allow(clippy::print_stderr)]
async fn a_disk_that_is_really_full_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: this user may not mount a small file system");
        return;
    };
    let path = disk.0.path().join("store.db");
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let mut stored = Vec::new();
    let error = loop {
        match store.enqueue(vec![job(50_000)]).await {
            Ok(receipts) => stored.push(receipts[0].id),
            Err(error) => break error,
        }
        assert!(stored.len() < 1_000, "the disk is full some time");
    };
    let EnqueueError::Store(StoreError::Full(text)) = &error else { panic!("{error:?}") };
    assert!(text.contains(&path.display().to_string()), "{text}");
    let backup = store.backup(&disk.0.path().join("backup.db")).await;
    assert!(backup.is_err() && !disk.0.path().join("backup.db").exists());
    assert_eq!(store.counts().await.unwrap()[0].available, stored.len() as u64);
    std::fs::remove_file(ballast).unwrap();
    stored.push(store.enqueue(vec![job(50_000)]).await.unwrap()[0].id);
    store.close().await;
    let store = SqliteStore::open(&path).unwrap();
    for id in stored {
        assert_eq!(store.get(id).await.unwrap().unwrap().payload, [7; 50_000]);
    }
    store.close().await;
}

/// To finish and discard jobs makes room, so it goes on where nothing else does.
#[cfg(target_os = "linux")]
#[tokio::test]
#[allow(clippy::print_stderr)]
async fn on_a_full_disk_jobs_are_done_and_discarded_and_then_there_is_room() {
    // Full of jobs, and full of something else.
    for with_ballast in [false, true] {
        let Some(disk) = SmallDisk::mount() else {
            eprintln!("skipped: this user may not mount a small file system");
            return;
        };
        let store = SqliteStore::open(&disk.0.path().join("store.db")).unwrap();
        let ballast = disk.0.path().join("ballast");
        for n in 0..1_000 {
            if store.enqueue(vec![job(20_000)]).await.is_err() {
                break;
            }
            if with_ballast && n == 20 {
                let _ = std::fs::write(&ballast, vec![1; 4 << 20]);
            }
        }
        let full = store.enqueue(vec![job(20_000)]).await;
        assert!(matches!(full, Err(EnqueueError::Store(StoreError::Full(_)))), "{full:?}");
        // A person looks at it for a while, and the worker goes on.
        for _ in 0..5 {
            let leased = store.claim(claim()).await.unwrap().remove(0);
            assert_eq!(store.complete(leased.lease).await.unwrap(), Settled::Done);
        }
        store.change(vec![web(2)]).await.unwrap();
        store.pause("mail").await.unwrap();
        let full = store.enqueue(vec![job(1)]).await;
        assert!(
            matches!(full, Err(EnqueueError::Store(StoreError::Full(_)))),
            "the room is for others: {full:?}"
        );
        let all = store.counts().await.unwrap().remove(0);
        let swept = store.discard_all(JobFilter::default()).await.unwrap();
        assert_eq!(swept.changed, all.available + all.done);
        if with_ballast {
            std::fs::remove_file(&ballast).unwrap();
        }
        let started = std::time::Instant::now();
        while let Err(error) = store.enqueue(vec![job(20_000)]).await {
            assert!(started.elapsed().as_secs() < 60, "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        store.close().await;
        // It can be started there, too.
        let store = SqliteStore::open(&disk.0.path().join("store.db")).unwrap();
        assert_eq!(store.counts().await.unwrap()[0].available, 1);
        store.close().await;
    }
}
