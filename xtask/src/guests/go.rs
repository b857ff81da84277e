//! Guests in Go: the toolchain on the path, or the one that PyPI carries, makes core modules. One is made a component;
//! the other is a program of WASI 0.1, which runs as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::component::{Kind, embed_world};
use super::tools::{Found, Missing, Version};
use super::{python, replace};

pub(super) const OUTPUTS: [&str; 2] = ["web.wasm", "worker.wasm"];

/// Go has exports of WebAssembly (`//go:wasmexport`) from this version on; the module wants what `go.mod` says.
const GO_MIN: Version = Version(1, 24);

/// Builds a folder with a Go module whose package `main` exports what `wit/world.wit` says, and whose package `worker` is
/// a program.
pub(super) fn build(folder: &Path, target_folder: &Path) -> Result<()> {
    let go = find(folder, target_folder)?;
    let [web, worker] = OUTPUTS;
    let mut module = compile(&go, folder, target_folder, web, &["-buildmode=c-shared"], ".")?;
    embed_world(&mut module, &folder.join("wit"), "web")?;
    replace(&folder.join(web), &Kind::Library.encode(&module)?)?;
    let module = compile(&go, folder, target_folder, worker, &[], "./worker")?;
    replace(&folder.join(worker), &Kind::Module.encode(&module)?)
}

/// The core module of one package.
fn compile(
    go: &Path,
    folder: &Path,
    target_folder: &Path,
    output: &str,
    more: &[&str],
    package: &str,
) -> Result<Vec<u8>> {
    let module = target_folder.join(format!("go-{output}"));
    let status = Command::new(go)
        .args(["build", "-trimpath", "-ldflags=-s -w"])
        .args(more)
        .arg("-o")
        .arg(&module)
        .arg(package)
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
    ensure!(status.success(), "go could not build {package} in {}", folder.display());
    fs::read(&module).with_context(|| module.display().to_string())
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
