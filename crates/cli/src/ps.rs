//! `wasmhost ps`

use wasmhost_host::admin::api::{FormationView, InstanceView, TypeView};

use crate::args::Ps;
use crate::client::Client;
use crate::exit::{Exit, Outcome};
use crate::print;
use crate::table::{one_line, short, size, table, width};

pub(crate) async fn ps(client: &Client, ps: &Ps) -> Outcome {
    let view: FormationView = client.get("/v1/formation").await?;
    if ps.json {
        print::pretty_json(&view)?;
    } else {
        print::text(&render(&view));
    }
    Ok(Exit::Done)
}

fn render(view: &FormationView) -> String {
    let at: String = view.http.iter().map(|place| format!("  {place}")).collect();
    let (name, release, uptime) = (&view.name, view.release, short(view.uptime_s));
    let mut text = format!("{name}  v{release}{at}  pid {}  up {uptime}\n", view.pid);
    if view.paused {
        text += "jobs and ticks are paused; SIGUSR2 takes them again\n";
    }
    text.push('\n');
    let types = view.types.iter().map(type_row);
    text += &table(
        &["TYPE", "TRIGGER", "DESIRED", "ACTUAL", "REPLACING", "DRAINING", "WAITING", "RESTARTS", "RECYCLED"],
        types,
    );
    let instances: Vec<_> = view.types.iter().flat_map(|process| &process.instances).collect();
    if instances.is_empty() {
        return text;
    }
    text.push('\n');
    let head = ["INSTANCE", "RELEASE", "STATE", "UPTIME", "CALLS", "RESTARTS", "RECYCLED", "CPU", "MEMORY"];
    text += &table(&head, instances.iter().map(|view| instance_row(view)));
    let notes = instances.iter().filter_map(|view| Some((&view.name, view.note.as_ref()?)));
    for (n, (name, note)) in notes.enumerate() {
        if n == 0 {
            text.push('\n');
        }
        text += &one_line(&format!("{name}: {note}"), width());
        text.push('\n');
    }
    text
}

/// `desired (file)` where the two differ.
fn type_row(view: &TypeView) -> Vec<String> {
    let desired = match view.desired == view.in_file {
        true => view.desired.to_string(),
        false => format!("{} ({})", view.desired, view.in_file),
    };
    vec![
        view.process.clone(),
        view.trigger.clone(),
        desired,
        view.actual.to_string(),
        view.replacing.to_string(),
        view.draining.to_string(),
        view.waiting.to_string(),
        view.restarts.to_string(),
        view.recycled.to_string(),
    ]
}

fn instance_row(view: &InstanceView) -> Vec<String> {
    vec![
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
    ]
}
