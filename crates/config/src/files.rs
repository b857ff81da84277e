//! Reading files whose paths a person, or whoever wrote a formation, has given: regular files only, and no more of them
//! than is expected.

use std::fs::{FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Reads a regular file; `None` where it has more than `bytes_max` bytes.
///
/// # Errors
///
/// The file can't be opened or read, or is of another kind ([`io::ErrorKind::InvalidInput`], whose text begins with
/// "it is"). Neither a pipe nor a device is waited for or read.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    // To open a named pipe would wait until somebody writes to it.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let found = file.metadata()?;
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !found.is_file() {
        let kind = kind(found.file_type());
        let message = format!("it is {kind}, and a regular file is expected");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    if found.len() > bytes_max {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
    // It may grow meanwhile, and files of /proc have no length.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= bytes_max).then_some(bytes))
}

fn kind(found: FileType) -> &'static str {
    if found.is_fifo() {
        "a named pipe"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_devices_sockets_and_folders_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = |path: &Path| read_file(path, 100).unwrap_err().to_string();
        assert_eq!(text(&pipe), "it is a named pipe, and a regular file is expected");
        assert_eq!(text(Path::new("/dev/zero")), "it is a device, and a regular file is expected");
        // A socket can't even be opened.
        assert!(read_file(&socket, 100).is_err());
        assert_eq!(read_file(folder.path(), 100).unwrap_err().kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let sparse = folder.path().join("sparse");
        std::fs::File::create(&sparse).unwrap().set_len(100 << 30).unwrap();
        assert_eq!(read_file(&sparse, 1 << 20).unwrap(), None);
        std::fs::write(&sparse, "12345").unwrap();
        assert_eq!(read_file(&sparse, 5).unwrap().as_deref(), Some(b"12345".as_slice()));
        assert_eq!(read_file(&sparse, 4).unwrap(), None);
    }
}
