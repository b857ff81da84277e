//! The state of `top`: what was seen last, what is selected, and what keys mean. It does nothing by itself.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use wasmhost_host::admin::api::{
    FormationView, HistoryView, OverviewView, QueueView, QueuesView, ScaleTo, TypeHistory, TypeView,
};

use super::acts::Act;

/// Samples that are kept of each figure: five minutes of them are more than the widest chart.
const SAMPLES_MAX: usize = 240;

/// Digits of a count that is typed.
const DIGITS_MAX: usize = 6;

/// See the module.
#[derive(Default)]
pub(super) struct App {
    pub(super) formation: Option<FormationView>,
    pub(super) queues: Vec<QueueView>,
    pub(super) history: HistoryView,
    /// Why the host wasn't seen when it was last looked for.
    pub(super) lost: Option<String>,
    pub(super) pane: Pane,
    /// The rows that are selected.
    pub(super) selected: Selected,
    pub(super) asks: Asks,
    pub(super) note: Note,
}

/// The table that keys are for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Types,
    Instances,
    Queues,
}

/// By name, so that a selection stays with its subject.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Selected {
    pub(super) process: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) queue: Option<String>,
}

/// A question to the person.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Asks {
    #[default]
    Nothing,
    /// A count for this type: the digits so far.
    Count { process: String, digits: String },
    /// Whether this is meant.
    Restart { target: String },
    /// Shows the keys.
    Help,
}

/// The last line.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Note {
    #[default]
    None,
    Underway(String),
    Done(String),
    Failed(String),
}

/// The meaning of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// Another type is selected: its instances are wanted.
    Look,
    Act(Act),
    End,
}

impl App {
    pub(super) fn new() -> App {
        App::default()
    }

    /// The host as it is now.
    pub(super) fn saw(&mut self, overview: OverviewView, queues: QueuesView) {
        let OverviewView { formation, history } = overview;
        // One that was started again counts from the beginning.
        let is_other = self.formation.as_ref().is_some_and(|before| before.pid != formation.pid);
        if is_other || history.newest < self.history.newest {
            self.history = HistoryView::default();
        }
        add(&mut self.history, history);
        self.formation = Some(formation);
        self.queues = queues.queues;
        self.lost = None;
        self.keep_selection();
    }

    pub(super) fn lost(&mut self, why: &str) {
        self.lost = Some(why.to_owned());
    }

    pub(super) fn began(&mut self, act: &Act) {
        self.note = Note::Underway(act.underway());
    }

    pub(super) fn ended(&mut self, act: Result<String, String>) {
        self.note = match act {
            Ok(done) => Note::Done(done),
            Err(why) => Note::Failed(why),
        };
    }

    /// The type whose instances are shown, and the last sample that there is.
    pub(super) fn wants(&self) -> (Option<String>, u64) {
        (self.selected.process.clone(), self.history.newest)
    }

    /// In the order of the formation; a type that is there in two versions is there twice.
    pub(super) fn types(&self) -> &[TypeView] {
        self.formation.as_ref().map(|formation| formation.types.as_slice()).unwrap_or_default()
    }

    pub(super) fn history_of(&self, process: &str) -> Option<&TypeHistory> {
        self.history.types.iter().find(|history| history.process == process)
    }

    /// Names of the rows of a pane.
    fn rows(&self, pane: Pane) -> Vec<&str> {
        let mut rows: Vec<&str> = match pane {
            Pane::Types => self.types().iter().map(|process| process.process.as_str()).collect(),
            Pane::Instances => self
                .types()
                .iter()
                .filter(|process| Some(&process.process) == self.selected.process.as_ref())
                .flat_map(|process| process.instances.iter().map(|instance| instance.name.as_str()))
                .collect(),
            Pane::Queues => self.queues.iter().map(|queue| queue.counts.queue.as_str()).collect(),
        };
        rows.dedup();
        rows
    }

    fn selected_in(&self, pane: Pane) -> Option<&String> {
        match pane {
            Pane::Types => self.selected.process.as_ref(),
            Pane::Instances => self.selected.instance.as_ref(),
            Pane::Queues => self.selected.queue.as_ref(),
        }
    }

    fn select(&mut self, pane: Pane, row: Option<String>) {
        match pane {
            Pane::Types => self.selected.process = row,
            Pane::Instances => self.selected.instance = row,
            Pane::Queues => self.selected.queue = row,
        }
    }

    /// The first row, where the selected one has gone.
    fn keep_selection(&mut self) {
        for pane in [Pane::Types, Pane::Instances, Pane::Queues] {
            let rows = self.rows(pane);
            let stays = self.selected_in(pane).is_some_and(|row| rows.contains(&row.as_str()));
            if !stays {
                let first = rows.first().map(|row| (*row).to_owned());
                self.select(pane, first);
            }
        }
    }

    fn step(&mut self, by: isize) -> Then {
        let pane = self.pane;
        let rows = self.rows(pane);
        let now =
            self.selected_in(pane).and_then(|row| rows.iter().position(|other| other == row)).unwrap_or(0);
        let last = rows.len().saturating_sub(1);
        let next = now.saturating_add_signed(by).min(last);
        let row = rows.get(next).map(|row| (*row).to_owned());
        self.select(pane, row);
        if pane == Pane::Types && next != now {
            self.selected.instance = None;
            return Then::Look;
        }
        Then::Nothing
    }

