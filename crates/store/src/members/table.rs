//! The rows as a value: the rules of [`Members`](super::Members) without a database. A store that one process has keeps
//! them so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Beat, DeployUnderway, MEMBER_FOR, MEMBERS_MAX, Member, Shown};
use crate::Timestamp;

/// All rows, and the deploy that is under way. Times are those of a clock that doesn't step.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<String, Row>,
    deploy: Option<DeployUnderway>,
}

#[derive(Debug)]
struct Row {
    beat: Beat,
    seen: Timestamp,
}

impl Table {
    /// Writes a row, and returns the age that it had if it was the same boot's; or returns the row that another boot has.
    pub fn beat(&mut self, beat: Beat, now: Timestamp) -> Result<Option<Duration>, Box<Member>> {
        let before = self.rows.get(&beat.host);
        let mut own_age = None;
        let mut shown = None;
        if let Some(before) = before {
            let age = now.since(before.seen);
            if before.beat.boot == beat.boot {
                own_age = Some(age);
                shown = before.beat.shown.clone();
            } else if age < MEMBER_FOR && !(beat.is_first && before.beat.place == beat.place) {
                return Err(Box::new(before.view(now)));
            }
        }
        let shown = beat.shown.clone().or(shown);
        self.rows.insert(beat.host.clone(), Row { beat: Beat { shown, ..beat }, seen: now });
        Ok(own_age)
    }

    /// All rows, by the hosts' ids.
    pub fn members(&self, now: Timestamp) -> Vec<Member> {
        self.youngest().map(|row| row.view(now)).collect()
    }

    /// The texts for people.
    pub fn shown(&self, now: Timestamp) -> Vec<Shown> {
        let shown = |row: &Row| Shown {
            host: row.beat.host.clone(),
            shown: row.beat.shown.clone().unwrap_or_default(),
            age: now.since(row.seen),
        };
        self.youngest().map(shown).collect()
    }

    fn youngest(&self) -> impl Iterator<Item = &Row> {
        let mut seen: Vec<Timestamp> = self.rows.values().map(|row| row.seen).collect();
        seen.sort_unstable_by(|a, b| b.cmp(a));
        let max = usize::try_from(MEMBERS_MAX).unwrap_or(usize::MAX);
        let oldest = seen.get(max).copied();
        self.rows.values().filter(move |row| oldest.is_none_or(|oldest| row.seen > oldest)).take(max)
    }

    /// Removes the row of this boot.
    pub fn leave(&mut self, host: &str, boot: &str) {
        if self.rows.get(host).is_some_and(|row| row.beat.boot == boot) {
            self.rows.remove(host);
        }
    }

    /// Removes old rows, and returns how many.
    pub fn forget(&mut self, older_than: Duration, now: Timestamp) -> u64 {
        let before = self.rows.len();
        self.rows.retain(|_, row| now.since(row.seen) <= older_than);
        u64::try_from(before - self.rows.len()).unwrap_or(u64::MAX)
    }

    /// The deploy that is under way.
    pub fn deploy(&self, now: Timestamp) -> Option<DeployUnderway> {
        self.deploy.clone().filter(|deploy| {
            self.rows
                .get(&deploy.host)
                .is_some_and(|row| row.beat.boot == deploy.boot && now.since(row.seen) < MEMBER_FOR)
        })
    }

    /// Begins one, or returns the one that is under way.
    pub fn begin_deploy(&mut self, deploy: DeployUnderway, now: Timestamp) -> Option<DeployUnderway> {
        let underway = self.deploy(now);
        if underway.is_none() {
            self.deploy = Some(deploy);
        }
        underway
    }

    /// Ends this boot's.
    pub fn end_deploy(&mut self, boot: &str) {
        self.deploy.take_if(|deploy| deploy.boot == boot);
    }
}

impl Row {
    fn view(&self, now: Timestamp) -> Member {
        let Beat { host, boot, name, version, state, said, .. } = self.beat.clone();
        Member { host, boot, name, version, state, said, age: now.since(self.seen) }
    }
}
