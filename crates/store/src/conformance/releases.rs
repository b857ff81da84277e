//! Releases.

use std::time::Duration;

use super::{START, Subject, crowd::crowd};
use crate::releases::{
    COMPONENTS_MAX, FINGERPRINT_BYTES_MAX, FORMATION_BYTES_MAX, NewRelease, Release, ReleaseComponent,
    ReleaseState, TEXT_BYTES_MAX,
};
use crate::{Releases, StoreError};

use ReleaseState::*;

/// A digest that ends with this number.
fn digest(number: u64) -> String {
    format!("{number:064x}")
}

fn component(process: &str, number: u64) -> ReleaseComponent {
    ReleaseComponent {
        process: process.to_string(),
        digest: digest(number),
        file: format!("/srv/shop/{process}.wasm"),
        bytes: 1_000 + number,
    }
}

/// A release of the file with one component.
pub(super) fn of_file(number: u64) -> NewRelease {
    NewRelease {
        author: "deploy".to_string(),
        of_file: true,
        formation: format!("# {number}"),
        dotenv: None,
        fingerprint: format!("print {number}"),
        components: vec![component("web", number)],
    }
}

fn rollback(number: u64) -> NewRelease {
    NewRelease { author: format!("rollback to v{number}"), of_file: false, ..of_file(number) }
}

async fn add<S: Releases>(s: &Subject<S>, release: NewRelease) -> u64 {
    s.store.add(release).await.unwrap()
}

/// Adds so many releases of the file, each live after the other.
async fn add_live<S: Releases>(s: &Subject<S>, how_many: u64) {
    for number in 1..=how_many {
        assert_eq!(add(s, of_file(number)).await, number);
        s.store.make_live(number).await.unwrap();
    }
}

async fn get<S: Releases>(s: &Subject<S>, number: u64) -> Release {
    s.store.release(number).await.unwrap().expect("the release is there")
}

/// Numbers and states, newest first.
async fn states<S: Releases>(s: &Subject<S>) -> Vec<(u64, ReleaseState)> {
    let mut states = Vec::new();
    for number in s.store.numbers(u32::MAX).await.unwrap() {
        states.push((number, get(s, number).await.state));
    }
    states
}

fn invalid<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Invalid(text)) => text,
        other => panic!("{other:?} is not invalid"),
    }
}

pub(super) async fn a_new_release_is_seen_as_it_was_passed<S: Releases>(s: &Subject<S>) {
    let new = NewRelease {
        author: "start".to_string(),
        of_file: true,
        formation: "[process.web]\n# é \0 \u{1f980}\r\n".to_string(),
        dotenv: Some("KEY=value\n".to_string()),
        fingerprint: "f1".to_string(),
        components: vec![component("web", 7), component("api", 3), component("clock", 7)],
    };
    s.clock.advance(Duration::from_secs(3));
    let number = add(s, new.clone()).await;
    let expected = Release {
        number: 1,
        created_at: START + Duration::from_secs(3),
        live_at: None,
        author: new.author,
        of_file: true,
        state: Pending,
        why: None,
        formation: new.formation,
        dotenv: new.dotenv,
        fingerprint: new.fingerprint,
        components: new.components,
    };
    assert_eq!(get(s, number).await, expected);
    assert_eq!(s.store.numbers(1).await.unwrap(), [1]);
    assert_eq!(s.store.latest_of_file().await.unwrap(), Some(expected));
    // A `.env` without a line isn't none, and a formation may have no types.
    let empty = NewRelease { dotenv: Some(String::new()), components: Vec::new(), ..rollback(1) };
    let number = add(s, empty).await;
    let found = get(s, number).await;
    assert_eq!((found.dotenv.as_deref(), found.of_file, found.components), (Some(""), false, vec![]));
}

pub(super) async fn there_is_no_release_at_first<S: Releases>(s: &Subject<S>) {
    assert_eq!(s.store.live().await.unwrap(), None);
    assert_eq!(s.store.latest_of_file().await.unwrap(), None);
    assert_eq!(s.store.last_replaced().await.unwrap(), None);
    assert_eq!(s.store.numbers(10).await.unwrap(), Vec::<u64>::new());
    assert_eq!(s.store.forget(10).await.unwrap(), Vec::<String>::new());
    assert_eq!(s.store.fail_pending("why").await.unwrap(), Vec::<u64>::new());
    for number in [0, 1, u64::MAX] {
        assert_eq!(s.store.release(number).await.unwrap(), None);
        assert_eq!(s.store.live_before(number).await.unwrap(), None);
        let text = format!("there is no release v{number}");
        assert_eq!(invalid(s.store.retry(number).await), text);
        assert_eq!(invalid(s.store.make_live(number).await), text);
        assert_eq!(invalid(s.store.fail(number, "why".to_string()).await), text);
    }
}

