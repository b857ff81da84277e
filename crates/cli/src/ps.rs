//! `wasmhost ps`

mod wait;

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use wasmhost_host::admin::api::{
    CanaryView, CrashCause, CrashView, FormationView, HostView, InstanceView, TypeView,
};
use wasmhost_host::unknown_type;

use crate::args::Ps;
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
use crate::screen::{Screen, Then};
use crate::table::{one_line, short, size, table, whole_size, width};

/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lines of a backtrace that are shown; `--json` has all of it.
const BACKTRACE_LINES_MAX: usize = 20;

pub(crate) async fn ps(client: &Client, ps: &Ps) -> Outcome {
    if ps.watch {
        return watch(client, ps).await;
    }
    let view = if ps.wait { wait::until_up(client, ps).await? } else { look(client, ps).await? };
    if ps.json {
        print::pretty_json(&view)?;
    } else {
        print::text(&text(&view, ps));
    }
    Ok(Exit::Done)
}

/// Until a person has seen enough, or the host is gone.
async fn watch(client: &Client, ps: &Ps) -> Outcome {
    // An error is told before there is a screen.
    let mut view = look(client, ps).await?;
    let mut screen = Screen::open("`wasmhost ps --json` is for programs")?;
    loop {
        screen.draw(&text(&view, ps));
        if screen.wait(LOOK_EVERY).await == Then::End || print::is_broken() {
            return Ok(Exit::Done);
        }
        view = look(client, ps).await?;
    }
}

/// How things stand, with the type alone that was named.
async fn look(client: &Client, ps: &Ps) -> Result<FormationView, Failed> {
    let mut view: FormationView = client.get("/v1/formation").await?;
    let Some(name) = ps.process.as_ref().filter(|_| view.starting.is_none()) else { return Ok(view) };
    if !view.types.iter().any(|process| process.process == *name) {
        let known: Vec<&str> = view.types.iter().map(|process| process.process.as_str()).collect();
        return Err(Failed::new(Exit::Failed, unknown_type(name, &known)));
    }
    view.types.retain(|process| process.process == *name);
    Ok(view)
}

fn text(view: &FormationView, ps: &Ps) -> String {
    let now = Timestamp::now();
    let mut text = render(view);
    match ps.process {
        Some(_) => {
            text += &use_table(&view.types);
            text += &directory_table(&view.types);
            text += &details(&view.types, now);
        }
        None => text += &notes(view, now),
    }
    text
}

fn render(view: &FormationView) -> String {
    let (name, pid, uptime) = (&view.name, view.pid, short(view.uptime_s));
    if let Some(starting) = &view.starting {
        return format!("{name}  starting  pid {pid}  up {uptime}\n\n{starting}\n");
    }
    let probes = view.health.iter().map(|place| format!("  probes {place}"));
    let admin = view.admin.iter().map(|place| format!("  admin {place}"));
    let at: String = view.http.iter().map(|place| format!("  {place}")).chain(probes).chain(admin).collect();
    let release = view.release;
    let canary =
        view.canary.map(|CanaryView { release, percent }| format!("  v{release} on canary ({percent}%)"));
    let canary = canary.unwrap_or_default();
    let mut text = format!("{name}  v{release}{canary}{at}  pid {pid}  up {uptime}\n");
    if view.paused {
        text += "jobs and ticks are paused; SIGUSR2 takes them again\n";
    }
    text.push('\n');
    text += &host_table(&view.hosts);
    // There isn't room for both. In a type with two versions one has to know which is which.
    let mut seen = HashSet::new();
    let are_versions = view.types.iter().any(|process| !seen.insert(&process.process));
    let second = if are_versions { "RELEASE" } else { "TRIGGER" };
    let types = view.types.iter().map(|process| type_row(process, are_versions, view.canary));
    text += &table(
        &["TYPE", second, "DESIRED", "ACTUAL", "REPLACING", "DRAINING", "WAITING", "RESTARTS", "RECYCLED"],
        types,
    );
    let mut instances = view.types.iter().flat_map(|process| &process.instances).peekable();
    if instances.peek().is_some() {
        text.push('\n');
        let mut head = vec![
            "INSTANCE", "RELEASE", "STATE", "UPTIME", "CALLS", "RESTARTS", "RECYCLED", "CPU", "MEMORY",
            "LIMIT",
        ];
        let are_shared = view.hosts.len() > 1;
        if are_shared {
            head.insert(1, "HOST");
        }
        text += &table(&head, instances.map(|instance| instance_row(instance, are_shared)));
    }
    text
}

