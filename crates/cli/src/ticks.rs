//! `wasmhost ticks`

use std::cmp::Reverse;

use wasmhost_host::admin::api::{ScheduleView, SchedulesView, TickView, TicksView};

use crate::args::Ticks;
use crate::client::Client;
use crate::exit::{Exit, Failed, Outcome};
use crate::print;
use crate::table::{one_line, short, table};
use crate::work::valid;

/// How much of an error a row shows, in characters.
const ERROR_CHARS: usize = 80;

/// Ticks of one schedule that a host keeps.
const TICKS_MAX: usize = 1_000;

pub(crate) async fn ticks(client: &Client, ticks: &Ticks) -> Outcome {
    let SchedulesView { mut schedules } = client.get("/v1/schedules").await?;
    // A type without a schedule is the host's to refuse.
    let names: Vec<String> = match &ticks.process {
        Some(process) => vec![valid("process type", process)?.to_owned()],
        None => schedules.iter().map(|schedule| schedule.process.clone()).collect(),
    };
    schedules.retain(|schedule| names.contains(&schedule.process));
    let listed = newest(client, &names, ticks.n).await?;
    if ticks.json {
        for tick in &listed {
            print::json(tick)?;
        }
    } else {
        print::text(&render(&listed, &schedules));
    }
    Ok(Exit::Done)
}

/// The newest ticks of all these types together.
async fn newest(client: &Client, names: &[String], n: usize) -> Result<Vec<TickView>, Failed> {
    let mut listed = Vec::new();
    let asked = n.clamp(1, TICKS_MAX);
    for name in names {
        let history: TicksView = client.get(&format!("/v1/schedules/{name}/ticks?n={asked}")).await?;
        listed.extend(history.ticks);
    }
    listed.sort_by_key(|tick| Reverse(tick.nominal));
    listed.truncate(n);
    Ok(listed)
}

fn render(listed: &[TickView], schedules: &[ScheduleView]) -> String {
    let mut text = String::new();
    if !listed.is_empty() {
        let head = ["TYPE", "TIME", "LATE", "TOOK", "RESULT", "ERROR"];
        text += &table(&head, listed.iter().map(row));
        text.push('\n');
    }
    for ScheduleView { process, next, .. } in schedules {
        text += &match next.first() {
            Some(next) if next.due == next.nominal => format!("{process}: next at {}\n", next.nominal),
            Some(next) => format!("{process}: next at {}, for {}\n", next.due, next.nominal),
            None => format!("{process}: never again\n"),
        };
    }
    text
}

fn row(tick: &TickView) -> Vec<String> {
    let how = if tick.manual { " (manual)" } else { "" };
    vec![
        tick.process.clone(),
        tick.nominal.to_string(),
        duration(tick.started_at.since(tick.nominal).as_secs_f64()),
        tick.duration_s.map(duration).unwrap_or_default(),
        format!("{}{how}", tick.result.name()),
        tick.error.as_deref().map(|error| one_line(error, ERROR_CHARS)).unwrap_or_default(),
    ]
}

/// Most ticks take milliseconds.
fn duration(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0}ms", seconds * 1000.0) } else { short(seconds) }
}

#[cfg(test)]
mod tests {
    use wasmhost_host::admin::api::NextTick;

    use super::*;

    fn tick(nominal: &str, result: &str, error: Option<&str>) -> TickView {
        TickView {
            process: "clock".into(),
            nominal: nominal.parse().unwrap(),
            manual: error.is_none(),
            started_at: nominal.parse().unwrap(),
            ended_at: None,
            duration_s: Some(0.0123),
            result: serde_json::from_value(result.into()).unwrap(),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn a_tick_is_a_row_and_the_next_one_is_told() {
        let next = NextTick {
            nominal: "2026-11-21T12:00:00Z".parse().unwrap(),
            due: "2026-11-21T12:00:03Z".parse().unwrap(),
        };
        let schedule = ScheduleView {
            process: "clock".into(),
            schedule: None,
            time_zone: None,
            every_s: Some(60.0),
            jitter_s: 10.0,
            cursor: None,
            next: vec![next],
        };
        let ticks = [
            tick("2026-11-21T11:59:00Z", "failed", Some("it broke\n  at main")),
            tick("2026-11-21T11:58:00Z", "done", None),
        ];
        assert_eq!(
            render(&ticks, &[schedule]),
            "TYPE   TIME                  LATE  TOOK  RESULT         ERROR\n\
             clock  2026-11-21T11:59:00Z  0ms   12ms  failed         it broke\n\
             clock  2026-11-21T11:58:00Z  0ms   12ms  done (manual)\n\n\
             clock: next at 2026-11-21T12:00:03Z, for 2026-11-21T12:00:00Z\n"
        );
        assert_eq!(duration(7.34), "7.3s");
    }
}
