//! The directory of the cache: a file for each compiled component or core module, named by its key. It is our own
//! user's, and nobody else can write to it; a file is written beside its place and renamed, and never changed after
//! that.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use wasmtime::Engine;

use crate::compiled::artifact::Compiled;
use crate::compiled::compiler::CompiledFile;
use crate::compiled::native::{self, Unusable};

/// How long to wait for another process that compiles the same: the largest known components take 20 s on two cores.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60);
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(10);

/// A lock or an unfinished file of this age is from a process that was killed: no compiling takes as long.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(60 * 60);

const ENTRY: &str = "cwasm";
const LOCK: &str = "lock";
const UNFINISHED: &str = "tmp";

/// See the module.
pub(super) struct Directory {
    path: PathBuf,
    bytes_max: u64,
}

/// The right to make an entry, which other processes wait for. A process that dies gives it back.
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Directory {
    /// Makes it where it is missing. The error says what is wrong with it.
    pub(super) fn open(path: &Path, bytes_max: u64) -> Result<Directory, String> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|err| format!("can't be made: {err}"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|err| match err {
            Errno::LOOP | Errno::NOTDIR => "is a symbolic link, expected a directory".to_owned(),
            err => format!("can't be opened: {err}"),
        })?;
        let stat = rustix::fs::fstat(&directory).map_err(|err| format!("can't be looked at: {err}"))?;
        let user = rustix::process::geteuid().as_raw();
        if stat.st_uid != user {
            return Err(format!("belongs to the user {}, expected our own ({user})", stat.st_uid));
        }
        if stat.st_mode & 0o022 != 0 {
            let mode = stat.st_mode & 0o777;
            return Err(format!("may be written by other users (mode {mode:03o}), expected 700"));
        }
        Ok(Directory { path: path.to_owned(), bytes_max })
    }

    pub(super) fn entry(&self, key: &str) -> PathBuf {
        self.path.join(key).with_extension(ENTRY)
    }

    pub(super) fn find(&self, key: &str, engine: &Engine) -> Result<Compiled, Unusable> {
        native::map_entry(engine, &self.entry(key), key)
    }

    /// Waits until nobody else makes this entry. `None` if that takes too long, or can't be found out: at worst it is
    /// then made twice. `None`, too, as soon as `is_over` says that nobody waits for it.
    pub(super) fn lock(&self, key: &str, is_over: &dyn Fn() -> bool) -> Option<Lock> {
        let path = self.path.join(key).with_extension(LOCK);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).ok()?;
        let until = Instant::now() + LOCK_WAIT_MAX;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(Lock { path, _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < until && !is_over() => {
                    std::thread::sleep(LOCK_LOOK_EVERY);
                }
                Err(_) => return None,
            }
        }
    }

    /// Adds an entry, or replaces it, and then removes what there is no room for any more.
    pub(super) fn store(&self, compiled: &CompiledFile, key: &str) -> Result<(), String> {
        let bytes = compiled.count().map_err(|err| format!("can't be made: {err}"))?;
        if bytes > self.bytes_max {
            let max = self.bytes_max;
            return Err(format!(
                "would have {bytes} bytes, and the whole cache may have {max}; WASMHOST_CACHE_SIZE allows it more"
            ));
        }
        let failed = |err: std::io::Error| format!("can't be written: {err}");
        let mut file = tempfile::Builder::new()
            .prefix("")
            .suffix(&format!(".{UNFINISHED}"))
            .tempfile_in(&self.path)
            .map_err(failed)?;
        compiled.write_to(file.as_file_mut()).map_err(failed)?;
        // Before it gets its name: after a power cut there is a whole entry, or none.
        file.as_file().sync_data().map_err(failed)?;
        let entry = self.entry(key);
        file.persist(&entry).map_err(|err| failed(err.error))?;
        self.remove_old(&entry);
        Ok(())
    }

    /// Removes entries, those first that were not used for the longest time, until the rest fits; and what killed
    /// processes have left. An entry that is mapped somewhere stays there. A file that can't be removed
    /// now will be next time.
    fn remove_old(&self, newest: &Path) {
        let now = SystemTime::now();
        let mut entries = Vec::new();
        let files = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        for file in files {
            let (path, Ok(metadata)) = (file.path(), file.metadata()) else { continue };
            let used = metadata.modified().unwrap_or(now);
            let is_old = now.duration_since(used).is_ok_and(|age| age > LEFT_BEHIND_AFTER);
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(ENTRY) => entries.push((used, path, metadata.len())),
                Some(LOCK | UNFINISHED) if is_old => {
                    let _ = std::fs::remove_file(path);
                }
                _ => {}
            }
        }
        let mut bytes: u64 = entries.iter().map(|(_, _, bytes)| bytes).sum();
        entries.sort();
        for (_, path, entry_bytes) in entries {
            if bytes <= self.bytes_max {
                return;
            }
            if path != newest && std::fs::remove_file(path).is_ok() {
                bytes -= entry_bytes;
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A process that waits for this file finds the entry made. A later one makes a file of its own.
        let _ = std::fs::remove_file(&self.path);
    }
}
