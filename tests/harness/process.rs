//! The binary as a child process, and its lines.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, formation};

/// A `wasmhost` process. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// 128 and the signal's number where one ended it, as shells say.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts the binary in this folder.
    pub(crate) fn start<S: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = S>) -> Process {
        Process::start_with_input(folder, arguments, "")
    }

    /// The same, with text on its standard input.
    pub(crate) fn start_with_input<S: AsRef<OsStr>>(
        folder: &Path,
        arguments: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Process {
        Process::start_with(folder, arguments, input, &[])
    }

    /// The same, with variables in its environment.
    pub(crate) fn start_with<S: AsRef<OsStr>>(
        folder: &Path,
        arguments: impl IntoIterator<Item = S>,
        input: &str,
        variables: &[(String, OsString)],
    ) -> Process {
        Process::spawn(command(folder, arguments, variables), input)
    }

    /// The same with a standard input that stays open.
    pub(crate) fn start_with_stdin<S: AsRef<OsStr>>(
        folder: &Path,
        arguments: impl IntoIterator<Item = S>,
        variables: &[(String, OsString)],
    ) -> (ChildStdin, Process) {
        Process::spawn_open(command(folder, arguments, variables))
    }

    /// Starts the binary in place of a shell that has done something before.
    pub(crate) fn start_after<const N: usize>(folder: &Path, script: &str, arguments: [&str; N]) -> Process {
        let binary = command(folder, arguments, &[]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{script}; exec \"$0\" \"$@\"")).arg(binary.get_program());
        shell.args(binary.get_args()).current_dir(folder);
        for (name, value) in binary.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        Process::spawn(shell, "")
    }

    fn spawn(command: Command, input: &str) -> Process {
        let (mut stdin, process) = Process::spawn_open(command);
        // Who doesn't read it may close it.
        let _ = stdin.write_all(input.as_bytes());
        process
    }

    fn spawn_open(mut command: Command) -> (ChildStdin, Process) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = Lines::read(child.stdout.take().unwrap());
        let stderr = Lines::read(child.stderr.take().unwrap());
        (stdin, Process { child, stdout, stderr })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        let until = Instant::now() + 2 * PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= until {
                panic!("it doesn't end; it said\n{}{}", self.stdout.text(), self.stderr.text());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.stdout.wait_for_end();
        self.stderr.wait_for_end();
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
        Ended { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

/// Variables that say something to the binary, which whoever runs the tests may have set.
const UNSET: [&str; 16] = [
    "NO_COLOR",
    "WASMHOST_CACHE",
    "WASMHOST_CACHE_SIZE",
    "WASMHOST_CA",
    "WASMHOST_FILE",
    "WASMHOST_HOST",
    "WASMHOST_TOKEN_FILE",
    "WASMHOST_LOG",
    "COLUMNS",
    "NOTIFY_SOCKET",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_SDK_DISABLED",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// The binary in this folder, as tests run it.
pub(crate) fn command<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
    variables: &[(String, OsString)],
) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmhost"));
    command.args(arguments).current_dir(folder);
    for variable in UNSET {
        command.env_remove(variable);
    }
    // One for all tests, so that each guest is compiled once.
    command.env("WASMHOST_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
    // A backtrace that is never to be seen would be seen now.
    command.env("RUST_BACKTRACE", "1").env("GUESTS", formation::guests());
    // Where no name server can be reached it is soon known that a name can't be looked up.
    command.env("RES_OPTIONS", "timeout:1 attempts:1");
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// It went well; what it printed.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }

    /// It failed with this code and one error in which this text is.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, text: &str) -> Ended {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        assert_eq!(self.stderr.matches("error: ").count(), 1, "one error: {self:#?}");
        self.never_panicked()
    }

    /// Nothing of what only the program's authors can use.
    #[track_caller]
    pub(crate) fn never_panicked(self) -> Ended {
        for text in ["panicked", "stack backtrace", "RUST_BACKTRACE", ".rs:"] {
            assert!(!self.stderr.contains(text), "{text:?} in {self:#?}");
        }
        self
    }
}

/// The lines of a stream, so far.
#[derive(Clone)]
pub(crate) struct Lines {
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    bytes: usize,
    ended: bool,
}

/// Bytes of one stream's lines that are kept: a host of hostile guests writes for as long as it runs. Past them the older
/// half goes.
const KEPT_BYTES_MAX: usize = 256 << 20;

impl Seen {
    fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push(line);
        if self.bytes > KEPT_BYTES_MAX {
            let older = self.lines.len() / 2;
            self.bytes -= self.lines.drain(..older).map(|line| line.len()).sum::<usize>();
        }
    }
}

impl Lines {
    pub(crate) fn read(from: impl Read + Send + 'static) -> Lines {
        let shared = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let lines = Lines { shared: shared.clone() };
        std::thread::spawn(move || {
            let (seen, changed) = &*shared;
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                seen.lock().unwrap().add(String::from_utf8_lossy(&line).into_owned());
                changed.notify_all();
            }
            seen.lock().unwrap().ended = true;
            changed.notify_all();
        });
        lines
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.shared.0.lock().unwrap().lines.clone()
    }

    pub(crate) fn text(&self) -> String {
        self.all().into_iter().map(|line| line + "\n").collect()
    }

    /// How many lines have this text in them, so far.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.shared.0.lock().unwrap().lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line with this text in it.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |lines| lines.iter().find(|line| line.contains(text)).cloned())
    }

    /// Waits until the lines give an answer.
    #[track_caller]
    pub(crate) fn wait_until<T>(&self, what: &str, answer: impl FnMut(&[String]) -> Option<T>) -> T {
        self.wait_within(PATIENCE, what, answer)
    }

    /// The same, for what takes another while than most.
    #[track_caller]
    pub(crate) fn wait_within<T>(
        &self,
        patience: Duration,
        what: &str,
        mut answer: impl FnMut(&[String]) -> Option<T>,
    ) -> T {
        let (seen, changed) = &*self.shared;
        let until = Instant::now() + patience;
        let mut seen = seen.lock().unwrap();
        loop {
            if let Some(answer) = answer(&seen.lines) {
                return answer;
            }
            let left = until.saturating_duration_since(Instant::now());
            if seen.ended || left.is_zero() {
                let lines = seen.lines.join("\n");
                // The lock is not to be poisoned: other threads still add lines.
                drop(seen);
                panic!("no {what:?} in\n{lines}");
            }
            seen = changed.wait_timeout(seen, left).unwrap().0;
        }
    }

    fn wait_for_end(&self) {
        let (seen, changed) = &*self.shared;
        let seen = seen.lock().unwrap();
        let _ended = changed.wait_timeout_while(seen, PATIENCE, |seen| !seen.ended).unwrap();
    }
}
