//! The sources of guests, as a hash that tells whether anything changed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;

/// The endings of sources. All other files in a folder of guests are documentation, or were made there.
const SOURCES: [&str; 14] =
    ["rs", "toml", "lock", "wit", "c", "h", "o", "ts", "json", "py", "txt", "go", "s", "mod"];

/// Where tools keep what they make, if someone calls them by hand.
pub(super) const MADE: [&str; 4] = ["target", "node_modules", "__pycache__", ".wasmhost"];

/// The hash of the sources in these folders of the repository, and of how components are made of them.
pub(super) fn hash_folders(repository: &Path, folders: &[&str], recipe: &str) -> Result<String> {
    let mut files = BTreeSet::new();
    for folder in folders {
        collect(&repository.join(folder), &mut files)?;
    }
    let mut hash = Sha256::new();
    hash.update(recipe);
    hash.update(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER);
    hash_into(hash, repository, files)
}

/// The hash of these files, which must be there.
pub(super) fn hash_files(repository: &Path, files: impl IntoIterator<Item = PathBuf>) -> Result<String> {
    hash_into(Sha256::new(), repository, files)
}

/// With the files' names and lengths, so that no two sets of files look the same.
fn hash_into(
    mut hash: Sha256,
    repository: &Path,
    files: impl IntoIterator<Item = PathBuf>,
) -> Result<String> {
    for file in files {
        let contents = fs::read(&file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(repository).unwrap_or(&file);
        hash.update(format!("{}:{}\n", name.display(), contents.len()));
        hash.update(contents);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !MADE.map(OsStr::new).contains(&entry.file_name().as_os_str()) {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|kind| SOURCES.map(OsStr::new).contains(&kind)) {
            files.insert(path);
        }
    }
    Ok(())
}
