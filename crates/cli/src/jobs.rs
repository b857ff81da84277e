//! `wasmhost jobs`

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use wasmhost_config::shown;
use wasmhost_host::admin::api::{
    AttemptEnd, BackupRequest, BackupResponse, JobDetail, JobMoved, JobState, JobView, JobsView,
    PauseResponse, QueueView, QueuesView, SweepRequest, SweepResponse, Timestamp,
};
use wasmhost_host::{backup_store, refuse_directory_of_other};

use crate::args::jobs::{Backup, JobsVerb, List, Queues, Show, Stats, Sweep, Watch, Which};
use crate::client::{self, Client, Target};
use crate::exit::{Exit, Failed, Outcome};
use crate::formation_file::FormationFile;
use crate::print;
use crate::screen::{Screen, Then};
use crate::table::{one_line, short, size, table};
use crate::work::valid;

/// Jobs that are asked for at once.
const PAGE: usize = 1_000;

/// Columns of `jobs stats`.
const STATES: [&str; 7] = ["SCHEDULED", "AVAILABLE", "LEASED", "RETRYING", "DONE", "DEAD", "CANCELLED"];

/// How often `watch` looks at most.
const WATCH_EVERY_MIN: Duration = Duration::from_millis(100);

/// How much of an error a list shows, in characters.
const ERROR_CHARS: usize = 200;

pub(crate) fn jobs(target: Target, verb: JobsVerb) -> Outcome {
    client::with(target, async |client| match verb {
        JobsVerb::Ls(list) => ls(&client, &list).await,
        JobsVerb::Show(wanted) => show(&client, &wanted).await,
        JobsVerb::Retry(sweep) => change(&client, Change::Retry, sweep).await,
        JobsVerb::Cancel(sweep) => change(&client, Change::Cancel, sweep).await,
        JobsVerb::Discard(sweep) => change(&client, Change::Discard, sweep).await,
        JobsVerb::Pause(queues) => pause(&client, &queues, "pause").await,
        JobsVerb::Resume(queues) => pause(&client, &queues, "resume").await,
        JobsVerb::Stats(wanted) => stats(&client, &wanted).await,
        JobsVerb::Watch(wanted) => watch(&client, &wanted).await,
        JobsVerb::Backup(wanted) => backup(&client, &wanted).await,
    })
}

// --- looking

