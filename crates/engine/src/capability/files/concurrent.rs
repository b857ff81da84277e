//! `wasi:filesystem` of WASI 0.3.

use std::fs::File;
use std::sync::Arc;

use tokio::sync::oneshot;
use wasmtime::component::{Access, Accessor, FutureReader, Linker, Resource, ResourceType, StreamReader};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::HostDescriptor;
use wasmtime_wasi::p3::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p3::bindings::filesystem::types as library;
use wasmtime_wasi::p3::bindings::filesystem::types::{
    DescriptorFlags, DirectoryEntry, ErrorCode, Filesize, HostDescriptorWithStore, OpenFlags, PathFlags,
};

use super::apart::{Apart, change_entries};
use super::bounded::{Bounded, EntryChange};
use super::consumer::Consumer;
use super::entries;
use super::listing::Listing;
use super::opening::{self, Opening};
use super::translation::{Plain, concurrent};
use crate::capability::held::hold_until;
use crate::capability::replace::{Replacing, interface, returned};
use crate::capability::state::State;

type FilesystemResult<T> = Result<T, TrappableError<ErrorCode>>;
/// A stream's end, as the guest is told of it.
type Ended = FutureReader<Result<(), ErrorCode>>;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut replacing = Replacing::new(linker);
    link_opening(&mut replacing)?;
    link_streams(&mut replacing)?;
    link_sizes(&mut replacing)?;
    link_listing(&mut replacing)?;
    link_changes(&mut replacing)
}

fn link_opening(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const GET: &str = "get-directories";
    replacing.item(interface::ASYNC_PREOPENS, GET)?.func_wrap(GET, |mut store, (): ()| {
        let directories = store.data_mut().filesystem().get_directories()?;
        store.data_mut().remember_grants(&directories);
        Ok((directories,))
    })?;
    const OPEN: &str = "[method]descriptor.open-at";
    replacing.item(interface::ASYNC_FILES, OPEN)?.func_wrap_concurrent(OPEN, |store, asked: Asked| {
        Box::pin(async move { returned(concurrent(open_at(store, asked).await)) })
    })?;
    const DESCRIPTOR: &str = "descriptor";
    replacing.item(interface::ASYNC_FILES, DESCRIPTOR)?.resource(
        DESCRIPTOR,
        ResourceType::host::<Descriptor>(),
        |mut store, handle| {
            store.data_mut().holdings.give_back(handle);
            library::HostDescriptor::drop(&mut store.data_mut().filesystem(), Resource::new_own(handle))
        },
    )
}

/// The directory, how links are followed, the path, and how to open.
type Asked = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

async fn open_at(
    store: &Accessor<State>,
    (directory, path_flags, path, open_flags, flags): Asked,
) -> FsResult<Resource<Descriptor>> {
    let within = directory.rep();
    let (permit, place) = store.with(|mut access| {
        let state = access.get();
        FsResult::Ok((state.take_descriptor()?, state.place(&directory)?))
    })?;
    let (path_flags, open_flags, flags) = (path_flags.plain(), open_flags.plain(), flags.plain());
    let opened = opening::open(place, Opening { path_flags, path, open_flags, flags }).await;
    store.with(|mut access| access.get().keep_opened(within, opened, permit))
}

/// A stream holds its file open, also when the guest has dropped the file.
fn link_streams(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const READ: &str = "[method]descriptor.read-via-stream";
    replacing.item(interface::ASYNC_FILES, READ)?.func_wrap(
        READ,
        |mut store, (file, offset): (Resource<Descriptor>, Filesize)| {
            let Ok(descriptor) = store.data().take_descriptor() else {
                let nothing = StreamReader::new(&mut store, std::iter::empty())?;
                return Ok(((nothing, too_many(&mut store)?),));
            };
            let access = Access::<State, WasiFilesystem>::new(store.as_context_mut(), State::filesystem);
            let (stream, ended) = WasiFilesystem::read_via_stream(access, file, offset)?;
            Ok(((stream, hold_until(&mut store, ended, descriptor)?),))
        },
    )?;
    const WRITE: &str = "[method]descriptor.write-via-stream";
    replacing.item(interface::ASYNC_FILES, WRITE)?.func_wrap(
        WRITE,
        |mut store, (file, mut data, offset): (Resource<Descriptor>, StreamReader<u8>, Filesize)| {
            let Ok(descriptor) = store.data().take_descriptor() else {
                data.close(&mut store)?;
                return Ok((too_many(&mut store)?,));
            };
            store.data().refuse_change(file.rep());
            if let Some(bounded) = store.data().bounded_file(&file)? {
                let ended = consume(&mut store, data, bounded, Some(offset))?;
                return Ok((hold_until(&mut store, ended, descriptor)?,));
            }
            let access = Access::<State, WasiFilesystem>::new(store.as_context_mut(), State::filesystem);
            let ended = WasiFilesystem::write_via_stream(access, file, data, offset)?;
            Ok((hold_until(&mut store, ended, descriptor)?,))
        },
    )?;
    const APPEND: &str = "[method]descriptor.append-via-stream";
    replacing.item(interface::ASYNC_FILES, APPEND)?.func_wrap(
        APPEND,
        |mut store, (file, mut data): (Resource<Descriptor>, StreamReader<u8>)| {
            let Ok(descriptor) = store.data().take_descriptor() else {
                data.close(&mut store)?;
                return Ok((too_many(&mut store)?,));
            };
            store.data().refuse_change(file.rep());
            if let Some(bounded) = store.data().bounded_file(&file)? {
                let ended = consume(&mut store, data, bounded, None)?;
                return Ok((hold_until(&mut store, ended, descriptor)?,));
            }
            let access = Access::<State, WasiFilesystem>::new(store.as_context_mut(), State::filesystem);
            let ended = WasiFilesystem::append_via_stream(access, file, data)?;
            Ok((hold_until(&mut store, ended, descriptor)?,))
        },
    )
}

