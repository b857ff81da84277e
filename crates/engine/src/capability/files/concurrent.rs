//! `wasi:filesystem` of WASI 0.3.

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
use super::listing::Entries;
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
    let opened = WasiFilesystem::open_at(&files, directory, path_flags, path, open_flags, flags).await;
    store.with(|mut access| {
        let state = access.get();
        match &opened {
            Ok(opened) => state.keep_opened(within, opened.rep(), descriptor),
            Err(_) => note_refusal(state, within, &opened),
        }
    });
    opened
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
            let access = Access::<State, WasiFilesystem>::new(store.as_context_mut(), State::filesystem);
            let ended = WasiFilesystem::append_via_stream(access, file, data)?;
            Ok((hold_until(&mut store, ended, descriptor)?,))
        },
    )
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
    let directory = state.table.get(directory)?.clone();
    let entries = match take(state) {
        Ok(descriptor) => {
            let entries = Entries::new(directory, &state.holdings.listings, descriptor, tell);
            StreamReader::new(&mut *store, entries)?
        }
        Err(_) => {
            let _ = tell.send(Err(ErrorCode::Quota));
            StreamReader::new(&mut *store, std::iter::empty())?
        }
    };
    Ok((entries, FutureReader::new(store, ended)?))
}

/// Functions that change a directory do what the library's do, and note where the grant doesn't allow it.
macro_rules! noted {
    ($replacing:ident, $name:literal, $method:ident($($argument:ident: $type:ty),*)) => {
        $replacing.item(interface::ASYNC_FILES, $name)?.func_wrap_concurrent(
            $name,
            |store, (directory, $($argument,)*): (Resource<Descriptor>, $($type,)*)| {
                Box::pin(async move {
                    let within = directory.rep();
                    let files = store.with_getter::<WasiFilesystem>(State::filesystem);
                    let changed = WasiFilesystem::$method(&files, directory, $($argument),*).await;
                    store.with(|mut access| note_refusal(access.get(), within, &changed));
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
