//! `bench first-minute` types what a new user does: `wasmhost new`, `wasmhost dev`, and edits of the source. It measures
//! the time from each save to the first answer of what was saved, and counts requests that fail meanwhile.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Bench;
use super::client::{body_of, status_of};
use super::programs::Build;
use super::report::{Goal, Report, Row, Section};
use super::server::{Server, Starting};
use super::spread::Spread;

/// A language, the file that is edited, and how long an edit may take.
const LANGUAGES: [(&str, &str, Option<f64>); 5] = [
    ("rust", "src/lib.rs", Some(3_000.0)),
    ("c", "src/greeting.c", None),
    ("go", "greeting/greeting.go", None),
    ("typescript", "src/greeting.ts", Some(8_000.0)),
    ("python", "greeting.py", None),
];

/// The word that edits change, and the project.
const WORD: &str = "Hello";
const NAME: &str = "shop";

/// How often it is asked whether the edit answers: what is measured is at most this much too long.
const PAUSE: Duration = Duration::from_millis(2);

/// How long an edit may take until it is given up.
const ANSWER_MAX: Duration = Duration::from_secs(120);

const NEW: &str = "new_ms";
const SAVE_TO_ANSWER: &str = "save_to_answer_ms";

pub(super) fn run(bench: &Bench) -> Result<Report> {
    let (mut sections, mut goals, mut not_measured) = (Vec::new(), Vec::new(), Vec::new());
    for (language, file, goal) in LANGUAGES.into_iter().filter(|(name, ..)| bench.options.has_case(name)) {
        match measure(bench, language, file) {
            Ok(row) => {
                let what = format!("{language}: ms from a save to the new answer");
                let found = Spread::of(row.samples(SAVE_TO_ANSWER));
                goals.extend(goal.map(|goal| Goal::below(goal, what, found)));
                sections.push(Section { title: language.to_owned(), rows: vec![row] });
            }
            Err(err) => bench.leave_out(&mut not_measured, language.to_owned(), &err)?,
        }
    }
    let what = format!(
        "`wasmhost new {NAME} --lang LANGUAGE`, `wasmhost build` once, and `wasmhost dev`; then {} edits of {WORD:?} in the \
         source, one after the other: from each save to the first answer that has the edit in it. A client that asks all the \
         time counts what fails.",
        bench.options.starts
    );
    Ok(bench.report("first-minute", what, goals, sections, not_measured))
}

fn measure(bench: &Bench, language: &str, file: &str) -> Result<Row> {
    let starting = Starting::new()?;
    let wasmhost = |arguments: &[&str]| -> Result<Command> {
        let mut command = Command::new(bench.programs.wasmhost(Build::This)?);
        // Set by the cargo that runs this chore, for its own build.
        for variable in ["CARGO_TARGET_DIR", "LD_LIBRARY_PATH", "RUSTFLAGS", "WASMHOST_FILE"] {
            command.env_remove(variable);
        }
        command.args(arguments).current_dir(starting.folder());
        Ok(command)
    };
    let mut row = Row::new("wasmhost", None);
    let begun = Instant::now();
    to_end(&mut wasmhost(&["new", NAME, "--lang", language])?)?;
    row.add(NEW, begun.elapsed().as_secs_f64() * 1000.0);

    let project = starting.folder().join(NAME);
    if language == "rust" {
        // Its libraries are compiled once, whatever folder the project is in.
        let target = super::target_folder(&bench.repository).join("first-minute");
        fs::create_dir_all(&target)?;
        std::os::unix::fs::symlink(target, project.join("target"))?;
    }
    let formation = project.join("formation.toml");
    let text = fs::read_to_string(&formation)?;
    fs::write(&formation, text.replace("127.0.0.1:8080", starting.address()))?;
    let formation = format!("{NAME}/formation.toml");
    to_end(&mut wasmhost(&["-f", &formation, "build"])?)?;
    let mut dev = wasmhost(&["-f", &formation, "dev"])?;
    let server = starting.run(&mut dev, "/", Duration::from_millis(20))?;
    let source = server.folder().join(NAME).join(file);
    row.errors = with_client(&server, || {
        for number in 1..=bench.options.starts {
            let took = edit(&server, &source, number)?;
            row.add(SAVE_TO_ANSWER, took.as_secs_f64() * 1000.0);
        }
        Ok(())
    })?;
    if let Some(spread) = Spread::of(row.samples(SAVE_TO_ANSWER)) {
        eprintln!(
            "{language}: an edit answers after {:.0} ms; {} requests failed",
            spread.median, row.errors
        );
    }
    Ok(row)
}

/// Puts a number behind the word, as nobody has before: nothing of it is compiled yet.
fn edit(server: &Server, source: &Path, number: u32) -> Result<Duration> {
    let text = fs::read_to_string(source).with_context(|| source.display().to_string())?;
    let (old, new) = match number {
        1 => (WORD.to_owned(), format!("{WORD} 1")),
        number => (format!("{WORD} {}", number - 1), format!("{WORD} {number}")),
    };
    ensure!(text.contains(&old), "there is no {old:?} in {}", source.display());
    let begun = Instant::now();
    fs::write(source, text.replace(&old, &new))?;
    let expected = format!("{new}, world!");
    while !body_of(&server.address, "/")?.starts_with(expected.as_bytes()) {
        ensure!(begun.elapsed() < ANSWER_MAX, "the edit doesn't answer within {ANSWER_MAX:?}");
        std::thread::sleep(PAUSE);
    }
    Ok(begun.elapsed())
}

/// How many requests of another client fail while this is done.
fn with_client(server: &Server, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (ended, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Relaxed) {
                if !matches!(status_of(&server.address, "/"), Ok(200)) {
                    failed.fetch_add(1, Relaxed);
                }
                std::thread::sleep(PAUSE);
            }
        });
        let done = work();
        ended.store(true, Relaxed);
        done
    })?;
    Ok(failed.load(Relaxed))
}

fn to_end(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.lines().last().unwrap_or("it ended without a word"));
    }
    Ok(())
}
