//! Writing to a descriptor that may be stalled, full, broken or non-blocking.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

/// As much as a pipe that can be written to takes without a wait, and in one piece, on every system that we know.
const PIECE_BYTES_MAX: usize = 4_096;

/// How long to wait at once: whoever writes looks up from time to time.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Writes all of `bytes`, in pieces that end where lines do as far as they can. It waits while the stream takes nothing,
/// made non-blocking or not, until `is_over` says that it has taken too long. Returns how much was written, and the error
/// if one ended it.
pub fn write_all(stream: impl AsFd, bytes: &[u8], is_over: impl Fn() -> bool) -> (usize, Option<io::Error>) {
    let stream = stream.as_fd();
    let piece_bytes_max = if is_file(stream) { bytes.len() } else { PIECE_BYTES_MAX };
    let mut written = 0;
    while written < bytes.len() {
        let result = match wait(stream, LOOK_EVERY) {
            Ok(true) => rustix::io::write(stream, piece(&bytes[written..], piece_bytes_max)),
            // Also where somebody else was faster to fill it.
            Ok(false) => Err(Errno::AGAIN),
            Err(err) => Err(err),
        };
        match result {
            Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(err) => return (written, Some(err.into())),
        }
        if is_over() {
            break;
        }
    }
    (written, None)
}

/// A deadline for [`write_all`].
pub fn until(deadline: Instant) -> impl Fn() -> bool {
    move || Instant::now() >= deadline
}

/// Waits until a write would not block: because there is room, or because it would fail.
fn wait(stream: BorrowedFd<'_>, time: Duration) -> Result<bool, Errno> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    let mut fds = [PollFd::from_borrowed_fd(stream, PollFlags::OUT)];
    Ok(poll(&mut fds, Some(&timeout))? > 0)
}

/// Whether nobody has to read it, so that a write of any length ends by itself.
fn is_file(stream: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// The first lines of the text, or of one that is longer than a piece its beginning.
fn piece(bytes: &[u8], bytes_max: usize) -> &[u8] {
    if bytes.len() <= bytes_max {
        return bytes;
    }
    let first = &bytes[..bytes_max];
    match memchr::memrchr(b'\n', first) {
        Some(end) => &first[..=end],
        None => first,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, SeekFrom, pipe};

    use super::*;

    #[test]
    fn pieces_end_with_lines() {
        let line = vec![b'x'; 2_999].into_iter().chain([b'\n']).collect::<Vec<_>>();
        assert_eq!(piece(&line.repeat(2), PIECE_BYTES_MAX).len(), 3_000);
        assert_eq!(piece(&[b'x'; 9_000], PIECE_BYTES_MAX).len(), PIECE_BYTES_MAX);
        assert_eq!(piece(b"a\nb", PIECE_BYTES_MAX).len(), 3);
    }

    #[test]
    fn a_pipe_that_nobody_reads_ends_a_write_at_its_deadline() {
        let (_reader, writer) = pipe().unwrap();
        let (written, err) = write_all(&writer, &vec![b'\n'; 1 << 20], || true);
        assert!(err.is_none() && written > 0 && written < 1 << 20, "{written} {err:?}");
    }

    #[test]
    fn a_file_takes_all_at_once() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes = b"line\n".repeat(100_000);
        // It is asked once whether there is more time.
        let asked = std::cell::Cell::new(0);
        let (written, err) = write_all(&file, &bytes, || {
            asked.set(asked.get() + 1);
            false
        });
        assert!(err.is_none() && written == bytes.len() && asked.get() == 1, "{written} {err:?} {asked:?}");
        let mut read = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn a_pipe_that_was_closed_is_an_error() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let (written, err) = write_all(&writer, b"line\n", || false);
        assert_eq!((written, err.map(|err| err.kind())), (0, Some(ErrorKind::BrokenPipe)));
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let bytes = vec![b'\n'; 1 << 20];
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read.len()
        });
        assert_eq!(write_all(&writer, &bytes, || false).0, 1 << 20);
        drop(writer);
        assert_eq!(reading.join().unwrap(), 1 << 20);
    }
}
