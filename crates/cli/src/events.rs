//! `wasmhost events`

use std::fmt::Write;

use wasmhost_config::shown::{self, NAME_BYTES_MAX, one_line};
use wasmhost_host::admin::api::{
    EventView, HostChange, HostEvent, InstanceChange, JobChange, QueueChange, ReleaseChange, TickChange,
};

use crate::args::Events;
use crate::client::{Client, follow_lines};
use crate::exit::{Failed, Outcome};
use crate::print;
use crate::work::valid;

/// Bytes of a guest's words that a line shows.
const WORDS_BYTES_MAX: usize = 1 << 10;

pub(crate) async fn events(client: &Client, events: &Events) -> Outcome {
    let body = client.stream(&path(events)?).await?;
    print::note("following what changes: Ctrl-C ends it");
    let act = |lines: &[u8]| {
        let mut text = String::new();
        // The other lines repeat what the data has.
        for data in lines.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: ")) {
            text += &line(&String::from_utf8_lossy(data), events.json);
            text.push('\n');
        }
        print::raw(&text);
        Ok(())
    };
    follow_lines(body, act).await
}

/// The request.
fn path(events: &Events) -> Result<String, Failed> {
    let mut path = "/v1/events?".to_owned();
    // Writing to a String doesn't fail.
    if let Some(process) = &events.process {
        let _ = write!(path, "type={}&", valid("process type", process)?);
    }
    if !events.kinds.is_empty() {
        let _ = write!(path, "kind={}&", events.kinds.join(","));
    }
    if let Some(after) = events.after {
        let _ = write!(path, "after={after}&");
    }
    path.pop();
    Ok(path)
}

/// An event of a kind that a later version has is shown as it came.
fn line(json: &str, as_json: bool) -> String {
    match serde_json::from_str::<EventView>(json) {
        Ok(event) if !as_json => text(&event),
        _ => shown::json(json).into_owned(),
    }
}

/// `12:00:00 instance  web.1 serving (v3)`
fn text(EventView { time, what, .. }: &EventView) -> String {
    let time = time.get(11..19).unwrap_or(time);
    format!("{time} {:<9} {}", what.kind().name(), told(what))
}

fn told(what: &HostEvent) -> String {
    match what {
        HostEvent::Host { state } => match state {
            HostChange::Paused => "jobs and ticks are paused".to_owned(),
            HostChange::Resumed => "jobs and ticks are taken again".to_owned(),
            HostChange::Draining => "draining: it ends when what was begun is done".to_owned(),
        },
        HostEvent::Instance { instance, release, state, why, again_in_s, .. } => {
            let again = again_in_s.map(|seconds| format!(", again in {seconds:.0} s")).unwrap_or_default();
            format!("{} {} (v{release}){again}{}", name(instance), of_instance(*state), because(why.as_ref()))
        }
        HostEvent::Count { process, from, to } => format!("{} {from} -> {to}", name(process)),
        HostEvent::Release { release, state, percent, why } => {
            let release = release.map_or("a deploy".to_owned(), |release| format!("v{release}"));
            let share = percent.map(|percent| format!(" ({percent}%)")).unwrap_or_default();
            format!("{release} {}{share}{}", of_release(*state), because(why.as_ref()))
        }
        HostEvent::Job { .. } => job(what),
        HostEvent::Jobs { queue, state, count } => {
            let queue = queue.as_ref().map(|queue| format!(" of {}", name(queue))).unwrap_or_default();
            let jobs = if *count == 1 { "job" } else { "jobs" };
            format!("{count} {jobs}{queue} {}", of_job(*state))
        }
        HostEvent::Queue { queue, state } => {
            let state = match state {
                QueueChange::Paused => "paused",
                QueueChange::Resumed => "resumed",
            };
            format!("{} {state}", name(queue))
        }
        HostEvent::Tick { process, nominal, manual, state, error } => {
            let by_hand = if *manual { ", by hand" } else { "" };
            format!("{} {nominal} {}{by_hand}{}", name(process), of_tick(*state), because(error.as_ref()))
        }
        HostEvent::Refusal { process, tried } => {
            format!("{} tried {}, which it isn't granted", name(process), one_line(tried, WORDS_BYTES_MAX))
        }
        HostEvent::Missed { count: Some(1) } => {
            "1 event is missing here: it came faster than it was read".to_owned()
        }
        HostEvent::Missed { count: Some(count) } => {
            format!("{count} events are missing here: they came faster than they were read")
        }
        HostEvent::Missed { count: None } => {
            "events are missing here: the host doesn't have them any more, and nobody knows how many"
                .to_owned()
        }
    }
}

