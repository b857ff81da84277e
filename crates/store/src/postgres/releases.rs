//! Releases in PostgreSQL. Changes of them take a lock, so that one host after another makes them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::PostgresStore;
use super::operation::Write;
use super::reader::{Read, View};
use super::session::{Db, Params};
use super::tx::Tx;
use super::values::{column, u64_at};
use crate::releases::{self, NewRelease, RELEASES_MAX, Release, ReleaseComponent, ReleaseState, Releases};
use crate::{StoreError, rules};

#[async_trait]
impl Releases for PostgresStore {
    async fn add(&self, release: NewRelease) -> Result<u64, StoreError> {
        releases::check(&release)?;
        self.write(Add(release)).await
    }

    async fn make_live(&self, number: u64) -> Result<(), StoreError> {
        match self.write(MakeLive(number)).await? {
            Some(ReleaseState::Pending | ReleaseState::Live) => Ok(()),
            other => Err(releases::cannot_become(number, other, ReleaseState::Live)),
        }
    }

    async fn fail(&self, number: u64, why: String) -> Result<(), StoreError> {
        match self.write(Fail { number, why: column(&rules::cut(why)) }).await? {
            Some(ReleaseState::Pending) => Ok(()),
            other => Err(releases::cannot_become(number, other, ReleaseState::Failed)),
        }
    }

    async fn retry(&self, number: u64) -> Result<(), StoreError> {
        match self.write(Retry(number)).await? {
            Some(ReleaseState::Failed) => Ok(()),
            other => Err(releases::cannot_become(number, other, ReleaseState::Pending)),
        }
    }

    async fn fail_pending(&self, why: &str) -> Result<Vec<u64>, StoreError> {
        self.write(FailPending { why: column(&rules::cut(why.to_string())) }).await
    }

    async fn live(&self) -> Result<Option<Release>, StoreError> {
        self.read(Find::Live).await
    }

    async fn release(&self, number: u64) -> Result<Option<Release>, StoreError> {
        // No release has a number that PostgreSQL can't hold.
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        self.read(Find::Number(number)).await
    }

    async fn latest_of_file(&self) -> Result<Option<Release>, StoreError> {
        self.read(Find::LatestOfFile).await
    }

    async fn live_before(&self, number: u64) -> Result<Option<Release>, StoreError> {
        self.read(Find::LiveBefore(i64::try_from(number).unwrap_or(i64::MAX))).await
    }

    async fn last_replaced(&self) -> Result<Option<Release>, StoreError> {
        self.read(Find::LastReplaced).await
    }

    async fn numbers(&self, limit: u32) -> Result<Vec<u64>, StoreError> {
        self.read(Numbers(limit.min(RELEASES_MAX))).await
    }

    async fn forget(&self, keep: u32) -> Result<Vec<String>, StoreError> {
        self.write(Forget { keep }).await
    }
}

/// Which release is meant.
enum Find {
    Live,
    Number(i64),
    LatestOfFile,
    LiveBefore(i64),
    LastReplaced,
}

#[async_trait]
impl Read for Find {
    type Answer = Option<Release>;

    async fn ask(&self, view: &View<'_>) -> Db<Option<Release>> {
        let (meant, params): (_, Params<'_>) = match self {
            Find::Live => ("WHERE state = 'live'", &[]),
            Find::Number(number) => ("WHERE number = $1", &[number]),
            Find::LatestOfFile => ("WHERE of_file ORDER BY number DESC LIMIT 1", &[]),
            Find::LiveBefore(number) => {
                ("WHERE number < $1 AND live_at IS NOT NULL ORDER BY number DESC LIMIT 1", &[number])
            }
            Find::LastReplaced => {
                ("WHERE state = 'replaced' ORDER BY live_at DESC, number DESC LIMIT 1", &[])
            }
        };
        let find = format!(
            "SELECT number, created_at, live_at, author, of_file, state, why, formation, dotenv, fingerprint
             FROM releases {meant}"
        );
        let found = view.session.query(&find, params).await?;
        let Some(mut release) = found.first().map(release).transpose()? else { return Ok(None) };
        let number = i64::try_from(release.number).unwrap_or(i64::MAX);
        let components = view
            .session
            .query(
                "SELECT process, digest, file, bytes FROM release_components WHERE number = $1 ORDER BY place",
                &[&number],
            )
            .await?;
        release.components = components.iter().map(component).collect::<Db<_>>()?;
        Ok(Some(release))
    }
}

