//! Directories whose grant has `max_bytes`: each change asks first whether there is room for it.
//!
//! A change that was admitted is a task of its own. It holds its right until it is made, also where the guest is ended
//! meanwhile, or doesn't wait for it: nobody counts the directory before that.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::p2::{FsError, FsResult};

use crate::sandbox::Sandbox;
use crate::sandbox::usage::{Admitted, Bound, Change, NotAdmitted, length_of};
use crate::services::{Refusal, RefusalSink, Services};

/// A bound, and who is told where there is no room.
#[derive(Clone)]
pub(crate) struct Bounded(Arc<Parts>);

struct Parts {
    bound: Bound,
    refusals: Arc<dyn RefusalSink>,
    process: Arc<str>,
    full: Refusal,
}

/// The effect of a change of a directory to its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryChange {
    /// One more is made.
    Adds,
    /// One more is made for a file that is somewhere else.
    Links,
    /// One comes from somewhere else.
    Moves,
    /// One goes.
    Removes,
}

impl EntryChange {
    /// The amount that the directory has more of then; `None` where nobody needs to be asked.
    fn adds(self) -> Option<Change> {
        match self {
            EntryChange::Removes => None,
            EntryChange::Adds | EntryChange::Links => Some(Change::ENTRY),
            EntryChange::Moves => Some(Change::NAMES),
        }
    }
}

impl Bounded {
    /// The bounds of an instance's grants, in their order; none at all where no grant has one.
    pub(crate) fn of_grants(sandbox: &Sandbox, services: &Services) -> Vec<Option<Bounded>> {
        let dirs = &sandbox.grants.dirs;
        if dirs.iter().all(|dir| dir.bytes_max.is_none()) {
            return Vec::new();
        }
        let bounded = dirs.iter().enumerate().map(|(grant, dir)| {
            let bound = sandbox.directories.bound(grant)?.clone();
            let bytes_max = dir.bytes_max.unwrap_or_default();
            let full = Refusal::Full { directory: dir.guest.clone(), bytes_max };
            let (refusals, process) = (services.refusals.clone(), sandbox.process.clone());
            Some(Bounded(Arc::new(Parts { bound, refusals, process, full })))
        });
        bounded.collect()
    }

    /// Whether files that are given other names in `self` come from elsewhere. They weren't counted there: programs copy
    /// them then, as between two disks.
    fn is_across(&self, change: EntryChange, from: Option<&Bounded>) -> bool {
        matches!(change, EntryChange::Links | EntryChange::Moves)
            && from.is_none_or(|from| !from.0.bound.is_of_same(&self.0.bound))
    }

    async fn admit(&self, change: impl Fn() -> io::Result<Change>) -> io::Result<Admitted> {
        match self.0.bound.admit(change).await {
            Ok(admitted) => Ok(admitted),
            Err(NotAdmitted::Full) => {
                self.0.refusals.refused(&self.0.process, self.0.full.clone());
                // As the system says it of a full disk, so that the library tells the guest what it would tell of that.
                Err(io::Error::from(rustix::io::Errno::NOSPC))
            }
            Err(NotAdmitted::Io(err)) => Err(err),
        }
    }

    /// Changes entries by a function of the library's. The files come from `from`.
    pub(super) async fn change_entries<R: Send + 'static>(
        &self,
        change: EntryChange,
        from: Option<&Bounded>,
        make: impl Future<Output = FsResult<R>> + Send + 'static,
    ) -> FsResult<R> {
        if self.is_across(change, from) {
            return Err(ErrorCode::CrossDevice.into());
        }
        let Some(adds) = change.adds() else { return make.await };
        let bounded = self.clone();
        let made = tokio::spawn(async move {
            let admitted = bounded.admit(|| Ok(adds)).await.map_err(|err| ErrorCode::from(&err))?;
            let made = make.await;
            if was_refused(&made) {
                admitted.undo();
            }
            made
        });
        made.await.unwrap_or_else(|err| Err(FsError::trap(err)))
    }

    /// Begins to write all of it.
    pub(super) fn begin_write(
        &self,
        file: Arc<File>,
        position: Option<u64>,
        data: Bytes,
    ) -> JoinHandle<io::Result<()>> {
        let bounded = self.clone();
        tokio::spawn(async move {
            let admitted =
                bounded.admit(|| Ok(Change::write(length_of(&file)?, position, data.len()))).await?;
            on_a_thread(move || {
                let written = write_all(&file, position, &data);
                drop(admitted);
                written
            })
            .await
        })
    }

    /// Writes all of it.
    pub(super) async fn write(&self, file: Arc<File>, position: Option<u64>, data: Bytes) -> io::Result<()> {
        self.begin_write(file, position, data).await.unwrap_or_else(|err| Err(io::Error::other(err)))
    }

    /// Gives a file another length.
    pub(super) async fn set_size(&self, file: Arc<File>, size: u64) -> io::Result<()> {
        let bounded = self.clone();
        let set = tokio::spawn(async move {
            let admitted = bounded.admit(|| Ok(Change::set_size(length_of(&file)?, size))).await?;
            on_a_thread(move || {
                let set = file.set_len(size);
                if set.is_err() {
                    admitted.undo();
                }
                set
            })
            .await
        });
        set.await.unwrap_or_else(|err| Err(io::Error::other(err)))
    }
}

