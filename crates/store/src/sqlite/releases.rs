//! Releases in SQLite: an index allows one live release.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::SqliteStore;
use super::operation::Write;
use super::writer::Tx;
use crate::releases::{self, NewRelease, RELEASES_MAX, Release, ReleaseComponent, ReleaseState, Releases};
use crate::{StoreError, rules};

#[async_trait]
impl Releases for SqliteStore {
    async fn add(&self, release: NewRelease) -> Result<u64, StoreError> {
        releases::check(&release)?;
        self.write(Add(release)).await
    }

    async fn make_live(&self, number: u64) -> Result<(), StoreError> {
        let found = self.write(MakeLive(number)).await?;
        match found {
            Some(ReleaseState::Pending | ReleaseState::Live) => Ok(()),
            other => Err(releases::cannot_become(number, other, ReleaseState::Live)),
        }
    }

    async fn fail(&self, number: u64, why: String) -> Result<(), StoreError> {
        let found = self.write(Fail { number, why: rules::cut(why) }).await?;
        match found {
            Some(ReleaseState::Pending) => Ok(()),
            other => Err(releases::cannot_become(number, other, ReleaseState::Failed)),
        }
    }

    async fn retry(&self, number: u64) -> Result<(), StoreError> {
        let found = self.write(Retry(number)).await?;
        match found {
            Some(ReleaseState::Failed) => Ok(()),
            other => Err(releases::cannot_become(number, other, ReleaseState::Pending)),
        }
    }

    async fn fail_pending(&self, why: &str) -> Result<Vec<u64>, StoreError> {
        self.write(FailPending { why: rules::cut(why.to_string()) }).await
    }

    async fn live(&self) -> Result<Option<Release>, StoreError> {
        self.read(|connection, _| live(connection)).await
    }

    async fn release(&self, number: u64) -> Result<Option<Release>, StoreError> {
        // No release has a number that SQLite can't hold.
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        self.read(move |connection, _| of_number(connection, number)).await
    }

    async fn latest_of_file(&self) -> Result<Option<Release>, StoreError> {
        const LATEST: &str = "WHERE of_file = 1 ORDER BY number DESC LIMIT 1";
        self.read(|connection, _| Ok(find(connection, LATEST, [])?.pop())).await
    }

    async fn live_before(&self, number: u64) -> Result<Option<Release>, StoreError> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.read(move |connection, _| live_before(connection, number)).await
    }

    async fn last_replaced(&self) -> Result<Option<Release>, StoreError> {
        const LAST: &str = "WHERE state = 'replaced' ORDER BY live_at DESC, number DESC LIMIT 1";
        self.read(|connection, _| Ok(find(connection, LAST, [])?.pop())).await
    }

    async fn numbers(&self, limit: u32) -> Result<Vec<u64>, StoreError> {
        self.read(move |connection, _| numbers(connection, limit)).await
    }

    async fn forget(&self, keep: u32) -> Result<Vec<String>, StoreError> {
        self.write(Forget { keep }).await
    }
}

pub(super) fn live(connection: &Connection) -> rusqlite::Result<Option<Release>> {
    Ok(find(connection, "WHERE state = 'live'", [])?.pop())
}

pub(super) fn of_number(connection: &Connection, number: i64) -> rusqlite::Result<Option<Release>> {
    Ok(find(connection, "WHERE number = ?1", [number])?.pop())
}

pub(super) fn live_before(connection: &Connection, number: i64) -> rusqlite::Result<Option<Release>> {
    const BEFORE: &str = "WHERE number < ?1 AND live_at IS NOT NULL ORDER BY number DESC LIMIT 1";
    Ok(find(connection, BEFORE, [number])?.pop())
}

