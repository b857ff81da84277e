//! A build as a child process: a shell in the formation's folder, in a process group of its own, so that all that it starts
//! ends with it.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A longer line is printed in pieces.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Lines that wait to be printed: a build waits for a terminal that takes none.
const LINES_MAX: usize = 64;

/// How long a build's output is read after its end. A server that the build has left behind may hold it open.
const LAST_LINES_MAX: Duration = Duration::from_millis(500);

/// How long a build may take to end when it is asked to.
const ENDED_MAX: Duration = Duration::from_secs(2);

/// A build that runs. All of it is killed where this is dropped before its end.
pub(crate) struct Building {
    child: Child,
    group: Option<Pid>,
    lines: mpsc::Receiver<String>,
}

impl Building {
    /// Starts a command.
    pub(crate) fn start(command: &str, folder: &Path) -> std::io::Result<Building> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .current_dir(folder)
            .env("WASMHOST", this_program())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (sender, lines) = mpsc::channel(LINES_MAX);
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(read(stdout, sender.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(read(stderr, sender));
        }
        Ok(Building { child, group, lines })
    }

    /// Waits for its end, and hands on its lines meanwhile.
    pub(crate) async fn wait(&mut self, mut say: impl FnMut(&str)) -> std::io::Result<ExitStatus> {
        let ended = loop {
            tokio::select! {
                biased;
                Some(line) = self.lines.recv() => say(&line),
                ended = self.child.wait() => break ended?,
            }
        };
        // Processes that it has left behind are nobody's to end.
        self.group = None;
        let rest = async {
            while let Some(line) = self.lines.recv().await {
                say(&line);
            }
        };
        let _ = tokio::time::timeout(LAST_LINES_MAX, rest).await;
        Ok(ended)
    }

    /// Asks it to end, and sees to it that it does.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        let _ = tokio::time::timeout(ENDED_MAX, self.child.wait()).await;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It may have ended by itself.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// This program, for scripts that call it (`wasmhost componentize`).
fn this_program() -> OsString {
    std::env::current_exe().map_or_else(|_| "wasmhost".into(), Into::into)
}

async fn read(stream: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut stream = BufReader::new(stream);
    while let Some(line) = next_line(&mut stream).await {
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

/// The next line, without its end. A carriage return ends one, too: tools write a bar of progress over itself by it.
async fn next_line(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let ready = stream.fill_buf().await.ok()?;
        if ready.is_empty() {
            break (!line.is_empty()).then(|| text(&line));
        }
        let end = ready.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let room = LINE_BYTES_MAX - line.len();
        let taken = end.unwrap_or(ready.len()).min(room);
        line.extend_from_slice(&ready[..taken]);
        let is_whole = end == Some(taken);
        stream.consume(taken + usize::from(is_whole));
        if is_whole && line.is_empty() {
            continue;
        }
        if is_whole || line.len() == LINE_BYTES_MAX {
            break Some(text(&line));
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(command: &str) -> (Option<i32>, Vec<String>) {
        let mut building = Building::start(command, Path::new("/")).unwrap();
        let mut lines = Vec::new();
        let ended = building.wait(|line| lines.push(line.to_owned())).await.unwrap();
        (ended.code(), lines)
    }

    #[tokio::test]
    async fn lines_come_without_their_ends_and_the_code_is_the_shells() {
        let (code, lines) = said("printf 'one\\r\\n\\ntwo\\rthree'; exit 7").await;
        assert_eq!((code, lines), (Some(7), ["one", "two", "three"].map(str::to_owned).to_vec()));
        let (code, lines) = said("echo oops >&2; no-such-program").await;
        assert_eq!((code, lines[0].as_str()), (Some(127), "oops"));
        assert!(lines[1].contains("not found"), "{lines:?}");
    }

    #[tokio::test]
    async fn a_long_line_comes_in_pieces() {
        let (_, lines) = said("head -c 40000 /dev/zero | tr '\\0' x").await;
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [16384, 16384, 7232]);
    }

    #[tokio::test]
    async fn what_a_build_leaves_behind_is_not_waited_for() {
        let (code, lines) = said("sleep 1000 & echo $!").await;
        assert_eq!((code, lines.len()), (Some(0), 1));
        let left: i32 = lines[0].parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn all_of_it_ends_when_it_is_dropped() {
        let mut building = Building::start("sleep 1000 & echo $!; wait", Path::new("/")).unwrap();
        let child = building.lines.recv().await.unwrap();
        drop(building);
        let status = format!("/proc/{child}/status");
        let is_gone = || match std::fs::read_to_string(&status) {
            Ok(status) => status.lines().any(|line| line.starts_with("State:") && line.contains('Z')),
            Err(_) => true,
        };
        while !is_gone() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
