//! Embeds the texts that `wasmhost new` writes: the templates, the Rust SDK with its interfaces, and those files of the
//! examples that a project takes along. `src/new/embedded.rs` is the other end.

use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use toml::{Table, Value};

/// Files and folders of the repository. `crates/guest/Cargo.toml` is written anew, since it takes values from the workspace.
const EMBEDDED: [&str; 20] = [
    "LICENSE",
    "crates/cli/templates",
    "crates/guest/src",
    "examples/c/bindings/web.c",
    "examples/c/bindings/web.h",
    "examples/c/bindings/web_component_type.o",
    "examples/go/wasihttp",
    "examples/hello/Cargo.lock",
    "examples/python/requirements.txt",
    "examples/python/wasi_http.py",
    "examples/python/wasmhost_job.py",
    "examples/typescript/package-lock.json",
    "examples/typescript/src/wasi-http-types.d.ts",
    "examples/typescript/src/wasi-http.ts",
    "examples/typescript/src/wasmhost-job.ts",
    "examples/typescript/src/wasmhost-queue.d.ts",
    "examples/typescript/tsconfig.json",
    "wit/clock",
    "wit/deps",
    "wit/job",
];

const SDK_MANIFEST: &str = "crates/guest/Cargo.toml";

fn main() -> Result<(), Box<dyn Error>> {
    let repository = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    for path in EMBEDDED {
        println!("cargo::rerun-if-changed={}", repository.join(path).display());
        collect(&repository, path.to_owned(), &mut files)?;
    }
    files.sort();
    let mut table = "pub(super) static FILES: &[(&str, &[u8])] = &[\n".to_owned();
    for file in files {
        writeln!(table, "    ({file:?}, include_bytes!({:?})),", repository.join(&file))?;
    }
    let manifest = out.join("guest-Cargo.toml");
    fs::write(&manifest, sdk_manifest(&repository)?)?;
    writeln!(table, "    ({SDK_MANIFEST:?}, include_bytes!({manifest:?})),\n];")?;
    fs::write(out.join("embedded.rs"), table)?;
    Ok(())
}

/// The files below a path, links as what they lead to.
fn collect(repository: &Path, path: String, files: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    let whole = repository.join(&path);
    if !fs::metadata(&whole).map_err(|err| format!("{path}: {err}"))?.is_dir() {
        files.push(path);
        return Ok(());
    }
    for entry in fs::read_dir(whole)? {
        let name = entry?.file_name();
        collect(repository, format!("{path}/{}", name.to_string_lossy()), files)?;
    }
    Ok(())
}

/// The SDK's manifest as it is outside of the workspace, which `cargo package` would write in the same way.
fn sdk_manifest(repository: &Path) -> Result<String, Box<dyn Error>> {
    let read = |path: &str| -> Result<Table, Box<dyn Error>> {
        println!("cargo::rerun-if-changed={}", repository.join(path).display());
        Ok(fs::read_to_string(repository.join(path))?.parse()?)
    };
    let root = read("Cargo.toml")?;
    let workspace = root["workspace"].as_table().ok_or("the workspace is no table")?;
    let mut sdk = read(SDK_MANIFEST)?;
    // Tests and lints are the repository's.
    sdk.retain(|key, _| !matches!(key, "lints" | "dev-dependencies" | "test" | "example"));
    for (table, of_workspace) in [("package", "package"), ("dependencies", "dependencies")] {
        let Some(Value::Table(entries)) = sdk.get_mut(table) else { continue };
        for (name, value) in entries {
            inherit(value, &workspace[of_workspace], name)?;
        }
    }
    Ok(toml::to_string(&sdk)?)
}

/// Puts the workspace's value in the place of `{ workspace = true }`.
fn inherit(value: &mut Value, workspace: &Value, name: &str) -> Result<(), Box<dyn Error>> {
    let Value::Table(own) = value else { return Ok(()) };
    if own.remove("workspace") != Some(Value::Boolean(true)) {
        return Ok(());
    }
    let shared = workspace.get(name).ok_or_else(|| format!("the workspace has no {name}"))?;
    *value = match (shared, own.is_empty()) {
        (shared, true) => shared.clone(),
        (Value::Table(shared), false) => {
            Value::Table(shared.clone().into_iter().chain(std::mem::take(own)).collect())
        }
        (version, false) => {
            let version = ("version".to_owned(), version.clone());
            Value::Table(std::iter::once(version).chain(std::mem::take(own)).collect())
        }
    };
    Ok(())
}
