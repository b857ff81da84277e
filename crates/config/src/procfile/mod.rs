//! Procfile -> [`Draft`] of a formation: lines `type: component.wasm arguments`, as Heroku and Foreman have them.
//!
//! ```text
//! text -> lines -> words -> Draft -> formation.toml's text -> read::formation
//! ```
//!
//! A Procfile is run by way of the formation that `wasmhost import` writes for it. So the two can't differ, and a
//! problem that is found on the way is told with the line of its type.

mod words;
mod write;

use crate::draft::{Draft, DraftType, EnvSource};
use crate::error::Problem;
use crate::expand::{Environment, is_variable_name};
use crate::read::HOSTS_OWN;
use crate::report::Report;
use crate::spelling::{name_problem, quoted};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use words::{Word, Words};
pub use write::Procfile;

/// The longest Procfile. One of [`TYPES_MAX`] long lines is below it.
pub(crate) const PROCFILE_BYTES_MAX: u64 = 64 << 10;

/// Each type is granted all of `.env`: their product is bounded by these two.
const TYPES_MAX: usize = 100;
const VARIABLES_MAX: usize = 1_000;

/// The type that runs once before the others, as on Heroku.
const RELEASE: &str = "release";

/// `$PORT` in a Procfile is where the host listens.
const PORT: &str = "${PORT:-8080}";

/// Whether a file of this name is a Procfile: `Procfile`, or `Procfile.dev` and such, if it isn't called a formation or a
/// component.
pub fn is_procfile(file: &Path) -> bool {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return false };
    let is_other = file
        .extension()
        .is_some_and(|kind| ["toml", "wasm", "cwasm", "wat"].iter().any(|other| kind == *other));
    name == "Procfile" || (name.starts_with("Procfile.") && !is_other)
}

/// Whether a text that was read once was a Procfile's. No text is both: the first line of a Procfile that isn't a comment
/// begins with a name and a colon, which no line of TOML does.
pub(crate) fn is_text(text: &str) -> bool {
    let lines = text.trim_start_matches('\u{feff}').lines().map(|line| line.trim_matches([' ', '\t']));
    let first = lines.into_iter().find(|line| !line.is_empty() && !line.starts_with('#'));
    let name =
        first.and_then(|line| line.split_once(':')).map(|(name, _)| name.trim_end_matches([' ', '\t']));
    name.is_some_and(|name| name_problem(name).is_none())
}

/// A Procfile that was read.
pub(crate) struct Read {
    pub(crate) draft: Draft,
    /// Where each type stands.
    pub(crate) places: BTreeMap<String, (usize, usize)>,
}

impl Read {
    /// The problem of the formation's text, told where the Procfile has its cause.
    pub(crate) fn placed(&self, problem: Problem) -> Problem {
        let name = problem.key.strip_prefix("process.").and_then(|key| key.split('.').next());
        let (line, column) = name.and_then(|name| self.places.get(name)).copied().unwrap_or((1, 1));
        Problem { line, column, ..problem }
    }
}

/// Reads a Procfile's text. The draft is of use only where nothing was reported.
pub(crate) fn read(text: &str, report: &mut Report<'_>, environment: &Environment<'_>) -> Read {
    let mut reading =
        Reading { report, types: Vec::new(), comments: Vec::new(), lines: BTreeMap::new(), is_empty: true };
    let mut offset = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    for line in text[offset..].split_inclusive('\n') {
        reading.line(line.trim_end_matches(['\n', '\r']), offset);
        offset += line.len();
    }
    let Reading { mut types, comments, lines, is_empty, .. } = reading;
    if is_empty {
        report.add(&(0..0), "", "no process types; expected lines such as \"web: web.wasm\"");
    }
    if types.len() > TYPES_MAX {
        let message = format!("found {} process types, expected at most {TYPES_MAX}", types.len());
        report.add(&(0..0), "", message);
        types.clear();
    }
    port(report, environment);
    grant_dotenv(&mut types, report, environment);
    let places = lines.into_iter().map(|(name, at)| (name.to_owned(), report.position(at))).collect();
    let listen = Some(format!("127.0.0.1:{PORT}"));
    Read { draft: Draft { head: Vec::new(), listen, types, tail: comments }, places }
}

/// `PORT` is a part of the address, and nothing else may come into that by it.
fn port(report: &mut Report<'_>, environment: &Environment<'_>) {
    let is_port = |value: &str| value.parse::<u16>().is_ok() && value.bytes().all(|b| b.is_ascii_digit());
    if let Ok(Some(value)) = environment.get("PORT")
        && !value.is_empty()
        && !is_port(&value)
    {
        let message = "the environment variable PORT says where requests are served, and isn't a number from 0 to 65535: correct or unset it";
        report.add(&(0..0), "", message);
    }
}

/// Grants all of `.env` to each type. A variable that the type's own line sets stays, and those that the host sets for
/// each instance are the host's.
fn grant_dotenv(types: &mut [DraftType], report: &mut Report<'_>, environment: &Environment<'_>) {
    let variables = environment.dotenv.keys().filter(|name| !HOSTS_OWN.contains(&name.as_str()));
    let variables: Vec<_> = variables.collect();
    if variables.len() > VARIABLES_MAX {
        let message = format!(
            "found {} variables in .env, all of which are granted to each type, expected at most {VARIABLES_MAX}; a formation.toml grants to each type what it needs",
            variables.len()
        );
        report.add(&(0..0), "", message);
        return;
    }
    for draft in types {
        let own = std::mem::take(&mut draft.env);
        let of_file = variables.iter().filter(|name| !own.iter().any(|(own, _)| own == **name));
        draft.env = of_file.map(|name| ((*name).clone(), EnvSource::FromEnv)).collect();
        draft.env.extend(own);
    }
}

