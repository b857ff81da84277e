//! A server that guests ask. A call that asks it is under way until the test answers.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::eventually;

pub(crate) struct Outside {
    listener: TcpListener,
    address: SocketAddr,
}

impl Outside {
    /// The answer of a call that asked it.
    pub(crate) const PASSED_ON: &str = "200\nheld";

    pub(crate) fn open() -> Outside {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        Outside { listener, address }
    }

    /// The keys of a type that may ask it, whose calls may take as long as a test does.
    pub(crate) fn keys(&self) -> String {
        format!("timeout = \"10m\"\noutbound = [\"http://{}\"]", self.address)
    }

    /// The path of `web-test` that asks it.
    pub(crate) fn target(&self) -> String {
        format!("/fetch?url=http://{}/", self.address)
    }

    /// Waits until a call asks.
    #[track_caller]
    pub(crate) fn asked(&self) -> Asked {
        Asked(eventually("a call asks the server outside", || self.listener.accept().ok()).0)
    }
}

/// A call that is under way.
pub(crate) struct Asked(TcpStream);

impl Asked {
    pub(crate) fn answer(mut self) {
        self.0.set_nonblocking(false).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nheld";
        self.0.write_all(answer).unwrap();
    }
}
