//! Properties of a store of one host: its clock that doesn't step, the files beside the database, backups, and files that go
//! while they are in use.

use std::time::Duration;

use super::tests::{Fixture, claim, job, web};
use super::*;
use crate::{Counts, ManualClock};

impl Fixture {
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

async fn put(store: &SqliteStore) -> i64 {
    store.enqueue(vec![job(100)]).await.unwrap()[0].id.0
}

fn refusal(path: &Path) -> String {
    SqliteStore::open(path).err().expect("it is refused").to_string()
}

#[tokio::test]
async fn a_second_host_is_refused_by_whatever_name_it_comes() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let link = fixture.beside("link.db");
    std::os::unix::fs::symlink(fixture.path(), &link).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(fixture.folder.path(), folder.path().join("folder")).unwrap();
    let by_folder = folder.path().join("folder/store.db");
    let by_dots = fixture.folder.path().join(".").join("store.db");
    for path in [fixture.path(), link.clone(), by_folder, by_dots] {
        let text = refusal(&path);
        assert!(text.contains("another host uses") && text.contains("[store] url"), "{text}");
    }
    put(&store).await;
    store.close().await;
    let store = SqliteStore::open(&link).unwrap();
    assert_eq!(put(&store).await, 2);
    assert!(!fixture.beside("link.db-wal").exists(), "it is the same store");
    // SQLite would have a log for each name.
    store.close().await;
    std::fs::hard_link(fixture.path(), fixture.beside("second.db")).unwrap();
    for name in ["store.db", "second.db"] {
        assert!(refusal(&fixture.beside(name)).contains("2 names (hard links)"));
    }
}

/// The next operation sees what has become of the files.
async fn until_looked() {
    tokio::time::sleep(presence::SEEN_FOR * 2).await;
}

#[tokio::test]
async fn a_file_that_goes_while_it_is_in_use_is_told_and_nothing_more_is_stored() {
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let fixture = Fixture::new();
        let store = fixture.open();
        let id = store.enqueue(vec![job(10)]).await.unwrap()[0].id;
        let (file, elsewhere) = (fixture.beside(name), fixture.beside("elsewhere"));
        let refused = async |told: &str| {
            let refused = store.enqueue(vec![job(10)]).await.err().unwrap();
            let EnqueueError::Store(StoreError::Gone(text)) = &refused else { panic!("{name}: {refused:?}") };
            assert!(text.contains(file.to_str().unwrap()) && text.contains(told), "{text}");
            assert!(matches!(store.claim(claim()).await, Err(StoreError::Gone(_))));
            assert!(matches!(store.change(vec![web(1)]).await, Err(StoreError::Gone(_))));
        };
        std::fs::rename(&file, &elsewhere).unwrap();
        until_looked().await;
        refused("deleted").await;
        std::fs::copy(&elsewhere, &file).unwrap();
        refused("replaced").await;
        // People can look, and copy what is open.
        assert!(store.get(id).await.unwrap().is_some());
        let copy = fixture.beside("copy.db");
        store.backup(&copy).await.unwrap();
        // Put back it is the same as before.
        std::fs::rename(&elsewhere, &file).unwrap();
        assert_eq!(store.enqueue(vec![job(10)]).await.unwrap()[0].id, JobId(id.0 + 1));
        store.close().await;
        let copy = SqliteStore::open(&copy).unwrap();
        assert!(copy.get(id).await.unwrap().is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_database_that_is_emptied_is_told() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store).await;
    std::fs::OpenOptions::new().write(true).truncate(true).open(fixture.path()).unwrap();
    until_looked().await;
    let refused = store.enqueue(vec![job(10)]).await.err().unwrap();
    assert!(refused.to_string().contains("was emptied"), "{refused}");
}

#[tokio::test]
async fn what_takes_the_place_of_a_store_is_left_alone_when_it_closes() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store).await;
    for name in ["store.db", "store.db-wal"] {
        std::fs::remove_file(fixture.beside(name)).unwrap();
        std::fs::write(fixture.beside(name), "somebody else's").unwrap();
    }
    store.close().await;
    for name in ["store.db", "store.db-wal"] {
        assert_eq!(std::fs::read(fixture.beside(name)).unwrap(), b"somebody else's");
    }
}

#[tokio::test]
async fn a_log_without_its_database_is_refused() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store).await;
    let kept = Fixture::new();
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(fixture.beside(name), kept.beside(name)).unwrap();
    }
    let log = std::fs::read(kept.beside("store.db-wal")).unwrap();
    std::fs::remove_file(kept.path()).unwrap();
    for _ in 0..2 {
        let text = refusal(&kept.path());
        assert!(text.contains("is missing") && text.contains("store.db-wal"), "{text}");
        assert_eq!(std::fs::read(kept.beside("store.db-wal")).unwrap(), log);
        // One that somebody made anew is no better.
        std::fs::write(kept.path(), b"").unwrap();
    }
    std::fs::remove_file(kept.beside("store.db-wal")).unwrap();
    SqliteStore::open(&kept.path()).unwrap();
}

