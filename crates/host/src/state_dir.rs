//! The state directory: what one host has to itself.
//!
//! A lock in it sees to it that there is one host, and says which formation the directory belongs to ([`User`]): that of
//! the host that had it last, as long as its file is there. The directory is private:
//! its owner is this process's user, no other user can write to it, and no symbolic link stands in for it or for the
//! lock. The admin socket in it has mode 0600 before anybody can connect.

mod elsewhere;
mod identity;
mod socket;
mod user;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

pub(crate) use socket::AdminSocket;
use user::User;

pub use elsewhere::running_state_dir;
pub(crate) use identity::Identity;

/// The longest path that a unix socket may have, in bytes: `sun_path` of unix(7), less its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long a host waits for the lock of one who has borrowed the directory, and how often it looks.
const BORROWED_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A state directory that is this host's until it is dropped.
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why the directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another host runs the same formation.
    #[error(
        "another wasmhost runs this formation already (it holds {}): stop it, or give this one another `state_dir`",
        .lock.display()
    )]
    InUse {
        /// The lock file.
        lock: PathBuf,
    },
    /// A host of another formation has it.
    #[error(
        "the state directory {} is in use: a wasmhost runs {} with it, and this is {}; give one of the two formations another `state_dir`",
        .path.display(), .running.display(), .wanted.display()
    )]
    InUseByOther {
        /// The directory.
        path: PathBuf,
        /// The formation's file that is run with it.
        running: PathBuf,
        /// The one that isn't.
        wanted: PathBuf,
    },
    /// It holds what another formation has left there.
    #[error(
        "the state directory {} holds the jobs and releases of {}, and this is {}: give this formation another `state_dir`; if it takes the place of the other, remove or rename that file first",
        .path.display(), .owner.display(), .wanted.display()
    )]
    OfOtherFormation {
        /// The directory.
        path: PathBuf,
        /// The formation's file that it belongs to.
        owner: PathBuf,
        /// The one that it doesn't.
        wanted: PathBuf,
    },
    /// A link may be pointed elsewhere by whoever can write beside it.
    #[error(
        "{} is a symbolic link, and the state directory and what the host keeps in it may not be: remove the link, or name the directory itself in `state_dir`",
        .0.display()
    )]
    Link(PathBuf),
    /// Another user made it.
    #[error(
        "the state directory {} belongs to the user {found}, expected our own ({ours}): what is in it can't be trusted; remove it, or set `state_dir` to another directory",
        .path.display()
    )]
    OfOtherUser {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// This process's user.
        ours: u32,
    },
    /// Others could replace what is in it.
    #[error(
        "the state directory {0} may be written by other users (mode {mode:03o}), expected 700: see that nobody else has put a file there, and `chmod 700 {0}`",
        .path.display()
    )]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It can't be made or written.
    #[error("can't {what} {}: {err}; make the directory writable, or set `state_dir`", .path.display())]
    Io {
        /// The operation that was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        err: io::Error,
    },
    /// The system's limit.
    #[error(
        "the path of the admin socket, {}, is longer than the {SOCKET_PATH_BYTES_MAX} bytes that the system allows: set `state_dir` to a shorter one",
        .0.display()
    )]
    SocketPathTooLong(PathBuf),
}

/// Which formation's host has a state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// No host runs.
    Nobody,
    /// The host of the formation that was asked about.
    This,
    /// The host of another formation, by its file.
    Other(PathBuf),
}

/// Where the admin API of the host in this state directory listens.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Whether a process of this user may be trusted with what the admin API is sent: our own user, or root.
pub fn is_trusted_user(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Who has this state directory, seen by one who works with this formation's file.
pub fn holder(state_dir: &Path, file: &Path) -> Holder {
    match locked(state_dir) {
        None => Holder::Nobody,
        // A host that has only begun hasn't written its file yet.
        Some(mut lock) => match User::read(&mut lock) {
            Some(user) if !user.is(&User::of(file, state_dir)) => Holder::Other(user.file),
            _ => Holder::This,
        },
    }
}

/// Refuses a state directory that belongs to another formation than that of this file, whether a host runs or not. Changes
/// nothing, and is content where there is no directory.
///
/// # Errors
///
/// [`StateDirError::OfOtherFormation`]
pub fn refuse_directory_of_other(state_dir: &Path, file: &Path) -> Result<(), StateDirError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = rustix::fs::open(state_dir.join("lock"), flags, Mode::empty());
    let owner = lock.ok().and_then(|lock| User::read(&mut lock.into()));
    refuse_other(owner, &User::of(file, state_dir), state_dir)
}

/// Whether a host has this state directory.
pub fn is_in_use(state_dir: &Path) -> bool {
    locked(state_dir).is_some()
}

/// The lock file, if a host holds it.
fn locked(state_dir: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = rustix::fs::open(state_dir.join("lock"), flags, Mode::empty()).ok()?;
    let held = flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK);
    held.then(|| lock.into())
}

