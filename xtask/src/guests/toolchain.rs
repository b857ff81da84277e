//! Finding a Rust compiler that builds for WebAssembly.
//!
//! A compiler that is here already is taken first; then rustup is asked to add the target, then `apt-get` to install
//! Debian's compiler. If none of that works, the error says what was found and what to type.

use std::env;
use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::apt;
use super::tools::{Found, Missing, Version};

/// The one target of all guests here. A component is made of its modules whoever compiled them, and the tests want
/// modules too; a user's own `wasm32-wasip2` gives the same in one step.
pub(super) const TARGET: &str = "wasm32-wasip1";

/// rustup has no timeout of its own, and a machine without a way to its servers would wait for minutes.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Debian's packages, beside an `lld-N`.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "wasi-libc"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// Where Debian's C library is, or will be when it follows the new name of the target.
const DEBIAN_WASI_LIBCS: [&str; 2] = ["/usr/lib/wasm32-wasip1", "/usr/lib/wasm32-wasi"];
const WASI_LIBC_FILES: [&str; 3] = ["crt1-command.o", "crt1-reactor.o", "libc.a"];

/// The Rust that the guests' SDK asks for, as the host does.
const RUST_MIN: &str = env!("CARGO_PKG_RUST_VERSION");

pub(super) enum Toolchain {
    /// The compiler that builds the host too, with the target added.
    Installed,
    /// Debian's compiler, which builds the target's standard library from its sources.
    Debian {
        version: Found,
        /// `wasm-ld-N`, or `wasm-ld` where only that is installed.
        linker: PathBuf,
    },
}

/// As errors name it.
impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => write!(f, "cargo, for {TARGET},"),
            Self::Debian { version, linker } => {
                write!(f, "{DEBIAN_CARGO}, with {DEBIAN_RUSTC} {version} and {},", linker.display())
            }
        }
    }
}

impl Toolchain {
    pub(super) fn find() -> Result<Self> {
        if target_is_installed() {
            return Ok(Self::Installed);
        }
        let lacking = match debian() {
            Ok(debian) => return Ok(debian),
            Err(lacking) => lacking,
        };
        if add_by_rustup() && target_is_installed() {
            return Ok(Self::Installed);
        }
        let lacking = match install_by_apt() {
            true => match debian() {
                Ok(debian) => return Ok(debian),
                Err(lacking) => lacking,
            },
            false => lacking,
        };
        let lld = apt::newest(apt::LLD).map_or("lld".to_string(), |version| format!("{}{version}", apt::LLD));
        Err(Missing::error(format!(
            "no Rust compiler here builds for WebAssembly: this one lacks the target {TARGET}, and of Debian's {lacking}. \
             Where rustup's servers can be reached:\n\n    rustup target add {TARGET}\n\n\
             On Debian without them, as root:\n\n    apt-get update\n    \
             apt-get install --no-install-recommends {} {lld}\n\n\
             and call `cargo xtask guests` once as root, which links the C library to where rustc looks for it.",
            DEBIAN_PACKAGES.join(" "),
        )))
    }

    /// `cargo build --release` for the target: needs a folder yet.
    pub(super) fn cargo_build(&self) -> Command {
        let mut cargo = match self {
            Self::Installed => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian { .. } => Command::new(DEBIAN_CARGO),
        };
        cargo.args(["build", "--release", "--target", TARGET]);
        // Flags that the caller set for the host's build would make other guests than everyone else's.
        for variable in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"]
        {
            cargo.env_remove(variable);
        }
        if let Self::Debian { linker, .. } = self {
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

/// Debian's compiler, if all of it is installed; if not, what it lacks, to be read after "of Debian's".
fn debian() -> Result<Toolchain, String> {
    let version = Found::ask(Path::new(DEBIAN_RUSTC), &["--version"]);
    if version == Found::Nothing || !Path::new(DEBIAN_CARGO).exists() {
        return Err(format!("there is no {DEBIAN_RUSTC} with {DEBIAN_CARGO}"));
    }
    let least = Version::first_in(RUST_MIN).unwrap_or(Version(1, 0));
    if !version.is_at_least(least) {
        return Err(format!("{DEBIAN_RUSTC} is {version}, where {least} or later is expected"));
    }
    let linker = debian_linker().ok_or("there is no linker /usr/bin/wasm-ld-N")?;
    let libc = DEBIAN_WASI_LIBCS.map(Path::new).into_iter().find(|folder| folder.join("libc.a").exists());
    let libc = libc.ok_or_else(|| format!("there is no {}/libc.a", DEBIAN_WASI_LIBCS[1]))?;
    let sysroot = output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]));
    let rustlib = PathBuf::from(sysroot.map_err(|error| format!("{DEBIAN_RUSTC} fails: {error:#}"))?)
        .join("lib/rustlib");
    if !rustlib.join("src/rust/library/Cargo.toml").exists() {
        return Err(format!("the standard library's sources aren't in {}", rustlib.join("src").display()));
    }
    link_wasi_libc(libc, &rustlib.join(TARGET).join("lib/self-contained"))
        .map_err(|error| format!("the C library isn't where rustc looks for it: {error:#}"))?;
    Ok(Toolchain::Debian { version, linker })
}

/// rustc looks for the C library where rustup would have put it.
fn link_wasi_libc(libc: &Path, folder: &Path) -> Result<()> {
    for file in WASI_LIBC_FILES {
        let link = folder.join(file);
        if link.exists() {
            continue;
        }
        // A link to where the library once was.
        let _ = fs::remove_file(&link);
        fs::create_dir_all(folder).and_then(|()| symlink(libc.join(file), &link)).with_context(|| {
            format!("{} can't be made: call `cargo xtask guests` once as root", link.display())
        })?;
    }
    Ok(())
}

/// The newest `wasm-ld-N`, or what is called so without a number.
fn debian_linker() -> Option<PathBuf> {
    let programs = fs::read_dir("/usr/bin").ok()?.flatten().map(|program| program.path());
    let linkers =
        programs.filter_map(|path| Some((apt::llvm_version(path.file_name()?.to_str()?, "wasm-ld-")?, path)));
    let plain = PathBuf::from("/usr/bin/wasm-ld");
    linkers.max().map(|(_, path)| path).or_else(|| plain.exists().then_some(plain))
}

/// Whether it could be tried at all, and worked.
fn install_by_apt() -> bool {
    if !apt::can_install() {
        return false;
    }
    apt::update();
    let linkers = apt::versions(apt::LLD).into_iter().map(|version| format!("{}{version}", apt::LLD));
    apt::install(&DEBIAN_PACKAGES) && linkers.take(2).any(|lld| apt::install(&[lld]))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "{} failed", command.get_program().display());
    Ok(String::from_utf8(output.stdout)?.trim().to_string())
}
