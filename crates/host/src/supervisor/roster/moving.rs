//! A type moves from one version to another: each of its members is replaced by one of the new version, at most a quarter
//! of them at once. Those that leave count among that quarter, unless their last call takes long ([`Roster::note_late`]).
//!
//! A way back is a move too. Members that are of the wanted version already stay.

use super::{Phase, Roster};
use crate::event::MemberId;

impl Roster {
    /// Instances of this type are of this version from now on. Those that are idle are replaced first.
    pub(in crate::supervisor) fn renew(
        &mut self,
        type_index: usize,
        version: u64,
        is_busy: impl Fn(MemberId) -> bool,
    ) {
        let kind = &mut self.kinds[type_index];
        kind.version = version;
        // Before anything starts: members of this version stay.
        let members = &kind.members;
        kind.due.retain(|due| members.get(&due.member).is_some_and(|place| place.version != version));
        // Those that leave already are in their last calls, for as long as these take.
        kind.late = kind.leaving.keys().copied().collect();
        let members = kind.members.iter().map(|(member, place)| {
            let is_busy = place.phase == Phase::Serving && is_busy(*member);
            (is_busy, place.index, *member)
        });
        let mut members: Vec<_> = members.collect();
        members.sort_unstable();
        for (_, _, member) in members {
            self.renew_member(type_index, member);
        }
        self.fill();
    }

    fn renew_member(&mut self, type_index: usize, member: MemberId) {
        let kind = &mut self.kinds[type_index];
        let Some(place) = kind.members.get(&member).copied() else { return };
        let successor = place.successor.filter(|successor| {
            kind.successors.get(successor).is_some_and(|successor| successor.version != kind.version)
        });
        match place.phase {
            // It gets the version that its type has when it is started or, if it is on its way, is looked at again when
            // it is there.
            Phase::Queued | Phase::Starting => {}
            Phase::Backoff => self.try_again(type_index, member, true),
            Phase::Serving if place.version == kind.version => {
                if let Some(successor) = successor {
                    self.forget_successor(type_index, successor);
                }
            }
            Phase::Serving => {
                if let Some(successor) = successor {
                    self.forget_successor(type_index, successor);
                }
                self.replace(type_index, member, true);
            }
        }
    }

    /// One that was asked to leave takes its time: the others don't wait for it.
    pub(in crate::supervisor) fn note_late(&mut self, type_index: usize, member: MemberId) {
        let kind = &mut self.kinds[type_index];
        if kind.leaving.contains_key(&member) {
            kind.late.insert(member);
        }
        self.fill();
    }
}
