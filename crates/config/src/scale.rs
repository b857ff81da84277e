//! Changes of counts as people write them: `web=10 worker+2 clock-1`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::shown;

/// One change of a count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleChange {
    /// The type.
    pub process: String,
    /// Its new count.
    pub to: ScaleTo,
}

/// A new count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScaleTo {
    /// This many.
    Count(u32),
    /// This many more.
    More(u32),
    /// This many fewer, and not less than none.
    Fewer(u32),
}

/// Why a text is no change of a count: what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScaleError(String);

const EXPECTED: &str = "expected a type and a count, such as web=10, worker+2 or clock-1";

/// Reads `web=10`, `worker+2` or `clock-1`. Whether there is such a type is for the host to say.
impl FromStr for ScaleChange {
    type Err = ScaleError;

    fn from_str(text: &str) -> Result<Self, ScaleError> {
        type Make = fn(u32) -> ScaleTo;
        let split = |sign, make: Make| text.rsplit_once(sign).map(|(process, count)| (process, count, make));
        // A name may have a `-` in it, so that the last one counts, and only where there is no other sign.
        let found = split('=', ScaleTo::Count)
            .or_else(|| split('+', ScaleTo::More))
            .or_else(|| split('-', ScaleTo::Fewer));
        let Some((process, count, make)) = found else { return Err(ScaleError(EXPECTED.to_owned())) };
        if process.is_empty() {
            let text = shown::one_line(text, shown::NAME_BYTES_MAX);
            return Err(ScaleError(format!("\"{text}\" names no type; {EXPECTED}")));
        }
        if let Some(fewer) = count.strip_prefix('-')
            && fewer.parse::<u32>().is_ok()
        {
            let process = shown::one_line(process, shown::NAME_BYTES_MAX);
            return Err(ScaleError(format!(
                "a count is 0 or more; `{process}-{fewer}` takes {fewer} away, and `{process}=0` all"
            )));
        }
        // To Rust `+2` is a number. `web=+2` could mean either.
        match count.parse() {
            Ok(number) if !count.starts_with('+') => {
                Ok(ScaleChange { process: process.to_owned(), to: make(number) })
            }
            _ => {
                let count = shown::one_line(count, shown::MESSAGE_BYTES_MAX);
                Err(ScaleError(format!("\"{count}\" is not a count; {EXPECTED}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> Result<(String, ScaleTo), ScaleError> {
        text.parse().map(|ScaleChange { process, to }| (process, to))
    }

    #[test]
    fn counts_are_set_raised_and_lowered() {
        assert_eq!(change("web=10"), Ok(("web".into(), ScaleTo::Count(10))));
        assert_eq!(change("worker+2"), Ok(("worker".into(), ScaleTo::More(2))));
        assert_eq!(change("mail-worker-1"), Ok(("mail-worker".into(), ScaleTo::Fewer(1))));
        assert_eq!(change("mail-worker=3"), Ok(("mail-worker".into(), ScaleTo::Count(3))));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for text in ["web", "=3", "web=", "web=x", "web=-1", "+2", "web=1.5", "web=+2", "web=4294967296"] {
            assert!(change(text).is_err(), "{text}");
        }
        let why = |text| change(text).unwrap_err().to_string();
        assert_eq!(why("-1"), format!("\"-1\" names no type; {EXPECTED}"));
        assert_eq!(why("web=-1"), "a count is 0 or more; `web-1` takes 1 away, and `web=0` all");
        assert_eq!(why("web=-x"), format!("\"-x\" is not a count; {EXPECTED}"));
        let err = change("web=\u{1b}[31m").unwrap_err().to_string();
        assert!(!err.contains('\u{1b}') && err.ends_with(EXPECTED), "{err:?}");
    }
}
