//! People change jobs: one of them, or a bounded number at a time.

use rusqlite::{OptionalExtension, ToSql, params, params_from_iter};

use super::operation::Write;
use super::writer::Tx;
use super::{attempts, keys};
use crate::jobs::{
    AttemptEnd, INTERVENE_JOBS_MAX, Intervened, Intervention, JobFilter, JobId, JobState, Swept,
};
use crate::{Timestamp, rules};

pub(super) struct Intervene {
    pub(super) id: JobId,
    pub(super) intervention: Intervention,
}

impl Write for Intervene {
    type Answer = Intervened;

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Intervened> {
        intervene(tx, self.id, self.intervention)
    }
}

pub(super) struct InterveneAll {
    pub(super) filter: JobFilter,
    pub(super) intervention: Intervention,
}

impl Write for InterveneAll {
    type Answer = Swept;

    /// The most that it may change, since nobody knows before.
    fn rows(&self) -> usize {
        INTERVENE_JOBS_MAX as usize
    }

    fn apply(&self, tx: &Tx<'_>) -> rusqlite::Result<Swept> {
        let ids = self.pick(tx)?;
        let mut swept = Swept { more: ids.len() as u64 >= INTERVENE_JOBS_MAX, ..Swept::default() };
        for id in &ids {
            match intervene(tx, *id, self.intervention)? {
                Intervened::Moved { from, .. } => {
                    swept.changed += 1;
                    swept.leased.extend(Some(*id).filter(|_| from == JobState::Leased));
                }
                Intervened::Deleted { .. } => swept.changed += 1,
                Intervened::KeyHeld { holder } => {
                    swept.key_held += 1;
                    swept.key_holder = Some((*id, holder));
                }
                Intervened::NotFound | Intervened::Refused { .. } => {}
            }
        }
        let is_retry = self.intervention == Intervention::Retry && !swept.more;
        if is_retry && rules::states_of(&self.filter).any(|state| state == JobState::Dead) {
            self.find_passed_over(tx, &mut swept)?;
        }
        Ok(swept)
    }
}

