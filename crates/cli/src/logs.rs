//! `wasmhost logs`

use http_body_util::BodyExt;
use wasmhost_host::admin::api::LogLine;
use wasmhost_host::{LogFormat, render};

use crate::args::Logs;
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
use crate::work::valid;

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
