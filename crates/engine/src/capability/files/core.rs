//! Files of core modules, which know WASI 0.1 or its draft: the library's functions, with the bounds that components
//! have.

use wasmtime::{AsContextMut, Caller, Extern, Linker};
use wasmtime_wasi::p1::types::{Errno, Fd, Fdflags, Filetype, Lookupflags};
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wasmtime_wasi::{p0, p1};
use wiggle::{GuestMemory, GuestPtr};

use super::PATH_BYTES_MAX;
use super::room::{Entries, Refused, admit_entries};
use crate::capability::state::State;
use crate::sandbox::descriptors::Permit;
use crate::sandbox::usage::Admitted;

/// Flags of `path_open`: the file is created if it isn't there; it must not be there.
const CREATE: i32 = 1;
const EXCLUSIVE: i32 = 4;

/// The library reads a directory whole each time that a guest asks for some entries. One that takes more on the disk than
/// this, in bytes, is refused.
const LISTED_BYTES_MAX: u64 = 4 << 20;

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
                    let permit = match call.admit_opening(dir, lookup, (path, len)).await {
                        Ok(permit) => permit,
                        Err(errno) => return Ok(errno as i32),
                    };
                    let mut code = Errno::Noent as i32;
                    let mut created = None;
                    for how in ways_to_open(how, call.has_room_to_ask(dir)) {
                        if how & CREATE != 0 && created.is_none() {
                            created = match call.admit(Entries::Adds, dir, dir).await {
                                Ok(admitted) => admitted,
                                Err(errno) => return Ok(errno as i32),
                            };
                        }
                        let Call { state, memory, .. } = &mut call;
                        code = library::path_open(
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
                        let is_next = if how & CREATE == 0 { Errno::Noent } else { Errno::Exist };
                        if code != is_next as i32 {
                            break;
                        }
                    }
                    call.changed(code, dir, created);
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
        $linker.func_wrap_async(
            $package,
            "fd_readdir",
            |mut caller: Caller<'_, State>, (fd, to, len, cookie, read): (i32, i32, i32, i64, i32)| {
                Box::new(async move {
                    let export = caller.get_export("memory");
                    let mut call = Call::new(&export, &mut caller)?;
                    if call.length(fd).await.is_ok_and(|length| length > LISTED_BYTES_MAX) {
                        return Ok(Errno::Nomem as i32);
                    }
                    let Call { state, memory } = &mut call;
                    library::fd_readdir(state.p1(), memory, fd, to, len, cookie, read).await
                })
            },
        )?;
        replace_writing!($linker, $package);
        replace_changing!($linker, $package, path_create_directory(dir: i32, path: i32, len: i32), Adds(dir => dir));
        replace_changing!($linker, $package, path_remove_directory(dir: i32, path: i32, len: i32), Removes(dir => dir));
        replace_changing!($linker, $package, path_unlink_file(dir: i32, path: i32, len: i32), Removes(dir => dir));
        replace_changing!(
            $linker,
            $package,
            path_symlink(to: i32, to_len: i32, dir: i32, path: i32, len: i32),
            Adds(dir => dir)
        );
        replace_changing!(
            $linker,
            $package,
            path_rename(dir: i32, path: i32, len: i32, new: i32, new_path: i32, new_len: i32),
            Moves(dir => new)
        );
        replace_changing!(
            $linker,
            $package,
            path_link(dir: i32, flags: i32, path: i32, len: i32, new: i32, new_path: i32, new_len: i32),
            Links(dir => new)
        );
    }};
}

