//! Room kept back on the disk, so that jobs can be done and discarded when it is full.
//!
//! ```text
//! kept -> (the disk is full, and something other than an enqueue needs room) -> given up -> (there is room) -> kept
//! ```
//!
//! As long as it is given up nothing is enqueued: what was kept back is for what makes room.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::ids::beside;
use super::schema;

/// The most that is kept back: as much as the log grows to between two checkpoints.
const BYTES_MAX: u64 = 16 << 20;

/// The least, on a small disk. Otherwise it is a sixteenth of the disk.
const BYTES_MIN: u64 = 256 << 10;
const PART_OF_DISK: u64 = 16;

/// How often it is tried to have it again.
const TRIED_EVERY: Duration = Duration::from_secs(1);

/// Pages that are given back to the file system at once: 1 MiB. Moving them costs as much room in the log.
const PAGES_AT_ONCE: u64 = 256;

const PAGE_BYTES: u64 = 4_096;

/// See the module.
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_kept: Cell<bool>,
    tried: RefCell<Option<Instant>>,
}

/// Whether the disk that holds this file has no room that is worth mentioning.
pub(super) fn is_full(database: &Path) -> bool {
    disk(database).is_ok_and(|disk| disk.free < BYTES_MIN)
}

impl Reserve {
    /// Keeps room back beside this database, if there is any.
    pub(super) fn keep(database: &Path) -> Reserve {
        let bytes = disk(database).map_or(0, |disk| (disk.total / PART_OF_DISK).clamp(BYTES_MIN, BYTES_MAX));
        let reserve = Reserve {
            path: beside(database, "-reserve"),
            bytes,
            is_kept: Cell::new(false),
            tried: RefCell::default(),
        };
        reserve.is_kept.set(reserve.make().is_ok());
        reserve
    }

    /// Gives it up before the store is open. False where the disk isn't full, or nothing was kept back.
    pub(super) fn give_up_at_start(database: &Path) -> bool {
        is_full(database) && std::fs::remove_file(beside(database, "-reserve")).is_ok()
    }

    /// Lets the log grow to no more pages than are kept back. When the disk is full they are copied into the database, which
    /// may grow by as many.
    pub(super) fn bound_log(&self, connection: &Connection) -> rusqlite::Result<()> {
        let pages = (self.bytes / PAGE_BYTES).min(schema::LOG_PAGES);
        connection.pragma_update(
            None,
            "wal_autocheckpoint",
            if pages > 0 { pages } else { schema::LOG_PAGES },
        )
    }

    pub(super) fn is_kept(&self) -> bool {
        self.is_kept.get()
    }

    /// Gives it up. False where it was given up already.
    pub(super) fn give_up(&self) -> bool {
        let gave = self.is_kept.replace(false) && std::fs::remove_file(&self.path).is_ok();
        if gave {
            tracing::warn!(
                "the disk is full: {} was given up, so that jobs can be done and discarded. Nothing is enqueued until \
                 there is room again",
                self.path.display()
            );
        }
        gave
    }

    /// Keeps it back again, once there is room for it and for as much beside it.
    pub(super) fn regain(&self, connection: &Connection) -> bool {
        let tried = self.tried.replace(Some(Instant::now()));
        if tried.is_some_and(|tried| tried.elapsed() < TRIED_EVERY) {
            self.tried.replace(tried);
            return false;
        }
        if let Err(error) = self.shrink(connection) {
            tracing::debug!(%error, "the store could not be made smaller");
        }
        let regained = self.has_room() && self.make().is_ok();
        if regained {
            tracing::info!("there is room on the disk again: jobs are enqueued as before");
        }
        self.is_kept.set(regained);
        regained
    }

    fn has_room(&self) -> bool {
        disk(&self.path).is_ok_and(|disk| disk.free >= self.bytes * 2)
    }

    /// Gives the file's free pages back to the file system, as long as that is what is missing.
    fn shrink(&self, connection: &Connection) -> rusqlite::Result<()> {
        let free = || connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u64>(0));
        // Twice what is wanted, and once more for what the log takes.
        let steps = self.bytes * 3 / (PAGES_AT_ONCE * PAGE_BYTES) + 1;
        for _ in 0..steps {
            if self.has_room() || free()? == 0 {
                break;
            }
            let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
            drop(rows);
            checkpoint(connection);
        }
        Ok(())
    }

    fn make(&self) -> io::Result<()> {
        if self.bytes == 0 || std::fs::metadata(&self.path).is_ok_and(|file| file.len() >= self.bytes) {
            return Ok(());
        }
        let made = self.fill();
        if made.is_err() {
            let _ = std::fs::remove_file(&self.path);
        }
        made
    }

    fn fill(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::NOSPC) => Err(io::ErrorKind::StorageFull.into()),
            Err(_) => write_out(file, self.bytes),
        }
    }
}

/// For file systems that can't set room aside otherwise; what is random can't be compressed.
fn write_out(mut file: File, bytes: u64) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    fastrand::fill(&mut piece);
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len() as u64);
        file.write_all(&piece[..usize::try_from(count).unwrap_or(0)])?;
        left -= count;
    }
    Ok(())
}

/// Copies the log into the file, so that the log begins anew instead of growing.
pub(super) fn checkpoint(connection: &Connection) {
    let done = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = done {
        tracing::debug!(%error, "the log could not be copied into the store");
    }
}

/// A file system's size, and what this user can use of what is free, in bytes.
struct Disk {
    total: u64,
    free: u64,
}

fn disk(file: &Path) -> io::Result<Disk> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = rustix::fs::statvfs(folder)?;
    Ok(Disk {
        total: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bavail.saturating_mul(found.f_frsize),
    })
}
