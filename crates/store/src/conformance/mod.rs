//! The suite that every backend passes: [`exercise`] runs it on a new store for each case.
//!
//! A case is a function whose name is the rule; it panics where the rule is broken. The suite is public, so that a
//! backend outside of this crate can be held to it. The clock is a [`ManualClock`]: nothing sleeps.

mod claiming;
mod crowd;
mod enqueueing;
mod failing;
mod interventions;
mod leases;
mod limits;
mod members;
mod releases;
mod retention;
mod settings;
mod ticks;
mod uniqueness;

use std::sync::Arc;
use std::time::Duration;

use crate::jobs::{
    AfterFailure, Backoff, Claim, ClaimQueue, Failure, JobDetail, JobId, JobState, JobView, LeasedJob,
    NewJob, QueueCounts, Settled, Unique, UniqueScope,
};
use crate::{Clock, Counts, Jobs, ManualClock, Members, Releases, Ticks, Timestamp};

/// When each case begins: 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp(1_767_225_600_000);

/// How long the cases lease jobs for.
const LEASE: Duration = Duration::from_secs(30);

/// Runs every case on a store that `make` makes empty, going by the clock that it is given.
///
/// # Panics
///
/// Where the backend breaks a rule: the panic's place is in the function that is named after it. Needs a tokio
/// runtime with its timer; with more than one thread it tries harder.
pub async fn exercise<S, M>(make: M)
where
    S: Jobs + Ticks + Counts + Releases + Members,
    M: AsyncFn(Arc<ManualClock>) -> S,
{
    macro_rules! cases {
        ($($group:ident: $($case:ident),+;)+) => {$($(
            let clock = Arc::new(ManualClock::new(START));
            let store = Arc::new(make(Arc::clone(&clock)).await);
            tracing::info!(case = concat!(stringify!($group), "::", stringify!($case)), "exercising");
            $group::$case(&Subject { store, clock }).await;
        )+)+};
    }
    cases! {
        enqueueing: a_new_job_is_seen_as_it_was_passed, answers_come_in_order, nothing_is_a_valid_batch,
            a_unique_key_is_held_until_its_job_ends, a_unique_key_is_the_queues_own,
            twins_in_one_batch_are_one_job, a_full_queue_refuses, a_batch_that_does_not_fit_is_refused_whole,
            depth_counts_what_waits, a_taken_key_is_no_deeper, the_bytes_that_wait_are_bounded, what_is_too_large_is_invalid, the_limits_are_allowed,
            an_invalid_job_refuses_its_batch, enqueueing_is_a_change;
        claiming: a_claimed_job_is_whole, nothing_is_claimed_from_nothing, only_the_named_queues_are_claimed,
            higher_priority_comes_first, then_what_was_due_first, then_what_came_first,
            a_delayed_job_waits_until_it_is_due, a_job_due_in_the_past_is_available, the_limit_holds,
            a_limit_of_none_is_one, a_claim_is_bounded_by_bytes, an_empty_queue_blocks_no_other,
            weights_decide_the_queue, attempts_come_from_the_claim_unless_the_producer_said,
            next_due_is_the_earliest, promoting_is_a_change;
        failing: a_done_job_is_done, a_failed_job_waits_for_its_backoff, retry_after_waits_that_long,
            the_last_attempt_is_the_last, the_third_crash_buries, a_crash_in_company_is_nobodys_and_the_next_attempt_is_alone,
            a_crash_on_the_last_attempt_buries,
            a_bury_is_final, a_message_is_cut_at_a_character, attempts_count_up, extreme_waits_do_no_harm,
            a_lowered_limit_keeps_the_promised_retry, a_list_of_waits_is_followed, attempts_that_failed_are_kept,
            the_latest_attempts_are_kept;
        leases: an_answer_with_an_old_claim_is_stale, an_answer_without_a_lease_is_stale,
            an_expired_lease_is_due_again, an_expired_lease_that_nobody_took_is_still_answered,
            a_lease_is_not_taken_from_a_call_under_way, renewing_keeps_a_lease, renewing_tells_what_was_lost, a_release_gives_the_attempt_back,
            a_released_job_keeps_its_place, an_expired_last_attempt_is_buried, freeing_frees_one_owners_leases,
            freeing_buries_last_attempts, freeing_everything, a_job_that_always_hangs_ends,
            each_end_without_an_answer_is_kept;
        limits: concurrency_holds, concurrency_holds_over_all_owners, a_limit_of_one_queue_stops_no_other,
            room_is_a_change, an_ack_without_a_limit_is_none, a_lost_lease_makes_room, a_paused_queue_gives_nothing,
            a_paused_queue_is_shown_and_kept, leases_run_out_in_a_paused_queue, no_queue_has_no_name,
            the_oldest_that_waits_is_told, concurrency_holds_in_a_crowd;
        interventions: what_waits_is_cancelled, a_leased_job_is_cancelled, what_has_ended_is_not_cancelled,
            a_dead_job_begins_anew, a_retry_does_not_wait, what_runs_or_was_cancelled_is_not_retried,
            all_but_leased_jobs_are_discarded, unknown_jobs_are_not_found, many_are_treated_in_batches,
            many_are_chosen_by_queue_and_state, lists_are_in_order_and_paged, lists_are_bounded,
            lists_show_what_is_due_as_available;
        uniqueness: a_waiting_key_is_held_until_a_call_begins, a_key_for_a_time_outlives_its_job,
            scopes_share_their_keys, a_key_for_no_time_still_counts_in_its_batch, discarding_frees_the_key, a_retried_job_takes_its_key_again,
            expired_keys_are_pruned;
        retention: what_is_young_is_kept, done_jobs_go_by_age, done_jobs_go_by_count, dead_jobs_have_their_own_terms,
            pruning_is_bounded, pruning_spares_what_lives, a_pruned_job_is_gone, an_empty_queue_is_not_counted,
            ids_are_never_used_again, counts_follow_each_state;
        ticks: a_tick_is_taken_once, a_taken_tick_moves_the_cursor, a_manual_tick_does_not,
            the_cursor_never_moves_back, a_tick_that_was_passed_over_is_not_taken, a_manual_tick_takes_its_time,
            schedules_are_apart, history_is_newest_first, history_is_bounded, how_a_tick_ended_is_kept,
            skipped_and_interrupted_are_told_apart,
            a_schedule_begins_when_it_is_new_and_goes_on_as_long_as_it_is_the_same,
            a_schedule_whose_times_change_begins_now, a_schedule_that_was_away_begins_anew;
        releases: a_new_release_is_seen_as_it_was_passed, there_is_no_release_at_first, one_release_is_live,
            the_live_release_stays_it, only_a_pending_release_becomes_live, only_a_pending_release_fails,
            a_failed_release_is_tried_again_under_its_number, releases_that_were_live_before_are_found,
            releases_that_a_dead_host_left_fail, the_latest_of_the_file_is_found_whatever_its_state,
            releases_are_listed_newest_first, the_newest_releases_are_kept, what_is_needed_is_kept_however_old,
            a_digest_is_named_once, numbers_are_never_used_again, a_large_release_is_kept,
            a_release_that_is_wrong_is_refused, one_of_many_is_live;
        settings: counts_are_kept, a_count_is_forgotten,
            a_relative_change_goes_from_what_is_live_or_else_from_the_file, relative_changes_of_many_add_up;
        members: each_hears_of_all_with_their_ages, ages_survive_steps_of_a_hosts_clock,
            counts_and_the_live_release_come_with_the_answer, a_second_host_with_the_same_id_is_refused,
            a_boot_takes_the_row_of_a_dead_one_at_its_place, a_host_that_was_away_for_long_has_its_row_again,
            texts_for_people_are_kept_until_others_come, a_row_goes_when_its_boot_leaves,
            rows_that_are_gone_for_long_are_forgotten, texts_of_members_are_bounded, one_deploy_is_under_way_at_most,
            a_deploy_is_over_when_its_host_is_gone;
        crowd: no_job_is_claimed_twice, one_of_many_takes_the_tick, one_of_many_holds_the_key, depth_holds_in_a_crowd,
            a_claim_that_nobody_waits_for_is_given_back;
    }
}

