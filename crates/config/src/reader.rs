//! Reads values out of the TOML tree: each key that is asked for is remembered, what is left over is unknown,
//! and each value that is wrong is reported where it stands. Nothing stops at the first problem.

use crate::expand::{Environment, Expanded};
use crate::foreign;
use crate::report::Report;
use crate::spelling::{nearest, one_of, quoted, shown_key};
use crate::units;
use crate::written::{self, Place, Written};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

/// More names than this are a list that nobody reads twice.
const LISTED_MAX: usize = 8;

/// The state that reading a formation needs at every place of it.
pub(crate) struct Reading<'a> {
    pub(crate) report: Report<'a>,
    pub(crate) environment: Environment<'a>,
    /// The absolute folder that relative paths are relative to.
    pub(crate) folder: &'a Path,
    /// Files that were read for values of the environment.
    pub(crate) secret_files: Vec<PathBuf>,
    /// The strings that had variables in them.
    pub(crate) written: Written,
    /// Tables whose keys have been listed in a problem, by their first key, and the line of that problem.
    pub(crate) listed: BTreeMap<&'static str, usize>,
}

impl Reading<'_> {
    /// An absolute path, without `.` in it; `..` stays, since a link may stand before it.
    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        self.folder.join(path).components().collect()
    }
}

/// A value of the file, and where it stands.
#[derive(Clone)]
pub(crate) struct Item<'t> {
    /// `process.web.memory`
    pub(crate) key: String,
    /// The same with the index of each array that it is in.
    place: Place,
    pub(crate) span: Range<usize>,
    value: &'t DeValue<'t>,
}

/// A table of the file, and which of its keys have been read.
pub(crate) struct Table<'t> {
    pub(crate) key: String,
    place: Place,
    pub(crate) span: Range<usize>,
    entries: &'t DeTable<'t>,
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
}