fn intervene(tx: &Tx<'_>, id: JobId, intervention: Intervention) -> rusqlite::Result<Intervened> {
    let found: Option<(JobState, Timestamp, String)> = tx
        .sql("SELECT state, run_at, queue FROM jobs WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((stored, run_at, queue)) = found else { return Ok(Intervened::NotFound) };
    let from = rules::state_at(stored, run_at, tx.now);
    if !intervention.allows(from) {
        return Ok(Intervened::Refused { state: from });
    }
    match intervention {
        Intervention::Cancel => {
            if stored == JobState::Leased {
                attempts::record(tx, id, AttemptEnd::Cancelled, None)?;
                tx.ended_in(&queue);
            }
            tx.sql(
                "UPDATE jobs SET state = 'cancelled', ended_at = ?2, lease_owner = NULL, lease_until = NULL
                 WHERE id = ?1",
            )?
            .execute(params![id, tx.now])?;
            Ok(Intervened::Moved { from, to: JobState::Cancelled })
        }
        Intervention::Retry => {
            if stored == JobState::Dead {
                if let Some(holder) = keys::take_again(tx, id)? {
                    return Ok(Intervened::KeyHeld { holder });
                }
                tx.sql(
                    "UPDATE jobs SET attempt = 0, crashes = 0, attempts_max = attempts_asked, ended_at = NULL
                     WHERE id = ?1",
                )?
                .execute([id])?;
            }
            tx.sql("UPDATE jobs SET state = 'available', run_at = ?2 WHERE id = ?1")?
                .execute(params![id, tx.now])?;
            tx.awake();
            Ok(Intervened::Moved { from, to: JobState::Available })
        }
        Intervention::Discard => {
            keys::free(tx, id)?;
            tx.sql("DELETE FROM jobs WHERE id = ?1")?.execute([id])?;
            Ok(Intervened::Deleted { from })
        }
    }
}

impl InterveneAll {
    /// Jobs that it can be done to, in whatever order the indexes give them: those that are changed leave the index
    /// they were found in, so that a thousand batches don't each look past those before them. (Only `done` has no
    /// index by queue: to discard those of one queue reads past the others', which retention bounds.)
    fn pick(&self, tx: &Tx<'_>) -> rusqlite::Result<Vec<JobId>> {
        let mut picked = Picked { ids: Vec::new(), room: INTERVENE_JOBS_MAX };
        if let Some(key) = &self.filter.unique_key {
            self.pick_keyed(tx, key, &mut picked)?;
            return Ok(picked.ids);
        }
        let queues = self.queues(tx)?;
        let states = rules::states_of(&self.filter).filter(|state| self.intervention.allows(*state));
        for state in states {
            for queue in &queues {
                picked.of(tx, queue, state, self.intervention)?;
            }
        }
        Ok(picked.ids)
    }

    /// Counts the dead jobs that [`Picked::of`] leaves out of a retry.
    fn find_passed_over(&self, tx: &Tx<'_>, swept: &mut Swept) -> rusqlite::Result<()> {
        if self.filter.unique_key.is_some() {
            // They were tried one by one.
            return Ok(());
        }
        let mut find = tx.sql(
            "SELECT id, job_id FROM jobs INDEXED BY jobs_set_aside
               JOIN unique_keys ON unique_keys.queue = jobs.queue AND key = unique_key
             WHERE (state = 'scheduled' OR state = 'retrying' OR state = 'dead' OR state = 'cancelled')
               AND jobs.queue = ?1 AND state = 'dead' AND unique_scope IS 'running'
               AND (expires_at IS NULL OR expires_at > ?2) LIMIT ?3",
        )?;
        for queue in self.queues(tx)? {
            let room = INTERVENE_JOBS_MAX.saturating_sub(swept.key_held);
            let mut rows = find.query(params![queue, tx.now, room])?;
            while let Some(row) = rows.next()? {
                swept.key_held += 1;
                swept.key_holder = Some((row.get(0)?, row.get(1)?));
            }
        }
        Ok(())
    }

    /// The queues to look into.
    fn queues(&self, tx: &Tx<'_>) -> rusqlite::Result<Vec<String>> {
        if let Some(queue) = &self.filter.queue {
            return Ok(vec![queue.clone()]);
        }
        tx.sql("SELECT queue FROM queues ORDER BY queue")?.query_map([], |row| row.get(0))?.collect()
    }

    fn pick_keyed(&self, tx: &Tx<'_>, key: &str, picked: &mut Picked) -> rusqlite::Result<()> {
        let mut find = tx.sql(
            "SELECT id, state, run_at, queue FROM jobs INDEXED BY jobs_keyed
             WHERE unique_key = ?1 AND unique_key IS NOT NULL",
        )?;
        let mut rows = find.query([key])?;
        while let Some(row) = rows.next()? {
            let state = rules::state_at(row.get(1)?, row.get(2)?, tx.now);
            let meant = rules::is_meant(&self.filter, row.get_ref(3)?.as_str()?, state);
            if meant && self.intervention.allows(state) && picked.room > 0 {
                picked.ids.push(row.get(0)?);
                picked.room -= 1;
            }
        }
        Ok(())
    }
}

/// The jobs that were found so far.
struct Picked {
    ids: Vec<JobId>,
    room: u64,
}

impl Picked {
    fn of(
        &mut self,
        tx: &Tx<'_>,
        queue: &str,
        state: JobState,
        intervention: Intervention,
    ) -> rusqlite::Result<()> {
        match state {
            JobState::Available => {
                self.add(tx, "INDEXED BY jobs_available WHERE queue = ?2 AND state = 'available'", &[&queue])?;
                self.add(
                    tx,
                    "INDEXED BY jobs_waiting
                     WHERE queue = ?2 AND state IN ('scheduled', 'retrying') AND run_at <= ?3",
                    &[&queue, &tx.now],
                )
            }
            JobState::Leased => {
                self.add(tx, "INDEXED BY jobs_leased WHERE queue = ?2 AND state = 'leased'", &[&queue])
            }
            JobState::Done => self.add(
                tx,
                "INDEXED BY jobs_finished WHERE state IN ('done', 'cancelled') AND state = 'done' AND queue = ?2",
                &[&queue],
            ),
            JobState::Scheduled | JobState::Retrying => self.add(
                tx,
                "INDEXED BY jobs_set_aside WHERE (state = 'scheduled' OR state = 'retrying' OR state = 'dead' OR state = 'cancelled')
                   AND queue = ?2 AND state = ?3 AND run_at > ?4",
                &[&queue, &state, &tx.now],
            ),
            // Or they would be passed over again by each call.
            JobState::Dead if intervention == Intervention::Retry => self.add(
                tx,
                "INDEXED BY jobs_set_aside WHERE (state = 'scheduled' OR state = 'retrying' OR state = 'dead' OR state = 'cancelled')
                   AND queue = ?2 AND state = 'dead'
                   AND NOT (unique_scope IS 'running' AND EXISTS (
                     SELECT 1 FROM unique_keys WHERE unique_keys.queue = jobs.queue AND key = unique_key
                       AND (expires_at IS NULL OR expires_at > ?3)))",
                &[&queue, &tx.now],
            ),
            JobState::Dead | JobState::Cancelled => self.add(
                tx,
                "INDEXED BY jobs_set_aside WHERE (state = 'scheduled' OR state = 'retrying' OR state = 'dead' OR state = 'cancelled')
                   AND queue = ?2 AND state = ?3",
                &[&queue, &state],
            ),
        }
    }

    /// Adds what is found so, whose own parameters begin at ?2.
    fn add(&mut self, tx: &Tx<'_>, from: &str, extra: &[&dyn ToSql]) -> rusqlite::Result<()> {
        if self.room == 0 {
            return Ok(());
        }
        let room: [&dyn ToSql; 1] = [&self.room];
        let mut find = tx.sql(&format!("SELECT id FROM jobs {from} LIMIT ?1"))?;
        let before = self.ids.len();
        for id in find.query_map(params_from_iter(room.iter().chain(extra)), |row| row.get(0))? {
            self.ids.push(id?);
        }
        self.room -= (self.ids.len() - before) as u64;
        Ok(())
    }
}
