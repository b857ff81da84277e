//! Granted directories that can't be told apart from what a guest may write. A path is looked up entry by entry, and
//! whoever may write a directory may replace its entries. So no path that the host follows at its next start may
//! depend on an entry of a directory that a guest may write.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use wasmhost_engine::{Directories, Identity};

use crate::way::Way;

/// A grant that lies inside a writable one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nested {
    /// The type that has it.
    pub(crate) process: String,
    pub(crate) directory: PathBuf,
    /// The type that may write what it lies in.
    pub(crate) writer: String,
    pub(crate) writable: PathBuf,
}

/// Every grant whose path depends on an entry of a directory that some type may write. Two grants of one directory
/// don't: whoever writes there can't replace the directory itself.
pub(crate) fn nested<'a>(types: impl Iterator<Item = (&'a str, &'a Directories)> + Clone) -> Vec<Nested> {
    let writable: Vec<_> = types
        .clone()
        .flat_map(|(writer, directories)| directories.iter().map(move |directory| (writer, directory)))
        .filter(|(_, directory)| directory.grant.writable)
        .collect();
    let mut found = Vec::new();
    for (process, directories) in types {
        for directory in directories.iter() {
            // One that can't be looked up now was just opened: it is being replaced this moment.
            let Ok(depends_on) = looked_up_in(&directory.grant.host) else { continue };
            let outer = writable.iter().find(|(_, outer)| depends_on.contains(&outer.identity));
            found.extend(outer.map(|(writer, outer)| Nested {
                process: process.to_owned(),
                directory: directory.grant.host.clone(),
                writer: (*writer).to_owned(),
                writable: outer.grant.host.clone(),
            }));
        }
    }
    found
}

/// A directory that two types may write, one with another `max_bytes` than the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unequal {
    /// The type whose grant comes later.
    pub(crate) process: String,
    pub(crate) directory: PathBuf,
    pub(crate) bytes_max: Option<u64>,
    /// The type whose grant comes first.
    pub(crate) other: String,
    pub(crate) other_bytes_max: Option<u64>,
}

/// Every grant that bounds a directory otherwise than the first one does. All that may write in a directory share its
/// bound: one that had none would fill it for the others.
pub(crate) fn unequal<'a>(types: impl Iterator<Item = (&'a str, &'a Directories)>) -> Vec<Unequal> {
    let mut first = HashMap::new();
    let mut found = Vec::new();
    for (process, directories) in types {
        for directory in directories.iter().filter(|directory| directory.grant.writable) {
            let bytes_max = directory.grant.bytes_max;
            let (other, other_bytes_max) = *first.entry(directory.identity).or_insert((process, bytes_max));
            if other_bytes_max != bytes_max {
                found.push(Unequal {
                    process: process.to_owned(),
                    directory: directory.grant.host.clone(),
                    bytes_max,
                    other: other.to_owned(),
                    other_bytes_max,
                });
            }
        }
    }
    found
}

/// The directories whose entries a path is looked up in: of the path itself, and of each link that it leads through.
pub(crate) fn looked_up_in(path: &Path) -> io::Result<HashSet<Identity>> {
    let way = Way::to(&std::path::absolute(path)?);
    if way.is_endless {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    way.end.symlink_metadata()?;
    way.entries.iter().map(|entry| Identity::of(&entry.directory)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use wasmhost_config::DirGrant;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            let folder = tempfile::tempdir().unwrap();
            for path in ["data/public", "site", "elsewhere"] {
                fs::create_dir_all(folder.path().join(path)).unwrap();
            }
            symlink("data/public", folder.path().join("link")).unwrap();
            symlink("../elsewhere", folder.path().join("data/out")).unwrap();
            symlink("../site", folder.path().join("elsewhere/site")).unwrap();
            Folder(folder)
        }

        fn open(&self, path: &str, writable: bool) -> Directories {
            let host = self.0.path().join(path);
            Directories::open(&[DirGrant { host, guest: "/x".into(), writable, bytes_max: None }]).unwrap()
        }

        /// Whether `inner` is refused beside a grant of `outer`, in either order.
        fn refuses(&self, outer: (&str, bool), inner: (&str, bool)) -> bool {
            let (outer, inner) = (self.open(outer.0, outer.1), self.open(inner.0, inner.1));
            let one = nested([("outer", &outer), ("inner", &inner)].into_iter());
            let other = nested([("inner", &inner), ("outer", &outer)].into_iter());
            assert_eq!(one, other);
            assert!(one.iter().all(|found| found.process == "inner" && found.writer == "outer"));
            !one.is_empty()
        }
    }

    #[test]
    fn a_grant_inside_a_writable_one_is_found_by_whatever_path() {
        let folder = Folder::new();
        for inner in
            ["data/public", "link", "data/../data/public", "site/../data/public", "data/out", "data/out/site"]
        {
            assert!(folder.refuses(("data", true), (inner, false)), "{inner}");
            assert!(folder.refuses(("data", true), (inner, true)), "{inner}");
            assert!(folder.refuses((".", true), (inner, false)), "{inner}");
            assert!(!folder.refuses(("data", false), (inner, false)), "{inner}");
        }
    }

    #[test]
    fn grants_that_do_not_depend_on_each_other_are_taken() {
        let folder = Folder::new();
        for inner in ["data", "data/.", "data/../data", "site", "data/..", "data/../elsewhere"] {
            assert!(!folder.refuses(("data", true), (inner, false)), "{inner}");
        }
        // An entry of a directory that guests only read can't be replaced by them.
        assert!(!folder.refuses(("data", false), ("data/public", true)));
    }

    #[test]
    fn one_type_with_both_is_refused_too() {
        let folder = Folder::new();
        let grant = |path: &str, writable| DirGrant {
            host: folder.0.path().join(path),
            guest: format!("/{path}"),
            writable,
            bytes_max: None,
        };
        let both = Directories::open(&[grant("data", true), grant("data/public", false)]).unwrap();
        assert_eq!(nested([("web", &both)].into_iter()).len(), 1);
    }

    #[test]
    fn one_directory_has_one_bound() {
        let folder = Folder::new();
        let open = |path: &str, bytes_max| {
            let host = folder.0.path().join(path);
            let grant = DirGrant { host, guest: "/x".into(), writable: true, bytes_max };
            Directories::open(&[grant]).unwrap()
        };
        let (small, large, none) = (open("data", Some(10)), open("data/.", Some(20)), open("data", None));
        let (elsewhere, read) = (open("site", Some(30)), folder.open("data", false));
        let types = |two: [&Directories; 2]| unequal(["one", "two"].into_iter().zip(two)).len();
        assert_eq!((types([&small, &large]), types([&small, &none]), types([&none, &small])), (1, 1, 1));
        assert_eq!((types([&small, &small]), types([&small, &elsewhere]), types([&small, &read])), (0, 0, 0));
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let folder = Folder::new();
        symlink("circle", folder.0.path().join("circle")).unwrap();
        assert!(looked_up_in(&folder.0.path().join("circle")).is_err());
    }
}
