//! Strings of the file that had variables in them: they are shown as they were written, since a variable's value may be
//! a secret.

use crate::expand::Expanded;
use crate::spelling::quoted;

/// Where a value stands: the keys of the tables that it is in and its own, and the index in each array.
pub(crate) type Place = Vec<String>;

/// Values that are shorter are no secrets, and would be found in words of a message that have nothing to do with them.
const SECRET_CHARS_MIN: usize = 4;

/// A message that repeats so much of a value's beginning tells it.
const TOLD_CHARS: usize = 8;

/// The strings with variables, by place.
#[derive(Debug, Clone, Default)]
pub struct Written(Vec<(Place, String)>);

/// Two formations are the same whatever variables their values came from.
impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Written {
    pub(crate) fn add(&mut self, place: Place, raw: &str) {
        self.0.push((place, raw.to_owned()));
    }

    /// Puts each string, as it was written, in its place of a formation that is shown.
    pub(crate) fn restore(&self, file: &mut toml::Table) {
        for (place, raw) in &self.0 {
            if let [first, rest @ ..] = place.as_slice()
                && let Some(value) = file.get_mut(first)
            {
                restore(value, rest, raw);
            }
        }
    }
}

fn restore(value: &mut toml::Value, place: &[String], raw: &str) {
    match (value, place) {
        (toml::Value::Table(table), [key, rest @ ..]) => {
            if let Some(value) = table.get_mut(key) {
                restore(value, rest, raw);
            }
        }
        (toml::Value::Array(elements), [index, rest @ ..]) => {
            if let Some(value) = index.parse::<usize>().ok().and_then(|index| elements.get_mut(index)) {
                restore(value, rest, raw);
            }
        }
        // An array of one is shown as its element, and one that stands alone may be shown as an array.
        (toml::Value::String(text), [] | [_]) => raw.clone_into(text),
        (toml::Value::Array(elements), []) => {
            if let [only] = elements.as_mut_slice() {
                restore(only, &[], raw);
            }
        }
        _ => {}
    }
}

/// The place of a key or an index in a place.
pub(crate) fn within(place: &Place, key: &str) -> Place {
    place.iter().cloned().chain([key.to_owned()]).collect()
}

/// A message about a string, with the string as it was written and without the values of its variables.
pub(crate) fn without_values(message: String, raw: &str, expanded: &Expanded) -> String {
    if expanded.used.is_empty() {
        return message;
    }
    let mut message = message.replace(&quoted(&expanded.text), &quoted(raw));
    for (variable, value) in &expanded.used {
        if value.chars().count() < SECRET_CHARS_MIN || variable.contains(value.as_str()) {
            continue;
        }
        for form in [value.clone(), value.escape_debug().to_string(), value.to_lowercase()] {
            message = message.replace(&form, variable);
        }
        let beginning: String = value.chars().take(TOLD_CHARS).collect();
        if beginning.chars().count() == TOLD_CHARS && message.contains(&beginning) {
            return format!(
                "the value of {variable} is not as expected here; it is not printed, as it may be a secret"
            );
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(message: &str, value: &str) -> String {
        let expanded = Expanded { text: format!("a {value}"), used: vec![("${KEY}".into(), value.into())] };
        without_values(message.to_owned(), "a ${KEY}", &expanded)
    }

    #[test]
    fn a_message_tells_no_value() {
        assert_eq!(told("found \"a s3cret\", expected b", "s3cret"), "found \"a ${KEY}\", expected b");
        assert_eq!(told("the host s3cret is none", "s3cret"), "the host ${KEY} is none");
        assert_eq!(told("the host s3cret is none", "S3cret"), "the host ${KEY} is none");
        let long = "k".repeat(100);
        let found = format!("found {}, expected b", quoted(&format!("a {long}")));
        assert_eq!(told(&found, &long), "found \"a ${KEY}\", expected b");
        let cut = told(&format!("the host {} is none", &long[..20]), &long);
        assert!(!cut.contains("kkk") && cut.contains("${KEY}"), "{cut}");
        assert_eq!(told("expected a word of b", "b"), "expected a word of b");
    }
}