/// The hosts that share the formation, where there are several.
fn host_table(hosts: &[HostView]) -> String {
    if hosts.len() < 2 {
        return String::new();
    }
    let rows = hosts.iter().map(|host| {
        let lacks = match host.lacks {
            0 => String::new(),
            lacks => format!(" (no room for {lacks})"),
        };
        vec![
            host.name.clone(),
            host.state.clone(),
            if host.release == 0 { String::new() } else { format!("v{}", host.release) },
            format!("{} of {}{lacks}", host.actual, host.desired),
            if host.here { "here".to_owned() } else { format!("{} ago", short(host.heard_s)) },
            host.http.join(" "),
        ]
    });
    format!("{}\n", table(&["HOST", "STATE", "RELEASE", "INSTANCES", "HEARD", "HTTP"], rows))
}

/// A line for each instance that says something of itself, and for each type whose last end nothing else tells of.
fn notes(view: &FormationView, now: Timestamp) -> String {
    let mut lines = Vec::new();
    for process in &view.types {
        let noted = process.instances.iter().filter_map(|view| Some((&view.name, view.note.as_ref()?)));
        let before = lines.len();
        lines.extend(noted.map(|(name, note)| format!("{name}: {note}")));
        let is_told = process.canary || lines.len() != before;
        if let Some(crash) = process.last_crash.as_ref().filter(|_| !is_told) {
            let (ago, name) = (ago(&crash.time, now), &process.process);
            lines.push(format!("`wasmhost ps {name}`: {} died {ago}: {}", crash.instance, crash.message));
        }
    }
    paragraph(&lines)
}

/// All that is known of one type, in one version or two.
fn details(versions: &[TypeView], now: Timestamp) -> String {
    let instances = versions.iter().flat_map(|process| &process.instances);
    let noted = instances.filter_map(|view| Some((&view.name, view.note.as_ref()?)));
    let mut lines: Vec<_> = noted.map(|(name, note)| format!("{name}: {note}")).collect();
    // The rest is known of the type, and the same of each version.
    let Some(process) = versions.first() else { return paragraph(&lines) };
    let dropped = [
        (process.lines_dropped, "nobody read them fast enough"),
        (process.lines_past_max_log, "they were more than its `max_log`"),
    ];
    for (count, why) in dropped.into_iter().filter(|(count, _)| *count > 0) {
        let (lines_are, were) = if count == 1 { ("line", "was") } else { ("lines", "were") };
        lines.push(format!("{count} {lines_are} that it wrote {were} dropped: {why}"));
    }
    let mut text = paragraph(&lines);
    if let Some(crash) = &process.last_crash {
        text += &death(crash, now);
    }
    text
}

/// How the last instance died, and what it had to say.
fn death(crash: &CrashView, now: Timestamp) -> String {
    let CrashView { instance, time, message, lines, .. } = crash;
    let mut text = format!("\n{instance} died {}, at {time}: {}\n", ago(time, now), cause(crash));
    let backtrace = crash.backtrace.as_deref().unwrap_or(message);
    let mut frames = backtrace.lines();
    for line in frames.by_ref().take(BACKTRACE_LINES_MAX) {
        let _ = writeln!(text, "  {}", one_line(line, width().saturating_sub(3)));
    }
    let more = frames.count();
    if more > 0 {
        let _ = writeln!(text, "  ... {more} more lines, which --json has");
    }
    if lines.is_empty() {
        let _ = writeln!(text, "It had written no line.");
        return text;
    }
    let _ = writeln!(text, "\nThe last lines that {instance} wrote:");
    for line in lines {
        let clock = line.time.get(11..19).unwrap_or(&line.time);
        let _ = writeln!(text, "  {clock} | {}", one_line(&line.line, width().saturating_sub(14)));
    }
    text
}

fn cause(crash: &CrashView) -> String {
    let how = match (crash.cause, crash.exit_code) {
        (CrashCause::Trap, _) => "it trapped".to_owned(),
        (CrashCause::Exit, Some(code)) => format!("it exited with code {code}"),
        (CrashCause::Exit, None) => "it exited".to_owned(),
        (CrashCause::OutOfMemory, _) => "out of memory".to_owned(),
        (CrashCause::Timeout, _) => "timeout".to_owned(),
        (CrashCause::OutOfCpu, _) => "out of CPU time".to_owned(),
        (CrashCause::Other, _) => "the host ended it".to_owned(),
    };
    if crash.starting { format!("{how} as it started") } else { how }
}

fn ago(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => format!("{} ago", short(now.duration_since(time).as_secs_f64().max(0.0))),
        Err(_) => "at an unknown time".to_owned(),
    }
}

/// Lines that fit, below an empty one.
fn paragraph(lines: &[String]) -> String {
    let begin = if lines.is_empty() { "" } else { "\n" };
    let lines = lines.iter().map(|line| one_line(line, width().saturating_sub(1)) + "\n");
    begin.to_owned() + &lines.collect::<String>()
}

