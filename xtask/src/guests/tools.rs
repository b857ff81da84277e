//! The tools that set-up takes from outside this repository. Their versions move, so each is asked which it is, and what
//! doesn't fit is named beside what was expected.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The tools of a language can't be had on this machine. Nothing is wrong with the guests themselves.
#[derive(Debug)]
pub(crate) struct Missing(String);

impl Missing {
    pub(super) fn error(what: impl Into<String>) -> anyhow::Error {
        Missing(what.into()).into()
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Major and minor: all that a tool is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version(major, minor) = self;
        write!(f, "{major}.{minor}")
    }
}

impl Version {
    /// The first version in a text: `Some(1.27)` of `go version go1.27.3 linux/amd64`.
    pub(crate) fn first_in(text: &str) -> Option<Version> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(major)), Some(Ok(minor))) => Some(Version(major, minor)),
                _ => None,
            }
        })
    }
}

/// Whether a program can be started at all, and which version it says it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// It runs, and what it says of itself isn't understood: it is given a try.
    Unknown,
    Version(Version),
}

impl Found {
    /// Asks a program by its arguments for that, such as `--version`.
    pub(crate) fn ask(program: &Path, arguments: &[&str]) -> Found {
        let asked = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        match asked {
            // A shim of a version manager runs, and fails where no version is chosen.
            Ok(said) if said.status.success() => {
                let said = [said.stdout, said.stderr].concat();
                Version::first_in(&String::from_utf8_lossy(&said)).map_or(Found::Unknown, Found::Version)
            }
            _ => Found::Nothing,
        }
    }

    pub(crate) fn is_at_least(&self, least: Version) -> bool {
        match self {
            Found::Nothing => false,
            Found::Unknown => true,
            Found::Version(version) => *version >= least,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Nothing => f.write_str("none that runs"),
            Found::Unknown => f.write_str("one of an unknown version"),
            Found::Version(version) => version.fmt(f),
        }
    }
}

/// An error unless a program is of this version or a later one; `help` says how to come by it.
pub(super) fn require(name: &str, found: &Found, least: Version, help: &str) -> anyhow::Result<()> {
    match found.is_at_least(least) {
        true => Ok(()),
        false => Err(Missing::error(format!(
            "{name} {least} or later was expected, and {found} was found: {help}"
        ))),
    }
}

/// An error where SQLite and ring, which the host is built with, can't be compiled: better now than minutes later.
pub(crate) fn require_c_compiler() -> anyhow::Result<()> {
    // A person who names a compiler, for this target or for all, knows.
    let is_named = std::env::vars_os().any(|(name, _)| {
        name.to_str().is_some_and(|name| name == "CC" || name == "HOST_CC" || name.starts_with("CC_"))
    });
    if is_named || Found::ask(Path::new("cc"), &["--version"]) != Found::Nothing {
        return Ok(());
    }
    Err(Missing::error(
        "a C compiler was expected as `cc`, and none was found (on Debian, as root: `apt-get install gcc libc6-dev`)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_each_tool_prints() {
        let first = |text| Version::first_in(text).map(|version| version.to_string());
        assert_eq!(first("go version go1.27.3 linux/amd64\n").as_deref(), Some("1.27"));
        assert_eq!(first("go version devel go1.30-abc123 linux/arm64\n").as_deref(), Some("1.30"));
        assert_eq!(first("go version go2.0 linux/amd64\n").as_deref(), Some("2.0"));
        assert_eq!(
            first("rustc 1.96.0 (abc 2026-05-25) (built from a source tarball)").as_deref(),
            Some("1.96")
        );
        assert_eq!(first("rustc 1.98.0-nightly (abc 2026-05-25)").as_deref(), Some("1.98"));
        assert_eq!(first("v20.20.2\n").as_deref(), Some("20.20"));
        assert_eq!(first("Python 3.13.1+\n").as_deref(), Some("3.13"));
        assert_eq!(
            first("Debian clang version 22.1.8 (1~deb12u1)\nTarget: x86_64-pc\n").as_deref(),
            Some("22.1")
        );
        assert_eq!(first("no version 5 at all."), None);
        assert_eq!(first(""), None);
    }

    #[test]
    fn an_older_tool_is_named_beside_what_was_expected() {
        let old = Found::Version(Version(18, 9));
        let error = require("Node.js", &old, Version(20, 0), "install it").unwrap_err();
        assert_eq!(error.to_string(), "Node.js 20.0 or later was expected, and 18.9 was found: install it");
        assert!(error.context("examples/typescript").is::<Missing>());
        for fits in [Found::Version(Version(20, 0)), Found::Version(Version(31, 2)), Found::Unknown] {
            assert!(require("Node.js", &fits, Version(20, 0), "").is_ok(), "{fits}");
        }
        assert!(require("Node.js", &Found::Nothing, Version(20, 0), "").is_err());
    }

    #[test]
    fn a_program_that_fails_or_is_not_there_is_none() {
        assert_eq!(Found::ask(Path::new("/no/such/program"), &["--version"]), Found::Nothing);
        assert_eq!(Found::ask(Path::new("sh"), &["-c", "echo 7.1; exit 1"]), Found::Nothing);
        assert_eq!(Found::ask(Path::new("sh"), &["-c", "echo 7.1 >&2"]), Found::Version(Version(7, 1)));
        assert_eq!(Found::ask(Path::new("sh"), &["-c", "echo hello"]), Found::Unknown);
    }
}
