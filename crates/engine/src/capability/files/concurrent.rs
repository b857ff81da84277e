//! `wasi:filesystem` of WASI 0.3.

use std::fs::File;
use std::sync::Arc;

use tokio::sync::oneshot;
use wasmtime::component::{Access, Accessor, FutureReader, Linker, Resource, ResourceType, StreamReader};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p3::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p3::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, DirectoryEntry, ErrorCode, Filesize, HostDescriptor,
    HostDescriptorWithStore, OpenFlags, PathFlags,
};

use super::PATH_BYTES_MAX;
use super::consumer::Consumer;
use super::entries;
use super::listing::Listing;
use super::room::{Entries, Refused, Room, admit_entries};
use crate::capability::held::hold_until;
use crate::capability::replace::{Replacing, interface, returned};
use crate::capability::state::State;
use crate::sandbox::descriptors::Permit;

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
    replacing.item(interface::ASYNC_FILES, OPEN)?.func_wrap_concurrent(OPEN, |store, opening: Opening| {
        Box::pin(async move { returned(open_at(store, opening).await) })
    })?;
    const DESCRIPTOR: &str = "descriptor";
    replacing.item(interface::ASYNC_FILES, DESCRIPTOR)?.resource(
        DESCRIPTOR,
        ResourceType::host::<Descriptor>(),
        |mut store, handle| {
            store.data_mut().holdings.give_back(handle);
            HostDescriptor::drop(&mut store.data_mut().filesystem(), Resource::new_own(handle))
        },
    )
}

type Opening = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

async fn open_at(
    store: &Accessor<State>,
    (directory, path_flags, path, open_flags, flags): Opening,
) -> FilesystemResult<Resource<Descriptor>> {
    let within = directory.rep();
    if path.len() > PATH_BYTES_MAX {
        return Err(ErrorCode::NameTooLong.into());
    }
    let descriptor = store.with(|mut access| take(access.get()))?;
    let files = store.with_getter::<WasiFilesystem>(State::filesystem);
    let again = Resource::new_borrow(within);
    let found = WasiFilesystem::stat_at(&files, again, path_flags, path.clone()).await;
    if found.is_ok_and(|found| !can_be_opened(&found.type_)) {
        return Err(ErrorCode::Unsupported.into());
    }
    let room = match open_flags.contains(OpenFlags::CREATE) {
        true => store.with(|mut access| access.get().room_of(within)),
        false => None,
    };
    let opening = (directory, path_flags, path, open_flags, flags);
    let opened = match room {
        Some(room) => create_at(store, &room, opening).await,
        None => open(store, opening).await,
    };
    store.with(|mut access| {
        let state = access.get();
        match &opened {
            Ok(opened) => state.keep_opened(within, opened.rep(), descriptor),
            Err(_) => note_refusal(state, within, &opened),
        }
    });
    opened
}

async fn open(
    store: &Accessor<State>,
    (directory, path_flags, path, open_flags, flags): Opening,
) -> FilesystemResult<Resource<Descriptor>> {
    let files = store.with_getter::<WasiFilesystem>(State::filesystem);
    WasiFilesystem::open_at(&files, directory, path_flags, path, open_flags, flags).await
}

/// Opens a file that may have to be created, for which there must be room. The file is opened as if it were there first.
async fn create_at(
    store: &Accessor<State>,
    room: &Room,
    (directory, path_flags, path, open_flags, flags): Opening,
) -> FilesystemResult<Resource<Descriptor>> {
    let within = directory.rep();
    let opening =
        |open_flags, flags| (Resource::new_borrow(within), path_flags, path.clone(), open_flags, flags);
    if !open_flags.contains(OpenFlags::EXCLUSIVE) {
        // A file that is to be created is opened for writing, too.
        let read = if flags.contains(DescriptorFlags::WRITE) { flags } else { flags | DescriptorFlags::READ };
        let existing = opening(open_flags & !OpenFlags::CREATE, read | DescriptorFlags::WRITE);
        let opened = open(store, existing).await;
        if !opened.as_ref().is_err_and(|err| matches!(err.downcast_ref(), Some(ErrorCode::NoEntry))) {
            return opened;
        }
    }
    let admitted = room.admit_entry().await.map_err(refused)?;
    match open(store, opening(open_flags | OpenFlags::EXCLUSIVE, flags)).await {
        // Somebody else has created it meanwhile, or it is a link to what isn't there.
        Err(err)
            if matches!(err.downcast_ref(), Some(ErrorCode::Exist))
                && !open_flags.contains(OpenFlags::EXCLUSIVE) =>
        {
            open(store, opening(open_flags, flags)).await
        }
        Err(err) => {
            admitted.undo();
            Err(err)
        }
        created => created,
    }
}

