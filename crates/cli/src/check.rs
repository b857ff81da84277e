//! `wasmhost check`: everything that is wrong with a formation, or the formation as it is understood.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wasmhost_config::{Formation, LoadError};
use wasmhost_host::{Plan, PlanError, capacity_warnings, check_capacity};

use crate::args::Check;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

pub(crate) fn check(file: Option<PathBuf>, check: &Check) -> Outcome {
    let plan = plan(&formation_file(file))?;
    check_capacity(&plan).map_err(|err| Failed::new(Exit::Usage, err))?;
    for unworked in plan.formation.unworked_queues() {
        print::note(format_args!("warning: {unworked}"));
    }
    // Those of the file: what was set live is the host's.
    for warning in capacity_warnings(&plan, &BTreeMap::new()) {
        print::note(format_args!("warning: {warning}"));
    }
    if check.json {
        print::pretty_json(&plan.formation)?;
    } else {
        print::text(&plan.formation.to_toml());
    }
    Ok(Exit::Done)
}

/// The file that a person means who names none.
pub(crate) fn formation_file(given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| PathBuf::from("formation.toml"))
}

/// Reads a formation and its components.
pub(crate) fn plan(file: &Path) -> Result<Plan, Failed> {
    Plan::new(formation(file)?).map_err(|err| Failed::new(exit_of(&err), shown_from(file, &err)))
}

fn formation(file: &Path) -> Result<Formation, Failed> {
    wasmhost_config::load(file).map_err(|err: LoadError| Failed::new(Exit::Usage, err))
}

/// What contradicts itself in the file comes first: it has to be mended anyway.
fn exit_of(err: &PlanError) -> Exit {
    match err.problems.iter().all(|problem| problem.in_component) {
        true => Exit::Component,
        false => Exit::Usage,
    }
}

/// Each problem, behind the name of the file that it is in.
fn shown_from(file: &Path, err: &PlanError) -> String {
    let text = err.to_string();
    let lines: Vec<_> = text.lines().map(|line| format!("{}: {line}", file.display())).collect();
    lines.join("\n")
}
