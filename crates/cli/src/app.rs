//! `wasmhost run app.wasm`: one component, or one core WASI 0.1 module, without a formation. One that exports an http
//! handler is served; a command is run once, with this process's standard streams for its own, and its exit code passed
//! on.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use wasmhost_config::{
    DirGrant, EnvVar, Formation, LoadError, MEMORY_BYTES_DEFAULT, Origin, ProcessType, read_file, units,
};
use wasmhost_engine::{FILE_BYTES_MAX, Handler, inspect};
use wasmhost_host::{GrantedBy, OneOff, Plan, PlanError, Surroundings, memory_problem};

use crate::args::{AppFlags, Arguments, DirFlag, EnvFlag};
use crate::cache;
use crate::exit::{Exit, Failed, Outcome};
use crate::host_log;
use crate::print;
use crate::program::{self, Words};
use crate::serve::serve;

/// The memory that a command may have where no flag says: as much as a 32-bit memory can. A person who runs a program
/// doesn't expect a limit; instances that are served have a formation's default.
const COMMAND_MEMORY_BYTES: u64 = 4 << 30;

/// Instances of an app that is served, where no flag says: with one alone, more than fifty clients at once would be
/// refused. Those that aren't called cost a few dozen KiB each.
const COUNT_DEFAULT: u32 = 16;

/// The first bytes of a component or a module.
const MAGIC: [u8; 4] = *b"\0asm";

/// Variables that the host sets in the environment of every instance.
const SET_BY_HOST: [&str; 2] = ["WASMHOST_TYPE", "WASMHOST_INSTANCE"];

/// Whether a file is an app, and not a formation: by its first bytes, or else by its name. A file that can be read only once is
/// no formation, whose paths begin at its folder.
pub(crate) fn is_app(file: &Path) -> bool {
    if is_stream(file) {
        return true;
    }
    let mut magic = [0; MAGIC.len()];
    let begins = open(file).and_then(|mut file| file.read_exact(&mut magic));
    (begins.is_ok() && magic == MAGIC)
        || file.extension().is_some_and(|kind| kind == "wasm" || kind == "cwasm" || kind == "wat")
}

