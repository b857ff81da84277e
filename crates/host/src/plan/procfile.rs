//! The rules for a Procfile, whose lines have no keys: the exports of a component say what calls it, and types of one
//! app share one queue.

use wasmhost_config::{Formation, Trigger, is_procfile};
use wasmhost_engine::Handler;

use super::PlannedType;

/// The queue that types of a Procfile work and fill.
const QUEUE: &str = "default";

/// Advice where a Procfile lacks a key.
const INSTEAD: &str =
    "; a Procfile can't say that: `wasmhost import` writes a formation.toml for it, which can";

/// The trigger of a component whose exports alone don't say one in a formation.
pub(super) fn trigger(handler: Handler) -> Option<Trigger> {
    matches!(handler, Handler::Job | Handler::AsyncJob)
        .then(|| Trigger::Queue { queues: vec![(QUEUE.to_owned(), 1)] })
}

/// The text that an error about a missing key adds, for the formation of this file.
pub(super) fn instead(formation: &Formation) -> &'static str {
    if is_procfile(&formation.file) { INSTEAD } else { "" }
}

/// Lets the types that put jobs somewhere put them on the queue, where one of them works it.
pub(super) fn share_queue(formation: &mut Formation, types: &mut [PlannedType]) {
    let is_worked = types.iter().any(|planned| matches!(planned.trigger, Trigger::Queue { .. }));
    if !is_procfile(&formation.file) || !is_worked {
        return;
    }
    for planned in types.iter_mut().filter(|planned| planned.puts_jobs) {
        planned.process.grants.enqueue = vec![QUEUE.to_owned()];
        let written = formation.processes.iter_mut().filter(|process| process.name == planned.process.name);
        written.for_each(|process| process.grants.enqueue = vec![QUEUE.to_owned()]);
    }
}

/// The same for one type alone. Others aren't looked at: its jobs may wait for a worker.
pub(super) fn share_queue_with(planned: &mut PlannedType, formation: &Formation) {
    if is_procfile(&formation.file) && planned.puts_jobs {
        planned.process.grants.enqueue = vec![QUEUE.to_owned()];
    }
}

/// Whether a component with these imports asks for queues.
pub(super) fn puts_jobs(imports: &[String]) -> bool {
    imports.iter().any(|import| import.starts_with("wasmhost:job/queue@"))
}
