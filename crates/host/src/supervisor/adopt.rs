//! The effect of releases on the types. One release's types are adopted, which moves those that changed and adds new
//! ones. Types that the live release doesn't have any more are retired.
//!
//! The supervisor watches a move until every type in it has its instances. An instance of the new release that doesn't
//! start, a command that exits, and the third crash in a call end the move. The caller that began it hears why, and
//! adopts the release before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::types::Type;
use super::{Refused, Supervised, Supervisor};
use crate::deaths::Death;
use crate::event::{Ended, Event, MemberId};
use crate::pool::{Pool, PoolParts, Version};

/// Crashes in calls that a move survives: one may be the call's own fault, which it would have been before too.
const CRASHES_MAX: u32 = 2;

/// How long a command must have run before its move is over. Until then nothing shows that it is any good.
const COMMAND_RUNS_FOR: Duration = Duration::from_secs(1);

/// A release's type.
pub(crate) struct Adopted {
    /// The type that it was until now; a new one where there is none.
    pub(crate) place: Option<usize>,
    pub(crate) supervised: Supervised,
}

/// A move under way, as the one who began it sees it.
pub(crate) struct Underway {
    /// The place and the pool of each type, in the order in which they were given.
    pub(crate) places: Vec<(usize, Arc<Pool>)>,
    /// Instances of the new release that serve, and how many there are to be.
    pub(crate) progress: watch::Receiver<(usize, usize)>,
    /// How it ends: an error says why for a person.
    pub(crate) ended: oneshot::Receiver<Result<(), String>>,
}

/// A move under way.
pub(super) struct Move {
    /// Types whose instances are replaced, or new.
    places: Vec<usize>,
    crashes: u32,
    failed: Option<String>,
    progress: watch::Sender<(usize, usize)>,
    ended: oneshot::Sender<Result<(), String>>,
}

impl Supervisor {
    pub(super) fn adopt(&mut self, types: Vec<Adopted>, is_way_back: bool) -> Result<Underway, Refused> {
        if self.changes_refused {
            return Err(Refused::Conflict("the host is stopping".into()));
        }
        // A way back asks for nothing that wasn't there.
        if !is_way_back {
            self.check_room(&types)?;
        }
        let mut places = vec![];
        let mut moving = vec![];
        for adopted in types {
            let (place, is_moving) = self.adopt_type(adopted);
            if is_moving {
                moving.push(place);
            }
            places.push((place, self.types[place].pool.clone()));
        }
        self.order = places.iter().map(|(place, _)| *place).collect();
        self.ages = self.age_timer();
        Ok(self.begin_move(places, moving))
    }

    /// Watches from now on that these types get their instances.
    pub(super) fn begin_move(&mut self, places: Vec<(usize, Arc<Pool>)>, moving: Vec<usize>) -> Underway {
        let (progress, watched) = watch::channel((0, 0));
        let (ended, end) = oneshot::channel();
        self.moving = Some(Move { places: moving, crashes: 0, failed: None, progress, ended });
        Underway { places, progress: watched, ended: end }
    }

    /// Whether there is room for these types, and for those that stay until the move is over.
    fn check_room(&self, types: &[Adopted]) -> Result<(), Refused> {
        let known = |adopted: &Adopted| adopted.place.filter(|place| self.types.contains(*place));
        let adopted = types.iter().flat_map(|adopted| {
            let count = self.count(adopted);
            let staying = known(adopted).into_iter().flat_map(move |place| self.counted(place, count));
            let name = &adopted.supervised.name;
            let new = known(adopted).is_none().then(|| (name.to_string(), self.here(name, count)));
            staying.chain(new)
        });
        // With canaries of those that stay.
        let stay: HashSet<usize> =
            types.iter().filter_map(known).flat_map(|place| self.places_of(place)).collect();
        let others = self.types.iter().filter(|(place, _)| !stay.contains(place));
        let others = others.map(|(_, kind)| (kind.given.name.to_string(), kind.desired));
        self.check_capacity(adopted.chain(others))
    }

    /// The count that a type will have: the one that was set live, or the file's.
    fn count(&self, adopted: &Adopted) -> u32 {
        let live = match adopted.place.and_then(|place| self.types.get(place)) {
            Some(kind) => kind.live,
            None => adopted.supervised.live,
        };
        live.unwrap_or(adopted.supervised.count_in_file)
    }

    /// Returns the type's place, and whether it gets other instances.
    fn adopt_type(&mut self, adopted: Adopted) -> (usize, bool) {
        let count = self.count(&adopted);
        // Those that leave anyway aren't moved first.
        if let Some(place) = adopted.place.filter(|place| self.types.contains(*place)) {
            self.set_count(place, count);
        }
        let (place, is_moving) = match adopted.place.filter(|place| self.types.contains(*place)) {
            Some(place) => (place, self.change_type(place, adopted.supervised)),
            None => (self.add_type(adopted.supervised), true),
        };
        self.set_count(place, count);
        let given = &self.types[place].given;
        given.version.component.weigh(given.weight);
        (place, is_moving)
    }

    fn change_type(&mut self, place: usize, supervised: Supervised) -> bool {
        let kind = &mut self.types[place];
        let version = supervised.version.clone();
        let is_other = !Arc::ptr_eq(&kind.given.version, &version);
        kind.given = supervised;
        if is_other {
            kind.pool.set_version(version.clone());
            self.roster.renew(place, version.release, |member| kind.is_busy(member));
            // Those that it forgot were waited for by nobody else.
            kind.retries.clear();
        }
        is_other
    }