/// `42 of mail running on worker.1 (attempt 2 of 25)`
fn job(what: &HostEvent) -> String {
    let HostEvent::Job { job, queue, state, process, instance, attempt, attempts_max, again_at, error } =
        what
    else {
        return String::new();
    };
    let queue = queue.as_ref().map(|queue| format!(" of {}", name(queue))).unwrap_or_default();
    let by = match (instance, process) {
        (Some(instance), _) => format!(" on {}", name(instance)),
        (None, Some(process)) => format!(" by {}", name(process)),
        (None, None) => String::new(),
    };
    let attempt = attempt.zip(*attempts_max).map(|(attempt, max)| format!(" (attempt {attempt} of {max})"));
    let again = again_at.map(|again_at| format!(", again at {again_at}"));
    let (attempt, again) = (attempt.unwrap_or_default(), again.unwrap_or_default());
    format!("{}{queue} {}{by}{attempt}{again}{}", name(job), of_job(*state), because(error.as_ref()))
}

fn of_instance(state: InstanceChange) -> &'static str {
    match state {
        InstanceChange::Starting => "starting",
        InstanceChange::Serving => "serving",
        InstanceChange::Draining => "draining",
        InstanceChange::Ended => "ended",
        InstanceChange::Crashed => "crashed",
        InstanceChange::Exited => "exited",
        InstanceChange::FailedToStart => "didn't start",
        InstanceChange::Backoff => "waits",
    }
}

fn of_release(state: ReleaseChange) -> &'static str {
    match state {
        ReleaseChange::Pending => "pending",
        ReleaseChange::Canary => "on canary",
        ReleaseChange::Live => "live",
        ReleaseChange::Replaced => "replaced",
        ReleaseChange::Failed => "failed",
    }
}

fn of_job(state: JobChange) -> &'static str {
    match state {
        JobChange::Enqueued => "enqueued",
        JobChange::Running => "running",
        JobChange::Done => "done",
        JobChange::Retrying => "retrying",
        JobChange::Dead => "dead",
        JobChange::Back => "back on its queue",
        JobChange::Cancelled => "cancelled",
        JobChange::Retried => "retried",
        JobChange::Discarded => "discarded",
    }
}

fn of_tick(state: TickChange) -> &'static str {
    match state {
        TickChange::Running => "running",
        TickChange::Done => "done",
        TickChange::Failed => "failed",
        TickChange::Skipped => "skipped",
        TickChange::Interrupted => "interrupted",
    }
}

fn name(text: &str) -> String {
    one_line(text, NAME_BYTES_MAX).into_owned()
}

/// Words of others, on the same line.
fn because(why: Option<&String>) -> String {
    let Some(why) = why else { return String::new() };
    let why = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    format!(": {}", one_line(&why, WORDS_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(mut event: serde_json::Value) -> String {
        event["id"] = 1.into();
        event["time"] = "2026-11-21T05:08:05.776Z".into();
        line(&event.to_string(), false)
    }

    #[test]
    fn an_event_is_one_line() {
        let instance = json!({ "kind": "instance", "process": "web", "instance": "web.1", "release": 3, "state": "serving" });
        assert_eq!(shown(instance), "05:08:05 instance  web.1 serving (v3)");
        let backoff = json!({
            "kind": "instance", "process": "web", "instance": "web.1", "release": 3, "state": "backoff",
            "why": "exited with code 3", "again_in_s": 2.04,
        });
        assert_eq!(shown(backoff), "05:08:05 instance  web.1 waits (v3), again in 2 s: exited with code 3");
        let job = json!({
            "kind": "job", "job": "42", "queue": "mail", "state": "running", "process": "worker",
            "instance": "worker.1", "attempt": 2, "attempts_max": 25,
        });
        assert_eq!(shown(job), "05:08:05 job       42 of mail running on worker.1 (attempt 2 of 25)");
        let retried =
            json!({ "kind": "job", "job": "42", "queue": null, "state": "retried", "process": null });
        assert_eq!(shown(retried), "05:08:05 job       42 retried");
        let canary = json!({ "kind": "release", "release": 3, "state": "canary", "percent": 10 });
        assert_eq!(shown(canary), "05:08:05 release   v3 on canary (10%)");
    }

    #[test]
    fn texts_of_guests_do_not_act_on_a_terminal_nor_begin_a_line() {
        let event = json!({
            "kind": "tick", "process": "clock", "nominal": "2026-11-21T05:08:00Z", "manual": false,
            "state": "failed", "error": "no\n05:08:05 host \u{1b}[2J\u{202e}",
        });
        let text = shown(event.clone());
        assert!(text.ends_with("failed: no; 05:08:05 host \\u{1b}[2J\\u{202e}"), "{text}");
        let json = line(&event.to_string(), true);
        assert!(json.chars().all(|c| (' '..='~').contains(&c)), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), event);
    }

    #[test]
    fn a_kind_of_a_later_version_is_shown_as_it_came() {
        let text = shown(json!({ "kind": "weather", "sky": "\u{9b}blue" }));
        assert!(text.starts_with('{') && text.contains("\\u009bblue"), "{text}");
    }
}
