//! Finding a Rust compiler that builds for WebAssembly.
//!
//! What is here already is taken first; then rustup is asked to add the target, then `apt-get` to install Debian's
//! compiler; and if neither works, the error says what to type.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::apt;

/// The one target of all guests here. A component is made of its modules whoever compiled them, and the tests want
/// modules too; a user's own `wasm32-wasip2` gives the same in one step.
pub(super) const TARGET: &str = "wasm32-wasip1";

/// rustup has no timeout of its own, and a machine without a way to its servers would wait for minutes.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Debian's packages, beside the newest `lld-N`.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "wasi-libc"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_WASI_LIBC: &str = "/usr/lib/wasm32-wasi";
const WASI_LIBC_FILES: [&str; 3] = ["crt1-command.o", "crt1-reactor.o", "libc.a"];

pub(super) enum Toolchain {
    /// The compiler that builds the host too, with the target added.
    Installed,
    /// Debian's compiler, which builds the target's standard library from its sources.
    Debian {
        /// `wasm-ld`, or `wasm-ld-N` where only that is installed.
        linker: PathBuf,
    },
}

impl Toolchain {
    pub(super) fn find() -> Result<Self> {
        if target_is_installed() {
            return Ok(Self::Installed);
        }
        if let Some(debian) = debian()? {
            return Ok(debian);
        }
        if add_by_rustup() && target_is_installed() {
            return Ok(Self::Installed);
        }
        if install_by_apt()?
            && let Some(debian) = debian()?
        {
            return Ok(debian);
        }
        bail!(
            "no Rust compiler here builds for WebAssembly. Where rustup's servers can be reached:\n\n    \
             rustup target add {TARGET}\n\n\
             On Debian without them, as root:\n\n    apt-get update\n    \
             apt-get install --no-install-recommends {} {}\n\n\
             and call `cargo xtask guests` once as root, which links the C library to where rustc looks for it.",
            DEBIAN_PACKAGES.join(" "),
            apt::newest_lld().unwrap_or_else(|| "lld".to_string()),
        )
    }

    /// `cargo build --release` for the target: needs a folder yet.
    pub(super) fn cargo_build(&self) -> Command {
        let mut cargo = match self {
            Self::Installed => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian { .. } => Command::new(DEBIAN_CARGO),
        };
        cargo.args(["build", "--release", "--target", TARGET]);
        // What the caller set for the host's build would make other guests than everyone else's.
        for variable in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"]
        {
            cargo.env_remove(variable);
        }
        if let Self::Debian { linker } = self {
            let path = env::var("PATH").unwrap_or_default();
            cargo
                .arg("-Zbuild-std=std,panic_abort")
                // Building the standard library is a nightly feature; Debian's compiler isn't one.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTC", DEBIAN_RUSTC)
                .env("PATH", format!("/usr/bin:{path}"))
                .env("CARGO_TARGET_WASM32_WASIP1_LINKER", linker)
                // Set by the cargo that runs us, for its own compiler's libraries.
                .env_remove("LD_LIBRARY_PATH")
                .env_remove("RUSTUP_TOOLCHAIN");
        }
        cargo
    }
}

/// Asks the compiler itself, since not all of them come by rustup.
fn target_is_installed() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let Ok(folder) = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
    else {
        return false;
    };
    let Ok(libraries) = fs::read_dir(folder) else { return false };
    libraries.flatten().any(|library| library.file_name().to_string_lossy().starts_with("libstd-"))
}

fn add_by_rustup() -> bool {
    let Ok(mut rustup) = Command::new("rustup").args(["target", "add", TARGET]).spawn() else { return false };
    let deadline = Instant::now() + RUSTUP_TIMEOUT;
    while Instant::now() < deadline {
        match rustup.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => sleep(Duration::from_millis(50)),
            Err(_) => break,
        }
    }
    println!("rustup took longer than {} s", RUSTUP_TIMEOUT.as_secs());
    // It may have ended in this moment, which is as well.
    let _ = rustup.kill();
    let _ = rustup.wait();
    false
}

/// Debian's compiler, if all of it is installed.
fn debian() -> Result<Option<Toolchain>> {
    let Some(linker) = debian_linker() else { return Ok(None) };
    if !Path::new(DEBIAN_RUSTC).exists() || !Path::new(DEBIAN_CARGO).exists() {
        return Ok(None);
    }
    let sysroot = PathBuf::from(output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?);
    let rustlib = sysroot.join("lib/rustlib");
    if !rustlib.join("src/rust/library/Cargo.toml").exists() || !Path::new(DEBIAN_WASI_LIBC).exists() {
        return Ok(None);
    }
    link_wasi_libc(&rustlib.join(TARGET).join("lib/self-contained"))?;
    Ok(Some(Toolchain::Debian { linker }))
}

/// rustc looks for the C library where rustup would have put it.
fn link_wasi_libc(folder: &Path) -> Result<()> {
    for file in WASI_LIBC_FILES {
        let link = folder.join(file);
        if link.exists() {
            continue;
        }
        fs::create_dir_all(folder)
            .and_then(|()| symlink(Path::new(DEBIAN_WASI_LIBC).join(file), &link))
            .with_context(|| {
                format!("{} can't be made: call `cargo xtask guests` once as root", link.display())
            })?;
    }
    Ok(())
}

fn debian_linker() -> Option<PathBuf> {
    let programs = fs::read_dir("/usr/bin").ok()?.flatten().map(|program| program.path());
    let linkers =
        programs.filter_map(|path| Some((apt::llvm_version(path.file_name()?.to_str()?, "wasm-ld-")?, path)));
    linkers.max().map(|(_, path)| path)
}

/// Whether it could be tried at all, and worked.
fn install_by_apt() -> Result<bool> {
    if !apt::can_install() {
        return Ok(false);
    }
    apt::update()?;
    let Some(lld) = apt::newest_lld() else { return Ok(false) };
    let mut packages = DEBIAN_PACKAGES.to_vec();
    packages.push(&lld);
    apt::install(&packages)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "{} failed", command.get_program().display());
    Ok(String::from_utf8(output.stdout)?.trim().to_string())
}
