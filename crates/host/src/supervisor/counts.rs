//! Counts that a person changes: worked out, checked whole, stored, and only then made true.
//!
//! The store may take seconds. The supervisor goes on meanwhile, and changes are made one after another: each begins
//! with what the one before it came to.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use wasmhost_store::StoreError;

use super::{Refused, Supervisor};
use crate::admin::api::{ScaleChange, ScaleTo};

/// Changes that wait for the one before them.
const CHANGES_MAX: usize = 64;

/// The change that a person wants.
pub(super) enum Change {
    Scale(Vec<ScaleChange>),
    /// Back to the file's counts, of these types or of all.
    Reset(Vec<String>),
}

/// A change, and who waits for it.
pub(super) struct Asked {
    pub(super) change: Change,
    pub(super) reply: Reply,
}

/// Where the new counts go, or why there are none.
type Reply = oneshot::Sender<Result<BTreeMap<String, u32>, Refused>>;

/// Counts that are on their way to the store.
pub(super) struct Saving {
    weighed: Weighed,
    reply: Reply,
    save: BoxFuture<'static, Result<(), StoreError>>,
}

/// The counts that a change comes to, and what the store keeps of each (nothing where the file's is to hold).
struct Weighed {
    wanted: BTreeMap<usize, u32>,
    live: BTreeMap<usize, Option<u32>>,
    /// The file's counts are to hold for all types that there are or were.
    of_all: bool,
}

/// Waits for the store, for ever while there is nothing to wait for.
pub(super) async fn saved(saving: &mut Option<Saving>) -> Result<(), StoreError> {
    match saving {
        Some(saving) => (&mut saving.save).await,
        None => std::future::pending().await,
    }
}

impl Supervisor {
    pub(super) fn change(&mut self, asked: Asked) {
        if self.changes.len() >= CHANGES_MAX {
            let why = format!("{CHANGES_MAX} changes of counts wait for the store already: try again later");
            let _ = asked.reply.send(Err(Refused::Unavailable(why)));
            return;
        }
        self.changes.push_back(asked);
        self.begin_change();
    }

    /// Begins the next change, where none is on its way to the store.
    fn begin_change(&mut self) {
        while self.saving.is_none()
            && let Some(Asked { change, reply }) = self.changes.pop_front()
        {
            match self.weigh(change) {
                Ok(weighed) => {
                    let name = |type_index: &usize| self.types[*type_index].given.name.to_string();
                    let live =
                        weighed.live.iter().map(|(type_index, count)| (name(type_index), *count)).collect();
                    let counts = self.counts.clone();
                    let is_reset = weighed.of_all;
                    let save = async move {
                        let mut live: BTreeMap<String, Option<u32>> = live;
                        if is_reset {
                            // Also those of types that the live release doesn't have.
                            let gone = counts.load().await?.into_keys().map(|name| (name, None));
                            live.extend(gone);
                        }
                        counts.save(live).await
                    };
                    let save = save.boxed();
                    self.saving = Some(Saving { weighed, reply, save });
                }
                Err(refused) => drop(reply.send(Err(refused))),
            }
        }
    }

    /// The store has answered.
    pub(super) fn changed(&mut self, saved: Result<(), StoreError>) {
        let Some(Saving { weighed: Weighed { wanted, live, .. }, reply, .. }) = self.saving.take() else {
            return;
        };
        let answer = match saved {
            Ok(()) => {
                for (type_index, count) in live {
                    // A release may have retired it meanwhile.
                    if let Some(kind) = self.types.get_mut(type_index).filter(|kind| !kind.is_retired) {
                        kind.live = count;
                        self.set_count(type_index, wanted[&type_index]);
                    }
                }
                let scalable =
                    self.order.iter().map(|place| &self.types[*place]).filter(|kind| kind.given.scalable);
                Ok(scalable.map(|kind| (kind.given.name.to_string(), kind.count)).collect())
            }
            Err(err) => Err(Refused::Unavailable(format!(
                "the counts could not be saved, and were not changed: {err}"
            ))),
        };
        let _ = reply.send(answer);
        self.begin_change();
    }

    fn weigh(&self, change: Change) -> Result<Weighed, Refused> {
        if self.changes_refused {
            return Err(Refused::Conflict("the host is stopping".into()));
        }
        let weighed = match change {
            Change::Scale(changes) => self.weigh_scale(changes)?,
            Change::Reset(types) => self.weigh_reset(&types)?,
        };
        self.admit(&weighed.wanted)?;
        Ok(weighed)
    }

    fn weigh_scale(&self, changes: Vec<ScaleChange>) -> Result<Weighed, Refused> {
        let mut wanted = BTreeMap::new();
        for change in changes {
            let type_index = self.index_of(&change.process)?;
            let kind = &self.types[type_index];
            if !kind.given.scalable {
                return Err(Refused::Conflict(format!(
                    "\"{}\" keeps no instances: it runs once, before a release, or by hand",
                    change.process
                )));
            }
            let count = match change.to {
                ScaleTo::Count(count) => count,
                ScaleTo::More(by) => kind.count.saturating_add(by),
                ScaleTo::Fewer(by) => kind.count.saturating_sub(by),
            };
            if wanted.insert(type_index, count).is_some() {
                return Err(Refused::Conflict(format!(
                    "\"{}\" has two new counts, expected one. Nothing was changed",
                    change.process
                )));
            }
        }
        let live = wanted.iter().map(|(type_index, count)| (*type_index, Some(*count))).collect();
        Ok(Weighed { wanted, live, of_all: false })
    }

    fn weigh_reset(&self, types: &[String]) -> Result<Weighed, Refused> {
        for name in types {
            self.index_of(name)?;
        }
        let of_all = types.is_empty();
        let types = self.live_of(types);
        let in_file = |type_index: &usize| self.types[*type_index].given.count_in_file;
        Ok(Weighed {
            wanted: types.iter().map(|type_index| (*type_index, in_file(type_index))).collect(),
            live: types.iter().map(|type_index| (*type_index, None)).collect(),
            of_all,
        })
    }

    /// Whether these counts fit; the answer shows the sum.
    fn admit(&self, wanted: &BTreeMap<usize, u32>) -> Result<(), Refused> {
        let kinds = self.order.iter().map(|place| (*place, &self.types[*place]));
        let kinds = kinds.filter(|(_, kind)| kind.given.scalable);
        let counts = kinds.flat_map(|(type_index, kind)| {
            let count = wanted.get(&type_index).copied().unwrap_or(kind.count);
            self.counted(type_index, count)
        });
        let fits = self.check_capacity(counts);
        fits.map_err(|too_many| Refused::Conflict(format!("{too_many}. Nothing was changed")))
    }
}