impl StateDir {
    /// Makes the directory where it's missing, and takes it for the formation of this file.
    pub(crate) fn take(path: &Path, file: &Path) -> Result<StateDir, StateDirError> {
        let directory = open_private(path)?;
        let lock_path = path.join("lock");
        let mut lock = open_lock(&directory, &lock_path)?;
        let user = User::of(file, path);
        let before = User::read(&mut lock).filter(|before| !before.is(&user));
        // Nobody borrows it from here on, so that it comes free however many want to. Should somebody else hold this one,
        // the lock itself still decides.
        let _ = lock_within(BORROWED_MAX, &directory, path);
        match lock_within(BORROWED_MAX, &lock, path) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(match before {
                    Some(running) => StateDirError::InUseByOther {
                        path: path.to_owned(),
                        running: running.file,
                        wanted: file.to_owned(),
                    },
                    None => StateDirError::InUse { lock: lock_path },
                });
            }
            Err(err) => return Err(StateDirError::Io { what: "lock", path: lock_path, err: err.into() }),
        }
        refuse_other(before, &user, path)?;
        if let Err(err) = user.write(&mut lock) {
            // The lock is held all the same.
            warn!(
                "{} can't say which formation runs ({err}): verbs can't tell others' hosts from this one",
                lock_path.display()
            );
        }
        Ok(StateDir { path: path.to_owned(), _lock: lock })
    }

    /// Keeps hosts off the directory for a moment, for one who reads or changes the store while no host runs, and works with
    /// the formation of this file.
    pub(crate) fn borrow(path: &Path, file: &Path) -> Result<BorrowedDir, StateDirError> {
        let directory = open_private(path)?;
        let lock_path = path.join("lock");
        let mut lock = open_lock(&directory, &lock_path)?;
        // A host that waits for the lock holds the directory's own, and comes first.
        let taken = flock(&directory, FlockOperation::NonBlockingLockExclusive);
        match taken.and_then(|()| flock(&lock, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StateDirError::InUse { lock: lock_path }),
            Err(err) => return Err(StateDirError::Io { what: "lock", path: lock_path, err: err.into() }),
        }
        refuse_other(User::read(&mut lock), &User::of(file, path), path)?;
        Ok(BorrowedDir { _lock: lock })
    }

    /// Opens the admin socket, for this user alone. One that is there already is a dead host's.
    pub(crate) fn listen(&self) -> Result<AdminSocket, StateDirError> {
        let path = socket_path(&self.path);
        if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(StateDirError::SocketPathTooLong(path));
        }
        let failed = |what| {
            let path = path.clone();
            move |err| StateDirError::Io { what, path, err }
        };
        socket::remove(&path).map_err(failed("replace"))?;
        AdminSocket::listen(path.clone()).map_err(failed("listen on"))
    }
}

/// See [`StateDir::borrow`]. The directory still belongs to the formation whose host had it last.
pub(crate) struct BorrowedDir {
    _lock: File,
}

/// Refuses a directory that belongs to another formation. Its jobs would be worked, and its releases deleted.
fn refuse_other(before: Option<User>, user: &User, path: &Path) -> Result<(), StateDirError> {
    match before.filter(|before| before.keeps_it_from(user)) {
        None => Ok(()),
        Some(owner) => Err(StateDirError::OfOtherFormation {
            path: path.to_owned(),
            owner: owner.file,
            wanted: user.file.clone(),
        }),
    }
}

/// Takes the lock, for which it waits where nobody listens on the socket: the holder is no host then, or one that has
/// only begun.
fn lock_within(at_most: Duration, lock: &impl AsFd, path: &Path) -> Result<(), Errno> {
    let until = Instant::now() + at_most;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until && !is_listening(&socket_path(path)) => {
                std::thread::sleep(LOOK_EVERY);
            }
            result => return result,
        }
    }
}

/// Whether a process listens on a socket, however many clients wait there.
fn is_listening(path: &Path) -> bool {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    connect().map_or_else(|err| err.kind() == io::ErrorKind::WouldBlock, |()| true)
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // The next host replaces a socket that is left; that is no reason to leave it.
        let _ = fs::remove_file(socket_path(&self.path));
    }
}

/// The directory, made with mode 0700 where it is missing, and refused where others could have put something there.
fn open_private(path: &Path) -> Result<OwnedFd, StateDirError> {
    let failed = |what| move |err: io::Error| StateDirError::Io { what, path: path.to_owned(), err };
    make(path).map_err(failed("create"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|err| {
        if is_link(path) { StateDirError::Link(path.into()) } else { failed("open")(err.into()) }
    })?;
    let stat = rustix::fs::fstat(&directory).map_err(|err| failed("look at")(err.into()))?;
    let ours = rustix::process::geteuid().as_raw();
    if stat.st_uid != ours {
        return Err(StateDirError::OfOtherUser { path: path.to_owned(), found: stat.st_uid, ours });
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.intersects(Mode::WGRP | Mode::WOTH) {
        return Err(StateDirError::WritableByOthers { path: path.to_owned(), mode: mode.bits() & 0o7777 });
    }
    Ok(directory)
}

fn make(path: &Path) -> io::Result<()> {
    // The folders above it could be renamed by those who may write to them.
    if let Some(parent) = path.parent() {
        match DirBuilder::new().recursive(true).mode(0o700).create(parent) {
            // It is a file: the next step says so.
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    match DirBuilder::new().mode(0o700).create(path) {
        // Whatever the umask took away.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o700)),
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(err) => Err(err),
    }
}

fn open_lock(directory: &OwnedFd, path: &Path) -> Result<File, StateDirError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let failed = |err: io::Error| StateDirError::Io { what: "open", path: path.to_owned(), err };
    let lock = rustix::fs::openat(directory, "lock", flags, Mode::RUSR | Mode::WUSR)
        .map_err(|err| if is_link(path) { StateDirError::Link(path.into()) } else { failed(err.into()) })?;
    let stat = rustix::fs::fstat(&lock).map_err(|err| failed(err.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(lock.into()),
        _ => Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it isn't a regular file"))),
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_symlink())
}

#[cfg(test)]
mod tests;