fn refused(refused: Refused) -> TrappableError<ErrorCode> {
    match refused {
        Refused::Full => ErrorCode::InsufficientSpace.into(),
        Refused::Across => ErrorCode::CrossDevice.into(),
    }
}

/// A link is for the library, which doesn't follow it where the guest says so.
fn can_be_opened(kind: &DescriptorType) -> bool {
    matches!(kind, DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink)
}

/// A descriptor more. This error comes nearest, among those that WASI knows, to "too many open files".
fn take(state: &State) -> FilesystemResult<Permit> {
    state.holdings.descriptors.take().ok_or_else(|| ErrorCode::Quota.into())
}

fn note_refusal<T>(state: &State, directory: u32, result: &FilesystemResult<T>) {
    let code = result.as_ref().err().and_then(|err| err.downcast_ref());
    if let Some(ErrorCode::NotPermitted | ErrorCode::ReadOnly) = code {
        state.refuse_change(directory);
    }
}

/// A stream holds its file open, also when the guest has dropped the file.
fn link_streams(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const READ: &str = "[method]descriptor.read-via-stream";
    replacing.item(interface::ASYNC_FILES, READ)?.func_wrap(
        READ,
        |mut store, (file, offset): (Resource<Descriptor>, Filesize)| {
            let Ok(descriptor) = take(store.data()) else {
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
            let Ok(descriptor) = take(store.data()) else {
                data.close(&mut store)?;
                return Ok((too_many(&mut store)?,));
            };
            store.data().refuse_change(file.rep());
            if let Some((room, file)) = store.data().room_of_file(&file)? {
                let ended = consume(&mut store, data, (room, file), Some(offset))?;
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
            let Ok(descriptor) = take(store.data()) else {
                data.close(&mut store)?;
                return Ok((too_many(&mut store)?,));
            };
            store.data().refuse_change(file.rep());
            if let Some((room, file)) = store.data().room_of_file(&file)? {
                let ended = consume(&mut store, data, (room, file), None)?;
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
    (room, file): (Room, Arc<File>),
    position: Option<u64>,
) -> wasmtime::Result<Ended> {
    let (tell, ended) = oneshot::channel();
    data.pipe(&mut *store, Consumer::new(file, room, position, tell))?;
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
    let bounded = store.with(|mut access| access.get().room_of_file(&file));
    match bounded.map_err(TrappableError::trap)? {
        None => {
            let files = store.with_getter::<WasiFilesystem>(State::filesystem);
            WasiFilesystem::set_size(&files, file, size).await
        }
        Some((room, opened)) => Ok(room.set_size(opened, size).await.map_err(ErrorCode::from)?),
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
    let entries = match (state.table.get(directory)?, take(state)) {
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
                    let target = $to.rep();
                    let (from, to) = store.with(|mut access| {
                        let state = access.get();
                        (state.room_of(within), state.room_of(target))
                    });
                    let admitted = match admit_entries(Entries::$entries, from.as_ref(), to.as_ref()).await {
                        Ok(admitted) => admitted,
                        Err(reason) => return returned(Err(refused(reason))),
                    };
                    let files = store.with_getter::<WasiFilesystem>(State::filesystem);
                    let changed = WasiFilesystem::$method(&files, $from, $($argument),*).await;
                    if let (Err(_), Some(admitted)) = (&changed, admitted) {
                        admitted.undo();
                    }
                    store.with(|mut access| note_refusal(access.get(), within, &changed));
                    returned(changed)
                })
            },
        )?;
    };
}

fn link_changes(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    changes!(changing, replacing);
    Ok(())
}
