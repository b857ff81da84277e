//! The text of a formation.toml that this program writes for a person: of a Procfile (`import`), or of the components in
//! a folder (`init`). It has only what differs from the defaults, and comments.

use crate::spelling::shown_key;
use std::fmt::Write;

/// A formation to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// Comments at the top, a line each.
    pub head: Vec<String>,
    /// `[http] listen`, as a string of the formation.
    pub listen: Option<String>,
    /// The types, in the file's order.
    pub types: Vec<DraftType>,
    /// Comments at the end, a line each.
    pub tail: Vec<String>,
}

/// One process type of it. Strings are as a formation has them: `${NAME}` in them is a variable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftType {
    /// Comments above its table, a line each.
    pub comments: Vec<String>,
    /// Its name.
    pub name: String,
    /// The component's path.
    pub component: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Instances, where it isn't one.
    pub count: Option<u32>,
    /// Other keys: the key, its value as TOML, and a comment behind it.
    pub keys: Vec<(&'static str, String, Option<String>)>,
    /// Comments below its keys, a line each.
    pub notes: Vec<String>,
    /// Variables that it is granted.
    pub env: Vec<(String, EnvSource)>,
}

/// Where a variable's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvSource {
    /// The text.
    Value(String),
    /// The host's environment, or `.env`, by the same name.
    FromEnv,
}

impl DraftType {
    /// Adds a key with a string.
    pub fn set(&mut self, key: &'static str, value: &str, comment: Option<&str>) {
        self.keys.push((key, string(value), comment.map(str::to_owned)));
    }
}

impl Draft {
    /// The file's text.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        comments(&mut text, &self.head);
        if let Some(listen) = &self.listen {
            // Writing to a String doesn't fail.
            let _ = writeln!(text, "{}[http]\nlisten = {}", gap(&text), string(listen));
        }
        for process in &self.types {
            text.push_str(gap(&text));
            process.write(&mut text);
        }
        if !self.tail.is_empty() {
            text.push_str(gap(&text));
            comments(&mut text, &self.tail);
        }
        text
    }
}

impl DraftType {
    fn write(&self, text: &mut String) {
        comments(text, &self.comments);
        let name = shown_key(&self.name);
        let _ = writeln!(text, "[process.{name}]\ncomponent = {}", string(&self.component));
        if !self.args.is_empty() {
            let args: Vec<_> = self.args.iter().map(|arg| string(arg)).collect();
            let _ = writeln!(text, "args = [{}]", args.join(", "));
        }
        if let Some(count) = self.count {
            let _ = writeln!(text, "count = {count}");
        }
        for (key, value, comment) in &self.keys {
            let _ = write!(text, "{key} = {value}");
            if let Some(comment) = comment {
                let _ = write!(text, "    # {}", one_line(comment));
            }
            text.push('\n');
        }
        comments(text, &self.notes);
        if self.env.is_empty() {
            return;
        }
        let _ = writeln!(text, "[process.{name}.env]");
        for (variable, source) in &self.env {
            let key = env_key(variable);
            let _ = match source {
                EnvSource::Value(value) => writeln!(text, "{key} = {}", string(value)),
                EnvSource::FromEnv => writeln!(text, "{key} = {{ from_env = {} }}", string(variable)),
            };
        }
    }
}

/// An empty line between two parts.
fn gap(text: &str) -> &'static str {
    if text.is_empty() { "" } else { "\n" }
}

fn comments(text: &mut String, lines: &[String]) {
    for line in lines {
        let _ = writeln!(text, "# {}", one_line(line));
    }
}

/// TOML allows no control characters in a comment but tabs.
fn one_line(comment: &str) -> String {
    comment.replace(char::is_control, " ")
}

/// A string on one line, whatever is in it.
fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            '\n' => write!(quoted, "\\n"),
            '\t' => write!(quoted, "\\t"),
            '\r' => write!(quoted, "\\r"),
            c if c.is_control() => write!(quoted, "\\u{:04X}", u32::from(c)),
            c => write!(quoted, "{c}"),
        };
    }
    quoted.push('"');
    quoted
}

/// A key of any name: `shown_key` cuts long ones.
fn env_key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { name.to_owned() } else { string(name) }
}
