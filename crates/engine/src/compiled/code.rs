//! The file that a component or a core module is loaded from: WebAssembly, which is compiled or found in the
//! [cache](super::cache), or a `.cwasm` that its user trusts.

use std::thread;

use wasmhost_config::CompileLimits;
use wasmtime::Engine;

use super::cache::{Cache, SharedCode};
use super::cwasm::{self, CwasmError};
use super::inspect::{InspectError, binary_of, inspect};
use super::key::{Digest, digest};
use super::native;
use super::waiter::{Waiter, Wanted};
use crate::error::LoadError;
use crate::inspection::Inspection;

/// The file of a component or a core module, known to be one that can be loaded as far as its bytes tell. The default
/// has no bytes, and can't be.
#[derive(Default)]
pub struct Code {
    bytes: Vec<u8>,
    form: Form,
    wanted: Wanted,
}

enum Form {
    Wasm {
        digest: Digest,
    },
    /// Made by `wasmhost compile`, and trusted to be.
    Compiled {
        key: String,
    },
}

impl Default for Form {
    fn default() -> Self {
        Form::Wasm { digest: Digest::default() }
    }
}

impl Code {
    /// Looks at a file's bytes, which may be WebAssembly text. Compiled code runs outside of the sandbox: `trust_compiled` is the word of whoever
    /// runs it that they know where it comes from.
    pub fn new(bytes: Vec<u8>, trust_compiled: bool) -> Result<(Code, Inspection), InspectError> {
        let wanted = Wanted::default();
        let bytes = binary_of(bytes)?;
        if !cwasm::is_compiled(&bytes) {
            let (digest, inspection) = digest_and_inspect(&bytes);
            return Ok((Code { bytes, form: Form::Wasm { digest }, wanted }, inspection?));
        }
        if !trust_compiled {
            return Err(CwasmError::Untrusted.into());
        }
        let about = cwasm::read(&*bytes)?;
        Ok((Code { bytes, form: Form::Compiled { key: about.key }, wanted }, about.inspection))
    }

    /// Compiles it only as long as this waiter lives, or another one who waits for the same bytes: after that its process
    /// is ended. A compiler without processes of its own ([`Compiler::InProcess`](crate::Compiler::InProcess)) can't be
    /// ended, and goes on.
    pub fn wanted_by(&mut self, waiter: &Waiter) {
        self.wanted = Wanted::by(waiter);
    }

    /// The file's SHA-256 in hexadecimal digits. Compiled code has the cache's key instead, which depends on it.
    pub fn digest(&self) -> String {
        match &self.form {
            Form::Wasm { digest } => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            Form::Compiled { key } => key.clone(),
        }
    }

    /// The file's contents.
    pub fn contents(&self) -> &[u8] {
        &self.bytes
    }

    /// The file's length.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Its compiled form, for this engine.
    pub(crate) fn compiled(
        &self,
        engine: &Engine,
        cache: &Cache,
        limits: CompileLimits,
    ) -> Result<SharedCode, LoadError> {
        match &self.form {
            Form::Wasm { digest } => cache.compiled(engine, &self.bytes, digest, limits, &self.wanted),
            Form::Compiled { key } => cache.shared(&format!("trusted {key}"), &self.wanted, |_| {
                native::copy_trusted(engine, &self.bytes)
                    .map_err(|err| LoadError::OtherSettings(format!("{err:#}")))
            }),
        }
    }
}

/// The files of some languages have tens of megabytes, so that both take a while at a start: they are done at once.
fn digest_and_inspect(wasm: &[u8]) -> (Digest, Result<Inspection, InspectError>) {
    thread::scope(|scope| {
        let digesting = thread::Builder::new().spawn_scoped(scope, || digest(wasm));
        let inspection = inspect(wasm);
        let digested = digesting.ok().and_then(|digesting| digesting.join().ok());
        (digested.unwrap_or_else(|| digest(wasm)), inspection)
    })
}
