//! A component or a core module in its compiled form.

use std::fmt;

use wasmparser::Parser;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// The compiled form of a file, by what the file is.
pub(crate) enum Compiled {
    Component(Component),
    Module(Module),
}

impl Compiled {
    /// Takes all cores, for up to seconds.
    pub(crate) fn new(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Compiled> {
        match Parser::is_component(wasm) {
            true => Component::from_binary(engine, wasm).map(Compiled::Component),
            false => Module::from_binary(engine, wasm).map(Compiled::Module),
        }
    }

    /// The bytes that [`native`](super::native) reads again.
    pub(crate) fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        match self {
            Compiled::Component(component) => component.serialize(),
            Compiled::Module(module) => module.serialize(),
        }
    }
}

impl fmt::Display for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compiled::Component(_) => "a component",
            Compiled::Module(_) => "a core module",
        })
    }
}
