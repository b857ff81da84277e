//! The stream of a directory's entries that a guest of WASI 0.3 reads.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use rustix::fs::FileType;
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, StreamProducer, StreamResult, VecBuffer};
use wasmtime_wasi::p3::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};

use super::listing::{Entry, Listing, ListingError};
use crate::sandbox::descriptors::Permit;

type Read = (Listing, Result<Vec<Entry>, ListingError>);

pub(super) struct Entries {
    /// The next piece, where the guest has asked for one.
    reading: Option<BoxFuture<'static, Read>>,
    listing: Option<Listing>,
    /// Is told how it ended.
    ended: Option<oneshot::Sender<Result<(), ErrorCode>>>,
    /// The directory is open while it is listed.
    _descriptor: Permit,
}

impl Entries {
    pub(super) fn new(
        listing: Listing,
        descriptor: Permit,
        ended: oneshot::Sender<Result<(), ErrorCode>>,
    ) -> Entries {
        Entries { reading: None, listing: Some(listing), ended: Some(ended), _descriptor: descriptor }
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
        // A guest that reads nothing asks whether there is something.
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let this = &mut *self;
        if let Some(mut listing) = this.listing.take() {
            this.reading = Some(Box::pin(async move {
                let read = listing.next_piece().await;
                (listing, read)
            }));
        }
        let Some(reading) = &mut this.reading else { return this.end(Ok(())) };
        let (listing, read) = match reading.as_mut().poll(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            read => ready!(read),
        };
        this.reading = None;
        match read {
            Ok(entries) if entries.is_empty() => this.end(Ok(())),
            Ok(entries) => {
                this.listing = Some(listing);
                let entries: Vec<_> = entries.into_iter().map(to_guest).collect();
                destination.set_buffer(entries.into());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(ListingError::Io(err)) => this.end(Err(err.into())),
            Err(ListingError::Name) => this.end(Err(ErrorCode::IllegalByteSequence)),
        }
    }
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
        FileType::Unknown => DescriptorType::Other(None),
    };
    DirectoryEntry { type_: kind, name: entry.name }
}
