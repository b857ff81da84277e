//! Files of core modules, which know WASI 0.1 or its draft: the library's functions, with the bounds that components
//! have.
//!
//! The library keeps the files of its descriptors to itself. They are learned as they are opened, so that changes of a
//! directory with a bound are made as components make them.

use wasmtime::{Caller, Linker};
use wasmtime_wasi::p1::types::{Errno, Error};
use wasmtime_wasi::p2::bindings::filesystem::types::HostDescriptor;
use wasmtime_wasi::{p0, p1};

use super::apart::{Apart, change_entries};
use super::bounded::EntryChange;
use super::core_call::{Asked, Call, SUCCESS, code, of_system, path_flags};
use super::listing::has_more_than;
use crate::capability::state::State;

/// The library reads a directory whole each time that a guest asks for some entries. One that has more of them is refused.
const LISTED_ENTRIES_MAX: usize = 50_000;

/// Replaces functions of one version, which are the same but for their library.
macro_rules! replace {
    ($linker:ident, $package:literal, $library:path) => {{
        use $library as library;
        $linker.func_wrap_async($package, "path_open", |mut caller: Caller<'_, State>, asked: Asked| {
            Box::new(async move {
                let export = caller.get_export("memory");
                let mut call = Call::new(&export, &mut caller)?;
                code(call.path_open(asked).await)
            })
        })?;
        $linker.func_wrap_async($package, "fd_close", |mut caller: Caller<'_, State>, (fd,): (i32,)| {
            Box::new(async move {
                let export = caller.get_export("memory");
                let Call { state, mut memory, .. } = Call::new(&export, &mut caller)?;
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
                    let Call { state, mut memory, .. } = Call::new(&export, &mut caller)?;
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
                    if let Some(listed) = call.directory(fd)
                        && has_more_than(LISTED_ENTRIES_MAX, listed).await
                    {
                        return Ok(Errno::Nomem as i32);
                    }
                    let Call { state, memory, .. } = &mut call;
                    library::fd_readdir(state.p1(), memory, fd, to, len, cookie, read).await
                })
            },
        )?;
        replace_writing!($linker, $package);
        replace_changing!(
            $linker,
            $package,
            path_create_directory(dir: i32, path: i32, len: i32),
            Adds(dir => dir),
            |files, from, _to, [path: len]| HostDescriptor::create_directory_at(files, from, path)
        );
        replace_changing!(
            $linker,
            $package,
            path_remove_directory(dir: i32, path: i32, len: i32),
            Removes(dir => dir),
            |files, from, _to, [path: len]| HostDescriptor::remove_directory_at(files, from, path)
        );
        replace_changing!(
            $linker,
            $package,
            path_unlink_file(dir: i32, path: i32, len: i32),
            Removes(dir => dir),
            |files, from, _to, [path: len]| HostDescriptor::unlink_file_at(files, from, path)
        );
        replace_changing!(
            $linker,
            $package,
            path_symlink(target: i32, target_len: i32, dir: i32, path: i32, len: i32),
            Adds(dir => dir),
            |files, from, _to, [target: target_len, path: len]| HostDescriptor::symlink_at(files, from, target, path)
        );
        replace_changing!(
            $linker,
            $package,
            path_rename(dir: i32, path: i32, len: i32, new: i32, new_path: i32, new_len: i32),
            Moves(dir => new),
            |files, from, to, [path: len, new_path: new_len]| HostDescriptor::rename_at(files, from, path, to, new_path)
        );
        replace_changing!(
            $linker,
            $package,
            path_link(dir: i32, flags: i32, path: i32, len: i32, new: i32, new_path: i32, new_len: i32),
            Links(dir => new),
            |files, from, to, [path: len, new_path: new_len]| {
                HostDescriptor::link_at(files, from, path_flags(flags), path, to, new_path)
            }
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
                    if let Some(file) = call.bounded_file(fd) {
                        return code(call.write(fd, file, (pieces, count), None, written).await);
                    }
                    let Call { state, memory, .. } = &mut call;
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
                    if let Some(file) = call.bounded_file(fd) {
                        let position = Some(at.cast_unsigned());
                        return code(call.write(fd, file, (pieces, count), position, written).await);
                    }
                    let Call { state, memory, .. } = &mut call;
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
                    if let Some((bounded, file)) = call.bounded_file(fd) {
                        return code(bounded.set_size(file, size.cast_unsigned()).await.map_err(of_system));
                    }
                    let Call { state, memory, .. } = &mut call;
                    library::fd_filestat_set_size(state.p1(), memory, fd, size).await
                })
            },
        )?;
    };
}

/// Replaces a function that changes a directory's entries. The files come from `$from`, and the entries are those of `$to`.
/// Where that has a bound, the change is made as components make it, with these texts.
macro_rules! replace_changing {
    (
        $linker:ident, $package:literal, $method:ident($($argument:ident: $type:ty),*), $entries:ident($from:ident => $to:ident),
        |$files:ident, $source:ident, $target:ident, [$($text:ident: $len:ident),*]| $make:expr
    ) => {
        $linker.func_wrap_async(
            $package,
            stringify!($method),
            |mut caller: Caller<'_, State>, ($($argument,)*): ($($type,)*)| {
                Box::new(async move {
                    let export = caller.get_export("memory");
                    let mut call = Call::new(&export, &mut caller)?;
                    let changed = match call.bounded_places($from, $to) {
                        None => {
                            let Call { state, memory, .. } = &mut call;
                            library::$method(state.p1(), memory, $($argument),*).await?
                        }
                        Some((from, to)) => {
                            let texts = (|| Ok::<_, Error>(($(call.text($text, $len)?,)*)))();
                            let ($($text,)*) = match texts {
                                Ok(texts) => texts,
                                Err(err) => return code(Err(err)),
                            };
                            let make = |mut apart: Apart, $source, $target| async move {
                                let $files = &mut apart.files();
                                $make.await
                            };
                            code(change_entries(EntryChange::$entries, from, to, make).await.map_err(Error::from))?
                        }
                    };
                    call.note_refusal(changed, $from);
                    Ok(changed)
                })
            },
        )?;
    };
}

/// Replaces what opens and closes files. To be called on a linker that allows it.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    replace!(linker, "wasi_snapshot_preview1", p1::wasi_snapshot_preview1);
    replace!(linker, "wasi_unstable", p0::wasi_unstable);
    Ok(())
}