    /// A key, or whatever else came from the terminal.
    pub(super) fn press(&mut self, event: Event) -> Then {
        let Event::Key(key) = event else { return Then::Nothing };
        if key.kind == KeyEventKind::Release {
            return Then::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Then::End;
        }
        match std::mem::take(&mut self.asks) {
            Asks::Nothing => self.command(key),
            Asks::Help => Then::Nothing,
            Asks::Count { process, digits } => self.digit(key, process, digits),
            Asks::Restart { target } => match key.code {
                KeyCode::Char('y' | 'Y') | KeyCode::Enter => Then::Act(Act::Restart { target }),
                _ => Then::Nothing,
            },
        }
    }

    fn digit(&mut self, key: KeyEvent, process: String, mut digits: String) -> Then {
        match key.code {
            KeyCode::Esc => return Then::Nothing,
            KeyCode::Enter => {
                return match digits.parse() {
                    Ok(count) => Then::Act(Act::Scale { process, to: ScaleTo::Count(count) }),
                    Err(_) => Then::Nothing,
                };
            }
            KeyCode::Backspace => drop(digits.pop()),
            KeyCode::Char(digit) if digit.is_ascii_digit() && digits.len() < DIGITS_MAX => digits.push(digit),
            _ => {}
        }
        self.asks = Asks::Count { process, digits };
        Then::Nothing
    }

    fn command(&mut self, key: KeyEvent) -> Then {
        match key.code {
            KeyCode::Char('q') => return Then::End,
            KeyCode::Esc if self.note == Note::None => return Then::End,
            KeyCode::Esc => self.note = Note::None,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.asks = Asks::Help,
            KeyCode::Down | KeyCode::Char('j') => return self.step(1),
            KeyCode::Up | KeyCode::Char('k') => return self.step(-1),
            KeyCode::PageDown => return self.step(10),
            KeyCode::PageUp => return self.step(-10),
            KeyCode::Home => return self.step(isize::MIN),
            KeyCode::End => return self.step(isize::MAX),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.pane = next(self.pane),
            KeyCode::BackTab | KeyCode::Left => self.pane = next(next(self.pane)),
            KeyCode::Char('t') => self.pane = Pane::Types,
            KeyCode::Char('i') => self.pane = Pane::Instances,
            KeyCode::Char('u') => self.pane = Pane::Queues,
            KeyCode::Char('+' | '=') => return self.scale(ScaleTo::More(1)),
            KeyCode::Char('-') => return self.scale(ScaleTo::Fewer(1)),
            KeyCode::Char('s') => {
                if let Some(process) = self.selected.process.clone() {
                    self.asks = Asks::Count { process, digits: String::new() };
                }
            }
            KeyCode::Char('r') => {
                let target = match self.pane {
                    Pane::Instances => self.selected.instance.clone(),
                    Pane::Types | Pane::Queues => self.selected.process.clone(),
                };
                self.asks = target.map(|target| Asks::Restart { target }).unwrap_or_default();
            }
            KeyCode::Char('p') => return self.pause(),
            _ => {}
        }
        Then::Nothing
    }

    fn scale(&self, to: ScaleTo) -> Then {
        let process = self.selected.process.clone();
        process.map_or(Then::Nothing, |process| Then::Act(Act::Scale { process, to }))
    }

    /// The selected queue, or the one that the selected type works.
    fn pause(&mut self) -> Then {
        let works = |queue: &&QueueView| match (self.pane, &self.selected.process) {
            (Pane::Queues, _) => Some(&queue.counts.queue) == self.selected.queue.as_ref(),
            (_, Some(process)) => queue.workers.contains(process),
            (_, None) => false,
        };
        let mut queues = self.queues.iter().filter(works);
        match (queues.next(), queues.next()) {
            (Some(queue), None) => {
                let QueueView { counts, .. } = queue;
                Then::Act(Act::Pause { queue: counts.queue.clone(), paused: !counts.paused })
            }
            (None, _) => {
                self.note = Note::Failed("no queue is selected: u shows the queues".to_owned());
                Then::Nothing
            }
            (Some(_), Some(_)) => {
                self.note = Note::Failed("the type works several queues: u shows them".to_owned());
                Then::Nothing
            }
        }
    }
}

fn next(pane: Pane) -> Pane {
    match pane {
        Pane::Types => Pane::Instances,
        Pane::Instances => Pane::Queues,
        Pane::Queues => Pane::Types,
    }
}

/// Adds the samples that came since.
fn add(kept: &mut HistoryView, more: HistoryView) {
    let HistoryView { every_s, samples_max, newest, times_ms, types, .. } = more;
    (kept.every_s, kept.samples_max, kept.newest) = (every_s, samples_max, newest);
    put(&mut kept.times_ms, times_ms);
    for history in types {
        match kept.types.iter_mut().find(|kept| kept.process == history.process) {
            Some(kept) => {
                put(&mut kept.per_s, history.per_s);
                put(&mut kept.failed_per_s, history.failed_per_s);
                put(&mut kept.p50_s, history.p50_s);
                put(&mut kept.p99_s, history.p99_s);
                put(&mut kept.cpu, history.cpu);
                put(&mut kept.memory_bytes, history.memory_bytes);
                put(&mut kept.serving, history.serving);
                put(&mut kept.waiting, history.waiting);
            }
            None => kept.types.push(history),
        }
    }
}

fn put<T>(kept: &mut Vec<T>, more: Vec<T>) {
    kept.extend(more);
    let over = kept.len().saturating_sub(SAMPLES_MAX);
    kept.drain(..over);
}
