//! The contents that a disk holds for certain, those that it may hold, and what is left of them when the power goes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use fastrand::Rng;

/// The number of bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The disk under one folder.
pub(crate) struct Disk {
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    files: BTreeMap<OsString, File>,
    /// Deleted ones that may come back, since the folder wasn't synced since.
    ghosts: BTreeMap<OsString, File>,
    events_left: u64,
    /// The function to call when no events are left: the power goes.
    on_cut: Option<OnCut>,
    /// Says that it synced, and doesn't: what `synchronous = OFF`, or a bad disk, comes to.
    lies: bool,
}

type OnCut = Box<dyn FnOnce(&Contents) + Send>;

/// All that is on it.
pub(crate) struct Contents<'a> {
    files: &'a BTreeMap<OsString, File>,
    ghosts: &'a BTreeMap<OsString, File>,
}

#[derive(Default)]
struct File {
    /// Its name is in the folder for certain.
    named: bool,
    /// The folder was synced through this file since it was opened.
    synced_folder: bool,
    durable: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<Change>,
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl Disk {
    /// `on_cut` is called at the event of that number, before it takes effect.
    pub(crate) fn new(
        folder: &Path,
        events: u64,
        lies: bool,
        on_cut: impl FnOnce(&Contents) + Send + 'static,
    ) -> Disk {
        let state = State {
            files: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            events_left: events,
            on_cut: Some(Box::new(on_cut)),
            lies,
        };
        Disk { folder: folder.to_path_buf(), state: Mutex::new(state) }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// True once the power is gone. Writes from then on are of no account.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.lock().unwrap().on_cut.is_none()
    }

    /// The state, with one event counted.
    fn event(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.events_left = state.events_left.saturating_sub(1);
        if state.events_left == 0
            && let Some(on_cut) = state.on_cut.take()
        {
            on_cut(&Contents { files: &state.files, ghosts: &state.ghosts });
        }
        state
    }

    pub(crate) fn opened(&self, path: &Path) {
        let mut state = self.state.lock().unwrap();
        let file = state.files.entry(name(path)).or_insert_with(|| {
            // One that was there before SQLite opened it: empty, and just made, or from before the last cut.
            let durable = std::fs::read(path).unwrap_or_default();
            File { named: !durable.is_empty(), durable, ..File::default() }
        });
        file.synced_folder = false;
    }

    pub(crate) fn deleted(&self, path: &Path, sync_folder: bool) {
        let mut state = self.event();
        let name = name(path);
        if let Some(file) = state.files.remove(&name) {
            state.ghosts.insert(name, file);
        }
        if sync_folder && !state.lies {
            state.sync_folder();
        }
    }

    pub(crate) fn wrote(&self, path: &Path, at: usize, bytes: &[u8]) {
        let change = Change::Write { at, bytes: bytes.to_vec() };
        self.event().file(path).pending.push(change);
    }

    pub(crate) fn truncated(&self, path: &Path, length: usize) {
        self.event().file(path).pending.push(Change::Truncate(length));
    }

    pub(crate) fn synced(&self, path: &Path) {
        let mut state = self.event();
        if state.lies {
            return;
        }
        let file = state.file(path);
        for change in std::mem::take(&mut file.pending) {
            change.apply(&mut file.durable);
        }
        // SQLite's first sync of a log or a journal syncs the folder too (`UNIXFILE_DIRSYNC`).
        let is_log = [".db-wal", ".db-journal"].iter().any(|end| path.to_string_lossy().ends_with(end));
        if is_log && !std::mem::replace(&mut file.synced_folder, true) {
            state.sync_folder();
        }
    }
}

fn name(path: &Path) -> OsString {
    path.file_name().expect("a file has a name").to_owned()
}

impl State {
    fn file(&mut self, path: &Path) -> &mut File {
        self.files.entry(name(path)).or_default()
    }

    fn sync_folder(&mut self) {
        self.ghosts.clear();
        self.files.values_mut().for_each(|file| file.named = true);
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Truncate(length) => to.resize(*length, 0),
            Change::Write { at, bytes } => put(to, *at, bytes),
        }
    }

    /// Applies those sectors of it that reached the disk.
    fn apply_torn(&self, to: &mut Vec<u8>, mut reached: impl FnMut() -> bool) {
        let Change::Write { at, bytes } = self else { return };
        let mut from = 0;
        while from < bytes.len() {
            // Up to the next border of a sector of the file.
            let length = (SECTOR - (at + from) % SECTOR).min(bytes.len() - from);
            if reached() {
                put(to, at + from, &bytes[from..from + length]);
            }
            from += length;
        }
    }
}

fn put(to: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if to.len() < at + bytes.len() {
        to.resize(at + bytes.len(), 0);
    }
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Contents<'_> {
    /// Makes a folder as a machine may find it when the power is back.
    pub(crate) fn write_image(&self, folder: &Path, rng: &mut Rng) {
        for (name, file) in self.files {
            if file.named || rng.bool() {
                std::fs::write(folder.join(name), file.after_a_cut(rng)).unwrap();
            }
        }
        for (name, file) in self.ghosts {
            if !self.files.contains_key(name) && rng.bool() {
                std::fs::write(folder.join(name), file.after_a_cut(rng)).unwrap();
            }
        }
    }
}

impl File {
    fn after_a_cut(&self, rng: &mut Rng) -> Vec<u8> {
        let mut content = self.durable.clone();
        // How the disk took what it was given: in order up to some point; or in whatever order, most or few of it; or
        // each sector for itself.
        match rng.u8(0..4) {
            0 => {
                let whole = rng.usize(0..=self.pending.len());
                self.pending[..whole].iter().for_each(|change| change.apply(&mut content));
                if let Some(last) = self.pending.get(whole) {
                    let mut left = rng.usize(0..=16);
                    last.apply_torn(&mut content, || {
                        left = left.saturating_sub(1);
                        left > 0
                    });
                }
            }
            way @ (1 | 2) => {
                let odds = if way == 1 { 0.9 } else { 0.2 };
                for change in self.pending.iter().filter(|_| rng.f64() < odds).collect::<Vec<_>>() {
                    change.apply(&mut content);
                }
                if let Some(last) = self.pending.last() {
                    last.apply_torn(&mut content, || rng.bool());
                }
            }
            _ => {
                for change in &self.pending {
                    match change {
                        Change::Truncate(_) if rng.bool() => change.apply(&mut content),
                        _ => change.apply_torn(&mut content, || rng.bool()),
                    }
                }
            }
        }
        content
    }
}
