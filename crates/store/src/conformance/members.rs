//! Hosts that share the store.

use std::time::Duration;

use super::Subject;
use super::releases::of_file;
use crate::counts::{CountChange, CountTo};
use crate::members::{
    Answer, Beat, DeployUnderway, Heard, MEMBER_FOR, Member, MemberState, NAME_BYTES_MAX, SAID_BYTES_MAX,
    SHOWN_BYTES_MAX,
};
use crate::{Clock, Counts, Members, Releases, StoreError};

const SECOND: Duration = Duration::from_secs(1);

/// A later heartbeat of the first boot of this host.
fn beat(host: &str) -> Beat {
    Beat {
        host: host.to_string(),
        boot: format!("{host}/1"),
        place: format!("machine of {host}"),
        is_first: false,
        name: format!("{host}.example.com"),
        version: "0.1.0".to_string(),
        state: MemberState::Joined,
        said: format!("{{\"said by\":\"{host}\"}}"),
        shown: None,
    }
}

/// The first heartbeat of its second boot.
fn second_boot(host: &str) -> Beat {
    Beat { boot: format!("{host}/2"), is_first: true, ..beat(host) }
}

async fn heard<S: Members>(s: &Subject<S>, beat: Beat) -> Heard {
    match s.store.beat(beat).await.unwrap() {
        Answer::Heard(heard) => heard,
        Answer::Taken(by) => panic!("taken by {by:?}"),
    }
}

async fn taken<S: Members>(s: &Subject<S>, beat: Beat) -> Member {
    match s.store.beat(beat).await.unwrap() {
        Answer::Taken(by) => by,
        Answer::Heard(heard) => panic!("not refused: {heard:?}"),
    }
}

/// Hosts and the ages of their rows.
fn ages(heard: &Heard) -> Vec<(&str, u64)> {
    heard.members.iter().map(|member| (&*member.host, member.age.as_secs())).collect()
}

fn deploy(host: &str, release: u64) -> DeployUnderway {
    DeployUnderway { release, host: host.to_string(), boot: format!("{host}/1") }
}

pub(super) async fn each_hears_of_all_with_their_ages<S: Members>(s: &Subject<S>) {
    let first = heard(s, beat("b")).await;
    assert_eq!((ages(&first), first.own_age), (vec![("b", 0)], None));
    s.clock.advance(3 * SECOND);
    let second = heard(s, Beat { state: MemberState::Starting, ..beat("a") }).await;
    assert_eq!((ages(&second), second.own_age), (vec![("a", 0), ("b", 3)], None));
    let Member { host, boot, name, version, state, said, age } = second.members[0].clone();
    assert_eq!((host, boot, age), ("a".into(), "a/1".into(), Duration::ZERO));
    assert_eq!((&*name, &*version, state), ("a.example.com", "0.1.0", MemberState::Starting));
    assert_eq!(said, "{\"said by\":\"a\"}");
    let changed = Beat { state: MemberState::Draining, said: "é \u{1f980}".into(), ..beat("b") };
    s.clock.advance(4 * SECOND);
    let third = heard(s, changed).await;
    assert_eq!((ages(&third), third.own_age.map(|age| age.as_secs())), (vec![("a", 4), ("b", 0)], Some(7)));
    assert_eq!((third.members[1].state, &*third.members[1].said), (MemberState::Draining, "é \u{1f980}"));
}

pub(super) async fn ages_survive_steps_of_a_hosts_clock<S: Members>(s: &Subject<S>) {
    heard(s, beat("a")).await;
    s.clock.set(s.clock.now() + 3_600 * SECOND);
    s.clock.advance(SECOND);
    let heard = heard(s, beat("a")).await;
    assert_eq!(heard.own_age, Some(SECOND));
}

pub(super) async fn counts_and_the_live_release_come_with_the_answer<S: Members + Counts + Releases>(
    s: &Subject<S>,
) {
    let empty = heard(s, beat("a")).await;
    assert_eq!((empty.counts.len(), empty.live, empty.deploy), (0, None, None));
    let change = CountChange { process: "web".into(), in_file: 1, to: CountTo::Exactly(30) };
    s.store.change(vec![change]).await.unwrap();
    let number = s.store.add(of_file(1)).await.unwrap();
    assert_eq!(heard(s, beat("a")).await.live, None, "it is pending");
    s.store.make_live(number).await.unwrap();
    let told = heard(s, beat("b")).await;
    assert_eq!(told.now, s.clock.now());
    assert_eq!(told.counts, [("web".to_string(), 30)].into());
    assert_eq!(told.live, Some(number));
}

pub(super) async fn a_second_host_with_the_same_id_is_refused<S: Members>(s: &Subject<S>) {
    heard(s, beat("a")).await;
    s.clock.advance(SECOND);
    let copy = Beat { place: "elsewhere".into(), ..second_boot("a") };
    let by = taken(s, copy.clone()).await;
    assert_eq!((&*by.boot, by.age), ("a/1", SECOND));
    // Nothing was written, and the first goes on.
    s.clock.advance(SECOND);
    assert_eq!(heard(s, beat("a")).await.own_age, Some(2 * SECOND));
    s.clock.advance(MEMBER_FOR - SECOND);
    taken(s, copy.clone()).await;
    s.clock.advance(SECOND);
    assert_eq!(heard(s, copy).await.own_age, None, "the first was gone for long enough");
    let by = taken(s, beat("a")).await;
    assert_eq!(&*by.boot, "a/2");
}

