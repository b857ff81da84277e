//! Ticks in PostgreSQL: the primary key is what makes each happen once, however many hosts take it at the same moment.

use async_trait::async_trait;

use super::PostgresStore;
use super::operation::Write;
use super::reader::{Read, View};
use super::session::Db;
use super::tx::Tx;
use super::values::column;
use crate::ticks::{Begun, HISTORY_MAX, TickEnd, TickResult, TickView, Ticks};
use crate::{StoreError, Timestamp, rules};

#[async_trait]
impl Ticks for PostgresStore {
    async fn begin(&self, schedule: &str, times: &str, now: Timestamp) -> Result<Begun, StoreError> {
        self.write(Begin { schedule: schedule.to_string(), times: times.to_string(), now }).await
    }

    async fn keep_only(&self, schedules: &[String]) -> Result<u64, StoreError> {
        self.write(KeepOnly { schedules: schedules.to_vec() }).await
    }

    async fn cursor(&self, schedule: &str) -> Result<Option<Timestamp>, StoreError> {
        self.read(Cursor(schedule.to_string())).await
    }

    async fn skip_to(&self, schedule: &str, nominal: Timestamp) -> Result<(), StoreError> {
        self.write(SkipTo { schedule: schedule.to_string(), nominal }).await
    }

    async fn take(
        &self,
        schedule: &str,
        nominal: Timestamp,
        manual: bool,
        owner: &str,
    ) -> Result<bool, StoreError> {
        let (schedule, owner) = (schedule.to_string(), owner.to_string());
        self.write(Take { schedule, nominal, manual, owner, is_again: false }).await
    }

    async fn finish(&self, schedule: &str, nominal: Timestamp, end: TickEnd) -> Result<(), StoreError> {
        let (result, error) = end.into_parts();
        let error = error.map(|error| column(&error));
        self.write(Finish { schedule: schedule.to_string(), nominal, result, error }).await
    }

    async fn interrupt(&self, prefix: &str) -> Result<u64, StoreError> {
        self.write(Interrupt { prefix: prefix.to_string() }).await
    }

    async fn history(&self, schedule: &str, limit: u32) -> Result<Vec<TickView>, StoreError> {
        self.read(History { schedule: schedule.to_string(), limit: limit.min(HISTORY_MAX) }).await
    }
}

struct Cursor(String);

#[async_trait]
impl Read for Cursor {
    type Answer = Option<Timestamp>;

    async fn ask(&self, view: &View<'_>) -> Db<Option<Timestamp>> {
        let rows =
            view.session.query("SELECT nominal FROM schedules WHERE schedule = $1", &[&self.0]).await?;
        rows.first().map(|row| row.try_get(0)).transpose()
    }
}

struct History {
    schedule: String,
    limit: u32,
}

#[async_trait]
impl Read for History {
    type Answer = Vec<TickView>;

    async fn ask(&self, view: &View<'_>) -> Db<Vec<TickView>> {
        let rows = view
            .session
            .query(
                "SELECT schedule, nominal, manual, started_at, ended_at, result, error FROM ticks WHERE schedule = $1
                 ORDER BY nominal DESC LIMIT $2",
                &[&self.schedule, &i64::from(self.limit)],
            )
            .await?;
        let tick = |row: &tokio_postgres::Row| {
            Ok(TickView {
                schedule: row.try_get(0)?,
                nominal: row.try_get(1)?,
                manual: row.try_get(2)?,
                started_at: row.try_get(3)?,
                ended_at: row.try_get(4)?,
                result: row.try_get(5)?,
                error: row.try_get(6)?,
            })
        };
        rows.iter().map(tick).collect()
    }
}

struct Begin {
    schedule: String,
    times: String,
    now: Timestamp,
}

#[async_trait(?Send)]
impl Write for Begin {
    type Answer = Begun;

    async fn apply(&self, tx: &Tx<'_>) -> Db<Begun> {
        // Where several hosts begin together one of them makes it, and the others find it.
        let made = tx
            .execute(
                "INSERT INTO schedules (schedule, nominal, times) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                &[&self.schedule, &self.now.0, &self.times],
            )
            .await?;
        if made == 1 {
            return Ok(Begun::New);
        }
        let found = tx
            .query("SELECT nominal, times FROM schedules WHERE schedule = $1 FOR UPDATE", &[&self.schedule])
            .await?;
        let Some(row) = found.first() else { return Ok(Begun::New) };
        let times: Option<&str> = row.try_get(1)?;
        let begun = match times.is_none_or(|times| times == self.times) {
            true => Begun::After(row.try_get(0)?),
            false => Begun::Changed,
        };
        let nominal = if let Begun::After(nominal) = begun { nominal } else { self.now };
        tx.execute(
            "UPDATE schedules SET nominal = $2, times = $3 WHERE schedule = $1",
            &[&self.schedule, &nominal.0, &self.times],
        )
        .await?;
        Ok(begun)
    }
}

