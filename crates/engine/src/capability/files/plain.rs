//! `wasi:filesystem` of WASI 0.2.

use rustix::fs::FileType;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, DirectoryEntry, ErrorCode, Filesize, HostDescriptor, OpenFlags,
    PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::PATH_BYTES_MAX;
use super::listing::{Entry, Listing, ListingError};
use super::room::{Entries, Refused, Room, admit_entries};
use super::writer::Writer;
use crate::capability::replace::{Replacing, interface, returned};
use crate::capability::state::State;
use crate::sandbox::descriptors::Permit;
use crate::sandbox::holdings::Holding;

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
    replacing.item(interface::PREOPENS, GET)?.func_wrap(GET, |mut store, (): ()| {
        let directories = store.data_mut().filesystem().get_directories()?;
        store.data_mut().remember_grants(&directories);
        Ok((directories,))
    })?;
    const OPEN: &str = "[method]descriptor.open-at";
    replacing.item(interface::FILES, OPEN)?.func_wrap_async(OPEN, |mut store, opening: Opening| {
        Box::new(async move { returned(open_at(store.data_mut(), opening).await) })
    })?;
    const DESCRIPTOR: &str = "descriptor";
    replacing.item(interface::FILES, DESCRIPTOR)?.resource(
        DESCRIPTOR,
        ResourceType::host::<Descriptor>(),
        |mut store, handle| {
            store.data_mut().holdings.give_back(handle);
            HostDescriptor::drop(&mut store.data_mut().filesystem(), Resource::new_own(handle))
        },
    )
}

/// The directory, how links are followed, the path, and how to open.
type Opening = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

async fn open_at(
    state: &mut State,
    (directory, path_flags, path, open_flags, flags): Opening,
) -> FsResult<Resource<Descriptor>> {
    let within = directory.rep();
    if path.len() > PATH_BYTES_MAX {
        return Err(ErrorCode::NameTooLong.into());
    }
    let descriptor = take(state)?;
    let again = Resource::new_borrow(within);
    let found = HostDescriptor::stat_at(&mut state.filesystem(), again, path_flags, path.clone()).await;
    if found.is_ok_and(|found| !can_be_opened(found.type_)) {
        return Err(ErrorCode::Unsupported.into());
    }
    let room = state.room_of(within).filter(|_| open_flags.contains(OpenFlags::CREATE));
    let opening = (directory, path_flags, path, open_flags, flags);
    let opened = match room {
        Some(room) => create_at(state, &room, opening).await,
        None => open(state, opening).await,
    };
    match &opened {
        Ok(opened) => state.keep_opened(within, opened.rep(), descriptor),
        Err(_) => note_refusal(state, within, &opened),
    }
    opened
}

async fn open(
    state: &mut State,
    (directory, path_flags, path, open_flags, flags): Opening,
) -> FsResult<Resource<Descriptor>> {
    let mut files = state.filesystem();
    HostDescriptor::open_at(&mut files, directory, path_flags, path, open_flags, flags).await
}

/// Opens a file that may have to be created, for which there must be room. The file is opened as if it were there first.
async fn create_at(
    state: &mut State,
    room: &Room,
    (directory, path_flags, path, open_flags, flags): Opening,
) -> FsResult<Resource<Descriptor>> {
    let within = directory.rep();
    let opening =
        |open_flags, flags| (Resource::new_borrow(within), path_flags, path.clone(), open_flags, flags);
    if !open_flags.contains(OpenFlags::EXCLUSIVE) {
        // A file that is to be created is opened for writing, too.
        let read = if flags.contains(DescriptorFlags::WRITE) { flags } else { flags | DescriptorFlags::READ };
        let existing = opening(open_flags & !OpenFlags::CREATE, read | DescriptorFlags::WRITE);
        let opened = open(state, existing).await;
        let is_missing = |err: &FsError| matches!(err.downcast_ref(), Some(ErrorCode::NoEntry));
        if !opened.as_ref().is_err_and(is_missing) {
            return opened;
        }
    }
    let admitted = room.admit_entry().await.map_err(refused)?;
    let created = open(state, opening(open_flags | OpenFlags::EXCLUSIVE, flags)).await;
    let is_there = |err: &FsError| matches!(err.downcast_ref(), Some(ErrorCode::Exist));
    match created {
        // Somebody else has created it meanwhile, or it is a link to what isn't there.
        Err(err) if is_there(&err) && !open_flags.contains(OpenFlags::EXCLUSIVE) => {
            open(state, opening(open_flags, flags)).await
        }
        Err(err) => {
            admitted.undo();
            Err(err)
        }
        created => created,
    }
}

