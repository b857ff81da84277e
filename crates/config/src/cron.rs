//! The grammar of cron expressions. croner finds the times; this module says which expressions there are.
//!
//! croner ignores some mistakes (`1,2,,3`, `*/90`) and refuses some of what cron takes (`fri-mon`, `22-2`, `5/20`). So
//! each field is read here, is refused with advice where it says something else than it seems to, and is handed to
//! croner in a form that croner takes. A field that needs no other form stays as it is: croner's treatment of changes of
//! the clocks depends on where stars are.

use std::ops::RangeInclusive;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::spelling::quoted;

/// The names of whole expressions, and what each stands for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Seconds come first, and may be left out.
const FIELDS: [Field; 6] = [
    Field { name: "second", values: 0..=59, step_max: 60, unit: Some("s"), letters: Letters::None },
    Field { name: "minute", values: 0..=59, step_max: 60, unit: Some("m"), letters: Letters::None },
    Field { name: "hour", values: 0..=23, step_max: 24, unit: Some("h"), letters: Letters::None },
    // Months have different lengths: a step of 31 days would be the first of each month.
    Field {
        name: "day of the month",
        values: 1..=31,
        step_max: 30,
        unit: Some("d"),
        letters: Letters::MonthDays,
    },
    Field { name: "month", values: 1..=12, step_max: 12, unit: None, letters: Letters::Months },
    Field {
        name: "day of the week",
        values: 0..=6,
        step_max: 7,
        unit: Some("d"),
        letters: Letters::WeekDays,
    },
];

/// One of the fields of an expression.
struct Field {
    name: &'static str,
    values: RangeInclusive<u32>,
    /// Longer steps leave one value, and so mean something else than they say.
    step_max: u32,
    /// The unit of an `every` that says what a longer step was meant to say.
    unit: Option<&'static str>,
    letters: Letters,
}

/// Which letters a field takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Letters {
    None,
    /// `L`, `LW`, `15W`.
    MonthDays,
    /// `jan` to `dec`.
    Months,
    /// `sun` to `sat`, `5L`, `mon#2`.
    WeekDays,
}

/// Reads an expression of five or six fields, or an `@daily` form. The error is a clause about the expression:
/// `which has ...`.
pub(crate) fn parse(expression: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let normal = normal(expression)?;
    // Whatever is left to croner to refuse has its words.
    parser.parse(&normal).map_err(|error| format!("which can't be read: {error}"))
}

/// The expression with single spaces and in lower case. Expressions that differ in no more than that are the same.
pub(crate) fn spelled_plainly(expression: &str) -> String {
    expression.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn normal(expression: &str) -> Result<String, String> {
    let plain = spelled_plainly(expression);
    if plain.starts_with('@') {
        return nickname(&plain).map(str::to_owned);
    }
    let texts: Vec<&str> = plain.split(' ').filter(|text| !text.is_empty()).collect();
    if !(5..=6).contains(&texts.len()) {
        let count = texts.len();
        return Err(format!("which has {count} fields: 5 are expected, or 6 with seconds first"));
    }
    let fields = &FIELDS[FIELDS.len() - texts.len()..];
    let fields = fields.iter().zip(&texts).map(|(field, text)| field.normal(text));
    Ok(fields.collect::<Result<Vec<_>, _>>()?.join(" "))
}

fn nickname(name: &str) -> Result<&'static str, String> {
    if let Some((_, meaning)) = NICKNAMES.iter().find(|(known, _)| *known == name) {
        return Ok(meaning);
    }
    if let Some(interval) = name.strip_prefix("@every") {
        let interval = if interval.trim().is_empty() { "5m" } else { interval.trim() };
        return Err(format!("which is an interval: write every = {interval:?} in place of `schedule`"));
    }
    if name == "@reboot" {
        return Err("which is no time: a command with run = \"release\" runs at each start".to_owned());
    }
    let known: Vec<_> = NICKNAMES.iter().map(|(name, _)| *name).collect();
    Err(format!("which is none of the names of schedules: {}", known.join(", ")))
}