async fn ls(client: &Client, list: &List) -> Outcome {
    let mut query = query(&list.which)?;
    let order = if list.oldest { "oldest" } else { "newest" };
    let _ = write!(query, "&order={order}");
    let mut jobs: Vec<JobView> = Vec::new();
    let mut after = String::new();
    while jobs.len() < list.n {
        let limit = PAGE.min(list.n - jobs.len());
        let page: JobsView = client.get(&format!("/v1/jobs?limit={limit}{query}{after}")).await?;
        jobs.extend(page.jobs);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    if list.json {
        for job in &jobs {
            print::json(job)?;
        }
        return Ok(Exit::Done);
    }
    let now = Timestamp::now();
    let rows = jobs.iter().map(|job| job_row(job, now));
    let head = ["ID", "QUEUE", "STATE", "ATTEMPT", "PRIORITY", "AGE", "DUE", "KEY", "LAST ERROR"];
    print::text(&table(&head, rows));
    Ok(Exit::Done)
}

fn job_row(job: &JobView, now: Timestamp) -> Vec<String> {
    vec![
        job.id.to_string(),
        job.queue.clone(),
        job.state.to_string(),
        attempts(job),
        if job.priority == 0 { String::new() } else { job.priority.to_string() },
        ago(job.enqueued_at, now),
        due(job, now),
        job.unique_key.as_deref().map(|key| one_line(key, 20)).unwrap_or_default(),
        job.last_error.as_deref().map(|error| one_line(error, ERROR_CHARS)).unwrap_or_default(),
    ]
}

fn attempts(job: &JobView) -> String {
    match job.attempts_max {
        Some(max) => format!("{}/{max}", job.attempt),
        None => job.attempt.to_string(),
    }
}

fn ago(time: Timestamp, now: Timestamp) -> String {
    short(now.since(time).as_secs_f64())
}

fn due(job: &JobView, now: Timestamp) -> String {
    match job.state {
        JobState::Scheduled | JobState::Retrying => format!("in {}", ago(now, job.run_at)),
        _ => String::new(),
    }
}

async fn show(client: &Client, show: &Show) -> Outcome {
    let detail: JobDetail = client.get(&format!("/v1/jobs/{}", id(&show.id)?)).await?;
    if show.json {
        print::pretty_json(&detail)?;
        return Ok(Exit::Done);
    }
    print::text(&render(&detail));
    Ok(Exit::Done)
}

fn render(detail: &JobDetail) -> String {
    let job = &detail.view;
    let mut lines = vec![
        ("queue", job.queue.clone()),
        ("state", state(detail)),
        ("attempts", attempts(job)),
        ("crashes", job.crashes.to_string()),
        ("priority", job.priority.to_string()),
        ("enqueued", job.enqueued_at.to_string()),
        ("due", job.run_at.to_string()),
    ];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("started", job.started_at.map(|time| time.to_string()));
    add("ended", job.ended_at.map(|time| time.to_string()));
    add("because", why_dead(detail));
    add("key", job.unique_key.clone());
    add("type", Some(job.content_type.clone()).filter(|text| !text.is_empty()));
    for (name, value) in &detail.metadata {
        add("metadata", Some(format!("{name}={value}")));
    }
    let mut text = format!("job {}\n", job.id);
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<9} {}", printable(&value));
    }
    if !detail.attempts.is_empty() {
        text.push_str("\nattempts that didn't end well\n");
    }
    for attempt in &detail.attempts {
        let took = attempt.started_at.map(|started| format!(" after {}", ago(started, attempt.ended_at)));
        let _ = writeln!(
            text,
            "  {} {} {}{}",
            attempt.attempt,
            attempt.ended_at,
            attempt.end.name(),
            took.unwrap_or_default()
        );
        for line in attempt.error.as_deref().unwrap_or_default().lines() {
            let _ = writeln!(text, "    {}", printable(line));
        }
    }
    let _ = writeln!(text, "\npayload, {}", size(detail.payload_bytes));
    match (&detail.payload, &detail.payload_base64) {
        (Some(payload), _) => payload.lines().for_each(|line| {
            let _ = writeln!(text, "  {}", shown::lines(line, usize::MAX));
        }),
        (None, encoded) => {
            let _ = writeln!(text, "  (base64) {}", encoded.as_deref().unwrap_or_default());
        }
    }
    text
}

/// Why a job is dead, where its attempts don't say it.
fn why_dead(detail: &JobDetail) -> Option<String> {
    let job = &detail.view;
    let last = detail.attempts.last().filter(|_| job.state == JobState::Dead)?;
    let has_attempts_left = job.attempts_max.is_some_and(|max| job.attempt < max);
    match last.end {
        AttemptEnd::Crashed if has_attempts_left => Some(format!(
            "it crashed {} times: a job that does so isn't tried again, whatever attempts are left",
            job.crashes
        )),
        AttemptEnd::Failed if has_attempts_left => {
            Some("its handler buried it: no other attempt would have done better".to_owned())
        }
        _ => None,
    }
}

fn state(detail: &JobDetail) -> String {
    match &detail.instance {
        Some(instance) => format!("{} by {instance}", detail.view.state),
        None => detail.view.state.to_string(),
    }
}

/// Text of a job on one line, in which nothing acts on the terminal.
fn printable(text: &str) -> Cow<'_, str> {
    shown::one_line(text, shown::MESSAGE_BYTES_MAX)
}

async fn stats(client: &Client, stats: &Stats) -> Outcome {
    let view: QueuesView = client.get("/v1/queues").await?;
    match stats.json {
        true => print::pretty_json(&view)?,
        false => print::text(&queue_table(&view)),
    }
    Ok(Exit::Done)
}

