//! `.wasmhost/`: what one host has to itself. A lock sees to it that it's only one.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tokio::net::UnixListener;

/// The longest path that a unix socket may have, in bytes: `sun_path` of unix(7), less its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A state directory that is this host's until it is dropped.
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why the directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another host has it.
    #[error(
        "another wasmhost runs this formation already (it holds {}): stop it, or give this one another `state_dir`",
        .lock.display()
    )]
    InUse {
        /// The lock file.
        lock: PathBuf,
    },
    /// It can't be made or written.
    #[error("can't {what} {}: {err}; make the directory writable, or set `state_dir`", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        err: io::Error,
    },
    /// The system's limit.
    #[error(
        "the path of the admin socket, {}, is longer than the {SOCKET_PATH_BYTES_MAX} bytes that the system allows: set `state_dir` to a shorter one",
        .0.display()
    )]
    SocketPathTooLong(PathBuf),
}

/// Where the admin API of the host in this state directory listens.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Whether a host has this state directory.
pub fn is_in_use(state_dir: &Path) -> bool {
    match File::open(state_dir.join("lock")) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK),
        Err(_) => false,
    }
}

impl StateDir {
    /// Makes the directory where it's missing, and takes it.
    pub(crate) fn take(path: &Path) -> Result<StateDir, StateDirError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |err| StateDirError::Io { what, path, err }
        };
        std::fs::create_dir_all(path).map_err(failed("create", path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateDir { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateDirError::InUse { lock: lock_path }),
            Err(err) => Err(StateDirError::Io { what: "lock", path: lock_path, err: err.into() }),
        }
    }

    /// Opens the admin socket, for this user alone. One that is there already is a dead host's.
    pub(crate) fn listen(&self) -> Result<UnixListener, StateDirError> {
        let path = socket_path(&self.path);
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(StateDirError::SocketPathTooLong(path));
        }
        let failed = |what| {
            let path = path.clone();
            move |err| StateDirError::Io { what, path, err }
        };
        match std::fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(err)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed("listen on"))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed("protect"))?;
        Ok(listener)
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Whoever finds it later replaces it; that is no reason to leave it.
        let _ = std::fs::remove_file(socket_path(&self.path));
    }
}
