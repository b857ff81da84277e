//! Compiled components that are kept from one start to the next, since compiling takes up to seconds.
//!
//! ```text
//! component -> shared: this process has it -> found: the directory has it, and it is mapped
//!                                          -> locked: another process may be making it -> found
//!                                                                                     -> compiled, and stored
//! ```
//!
//! Nothing that goes wrong with the directory keeps a component from being loaded.

mod directory;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::component::LoadError;
use crate::cwasm::{About, FORMAT, Maker};
use crate::inspect::inspect;
use crate::native::Unusable;
use directory::Directory;

/// A component that types of this process may have in common.
pub(crate) type Shared = Arc<Component>;

/// See the module.
pub struct Cache {
    directory: Option<Directory>,
    /// What is loaded, or being loaded while its lock is held. What nobody uses any more is forgotten.
    loaded: Mutex<HashMap<String, Arc<Mutex<Weak<Component>>>>>,
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
        Cache { directory: directory.ok(), ..Cache::off() }
    }

    /// The compiled form of `wasm`: the one that this process has, or the directory, or a new one.
    pub(crate) fn component(&self, engine: &Engine, wasm: &[u8]) -> Result<Shared, LoadError> {
        let key = key(engine, wasm);
        self.shared(&key, || match &self.directory {
            None => compile(engine, wasm),
            Some(directory) => find_or_compile(directory, &key, engine, wasm),
        })
    }

    /// What this process has under that key, or else what `make` makes. Who comes while it is being made waits.
    pub(crate) fn shared(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<Component, LoadError>,
    ) -> Result<Shared, LoadError> {
        let slot = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.retain(|_, slot| {
                // Somebody waits for it, or somebody has it.
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|slot| slot.strong_count() > 0)
            });
            loaded.entry(key.to_owned()).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(component) = slot.upgrade() {
            return Ok(component);
        }
        let component = Arc::new(make()?);
        *slot = Arc::downgrade(&component);
        Ok(component)
    }
}

fn compile(engine: &Engine, wasm: &[u8]) -> Result<Component, LoadError> {
    let started = Instant::now();
    let component = Component::from_binary(engine, wasm);
    debug!("compiled a component of {} bytes in {:?}", wasm.len(), started.elapsed());
    component.map_err(|err| LoadError::Compile(format!("{err:#}")))
}

fn find_or_compile(
    directory: &Directory,
    key: &str,
    engine: &Engine,
    wasm: &[u8],
) -> Result<Component, LoadError> {
    let started = Instant::now();
    let entry = directory.entry(key);
    match directory.find(key, engine) {
        Ok(component) => {
            debug!("mapped {} in {:?}", entry.display(), started.elapsed());
            return Ok(component);
        }
        Err(Unusable::Missing) => {}
        Err(Unusable::Because(problem)) => {
            warn!("{} {problem}: compiling anew, and replacing it", entry.display());
        }
    }
    let _lock = directory.lock(key);
    // Whoever had the lock may have made it.
    if let Ok(component) = directory.find(key, engine) {
        debug!("mapped {}, which another process has made, after {:?}", entry.display(), started.elapsed());
        return Ok(component);
    }
    let component = compile(engine, wasm)?;
    if let Err(problem) = store(directory, key, &component, wasm) {
        warn!("a compiled component is not kept: {} {problem}", entry.display());
        return Ok(component);
    }
    // Of what is mapped, all processes share the pages.
    Ok(directory.find(key, engine).unwrap_or(component))
}

fn store(directory: &Directory, key: &str, component: &Component, wasm: &[u8]) -> Result<(), String> {
    let artifact = component.serialize().map_err(|err| format!("can't be made: {err:#}"))?;
    // It has been compiled: there is nothing wrong with it.
    let inspection = inspect(wasm).map_err(|err| err.to_string())?;
    let about = About { maker: Maker::here(), key: key.to_owned(), inspection };
    directory.store(&artifact, &about)
}

/// Names a component as one compiler with its settings compiles it.
pub(crate) fn key(engine: &Engine, wasm: &[u8]) -> String {
    let mut digest = Sha256Hasher(Sha256::new());
    FORMAT.hash(&mut digest);
    wasmtime_environ::VERSION.hash(&mut digest);
    engine.precompile_compatibility_hash().hash(&mut digest);
    let Sha256Hasher(mut digest) = digest;
    digest.update(Sha256::digest(wasm));
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
