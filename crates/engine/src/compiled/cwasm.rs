//! The form of compiled components and core modules in files: those that `wasmhost compile` makes, and the entries of the
//! [cache](super::cache), which are the same.
//!
//! ```text
//! compiled code      wasmtime's own file (ELF), whose parts are found from its beginning
//! about              JSON: who made it, from what, and what `inspect` saw in that
//! length of about    u32, little-endian
//! format             u32
//! checksum           u32, CRC-32 of all before it: against damage, not against people
//! 8 bytes            a mark that is in no text, and last: what was cut short lacks it
//! ```
//!
//! wasmtime looks at nothing behind its own part, so that a whole file can be mapped as it is.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::thread;

use serde::{Deserialize, Serialize};

use crate::inspection::Inspection;

/// Rises when what is in these files changes, [`Inspection`] included. The end of a file keeps its form in all formats,
/// and the beginnings of [`Maker`] their names, so that any version can say which one made a file.
pub(crate) const FORMAT: u32 = 3;

const MAGIC: &[u8; 8] = b"\x89cwasm\r\n";
const ELF: &[u8] = b"\x7fELF";

/// Everything behind `about`.
const END_BYTES: usize = 4 + 4 + 4 + MAGIC.len();

/// Long lists of exports and imports are a few kilobytes. The longest names that [`inspect`](super::inspect) allows have
/// room, each character of them as six.
const ABOUT_BYTES_MAX: u64 = 4 << 20;

/// How much of a file is read at once.
const PIECE_BYTES: usize = 128 << 10;

/// How much of a file is worth a thread of its own: a start waits for the checksum of what may be tens of megabytes.
const PART_BYTES: u64 = 4 << 20;

/// A file, or what was read of one.
pub(crate) trait Bytes: Sync {
    /// How many there are.
    fn count(&self) -> io::Result<u64>;

    /// Reads those from `at` on, as many as `bytes` takes.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;
}

impl Bytes for File {
    fn count(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }
}

impl Bytes for [u8] {
    fn count(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let from = from.get(..bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(from);
        Ok(())
    }
}

/// The part of a file that says what the rest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    #[serde(flatten)]
    pub(crate) maker: Maker,
    /// Its key in the [cache](super::cache): the bytes that were compiled and the compiler's settings, as one number.
    pub(crate) key: String,
    pub(crate) inspection: Inspection,
}

/// The program that made a file, and the machine it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maker {
    wasmhost: String,
    wasmtime: String,
    target: String,
}

/// Why a file of compiled code can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CwasmError {
    /// Nobody has said that it may be.
    #[error(
        "is compiled code, which runs outside of the sandbox: whoever made it can do all that this host can. If that was you, with `wasmhost compile`, set `trust_cwasm = true` (`--trust-cwasm` beside `run app.cwasm`); if not, name the .wasm file"
    )]
    Untrusted,
    /// It doesn't end as it should.
    #[error(
        "is compiled code that was cut short, or that `wasmhost compile` didn't make: make it with `wasmhost compile`, or name the .wasm file"
    )]
    NotOurs,
    /// Its bytes are not those that were written.
    #[error("is damaged ({0}): make it again with `wasmhost compile`, or name the .wasm file")]
    Damaged(String),
    /// It is for another version, or another kind of machine.
    #[error(
        "was compiled by {made_by}, and this is {here}: make it again with this version's `wasmhost compile`, or name the .wasm file"
    )]
    OtherVersion {
        /// The program that made it.
        made_by: String,
        /// This program.
        here: String,
    },
}

impl Maker {
    /// This program on this machine.
    pub(crate) fn here() -> Maker {
        Maker {
            wasmhost: env!("CARGO_PKG_VERSION").to_owned(),
            wasmtime: wasmtime_environ::VERSION.to_owned(),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        }
    }

    /// Versions of wasmhost may differ as long as they have the same compiler: it says itself whether the settings do.
    fn agrees_with(&self, other: &Maker) -> bool {
        self.wasmtime == other.wasmtime && self.target == other.target
    }
}

impl std::fmt::Display for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wasmhost {} (wasmtime {}, {})", self.wasmhost, self.wasmtime, self.target)
    }
}

/// Whether these bytes are compiled code, ours or another's.
pub(crate) fn is_compiled(bytes: &[u8]) -> bool {
    bytes.starts_with(ELF)
}

