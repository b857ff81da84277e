//! The type that a one-off runs: as the live release has it or, where there is none, as the file says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::StatusCode;
use wasmhost_config::{Formation, LoadError, StoreUrl, default_state_dir};
use wasmhost_host::admin::api::ReleaseSource;
use wasmhost_host::{GrantedBy, LiveRelease, PlannedType, Surroundings, is_in_use, running_state_dir};

use crate::args::exec::Exec;
use crate::cache;
use crate::check::{exit_of, plan_failed};
use crate::client::{Client, NoAnswer};
use crate::exit::{Exit, Failed};
use crate::formation_file::FormationFile;
use crate::print;

/// How long a host that has only begun may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Subject {
    /// The formation that the type is a part of.
    pub(super) formation: Formation,
    /// Where its host is.
    pub(super) state_dir: PathBuf,
    pub(super) planned: PlannedType,
}

pub(super) fn find(file: &FormationFile, exec: &Exec) -> Result<Subject, Failed> {
    let read = match wasmhost_config::load(file.path()) {
        Err(err) if !matches!(err, LoadError::Invalid(_)) => return Err(file.failed(Exit::Usage, err)),
        read => read,
    };
    let absolute = std::path::absolute(file.path())?;
    // Where the file has errors, its host is looked for in the usual place.
    let (state_dir, store) = match &read {
        Ok(formation) => (formation.state_dir.clone(), formation.store.clone()),
        Err(_) => {
            let state_dir = default_state_dir(&absolute);
            (state_dir.clone(), StoreUrl::Sqlite(state_dir.join("store.db")))
        }
    };
    // A host goes on with the state directory that the file named when it began, and knows its own store.
    let elsewhere = if is_in_use(&state_dir) { None } else { running_state_dir(&absolute) };
    let only_host_knows = elsewhere.is_some() || matches!(store, StoreUrl::Memory | StoreUrl::Postgres(_));
    let state_dir = elsewhere.unwrap_or(state_dir);
    let live = match (exec.from_file, only_host_knows) {
        (true, _) => None,
        (false, true) => {
            ask_host(Client::of(FormationFile::find(Some(absolute.clone())), state_dir.clone()))?
        }
        (false, false) => ask_store(&exec.process, &absolute, &state_dir, &store),
    };
    let Some(live) = live else { return of_file(file, read, state_dir, &exec.process) };
    let subject = of_release(file, &live, state_dir, &exec.process)?;
    if let Some(what) = difference(&live, &subject, &read, file.path()) {
        print::note(format_args!(
            "note: {} is run as v{} has it, the live release; {what}: `wasmhost deploy` makes that live, --from-file runs it",
            exec.process, live.number
        ));
    }
    Ok(subject)
}

// --- as the file says

fn of_file(
    file: &FormationFile,
    read: Result<Formation, LoadError>,
    state_dir: PathBuf,
    process: &str,
) -> Result<Subject, Failed> {
    let formation = read.map_err(|err| file.failed(Exit::Usage, err))?;
    let cache = cache::directory();
    let surroundings = Surroundings { cache: cache.as_deref(), granted_by: GrantedBy::Formation };
    let planned = PlannedType::one_off(&formation, process, None, &surroundings);
    Ok(Subject { planned: planned.map_err(|err| plan_failed(file, &err))?, formation, state_dir })
}

// --- as the live release has it

/// The live release by the store, whether a host runs or not.
fn ask_store(process: &str, file: &Path, state_dir: &Path, store: &StoreUrl) -> Option<LiveRelease> {
    LiveRelease::in_store(state_dir, file, store).unwrap_or_else(|why| {
        let file = file.display();
        print::note(format_args!(
            "note: it isn't known which release is live ({why}): {process} is run as {file} says"
        ));
        None
    })
}

/// The live release of the host, if one runs.
fn ask_host(client: Client) -> Result<Option<LiveRelease>, Failed> {
    if client.refuse_other().is_err() {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async {
        tokio::time::timeout(ANSWER_MAX, client.try_get::<ReleaseSource>("/v1/releases/live/source")).await
    });
    match asked {
        Ok(Ok(source)) => Ok(Some(source.into())),
        Ok(Err(NoAnswer::Refused { status: StatusCode::NOT_FOUND, .. })) => Ok(None),
        Ok(Err(NoAnswer::Failed(failed))) if failed.exit == Exit::NoHost => Ok(None),
        Ok(Err(NoAnswer::Failed(failed))) => Err(failed),
        Ok(Err(NoAnswer::Refused { problem, .. })) => Err(Failed::new(Exit::Failed, problem.detail)),
        Err(_) => Err(Failed::new(
            Exit::Failed,
            format!(
                "the host doesn't say within {ANSWER_MAX:?} which release is live: wait until it is up, or use --from-file"
            ),
        )),
    }
}

fn of_release(
    file: &FormationFile,
    live: &LiveRelease,
    state_dir: PathBuf,
    name: &str,
) -> Result<Subject, Failed> {
    let failed = |exit, message: &dyn std::fmt::Display| {
        let (number, file) = (live.number, file.path().display());
        Failed::new(
            exit,
            format!(
                "{message}\nthis is v{number}, the live release; --from-file takes {file} as it is by now"
            ),
        )
    };
    let formation = live.formation(file.path()).map_err(|err| failed(Exit::Usage, &err))?;
    let process = formation.processes.iter().find(|process| process.name == name);
    let component = process.map(|process| live.component(process, &state_dir)).transpose();
    let component =
        component.map_err(|why| failed(Exit::Component, &format_args!("process.{name}: {why}")))?;
    let cache = cache::directory();
    let surroundings = Surroundings { cache: cache.as_deref(), granted_by: GrantedBy::Formation };
    let planned = PlannedType::one_off(&formation, name, component.as_deref(), &surroundings);
    let planned = planned.map_err(|err| failed(exit_of(&err), &err))?;
    Ok(Subject { formation, state_dir, planned })
}

/// The difference that the file would make to the type.
fn difference(
    live: &LiveRelease,
    subject: &Subject,
    read: &Result<Formation, LoadError>,
    file: &Path,
) -> Option<String> {
    let name = &subject.planned.process.name;
    let process_of =
        |formation: &Formation| formation.processes.iter().find(|process| process.name == *name).cloned();
    let file = file.display();
    let Ok(read) = read else { return Some(format!("{file} has errors")) };
    let Some(process) = process_of(read) else { return Some(format!("{file} has no {name} any more")) };
    if process_of(&subject.formation).as_ref() != Some(&process) {
        return Some(match read.source.text == subject.formation.source.text {
            true => format!("the .env beside {file} has changed"),
            false => format!("{name} has changed in {file}"),
        });
    }
    (!live.has_component_of(&process)).then(|| format!("{} has changed", process.component.display()))
}
