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
const START: &str = "start";

/// The release that a start runs. The store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) number: u64,
    /// It was live before, and stays it if the start fails.
    pub(crate) was_live: bool,
    /// A rollback runs no release steps, neither when it is made nor at a start.
    pub(crate) is_rollback: bool,
}

impl Begin {
    fn again(live: &Record) -> Begin {
        Begin { number: live.number, was_live: true, is_rollback: !live.of_file }
    }
}

/// Why a start runs none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NothingToRun {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// For a person.
    #[error("{0}")]
    Lost(String),
}

/// Decides which release a start runs. A file that was rolled back from, or that failed to become live, doesn't come back
/// by a start: the release that was live runs, and a line says so.
pub(crate) async fn at_start(
    releases: &dyn Releases,
    shelf: &Shelf,
    plan: Plan,
    surroundings: &Surroundings<'_>,
) -> Result<(Plan, Begin), NothingToRun> {
    for number in releases.fail_pending("its host ended before it was live").await? {
        info!("release v{number} has failed: the last run ended before it was live");
    }
    let live = releases.live().await?;
    if let Some(live) = live.as_ref().filter(|live| is_of(live, &plan)) {
        return Ok((plan, Begin::again(live)));
    }
    let latest = releases.latest_of_file().await?.filter(|latest| is_of(latest, &plan));
    // A start that failed is tried again: whoever starts the host sees how it goes. A deploy that failed is not.
    let failed_to_start =
        latest.as_ref().filter(|latest| latest.state == ReleaseState::Failed && latest.author == START);
    let barred = latest.as_ref().filter(|_| failed_to_start.is_none());
    let (Some(live), Some(latest)) = (&live, barred) else {
        return match numbered(releases, &plan, failed_to_start).await {
            Ok(number) => Ok((plan, Begin { number, was_live: false, is_rollback: false })),
            Err(err) => without_room(err, live, shelf, plan, surroundings),
        };
    };
    let (now, file) = (live.number, &plan.formation.file);
    let of_file = match &latest.why {
        Some(why) => {
            format!("that of v{}, which failed ({})", latest.number, why.lines().next().unwrap_or_default())
        }
        None => format!("that of v{}, which was rolled back from", latest.number),
    };
    let restored = plan_of(live, shelf, file, surroundings).map_err(|why| {
        let file = file.display();
        NothingToRun::Lost(format!(
            "v{now} was live, and can't be run again: {why}\n{file} is {of_file}, and isn't run by a start: change it, or build a component again, to run it"
        ))
    })?;
    let file = file.display();
    info!("{file} is {of_file}: v{now} runs, as before; change the file, or `wasmhost deploy` it as it is");
    Ok((restored, Begin::again(live)))
}

/// The number of a new release of the file: that of the start which failed to make it live, or the next one.
async fn numbered(releases: &dyn Releases, plan: &Plan, failed: Option<&Record>) -> Result<u64, StoreError> {
    // The list goes by numbers, so that only the last one can be it once more.
    if let Some(Record { number, .. }) = failed
        && releases.numbers(1).await?.first() == Some(number)
    {
        releases.retry(*number).await?;
        return Ok(*number);
    }
    releases.add(record(plan, START.to_owned(), true)).await
}

/// A full disk keeps no release that was live from running again.
fn without_room(
    err: StoreError,
    live: Option<Record>,
    shelf: &Shelf,
    plan: Plan,
    surroundings: &Surroundings<'_>,
) -> Result<(Plan, Begin), NothingToRun> {
    let (StoreError::Full(why), Some(live)) = (&err, live) else { return Err(err.into()) };
    let file = &plan.formation.file;
    let Ok(restored) = plan_of(&live, shelf, file, surroundings) else { return Err(err.into()) };
    warn!(
        "{} is a new release, which can't be stored: v{} runs, as before; `wasmhost deploy` takes the file when there is room ({why})",
        file.display(),
        live.number
    );
    Ok((restored, Begin::again(&live)))
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
    let trusted: HashMap<&str, bool> =
        formation.processes.iter().map(|process| (&*process.name, process.trust_cwasm)).collect();
    let mut kept: HashMap<&str, PathBuf> = HashMap::new();
    for ReleaseComponent { process, digest, .. } in &record.components {
        let trusted = trusted.get(process.as_str()).copied().unwrap_or_default();
        let checked = shelf.check(digest, trusted);
        kept.insert(process, checked.map_err(|what| format!("process.{process}: {what}"))?);
    }
    let file_of = |process: &wasmhost_config::ProcessType| {
        kept.get(process.name.as_str()).cloned().unwrap_or_else(|| process.component.clone())
    };
    let plan = Plan::from_files(formation, surroundings, &file_of).map_err(|err| err.to_string())?;
    match digests(&plan.types) == record.fingerprint {
        true => Ok(plan),
        false => Err("its types aren't those of the components that were kept".to_owned()),
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
