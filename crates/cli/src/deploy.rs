//! `wasmhost deploy`, `rollback`, `promote` and `abort`: an order to the host, and what it tells of the way.
//!
//! The changes and the end are printed on standard output. The steps in between are told on standard error: on a
//! terminal by one line that is written over, otherwise by a line each.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use wasmhost_config::LoadError;
use wasmhost_host::admin::api::{DeployEvent, DeployRequest, PromoteRequest, ReleaseDetail, RollbackRequest};

use crate::args::releases::{Abort, Deploy, Promote, Rollback, Waiting};
use crate::client::{Client, Lines};
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

/// How often a terminal's line is drawn again, so that it is seen that the host isn't forgotten.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// The end of a canary, or of a deploy under way.
const ABORT: &str = "abort";

pub(crate) async fn deploy(client: &Client, deploy: &Deploy) -> Outcome {
    let timeout_s = Some(deploy.waiting.timeout.as_secs_f64());
    let canary_percent = deploy.canary.map(|percent| percent.0);
    let request = DeployRequest { dry_run: deploy.dry_run, canary_percent, timeout_s };
    let order = Order {
        act: if deploy.dry_run { "dry run" } else { "deploy" },
        dry_run: deploy.dry_run,
        is_canary: deploy.canary.is_some(),
        waiting: &deploy.waiting,
    };
    order.give(client, "/v1/deploy", &request).await.map_err(|failed| explain(client, failed))
}

pub(crate) async fn rollback(client: &Client, rollback: &Rollback) -> Outcome {
    let timeout_s = Some(rollback.waiting.timeout.as_secs_f64());
    let request = RollbackRequest { to: rollback.to.map(|number| number.0), timeout_s };
    let order = Order { act: "rollback", dry_run: false, is_canary: false, waiting: &rollback.waiting };
    order.give(client, "/v1/rollback", &request).await
}

pub(crate) async fn promote(client: &Client, promote: &Promote) -> Outcome {
    let timeout_s = Some(promote.waiting.timeout.as_secs_f64());
    let order = Order { act: "promotion", dry_run: false, is_canary: false, waiting: &promote.waiting };
    order.give(client, "/v1/promote", &PromoteRequest { timeout_s }).await
}

pub(crate) async fn abort(client: &Client, abort: &Abort) -> Outcome {
    let waiting = Waiting { timeout: Duration::MAX, no_wait: false, json: abort.json };
    let order = Order { act: ABORT, dry_run: false, is_canary: false, waiting: &waiting };
    order.give(client, "/v1/abort", &serde_json::Map::new()).await
}

/// Where the host is looked for follows from the file's `state_dir`, and a file with errors doesn't say it.
fn explain(client: &Client, failed: Failed) -> Failed {
    let Some(file) = client.file() else { return failed };
    match wasmhost_config::load(file.path()) {
        Err(err @ LoadError::Invalid(_)) if failed.exit == Exit::NoHost => {
            let message = format!(
                "{}\nThe file has errors, so that a `state_dir` in it isn't known:\n{err}",
                failed.message
            );
            Failed { message, ..failed }
        }
        _ => failed,
    }
}

/// A person's order to the host.
struct Order<'a> {
    /// A noun.
    act: &'static str,
    dry_run: bool,
    is_canary: bool,
    waiting: &'a Waiting,
}

