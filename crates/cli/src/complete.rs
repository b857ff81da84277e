//! Completion of names that only a running host, or the formation, knows. A shell runs this program on each TAB; it asks
//! the host for as long as a person doesn't notice, and reads the formation where no host answers. It says nothing of
//! what goes wrong: there is no place where a person would see it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::CompleteEnv;
use serde::de::DeserializeOwned;
use wasmhost_config::{Formation, Trigger};
use wasmhost_host::admin::api::{
    FormationView, HOST_TARGET, QueuesView, RELEASES_LISTED, ReleaseView, ReleasesView,
};

use crate::args::RemoteFlags;
use crate::client::{Client, Target};
use crate::exit::{Exit, Failed, Outcome};
use crate::print;

/// The variable by which a shell says that it wants completions.
const VARIABLE: &str = "WASMHOST_COMPLETE";

/// How long a host may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Names that are offered at most.
const NAMES_MAX: usize = 1_000;

/// The answer to a shell that asks, if it is a shell that runs this program.
pub(crate) fn answer(command: impl Fn() -> clap::Command) -> Option<Outcome> {
    let answered = CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .bin("wasmhost")
        .completer("wasmhost")
        .try_complete(std::env::args_os(), std::env::current_dir().ok().as_deref());
    match answered {
        Ok(false) => None,
        Ok(true) => Some(Ok(Exit::Done)),
        Err(err) => Some(Err(Failed::new(Exit::Usage, err.render().to_string().trim()))),
    }
}

/// Prints the script by which a shell asks.
pub(crate) fn script(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    let shells = clap_complete::env::Shells::builtins();
    let known = shells.completer(&shell.to_string());
    let known =
        known.ok_or_else(|| Failed::new(Exit::Usage, format!("{shell} can't be told what to complete")))?;
    known.write_registration(VARIABLE, "wasmhost", "wasmhost", "wasmhost", &mut script)?;
    print::raw(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}

/// Process types.
pub(crate) fn types() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(process_types()))
}

/// Process types and instances.
pub(crate) fn targets() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(types_and_instances()))
}

/// The same, and the host itself.
pub(crate) fn log_targets() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let mut names = types_and_instances();
        names.push(HOST_TARGET.to_owned());
        candidates(names)
    })
}

/// Process types, each with the sign behind which its new count comes.
pub(crate) fn changes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(process_types().iter().map(|name| format!("{name}=")).collect()))
}

/// Process types with a schedule.
pub(crate) fn schedules() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let live = formation().map(|view| {
            let types = view.types.into_iter().filter(|process| process.trigger == "schedule");
            types.map(|process| process.process).collect()
        });
        candidates(live.unwrap_or_else(|| {
            let of_file = |formation: Formation| {
                let types = formation.processes.into_iter();
                let types = types.filter(|process| matches!(process.trigger, Some(Trigger::Schedule(_))));
                types.map(|process| process.name).collect()
            };
            from_file(of_file)
        }))
    })
}

/// Releases, the newest first. The formation knows none.
pub(crate) fn releases() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let live = ask::<ReleasesView>("/v1/releases").map(|view| view.releases);
        let releases = live.or_else(releases_in_store).unwrap_or_default();
        candidates(releases.iter().map(|release| format!("v{}", release.number)).collect())
    })
}

fn releases_in_store() -> Option<Vec<ReleaseView>> {
    let stored = client()?.stored_releases().ok()??;
    stored.list(RELEASES_LISTED).ok()
}

/// Queues.
pub(crate) fn queues() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let live = ask::<QueuesView>("/v1/queues")
            .map(|view| view.queues.into_iter().map(|queue| queue.counts.queue).collect());
        candidates(live.unwrap_or_else(|| from_file(queues_of)))
    })
}

/// The queues that a formation names.
fn queues_of(formation: Formation) -> Vec<String> {
    let worked = formation.processes.iter().flat_map(|process| match &process.trigger {
        Some(Trigger::Queue { queues }) => queues.iter().map(|(queue, _)| queue.clone()).collect(),
        _ => vec![],
    });
    let named: BTreeSet<String> = worked.chain(formation.queues.keys().cloned()).collect();
    named.into_iter().collect()
}

fn process_types() -> Vec<String> {
    let live = formation().map(|view| view.types.into_iter().map(|process| process.process).collect());
    live.unwrap_or_else(types_of_file)
}