impl Field {
    fn normal(&self, text: &str) -> Result<String, String> {
        // croner's sign for days that both day fields allow.
        let (sign, list) = match (self.letters, text.strip_prefix('+')) {
            (Letters::WeekDays, Some(list)) => ("+", list),
            _ => ("", text),
        };
        let items = list.split(',').map(|item| self.item(item));
        let items = items.collect::<Result<Vec<_>, _>>().map_err(|what| self.refused(text, &what))?;
        // croner knows a star alone.
        let is_all = items.iter().any(|item| item == "*");
        Ok(if is_all { format!("{sign}*") } else { format!("{sign}{}", items.join(",")) })
    }

    fn refused(&self, text: &str, what: &str) -> String {
        format!("whose {} is {}: {what}", self.name, quoted(text))
    }

    /// One of the parts between commas, as croner takes it.
    fn item(&self, item: &str) -> Result<String, String> {
        if item.is_empty() {
            return Err("there is nothing between two commas, or at an end".to_owned());
        }
        let (base, step) = match item.split_once('/') {
            Some((base, step)) => (base, Some(self.step(step)?)),
            None => (item, None),
        };
        let is_day = matches!(self.letters, Letters::MonthDays | Letters::WeekDays);
        match (base, step) {
            ("*", _) => return Ok(item.to_owned()),
            ("?", None) if is_day => return Ok("*".to_owned()),
            ("?", Some(step)) if is_day => return Ok(format!("*/{step}")),
            (_, None) => {
                if let Some(special) = self.special(base)? {
                    return Ok(special);
                }
            }
            _ => {}
        }
        let (first, last) = match (base.split_once('-'), step) {
            (Some((first, last)), _) => (self.value(first)?, self.value(last)?),
            (None, Some(_)) => (self.value(base)?, *self.values.end()),
            (None, None) => return self.value(base).map(|value| value.to_string()),
        };
        Ok(self.range(first, last, step.unwrap_or(1)))
    }

    fn step(&self, text: &str) -> Result<u32, String> {
        let expected = || format!("its step {} is expected to be a number from 1", quoted(text));
        let step: u32 = text.parse().map_err(|_| expected())?;
        if step == 0 {
            return Err(expected());
        }
        if step <= self.step_max {
            return Ok(step);
        }
        let advice = match self.unit {
            Some(unit) => format!(". For an interval write every = \"{step}{unit}\" in place of `schedule`"),
            None => String::new(),
        };
        Err(format!("a step of {step} is more than {}, and would leave one value{advice}", self.step_max))
    }

    /// From `first` to `last`, also past the end of the field, in steps.
    fn range(&self, first: u32, last: u32, step: u32) -> String {
        // A week that begins with Sunday begins with 0.
        let first = if self.letters == Letters::WeekDays && last < first { first % 7 } else { first };
        if first <= last {
            return match step {
                1 => format!("{first}-{last}"),
                _ => format!("{first}-{last}/{step}"),
            };
        }
        let (low, high) = (*self.values.start(), *self.values.end());
        let count = high - low + 1;
        let reach = last + count - first;
        let step_at = |nth: u32| low + (first - low + nth) % count;
        let values =
            (0..=reach).step_by(usize::try_from(step).unwrap_or(1)).map(|nth| step_at(nth).to_string());
        values.collect::<Vec<_>>().join(",")
    }

