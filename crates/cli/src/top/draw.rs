//! The page of `top`. It fits into 80 columns and 24 lines, and shows more where there is more room.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Sparkline, Table, TableState};
use wasmhost_host::admin::api::{FormationView, InstanceView, QueueView, TypeHistory, TypeView};

use super::app::{App, Asks, Note, Pane};
use crate::table::{one_line, short, size};

/// From this width on there are a type's trigger and a chart of its calls.
const WIDE: u16 = 110;

/// From this height on all three tables are shown.
const HIGH: u16 = 40;

/// The width of a chart: a sample a column.
const CHART: u16 = 40;

const HELP: &str = "\
 Up, Down, j, k   select            +, -   one instance more, or fewer
 PageUp, PageDown, Home, End        s      a count for the type
 Tab, Left, Right the next table    r      restart the type, or the instance
 t, i, u          types, instances, p      pause or resume the queue
                  queues            q      end (also Esc, Ctrl-C)";

pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let types = u16::try_from(app.types().len()).unwrap_or(u16::MAX).saturating_add(2);
    let [head, body, note, keys] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(area);
    heading(frame, head, app);
    // Rows of types that there is no room for are scrolled to.
    let upper = types.min(body.height / 2).max(3);
    let [upper, lower] = Layout::vertical([Constraint::Length(upper), Constraint::Min(0)]).areas(body);
    type_table(frame, upper, app);
    if area.height >= HIGH {
        let [instances, queues] = Layout::vertical([Constraint::Fill(2), Constraint::Fill(1)]).areas(lower);
        instance_table(frame, instances, app);
        queue_table(frame, queues, app);
    } else if app.pane == Pane::Queues {
        queue_table(frame, lower, app);
    } else {
        instance_table(frame, lower, app);
    }
    frame.render_widget(Paragraph::new(note_line(app)), note);
    let keys_line = "q end  ? keys  Tab table  Up Down select  + - s scale  r restart  p pause";
    frame.render_widget(Paragraph::new(keys_line).style(dim()), keys);
    if app.asks == Asks::Help {
        help(frame, body);
    }
}

fn heading(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let Some(formation) = &app.formation else { return };
    let FormationView { name, release, uptime_s, pid, http, .. } = formation;
    let canary =
        formation.canary.map(|canary| format!("  v{} on canary ({}%)", canary.release, canary.percent));
    let places: String = http.iter().map(|place| format!("  {place}")).collect();
    let up = short(*uptime_s);
    let first = format!("{name}  v{release}{}{places}  pid {pid}  up {up}", canary.unwrap_or_default());
    let second = match (&app.lost, &formation.starting) {
        (Some(why), _) => Line::styled(format!("NOT ANSWERING: {}", one_line(why, 200)), bad()),
        (None, Some(starting)) => Line::styled(format!("starting: {starting}"), warned()),
        (None, None) if formation.paused => {
            Line::styled("jobs and ticks are paused; SIGUSR2 takes them again", warned())
        }
        (None, None) => Line::raw(sums(app)),
    };
    let first = Line::styled(first, Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Paragraph::new(vec![first, second]), area);
}

/// All types together.
fn sums(app: &App) -> String {
    let calls = |trigger: &str| {
        let types = app.history.types.iter().filter(|history| history.trigger == trigger);
        types.filter_map(|history| history.per_s.last().copied().flatten()).reduce(|one, other| one + other)
    };
    let cpu: f64 = app.history.types.iter().filter_map(|history| history.cpu.last()).sum();
    let memory: u64 = app.history.types.iter().filter_map(|history| history.memory_bytes.last()).sum();
    format!(
        "requests {}/s  jobs {}/s  ticks {}/s  CPU {}  memory {}",
        rate(calls("http")),
        rate(calls("queue")),
        rate(calls("schedule")),
        percent(cpu),
        size(memory)
    )
}

fn type_table(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let is_wide = area.width >= WIDE;
    let mut head = vec!["TYPE", "COUNT", "CALLS/S", "P50", "P99", "FAIL/S", "WAITING", "CPU", "MEMORY"];
    let mut widths = vec![
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(9),
    ];
    if is_wide {
        head.insert(1, "TRIGGER");
        widths.insert(1, Constraint::Length(9));
    }
    let [table, chart] = match is_wide {
        true => Layout::horizontal([Constraint::Min(0), Constraint::Length(CHART + 2)]).areas(area),
        false => [area, Rect::ZERO],
    };
    let rows = app.types().iter().map(|kind| type_row(kind, app.history_of(&kind.process), is_wide));
    let at = app.types().iter().position(|kind| Some(&kind.process) == app.selected.process.as_ref());
    let offset = shown(frame, table, &title("TYPES", app.pane == Pane::Types), &head, &widths, rows, at);
    if is_wide {
        charts(frame, chart, app, offset);
    }
}

