//! The promises about jobs, and whether they are kept, by the store's file and by what workers noted as they ran.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Store;
use super::store::JobRow;

/// How a job is to end, once it has had all its tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    Done,
    Dead,
}

/// Jobs whose id was answered, and what was seen of them.
#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: BTreeMap<i64, Promise>,
    /// Those that were seen to have ended: how, and at which attempt.
    ended: BTreeMap<i64, (String, i64)>,
    /// Boots of the host that had leases when they were killed.
    dead_owners: BTreeSet<String>,
}

impl Ledger {
    pub(crate) fn acknowledge(&mut self, id: i64, promise: Promise) {
        let before = self.acknowledged.insert(id, promise);
        assert!(before.is_none(), "job {id} was given to two");
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Notes that whoever has leases in this file is dead.
    pub(crate) fn bury_owners(&mut self, store: &Store) {
        self.dead_owners.extend(store.lease_owners());
    }

    /// Whether all that was promised is still possible; `executions` gives what workers have noted, a line
    /// `id attempt instance` for each call. Call it once a host is up, or with none.
    ///
    /// No host of these tests drains or scales, so that each claim has an attempt number of its own.
    pub(crate) fn check(&mut self, store: &Store, executions: impl Fn() -> String) -> Result<(), String> {
        // Work goes on meanwhile: a note comes after its claim, and before its answer.
        let begun = Executions::parse(&executions())?;
        let integrity = store.integrity();
        if integrity != "ok" {
            return Err(format!("the store's file is damaged: {integrity}"));
        }
        store.counts_are_right()?;
        let owners = store.lease_owners();
        if let Some(owner) = owners.intersection(&self.dead_owners).next() {
            return Err(format!("{owner} is dead, and still has leases"));
        }
        let jobs: BTreeMap<i64, JobRow> = store.jobs().into_iter().map(|job| (job.id, job)).collect();
        let all = Executions::parse(&executions())?;
        if let Some(id) = self.acknowledged.keys().find(|id| !jobs.contains_key(*id)) {
            return Err(format!("job {id} was acknowledged and is gone"));
        }
        for job in jobs.values() {
            let most = begun.last_attempt.get(&job.id).copied().unwrap_or(0);
            if most > job.attempt {
                return Err(format!("attempt {most} ran of {job:?}: it was not claimed, or that was lost"));
            }
            if job.state == "done" && !all.calls.contains(&(job.id, job.attempt)) {
                return Err(format!("nobody ran the last attempt of {job:?}"));
            }
            if let Some(before) = self.ended.get(&job.id)
                && (&before.0, before.1) != (&job.state, job.attempt)
            {
                return Err(format!("{job:?} had ended as {before:?}"));
            }
            if ["done", "dead", "cancelled"].contains(&job.state.as_str()) {
                self.ended.insert(job.id, (job.state.clone(), job.attempt));
            }
        }
        Ok(())
    }

    /// Whether all that was promised has come true.
    pub(crate) fn settled(&self) -> Result<(), String> {
        for (id, promise) in &self.acknowledged {
            let wanted = match promise {
                Promise::Done => "done",
                Promise::Dead => "dead",
            };
            match self.ended.get(id) {
                Some((state, _)) if state == wanted => {}
                found => return Err(format!("job {id} is to be {wanted}, and is {found:?}")),
            }
        }
        Ok(())
    }
}

/// The calls that workers noted.
#[derive(Default)]
struct Executions {
    calls: BTreeSet<(i64, i64)>,
    last_attempt: HashMap<i64, i64>,
}

impl Executions {
    fn parse(text: &str) -> Result<Executions, String> {
        let mut executions = Executions::default();
        // A line is one write, but may just be under way.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let mut words = line.split(' ').map(|word| word.parse::<i64>().ok());
            let (Some(Some(id)), Some(Some(attempt))) = (words.next(), words.next()) else {
                return Err(format!("workers noted {line:?}"));
            };
            if !executions.calls.insert((id, attempt)) {
                return Err(format!("attempt {attempt} of job {id} ran twice"));
            }
            let last = executions.last_attempt.entry(id).or_default();
            *last = attempt.max(*last);
        }
        Ok(executions)
    }
}