#[tokio::test]
async fn ids_go_on_after_a_clean_end() {
    let fixture = Fixture::new();
    for expected in 1..=3 {
        let store = fixture.open();
        assert_eq!(put(&store).await, expected);
        store.close().await;
    }
}

#[tokio::test]
async fn ids_are_never_used_again_after_a_kill() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let last = (put(&store).await, put(&store).await).1;
    let killed = Fixture::new();
    for name in ["store.db", "store.db-wal", "store.db-host"] {
        std::fs::copy(fixture.beside(name), killed.beside(name)).unwrap();
    }
    let next = put(&killed.open()).await;
    assert!(next > last && next <= last + 2_001, "{next}");
}

/// Ids that were given before a store was put back that was copied by `copy` long before.
async fn restored(fixture: &Fixture, copy: &Path, keeps_mark: bool) -> (i64, i64) {
    let store = fixture.open();
    store.enqueue(vec![job(1); 1_000]).await.unwrap();
    let last = store.enqueue(vec![job(1); 1_000]).await.unwrap()[999].id.0;
    store.close().await;
    for name in fixture.names() {
        if !(keeps_mark && name == "store.db-host") && fixture.beside(&name) != *copy {
            std::fs::remove_file(fixture.beside(&name)).unwrap();
        }
    }
    std::fs::rename(copy, fixture.path()).unwrap();
    let store = fixture.open();
    let next = put(&store).await;
    store.close().await;
    (last, next)
}

#[tokio::test]
async fn ids_are_never_used_again_after_a_restore() {
    for keeps_mark in [true, false] {
        // By a backup, which says itself how old it is.
        let fixture = Fixture::new();
        let store = fixture.open();
        put(&store).await;
        let copy = fixture.beside("copy");
        store.backup(&copy).await.unwrap();
        store.close().await;
        let (last, next) = restored(&fixture, &copy, keeps_mark).await;
        assert!(next > last, "{keeps_mark}: {next} after {last}");
        // It is said once.
        let store = fixture.open();
        assert_eq!(put(&store).await, next + 1);
        store.close().await;

        // By a copy of the file, which doesn't.
        let fixture = Fixture::new();
        let store = fixture.open();
        put(&store).await;
        store.close().await;
        let copy = fixture.beside("copy");
        std::fs::copy(fixture.path(), &copy).unwrap();
        let (last, next) = restored(&fixture, &copy, keeps_mark).await;
        assert!(next > last, "{keeps_mark}: {next} after {last}");
    }
}

#[tokio::test]
async fn an_old_backup_alone_leaves_out_more_ids_than_can_have_been_given() {
    let fixture = Fixture::new();
    let clock = Arc::new(ManualClock::new(Timestamp(1_767_225_600_000)));
    let store = SqliteStore::open_with_clock(&fixture.path(), clock.clone()).unwrap();
    put(&store).await;
    let copy = Fixture::new();
    store.backup(&copy.path()).await.unwrap();
    clock.advance(Duration::from_secs(30 * 86_400));
    let store = SqliteStore::open_with_clock(&copy.path(), clock.clone()).unwrap();
    let next = put(&store).await;
    // 25,000 a second for a month.
    assert!(next > 25_000 * 30 * 86_400 && next < 1 << 53, "{next}");
}

