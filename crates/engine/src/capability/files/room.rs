//! Directories whose grant has `max_bytes`: each change asks first whether there is room for it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use wasmtime::component::{Resource, ResourceTableError};
use wasmtime_wasi::filesystem::Descriptor;

use crate::capability::state::State;
use crate::sandbox::usage::{Admitted, Bound, Change, NotAdmitted, length_of};
use crate::services::Refusal;

/// A bound, and who is told where there is no room.
#[derive(Clone)]
pub(super) struct Room {
    bound: Bound,
    tell: Arc<dyn Fn() + Send + Sync>,
}

/// The effect of a change of a directory to its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    /// One more is made.
    Adds,
    /// One more is made for a file that is somewhere else.
    Links,
    /// One comes from somewhere else.
    Moves,
    /// One goes.
    Removes,
}

/// Why entries may not be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is no room.
    Full,
    /// The files come from another grant, where they weren't counted. Programs copy them then, as between two disks.
    Across,
}

impl State {
    /// The room of the directory that a handle is of, or was found in; `None` where it has no bound.
    pub(super) fn room_of(&self, handle: u32) -> Option<Room> {
        let grant = self.holdings.grant_of(handle)?;
        let bound = self.sandbox.directories.bound(grant)?.clone();
        let dir = self.sandbox.grants.dirs.get(grant)?;
        let (refusals, process) = (self.services.refusals.clone(), self.sandbox.process.clone());
        let refusal =
            Refusal::Full { directory: dir.guest.clone(), bytes_max: dir.bytes_max.unwrap_or_default() };
        Some(Room { bound, tell: Arc::new(move || refusals.refused(&process, refusal.clone())) })
    }

    /// The same, with the file itself; `None` where the handle is a directory's, too.
    pub(super) fn room_of_file(
        &self,
        file: &Resource<Descriptor>,
    ) -> Result<Option<(Room, Arc<File>)>, ResourceTableError> {
        let Some(room) = self.room_of(file.rep()) else { return Ok(None) };
        Ok(match self.table.get(file)? {
            Descriptor::File(file) => Some((room, file.file.clone())),
            Descriptor::Dir(_) => None,
        })
    }
}

impl Room {
    async fn admit(&self, change: impl Fn() -> io::Result<Change>) -> Result<Admitted, NotAdmitted> {
        let decided = self.bound.admit(change).await;
        if let Err(NotAdmitted::Full) = &decided {
            (self.tell)();
        }
        decided
    }

    /// The right to write to a file, by its length of the moment.
    pub(super) async fn admit_write(
        &self,
        length: impl Fn() -> io::Result<u64>,
        position: Option<u64>,
        bytes: usize,
    ) -> io::Result<Admitted> {
        self.admit(|| Ok(Change::write(length()?, position, bytes))).await.map_err(no_room)
    }

    /// Writes all of it.
    pub(super) async fn write(&self, file: Arc<File>, position: Option<u64>, data: Bytes) -> io::Result<()> {
        let admitted = self.admit_write(|| length_of(&file), position, data.len()).await?;
        // The right is held until the write is made, also where nobody waits for it any more.
        let written = tokio::task::spawn_blocking(move || {
            let written = write_all(&file, position, &data);
            drop(admitted);
            written
        });
        written.await.unwrap_or_else(|err| Err(io::Error::other(err)))
    }

    /// The same as a task, which doesn't wait for the guest.
    pub(super) fn begin_write(
        &self,
        file: Arc<File>,
        position: Option<u64>,
        data: Bytes,
    ) -> JoinHandle<io::Result<()>> {
        let room = self.clone();
        tokio::spawn(async move { room.write(file, position, data).await })
    }

    /// Gives a file another length.
    pub(super) async fn set_size(&self, file: Arc<File>, size: u64) -> io::Result<()> {
        let admitted = self.admit(|| Ok(Change::set_size(length_of(&file)?, size))).await.map_err(no_room)?;
        let set = tokio::task::spawn_blocking(move || {
            let set = file.set_len(size);
            if set.is_err() {
                admitted.undo();
            }
            set
        });
        set.await.unwrap_or_else(|err| Err(io::Error::other(err)))
    }

    /// The right to set a file's size, by its length of the moment.
    pub(super) async fn admit_size(
        &self,
        length: impl Fn() -> io::Result<u64>,
        size: u64,
    ) -> io::Result<Admitted> {
        self.admit(|| Ok(Change::set_size(length()?, size))).await.map_err(no_room)
    }

    /// The right to one entry more.
    pub(super) async fn admit_entry(&self) -> Result<Admitted, Refused> {
        self.admit(|| Ok(Change::ENTRY)).await.map_err(|_| Refused::Full)
    }
}

/// The right to change entries of `to`, where that has a bound. Files come from `from`.
pub(super) async fn admit_entries(
    entries: Entries,
    from: Option<&Room>,
    to: Option<&Room>,
) -> Result<Option<Admitted>, Refused> {
    let Some(to) = to else { return Ok(None) };
    let comes_from_elsewhere = matches!(entries, Entries::Links | Entries::Moves)
        && from.is_none_or(|from| !from.bound.is_of_same(&to.bound));
    if comes_from_elsewhere {
        return Err(Refused::Across);
    }
    match entries {
        Entries::Removes => Ok(None),
        Entries::Adds | Entries::Links => to.admit_entry().await.map(Some),
        Entries::Moves => to.admit(|| Ok(Change::NAMES)).await.map(Some).map_err(|_| Refused::Full),
    }
}

/// As the system says it of a full disk, so that the library tells the guest what it would tell of that.
fn no_room(reason: NotAdmitted) -> io::Error {
    match reason {
        NotAdmitted::Full => io::Error::from(rustix::io::Errno::NOSPC),
        NotAdmitted::Io(err) => err,
    }
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
