//! The admin API's JSON of releases.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Releases in a list, the newest ones, where nobody says how many.
pub const RELEASES_LISTED: u32 = 20;

/// `POST /v1/deploy`. The answer is a stream of [`DeployEvent`]s, one on a line; the last one says how it ended. A deploy
/// that has begun goes on when its client has gone.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Don't make it live: give it this share of requests and jobs, from 1 to 99, until `POST /v1/promote` or
    /// `POST /v1/abort`.
    #[serde(default)]
    pub canary_percent: Option<u64>,
    /// Seconds after which the deploy fails. 300 where nothing is said.
    #[serde(default)]
    pub timeout_s: Option<f64>,
}

/// `POST /v1/rollback`. The answer is that of a deploy.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The release to go back to; the one that was live before the present one where nothing is said.
    #[serde(default)]
    pub to: Option<u64>,
    /// Seconds after which it fails. 300 where nothing is said.
    #[serde(default)]
    pub timeout_s: Option<f64>,
}

/// `POST /v1/promote`: makes the release that is on canary live. The answer is that of a deploy.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// Seconds after which it fails. 300 where nothing is said.
    #[serde(default)]
    pub timeout_s: Option<f64>,
}

/// One line of the answer to a deploy, a rollback, or the end of a canary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DeployEvent {
    /// The changes to come, by type, for a person: `web: memory 128MiB -> 256MiB`. Empty where there are none.
    Changes {
        /// A line each.
        lines: Vec<String>,
    },
    /// The release has a number from now on, and is pending.
    Begun {
        /// The number.
        release: u64,
    },
    /// So many of the components that changed are compiled.
    Compiling {
        /// How many.
        done: usize,
        /// The number of all.
        of: usize,
    },
    /// A release step runs.
    Step {
        /// Its type.
        process: String,
    },
    /// The first instance of a changed type is started, and asked whether it's ready.
    Trying {
        /// The type.
        process: String,
    },
    /// So many instances of the changed types are of the new release.
    Moving {
        /// How many.
        done: usize,
        /// The number of all.
        of: usize,
    },
    /// The last line: the release is live.
    Live {
        /// The number.
        release: u64,
    },
    /// The last line: the release has its share of requests and jobs, beside the one that is live.
    Canary {
        /// The number.
        release: u64,
        /// Its share.
        percent: u32,
        /// The types of which it has a share.
        types: Vec<String>,
        /// Types that change and wait until it is promoted; `formation` stands for what belongs to no type.
        waits: Vec<String>,
    },
    /// The last line: the release isn't on canary any more, and has failed.
    Aborted {
        /// The number.
        release: u64,
        /// The release that is live.
        live: u64,
    },
    /// The last line: nothing was to change, or it was a dry run.
    Unchanged {
        /// The release that is live.
        release: u64,
    },
    /// The last line: it failed, and the release that was live is whole.
    Failed {
        /// The number, if it had one already.
        release: Option<u64>,
        /// The release that is live.
        live: u64,
        /// Why, for a person; may have several lines.
        why: String,
    },
}

impl DeployEvent {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        match self {
            DeployEvent::Live { .. }
            | DeployEvent::Canary { .. }
            | DeployEvent::Aborted { .. }
            | DeployEvent::Unchanged { .. }
            | DeployEvent::Failed { .. } => true,
            DeployEvent::Changes { .. }
            | DeployEvent::Begun { .. }
            | DeployEvent::Compiling { .. }
            | DeployEvent::Step { .. }
            | DeployEvent::Trying { .. }
            | DeployEvent::Moving { .. } => false,
        }
    }
}

/// `GET /v1/releases?n=20`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReleasesView {
    /// The newest first.
    pub releases: Vec<ReleaseView>,
}

/// One release.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReleaseView {
    /// `v7` is number 7.
    pub number: u64,
    /// `pending`, `canary`, `live`, `replaced` or `failed`.
    pub state: String,
    /// Its share of requests and jobs, if it is on canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_percent: Option<u32>,
    /// `start`, `deploy`, `rollback to v3`.
    pub author: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// When it became live, if it did. RFC 3339, UTC.
    pub live_at: Option<String>,
    /// Why it failed, if it did.
    pub why: Option<String>,
    /// The types that differ from the release that was live before it, as far as it is known; `formation` stands for what
    /// belongs to no type.
    #[serde(default)]
    pub changed: Vec<String>,
    /// The release before it, where that isn't kept any more, so that nobody knows what this one changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<u64>,
    /// Its components.
    pub components: Vec<ComponentView>,
}

/// A type's component in a release.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ComponentView {
    /// The type.
    pub process: String,
    /// SHA-256 of the component, in hexadecimal digits.
    pub digest: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The file that it was read from.
    pub file: String,
}

/// `GET /v1/releases/7/source`, and `GET /v1/releases/live/source` for the one that is live: all that one needs to run a
/// part of it.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct ReleaseSource {
    /// Its number.
    pub number: u64,
    /// The formation's text.
    pub formation: String,
    /// The text of the `.env` that was beside it, if there was one. Passwords may be in it.
    pub dotenv: Option<String>,
    /// Its components.
    pub components: Vec<ComponentView>,
}

/// `GET /v1/releases/7`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ReleaseDetail {
    /// The release.
    pub release: ReleaseView,
    /// The release that was live before it, if it is still known.
    #[serde(default)]
    pub before: Option<u64>,
    /// Its changes to the one that was live before it, by type, for a person.
    pub changes: Vec<String>,
    /// The formation's text.
    pub formation: String,
}
