//! How much is in a directory whose grant has `max_bytes`, and whether guests may add to it.
//!
//! The directory is counted ([`census`](super::census)), and from then on everything is added that guests add. Nothing
//! that they take away is subtracted, since two guests may take away one thing at once, or give it another name meanwhile.
//! When that has filled the directory it is counted again, which finds what was taken away: by guests, or by others. No
//! guest changes anything while it is counted: changes hold the gate for reading, and the count for writing.
//!
//! All instances of all types with a grant of one directory share its count, across deploys.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tracing::warn;

use super::census::{Amount, ENTRIES_MAX, census};
use super::identity::Identity;

/// How much longer than a count took the next one waits, so that counts take a tenth of a thread at most.
const PAUSE_FACTOR: u32 = 9;

/// A guest that finds the directory full waits for its next count for so long, and is refused if that is later.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A count waits for changes under way for so long, and isn't made if they are slower.
const GATE_MAX: Duration = Duration::from_secs(2);

/// Something that a guest is about to do: what the directory has more of then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    adds: Amount,
}

impl Change {
    /// Other names for what is there.
    pub(crate) const NAMES: Change = Change { adds: Amount { bytes: 0, entries: 0 } };

    /// One file, directory or link more.
    pub(crate) const ENTRY: Change = Change { adds: Amount::ENTRY };

    /// A write of so many bytes to a file of this length, at this position or at its end. A hole before it counts.
    pub(crate) fn write(length: u64, position: Option<u64>, bytes: usize) -> Change {
        let end = position.unwrap_or(length).saturating_add(bytes as u64);
        Change::set_size(length, end)
    }

    /// A file of one length gets another, unless it is shorter.
    pub(crate) fn set_size(length: u64, size: u64) -> Change {
        Change { adds: Amount::contents(size.saturating_sub(length)) }
    }
}

/// Why a change may not be made.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// There is no room for it.
    Full,
    /// The system can't say what it would add.
    Io(io::Error),
}

impl From<io::Error> for NotAdmitted {
    fn from(err: io::Error) -> Self {
        NotAdmitted::Io(err)
    }
}

/// The bound of one grant.
#[derive(Clone)]
pub(crate) struct Bound {
    usage: Arc<Usage>,
    bytes_max: u64,
}

impl Bound {
    /// For an opened directory.
    pub(crate) fn new(identity: Identity, directory: OwnedFd, path: &Path, bytes_max: u64) -> Bound {
        Bound { usage: Usage::of(identity, directory, path), bytes_max }
    }

    /// Whether two grants are of one directory.
    pub(crate) fn is_of_same(&self, other: &Bound) -> bool {
        Arc::ptr_eq(&self.usage, &other.usage)
    }

    /// The right to a change, to be held until it is made. The function says what it adds: at a moment from which on no
    /// count can miss it.
    ///
    /// # Errors
    ///
    /// There is no room, or the function fails.
    pub(crate) async fn admit(
        &self,
        change: impl Fn() -> io::Result<Change>,
    ) -> Result<Admitted, NotAdmitted> {
        let counts = self.usage.lock().counts;
        match self.try_admit(&change).await {
            Err(NotAdmitted::Full) => self.usage.count(counts).await,
            decided => return decided,
        }
        self.try_admit(&change).await
    }

    async fn try_admit(&self, change: impl Fn() -> io::Result<Change>) -> Result<Admitted, NotAdmitted> {
        let gate = self.usage.gate.clone().read_owned().await;
        let change = change()?;
        match self.usage.lock().begin(change, self.bytes_max) {
            true => Ok(Admitted { usage: self.usage.clone(), change, _gate: gate }),
            false => Err(NotAdmitted::Full),
        }
    }

    /// How much there is, as far as is known.
    pub(crate) fn used(&self) -> Option<Amount> {
        self.usage.lock().used
    }

    /// Counts the directory, where it wasn't yet.
    pub(crate) async fn count(&self) {
        self.usage.count(0).await;
    }
}

/// The right to a change, while it is made.
pub(crate) struct Admitted {
    usage: Arc<Usage>,
    change: Change,
    _gate: OwnedRwLockReadGuard<()>,
}

impl Admitted {
    /// The change failed, and nothing of it was made.
    pub(crate) fn undo(self) {
        self.usage.lock().undo(self.change);
    }
}

/// The count of one directory.
struct Usage {
    directory: OwnedFd,
    path: PathBuf,
    tally: Mutex<Tally>,
    gate: Arc<RwLock<()>>,
    counting: Arc<tokio::sync::Mutex<LastCount>>,
}

