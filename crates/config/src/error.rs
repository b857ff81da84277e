//! Errors of a formation, written so that its author can act on them.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no [`Formation`](crate::Formation).
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error(
        "{}: no such file (looked at {}); expected a formation file: name it with `-f FILE`",
        file.display(),
        looked_at.display()
    )]
    NotFound {
        /// The path as it was given.
        file: PathBuf,
        /// The same, absolute.
        looked_at: PathBuf,
    },
    /// The path is a directory.
    #[error(
        "{}: found a directory, expected a formation file: name the file in it with `-f {}`",
        file.display(),
        file.join("formation.toml").display()
    )]
    IsDirectory {
        /// The path as it was given.
        file: PathBuf,
    },
    /// The file is there, but reading it failed.
    #[error(
        "{}: can't be read: {source}; check the file's permissions, or name another one with `-f FILE`",
        file.display()
    )]
    Unreadable {
        /// The path as it was given.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file was read, and this is wrong with it: at least one problem, sorted by file, line and column.
    #[error("{}", Listed(.0))]
    Invalid(Vec<Problem>),
}

/// One thing that is wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as its user named it; `.env` beside it has its own name.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The key, with the tables it is in: `process.web.memory`. Empty where no key is at fault.
    pub key: String,
    /// The message: it says what was found, what was expected, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        match self.0.len() {
            0 | 1 => Ok(()),
            count => write!(f, "\n{count} problems"),
        }
    }
}
