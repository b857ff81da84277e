//! `wasmhost ps`

use std::time::Duration;

use wasmhost_host::admin::api::{FormationView, InstanceView, TypeView};

use crate::args::Ps;
use crate::client::Client;
use crate::exit::{Exit, Outcome};

pub(crate) async fn ps(client: &Client, ps: &Ps) -> Outcome {
    let view: FormationView = client.get("/v1/formation").await?;
    if ps.json {
        anstream::println!("{}", serde_json::to_string_pretty(&view)?);
    } else {
        anstream::print!("{}", render(&view));
    }
    Ok(Exit::Done)
}

fn render(view: &FormationView) -> String {
    let at: String = view.http.iter().map(|place| format!("  {place}")).collect();
    let mut text = format!("{}{at}  pid {}  up {}\n\n", view.name, view.pid, short(view.uptime_s));
    let types = view.types.iter().map(type_row);
    text += &table(
        &["TYPE", "TRIGGER", "DESIRED", "ACTUAL", "REPLACING", "DRAINING", "WAITING", "RESTARTS", "RECYCLED"],
        types,
    );
    let instances: Vec<_> = view.types.iter().flat_map(|process| &process.instances).collect();
    if !instances.is_empty() {
        text.push('\n');
        let rows = instances.into_iter().map(instance_row);
        text += &table(
            &["INSTANCE", "STATE", "UPTIME", "CALLS", "RESTARTS", "RECYCLED", "CPU", "MEMORY", ""],
            rows,
        );
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
        view.state.clone(),
        short(view.uptime_s),
        view.calls.to_string(),
        view.restarts.to_string(),
        view.recycled.to_string(),
        format!("{:.2}s", view.cpu_s),
        size(view.memory_bytes),
        view.note.clone().unwrap_or_default(),
    ]
}

/// Columns as wide as their widest cell, two spaces between, nothing after the last.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// `1.1MiB`: rounded, since a person compares.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{amount:.1}{}", UNITS[unit]) }
}

/// `3d4h`, `2h5m`, `5m7s`, `7.3s`
fn short(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) => format!("{seconds:.1}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, _, _) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        assert_eq!(short(7.34), "7.3s");
        assert_eq!(short(307.0), "5m7s");
        assert_eq!(short(7_500.0), "2h5m");
        assert_eq!(short(273_600.0), "3d4h");
        assert_eq!(short(f64::NAN), "NaNs");
    }

    #[test]
    fn sizes_are_rounded() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(1_115_176), "1.1MiB");
        assert_eq!(size(u64::MAX), "17179869184.0GiB");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), String::new()]];
        assert_eq!(table(&["N", "C"], rows.into_iter()), "N     C\na     1\nlong\n");
    }
}