#[derive(Default)]
struct LastCount {
    ended: Option<Instant>,
    took: Duration,
}

/// The directories that are being counted, for the whole process: so is the disk.
static USAGES: LazyLock<Mutex<HashMap<Identity, Weak<Usage>>>> = LazyLock::new(Mutex::default);

impl Usage {
    fn of(identity: Identity, directory: OwnedFd, path: &Path) -> Arc<Usage> {
        let mut usages = USAGES.lock().unwrap_or_else(|poison| poison.into_inner());
        usages.retain(|_, usage| usage.strong_count() > 0);
        if let Some(usage) = usages.get(&identity).and_then(Weak::upgrade) {
            return usage;
        }
        let usage = Arc::new(Usage {
            directory,
            path: path.to_owned(),
            tally: Mutex::default(),
            gate: Arc::default(),
            counting: Arc::default(),
        });
        usages.insert(identity, Arc::downgrade(&usage));
        usage
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// Counts the directory, unless somebody has since there were so many counts, or it can't be done soon.
    async fn count(self: &Arc<Self>, counts: u64) {
        let mut last = self.counting.clone().lock_owned().await;
        if self.lock().counts != counts {
            return;
        }
        if let Some(ended) = last.ended {
            let pause = (last.took * PAUSE_FACTOR).saturating_sub(ended.elapsed());
            if pause > PAUSE_MAX {
                return;
            }
            tokio::time::sleep(pause).await;
        }
        let Ok(gate) = tokio::time::timeout(GATE_MAX, self.gate.clone().write_owned()).await else {
            // All others waited meanwhile, too: as after a count that took so long.
            *last = LastCount { ended: Some(Instant::now()), took: GATE_MAX };
            return;
        };
        let usage = self.clone();
        // It goes on if nobody waits for it any more, and no second one beside it.
        let counted = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            usage.count_now();
            *last = LastCount { ended: Some(Instant::now()), took: begun.elapsed() };
            drop((last, gate));
        });
        // It can't fail. If it did, the directory would stay full.
        let _ = counted.await;
    }

    fn count_now(&self) {
        let found = census(&self.directory);
        // Once, until it goes well again.
        let is_news = self.lock().end_count(found.as_ref().ok().copied());
        if let Err(err) = found
            && is_news
        {
            warn!(
                "{} can't be counted, so that nothing can be added to it (its grant has `max_bytes`): {err}",
                self.path.display()
            );
        }
    }
}

/// The known part of how much there is. It is never less than there is.
#[derive(Debug, Default)]
struct Tally {
    /// `None` while the directory wasn't counted, or can't be.
    used: Option<Amount>,
    counts: u64,
}

impl Tally {
    /// False where there is no room for the change.
    fn begin(&mut self, change: Change, bytes_max: u64) -> bool {
        if change == Change::NAMES {
            return true;
        }
        let Some(used) = self.used else { return false };
        let after = used.plus(change.adds);
        let has_room = after.bytes <= bytes_max && after.entries <= ENTRIES_MAX;
        if has_room {
            self.used = Some(after);
        }
        has_room
    }

    fn undo(&mut self, change: Change) {
        self.used = self.used.map(|used| used.less(change.adds));
    }

    /// True where the directory was counted before, or never.
    fn end_count(&mut self, found: Option<Amount>) -> bool {
        let was_counted = self.counts == 0 || self.used.is_some();
        self.used = found;
        self.counts += 1;
        was_counted
    }
}

/// The length of an open file.
pub(crate) fn length_of(file: &File) -> io::Result<u64> {
    file.metadata().map(|found| found.len())
}

