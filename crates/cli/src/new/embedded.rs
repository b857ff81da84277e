//! Files of the repository that are part of the binary: `build.rs` says which.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Files whose paths begin so, by the rest of their paths.
pub(super) fn below(folder: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> + use<'_> {
    FILES.iter().filter_map(move |(path, bytes)| Some((path.strip_prefix(folder)?, *bytes)))
}