impl Order<'_> {
    async fn give(&self, client: &Client, path: &str, request: &impl Serialize) -> Outcome {
        let timeout = self.waiting.timeout;
        let mut events = client.while_it_answers(timeout, client.post_stream(path, request)).await?;
        let mut told = Told { is_canary: self.is_canary, ..Told::default() };
        let mut steps = Steps::new(self.waiting.json);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ended = tokio::select! {
            ended = client.while_it_answers(timeout, self.follow(&mut events, &mut told, &mut steps)) => ended?,
            _ = interrupt.recv() => {
                steps.clear();
                print::note(told.goes_on(self.act));
                return Ok(Exit::Interrupted);
            }
        };
        steps.clear();
        let Some(ended) = ended else {
            if !self.waiting.json {
                print::line(told.goes_on(self.act));
            }
            return Ok(Exit::Done);
        };
        match ended {
            DeployEvent::Failed { release, live, why } => {
                Err(Failed::new(Exit::Failed, failure(self.act, release, live, &why)))
            }
            DeployEvent::Live { release } if self.act == ABORT => Err(Failed::new(
                Exit::Failed,
                format!("v{release} is live: it was too late to abort it. `wasmhost rollback` goes back"),
            )),
            DeployEvent::Canary { release, .. } if self.act == ABORT => Err(Failed::new(
                Exit::Failed,
                format!("v{release} is on canary by now: `wasmhost abort` ends that, too"),
            )),
            _ if self.waiting.json => Ok(Exit::Done),
            DeployEvent::Live { release } => {
                print::line(format!("v{release} is live{}", self.again(client, release).await));
                Ok(Exit::Done)
            }
            DeployEvent::Canary { release, percent, types, waits } => {
                print::line(on_canary(release, percent, &types, &waits));
                Ok(Exit::Done)
            }
            DeployEvent::Aborted { release, live } => {
                print::line(format!("v{release} is aborted, and v{live} has all requests and jobs again"));
                Ok(Exit::Done)
            }
            DeployEvent::Unchanged { release } => {
                print::line(unchanged(release, self.dry_run, told.has_changes));
                Ok(Exit::Done)
            }
            _ => Ok(Exit::Done),
        }
    }

    /// Prints what comes, until the end, which is returned. None where nobody waits for it.
    async fn follow(
        &self,
        events: &mut Lines,
        told: &mut Told,
        steps: &mut Steps,
    ) -> Result<Option<DeployEvent>, Failed> {
        loop {
            let Some(line) = events.next().await.ok().flatten() else {
                steps.clear();
                return Err(Failed::new(Exit::Failed, told.cut_off(self.act)));
            };
            let event: DeployEvent = serde_json::from_slice(&line)?;
            if self.waiting.json {
                print::json(&event)?;
            } else if let DeployEvent::Changes { lines } = &event {
                lines.iter().for_each(print::line);
            }
            if event.is_last() {
                return Ok(Some(event));
            }
            if let Some(step) = told.step(&event) {
                steps.tell(&step);
            }
            if self.waiting.no_wait && matches!(event, DeployEvent::Begun { .. }) {
                return Ok(None);
            }
        }
    }

    /// Which release a rollback has brought back.
    async fn again(&self, client: &Client, release: u64) -> String {
        if self.act != "rollback" {
            return String::new();
        }
        // It is live whether the host can still be asked or not.
        let detail = client.get::<ReleaseDetail>(&format!("/v1/releases/{release}")).await;
        detail.map(|detail| format!(" ({})", detail.release.author)).unwrap_or_default()
    }
}

fn unchanged(live: u64, dry_run: bool, has_changes: bool) -> String {
    match (dry_run, has_changes) {
        (true, true) => format!("v{live} is live: this was a dry run, and nothing was changed"),
        // Files beside the formation, which no release keeps.
        (false, true) => format!("nothing else changes: v{live} is live"),
        _ => format!("nothing changes: v{live} is live"),
    }
}

/// Says what there is, and what to do next.
fn on_canary(release: u64, percent: u32, types: &[String], waits: &[String]) -> String {
    let types = types.join(", ");
    let wait = match waits {
        [] => String::new(),
        [one] => format!("{one} waits for the promotion\n"),
        [..] => format!("{} wait for the promotion\n", waits.join(", ")),
    };
    format!(
        "v{release} is on canary: it has {percent}% of the requests and jobs of {types}\n{wait}\
         `wasmhost promote` makes it live, `wasmhost abort` ends it"
    )
}

fn failure(act: &str, release: Option<u64>, live: u64, why: &str) -> String {
    let which = release.map_or_else(|| format!("the {act} failed"), |release| format!("v{release} failed"));
    // Errors of a file have a line each.
    let break_or_space = if why.contains('\n') { '\n' } else { ' ' };
    format!("{which}:{break_or_space}{why}\nv{live} is live, as before")
}

/// The steps that were told so far.
#[derive(Default)]
struct Told {
    /// Instances start beside others, and replace none.
    is_canary: bool,
    release: Option<u64>,
    has_changes: bool,
    quarters_moved: Option<usize>,
}

impl Told {
    /// Words for a step, if it is worth a line.
    fn step(&mut self, event: &DeployEvent) -> Option<String> {
        let step = match event {
            DeployEvent::Changes { lines } => {
                self.has_changes = !lines.is_empty();
                return None;
            }
            DeployEvent::Begun { release } => {
                self.release = Some(*release);
                "begun".to_owned()
            }
            DeployEvent::Compiling { of: 0, .. } => return None,
            DeployEvent::Compiling { done, of } => format!("compiling components: {done} of {of}"),
            DeployEvent::Step { process } => format!("running the release step \"{process}\""),
            DeployEvent::Trying { process } => format!("starting a first instance of {process}"),
            DeployEvent::Moving { done, of } => {
                let quarters = done.saturating_mul(4).checked_div(*of)?;
                if self.quarters_moved.replace(quarters) == Some(quarters) {
                    return None;
                }
                let what = if self.is_canary { "starting" } else { "moving" };
                format!("{what} instances: {done} of {of}")
            }
            DeployEvent::Live { .. }
            | DeployEvent::Canary { .. }
            | DeployEvent::Aborted { .. }
            | DeployEvent::Unchanged { .. }
            | DeployEvent::Failed { .. } => return None,
        };
        Some(match self.release {
            Some(release) => format!("v{release}: {step}"),
            None => step,
        })
    }

