//! Schedules.

use std::time::Duration;

use super::{START, Subject};
use crate::ticks::{Begun, HISTORY_MAX, TickEnd, TickResult, TickView};
use crate::{Ticks, Timestamp};

/// The minute of that number.
fn minute(number: u32) -> Timestamp {
    START + Duration::from_secs(60) * number
}

async fn cursor<S: Ticks>(s: &Subject<S>, schedule: &str) -> Option<Timestamp> {
    s.store.cursor(schedule).await.unwrap()
}

async fn take<S: Ticks>(s: &Subject<S>, schedule: &str, number: u32, manual: bool) -> bool {
    s.store.take(schedule, minute(number), manual, "host/1").await.unwrap()
}

pub(super) async fn a_tick_is_taken_once<S: Ticks>(s: &Subject<S>) {
    assert!(take(s, "clock", 1, false).await);
    assert!(!take(s, "clock", 1, false).await);
    assert!(take(s, "clock", 2, false).await);
    assert!(take(s, "clock", 3, true).await);
    assert!(!take(s, "clock", 3, true).await);
}

pub(super) async fn a_taken_tick_moves_the_cursor<S: Ticks>(s: &Subject<S>) {
    assert_eq!(cursor(s, "clock").await, None);
    take(s, "clock", 1, false).await;
    assert_eq!(cursor(s, "clock").await, Some(minute(1)));
    take(s, "clock", 5, false).await;
    assert_eq!(cursor(s, "clock").await, Some(minute(5)));
}

pub(super) async fn a_manual_tick_does_not<S: Ticks>(s: &Subject<S>) {
    assert!(take(s, "clock", 1, true).await);
    assert_eq!(cursor(s, "clock").await, None);
    take(s, "clock", 2, false).await;
    assert!(take(s, "clock", 9, true).await);
    assert_eq!(cursor(s, "clock").await, Some(minute(2)));
    // It may be for a time that the schedule has left behind.
    assert!(take(s, "clock", 0, true).await);
}

pub(super) async fn the_cursor_never_moves_back<S: Ticks>(s: &Subject<S>) {
    s.store.skip_to("clock", minute(5)).await.unwrap();
    assert_eq!(cursor(s, "clock").await, Some(minute(5)));
    s.store.skip_to("clock", minute(4)).await.unwrap();
    take(s, "clock", 3, false).await;
    assert_eq!(cursor(s, "clock").await, Some(minute(5)));
    s.store.skip_to("clock", minute(6)).await.unwrap();
    assert_eq!(cursor(s, "clock").await, Some(minute(6)));
}

pub(super) async fn a_tick_that_was_passed_over_is_not_taken<S: Ticks>(s: &Subject<S>) {
    s.store.skip_to("clock", minute(5)).await.unwrap();
    assert!(!take(s, "clock", 4, false).await);
    assert!(!take(s, "clock", 5, false).await);
    assert!(take(s, "clock", 6, false).await);
    assert_eq!(s.store.history("clock", 10).await.unwrap().len(), 1);
}

pub(super) async fn a_manual_tick_takes_its_time<S: Ticks>(s: &Subject<S>) {
    assert!(take(s, "clock", 1, true).await);
    assert!(!take(s, "clock", 1, false).await);
    // Or a host would compute the same time from the cursor for ever.
    assert_eq!(cursor(s, "clock").await, Some(minute(1)));
}

pub(super) async fn schedules_are_apart<S: Ticks>(s: &Subject<S>) {
    assert!(take(s, "clock", 1, false).await);
    assert!(take(s, "reports", 1, false).await);
    s.store.skip_to("clock", minute(9)).await.unwrap();
    assert_eq!(cursor(s, "reports").await, Some(minute(1)));
    assert_eq!(s.store.history("reports", 10).await.unwrap().len(), 1);
    assert_eq!(s.store.history("none", 10).await.unwrap(), []);
}

pub(super) async fn history_is_newest_first<S: Ticks>(s: &Subject<S>) {
    for number in [2, 3, 7] {
        take(s, "clock", number, false).await;
    }
    take(s, "clock", 5, true).await;
    let nominal = async |limit| -> Vec<Timestamp> {
        s.store.history("clock", limit).await.unwrap().iter().map(|tick| tick.nominal).collect()
    };
    assert_eq!(nominal(10).await, [minute(7), minute(5), minute(3), minute(2)]);
    assert_eq!(nominal(2).await, [minute(7), minute(5)]);
    assert_eq!(nominal(0).await, []);
}

pub(super) async fn history_is_bounded<S: Ticks>(s: &Subject<S>) {
    for number in 1..=HISTORY_MAX + 5 {
        assert!(take(s, "clock", number, false).await);
    }
    let kept = s.store.history("clock", u32::MAX).await.unwrap();
    assert_eq!(kept.len(), HISTORY_MAX as usize);
    assert_eq!(kept.last().unwrap().nominal, minute(6));
    // A tick that was forgotten isn't taken again.
    assert!(!take(s, "clock", 1, false).await);
}