    /// A number, or a name for one.
    fn value(&self, text: &str) -> Result<u32, String> {
        let names: &[&str] = match self.letters {
            Letters::Months => &MONTHS,
            Letters::WeekDays => &DAYS,
            Letters::None | Letters::MonthDays => &[],
        };
        let (low, high) = (*self.values.start(), *self.values.end());
        if let Some(at) = names.iter().position(|name| *name == text) {
            return Ok(low + u32::try_from(at).unwrap_or(0));
        }
        match text.parse::<u32>() {
            // Sunday has two numbers, and croner knows both.
            Ok(7) if self.letters == Letters::WeekDays => Ok(7),
            Ok(value) if self.values.contains(&value) && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(value)
            }
            _ => {
                let names = match names {
                    [] => String::new(),
                    [first, .., last] => format!(", or {first} to {last}"),
                    [only] => format!(", or {only}"),
                };
                Err(format!("found {}, expected {low} to {high}{names}", quoted(text)))
            }
        }
    }

    /// The other forms, which are no number, name or range: `None` where it is none of those either.
    fn special(&self, text: &str) -> Result<Option<String>, String> {
        match self.letters {
            Letters::MonthDays => self.month_day(text),
            Letters::WeekDays => self.week_day(text),
            Letters::None | Letters::Months => Ok(None),
        }
    }

    fn month_day(&self, text: &str) -> Result<Option<String>, String> {
        if text == "l" || text == "lw" {
            return Ok(Some(text.to_owned()));
        }
        if text.starts_with("l-") {
            let what = "days before the last one can't be told: `L` is the last day of a month. Run the job on several \
                        days, such as 25-31, and let it look at the date";
            return Err(what.to_owned());
        }
        match text.strip_suffix('w') {
            Some(day) => self.value(day).map(|day| Some(format!("{day}w"))),
            None => Ok(None),
        }
    }

    fn week_day(&self, text: &str) -> Result<Option<String>, String> {
        if text == "l" {
            return Err("`L` needs a day before it: `5L` is the last Friday of a month".to_owned());
        }
        if let Some((day, nth)) = text.split_once('#') {
            if !matches!(nth, "1" | "2" | "3" | "4" | "5" | "l") {
                return Err(format!(
                    "found {} after `#`, expected 1 to 5, or L for the last one",
                    quoted(nth)
                ));
            }
            return self.value(day).map(|day| Some(format!("{day}#{nth}")));
        }
        match text.strip_suffix('l') {
            Some(day) => self.value(day).map(|day| Some(format!("{day}#l"))),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    use super::*;

    /// The first times of an expression after the beginning of 2026, a Thursday, in UTC.
    fn times(expression: &str, count: usize) -> Vec<String> {
        let cron = parse(expression).unwrap_or_else(|error| panic!("{expression}, {error}"));
        let mut at = date(2025, 12, 31).at(23, 59, 59, 0).to_zoned(TimeZone::UTC).unwrap();
        let mut found = Vec::new();
        for _ in 0..count {
            at = cron.find_next_occurrence(&at, false).unwrap();
            found.push(at.strftime("%m-%d %H:%M:%S").to_string());
        }
        found
    }

    /// Each of these means the same as the other.
    #[test]
    fn what_cron_takes_is_taken() {
        for (expression, plain) in [
            ("0 0 * * fri-mon", "0 0 * * 0,1,5,6"),
            ("0 0 * * sat-sun", "0 0 * * 0,6"),
            ("0 0 * * SUN-SAT", "0 0 * * *"),
            ("0 0 * * Fri-7", "0 0 * * 0,5,6"),
            ("0 0 * * 7-2", "0 0 * * 0-2"),
            ("0 0 * * 0-7", "0 0 * * *"),
            ("0 0 * * 1-7", "0 0 * * *"),
            ("0 0 * * mon-fri/2", "0 0 * * 1,3,5"),
            ("0 0 * * fri-tue/2", "0 0 * * 5,0,2"),
            ("0 22-2 * * *", "0 0,1,2,22,23 * * *"),
            ("0 22-3/2 * * *", "0 22,0,2 * * *"),
            ("50-10/10 * * * *", "50,0,10 * * * *"),
            ("5/20 * * * *", "5,25,45 * * * *"),
            ("0 6/6 * * *", "0 6,12,18 * * *"),
            ("30/15 0 * * * *", "30,45 0 * * * *"),
            ("0 0 1 nov-feb *", "0 0 1 1,2,11,12 *"),
            ("0 0 1 Mar-MAY/2 *", "0 0 1 3,5 *"),
            ("0 0 28-2 * *", "0 0 1,2,28,29,30,31 * *"),
            ("0 0 1/10 * *", "0 0 1,11,21,31 * *"),
            ("*,5 * * * *", "* * * * *"),
            ("05 04 * * *", "5 4 * * *"),
            ("*/30,15 * * * *", "0,15,30 * * * *"),
            ("*/60 * * * *", "0 * * * *"),
            ("0 */24 * * *", "0 0 * * *"),
            ("0 0 ? * mon", "0 0 * * 1"),
            ("0 0 13 * ?", "0 0 13 * *"),
            ("0 0 * * friL", "0 0 * * 5L"),
            ("0 0 * * mon#2", "0 0 * * 1#2"),
            ("0 0 * * 7#1", "0 0 * * 0#1"),
            ("@midnight", "0 0 * * *"),
            ("@Daily", "0 0 * * *"),
            ("@weekly", "0 0 * * sun"),
            (" 0  4 * * * ", "0 4 * * *"),
        ] {
            assert_eq!(times(expression, 40), times(plain, 40), "{expression}");
        }
    }

    #[test]
    fn letters_and_both_day_fields_mean_what_the_reference_says() {
        for (expression, expected) in [
            ("0 0 L * *", ["01-31", "02-28", "03-31"]),
            ("0 0 LW * *", ["01-30", "02-27", "03-31"]),
            ("0 0 15W * *", ["01-15", "02-16", "03-16"]),
            ("0 0 * * 5L", ["01-30", "02-27", "03-27"]),
            ("0 0 * * 1#2", ["01-12", "02-09", "03-09"]),
            // Either day is enough; with `+` both have to match.
            ("0 0 13 * fri", ["01-02", "01-09", "01-13"]),
            ("0 0 13 * +fri", ["02-13", "03-13", "11-13"]),
        ] {
            let days: Vec<_> = times(expression, 3).iter().map(|time| time[..5].to_owned()).collect();
            assert_eq!(days, expected, "{expression}");
        }
    }

    #[test]
    fn what_would_mean_something_else_is_refused_with_advice() {
        for (expression, told) in [
            ("*/90 * * * *", "every = \"90m\""),
            ("*/61 * * * *", "every = \"61m\""),
            ("5/90 * * * *", "every = \"90m\""),
            ("0-30/90 * * * *", "every = \"90m\""),
            ("*/90 * * * * *", "every = \"90s\""),
            ("0 */25 * * *", "every = \"25h\""),
            ("0 0 */31 * *", "every = \"31d\""),
            ("0 0 1 */13 *", "a step of 13 is more than 12"),
            ("0 0 * * */8", "every = \"8d\""),
            ("1,2,,3 * * * *", "nothing between two commas"),
            (",1 * * * *", "nothing between two commas"),
            ("0 0 1, * *", "nothing between two commas"),
            ("0 0 L-3 * *", "days before the last one"),
            ("0 0 * * L", "`5L` is the last Friday"),
            ("0 0 * * 1#6", "expected 1 to 5"),
            ("61 * * * *", "expected 0 to 59"),
            ("0 24 * * *", "expected 0 to 23"),
            ("0 0 0 * *", "expected 1 to 31"),
            ("0 0 1 0 *", "expected 1 to 12, or jan to dec"),
            ("0 0 * * 8", "expected 0 to 6, or sun to sat"),
            ("0 0 * * monday", "expected 0 to 6, or sun to sat"),
            ("0 0 * mon *", "expected 1 to 12, or jan to dec"),
            ("+5 * * * *", "expected 0 to 59"),
            ("-5 * * * *", "expected 0 to 59"),
            ("5- * * * *", "expected 0 to 59"),
            ("1-2-3 * * * *", "expected 0 to 59"),
            ("*-5 * * * *", "expected 0 to 59"),
            ("*/ * * * *", "a number from 1"),
            ("*/0 * * * *", "a number from 1"),
            ("*/5/5 * * * *", "a number from 1"),
            ("**/5 * * * *", "expected 0 to 59"),
            ("? * * * *", "expected 0 to 59"),
            ("@every 5m", "every = \"5m\""),
            ("@reboot", "run = \"release\""),
            ("@often", "@hourly, @daily, @midnight"),
            ("", "which has 0 fields"),
            ("* * * *", "which has 4 fields"),
        ] {
            let error = parse(expression).expect_err(expression);
            assert!(error.starts_with("which ") || error.starts_with("whose "), "{error}");
            assert!(error.contains(told), "{expression}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[-0-9a-zA-Z*/,#?LW@+ é]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_range_has_the_values_between_its_ends(first in 0u32..24, last in 0u32..24, step in 1u32..=24) {
            let cron = parse(&format!("0 {first}-{last}/{step} * * *")).unwrap();
            let mut expected: Vec<u16> = (0..24u32)
                .map(|nth| (first + nth) % 24)
                .take_while(|hour| *hour != (last + 1) % 24 || *hour == first)
                .step_by(step as usize)
                .map(|hour| hour as u16)
                .collect();
            if (last + 1) % 24 == first {
                expected = (0..24).step_by(step as usize).map(|nth| ((first + nth) % 24) as u16).collect();
            }
            expected.sort_unstable();
            proptest::prop_assert_eq!(cron.pattern.hours.values(), expected);
        }
    }
}
