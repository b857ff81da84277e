//! The store's file, as `sqlite3` would show it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::eventually;

pub(crate) struct Store {
    connection: Connection,
}

/// A row of `jobs`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobRow {
    pub(crate) id: i64,
    pub(crate) state: String,
    pub(crate) attempt: i64,
    pub(crate) attempts_max: Option<i64>,
    pub(crate) crashes: i64,
    /// Milliseconds between its coming and its being due.
    pub(crate) wait_ms: i64,
    pub(crate) last_error: Option<String>,
}

/// A row of `ticks`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TickRow {
    pub(crate) nominal: i64,
    pub(crate) manual: bool,
    pub(crate) ended: bool,
    pub(crate) result: String,
    pub(crate) error: Option<String>,
}

impl Store {
    pub(crate) fn open(file: &Path) -> Store {
        let connection = Connection::open(file).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        // The remains of a killed host are for the next one to put in order, not for who looks at them.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        Store { connection }
    }

    /// Keeps everybody else from writing, until [`Store::release`].
    pub(crate) fn hold(&self) {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    }

    pub(crate) fn release(&self) {
        self.connection.execute_batch("ROLLBACK").unwrap();
    }

    pub(crate) fn jobs(&self) -> Vec<JobRow> {
        let query = "SELECT id, state, attempt, attempts_max, crashes, run_at - enqueued_at, last_error FROM jobs ORDER BY id";
        let mut query = self.connection.prepare(query).unwrap();
        let rows = query.query_map([], |row| {
            Ok(JobRow {
                id: row.get(0)?,
                state: row.get(1)?,
                attempt: row.get(2)?,
                attempts_max: row.get(3)?,
                crashes: row.get(4)?,
                wait_ms: row.get(5)?,
                last_error: row.get(6)?,
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    #[track_caller]
    pub(crate) fn job(&self, id: i64) -> JobRow {
        self.jobs().into_iter().find(|job| job.id == id).unwrap_or_else(|| panic!("no job {id}"))
    }

    /// Waits until a job is in this state.
    #[track_caller]
    pub(crate) fn wait_for(&self, id: i64, state: &str) -> JobRow {
        let mut last = None;
        eventually(&format!("job {id} is {state}"), || {
            let job = self.job(id);
            let arrived = job.state == state;
            assert!(arrived || job.state != "dead", "{job:?}");
            last = Some(job.clone());
            arrived.then_some(job)
        })
    }

    /// Makes a job that waits for its next attempt due at once, as an impatient person would.
    pub(crate) fn hasten(&self, id: i64) {
        let hasten = "UPDATE jobs SET run_at = enqueued_at WHERE id = ?1 AND state = 'retrying'";
        assert_eq!(self.connection.execute(hasten, [id]).unwrap(), 1);
    }

    /// Makes all jobs that wait for something due at once; how many that are.
    pub(crate) fn hasten_all(&self) -> usize {
        let hasten = "UPDATE jobs SET run_at = enqueued_at WHERE state IN ('scheduled', 'retrying')";
        self.connection.execute(hasten, []).unwrap()
    }

    /// Changes the file behind the host's back.
    pub(crate) fn tamper(&self, sql: &str) {
        self.connection.execute(sql, []).unwrap();
    }

    /// Whether its tables have been made.
    pub(crate) fn has_tables(&self) -> bool {
        let query = "SELECT count(*) FROM sqlite_schema WHERE name = 'jobs'";
        self.connection.query_row(query, [], |row| Ok(row.get::<_, i64>(0)? > 0)).unwrap()
    }

    /// Who has leases.
    pub(crate) fn lease_owners(&self) -> BTreeSet<String> {
        let query = "SELECT DISTINCT lease_owner FROM jobs WHERE state = 'leased'";
        let mut query = self.connection.prepare(query).unwrap();
        let rows = query.query_map([], |row| row.get(0));
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The verdict of SQLite on its file: `ok`.
    pub(crate) fn integrity(&self) -> String {
        self.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
    }

    /// Whether the numbers that are kept of each queue are those of its jobs.
    pub(crate) fn counts_are_right(&self) -> Result<(), String> {
        const STATES: [&str; 7] =
            ["scheduled", "available", "leased", "retrying", "done", "dead", "cancelled"];
        let kept = STATES.join(", ");
        let counted = STATES.map(|state| format!("sum(state = '{state}')")).join(", ");
        // One statement, so that both are of one moment.
        let query = format!(
            "SELECT * FROM (SELECT queue, {kept} FROM queues EXCEPT SELECT queue, {counted} FROM jobs GROUP BY queue)
             WHERE {} > 0",
            STATES.join(" + ")
        );
        let wrong = self.connection.query_row(&query, [], |row| row.get::<_, String>(0));
        match wrong {
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(()),
            Ok(queue) => Err(format!("the counts kept of queue {queue} are not those of its jobs")),
            Err(err) => Err(err.to_string()),
        }
    }

    pub(crate) fn ticks(&self, schedule: &str) -> Vec<TickRow> {
        let query = "SELECT nominal, manual, ended_at IS NOT NULL, result, error FROM ticks WHERE schedule = ?1 ORDER BY nominal";
        let mut query = self.connection.prepare(query).unwrap();
        let rows = query.query_map([schedule], |row| {
            Ok(TickRow {
                nominal: row.get(0)?,
                manual: row.get(1)?,
                ended: row.get(2)?,
                result: row.get(3)?,
                error: row.get(4)?,
            })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// How many schedules have begun.
    pub(crate) fn schedules(&self) -> i64 {
        self.connection.query_row("SELECT count(*) FROM schedules", [], |row| row.get(0)).unwrap()
    }

    /// Whether a schedule has come to within an hour of now.
    pub(crate) fn schedule_is_recent(&self, schedule: &str) -> bool {
        let query = "SELECT nominal / 1000 > unixepoch() - 3600 FROM schedules WHERE schedule = ?1";
        self.connection.query_row(query, [schedule], |row| row.get(0)).unwrap()
    }

    /// Makes a schedule believe that it has come so far beyond now, as a clock that was ahead would have.
    pub(crate) fn set_schedule_ahead(&self, schedule: &str, by: Duration) {
        let set = "UPDATE schedules SET nominal = unixepoch() * 1000 + ?2 WHERE schedule = ?1";
        let by = i64::try_from(by.as_millis()).unwrap();
        assert_eq!(self.connection.execute(set, rusqlite::params![schedule, by]).unwrap(), 1);
    }

    /// Does what docs/operating.md says for a schedule whose clock was ahead.
    pub(crate) fn begin_anew(&self, schedule: &str) {
        let begin = "DELETE FROM schedules WHERE schedule = ?1";
        assert_eq!(self.connection.execute(begin, [schedule]).unwrap(), 1);
    }

    /// Makes a schedule believe that nobody ran it for so long.
    pub(crate) fn set_schedule_back(&self, schedule: &str, by: Duration) {
        let set = "UPDATE schedules SET nominal = nominal - ?2 WHERE schedule = ?1";
        let by = i64::try_from(by.as_millis()).unwrap();
        assert_eq!(self.connection.execute(set, rusqlite::params![schedule, by]).unwrap(), 1);
    }
}