pub(super) async fn a_boot_takes_the_row_of_a_dead_one_at_its_place<S: Members>(s: &Subject<S>) {
    heard(s, Beat { shown: Some("of the first".into()), ..beat("a") }).await;
    let again = heard(s, second_boot("a")).await;
    assert_eq!((again.own_age, again.members.len()), (None, 1));
    assert_eq!(s.store.shown().await.unwrap()[0].shown, "", "the dead one shows nothing any more");
    // Should it live after all, it doesn't take the row back: its first heartbeat was long ago.
    taken(s, beat("a")).await;
    heard(s, Beat { is_first: false, ..second_boot("a") }).await;
}

pub(super) async fn a_host_that_was_away_for_long_has_its_row_again<S: Members>(s: &Subject<S>) {
    heard(s, beat("a")).await;
    s.clock.advance(100 * SECOND);
    assert_eq!(heard(s, beat("a")).await.own_age, Some(100 * SECOND));
}

pub(super) async fn texts_for_people_are_kept_until_others_come<S: Members>(s: &Subject<S>) {
    heard(s, beat("b")).await;
    heard(s, Beat { shown: Some("long".into()), ..beat("a") }).await;
    heard(s, beat("a")).await;
    s.clock.advance(SECOND);
    let shown = s.store.shown().await.unwrap();
    let each: Vec<_> = shown.iter().map(|row| (&*row.host, &*row.shown, row.age)).collect();
    assert_eq!(each, [("a", "long", SECOND), ("b", "", SECOND)]);
    heard(s, Beat { shown: Some(String::new()), ..beat("a") }).await;
    assert_eq!(s.store.shown().await.unwrap()[0].shown, "");
}

pub(super) async fn a_row_goes_when_its_boot_leaves<S: Members>(s: &Subject<S>) {
    heard(s, beat("a")).await;
    heard(s, beat("b")).await;
    s.store.leave("a", "a/2").await.unwrap();
    s.store.leave("none", "none/1").await.unwrap();
    assert_eq!(heard(s, beat("b")).await.members.len(), 2, "that boot has no row");
    s.store.leave("a", "a/1").await.unwrap();
    assert_eq!(ages(&heard(s, beat("b")).await), [("b", 0)]);
    assert_eq!(heard(s, second_boot("a")).await.own_age, None);
}

pub(super) async fn rows_that_are_gone_for_long_are_forgotten<S: Members>(s: &Subject<S>) {
    heard(s, beat("a")).await;
    s.clock.advance(100 * SECOND);
    heard(s, beat("b")).await;
    assert_eq!(s.store.forget(100 * SECOND).await.unwrap(), 0);
    assert_eq!(s.store.forget(99 * SECOND).await.unwrap(), 1);
    assert_eq!(ages(&heard(s, beat("b")).await), [("b", 0)]);
}

pub(super) async fn texts_of_members_are_bounded<S: Members>(s: &Subject<S>) {
    let long = |bytes: usize| "x".repeat(bytes);
    let most = Beat {
        name: long(NAME_BYTES_MAX),
        said: long(SAID_BYTES_MAX),
        shown: Some(long(SHOWN_BYTES_MAX)),
        ..beat("a")
    };
    heard(s, most).await;
    assert_eq!(s.store.shown().await.unwrap()[0].shown.len(), SHOWN_BYTES_MAX);
    for (beat, named) in [
        (Beat { name: long(NAME_BYTES_MAX + 1), ..beat("a") }, "name"),
        (Beat { host: long(NAME_BYTES_MAX + 1), ..beat("a") }, "id"),
        (Beat { said: long(SAID_BYTES_MAX + 1), ..beat("a") }, "text for other hosts"),
        (Beat { shown: Some(long(SHOWN_BYTES_MAX + 1)), ..beat("a") }, "text for people"),
    ] {
        let refused = s.store.beat(beat).await;
        let Err(StoreError::Invalid(text)) = refused else { panic!("{refused:?} is not invalid") };
        assert!(text.contains(named), "{text}");
    }
}

pub(super) async fn one_deploy_is_under_way_at_most<S: Members>(s: &Subject<S>) {
    heard(s, beat("a")).await;
    heard(s, beat("b")).await;
    assert_eq!(s.store.begin_deploy(deploy("a", 7)).await.unwrap(), None);
    assert_eq!(s.store.begin_deploy(deploy("b", 8)).await.unwrap(), Some(deploy("a", 7)));
    assert_eq!(heard(s, beat("b")).await.deploy, Some(deploy("a", 7)));
    s.store.end_deploy("b/1").await.unwrap();
    assert_eq!(heard(s, beat("b")).await.deploy, Some(deploy("a", 7)), "it isn't the other's to end");
    s.store.end_deploy("a/1").await.unwrap();
    assert_eq!(heard(s, beat("b")).await.deploy, None);
    assert_eq!(s.store.begin_deploy(deploy("b", 8)).await.unwrap(), None);
}

pub(super) async fn a_deploy_is_over_when_its_host_is_gone<S: Members>(s: &Subject<S>) {
    heard(s, beat("a")).await;
    heard(s, beat("b")).await;
    s.store.begin_deploy(deploy("a", 7)).await.unwrap();
    s.clock.advance(MEMBER_FOR - SECOND);
    assert_eq!(heard(s, beat("b")).await.deploy, Some(deploy("a", 7)));
    s.clock.advance(SECOND);
    assert_eq!(heard(s, beat("b")).await.deploy, None);
    assert_eq!(s.store.begin_deploy(deploy("b", 8)).await.unwrap(), None);
    // A host that boots again doesn't go on with what it began before, and one that leaves takes its deploy along.
    heard(s, second_boot("b")).await;
    assert_eq!(heard(s, beat("a")).await.deploy, None);
    assert_eq!(s.store.begin_deploy(deploy("a", 9)).await.unwrap(), None);
    s.store.leave("a", "a/1").await.unwrap();
    let other = Beat { is_first: false, ..second_boot("b") };
    assert_eq!(heard(s, other).await.deploy, None);
}
