//! How a guest's file is opened, in whatever version of WASI it asks.

use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorType, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};

use super::PATH_BYTES_MAX;
use super::apart::{Apart, Place};
use super::bounded::EntryChange;
use crate::sandbox::identity;

/// A path in a directory, and how it is opened.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) path_flags: PathFlags,
    pub(super) path: String,
    pub(super) open_flags: OpenFlags,
    pub(super) flags: DescriptorFlags,
}

/// Opens a regular file or a directory. A FIFO could hold one of the host's threads for ever.
pub(super) async fn open(within: Place, opening: Opening) -> FsResult<Descriptor> {
    if opening.path.len() > PATH_BYTES_MAX {
        return Err(ErrorCode::NameTooLong.into());
    }
    if !can_be_opened(&within.directory, &opening).await? {
        return Err(ErrorCode::Unsupported.into());
    }
    let device = within.device;
    // The library says what is wrong with a directory that is to be created.
    let may_create =
        opening.open_flags.contains(OpenFlags::CREATE) && !opening.open_flags.contains(OpenFlags::DIRECTORY);
    let opened = match within.bounded.is_some() && may_create {
        true => open_or_create(within, opening).await?,
        false => open_once(within.directory, opening).await?,
    };
    if is_of_processes(&opened, device).await {
        return Err(ErrorCode::Access.into());
    }
    Ok(opened)
}

async fn can_be_opened(directory: &Descriptor, opening: &Opening) -> FsResult<bool> {
    let mut apart = Apart::default();
    let directory = apart.put(directory.clone())?;
    let (path_flags, path) = (opening.path_flags, opening.path.clone());
    let found = HostDescriptor::stat_at(&mut apart.files(), directory, path_flags, path).await;
    // The library says what is wrong. It doesn't follow a link where the guest says so.
    Ok(found.map_or(true, |found| {
        let kind = found.type_;
        matches!(kind, DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink)
    }))
}

/// Opens a file that may have to be created, for which there must be room. The file is opened as if it were there first.
async fn open_or_create(within: Place, opening: Opening) -> FsResult<Descriptor> {
    if !opening.open_flags.contains(OpenFlags::EXCLUSIVE) {
        // A file that is to be created is opened for writing, too.
        let read = if opening.flags.contains(DescriptorFlags::WRITE) {
            opening.flags
        } else {
            opening.flags | DescriptorFlags::READ
        };
        let existing = Opening {
            open_flags: opening.open_flags & !OpenFlags::CREATE,
            flags: read | DescriptorFlags::WRITE,
            ..opening.clone()
        };
        let opened = open_once(within.directory.clone(), existing).await;
        if !is_refused_as(&opened, ErrorCode::NoEntry) {
            return opened;
        }
    }
    create(within, opening).await
}

/// Creates a file, for which there must be room.
pub(super) async fn create(within: Place, opening: Opening) -> FsResult<Descriptor> {
    let Place { directory, bounded, .. } = within;
    let created = async move {
        let anew = Opening { open_flags: opening.open_flags | OpenFlags::EXCLUSIVE, ..opening.clone() };
        let created = open_once(directory.clone(), anew).await;
        let is_exclusive = opening.open_flags.contains(OpenFlags::EXCLUSIVE);
        match is_refused_as(&created, ErrorCode::Exist) && !is_exclusive {
            // Somebody else has created it meanwhile, or it is a link to what isn't there.
            true => open_once(directory, opening).await,
            false => created,
        }
    };
    match bounded {
        Some(bounded) => bounded.change_entries(EntryChange::Adds, None, created).await,
        None => created.await,
    }
}

async fn open_once(directory: Descriptor, opening: Opening) -> FsResult<Descriptor> {
    let mut apart = Apart::default();
    let directory: Resource<Descriptor> = apart.put(directory)?;
    let Opening { path_flags, path, open_flags, flags } = opening;
    let opened =
        HostDescriptor::open_at(&mut apart.files(), directory, path_flags, path, open_flags, flags).await?;
    apart.take(opened)
}

fn is_refused_as<T>(result: &FsResult<T>, code: ErrorCode) -> bool {
    result.as_ref().is_err_and(|err| err.downcast_ref() == Some(&code))
}

/// Whether the system shows its processes there: the host's own variables and memory, and those of its user's other
/// programs. `device` is that of the granted directory, which isn't such a place itself. So no more is asked of the
/// system, unless another file system is mounted below it.
pub(super) async fn is_of_processes(opened: &Descriptor, device: Option<u64>) -> bool {
    let file = match opened {
        Descriptor::File(file) => file.file.clone(),
        Descriptor::Dir(directory) => directory.dir.clone(),
    };
    if device.is_some() && identity::device_of(&*file).ok() == device {
        return false;
    }
    // A server that the file is on may let the thread wait. A file that can't be asked isn't given.
    let asked = tokio::task::spawn_blocking(move || identity::shows_processes(&*file));
    !matches!(asked.await, Ok(Ok(false)))
}
