//! The key that compiled code is kept by: the file that was compiled, and the compiler with its settings, as one number.

use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use super::cwasm::FORMAT;

/// The SHA-256 of a file.
pub(super) type Digest = [u8; 32];

/// Takes about as long as reading the file.
pub(super) fn digest(wasm: &[u8]) -> Digest {
    Sha256::digest(wasm).into()
}

/// Names what one compiler with its settings makes of the file with this digest.
pub(super) fn key(engine: &Engine, wasm: &Digest) -> String {
    let mut digest = Sha256Hasher(Sha256::new());
    FORMAT.hash(&mut digest);
    wasmtime_environ::VERSION.hash(&mut digest);
    engine.precompile_compatibility_hash().hash(&mut digest);
    let Sha256Hasher(mut digest) = digest;
    digest.update(wasm);
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes as [`Sha256`] does, which is the same in each process.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nobody asks for it: the whole digest is used.
    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
