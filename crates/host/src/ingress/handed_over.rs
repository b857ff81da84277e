//! Sockets that whoever started the host had opened for it: systemd's socket activation, as sd_listen_fds(3) says.

use std::io;

use listenfd::ListenFd;

use super::socket::Socket;

/// The sockets that were handed over.
pub struct HandedOver(pub(super) Vec<Named>);

/// One of those sockets.
pub(super) struct Named {
    pub(super) name: String,
    /// An error where it is no listening socket.
    pub(super) socket: io::Result<Socket>,
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
                Err(_) => handed.take_unix_listener(at).map(|listener| listener.map(Socket::unix)),
            };
            let name = names.next().unwrap_or_default();
            sockets.extend(socket.transpose().map(|socket| Named { name, socket }));
        }
        HandedOver(sockets)
    }

    /// None: for programs that nobody hands anything over to.
    pub fn nothing() -> HandedOver {
        HandedOver(Vec::new())
    }
}
