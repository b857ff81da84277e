//! The releases of a formation that no host runs, as its store has them.

use std::path::{Path, PathBuf};

use wasmhost_config::StoreUrl;
use wasmhost_store::releases::{RELEASES_MAX, Release, ReleaseState};
use wasmhost_store::{ReleasesInFile, StoreError};

use super::history::LEFT;
use super::live::refuse_stranger;
use super::views::{detail, no_release, view};
use crate::admin::api::{ReleaseDetail, ReleaseView};
use crate::state_dir::refuse_directory_of_other;

/// See the module. Every answer blocks until it is read, and every error is for a person.
pub struct StoredReleases {
    releases: ReleasesInFile,
    /// The formation's file.
    file: PathBuf,
}

impl StoredReleases {
    /// Opens the store of the formation of this file. None where there is none yet, or where it was in a host's memory.
    ///
    /// # Errors
    ///
    /// It can't be read, or another user could have written it, or the state directory is another formation's.
    pub fn open(state_dir: &Path, file: &Path, store: &StoreUrl) -> Result<Option<StoredReleases>, String> {
        let StoreUrl::Sqlite(store) = store else { return Ok(None) };
        refuse_directory_of_other(state_dir, file).map_err(|err| err.to_string())?;
        for path in [state_dir, store] {
            refuse_stranger(path)?;
        }
        let releases = ReleasesInFile::open(store).map_err(told)?;
        Ok(releases.map(|releases| StoredReleases { releases, file: file.to_owned() }))
    }

    /// So many of them, the newest first.
    ///
    /// # Errors
    ///
    /// They can't be read.
    pub fn list(&self, count: u32) -> Result<Vec<ReleaseView>, String> {
        let known = self.known()?;
        let mut listed = vec![];
        for number in known.iter().copied().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            let Some(release) = self.release(number)? else { continue };
            let before = self.releases.live_before(number).map_err(told)?;
            listed.push(view(&release, before.as_ref(), &known, None, &self.file));
        }
        Ok(listed)
    }

    /// All that is known of one.
    ///
    /// # Errors
    ///
    /// There is none of this number, or it can't be read.
    pub fn detail(&self, number: u64) -> Result<ReleaseDetail, String> {
        let known = self.known()?;
        let release = self.release(number)?.ok_or_else(|| no_release(number, &known))?;
        let before = self.releases.live_before(number).map_err(told)?;
        Ok(detail(release, before.as_ref(), &known, None, &self.file))
    }

    /// One that was on its way has failed, which the next host will find, too.
    fn release(&self, number: u64) -> Result<Option<Release>, String> {
        let found = self.releases.release(number).map_err(told)?;
        Ok(found.map(|release| match release.state {
            ReleaseState::Pending => {
                Release { state: ReleaseState::Failed, why: Some(LEFT.to_owned()), ..release }
            }
            ReleaseState::Live | ReleaseState::Replaced | ReleaseState::Failed => release,
        }))
    }

    fn known(&self) -> Result<Vec<u64>, String> {
        self.releases.numbers(RELEASES_MAX).map_err(told)
    }
}

fn told(err: StoreError) -> String {
    err.to_string()
}
