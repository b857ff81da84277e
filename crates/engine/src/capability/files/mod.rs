//! Files: the library's interface of WASI 0.2 ([`plain`]), 0.3 ([`concurrent`]) and 0.1 ([`mod@core`]), with bounds.
//!
//! A guest opens regular files and directories alone: a FIFO or a device could hold one of the host's threads for
//! ever. Files that it opens and lists are counted. A change that its grant doesn't allow is told to the person. Where a
//! grant has `max_bytes`, what adds to the directory asks [`room`] first.

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

pub(crate) mod concurrent;
mod consumer;
pub(crate) mod core;
mod entries;
mod listing;
pub(crate) mod plain;
mod room;
mod writer;

use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::Descriptor;

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

    /// Notes what was opened in a directory: it counts, and is of the same grant.
    fn keep_opened(&mut self, directory: u32, opened: u32, descriptor: Permit) {
        let grant = self.holdings.grant_of(directory);
        self.holdings.keep(opened, Holding { descriptor: Some(descriptor), grant, ..Holding::default() });
    }

    /// Says that the guest may not change what it has been given for reading.
    fn refuse_change(&self, directory: u32) {
        let Some(grant) = self.holdings.grant_of(directory) else { return };
        let Some(dir) = self.sandbox.grants.dirs.get(grant).filter(|dir| !dir.writable) else { return };
        self.services.refusals.refused(&self.sandbox.process, Refusal::Write(dir.guest.clone()));
    }
}