fn refused(refused: Refused) -> FsError {
    match refused {
        Refused::Full => ErrorCode::InsufficientSpace.into(),
        Refused::Across => ErrorCode::CrossDevice.into(),
    }
}

/// A link is for the library, which doesn't follow it where the guest says so.
fn can_be_opened(kind: DescriptorType) -> bool {
    matches!(kind, DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink)
}

/// A descriptor more. This error comes nearest, among those that WASI knows, to "too many open files".
fn take(state: &State) -> FsResult<Permit> {
    state.holdings.descriptors.take().ok_or_else(|| ErrorCode::Quota.into())
}

fn note_refusal<T>(state: &State, directory: u32, result: &FsResult<T>) {
    let code = result.as_ref().err().and_then(|err| err.downcast_ref());
    if let Some(ErrorCode::NotPermitted | ErrorCode::ReadOnly) = code {
        state.refuse_change(directory);
    }
}

/// A stream holds its file open, also when the guest has dropped the file.
fn link_streams(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const READ: &str = "[method]descriptor.read-via-stream";
    replacing.item(interface::FILES, READ)?.func_wrap(
        READ,
        |mut store, (file, offset): (Resource<Descriptor>, Filesize)| {
            returned(read_via_stream(store.data_mut(), file, offset))
        },
    )?;
    const WRITE: &str = "[method]descriptor.write-via-stream";
    replacing.item(interface::FILES, WRITE)?.func_wrap(
        WRITE,
        |mut store, (file, offset): (Resource<Descriptor>, Filesize)| {
            let state = store.data_mut();
            returned(write_stream(state, file, Some(offset), |files, file| {
                files.write_via_stream(file, offset)
            }))
        },
    )?;
    const APPEND: &str = "[method]descriptor.append-via-stream";
    replacing.item(interface::FILES, APPEND)?.func_wrap(
        APPEND,
        |mut store, (file,): (Resource<Descriptor>,)| {
            let state = store.data_mut();
            returned(write_stream(state, file, None, |files, file| files.append_via_stream(file)))
        },
    )
}

fn read_via_stream(
    state: &mut State,
    file: Resource<Descriptor>,
    offset: Filesize,
) -> FsResult<Resource<DynInputStream>> {
    let descriptor = take(state)?;
    let stream = state.filesystem().read_via_stream(file, offset)?;
    state.holdings.keep(stream.rep(), Holding { descriptor: Some(descriptor), ..Holding::default() });
    Ok(stream)
}

fn write_stream(
    state: &mut State,
    file: Resource<Descriptor>,
    position: Option<u64>,
    make: impl FnOnce(
        &mut wasmtime_wasi::filesystem::WasiFilesystemCtxView<'_>,
        Resource<Descriptor>,
    ) -> FsResult<Resource<DynOutputStream>>,
) -> FsResult<Resource<DynOutputStream>> {
    let descriptor = take(state)?;
    let within = file.rep();
    let room = state.room_of_file(&file)?;
    let stream = make(&mut state.filesystem(), file);
    match &stream {
        Ok(stream) => {
            if let Some((room, file)) = room {
                *state.table.get_mut(stream)? = Box::new(Writer::new(file, room, position));
            }
            let holding = Holding { descriptor: Some(descriptor), ..Holding::default() };
            state.holdings.keep(stream.rep(), holding);
        }
        Err(_) => note_refusal(state, within, &stream),
    }
    stream
}

/// Writes without a stream, and sizes.
fn link_sizes(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const WRITE: &str = "[method]descriptor.write";
    type Written = (Resource<Descriptor>, Vec<u8>, Filesize);
    replacing.item(interface::FILES, WRITE)?.func_wrap_async(WRITE, |mut store, written: Written| {
        Box::new(async move { returned(write(store.data_mut(), written).await) })
    })?;
    const SET_SIZE: &str = "[method]descriptor.set-size";
    replacing.item(interface::FILES, SET_SIZE)?.func_wrap_async(
        SET_SIZE,
        |mut store, (file, size): (Resource<Descriptor>, Filesize)| {
            Box::new(async move { returned(set_size(store.data_mut(), file, size).await) })
        },
    )
}

