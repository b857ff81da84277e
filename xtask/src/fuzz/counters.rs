//! cargo-fuzz has every crate compiled with a fuzzer's counters and with debug assertions. The crates of wasmtime take a
//! quarter of an hour so. So cargo starts this program in the place of its compiler (`RUSTC_WRAPPER`), which leaves both
//! out for all crates but those that inputs are made up for.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// Says to this program that it is the compiler.
const VARIABLE: &str = "WASMHOST_XTASK_IS_RUSTC";

/// Crates with counters, beside the project's own: those that read foreign bytes for it.
const AIMS: [&str; 13] = [
    "croner",
    "h2",
    "http",
    "httparse",
    "hyper",
    "jiff",
    "jiff_core",
    "serde_json",
    "toml",
    "toml_datetime",
    "toml_parser",
    "wasmparser",
    "winnow",
];

/// The beginnings of cargo-fuzz's arguments that others do without.
const LEFT_OUT: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-",
    "-Cllvm-args=-simplifycfg-",
    "-Cdebug-assertions",
    "-Ccodegen-units=",
];

/// Has a cargo compile so.
pub(super) fn limit(cargo: &mut Command) -> Result<()> {
    let this = env::current_exe().context("this program's file isn't known")?;
    cargo.env("RUSTC_WRAPPER", this).env(VARIABLE, "1");
    Ok(())
}

/// Compiles, where cargo starts this program for that. Its first argument is the compiler.
pub(crate) fn compile() -> Option<ExitCode> {
    env::var_os(VARIABLE)?;
    let mut arguments = env::args_os().skip(1);
    let compiler = arguments.next()?;
    let arguments: Vec<OsString> = arguments.collect();
    let arguments = if is_aim(&arguments) { arguments } else { without_counters(arguments) };
    let err = Command::new(&compiler).args(arguments).exec();
    eprintln!("error: {} could not be started: {err}", compiler.display());
    Some(ExitCode::FAILURE)
}

fn is_aim(arguments: &[OsString]) -> bool {
    let name = arguments.windows(2).find(|two| two[0] == "--crate-name").and_then(|two| two[1].to_str());
    name.is_some_and(|name| name.starts_with("wasmhost") || AIMS.contains(&name))
        // The targets themselves.
        || arguments.iter().any(|argument| argument.to_str().is_some_and(|text| text.starts_with("fuzz_targets")))
}

fn without_counters(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut kept: Vec<OsString> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        if argument == "fuzzing" && kept.last().is_some_and(|last| last == "--cfg") {
            kept.pop();
        } else if !is_left_out(&argument) {
            kept.push(argument);
        }
    }
    kept
}

fn is_left_out(argument: &OsStr) -> bool {
    argument.to_str().is_some_and(|text| LEFT_OUT.iter().any(|beginning| text.starts_with(beginning)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn only_what_reads_foreign_bytes_is_counted() {
        assert!(is_aim(&arguments("--crate-name wasmhost_engine --edition=2024 src/lib.rs")));
        assert!(is_aim(&arguments("--crate-name h2 src/lib.rs")));
        assert!(is_aim(&arguments("--crate-name admin --edition=2024 fuzz_targets/host/admin.rs")));
        assert!(!is_aim(&arguments("--crate-name wasmtime src/lib.rs")));
        assert!(!is_aim(&arguments("-vV")));
    }

    #[test]
    fn other_crates_keep_all_other_arguments() {
        let line = "--crate-name log --cfg feature=\"std\" -C opt-level=3 -Cpasses=sancov-module \
                    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-simplifycfg-branch-fold-threshold=0 --cfg fuzzing \
                    -Cdebug-assertions -Ccodegen-units=1 -C metadata=1";
        let kept = "--crate-name log --cfg feature=\"std\" -C opt-level=3 -C metadata=1";
        assert_eq!(without_counters(arguments(line)), arguments(kept));
    }
}
