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
mod loads;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tracing::{debug, warn};
use wasmhost_config::CompileLimits;
use wasmparser::Parser;
use wasmtime::Engine;

use self::directory::Directory;
pub use self::loads::{Loaded, Loads};
use super::artifact::Compiled;
use super::compiler::{CompiledFile, Compiler};
use super::key::{Digest, key};
use super::native::{self, Unusable};
use super::waiter::{Crowd, Wanted};
use crate::error::LoadError;

/// Compiled code that types of this process have in common.
pub(crate) type SharedCode = Arc<Compiled>;

/// See the module.
pub struct Cache {
    directory: Option<Arc<Directory>>,
    compiler: Compiler,
    loads: Arc<Loads>,
    /// Code that is loaded, or being loaded. Code that no type uses any more is forgotten.
    loaded: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The place of code that types have in common.
#[derive(Default)]
struct Slot {
    /// Those that want it and don't have it yet.
    crowd: Crowd,
    /// Locked while it is being loaded.
    compiled: Mutex<Weak<Compiled>>,
}

impl Cache {
    /// Keeps nothing after this process.
    pub fn off() -> Cache {
        Cache {
            directory: None,
            compiler: Compiler::default(),
            loads: Arc::default(),
            loaded: Mutex::default(),
        }
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

    /// Compiles what isn't there in this way.
    #[must_use]
    pub fn compiled_by(self, compiler: Compiler) -> Cache {
        Cache { compiler, ..self }
    }

    /// The same directory, for another engine: code that is loaded is of one engine alone.
    pub(crate) fn beside(&self) -> Cache {
        let (compiler, loads) = (self.compiler.clone(), self.loads.clone());
        Cache { directory: self.directory.clone(), compiler, loads, loaded: Mutex::default() }
    }

    /// Where it counts what came of it.
    pub fn loads(&self) -> &Arc<Loads> {
        &self.loads
    }

    /// The compiled form of `wasm`, whose digest is this: the one that this process has, or the directory, or a new
    /// one. Compiling ends when nobody wants it any more.
    pub(super) fn compiled(
        &self,
        engine: &Engine,
        wasm: &[u8],
        digest: &Digest,
        limits: CompileLimits,
        wanted: &Wanted,
    ) -> Result<SharedCode, LoadError> {
        let key = key(engine, digest);
        self.shared(&key, wanted, |is_over| {
            let source = Source { engine, key: &key, wasm, limits, is_over, loads: &self.loads };
            match &self.directory {
                None => source.of_file(&source.compile(&self.compiler)?),
                Some(directory) => source.find_or_compile(directory, &self.compiler),
            }
        })
    }

    /// The code that this process has under that key, or else that `make` makes. Others wait while it is being made, and
    /// `make` may ask whether nobody waits for it any more, neither these nor those.
    pub(super) fn shared(
        &self,
        key: &str,
        wanted: &Wanted,
        make: impl FnOnce(&dyn Fn() -> bool) -> Result<Compiled, LoadError>,
    ) -> Result<SharedCode, LoadError> {
        let slot = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.retain(|_, slot| {
                // Somebody waits for it, or somebody has it.
                Arc::strong_count(slot) > 1
                    || slot.compiled.try_lock().is_ok_and(|compiled| compiled.strong_count() > 0)
            });
            loaded.entry(key.to_owned()).or_default().clone()
        };
        let _member = slot.crowd.join(wanted);
        let mut known = slot.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = known.upgrade() {
            self.loads.shared();
            return Ok(compiled);
        }
        let compiled = Arc::new(make(&|| slot.crowd.is_over())?);
        *known = Arc::downgrade(&compiled);
        Ok(compiled)
    }
}

/// A file that is to be had in its compiled form.
struct Source<'a> {
    engine: &'a Engine,
    key: &'a str,
    wasm: &'a [u8],
    limits: CompileLimits,
    /// Whether nobody waits for it any more.
    is_over: &'a dyn Fn() -> bool,
    loads: &'a Loads,
}