async fn write(
    state: &mut State,
    (file, bytes, position): (Resource<Descriptor>, Vec<u8>, Filesize),
) -> FsResult<Filesize> {
    let Some((room, opened)) = state.room_of_file(&file)? else {
        return HostDescriptor::write(&mut state.filesystem(), file, bytes, position).await;
    };
    let written = bytes.len() as u64;
    room.write(opened, Some(position), bytes.into()).await.map_err(|err| ErrorCode::from(&err))?;
    Ok(written)
}

async fn set_size(state: &mut State, file: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
    match state.room_of_file(&file)? {
        None => HostDescriptor::set_size(&mut state.filesystem(), file, size).await,
        Some((room, opened)) => Ok(room.set_size(opened, size).await.map_err(|err| ErrorCode::from(&err))?),
    }
}

fn link_listing(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const LIST: &str = "[method]descriptor.read-directory";
    replacing.item(interface::FILES, LIST)?.func_wrap_async(
        LIST,
        |mut store, (directory,): (Resource<Descriptor>,)| {
            Box::new(async move { returned(read_directory(store.data_mut(), directory).await) })
        },
    )?;
    const NEXT: &str = "[method]directory-entry-stream.read-directory-entry";
    replacing.item(interface::FILES, NEXT)?.func_wrap_async(
        NEXT,
        |mut store, (listing,): (Resource<Listing>,)| {
            Box::new(async move {
                let next = store.data_mut().table.get_mut(&listing)?.next().await;
                returned(next.map(|entry| entry.map(to_guest)).map_err(listing_failed))
            })
        },
    )?;
    const ENTRIES: &str = "directory-entry-stream";
    replacing.item(interface::FILES, ENTRIES)?.resource(
        ENTRIES,
        ResourceType::host::<Listing>(),
        |mut store, handle| {
            let state = store.data_mut();
            state.holdings.give_back(handle);
            state.table.delete(Resource::<Listing>::new_own(handle))?;
            Ok(())
        },
    )
}

async fn read_directory(state: &mut State, directory: Resource<Descriptor>) -> FsResult<Resource<Listing>> {
    let descriptor = take(state)?;
    let Descriptor::Dir(directory) = state.table.get(&directory)? else {
        return Err(ErrorCode::NotDirectory.into());
    };
    let mut listing = Listing::new(directory.dir.clone());
    listing.begin().await.map_err(listing_failed)?;
    let listing = state.table.push(listing)?;
    state.holdings.keep(listing.rep(), Holding { descriptor: Some(descriptor), ..Holding::default() });
    Ok(listing)
}

fn to_guest(entry: Entry) -> DirectoryEntry {
    let kind = match entry.kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::Fifo => DescriptorType::Fifo,
        FileType::Socket => DescriptorType::Socket,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::Unknown => DescriptorType::Unknown,
    };
    DirectoryEntry { type_: kind, name: entry.name }
}

fn listing_failed(error: ListingError) -> FsError {
    match error {
        ListingError::Io(err) => ErrorCode::from(&err).into(),
        ListingError::Name => ErrorCode::IllegalByteSequence.into(),
    }
}

/// Functions that change a directory's entries do what the library's do, if there is room, and note where the grant
/// doesn't allow it. The files come from `$from`, and the entries are those of `$to`.
macro_rules! changing {
    ($replacing:ident, $name:literal, $entries:ident($from:ident => $to:ident), $method:ident($($argument:ident: $type:ty),*)) => {
        $replacing.item(interface::FILES, $name)?.func_wrap_async(
            $name,
            |mut store, ($from, $($argument,)*): (Resource<Descriptor>, $($type,)*)| {
                Box::new(async move {
                    let state = store.data_mut();
                    let within = $from.rep();
                    let (from, to) = (state.room_of(within), state.room_of($to.rep()));
                    let admitted = match admit_entries(Entries::$entries, from.as_ref(), to.as_ref()).await {
                        Ok(admitted) => admitted,
                        Err(reason) => return returned(Err(refused(reason))),
                    };
                    let changed = HostDescriptor::$method(&mut state.filesystem(), $from, $($argument),*).await;
                    if let (Err(_), Some(admitted)) = (&changed, admitted) {
                        admitted.undo();
                    }
                    note_refusal(state, within, &changed);
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