/// Replaces functions that write to a file, or give it another size.
macro_rules! replace_writing {
    ($linker:ident, $package:literal) => {
        $linker.func_wrap_async(
            $package,
            "fd_write",
            |mut caller: Caller<'_, State>, (fd, pieces, count, written): (i32, i32, i32, i32)| {
                Box::new(async move {
                    let export = caller.get_export("memory");
                    let mut call = Call::new(&export, &mut caller)?;
                    let _admitted = match call.admit_write(fd, (pieces, count), None).await {
                        Ok(admitted) => admitted,
                        Err(errno) => return Ok(errno as i32),
                    };
                    let Call { state, memory } = &mut call;
                    library::fd_write(state.p1(), memory, fd, pieces, count, written).await
                })
            },
        )?;
        $linker.func_wrap_async(
            $package,
            "fd_pwrite",
            |mut caller: Caller<'_, State>, (fd, pieces, count, at, written): (i32, i32, i32, i64, i32)| {
                Box::new(async move {
                    let export = caller.get_export("memory");
                    let mut call = Call::new(&export, &mut caller)?;
                    let position = Some(at.cast_unsigned());
                    let _admitted = match call.admit_write(fd, (pieces, count), position).await {
                        Ok(admitted) => admitted,
                        Err(errno) => return Ok(errno as i32),
                    };
                    let Call { state, memory } = &mut call;
                    library::fd_pwrite(state.p1(), memory, fd, pieces, count, at, written).await
                })
            },
        )?;
        $linker.func_wrap_async(
            $package,
            "fd_filestat_set_size",
            |mut caller: Caller<'_, State>, (fd, size): (i32, i64)| {
                Box::new(async move {
                    let export = caller.get_export("memory");
                    let mut call = Call::new(&export, &mut caller)?;
                    let _admitted = match call.admit_size(fd, size.cast_unsigned()).await {
                        Ok(admitted) => admitted,
                        Err(errno) => return Ok(errno as i32),
                    };
                    let Call { state, memory } = &mut call;
                    library::fd_filestat_set_size(state.p1(), memory, fd, size).await
                })
            },
        )?;
    };
}

/// Replaces a function that changes a directory's entries. The files come from `$from`, and the entries are those of `$to`.
macro_rules! replace_changing {
    ($linker:ident, $package:literal, $method:ident($($argument:ident: $type:ty),*), $entries:ident($from:ident => $to:ident)) => {
        $linker.func_wrap_async(
            $package,
            stringify!($method),
            |mut caller: Caller<'_, State>, ($($argument,)*): ($($type,)*)| {
                Box::new(async move {
                    let export = caller.get_export("memory");
                    let mut call = Call::new(&export, &mut caller)?;
                    let admitted = match call.admit(Entries::$entries, $from, $to).await {
                        Ok(admitted) => admitted,
                        Err(errno) => return Ok(errno as i32),
                    };
                    let Call { state, memory } = &mut call;
                    let code = library::$method(state.p1(), memory, $($argument),*).await?;
                    call.changed(code, $from, admitted);
                    Ok(code)
                })
            },
        )?;
    };
}

/// The functions that call the library's tell nothing else but that they went well.
const SUCCESS: i32 = Errno::Success as i32;

/// Replaces what opens and closes files. To be called on a linker that allows it.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    replace!(linker, "wasi_snapshot_preview1", p1::wasi_snapshot_preview1);
    replace!(linker, "wasi_unstable", p0::wasi_unstable);
    Ok(())
}

/// How often a file is looked at that others truncate meanwhile.
const LOOKS_MAX: u32 = 8;