struct KeepOnly {
    schedules: Vec<String>,
}

#[async_trait(?Send)]
impl Write for KeepOnly {
    type Answer = u64;

    async fn apply(&self, tx: &Tx<'_>) -> Db<u64> {
        tx.execute("DELETE FROM schedules WHERE NOT schedule = ANY($1::text[])", &[&self.schedules]).await
    }
}

struct SkipTo {
    schedule: String,
    nominal: Timestamp,
}

#[async_trait(?Send)]
impl Write for SkipTo {
    type Answer = ();

    async fn apply(&self, tx: &Tx<'_>) -> Db<()> {
        advance(tx, &self.schedule, self.nominal).await.map(drop)
    }
}

struct Take {
    schedule: String,
    nominal: Timestamp,
    manual: bool,
    owner: String,
    /// The commit of an earlier try was not answered.
    is_again: bool,
}

#[async_trait(?Send)]
impl Write for Take {
    type Answer = bool;

    async fn apply(&self, tx: &Tx<'_>) -> Db<bool> {
        if self.is_again {
            let ours = "SELECT 1 FROM ticks WHERE schedule = $1 AND nominal = $2 AND owner = $3";
            if !tx.query(ours, &[&self.schedule, &self.nominal.0, &self.owner]).await?.is_empty() {
                return Ok(true);
            }
        }
        if !self.manual && !advance(tx, &self.schedule, self.nominal).await? {
            return Ok(false);
        }
        let taken = tx
            .execute(
                "INSERT INTO ticks (schedule, nominal, manual, started_at, owner) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
                &[&self.schedule, &self.nominal.0, &self.manual, &tx.now.0, &self.owner],
            )
            .await?;
        tx.execute(
            "DELETE FROM ticks WHERE schedule = $1 AND nominal <=
               (SELECT nominal FROM ticks WHERE schedule = $1 ORDER BY nominal DESC LIMIT 1 OFFSET $2)",
            &[&self.schedule, &i64::from(HISTORY_MAX)],
        )
        .await?;
        Ok(taken == 1)
    }

    fn is_unsure(&mut self, _answer: Option<bool>, _shared: &super::shared::Shared) -> bool {
        self.is_again = true;
        true
    }
}

/// Moves the cursor; false where it is there or past it already.
async fn advance(tx: &Tx<'_>, schedule: &str, nominal: Timestamp) -> Db<bool> {
    let moved = tx
        .execute(
            "INSERT INTO schedules (schedule, nominal) VALUES ($1, $2)
             ON CONFLICT (schedule) DO UPDATE SET nominal = excluded.nominal
               WHERE excluded.nominal > schedules.nominal",
            &[&schedule, &nominal.0],
        )
        .await?;
    Ok(moved == 1)
}

struct Finish {
    schedule: String,
    nominal: Timestamp,
    result: TickResult,
    error: Option<String>,
}

#[async_trait(?Send)]
impl Write for Finish {
    type Answer = ();

    async fn apply(&self, tx: &Tx<'_>) -> Db<()> {
        tx.execute(
            "UPDATE ticks SET ended_at = $3, result = $4, error = $5
             WHERE schedule = $1 AND nominal = $2 AND result = 'running'",
            &[&self.schedule, &self.nominal.0, &tx.now.0, &self.result.name(), &self.error],
        )
        .await
        .map(drop)
    }

    /// The first answer stays.
    fn is_unsure(&mut self, _answer: Option<()>, _shared: &super::shared::Shared) -> bool {
        true
    }
}

struct Interrupt {
    prefix: String,
}

#[async_trait(?Send)]
impl Write for Interrupt {
    type Answer = u64;

    async fn apply(&self, tx: &Tx<'_>) -> Db<u64> {
        tx.execute(
            "UPDATE ticks SET result = 'interrupted', error = $2 WHERE result = 'running' AND starts_with(owner, $1)",
            &[&self.prefix, &rules::HOST_STOPPED],
        )
        .await
    }
}
