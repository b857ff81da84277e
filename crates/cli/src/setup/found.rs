//! The components in a folder and below it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Levels of folders that are looked at: `target/wasm32-wasip2/release` of a package in a folder of packages has five.
const DEPTH_MAX: usize = 6;

/// Entries of folders that are looked at, all together.
const ENTRIES_MAX: usize = 20_000;

/// Components that are taken.
pub(super) const COMPONENTS_MAX: usize = 100;

/// Folders in which there are the pieces of a build, or other people's packages.
const SKIPPED: [&str; 6] = ["node_modules", "deps", "build", "incremental", "__pycache__", "venv"];

/// The files that were found.
pub(super) struct Found {
    /// Paths from the folder on, in the order of their names.
    pub(super) files: Vec<PathBuf>,
    /// Whether a bound was reached before everything was looked at.
    pub(super) cut: bool,
}

/// Looks for files that are called `.wasm`. Hidden folders and links to folders aren't entered. Where a build has left one
/// name in several places, the one of a release build is taken, then the one that lies highest.
pub(super) fn find(folder: &Path) -> std::io::Result<Found> {
    let mut best: BTreeMap<String, PathBuf> = BTreeMap::new();
    let (mut entries, mut cut) = (0, false);
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((below, depth)) = folders.pop() {
        let read = std::fs::read_dir(folder.join(&below));
        let read = match read {
            Err(err) if depth == 0 => return Err(err),
            // One that may not be read has nothing for us.
            Err(_) => continue,
            Ok(read) => read,
        };
        for entry in read.flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                return Ok(Found { files: best.into_values().collect(), cut: true });
            }
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else { continue };
            let path = below.join(&name);
            if kind.is_dir() {
                match depth < DEPTH_MAX {
                    true if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) => {
                        folders.push((path, depth + 1))
                    }
                    true => {}
                    false => cut = true,
                }
            } else if name.ends_with(".wasm") {
                let known = best.get(&name);
                if known.is_none_or(|known| rank(&path) < rank(known)) {
                    best.insert(name, path);
                }
            }
        }
    }
    let mut files: Vec<_> = best.into_values().collect();
    cut |= files.len() > COMPONENTS_MAX;
    files.truncate(COMPONENTS_MAX);
    Ok(Found { files, cut })
}

/// Lower is better.
fn rank(path: &Path) -> (bool, usize, &Path) {
    let is_debug = path.components().any(|part| part.as_os_str() == "debug");
    (is_debug, path.components().count(), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_looked_into_and_their_pieces_are_not() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "web.wasm",
            "readme.md",
            "target/wasm32-wasip2/debug/worker.wasm",
            "target/wasm32-wasip2/release/worker.wasm",
            "target/wasm32-wasip2/release/deps/worker-1a2b.wasm",
            "sub/web.wasm",
            ".git/hidden.wasm",
            "node_modules/other/other.wasm",
            "1/2/3/4/5/6/seventh.wasm",
            "1/2/3/4/5/6/7/eighth.wasm",
        ] {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        let found = find(folder.path()).unwrap();
        let expected = ["1/2/3/4/5/6/seventh.wasm", "web.wasm", "target/wasm32-wasip2/release/worker.wasm"];
        assert_eq!(found.files, expected.map(PathBuf::from));
        assert!(found.cut, "the seventh level is not looked at");
        assert!(find(&folder.path().join("nowhere")).is_err());
    }
}
