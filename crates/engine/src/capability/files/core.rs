//! Files of core modules, which know WASI 0.1 or its draft: the library's functions, with the bounds that components
//! have.

use wasmtime::{AsContextMut, Caller, Extern, Linker};
use wasmtime_wasi::p1::types::{Errno, Fd, Filetype, Lookupflags};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wasmtime_wasi::{p0, p1};
use wiggle::{GuestMemory, GuestPtr};

use super::PATH_BYTES_MAX;
use crate::capability::state::State;
use crate::sandbox::descriptors::Permit;

/// As its specification has them: the directory, how links are followed, the path and its length, how to open, rights,
/// rights to inherit, flags, and where the descriptor goes.
type Opening = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// Replaces functions of one version, which are the same but for their library.
macro_rules! replace {
    ($linker:ident, $package:literal, $library:path) => {{
        use $library as library;
        $linker.func_wrap_async(
            $package,
            "path_open",
            |mut caller: Caller<'_, State>, opening: Opening| {
                Box::new(async move {
                    let export = caller.get_export("memory");
                    let mut call = Call::new(&export, &mut caller)?;
                    let (dir, lookup, path, len, how, rights, inherited, flags, opened) = opening;
                    let permit = match call.admit(dir, lookup, (path, len)).await {
                        Ok(permit) => permit,
                        Err(errno) => return Ok(errno as i32),
                    };
                    let Call { state, memory, .. } = &mut call;
                    let code = library::path_open(
                        state.p1(),
                        memory,
                        dir,
                        lookup,
                        path,
                        len,
                        how,
                        rights,
                        inherited,
                        flags,
                        opened,
                    )
                    .await?;
                    call.opened(code, dir, opened, permit)?;
                    Ok(code)
                })
            },
        )?;
        $linker.func_wrap_async($package, "fd_close", |mut caller: Caller<'_, State>, (fd,): (i32,)| {
            Box::new(async move {
                let export = caller.get_export("memory");
                let Call { state, mut memory } = Call::new(&export, &mut caller)?;
                let code = library::fd_close(state.p1(), &mut memory, fd).await?;
                if code == SUCCESS {
                    state.holdings.give_back(fd.cast_unsigned());
                }
                Ok(code)
            })
        })?;
        $linker.func_wrap_async(
            $package,
            "fd_renumber",
            |mut caller: Caller<'_, State>, (from, to): (i32, i32)| {
                Box::new(async move {
                    let export = caller.get_export("memory");
                    let Call { state, mut memory } = Call::new(&export, &mut caller)?;
                    let code = library::fd_renumber(state.p1(), &mut memory, from, to).await?;
                    if code == SUCCESS {
                        state.holdings.renumber(from.cast_unsigned(), to.cast_unsigned());
                    }
                    Ok(code)
                })
            },
        )?;
    }};
}

/// The functions that call the library's tell nothing else but that they went well.
const SUCCESS: i32 = Errno::Success as i32;

/// Replaces what opens and closes files. To be called on a linker that allows it.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    replace!(linker, "wasi_snapshot_preview1", p1::wasi_snapshot_preview1);
    replace!(linker, "wasi_unstable", p0::wasi_unstable);
    Ok(())
}

/// A call of a guest's.
struct Call<'a> {
    state: &'a mut State,
    memory: GuestMemory<'a>,
}

impl<'a> Call<'a> {
    fn new(export: &'a Option<Extern>, caller: &'a mut Caller<'_, State>) -> wasmtime::Result<Call<'a>> {
        let fuel = caller.as_context_mut().hostcall_fuel();
        let (memory, state) = match export {
            Some(Extern::Memory(memory)) => {
                let (bytes, state) = memory.data_and_store_mut(caller);
                (GuestMemory::Unshared(bytes), state)
            }
            Some(Extern::SharedMemory(memory)) => (GuestMemory::Shared(memory.data()), caller.data_mut()),
            _ => wasmtime::bail!("the module exports no memory"),
        };
        WasiSnapshotPreview1::set_hostcall_fuel(state.p1(), fuel);
        Ok(Call { state, memory })
    }

    /// A descriptor more, for a regular file or a directory. A FIFO could hold one of the host's threads for ever.
    async fn admit(&mut self, dir: i32, lookup: i32, (path, len): (i32, i32)) -> Result<Permit, Errno> {
        let (path, len) = (path.cast_unsigned(), len.cast_unsigned());
        if len as usize > PATH_BYTES_MAX {
            return Err(Errno::Nametoolong);
        }
        let permit = self.state.holdings.descriptors.take().ok_or(Errno::Mfile)?;
        let lookup = Lookupflags::try_from(lookup).map_err(|_| Errno::Inval)?;
        let (dir, path) = (Fd::from(dir.cast_unsigned()), GuestPtr::<str>::new((path, len)));
        let found = self.state.p1().path_filestat_get(&mut self.memory, dir, lookup, path).await;
        // A link is for the library, which doesn't follow it where the guest says so.
        let can_be_opened =
            |kind| matches!(kind, Filetype::RegularFile | Filetype::Directory | Filetype::SymbolicLink);
        match found {
            Ok(found) if !can_be_opened(found.filetype) => Err(Errno::Notsup),
            // The library says what is wrong.
            Ok(_) | Err(_) => Ok(permit),
        }
    }

    fn opened(&mut self, code: i32, dir: i32, opened: i32, permit: Permit) -> wasmtime::Result<()> {
        let dir = dir.cast_unsigned();
        if code == SUCCESS {
            let opened = self.memory.read(GuestPtr::<u32>::new(opened.cast_unsigned()))?;
            self.state.keep_opened(dir, opened, permit);
        } else if [Errno::Perm as i32, Errno::Rofs as i32].contains(&code) {
            self.state.refuse_change(dir);
        }
        Ok(())
    }
}