#[tokio::test]
async fn a_backup_that_was_killed_is_cleaned_up() {
    let fixture = Fixture::new();
    fixture.open().close().await;
    let elsewhere = Fixture::new();
    let left = |name: &str| {
        let copy = elsewhere.beside(&format!("{name}.partial"));
        std::fs::write(&copy, "half").unwrap();
        let note = fixture.beside(&format!("store.db-copying-{name}"));
        std::fs::write(&note, copy.to_str().unwrap()).unwrap();
        note
    };
    left("killed");
    let under_way = std::fs::File::open(left("under-way")).unwrap();
    under_way.lock().unwrap();
    // A note that names something else is no order to delete it.
    std::fs::write(elsewhere.beside("poem"), "roses").unwrap();
    let note = fixture.beside("store.db-copying-0");
    std::fs::write(note, elsewhere.beside("poem").to_str().unwrap()).unwrap();
    fixture.open();
    let mut names = elsewhere.names();
    names.sort();
    assert_eq!(names, ["poem", "under-way.partial"]);
    assert!(
        fixture.names().iter().filter(|name| name.contains("copying")).eq(["store.db-copying-under-way"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_to_one_name_leave_one_and_no_parts() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store).await;
    let to = Fixture::new();
    let path = to.path();
    let (one, other) = tokio::join!(store.backup(&path), store.backup(&path));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    assert_eq!(to.names(), ["store.db"]);
    assert!(!fixture.names().iter().any(|name| name.contains("copying")));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_a_backup_that_is_under_way() {
    let fixture = Fixture::new();
    let store = fixture.open();
    for _ in 0..20 {
        store.enqueue(vec![job(1 << 20); 8]).await.unwrap();
    }
    let to = Fixture::new();
    let path = to.path();
    let copying = {
        let (store, path) = (store.clone(), path.clone());
        tokio::spawn(async move { store.backup(&path).await })
    };
    while to.names().is_empty() && !copying.is_finished() {
        tokio::task::yield_now().await;
    }
    store.close().await;
    let copied = copying.await.unwrap();
    assert_eq!(to.names(), if copied.is_ok() { vec!["store.db"] } else { vec![] });
    assert!(!fixture.names().iter().any(|name| name.contains("copying")));
    assert!(!fixture.beside("store.db-wal").exists(), "the log was tidied away");
}

#[tokio::test]
async fn a_store_that_nobody_has_open_is_copied_as_it_is() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store).await;
    let killed = Fixture::new();
    for name in ["store.db", "store.db-wal"] {
        std::fs::copy(fixture.beside(name), killed.beside(name)).unwrap();
    }
    let copies = Fixture::new();
    SqliteStore::copy_file(&killed.path(), &copies.beside("a.db")).unwrap();
    // One that is in use, too.
    SqliteStore::copy_file(&fixture.path(), &copies.beside("b.db")).unwrap();
    for name in ["a.db", "b.db"] {
        assert_eq!(SqliteStore::open(&copies.beside(name)).unwrap().counts().await.unwrap()[0].available, 1);
    }
    std::fs::write(copies.beside("poem"), "roses").unwrap();
    assert!(SqliteStore::copy_file(&copies.beside("poem"), &copies.beside("c.db")).is_err());
}

/// The errors of SQLite about a damaged page, and about one that it couldn't read.
fn corrupt() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)
}

#[tokio::test]
async fn damage_that_a_reader_finds_stops_the_writer() {
    let fixture = Fixture::new();
    let store = fixture.open();
    put(&store).await;
    let read: Result<(), _> = store.read(|_, _| Err(corrupt())).await;
    assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
    let refused = store.enqueue(vec![job(10)]).await;
    assert!(matches!(refused, Err(EnqueueError::Store(StoreError::Damaged(_)))), "{refused:?}");
}

#[tokio::test]
async fn a_page_that_could_not_be_read_once_is_no_damage() {
    let fixture = Fixture::new();
    let store = fixture.open();
    let tries = std::sync::atomic::AtomicU32::new(0);
    let read = store.read(move |_, _| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Err(corrupt()),
        tries => Ok(tries),
    });
    assert_eq!(read.await.unwrap(), 1);
    put(&store).await;
}

#[tokio::test]
async fn a_file_that_can_not_be_read_is_no_damage() {
    // A directory is read by nobody.
    let folder = tempfile::tempdir().unwrap();
    let damage = Damage::of(folder.path());
    let error = damage.judge(StoreError::Damaged("it is".to_string()));
    assert!(matches!(error, StoreError::Unavailable(_)) && damage.found().is_none(), "{error:?}");
}

#[tokio::test]
async fn leases_survive_steps_of_the_wall_clock() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let lease = claim().lease;
    let start = Timestamp(0) + 1_000 * HOUR;
    let clock = Arc::new(ManualClock::new(start));
    let store = SqliteStore::in_memory_with_clock(clock.clone()).unwrap();
    let id = store.enqueue(vec![job(1)]).await.unwrap()[0].id;
    let leased = store.claim(claim()).await.unwrap().remove(0);
    let mail = ["mail".to_string()];
    for step in [start + HOUR, start - HOUR] {
        clock.set(step);
        assert_eq!(store.claim(claim()).await.unwrap(), []);
        assert_eq!(store.renew(vec![leased.lease], lease).await.unwrap(), []);
        // As the wall clock will show it, whatever it was when the lease began.
        assert_eq!(store.next_due(&mail).await.unwrap(), Some(step + lease));
    }
    // Time that passes ends it all the same.
    clock.advance(lease);
    assert_eq!(store.claim(claim()).await.unwrap()[0].lease.id, id);
    // Due times follow the wall clock.
    let later = NewJob { run_at: Some(clock.now() + HOUR), ..job(1) };
    store.enqueue(vec![later]).await.unwrap();
    assert_eq!(store.claim(claim()).await.unwrap(), []);
    clock.set(clock.now() + HOUR);
    assert_eq!(store.claim(claim()).await.unwrap().len(), 1);
}
