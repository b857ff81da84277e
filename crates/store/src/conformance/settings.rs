//! Counts that were set live.

use std::collections::BTreeMap;

use super::Subject;
use crate::Counts;

fn map<T: Clone>(entries: &[(&str, T)]) -> BTreeMap<String, T> {
    entries.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

pub(super) async fn counts_are_kept<S: Counts>(s: &Subject<S>) {
    assert!(s.store.load().await.unwrap().is_empty());
    s.store.save(map(&[("web", Some(4)), ("worker", Some(0))])).await.unwrap();
    assert_eq!(s.store.load().await.unwrap(), map(&[("web", 4), ("worker", 0)]));
    s.store.save(map(&[("web", Some(u32::MAX))])).await.unwrap();
    assert_eq!(s.store.load().await.unwrap(), map(&[("web", u32::MAX), ("worker", 0)]));
    s.store.save(BTreeMap::new()).await.unwrap();
}

pub(super) async fn a_count_is_forgotten<S: Counts>(s: &Subject<S>) {
    s.store.save(map(&[("web", Some(4)), ("worker", Some(2))])).await.unwrap();
    s.store.save(map(&[("web", None), ("clock", Some(1)), ("none", None)])).await.unwrap();
    assert_eq!(s.store.load().await.unwrap(), map(&[("clock", 1), ("worker", 2)]));
}