/// The bytes that follow wasmtime's `artifact` in a file.
pub(crate) fn ending(artifact: &[u8], about: &About) -> Vec<u8> {
    // Strings and numbers can always be written.
    let mut end = serde_json::to_vec(about).unwrap_or_default();
    let about_bytes = u32::try_from(end.len()).unwrap_or(u32::MAX);
    end.extend_from_slice(&about_bytes.to_le_bytes());
    end.extend_from_slice(&FORMAT.to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(artifact);
    checksum.update(&end);
    end.extend_from_slice(&checksum.finalize().to_le_bytes());
    end.extend_from_slice(MAGIC);
    end
}

/// Checks a whole file, and reads what it says of itself.
pub(crate) fn read(file: &(impl Bytes + ?Sized)) -> Result<About, CwasmError> {
    let len = file.count().map_err(unreadable)?;
    let body_len = len.checked_sub(END_BYTES as u64).ok_or(CwasmError::NotOurs)?;
    let mut end = [0; END_BYTES];
    file.read_at(&mut end, body_len).map_err(unreadable)?;
    if !end.ends_with(MAGIC) {
        return Err(CwasmError::NotOurs);
    }
    let number = |at: usize| u32::from_le_bytes([end[at], end[at + 1], end[at + 2], end[at + 3]]);
    let (about_len, format, checksum) = (number(0), number(4), number(8));
    if u64::from(about_len) > body_len.min(ABOUT_BYTES_MAX) {
        return Err(CwasmError::Damaged("the length of a part is impossible".into()));
    }
    let mut about = vec![0; about_len as usize];
    file.read_at(&mut about, body_len - u64::from(about_len)).map_err(unreadable)?;
    let mut found = checksum_of(file, body_len).map_err(unreadable)?;
    found.update(&end[..8]);
    if found.finalize() != checksum {
        return Err(CwasmError::Damaged("its checksum is wrong".into()));
    }
    let malformed = |err: serde_json::Error| CwasmError::Damaged(format!("what it says of itself: {err}"));
    let maker: Maker = serde_json::from_slice(&about).map_err(malformed)?;
    if format != FORMAT || !maker.agrees_with(&Maker::here()) {
        return Err(CwasmError::OtherVersion { made_by: maker.to_string(), here: Maker::here().to_string() });
    }
    let mut about: About = serde_json::from_slice(&about).map_err(malformed)?;
    about.inspection.find_handlers();
    Ok(about)
}

fn unreadable(err: io::Error) -> CwasmError {
    CwasmError::Damaged(format!("it can't be read: {err}"))
}

/// The checksum of the first `len` bytes, in as many threads as they are worth.
fn checksum_of(file: &(impl Bytes + ?Sized), len: u64) -> io::Result<crc32fast::Hasher> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let parts = len.div_ceil(PART_BYTES).clamp(1, cores);
    let part_len = len.div_ceil(parts);
    let ranges = (0..parts).map(|part| (part * part_len).min(len)..((part + 1) * part_len).min(len));
    thread::scope(|scope| {
        let spawn = |range: Range<u64>| {
            let part = range.clone();
            (range, thread::Builder::new().spawn_scoped(scope, move || checksum_of_part(file, part)))
        };
        let others: Vec<_> = ranges.skip(1).map(spawn).collect();
        let mut whole = checksum_of_part(file, 0..part_len)?;
        for (range, thread) in others {
            let part = thread.ok().and_then(|thread| thread.join().ok());
            // Without a thread it's done here.
            whole.combine(&part.unwrap_or_else(|| checksum_of_part(file, range))?);
        }
        Ok(whole)
    })
}

fn checksum_of_part(file: &(impl Bytes + ?Sized), range: Range<u64>) -> io::Result<crc32fast::Hasher> {
    let mut checksum = crc32fast::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        file.read_at(&mut piece[..len], at)?;
        checksum.update(&piece[..len]);
        at += len as u64;
    }
    Ok(checksum)
}

#[cfg(test)]
mod tests {
    use super::{About, CwasmError, END_BYTES, Inspection, Maker, PART_BYTES, ending};
    use crate::inspection::{Footprint, Handler};

    fn about() -> About {
        let mut inspection = Inspection {
            handlers: vec![],
            exports: vec!["wasi:http/incoming-handler@0.2.3".into()],
            imports: vec!["wasi:io/streams@0.2.3".into()],
            footprint: Footprint { core_instances: 3, memories: 1, tables: 2, ..Footprint::default() },
            is_async: false,
            is_core: false,
        };
        inspection.find_handlers();
        About { maker: Maker::here(), key: "00ff".into(), inspection }
    }

    fn read(file: &[u8]) -> Result<About, CwasmError> {
        super::read(file)
    }

    fn file(about: &About) -> Vec<u8> {
        let mut file = b"\x7fELF and so on".to_vec();
        let end = ending(&file, about);
        file.extend_from_slice(&end);
        file
    }

    #[test]
    fn what_was_written_is_read() {
        let read = read(&file(&about())).unwrap();
        assert_eq!(read, about());
        assert_eq!(read.inspection.handlers, [Handler::Http02]);
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_refused() {
        let file = file(&about());
        for len in 0..file.len() {
            assert_eq!(read(&file[..len]), Err(CwasmError::NotOurs), "{len} of {}", file.len());
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let file = file(&about());
        for at in 0..file.len() {
            let mut file = file.clone();
            file[at] ^= 0x10;
            assert!(read(&file).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_long_file_is_checked_to_its_last_byte() {
        let mut long: Vec<u8> = (0..PART_BYTES * 2 + 12_345).map(|at| (at ^ at >> 8) as u8).collect();
        let end = ending(&long, &about());
        long.extend_from_slice(&end);
        assert_eq!(read(&long), Ok(about()));
        for at in [0, long.len() / 2, long.len() / 3, long.len() - END_BYTES - 1] {
            long[at] ^= 1;
            assert!(read(&long).is_err(), "byte {at}");
            long[at] ^= 1;
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut about = about();
        about.maker.wasmhost = "0.0.9".into();
        assert!(read(&file(&about)).is_ok(), "the compiler is the same");
        about.maker.wasmtime = "47.0.1".into();
        let err = read(&file(&about)).unwrap_err().to_string();
        assert!(err.starts_with("was compiled by wasmhost 0.0.9 (wasmtime 47.0.1, "), "{err}");
        assert!(err.contains(&format!("and this is {}", Maker::here())), "{err}");
    }

    #[test]
    fn another_machine_is_named() {
        let mut about = about();
        about.maker.target = "sparc-solaris".into();
        let err = read(&file(&about)).unwrap_err();
        assert!(
            matches!(&err, CwasmError::OtherVersion { made_by, .. } if made_by.contains("sparc-solaris"))
        );
    }
}