#[cfg(test)]
impl Bound {
    /// Whether a change is under way, which keeps the directory from being counted.
    pub(crate) fn is_changed(&self) -> bool {
        self.usage.gate.try_write().is_err()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::census::ENTRY_BYTES;
    use super::*;

    fn adds(bytes: u64) -> Change {
        Change { adds: Amount::contents(bytes) }
    }

    #[test]
    fn nothing_is_added_before_the_first_count() {
        let mut tally = Tally::default();
        assert!(!tally.begin(adds(1), 100) && tally.begin(Change::NAMES, 100));
        tally.end_count(Some(Amount::contents(40)));
        assert!(tally.begin(adds(60), 100));
        assert!(!tally.begin(adds(1), 100));
        assert!(tally.begin(Change::write(100, Some(0), 100), 100), "it adds nothing");
    }

    #[test]
    fn a_write_adds_what_is_past_the_end() {
        assert_eq!(Change::write(100, Some(50), 70), adds(20));
        assert_eq!(Change::write(100, Some(0), 10), adds(0));
        assert_eq!(Change::write(100, None, 10), adds(10));
        assert_eq!(Change::write(0, Some(1 << 40), 1), adds((1 << 40) + 1));
        assert_eq!(Change::write(0, Some(u64::MAX), 9), adds(u64::MAX));
        assert_eq!(Change::set_size(100, 30), adds(0));
    }

    #[test]
    fn a_million_entries_are_the_most() {
        let mut tally = Tally::default();
        tally.end_count(Some(Amount { bytes: 0, entries: ENTRIES_MAX - 1 }));
        assert!(tally.begin(Change::ENTRY, u64::MAX));
        assert!(!tally.begin(Change::ENTRY, u64::MAX));
    }

    fn bound(folder: &tempfile::TempDir, bytes_max: u64) -> Bound {
        let directory = OwnedFd::from(File::open(folder.path()).unwrap());
        Bound::new(Identity::of_opened(&directory).unwrap(), directory, folder.path(), bytes_max)
    }

    #[tokio::test]
    async fn what_was_taken_away_is_found_when_the_directory_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let (path, bound) = (folder.path().join("file"), bound(&folder, 100 + ENTRY_BYTES));
        std::fs::write(&path, [0; 90]).unwrap();
        bound.count().await;
        drop(bound.admit(|| Ok(adds(10))).await.ok().unwrap());
        assert!(matches!(bound.admit(|| Ok(adds(11))).await, Err(NotAdmitted::Full)));
        std::fs::write(&path, [0; 80]).unwrap();
        // After a count that took long, on a busy machine, the next one is not waited for.
        let found = async { while bound.admit(|| Ok(adds(20))).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(60), found).await.expect("there is room");
        std::fs::write(&path, [0; 100]).unwrap();
        assert!(matches!(bound.admit(|| Ok(adds(1))).await, Err(NotAdmitted::Full)));
    }

    #[tokio::test]
    async fn a_change_that_does_not_end_holds_up_others_once() {
        let folder = tempfile::tempdir().unwrap();
        let bound = bound(&folder, 100);
        let under_way = bound.admit(|| Ok(adds(90))).await.ok().unwrap();
        assert!(matches!(bound.admit(|| Ok(adds(20))).await, Err(NotAdmitted::Full)));
        // The directory wasn't counted. Nobody tries that again soon.
        let again = tokio::time::timeout(GATE_MAX / 2, bound.admit(|| Ok(adds(20)))).await;
        assert!(matches!(again, Ok(Err(NotAdmitted::Full))));
        assert!(bound.admit(|| Ok(adds(10))).await.is_ok());
        drop(under_way);
    }

    #[tokio::test]
    async fn grants_of_one_directory_share_its_count() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (bound(&folder, 100), bound(&folder, 200));
        assert!(one.is_of_same(&other));
        let first = other.admit(|| Ok(adds(90))).await.ok().unwrap();
        assert!(one.usage.lock().used == Some(Amount::contents(90)));
        first.undo();
        assert!(one.usage.lock().used == Some(Amount::default()));
    }

    /// Things that happen to a file of a directory, as guests see it.
    #[derive(Debug, Clone)]
    enum Step {
        /// A guest is admitted to write here, by the length of now.
        Admit {
            position: u64,
            bytes: usize,
        },
        /// The write that was admitted first is made.
        Write,
        Truncate(u64),
        /// The directory is counted, unless something is under way.
        Count,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..200, 0usize..100).prop_map(|(position, bytes)| Step::Admit { position, bytes }),
            4 => Just(Step::Write),
            2 => (0u64..100).prop_map(Step::Truncate),
            2 => Just(Step::Count),
        ]
    }

    proptest! {
        #[test]
        fn a_file_is_never_longer_than_is_known(steps in proptest::collection::vec(step(), 1..60)) {
            const MAX: u64 = 300;
            let mut tally = Tally::default();
            tally.end_count(Some(Amount::default()));
            let (mut length, mut under_way) = (0u64, VecDeque::new());
            for step in steps {
                match step {
                    Step::Admit { position, bytes } => {
                        if tally.begin(Change::write(length, Some(position), bytes), MAX) {
                            under_way.push_back(position + bytes as u64);
                        }
                    }
                    Step::Write => length = length.max(under_way.pop_front().unwrap_or(0)),
                    Step::Truncate(to) => length = length.min(to),
                    Step::Count if under_way.is_empty() => {
                        tally.end_count(Some(Amount::contents(length)));
                    }
                    Step::Count => {}
                }
                let used = tally.used.unwrap().bytes;
                prop_assert!(length <= used && used <= MAX, "{tally:?} and {length} bytes");
            }
        }
    }
}
