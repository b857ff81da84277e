//! Interfaces are copied into each example, so that an example builds wherever it is copied to. The copies must be those
//! in `wit`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where all are, by the folder of the interface they come from.
const ORIGINALS: &str = "wit/deps";

/// The folders that hold copies of [`ORIGINALS`].
const COPIES: [&str; 4] = [
    "examples/c/wit/deps",
    "examples/go/wit/deps",
    "examples/python/wit/deps",
    "examples/typescript/wit/deps",
];

/// Compares each copy with its original.
pub(crate) fn check(repository: &Path) -> Result<()> {
    let originals = files(&repository.join(ORIGINALS))?;
    for copies in COPIES {
        ensure!(
            files(&repository.join(copies))? == originals,
            "{copies} differs from {ORIGINALS}: `rm -r {copies} && cp -rL {ORIGINALS} {copies}` mends it"
        );
    }
    Ok(())
}

/// The files below a folder with their contents, links as what they lead to.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    collect(folder, Path::new(""), &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, within: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = within.join(path.file_name().unwrap_or(OsStr::new("")));
        match fs::metadata(&path).with_context(|| path.display().to_string())?.is_dir() {
            true => collect(&path, &name, found)?,
            false => {
                found.insert(name, fs::read(&path).with_context(|| path.display().to_string())?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_differs_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: String, text: &str| {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        for place in COPIES.into_iter().chain([ORIGINALS]) {
            write(format!("{place}/io.wit"), "package a;");
            write(format!("{place}/job/job.wit"), "package b;");
        }
        check(folder.path()).unwrap();
        write(format!("{}/job/job.wit", COPIES[2]), "package c;");
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("examples/python/wit/deps differs from wit/deps: `rm -r"), "{error}");
        write(format!("{}/job/job.wit", COPIES[2]), "package b;");
        write(format!("{ORIGINALS}/new.wit"), "package d;");
        assert!(check(folder.path()).unwrap_err().to_string().starts_with("examples/c/"));
    }
}