fn type_row<'a>(kind: &'a TypeView, history: Option<&TypeHistory>, is_wide: bool) -> Row<'a> {
    let last = |figures: fn(&TypeHistory) -> &[Option<f64>]| figures(history?).last().copied().flatten();
    let name = match (kind.canary, kind.leaving) {
        (true, _) => format!("{} v{} canary", kind.process, kind.release),
        (false, true) => format!("{} v{} leaving", kind.process, kind.release),
        (false, false) => kind.process.clone(),
    };
    let failed = last(|history| &history.failed_per_s);
    let full = if kind.actual < kind.desired { warned() } else { Style::new() };
    let mut cells = vec![
        Cell::new(name),
        number(format!("{}/{}", kind.actual, kind.desired)).style(full),
        number(rate(last(|history| &history.per_s))),
        number(time(last(|history| &history.p50_s))),
        number(time(last(|history| &history.p99_s))),
        number(rate(failed)).style(if failed.is_some_and(|failed| failed > 0.0) {
            bad()
        } else {
            Style::new()
        }),
        number(kind.waiting.to_string()),
        number(history.and_then(|history| history.cpu.last()).map_or("-".to_owned(), |cpu| percent(*cpu))),
        number(
            history
                .and_then(|history| history.memory_bytes.last())
                .map_or("-".to_owned(), |bytes| size(*bytes)),
        ),
    ];
    if is_wide {
        cells.insert(1, Cell::new(kind.trigger.as_str()));
    }
    Row::new(cells)
}

/// Calls a second of each type that is shown, each row as high as its highest.
fn charts(frame: &mut Frame<'_>, area: Rect, app: &App, offset: usize) {
    let every = app.history.every_s;
    let head = format!("CALLS/S, {}", short(every * f64::from(CHART)));
    let inner = Rect { x: area.x + 2, width: area.width.saturating_sub(2), ..area };
    let row = |at: usize| {
        u16::try_from(at).ok().map(|at| Rect { y: inner.y.saturating_add(at), height: 1, ..inner })
    };
    if area.height > 1
        && let Some(place) = row(1)
    {
        frame.render_widget(Paragraph::new(head).style(dim()), place);
    }
    let rows = usize::from(area.height).saturating_sub(2);
    for (at, kind) in app.types().iter().skip(offset).take(rows).enumerate() {
        let (Some(place), Some(history)) = (row(at + 2), app.history_of(&kind.process)) else { continue };
        let from = history.per_s.len().saturating_sub(usize::from(CHART));
        // A thousandth of a call is seen too.
        let calls = history.per_s[from..].iter().map(|calls| (calls.unwrap_or(0.0) * 1000.0).round() as u64);
        frame.render_widget(Sparkline::default().data(calls.collect::<Vec<u64>>()), place);
    }
}

fn instance_table(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let head = ["INSTANCE", "STATE", "UPTIME", "CALLS", "RESTARTS", "CPU", "MEMORY", "NOTE"];
    let widths = [
        Constraint::Length(18),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Fill(1),
    ];
    let process = app.selected.process.as_ref();
    let kinds = app.types().iter().filter(|kind| Some(&kind.process) == process);
    let instances: Vec<&InstanceView> = kinds.flat_map(|kind| &kind.instances).collect();
    let at = instances.iter().position(|instance| Some(&instance.name) == app.selected.instance.as_ref());
    let rows = instances.into_iter().map(instance_row);
    let name = process.map(|process| format!("INSTANCES OF {process}")).unwrap_or_default();
    shown(frame, area, &title(&name, app.pane == Pane::Instances), &head, &widths, rows, at);
}

fn instance_row(instance: &InstanceView) -> Row<'_> {
    let state = match instance.state.as_str() {
        "backoff" => bad(),
        "starting" | "draining" | "replacing" => warned(),
        _ => Style::new(),
    };
    Row::new([
        Cell::new(instance.name.as_str()),
        Cell::new(instance.state.as_str()).style(state),
        number(short(instance.uptime_s)),
        number(instance.calls.to_string()),
        number(instance.restarts.to_string()),
        number(short(instance.cpu_s)),
        number(size(instance.memory_bytes)),
        // It may be a guest's own text.
        Cell::new(one_line(instance.note.as_deref().unwrap_or_default(), 200)),
    ])
}