/// States that are rare have a column where some queue has such jobs.
fn queue_table(view: &QueuesView) -> String {
    let now = Timestamp::now();
    let numbers = |queue: &QueueView| {
        let counts = &queue.counts;
        [
            counts.scheduled,
            counts.available,
            counts.leased,
            counts.retrying,
            counts.done,
            counts.dead,
            counts.cancelled,
        ]
    };
    let is_shown = |column: usize| {
        matches!(STATES[column], "AVAILABLE" | "LEASED" | "DONE")
            || view.queues.iter().any(|queue| numbers(queue)[column] > 0)
    };
    let rows = view.queues.iter().map(|queue| {
        let counts = &queue.counts;
        let workers = match (counts.paused, queue.workers.is_empty()) {
            (true, _) => "paused".to_owned(),
            (false, true) => "nobody".to_owned(),
            (false, false) => queue.workers.join(", "),
        };
        let cell = |(column, number): (usize, u64)| {
            if is_shown(column) { number.to_string() } else { String::new() }
        };
        let mut row = vec![counts.queue.clone()];
        row.extend(numbers(queue).into_iter().enumerate().map(cell));
        row.push(counts.oldest_waiting.map(|since| ago(since, now)).unwrap_or_default());
        row.push(workers);
        row
    });
    let mut head = vec!["QUEUE"];
    head.extend(STATES);
    head.extend(["OLDEST", "WORKED BY"]);
    table(&head, rows)
}

/// Until it is interrupted, or the host is gone.
async fn watch(client: &Client, watch: &Watch) -> Outcome {
    let every = watch.every.max(WATCH_EVERY_MIN);
    let mut view: QueuesView = client.get("/v1/queues").await?;
    let is_screen = !watch.json && std::io::stdout().is_terminal();
    let mut screen = is_screen.then(|| Screen::open("")).transpose()?;
    loop {
        match &screen {
            Some(screen) => screen.draw(&queue_table(&view)),
            None if watch.json => print::json(&view)?,
            None => print::text(&queue_table(&view)),
        }
        if print::is_broken() {
            return Ok(Exit::Done);
        }
        match &mut screen {
            Some(screen) => {
                if screen.wait(every).await == Then::End {
                    return Ok(Exit::Done);
                }
            }
            None => tokio::time::sleep(every).await,
        }
        view = client.get("/v1/queues").await?;
    }
}

// --- changing

#[derive(Clone, Copy)]
enum Change {
    Retry,
    Cancel,
    Discard,
}

impl Change {
    fn verb(self) -> &'static str {
        match self {
            Change::Retry => "retry",
            Change::Cancel => "cancel",
            Change::Discard => "discard",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Change::Retry => "made available",
            Change::Cancel => "cancelled",
            Change::Discard => "discarded",
        }
    }
}

async fn change(client: &Client, change: Change, sweep: Sweep) -> Outcome {
    let Sweep { ids, which, all, json } = sweep;
    let verb = change.verb();
    if !ids.is_empty() {
        return change_each(client, change, &ids, json).await;
    }
    if !all && which.queue.is_none() && which.state.is_empty() && which.key.is_none() {
        let message = format!("name the jobs to {verb}, or say which by --queue, --state or --key, or --all");
        return Err(Failed::new(Exit::Usage, message));
    }
    if matches!(change, Change::Discard) && !all && which.state.is_empty() && which.key.is_none() {
        let message = "say in which --state the jobs are that are to be deleted, such as dead, or --all";
        return Err(Failed::new(Exit::Usage, message));
    }
    let mut states = which.state;
    if matches!(change, Change::Retry) && states.is_empty() && !all {
        states.push(JobState::Dead);
    }
    let states = Some(states).filter(|states| !states.is_empty());
    let request = SweepRequest { queue: which.queue, states, unique_key: which.key };
    let response: SweepResponse = client.post(&format!("/v1/jobs/{verb}"), &request).await?;
    match json {
        true => print::json(&response)?,
        false => {
            let jobs = if response.changed == 1 { "job" } else { "jobs" };
            print::line(format!("{} {jobs} {}", response.changed, change.past()));
        }
    }
    match response.note {
        Some(note) => {
            print::note(note);
            Ok(if response.changed == 0 { Exit::Failed } else { Exit::Done })
        }
        None => Ok(Exit::Done),
    }
}

