//! `wasmhost logs`

use std::path::Path;

use http_body_util::BodyExt;
use wasmhost_host::admin::api::LogLine;
use wasmhost_host::{LogFormat, render};

use crate::args::Logs;
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
use crate::work::valid;

/// `-f` names the formation in every verb, and people may take it for "follow".
pub(crate) fn type_for_a_file(file: &Path) -> Option<Failed> {
    let name = file.to_str().filter(|name| !Path::new(name).exists())?;
    let process = match name.rsplit_once('.') {
        Some((process, index)) if index.parse::<u32>().is_ok() => process,
        _ => name,
    };
    let could_be_a_type = wasmhost_config::name_problem(process).is_none();
    could_be_a_type.then(|| {
        let message = format!(
            "-f names a formation, and there is no file \"{name}\"; to follow the lines of {name}: `wasmhost logs --follow {name}`"
        );
        Failed::new(Exit::Usage, message)
    })
}

pub(crate) async fn logs(client: &Client, logs: &Logs) -> Outcome {
    let mut path = format!("/v1/logs?n={}&follow={}", logs.n, logs.follow);
    if let Some(target) = &logs.target {
        let process = target.rsplit_once('.').map_or(target.as_str(), |(process, _index)| process);
        valid("process type", process)?;
        path.push_str(&format!("&target={target}"));
    }
    let format = match LogFormat::detect() {
        _ if logs.json => LogFormat::Json,
        // A person who pipes lines through grep wants the lines; --json is for programs.
        LogFormat::Json => LogFormat::Plain,
        format => format,
    };
    let mut body = client.stream(&path).await?;
    let mut unfinished = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| Failed::new(Exit::Failed, format!("the host went away: {err}")))?;
        let Ok(data) = frame.into_data() else { continue };
        unfinished.extend_from_slice(&data);
        let Some(end) = unfinished.iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = unfinished.split_off(end + 1);
        print(&unfinished, format)?;
        if print::is_broken() {
            return Ok(Exit::Done);
        }
        unfinished = rest;
    }
    Ok(Exit::Done)
}

fn print(lines: &[u8], format: LogFormat) -> Result<(), Failed> {
    let mut text = String::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        render(&serde_json::from_slice::<LogLine>(line)?, format, &mut text);
    }
    print::raw(&text);
    Ok(())
}
