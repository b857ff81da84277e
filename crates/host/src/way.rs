//! The way that the system takes to a file: every entry that it looks up, through links and the links that they lead to.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows in one path.
const LINKS_MAX: usize = 40;

/// See the module.
pub(crate) struct Way {
    /// In their order.
    pub(crate) entries: Vec<Entry>,
    /// The path without any link in it. The file itself need not be there.
    pub(crate) end: PathBuf,
    /// There were more links than the system follows, so that the end is none.
    pub(crate) is_endless: bool,
}

/// An entry of a directory.
pub(crate) struct Entry {
    /// The directory, without any link in its path.
    pub(crate) directory: PathBuf,
    pub(crate) name: OsString,
    pub(crate) is_link: bool,
}

impl Entry {
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

impl Way {
    /// The way to an absolute path.
    pub(crate) fn to(path: &Path) -> Way {
        let mut way = Way { entries: Vec::new(), end: PathBuf::from("/"), is_endless: false };
        let mut links_left = LINKS_MAX;
        let mut left = parts(path);
        while let Some(part) = left.pop_front() {
            let name = match Path::new(&part).components().next() {
                Some(Component::RootDir) => {
                    way.end = PathBuf::from("/");
                    continue;
                }
                // There is no link in it, so that its parent is the directory's.
                Some(Component::ParentDir) => {
                    way.end.pop();
                    continue;
                }
                Some(Component::Normal(name)) => name.to_owned(),
                _ => continue,
            };
            let next = way.end.join(&name);
            let link = fs::read_link(&next).ok();
            way.entries.push(Entry { directory: way.end.clone(), name, is_link: link.is_some() });
            match link {
                None => way.end = next,
                Some(_) if links_left == 0 => {
                    way.is_endless = true;
                    return way;
                }
                Some(target) => {
                    links_left -= 1;
                    let mut target = parts(&target);
                    target.append(&mut left);
                    left = target;
                }
            }
        }
        way
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components().map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_way_leads_through_links_of_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("releases/1")).unwrap();
        symlink("releases/1", root.join("current")).unwrap();
        symlink(root.join("current"), root.join("live")).unwrap();
        let way = Way::to(&root.join("live/../1/web.wasm"));
        assert!(!way.is_endless);
        assert_eq!(way.end, root.join("releases/1/web.wasm"));
        let links: Vec<_> = way.entries.iter().filter(|entry| entry.is_link).map(Entry::path).collect();
        assert_eq!(links, [root.join("live"), root.join("current")]);
        assert!(way.entries.iter().any(|entry| entry.path() == root.join("releases")));
    }

    #[test]
    fn links_in_a_circle_have_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let circle = folder.path().join("circle");
        symlink("circle", &circle).unwrap();
        assert!(Way::to(&circle.join("file")).is_endless);
    }
}
