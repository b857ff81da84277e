//! Durations and sizes as people write them: `1h30m`, `128MiB`.

use crate::spelling::{one_of, quoted};
use std::time::Duration;

/// Why a text is no duration or size: what was found and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Largest first: the order in which the parts of a duration are written.
const DURATION_UNITS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS_BYTES: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads a duration: whole numbers with the units `d`, `h`, `m`, `s`, `ms`, the largest first, each at most
/// once.
///
/// # Errors
///
/// Anything else, a number without its unit among it, and durations of more than 2^64 ms.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if is_bare_number(text) {
        return Err(bare_number(text, "a duration", "s"));
    }
    let malformed = || {
        let found = quoted(text);
        UnitError(format!("found {found}, expected a duration such as \"30s\", \"500ms\" or \"1h30m\""))
    };
    let too_long = || UnitError(format!("found {}, a longer time than can be counted", quoted(text)));

    let mut total_ms: u64 = 0;
    let mut units = DURATION_UNITS_MS.iter();
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after_number) = split_number(rest).ok_or_else(malformed)?;
        let unit_end = after_number.find(|c: char| c.is_ascii_digit()).unwrap_or(after_number.len());
        let (unit, after_unit) = after_number.split_at(unit_end);
        let (_, unit_ms) = units.find(|(name, _)| *name == unit).ok_or_else(malformed)?;
        let part_ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit_ms));
        total_ms = part_ms.and_then(|part_ms| total_ms.checked_add(part_ms)).ok_or_else(too_long)?;
        rest = after_unit;
    }
    match text.is_empty() {
        true => Err(malformed()),
        false => Ok(Duration::from_millis(total_ms)),
    }
}

/// Writes a duration so that [`parse_duration`] reads it back; what is below a millisecond is cut off.
pub fn format_duration(duration: Duration) -> String {
    let mut left_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left_ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, unit_ms) in DURATION_UNITS_MS {
        let number = left_ms / unit_ms;
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
        }
        left_ms %= unit_ms;
    }
    text
}

/// Reads a size in bytes: a whole number and `B`, `KiB`, `MiB`, `GiB` or the decimal `KB`, `MB`, `GB`.
///
/// # Errors
///
/// Anything else, a number without its unit among it, and sizes of 2^64 bytes or more.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    if is_bare_number(text) {
        return Err(bare_number(text, "a size", "MiB"));
    }
    let found = quoted(text);
    let Some((number, unit)) = split_number(text) else {
        return Err(UnitError(format!("found {found}, expected a size such as \"128MiB\" or \"1GiB\"")));
    };
    let Some((_, unit_bytes)) = SIZE_UNITS_BYTES.iter().find(|(name, _)| *name == unit) else {
        let meant: Vec<String> = SIZE_UNITS_BYTES
            .iter()
            .filter(|(name, _)| name.starts_with(|first| unit.to_ascii_uppercase().starts_with(first)))
            .map(|(name, _)| format!("{number}{name}"))
            .collect();
        let meant: Vec<&str> = meant.iter().map(String::as_str).collect();
        let expected = match meant.is_empty() {
            true => "a size such as \"128MiB\" or \"1GiB\"".to_owned(),
            false => one_of(&meant),
        };
        return Err(UnitError(format!("found {found}, expected {expected}")));
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit_bytes));
    bytes.ok_or_else(|| UnitError(format!("found {found}, more bytes than can be counted")))
}

/// Writes a size so that [`parse_size`] reads it back: in the largest binary unit that divides it.
pub fn format_size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit_bytes)| bytes > 0 && bytes.is_multiple_of(*unit_bytes)) {
        Some((unit, unit_bytes)) => format!("{}{unit}", bytes / unit_bytes),
        None => format!("{bytes}B"),
    }
}

/// Reads bytes a second: a size, and `/s`.
///
/// # Errors
///
/// Anything else, and what [`parse_size`] refuses.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    if is_bare_number(text) {
        return Err(bare_number(text, "a size a second", "MiB/s"));
    }
    let size = text.strip_suffix("/s").and_then(|size| parse_size(size).ok());
    size.ok_or_else(|| {
        let expected = match parse_size(text) {
            Ok(_) => quoted(&format!("{text}/s")),
            Err(_) => "a size a second such as \"1MiB/s\"".to_owned(),
        };
        UnitError(format!("found {}, expected {expected}", quoted(text)))
    })
}

/// Writes bytes a second so that [`parse_rate`] reads them back.
pub fn format_rate(bytes: u64) -> String {
    format!("{}/s", format_size(bytes))
}

/// The digits a text starts with, and the rest.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn is_bare_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The error for a number without its unit; `what` has its article, `unit` is the likeliest one.
pub(crate) fn bare_number(number: &str, what: &str, unit: &str) -> UnitError {
    UnitError(format!("found {number}, expected {what} with its unit, such as \"{number}{unit}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("500ms", 500),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "s",
            "1",
            "1.5s",
            "-1s",
            "1 s",
            "1s1h",
            "1s1s",
            "1x",
            "1S",
            "1hm",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_duration("30").unwrap_err().to_string(),
            "found 30, expected a duration with its unit, such as \"30s\""
        );
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("128MiB", 134_217_728),
            ("1GiB", 1_073_741_824),
            ("64KiB", 65_536),
            ("512B", 512),
            ("1MB", 1_000_000),
            ("2KB", 2_000),
            ("2kB", 2_000),
            ("3GB", 3_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_size_of_unclear_unit_names_both_it_can_mean() {
        assert_eq!(
            parse_size("128M").unwrap_err().to_string(),
            "found \"128M\", expected \"128MiB\" or \"128MB\""
        );
        assert_eq!(
            parse_size("128mib").unwrap_err().to_string(),
            "found \"128mib\", expected \"128MiB\" or \"128MB\""
        );
        assert!(parse_size("128TiB").is_err());
        assert!(parse_size("99999999999GiB").is_err());
    }

    #[test]
    fn units_are_written_as_people_write_them() {
        assert_eq!(format_duration(Duration::from_secs(900)), "15m");
        assert_eq!(format_duration(Duration::from_millis(90_500)), "1m30s500ms");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_size(134_217_728), "128MiB");
        assert_eq!(format_size(1_000_000), "1000000B");
        assert_eq!(format_size(0), "0B");
    }

    #[test]
    fn rates_are_sizes_a_second() {
        assert_eq!(parse_rate("16MiB/s"), Ok(16 << 20));
        let refused = |text: &str| parse_rate(text).unwrap_err().to_string();
        assert_eq!(refused("5"), "found 5, expected a size a second with its unit, such as \"5MiB/s\"");
        assert_eq!(refused("1MiB"), "found \"1MiB\", expected \"1MiB/s\"");
        for text in ["", "/s", "1/s", "1MiB/m", "1MiB/s/s", "fast"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert_eq!(format_rate(64 << 10), "64KiB/s");
    }

    proptest! {
        #[test]
        fn a_duration_survives_the_round_trip(ms: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn a_size_survives_the_round_trip(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
            prop_assert_eq!(parse_rate(&format_rate(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9dhmsKMGiB. ]{0,12}|\\PC*") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
            let _ = parse_rate(&text);
        }
    }
}
