//! The host of a formation whose file names another state directory by now.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::user::User;
use super::{is_trusted_user, locked, socket_path};

/// Where Linux lists all unix sockets.
const SOCKETS: &str = "/proc/net/unix";

/// The state directory of the host that runs this formation's file, whatever the file says now. Found among the sockets
/// that the programs of this machine listen on; elsewhere than on Linux none is.
pub fn running_state_dir(file: &Path) -> Option<PathBuf> {
    let sockets = fs::read(SOCKETS).unwrap_or_default();
    let mut directories = sockets.split(|byte| *byte == b'\n').filter_map(directory);
    directories.find(|directory| {
        let lock = locked(directory).filter(is_trusted);
        lock.and_then(|mut lock| User::read(&mut lock))
            .is_some_and(|user| user.is(&User::of(file, directory)))
    })
}

/// The state directory whose admin socket is on this line, if it is one.
fn directory(line: &[u8]) -> Option<PathBuf> {
    let begins = line.iter().position(|byte| matches!(byte, b'/' | b'@'))?;
    let path = Path::new(std::ffi::OsStr::from_bytes(line.get(begins..)?));
    let directory = path.parent().filter(|_| path.is_absolute())?;
    (socket_path(directory) == path).then(|| directory.to_owned())
}

/// Another user's lock may say anything.
fn is_trusted(lock: &File) -> bool {
    rustix::fs::fstat(lock).is_ok_and(|stat| is_trusted_user(stat.st_uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_an_admin_socket_says_where_it_is() {
        let found = |path: &str| {
            directory(format!("0000000000000000: 00000002 00000000 00010000 0001 01 1234 {path}").as_bytes())
        };
        assert_eq!(found("/srv/my shop/admin.sock"), Some(PathBuf::from("/srv/my shop")));
        for path in ["", "/srv/shop/notify.sock", "@/srv/shop/admin.sock", "admin.sock"] {
            assert_eq!(found(path), None, "{path}");
        }
        assert_eq!(directory(b"Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }
}
