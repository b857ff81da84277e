//! A plan joins a formation with what its components are. `run` and `check` work from it. Nothing is compiled here.

mod dirs;
mod one_off;
mod procfile;
mod understood;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmhost_config::{
    CompileLimits, Formation, ProcessType, Route, Run, Trigger, is_procfile, read_file, units,
};
use wasmhost_engine::{
    Code, Directories, FILE_BYTES_MAX, Footprint, Handler, Inspection, TABLE_ELEMENTS_MAX,
};

use crate::grants;
use crate::services::GrantedBy;
use crate::supervisor::Backlog;
pub use understood::Understood;

/// A formation that can be run, as far as can be told without compiling.
pub struct Plan {
    /// The formation, as the file says it.
    pub formation: Formation,
    /// Its types, in the file's order.
    pub types: Vec<PlannedType>,
}

/// The surroundings in which a formation is looked at.
pub struct Surroundings<'a> {
    /// The directory of compiled components, if they are kept.
    pub cache: Option<&'a Path>,
    /// Where a person has written the grants.
    pub granted_by: GrantedBy,
}

/// One process type, with its component.
pub struct PlannedType {
    /// The type, as the file says it.
    pub process: ProcessType,
    /// The trigger that calls it: as the file says, or as its exports do.
    pub trigger: Trigger,
    /// How it is called.
    pub handler: Handler,
    /// Wall time of a call: the file's, or the trigger's default.
    pub timeout: Option<Duration>,
    /// The component's file.
    pub code: Code,
    /// The directories that it is granted, open.
    pub directories: Directories,
    /// The part of the pool that an instance takes.
    pub footprint: Footprint,
    /// Whether it uses component-model async, as WASI 0.3 does.
    pub is_async: bool,
    /// Whether it imports what puts jobs on queues.
    pub puts_jobs: bool,
    /// The bounds of compiling it.
    pub compile: CompileLimits,
}

/// Why there is no plan: everything that was found wrong.
#[derive(Debug)]
pub struct PlanError {
    /// In the file's order, at least one.
    pub problems: Vec<PlanProblem>,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct PlanProblem {
    /// The type.
    pub process: String,
    /// The text: what was found, what was expected, what to do.
    pub message: String,
    /// True where the component is missing or can't be used, false where the formation contradicts itself.
    pub in_component: bool,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let line_end = if n == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlanProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process.{}: {}", self.process, self.message)
    }
}

impl std::error::Error for PlanError {}

const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
const TICK_TIMEOUT: Duration = Duration::from_secs(30);
const JOB_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Calls at once in one instance of WASI 0.3, where the formation doesn't say: as many as `wasmtime serve` allows.
/// Other instances serve one at a time whatever is said.
pub(crate) const CONCURRENCY_DEFAULT: u32 = 16;

/// Waiting calls for each instance, where the formation doesn't say.
const BACKLOG_PER_INSTANCE: u32 = 50;

impl Plan {
    /// Reads every component, and finds out what calls it.
    pub fn new(formation: Formation, surroundings: &Surroundings<'_>) -> Result<Plan, PlanError> {
        Plan::from_files(formation, surroundings, &|process| process.component.clone())
    }

    /// The same, with other files for the components.
    pub(crate) fn from_files(
        mut formation: Formation,
        surroundings: &Surroundings<'_>,
        file: &dyn Fn(&ProcessType) -> PathBuf,
    ) -> Result<Plan, PlanError> {
        let mut types = Vec::new();
        let mut problems = Vec::new();
        for process in &formation.processes {
            let directories = open_dirs(process).unwrap_or_else(|problem| {
                problems.push(problem);
                Directories::default()
            });
            match plan_type(process, &file(process), directories, &formation) {
                Ok(planned) => {
                    problems.extend(memory_problem(&planned));
                    // A command that a person runs by itself may be any program.
                    if surroundings.granted_by == GrantedBy::Formation || !planned.handler.is_command() {
                        problems.extend(table_problem(&planned));
                    }
                    problems.extend(ready_problem(&planned));
                    types.push(planned);
                }
                Err(problem) => problems.push(problem),
            }
        }
        problems.extend(dirs::problems(&formation, surroundings));
        problems.extend(nested_dirs(&types));
        problems.extend(unequal_dirs(&types));
        problems.extend(doubled_routes(&types, procfile::instead(&formation)));
        procfile::share_queue(&mut formation, &mut types);
        match problems.is_empty() {
            true => Ok(Plan { formation, types }),
            false => Err(PlanError { problems }),
        }
    }