fn queue_table(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let head = ["QUEUE", "DUE", "RUNNING", "RETRYING", "SCHEDULED", "DEAD", "WORKERS"];
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Fill(1),
    ];
    let at = app.queues.iter().position(|queue| Some(&queue.counts.queue) == app.selected.queue.as_ref());
    let rows = app.queues.iter().map(queue_row);
    shown(frame, area, &title("QUEUES", app.pane == Pane::Queues), &head, &widths, rows, at);
}

fn queue_row(queue: &QueueView) -> Row<'_> {
    let QueueView { counts, workers, .. } = queue;
    let workers = match (counts.paused, workers.is_empty()) {
        (true, _) => Cell::new("paused").style(warned()),
        (false, true) => Cell::new("nobody works it").style(warned()),
        (false, false) => Cell::new(workers.join(", ")),
    };
    Row::new([
        Cell::new(one_line(&counts.queue, 200)),
        number(counts.available.to_string()),
        number(counts.leased.to_string()),
        number(counts.retrying.to_string()),
        number(counts.scheduled.to_string()),
        number(counts.dead.to_string()).style(if counts.dead > 0 { bad() } else { Style::new() }),
        workers,
    ])
}

/// Draws a table with its title, scrolled to the selected row. Returns the first row that is shown.
fn shown<'a>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &Line<'_>,
    head: &[&'static str],
    widths: &[Constraint],
    rows: impl Iterator<Item = Row<'a>>,
    selected: Option<usize>,
) -> usize {
    let [top, below] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(title.clone()), top);
    // Heads stand as their columns do.
    let heads = head.iter().map(|name| match is_text(name) {
        true => Cell::new(*name),
        false => number((*name).to_owned()),
    });
    let table = Table::new(rows, widths)
        .header(Row::new(heads).style(dim()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, below, &mut state);
    state.offset()
}

fn is_text(column: &str) -> bool {
    ["TYPE", "TRIGGER", "INSTANCE", "STATE", "NOTE", "QUEUE", "WORKERS"].contains(&column)
}

fn title(name: &str, has_keys: bool) -> Line<'static> {
    match has_keys {
        true => Line::styled(format!("> {name}"), Style::new().add_modifier(Modifier::BOLD)),
        false => Line::styled(format!("  {name}"), dim()),
    }
}

fn note_line(app: &App) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    match (&app.asks, &app.note) {
        (Asks::Count { process, digits }, _) => {
            Line::styled(format!("count of {process}: {digits}_  (Enter, or Esc)"), bold)
        }
        (Asks::Restart { target }, _) => Line::styled(format!("restart {target}? (y, n)"), bold),
        (Asks::Help | Asks::Nothing, Note::None) => Line::raw(""),
        (Asks::Help | Asks::Nothing, Note::Underway(act)) => Line::raw(format!("{act} ...")),
        (Asks::Help | Asks::Nothing, Note::Done(done)) => Line::raw(done.clone()),
        (Asks::Help | Asks::Nothing, Note::Failed(why)) => {
            Line::styled(format!("error: {}", one_line(why, 400)), bad())
        }
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let height = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX).min(area.height);
    let place = Rect { y: area.bottom().saturating_sub(height), height, ..area };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(HELP), place);
}

fn number(text: String) -> Cell<'static> {
    Cell::new(Line::from(text).alignment(Alignment::Right))
}

/// `-`, `0`, `0.25`, `12.3`, `1234`, `12.3k`
fn rate(per_s: Option<f64>) -> String {
    match per_s {
        None => "-".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 1.0 => format!("{rate:.2}"),
        Some(rate) if rate < 100.0 => format!("{rate:.1}"),
        Some(rate) if rate < 10_000.0 => format!("{rate:.0}"),
        Some(rate) => format!("{:.1}k", rate / 1000.0),
    }
}

/// `-`, `250us`, `1.2ms`, `12ms`, `1.2s`
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(s) if s < 0.001 => format!("{:.0}us", s * 1e6),
        Some(s) if s < 0.01 => format!("{:.1}ms", s * 1e3),
        Some(s) if s < 1.0 => format!("{:.0}ms", s * 1e3),
        Some(s) => format!("{s:.1}s"),
    }
}

fn percent(cpu: f64) -> String {
    format!("{:.0}%", cpu * 100.0)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn warned() -> Style {
    Style::new().fg(Color::Yellow)
}

fn bad() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}
