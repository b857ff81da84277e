//! The sources of builds: every file in the formation's folder, as far as it isn't the formation, the work of a build, or
//! something that `.gitignore` leaves out.
//!
//! They are compared by what is in them, and not by their times: a checkout, or an editor that writes the same again, is
//! no change.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ignore::{DirEntry, WalkBuilder};
use sha2::{Digest, Sha256};
use wasmhost_config::Formation;

/// Folders that tools fill, whether a `.gitignore` names them or not.
const OF_TOOLS: [&str; 6] = [".git", ".venv", "__pycache__", "node_modules", "target", "venv"];

/// Files and folders that are looked at. A folder with more than these isn't a project's.
const ENTRIES_MAX: usize = 50_000;

/// Larger files are told apart by their length and times.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Where the sources are, and which files in there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    folder: PathBuf,
    left_out: BTreeSet<PathBuf>,
}

/// The sources at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    files: BTreeMap<PathBuf, [u8; 32]>,
    /// The folders that they are in, empty ones too.
    pub(crate) folders: BTreeSet<PathBuf>,
}

impl Place {
    pub(crate) fn of(formation: &Formation) -> Place {
        let folder = formation.file.parent().unwrap_or(Path::new("/")).to_owned();
        let mut left_out = BTreeSet::from([
            formation.file.clone(),
            formation.file.with_file_name(".env"),
            formation.state_dir.clone(),
        ]);
        for process in &formation.processes {
            left_out.insert(process.component.clone());
            // Guests read them as they are, or write there themselves.
            let granted = process.grants.dirs.iter().map(|dir| &dir.host);
            left_out.extend(granted.filter(|dir| !folder.starts_with(dir)).cloned());
        }
        Place { folder, left_out }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Looks at all of them. A file that goes away meanwhile isn't there.
    pub(crate) fn look(&self) -> std::io::Result<Sources> {
        let mut sources = Sources::default();
        let left_out = self.left_out.clone();
        let walk = WalkBuilder::new(&self.folder)
            .hidden(false)
            .require_git(false)
            .filter_entry(move |entry| entry.depth() == 0 || is_source(entry, &left_out))
            .build();
        for (seen, entry) in walk.enumerate() {
            if seen >= ENTRIES_MAX {
                return Err(std::io::Error::other(format!(
                    "there are more than {ENTRIES_MAX} files below {}: a `.gitignore` there says which are no sources",
                    self.folder.display()
                )));
            }
            let Ok(entry) = entry else { continue };
            let Some(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                sources.folders.insert(entry.into_path());
            } else if (kind.is_file() || kind.is_symlink())
                && let Ok(mark) = mark(entry.path())
            {
                sources.files.insert(entry.into_path(), mark);
            }
        }
        Ok(sources)
    }
}

impl Sources {
    /// One digest of all of them.
    pub(crate) fn digest(&self) -> String {
        let mut all = Sha256::new();
        for (path, mark) in &self.files {
            let path = path.as_os_str().as_encoded_bytes();
            all.update((path.len() as u64).to_le_bytes());
            all.update(path);
            all.update(mark);
        }
        hex(&all.finalize())
    }

    /// These, which a build began with, and the files that weren't there before it: they are its own, such as a first lock
    /// file. A file that changed while it ran is a person's change, which the build may have missed.
    pub(crate) fn with_new(mut self, after: &Sources) -> Sources {
        self.files.retain(|path, _| after.files.contains_key(path));
        for (path, mark) in &after.files {
            self.files.entry(path.clone()).or_insert(*mark);
        }
        self
    }
}

fn is_source(entry: &DirEntry, left_out: &BTreeSet<PathBuf>) -> bool {
    let of_tools = || OF_TOOLS.iter().any(|name| entry.file_name() == *name);
    // A target folder may be a link to one that is elsewhere.
    !left_out.contains(entry.path()) && !of_tools() && !is_state(entry) && !is_of_editor(entry)
}

/// Files by which editors keep what isn't saved, lock, and try whether they may write: vim, Emacs, Kate, JetBrains', macOS.
fn is_of_editor(entry: &DirEntry) -> bool {
    let Some(name) = entry.file_name().to_str() else { return false };
    let is_swap = || {
        let ending = name.rsplit_once('.').filter(|(before, _)| before.starts_with('.'));
        ending.is_some_and(|(_, ending)| ending.len() == 3 && ending.starts_with("sw"))
    };
    name.ends_with('~')
        || name.starts_with(".#")
        || (name.starts_with('#') && name.ends_with('#'))
        || name.ends_with(".kate-swp")
        || name.contains("___jb_")
        || ["4913", ".DS_Store"].contains(&name)
        || is_swap()
}

/// State directories of other formations in the folder.
fn is_state(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".wasmhost")
}

