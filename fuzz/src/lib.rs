//! The truths that hold for every input. Each function takes the bytes that a fuzzer made up, and panics where they show
//! something that is wrong. `fuzz_targets/` hands them over, and `corpus/` holds inputs that once led somewhere new.
//! Texts are here; what needs the whole host is in [`host`].

#[cfg(feature = "host")]
pub mod host;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use wasmhost_config::{Changes, Formation, LoadError, Origin, ScaleChange, ScaleTo, Schedule, Trigger};
use wasmhost_config::{has_whole_escapes, normal_host, normal_path, shown, units};

/// A formation's text and, behind a zero, the `.env` beside it.
pub fn formation(data: &[u8]) {
    let (text, dotenv) = two_texts(data);
    if let Some(read) = parsed("formation.toml", &text, Some(&dotenv)) {
        let again = parsed("formation.toml", &text, Some(&dotenv)).expect("it was read before");
        let changes = Changes::between(&read, &again, &|_| false);
        assert!(changes.is_empty(), "a formation differs from itself: {changes:?}");
    }
}

/// A Procfile's text and, behind a zero, the `.env` beside it.
pub fn procfile(data: &[u8]) {
    let (text, dotenv) = two_texts(data);
    parsed("Procfile", &text, Some(&dotenv));
}

/// The text of a `.env`.
pub fn dotenv(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let formation = "[process.web]\ncomponent = \"web.wasm\"\nenv = { A = \"${A:-b}\", B = \"$$\" }\n";
    parsed("formation.toml", formation, Some(&text));
}

/// Eight bytes of a time, an expression of cron and, behind a zero, a time zone.
pub fn schedule(data: &[u8]) {
    let Some((time, rest)) = data.split_first_chunk::<8>() else { return };
    let (expression, zone) = two_texts(rest);
    let quoted = |text: &str| serde_json::to_string(text).expect("a text is JSON");
    let text = format!(
        "[process.clock]\ncomponent = \"clock.wasm\"\nschedule = {}\ntime_zone = {}\n",
        quoted(&expression),
        quoted(&zone)
    );
    let Some(formation) = parsed("formation.toml", &text, None) else { return };
    let Some(Trigger::Schedule(schedule)) = &formation.processes[0].trigger else {
        panic!("it has a schedule")
    };
    times(schedule, i64::from_le_bytes(*time));
}

/// Times come in order, forward and backward alike.
fn times(schedule: &Schedule, at: i64) {
    // Years 1970 to 3000.
    let at = at.rem_euclid(32_503_680_000_000);
    let Some(next) = schedule.next_after_ms(at) else { return };
    assert!(next > at, "{next} is not after {at}");
    let last = schedule.last_before_ms(next + 1);
    assert_eq!(last, Some(next), "going back from just behind {next}, which comes after {at}");
}

/// A duration, a size or a rate.
pub fn units(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match units::parse_duration(&text) {
        Ok(duration) => assert_eq!(units::parse_duration(&units::format_duration(duration)), Ok(duration)),
        Err(error) => is_one_line(&error.to_string()),
    }
    match units::parse_size(&text) {
        Ok(bytes) => assert_eq!(units::parse_size(&units::format_size(bytes)), Ok(bytes)),
        Err(error) => is_one_line(&error.to_string()),
    }
    match units::parse_rate(&text) {
        Ok(bytes) => assert_eq!(units::parse_rate(&units::format_rate(bytes)), Ok(bytes)),
        Err(error) => is_one_line(&error.to_string()),
    }
    if let Some(bytes) = data.first_chunk() {
        let millis = u64::from_le_bytes(*bytes);
        let duration = Duration::from_millis(millis);
        assert_eq!(units::parse_duration(&units::format_duration(duration)), Ok(duration));
        assert_eq!(units::parse_size(&units::format_size(millis)), Ok(millis));
        assert_eq!(units::parse_rate(&units::format_rate(millis)), Ok(millis));
    }
}

/// A change of a count, as an argument of `scale`.
pub fn scale(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<ScaleChange>() {
        Ok(change) => {
            let (sign, count) = match change.to {
                ScaleTo::Count(count) => ('=', count),
                ScaleTo::More(count) => ('+', count),
                ScaleTo::Fewer(count) => ('-', count),
            };
            assert!(!change.process.is_empty() && text.starts_with(&format!("{}{sign}", change.process)));
            assert_eq!(format!("{}{sign}{count}", change.process).parse(), Ok(change.clone()));
            let json = serde_json::to_string(&change).expect("a change is JSON");
            assert_eq!(serde_json::from_str::<ScaleChange>(&json).expect("it is a change still"), change);
        }
        Err(error) => is_one_line(&error.to_string()),
    }
}

/// A foreign text that is shown, and a host and a path that are compared. The first byte is a bound.
pub fn texts(data: &[u8]) {
    let Some((bound, rest)) = data.split_first() else { return };
    let (text, bound) = (String::from_utf8_lossy(rest), usize::from(*bound));
    let line = shown::one_line(&text, bound);
    is_one_line(&line);
    assert!(line.len() <= bound + "...".len(), "{} bytes of {bound}", line.len());
    assert_eq!(shown::one_line(&line, usize::MAX), line, "what was shown is shown as it is");
    for line in shown::lines(&text, bound).split('\n') {
        assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?}");
    }
    let json = serde_json::to_string(&text).expect("a text is JSON");
    let shown = shown::json(&json);
    assert_eq!(serde_json::from_str::<String>(&shown).expect("it is JSON still"), text);

    // Others are refused before they are compared.
    if has_whole_escapes(text.as_bytes()) {
        let (host, path) = (normal_host(&text), normal_path(&text));
        assert_eq!(normal_host(&host), host, "a host's one form");
        assert_eq!(normal_path(&path), path, "a path's one form");
        assert!(has_whole_escapes(path.as_bytes()), "{path:?}");
    }
}

/// The texts before and behind the first zero.
fn two_texts(data: &[u8]) -> (String, String) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    (text(), text())
}

/// Reads a file's text, and holds each problem to what is promised of problems.
fn parsed(file: &str, text: &str, dotenv: Option<&str>) -> Option<Formation> {
    let environment = |name: &str| (name == "HOME").then(|| OsString::from("/home/user"));
    let origin =
        Origin { file: Path::new(file), folder: Path::new("/srv/app"), environment: &environment, dotenv };
    match wasmhost_config::parse(text, &origin) {
        Ok(formation) => Some(formation),
        Err(LoadError::Invalid(problems)) => {
            assert!(!problems.is_empty(), "it is refused for nothing");
            assert!(problems.is_sorted_by_key(|problem| (&problem.file, problem.line, problem.column)));
            for problem in problems {
                let is_of_text = problem.file == Path::new(file);
                let text = if is_of_text { text } else { dotenv.expect("nothing else has problems") };
                let lines = text.split('\n').count();
                assert!((1..=lines).contains(&problem.line), "{problem:?} of {lines} lines");
                let line = text.split('\n').nth(problem.line - 1).unwrap_or_default();
                // One past the end, where something is missing.
                let columns = line.chars().count() + 1;
                assert!((1..=columns).contains(&problem.column), "{problem:?} in {line:?}");
                is_one_line(&problem.to_string());
            }
            None
        }
        Err(other) => panic!("nothing but the text is read: {other}"),
    }
}

fn is_one_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "a terminal would obey {text:?}");
}