    /// Whether any type is called by requests: without one there is no ingress.
    pub fn has_http(&self) -> bool {
        self.types.iter().any(|planned| matches!(planned.trigger, Trigger::Http { .. }))
    }

    /// How many engines the components need: those that use component-model async have one of their own, with a pool
    /// of its own.
    pub fn engines(&self) -> u32 {
        let asynchronous = self.types.iter().filter(|planned| planned.is_async).count();
        u32::from(asynchronous > 0) + u32::from(asynchronous < self.types.len())
    }

    /// The most that an instance of any type takes from the pool.
    pub fn footprint(&self) -> Footprint {
        self.types.iter().fold(Footprint::default(), |most, planned| most.max(planned.footprint))
    }
}

impl PlannedType {
    /// Whether its instances run a `main` of their own accord.
    pub fn runs_always(&self) -> bool {
        matches!(self.trigger, Trigger::Command { run: Run::Always })
    }

    /// How many calls may wait for an instance.
    pub(crate) fn backlog(&self) -> Backlog {
        match self.process.backlog {
            Some(all) => Backlog::InAll(all),
            None => Backlog::PerInstance(BACKLOG_PER_INSTANCE),
        }
    }

    /// How many instances the file asks for: types that run once, or by hand, keep none.
    pub fn count(&self) -> u32 {
        match self.trigger {
            Trigger::Command { run: Run::Release | Run::Never } => 0,
            _ => self.process.count,
        }
    }
}

fn plan_type(
    process: &ProcessType,
    path: &Path,
    directories: Directories,
    formation: &Formation,
) -> Result<PlannedType, PlanProblem> {
    let problem = |message| PlanProblem { process: process.name.clone(), message, in_component: true };
    let bytes = read(path, process).map_err(problem)?;
    let (code, seen) =
        Code::new(bytes, process.trust_cwasm).map_err(|err| problem(format!("{} {err}", path.display())))?;
    let (trigger, handler) = join(process, &seen, formation)
        .map_err(|message| problem(format!("{} {message}", path.display())))?;
    if process.concurrency.is_some() && Some(handler) != shared(&trigger) {
        let instead = shared(&trigger).map(|handler| format!(", or build it for {handler}"));
        return Err(problem(format!(
            "{} is called by {handler}, which serves one call at a time: leave `concurrency` out{}",
            path.display(),
            instead.unwrap_or_default(),
        )));
    }
    if !process.missing_imports_trap
        && let Some(refusal) = seen.refusal()
    {
        return Err(problem(format!("{} {refusal}", path.display())));
    }
    let default = match trigger {
        Trigger::Http { .. } => Some(HTTP_TIMEOUT),
        Trigger::Queue { .. } => Some(JOB_TIMEOUT),
        Trigger::Schedule(_) => Some(TICK_TIMEOUT),
        Trigger::Command { .. } => None,
    };
    Ok(PlannedType {
        process: process.clone(),
        trigger,
        handler,
        timeout: process.timeout.or(default),
        code,
        directories,
        footprint: seen.footprint,
        is_async: seen.is_async,
        puts_jobs: procfile::puts_jobs(&seen.imports),
        compile: formation.compile,
    })
}

