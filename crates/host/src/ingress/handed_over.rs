//! Sockets that whoever started the host had opened for it: systemd's socket activation, as sd_listen_fds(3) says.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;

/// What was handed over and not taken yet.
pub struct HandedOver {
    /// How many there were.
    count: usize,
    sockets: Vec<Named>,
}

/// One that is left.
struct Named {
    name: String,
    /// An error where it is no listening socket.
    socket: io::Result<Socket>,
}

pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl HandedOver {
    /// Reads the environment, and takes what it says out of it: to be called while there is one thread.
    pub fn from_env() -> HandedOver {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        // It would take sockets without a `LISTEN_PID`, and those may be meant for anyone.
        let mut handed = match std::env::var_os("LISTEN_PID") {
            Some(_) => ListenFd::from_env(),
            None => ListenFd::empty(),
        };
        let mut names = names.split(':').map(str::to_owned);
        let mut sockets = Vec::new();
        for at in 0..handed.len() {
            let socket = match handed.take_tcp_listener(at) {
                Ok(listener) => Ok(listener.map(Socket::Tcp)),
                Err(_) => handed.take_unix_listener(at).map(|listener| listener.map(Socket::Unix)),
            };
            let name = names.next().unwrap_or_default();
            sockets.extend(socket.transpose().map(|socket| Named { name, socket }));
        }
        HandedOver { count: handed.len(), sockets }
    }

    /// None: for programs that nobody hands anything over to.
    pub fn nothing() -> HandedOver {
        HandedOver { count: 0, sockets: Vec::new() }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Takes the socket that listens on this address already, if there is one.
    pub(super) fn take_tcp(&mut self, wanted: SocketAddr) -> Option<Socket> {
        self.take_first(|socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().is_ok_and(|address| address == wanted),
            Socket::Unix(_) => false,
        })
    }

    /// The same for a path.
    pub(super) fn take_unix(&mut self, wanted: &Path) -> Option<Socket> {
        self.take_first(|socket| match socket {
            Socket::Tcp(_) => false,
            Socket::Unix(listener) => {
                listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(wanted))
            }
        })
    }

    fn take_first(&mut self, is_wanted: impl Fn(&Socket) -> bool) -> Option<Socket> {
        let at = self.sockets.iter().position(|named| named.socket.as_ref().is_ok_and(&is_wanted))?;
        self.sockets.remove(at).socket.ok()
    }

    /// Takes the sockets of this name, or all that are left. There has to be one.
    pub(super) fn take(&mut self, name: Option<&str>) -> io::Result<Vec<Socket>> {
        let is_wanted = |named: &mut Named| name.is_none_or(|name| named.name == name);
        let taken: Vec<_> = self.sockets.extract_if(.., is_wanted).map(|named| named.socket).collect();
        match taken.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, self.lacks(name))),
            false => taken.into_iter().collect(),
        }
    }

    fn lacks(&self, name: Option<&str>) -> String {
        if self.count == 0 {
            return "no socket was handed over (LISTEN_FDS and LISTEN_PID say which)".to_owned();
        }
        if self.sockets.is_empty() || name.is_none() {
            return "every socket that was handed over is taken already".to_owned();
        }
        let names = self.sockets.iter().map(|named| format!("{:?}", named.name));
        format!("no socket of this name was handed over; there are {}", names.collect::<Vec<_>>().join(", "))
    }
}
