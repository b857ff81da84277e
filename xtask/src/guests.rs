//! `cargo xtask guests`: from the guests' sources to the components that the examples and the tests run.
//!
//! Cargo makes a core module of each guest, by whichever [toolchain] this machine has; what makes a component of
//! it is always the same, so that a component doesn't depend on who built it.

mod toolchain;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use toolchain::Toolchain;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::ComponentEncoder;

/// A cargo workspace of guests, outside the host's.
struct Workspace {
    /// Its folder in the repository.
    folder: &'static str,
    guests: &'static [Guest],
}

struct Guest {
    /// What cargo calls the module it makes.
    module: &'static str,
    kind: Kind,
    /// Where the component goes, in the workspace's folder.
    output: &'static str,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A component that exports handlers.
    Library,
    /// A component that exports `wasi:cli/run`.
    Program,
    /// The core module as it is: a WASI 0.1 command.
    Module,
}

use Kind::{Library, Module, Program};

const WORKSPACES: &[Workspace] = &[
    Workspace {
        folder: "examples/hello",
        guests: &[Guest { module: "hello.wasm", kind: Library, output: "hello.wasm" }],
    },
    Workspace {
        folder: "examples/shop",
        guests: &[
            Guest { module: "shop_web.wasm", kind: Library, output: "web.wasm" },
            Guest { module: "shop_worker.wasm", kind: Library, output: "worker.wasm" },
            Guest { module: "shop_clock.wasm", kind: Library, output: "clock.wasm" },
            Guest { module: "shop-prepare.wasm", kind: Program, output: "prepare.wasm" },
        ],
    },
    Workspace {
        folder: "tests/guests",
        guests: &[
            Guest { module: "web_test.wasm", kind: Library, output: "out/web-test.wasm" },
            Guest { module: "job_test.wasm", kind: Library, output: "out/job-test.wasm" },
            Guest { module: "tick_test.wasm", kind: Library, output: "out/tick-test.wasm" },
            Guest { module: "cmd-test.wasm", kind: Program, output: "out/cmd-test.wasm" },
            Guest { module: "cmd-test.wasm", kind: Module, output: "out/cmd-test-core.wasm" },
        ],
    },
    Workspace {
        folder: "bench/guests",
        guests: &[
            Guest { module: "bench_web.wasm", kind: Library, output: "out/web.wasm" },
            Guest { module: "bench_web_async.wasm", kind: Library, output: "out/web-async.wasm" },
        ],
    },
];

/// Guests that are easier said in text, each of which becomes `tests/guests/out/NAME.wasm`.
const TEXT_GUESTS: &str = "tests/guests/wat";

/// The cargo workspaces of guests, by their folders in the repository.
pub(crate) fn folders() -> impl Iterator<Item = &'static str> {
    WORKSPACES.iter().map(|workspace| workspace.folder)
}

/// Builds the guests whose sources changed since they were last built; all of them with `force`.
pub(crate) fn build(repository: &Path, force: bool) -> Result<()> {
    let target_folder = target_folder(repository);
    fs::create_dir_all(&target_folder).with_context(|| target_folder.display().to_string())?;
    let mut stale = Vec::new();
    for workspace in WORKSPACES {
        let stamp = target_folder.join(workspace.folder.replace('/', "-")).with_extension("stamp");
        let sources = workspace.hash_sources(repository)?;
        if force || !workspace.is_fresh(repository, &stamp, &sources) {
            stale.push((workspace, stamp, sources));
        }
    }
    // Looked for only where there is something to build: a checkout that is built needs none.
    if !stale.is_empty() {
        let toolchain = Toolchain::find()?;
        for (workspace, stamp, sources) in stale {
            workspace.build(repository, &toolchain, &target_folder)?;
            fs::write(stamp, sources + &workspace.hash_outputs(repository)?)?;
        }
    }
    assemble_text_guests(repository)
}

/// The guests' own, apart from the host's: another compiler may fill it.
fn target_folder(repository: &Path) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository.join("target"), PathBuf::from);
    // Relative to where cargo was called, as cargo means it.
    env::current_dir().unwrap_or_default().join(target).join("guests")
}

