//! Which directories a formation may grant.
//!
//! A granted directory must be there. It must not hold a file that the host itself works from: a guest that could read
//! or replace one would have more than its grants at the next start. Paths are compared as the system resolves them,
//! and the links on the way to a file count as the file does, since a link that is replaced leads elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use wasmhost_config::{DirGrant, Formation, ProcessType, StoreUrl};

use super::{PlanProblem, Surroundings};
use crate::services::GrantedBy;
use crate::way::{Entry, Way};

/// Files that one message names.
const NAMED_MAX: usize = 4;

/// A file or a directory that the host works from.
struct Guarded {
    what: &'static str,
    path: PathBuf,
    /// Every place whose replacement would replace it: the links on the way, and where they lead.
    places: Vec<PathBuf>,
    /// Whether reading it is harmless.
    readable: bool,
}

/// Everything that is wrong with the granted directories of these types.
pub(super) fn problems(formation: &Formation, surroundings: &Surroundings<'_>) -> Vec<PlanProblem> {
    let guarded = guarded(formation, surroundings);
    let grants = match surroundings.granted_by {
        GrantedBy::Formation => "dirs grants",
        GrantedBy::Flags => "--dir grants",
    };
    let mut problems = Vec::new();
    for process in &formation.processes {
        for dir in &process.grants.dirs {
            let message = missing(dir)
                .or_else(|| of_processes(dir, grants))
                .or_else(|| holds_guarded(dir, &guarded, grants));
            problems.extend(message.map(|message| problem(process, message)));
        }
    }
    problems
}

fn problem(process: &ProcessType, message: String) -> PlanProblem {
    PlanProblem { process: process.name.clone(), message, in_component: false }
}

fn missing(dir: &DirGrant) -> Option<String> {
    let found = match dir.host.is_dir() {
        true => return None,
        false if dir.host.exists() => "is not a directory",
        false => "doesn't exist",
    };
    Some(format!("dirs grants {}, which {found}: create it, or correct `host`", dir.host.display()))
}

/// /proc, wherever it is mounted, has the host's own variables and memory, and those of its user's other programs. One that
/// is mounted below a granted directory is refused as a guest opens a file there.
#[cfg(target_os = "linux")]
fn of_processes(dir: &DirGrant, grants: &str) -> Option<String> {
    let found = rustix::fs::statfs(&dir.host).ok()?;
    (found.f_type == rustix::fs::PROC_SUPER_MAGIC).then(|| {
        format!(
            "{grants} {}, where the system shows its processes, with the variables and the memory of the host itself: no instance may reach that; grant a directory of files",
            dir.host.display()
        )
    })
}

#[cfg(not(target_os = "linux"))]
fn of_processes(_dir: &DirGrant, _grants: &str) -> Option<String> {
    None
}

fn guarded(formation: &Formation, surroundings: &Surroundings<'_>) -> Vec<Guarded> {
    let mut guarded = Vec::new();
    let mut add = |what, path: &Path, readable| {
        guarded.push(Guarded { what, path: path.to_owned(), places: places(path), readable });
    };
    if let Some(cache) = surroundings.cache {
        // Compiled code runs outside of the sandbox.
        add("the cache of compiled components", cache, surroundings.granted_by == GrantedBy::Flags);
    }
    // An app that is run by flags has none of the others: its component is read once, and its state is a temporary one.
    if surroundings.granted_by == GrantedBy::Flags {
        return guarded;
    }
    add("the state directory", &formation.state_dir, false);
    add("the formation", &formation.file, false);
    add("the file of variables", &formation.file.with_file_name(".env"), false);
    if let StoreUrl::Sqlite(store) = &formation.store
        && !store.starts_with(&formation.state_dir)
    {
        add("the store", store, false);
    }
    for process in &formation.processes {
        add("the component", &process.component, true);
    }
    for secret in &formation.secret_files {
        add("the secret", secret, true);
    }
    if let Some(admin) = &formation.admin {
        // Its reader has the host.
        add("the token of the admin API", &admin.token, false);
    }
    for files in formation.certificates() {
        add("the certificate", &files.cert, true);
        add("the key", &files.key, true);
    }
    guarded
}

