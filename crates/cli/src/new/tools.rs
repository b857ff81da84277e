//! The tools that projects are built by: whether they are here, and the line that installs each.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Programs, and how they are installed: as advice after "is missing:".
const INSTALL_LINES: [(&str, &str); 7] = [
    ("cargo", "`curl -sSf https://sh.rustup.rs | sh` installs Rust"),
    ("rustup", "`curl -sSf https://sh.rustup.rs | sh` installs it"),
    ("npm", "on Debian, as root: `apt-get install nodejs npm`; elsewhere https://nodejs.org"),
    ("node", "on Debian, as root: `apt-get install nodejs npm`; elsewhere https://nodejs.org"),
    ("python3", "on Debian, as root: `apt-get install python3 python3-venv`; elsewhere https://python.org"),
    (
        "go",
        "https://go.dev/dl has it, and on Debian, as root: `apt-get install golang` where that is 1.24 or later",
    ),
    ("clang", CLANG),
];

const CLANG: &str = "a wasi-sdk of https://github.com/WebAssembly/wasi-sdk/releases, named by WASI_SDK_PATH, or on Debian, as root: `apt-get install --no-install-recommends clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc`";

/// The standard library's part for WASI 0.2, which rustup adds.
pub(super) const ADD_TARGET: &str = "rustup target add wasm32-wasip2";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// How this machine builds Rust for WebAssembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RustTools {
    /// By `wasm32-wasip2`, which is installed or not.
    Target { installed: bool },
    /// By Debian's compiler, which builds the standard library for `wasm32-wasip1` from its sources.
    Debian,
}

/// How a program is installed, if that is known.
pub(crate) fn install_line(program: &str) -> Option<&'static str> {
    INSTALL_LINES.iter().find(|(name, _)| *name == program).map(|(_, line)| *line)
}

/// Whether a program is on the path and runs.
pub(super) fn runs(program: &str, argument: &str) -> bool {
    let asked = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    asked.is_ok_and(|said| said.status.success())
}

impl RustTools {
    /// rustup's target where it is installed, then Debian's compiler where all of it is.
    pub(super) fn find() -> RustTools {
        if has_target("rustc", "wasm32-wasip2") {
            return RustTools::Target { installed: true };
        }
        match has_debians() {
            true => RustTools::Debian,
            false => RustTools::Target { installed: false },
        }
    }
}

/// Asks the compiler itself, since not all of them come by rustup.
fn has_target(rustc: &str, target: &str) -> bool {
    let Some(folder) = said(rustc, &["--print", "target-libdir", "--target", target]) else { return false };
    let Ok(libraries) = fs::read_dir(folder) else { return false };
    libraries.flatten().any(|library| library.file_name().to_string_lossy().starts_with("libstd-"))
}

/// The compiler, the sources of its standard library, and the C library where the compiler looks for it.
fn has_debians() -> bool {
    let Some(sysroot) = said(DEBIAN_RUSTC, &["--print", "sysroot"]) else { return false };
    let rustlib = Path::new(&sysroot).join("lib/rustlib");
    rustlib.join("src/rust/library/Cargo.toml").exists()
        && rustlib.join("wasm32-wasip1/lib/self-contained/libc.a").exists()
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let said =
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// Whether there is a clang by any name. Whether it builds for WebAssembly is for a build to find out.
pub(super) fn has_clang() -> bool {
    let versioned = || {
        let programs = fs::read_dir("/usr/bin").into_iter().flatten().flatten();
        programs.into_iter().any(|program| {
            let name = program.file_name().to_string_lossy().into_owned();
            name.strip_prefix("clang-")
                .is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    runs("clang", "--version") || versioned()
}