pub(super) async fn one_release_is_live<S: Releases>(s: &Subject<S>) {
    add(s, of_file(1)).await;
    assert_eq!(s.store.live().await.unwrap(), None);
    s.clock.advance(Duration::from_secs(1));
    s.store.make_live(1).await.unwrap();
    add(s, of_file(2)).await;
    assert_eq!(s.store.live().await.unwrap().unwrap().number, 1);
    s.clock.advance(Duration::from_secs(1));
    s.store.make_live(2).await.unwrap();
    assert_eq!(states(s).await, [(2, Live), (1, Replaced)]);
    let live = s.store.live().await.unwrap().unwrap();
    assert_eq!((live.number, live.components), (2, vec![component("web", 2)]));
    assert_eq!(live.live_at, Some(START + Duration::from_secs(2)));
    assert_eq!(live.created_at, START + Duration::from_secs(1));
    assert_eq!(get(s, 1).await.live_at, Some(START + Duration::from_secs(1)));
}

pub(super) async fn the_live_release_stays_it<S: Releases>(s: &Subject<S>) {
    add_live(s, 2).await;
    s.clock.advance(Duration::from_secs(1));
    s.store.make_live(2).await.unwrap();
    assert_eq!(states(s).await, [(2, Live), (1, Replaced)]);
    assert_eq!(get(s, 2).await.live_at, Some(START));
}

pub(super) async fn only_a_pending_release_becomes_live<S: Releases>(s: &Subject<S>) {
    add_live(s, 2).await;
    add(s, of_file(3)).await;
    s.store.fail(3, "no".to_string()).await.unwrap();
    assert_eq!(
        invalid(s.store.make_live(1).await),
        "release v1 is replaced; only a pending one can become live"
    );
    assert_eq!(
        invalid(s.store.make_live(3).await),
        "release v3 is failed; only a pending one can become live"
    );
    assert_eq!(states(s).await, [(3, Failed), (2, Live), (1, Replaced)]);
}

pub(super) async fn only_a_pending_release_fails<S: Releases>(s: &Subject<S>) {
    add_live(s, 2).await;
    add(s, of_file(3)).await;
    s.store.fail(3, "é".repeat(5_000)).await.unwrap();
    let failed = get(s, 3).await;
    assert_eq!((failed.state, failed.live_at, failed.why.unwrap().len()), (Failed, None, 4_096));
    for (number, state) in [(1, "replaced"), (2, "live"), (3, "failed")] {
        let text = format!("release v{number} is {state}; only a pending one can become failed");
        assert_eq!(invalid(s.store.fail(number, "why".to_string()).await), text);
    }
    assert_eq!(states(s).await, [(3, Failed), (2, Live), (1, Replaced)]);
    assert!(get(s, 3).await.why.unwrap().starts_with('é'));
    assert_eq!(get(s, 2).await.why, None);
}

pub(super) async fn a_failed_release_is_tried_again_under_its_number<S: Releases>(s: &Subject<S>) {
    add_live(s, 2).await;
    add(s, of_file(3)).await;
    for (number, state) in [(1, "replaced"), (2, "live"), (3, "pending")] {
        let text = format!("release v{number} is {state}; only a failed one can become pending");
        assert_eq!(invalid(s.store.retry(number).await), text);
    }
    s.store.fail(3, "no".to_string()).await.unwrap();
    s.clock.advance(Duration::from_secs(1));
    s.store.retry(3).await.unwrap();
    let again = get(s, 3).await;
    assert_eq!((again.state, again.why, again.live_at), (Pending, None, None));
    assert_eq!(again.created_at, START + Duration::from_secs(1));
    assert_eq!((again.formation, again.components), (of_file(3).formation, of_file(3).components));
    s.store.fail(3, "no again".to_string()).await.unwrap();
    s.store.retry(3).await.unwrap();
    s.store.make_live(3).await.unwrap();
    assert_eq!(states(s).await, [(3, Live), (2, Replaced), (1, Replaced)]);
}

