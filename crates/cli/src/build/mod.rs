//! `wasmhost build`: runs the `build` command of each type whose sources changed. `dev` does the same, again and again.
//!
//! Types with the same command are built together, by running it once. [`record`] keeps what a build was made of.

mod child;
mod hint;
mod record;
mod sources;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use wasmhost_config::{Formation, ProcessType};

use crate::args::project::Build as BuildArguments;
use crate::exit::{Exit, Failed, Outcome};
use crate::formation_file::FormationFile;
use crate::print;
use crate::signals;
use crate::table::size;
use child::Building;
use record::Record;
pub(crate) use sources::{Place, Sources, file_digest};

/// Lines of a failed build in which a reason is looked for.
const LAST_LINES: usize = 50;

/// A command, and the types whose components it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Build {
    pub(crate) command: String,
    pub(crate) types: Vec<Built>,
}

/// A type and its component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    pub(crate) name: String,
    pub(crate) component: PathBuf,
}

/// Why there is no component.
#[derive(Debug)]
pub(crate) struct BuildFailed {
    types: String,
    why: String,
    hint: Option<String>,
}

/// `--json`
#[derive(Serialize)]
struct Told<'a> {
    /// The process type's name.
    process: &'a str,
    component: &'a Path,
    /// False where its sources haven't changed since they were last built.
    built: bool,
    bytes: u64,
}

pub(crate) fn build(file: &FormationFile, arguments: &BuildArguments) -> Outcome {
    let formation = file.read()?;
    let builds = chosen(file, &formation, &arguments.types)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the first one starts.
        let mut interrupted = std::pin::pin!(signals::end_of_program());
        for build in &builds {
            let mut builder = Builder::new(&formation);
            let sources = builder.look()?;
            let is_fresh = !arguments.force && builder.is_fresh(build, &sources);
            let begun = Instant::now();
            if !is_fresh {
                let shown = build.names();
                let say = |line: &str| print::note(format_args!("{shown:<10} | {line}"));
                let mut building = builder.start(build)?;
                let ended = tokio::select! {
                    ended = builder.finish(build, &mut building, sources, say) => ended,
                    code = &mut interrupted => {
                        building.stop().await;
                        return Ok(Exit::OfProgram(code?));
                    }
                };
                ended.map_err(|failed| Failed::new(Exit::Failed, failed))?;
            }
            told(build, arguments.json, (!is_fresh).then(|| begun.elapsed()))?;
        }
        Ok(Exit::Done)
    })
}

/// The builds that are asked for: of all types that have a command, or of these.
fn chosen(file: &FormationFile, formation: &Formation, types: &[String]) -> Result<Vec<Build>, Failed> {
    for name in types {
        match formation.process(name) {
            Some(process) if process.build.is_some() => {}
            Some(_) => {
                let message =
                    format!("{name} has no `build`: the command that makes its component belongs there");
                return Err(file.failed(Exit::Usage, message));
            }
            None => {
                let known: Vec<_> = formation.processes.iter().map(|process| process.name.as_str()).collect();
                let message = format!("there is no process type {name}; there are {}", known.join(", "));
                return Err(file.failed(Exit::Usage, message));
            }
        }
    }
    let builds = Build::of(formation, |process| types.is_empty() || types.contains(&process.name));
    if builds.is_empty() {
        let shown = file.path().display();
        let message = format!(
            "{shown}: no type has a `build`: the command that makes its component, such as build = \"cargo build --release --target wasm32-wasip2\""
        );
        return Err(file.failed(Exit::Usage, message));
    }
    Ok(builds)
}

fn told(build: &Build, json: bool, took: Option<Duration>) -> Result<(), Failed> {
    for Built { name, component } in &build.types {
        let bytes = std::fs::metadata(component).map_or(0, |about| about.len());
        if json {
            print::json(&Told { process: name, component, built: took.is_some(), bytes })?;
            continue;
        }
        let shown = component.display();
        match took {
            Some(took) => print::line(format_args!(
                "{name}: built {shown} ({}) in {:.1} s",
                size(bytes),
                took.as_secs_f64()
            )),
            None => print::line(format_args!("{name}: its sources haven't changed, {shown} stays")),
        }
    }
    Ok(())
}

impl Build {
    /// The builds of these types, in the file's order.
    pub(crate) fn of(formation: &Formation, wanted: impl Fn(&ProcessType) -> bool) -> Vec<Build> {
        let mut builds: Vec<Build> = Vec::new();
        for process in formation.processes.iter().filter(|process| wanted(process)) {
            let Some(command) = &process.build else { continue };
            let built = Built { name: process.name.clone(), component: process.component.clone() };
            match builds.iter_mut().find(|build| build.command == *command) {
                Some(build) => build.types.push(built),
                None => builds.push(Build { command: command.clone(), types: vec![built] }),
            }
        }
        builds
    }

    /// `web`, or `web,worker`.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.types.iter().map(|built| built.name.as_str()).collect();
        names.join(",")
    }
}

/// Builds what a formation says, as it is now.
pub(crate) struct Builder {
    place: Place,
    record: Record,
}

impl Builder {
    pub(crate) fn new(formation: &Formation) -> Builder {
        Builder { place: Place::of(formation), record: Record::read(&formation.state_dir) }
    }

    /// Where it looks for sources.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn look(&self) -> Result<Sources, Failed> {
        self.place.look().map_err(|err| {
            Failed::new(
                Exit::Failed,
                format!("can't look at the sources in {}: {err}", self.place.folder().display()),
            )
        })
    }

    /// Whether the components are those that this command has made of these sources.
    pub(crate) fn is_fresh(&self, build: &Build, sources: &Sources) -> bool {
        let sources = sources.digest();
        build.types.iter().all(|built| self.record.is_of(built, &build.command, &sources))
    }

    pub(crate) fn start(&self, build: &Build) -> Result<Building, Failed> {
        let shown = build.names();
        Building::start(&build.command, self.place.folder())
            .map_err(|err| Failed::new(Exit::Failed, format!("the build of {shown} can't be started: {err}")))
    }

    /// Waits for a build that began with these sources, and keeps what was made of them.
    pub(crate) async fn finish(
        &mut self,
        build: &Build,
        building: &mut Building,
        sources: Sources,
        mut say: impl FnMut(&str),
    ) -> Result<(), BuildFailed> {
        let failed = |why, hint| BuildFailed { types: build.names(), why, hint };
        let mut last = Vec::new();
        let ended = building.wait(|line| {
            say(line);
            if last.len() == LAST_LINES {
                last.remove(0);
            }
            last.push(line.to_owned());
        });
        let ended = ended.await.map_err(|err| failed(format!("can't be waited for: {err}"), None))?;
        let command = &build.command;
        if !ended.success() {
            let hint = hint::find(command, ended.code(), &last);
            return Err(failed(format!("`{command}` failed ({ended})"), hint));
        }
        if let Some(missing) = build.types.iter().find(|built| !built.component.is_file()) {
            let shown = missing.component.display();
            let why = format!(
                "`{command}` ended well, and {shown} isn't there: `component` of {} names it",
                missing.name
            );
            return Err(failed(why, None));
        }
        // Files that can't be looked at now are built again.
        if let Ok(after) = self.place.look() {
            self.record.keep(build, &sources.with_new(&after).digest());
        }
        Ok(())
    }
}

impl fmt::Display for BuildFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the build of {} failed: {}", self.types, self.why)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}
