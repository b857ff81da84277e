//! The servers that are measured, as processes of their own on ports of their own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::client::{Admin, status_of};
use super::memory::Memory;
use super::process::{Process, go_on};

/// How long a server may take to start: some components are compiled for 20 s on one core.
const START_MAX: Duration = Duration::from_secs(120);

/// How much of what a server wrote goes into the reason why it didn't start.
const REASON_BYTES_MAX: usize = 300;

/// A server that runs until this is dropped.
pub(super) struct Server {
    /// `127.0.0.1:PORT`
    pub(super) address: String,
    pub(super) process: Process,
    /// From its start to its first answer.
    pub(super) started_in: Duration,
    folder: TempDir,
}

/// How a server is started, in a folder of its own.
pub(super) struct Starting {
    folder: TempDir,
    address: String,
}

impl Starting {
    pub(super) fn new() -> Result<Starting> {
        Ok(Starting { folder: tempfile::tempdir()?, address: free_address()? })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `127.0.0.1:PORT`, with a port that was free a moment ago.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn write(&self, file: &str, text: &str) -> Result<()> {
        let file = self.folder().join(file);
        std::fs::write(&file, text).with_context(|| file.display().to_string())
    }

    /// Runs it, and waits until it answers a `GET` of this path, looking each `pause`.
    pub(super) fn run(self, command: &mut Command, path: &str, pause: Duration) -> Result<Server> {
        let log = self.folder().join("log");
        let written = std::fs::File::create(&log)?;
        command.stdout(Stdio::null()).stderr(written).current_dir(self.folder());
        let start = Instant::now();
        let mut process = Process::start(command)?;
        loop {
            // A server may listen before it can answer, and refuse for a moment.
            let status = status_of(&self.address, path);
            if let Ok(status) = &status
                && *status < 500
            {
                break;
            }
            go_on()?;
            if process.ended()?.is_some() {
                bail!("{}", reason(&std::fs::read_to_string(&log).unwrap_or_default()));
            }
            ensure!(
                start.elapsed() < START_MAX,
                "no answer on {path} within {START_MAX:?}: {}",
                status.map_or_else(|err| format!("{err:#}"), |status| status.to_string())
            );
            std::thread::sleep(pause);
        }
        Ok(Server { address: self.address, process, started_in: start.elapsed(), folder: self.folder })
    }
}

impl Server {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        Memory::of(self.process.id())
    }

    /// Where its formation is, of a wasmhost.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The admin API, of a wasmhost.
    pub(super) fn admin(&self) -> Admin<'_> {
        Admin { folder: self.folder.path() }
    }

    /// Ends it as one would, so that what it keeps is whole, and gives its folder and its address back.
    pub(super) fn stop(self) -> Starting {
        self.process.stop();
        Starting { folder: self.folder, address: self.address }
    }
}

/// An address that was free a moment ago.
pub(super) fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The last words of a server, in one line, without this machine's folders.
fn reason(log: &str) -> String {
    let temporary = std::env::temp_dir();
    let said = log.replace(&*temporary.to_string_lossy(), "");
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let error = lines.iter().position(|line| line.to_lowercase().contains("error"));
    let text = lines[error.unwrap_or(lines.len().saturating_sub(1))..].join(" ");
    match text.char_indices().nth(REASON_BYTES_MAX) {
        _ if text.is_empty() => "it ended without a word".to_owned(),
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_a_server_said_of_an_error() {
        assert_eq!(
            reason("starting\nerror: no such key\n\n  `isolation`\n"),
            "error: no such key `isolation`"
        );
        assert_eq!(reason("a\nlast words\n"), "last words");
        assert_eq!(reason(""), "it ended without a word");
        assert!(reason(&"error ".repeat(200)).len() < 400);
    }

    #[test]
    fn a_server_that_ends_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo error: so it is >&2; exit 3"]);
        let started = Starting::new().unwrap().run(&mut command, "/", Duration::from_millis(1));
        assert_eq!(started.err().unwrap().to_string(), "error: so it is");
    }
}