pub(super) async fn releases_that_were_live_before_are_found<S: Releases>(s: &Subject<S>) {
    let number = |found: Result<Option<Release>, StoreError>| found.unwrap().map(|release| release.number);
    add_live(s, 2).await;
    add(s, of_file(3)).await;
    s.store.fail(3, "no".to_string()).await.unwrap();
    add(s, rollback(1)).await;
    let mut before = Vec::new();
    for of in [1, 2, 3, 4, u64::MAX] {
        before.push(number(s.store.live_before(of).await));
    }
    assert_eq!(before, [None, Some(1), Some(2), Some(2), Some(2)]);
    assert_eq!(number(s.store.last_replaced().await), Some(1));
    s.clock.advance(Duration::from_secs(1));
    s.store.make_live(4).await.unwrap();
    assert_eq!(number(s.store.last_replaced().await), Some(2));
    // The one that was live last, whatever its number.
    add(s, of_file(5)).await;
    s.store.retry(3).await.unwrap();
    s.clock.advance(Duration::from_secs(1));
    s.store.make_live(5).await.unwrap();
    s.clock.advance(Duration::from_secs(1));
    s.store.make_live(3).await.unwrap();
    assert_eq!(number(s.store.last_replaced().await), Some(5));
    assert_eq!(s.store.last_replaced().await.unwrap().unwrap().components, of_file(5).components);
}

pub(super) async fn releases_that_a_dead_host_left_fail<S: Releases>(s: &Subject<S>) {
    add_live(s, 1).await;
    for number in [2, 3] {
        add(s, of_file(number)).await;
    }
    assert_eq!(s.store.fail_pending("its host stopped").await.unwrap(), [2, 3]);
    assert_eq!(s.store.fail_pending("its host stopped").await.unwrap(), Vec::<u64>::new());
    assert_eq!(states(s).await, [(3, Failed), (2, Failed), (1, Live)]);
    assert_eq!(get(s, 2).await.why.as_deref(), Some("its host stopped"));
}

pub(super) async fn the_latest_of_the_file_is_found_whatever_its_state<S: Releases>(s: &Subject<S>) {
    let latest = async || s.store.latest_of_file().await.unwrap().unwrap().number;
    add_live(s, 2).await;
    assert_eq!(latest().await, 2);
    assert_eq!(add(s, rollback(1)).await, 3);
    s.store.make_live(3).await.unwrap();
    assert_eq!(latest().await, 2);
    add(s, of_file(4)).await;
    assert_eq!(latest().await, 4);
    s.store.fail(4, "no".to_string()).await.unwrap();
    assert_eq!(latest().await, 4);
}

pub(super) async fn releases_are_listed_newest_first<S: Releases>(s: &Subject<S>) {
    add_live(s, 3).await;
    let numbers = async |limit| -> Vec<u64> { s.store.numbers(limit).await.unwrap() };
    assert_eq!(numbers(10).await, [3, 2, 1]);
    assert_eq!(numbers(2).await, [3, 2]);
    assert_eq!(numbers(0).await, Vec::<u64>::new());
}

pub(super) async fn the_newest_releases_are_kept<S: Releases>(s: &Subject<S>) {
    add_live(s, 5).await;
    assert_eq!(s.store.forget(5).await.unwrap(), [1, 2, 3, 4, 5].map(digest));
    assert_eq!(s.store.forget(2).await.unwrap(), [4, 5].map(digest));
    assert_eq!(states(s).await, [(5, Live), (4, Replaced)]);
    assert_eq!(s.store.release(3).await.unwrap(), None);
    assert_eq!(get(s, 4).await.components, [component("web", 4)]);
}

pub(super) async fn what_is_needed_is_kept_however_old<S: Releases>(s: &Subject<S>) {
    // v1 is live, v2 is the latest of the file, v5 is pending: all of them are older than what is newest.
    add_live(s, 1).await;
    add(s, of_file(2)).await;
    s.store.fail(2, "no".to_string()).await.unwrap();
    for number in 3..=7 {
        add(s, rollback(number)).await;
        if number != 5 {
            s.store.fail(number, "no".to_string()).await.unwrap();
        }
    }
    assert_eq!(s.store.forget(1).await.unwrap(), [1, 2, 5, 7].map(digest));
    assert_eq!(s.store.forget(0).await.unwrap(), [1, 2, 5].map(digest));
    assert_eq!(states(s).await, [(5, Pending), (2, Failed), (1, Live)]);
}

