//! The nearest spelling, and how names and values look in a message.

/// How many characters of a value a message repeats.
const QUOTED_CHARS_MAX: usize = 60;

/// The candidate that `found` was most likely meant to be, if one is near enough.
pub fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let found = found.to_lowercase();
    // A third of the letters may be wrong: more than that, and the suggestion is a guess.
    let letters = found.chars().count();
    let distance_max = (letters / 3).max(1);
    candidates
        .into_iter()
        // To compare takes as long as the product of both lengths, and `found` may be anything.
        .filter(|candidate| candidate.chars().count().abs_diff(letters) <= distance_max)
        .map(|candidate| (strsim::osa_distance(&found, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `"a"`, `"a" or "b"`, `one of "a", "b", "c"`.
pub(crate) fn one_of(candidates: &[&str]) -> String {
    let quoted: Vec<String> = candidates.iter().map(|candidate| format!("{candidate:?}")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first, second] => format!("{first} or {second}"),
        more => format!("one of {}", more.join(", ")),
    }
}

/// A value in quotes on one line, shortened: a message shouldn't be longer than what it explains.
pub(crate) fn quoted(value: &str) -> String {
    match value.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &value[..end]),
        None => format!("{value:?}"),
    }
}

/// A key as one would write it in the file: bare where TOML allows it.
pub(crate) fn shown_key(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { quoted(key) }
}

/// Where the name of a process type or a queue breaks the rule, what was found and what the rule is.
pub fn name_problem(name: &str) -> Option<String> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if first && rest && name.len() <= 63 {
        return None;
    }
    Some(format!(
        "found the name {}, expected lower-case letters, digits and \"-\", a letter first, at most 63 bytes",
        quoted(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_letter_is_near() {
        assert_eq!(nearest("memroy", ["memory", "missed"]), Some("memory"));
        assert_eq!(nearest("max-instances", ["max_instances"]), Some("max_instances"));
        assert_eq!(nearest("Count", ["count"]), Some("count"));
    }

    #[test]
    fn something_else_is_not_near() {
        assert_eq!(nearest("replicas", ["count", "route"]), None);
    }

    #[test]
    fn a_text_of_megabytes_is_near_nothing_and_told_so_at_once() {
        assert_eq!(nearest(&"a".repeat(4 << 20), std::iter::repeat_n("Europe/Berlin", 1_000)), None);
    }

    #[test]
    fn a_long_value_is_shortened_in_a_message() {
        assert_eq!(quoted(&"ä".repeat(61)), format!("\"{}\"...", "ä".repeat(60)));
    }
}
