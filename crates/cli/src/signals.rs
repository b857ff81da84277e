//! The signals that a host listens to, and what each of them orders. One that was ignored when the host started is left
//! alone, as `nohup` and shells that start programs in the background expect.
//!
//! | signal | orders |
//! | --- | --- |
//! | TERM, INT | a drain; while it drains, INT or a second TERM ends what is left |
//! | HUP | a deploy; a drain where the terminal has gone on which the host was started |
//! | USR1, USR2 | no more jobs and ticks; jobs and ticks again |
//! | TTIN, TTOU | one instance of the first http type more, or fewer |

pub(crate) mod early;

use std::future::pending;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::termios::{LocalModes, tcgetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wasmhost_host::{Host, Step};

/// A signal's order to a host that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Stop,
    Deploy,
    Pause,
    GoOn,
    Scale(Step),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    hang_up: Option<Signal>,
    pause: Option<Signal>,
    go_on: Option<Signal>,
    more: Option<Signal>,
    fewer: Option<Signal>,
    /// TERM has come before.
    is_terminated: bool,
    /// The host was started on a terminal.
    has_terminal: bool,
    /// HUP has come while the host started.
    deploy_asked: bool,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn new() -> std::io::Result<Signals> {
        let ignored = Ignored::find();
        let listen = |kind: SignalKind| ignored.listen(kind);
        let signals = Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            pause: listen(SignalKind::user_defined1())?,
            go_on: listen(SignalKind::user_defined2())?,
            more: listen(SignalKind::from_raw(rustix::process::Signal::TTIN.as_raw()))?,
            fewer: if is_sent_by_terminal() {
                None
            } else {
                listen(SignalKind::from_raw(rustix::process::Signal::TTOU.as_raw()))?
            },
            is_terminated: false,
            has_terminal: has_terminal(),
            deploy_asked: false,
        };
        early::pass_on();
        Ok(signals)
    }

    /// The two that end a program. All others do to this process what they do to any.
    fn of_program() -> std::io::Result<Signals> {
        let ignored = Ignored::find();
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Signals {
            terminate: ignored.listen(terminate)?,
            interrupt: ignored.listen(interrupt)?,
            ..Signals::default()
        })
    }

    /// Waits, while the host starts, for the first one that says stop. A deploy that is ordered meanwhile is the first order
    /// to the host that serves: it may be about a file that was read before.
    pub(crate) async fn stop(&mut self) {
        loop {
            tokio::select! {
                () = next(&mut self.terminate) => return self.is_terminated = true,
                () = next(&mut self.interrupt) => return,
                () = next(&mut self.hang_up) => match self.terminal_has_gone() {
                    true => return,
                    false => self.deploy_asked = true,
                },
            }
        }
    }

    /// Waits for the next one, whatever it orders.
    pub(crate) async fn order(&mut self) -> Order {
        if std::mem::take(&mut self.deploy_asked) {
            return Order::Deploy;
        }
        tokio::select! {
            () = next(&mut self.terminate) => {
                self.is_terminated = true;
                Order::Stop
            }
            () = next(&mut self.interrupt) => Order::Stop,
            () = next(&mut self.hang_up) => match self.terminal_has_gone() {
                true => Order::Stop,
                false => Order::Deploy,
            },
            () = next(&mut self.pause) => Order::Pause,
            () = next(&mut self.go_on) => Order::GoOn,
            () = next(&mut self.more) => Order::Scale(Step::Up),
            () = next(&mut self.fewer) => Order::Scale(Step::Down),
        }
    }

    fn terminal_has_gone(&self) -> bool {
        self.has_terminal && !has_terminal()
    }

    /// Waits, while the host drains, for one that says at once: INT, or the second TERM. A process manager to which a
    /// terminal sends INT passes TERM on to its children, which have had the INT too: this first TERM changes nothing.
    pub(crate) async fn hurry(&mut self) {
        loop {
            tokio::select! {
                () = next(&mut self.interrupt) => return,
                () = next(&mut self.terminate) => match self.is_terminated {
                    true => return,
                    false => self.is_terminated = true,
                },
            }
        }
    }
}

impl Order {
    /// Does what is ordered, but for the end.
    pub(crate) fn give(self, host: &Host) {
        match self {
            Order::Stop => {}
            Order::Deploy => drop(tokio::spawn(host.deploy())),
            Order::Pause => host.pause(),
            Order::GoOn => host.go_on(),
            Order::Scale(step) => host.scale_http(step),
        }
    }
}

/// Waits for a signal that ends a program which this process runs: the exit code that says so.
pub(crate) async fn end_of_program() -> std::io::Result<u8> {
    let mut signals = Signals::of_program()?;
    tokio::select! {
        () = next(&mut signals.interrupt) => Ok(130),
        () = next(&mut signals.terminate) => Ok(143),
    }
}

/// Whether this process belongs to a terminal that is still there.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}

/// Whether a terminal sends TTOU to a process in its background that writes to it (`stty tostop`). Such a process is to
/// stop: with TTOU for an order, each line would be one.
fn is_sent_by_terminal() -> bool {
    let sends = |stream: BorrowedFd<'_>| {
        // An error says that it is no terminal.
        tcgetattr(stream).is_ok_and(|terminal| terminal.local_modes.contains(LocalModes::TOSTOP))
    };
    sends(std::io::stdout().as_fd()) || sends(std::io::stderr().as_fd())
}

/// The signals that this process ignores: bit n - 1 is signal n.
struct Ignored(u64);

impl Ignored {
    /// Asked of the system. Where it doesn't say, none is.
    fn find() -> Ignored {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Ignored::read(&status)
    }

    fn read(status: &str) -> Ignored {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Ignored(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
    }

    /// Listens to a signal, unless it is ignored.
    fn listen(&self, kind: SignalKind) -> std::io::Result<Option<Signal>> {
        match self.has(kind.as_raw_value()) {
            true => Ok(None),
            false => signal(kind).map(Some),
        }
    }

    fn has(&self, signal: i32) -> bool {
        let bit = u32::try_from(signal - 1).ok().and_then(|bit| 1_u64.checked_shl(bit));
        bit.is_some_and(|bit| self.0 & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_mask_says_which_signals_are_ignored() {
        let ignored = Ignored::read("Name:\twasmhost\nSigBlk:\tffff\nSigIgn:\t0000000000001001\n");
        let has = |kind: SignalKind| ignored.has(kind.as_raw_value());
        assert!(has(SignalKind::hangup()) && has(SignalKind::pipe()));
        assert!(!has(SignalKind::terminate()) && !has(SignalKind::interrupt()));
        for status in ["", "SigIgn:\t?\n"] {
            assert!(!Ignored::read(status).has(SignalKind::hangup().as_raw_value()));
        }
    }
}
