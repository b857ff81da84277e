//! `${VAR}` and `${VAR:-default}` in the file's strings.

use crate::spelling::quoted;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The variables that a formation may name: the host's, then those of `.env`.
pub(crate) struct Environment<'a> {
    pub(crate) host: &'a dyn Fn(&str) -> Option<OsString>,
    pub(crate) dotenv: BTreeMap<String, String>,
}

/// A string of the file with values in the place of its variables.
#[derive(Debug)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// Each `${...}` as it was written, and the value of the environment that took its place. Empty values and
    /// defaults, which stand in the file, are not among them.
    pub(crate) used: Vec<(String, String)>,
}

/// The value that a `${...}` stands for.
enum Value<'t> {
    OfEnvironment(String),
    /// The default beside it.
    OfFile(&'t str),
}

impl Environment<'_> {
    /// The value of a variable; the error is what to tell the user.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, String> {
        match (self.host)(name) {
            None => Ok(self.dotenv.get(name).cloned()),
            Some(value) => value
                .into_string()
                .map(Some)
                .map_err(|_| format!("the environment variable {name} is set, but isn't UTF-8 text")),
        }
    }

    /// Puts values in the place of `${VAR}` and `${VAR:-default}`; `$${` stands for `${` itself, and any
    /// other `$` for itself. The values themselves are not expanded again. The errors are one message for each
    /// fault.
    pub(crate) fn expand(&self, text: &str) -> Result<Expanded, Vec<String>> {
        let mut expanded = String::new();
        let mut used = Vec::new();
        let mut faults = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            expanded.push_str(&rest[..dollar]);
            rest = &rest[dollar..];
            if let Some(after) = rest.strip_prefix("$${") {
                expanded.push_str("${");
                rest = after;
            } else if let Some(after) = rest.strip_prefix("${") {
                let Some((inside, after)) = after.split_once('}') else {
                    faults.push(
                        "found \"${\" without its \"}\"; where it stands for itself, write \"$${\""
                            .to_owned(),
                    );
                    return Err(faults);
                };
                match self.value_of(inside) {
                    Ok(Value::OfFile(default)) => expanded.push_str(default),
                    Ok(Value::OfEnvironment(value)) => {
                        expanded.push_str(&value);
                        if !value.is_empty() {
                            used.push((format!("${{{inside}}}"), value));
                        }
                    }
                    Err(fault) => faults.push(fault),
                }
                rest = after;
            } else {
                expanded.push('$');
                rest = &rest[1..];
            }
        }
        expanded.push_str(rest);
        if faults.is_empty() { Ok(Expanded { text: expanded, used }) } else { Err(faults) }
    }

    /// The value of the inside of one `${...}`.
    fn value_of<'t>(&self, inside: &'t str) -> Result<Value<'t>, String> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_variable_name(name) || default.is_some_and(|default| default.contains("${")) {
            return Err(format!(
                "found {}, expected \"${{NAME}}\" or \"${{NAME:-default}}\", not one in another; \
                 where it stands for itself, write \"$${{\"",
                quoted(&format!("${{{inside}}}"))
            ));
        }
        match (self.get(name)?, default) {
            // As in a shell: set but empty takes the default too.
            (Some(value), Some(default)) if value.is_empty() => Ok(Value::OfFile(default)),
            (Some(value), _) => Ok(Value::OfEnvironment(value)),
            (None, Some(default)) => Ok(Value::OfFile(default)),
            (None, None) => Err(format!(
                "the environment variable {name} is not set: set it, add it to .env beside this file, \
                 or write \"${{{name}:-default}}\""
            )),
        }
    }
}

/// Writes a string so that expansion gives it back.
pub(crate) fn escape(text: &str) -> String {
    text.replace("${", "$${")
}

/// Whether this is a name that a shell would take.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(text: &str) -> Result<String, Vec<String>> {
        let host = |name: &str| match name {
            "A" => Some("host a".into()),
            "EMPTY" => Some("".into()),
            "SLY" => Some("${A}".into()),
            _ => None,
        };
        let dotenv =
            [("A", "file a"), ("B", "file b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Environment { host: &host, dotenv: dotenv.into() }.expand(text).map(|expanded| expanded.text)
    }

    #[test]
    fn the_host_wins_over_dotenv_and_defaults_come_last() {
        assert_eq!(
            expand("<${A}> <${B}> <${C:-c}> <${EMPTY:-e}> <${EMPTY}> <${C:-}>").unwrap(),
            "<host a> <file b> <c> <e> <> <>"
        );
    }

    #[test]
    fn dollars_that_name_nothing_stay() {
        assert_eq!(expand("$A $5 $$ $").unwrap(), "$A $5 $$ $");
        assert_eq!(expand("$${A} $$${A}").unwrap(), "${A} $${A}");
    }

    #[test]
    fn a_value_is_not_expanded_again() {
        assert_eq!(expand("${SLY}").unwrap(), "${A}");
    }

    #[test]
    fn each_fault_is_told() {
        let faults = expand("${C} ${D} ${1} ${A-b} ${C:-${D}} ${A").unwrap_err();
        assert_eq!(faults.len(), 6);
        assert_eq!(
            faults[0],
            "the environment variable C is not set: set it, add it to .env beside this file, or write \"${C:-default}\""
        );
    }

    proptest! {
        #[test]
        fn what_is_escaped_comes_back(text in "[${}A:-]{0,12}|\\PC*") {
            prop_assert_eq!(expand(&escape(&text)), Ok(text));
        }

        #[test]
        fn any_text_is_expanded_or_refused(text in "[${}A:-]{0,12}|\\PC*") {
            let _ = expand(&text);
        }
    }
}
