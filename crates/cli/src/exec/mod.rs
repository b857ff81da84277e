//! `wasmhost exec`: runs the `main` of a type once, in this process and with its streams, but in the sandbox of the type
//! and with its grants.

mod queues;
mod subject;

use std::sync::Arc;

use wasmhost_config::{EnvVar, units};
use wasmhost_host::{GrantedBy, OneOff, PlannedType};

use crate::app::{env, refuse_set_by_host};
use crate::args::exec::Exec;
use crate::client::Client;
use crate::exit::{Failed, Outcome};
use crate::formation_file::FormationFile;
use crate::host_log;
use crate::program::{self, Words};
use crate::signals;
use queues::QueuesOfFormation;
use subject::Subject;

pub(crate) fn exec(file: FormationFile, exec: Exec) -> Outcome {
    host_log::with_program(|| run(file, exec))
}

fn run(file: FormationFile, exec: Exec) -> Outcome {
    let Subject { formation, state_dir, mut planned } = subject::find(&file, &exec)?;
    give(&mut planned, &exec)?;
    let words = words(&planned, &exec);
    let client = Client::of(file, state_dir);
    let one_off = OneOff {
        planned,
        argv0: exec.process,
        granted_by: GrantedBy::Formation,
        enqueue: Arc::new(QueuesOfFormation::new(client, formation)),
    };
    program::run(one_off, &words, signals::end_of_program())
}

/// The command line's values take the place of the file's.
fn give(planned: &mut PlannedType, exec: &Exec) -> Result<(), Failed> {
    let process = &mut planned.process;
    refuse_set_by_host(&exec.env)?;
    for flag in &exec.env {
        process.grants.env.retain(|var| var.name != flag.name);
        process.grants.env.extend(env(flag)?);
    }
    let mut set = |name: &str, value: String| {
        process.grants.env.push(EnvVar { name: name.to_owned(), value, secret: false });
    };
    set("WASMHOST_TYPE", exec.process.clone());
    // No instance of the formation is called so, and no other one-off that runs now.
    set("WASMHOST_INSTANCE", format!("{}.exec-{}", exec.process, std::process::id()));
    if !exec.args.is_empty() {
        process.args.clone_from(&exec.args);
    }
    planned.timeout = exec.timeout.or(planned.timeout);
    Ok(())
}

fn words(planned: &PlannedType, exec: &Exec) -> Words {
    let process = &planned.process.name;
    let timeout = match (exec.timeout, planned.timeout) {
        (Some(_), _) => "--timeout".to_owned(),
        (None, Some(timeout)) => {
            format!("`timeout` of {} in [process.{process}]", units::format_duration(timeout))
        }
        (None, None) => "`timeout`".to_owned(),
    };
    let cpu = match planned.process.cpu {
        Some(cpu) => format!("`cpu` of {} in [process.{process}]", units::format_duration(cpu)),
        None => "`cpu`".to_owned(),
    };
    Words { name: process.clone(), memory: format!("`memory` in [process.{process}]"), timeout, cpu }
}
