//! The library's functions for directories, apart from the guest: with a table that has the directories concerned and
//! nothing else. Their work needs nothing of the guest's then, and can outlast it.

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::FsResult;

use super::bounded::{Bounded, EntryChange};

/// Where one call of the library's finds what it needs.
#[derive(Default)]
pub(super) struct Apart {
    ctx: WasiFilesystemCtx,
    table: ResourceTable,
}

/// A directory that a guest has a handle of.
pub(super) struct Place {
    pub(super) directory: Descriptor,
    pub(super) bounded: Option<Bounded>,
    /// The device that the granted directory is on.
    pub(super) device: Option<u64>,
}

impl Apart {
    pub(super) fn files(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView { ctx: &mut self.ctx, table: &mut self.table }
    }

    pub(super) fn put(&mut self, descriptor: Descriptor) -> FsResult<Resource<Descriptor>> {
        Ok(self.table.push(descriptor)?)
    }

    pub(super) fn take(&mut self, descriptor: Resource<Descriptor>) -> FsResult<Descriptor> {
        Ok(self.table.delete(descriptor)?)
    }
}

/// Changes entries of `to` by a function of the library's, where there is room. The files come from `from`.
pub(super) async fn change_entries<F>(
    change: EntryChange,
    from: Place,
    to: Place,
    make: impl FnOnce(Apart, Resource<Descriptor>, Resource<Descriptor>) -> F,
) -> FsResult<()>
where
    F: Future<Output = FsResult<()>> + Send + 'static,
{
    let mut apart = Apart::default();
    let (source, target) = (apart.put(from.directory)?, apart.put(to.directory)?);
    let made = make(apart, source, target);
    match to.bounded {
        Some(bounded) => bounded.change_entries(change, from.bounded.as_ref(), made).await,
        None => made.await,
    }
}
