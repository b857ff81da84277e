//! The formation as it is understood: with what follows from its components, and with every default that applies.

use std::collections::BTreeMap;

use wasmhost_config::{Formation, Isolation, Run, Trigger};

use super::{BACKLOG_PER_INSTANCE, CONCURRENCY_DEFAULT, Plan, PlannedType, shared};

/// The view that `wasmhost check` prints.
pub struct Understood {
    /// The formation, with a value for each key that has one.
    pub whole: Formation,
    /// The same without the values that a file shouldn't fix: written there, they would no longer follow the counts, or
    /// the component.
    pub formation: Formation,
    /// The facts that no key of `formation` says, by table: `""` is the top of the file, `process.web` a process type.
    pub notes: BTreeMap<String, Vec<String>>,
}

impl Plan {
    /// The formation with what was inferred, for a machine that has room for so many instances.
    pub fn understood(&self, instances_max: u32) -> Understood {
        let mut formation = self.formation.clone();
        let mut notes = BTreeMap::new();
        for (process, planned) in formation.processes.iter_mut().zip(&self.types) {
            process.trigger = Some(planned.trigger.clone());
            process.timeout = planned.timeout;
            if shared(&planned.trigger) == Some(planned.handler) {
                process.concurrency.get_or_insert(CONCURRENCY_DEFAULT);
            }
            notes.insert(format!("process.{}", process.name), notes_of(planned));
        }
        let mut whole = formation.clone();
        for (process, planned) in whole.processes.iter_mut().zip(&self.types) {
            process.backlog = Some(backlog(planned));
            process.isolation = Some(isolation(planned));
        }
        if whole.max_instances.replace(instances_max).is_none() {
            notes.insert(
                String::new(),
                vec![format!(
                    "max_instances = {instances_max}, from the counts and what this machine allows"
                )],
            );
        }
        Understood { whole, formation, notes }
    }
}

fn backlog(planned: &PlannedType) -> u32 {
    planned.process.backlog.unwrap_or(planned.count().saturating_mul(BACKLOG_PER_INSTANCE))
}

fn isolation(planned: &PlannedType) -> Isolation {
    match planned.process.isolation {
        _ if planned.handler.is_command() => Isolation::Call,
        Some(isolation) => isolation,
        None => Isolation::Instance,
    }
}

fn notes_of(planned: &PlannedType) -> Vec<String> {
    let process = &planned.process;
    let mut notes = vec![format!("called by {}, which it exports", planned.handler)];
    let mut inferred = Vec::new();
    if process.trigger.is_none() {
        inferred.push(match planned.trigger {
            Trigger::Http { .. } => "route",
            Trigger::Command { .. } => "run",
            Trigger::Queue { .. } => "queue",
            Trigger::Schedule(_) => "schedule",
        });
    }
    if process.timeout.is_none() && planned.timeout.is_some() {
        inferred.push("timeout");
    }
    if !inferred.is_empty() {
        notes[0] += &format!(": {} from that", and_follow(&inferred));
    }
    match planned.trigger {
        Trigger::Command { run: Run::Release } => {
            notes.push("runs once at each start, and keeps no instance".into())
        }
        Trigger::Command { run: Run::Never } => {
            notes.push("is never run by itself, and keeps no instance".into())
        }
        _ => {}
    }
    if planned.handler.is_command() {
        notes.push("isolation = \"call\": a command's main can be entered once".into());
    } else if process.isolation.is_none() {
        notes.push("isolation = \"instance\", unless the component turns out to serve one call alone".into());
    }
    if process.backlog.is_none() && planned.count() > 0 {
        notes.push(format!("backlog = {}, {BACKLOG_PER_INSTANCE} for each instance", backlog(planned)));
    }
    let bounds = [
        ("timeout", planned.timeout.is_none()),
        ("cpu", process.cpu.is_none()),
        ("max_calls", process.max_calls.is_none()),
        ("max_age", process.max_age.is_none()),
        ("max_body", process.body_bytes_max.is_none() && matches!(planned.trigger, Trigger::Http { .. })),
    ];
    let unbounded: Vec<_> = bounds.iter().filter(|(_, none)| *none).map(|(key, _)| *key).collect();
    if !unbounded.is_empty() {
        notes.push(format!("no bound: {}", unbounded.join(", ")));
    }
    let grants = &process.grants;
    let granted = [
        ("env", grants.env.is_empty()),
        ("dirs", grants.dirs.is_empty()),
        ("outbound", grants.outbound.is_empty() && !grants.network_all),
        ("enqueue", grants.enqueue.is_empty()),
    ];
    let none: Vec<_> = granted.iter().filter(|(_, none)| *none).map(|(key, _)| *key).collect();
    if !none.is_empty() {
        notes.push(format!("nothing granted: {}", none.join(", ")));
    }
    notes
}

/// `` `route` follows ``, `` `route` and `timeout` follow ``
fn and_follow(keys: &[&str]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    let follow = if keys.len() == 1 { "follows" } else { "follow" };
    format!("{} {follow}", keys.join(" and "))
}
