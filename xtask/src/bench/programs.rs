//! The programs that are compared: built, or found, with their versions.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The value that `--with` takes.
pub(super) const WORKERD: &str = "workerd";

/// The variable that names the wasmhost before.
pub(super) const BEFORE: &str = "WASMHOST_BEFORE";

/// A wasmhost that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    This,
    /// The one that `WASMHOST_BEFORE` names, to compare with.
    Before,
}

impl Build {
    pub(super) fn name(self) -> &'static str {
        match self {
            Build::This => "wasmhost",
            Build::Before => "wasmhost, before",
        }
    }
}

/// Where there is a `None`, the text says how to get it.
pub(super) struct Programs {
    wasmhost: PathBuf,
    before: Option<PathBuf>,
    pub(super) native_hyper: PathBuf,
    pub(super) paced: PathBuf,
    pub(super) jobs: PathBuf,
    pub(super) wasmtime: Option<PathBuf>,
    pub(super) workerd: Option<PathBuf>,
}

impl Programs {
    /// Builds what is ours, and finds the rest. workerd is fetched, by npm, only where it was asked for.
    pub(super) fn get(repository: &Path, with: &[String]) -> Result<Programs> {
        let target = target_folder(repository);
        let wasmhost = match given("WASMHOST")? {
            Some(given) => given,
            None => {
                build(repository, &["--package", "wasmhost"], &target)?;
                target.join("release/wasmhost")
            }
        };
        let native = super::target_folder(repository);
        build(&repository.join(super::NATIVE), &[], &native)?;
        let workerd = native.join("npm");
        if with.iter().any(|name| name == WORKERD) {
            install_workerd(&workerd)?;
        }
        let workerd = workerd.join("node_modules/workerd/bin/workerd");
        Ok(Programs {
            wasmhost,
            before: given(BEFORE)?,
            native_hyper: native.join("release/native-hyper"),
            paced: native.join("release/paced"),
            jobs: native.join("release/jobs"),
            wasmtime: given("WASMTIME")?.or_else(|| on_path("wasmtime")),
            workerd: Some(workerd).filter(|file| file.is_file()).or_else(|| on_path(WORKERD)),
        })
    }

    pub(super) fn wasmhost(&self, build: Build) -> Result<&Path> {
        match build {
            Build::This => Ok(&self.wasmhost),
            Build::Before => self.before.as_deref().with_context(|| format!("{BEFORE} names none")),
        }
    }

    /// Each wasmhost that there is.
    pub(super) fn builds(&self) -> &'static [Build] {
        if self.before.is_some() { &[Build::This, Build::Before] } else { &[Build::This] }
    }

    pub(super) fn wasmtime(&self) -> Result<&Path> {
        self.wasmtime.as_deref().context(
            "not on the path: install it with `cargo install wasmtime-cli --version 48.0.8 --locked`, or set WASMTIME to one",
        )
    }

    pub(super) fn workerd(&self) -> Result<&Path> {
        self.workerd.as_deref().context("not on the path: `cargo xtask bench --with workerd` gets it by npm")
    }

    /// The version that each program says it is.
    pub(super) fn versions(&self, repository: &Path) -> BTreeMap<&'static str, String> {
        let mut versions = BTreeMap::new();
        let mut add = |name, program: Option<&Path>, argument| {
            if let Some(version) = program.and_then(|program| version_of(program, argument)) {
                versions.insert(name, version);
            }
        };
        add(Build::This.name(), Some(&self.wasmhost), "--version");
        add(Build::Before.name(), self.before.as_deref(), "--version");
        add("wasmtime", self.wasmtime.as_deref(), "--version");
        add("workerd", self.workerd.as_deref(), "--version");
        add("wrk", on_path("wrk").as_deref(), "-v");
        let lock = repository.join(super::NATIVE).join("Cargo.lock");
        let lock = std::fs::read_to_string(lock).unwrap_or_default();
        for name in ["hyper", "tokio"] {
            versions.extend(locked_version(&lock, name).map(|version| (name, version)));
        }
        versions
    }
}

fn build(folder: &Path, arguments: &[&str], target: &Path) -> Result<()> {
    let status = crate::cargo_command()
        .args(["build", "--release", "--locked"])
        .args(arguments)
        .arg("--target-dir")
        .arg(target)
        .current_dir(folder)
        .status()?;
    ensure!(status.success(), "what is to be measured could not be built");
    Ok(())
}

/// Cargo's, relative to where it was called.
pub(super) fn target_folder(repository: &Path) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    env::current_dir().unwrap_or_default().join(target)
}

/// A program that a variable names.
fn given(variable: &str) -> Result<Option<PathBuf>> {
    let given = env::var_os(variable).map(|given| env::current_dir().unwrap_or_default().join(given));
    if let Some(given) = &given {
        ensure!(given.is_file(), "{variable} is {}, which is no file", given.display());
    }
    Ok(given)
}

fn install_workerd(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let status = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--prefix"])
        .arg(folder)
        .arg("workerd@1")
        .status();
    let status = status.context("npm did not start: it comes with Node.js")?;
    ensure!(status.success(), "npm could not install workerd");
    Ok(())
}

/// A program that the shell would find.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The first thing that looks like a version in what it prints.
pub(super) fn version_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    first_version(&text).map(str::to_owned)
}

fn first_version(text: &str) -> Option<&str> {
    let words = text.split(|c: char| c.is_whitespace() || c == '/');
    let mut words = words.map(|word| word.strip_prefix('v').unwrap_or(word));
    words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains(['.', '-']))
}

fn locked_version(lock: &str, package: &str) -> Option<String> {
    let (_, entry) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    entry.split_once('"').map(|(version, _)| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        assert_eq!(first_version("wasmtime 48.0.8 (abc 2026-11-01)\n"), Some("48.0.8"));
        assert_eq!(first_version("workerd 2026-11-01\n"), Some("2026-11-01"));
        assert_eq!(first_version("wrk debian/4.1.0-4 [epoll] Copyright (C) 2012"), Some("4.1.0-4"));
        assert_eq!(first_version("v20.20.2\n"), Some("20.20.2"));
        let lock = "[[package]]\nname = \"hyper\"\nversion = \"1.12.0\"\nsource = \"x\"\n";
        assert_eq!(locked_version(lock, "hyper").as_deref(), Some("1.12.0"));
        assert_eq!(locked_version(lock, "tokio"), None);
    }
}
