//! The stream of a directory's entries that a guest of WASI 0.3 reads.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use rustix::fs::FileType;
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, StreamProducer, StreamResult, VecBuffer};
use wasmtime_wasi::p3::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};

use super::listing::{Entry, Listed, Listing, ListingError};
use crate::sandbox::descriptors::Permit;

type Read = (Listing, Result<Vec<Listed>, ListingError>);

pub(super) struct Entries {
    /// The next piece, where the guest has asked for one.
    reading: Option<BoxFuture<'static, Read>>,
    listing: Option<Listing>,
    /// Why there are no more entries after those that the guest was given.
    failed: Option<ListingError>,
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
        Entries {
            reading: None,
            listing: Some(listing),
            failed: None,
            ended: Some(ended),
            _descriptor: descriptor,
        }
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
        let Some(reading) = &mut this.reading else {
            let ended = this.failed.take().map_or(Ok(()), |err| Err(to_code(err)));
            return this.end(ended);
        };
        let (listing, read) = match reading.as_mut().poll(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            read => ready!(read),
        };
        this.reading = None;
        let read = match read {
            Ok(read) => read,
            Err(err) => return this.end(Err(to_code(err))),
        };
        let mut entries = Vec::with_capacity(read.len());
        for listed in read {
            match listed {
                Ok(entry) => entries.push(to_guest(entry)),
                // A stream ends with its first error.
                Err(err) => {
                    this.failed = Some(err);
                    break;
                }
            }
        }
        if entries.is_empty() {
            let ended = this.failed.take().map_or(Ok(()), |err| Err(to_code(err)));
            return this.end(ended);
        }
        if this.failed.is_none() {
            this.listing = Some(listing);
        }
        destination.set_buffer(entries.into());
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

fn to_code(error: ListingError) -> ErrorCode {
    match error {
        ListingError::Io(err) => err.into(),
        ListingError::Name => ErrorCode::IllegalByteSequence,
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