/// Whether nothing was made: the guest is told of an error. A trap doesn't say that.
fn was_refused<R>(made: &FsResult<R>) -> bool {
    made.as_ref().is_err_and(|err| err.downcast_ref().is_some())
}

/// Does something on a thread for files.
async fn on_a_thread(act: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|err| Err(io::Error::other(err)))
}

fn write_all(file: &File, position: Option<u64>, data: &[u8]) -> io::Result<()> {
    match position {
        Some(position) => std::os::unix::fs::FileExt::write_all_at(file, data, position),
        None => append_all(file, data),
    }
}

#[cfg(target_os = "linux")]
fn append_all(file: &File, mut data: &[u8]) -> io::Result<()> {
    use rustix::io::{Errno, ReadWriteFlags, pwritev2};
    while !data.is_empty() {
        match pwritev2(file, &[io::IoSlice::new(data)], 0, ReadWriteFlags::APPEND) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => data = &data[written..],
            Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::NOTSUP) => return append_at_end(file, data),
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn append_all(file: &File, data: &[u8]) -> io::Result<()> {
    append_at_end(file, data)
}

/// Where the system can't append at once.
fn append_at_end(file: &File, data: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, length_of(file)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use tokio::sync::Notify;

    use super::*;
    use crate::sandbox::identity::Identity;

    struct Nobody;

    impl RefusalSink for Nobody {
        fn refused(&self, _process: &Arc<str>, _refusal: Refusal) {}
    }

    async fn bounded(directory: &Path) -> Bounded {
        let opened = OwnedFd::from(File::open(directory).unwrap());
        let bound = Bound::new(Identity::of(directory).unwrap(), opened, directory, 1 << 20);
        bound.count().await;
        let full = Refusal::Full { directory: "/data".to_owned(), bytes_max: 1 << 20 };
        Bounded(Arc::new(Parts { bound, refusals: Arc::new(Nobody), process: "web".into(), full }))
    }

    fn entries(bounded: &Bounded) -> Option<u64> {
        bounded.0.bound.used().map(|used| used.entries)
    }

    #[tokio::test]
    async fn a_change_that_failed_is_not_counted_and_one_that_trapped_is() {
        let folder = tempfile::tempdir().unwrap();
        let bounded = bounded(folder.path()).await;
        let refused = async { FsResult::<()>::Err(ErrorCode::Exist.into()) };
        let made = bounded.change_entries(EntryChange::Adds, None, refused).await;
        assert!(made.is_err() && entries(&bounded) == Some(0));
        // The file may have been made: the guest's table is full of handles, say.
        let trapped = async { FsResult::<()>::Err(FsError::trap(wasmtime::format_err!("full"))) };
        let made = bounded.change_entries(EntryChange::Adds, None, trapped).await;
        assert!(made.is_err() && entries(&bounded) == Some(1));
    }

    #[tokio::test]
    async fn a_change_holds_its_right_until_it_is_made_also_where_nobody_waits() {
        let folder = tempfile::tempdir().unwrap();
        let bounded = bounded(folder.path()).await;
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait, path) = (begun.clone(), go.clone(), folder.path().join("file"));
        let change = async move {
            tell.notify_one();
            wait.notified().await;
            std::fs::write(path, "").unwrap();
            Ok(())
        };
        let guest = bounded.change_entries(EntryChange::Adds, None, change);
        // The guest is ended while its change is made.
        tokio::select! {
            biased;
            _ = guest => panic!("it waits"),
            () = begun.notified() => {}
        }
        assert!(bounded.0.bound.is_changed() && entries(&bounded) == Some(1));
        go.notify_one();
        while bounded.0.bound.is_changed() {
            tokio::task::yield_now().await;
        }
        assert!(folder.path().join("file").exists());
    }
}