impl<'t> Table<'t> {
    /// The whole file.
    pub(crate) fn root(entries: &'t DeTable<'t>) -> Self {
        Table {
            key: String::new(),
            place: Place::new(),
            span: 0..0,
            entries,
            known: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Takes the value of a key, and remembers the key as one that belongs here.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Item<'t>> {
        self.known.push(name);
        let value = self.entries.get(name)?;
        Some(self.item(name, value))
    }

    /// Reports a key that the design names and this version can't honour.
    pub(crate) fn not_yet(&mut self, cx: &mut Reading<'_>, name: &'static str) {
        self.refused.push(name);
        if let Some((key, _)) = self.entries.get_key_value(name) {
            cx.report.add(&key.span(), self.path(name), "not supported yet by this version: leave it out");
        }
    }

    /// All entries in the file's order, for tables whose keys are names that the user chose.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'t str, Range<usize>, Item<'t>)> {
        self.entries.iter().map(|(name, value)| {
            let name_span = name.span();
            let name: &'t str = name.get_ref();
            (name, name_span, self.item(name, value))
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reports every key that was never asked for.
    pub(crate) fn finish(self, cx: &mut Reading<'_>) {
        for (name, _) in self.unknown() {
            let advice = self.advice(cx, name);
            cx.report.add(&name.span(), self.path(name.get_ref()), format!("unknown key; {advice}"));
        }
    }

    /// Says what an unknown key was most likely meant to be. A long list of names stands in one problem alone.
    fn advice(&self, cx: &mut Reading<'_>, name: &Spanned<std::borrow::Cow<'t, str>>) -> String {
        if let Some(hint) = foreign::hint(&self.key, name.get_ref()) {
            return hint;
        }
        if let Some(near) = nearest(name.get_ref(), self.known.iter().copied()) {
            return format!("did you mean {near:?}?");
        }
        let line = cx.report.line(name.span().start);
        match self.known.first() {
            Some(first) if self.known.len() > LISTED_MAX => match cx.listed.get(first) {
                Some(listed) => return format!("line {listed} lists the keys that there are"),
                None => drop(cx.listed.insert(first, line)),
            },
            _ => {}
        }
        format!("expected {}", one_of(&self.known))
    }

    /// Whether a key that nobody asked for is near to this one.
    pub(crate) fn misspells(&self, name: &str) -> bool {
        self.unknown().any(|(unknown, _)| nearest(unknown.get_ref(), [name]).is_some())
    }

    fn unknown(
        &self,
    ) -> impl Iterator<Item = (&'t Spanned<std::borrow::Cow<'t, str>>, &'t Spanned<DeValue<'t>>)> {
        let is_known = |name: &str| self.known.contains(&name) || self.refused.contains(&name);
        self.entries.iter().filter(move |(name, _)| !is_known(name.get_ref()))
    }

    fn item(&self, name: &str, value: &'t Spanned<DeValue<'t>>) -> Item<'t> {
        let place = written::within(&self.place, name);
        Item { key: self.path(name), place, span: value.span(), value: value.get_ref() }
    }

    /// The full key of one of this table's keys.
    pub(crate) fn path(&self, name: &str) -> String {
        match self.key.is_empty() {
            true => shown_key(name),
            false => format!("{}.{}", self.key, shown_key(name)),
        }
    }
}

/// `None` from any of these means that a problem has been reported.
impl<'t> Item<'t> {
    /// Reports a problem with this value.
    pub(crate) fn problem(&self, cx: &mut Reading<'_>, message: impl Into<String>) {
        let mut message = message.into();
        if let Some(raw) = self.value.as_str()
            && let Ok(expanded) = cx.environment.expand(raw)
        {
            message = written::without_values(message, raw, &expanded);
        }
        cx.report.add(&self.span, self.key.clone(), message);
    }

    fn wrong_type<T>(&self, cx: &mut Reading<'_>, expected: &str) -> Option<T> {
        self.problem(cx, format!("found {}, expected {expected}", self.kind()));
        None
    }

    /// The kind of this value, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a decimal number",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        }
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(crate) fn is_str(&self) -> bool {
        self.value.is_str()
    }

    pub(crate) fn is_array(&self) -> bool {
        self.value.is_array()
    }

    /// A string, its variables expanded.
    pub(crate) fn string(&self, cx: &mut Reading<'_>) -> Option<String> {
        self.string_or(cx, "a string")
    }

    /// The same, where a wrong type needs more words. A string with variables is shown as it was written.
    pub(crate) fn string_or(&self, cx: &mut Reading<'_>, expected: &str) -> Option<String> {
        let Expanded { text, used } = self.expanded(cx, expected)?;
        if let (false, Some(raw)) = (used.is_empty(), self.value.as_str()) {
            cx.written.add(self.place.clone(), raw);
        }
        Some(text)
    }

    /// Whether this string has variables in it.
    pub(crate) fn has_variables(&self, cx: &Reading<'_>) -> bool {
        let expanded = self.value.as_str().and_then(|raw| cx.environment.expand(raw).ok());
        expanded.is_some_and(|expanded| !expanded.used.is_empty())
    }

    /// A string of which only a few forms are right: its value is no secret.
    pub(crate) fn word(&self, cx: &mut Reading<'_>, expected: &str) -> Option<String> {
        self.expanded(cx, expected).map(|expanded| expanded.text)
    }

    fn expanded(&self, cx: &mut Reading<'_>, expected: &str) -> Option<Expanded> {
        let Some(text) = self.value.as_str() else { return self.wrong_type(cx, expected) };
        match cx.environment.expand(text) {
            Ok(expanded) => Some(expanded),
            Err(faults) => {
                for fault in faults {
                    self.problem(cx, fault);
                }
                None
            }
        }
    }

    /// A string that isn't empty and has no zero byte: what the operating system can take.
    pub(crate) fn text(&self, cx: &mut Reading<'_>, expected: &str) -> Option<String> {
        let text = self.string_or(cx, expected)?;
        if text.is_empty() || text.contains('\0') {
            self.problem(cx, format!("found {}, expected {expected}", quoted(&text)));
            return None;
        }
        Some(text)
    }

    /// A path, made absolute.
    pub(crate) fn path(&self, cx: &mut Reading<'_>) -> Option<PathBuf> {
        self.text(cx, "a path").map(|path| cx.absolute(&path))
    }

    /// A whole number within bounds.
    pub(crate) fn whole<N>(&self, cx: &mut Reading<'_>, bounds: RangeInclusive<N>) -> Option<N>
    where
        N: Copy + TryFrom<i128> + Into<i128> + std::fmt::Display,
    {
        let (min, max): (i128, i128) = ((*bounds.start()).into(), (*bounds.end()).into());
        let expected = format!("a whole number from {min} to {max}");
        let DeValue::Integer(found) = self.value else { return self.wrong_type(cx, &expected) };
        let number = whole_number(found).filter(|number| (min..=max).contains(number));
        let number = number.and_then(|number| N::try_from(number).ok());
        if number.is_none() {
            self.problem(cx, format!("found {found}, expected {expected}"));
        }
        number
    }

    /// A duration within bounds, its unit given.
    pub(crate) fn duration(
        &self,
        cx: &mut Reading<'_>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let (min, max) = (units::format_duration(*bounds.start()), units::format_duration(*bounds.end()));
        let hint = ("a duration", "s", "a duration such as \"30s\"");
        self.with_unit(cx, hint, units::parse_duration, bounds, &format!("a duration from {min} to {max}"))
    }

    /// A size in bytes within bounds, its unit given.
    pub(crate) fn size(&self, cx: &mut Reading<'_>, bounds: RangeInclusive<u64>) -> Option<u64> {
        let (min, max) = (units::format_size(*bounds.start()), units::format_size(*bounds.end()));
        let hint = ("a size", "MiB", "a size such as \"128MiB\"");
        self.with_unit(cx, hint, units::parse_size, bounds, &format!("a size from {min} to {max}"))
    }

    /// Bytes a second within bounds, the unit given.
    pub(crate) fn rate(&self, cx: &mut Reading<'_>, bounds: RangeInclusive<u64>) -> Option<u64> {
        let (min, max) = (units::format_rate(*bounds.start()), units::format_rate(*bounds.end()));
        let hint = ("a size a second", "MiB/s", "a size a second such as \"1MiB/s\"");
        self.with_unit(cx, hint, units::parse_rate, bounds, &format!("a size a second from {min} to {max}"))
    }

    fn with_unit<V: PartialOrd>(
        &self,
        cx: &mut Reading<'_>,
        (what, unit, example): (&str, &str, &str),
        parse: fn(&str) -> Result<V, units::UnitError>,
        bounds: RangeInclusive<V>,
        expected: &str,
    ) -> Option<V> {
        if let DeValue::Integer(number) = self.value {
            self.problem(cx, units::bare_number(&number.to_string(), what, unit).to_string());
            return None;
        }
        let text = self.word(cx, example)?;
        match parse(&text) {
            Ok(value) if bounds.contains(&value) => Some(value),
            Ok(_) => {
                self.problem(cx, format!("found {}, expected {expected}", quoted(&text)));
                None
            }
            Err(error) => {
                self.problem(cx, error.to_string());
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<V: Copy>(&self, cx: &mut Reading<'_>, choices: &[(&str, V)]) -> Option<V> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let text = self.word(cx, &one_of(&words))?;
        let choice = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if choice.is_none() {
            let near = nearest(&text, words.iter().copied());
            let hint = near.map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
            self.problem(cx, format!("found {}, expected {}{hint}", quoted(&text), one_of(&words)));
        }
        choice
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, cx: &mut Reading<'_>) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type(cx, "true or false"),
        }
    }

    /// A table; `expected` says what is in it.
    pub(crate) fn table(&self, cx: &mut Reading<'_>, expected: &str) -> Option<Table<'t>> {
        let DeValue::Table(entries) = self.value else { return self.wrong_type(cx, expected) };
        let (key, place, span) = (self.key.clone(), self.place.clone(), self.span.clone());
        Some(Table { key, place, span, entries, known: Vec::new(), refused: Vec::new() })
    }

    /// The elements of an array; `expected` says what they are.
    pub(crate) fn array(&self, cx: &mut Reading<'_>, expected: &str) -> Option<Vec<Item<'t>>> {
        let DeValue::Array(elements) = self.value else { return self.wrong_type(cx, expected) };
        let element = |(index, value): (usize, &'t Spanned<DeValue<'t>>)| Item {
            key: self.key.clone(),
            place: written::within(&self.place, &index.to_string()),
            span: value.span(),
            value: value.get_ref(),
        };
        Some(elements.iter().enumerate().map(element).collect())
    }
}

fn whole_number(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}
