//! Targets that need the host's crates, behind the feature `host`: they take minutes to build.

mod component;
mod made;

pub use self::component::component;

use std::path::PathBuf;

/// A component of `tests/guests`.
fn guest(name: &str) -> PathBuf {
    let guests = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/out");
    let file = PathBuf::from(guests).join(name).with_extension("wasm");
    file.canonicalize()
        .unwrap_or_else(|err| panic!("{}: {err}: `cargo xtask guests` builds it", file.display()))
}
