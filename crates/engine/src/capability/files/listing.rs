//! `read-directory` of WASI 0.3. The library's holds a thread of the host until the guest has taken the last entry; this
//! one reads the directory whole, as that of WASI 0.2 does.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Resource, ResourceTable, StreamProducer, StreamResult, VecBuffer};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types as plain;
use wasmtime_wasi::p2::bindings::filesystem::types::{HostDescriptor, HostDirectoryEntryStream};
use wasmtime_wasi::p3::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};

use crate::sandbox::descriptors::Permit;
use crate::sandbox::holdings::{Listing, Listings};

/// Entries that the guest is given at once.
const ENTRIES_AT_ONCE: usize = 128;

type Listed = Result<(Vec<DirectoryEntry>, Listing), ErrorCode>;

/// The entries of one directory, for the guest that reads them.
pub(super) struct Entries {
    reading: JoinHandle<Listed>,
    read: Option<(std::vec::IntoIter<DirectoryEntry>, Listing)>,
    /// Is told how it ended.
    ended: Option<oneshot::Sender<Result<(), ErrorCode>>>,
}

impl Entries {
    pub(super) fn new(
        directory: Descriptor,
        listings: &Listings,
        descriptor: Permit,
        ended: oneshot::Sender<Result<(), ErrorCode>>,
    ) -> Entries {
        let listings = listings.clone();
        let reading = tokio::spawn(async move {
            // Held while the directory is read.
            let _descriptor = descriptor;
            let mut files = Files::default();
            let size = files.size_of(directory.clone()).await.map_err(to_async)?;
            let listing = listings.begin(size).ok_or(ErrorCode::Quota)?;
            let entries = files.entries_of(directory).await.map_err(to_async)?;
            Ok((entries, listing))
        });
        Entries { reading, read: None, ended: Some(ended) }
    }

    fn end(&mut self, result: Result<(), ErrorCode>) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some(ended) = self.ended.take() {
            // The guest may not want to know.
            let _ = ended.send(result);
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.reading.abort();
        let _ = self.end(Ok(()));
    }
}

impl<D> StreamProducer<D> for Entries {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, DirectoryEntry, VecBuffer<DirectoryEntry>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let this = &mut *self;
        if this.read.is_none() {
            let listed = match Pin::new(&mut this.reading).poll(cx) {
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                listed => ready!(listed),
            };
            match listed.unwrap_or(Err(ErrorCode::Io)) {
                Ok((entries, listing)) => this.read = Some((entries.into_iter(), listing)),
                Err(code) => return this.end(Err(code)),
            }
        }
        // A guest that reads nothing asks whether there is something.
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let entries = this.read.iter_mut().flat_map(|(entries, _)| entries.by_ref().take(ENTRIES_AT_ONCE));
        let entries: Vec<_> = entries.collect();
        if entries.is_empty() {
            return this.end(Ok(()));
        }
        destination.set_buffer(entries.into());
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// The library's functions of WASI 0.2, on a table of their own.
#[derive(Default)]
struct Files {
    context: WasiFilesystemCtx,
    table: ResourceTable,
}

impl Files {
    fn view(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView { ctx: &mut self.context, table: &mut self.table }
    }

    async fn size_of(&mut self, directory: Descriptor) -> FsResult<u64> {
        let directory = self.table.push(directory)?;
        Ok(HostDescriptor::stat(&mut self.view(), directory).await?.size)
    }

    async fn entries_of(&mut self, directory: Descriptor) -> FsResult<Vec<DirectoryEntry>> {
        let directory = self.table.push(directory)?;
        let entries = HostDescriptor::read_directory(&mut self.view(), directory).await?;
        let mut found = Vec::new();
        loop {
            let stream = Resource::new_borrow(entries.rep());
            match HostDirectoryEntryStream::read_directory_entry(&mut self.view(), stream).await? {
                Some(entry) => found.push(DirectoryEntry { type_: kind(entry.type_), name: entry.name }),
                None => return Ok(found),
            }
        }
    }
}

fn kind(kind: plain::DescriptorType) -> DescriptorType {
    match kind {
        plain::DescriptorType::BlockDevice => DescriptorType::BlockDevice,
        plain::DescriptorType::CharacterDevice => DescriptorType::CharacterDevice,
        plain::DescriptorType::Directory => DescriptorType::Directory,
        plain::DescriptorType::Fifo => DescriptorType::Fifo,
        plain::DescriptorType::SymbolicLink => DescriptorType::SymbolicLink,
        plain::DescriptorType::RegularFile => DescriptorType::RegularFile,
        plain::DescriptorType::Socket => DescriptorType::Socket,
        plain::DescriptorType::Unknown => DescriptorType::Other(None),
    }
}

/// Those that reading a directory ends in.
fn to_async(error: wasmtime_wasi::p2::FsError) -> ErrorCode {
    match error.downcast() {
        Ok(plain::ErrorCode::Access) => ErrorCode::Access,
        Ok(plain::ErrorCode::NotPermitted) => ErrorCode::NotPermitted,
        Ok(plain::ErrorCode::NotDirectory) => ErrorCode::NotDirectory,
        Ok(plain::ErrorCode::NoEntry) => ErrorCode::NoEntry,
        Ok(plain::ErrorCode::IllegalByteSequence) => ErrorCode::IllegalByteSequence,
        Ok(plain::ErrorCode::InsufficientMemory) => ErrorCode::InsufficientMemory,
        Ok(_) | Err(_) => ErrorCode::Io,
    }
}