impl Workspace {
    fn build(&self, repository: &Path, toolchain: &Toolchain, target_folder: &Path) -> Result<()> {
        println!("building {}", self.folder);
        let status = toolchain
            .cargo_build()
            .current_dir(repository.join(self.folder))
            .args(["--locked", "--target-dir"])
            .arg(target_folder)
            .status()
            .context("cargo could not be started")?;
        ensure!(status.success(), "cargo could not build {}", self.folder);

        for guest in self.guests {
            let module = target_folder.join(toolchain::TARGET).join("release").join(guest.module);
            let module = fs::read(&module).with_context(|| module.display().to_string())?;
            let output = repository.join(self.folder).join(guest.output);
            let component =
                guest.kind.encode(module).with_context(|| format!("{} is not a component", guest.module))?;
            replace(&output, &component)?;
            println!("  {}/{} ({} KB)", self.folder, guest.output, component.len() / 1000);
        }
        Ok(())
    }

    /// The stamp holds a hash of the sources and one of what was made of them.
    fn is_fresh(&self, repository: &Path, stamp: &Path, sources: &str) -> bool {
        let Ok(stamp) = fs::read_to_string(stamp) else { return false };
        let Ok(outputs) = self.hash_outputs(repository) else { return false };
        stamp == format!("{sources}{outputs}")
    }

    /// Of all that the components depend on: their own sources, the SDK's, and how they are made.
    fn hash_sources(&self, repository: &Path) -> Result<String> {
        let mut files = BTreeSet::new();
        for folder in [self.folder, "crates/guest", "wit"] {
            collect_sources(&repository.join(folder), &mut files)?;
        }
        let mut hash = Sha256::new();
        hash.update(include_bytes!("guests.rs"));
        hash.update(include_bytes!("guests/toolchain.rs"));
        hash.update(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER);
        for file in files {
            hash_file(&mut hash, repository, &file)?;
        }
        Ok(hex(hash))
    }

    fn hash_outputs(&self, repository: &Path) -> Result<String> {
        let mut hash = Sha256::new();
        for guest in self.guests {
            hash_file(&mut hash, repository, &repository.join(self.folder).join(guest.output))?;
        }
        Ok(hex(hash))
    }
}

impl Kind {
    fn encode(self, module: Vec<u8>) -> Result<Vec<u8>> {
        let adapter = match self {
            Self::Library => WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            Self::Program => WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
            Self::Module => return Ok(module),
        };
        ComponentEncoder::default()
            .module(&module)?
            .validate(true)
            .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
            .encode()
    }
}

/// As quick as it is to see whether they changed, so they are made each time.
fn assemble_text_guests(repository: &Path) -> Result<()> {
    for source in fs::read_dir(repository.join(TEXT_GUESTS)).context(TEXT_GUESTS)? {
        let source = source?.path();
        if source.extension() != Some(OsStr::new("wat")) {
            continue;
        }
        let name = source.with_extension("wasm");
        let name = name.file_name().unwrap_or_default();
        let binary = wat::parse_file(&source)?;
        let output = repository.join("tests/guests/out").join(name);
        if fs::read(&output).ok().as_ref() != Some(&binary) {
            replace(&output, &binary)?;
        }
    }
    Ok(())
}

/// Writes a file whole or not at all: a host that is running may just be loading it.
fn replace(file: &Path, contents: &[u8]) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = file.with_extension(format!("{}.new", process::id()));
    fs::write(&new, contents).with_context(|| new.display().to_string())?;
    fs::rename(&new, file).with_context(|| file.display().to_string())
}

fn collect_sources(folder: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            // Where someone ran cargo by hand.
            if entry.file_name() != "target" {
                collect_sources(&path, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|kind| ["rs", "toml", "lock", "wit"].map(OsStr::new).contains(&kind))
        {
            files.insert(path);
        }
    }
    Ok(())
}

/// With its name and length, so that no two sets of files look the same.
fn hash_file(hash: &mut Sha256, repository: &Path, file: &Path) -> Result<()> {
    let contents = fs::read(file).with_context(|| file.display().to_string())?;
    let name = file.strip_prefix(repository).unwrap_or(file);
    hash.update(format!("{}:{}\n", name.display(), contents.len()));
    hash.update(contents);
    Ok(())
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