/// `desired (file)` where the count isn't the file's. Where a canary has a part of the count, `part/count (file)`.
fn type_row(view: &TypeView, are_versions: bool, canary: Option<CanaryView>) -> Vec<String> {
    let desired = match (view.canary || view.count == view.in_file, view.desired == view.count) {
        _ if view.leaving => "leaving".to_owned(),
        (true, _) => view.desired.to_string(),
        (false, true) => format!("{} ({})", view.desired, view.in_file),
        (false, false) => format!("{}/{} ({})", view.desired, view.count, view.in_file),
    };
    let second = match canary {
        _ if !are_versions => view.trigger.clone(),
        Some(canary) if view.canary && view.release == canary.release => {
            format!("v{} ({}%)", view.release, canary.percent)
        }
        _ => format!("v{}", view.release),
    };
    vec![
        view.process.clone(),
        second,
        desired,
        view.actual.to_string(),
        view.replacing.to_string(),
        view.draining.to_string(),
        view.waiting.to_string(),
        view.restarts.to_string(),
        view.recycled.to_string(),
    ]
}

fn instance_row(view: &InstanceView, are_shared: bool) -> Vec<String> {
    let mut row = vec![
        view.name.clone(),
        // One that starts may be of either of two.
        if view.release == 0 { String::new() } else { format!("v{}", view.release) },
        view.state.clone(),
        short(view.uptime_s),
        view.calls.to_string(),
        view.restarts.to_string(),
        view.recycled.to_string(),
        format!("{:.2}s", view.cpu_s),
        size(view.memory_bytes),
        // A place without an instance has none.
        if view.memory_max_bytes == 0 { String::new() } else { whole_size(view.memory_max_bytes) },
    ];
    if are_shared {
        row.insert(1, view.host.clone().unwrap_or_default());
    }
    row
}

/// The use of each instance that serves, beside its limits.
fn use_table(versions: &[TypeView]) -> String {
    let instances = versions.iter().flat_map(|process| &process.instances);
    let mut serving = instances.filter(|view| view.memory_max_bytes > 0).peekable();
    if serving.peek().is_none() {
        return String::new();
    }
    let rows = serving.map(|view| {
        vec![
            view.name.clone(),
            size(view.memory_bytes),
            size(view.memory_peak_bytes),
            whole_size(view.memory_max_bytes),
            view.descriptors.to_string(),
            view.descriptors_max.to_string(),
        ]
    });
    format!("\n{}", table(&["INSTANCE", "MEMORY", "PEAK", "LIMIT", "FILES", "LIMIT"], rows))
}

/// How full each directory is whose grant has `max_bytes`. Versions of a type may have other ones.
fn directory_table(versions: &[TypeView]) -> String {
    let mut seen = HashSet::new();
    let all = versions.iter().flat_map(|process| &process.directories);
    let mut bounded = all.filter(|view| seen.insert((&view.guest, view.bytes_max))).peekable();
    if bounded.peek().is_none() {
        return String::new();
    }
    let rows = bounded.map(|view| {
        vec![
            view.guest.clone(),
            view.bytes.map_or("unknown".to_owned(), size),
            whole_size(view.bytes_max),
            view.entries.map_or("unknown".to_owned(), |entries| entries.to_string()),
            view.entries_max.to_string(),
        ]
    });
    format!("\n{}", table(&["DIRECTORY", "USED", "LIMIT", "ENTRIES", "LIMIT"], rows))
}

#[cfg(test)]
mod tests {
    use wasmhost_host::admin::api::LogLine;

    use super::*;

    #[test]
    fn a_death_is_told_with_its_last_lines() {
        let line = LogLine {
            time: "2026-11-21T05:08:05.114Z".into(),
            instance: "web.2".into(),
            stream: "stderr".into(),
            line: "asked to trap".into(),
        };
        let crash = CrashView {
            instance: "web.2".into(),
            time: "2026-11-21T05:08:05.115Z".into(),
            cause: CrashCause::Trap,
            exit_code: None,
            starting: false,
            message: "unreachable".into(),
            backtrace: Some(format!("unreachable\n{}", "frame\n".repeat(25))),
            lines: vec![line],
        };
        let now = "2026-11-21T05:08:15.115Z".parse().unwrap();
        let text = death(&crash, now);
        let begin =
            "\nweb.2 died 10.0s ago, at 2026-11-21T05:08:05.115Z: it trapped\n  unreachable\n  frame\n";
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("  ... 6 more lines, which --json has\n"), "{text}");
        assert!(text.ends_with("\nThe last lines that web.2 wrote:\n  05:08:05 | asked to trap\n"), "{text}");
        let exit = CrashView { cause: CrashCause::Exit, exit_code: Some(3), starting: true, ..crash };
        let exit = CrashView { backtrace: None, message: "exited".into(), lines: vec![], ..exit };
        let text = death(&exit, now);
        assert!(
            text.contains("it exited with code 3 as it started\n  exited\nIt had written no line.\n"),
            "{text}"
        );
    }
}