fn read(path: &Path, process: &ProcessType) -> Result<Vec<u8>, String> {
    use std::io::ErrorKind;
    let bytes = read_file(path, FILE_BYTES_MAX).map_err(|err| match err.kind() {
        ErrorKind::NotFound => {
            let how = if process.build.is_some() { "`wasmhost build` builds it" } else { "build it" };
            format!("the component {} doesn't exist: {how}, or correct `component`", path.display())
        }
        ErrorKind::IsADirectory => {
            format!("the component {} is a directory; a .wasm file is expected", path.display())
        }
        _ => format!("can't read the component {}: {err}", path.display()),
    })?;
    bytes.ok_or_else(|| {
        let max = units::format_size(FILE_BYTES_MAX);
        format!("the component {} is larger than {max}, the most that is read of one", path.display())
    })
}

/// Says what is wrong with a component that begins with more memory than its type may have.
pub fn memory_problem(planned: &PlannedType) -> Option<PlanProblem> {
    let (needed, max) = (planned.footprint.bytes_at_start(), planned.process.memory_bytes_max);
    (needed > max).then(|| PlanProblem {
        process: planned.process.name.clone(),
        message: format!(
            "{} begins with {} of memory and tables, and its `memory` is {}: it needs {} or more",
            planned.process.component.display(),
            units::format_size(needed),
            units::format_size(max),
            units::format_size(needed.div_ceil(1 << 20) << 20),
        ),
        in_component: false,
    })
}

/// Says what is wrong with a component one of whose tables begins larger than any may be.
fn table_problem(planned: &PlannedType) -> Option<PlanProblem> {
    let elements = planned.footprint.table_elements_max;
    (elements > TABLE_ELEMENTS_MAX).then(|| PlanProblem {
        process: planned.process.name.clone(),
        message: format!(
            "{} has a table that begins with {elements} elements, and {TABLE_ELEMENTS_MAX} are the most that one may have",
            planned.process.component.display(),
        ),
        in_component: true,
    })
}

/// Says so where `ready` stands in a type that its component's exports make one that no request calls.
fn ready_problem(planned: &PlannedType) -> Option<PlanProblem> {
    let is_http = matches!(planned.trigger, Trigger::Http { .. });
    (planned.process.ready.is_some() && !is_http).then(|| PlanProblem {
        process: planned.process.name.clone(),
        message: format!(
            "{} is called by {}, and `ready` is only for a type that requests call: leave it out",
            planned.process.component.display(),
            planned.handler,
        ),
        in_component: false,
    })
}

/// Finds the handler that serves the trigger, and the trigger where the file names none.
fn join(
    process: &ProcessType,
    seen: &Inspection,
    formation: &Formation,
) -> Result<(Trigger, Handler), String> {
    let Some(trigger) = &process.trigger else {
        let follows = |handler: Handler| {
            let of_procfile = || is_procfile(&formation.file).then(|| procfile::trigger(handler)).flatten();
            Some((default_trigger(handler).or_else(of_procfile)?, handler))
        };
        return seen.handlers.iter().copied().find_map(follows).ok_or_else(|| {
            format!(
                "{}, which doesn't say what calls it: give the type a `route`, `queue`, `schedule` or `run`, and a component that exports the handler for it{}",
                exports(seen),
                procfile::instead(formation)
            )
        });
    };
    let (key, wanted): (_, &[Handler]) = match trigger {
        Trigger::Http { .. } => ("route", &[Handler::Http02, Handler::Http03]),
        Trigger::Queue { .. } => {
            let any = &[
                Handler::Job,
                Handler::AsyncJob,
                Handler::Command02,
                Handler::Command03,
                Handler::CoreCommand,
            ];
            ("queue", any)
        }
        Trigger::Schedule(_) => {
            let any = &[
                Handler::Tick,
                Handler::AsyncTick,
                Handler::Command02,
                Handler::Command03,
                Handler::CoreCommand,
            ];
            ("schedule", any)
        }
        Trigger::Command { .. } => ("run", &[Handler::Command02, Handler::Command03, Handler::CoreCommand]),
    };
    match seen.handlers.iter().find(|handler| wanted.contains(handler)) {
        Some(handler) => Ok((trigger.clone(), *handler)),
        None => {
            let wanted: Vec<_> = wanted.iter().map(Handler::to_string).collect();
            Err(format!("{}, and `{key}` needs {}", exports(seen), wanted.join(" or ")))
        }
    }
}

