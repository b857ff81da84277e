//! A component or a core module in its compiled form.

use wasmtime::Module;
use wasmtime::component::Component;

/// The compiled form of a file, by what the file is.
pub(crate) enum Compiled {
    Component(Component),
    Module(Module),
}