/// The traits that tell a file from another one in its place.
fn mark(path: &Path) -> std::io::Result<[u8; 32]> {
    let about = fs::metadata(path)?;
    if !about.is_file() || is_own_output(&about) {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut digest = Sha256::new();
    // A script that became one is another.
    digest.update((about.mode() & 0o111).to_le_bytes());
    if about.len() > READ_BYTES_MAX {
        digest.update(format!("{} {} {}", about.len(), about.mtime(), about.mtime_nsec()));
    } else {
        let mut bytes = Vec::new();
        File::open(path)?.take(READ_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        digest.update(&bytes);
    }
    Ok(digest.finalize().into())
}

/// Whether this program itself writes to it (`wasmhost dev > dev.log`): each line would be a change.
fn is_own_output(about: &fs::Metadata) -> bool {
    let streams = [rustix::fs::fstat(std::io::stdout()), rustix::fs::fstat(std::io::stderr())];
    streams.into_iter().flatten().any(|stream| (stream.st_dev, stream.st_ino) == (about.dev(), about.ino()))
}

/// The digest of a component's file; none where it isn't there.
pub(crate) fn file_digest(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut digest = Sha256::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        match file.read(&mut bytes).ok()? {
            0 => return Some(hex(&digest.finalize())),
            read => digest.update(&bytes[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, file: &str, text: &str) {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn place(folder: &Path) -> Place {
        let text = "[process.web]\ncomponent = \"web.wasm\"\nbuild = \"make\"\ndirs = [{ host = \"data\", guest = \"/d\", access = \"write\" }]\n";
        write(folder, "formation.toml", text);
        Place::of(&wasmhost_config::load(&folder.join("formation.toml")).unwrap())
    }

    fn names(sources: &Sources, folder: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        sources.files.keys().map(name).collect()
    }

    #[test]
    fn what_a_build_or_a_guest_writes_is_no_source() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let place = place(folder);
        for file in [
            "src/lib.rs",
            "sub/.gitignore",
            "sub/kept.txt",
            "sub/made/out.txt",
            ".cargo/config.toml",
            "target/debug/x",
            "node_modules/a/index.js",
            ".git/HEAD",
            ".env",
            "web.wasm",
            "data/1.txt",
            ".wasmhost/store.db",
            "debug.log",
            "src/.lib.rs.swp",
            "src/lib.rs~",
            "src/.#lib.rs",
            "src/4913",
        ] {
            write(folder, file, "x");
        }
        write(folder, ".gitignore", "*.log\n");
        write(folder, "sub/.gitignore", "made/\n");
        let sources = place.look().unwrap();
        let expected = [".cargo/config.toml", ".gitignore", "src/lib.rs", "sub/.gitignore", "sub/kept.txt"];
        assert_eq!(names(&sources, folder), expected);
        assert!(
            sources.folders.contains(&folder.join("src")) && !sources.folders.contains(&folder.join("data"))
        );
    }

    #[test]
    fn a_file_differs_by_what_is_in_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        write(folder.path(), "a.txt", "one");
        let first = place.look().unwrap();
        write(folder.path(), "a.txt", "one");
        assert_eq!(place.look().unwrap().digest(), first.digest());
        write(folder.path(), "a.txt", "two");
        assert_ne!(place.look().unwrap().digest(), first.digest());
        write(folder.path(), "a.txt", "one");
        fs::rename(folder.path().join("a.txt"), folder.path().join("b.txt")).unwrap();
        assert_ne!(place.look().unwrap().digest(), first.digest());
    }

    #[test]
    fn a_file_that_a_build_adds_is_its_own_and_one_that_changes_meanwhile_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        write(folder.path(), "a.txt", "one");
        let before = place.look().unwrap();
        write(folder.path(), "lock", "made");
        let after = place.look().unwrap();
        assert_eq!(before.clone().with_new(&after).digest(), after.digest());
        write(folder.path(), "a.txt", "edited");
        let after = place.look().unwrap();
        assert_ne!(before.with_new(&after).digest(), after.digest());
    }
}