/// The handler of these calls that serves several at once.
fn shared(trigger: &Trigger) -> Option<Handler> {
    match trigger {
        Trigger::Http { .. } => Some(Handler::Http03),
        Trigger::Queue { .. } => Some(Handler::AsyncJob),
        Trigger::Schedule(_) => Some(Handler::AsyncTick),
        Trigger::Command { .. } => None,
    }
}

fn default_trigger(handler: Handler) -> Option<Trigger> {
    match handler {
        Handler::Http02 | Handler::Http03 => {
            Some(Trigger::Http { routes: vec![Route { host: None, path: "/".into() }] })
        }
        Handler::Command02 | Handler::Command03 | Handler::CoreCommand => {
            Some(Trigger::Command { run: Run::Always })
        }
        Handler::Job | Handler::AsyncJob | Handler::Tick | Handler::AsyncTick => None,
    }
}

fn exports(seen: &Inspection) -> String {
    format!("exports {}", seen.shown_exports())
}

fn open_dirs(process: &ProcessType) -> Result<Directories, PlanProblem> {
    // `dirs` tells of those that aren't there.
    if process.grants.dirs.iter().any(|dir| !dir.host.is_dir()) {
        return Ok(Directories::default());
    }
    Directories::open(&process.grants.dirs).map_err(|err| PlanProblem {
        process: process.name.clone(),
        message: err.to_string(),
        in_component: false,
    })
}

fn nested_dirs(types: &[PlannedType]) -> impl Iterator<Item = PlanProblem> {
    let directories = types.iter().map(|planned| (planned.process.name.as_str(), &planned.directories));
    grants::nested(directories).into_iter().map(nested_problem)
}

fn unequal_dirs(types: &[PlannedType]) -> impl Iterator<Item = PlanProblem> {
    let directories = types.iter().map(|planned| (planned.process.name.as_str(), &planned.directories));
    let shown = |max: Option<u64>| max.map_or("none".to_owned(), units::format_size);
    grants::unequal(directories).into_iter().map(move |unequal| PlanProblem {
        message: format!(
            "dirs grants {} with another max_bytes ({}) than \"{}\" has for it ({}): all that write in a directory share its bound, so say the same for both",
            unequal.directory.display(),
            shown(unequal.bytes_max),
            unequal.other,
            shown(unequal.other_bytes_max),
        ),
        process: unequal.process,
        in_component: false,
    })
}

fn nested_problem(nested: grants::Nested) -> PlanProblem {
    PlanProblem {
        message: format!(
            "dirs grants {}, which is found by way of {}, where \"{}\" may write and could put a link to any other place: grant both from directories that don't lie in each other",
            nested.directory.display(),
            nested.writable.display(),
            nested.writer,
        ),
        process: nested.process,
        in_component: false,
    }
}

/// Two types with one route, where a component's exports gave one of them its route.
fn doubled_routes(types: &[PlannedType], instead: &str) -> Vec<PlanProblem> {
    let mut owners: HashMap<&Route, &str> = HashMap::new();
    let mut problems = Vec::new();
    for planned in types {
        let Trigger::Http { routes } = &planned.trigger else { continue };
        for route in routes {
            if let Some(owner) = owners.insert(route, &planned.process.name) {
                problems.push(PlanProblem {
                    process: planned.process.name.clone(),
                    message: format!(
                        "the route {route} belongs to \"{owner}\" already: give one of them another `route`{instead}"
                    ),
                    in_component: false,
                });
            }
        }
    }
    problems
}
