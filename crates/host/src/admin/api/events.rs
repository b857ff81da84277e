//! Events in the admin API's JSON. docs/events.md describes each kind, and a test compares the two.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmhost_store::Timestamp;

/// One event of `GET /v1/events`. Times are RFC 3339, UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Higher than that of every event before it, also of the host's earlier runs.
    pub id: u64,
    /// When the host noted it, with milliseconds.
    pub time: String,
    /// The change.
    #[serde(flatten)]
    pub what: HostEvent,
}

/// A change. Further kinds and fields may come with later versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HostEvent {
    /// The host itself.
    Host {
        /// Its change.
        state: HostChange,
    },
    /// An instance, or the place of one.
    Instance {
        /// Its type.
        process: String,
        /// `web.1`
        instance: String,
        /// The release that brought its version.
        release: u64,
        /// Its change.
        state: InstanceChange,
        /// Why, where it isn't as it should be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// Seconds until it is tried again, where it waits for that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again_in_s: Option<f64>,
    },
    /// The count of a type.
    Count {
        /// The type.
        process: String,
        /// Its count before.
        from: u32,
        /// Its count from now on.
        to: u32,
    },
    /// A release.
    Release {
        /// Its number. A deploy that failed early has none.
        release: Option<u64>,
        /// Its change.
        state: ReleaseChange,
        /// Its share of requests and jobs, where it is on canary.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        percent: Option<u32>,
        /// Why it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A job.
    Job {
        /// Its id.
        job: String,
        /// Its queue, where that is known.
        queue: Option<String>,
        /// Its change.
        state: JobChange,
        /// The type that enqueued it, or that runs it. `null` where a person did it.
        process: Option<String>,
        /// The instance that runs it: `worker.1`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instance: Option<String>,
        /// Which try it is, from 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        /// How many there will be at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempts_max: Option<u32>,
        /// When it is tried again, if it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again_at: Option<Timestamp>,
        /// How it failed, if it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A person changed many jobs at once.
    Jobs {
        /// Jobs of this queue, or of any.
        queue: Option<String>,
        /// Their change.
        state: JobChange,
        /// How many there were.
        count: u64,
    },
    /// A queue.
    Queue {
        /// Its name.
        queue: String,
        /// Its change.
        state: QueueChange,
    },
    /// A tick of a schedule.
    Tick {
        /// Its type.
        process: String,
        /// The time that the schedule names.
        nominal: Timestamp,
        /// Whether a person asked for it.
        manual: bool,
        /// Its change.
        state: TickChange,
        /// Why it wasn't done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A guest tried something that it has no grant for. Each such thing is told once a minute at most.
    Refusal {
        /// Its type.
        process: String,
        /// Its attempt, for a person: `to connect to example.com:443`.
        tried: String,
    },
    /// Events are missing in this place, since they came faster than they were read.
    Missed {
        /// How many, of all kinds and types. `null` where nobody knows.
        count: Option<u64>,
    },
}

/// The kinds of events, in the order of the docs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// [`HostEvent::Host`]
    Host,
    /// [`HostEvent::Instance`]
    Instance,
    /// [`HostEvent::Count`]
    Count,
    /// [`HostEvent::Release`]
    Release,
    /// [`HostEvent::Job`]
    Job,
    /// [`HostEvent::Jobs`]
    Jobs,
    /// [`HostEvent::Queue`]
    Queue,
    /// [`HostEvent::Tick`]
    Tick,
    /// [`HostEvent::Refusal`]
    Refusal,
    /// [`HostEvent::Missed`]
    Missed,
}

/// The change of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostChange {
    /// A person paused jobs and ticks, by SIGUSR1.
    Paused,
    /// A person had them go on, by SIGUSR2.
    Resumed,
    /// It finishes what was begun, and ends.
    Draining,
}

/// The change of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceChange {
    /// It is being started.
    Starting,
    /// It serves from now on.
    Serving,
    /// It finishes its last call.
    Draining,
    /// It is gone, as it was planned.
    Ended,
    /// A call ended it.
    Crashed,
    /// It was a command, and has ended by itself.
    Exited,
    /// It didn't start.
    FailedToStart,
    /// It is tried again after a while.
    Backoff,
}

