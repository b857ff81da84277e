//! The live release, for one who runs a part of it in another process than its host's.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use wasmhost_config::{Formation, LoadError, ProcessType, Source, StoreUrl, read_file, restore};
use wasmhost_engine::{Code, FILE_BYTES_MAX};
use wasmhost_store::ReleasesInFile;
use wasmhost_store::releases::Release as Record;

use super::Shelf;
use crate::admin::api::ReleaseSource;
use crate::state_dir::refuse_directory_of_other;

/// The release that is live or, while no host runs, that was live last.
pub struct LiveRelease {
    /// `v7` is number 7.
    pub number: u64,
    source: Source,
    /// The digest of each type's component.
    digests: HashMap<String, String>,
}

impl LiveRelease {
    /// Looks for it in the store of the formation of this file, whether a host has the store open or not. None where there
    /// was none yet, where the state directory is another formation's, and where the store is in a host's memory. An error
    /// is for a person.
    pub fn in_store(state_dir: &Path, file: &Path, store: &StoreUrl) -> Result<Option<LiveRelease>, String> {
        let StoreUrl::Sqlite(store) = store else { return Ok(None) };
        if refuse_directory_of_other(state_dir, file).is_err() {
            return Ok(None);
        }
        for path in [state_dir, store] {
            refuse_stranger(path)?;
        }
        let releases = ReleasesInFile::open(store).map_err(|err| err.to_string())?;
        let live = releases.map(|releases| releases.live()).transpose();
        let found = live.map_err(|err| err.to_string())?.flatten();
        // One without a text was run by its flags.
        Ok(found.map(LiveRelease::from).filter(|live| !live.source.text.is_empty()))
    }

    /// Its formation, as if it were in this file.
    pub fn formation(&self, file: &Path) -> Result<Formation, LoadError> {
        restore(file, &self.source)
    }

    /// Where the component of this type is: the one that was kept, or the file that the formation names where that is
    /// still the same. An error is for a person.
    pub fn component(&self, process: &ProcessType, state_dir: &Path) -> Result<PathBuf, String> {
        let digest = self.digests.get(&process.name).map(String::as_str).unwrap_or_default();
        let kept = Shelf::of(state_dir).map_err(|err| err.to_string())?.check(digest, process.trust_cwasm);
        match kept {
            // A start keeps it a moment later.
            Err(_) if digest_of(process).is_some_and(|found| found == digest) => {
                Ok(process.component.clone())
            }
            kept => kept,
        }
    }

    /// Whether the file that the formation names for this type is the component that the release has.
    pub fn has_component_of(&self, process: &ProcessType) -> bool {
        digest_of(process).as_ref() == self.digests.get(&process.name)
    }
}

impl From<Record> for LiveRelease {
    fn from(record: Record) -> LiveRelease {
        let digests = record.components.into_iter().map(|component| (component.process, component.digest));
        let source = Source { text: record.formation, dotenv: record.dotenv };
        LiveRelease { number: record.number, source, digests: digests.collect() }
    }
}

impl From<ReleaseSource> for LiveRelease {
    fn from(release: ReleaseSource) -> LiveRelease {
        let digests = release.components.into_iter().map(|component| (component.process, component.digest));
        let source = Source { text: release.formation, dotenv: release.dotenv };
        LiveRelease { number: release.number, source, digests: digests.collect() }
    }
}

fn digest_of(process: &ProcessType) -> Option<String> {
    let bytes = read_file(&process.component, FILE_BYTES_MAX).ok().flatten()?;
    Some(Code::new(bytes, process.trust_cwasm).ok()?.0.digest())
}

/// A file that others may have written is not worked from with the rights of this user.
pub(super) fn refuse_stranger(path: &Path) -> Result<(), String> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let ours = rustix::process::geteuid().as_raw();
    match (found.uid() == ours, found.mode() & 0o022) {
        (true, 0) => Ok(()),
        (true, _) => Err(format!("{} may be written by other users", path.display())),
        (false, _) => {
            Err(format!("{} belongs to the user {}, expected our own ({ours})", path.display(), found.uid()))
        }
    }
}
