//! Counts that were set live.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Subject;
use super::crowd::crowd;
use crate::Counts;
use crate::counts::{CountChange, CountTo};

fn map(entries: &[(&str, u32)]) -> BTreeMap<String, u32> {
    entries.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

/// Changes of types of which the formation has three instances each.
async fn change<S: Counts>(s: &Subject<S>, changes: &[(&str, CountTo)]) -> BTreeMap<String, u32> {
    let change =
        |(process, to): &(&str, CountTo)| CountChange { process: process.to_string(), in_file: 3, to: *to };
    let after = s.store.change(changes.iter().map(change).collect()).await.unwrap();
    assert_eq!(s.store.load().await.unwrap(), after);
    after
}

pub(super) async fn counts_are_kept<S: Counts>(s: &Subject<S>) {
    assert!(s.store.load().await.unwrap().is_empty());
    let both = [("web", CountTo::Exactly(4)), ("worker", CountTo::Exactly(0))];
    assert_eq!(change(s, &both).await, map(&[("web", 4), ("worker", 0)]));
    let most = change(s, &[("web", CountTo::Exactly(u32::MAX))]).await;
    assert_eq!(most, map(&[("web", u32::MAX), ("worker", 0)]));
    assert_eq!(change(s, &[]).await, most);
}

pub(super) async fn a_count_is_forgotten<S: Counts>(s: &Subject<S>) {
    change(s, &[("web", CountTo::Exactly(4)), ("worker", CountTo::Exactly(2))]).await;
    let changes = [("web", CountTo::InFile), ("clock", CountTo::Exactly(1)), ("none", CountTo::InFile)];
    assert_eq!(change(s, &changes).await, map(&[("clock", 1), ("worker", 2)]));
}

pub(super) async fn a_relative_change_goes_from_what_is_live_or_else_from_the_file<S: Counts>(
    s: &Subject<S>,
) {
    assert_eq!(change(s, &[("web", CountTo::More(2))]).await, map(&[("web", 5)]));
    assert_eq!(change(s, &[("web", CountTo::Fewer(4))]).await, map(&[("web", 1)]));
    assert_eq!(change(s, &[("web", CountTo::Fewer(4))]).await, map(&[("web", 0)]));
    assert_eq!(change(s, &[("web", CountTo::More(u32::MAX))]).await, map(&[("web", u32::MAX)]));
    assert_eq!(change(s, &[("web", CountTo::More(1))]).await, map(&[("web", u32::MAX)]));
    assert_eq!(change(s, &[("web", CountTo::InFile)]).await, map(&[]));
    assert_eq!(change(s, &[("web", CountTo::Fewer(1))]).await, map(&[("web", 2)]));
}

pub(super) async fn relative_changes_of_many_add_up<S: Counts>(s: &Subject<S>) {
    const EACH: u32 = 20;
    let hosts = crowd(s, 8, async |store: Arc<S>, _| {
        let one_more = CountChange { process: "web".to_string(), in_file: 3, to: CountTo::More(1) };
        for _ in 0..EACH {
            store.change(vec![one_more.clone()]).await.unwrap();
        }
    });
    let hosts = u32::try_from(hosts.await.len()).unwrap();
    assert_eq!(s.store.load().await.unwrap(), map(&[("web", 3 + hosts * EACH)]));
}
