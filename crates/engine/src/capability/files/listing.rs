//! `read-directory`: the library's reads a directory whole before the guest sees its first entry. This one reads it in
//! pieces, each by a short visit to a thread for files, so that a million entries cost no more than a few.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags};

/// Entries that are read at once.
const ENTRIES_AT_ONCE: usize = 64;

/// A directory that is being listed, for one guest.
pub(super) struct Listing {
    directory: Arc<File>,
    /// `None` before the first piece, and after the last.
    rest: Option<Dir>,
    has_begun: bool,
    read: VecDeque<Listed>,
}

/// An entry, or why it can't be told. There may be more after it.
pub(super) type Listed = Result<Entry, ListingError>;

/// A file, a directory or something else.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: FileType,
}

/// Why an entry can't be told.
#[derive(Debug)]
pub(super) enum ListingError {
    Io(io::Error),
    /// A name isn't UTF-8.
    Name,
}

impl Listing {
    pub(super) fn new(directory: Arc<File>) -> Listing {
        Listing { directory, rest: None, has_begun: false, read: VecDeque::new() }
    }

    /// Opens the directory, where that wasn't done.
    pub(super) async fn begin(&mut self) -> Result<(), ListingError> {
        if !self.has_begun {
            self.has_begun = true;
            self.rest = Some(visit(self.directory.clone(), open).await?);
        }
        Ok(())
    }

    /// The next entry, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, ListingError> {
        if self.read.is_empty() {
            self.read = self.next_piece().await?.into();
        }
        self.read.pop_front().transpose()
    }

    /// Some entries more; none at the end.
    pub(super) async fn next_piece(&mut self) -> Result<Vec<Listed>, ListingError> {
        self.begin().await?;
        let Some(mut rest) = self.rest.take() else { return Ok(Vec::new()) };
        let read = visit(self.directory.clone(), move |directory| {
            let entries = read(directory, &mut rest);
            Ok((entries, rest))
        });
        let (entries, rest) = read.await?;
        if !entries.is_empty() {
            self.rest = Some(rest);
        }
        Ok(entries)
    }
}

/// Whether a directory has more than so many entries. One that can't be listed has none.
pub(super) async fn has_more_than(max: usize, directory: Arc<File>) -> bool {
    // The two that every directory has: itself, and the one above.
    let counted = visit(directory, move |directory| Ok(open(directory)?.take(max + 3).count() > max + 2));
    counted.await.unwrap_or(false)
}

/// Does something with a directory on a thread for files.
async fn visit<R: Send + 'static>(
    directory: Arc<File>,
    act: impl FnOnce(&File) -> Result<R, ListingError> + Send + 'static,
) -> Result<R, ListingError> {
    let done = tokio::task::spawn_blocking(move || act(&directory));
    done.await.unwrap_or_else(|err| Err(io::Error::other(err).into()))
}

/// A granted directory is open for nothing but what is in it. It is opened again to be read.
fn open(directory: &File) -> Result<Dir, ListingError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Dir::new(rustix::fs::openat(directory, c".", flags, Mode::empty())?)?)
}

fn read(directory: &File, rest: &mut Dir) -> Vec<Listed> {
    let mut entries = Vec::new();
    while entries.len() < ENTRIES_AT_ONCE {
        match rest.next() {
            Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Some(entry) => {
                entries.push(entry.map_err(ListingError::from).and_then(|entry| told(directory, &entry)))
            }
            None => break,
        }
    }
    entries
}

fn told(directory: &File, entry: &DirEntry) -> Listed {
    let name = entry.file_name();
    let kind = match entry.file_type() {
        // Some file systems don't say. The entry may be gone by now.
        FileType::Unknown => match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => FileType::from_raw_mode(found.st_mode),
            Err(_) => FileType::Unknown,
        },
        kind => kind,
    };
    let name = name.to_str().map_err(|_| ListingError::Name)?.to_owned();
    Ok(Entry { name, kind })
}

impl From<io::Error> for ListingError {
    fn from(err: io::Error) -> Self {
        ListingError::Io(err)
    }
}

impl From<rustix::io::Errno> for ListingError {
    fn from(err: rustix::io::Errno) -> Self {
        ListingError::Io(err.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn a_directory_is_listed_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let names: BTreeSet<_> = (0..1_000).map(|n| format!("file{n}")).collect();
        for name in &names {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("below")).unwrap();
        let mut listing = Listing::new(Arc::new(File::open(folder.path()).unwrap()));
        let (mut found, mut directories) = (BTreeSet::new(), Vec::new());
        while let Some(entry) = listing.next().await.unwrap() {
            assert!(listing.read.len() < ENTRIES_AT_ONCE);
            match entry.kind {
                FileType::Directory => directories.push(entry.name),
                _ => assert!(found.insert(entry.name)),
            }
        }
        assert_eq!((found, directories), (names, vec!["below".to_owned()]));
        assert!(listing.next().await.unwrap().is_none());
    }
    #[tokio::test]
    async fn a_name_that_is_no_text_hides_no_other() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        for number in 0..200u8 {
            let name = [b'n', number];
            std::fs::write(folder.path().join(OsStr::from_bytes(&name)), "").unwrap_or_default();
        }
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let (texts, others): (Vec<_>, Vec<_>) = entries.partition(|name| name.to_str().is_some());
        assert!(texts.len() > 100 && others.len() > 60, "{} {}", texts.len(), others.len());
        let mut listing = Listing::new(Arc::new(File::open(folder.path()).unwrap()));
        let (mut found, mut untold) = (Vec::new(), 0);
        loop {
            match listing.next().await {
                Ok(Some(entry)) => found.push(entry.name),
                Ok(None) => break,
                Err(ListingError::Name) => untold += 1,
                Err(ListingError::Io(err)) => panic!("{err}"),
            }
        }
        assert_eq!((found.len(), untold), (texts.len(), others.len()));
        assert!(texts.iter().all(|name| found.iter().any(|found| name == found.as_str())));
    }

    #[tokio::test]
    async fn entries_are_counted_up_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Arc::new(File::open(folder.path()).unwrap());
        assert!(!has_more_than(0, directory.clone()).await);
        for number in 0..3 {
            std::fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        assert!(has_more_than(2, directory.clone()).await && !has_more_than(3, directory).await);
    }
}
