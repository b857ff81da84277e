//! `wasmhost scale`

use wasmhost_host::admin::api::{CountView, FormationView, ScaleRequest, ScaleResponse, TypeView};

use crate::args::Scale;
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

pub(crate) async fn scale(client: &Client, scale: &Scale) -> Outcome {
    if scale.changes.is_empty() && scale.reset.is_none() {
        return show(client, scale.json).await;
    }
    let request = ScaleRequest {
        changes: scale.changes.clone(),
        reset: scale.reset.clone().filter(|types| !types.is_empty()),
        reset_all: scale.reset.as_ref().is_some_and(Vec::is_empty),
        wait_s: (!scale.no_wait).then_some(scale.timeout.as_secs_f64()),
    };
    let asked = client.post("/v1/scale", &request);
    let response: ScaleResponse = client.while_it_answers(scale.timeout, asked).await?;
    if scale.json {
        print::pretty_json(&response)?;
    } else {
        print::line(line(&response.types));
    }
    match response.settled || scale.no_wait {
        true => Ok(Exit::Done),
        false => Err(Failed::new(Exit::Failed, lacking(&response.types, scale.timeout.as_secs_f64()))),
    }
}

async fn show(client: &Client, json: bool) -> Outcome {
    let view: FormationView = client.get("/v1/formation").await?;
    if let Some(starting) = view.starting {
        let message = format!("the host is starting ({starting}), and has no counts yet");
        return Err(Failed::new(Exit::Failed, message));
    }
    let is_scalable =
        |process: &TypeView| !process.leaving && !matches!(process.trigger.as_str(), "release" | "manual");
    let scalable: Vec<TypeView> = view.types.into_iter().filter(is_scalable).collect();
    let types = CountView::of(&scalable);
    if json {
        let settled = types.iter().all(|count| count.actual == count.desired);
        print::pretty_json(&ScaleResponse { settled, types })?;
    } else {
        print::line(format!("wasmhost scale {}", line(&types)));
    }
    Ok(Exit::Done)
}

/// `web=4 worker=2`
fn line(counts: &[CountView]) -> String {
    let each: Vec<_> = counts.iter().map(|count| format!("{}={}", count.process, count.desired)).collect();
    each.join(" ")
}

/// Names the types whose counts aren't live after the wait.
pub(crate) fn lacking(counts: &[CountView], waited_s: f64) -> String {
    let each: Vec<_> = counts
        .iter()
        .filter(|count| count.actual != count.desired)
        .map(|count| {
            let note = count.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            format!("{} has {} of {} instances{note}", count.process, count.actual, count.desired)
        })
        .collect();
    match each.is_empty() {
        true => format!("after {waited_s} s instances were still being replaced"),
        false => format!("after {waited_s} s {}; the host goes on trying", each.join(", ")),
    }
}
