//! Tables, times and sizes as a person reads them.

use std::time::Duration;

use wasmhost_config::shown;

/// Columns as wide as their widest cell, two spaces between, nothing after the last.
pub(crate) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|cell| (*cell).to_owned()).collect();
    let shown = |row: Vec<String>| row.iter().map(|cell| shown_cell(cell)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows.map(shown)).collect();
    let width = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A cell is one line, whatever it comes from.
fn shown_cell(cell: &str) -> String {
    shown::one_line(cell, shown::MESSAGE_BYTES_MAX).into_owned()
}

/// `1.1MiB`: rounded, since a person compares.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes}B") } else { format!("{amount:.1}{}", UNITS[unit]) }
}

/// `3d4h`, `2h5m`, `5m7s`, `7.3s`
pub(crate) fn short(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) => format!("{seconds:.1}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, _, _) => format!("{days}d{hours}h"),
    }
}

/// What fits in a row: the first line, cut.
pub(crate) fn one_line(text: &str, chars: usize) -> String {
    let line = shown::one_line(text.lines().next().unwrap_or_default(), shown::MESSAGE_BYTES_MAX);
    match line.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_long_as_they_need_to_be() {
        assert_eq!(short(7.34), "7.3s");
        assert_eq!(short(307.0), "5m7s");
        assert_eq!(short(7_500.0), "2h5m");
        assert_eq!(short(273_600.0), "3d4h");
        assert_eq!(short(f64::NAN), "NaNs");
    }

    #[test]
    fn sizes_are_rounded() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(1_115_176), "1.1MiB");
        assert_eq!(size(u64::MAX), "17179869184.0GiB");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["löng".to_owned(), String::new()]];
        assert_eq!(table(&["N", "C"], rows.into_iter()), "N     C\na     1\nlöng\n");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(one_line("ab\ncd", 9), "ab");
        assert_eq!(one_line("äöü", 2), "äö…");
        assert_eq!(one_line("a\u{1b}[31mb", 99), "a\\u{1b}[31mb");
    }
}
