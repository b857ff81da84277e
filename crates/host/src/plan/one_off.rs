//! One type that is to be run by itself, once, whatever calls it in the formation. The other types' components aren't
//! looked at: they may not even be built yet.

use std::path::Path;

use wasmhost_config::{Formation, Run, Trigger};
use wasmhost_engine::{Code, Handler};

use super::{
    PlanError, PlanProblem, PlannedType, Surroundings, dirs, exports, grants, memory_problem, open_dirs,
    procfile, read, table_problem,
};

impl PlannedType {
    /// Plans a run of this type's `main`, with the grants and limits that the formation gives it. Time limits are those
    /// that were written: the defaults are for requests, jobs and ticks. `component` is read in place of the file that the
    /// formation names, if it is given.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the type: it isn't there, has no `main`, can't be used, or is granted what it
    /// mustn't have.
    pub fn one_off(
        formation: &Formation,
        name: &str,
        component: Option<&Path>,
        surroundings: &Surroundings<'_>,
    ) -> Result<PlannedType, PlanError> {
        let mut problems = grant_problems(formation, name, surroundings);
        match plan(formation, name, component) {
            Ok(mut planned) => {
                procfile::share_queue_with(&mut planned, formation);
                problems.extend(memory_problem(&planned));
                problems.extend(table_problem(&planned));
                if problems.is_empty() {
                    return Ok(planned);
                }
            }
            Err(problem) => problems.push(problem),
        }
        Err(PlanError { problems })
    }
}

fn plan(formation: &Formation, name: &str, component: Option<&Path>) -> Result<PlannedType, PlanProblem> {
    let problem =
        |in_component| move |message| PlanProblem { process: name.to_owned(), message, in_component };
    let Some(process) = formation.processes.iter().find(|process| process.name == name) else {
        let known: Vec<_> = formation.processes.iter().map(|process| process.name.as_str()).collect();
        let message = format!("there is no such process type; this formation has {}", known.join(", "));
        return Err(problem(false)(message));
    };
    let directories = open_dirs(process)?;
    let component = component.unwrap_or(&process.component);
    let path = component.display();
    let bytes = read(component, process).map_err(problem(true))?;
    let code = Code::new(bytes, process.trust_cwasm);
    let (code, seen) = code.map_err(|err| problem(true)(format!("{path} {err}")))?;
    let Some(handler) = seen.handlers.iter().copied().find(|handler| handler.is_command()) else {
        let message = format!(
            "{path} {}, and a type that is run by itself needs a `main`: {}, {}, or `_start` of a core module",
            exports(&seen),
            Handler::Command02,
            Handler::Command03,
        );
        return Err(problem(false)(message));
    };
    if !process.missing_imports_trap
        && let Some(refusal) = seen.refusal()
    {
        return Err(problem(true)(format!("{path} {refusal}")));
    }
    Ok(PlannedType {
        process: process.clone(),
        trigger: Trigger::Command { run: Run::Never },
        handler,
        timeout: process.timeout,
        code,
        directories,
        footprint: seen.footprint,
        is_async: seen.is_async,
        puts_jobs: procfile::puts_jobs(&seen.imports),
        compile: formation.compile,
    })
}

/// Problems of this type's grants, beside those of all others.
fn grant_problems(formation: &Formation, name: &str, surroundings: &Surroundings<'_>) -> Vec<PlanProblem> {
    let of_type = |problem: &PlanProblem| problem.process == name;
    let opened: Vec<_> = formation
        .processes
        .iter()
        .map(|process| (process.name.as_str(), open_dirs(process).unwrap_or_default()))
        .collect();
    let nested = grants::nested(opened.iter().map(|(process, directories)| (*process, directories)));
    let nested = nested.into_iter().filter(|nested| nested.process == name || nested.writer == name);
    let nested =
        nested.map(|nested| PlanProblem { process: name.to_owned(), ..super::nested_problem(nested) });
    dirs::problems(formation, surroundings).into_iter().filter(of_type).chain(nested).collect()
}
