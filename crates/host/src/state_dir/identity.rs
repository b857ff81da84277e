//! The host's id, by which the store knows it in all its boots: `host_id` in the state directory. The file says which machine
//! and which directory the id is of, so that a directory that was copied, to another machine or beside itself, gets
//! another one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use tracing::warn;

use crate::members::split::hash_of;

/// Bytes of a host's name that are kept.
const NAME_BYTES_MAX: usize = 64;

/// A host, among those that share a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The same in all boots with this state directory: 16 hexadecimal digits.
    pub(crate) host: String,
    /// The machine or container, in this run of its kernel. No two that run at once have the same.
    pub(crate) place: String,
    /// The machine's name, for people.
    pub(crate) name: String,
}

impl Identity {
    /// That of the host that has this state directory. One that can't be written is another at the next start.
    pub(crate) fn of(state_dir: &Path) -> Identity {
        let bound = bound_to(state_dir);
        let host = read(state_dir, &bound).unwrap_or_else(|| {
            let host = format!("{:016x}", fastrand::u64(..));
            if let Err(err) = write(state_dir, &host, &bound) {
                let path = state_dir.join("host_id");
                warn!(
                    "{} can't be written ({err}): the next start is taken for another host",
                    path.display()
                );
            }
            host
        });
        let name = line("/proc/sys/kernel/hostname").or_else(|| std::env::var("HOSTNAME").ok());
        let mut name = name.unwrap_or_else(|| "host".to_owned());
        name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
        let kernel = line("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Identity { host, place: format!("{name} {kernel}"), name }
    }
}

/// The machine and the directory, in a text without spaces. The machine's id itself is nobody else's business.
fn bound_to(state_dir: &Path) -> String {
    let machine = line("/etc/machine-id").or_else(|| line("/var/lib/dbus/machine-id")).unwrap_or_default();
    let directory = fs::metadata(state_dir).map(|found| (found.dev(), found.ino())).unwrap_or_default();
    format!("{:016x}-{}", hash_of(&format!("wasmhost {machine}")), directory.1)
}

fn read(state_dir: &Path, bound: &str) -> Option<String> {
    let text = fs::read_to_string(state_dir.join("host_id")).ok()?;
    let (host, of) = text.trim_end().split_once(' ')?;
    let is_id = host.len() == 16 && host.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_id && of == bound).then(|| host.to_owned())
}

fn write(state_dir: &Path, host: &str, bound: &str) -> io::Result<()> {
    let new = state_dir.join("host_id.new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(format!("{host} {bound}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, state_dir.join("host_id"))
}

/// A file's first line, where it has one.
fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_id_and_a_copy_gets_another() {
        let folder = tempfile::tempdir().unwrap();
        let (one, copy) = (folder.path().join("one"), folder.path().join("copy"));
        fs::create_dir(&one).unwrap();
        let first = Identity::of(&one);
        assert_eq!(first.host.len(), 16);
        assert_eq!(Identity::of(&one), first);
        fs::create_dir(&copy).unwrap();
        fs::copy(one.join("host_id"), copy.join("host_id")).unwrap();
        let second = Identity::of(&copy);
        assert_ne!(second.host, first.host);
        assert_eq!((&second.place, &second.name), (&first.place, &first.name), "they are on one machine");
        assert_eq!(Identity::of(&copy), second);
        // Moving it within a file system keeps its inode.
        fs::rename(&one, folder.path().join("moved")).unwrap();
        assert_eq!(Identity::of(&folder.path().join("moved")).host, first.host);
    }

    #[test]
    fn a_damaged_file_is_replaced_and_one_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::of(folder.path());
        fs::write(folder.path().join("host_id"), "nonsense").unwrap();
        let second = Identity::of(folder.path());
        assert_ne!(first.host, second.host);
        assert_eq!(Identity::of(folder.path()), second);
        assert_eq!(Identity::of(&folder.path().join("missing")).host.len(), 16);
    }
}
