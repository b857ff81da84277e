//! The lessons learned of components, kept in the state directory for the next start.
//!
//! The file has a line for each component, type and settings: `once SHA-256 web 5A17` or `proven SHA-256 web 5A17`. It is a help and no
//! more: where it can't be read or written, everything is learned again.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing::debug;

/// Lessons that are kept; the oldest are forgotten first.
const LESSONS_MAX: usize = 256;

/// A file that is longer isn't one of ours.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Whether instances of a component can be called twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lesson {
    /// One has returned from its second call.
    Proven,
    /// They die on it.
    Once,
}

/// See the module.
pub(crate) struct Learned {
    path: PathBuf,
    /// The newest is last.
    entries: Mutex<VecDeque<Entry>>,
    /// One writes at a time, so that the last one writes what is true last.
    writing: Mutex<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    lesson: Lesson,
    subject: Subject,
}

/// The component, type and settings that a lesson was learned of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The component's digest, in hexadecimal digits.
    pub(crate) component: String,
    pub(crate) process: Arc<str>,
    /// A hash of its arguments and environment, which may have a part in it: a release with others, and the way back from
    /// it, learn anew.
    pub(crate) settings: u64,
}

impl Learned {
    /// Reads what was kept in this directory.
    pub(crate) fn open(state_dir: &Path) -> Arc<Learned> {
        let path = state_dir.join("learned");
        let entries = match read(&path) {
            Ok(text) => parse(&text),
            Err(err) => {
                if err.kind() != io::ErrorKind::NotFound {
                    debug!("what was learned of components can't be read: {err}");
                }
                VecDeque::new()
            }
        };
        Arc::new(Learned { path, entries: Mutex::new(entries), writing: Mutex::new(()) })
    }

    pub(crate) fn of(&self, subject: &Subject) -> Option<Lesson> {
        let entries = self.entries.lock().unwrap_or_else(|poison| poison.into_inner());
        entries.iter().find(|entry| entry.subject == *subject).map(|entry| entry.lesson)
    }

    /// Keeps a lesson, in place of an earlier one. Writes the file: not for an async thread.
    pub(crate) fn keep(&self, subject: Subject, lesson: Lesson) {
        let _writing = self.writing.lock().unwrap_or_else(|poison| poison.into_inner());
        let text = {
            let mut entries = self.entries.lock().unwrap_or_else(|poison| poison.into_inner());
            entries.retain(|entry| entry.subject != subject);
            entries.push_back(Entry { lesson, subject });
            let surplus = entries.len().saturating_sub(LESSONS_MAX);
            entries.drain(..surplus);
            format(&entries)
        };
        if let Err(err) = write(&self.path, &text) {
            debug!("what was learned of a component can't be kept: {err}");
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let about = fs::symlink_metadata(path)?;
    match about.is_file() && about.len() <= FILE_BYTES_MAX {
        true => fs::read_to_string(path),
        false => Err(io::Error::other("it isn't a small file")),
    }
}

/// Replaces the file as a whole.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

fn format(entries: &VecDeque<Entry>) -> String {
    let line = |Entry { lesson, subject: Subject { component, process, settings } }: &Entry| {
        let lesson = match lesson {
            Lesson::Proven => "proven",
            Lesson::Once => "once",
        };
        format!("{lesson} {component} {process} {settings:x}\n")
    };
    entries.iter().map(line).collect()
}

/// Lines that aren't understood were written by another version, and are left out.
fn parse(text: &str) -> VecDeque<Entry> {
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let lesson = match words.next()? {
            "proven" => Lesson::Proven,
            "once" => Lesson::Once,
            _ => return None,
        };
        let (component, process) = (words.next()?.to_owned(), words.next()?.into());
        let settings = u64::from_str_radix(words.next()?, 16).ok()?;
        words.next().is_none().then_some(Entry { lesson, subject: Subject { component, process, settings } })
    };
    let entries: Vec<Entry> = text.lines().filter_map(entry).collect();
    let surplus = entries.len().saturating_sub(LESSONS_MAX);
    entries.into_iter().skip(surplus).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(component: &str, process: &str) -> Subject {
        Subject { component: component.to_owned(), process: process.into(), settings: 0x5a17 }
    }

    #[test]
    fn lessons_are_there_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let learned = Learned::open(folder.path());
        assert_eq!(learned.of(&subject("aa", "web")), None);
        learned.keep(subject("aa", "web"), Lesson::Proven);
        learned.keep(subject("bb", "web"), Lesson::Once);
        learned.keep(subject("aa", "web"), Lesson::Once);
        let again = Learned::open(folder.path());
        assert_eq!(again.of(&subject("aa", "web")), Some(Lesson::Once));
        assert_eq!(again.of(&subject("bb", "web")), Some(Lesson::Once));
        assert_eq!(again.of(&subject("aa", "api")), None, "of another type nothing is known");
        let with_others = Subject { settings: 1, ..subject("aa", "web") };
        assert_eq!(again.of(&with_others), None, "nor with another environment");
    }

    #[test]
    fn the_oldest_lessons_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let learned = Learned::open(folder.path());
        for number in 0..LESSONS_MAX + 5 {
            learned.keep(subject(&number.to_string(), "web"), Lesson::Proven);
        }
        let again = Learned::open(folder.path());
        for learned in [learned, again] {
            assert_eq!(learned.of(&subject("4", "web")), None);
            assert_eq!(learned.of(&subject("5", "web")), Some(Lesson::Proven));
        }
    }

    #[test]
    fn a_file_that_is_none_of_ours_teaches_nothing_and_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("learned");
        fs::write(&file, "maybe aa web 0\nonce\nonce aa\nonce aa web\nonce aa web more\nonce aa web 0 0\n\u{7f}\nproven bb web 5a17\n").unwrap();
        let learned = Learned::open(folder.path());
        assert_eq!(learned.of(&subject("aa", "web")), None);
        assert_eq!(learned.of(&subject("bb", "web")), Some(Lesson::Proven));
        fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(Learned::open(folder.path()).of(&subject("bb", "web")), None);
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        Learned::open(folder.path()).keep(subject("bb", "web"), Lesson::Once);
    }
}