pub(super) fn numbers(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<u64>> {
    const NUMBERS: &str = "SELECT number FROM releases ORDER BY number DESC LIMIT ?1";
    let limit = limit.min(RELEASES_MAX);
    connection.prepare_cached(NUMBERS)?.query_map([limit], |row| row.get(0))?.collect()
}

/// The releases that are meant, with their components: all of it sees one state of the tables.
fn find(connection: &Connection, meant: &str, params: impl Params) -> rusqlite::Result<Vec<Release>> {
    let snapshot = connection.unchecked_transaction()?;
    let mut found: Vec<Release> = connection
        .prepare_cached(&format!(
            "SELECT number, created_at, live_at, author, of_file, state, why, formation, dotenv, fingerprint
             FROM releases {meant}"
        ))?
        .query_map(params, release)?
        .collect::<rusqlite::Result<_>>()?;
    let mut components = connection.prepare_cached(
        "SELECT process, digest, file, bytes FROM release_components WHERE number = ?1 ORDER BY place",
    )?;
    for release in &mut found {
        release.components =
            components.query_map([release.number], component)?.collect::<rusqlite::Result<_>>()?;
    }
    drop(components);
    snapshot.finish()?;
    Ok(found)
}

fn release(row: &Row<'_>) -> rusqlite::Result<Release> {
    Ok(Release {
        number: row.get(0)?,
        created_at: row.get(1)?,
        live_at: row.get(2)?,
        author: row.get(3)?,
        of_file: row.get(4)?,
        state: row.get(5)?,
        why: row.get(6)?,
        formation: row.get(7)?,
        dotenv: row.get(8)?,
        fingerprint: row.get(9)?,
        components: Vec::new(),
    })
}

fn component(row: &Row<'_>) -> rusqlite::Result<ReleaseComponent> {
    Ok(ReleaseComponent { process: row.get(0)?, digest: row.get(1)?, file: row.get(2)?, bytes: row.get(3)? })
}

struct Add(NewRelease);

impl Write for Add {
    type Answer = u64;

    /// As a job is, it is refused on a full disk: the release that serves goes on.
    fn adds(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        self.0.formation.len() + self.0.dotenv.as_ref().map_or(0, String::len)
    }

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<u64> {
        let release = &self.0;
        tx.sql(
            "INSERT INTO releases (state, author, of_file, created_at, fingerprint, formation, dotenv)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            ReleaseState::Pending,
            release.author,
            release.of_file,
            tx.now,
            release.fingerprint,
            release.formation,
            release.dotenv
        ])?;
        let number = tx.last_id();
        let mut insert = tx.sql(
            "INSERT INTO release_components (number, process, place, digest, file, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for (place, component) in release.components.iter().enumerate() {
            let ReleaseComponent { process, digest, file, bytes } = component;
            insert.execute(params![number, process, place, digest, file, bytes])?;
        }
        u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, number))
    }
}

/// Each of the three answers with the state that it found, and does nothing unless it is the right one.
struct MakeLive(u64);

impl Write for MakeLive {
    type Answer = Option<ReleaseState>;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Option<ReleaseState>> {
        let found = state(tx, self.0)?;
        if found == Some(ReleaseState::Pending) {
            tx.sql("UPDATE releases SET state = 'replaced' WHERE state = 'live'")?.execute([])?;
            tx.sql("UPDATE releases SET state = 'live', live_at = ?2 WHERE number = ?1")?
                .execute(params![self.0, tx.now])?;
        }
        Ok(found)
    }
}

struct Fail {
    number: u64,
    why: String,
}

impl Write for Fail {
    type Answer = Option<ReleaseState>;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Option<ReleaseState>> {
        let found = state(tx, self.number)?;
        if found == Some(ReleaseState::Pending) {
            tx.sql("UPDATE releases SET state = 'failed', why = ?2 WHERE number = ?1")?
                .execute(params![self.number, self.why])?;
        }
        Ok(found)
    }
}

struct Retry(u64);

impl Write for Retry {
    type Answer = Option<ReleaseState>;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Option<ReleaseState>> {
        let found = state(tx, self.0)?;
        if found == Some(ReleaseState::Failed) {
            tx.sql("UPDATE releases SET state = 'pending', why = NULL, created_at = ?2 WHERE number = ?1")?
                .execute(params![self.0, tx.now])?;
        }
        Ok(found)
    }
}

fn state(tx: &Tx<'_>, number: u64) -> rusqlite::Result<Option<ReleaseState>> {
    let Ok(number) = i64::try_from(number) else { return Ok(None) };
    tx.sql("SELECT state FROM releases WHERE number = ?1")?.query_row([number], |row| row.get(0)).optional()
}

struct FailPending {
    why: String,
}

impl Write for FailPending {
    type Answer = Vec<u64>;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Vec<u64>> {
        let pending = tx
            .sql("SELECT number FROM releases WHERE state = 'pending' ORDER BY number")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        tx.sql("UPDATE releases SET state = 'failed', why = ?1 WHERE state = 'pending'")?
            .execute([&self.why])?;
        Ok(pending)
    }
}

struct Forget {
    keep: u32,
}

impl Write for Forget {
    type Answer = Vec<String>;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Vec<String>> {
        tx.sql(
            "DELETE FROM releases WHERE state NOT IN ('live', 'pending')
               AND number NOT IN (SELECT number FROM releases ORDER BY number DESC LIMIT ?1)
               AND number NOT IN
                 (SELECT number FROM releases WHERE live_at IS NOT NULL ORDER BY number DESC LIMIT ?1)
               AND number NOT IN (SELECT number FROM releases WHERE of_file = 1 ORDER BY number DESC LIMIT 1)",
        )?
        .execute([self.keep])?;
        tx.sql("SELECT DISTINCT digest FROM release_components ORDER BY digest")?
            .query_map([], |row| row.get(0))?
            .collect()
    }
}
