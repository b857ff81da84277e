//! The store's knowledge of releases: which one a start runs, and how one of before is read again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};
use wasmhost_config::{Formation, Source, restore};
use wasmhost_store::releases::{NewRelease, Release as Record, ReleaseComponent, ReleaseState};
use wasmhost_store::{Components, Releases, StoreError};

use super::Shelf;
use super::everywhere::fetch_components;
use crate::members::heart::Membership;
use crate::plan::{Plan, PlannedType, Surroundings};

/// Why a release failed that a dead host left pending.
pub(super) const LEFT: &str = "its host ended before it was live";

/// The author of releases that a start makes of the file.
const START: &str = "start";

/// The release that a start runs. The store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) number: u64,
    /// It was live before, and stays it if the start fails.
    pub(crate) was_live: bool,
    /// A rollback runs no release steps, neither when it is made nor at a start; nor does a host that joins others.
    pub(crate) is_without_steps: bool,
}

impl Begin {
    fn again(live: &Record) -> Begin {
        Begin { number: live.number, was_live: true, is_without_steps: !live.of_file }
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
    shelf: &Arc<Shelf>,
    plan: Plan,
    surroundings: &Surroundings<'_>,
    shared: Option<Shared<'_>>,
) -> Result<(Plan, Begin), NothingToRun> {
    if let (Some(shared), Some(live)) = (shared, releases.live().await?) {
        let fetched = fetch_components(&live, shared.components, shelf).await;
        if shared.membership.has_others() {
            return join(&live, fetched, shelf, plan, surroundings);
        }
        if let Err(why) = fetched {
            warn!("v{} was live, and can't be had whole: {why}", live.number);
        }
    }
    for number in releases.fail_pending(LEFT).await? {
        info!("release v{number} has failed: the last run ended before it was live");
    }
    let (live, latest) = (releases.live().await?, releases.latest_of_file().await?);
    let newest = releases.numbers(1).await?.first().copied();
    let (live, latest) = match decide(live.as_ref(), latest.as_ref(), newest, &|record| is_of(record, &plan))
    {
        Decision::Again(live) => return Ok((plan, Begin::again(live))),
        Decision::Back { live, from } => (live, from),
        decision @ (Decision::Retry(_) | Decision::New) => {
            let stored = match decision {
                Decision::Retry(number) => releases.retry(number).await.map(|()| number),
                _ => releases.add(record(&plan, START.to_owned(), true)).await,
            };
            return match stored {
                Ok(number) => Ok((plan, Begin { number, was_live: false, is_without_steps: false })),
                Err(err) => without_room(err, live.as_ref(), shelf, plan, surroundings),
            };
        }
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

/// The hosts that share the store, for one that starts.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    pub(crate) membership: &'a Membership,
    pub(crate) components: Option<&'a Arc<dyn Components>>,
}

/// Other hosts run already: this one runs their release, whatever its file says.
fn join(
    live: &Record,
    fetched: Result<(), String>,
    shelf: &Shelf,
    plan: Plan,
    surroundings: &Surroundings<'_>,
) -> Result<(Plan, Begin), NothingToRun> {
    let begin = Begin { is_without_steps: true, ..Begin::again(live) };
    if is_of(live, &plan) {
        return Ok((plan, begin));
    }
    let (number, file) = (live.number, &plan.formation.file);
    let restored = fetched.and_then(|()| plan_of(live, shelf, file, surroundings));
    let restored = restored.map_err(|why| {
        NothingToRun::Lost(format!("the other hosts run v{number}, which this one can't run: {why}"))
    })?;
    let file = file.display();
    info!(
        "the other hosts run v{number}, and so does this one: {file} is another; `wasmhost deploy` makes it live on all"
    );
    Ok((restored, begin))
}

/// The release that a start is to run.
#[derive(Debug)]
enum Decision<'a> {
    /// The live one, of which the file is.
    Again(&'a Record),
    /// The one that the last start could not make live.
    Retry(u64),
    /// A new one of the file.
    New,
    /// The live one, since the file is that of a release that was rolled back from, or whose deploy failed.
    Back { live: &'a Record, from: &'a Record },
}

/// `latest` is the last release that was made of the file, as it was then; `newest` is the highest number of all.
fn decide<'a>(
    live: Option<&'a Record>,
    latest: Option<&'a Record>,
    newest: Option<u64>,
    is_of_file: &dyn Fn(&Record) -> bool,
) -> Decision<'a> {
    if let Some(live) = live.filter(|live| is_of_file(live)) {
        return Decision::Again(live);
    }
    match (live, latest.filter(|latest| is_of_file(latest))) {
        (_, None) => Decision::New,
        // A person who starts the host sees how it goes. The list goes by numbers, so that only the last one can be it again.
        (_, Some(latest)) if latest.state == ReleaseState::Failed && latest.author == START => {
            match newest == Some(latest.number) {
                true => Decision::Retry(latest.number),
                false => Decision::New,
            }
        }
        (Some(live), Some(from)) => Decision::Back { live, from },
        (None, Some(_)) => Decision::New,
    }
}

