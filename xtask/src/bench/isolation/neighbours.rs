//! Neighbours of the guest that is measured: a type of their own, whose requests have another host's name. Some are honest
//! and busy, the others are hostile. Each set of them runs beside one server, and ends with it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::Bench;
use super::super::contender::Contender;
use super::super::http::GUEST;
use super::super::server::Server;

/// How many of them there are at once.
pub(super) const NEIGHBOURS: u32 = 8;

/// The name that their requests have.
const HOST: &str = "neighbour.example";

/// Their memory: a bomb fills it.
pub(super) const MEMORY_MIB: u32 = 64;

/// How much lower the priority of those who send their requests is, as `nice` counts it: the machine's cores are for the
/// server, and for the load that is measured.
const CLIENTS_NICE: i32 = 10;

/// How long an answer may be waited for until it is looked whether the round is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const PRODUCER: &str = "bench/guests/out/producer.wasm";

/// Their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Neighbour {
    /// Requests of about a millisecond, one after the other.
    Busy,
    /// Bodies of 1 MiB, one after the other.
    Uploads,
    /// Requests that take all memory that there is, touch it, and trap.
    Bombs,
    /// Requests that never end, and write lines.
    LogFloods,
    /// Bodies that never end.
    UploadFloods,
    /// Requests that never end, and put jobs on a queue, a thousand at once.
    EnqueueStorm,
}

impl Neighbour {
    pub(super) const HOSTILE: [Neighbour; 4] =
        [Neighbour::Bombs, Neighbour::LogFloods, Neighbour::UploadFloods, Neighbour::EnqueueStorm];

    /// Completes `beside`.
    pub(super) fn name(self) -> String {
        match self {
            Neighbour::Busy => format!("{NEIGHBOURS} that compute"),
            Neighbour::Uploads => format!("{NEIGHBOURS} uploads of 1 MiB"),
            Neighbour::Bombs => format!("{NEIGHBOURS} memory bombs"),
            Neighbour::LogFloods => format!("{NEIGHBOURS} log floods"),
            Neighbour::UploadFloods => format!("{NEIGHBOURS} upload floods"),
            Neighbour::EnqueueStorm => "an enqueue storm".to_owned(),
        }
    }

    /// The honest neighbours that take the same things.
    pub(super) fn honest(self) -> Neighbour {
        match self {
            Neighbour::Uploads | Neighbour::UploadFloods => Neighbour::Uploads,
            _ => Neighbour::Busy,
        }
    }

    /// Whether a server has what they are about.
    pub(super) fn is_for(self, contender: Contender) -> bool {
        contender.build().is_some() || self != Neighbour::EnqueueStorm
    }

    /// The table of their type.
    pub(super) fn table(self, bench: &Bench) -> Result<String> {
        let (component, keys) = match self {
            Neighbour::EnqueueStorm => (PRODUCER, "enqueue = [\"storm\"]\n"),
            _ => (GUEST, ""),
        };
        let component = serde_json::Value::from(bench.component(component)?.to_string_lossy());
        Ok(format!(
            "\n[process.neighbour]\ncomponent = {component}\ncount = {NEIGHBOURS}\nroute = \"{HOST}\"\n\
             memory = \"{MEMORY_MIB}MiB\"\ntimeout = \"1h\"\n{keys}"
        ))
    }

    /// Begins what they do. It goes on until the value is dropped.
    pub(super) fn begin(self, server: &Server) -> Result<Running> {
        let stop = Arc::<AtomicBool>::default();
        let clients = (0..NEIGHBOURS).map(|_| {
            let client = Client { of: self, address: server.address.clone(), stop: stop.clone() };
            std::thread::spawn(move || client.run())
        });
        Ok(Running { clients: clients.collect(), stop })
    }
}

/// Neighbours that run until this is dropped.
pub(super) struct Running {
    clients: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for client in self.clients.drain(..) {
            // One that panicked has said so.
            let _ = client.join();
        }
    }
}

/// One who sends their requests.
struct Client {
    of: Neighbour,
    address: String,
    stop: Arc<AtomicBool>,
}

impl Client {
    fn run(&self) {
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), CLIENTS_NICE);
        while !self.stop.load(Relaxed) {
            // A call that its guest's trap ended, or the server refused, is begun anew.
            if self.exchanges().is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Requests on one connection, until it breaks or the round is over.
    fn exchanges(&self) -> Result<()> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        stream.set_write_timeout(Some(LOOK_EVERY))?;
        while !self.stop.load(Relaxed) {
            match self.of {
                Neighbour::Busy => self.get(&mut stream, "/compute")?,
                Neighbour::Bombs => self.get(&mut stream, "/bomb")?,
                Neighbour::LogFloods => self.get(&mut stream, "/flood")?,
                Neighbour::EnqueueStorm => self.get(&mut stream, "/storm")?,
                Neighbour::Uploads => {
                    let head =
                        format!("POST /sink HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", 1 << 20);
                    self.send(&mut stream, head.as_bytes())?;
                    self.send(&mut stream, &vec![b'x'; 1 << 20])?;
                    self.answer(&mut stream)?;
                }
                Neighbour::UploadFloods => {
                    let head =
                        format!("POST /sink HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
                    self.send(&mut stream, head.as_bytes())?;
                    let piece = [b"10000\r\n".as_slice(), &[b'x'; 64 << 10], b"\r\n"].concat();
                    while !self.stop.load(Relaxed) {
                        self.send(&mut stream, &piece)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn get(&self, stream: &mut TcpStream, path: &str) -> Result<()> {
        self.send(stream, format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())?;
        self.answer(stream)
    }

    fn send(&self, stream: &mut TcpStream, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let sent = self.until_over(|| stream.write(bytes))?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Reads an answer whose head says how long it is.
    fn answer(&self, stream: &mut TcpStream) -> Result<()> {
        let mut answer = Vec::new();
        let mut piece = [0; 4 << 10];
        loop {
            let length = self.until_over(|| stream.read(&mut piece))?;
            ensure!(length > 0, "the connection was closed");
            answer.extend_from_slice(&piece[..length]);
            if let Some(bytes) = whole(&answer) {
                ensure!(answer.len() == bytes, "more than an answer");
                return Ok(());
            }
        }
    }

    /// Tries again where nothing comes or goes, unless the round is over.
    fn until_over(&self, mut act: impl FnMut() -> std::io::Result<usize>) -> Result<usize> {
        use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        loop {
            match act() {
                Err(err) if matches!(err.kind(), WouldBlock | TimedOut | Interrupted) => {
                    ensure!(!self.stop.load(Relaxed), "the round is over");
                }
                result => return Ok(result?),
            }
        }
    }
}

/// The length of an answer that is there as a whole.
fn whole(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?.to_ascii_lowercase();
    let (_, length) = text.split_once("content-length:")?;
    let length: usize = length.lines().next()?.trim().parse().ok()?;
    (answer.len() >= head + length).then_some(head + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), None);
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: y\r\n\r\nabc"), Some(47));
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\nContent"), None);
    }
}
