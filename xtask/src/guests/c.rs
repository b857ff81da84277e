//! Guests in C: clang with a C library for WASI makes a core module, of the sources and of committed bindings.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::component::Kind;
use super::{apt, replace};

/// The worlds of `wit/world.wit`, each of `src/WORLD.c` and its bindings.
const WORLDS: [&str; 2] = ["web", "worker"];

pub(super) const OUTPUTS: [&str; 2] = ["web.wasm", "worker.wasm"];

/// Where Debian's `wasi-libc` is.
const DEBIAN_LIBC: &str = "/usr/lib/wasm32-wasi/libc.a";

/// Builds a folder with `src/WORLD.c` and `bindings/WORLD.c` for each of [`WORLDS`].
pub(super) fn build(folder: &Path, target_folder: &Path) -> Result<()> {
    let clang = find_clang()?;
    for (world, output) in WORLDS.into_iter().zip(OUTPUTS) {
        let module = target_folder.join(format!("c-{output}"));
        let status = Command::new(&clang)
            .args(["--target=wasm32-wasi", "-mexec-model=reactor", "-O2", "-flto"])
            .args(["-Wall", "-Wextra", "-Werror", "-Wl,--strip-debug", "-Ibindings", "-o"])
            .arg(&module)
            .arg(format!("src/{world}.c"))
            .arg(format!("bindings/{world}.c"))
            .arg(format!("bindings/{world}_component_type.o"))
            .current_dir(folder)
            .status()
            .with_context(|| format!("{} could not be started", clang.display()))?;
        ensure!(status.success(), "{} could not build {world}", clang.display());
        let module = fs::read(&module).with_context(|| module.display().to_string())?;
        let component =
            Kind::Library.encode(&module).with_context(|| format!("{world} is not a component"))?;
        replace(&folder.join(output), &component)?;
    }
    Ok(())
}

/// The wasi-sdk that is named, or Debian's newest clang with all that it needs.
fn find_clang() -> Result<PathBuf> {
    if let Some(sdk) = env::var_os("WASI_SDK_PATH") {
        return Ok(PathBuf::from(sdk).join("bin/clang"));
    }
    if let Some(clang) = debian_clang() {
        return Ok(clang);
    }
    if apt::can_install() {
        apt::update()?;
        if let Some(packages) = packages()
            && apt::install(&packages)?
            && let Some(clang) = debian_clang()
        {
            return Ok(clang);
        }
    }
    bail!(
        "no C compiler here builds for WebAssembly. Set WASI_SDK_PATH to where a wasi-sdk is unpacked; or on Debian, as \
         root:\n\n    apt-get update\n    apt-get install --no-install-recommends {}",
        packages().map_or_else(
            || "clang lld libclang-rt-dev-wasm32 wasi-libc".to_string(),
            |packages| packages.join(" ")
        ),
    )
}

fn debian_clang() -> Option<PathBuf> {
    let programs = fs::read_dir("/usr/bin").ok()?.flatten().map(|program| program.path());
    let complete = |version: &u32| {
        let builtins =
            format!("/usr/lib/llvm-{version}/lib/clang/{version}/lib/wasi/libclang_rt.builtins-wasm32.a");
        let linker = format!("/usr/bin/wasm-ld-{version}");
        [builtins.as_str(), linker.as_str(), DEBIAN_LIBC].iter().all(|file| Path::new(file).exists())
    };
    let versions = programs.filter_map(|path| apt::llvm_version(path.file_name()?.to_str()?, "clang-"));
    let newest = versions.filter(complete).max()?;
    Some(PathBuf::from(format!("/usr/bin/clang-{newest}")))
}

/// All of one version of LLVM: that of the linker which Rust guests use, if there is one.
fn packages() -> Option<[String; 4]> {
    let version = apt::llvm_version(&apt::newest_lld()?, "lld-")?;
    Some([
        format!("clang-{version}"),
        format!("lld-{version}"),
        format!("libclang-rt-{version}-dev-wasm32"),
        "wasi-libc".to_string(),
    ])
}
