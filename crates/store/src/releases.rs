//! Releases: the numbered versions of the formation that were to be live, or are.
//!
//! ```text
//!            make_live              make_live of another
//! pending ──────────────> live ──────────────> replaced
//!    │ ↑
//!    │ └── retry ──┐
//!    └── fail ──> failed
//! ```
//!
//! At most one release is live. A release keeps the formation as text and names its components by their digest: their
//! bytes are kept elsewhere, for as long as a release names them.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{StoreError, Timestamp};

/// A formation's text, and a `.env`, have at most so many bytes: 4 MiB each, as the formation's reader takes.
pub const FORMATION_BYTES_MAX: usize = 4 << 20;

/// Components that a release names at most.
pub const COMPONENTS_MAX: usize = 10_000;

/// A name, an author, or a file's path has at most so many bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 10;

/// A fingerprint has at most so many bytes: it may have a line for each component.
pub const FINGERPRINT_BYTES_MAX: usize = 4 << 20;

/// The most that [`Releases::numbers`] lists.
pub const RELEASES_MAX: u32 = 1_000;

/// Where a release stands; see the diagram of [`releases`](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseState {
    /// It was made, and doesn't serve yet.
    Pending,
    /// It serves.
    Live,
    /// It served, and another does now.
    Replaced,
    /// It never served, or not to the end of its move.
    Failed,
}

impl ReleaseState {
    /// All of them.
    pub const ALL: [ReleaseState; 4] =
        [ReleaseState::Pending, ReleaseState::Live, ReleaseState::Replaced, ReleaseState::Failed];

    /// Its name, as in JSON and in the database.
    pub fn name(self) -> &'static str {
        match self {
            ReleaseState::Pending => "pending",
            ReleaseState::Live => "live",
            ReleaseState::Replaced => "replaced",
            ReleaseState::Failed => "failed",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<ReleaseState> {
        ReleaseState::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for ReleaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ReleaseState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names: Vec<&str> = ReleaseState::ALL.map(ReleaseState::name).to_vec();
        ReleaseState::from_name(text)
            .ok_or_else(|| format!("found {text:?}, expected one of {}", names.join(", ")))
    }
}

/// One type's component in a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseComponent {
    /// The process type.
    pub process: String,
    /// SHA-256 of the file's bytes, in 64 lower-case hexadecimal digits.
    pub digest: String,
    /// The file that the formation names, absolute.
    pub file: String,
    /// The file's length.
    pub bytes: u64,
}

/// A release that is to be made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewRelease {
    /// The act that made it: `start`, `deploy`, `rollback to v3`.
    pub author: String,
    /// True where it was made of the formation's file, false where it was made of an older release.
    pub of_file: bool,
    /// The formation as text.
    pub formation: String,
    /// The `.env` beside it as text, where there is one.
    pub dotenv: Option<String>,
    /// A text that differs wherever the release does.
    pub fingerprint: String,
    /// One for each process type.
    pub components: Vec<ReleaseComponent>,
}

/// A release in the store.
#[derive(Clone, PartialEq, Eq)]
pub struct Release {
    /// Its number: people see 3 as `v3`.
    pub number: u64,
    /// When it was made, or made pending again.
    pub created_at: Timestamp,
    /// When it became live; `None` where it never was.
    pub live_at: Option<Timestamp>,
    /// See [`NewRelease::author`].
    pub author: String,
    /// See [`NewRelease::of_file`].
    pub of_file: bool,
    /// Where it stands.
    pub state: ReleaseState,
    /// Why it failed; at most 4 KiB. `None` unless it failed.
    pub why: Option<String>,
    /// See [`NewRelease::formation`].
    pub formation: String,
    /// See [`NewRelease::dotenv`].
    pub dotenv: Option<String>,
    /// See [`NewRelease::fingerprint`].
    pub fingerprint: String,
    /// In the order that they were passed in.
    pub components: Vec<ReleaseComponent>,
}

// Neither prints the formation or the `.env`: passwords may be in both.

impl fmt::Debug for NewRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRelease")
            .field("author", &self.author)
            .field("of_file", &self.of_file)
            .field("fingerprint", &self.fingerprint)
            .field("components", &self.components)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Release")
            .field("number", &self.number)
            .field("created_at", &self.created_at)
            .field("live_at", &self.live_at)
            .field("author", &self.author)
            .field("of_file", &self.of_file)
            .field("state", &self.state)
            .field("why", &self.why)
            .field("fingerprint", &self.fingerprint)
            .field("components", &self.components)
            .finish_non_exhaustive()
    }
}

