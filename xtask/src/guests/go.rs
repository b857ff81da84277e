//! Guests in Go: the toolchain on the path, or the one that PyPI carries, makes a core module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::component::{Kind, embed_world};
use super::{python, replace};

pub(super) const OUTPUTS: [&str; 1] = ["web.wasm"];

/// Go has exports of WebAssembly (`//go:wasmexport`) from 1.24 on; the module wants what `go.mod` says.
const GO_MINOR_MIN: u32 = 24;

/// Builds a folder with a Go module whose package `main` exports what `wit/world.wit` says.
pub(super) fn build(folder: &Path, target_folder: &Path) -> Result<()> {
    let go = match is_new_enough(Path::new("go")) {
        true => PathBuf::from("go"),
        false => python::environment(folder, target_folder, "go")?.join("go"),
    };
    let module = target_folder.join("go-web.wasm");
    let status = Command::new(go)
        .args(["build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o"])
        .arg(&module)
        .arg(".")
        .current_dir(folder)
        .envs([
            ("GOOS", "wasip1"),
            ("GOARCH", "wasm"),
            ("GOTOOLCHAIN", "local"),
            ("GOFLAGS", "-mod=readonly"),
        ])
        .env("GOCACHE", target_folder.join("go-cache"))
        .status()
        .context("go could not be started")?;
    ensure!(status.success(), "go could not build {}", folder.display());

    let mut module = fs::read(&module).with_context(|| module.display().to_string())?;
    embed_world(&mut module, &folder.join("wit"), "web")?;
    replace(&folder.join(OUTPUTS[0]), &Kind::Library.encode(&module)?)
}

/// `go version go1.27.3 linux/amd64`
fn is_new_enough(go: &Path) -> bool {
    let Ok(output) = Command::new(go).arg("version").stderr(Stdio::null()).output() else { return false };
    let version = String::from_utf8_lossy(&output.stdout);
    let minor = version.split("go1.").nth(1).and_then(|rest| rest.split(['.', ' ']).next()?.parse().ok());
    minor.is_some_and(|minor: u32| minor >= GO_MINOR_MIN)
}
