//! Counts that a person changes: worked out, checked whole, stored, and only then made true.
//!
//! The store may take seconds. The supervisor goes on meanwhile, and changes are made one after another: each begins
//! with what the one before it came to.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use wasmhost_store::StoreError;
use wasmhost_store::counts::{CountChange, CountTo};

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
    save: BoxFuture<'static, Result<BTreeMap<String, u32>, StoreError>>,
}

/// The counts that a change comes to as this host knows them, and what the store is asked for.
struct Weighed {
    wanted: BTreeMap<usize, u32>,
    changes: BTreeMap<usize, CountTo>,
    /// The file's counts are to hold for all types that there are or were.
    of_all: bool,
}

/// Waits for the store, for ever while there is nothing to wait for.
pub(super) async fn saved(saving: &mut Option<Saving>) -> Result<BTreeMap<String, u32>, StoreError> {
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
                    let change = |(type_index, to): (&usize, &CountTo)| {
                        let given = &self.types[*type_index].given;
                        CountChange { process: given.name.to_string(), in_file: given.count_in_file, to: *to }
                    };
                    let mut changes: Vec<CountChange> = weighed.changes.iter().map(change).collect();
                    let counts = self.counts.clone();
                    let is_reset = weighed.of_all;
                    let save = async move {
                        if is_reset {
                            // Also those of types that the live release doesn't have.
                            let gone = counts.load().await?.into_keys();
                            changes.extend(gone.map(|process| CountChange {
                                process,
                                in_file: 0,
                                to: CountTo::InFile,
                            }));
                        }
                        counts.change(changes).await
                    };
                    self.saving = Some(Saving { weighed, reply, save: save.boxed() });
                }
                Err(refused) => drop(reply.send(Err(refused))),
            }
        }
    }

    /// The store has answered.
    pub(super) fn changed(&mut self, saved: Result<BTreeMap<String, u32>, StoreError>) {
        let Some(Saving { weighed: Weighed { changes, .. }, reply, .. }) = self.saving.take() else {
            return;
        };
        self.changed_at = Some(Instant::now());
        let answer = match saved {
            Ok(all) => {
                for type_index in changes.into_keys() {
                    // A release may have retired it meanwhile.
                    if let Some(kind) = self.types.get_mut(type_index).filter(|kind| !kind.is_retired) {
                        kind.live = all.get(&*kind.given.name).copied();
                        let count = kind.live.unwrap_or(kind.given.count_in_file);
                        self.set_count(type_index, count);
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
        let (mut wanted, mut to) = (BTreeMap::new(), BTreeMap::new());
        for change in changes {
            let type_index = self.index_of(&change.process)?;
            let kind = &self.types[type_index];
            if !kind.given.scalable {
                return Err(Refused::Conflict(format!(
                    "\"{}\" keeps no instances: it runs once, before a release, or by hand",
                    change.process
                )));
            }
            to.insert(
                type_index,
                match change.to {
                    ScaleTo::Count(count) => CountTo::Exactly(count),
                    ScaleTo::More(by) => CountTo::More(by),
                    ScaleTo::Fewer(by) => CountTo::Fewer(by),
                },
            );
            let count = to[&type_index].after(Some(kind.count), 0).unwrap_or(kind.count);
            if wanted.insert(type_index, count).is_some() {
                return Err(Refused::Conflict(format!(
                    "\"{}\" has two new counts, expected one. Nothing was changed",
                    change.process
                )));
            }
        }
        Ok(Weighed { wanted, changes: to, of_all: false })
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
            changes: types.iter().map(|type_index| (*type_index, CountTo::InFile)).collect(),
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