impl Source<'_> {
    fn find_or_compile(&self, directory: &Directory, compiler: &Compiler) -> Result<Compiled, LoadError> {
        let started = Instant::now();
        let entry = directory.entry(self.key);
        match directory.find(self.key, self.engine) {
            Ok(compiled) => {
                debug!("mapped {} in {:?}", entry.display(), started.elapsed());
                self.loads.mapped();
                return Ok(compiled);
            }
            Err(Unusable::Missing) => {}
            Err(Unusable::Because(problem)) => {
                warn!("{} {problem}: compiling anew, and replacing it", entry.display());
            }
        }
        let _lock = directory.lock(self.key, self.is_over);
        // The process that had the lock may have made it.
        if let Ok(compiled) = directory.find(self.key, self.engine) {
            let waited = started.elapsed();
            self.loads.mapped();
            debug!("mapped {}, which another process has made, after {waited:?}", entry.display());
            return Ok(compiled);
        }
        let file = self.compile(compiler)?;
        // All processes share the pages of a mapped file.
        let stored = directory.store(&file, self.key);
        let found = stored.and_then(|()| {
            directory.find(self.key, self.engine).map_err(|err| format!("can't be used: {err}"))
        });
        found.or_else(|problem| {
            warn!("what was compiled is not kept: {} {problem}", entry.display());
            self.of_file(&file)
        })
    }

    fn compile(&self, compiler: &Compiler) -> Result<CompiledFile, LoadError> {
        let started = Instant::now();
        // It has been looked at: there is nothing wrong with it but what a compiler finds.
        let compiled = compiler.compile_while(self.wasm, self.limits, self.is_over);
        self.loads.compiled(started.elapsed(), compiled.is_ok());
        let file = compiled.map_err(LoadError::from)?;
        let kind = if Parser::is_component(self.wasm) { "component" } else { "core module" };
        debug!("compiled a {kind} of {} bytes in {:?}", self.wasm.len(), started.elapsed());
        Ok(file)
    }

    fn of_file(&self, file: &CompiledFile) -> Result<Compiled, LoadError> {
        let bytes = file
            .bytes()
            .map_err(|err| LoadError::NoCompiler(format!("can't read what came of it: {err}")))?;
        native::copy_own(self.engine, &bytes, self.key)
            .map_err(|problem| LoadError::NoCompiler(format!("what came of it {problem}")))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::compiled::waiter::Waiter;

    #[test]
    fn what_one_gives_up_goes_on_for_another() {
        let (cache, engine) = (Cache::off(), Engine::default());
        let (first, second) = (Waiter::default(), Waiter::default());
        let (wanted, wanted_too) = (Wanted::by(&first), Wanted::by(&second));
        thread::scope(|scope| {
            let mut other = None;
            let made = cache.shared("key", &wanted, |is_over| {
                drop(first);
                assert!(is_over());
                other = Some(scope.spawn(|| cache.shared("key", &wanted_too, |_| Err(LoadError::Unwanted))));
                while is_over() {
                    thread::yield_now();
                }
                Ok(Compiled::Module(wasmtime::Module::new(&engine, b"\0asm\x01\0\0\0").unwrap()))
            });
            let (made, other) = (made.unwrap(), other.unwrap().join().unwrap());
            assert!(Arc::ptr_eq(&made, &other.unwrap()));
        });
        drop(second);
    }

    #[test]
    fn what_was_given_up_is_made_for_the_next() {
        let (cache, engine) = (Cache::off(), Engine::default());
        let waiter = Waiter::default();
        let given_up = cache.shared("key", &Wanted::by(&waiter), |is_over| {
            assert!(!is_over());
            drop(waiter);
            assert!(is_over());
            Err(LoadError::Unwanted)
        });
        assert!(matches!(given_up, Err(LoadError::Unwanted)));
        let made = cache.shared("key", &Wanted::default(), |is_over| {
            assert!(!is_over());
            Ok(Compiled::Module(wasmtime::Module::new(&engine, b"\0asm\x01\0\0\0").unwrap()))
        });
        assert!(made.is_ok());
    }
}
