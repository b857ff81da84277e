//! `wasi:filesystem` of WASI 0.2.

use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, DirectoryEntryStream, ErrorCode, Filesize, HostDescriptor,
    HostDirectoryEntryStream, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsResult};

use super::PATH_BYTES_MAX;
use crate::capability::replace::{Replacing, interface, returned};
use crate::capability::state::State;
use crate::sandbox::descriptors::Permit;
use crate::sandbox::holdings::Holding;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut replacing = Replacing::new(linker);
    link_opening(&mut replacing)?;
    link_streams(&mut replacing)?;
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
    type Opening = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);
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

async fn open_at(
    state: &mut State,
    (directory, path_flags, path, open_flags, flags): (
        Resource<Descriptor>,
        PathFlags,
        String,
        OpenFlags,
        DescriptorFlags,
    ),
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
    let mut files = state.filesystem();
    let opened = HostDescriptor::open_at(&mut files, directory, path_flags, path, open_flags, flags).await;
    match &opened {
        Ok(opened) => state.keep_opened(within, opened.rep(), descriptor),
        Err(_) => note_refusal(state, within, &opened),
    }
    opened
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
            returned(write_stream(state, file, |files, file| files.write_via_stream(file, offset)))
        },
    )?;
    const APPEND: &str = "[method]descriptor.append-via-stream";
    replacing.item(interface::FILES, APPEND)?.func_wrap(
        APPEND,
        |mut store, (file,): (Resource<Descriptor>,)| {
            let state = store.data_mut();
            returned(write_stream(state, file, |files, file| files.append_via_stream(file)))
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
    make: impl FnOnce(
        &mut wasmtime_wasi::filesystem::WasiFilesystemCtxView<'_>,
        Resource<Descriptor>,
    ) -> FsResult<Resource<DynOutputStream>>,
) -> FsResult<Resource<DynOutputStream>> {
    let descriptor = take(state)?;
    let within = file.rep();
    let stream = make(&mut state.filesystem(), file);
    match &stream {
        Ok(stream) => {
            let holding = Holding { descriptor: Some(descriptor), ..Holding::default() };
            state.holdings.keep(stream.rep(), holding);
        }
        Err(_) => note_refusal(state, within, &stream),
    }
    stream
}

fn link_listing(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    const LIST: &str = "[method]descriptor.read-directory";
    replacing.item(interface::FILES, LIST)?.func_wrap_async(
        LIST,
        |mut store, (directory,): (Resource<Descriptor>,)| {
            Box::new(async move { returned(read_directory(store.data_mut(), directory).await) })
        },
    )?;
    const ENTRIES: &str = "directory-entry-stream";
    replacing.item(interface::FILES, ENTRIES)?.resource(
        ENTRIES,
        ResourceType::host::<DirectoryEntryStream>(),
        |mut store, handle| {
            store.data_mut().holdings.give_back(handle);
            HostDirectoryEntryStream::drop(&mut store.data_mut().filesystem(), Resource::new_own(handle))
        },
    )
}

/// The library reads a directory whole before the guest sees its first entry.
async fn read_directory(
    state: &mut State,
    directory: Resource<Descriptor>,
) -> FsResult<Resource<DirectoryEntryStream>> {
    let again = Resource::new_borrow(directory.rep());
    let found = HostDescriptor::stat(&mut state.filesystem(), again).await?;
    let Some(listing) = state.holdings.listings.begin(found.size) else {
        return Err(ErrorCode::Quota.into());
    };
    let entries = HostDescriptor::read_directory(&mut state.filesystem(), directory).await?;
    state.holdings.keep(entries.rep(), Holding { listing: Some(listing), ..Holding::default() });
    Ok(entries)
}

/// Functions that change a directory do what the library's do, and note where the grant doesn't allow it.
macro_rules! noted {
    ($replacing:ident, $name:literal, $method:ident($($argument:ident: $type:ty),*)) => {
        $replacing.item(interface::FILES, $name)?.func_wrap_async(
            $name,
            |mut store, (directory, $($argument,)*): (Resource<Descriptor>, $($type,)*)| {
                Box::new(async move {
                    let within = directory.rep();
                    let mut files = store.data_mut().filesystem();
                    let changed = HostDescriptor::$method(&mut files, directory, $($argument),*).await;
                    note_refusal(store.data(), within, &changed);
                    returned(changed)
                })
            },
        )?;
    };
}

fn link_changes(replacing: &mut Replacing<'_>) -> wasmtime::Result<()> {
    type Dir = Resource<Descriptor>;
    noted!(replacing, "[method]descriptor.create-directory-at", create_directory_at(path: String));
    noted!(replacing, "[method]descriptor.remove-directory-at", remove_directory_at(path: String));
    noted!(replacing, "[method]descriptor.unlink-file-at", unlink_file_at(path: String));
    noted!(replacing, "[method]descriptor.symlink-at", symlink_at(to: String, path: String));
    noted!(replacing, "[method]descriptor.rename-at", rename_at(path: String, new: Dir, new_path: String));
    noted!(
        replacing,
        "[method]descriptor.link-at",
        link_at(flags: PathFlags, path: String, new: Dir, new_path: String)
    );
    Ok(())
}
