//! `wasmhost check`: everything that is wrong with a formation, or the formation as it is understood.

use std::collections::BTreeMap;
use std::path::Path;

use wasmhost_config::{StoreUrl, Trigger, is_procfile, procfile_lines};
use wasmhost_host::{
    AdminToken, GrantedBy, Plan, PlanError, PlannedType, Surroundings, capacity_warnings, check_capacity,
};

use crate::cache;
use crate::exit::{Exit, Failed, Outcome};
use crate::formation_file::FormationFile;
use crate::print;

pub(crate) fn check(file: &FormationFile, json: bool) -> Outcome {
    let plan = plan(file)?;
    let instances_max = check_capacity(&plan).map_err(|err| Failed::new(Exit::Usage, err))?;
    for unworked in plan.formation.unworked_queues() {
        print::note(format_args!("warning: {unworked}"));
    }
    // Those of the file: what was set live is the host's.
    for warning in capacity_warnings(&plan, &BTreeMap::new()) {
        print::note(format_args!("warning: {warning}"));
    }
    if let Some(admin) = &plan.formation.admin {
        let (_, warning) = AdminToken::read(&admin.token).map_err(|why| {
            file.failed(Exit::Usage, format!("{why}; `token` under [admin] names that file"))
        })?;
        warning.iter().for_each(|warning| print::note(format_args!("warning: {warning}")));
    }
    if matches!(plan.formation.store, StoreUrl::Postgres(_)) {
        let is_one =
            |planned: &&PlannedType| matches!(planned.trigger, Trigger::Http { .. }) && planned.count() == 1;
        for planned in plan.types.iter().filter(is_one) {
            print::note(format_args!(
                "warning: process.{}: count is 1, so that one host alone serves it where several share the store: let it be as many as there are hosts, or more",
                planned.process.name
            ));
        }
    }
    let understood = plan.understood(instances_max);
    if json {
        print::pretty_json(&understood.whole)?;
    } else {
        print::text(&understood.formation.to_toml_with(&understood.notes));
    }
    Ok(Exit::Done)
}

/// Reads a formation and its components.
pub(crate) fn plan(file: &FormationFile) -> Result<Plan, Failed> {
    let cache = cache::directory();
    let surroundings = Surroundings { cache: cache.as_deref(), granted_by: GrantedBy::Formation };
    let plan = Plan::new(file.read()?, &surroundings);
    plan.map_err(|err| plan_failed(file, &err))
}

/// Why there is no plan of this file, or of a type in it.
pub(crate) fn plan_failed(file: &FormationFile, err: &PlanError) -> Failed {
    file.failed(exit_of(err), shown_from(file.path(), err))
}

/// A contradiction in the file comes first: it has to be mended anyway.
pub(crate) fn exit_of(err: &PlanError) -> Exit {
    match err.problems.iter().all(|problem| problem.in_component) {
        true => Exit::Component,
        false => Exit::Usage,
    }
}

/// Each problem, behind the name of the file that it is in. A Procfile has a line for each type.
fn shown_from(file: &Path, err: &PlanError) -> String {
    let lines = if is_procfile(file) { procfile_lines(file) } else { BTreeMap::new() };
    let file = file.display();
    let shown = err.problems.iter().map(|problem| match lines.get(&problem.process) {
        Some(line) => format!("{file}:{line}: {problem}"),
        None => format!("{file}: {problem}"),
    });
    shown.collect::<Vec<_>>().join("\n")
}
