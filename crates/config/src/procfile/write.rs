//! A [`Formation`] -> a Procfile, and what a Procfile can't say of it.

use crate::formation::{Formation, ProcessType, Run, Trigger, Written};
use crate::load::{Origin, parse};
use crate::shown::{NAME_BYTES_MAX, one_line};
use crate::spelling::shown_key;
use std::path::Path;
use toml::{Table, Value};

/// A formation as a Procfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Procfile {
    /// The lines, a type each. Those that can't be written are comments.
    pub text: String,
    /// Each thing of the formation that a Procfile can't say: `process.web: count = 4`.
    pub left_out: Vec<String>,
}

/// Keys of a process type that a line of a Procfile has in another way.
const ON_THE_LINE: [&str; 3] = ["component", "args", "env"];

impl Formation {
    /// The formation as a Procfile beside it, as far as one can say it. Values that may be secrets are in neither part.
    pub fn to_procfile(&self) -> Procfile {
        let shown = self.shown();
        let mut written = Procfile { text: String::new(), left_out: Vec::new() };
        written.left_out.extend(self.top_left_out(&shown));
        let releases = self.processes.iter().filter(|process| runs(process) == Some(Run::Release)).count();
        let empty = Table::new();
        for process in &self.processes {
            let table = shown.get("process").and_then(|all| all.get(&process.name)).and_then(Value::as_table);
            let table = table.unwrap_or(&empty);
            let line = self.line(process, table, &mut written.left_out);
            let name = match runs(process) {
                Some(Run::Release) if releases == 1 => Ok("release"),
                Some(Run::Release) => Err("one of several release steps, and a Procfile has one"),
                Some(Run::Never) => Err("run by hand alone, and a Procfile runs each type"),
                _ if process.name == "release" => Err("no release step, as which a Procfile would run it"),
                _ => Ok(process.name.as_str()),
            };
            let (begin, name) = match name {
                Ok(name) => ("", name),
                Err(why) => {
                    written.left_out.push(format!("process.{}: it is {why}", process.name));
                    ("# ", process.name.as_str())
                }
            };
            if name != process.name {
                written.left_out.push(format!(
                    "process.{}: its name, since a Procfile's release step is `release`",
                    process.name
                ));
            }
            written.text += &format!("{begin}{name}: {line}\n");
        }
        written
    }

    /// The text that follows the type's name.
    fn line(&self, process: &ProcessType, table: &Table, left_out: &mut Vec<String>) -> String {
        let mut words = Vec::new();
        let mut leave_out = |what: String| left_out.push(format!("process.{}: {what}", process.name));
        for variable in &process.grants.env {
            let raw = table.get("env").and_then(|env| env.get(&variable.name)).and_then(Value::as_str);
            let key = shown_key(&variable.name);
            match raw.filter(|raw| !variable.secret || raw.contains("${")).map(word) {
                Some(Some(value)) if crate::expand::is_variable_name(&variable.name) => {
                    words.push(format!("{}={value}", variable.name));
                }
                Some(_) => leave_out(format!("env.{key}, which no line can have")),
                None => leave_out(format!("the value of env.{key}, which belongs in .env")),
            }
        }
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        let component = process.component.strip_prefix(folder).unwrap_or(&process.component);
        let component = component.to_string_lossy();
        match word(&crate::expand::escape(&component)) {
            Some(word) => words.push(word),
            None => leave_out("component, whose path no line can have".to_owned()),
        }
        if !component.ends_with(".wasm") {
            leave_out(format!(
                "component = {:?}, since a Procfile's ends in .wasm",
                one_line(&component, NAME_BYTES_MAX)
            ));
        }
        for raw in table.get("args").and_then(Value::as_array).into_iter().flatten() {
            match raw.as_str().and_then(word) {
                Some(word) => words.push(word),
                None => leave_out("an element of args, which no line can have".to_owned()),
            }
        }
        self.keys_left_out(process, table, &mut leave_out);
        words.join(" ")
    }

