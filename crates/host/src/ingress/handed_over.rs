//! Sockets that whoever started the host had opened for it: systemd's socket activation, as sd_listen_fds(3) says.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

/// What was handed over and not taken yet.
pub struct HandedOver {
    sockets: ListenFd,
    /// `LISTEN_FDNAMES`, in the order of the sockets.
    names: Vec<String>,
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
        let sockets = match std::env::var_os("LISTEN_PID") {
            Some(_) => ListenFd::from_env(),
            None => ListenFd::empty(),
        };
        HandedOver { sockets, names: names.split(':').map(str::to_owned).collect() }
    }

    /// None: for programs that nobody hands anything over to.
    pub fn nothing() -> HandedOver {
        HandedOver { sockets: ListenFd::empty(), names: Vec::new() }
    }

    /// Takes the sockets of this name, or all that are left. There has to be one.
    pub(super) fn take(&mut self, name: Option<&str>) -> io::Result<Vec<Socket>> {
        let mut taken = Vec::new();
        for at in 0..self.sockets.len() {
            if name.is_some_and(|name| self.names.get(at).is_none_or(|its| its != name)) {
                continue;
            }
            let socket = match self.sockets.take_tcp_listener(at) {
                Ok(listener) => listener.map(Socket::Tcp),
                Err(_) => self.sockets.take_unix_listener(at)?.map(Socket::Unix),
            };
            taken.extend(socket);
        }
        match taken.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, self.lacks(name))),
            false => Ok(taken),
        }
    }

    fn lacks(&self, name: Option<&str>) -> String {
        match (self.sockets.len(), name) {
            (0, _) => "no socket was handed over (LISTEN_FDS and LISTEN_PID say which)".to_owned(),
            (_, None) => "every socket that was handed over is taken already".to_owned(),
            (count, Some(_)) => {
                let names = self.names.iter().take(count).map(|name| format!("{name:?}"));
                format!(
                    "no socket of this name was handed over; there are {}",
                    names.collect::<Vec<_>>().join(", ")
                )
            }
        }
    }
}