/// Why this directory can't be granted, if it holds one of these.
fn holds_guarded(dir: &DirGrant, guarded: &[Guarded], grants: &str) -> Option<String> {
    let directory = Directory::find(&dir.host)?;
    let held = guarded.iter().filter(|guarded| dir.writable || !guarded.readable);
    let held: Vec<_> =
        held.filter(|guarded| guarded.places.iter().any(|place| directory.holds(place))).collect();
    if held.is_empty() {
        return None;
    }
    let mut named: Vec<_> = held
        .iter()
        .take(NAMED_MAX)
        .map(|guarded| format!("{} {}", guarded.what, guarded.path.display()))
        .collect();
    if held.len() > NAMED_MAX {
        named.push(format!("{} more", held.len() - NAMED_MAX));
    }
    let access = if dir.writable { " to write in" } else { "" };
    let or_read = if held.iter().all(|guarded| guarded.readable) { ", or grant it read-only" } else { "" };
    Some(format!(
        "{grants} {}{access}, and it holds {}: the host itself works from that, and no instance may reach it; grant a directory that holds only the type's own files{or_read}",
        dir.host.display(),
        listed(&named)
    ))
}

/// `a`, `a and b`, `a, b and c`
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A granted directory, as the system knows it.
struct Directory {
    path: PathBuf,
    identity: (u64, u64),
}

impl Directory {
    fn find(path: &Path) -> Option<Directory> {
        let path = fs::canonicalize(path).ok()?;
        let identity = identity(&path)?;
        Some(Directory { path, identity })
    }

    /// Whether a path that is resolved lies in it. A directory that is mounted in two places is one.
    fn holds(&self, place: &Path) -> bool {
        place.starts_with(&self.path) || place.ancestors().any(|above| identity(above) == Some(self.identity))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Each link on the way to a path, where it lies, and last where they lead. The file itself need not be there.
fn places(path: &Path) -> Vec<PathBuf> {
    let way = Way::to(path);
    let links = way.entries.iter().filter(|entry| entry.is_link).map(Entry::path);
    links.chain([way.end]).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            let path = std::env::temp_dir().join(format!("wasmhost-dirs-{:x}", fastrand::u64(..)));
            fs::create_dir_all(path.join("app/data")).unwrap();
            fs::create_dir_all(path.join("releases/1")).unwrap();
            Folder(fs::canonicalize(path).unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn holds(&self, directory: &str, file: &str) -> bool {
            let directory = Directory::find(&self.path(directory)).unwrap();
            places(&self.path(file)).iter().any(|place| directory.holds(place))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_directory_holds_what_is_in_it_and_below_it() {
        let folder = Folder::new();
        assert!(folder.holds("app", "app/web.wasm") && folder.holds("app", "app/a/b/web.wasm"));
        assert!(folder.holds("app/data", "app/data"));
        assert!(folder.holds("app/data/..", "app/web.wasm") && folder.holds("app", "app/data/../web.wasm"));
        assert!(!folder.holds("app/data", "app/web.wasm") && !folder.holds("app/data", "app/database"));
    }

    #[test]
    fn a_link_and_the_place_that_it_leads_to_both_count() {
        let folder = Folder::new();
        symlink("../releases/1", folder.path("app/current")).unwrap();
        symlink(folder.path("app"), folder.path("elsewhere")).unwrap();
        let file = "app/current/web.wasm";
        assert!(
            folder.holds("app", file) && folder.holds("releases", file) && folder.holds("app/current", file)
        );
        assert!(folder.holds("elsewhere", file) && folder.holds("elsewhere", "app/web.wasm"));
        assert!(folder.holds("app", "elsewhere/web.wasm"));
        assert!(!folder.holds("app/data", file));
        symlink("loop", folder.path("loop")).unwrap();
        assert!(!folder.holds("app", "loop/web.wasm"));
    }
}
