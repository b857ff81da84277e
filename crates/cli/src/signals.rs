//! The signals that a host listens to. One that was ignored when it started is left alone, as `nohup` and shells that
//! start programs in the background expect.

use std::future::pending;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    /// The terminal has gone.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn new() -> std::io::Result<Signals> {
        let ignored = Ignored::find();
        let listen = |kind: SignalKind| match ignored.has(kind) {
            true => Ok(None),
            false => signal(kind).map(Some),
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the first one that says stop.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            () = next(&mut self.terminate) => {}
            () = next(&mut self.interrupt) => {}
            () = next(&mut self.hang_up) => {}
        }
    }

    /// Waits for a second Ctrl-C.
    pub(crate) async fn hurry(&mut self) {
        next(&mut self.interrupt).await;
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
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

    fn has(&self, kind: SignalKind) -> bool {
        let bit = u32::try_from(kind.as_raw_value() - 1).ok().and_then(|bit| 1_u64.checked_shl(bit));
        bit.is_some_and(|bit| self.0 & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_mask_says_which_signals_are_ignored() {
        let ignored = Ignored::read("Name:\twasmhost\nSigBlk:\tffff\nSigIgn:\t0000000000001001\n");
        assert!(ignored.has(SignalKind::hangup()) && ignored.has(SignalKind::pipe()));
        assert!(!ignored.has(SignalKind::terminate()) && !ignored.has(SignalKind::interrupt()));
        for status in ["", "SigIgn:\t?\n"] {
            assert!(!Ignored::read(status).has(SignalKind::hangup()));
        }
    }
}
