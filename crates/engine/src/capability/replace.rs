//! Single functions of the library's interfaces are replaced by our own, which look at bounds and grants, and call the
//! library's.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance};
use wasmtime_wasi::TrappableError;

use super::state::State;

/// The interfaces whose functions are replaced, as the library names them.
pub(crate) mod interface {
    pub(crate) const STREAMS: &str = "wasi:io/streams@0.2.12";
    pub(crate) const PREOPENS: &str = "wasi:filesystem/preopens@0.2.12";
    pub(crate) const ASYNC_PREOPENS: &str = "wasi:filesystem/preopens@0.3.0";
    pub(crate) const FILES: &str = "wasi:filesystem/types@0.2.12";
    pub(crate) const ASYNC_FILES: &str = "wasi:filesystem/types@0.3.0";
    pub(crate) const TCP: &str = "wasi:sockets/tcp@0.2.12";
    pub(crate) const TCP_CREATE: &str = "wasi:sockets/tcp-create-socket@0.2.12";
    pub(crate) const UDP: &str = "wasi:sockets/udp@0.2.12";
    pub(crate) const UDP_CREATE: &str = "wasi:sockets/udp-create-socket@0.2.12";
    pub(crate) const ASYNC_SOCKETS: &str = "wasi:sockets/types@0.3.0";
    pub(crate) const HTTP: &str = "wasi:http/types@0.2.12";
    pub(crate) const ASYNC_HTTP: &str = "wasi:http/types@0.3.0";
}

/// A linker whose functions are being replaced.
pub(crate) struct Replacing<'l> {
    linker: &'l mut Linker<State>,
}

impl<'l> Replacing<'l> {
    pub(crate) fn new(linker: &'l mut Linker<State>) -> Self {
        Replacing { linker }
    }

    /// The interface, in which the item of that name is to be defined anew.
    ///
    /// # Errors
    ///
    /// The library has linked no such item: a version of the library that renames it must not leave ours unused.
    pub(crate) fn item(
        &mut self,
        interface: &str,
        name: &str,
    ) -> wasmtime::Result<LinkerInstance<'_, State>> {
        self.linker.allow_shadowing(false);
        let unused = |_: StoreContextMut<'_, State>, (): ()| Ok(());
        if self.linker.instance(interface)?.func_wrap(name, unused).is_ok() {
            wasmtime::bail!("the library links no {name} in {interface}, which is to be replaced");
        }
        self.linker.allow_shadowing(true);
        self.linker.instance(interface)
    }
}

impl Drop for Replacing<'_> {
    fn drop(&mut self) {
        self.linker.allow_shadowing(false);
    }
}

/// The result of a function for the guest: a value, an error that it knows, or a trap.
pub(crate) fn returned<T, E>(result: Result<T, TrappableError<E>>) -> wasmtime::Result<(Result<T, E>,)>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}
