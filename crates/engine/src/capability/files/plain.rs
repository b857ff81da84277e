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

use super::apart::{Apart, change_entries};
use super::bounded::EntryChange;
use super::listing::{Entry, Listing, ListingError};
use super::opening::{self, Opening};
use super::writer::Writer;
use crate::capability::replace::{Replacing, interface, returned};
use crate::capability::state::State;
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
    replacing.item(interface::FILES, OPEN)?.func_wrap_async(OPEN, |mut store, asked: Asked| {
        Box::new(async move { returned(open_at(store.data_mut(), asked).await) })
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
type Asked = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

async fn open_at(
    state: &mut State,
    (directory, path_flags, path, open_flags, flags): Asked,
) -> FsResult<Resource<Descriptor>> {
    let permit = state.take_descriptor()?;
    let within = directory.rep();
    let place = state.place(&directory)?;
    let opened = opening::open(place, Opening { path_flags, path, open_flags, flags }).await;
    state.keep_opened(within, opened, permit)
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
    let descriptor = state.take_descriptor()?;
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
    let descriptor = state.take_descriptor()?;
    let within = file.rep();
    let bounded = state.bounded_file(&file)?;
    let stream = make(&mut state.filesystem(), file);
    match &stream {
        Ok(stream) => {
            if let Some((bounded, file)) = bounded {
                *state.table.get_mut(stream)? = Box::new(Writer::new(file, bounded, position));
            }
            let holding = Holding { descriptor: Some(descriptor), ..Holding::default() };
            state.holdings.keep(stream.rep(), holding);
        }
        Err(_) => state.note_refusal(within, &stream),
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
    let Some((bounded, opened)) = state.bounded_file(&file)? else {
        return HostDescriptor::write(&mut state.filesystem(), file, bytes, position).await;
    };
    let written = bytes.len() as u64;
    bounded.write(opened, Some(position), bytes.into()).await.map_err(|err| ErrorCode::from(&err))?;
    Ok(written)
}

async fn set_size(state: &mut State, file: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
    match state.bounded_file(&file)? {
        None => HostDescriptor::set_size(&mut state.filesystem(), file, size).await,
        Some((bounded, opened)) => {
            Ok(bounded.set_size(opened, size).await.map_err(|err| ErrorCode::from(&err))?)
        }
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
    let descriptor = state.take_descriptor()?;
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
                    let (from, to) = (state.place(&$from)?, state.place(&$to)?);
                    let make = |mut apart: Apart, from: Resource<Descriptor>, to: Resource<Descriptor>| async move {
                        // Where both are one directory, they have one name.
                        #[allow(unused_variables)]
                        let $from = from;
                        let $to = to;
                        HostDescriptor::$method(&mut apart.files(), $from, $($argument),*).await
                    };
                    let changed = change_entries(EntryChange::$entries, from, to, make).await;
                    state.note_refusal(within, &changed);
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
