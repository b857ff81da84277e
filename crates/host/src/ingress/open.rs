//! An open socket of this host, and the listeners that take turns on it. A release that listens where the one before did
//! has a listener of its own on the same socket, which waits until the release is live. From its turn on it alone accepts.
//!
//! ```text
//! claim -> (the release is live) -> turn: accepts -> the next one's turn, or the socket's end
//! ```
//!
//! A socket that this host opened ends with its last listener; one that was handed over, with the host. A unix socket of this
//! host whose file is lost (somebody cleans up `/run`, say) is made again, and its listeners go on with the new one.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::listener::Wanted;
use super::socket::{Place, Socket, SocketFile, allow_handshakes, refuse_handshakes};

/// How often it is looked whether the file of a unix socket is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Open {
    pub(super) socket: Socket,
    pub(super) place: Place,
    /// The place and protocol that this host opened it for; none where it was handed over.
    made_for: Option<Wanted>,
    standing: Mutex<Standing>,
    /// The number of the claim whose turn it is.
    turn: watch::Sender<u64>,
}

#[derive(Default)]
struct Standing {
    /// The file of a unix socket that this host opened, until the socket ends.
    file: Option<SocketFile>,
    /// The numbers of the claims that there are.
    claims: Vec<u64>,
    last_claim: u64,
    is_ending: bool,
    /// How often the socket was made again.
    made_again: u64,
    /// It was told that it can't be.
    is_told: bool,
}

/// A listener's part in an open socket.
pub(super) struct Claim {
    pub(super) open: Arc<Open>,
    number: u64,
    turn: watch::Receiver<u64>,
}

impl Open {
    /// A socket that this host opened.
    pub(super) fn made(socket: Socket, file: Option<SocketFile>, made_for: Wanted) -> io::Result<Arc<Open>> {
        Open::new(socket, file, Some(made_for))
    }

    /// A socket that was open before the host was.
    pub(super) fn handed_over(socket: Socket) -> io::Result<Arc<Open>> {
        socket.set_nonblocking()?;
        Open::new(socket, None, None)
    }

    fn new(socket: Socket, file: Option<SocketFile>, made_for: Option<Wanted>) -> io::Result<Arc<Open>> {
        let place = socket.place()?;
        let standing = Mutex::new(Standing { file, ..Standing::default() });
        Ok(Arc::new(Open { socket, place, made_for, standing, turn: watch::Sender::new(0) }))
    }

    pub(super) fn is_made_for(&self, wanted: &Wanted) -> bool {
        self.made_for.as_ref() == Some(wanted)
    }

    /// The place and purpose that this host opened it for; none where it was handed over.
    pub(super) fn made_for(&self) -> Option<&Wanted> {
        self.made_for.as_ref()
    }

    pub(super) fn tcp(&self) -> Option<&TcpListener> {
        match &self.socket {
            Socket::Tcp(listener) => Some(listener),
            Socket::Unix(_) => None,
        }
    }