/// The change of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseChange {
    /// It is being deployed.
    Pending,
    /// It has a share of requests and jobs.
    Canary,
    /// It is live.
    Live,
    /// It was live until now.
    Replaced,
    /// It has failed, or was aborted.
    Failed,
}

/// The change of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobChange {
    /// It is on its queue.
    Enqueued,
    /// An instance has it.
    Running,
    /// It is done.
    Done,
    /// The try failed, and there will be another.
    Retrying,
    /// It failed for good.
    Dead,
    /// It is back on its queue, with no try used up: the host ended its call.
    Back,
    /// A person cancelled it.
    Cancelled,
    /// A person put it on its queue again.
    Retried,
    /// A person discarded it.
    Discarded,
}

/// The change of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueChange {
    /// A person paused it.
    Paused,
    /// A person ended its pause.
    Resumed,
}

/// The change of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TickChange {
    /// It waits for an instance, or one has it.
    Running,
    /// It is done.
    Done,
    /// It failed.
    Failed,
    /// It wasn't run: the one before it still ran, or the count is 0.
    Skipped,
    /// The host ended its call.
    Interrupted,
}

impl EventKind {
    /// All of them, in the order of the docs.
    pub const ALL: [EventKind; 10] = [
        EventKind::Host,
        EventKind::Instance,
        EventKind::Count,
        EventKind::Release,
        EventKind::Job,
        EventKind::Jobs,
        EventKind::Queue,
        EventKind::Tick,
        EventKind::Refusal,
        EventKind::Missed,
    ];

