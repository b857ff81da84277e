//! A Redis of its own, in a temporary folder and on a free port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::process::{Process, go_on};
use super::super::server::free_address;

/// How long it may take to start.
const START_MAX: Duration = Duration::from_secs(10);

/// How much survives the end of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    /// Each write is on the disk before it is answered, as in wasmhost.
    Always,
    /// A snapshot from time to time: what came since then is lost.
    Defaults,
}

impl Keeps {
    pub(super) fn name(self) -> &'static str {
        match self {
            Keeps::Always => "Redis, fsync always",
            Keeps::Defaults => "Redis, defaults",
        }
    }
}

pub(super) struct Redis {
    pub(super) process: Process,
    pub(super) port: String,
}

impl Redis {
    /// Keeps its file in this folder.
    pub(super) fn start(program: &Path, folder: &Path, keeps: Keeps) -> Result<Redis> {
        let address = free_address()?;
        let port = address.rsplit(':').next().unwrap_or_default().to_owned();
        let mut command = Command::new(program);
        command.args(["--port", &port, "--bind", "127.0.0.1", "--dir"]).arg(folder);
        if keeps == Keeps::Always {
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        let process = Process::start(command.stdout(Stdio::null()))?;
        let start = Instant::now();
        while !answers(&address) {
            go_on()?;
            ensure!(start.elapsed() < START_MAX, "redis-server doesn't answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Redis { process, port })
    }
}

fn answers(address: &str) -> bool {
    let pong = || -> Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(START_MAX))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).context("no answer")?;
        Ok(&answer == b"+PONG\r\n")
    };
    pong().unwrap_or(false)
}