    /// One more listener may have a turn. None where nobody finds the socket any more: its file is gone, and can't be made.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Claim> {
        let mut standing = self.lock();
        if matches!(self.place, Place::Unix(_)) && self.made_for.is_some() {
            self.find_again(&mut standing);
            if !standing.file.as_ref().is_some_and(SocketFile::is_there) {
                return None;
            }
        }
        if std::mem::take(&mut standing.is_ending)
            && let Some(listener) = self.tcp()
            && let Err(err) = allow_handshakes(listener)
        {
            warn!("clients that connect to {:?} may have to wait: {err}", self.place);
        }
        standing.last_claim += 1;
        let number = standing.last_claim;
        standing.claims.push(number);
        drop(standing);
        Some(Claim { open: self.clone(), number, turn: self.turn.subscribe() })
    }

    /// How often the socket was made again.
    pub(super) fn times_made_again(&self) -> u64 {
        self.lock().made_again
    }

    /// Ends when the socket has been made again more often than a listener knows. It is, soon after its file is lost.
    pub(super) async fn is_made_again(&self, known: u64) {
        loop {
            {
                let mut standing = self.lock();
                if standing.made_again != known {
                    return;
                }
                self.find_again(&mut standing);
                if standing.made_again != known {
                    return;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Makes the socket again where its file is lost.
    fn find_again(&self, standing: &mut Standing) {
        let (Socket::Unix(socket), Some(file)) = (&self.socket, &mut standing.file) else { return };
        if file.is_there() {
            return;
        }
        let shown = file.path().display().to_string();
        match file.listen_again() {
            Ok(listener) => {
                socket.store(Arc::new(listener));
                (standing.made_again, standing.is_told) = (standing.made_again + 1, false);
                info!("the socket file {shown} was gone: it is made again");
            }
            Err(err) if !standing.is_told => {
                standing.is_told = true;
                warn!(
                    "the socket file {shown} is gone, so that nobody gets in by it, and can't be made again: {err}"
                );
            }
            Err(_) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        // No code that runs under the lock panics.
        self.standing.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Claim {
    /// This one accepts from now on, and none of those before. The file of a unix socket of this host gets this mode.
    pub(super) fn take_turn(&self, mode: u32) {
        if let Some(file) = &mut self.open.lock().file
            && let Err(err) = file.set_mode(mode)
        {
            warn!("the mode of {} can't be set to {mode:04o}: {err}", file.path().display());
        }
        self.open.turn.send_replace(self.number);
    }

    /// Ends when the next one has its turn.
    pub(super) async fn is_over(&self) {
        let mut turn = self.turn.clone();
        // The sender lives as long as this does.
        let _ = turn.wait_for(|turn| *turn > self.number).await;
    }

    /// Begins the socket's end: no client gets in that hasn't begun to. False where the socket lives on without this
    /// claim. `is_replaced` says that this host goes on, and may have others who wait for their turn.
    pub(super) fn begin_end(&self, is_replaced: bool) -> bool {
        let Claim { open, number, turn } = self;
        let mut standing = open.lock();
        let is_awaited = is_replaced && standing.claims.iter().any(|other| other > number);
        if open.made_for.is_none() || *turn.borrow() > *number || is_awaited {
            return false;
        }
        standing.is_ending = true;
        standing.file = None;
        if let Some(listener) = open.tcp()
            && let Err(err) = refuse_handshakes(listener)
        {
            // Some kernels allow it to root alone. The time without it is as long as one system call.
            debug!("a client that connects at this moment may be reset: {err}");
        }
        true
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.open.lock().claims.retain(|claim| *claim != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures_util::FutureExt;
    use wasmhost_config::Listen;

    use super::super::listener::Purpose;
    use super::*;

    fn wanted(place: &Path) -> Wanted {
        Wanted { place: Listen::Unix(place.to_owned()), tls: false, purpose: Purpose::Requests }
    }

    fn unix(path: &Path) -> Arc<Open> {
        let (listener, file) = SocketFile::listen(path, 0o600).unwrap();
        Open::made(Socket::unix(listener), Some(file), wanted(path)).unwrap()
    }

    #[test]
    fn one_has_its_turn_until_the_next_has() {
        let folder = tempfile::tempdir().unwrap();
        let open = unix(&folder.path().join("a.sock"));
        let (first, second) = (open.claim().unwrap(), open.claim().unwrap());
        first.take_turn(0o600);
        assert!(first.is_over().now_or_never().is_none());
        second.take_turn(0o600);
        assert!(first.is_over().now_or_never().is_some() && second.is_over().now_or_never().is_none());
        assert!(!first.begin_end(true), "the socket is the second one's");
        assert!(second.begin_end(true));
    }

    #[test]
    fn a_socket_that_is_waited_for_lives_on_unless_the_host_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let open = unix(&path);
        let (first, second) = (open.claim().unwrap(), open.claim().unwrap());
        first.take_turn(0o600);
        assert!(!first.begin_end(true) && path.exists());
        assert!(first.begin_end(false) && !path.exists());
        drop(second);
        let open = unix(&path);
        let (first, second) = (open.claim().unwrap(), open.claim());
        drop(second);
        assert!(first.begin_end(true), "nobody waits any more");
    }

    #[tokio::test]
    async fn a_unix_socket_whose_file_is_lost_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let open = unix(&path);
        let first = open.claim().unwrap();
        first.take_turn(0o640);
        assert!(open.is_made_again(0).now_or_never().is_none(), "it is there");
        std::fs::remove_file(&path).unwrap();
        assert!(open.is_made_again(0).now_or_never().is_some() && open.times_made_again() == 1);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o640);
        std::fs::remove_file(&path).unwrap();
        let second = open.claim().unwrap();
        assert_eq!(open.times_made_again(), 2);
        drop((first, second, open));
        assert!(!path.exists(), "it goes with the socket");
    }

    #[test]
    fn a_unix_socket_in_whose_place_another_one_is_served_is_of_no_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let open = unix(&path);
        let first = open.claim().unwrap();
        std::fs::remove_file(&path).unwrap();
        let other = unix(&path);
        assert!(open.claim().is_none() && other.claim().is_some());
        assert_eq!(open.times_made_again(), 0);
        drop((first, open));
        assert!(path.exists(), "it is the other one's");
    }

    #[test]
    fn a_socket_that_was_about_to_end_can_be_had_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Listen::Tcp(listener.local_addr().unwrap().to_string());
        let open =
            Open::made(Socket::Tcp(listener), None, Wanted { place, tls: false, purpose: Purpose::Requests })
                .unwrap();
        let first = open.claim().unwrap();
        first.take_turn(0);
        assert!(first.begin_end(true));
        let second = open.claim().unwrap();
        drop(first);
        second.take_turn(0);
        // No handshake would come to an end otherwise.
        std::net::TcpStream::connect(open.tcp().unwrap().local_addr().unwrap()).unwrap();
    }

    #[test]
    fn a_socket_that_was_handed_over_never_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = Open::handed_over(Socket::Tcp(listener)).unwrap();
        let claim = open.claim().unwrap();
        claim.take_turn(0);
        assert!(!claim.begin_end(true) && !claim.begin_end(false));
    }
}
