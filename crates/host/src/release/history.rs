//! The store's knowledge of releases: which one a start runs, and how one of before is read again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tracing::{info, warn};
use wasmhost_config::{Formation, Source, restore};
use wasmhost_store::releases::{NewRelease, Release as Record, ReleaseComponent, ReleaseState};
use wasmhost_store::{Releases, StoreError};

use super::Shelf;
use crate::plan::{Plan, PlannedType, Surroundings};

/// The author of releases that a start makes of the file.
pub(crate) const START: &str = "start";

/// Which release a start runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The one that was live. A rollback runs no release steps, neither when it is made nor at a start.
    Again { number: u64, is_rollback: bool },
    /// The file is a new one.
    New,
}

/// Decides which release a start runs. A file that was rolled back from, or that failed to become live, doesn't come back
/// by a start: the release that was live runs, and a line says so.
pub(crate) async fn at_start(
    releases: &dyn Releases,
    shelf: &Shelf,
    plan: Plan,
    surroundings: &Surroundings<'_>,
) -> Result<(Plan, Begin), StoreError> {
    for number in releases.fail_pending("its host ended before it was live").await? {
        info!("release v{number} has failed: the last run ended before it was live");
    }
    let Some(live) = releases.live().await? else { return Ok((plan, Begin::New)) };
    let again = Begin::Again { number: live.number, is_rollback: !live.of_file };
    if is_of(&live, &plan) {
        return Ok((plan, again));
    }
    // A start that failed is tried again: whoever starts the host sees how it goes. A deploy that failed is not.
    let is_barred = |latest: &Record| {
        let failed_to_start = latest.state == ReleaseState::Failed && latest.author == START;
        latest.number != live.number && !failed_to_start && is_of(latest, &plan)
    };
    let Some(latest) = releases.latest_of_file().await?.filter(is_barred) else {
        return Ok((plan, Begin::New));
    };
    let file = plan.formation.file.display().to_string();
    match plan_of(&live, shelf, &plan.formation.file, surroundings) {
        Ok(restored) => {
            let why = match &latest.why {
                Some(why) => format!("which failed ({})", why.lines().next().unwrap_or_default()),
                None => "which was rolled back from".to_owned(),
            };
            info!(
                "{file} is that of v{}, {why}: v{} runs, as before; change the file, or `wasmhost deploy` it as it is",
                latest.number, live.number
            );
            Ok((restored, again))
        }
        Err(why) => {
            warn!("v{} was live, and can't be run again, so that {file} is: {why}", live.number);
            Ok((plan, Begin::New))
        }
    }
}

/// The plan of a release of before, with the components that were kept of it. An error is for a person.
pub(crate) fn plan_of(
    record: &Record,
    shelf: &Shelf,
    file: &Path,
    surroundings: &Surroundings<'_>,
) -> Result<Plan, String> {
    let source = Source { text: record.formation.clone(), dotenv: record.dotenv.clone() };
    let formation = restore(file, &source).map_err(|err| err.to_string())?;
    let mut kept: HashMap<&str, PathBuf> = HashMap::new();
    for component in &record.components {
        let found = shelf.find(&component.digest).ok_or_else(|| {
            format!(
                "the component of \"{}\" ({}) isn't kept any more",
                component.process,
                component.digest.get(..12).unwrap_or(&component.digest)
            )
        })?;
        kept.insert(&component.process, found);
    }
    let file_of = |process: &wasmhost_config::ProcessType| {
        kept.get(process.name.as_str()).cloned().unwrap_or_else(|| process.component.clone())
    };
    let plan = Plan::from_files(formation, surroundings, &file_of).map_err(|err| err.to_string())?;
    match digests(&plan.types) == record.fingerprint {
        true => Ok(plan),
        false => Err("what was kept of its components isn't what they were".to_owned()),
    }
}

/// The part of a plan that the store is to know.
pub(crate) fn record(plan: &Plan, author: String, of_file: bool) -> NewRelease {
    let components = plan.types.iter().map(|planned| ReleaseComponent {
        process: planned.process.name.clone(),
        digest: planned.code.digest(),
        file: planned.process.component.display().to_string(),
        bytes: planned.code.bytes(),
    });
    let Source { text, dotenv } = plan.formation.source.clone();
    NewRelease {
        author,
        of_file,
        formation: text,
        dotenv,
        fingerprint: digests(&plan.types),
        components: components.collect(),
    }
}

/// Whether a release was made of this file and these components.
fn is_of(record: &Record, plan: &Plan) -> bool {
    let Formation { source: Source { text, dotenv }, .. } = &plan.formation;
    (&record.formation, &record.dotenv) == (text, dotenv) && record.fingerprint == digests(&plan.types)
}

/// A line for each type, with the digest of its component.
fn digests(types: &[PlannedType]) -> String {
    types.iter().map(|planned| format!("{} {}\n", planned.process.name, planned.code.digest())).collect()
}