    fn goes_on(&self, act: &str) -> String {
        let which = self.which(act);
        format!("{which} goes on in the host: `wasmhost releases` shows how it ends")
    }

    fn cut_off(&self, act: &str) -> String {
        let which = self.which(act);
        format!(
            "the host went away before {which} had ended: when it starts again, it runs the release that is live by then; `wasmhost releases` shows which"
        )
    }

    fn which(&self, act: &str) -> String {
        self.release.map_or_else(|| format!("the {act}"), |release| format!("v{release}"))
    }
}

/// Where steps are told.
enum Steps {
    Nowhere,
    Lines,
    OneLine(ProgressBar),
}

impl Steps {
    fn new(json: bool) -> Steps {
        if json {
            return Steps::Nowhere;
        }
        if !std::io::stderr().is_terminal() {
            return Steps::Lines;
        }
        let bar = ProgressBar::new_spinner();
        match ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            Ok(style) => Steps::OneLine(bar.with_style(style)),
            Err(_) => Steps::Lines,
        }
    }

    fn tell(&self, step: &str) {
        match self {
            Steps::Nowhere => {}
            Steps::Lines => print::note(step),
            Steps::OneLine(bar) => {
                bar.enable_steady_tick(DRAW_EVERY);
                bar.set_message(step.to_owned());
            }
        }
    }

    /// Makes room for what is printed next.
    fn clear(&mut self) {
        if let Steps::OneLine(bar) = self {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_in_words_with_the_release_before_them() {
        let mut told = Told::default();
        let mut step = |event| told.step(&event);
        assert_eq!(step(DeployEvent::Changes { lines: vec!["web: count 1 -> 2".into()] }), None);
        assert_eq!(step(DeployEvent::Begun { release: 7 }).as_deref(), Some("v7: begun"));
        assert_eq!(
            step(DeployEvent::Compiling { done: 0, of: 2 }).as_deref(),
            Some("v7: compiling components: 0 of 2")
        );
        assert_eq!(step(DeployEvent::Compiling { done: 0, of: 0 }), None);
        assert_eq!(
            step(DeployEvent::Step { process: "prepare".into() }).as_deref(),
            Some("v7: running the release step \"prepare\"")
        );
        assert_eq!(
            step(DeployEvent::Trying { process: "web".into() }).as_deref(),
            Some("v7: starting a first instance of web")
        );
        assert_eq!(step(DeployEvent::Live { release: 7 }), None);
        assert!(told.has_changes);
        assert!(told.goes_on("deploy").starts_with("v7 goes on in the host"));
    }

    #[test]
    fn a_large_move_is_told_by_the_quarter() {
        let mut told = Told::default();
        let moves = (0..=1000).filter_map(|done| told.step(&DeployEvent::Moving { done, of: 1000 }));
        let moves: Vec<_> = moves.collect();
        assert_eq!(moves, [0, 250, 500, 750, 1000].map(|done| format!("moving instances: {done} of 1000")));
        assert_eq!(told.step(&DeployEvent::Moving { done: 0, of: 0 }), None);
        let mut told = Told { is_canary: true, ..Told::default() };
        let step = told.step(&DeployEvent::Moving { done: 0, of: 1 });
        assert_eq!(step.as_deref(), Some("starting instances: 0 of 1"));
    }

    #[test]
    fn a_canary_is_told_with_what_to_do_next() {
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(
            on_canary(8, 10, &names(&["web", "worker"]), &names(&["clock", "formation"])),
            "v8 is on canary: it has 10% of the requests and jobs of web, worker\n\
             clock, formation wait for the promotion\n\
             `wasmhost promote` makes it live, `wasmhost abort` ends it"
        );
        let alone = on_canary(8, 10, &names(&["web"]), &[]);
        assert_eq!(alone.lines().count(), 2, "{alone}");
        assert!(on_canary(8, 10, &names(&["web"]), &names(&["clock"])).contains("clock waits for"));
    }

    #[test]
    fn a_failure_says_why_and_what_is_live() {
        assert_eq!(
            failure("deploy", Some(7), 6, "web.1 trapped"),
            "v7 failed: web.1 trapped\nv6 is live, as before"
        );
        let errors = "formation.toml:3:1: process.web.cuont: unknown key\nformation.toml:4:1: more";
        assert_eq!(
            failure("deploy", None, 6, errors),
            format!("the deploy failed:\n{errors}\nv6 is live, as before")
        );
    }

    #[test]
    fn nothing_to_do_is_told_apart_from_a_dry_run() {
        assert_eq!(unchanged(6, false, false), "nothing changes: v6 is live");
        assert_eq!(unchanged(6, true, false), "nothing changes: v6 is live");
        assert_eq!(unchanged(6, false, true), "nothing else changes: v6 is live");
        assert_eq!(unchanged(6, true, true), "v6 is live: this was a dry run, and nothing was changed");
    }
}