pub(super) async fn how_a_tick_ended_is_kept<S: Ticks>(s: &Subject<S>) {
    take(s, "clock", 1, false).await;
    take(s, "clock", 2, true).await;
    s.clock.advance(Duration::from_secs(5));
    let latest = async || s.store.history("clock", 1).await.unwrap().remove(0);
    assert_eq!(
        latest().await,
        TickView {
            schedule: "clock".to_string(),
            nominal: minute(2),
            manual: true,
            started_at: START,
            ended_at: None,
            result: TickResult::Running,
            error: None
        }
    );
    s.store.finish("clock", minute(2), TickEnd::Failed("é".repeat(5_000))).await.unwrap();
    let ended = latest().await;
    assert_eq!(ended.ended_at, Some(START + Duration::from_secs(5)));
    assert_eq!((ended.result, ended.error.unwrap().len()), (TickResult::Failed, 4_096));

    // The first word counts, and one about nothing does no harm.
    s.store.finish("clock", minute(2), TickEnd::Done).await.unwrap();
    assert!(latest().await.error.is_some());
    s.store.finish("clock", minute(8), TickEnd::Done).await.unwrap();
    s.store.finish("none", minute(1), TickEnd::Done).await.unwrap();
    s.store.finish("clock", minute(1), TickEnd::Done).await.unwrap();
    let first = s.store.history("clock", 2).await.unwrap().remove(1);
    assert!(first.ended_at.is_some() && first.error.is_none() && !first.manual);
    assert_eq!(first.result, TickResult::Done);
}

pub(super) async fn skipped_and_interrupted_are_told_apart<S: Ticks>(s: &Subject<S>) {
    for number in 1..=4 {
        take(s, "clock", number, false).await;
    }
    assert!(s.store.take("clock", minute(5), false, "other/1").await.unwrap());
    s.store.finish("clock", minute(1), TickEnd::Done).await.unwrap();
    s.store.finish("clock", minute(2), TickEnd::Skipped("the one before it ran".to_string())).await.unwrap();
    s.store.finish("clock", minute(3), TickEnd::Interrupted("a drain".to_string())).await.unwrap();
    assert_eq!(s.store.interrupt("host/").await.unwrap(), 1);
    assert_eq!(s.store.interrupt("host/").await.unwrap(), 0);
    let history = s.store.history("clock", 10).await.unwrap();
    let results: Vec<TickResult> = history.iter().rev().map(|tick| tick.result).collect();
    use TickResult::*;
    assert_eq!(results, [Done, Skipped, Interrupted, Interrupted, Running]);
    // Nobody knows when it ended; and its word comes too late.
    assert_eq!((history[1].ended_at, history[1].error.as_deref()), (None, Some("its host stopped")));
    s.store.finish("clock", minute(4), TickEnd::Done).await.unwrap();
    assert_eq!(s.store.history("clock", 2).await.unwrap()[1].result, Interrupted);
}

pub(super) async fn a_schedule_begins_when_it_is_new_and_goes_on_as_long_as_it_is_the_same<S: Ticks>(
    s: &Subject<S>,
) {
    let begin = async |times: &str, number| s.store.begin("clock", times, minute(number)).await.unwrap();
    assert_eq!(begin("0 4 * * * UTC", 1).await, Begun::New);
    assert_eq!(cursor(s, "clock").await, Some(minute(1)));
    assert!(take(s, "clock", 3, false).await);
    assert_eq!(begin("0 4 * * * UTC", 9).await, Begun::After(minute(3)));
    assert_eq!(cursor(s, "clock").await, Some(minute(3)));
    assert_eq!(s.store.begin("reports", "0 4 * * * UTC", minute(9)).await.unwrap(), Begun::New);
}

pub(super) async fn a_schedule_whose_times_change_begins_now<S: Ticks>(s: &Subject<S>) {
    let begin = async |times: &str, number| s.store.begin("clock", times, minute(number)).await.unwrap();
    begin("0 4 * * * UTC", 1).await;
    take(s, "clock", 2, false).await;
    assert_eq!(begin("0 9 * * * UTC", 700).await, Begun::Changed);
    assert_eq!(cursor(s, "clock").await, Some(minute(700)));
    assert!(!take(s, "clock", 600, false).await);
    assert_eq!(begin("0 9 * * * UTC", 800).await, Begun::After(minute(700)));
    // Also where the clock had been ahead; what was taken is not taken again.
    take(s, "clock", 900, false).await;
    assert_eq!(begin("0 9 * * * Europe/Berlin", 850).await, Begun::Changed);
    assert_eq!(cursor(s, "clock").await, Some(minute(850)));
    assert!(!take(s, "clock", 900, false).await);
}

pub(super) async fn a_schedule_that_was_away_begins_anew<S: Ticks>(s: &Subject<S>) {
    for schedule in ["clock", "reports", "mail"] {
        s.store.begin(schedule, "every 1 ms", minute(1)).await.unwrap();
        take(s, schedule, 2, false).await;
    }
    assert_eq!(s.store.keep_only(&["clock".to_string(), "new".to_string()]).await.unwrap(), 2);
    assert_eq!(s.store.keep_only(&["clock".to_string()]).await.unwrap(), 0);
    assert_eq!(s.store.begin("clock", "every 1 ms", minute(9)).await.unwrap(), Begun::After(minute(2)));
    assert_eq!(s.store.begin("mail", "every 1 ms", minute(9)).await.unwrap(), Begun::New);
    assert_eq!(s.store.history("mail", 9).await.unwrap().len(), 1, "its history is kept");
    assert_eq!(s.store.keep_only(&[]).await.unwrap(), 2);
}
