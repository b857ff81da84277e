//! The model: the state diagram of `jobs`, and the rules around it, as plainly as they can be said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wasmhost_store::jobs::{
    AfterFailure, AttemptEnd, Backoff, Claim, Intervened, Intervention, JOB_BYTES, JobFilter, JobId,
    JobState, Lease, LeasedJob, NewJob, Order, Page, QueueCounts, Retention, Settled, UniqueScope,
};
use wasmhost_store::{Clock, ManualClock, Timestamp};

use crate::ops::QUEUES;

/// The diagram: the only ways that a state changes.
pub(crate) const DIAGRAM: [(JobState, JobState); 12] = {
    use JobState::*;
    [
        (Scheduled, Available),
        (Available, Leased),
        (Leased, Done),
        (Leased, Retrying),
        (Retrying, Available),
        (Leased, Available),
        (Leased, Dead),
        (Dead, Available),
        (Scheduled, Cancelled),
        (Available, Cancelled),
        (Retrying, Cancelled),
        (Leased, Cancelled),
    ]
};

/// Both clocks' times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) now: Timestamp,
    pub(crate) steady: Timestamp,
}

impl Times {
    pub(crate) fn of(clock: &ManualClock) -> Times {
        Times { now: clock.now(), steady: clock.steady() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ModelJob {
    pub(crate) new: NewJob,
    pub(crate) state: JobState,
    pub(crate) run_at: Timestamp,
    pub(crate) attempt: u32,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) crashes: u32,
    pub(crate) claim: i64,
    pub(crate) owner: &'static str,
    pub(crate) lease_until: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    /// A call of it has begun.
    begun: bool,
    alone: bool,
    /// Claim, attempt, owner, and how it ended.
    pub(crate) attempts: Vec<(i64, u32, &'static str, AttemptEnd)>,
}

impl ModelJob {
    fn go(&mut self, to: JobState) {
        assert!(DIAGRAM.contains(&(self.state, to)), "the diagram has no way from {} to {to}", self.state);
        self.state = to;
    }

    pub(crate) fn end(&mut self, state: JobState, now: Timestamp) {
        self.go(state);
        self.ended_at = Some(now);
    }

    fn record(&mut self, end: AttemptEnd) {
        self.attempts.push((self.claim, self.attempt, self.owner, end));
        self.attempts.retain(|(claim, ..)| *claim > self.claim - 25);
    }

    /// The attempt ended without an answer, and counts.
    pub(crate) fn interrupt(&mut self, end: AttemptEnd, now: Timestamp) {
        self.record(end);
        if Some(self.attempt) >= self.attempts_max {
            self.end(JobState::Dead, now);
        } else {
            self.go(JobState::Available);
        }
    }

    pub(crate) fn release(&mut self) {
        self.record(AttemptEnd::Released);
        self.go(JobState::Available);
        self.attempt -= 1;
    }

    /// No call of this claim has begun.
    pub(crate) fn give_back(&mut self) {
        self.go(JobState::Available);
        self.attempt -= 1;
        if self.attempt == 0 {
            self.started_at = None;
        }
    }

    pub(crate) fn begin(&mut self) {
        self.begun = true;
    }

    fn bytes(&self) -> u64 {
        JOB_BYTES + self.new.payload.len() as u64
    }

    pub(crate) fn seen(&self, now: Timestamp) -> JobState {
        match self.state {
            JobState::Scheduled | JobState::Retrying if self.run_at <= now => JobState::Available,
            state => state,
        }
    }
}

#[derive(Default, Clone)]
pub(crate) struct Model {
    pub(crate) jobs: BTreeMap<JobId, ModelJob>,
    pub(crate) last_id: Option<JobId>,
    pub(crate) leases: Vec<Lease>,
    pub(crate) paused: BTreeSet<String>,
    /// Who holds which key of which queue, and until when where it is for a time.
    keys: BTreeMap<(String, String), (JobId, Option<Timestamp>)>,
}

impl Model {
    fn of_queue<'m>(&'m self, queue: &'m str) -> impl Iterator<Item = (&'m JobId, &'m ModelJob)> {
        self.jobs.iter().filter(move |(_, job)| job.new.queue == queue)
    }

    fn held_by(&self, queue: &str, key: &str, now: Timestamp) -> Option<JobId> {
        let (id, until) = self.keys.get(&(queue.to_string(), key.to_string()))?;
        until.is_none_or(|until| until > now).then_some(*id)
    }

    pub(crate) fn holder(&self, job: &NewJob, now: Timestamp) -> Option<JobId> {
        self.held_by(&job.queue, &job.unique.as_ref()?.key, now)
    }

    /// Frees the keys that their holders' states free. Called after each operation.
    pub(crate) fn free_keys(&mut self) {
        let jobs = &self.jobs;
        self.keys.retain(|_, (id, until)| {
            until.is_some()
                || jobs.get(id).is_some_and(|job| match job.new.unique.as_ref().map(|unique| unique.scope) {
                    Some(UniqueScope::Waiting) => !job.begun && !job.state.has_ended(),
                    _ => !job.state.has_ended(),
                })
        });
    }

    pub(crate) fn depth(&self, queue: &str) -> u64 {
        use JobState::*;
        self.of_queue(queue).filter(|(_, job)| matches!(job.state, Scheduled | Available | Retrying)).count()
            as u64
    }

    pub(crate) fn bytes(&self, queue: &str) -> u64 {
        use JobState::*;
        let waiting =
            self.of_queue(queue).filter(|(_, job)| matches!(job.state, Scheduled | Available | Retrying));
        waiting.map(|(_, job)| job.bytes()).sum()
    }

    fn leased(&self, queue: &str) -> u32 {
        self.of_queue(queue).filter(|(_, job)| job.state == JobState::Leased).count() as u32
    }

    pub(crate) fn enqueue(&mut self, job: NewJob, id: JobId, now: Timestamp) {
        assert!(Some(id) > self.last_id, "ids rise");
        self.last_id = Some(id);
        if let Some(unique) = &job.unique {
            let until = match unique.scope {
                UniqueScope::For(time) => Some(now + time),
                _ => None,
            };
            self.keys.insert((job.queue.clone(), unique.key.clone()), (id, until));
        }
        let run_at = job.run_at.unwrap_or(now).max(now);
        let state = if run_at > now { JobState::Scheduled } else { JobState::Available };
        self.jobs.insert(
            id,
            ModelJob {
                state,
                run_at,
                attempt: 0,
                attempts_max: job.attempts_max,
                crashes: 0,
                claim: 0,
                owner: "",
                lease_until: now,
                started_at: None,
                ended_at: None,
                begun: false,
                alone: false,
                attempts: Vec::new(),
                new: job,
            },
        );
    }

    /// The changes that a claim makes to a queue before it takes anything.
    fn look_at(&mut self, queue: &str, times: Times) {
        for job in self.jobs.values_mut().filter(|job| job.new.queue == queue) {
            match job.state {
                JobState::Leased if job.lease_until <= times.steady => {
                    job.interrupt(AttemptEnd::LeaseLost, times.now);
                }
                JobState::Scheduled | JobState::Retrying if job.run_at <= times.now => {
                    job.go(JobState::Available);
                }
                _ => {}
            }
        }
    }

    fn best(&self, queue: &str) -> Option<JobId> {
        let available = self.of_queue(queue).filter(|(_, job)| job.state == JobState::Available);
        available.min_by_key(|(id, job)| (-i32::from(job.new.priority), job.run_at, **id)).map(|(id, _)| *id)
    }

    /// Whether a claim may take another job of this queue.
    fn gives(&self, claim: &Claim, queue: &str) -> bool {
        let limits = claim.queues.iter().filter(|asked| asked.name == queue);
        self.best(queue).is_some()
            && !self.paused.contains(queue)
            && limits.clone().count() > 0
            && limits.flat_map(|asked| asked.concurrency).all(|concurrency| self.leased(queue) < concurrency)
    }

    /// Checks what was claimed: which queue came first is chance, all else is not.
    pub(crate) fn claimed(&mut self, claim: &Claim, owner: &'static str, jobs: &[LeasedJob], times: Times) {
        claim.queues.iter().for_each(|queue| self.look_at(&queue.name, times));
        for leased in jobs {
            assert!(self.gives(claim, &leased.queue), "nothing past a pause or a limit");
            assert_eq!(Some(leased.lease.id), self.best(&leased.queue), "the best of the queue");
            let job = self.jobs.get_mut(&leased.lease.id).unwrap();
            job.go(JobState::Leased);
            job.claim += 1;
            job.attempt += 1;
            job.attempts_max = Some(job.new.attempts_max.unwrap_or(claim.attempts_default).max(job.attempt));
            job.owner = owner;
            job.lease_until = times.steady + claim.lease;
            job.started_at = Some(times.now);
            assert_eq!(leased.lease.claim, job.claim);
            assert_eq!(Some(leased.attempts_max), job.attempts_max);
            assert_eq!((leased.attempt, leased.crashes, leased.alone), (job.attempt, job.crashes, job.alone));
            self.leases.push(leased.lease);
        }
        for pair in jobs.windows(2).filter(|pair| pair[0].queue != pair[1].queue) {
            assert!(!self.gives(claim, &pair[0].queue), "a queue is emptied before the next");
        }
        if jobs.len() < claim.limit as usize {
            assert!(QUEUES.iter().all(|queue| !self.gives(claim, queue)), "as many as there are");
        }
    }

    pub(crate) fn lease(&self, back: usize) -> Lease {
        let none = Lease { id: JobId(999_999), claim: 1 };
        self.leases.iter().rev().nth(back).copied().unwrap_or(none)
    }

    pub(crate) fn held(&mut self, lease: Lease) -> Option<&mut ModelJob> {
        self.jobs.get_mut(&lease.id).filter(|job| job.state == JobState::Leased && job.claim == lease.claim)
    }

    pub(crate) fn failed(
        &mut self,
        lease: Lease,
        then: AfterFailure,
        backoff: &Backoff,
        settled: Settled,
        now: Timestamp,
    ) {
        let Some(job) = self.held(lease) else { return assert_eq!(settled, Settled::Stale) };
        let crash = then == AfterFailure::Crash;
        let together = then == AfterFailure::CrashTogether;
        job.record(if crash || together { AttemptEnd::Crashed } else { AttemptEnd::Failed });
        job.crashes += u32::from(crash);
        let last = Some(job.attempt) >= job.attempts_max && !together;
        if last || (crash && job.crashes == 3) || then == AfterFailure::Bury {
            job.end(JobState::Dead, now);
            return assert_eq!(settled, Settled::Dead);
        }
        let Settled::Retrying(run_at) = settled else { panic!("{settled:?} with attempts left") };
        let (base, jitter) = match (then, backoff) {
            (AfterFailure::RetryAfter(wait), _) => (wait, 0.0),
            (_, Backoff::List(waits)) if !waits.is_empty() => {
                (waits[(job.attempt as usize).min(waits.len()) - 1], 0.1)
            }
            _ => (Duration::from_secs(u64::from(job.attempt).pow(4) + 15), 0.1),
        };
        assert!(run_at >= now + base && run_at <= now + base.mul_f64(1.0 + jitter));
        job.go(JobState::Retrying);
        job.run_at = run_at;
        job.attempt -= u32::from(together);
        job.alone |= together;
    }

    pub(crate) fn intervene(&mut self, id: JobId, what: Intervention, now: Timestamp) -> Intervened {
        use JobState::*;
        let Some(job) = self.jobs.get(&id) else { return Intervened::NotFound };
        let from = job.seen(now);
        let allowed = match what {
            Intervention::Cancel => !from.has_ended(),
            Intervention::Retry => matches!(from, Scheduled | Retrying | Dead),
            Intervention::Discard => from != Leased,
        };
        if !allowed {
            return Intervened::Refused { state: from };
        }
        let unique = job.new.unique.clone();
        let place = unique.as_ref().map(|unique| (job.new.queue.clone(), unique.key.clone()));
        if what == Intervention::Discard {
            self.jobs.remove(&id);
            if let Some(place) = place.filter(|place| self.keys.get(place).is_some_and(|held| held.0 == id)) {
                self.keys.remove(&place);
            }
            return Intervened::Deleted { from };
        }
        if what == Intervention::Retry
            && from == Dead
            && let (Some(place), Some(UniqueScope::Running)) = (place, unique.map(|unique| unique.scope))
        {
            if let Some(holder) = self.held_by(&place.0, &place.1, now) {
                return Intervened::KeyHeld { holder };
            }
            self.keys.insert(place, (id, None));
        }
        let job = self.jobs.get_mut(&id).unwrap();
        if what == Intervention::Cancel {
            if from == Leased {
                job.record(AttemptEnd::Cancelled);
            }
            job.end(Cancelled, now);
            return Intervened::Moved { from, to: Cancelled };
        }
        if from == Dead {
            (job.attempt, job.crashes, job.ended_at) = (0, 0, None);
            job.attempts_max = job.new.attempts_max;
        }
        job.go(Available);
        job.run_at = now;
        Intervened::Moved { from, to: Available }
    }

    /// The ids that a filter is about, the oldest first.
    pub(crate) fn matching(&self, filter: &JobFilter, now: Timestamp) -> Vec<JobId> {
        let meant = |job: &ModelJob| {
            filter.queue.as_ref().is_none_or(|queue| *queue == job.new.queue)
                && (filter.states.is_empty() || filter.states.contains(&job.seen(now)))
                && filter
                    .unique_key
                    .as_ref()
                    .is_none_or(|key| job.new.unique.as_ref().is_some_and(|unique| unique.key == *key))
        };
        self.jobs.iter().filter(|(_, job)| meant(job)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn list(&self, filter: &JobFilter, page: Page, now: Timestamp) -> Vec<JobId> {
        let mut ids = self.matching(filter, now);
        if page.order == Order::Newest {
            ids.reverse();
        }
        if let Some(after) = page.after {
            ids.retain(|id| if page.order == Order::Newest { *id < after } else { *id > after });
        }
        ids.truncate(page.limit as usize);
        ids
    }

    pub(crate) fn prune(&mut self, retention: Retention, now: Timestamp) -> u64 {
        let before = self.jobs.len() + self.keys.len();
        self.keys.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        for (dead, kept_for, kept_max) in
            [(false, retention.done_for, retention.done_max), (true, retention.dead_for, retention.dead_max)]
        {
            let of_kind = |job: &ModelJob| job.state.has_ended() && (job.state == JobState::Dead) == dead;
            self.jobs.retain(|_, job| !of_kind(job) || job.ended_at.unwrap() > now - kept_for);
            let mut oldest: Vec<_> = self
                .jobs
                .iter()
                .filter(|(_, job)| of_kind(job))
                .map(|(id, job)| (job.ended_at, *id))
                .collect();
            oldest.sort();
            oldest.truncate(oldest.len().saturating_sub(kept_max as usize));
            oldest.iter().for_each(|(_, id)| drop(self.jobs.remove(id)));
        }
        (before - self.jobs.len() - self.keys.len()) as u64
    }

    pub(crate) fn counts(&self, now: Timestamp) -> Vec<QueueCounts> {
        let mut all: BTreeMap<&str, QueueCounts> = BTreeMap::new();
        for queue in &self.paused {
            all.entry(queue).or_default().paused = true;
        }
        for job in self.jobs.values() {
            let counts = all.entry(&job.new.queue).or_default();
            *match job.seen(now) {
                JobState::Scheduled => &mut counts.scheduled,
                JobState::Available => &mut counts.available,
                JobState::Leased => &mut counts.leased,
                JobState::Retrying => &mut counts.retrying,
                JobState::Done => &mut counts.done,
                JobState::Dead => &mut counts.dead,
                JobState::Cancelled => &mut counts.cancelled,
            } += 1;
            if job.seen(now) == JobState::Available {
                counts.oldest_waiting = counts.oldest_waiting.into_iter().chain(Some(job.run_at)).min();
            }
        }
        all.into_iter().map(|(queue, counts)| QueueCounts { queue: queue.to_string(), ..counts }).collect()
    }

    pub(crate) fn next_due(&self, queue: &str, times: Times) -> Option<Timestamp> {
        let due = |job: &ModelJob| match job.state {
            JobState::Scheduled | JobState::Retrying => Some(job.run_at),
            JobState::Leased => Some(Timestamp(times.now.0 + job.lease_until.0 - times.steady.0)),
            _ => None,
        };
        let wanted = !self.paused.contains(queue);
        self.of_queue(queue).filter(|_| wanted).filter_map(|(_, job)| due(job)).min()
    }
}