/// A store under test and its clock.
struct Subject<S> {
    store: Arc<S>,
    clock: Arc<ManualClock>,
}

impl<S: Jobs> Subject<S> {
    /// Enqueues one job.
    async fn put(&self, job: NewJob) -> JobId {
        let receipts = self.store.enqueue(vec![job]).await.expect("enqueue");
        assert_eq!(receipts.len(), 1);
        assert!(receipts[0].created);
        receipts[0].id
    }

    /// Claims one job of this queue.
    async fn take(&self, queue: &str) -> Option<LeasedJob> {
        let mut jobs = self.store.claim(claim(queue)).await.expect("claim");
        assert!(jobs.len() <= 1);
        jobs.pop()
    }

    /// Claims the job that must be there.
    async fn take_one(&self, queue: &str) -> LeasedJob {
        self.take(queue).await.expect("a job is due")
    }

    async fn fail(&self, job: &LeasedJob, then: AfterFailure) -> Settled {
        let failure = Failure { then, message: "it failed".to_string(), backoff: Backoff::Curve };
        self.store.fail(job.lease, failure).await.expect("fail")
    }

    async fn view(&self, id: JobId) -> JobView {
        self.detail(id).await.view
    }

    async fn detail(&self, id: JobId) -> JobDetail {
        self.store.get(id).await.expect("get").expect("the job is there")
    }

    async fn state(&self, id: JobId) -> JobState {
        self.view(id).await.state
    }

    async fn count(&self, queue: &str) -> QueueCounts {
        let all = self.store.counts().await.expect("counts");
        let none = QueueCounts { queue: queue.to_string(), ..QueueCounts::default() };
        all.into_iter().find(|counts| counts.queue == queue).unwrap_or(none)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn job(queue: &str) -> NewJob {
    NewJob { queue: queue.to_string(), payload: b"payload".to_vec(), ..NewJob::default() }
}

fn keyed(queue: &str, key: &str) -> NewJob {
    let unique = Unique { key: key.to_string(), scope: UniqueScope::default() };
    NewJob { unique: Some(unique), ..job(queue) }
}

fn claim(queue: &str) -> Claim {
    Claim {
        owner: "host/boot-1".to_string(),
        queues: vec![weighted(queue, 1)],
        limit: 1,
        lease: LEASE,
        attempts_default: 25,
    }
}

fn weighted(queue: &str, weight: u32) -> ClaimQueue {
    ClaimQueue { name: queue.to_string(), weight, concurrency: None }
}