/// Each that can be; what can't is said, and makes the exit code 1.
async fn change_each(client: &Client, change: Change, ids: &[String], json: bool) -> Outcome {
    let mut exit = Exit::Done;
    for name in ids {
        let id = id(name)?;
        let changed: Result<JobMoved, Failed> = match change {
            Change::Retry => client.post(&format!("/v1/jobs/{id}/retry"), &()).await,
            Change::Cancel => client.post(&format!("/v1/jobs/{id}/cancel"), &()).await,
            Change::Discard => client.delete(&format!("/v1/jobs/{id}")).await,
        };
        match changed {
            Ok(moved) if json => print::json(&moved)?,
            Ok(moved) => match moved.to {
                Some(to) => print::line(format!("job {id} was {}, and is {to}", moved.from)),
                None => print::line(format!("job {id} was {}, and is gone", moved.from)),
            },
            Err(failed) if failed.exit == Exit::Failed => {
                print::note(&failed.message);
                exit = Exit::Failed;
            }
            Err(failed) => return Err(failed),
        }
    }
    Ok(exit)
}

async fn pause(client: &Client, queues: &Queues, verb: &str) -> Outcome {
    for queue in &queues.queues {
        let path = format!("/v1/queues/{}/{verb}", valid("queue", queue)?);
        let response: PauseResponse = client.post(&path, &()).await?;
        if queues.json {
            let PauseResponse { paused, changed } = response;
            let line = serde_json::json!({ "queue": queue, "paused": paused, "changed": changed });
            print::json(&line)?;
            continue;
        }
        let state = if response.paused { "paused" } else { "running" };
        let already = if response.changed { "" } else { " already" };
        print::line(format!("{queue} is {state}{already}"));
    }
    Ok(Exit::Done)
}

async fn backup(client: &Client, backup: &Backup) -> Outcome {
    if !client.is_on_this_machine() && !backup.to.is_absolute() {
        let message =
            "the copy is a file of the host's machine, expected a path there that begins with \"/\"";
        return Err(Failed::new(Exit::Usage, message));
    }
    let file = std::path::absolute(&backup.to)?;
    let bytes = match client.file() {
        Some(of_formation) if !client.is_there().await => backup_alone(of_formation, &file).await?,
        _ => {
            let request = BackupRequest { file: file.display().to_string() };
            client.post::<BackupResponse>("/v1/store/backup", &request).await?.bytes
        }
    };
    match backup.json {
        true => print::json(&serde_json::json!({ "file": file, "bytes": bytes }))?,
        false => print::line(format!("{} ({})", file.display(), size(bytes))),
    }
    Ok(Exit::Done)
}

/// Without a host.
async fn backup_alone(of: &FormationFile, file: &Path) -> Result<u64, Failed> {
    let formation = of.read()?;
    let refused = refuse_directory_of_other(&formation.state_dir, &formation.file);
    refused.map_err(|err| of.failed(Exit::Failed, err))?;
    backup_store(&formation.store, file).await.map_err(|err| Failed::new(Exit::Failed, err))
}

// --- what is asked for

/// `&queue=mail&state=dead,retrying&key=ann`
fn query(which: &Which) -> Result<String, Failed> {
    let mut query = String::new();
    if let Some(queue) = &which.queue {
        let _ = write!(query, "&queue={}", valid("queue", queue)?);
    }
    if !which.state.is_empty() {
        let states: Vec<_> = which.state.iter().map(|state| state.name()).collect();
        let _ = write!(query, "&state={}", states.join(","));
    }
    if let Some(key) = &which.key {
        query.push_str("&key=");
        for byte in key.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    query.push(char::from(byte))
                }
                _ => {
                    let _ = write!(query, "%{byte:02X}");
                }
            }
        }
    }
    Ok(query)
}

/// An id that can stand in a path as it is.
fn id(text: &str) -> Result<&str, Failed> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        true => Ok(text),
        false => {
            let found = printable(text);
            Err(Failed::new(Exit::Usage, format!("found \"{found}\", expected a job's id, such as 42")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_anything_in_a_query() {
        let which = Which { key: Some("a b&c=ü".into()), ..Which::default() };
        assert_eq!(query(&which).unwrap(), "&key=a%20b%26c%3D%C3%BC");
        let which =
            Which { queue: Some("mail".into()), state: vec![JobState::Dead, JobState::Done], key: None };
        assert_eq!(query(&which).unwrap(), "&queue=mail&state=dead,done");
    }

    #[test]
    fn an_id_cant_lead_elsewhere() {
        assert!(id("42").is_ok() && id("../formation").is_err() && id("").is_err());
    }
}
