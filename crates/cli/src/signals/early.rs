//! Signals that come before a host listens to any. A service manager or a script may send one as soon as the process is there, and
//! the system's default would end it. So they are held from the first line of `main` on, until it is known what this process is.
//!
//! ```text
//! held -> (a host) passed on to it, as soon as it listens
//!      -> (any other verb) let go: they do what they do to any process
//! ```
//!
//! They have handlers and aren't masked, so that a program which this one starts has the system's default.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use rustix::process::{Signal, getpid, kill_process};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;

use super::Ignored;

/// Those that order something of a host, and would end a process that doesn't know them.
const HELD: [Signal; 3] = [Signal::HUP, Signal::USR1, Signal::USR2];

/// See the module.
struct Held {
    /// Whether each of them has come.
    come: Vec<(Signal, Arc<AtomicBool>)>,
    are_let_go: Arc<AtomicBool>,
}

static IN_THIS_PROCESS: OnceLock<Held> = OnceLock::new();

/// Holds them, but for those that were ignored when this process began.
pub(crate) fn hold() {
    let ignored = Ignored::find();
    let are_let_go = Arc::new(AtomicBool::new(false));
    let hold = |signal: Signal| -> io::Result<(Signal, Arc<AtomicBool>)> {
        let come = Arc::new(AtomicBool::new(false));
        flag::register_conditional_default(signal.as_raw(), are_let_go.clone())?;
        flag::register(signal.as_raw(), come.clone())?;
        Ok((signal, come))
    };
    let wanted = HELD.into_iter().filter(|signal| !ignored.has(signal.as_raw()));
    // One that can't be held is as it would be without this.
    let come = wanted.filter_map(|signal| hold(signal).ok()).collect();
    let _ = IN_THIS_PROCESS.set(Held { come, are_let_go });
}

/// This process is no host: what has come does what it would have done.
pub(crate) fn let_go() {
    let Some(held) = IN_THIS_PROCESS.get() else { return };
    held.are_let_go.store(true, SeqCst);
    for signal in held.taken() {
        let _ = emulate_default_handler(signal.as_raw());
    }
}

/// The host listens: it hears now of what has come.
pub(super) fn pass_on() {
    let Some(held) = IN_THIS_PROCESS.get() else { return };
    held.are_let_go.store(false, SeqCst);
    for signal in held.taken() {
        let _ = kill_process(getpid(), signal);
    }
}

impl Held {
    /// Those that have come. None is taken twice.
    fn taken(&self) -> impl Iterator<Item = Signal> {
        self.come.iter().filter(|(_, come)| come.swap(false, SeqCst)).map(|(signal, _)| *signal)
    }
}
