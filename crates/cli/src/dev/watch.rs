//! Is told when a file changes in the folders that are watched. It doesn't say which: whoever is told looks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::exit::{Exit, Failed};

/// An editor writes a file, renames it, and writes its mode: a change is over when nothing came for this long.
const QUIET: Duration = Duration::from_millis(30);

/// And at the latest so long after it began.
const QUIET_WITHIN: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    folders: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
}

impl Watch {
    pub(super) fn start() -> Result<Watch, Failed> {
        let changed = Arc::<Notify>::default();
        let tell = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error is told, too: events may have been lost.
            if !event.is_ok_and(|event| is_only_read(event.kind)) {
                tell.notify_one();
            }
        });
        Ok(Watch { watcher: watcher.map_err(|err| failed(&err))?, folders: BTreeSet::new(), changed })
    }

    /// Watches these folders, not what is below them, and no others. True if one of them is new: what was seen in it
    /// before may have changed.
    pub(super) fn set(&mut self, folders: BTreeSet<PathBuf>) -> Result<bool, Failed> {
        for gone in self.folders.difference(&folders) {
            // Its watch went with it, if it did.
            let _ = self.watcher.unwatch(gone);
        }
        for new in folders.difference(&self.folders) {
            match self.watcher.watch(new, RecursiveMode::NonRecursive) {
                // It went before it was watched, and its parent is.
                Err(err) if is_gone(&err, new) => {}
                watched => watched.map_err(|err| failed(&err))?,
            }
        }
        let has_new = !folders.is_subset(&self.folders);
        self.folders = folders;
        Ok(has_new)
    }

    /// Waits for a change, and until it is over. Changes that came before are one.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
        let begun = Instant::now();
        while begun.elapsed() < QUIET_WITHIN {
            if tokio::time::timeout(QUIET, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

/// Reading the sources is no change to them. The end of a writer's work is one.
fn is_only_read(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn is_gone(err: &notify::Error, folder: &Path) -> bool {
    matches!(err.kind, notify::ErrorKind::PathNotFound) || !folder.exists()
}

fn failed(err: &notify::Error) -> Failed {
    let help = match err.kind {
        notify::ErrorKind::MaxFilesWatch => {
            ": there are more folders than the system lets a user watch (fs.inotify.max_user_watches); a `.gitignore` says which are no sources"
        }
        _ => "",
    };
    Failed::new(Exit::NotStarted, format!("the sources can't be watched: {err}{help}"))
}