struct Reading<'r, 'a, 't> {
    report: &'r mut Report<'a>,
    types: Vec<DraftType>,
    /// Comments that belong to the next type.
    comments: Vec<String>,
    /// Where each name stands.
    lines: BTreeMap<&'t str, usize>,
    /// Whether there were comments alone.
    is_empty: bool,
}

impl<'t> Reading<'_, '_, 't> {
    fn line(&mut self, line: &'t str, offset: usize) {
        let content = line.trim_matches([' ', '\t']);
        let offset = offset + (line.len() - line.trim_start_matches([' ', '\t']).len());
        if let Some(comment) = content.strip_prefix('#') {
            self.comments.push(comment.trim().to_owned());
            return;
        }
        if content.is_empty() {
            return;
        }
        self.is_empty = false;
        let here = offset..offset + content.len();
        let Some((name, command)) = content.split_once(':') else {
            let message = format!(
                "found {}, expected a line such as \"web: web.wasm\", or a comment that begins with #",
                quoted(content)
            );
            self.report.add(&here, "", message);
            return;
        };
        let words = words::words(command, offset + name.len() + 1);
        let name = name.trim_end_matches([' ', '\t']);
        self.name(name, offset);
        self.process(name, here, words);
    }

    fn name(&mut self, name: &'t str, offset: usize) {
        let span = offset..offset + name.len();
        if let Some(problem) = name_problem(name) {
            let meant = name.to_ascii_lowercase().replace(['_', '.', ' '], "-");
            let hint = match name_problem(&meant) {
                None => format!("; write {}", quoted(&meant)),
                Some(_) => String::new(),
            };
            self.report.add(&span, "", format!("{problem}{hint}"));
        }
        match self.lines.get(name) {
            Some(first) => {
                let line = self.report.line(*first);
                let message = format!(
                    "the type {} is on line {line} already: give one of them another name",
                    quoted(name)
                );
                self.report.add(&span, "", message);
            }
            None => drop(self.lines.insert(name, offset)),
        }
    }

    fn process(&mut self, name: &str, here: Range<usize>, found: Words) {
        let Words { words, comment, faults } = found;
        let is_cut = !faults.is_empty();
        for (span, message) in faults {
            self.report.add(&span, "", message);
        }
        let mut draft = DraftType { name: name.to_owned(), ..DraftType::default() };
        draft.comments = std::mem::take(&mut self.comments);
        draft.comments.extend(comment.filter(|comment| !comment.is_empty()));
        let mut words = words.into_iter().peekable();
        while let Some(word) = words.next_if(|word| assigned(word).is_some()) {
            self.variable(&word, &mut draft);
        }
        let Some(component) = words.next() else {
            if !is_cut {
                let message = format!(
                    "found no component, expected its path, such as \"{}: {}.wasm\"",
                    shown_name(name),
                    shown_name(name)
                );
                self.report.add(&here, "", message);
            }
            return;
        };
        let words: Vec<Word> = words.collect();
        self.component(name, &component, &words);
        for word in &words {
            self.text(word);
        }
        draft.component = component.text;
        draft.args = words.into_iter().map(|word| word.text).collect();
        if name == RELEASE {
            draft.keys.push(("run", toml::Value::from("release").to_string(), None));
        }
        self.types.push(draft);
    }

    /// `NAME=value` before the component, which sets a variable for this type.
    fn variable(&mut self, word: &Word, draft: &mut DraftType) {
        let Some((name, value)) = assigned(word) else { return };
        self.text(word);
        if HOSTS_OWN.contains(&name) {
            let message =
                format!("the variable {name} is set by wasmhost itself for each instance: leave it out");
            self.report.add(&word.span, "", message);
        }
        draft.env.retain(|(given, _)| given != name);
        draft.env.push((name.to_owned(), EnvSource::Value(value.to_owned())));
    }

    fn text(&mut self, word: &Word) {
        if word.text.contains('\0') {
            self.report.add(&word.span, "", "found a zero byte, expected text without one");
        }
    }

    /// The first word is a component. Programs of the system, and what starts them, are what Procfiles name elsewhere.
    fn component(&mut self, name: &str, word: &Word, others: &[Word]) {
        let path = word.text.as_str();
        self.text(word);
        let message = if path.ends_with(".wasm") && !path.contains("://") {
            return;
        } else if path.ends_with(".cwasm") {
            "found compiled code (.cwasm), expected a component (.wasm): compiled code needs `trust_cwasm = true`, which a Procfile can't say; `wasmhost import` writes the formation.toml for one that names the .wasm".to_owned()
        } else if path.starts_with("oci://") {
            "\"oci://\" components are not supported yet by this version: name a file".to_owned()
        } else if let Some(component) = others.iter().find(|word| word.text.ends_with(".wasm")) {
            format!(
                "found {}, expected the component first, without a program that starts it: write \"{}: {}\"",
                quoted(path),
                shown_name(name),
                crate::shown::one_line(&component.text, 60)
            )
        } else {
            format!(
                "found {}, expected the path of a component, which ends in .wasm: a program is built for WASI to be run here, and no shell or interpreter is",
                quoted(path)
            )
        };
        self.report.add(&word.span, "", message);
    }
}

/// Name and value of a word `NAME=value` whose name is plain.
fn assigned(word: &Word) -> Option<(&str, &str)> {
    let (name, value) = word.text.split_once('=')?;
    (word.plain_bytes > name.len() && is_variable_name(name)).then_some((name, value))
}

fn shown_name(name: &str) -> String {
    crate::shown::one_line(name, 63).into_owned()
}