/// In which ways a file is opened, one after another until it is. In a directory with a bound one that may have to be created
/// is opened as if it were there first, then as one that isn't, and then in any way.
fn ways_to_open(how: i32, has_bound: bool) -> Vec<i32> {
    match how {
        _ if !has_bound || how & CREATE == 0 || how & EXCLUSIVE != 0 => vec![how],
        _ => vec![how & !CREATE, how | EXCLUSIVE, how],
    }
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

    /// The right to change entries, where their directory has a bound.
    async fn admit(&mut self, entries: Entries, from: i32, to: i32) -> Result<Option<Admitted>, Errno> {
        let from = self.state.room_of(from.cast_unsigned());
        let to = self.state.room_of(to.cast_unsigned());
        admit_entries(entries, from.as_ref(), to.as_ref()).await.map_err(|reason| match reason {
            Refused::Full => Errno::Nospc,
            Refused::Across => Errno::Xdev,
        })
    }

    fn has_room_to_ask(&self, dir: i32) -> bool {
        self.state.room_of(dir.cast_unsigned()).is_some()
    }

    fn changed(&mut self, code: i32, dir: i32, admitted: Option<Admitted>) {
        if code != SUCCESS {
            admitted.into_iter().for_each(Admitted::undo);
        }
        if [Errno::Perm as i32, Errno::Rofs as i32].contains(&code) {
            self.state.refuse_change(dir.cast_unsigned());
        }
    }

    /// The right to write, where the file is in a directory with a bound. The library writes the first piece that isn't
    /// empty.
    async fn admit_write(
        &mut self,
        fd: i32,
        (pieces, count): (i32, i32),
        position: Option<u64>,
    ) -> Result<Option<Admitted>, Errno> {
        let Some(room) = self.state.room_of(fd.cast_unsigned()) else { return Ok(None) };
        let mut bytes = 0;
        for piece in 0..count.cast_unsigned() {
            let at = pieces.cast_unsigned().checked_add(piece.saturating_mul(8)).ok_or(Errno::Fault)?;
            let len = GuestPtr::<u32>::new(at.checked_add(4).ok_or(Errno::Fault)?);
            bytes = self.memory.read(len).map_err(|_| Errno::Fault)? as usize;
            if bytes > 0 {
                break;
            }
        }
        for _ in 0..LOOKS_MAX {
            let (length, at) = (self.length(fd).await?, self.position(fd, position).await?);
            let admitted = room.admit_write(|| Ok(length), at, bytes).await.map_err(|_| Errno::Nospc)?;
            // From now on the directory isn't counted. Somebody may have truncated the file before that.
            if self.length(fd).await? >= length {
                return Ok(Some(admitted));
            }
            admitted.undo();
        }
        Err(Errno::Again)
    }

    /// The same for another size.
    async fn admit_size(&mut self, fd: i32, size: u64) -> Result<Option<Admitted>, Errno> {
        let Some(room) = self.state.room_of(fd.cast_unsigned()) else { return Ok(None) };
        for _ in 0..LOOKS_MAX {
            let length = self.length(fd).await?;
            let admitted = room.admit_size(|| Ok(length), size).await.map_err(|_| Errno::Nospc)?;
            if self.length(fd).await? >= length {
                return Ok(Some(admitted));
            }
            admitted.undo();
        }
        Err(Errno::Again)
    }

    /// How long a file or a directory is.
    async fn length(&mut self, fd: i32) -> Result<u64, Errno> {
        let found = self.state.p1().fd_filestat_get(&mut self.memory, Fd::from(fd.cast_unsigned())).await;
        found.map(|found| found.size).map_err(|_| Errno::Badf)
    }

    /// Where a write goes; `None` is the end.
    async fn position(&mut self, fd: i32, given: Option<u64>) -> Result<Option<u64>, Errno> {
        let (fd, p1) = (Fd::from(fd.cast_unsigned()), self.state.p1());
        let found = p1.fd_fdstat_get(&mut self.memory, fd).await.map_err(|_| Errno::Badf)?;
        if found.fs_flags.contains(Fdflags::APPEND) {
            return Ok(None);
        }
        match given {
            Some(position) => Ok(Some(position)),
            None => p1.fd_tell(&mut self.memory, fd).map(Some).map_err(|_| Errno::Badf),
        }
    }

    /// A descriptor more, for a regular file or a directory. A FIFO could hold one of the host's threads for ever.
    async fn admit_opening(
        &mut self,
        dir: i32,
        lookup: i32,
        (path, len): (i32, i32),
    ) -> Result<Permit, Errno> {
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
        }
        Ok(())
    }
}