    /// As the JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Host => "host",
            EventKind::Instance => "instance",
            EventKind::Count => "count",
            EventKind::Release => "release",
            EventKind::Job => "job",
            EventKind::Jobs => "jobs",
            EventKind::Queue => "queue",
            EventKind::Tick => "tick",
            EventKind::Refusal => "refusal",
            EventKind::Missed => "missed",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl HostEvent {
    /// Its kind.
    pub fn kind(&self) -> EventKind {
        match self {
            HostEvent::Host { .. } => EventKind::Host,
            HostEvent::Instance { .. } => EventKind::Instance,
            HostEvent::Count { .. } => EventKind::Count,
            HostEvent::Release { .. } => EventKind::Release,
            HostEvent::Job { .. } => EventKind::Job,
            HostEvent::Jobs { .. } => EventKind::Jobs,
            HostEvent::Queue { .. } => EventKind::Queue,
            HostEvent::Tick { .. } => EventKind::Tick,
            HostEvent::Refusal { .. } => EventKind::Refusal,
            HostEvent::Missed { .. } => EventKind::Missed,
        }
    }

    /// The type that it is about, if it is about one.
    pub fn process(&self) -> Option<&str> {
        match self {
            HostEvent::Instance { process, .. }
            | HostEvent::Count { process, .. }
            | HostEvent::Tick { process, .. }
            | HostEvent::Refusal { process, .. } => Some(process),
            HostEvent::Job { process, .. } => process.as_deref(),
            HostEvent::Host { .. }
            | HostEvent::Release { .. }
            | HostEvent::Jobs { .. }
            | HostEvent::Queue { .. }
            | HostEvent::Missed { .. } => None,
        }
    }

    /// The text in it that others wrote, which may be long.
    pub fn foreign_text(&self) -> Option<&str> {
        match self {
            HostEvent::Instance { why, .. } | HostEvent::Release { why, .. } => why.as_deref(),
            HostEvent::Job { error, .. } | HostEvent::Tick { error, .. } => error.as_deref(),
            HostEvent::Refusal { tried, .. } => Some(tried),
            HostEvent::Host { .. }
            | HostEvent::Count { .. }
            | HostEvent::Jobs { .. }
            | HostEvent::Queue { .. }
            | HostEvent::Missed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// One of each kind, with all of its fields.
    fn samples() -> Vec<HostEvent> {
        let text = || "x".to_owned();
        vec![
            HostEvent::Host { state: HostChange::Draining },
            HostEvent::Instance {
                process: text(),
                instance: text(),
                release: 1,
                state: InstanceChange::Backoff,
                why: Some(text()),
                again_in_s: Some(1.0),
            },
            HostEvent::Count { process: text(), from: 1, to: 2 },
            HostEvent::Release {
                release: Some(1),
                state: ReleaseChange::Failed,
                percent: Some(10),
                why: Some(text()),
            },
            HostEvent::Job {
                job: text(),
                queue: Some(text()),
                state: JobChange::Retrying,
                process: Some(text()),
                instance: Some(text()),
                attempt: Some(1),
                attempts_max: Some(2),
                again_at: Some(Timestamp(0)),
                error: Some(text()),
            },
            HostEvent::Jobs { queue: Some(text()), state: JobChange::Cancelled, count: 1 },
            HostEvent::Queue { queue: text(), state: QueueChange::Paused },
            HostEvent::Tick {
                process: text(),
                nominal: Timestamp(0),
                manual: false,
                state: TickChange::Failed,
                error: Some(text()),
            },
            HostEvent::Refusal { process: text(), tried: text() },
            HostEvent::Missed { count: Some(1) },
        ]
    }

    /// All states that an event of this kind may have.
    fn states(kind: EventKind) -> Vec<String> {
        fn names<T: Serialize>(all: &[T]) -> Vec<String> {
            all.iter().map(|state| json!(state).as_str().unwrap().to_owned()).collect()
        }
        match kind {
            EventKind::Host => names(&[HostChange::Paused, HostChange::Resumed, HostChange::Draining]),
            EventKind::Instance => {
                use InstanceChange::{
                    Backoff, Crashed, Draining, Ended, Exited, FailedToStart, Serving, Starting,
                };
                names(&[Starting, Serving, Draining, Ended, Crashed, Exited, FailedToStart, Backoff])
            }
            EventKind::Release => {
                use ReleaseChange::{Canary, Failed, Live, Pending, Replaced};
                names(&[Pending, Canary, Live, Replaced, Failed])
            }
            EventKind::Job => {
                use JobChange::{
                    Back, Cancelled, Dead, Discarded, Done, Enqueued, Retried, Retrying, Running,
                };
                names(&[Enqueued, Running, Done, Retrying, Dead, Back, Cancelled, Retried, Discarded])
            }
            EventKind::Queue => names(&[QueueChange::Paused, QueueChange::Resumed]),
            EventKind::Tick => {
                use TickChange::{Done, Failed, Interrupted, Running, Skipped};
                names(&[Running, Done, Failed, Skipped, Interrupted])
            }
            EventKind::Count | EventKind::Jobs | EventKind::Refusal | EventKind::Missed => vec![],
        }
    }

    #[test]
    fn the_docs_have_every_kind_with_its_fields_and_states_and_no_other() {
        let docs = include_str!("../../../../../docs/events.md");
        let documented: Vec<&str> =
            docs.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
        assert_eq!(documented, EventKind::ALL.map(EventKind::name));
        for event in samples() {
            let kind = event.kind();
            let section = docs.split("\n### `").find(|part| part.starts_with(&format!("{}`\n", kind.name())));
            let section = section.unwrap();
            let json = json!(event);
            let mut fields: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
            fields.retain(|field| field != "kind");
            let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
            let mut told: Vec<String> = rows.map(str::to_owned).collect();
            fields.sort();
            told.sort();
            assert_eq!(told, fields, "the fields of {}", kind.name());
            for state in states(kind) {
                assert!(
                    section.contains(&format!("`{state}`")),
                    "{}: {state} isn't in the docs",
                    kind.name()
                );
            }
        }
    }

    #[test]
    fn an_event_is_one_object_that_can_be_read_again() {
        for what in samples() {
            let event = EventView { id: 7, time: "2026-01-31T12:00:00.000Z".into(), what };
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<EventView>(&json).unwrap(), event, "{json}");
            let kind = event.what.kind();
            assert_eq!(json!(event)["kind"], kind.name());
            assert_eq!(EventKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(samples().len(), EventKind::ALL.len());
    }
}
