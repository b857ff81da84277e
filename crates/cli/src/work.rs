//! The verbs that hand a running host something to do: `restart`, `stop`, `tick`.

use std::time::Duration;

use tokio::time::Instant;
use wasmhost_host::admin::api::{RestartRequest, RestartResponse, TickResponse};

use crate::args::{Restart, Stop, Tick};
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

/// How often a host that stops is looked at, on this machine and on another.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOK_AFAR_EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn restart(client: &Client, restart: &Restart) -> Outcome {
    let wait_s = restart.timeout.as_secs_f64();
    let request = RestartRequest { target: restart.target.clone(), wait_s: Some(wait_s) };
    let asked = client.post("/v1/restart", &request);
    let response: RestartResponse = client.while_it_answers(restart.timeout, asked).await?;
    if restart.json {
        print::json(&response)?;
    }
    if !response.settled {
        return Err(Failed::new(
            Exit::Failed,
            format!("after {wait_s} s not all of the new instances serve; `wasmhost ps` shows which"),
        ));
    }
    if restart.json {
        return Ok(Exit::Done);
    }
    let instances = if response.restarted == 1 { "instance" } else { "instances" };
    print::line(format!("restarted {} {instances} of {}", response.restarted, restart.target));
    Ok(Exit::Done)
}

pub(crate) async fn stop(client: &Client, stop: &Stop) -> Outcome {
    let until = Instant::now() + stop.timeout;
    let waited_s = stop.timeout.as_secs_f64();
    let asked = tokio::time::timeout_at(until, client.post_empty("/v1/stop")).await;
    asked.unwrap_or_else(|_| {
        Err(Failed::new(
            Exit::Failed,
            format!("the host has not answered after {waited_s} s: if its process hangs, end it by a signal"),
        ))
    })?;
    let look_every = if client.is_on_this_machine() { LOOK_EVERY } else { LOOK_AFAR_EVERY };
    while client.is_there().await {
        if Instant::now() >= until {
            return Err(Failed::new(
                Exit::Failed,
                format!("the host still finishes calls after {waited_s} s; `wasmhost ps` shows which"),
            ));
        }
        tokio::time::sleep(look_every).await;
    }
    if stop.json {
        print::json(&serde_json::json!({ "stopped": true }))?;
    }
    Ok(Exit::Done)
}

/// A name that can stand in a path as it is.
pub(crate) fn valid<'a>(what: &str, name: &'a str) -> Result<&'a str, Failed> {
    match wasmhost_config::name_problem(name) {
        None => Ok(name),
        Some(problem) => Err(Failed::new(Exit::Usage, format!("{what}: {problem}"))),
    }
}

pub(crate) async fn tick(client: &Client, tick: &Tick) -> Outcome {
    let path = format!("/v1/schedules/{}/ticks", valid("process type", &tick.process)?);
    let response: TickResponse = client.post(&path, &()).await?;
    if tick.json {
        print::json(&response)?;
    }
    match response.error {
        None if tick.json => Ok(Exit::Done),
        None => {
            print::line(format!("{} ran the tick of {}", tick.process, response.nominal));
            Ok(Exit::Done)
        }
        Some(error) => Err(Failed::new(Exit::Failed, format!("the tick failed: {error}"))),
    }
}