    pub(super) fn add_type(&mut self, supervised: Supervised) -> usize {
        let entry = self.types.vacant_entry();
        let place = entry.key();
        let pool = Pool::new(PoolParts {
            type_index: place,
            name: supervised.name.clone(),
            version: supervised.version.clone(),
            learned: self.learned.clone(),
            counts: self.measures.of(&supervised.name),
            line_max: supervised.backlog.line_max(0),
            events: self.events.clone(),
            calls: self.calls.clone(),
        });
        self.roster.begin(place, supervised.name.clone(), supervised.version.release);
        entry.insert(Type::new(supervised, pool));
        place
    }

    /// These types aren't in the live release any more: their instances leave, and then they are forgotten.
    pub(super) fn retire(&mut self, places: &[usize]) {
        for place in places {
            if self.types.contains(*place) {
                self.types[*place].is_retired = true;
                self.set_count(*place, 0);
            }
        }
        // One who gave up waiting for a canary retires it: nothing is left to be waited for.
        if let Some(moving) = &mut self.moving {
            moving.places.retain(|place| !places.contains(place));
        }
        self.part_from_canaries(places);
        self.forget_retired();
    }

    pub(super) fn forget_retired(&mut self) {
        let roster = &self.roster;
        let mut gone = vec![];
        self.types.retain(|place, kind| {
            let is_gone = kind.is_retired && roster.kind(place).is_gone();
            if is_gone {
                kind.pool.counts.left(roster.kind(place).recycled);
            }
            gone.extend(is_gone.then(|| kind.given.name.clone()));
            !is_gone
        });
        // Another type may have had the name since.
        gone.retain(|name| self.types.iter().all(|(_, kind)| kind.given.name != *name));
        for name in &gone {
            self.deaths.forget(name);
            self.measures.forget(name);
        }
        // A caller that waits for all types waits for those that there are.
        let types = &self.types;
        self.waiting.iter_mut().for_each(|(wanted, _)| wanted.retain(|place| types.contains(*place)));
    }

    // --- the move under way

    /// An instance of this version didn't start.
    pub(super) fn move_failed_to_start(&mut self, place: usize, version: &Version, index: u32, why: &str) {
        let name = self.types[place].given.name.clone();
        self.end_move(place, version, || format!("{name}.{index} {why}"));
    }

    /// An instance that served is gone.
    pub(super) fn move_lost(&mut self, place: usize, version: &Version, index: u32, how: &Ended) {
        let name = self.types[place].given.name.clone();
        match how {
            Ended::Drained | Ended::Spent | Ended::Cancelled => {}
            Ended::FailedToStart(Death { message: why, .. }) => {
                self.end_move(place, version, || format!("{name}.{index} failed to start: {why}"));
            }
            Ended::Exited(Death { message: why, .. }) => {
                self.end_move(place, version, || format!("{name}.{index} {why} during the move"));
            }
            Ended::ByCall(Death { message: why, .. }) => {
                let Some(moving) = self.moving.as_mut().filter(|moving| moving.places.contains(&place))
                else {
                    return;
                };
                if version.release == self.types[place].given.version.release {
                    moving.crashes += 1;
                    if moving.crashes > CRASHES_MAX {
                        let crashes = moving.crashes;
                        self.end_move(place, version, || {
                            format!("{crashes} instances crashed during the move, the last one {name}.{index}: {why}")
                        });
                    }
                }
            }
        }
    }

    /// Notes the first reason alone.
    fn end_move(&mut self, place: usize, version: &Version, why: impl FnOnce() -> String) {
        let is_new = self.types[place].given.version.release == version.release;
        if let Some(moving) = &mut self.moving
            && is_new
            && moving.places.contains(&place)
            && moving.failed.is_none()
        {
            moving.failed = Some(why());
        }
    }

    /// Tells how far the move is, and ends it where it's over.
    pub(super) fn look_at_move(&mut self) {
        let Some(moving) = &self.moving else { return };
        let kinds = moving.places.iter().map(|place| self.roster.kind(*place));
        let (done, of) =
            kinds.fold((0, 0), |(done, of), kind| (done + kind.of_present_version(), of + kind.desired()));
        moving.progress.send_if_modified(|before| std::mem::replace(before, (done, of)) != (done, of));
        let is_over = moving.failed.is_some() || moving.places.iter().all(|place| self.has_moved(*place));
        if !is_over {
            return;
        }
        let Some(Move { failed, ended, .. }) = self.moving.take() else { return };
        let _ = ended.send(failed.map_or(Ok(()), Err));
    }

    fn has_moved(&self, place: usize) -> bool {
        let (kind, of) = (self.roster.kind(place), &self.types[place]);
        let is_settled = kind.is_settled() && of.pool.live() == kind.desired();
        if !is_settled || !of.given.runs_always {
            return is_settled;
        }
        let youngest = of.slots.values().map(|slot| slot.since).max();
        let Some(left) =
            youngest.and_then(|since| (since + COMMAND_RUNS_FOR).checked_duration_since(Instant::now()))
        else {
            return true;
        };
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(left).await;
            let _ = events.send(Event::Look);
        });
        false
    }

    /// Members were asked to leave. Where their type moves, those whose last call takes longer than others' is granted
    /// aren't waited for.
    pub(super) fn wait_for_leaving(&self, type_index: usize, leaving: &[MemberId]) {
        let kind = &self.types[type_index];
        let is_of_before = |member: &MemberId| {
            let slot = kind.slots.get(member);
            slot.is_some_and(|slot| slot.version.release != kind.given.version.release)
        };
        for member in leaving.iter().copied().filter(is_of_before) {
            let (events, grace) = (self.events.clone(), self.grace);
            tokio::spawn(async move {
                tokio::time::sleep(grace).await;
                let _ = events.send(Event::Late { type_index, member });
            });
        }
    }
}
