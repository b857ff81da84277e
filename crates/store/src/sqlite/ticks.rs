//! Ticks in SQLite: the primary key is what makes each happen once.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::operation::Write;
use super::writer::Tx;
use crate::ticks::{Begun, HISTORY_MAX, TickEnd, TickResult, TickView, Ticks};
use crate::{StoreError, Timestamp, rules};

#[async_trait]
impl Ticks for SqliteStore {
    async fn begin(&self, schedule: &str, times: &str, now: Timestamp) -> Result<Begun, StoreError> {
        self.write(Begin { schedule: schedule.to_string(), times: times.to_string(), now }).await
    }

    async fn keep_only(&self, schedules: &[String]) -> Result<u64, StoreError> {
        self.write(KeepOnly { schedules: schedules.to_vec() }).await
    }

    async fn cursor(&self, schedule: &str) -> Result<Option<Timestamp>, StoreError> {
        let schedule = schedule.to_string();
        self.read(move |connection, _| cursor(connection, &schedule)).await
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
        self.write(Take { schedule, nominal, manual, owner }).await
    }

    async fn finish(&self, schedule: &str, nominal: Timestamp, end: TickEnd) -> Result<(), StoreError> {
        let (result, error) = end.into_parts();
        self.write(Finish { schedule: schedule.to_string(), nominal, result, error }).await
    }

    async fn interrupt(&self, prefix: &str) -> Result<u64, StoreError> {
        self.write(Interrupt { prefix: prefix.to_string() }).await
    }

    async fn history(&self, schedule: &str, limit: u32) -> Result<Vec<TickView>, StoreError> {
        let schedule = schedule.to_string();
        self.read(move |connection, _| history(connection, &schedule, limit.min(HISTORY_MAX))).await
    }
}

fn cursor(connection: &Connection, schedule: &str) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached("SELECT nominal FROM schedules WHERE schedule = ?1")?
        .query_row([schedule], |row| row.get(0))
        .optional()
}

fn history(connection: &Connection, schedule: &str, limit: u32) -> rusqlite::Result<Vec<TickView>> {
    connection
        .prepare_cached(
            "SELECT nominal, manual, started_at, ended_at, result, error FROM ticks WHERE schedule = ?1
             ORDER BY nominal DESC LIMIT ?2",
        )?
        .query_map(params![schedule, limit], |row| {
            Ok(TickView {
                schedule: schedule.to_string(),
                nominal: row.get(0)?,
                manual: row.get(1)?,
                started_at: row.get(2)?,
                ended_at: row.get(3)?,
                result: row.get(4)?,
                error: row.get(5)?,
            })
        })?
        .collect()
}

struct Begin {
    schedule: String,
    times: String,
    now: Timestamp,
}

impl Write for Begin {
    type Answer = Begun;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Begun> {
        let found: Option<(Timestamp, Option<String>)> = tx
            .sql("SELECT nominal, times FROM schedules WHERE schedule = ?1")?
            .query_row([&self.schedule], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let begun = match found {
            None => Begun::New,
            Some((nominal, times)) if times.as_ref().is_none_or(|times| *times == self.times) => {
                Begun::After(nominal)
            }
            Some(_) => Begun::Changed,
        };
        let nominal = if let Begun::After(nominal) = begun { nominal } else { self.now };
        tx.sql(
            "INSERT INTO schedules (schedule, nominal, times) VALUES (?1, ?2, ?3)
             ON CONFLICT (schedule) DO UPDATE SET nominal = excluded.nominal, times = excluded.times",
        )?
        .execute(params![self.schedule, nominal, self.times])?;
        Ok(begun)
    }
}

struct KeepOnly {
    schedules: Vec<String>,
}

impl Write for KeepOnly {
    type Answer = u64;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<u64> {
        let known: Vec<String> = tx
            .sql("SELECT schedule FROM schedules")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut forget = tx.sql("DELETE FROM schedules WHERE schedule = ?1")?;
        let mut forgotten = 0;
        for schedule in known.iter().filter(|known| !self.schedules.contains(known)) {
            forgotten += forget.execute([schedule])? as u64;
        }
        Ok(forgotten)
    }
}

struct SkipTo {
    schedule: String,
    nominal: Timestamp,
}

impl Write for SkipTo {
    type Answer = ();

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<()> {
        advance(tx, &self.schedule, self.nominal).map(drop)
    }
}

struct Take {
    schedule: String,
    nominal: Timestamp,
    manual: bool,
    owner: String,
}

impl Write for Take {
    type Answer = bool;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<bool> {
        if !self.manual && !advance(tx, &self.schedule, self.nominal)? {
            return Ok(false);
        }
        let taken = tx
            .sql(
                "INSERT INTO ticks (schedule, nominal, manual, started_at, owner) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![self.schedule, self.nominal, self.manual, tx.now, self.owner])?;
        tx.sql(
            "DELETE FROM ticks WHERE schedule = ?1 AND nominal <=
               (SELECT nominal FROM ticks WHERE schedule = ?1 ORDER BY nominal DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![self.schedule, HISTORY_MAX])?;
        Ok(taken == 1)
    }
}

/// Moves the cursor; false where it is there or past it already.
fn advance(tx: &Tx<'_>, schedule: &str, nominal: Timestamp) -> rusqlite::Result<bool> {
    let moved = tx
        .sql(
            "INSERT INTO schedules (schedule, nominal) VALUES (?1, ?2)
             ON CONFLICT (schedule) DO UPDATE SET nominal = excluded.nominal WHERE excluded.nominal > nominal",
        )?
        .execute(params![schedule, nominal])?;
    Ok(moved == 1)
}

struct Finish {
    schedule: String,
    nominal: Timestamp,
    result: TickResult,
    error: Option<String>,
}

impl Write for Finish {
    type Answer = ();

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<()> {
        tx.sql(
            "UPDATE ticks SET ended_at = ?3, result = ?4, error = ?5
             WHERE schedule = ?1 AND nominal = ?2 AND result = 'running'",
        )?
        .execute(params![self.schedule, self.nominal, tx.now, self.result, self.error])
        .map(drop)
    }
}

struct Interrupt {
    prefix: String,
}

impl Write for Interrupt {
    type Answer = u64;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<u64> {
        // Reads the whole history, once for each boot: a thousand short rows for each schedule.
        let ended = tx
            .sql(
                "UPDATE ticks SET result = 'interrupted', error = ?2
                 WHERE result = 'running' AND substr(owner, 1, length(?1)) = ?1",
            )?
            .execute(params![self.prefix, rules::HOST_STOPPED])?;
        Ok(ended as u64)
    }
}