struct Numbers(u32);

#[async_trait]
impl Read for Numbers {
    type Answer = Vec<u64>;

    async fn ask(&self, view: &View<'_>) -> Db<Vec<u64>> {
        const NUMBERS: &str = "SELECT number FROM releases ORDER BY number DESC LIMIT $1";
        let rows = view.session.query(NUMBERS, &[&i64::from(self.0)]).await?;
        rows.iter().map(|row| u64_at(row, 0)).collect()
    }
}

fn release(row: &Row) -> Db<Release> {
    Ok(Release {
        number: u64_at(row, 0)?,
        created_at: row.try_get(1)?,
        live_at: row.try_get(2)?,
        author: row.try_get(3)?,
        of_file: row.try_get(4)?,
        state: row.try_get(5)?,
        why: row.try_get(6)?,
        formation: text(row.try_get(7)?),
        dotenv: row.try_get::<_, Option<&[u8]>>(8)?.map(text),
        fingerprint: text(row.try_get(9)?),
        components: Vec::new(),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn component(row: &Row) -> Db<ReleaseComponent> {
    Ok(ReleaseComponent {
        process: row.try_get(0)?,
        digest: row.try_get(1)?,
        file: row.try_get(2)?,
        bytes: u64_at(row, 3)?,
    })
}

async fn lock(tx: &Tx<'_>) -> Db<()> {
    tx.lock("releases", &BTreeSet::from([String::new()])).await
}

struct Add(NewRelease);

#[async_trait(?Send)]
impl Write for Add {
    type Answer = u64;

    fn bytes(&self) -> usize {
        self.0.formation.len() + self.0.dotenv.as_ref().map_or(0, String::len)
    }

    async fn apply(&self, tx: &Tx<'_>) -> Db<u64> {
        let release = &self.0;
        lock(tx).await?;
        // A sequence would leave out the numbers of transactions that were not committed.
        let rows = tx
            .query(
                "INSERT INTO facts (name, value) VALUES ('last_release', 1)
                 ON CONFLICT (name) DO UPDATE SET value = facts.value + 1 RETURNING value",
                &[],
            )
            .await?;
        let number: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        tx.execute(
            "INSERT INTO releases (number, state, author, of_file, created_at, fingerprint, formation, dotenv)
             VALUES ($1, 'pending', $2, $3, $4, $5, $6, $7)",
            &[
                &number,
                &release.author,
                &release.of_file,
                &tx.now.0,
                &release.fingerprint.as_bytes(),
                &release.formation.as_bytes(),
                &release.dotenv.as_ref().map(String::as_bytes),
            ],
        )
        .await?;
        let components = &release.components;
        let processes: Vec<&str> = components.iter().map(|component| component.process.as_str()).collect();
        let digests: Vec<&str> = components.iter().map(|component| component.digest.as_str()).collect();
        let files: Vec<&str> = components.iter().map(|component| component.file.as_str()).collect();
        let bytes: Vec<i64> =
            components.iter().map(|component| i64::try_from(component.bytes).unwrap_or(i64::MAX)).collect();
        tx.execute(
            "INSERT INTO release_components (number, process, place, digest, file, bytes)
             SELECT $1, process, place::integer, digest, file, bytes
             FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[])
               WITH ORDINALITY AS new (process, digest, file, bytes, place)",
            &[&number, &processes, &digests, &files, &bytes],
        )
        .await?;
        Ok(u64::try_from(number).unwrap_or(0))
    }
}

/// Each of the three answers with the state that it found, and does nothing unless it is the right one.
struct MakeLive(u64);

#[async_trait(?Send)]
impl Write for MakeLive {
    type Answer = Option<ReleaseState>;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Option<ReleaseState>> {
        lock(tx).await?;
        let Some((number, found)) = state(tx, self.0).await? else { return Ok(None) };
        if found == ReleaseState::Pending {
            tx.execute("UPDATE releases SET state = 'replaced' WHERE state = 'live'", &[]).await?;
            let live = "UPDATE releases SET state = 'live', live_at = $2 WHERE number = $1";
            tx.execute(live, &[&number, &tx.now.0]).await?;
        }
        Ok(Some(found))
    }

    /// The second time it is live already.
    fn is_unsure(&mut self, _answer: Option<Self::Answer>, _shared: &super::shared::Shared) -> bool {
        true
    }
}

struct Fail {
    number: u64,
    why: String,
}

#[async_trait(?Send)]
impl Write for Fail {
    type Answer = Option<ReleaseState>;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Option<ReleaseState>> {
        lock(tx).await?;
        let Some((number, found)) = state(tx, self.number).await? else { return Ok(None) };
        if found == ReleaseState::Pending {
            let fail = "UPDATE releases SET state = 'failed', why = $2 WHERE number = $1";
            tx.execute(fail, &[&number, &self.why]).await?;
        }
        Ok(Some(found))
    }
}

struct Retry(u64);

#[async_trait(?Send)]
impl Write for Retry {
    type Answer = Option<ReleaseState>;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Option<ReleaseState>> {
        lock(tx).await?;
        let Some((number, found)) = state(tx, self.0).await? else { return Ok(None) };
        if found == ReleaseState::Failed {
            let retry =
                "UPDATE releases SET state = 'pending', why = NULL, created_at = $2 WHERE number = $1";
            tx.execute(retry, &[&number, &tx.now.0]).await?;
        }
        Ok(Some(found))
    }
}

async fn state(tx: &Tx<'_>, number: u64) -> Db<Option<(i64, ReleaseState)>> {
    let Ok(number) = i64::try_from(number) else { return Ok(None) };
    let rows = tx.query("SELECT state FROM releases WHERE number = $1", &[&number]).await?;
    rows.first().map(|row| Ok((number, row.try_get(0)?))).transpose()
}

struct FailPending {
    why: String,
}

#[async_trait(?Send)]
impl Write for FailPending {
    type Answer = Vec<u64>;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Vec<u64>> {
        lock(tx).await?;
        let fail = "UPDATE releases SET state = 'failed', why = $1 WHERE state = 'pending' RETURNING number";
        let rows = tx.query(fail, &[&self.why]).await?;
        let mut failed = rows.iter().map(|row| u64_at(row, 0)).collect::<Db<Vec<_>>>()?;
        failed.sort_unstable();
        Ok(failed)
    }
}

/// Fails the pending releases before this one, which is deployed now. Hosts follow no release that is older than their own, so
/// none of these may become live any more: not that of a host which stood still meanwhile, either.
pub(super) async fn fail_earlier(tx: &Tx<'_>, number: i64) -> Db<()> {
    lock(tx).await?;
    let fail = "UPDATE releases SET state = 'failed', why = $2 WHERE state = 'pending' AND number < $1";
    let why = format!("v{number} was deployed before it was live");
    tx.execute(fail, &[&number, &why]).await.map(drop)
}

struct Forget {
    keep: u32,
}

#[async_trait(?Send)]
impl Write for Forget {
    type Answer = Vec<String>;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Vec<String>> {
        lock(tx).await?;
        tx.execute(
            "DELETE FROM releases WHERE state NOT IN ('live', 'pending')
               AND number NOT IN (SELECT number FROM releases ORDER BY number DESC LIMIT $1)
               AND number NOT IN
                 (SELECT number FROM releases WHERE live_at IS NOT NULL ORDER BY number DESC LIMIT $1)
               AND number NOT IN (SELECT number FROM releases WHERE of_file ORDER BY number DESC LIMIT 1)",
            &[&i64::from(self.keep)],
        )
        .await?;
        let rows = tx.query("SELECT DISTINCT digest FROM release_components ORDER BY digest", &[]).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }
}