pub(super) async fn a_digest_is_named_once<S: Releases>(s: &Subject<S>) {
    for _ in 0..2 {
        add(s, NewRelease { components: vec![component("web", 1), component("api", 1)], ..of_file(1) }).await;
    }
    assert_eq!(s.store.forget(10).await.unwrap(), [digest(1)]);
}

pub(super) async fn numbers_are_never_used_again<S: Releases>(s: &Subject<S>) {
    add_live(s, 1).await;
    for number in 2..=4 {
        assert_eq!(add(s, rollback(1)).await, number);
        s.store.fail(number, "no".to_string()).await.unwrap();
    }
    s.store.forget(0).await.unwrap();
    assert_eq!(states(s).await, [(1, Live)]);
    assert_eq!(add(s, of_file(5)).await, 5);
}

pub(super) async fn a_large_release_is_kept<S: Releases>(s: &Subject<S>) {
    let components: Vec<_> = (0..COMPONENTS_MAX as u64).map(|n| component(&format!("t{n}"), n)).collect();
    let large = NewRelease {
        author: "a".repeat(TEXT_BYTES_MAX),
        formation: "f".repeat(FORMATION_BYTES_MAX),
        dotenv: Some("d".repeat(FORMATION_BYTES_MAX)),
        fingerprint: "p".repeat(FINGERPRINT_BYTES_MAX),
        components,
        ..of_file(1)
    };
    let number = add(s, large.clone()).await;
    let found = get(s, number).await;
    assert_eq!((found.formation, found.dotenv), (large.formation, large.dotenv));
    assert_eq!(found.fingerprint, large.fingerprint);
    assert_eq!(found.components, large.components);
}

pub(super) async fn a_release_that_is_wrong_is_refused<S: Releases>(s: &Subject<S>) {
    let one = |change: fn(&mut ReleaseComponent)| {
        let mut component = component("web", 1);
        change(&mut component);
        NewRelease { components: vec![component], ..of_file(1) }
    };
    let long = || "x".repeat(TEXT_BYTES_MAX + 1);
    let too_many = (0..=COMPONENTS_MAX as u64).map(|n| component(&format!("t{n}"), n)).collect();
    for (release, text) in [
        (NewRelease { formation: "f".repeat(FORMATION_BYTES_MAX + 1), ..of_file(1) }, "4194304 is the most"),
        (
            NewRelease { dotenv: Some("d".repeat(FORMATION_BYTES_MAX + 1)), ..of_file(1) },
            "the release's .env",
        ),
        (NewRelease { author: long(), ..of_file(1) }, "author is 4097 bytes long; 4096 is the most"),
        (NewRelease { fingerprint: "f".repeat(FINGERPRINT_BYTES_MAX + 1), ..of_file(1) }, "fingerprint"),
        (NewRelease { components: too_many, ..of_file(1) }, "10001 components; 10000 is the most"),
        (NewRelease { components: vec![component("web", 1); 2], ..of_file(1) }, "web has two components"),
        (one(|component| component.digest = "ABC".to_string()), "the digest of web's component is \"ABC\""),
        (one(|component| component.digest = "g".repeat(64)), "64 lower-case hexadecimal digits are expected"),
        (one(|component| component.file = "x".repeat(TEXT_BYTES_MAX + 1)), "the component's path"),
        (one(|component| component.bytes = u64::MAX), "which no file has"),
    ] {
        let found = invalid(s.store.add(release).await);
        assert!(found.contains(text), "{found}, not {text}");
    }
    assert_eq!(s.store.numbers(10).await.unwrap(), Vec::<u64>::new());
}

pub(super) async fn one_of_many_is_live<S: Releases>(s: &Subject<S>) {
    const RELEASES: u64 = 24;
    let numbers = crowd(s, RELEASES as usize, async |store: std::sync::Arc<S>, _| {
        let number = store.add(of_file(1)).await.unwrap();
        store.make_live(number).await.unwrap();
        number
    })
    .await;
    let mut numbers = numbers;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=RELEASES).collect::<Vec<_>>());
    let live = states(s).await.iter().filter(|(_, state)| *state == Live).count();
    assert_eq!(live, 1);
    assert!(s.store.live().await.unwrap().is_some());
}