/// Writes a guest's stream to a file in a directory with a bound.
fn consume(
    store: &mut StoreContextMut<'_, State>,
    data: StreamReader<u8>,
    (bounded, file): (Bounded, Arc<File>),
    position: Option<u64>,
) -> wasmtime::Result<Ended> {
    let (tell, ended) = oneshot::channel();
    data.pipe(&mut *store, Consumer::new(file, bounded, position, tell))?;
    FutureReader::new(store, ended)
}

fn link_sizes(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const SET_SIZE: &str = "[method]descriptor.set-size";
    replacing.item(interface::ASYNC_FILES, SET_SIZE)?.func_wrap_concurrent(
        SET_SIZE,
        |store, (file, size): (Resource<Descriptor>, Filesize)| {
            Box::pin(async move { returned(set_size(store, file, size).await) })
        },
    )
}

async fn set_size(
    store: &Accessor<State>,
    file: Resource<Descriptor>,
    size: Filesize,
) -> FilesystemResult<()> {
    let bounded = store.with(|mut access| access.get().bounded_file(&file));
    match bounded.map_err(TrappableError::trap)? {
        None => {
            let files = store.with_getter::<WasiFilesystem>(State::filesystem);
            WasiFilesystem::set_size(&files, file, size).await
        }
        Some((bounded, opened)) => Ok(bounded.set_size(opened, size).await.map_err(ErrorCode::from)?),
    }
}

fn too_many(store: &mut StoreContextMut<'_, State>) -> wasmtime::Result<Ended> {
    FutureReader::new(store, async { wasmtime::error::Ok(Err(ErrorCode::Quota)) })
}

fn link_listing(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const LIST: &str = "[method]descriptor.read-directory";
    replacing
        .item(interface::ASYNC_FILES, LIST)?
        .func_wrap(LIST, |mut store, (directory,): (Resource<Descriptor>,)| {
            Ok((read_directory(&mut store, &directory)?,))
        })
}

fn read_directory(
    store: &mut StoreContextMut<'_, State>,
    directory: &Resource<Descriptor>,
) -> wasmtime::Result<(StreamReader<DirectoryEntry>, Ended)> {
    let (tell, ended) = oneshot::channel();
    let state = store.data_mut();
    let entries = match (state.table.get(directory)?, state.take_descriptor()) {
        (Descriptor::Dir(directory), Ok(descriptor)) => {
            let listing = Listing::new(directory.dir.clone());
            StreamReader::new(&mut *store, entries::Entries::new(listing, descriptor, tell))?
        }
        (directory, _) => {
            let is_directory = matches!(directory, Descriptor::Dir(_));
            let code = if is_directory { ErrorCode::Quota } else { ErrorCode::NotDirectory };
            let _ = tell.send(Err(code));
            StreamReader::new(&mut *store, std::iter::empty())?
        }
    };
    Ok((entries, FutureReader::new(store, ended)?))
}

/// Functions that change a directory's entries do what the library's do, if there is room, and note where the grant
/// doesn't allow it. The files come from `$from`, and the entries are those of `$to`.
macro_rules! changing {
    ($replacing:ident, $name:literal, $entries:ident($from:ident => $to:ident), $method:ident($($argument:ident: $type:ty),*)) => {
        $replacing.item(interface::ASYNC_FILES, $name)?.func_wrap_concurrent(
            $name,
            |store, ($from, $($argument,)*): (Resource<Descriptor>, $($type,)*)| {
                Box::pin(async move {
                    let within = $from.rep();
                    let (from, to) = store.with(|mut access| {
                        let state = access.get();
                        wasmtime::error::Ok((state.place(&$from)?, state.place(&$to)?))
                    })?;
                    let make = |mut apart: Apart, from: Resource<Descriptor>, to: Resource<Descriptor>| async move {
                        // Where both are one directory, they have one name.
                        #[allow(unused_variables)]
                        let $from = from;
                        let $to = to;
                        HostDescriptor::$method(&mut apart.files(), $from, $($argument.plain()),*).await
                    };
                    let changed = change_entries(EntryChange::$entries, from, to, make).await;
                    store.with(|mut access| access.get().note_refusal(within, &changed));
                    returned(concurrent(changed))
                })
            },
        )?;
    };
}

fn link_changes(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    changes!(changing, replacing);
    Ok(())
}