/// A full disk keeps no release that was live from running again.
fn without_room(
    err: StoreError,
    live: Option<&Record>,
    shelf: &Shelf,
    plan: Plan,
    surroundings: &Surroundings<'_>,
) -> Result<(Plan, Begin), NothingToRun> {
    let (StoreError::Full(why), Some(live)) = (&err, live) else { return Err(err.into()) };
    let file = &plan.formation.file;
    let Ok(restored) = plan_of(live, shelf, file, surroundings) else { return Err(err.into()) };
    warn!(
        "{} is a new release, which can't be stored: v{} runs, as before; `wasmhost deploy` takes the file when there is room ({why})",
        file.display(),
        live.number
    );
    Ok((restored, Begin::again(live)))
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

#[cfg(test)]
mod tests {
    use wasmhost_store::Timestamp;

    use super::*;

    /// A release of the file with this text.
    fn release(number: u64, state: ReleaseState, author: &str, text: &str) -> Record {
        Record {
            number,
            created_at: Timestamp::now(),
            live_at: None,
            author: author.to_owned(),
            of_file: !author.starts_with("rollback"),
            state,
            why: None,
            formation: text.to_owned(),
            dotenv: None,
            fingerprint: String::new(),
            components: vec![],
        }
    }

    #[track_caller]
    fn decided(live: Option<&Record>, latest: Option<&Record>, newest: u64) -> String {
        match decide(live, latest, Some(newest), &|record| record.formation == "new") {
            Decision::Again(live) => format!("v{} again", live.number),
            Decision::Retry(number) => format!("v{number} once more"),
            Decision::New => "a new one".to_owned(),
            Decision::Back { live, from } => format!("v{}, not v{}", live.number, from.number),
        }
    }

    #[test]
    fn a_start_runs_the_file_unless_somebody_had_enough_of_it() {
        use ReleaseState::{Failed, Live, Replaced};
        let old = release(1, Live, START, "old");
        assert_eq!(decided(None, None, 0), "a new one");
        assert_eq!(decided(Some(&old), Some(&old), 1), "a new one");
        let live = release(2, Live, "deploy", "new");
        assert_eq!(decided(Some(&live), Some(&live), 2), "v2 again");
        // A rollback to what the file is again.
        let back = release(3, Live, "rollback to v1", "new");
        assert_eq!(decided(Some(&back), Some(&release(2, Replaced, "deploy", "bad")), 3), "v3 again");
        // A rollback from what the file is, and a deploy that failed.
        let back = release(3, Live, "rollback to v1", "old");
        assert_eq!(decided(Some(&back), Some(&release(2, Replaced, "deploy", "new")), 3), "v3, not v2");
        assert_eq!(decided(Some(&old), Some(&release(2, Failed, "deploy", "new")), 2), "v1, not v2");
        // Once it has changed it is one of many.
        assert_eq!(decided(Some(&back), Some(&release(2, Replaced, "deploy", "bad")), 3), "a new one");
    }

    #[test]
    fn a_start_that_failed_is_tried_again_under_its_number_while_it_is_the_last_one() {
        use ReleaseState::{Failed, Live};
        let (old, failed) = (release(1, Live, START, "old"), release(2, Failed, START, "new"));
        assert_eq!(decided(Some(&old), Some(&failed), 2), "v2 once more");
        assert_eq!(decided(None, Some(&failed), 2), "v2 once more");
        assert_eq!(decided(Some(&release(3, Live, "rollback to v1", "old")), Some(&failed), 3), "a new one");
        assert_eq!(decided(Some(&old), Some(&release(2, Failed, START, "mended since")), 2), "a new one");
    }
}