/// Opens an app without waiting: a named pipe that nobody writes to would never be open. Reads wait for
/// what comes.
fn open(file: &Path) -> std::io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(file)?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn is_stream(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// A file that can be read more than once and has the app's bytes: this one, or one in `folder`.
fn readable(file: &Path, folder: &Path) -> Result<PathBuf, Failed> {
    let unreadable = |err| {
        let message = format!("can't read {}: {err}; build it, or correct the path", file.display());
        Failed::new(Exit::Component, message)
    };
    let mut opened = open(file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    if is_stream(file) {
        // Some never end.
        (&mut opened).take(MAGIC.len() as u64).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes != MAGIC {
            let message = format!(
                "{} doesn't begin as WebAssembly does (\\0asm), and a formation has to be a file, since paths in it begin at its folder",
                file.display()
            );
            return Err(Failed::new(Exit::Usage, message));
        }
        opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 >= FILE_BYTES_MAX {
            let max = units::format_size(FILE_BYTES_MAX);
            let message = format!("{} is longer than {max}, the most that is read of an app", file.display());
            return Err(Failed::new(Exit::Component, message));
        }
    } else if file.extension().is_some_and(|kind| kind == "wat") {
        bytes = wat::parse_file(file).map_err(|err| Failed::new(Exit::Component, err))?;
    } else {
        return Ok(file.to_owned());
    }
    let copy = folder.join("app.wasm");
    fs::write(&copy, bytes)?;
    Ok(copy)
}

pub(crate) fn run(file: &Path, flags: AppFlags) -> Outcome {
    let state_dir = tempfile::Builder::new().prefix("wasmhost-").tempdir()?;
    let component = readable(file, state_dir.path())?;
    run_component(file, &component, state_dir.path(), &flags).map_err(|mut failed| {
        // A message names the file that a person knows, and not the copy that was made of it.
        failed.message =
            failed.message.replace(&component.display().to_string(), &file.display().to_string());
        failed
    })
}

fn run_component(file: &Path, component: &Path, state_dir: &Path, flags: &AppFlags) -> Outcome {
    let formation = formation(component, state_dir, flags)?;
    let cache = cache::directory();
    let surroundings = Surroundings { cache: cache.as_deref(), granted_by: GrantedBy::Flags };
    let plan = Plan::new(formation, &surroundings).map_err(|err| why_not(file, component, &err))?;
    match plan.has_http() {
        true => run_http(plan, flags),
        false => run_command(plan, file, flags),
    }
}

/// Serves it until it is told to stop.
fn run_http(mut plan: Plan, flags: &AppFlags) -> Outcome {
    // It has no options of its own where nobody wrote `--`: it is this program's help that is asked for, or a typing
    // error.
    if flags.args.first().is_some_and(|first| first.starts_with('-'))
        && let Err(said) = Arguments::try_parse()
    {
        return print::usage(said);
    }
    refuse_set_by_host(&flags.env)?;
    for planned in plan.types.iter_mut().filter(|_| flags.memory.is_none()) {
        planned.process.memory_bytes_max = MEMORY_BYTES_DEFAULT;
        if let Some(problem) = memory_problem(planned) {
            return Err(Failed::new(Exit::Component, format!("{}; --memory grants it", problem.message)));
        }
    }
    host_log::with(|output| serve(plan, GrantedBy::Flags, output, None))
}

/// Runs it once. Signals are left as they are: they end it, and this process with it, as they would end any program.
fn run_command(mut plan: Plan, file: &Path, flags: &AppFlags) -> Outcome {
    let shown = file.display();
    if let Some(flag) = flags.first_for_http() {
        return Err(usage(format!(
            "{flag} is for an app that serves HTTP, and {shown} is a command: leave it out"
        )));
    }
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let Some(planned) = plan.types.pop() else {
        return Err(Failed::new(Exit::Component, format!("{shown} has nothing to run")));
    };
    let words = Words {
        name: shown.to_string(),
        memory: "--memory".into(),
        timeout: "--timeout".into(),
        cpu: "`cpu`".into(),
    };
    let one_off = OneOff::without_formation(planned, name);
    host_log::with_program(|| program::run(one_off, &words, std::future::pending()))
}

/// The formation that the flags amount to: one process type, a store in memory.
fn formation(component: &Path, state_dir: &Path, flags: &AppFlags) -> Result<Formation, Failed> {
    let folder = std::env::current_dir()?;
    let origin = Origin { file: component, folder: &folder, environment: &|_| None, dotenv: None };
    let formation = wasmhost_config::parse(&formation_text(flags)?, &origin);
    let mut formation = formation.map_err(|err| match err {
        // All of the text is ours, but for the address.
        LoadError::Invalid(problems) => usage(format!(
            "--listen: {}",
            problems.first().map(|found| found.message.as_str()).unwrap_or_default()
        )),
        err => Failed::new(Exit::Usage, err),
    })?;
    formation.state_dir = state_dir.to_owned();
    for process in &mut formation.processes {
        component.clone_into(&mut process.component);
        grant(process, flags)?;
        formation.max_instances = Some(process.count.max(1));
    }
    Ok(formation)
}

fn formation_text(flags: &AppFlags) -> Result<String, Failed> {
    let app = "[store]\nurl = \"memory:\"\n[process.web]\ncomponent = \"app.wasm\"\n";
    let Some(listen) = &flags.listen else { return Ok(app.to_owned()) };
    // A JSON string is a TOML string; `$` is doubled, since it isn't to begin a variable.
    let listen = serde_json::to_string(&listen.replace("${", "$${"))?;
    Ok(format!("{app}[http]\nlisten = {listen}\n"))
}

/// Puts the flags into the type's fields.
fn grant(process: &mut ProcessType, flags: &AppFlags) -> Result<(), Failed> {
    process.count = flags.count.as_ref().map_or(COUNT_DEFAULT, |count| count.0);
    process.memory_bytes_max = flags.memory.unwrap_or(COMMAND_MEMORY_BYTES);
    process.timeout = flags.timeout;
    process.trust_cwasm = flags.trust_cwasm;
    process.args.clone_from(&flags.args);
    process.grants.env =
        flags.env.iter().filter_map(|flag| env(flag).transpose()).collect::<Result<_, _>>()?;
    process.grants.dirs = flags.dir.iter().map(dir).collect::<Result<_, _>>()?;
    process.grants.outbound.clone_from(&flags.outbound);
    process.grants.network_all = flags.network;
    Ok(())
}

/// Refuses variables that the host sets itself.
pub(crate) fn refuse_set_by_host(flags: &[EnvFlag]) -> Result<(), Failed> {
    match flags.iter().find(|flag| SET_BY_HOST.contains(&flag.name.as_str())) {
        Some(flag) => {
            Err(usage(format!("--env {}: the host sets it, to tell instances who they are", flag.name)))
        }
        None => Ok(()),
    }
}

/// The variable; none where it is to be passed on and isn't set here.
pub(crate) fn env(flag: &EnvFlag) -> Result<Option<EnvVar>, Failed> {
    let value = match &flag.value {
        Some(value) => value.clone(),
        None => match wasmhost_config::environment(&flag.name) {
            Some(value) => value.into_string().map_err(|_| {
                usage(format!("--env {}: its value is no UTF-8, and guests know no other text", flag.name))
            })?,
            None => return Ok(None),
        },
    };
    Ok(Some(EnvVar { name: flag.name.clone(), value, secret: flag.value.is_none() }))
}

fn dir(flag: &DirFlag) -> Result<DirGrant, Failed> {
    let host = PathBuf::from(&flag.host);
    if !host.is_dir() {
        let found = if host.exists() { "is not a directory" } else { "doesn't exist" };
        return Err(usage(format!("--dir: {} {found}: create it, or correct the path", host.display())));
    }
    Ok(DirGrant {
        host: std::path::absolute(&host)?,
        guest: flag.guest.clone(),
        writable: flag.writable,
        bytes_max: None,
    })
}

/// Says what is wrong with the app, without the words of a formation.
fn why_not(file: &Path, component: &Path, err: &PlanError) -> Failed {
    let shown = file.display();
    if let Some(problem) = err.problems.iter().find(|problem| !problem.in_component) {
        return usage(problem.message.clone());
    }
    let seen = read_file(component, FILE_BYTES_MAX).ok().flatten().and_then(|bytes| inspect(&bytes).ok());
    let is_of_formation = |handler: &Handler| {
        matches!(handler, Handler::Job | Handler::AsyncJob | Handler::Tick | Handler::AsyncTick)
    };
    let messages: Vec<_> = err.problems.iter().map(|problem| problem.message.as_str()).collect();
    let message = match seen {
        Some(seen) if seen.handlers.is_empty() => format!(
            "{shown} exports {}, and an app exports {} or {}: there is nothing to serve or to run",
            seen.shown_exports(),
            Handler::Http02,
            Handler::Command02
        ),
        Some(seen) if seen.handlers.iter().all(is_of_formation) => format!(
            "{shown} exports {}, which needs a formation: a file that names the component and, with `queue` or `schedule`, what calls it; `wasmhost run formation.toml` runs that",
            seen.shown_exports()
        ),
        _ => messages.join("\n"),
    };
    Failed::new(Exit::Component, message)
}

fn usage(message: String) -> Failed {
    Failed::new(Exit::Usage, message)
}