    /// The keys that differ from those of a type with every default.
    fn keys_left_out(&self, process: &ProcessType, table: &Table, leave_out: &mut impl FnMut(String)) {
        let mut plain = Formation { written: Written::default(), ..self.clone() };
        plain.processes = vec![ProcessType::new(process.name.as_str(), process.component.clone())];
        let plain = plain.shown();
        let plain = plain.get("process").and_then(|all| all.get(&process.name));
        for (key, value) in table {
            let is_default = plain.and_then(|plain| plain.get(key)) == Some(value);
            if !is_default && !ON_THE_LINE.contains(&key.as_str()) && !follows(process, key, value) {
                leave_out(format!("{key} = {}", shown_value(value)));
            }
        }
    }

    /// The keys beside the types that differ from those of a file which says nothing of them.
    fn top_left_out(&self, shown: &Table) -> Vec<String> {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        let origin = Origin { file: &self.file, folder, environment: &|_| None, dotenv: None };
        let plain = parse(
            "[process.web]\ncomponent = \"web.wasm\"\n",
            &Origin { file: &folder.join("formation.toml"), ..origin },
        );
        let plain = plain.map(|plain| plain.shown()).unwrap_or_default();
        let mut left_out = Vec::new();
        for (key, value) in shown.iter().filter(|(key, _)| *key != "process") {
            match (value, plain.get(key)) {
                (value, Some(plain)) if value == plain => {}
                (Value::Table(table), Some(Value::Table(plain))) => {
                    let differ = table.iter().filter(|(inner, value)| plain.get(*inner) != Some(value));
                    left_out.extend(
                        differ.map(|(inner, value)| format!("{key}.{inner} = {}", shown_value(value))),
                    );
                }
                _ => left_out.push(format!("{key} = {}", shown_value(value))),
            }
        }
        left_out
    }
}

/// Whether a Procfile comes to the same by what the component exports, or by the type's name.
fn follows(process: &ProcessType, key: &str, value: &Value) -> bool {
    let is = |text: &str| value.as_str() == Some(text);
    match (key, &process.trigger) {
        ("route", _) => is("/"),
        ("queue", _) => is("default"),
        ("attempts", _) => value.as_integer() == Some(25),
        ("run", _) => true,
        ("enqueue", _) => value.as_array().is_some_and(|queues| queues == &[Value::from("default")]),
        _ => false,
    }
}

fn runs(process: &ProcessType) -> Option<Run> {
    match process.trigger {
        Some(Trigger::Command { run }) => Some(run),
        _ => None,
    }
}

fn shown_value(value: &Value) -> String {
    one_line(&value.to_string().replace('\n', " "), NAME_BYTES_MAX).into_owned()
}

/// A string of a formation as a word that is read as the same string; none where a line can't have it.
fn word(raw: &str) -> Option<String> {
    if raw.contains(['\n', '\r', '\0']) {
        return None;
    }
    let mut word = String::new();
    let mut literal = String::new();
    let mut rest = raw;
    while let Some(dollar) = rest.find("${") {
        if rest[..dollar].ends_with('$') {
            // `$${` is a `${` that stands for itself.
            literal.push_str(&rest[..dollar - 1]);
            literal.push_str("${");
            rest = &rest[dollar + 2..];
            continue;
        }
        literal.push_str(&rest[..dollar]);
        let (inside, after) = rest[dollar + 2..].split_once('}')?;
        if inside.contains(['$', '`', '\\', '"', '\'', '{']) {
            return None;
        }
        quote(&mut word, &std::mem::take(&mut literal));
        word += &format!("\"${{{inside}}}\"");
        rest = after;
    }
    literal.push_str(rest);
    quote(&mut word, &literal);
    Some(if word.is_empty() { "''".to_owned() } else { word })
}

/// Adds text that stands for itself.
fn quote(word: &mut String, text: &str) {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./=:,@%+".contains(c);
    if text.is_empty() || text.chars().all(is_plain) {
        word.push_str(text);
    } else {
        word.push('\'');
        word.push_str(&text.replace('\'', "'\\''"));
        word.push('\'');
    }
}
