//! Targets that need the whole host, behind the feature `host`: it takes minutes to build.

mod admin;
mod component;
mod http;
mod made;
mod served;

pub use self::admin::admin;
pub use self::component::component;
pub use self::http::{http1, http2};

use std::path::PathBuf;

/// A component of `tests/guests`.
fn guest(name: &str) -> PathBuf {
    let guests = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/out");
    let file = PathBuf::from(guests).join(name).with_extension("wasm");
    file.canonicalize()
        .unwrap_or_else(|err| panic!("{}: {err}: `cargo xtask guests` builds it", file.display()))
}
