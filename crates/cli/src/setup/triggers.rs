//! The keys of a formation that follow from what components export: written out, so that a person sees them and can
//! change them.

use wasmhost_config::DraftType;
use wasmhost_engine::{Handler, Inspection};

const QUEUE: &str = "default";

/// The interface by which a guest puts jobs on queues.
const QUEUE_IMPORT: &str = "wasmhost:job/queue@";

/// The caller of a type, in the order of preference that the host has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Job,
    Tick,
    Command,
}

fn kind(handler: Handler) -> Kind {
    match handler {
        Handler::Http02 | Handler::Http03 => Kind::Http,
        Handler::Job | Handler::AsyncJob => Kind::Job,
        Handler::Tick | Handler::AsyncTick => Kind::Tick,
        Handler::Command02 | Handler::Command03 | Handler::CoreCommand => Kind::Command,
    }
}

/// Adds the trigger to each type that has none, and the queue to those that put jobs on it. A guess has a note beside
/// it. Types whose component can't be seen stay as they are.
pub(super) fn add(drafts: &mut [DraftType], seen: &[Option<Inspection>]) {
    let kinds: Vec<_> = drafts.iter().zip(seen).map(|(draft, seen)| kind_of(draft, seen.as_ref())).collect();
    let home = home(drafts, &kinds);
    for (at, (draft, kind)) in drafts.iter_mut().zip(&kinds).enumerate() {
        match kind {
            Some(Kind::Http) if home == Some(at) => draft.set("route", "/", None),
            Some(Kind::Http) => {
                let route = format!("/{}", draft.name);
                draft.set("route", &route, Some("a guess: each type needs a route of its own"));
            }
            Some(Kind::Job) => draft.set("queue", QUEUE, None),
            Some(Kind::Tick) => draft.set("schedule", "0 * * * *", Some("a guess: each hour")),
            Some(Kind::Command) => draft.set(
                "run",
                "always",
                Some("started again when it ends; \"release\" is once at each start, \"never\" by hand"),
            ),
            None => {}
        }
    }
    if kinds.contains(&Some(Kind::Job)) {
        for (draft, seen) in drafts.iter_mut().zip(seen) {
            if seen.as_ref().is_some_and(puts_jobs) {
                draft.keys.push(("enqueue", format!("[\"{QUEUE}\"]"), None));
            }
        }
    }
}

/// The caller of this type, where a key has still to say it.
fn kind_of(draft: &DraftType, seen: Option<&Inspection>) -> Option<Kind> {
    let has_one = draft.keys.iter().any(|(key, ..)| *key == "run");
    let kinds =
        || seen.filter(|_| !has_one).into_iter().flat_map(|seen| seen.handlers.iter().copied().map(kind));
    // A Procfile, which can't say a schedule, comes to the same.
    kinds().find(|kind| *kind != Kind::Tick).or_else(|| kinds().next())
}

/// The type that gets every request: `web`, or the first one that takes any.
fn home(drafts: &[DraftType], kinds: &[Option<Kind>]) -> Option<usize> {
    let http = || (0..kinds.len()).filter(move |at| kinds[*at] == Some(Kind::Http));
    http().find(|at| drafts[*at].name == "web").or_else(|| http().next())
}

fn puts_jobs(seen: &Inspection) -> bool {
    seen.imports.iter().any(|import| import.starts_with(QUEUE_IMPORT))
}
