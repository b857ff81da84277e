//! Exit codes, and failures on their way to one.

use std::fmt;
use std::process::ExitCode;

/// How the program ends. The numbers are part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Done,
    /// It was refused, or failed.
    Failed,
    /// The arguments or the formation are wrong. clap uses the same number.
    Usage,
    /// The host could not start: port, store, second host, release step.
    NotStarted,
    /// A component is missing, or can't be loaded.
    Component,
    /// No host runs this formation.
    NoHost,
    /// Something was cut off: at grace, or a program at its timeout.
    CutOff,
    /// A person has ended the waiting. Shells say 130 of what SIGINT has ended.
    Interrupted,
    /// A program trapped. Shells say 134 of one that was aborted.
    Trapped,
    /// A program's own.
    OfProgram(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotStarted => 3,
            Exit::Component => 4,
            Exit::NoHost => 5,
            Exit::CutOff => 124,
            Exit::Interrupted => 130,
            Exit::Trapped => 134,
            Exit::OfProgram(code) => code,
        })
    }
}

/// A failure that a person is told of in one message.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failed {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Failed {
        Failed { exit, message: message.to_string() }
    }
}

/// How every verb ends.
pub(crate) type Outcome = Result<Exit, Failed>;

/// Errors of the system that are nobody's mistake in particular: no descriptors left, a broken pipe.
impl From<std::io::Error> for Failed {
    fn from(err: std::io::Error) -> Failed {
        Failed::new(Exit::Failed, err)
    }
}

impl From<serde_json::Error> for Failed {
    fn from(err: serde_json::Error) -> Failed {
        Failed::new(Exit::Failed, format!("the host's answer can't be read: {err}"))
    }
}
