//! What a component is loaded from: WebAssembly, which is compiled or found in the [cache](crate::cache), or a `.cwasm`
//! that its user trusts.

use std::io::Cursor;

use crate::cache::{Cache, Shared};
use crate::component::LoadError;
use crate::cwasm::{self, CwasmError};
use crate::inspect::{InspectError, Inspection, inspect};
use crate::native;

/// A component's file, known to be one that can be loaded as far as its bytes tell. The default has no bytes.
#[derive(Default)]
pub struct Code {
    bytes: Vec<u8>,
    form: Form,
}

#[derive(Default)]
enum Form {
    #[default]
    Wasm,
    /// Made by `wasmhost compile`, and trusted to be.
    Compiled { key: String },
}

impl Code {
    /// Looks at a file's bytes. Compiled code runs outside of the sandbox: `trust_compiled` is the word of whoever
    /// runs it that they know where it comes from.
    pub fn new(bytes: Vec<u8>, trust_compiled: bool) -> Result<(Code, Inspection), InspectError> {
        if !cwasm::is_compiled(&bytes) {
            let inspection = inspect(&bytes)?;
            return Ok((Code { bytes, form: Form::Wasm }, inspection));
        }
        if !trust_compiled {
            return Err(CwasmError::Untrusted.into());
        }
        let about = cwasm::read(&mut Cursor::new(&bytes))?;
        Ok((Code { bytes, form: Form::Compiled { key: about.key } }, about.inspection))
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The component, for this engine.
    pub(crate) fn component(&self, engine: &wasmtime::Engine, cache: &Cache) -> Result<Shared, LoadError> {
        match &self.form {
            Form::Wasm => cache.component(engine, &self.bytes),
            Form::Compiled { key } => cache.shared(&format!("trusted {key}"), || {
                native::copy_trusted(engine, &self.bytes)
                    .map_err(|err| LoadError::OtherSettings(format!("{err:#}")))
            }),
        }
    }
}
