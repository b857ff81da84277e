//! Files: the library's interface of WASI 0.2 ([`plain`]), 0.3 ([`concurrent`]) and 0.1 ([`mod@core`]), with bounds.
//!
//! A guest opens regular files and directories alone ([`opening`]): a FIFO or a device could hold one of the host's threads
//! for ever, and /proc has the host's own memory. Files that it opens and lists are counted. A change that its grant doesn't
//! allow is told to the person. Where a grant has `max_bytes`, what adds to the directory asks [`bounded`] first; the
//! library makes such a change without the guest ([`apart`]).

/// The functions that change a directory's entries, in both versions of the interface. `$changing` binds one: its name, its
/// effect on entries (the files come from the first directory, and the entries are the second one's), and the library's
/// function.
macro_rules! changes {
    ($changing:ident, $replacing:ident) => {
        $changing!(
            $replacing,
            "[method]descriptor.create-directory-at",
            Adds(dir => dir),
            create_directory_at(path: String)
        );
        $changing!(
            $replacing,
            "[method]descriptor.remove-directory-at",
            Removes(dir => dir),
            remove_directory_at(path: String)
        );
        $changing!(
            $replacing,
            "[method]descriptor.unlink-file-at",
            Removes(dir => dir),
            unlink_file_at(path: String)
        );
        $changing!(
            $replacing,
            "[method]descriptor.symlink-at",
            Adds(dir => dir),
            symlink_at(to: String, path: String)
        );
        $changing!(
            $replacing,
            "[method]descriptor.rename-at",
            Moves(dir => new),
            rename_at(path: String, new: Resource<Descriptor>, new_path: String)
        );
        $changing!(
            $replacing,
            "[method]descriptor.link-at",
            Links(dir => new),
            link_at(flags: PathFlags, path: String, new: Resource<Descriptor>, new_path: String)
        );
    };
}

mod apart;
pub(crate) mod bounded;
pub(crate) mod concurrent;
mod consumer;
pub(crate) mod core;
mod core_call;
mod entries;
mod listing;
mod opening;
pub(crate) mod plain;
mod translation;
mod writer;

use std::fs::File;
use std::sync::Arc;

use wasmtime::component::{Resource, ResourceTableError};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use self::apart::Place;
use self::bounded::Bounded;
use super::state::State;
use crate::sandbox::descriptors::Permit;
use crate::sandbox::holdings::Holding;
use crate::services::Refusal;

/// A path that is longer than this, in bytes, is refused by every system.
const PATH_BYTES_MAX: usize = 4_096;

impl State {
    /// Remembers which handle is that of which grant. They come in the grants' order.
    fn remember_grants(&mut self, directories: &[(Resource<Descriptor>, String)]) {
        for (grant, (directory, _)) in directories.iter().enumerate() {
            self.holdings.keep(directory.rep(), Holding { grant: Some(grant), ..Holding::default() });
        }
    }

    /// One descriptor more. This error comes nearest, among those that WASI knows, to "too many open files".
    fn take_descriptor(&self) -> FsResult<Permit> {
        self.holdings.descriptors.take().ok_or_else(|| ErrorCode::Quota.into())
    }

    /// The directory that a handle is of.
    fn place(&self, directory: &Resource<Descriptor>) -> Result<Place, ResourceTableError> {
        Ok(self.place_of(directory.rep(), self.table.get(directory)?.clone()))
    }

    fn place_of(&self, handle: u32, directory: Descriptor) -> Place {
        let grant = self.holdings.grant_of(handle);
        let granted = grant.and_then(|grant| self.sandbox.directories.iter().nth(grant));
        Place {
            directory,
            bounded: self.bounded(handle).cloned(),
            device: granted.map(|granted| granted.identity.device()),
        }
    }

    /// The bound of the directory that a handle is of, or was found in.
    fn bounded(&self, handle: u32) -> Option<&Bounded> {
        self.bounded.get(self.holdings.grant_of(handle)?)?.as_ref()
    }

    /// The same, with the file itself; `None` where the handle is a directory's, too.
    fn bounded_file(
        &self,
        file: &Resource<Descriptor>,
    ) -> Result<Option<(Bounded, Arc<File>)>, ResourceTableError> {
        let Some(bounded) = self.bounded(file.rep()) else { return Ok(None) };
        Ok(match self.table.get(file)? {
            Descriptor::File(file) => Some((bounded.clone(), file.file.clone())),
            Descriptor::Dir(_) => None,
        })
    }

    /// Gives the guest a file that was opened in a directory: it counts, and is of the same grant.
    fn keep_opened(
        &mut self,
        directory: u32,
        opened: FsResult<Descriptor>,
        permit: Permit,
    ) -> FsResult<Resource<Descriptor>> {
        self.note_refusal(directory, &opened);
        let opened = self.table.push(opened?)?;
        let grant = self.holdings.grant_of(directory);
        let holding = Holding { descriptor: Some(permit), grant, ..Holding::default() };
        self.holdings.keep(opened.rep(), holding);
        Ok(opened)
    }

    /// Notes a change that was refused because the guest was given the directory for reading.
    fn note_refusal<T>(&self, directory: u32, result: &FsResult<T>) {
        let code = result.as_ref().err().and_then(|err| err.downcast_ref());
        if let Some(ErrorCode::NotPermitted | ErrorCode::ReadOnly) = code {
            self.refuse_change(directory);
        }
    }

    /// Says that the guest may not change what it has been given for reading.
    fn refuse_change(&self, directory: u32) {
        let Some(grant) = self.holdings.grant_of(directory) else { return };
        let Some(dir) = self.sandbox.grants.dirs.get(grant).filter(|dir| !dir.writable) else { return };
        self.services.refusals.refused(&self.sandbox.process, Refusal::Write(dir.guest.clone()));
    }
}