/// The releases of one formation.
#[async_trait]
pub trait Releases: Send + Sync + 'static {
    /// Makes a release, which is pending, and returns its number. Numbers rise from 1. None is used twice, also after
    /// its release was forgotten.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] where a text is too long, a digest is none, or a process type has two components.
    /// [`StoreError::Full`] on a full disk, before the room is used that is kept back for what ends work.
    async fn add(&self, release: NewRelease) -> Result<u64, StoreError>;

    /// Makes a pending release the live one. The one that was live before is replaced: both or neither. A release that
    /// is live already stays it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] where it was replaced, has failed, or isn't known.
    async fn make_live(&self, number: u64) -> Result<(), StoreError>;

    /// Says that a pending release has failed, and why; the text is cut at 4 KiB.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] where it isn't pending, or isn't known.
    async fn fail(&self, number: u64, why: String) -> Result<(), StoreError>;

    /// Makes a failed release pending again, which is tried once more. It begins anew: its time is that of this call, and why
    /// it failed is forgotten.
    ///
    /// # Errors
    ///
    /// [`StoreError::Invalid`] where it hasn't failed, or isn't known.
    async fn retry(&self, number: u64) -> Result<(), StoreError>;

    /// Says of all pending releases that they have failed: a host left them that is dead. Returns their numbers, in order.
    async fn fail_pending(&self, why: &str) -> Result<Vec<u64>, StoreError>;

    /// The live release; `None` before the first.
    async fn live(&self) -> Result<Option<Release>, StoreError>;

    /// The release of that number; `None` where it is not known, or forgotten.
    async fn release(&self, number: u64) -> Result<Option<Release>, StoreError>;

    /// The latest release that was made of the file, whatever its state.
    async fn latest_of_file(&self) -> Result<Option<Release>, StoreError>;

    /// The latest release below that number which was live at some time.
    async fn live_before(&self, number: u64) -> Result<Option<Release>, StoreError>;

    /// The release that was live until the present one was.
    async fn last_replaced(&self) -> Result<Option<Release>, StoreError>;

    /// The numbers of the last `limit` releases, newest first; at most [`RELEASES_MAX`].
    async fn numbers(&self, limit: u32) -> Result<Vec<u64>, StoreError>;

    /// Forgets all releases but the newest `keep`, the live one, pending ones, and the latest of the file. (Without the
    /// last one a host would take a file that was rolled back from for a new one.) Returns the digests that releases
    /// still name, each once, in order: the bytes of all others may go.
    async fn forget(&self, keep: u32) -> Result<Vec<String>, StoreError>;
}

/// Checks a release before it reaches the backend.
pub(crate) fn check(release: &NewRelease) -> Result<(), StoreError> {
    let at_most = |what: &str, found: usize, max: usize| match found > max {
        true => Err(StoreError::Invalid(format!("{what} is {found} bytes long; {max} is the most"))),
        false => Ok(()),
    };
    at_most("the release's formation", release.formation.len(), FORMATION_BYTES_MAX)?;
    at_most("the release's .env", release.dotenv.as_ref().map_or(0, String::len), FORMATION_BYTES_MAX)?;
    at_most("the release's author", release.author.len(), TEXT_BYTES_MAX)?;
    at_most("the release's fingerprint", release.fingerprint.len(), FINGERPRINT_BYTES_MAX)?;
    if release.components.len() > COMPONENTS_MAX {
        let found = release.components.len();
        return Err(StoreError::Invalid(format!("{found} components; {COMPONENTS_MAX} is the most")));
    }
    let mut processes = HashSet::new();
    for ReleaseComponent { process, digest, file, bytes } in &release.components {
        at_most("the process type's name", process.len(), TEXT_BYTES_MAX)?;
        at_most("the component's path", file.len(), TEXT_BYTES_MAX)?;
        if digest.len() != 64 || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let message = format!(
                "the digest of {process}'s component is {:?}; 64 lower-case hexadecimal digits are expected",
                digest.chars().take(80).collect::<String>()
            );
            return Err(StoreError::Invalid(message));
        }
        if i64::try_from(*bytes).is_err() {
            return Err(StoreError::Invalid(format!(
                "{process}'s component has {bytes} bytes, which no file has"
            )));
        }
        if !processes.insert(process) {
            return Err(StoreError::Invalid(format!("{process} has two components in one release")));
        }
    }
    Ok(())
}

/// The error where a release can't be made `to`, since it is in another state or, with `None`, isn't known.
pub(crate) fn cannot_become(number: u64, found: Option<ReleaseState>, to: ReleaseState) -> StoreError {
    let from = match to {
        ReleaseState::Pending => "failed",
        _ => "pending",
    };
    StoreError::Invalid(match found {
        None => format!("there is no release v{number}"),
        Some(found) => format!("release v{number} is {found}; only a {from} one can become {to}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_they_are_printed() {
        for state in ReleaseState::ALL {
            assert_eq!(state.to_string().parse(), Ok(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        assert_eq!(
            "gone".parse::<ReleaseState>(),
            Err("found \"gone\", expected one of pending, live, replaced, failed".to_string())
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let release = NewRelease {
            author: "deploy".to_string(),
            of_file: true,
            formation: "hunter2".to_string(),
            dotenv: Some("PASSWORD=hunter2".to_string()),
            fingerprint: "f".to_string(),
            components: Vec::new(),
        };
        assert!(!format!("{release:?}").contains("hunter2"));
    }
}
