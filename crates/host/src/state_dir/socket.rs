//! The admin socket of a state directory. Verbs find the host by its file, so that a file that somebody has deleted is made
//! again, soon after: the directory is this host's alone.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

/// Clients of the admin API that wait to be accepted.
const CLIENTS_WAITING_MAX: i32 = 128;

/// How often it is looked whether the file is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
    /// It was told that it can't be made again.
    is_told: bool,
}

impl AdminSocket {
    /// Listens, for this user alone, in the place of whatever is there.
    pub(super) fn listen(path: PathBuf) -> io::Result<AdminSocket> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(&path)?)?;
        let made = fs::symlink_metadata(&path)?;
        // Before it listens: nobody else can connect in between.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        socket.listen(CLIENTS_WAITING_MAX)?;
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(AdminSocket { listener, path, file: (made.dev(), made.ino()), is_told: false })
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return accepted.map(|(stream, _)| stream),
                () = self.is_lost() => {}
            }
            self.make_again();
        }
    }

    /// Ends when the file is gone, or another one is in its place.
    async fn is_lost(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let found = fs::symlink_metadata(&self.path).map(|found| (found.dev(), found.ino()));
            if found.ok() != Some(self.file) {
                return;
            }
        }
    }

    fn make_again(&mut self) {
        let shown = self.path.display();
        match remove(&self.path).and_then(|()| AdminSocket::listen(self.path.clone())) {
            Ok(next) => {
                info!("the admin socket {shown} was gone: it is made again");
                *self = next;
            }
            Err(err) if !self.is_told => {
                warn!(
                    "the admin socket {shown} is gone, so that no verb finds this host, and can't be made again: {err}"
                );
                self.is_told = true;
            }
            Err(_) => {}
        }
    }

    /// The listener as it is now, for its end.
    pub(crate) fn into_listener(self) -> UnixListener {
        self.listener
    }
}

/// Removes what is there. A link goes, and not the file that it points to.
pub(super) fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}
