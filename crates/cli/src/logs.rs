//! `wasmhost logs`

use std::fmt::Write;
use std::path::Path;

use wasmhost_host::admin::api::{HOST_TARGET, LogLine};
use wasmhost_host::{LogFormat, render};

use crate::args::Logs;
use crate::client::{Client, follow_lines};
use crate::exit::{Exit, Failed, Outcome};
use crate::host_line::{HostLine, has_colour};
use crate::print;
use crate::work::valid;

/// Refuses what people write who are used to another program: here `-f` follows, and `-F` names the formation.
pub(crate) fn refuse_slips(logs: &Logs, file: Option<&Path>) -> Result<(), Failed> {
    let missing = file.filter(|file| !file.exists()).and_then(Path::to_str);
    if let Some(name) = missing.filter(|name| could_be_a_type(name)) {
        let message = format!(
            "there is no formation file \"{name}\"; to follow the lines of {name}: `wasmhost logs -f {name}`"
        );
        return Err(Failed::new(Exit::Usage, message));
    }
    if let Some(name) = logs.target.as_ref().filter(|name| Path::new(name).is_file()) {
        let message = format!(
            "\"{name}\" is a file, expected a type (web) or an instance (web.1); in `logs` a formation is named by -F: `wasmhost logs -F {name}`"
        );
        return Err(Failed::new(Exit::Usage, message));
    }
    if logs.level.is_some() && logs.target.as_deref() != Some(HOST_TARGET) {
        let message =
            "guests' lines have no level; --level is for the host's own: `wasmhost logs host --level warn`";
        return Err(Failed::new(Exit::Usage, message));
    }
    match (logs.since, logs.until) {
        (Some(since), Some(until)) if since > until => {
            Err(Failed::new(Exit::Usage, format!("--since ({since}) is after --until ({until})")))
        }
        _ => Ok(()),
    }
}

fn could_be_a_type(name: &str) -> bool {
    let process = match name.rsplit_once('.') {
        Some((process, index)) if index.parse::<u32>().is_ok() => process,
        _ => name,
    };
    wasmhost_config::name_problem(process).is_none()
}

pub(crate) async fn logs(client: &Client, logs: &Logs) -> Outcome {
    let is_of_host = logs.target.as_deref() == Some(HOST_TARGET);
    let format = match LogFormat::detect() {
        _ if logs.json => LogFormat::Json,
        // A person who pipes lines through grep wants the lines; --json is for programs.
        LogFormat::Json => LogFormat::Plain,
        format => format,
    };
    let body = client.stream(&path(logs)?).await?;
    if let Some(starting) = client.starting().await {
        let advice = if is_of_host { "" } else { "; `wasmhost logs host` has its own lines" };
        print::note(format_args!("the host is starting ({starting}){advice}"));
    }
    let act = |lines: &[u8]| {
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        match is_of_host {
            true => print_own(lines, format),
            false => print_guests(lines, format),
        }
    };
    follow_lines(body, act).await
}

/// The request.
fn path(logs: &Logs) -> Result<String, Failed> {
    let mut path = format!("/v1/logs?follow={}", logs.follow);
    // Writing to a String doesn't fail.
    if let Some(target) = &logs.target {
        let process = target.rsplit_once('.').map_or(target.as_str(), |(process, _index)| process);
        valid("process type", process)?;
        let _ = write!(path, "&target={target}");
    }
    if let Some(lines) = logs.lines {
        let _ = write!(path, "&n={lines}");
    }
    for (name, time) in [("since", logs.since), ("until", logs.until)] {
        if let Some(time) = time {
            let _ = write!(path, "&{name}={time}");
        }
    }
    if let Some(level) = logs.level {
        let _ = write!(path, "&level={}", level.name());
    }
    Ok(path)
}

fn print_guests<'a>(lines: impl Iterator<Item = &'a [u8]>, format: LogFormat) -> Result<(), Failed> {
    let mut text = String::new();
    for line in lines {
        render(&serde_json::from_slice::<LogLine>(line)?, format, &mut text);
    }
    print::raw(&text);
    Ok(())
}

fn print_own<'a>(lines: impl Iterator<Item = &'a [u8]>, format: LogFormat) -> Result<(), Failed> {
    let mut text = String::new();
    for line in lines {
        let line: HostLine = serde_json::from_slice(line)?;
        match format {
            LogFormat::Json => line.json(&mut text),
            LogFormat::Plain => line.text(false, &mut text),
            LogFormat::Coloured => line.text(has_colour(), &mut text),
        }
        text.push('\n');
    }
    print::raw(&text);
    Ok(())
}
