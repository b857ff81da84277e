//! Compiled components and core modules that are kept from one start to the next, since compiling takes up to seconds.
//!
//! ```text
//! wasm -> shared: this process has it -> found: the directory has it, and it is mapped
//!                                     -> locked: another process may be making it -> found
//!                                                                                -> compiled, and stored
//! ```
//!
//! Nothing that goes wrong with the directory keeps a component from being loaded.

mod directory;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use tracing::{debug, warn};
use wasmtime::Engine;

use self::directory::Directory;
use super::artifact::Compiled;
use super::cwasm::{About, FORMAT, Maker};
use super::inspect::inspect;
use super::native::Unusable;
use crate::error::LoadError;

/// The SHA-256 of a file.
pub(crate) type Digest = [u8; 32];

/// Compiled code that types of this process have in common.
pub(crate) type SharedCode = Arc<Compiled>;

/// See the module.
pub struct Cache {
    directory: Option<Arc<Directory>>,
    /// Code that is loaded, or being loaded while its lock is held. Code that no type uses any more is forgotten.
    loaded: Mutex<HashMap<String, Arc<Mutex<Weak<Compiled>>>>>,
}

impl Cache {
    /// Keeps nothing after this process.
    pub fn off() -> Cache {
        Cache { directory: None, loaded: Mutex::default() }
    }

    /// Keeps at most `bytes_max` in this directory, which is made where it is missing. One that isn't safe isn't used,
    /// and the log says why.
    pub fn open(path: &Path, bytes_max: u64) -> Cache {
        let directory = Directory::open(path, bytes_max);
        if let Err(problem) = &directory {
            warn!(
                "compiled components are not kept, and each start compiles them again: {} {problem}; WASMHOST_CACHE_DIR names another directory, WASMHOST_CACHE=off does without one",
                path.display()
            );
        }
        Cache { directory: directory.ok().map(Arc::new), ..Cache::off() }
    }

    /// The same directory, for another engine: code that is loaded is of one engine alone.
    pub(crate) fn beside(&self) -> Cache {
        Cache { directory: self.directory.clone(), ..Cache::off() }
    }

    /// The compiled form of `wasm`, whose digest is this: the one that this process has, or the directory, or a new
    /// one.
    pub(crate) fn compiled(
        &self,
        engine: &Engine,
        wasm: &[u8],
        digest: &Digest,
    ) -> Result<SharedCode, LoadError> {
        let key = key(engine, digest);
        self.shared(&key, || match &self.directory {
            None => compile(engine, wasm),
            Some(directory) => find_or_compile(directory, &key, engine, wasm),
        })
    }

    /// The code that this process has under that key, or else that `make` makes. Others wait while it is being made.
    pub(crate) fn shared(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<Compiled, LoadError>,
    ) -> Result<SharedCode, LoadError> {
        let slot = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.retain(|_, slot| {
                // Somebody waits for it, or somebody has it.
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|slot| slot.strong_count() > 0)
            });
            loaded.entry(key.to_owned()).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = slot.upgrade() {
            return Ok(compiled);
        }
        let compiled = Arc::new(make()?);
        *slot = Arc::downgrade(&compiled);
        Ok(compiled)
    }
}

fn compile(engine: &Engine, wasm: &[u8]) -> Result<Compiled, LoadError> {
    let started = Instant::now();
    let compiled = Compiled::new(engine, wasm).map_err(|err| LoadError::compile(&err))?;
    debug!("compiled {compiled} of {} bytes in {:?}", wasm.len(), started.elapsed());
    Ok(compiled)
}

fn find_or_compile(
    directory: &Directory,
    key: &str,
    engine: &Engine,
    wasm: &[u8],
) -> Result<Compiled, LoadError> {
    let started = Instant::now();
    let entry = directory.entry(key);
    match directory.find(key, engine) {
        Ok(compiled) => {
            debug!("mapped {} in {:?}", entry.display(), started.elapsed());
            return Ok(compiled);
        }
        Err(Unusable::Missing) => {}
        Err(Unusable::Because(problem)) => {
            warn!("{} {problem}: compiling anew, and replacing it", entry.display());
        }
    }
    let _lock = directory.lock(key);
    // The process that had the lock may have made it.
    if let Ok(compiled) = directory.find(key, engine) {
        debug!("mapped {}, which another process has made, after {:?}", entry.display(), started.elapsed());
        return Ok(compiled);
    }
    let compiled = compile(engine, wasm)?;
    if let Err(problem) = store(directory, key, &compiled, wasm) {
        warn!("what was compiled of {compiled} is not kept: {} {problem}", entry.display());
        return Ok(compiled);
    }
    // All processes share the pages of a mapped file.
    Ok(directory.find(key, engine).unwrap_or(compiled))
}

fn store(directory: &Directory, key: &str, compiled: &Compiled, wasm: &[u8]) -> Result<(), String> {
    let artifact = compiled.serialize().map_err(|err| format!("can't be made: {err:#}"))?;
    // It has been compiled: there is nothing wrong with it.
    let inspection = inspect(wasm).map_err(|err| err.to_string())?;
    let about = About { maker: Maker::here(), key: key.to_owned(), inspection };
    directory.store(&artifact, &about)
}

/// Takes about as long as reading the file.
pub(crate) fn digest(wasm: &[u8]) -> Digest {
    Sha256::digest(wasm).into()
}

/// Names what one compiler with its settings makes of the file with this digest.
pub(crate) fn key(engine: &Engine, wasm: &Digest) -> String {
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