fn types_and_instances() -> Vec<String> {
    let Some(view) = formation() else { return types_of_file() };
    let instances = view.types.iter().flat_map(|process| &process.instances).map(|view| view.name.clone());
    let types = view.types.iter().map(|process| process.process.clone());
    types.chain(instances).collect()
}

fn types_of_file() -> Vec<String> {
    from_file(|formation| formation.processes.into_iter().map(|process| process.name).collect())
}

/// The file's names, if there is a file that can be read.
fn from_file(names: impl FnOnce(Formation) -> Vec<String>) -> Vec<String> {
    let read = target().and_then(|target| target.file().and_then(|file| file.read().ok()));
    read.map(names).unwrap_or_default()
}

/// How things stand. A host that starts has no types yet.
fn formation() -> Option<FormationView> {
    ask::<FormationView>("/v1/formation").filter(|view| view.starting.is_none())
}

/// A running host's answer.
fn ask<T: DeserializeOwned>(path: &str) -> Option<T> {
    let client = client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_MAX, client.get(path)).await });
    answer.ok()?.ok()
}

fn candidates(names: Vec<String>) -> Vec<CompletionCandidate> {
    // Names of the file may be wrong, and a shell would take some characters for its own.
    let is_name = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || "-.=".contains(c));
    // A type with a canary is listed twice.
    let mut seen = BTreeSet::new();
    let names = names.into_iter().filter(is_name).filter(|name| seen.insert(name.clone()));
    names.take(NAMES_MAX).map(CompletionCandidate::new).collect()
}

fn client() -> Option<Client> {
    target()?.client().ok()
}

/// The host that the line so far names.
fn target() -> Option<Target> {
    let words = || std::env::args_os().skip_while(|word| word != "--").skip(2);
    let remote = RemoteFlags {
        host: option_in(words(), &["-H", "--host"]),
        token_file: option_in(words(), &["--token-file"]).map(|file| at_home(&file)),
        ca: option_in(words(), &["--ca"]).map(|file| at_home(&file)),
    };
    Target::find(file_in(words()), &remote).ok()
}

/// The last value of an option with these names.
fn option_in(mut words: impl Iterator<Item = OsString>, names: &[&str]) -> Option<String> {
    let mut value = None;
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let (name, behind) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
        if names.contains(&name) {
            value = behind.map(str::to_owned).or_else(|| Some(words.next()?.to_string_lossy().into_owned()));
        }
    }
    value
}

/// The file that is named by these words of a command line. In `logs`, `-f` names none.
fn file_in(words: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let (mut words, mut named, mut is_logs) = (words, None, false);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let is_flag = text == "-F" || text == "--file" || (text == "-f" && !is_logs);
        if let Some(file) = text.strip_prefix("--file=") {
            named = Some(at_home(file));
        } else if is_flag {
            named = words.next().map(|file| at_home(&file.to_string_lossy())).or(named);
        } else {
            is_logs |= text == "logs";
        }
    }
    named
}

/// A shell hands over `~/` as it was written.
fn at_home(file: &str) -> PathBuf {
    match (file.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(line: &str, file: Option<&str>) {
        assert_eq!(file_in(line.split(' ').map(OsString::from)), file.map(PathBuf::from), "{line}");
    }

    #[test]
    fn the_line_says_which_formation_is_meant() {
        is("ps", None);
        is("-f a.toml ps", Some("a.toml"));
        is("ps --file a.toml", Some("a.toml"));
        is("ps --file=a.toml", Some("a.toml"));
        is("logs -f web", None);
        is("logs -f -F a.toml web", Some("a.toml"));
        is("-f a.toml logs -f web", Some("a.toml"));
        is("ps -f", None);
    }

    #[test]
    fn the_line_says_which_host_is_meant() {
        let option = |line: &str| option_in(line.split(' ').map(OsString::from), &["-H", "--host"]);
        assert_eq!(option("-H https://a ps"), Some("https://a".to_owned()));
        assert_eq!(option("--host=https://a ps -H https://b"), Some("https://b".to_owned()));
        assert_eq!((option("ps -H"), option("ps --hosts x")), (None, None));
    }

    #[test]
    fn names_that_a_shell_would_take_for_its_own_are_not_offered() {
        let names = ["web", "web.1", "web=", "$(rm)", "a b", ""].map(str::to_owned);
        let offered: Vec<_> = candidates(names.into()).iter().map(|one| one.get_value().to_owned()).collect();
        assert_eq!(offered, ["web", "web.1", "web=", ""]);
    }
}
