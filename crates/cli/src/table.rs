//! Tables, times and sizes as a person reads them.

use std::io::IsTerminal;
use std::time::Duration;

use wasmhost_config::{shown, units};

/// How wide a table may be where no terminal and no `COLUMNS` says it, in characters.
const WIDTH_DEFAULT: usize = 80;

/// Columns of names, by which a person asks on: nothing else is left to cut before they are.
const NAMES: [&str; 4] = ["ID", "INSTANCE", "QUEUE", "TYPE"];

/// A column that is cut keeps so many characters, or its head.
const COLUMN_MIN: usize = 6;

/// Columns as wide as their widest cell, as far as the terminal is wide enough; nothing after the last.
pub(crate) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let shown = |row: Vec<String>| row.iter().map(|cell| shown_cell(cell)).collect();
    table_within(width(), head, rows.map(shown).collect())
}

/// The terminal's width, or what `COLUMNS` says.
pub(crate) fn width() -> usize {
    let terminal = std::io::stdout();
    let size = terminal.is_terminal().then(|| rustix::termios::tcgetwinsize(terminal).ok()).flatten();
    let of_terminal = size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
    let of_variable = || std::env::var("COLUMNS").ok()?.parse::<usize>().ok().filter(|width| *width > 0);
    of_terminal.or_else(of_variable).unwrap_or(WIDTH_DEFAULT)
}

/// A column that is empty throughout is left out. A table that doesn't fit has one space between columns instead of two,
/// and then its columns are cut.
fn table_within(width_max: usize, head: &[&str], mut rows: Vec<Vec<String>>) -> String {
    rows.insert(0, head.iter().map(|cell| (*cell).to_owned()).collect());
    let is_used = |column: &usize| rows.len() == 1 || rows[1..].iter().any(|row| !row[*column].is_empty());
    let used: Vec<usize> = (0..head.len()).filter(is_used).collect();
    let length = |text: &str| text.chars().count();
    let mut widths: Vec<usize> =
        used.iter().map(|column| rows.iter().map(|row| length(&row[*column])).max().unwrap_or(0)).collect();
    let between = |gap: usize| gap * used.len().saturating_sub(1);
    let gap = if widths.iter().sum::<usize>() + between(2) <= width_max { 2 } else { 1 };
    let room = width_max.saturating_sub(between(gap));
    while widths.iter().sum::<usize>() > room {
        let least = |place: usize| length(head[used[place]]).max(COLUMN_MIN);
        let cuttable = (0..widths.len()).filter(|place| widths[*place] > least(*place));
        // Explanations come last, and are cut first.
        let is_last = |place: usize| place + 1 == used.len();
        let is_name = |place: usize| NAMES.contains(&head[used[place]]);
        let order = |place: &usize| (!is_name(*place), is_last(*place), widths[*place]);
        let Some(widest) = cuttable.max_by_key(order) else { break };
        widths[widest] -= 1;
    }
    let mut text = String::new();
    for row in &rows {
        let cells = used.iter().zip(&widths).map(|(column, width)| {
            let cell = &row[*column];
            let cell = if length(cell) > *width { one_line(cell, width - 1) } else { cell.clone() };
            format!("{cell:<width$}")
        });
        text.push_str(cells.collect::<Vec<_>>().join(&" ".repeat(gap)).trim_end());
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

/// `128MiB`: as a person has written it.
pub(crate) fn whole_size(bytes: u64) -> String {
    units::format_size(bytes)
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

/// The first line of a text, cut to fit in a row.
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
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["löng".to_owned(), String::new()]];
        assert_eq!(table_within(80, &["N", "C"], rows), "N     C\na     1\nlöng\n");
    }

    #[test]
    fn a_table_fits_and_has_no_empty_column() {
        let row =
            |name: &str, error: &str| vec![name.to_owned(), String::new(), "1".to_owned(), error.to_owned()];
        let rows = vec![row("worker", "it broke in the middle of the night"), row("a-longer-name", "")];
        let head = ["TYPE", "EMPTY", "COUNT", "ERROR"];
        assert_eq!(
            table_within(40, &head, rows.clone()),
            "TYPE          COUNT ERROR\n\
             worker        1     it broke in the mid…\n\
             a-longer-name 1\n"
        );
        for width in 1..80 {
            let text = table_within(width, &head, rows.clone());
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            // Narrower than this there is nothing left to cut.
            assert!(widest <= width.max(6 + 1 + 5 + 1 + 6), "{width}: {text}");
        }
        assert_eq!(table_within(80, &head, vec![]), "TYPE  EMPTY  COUNT  ERROR\n");
    }

    #[test]
    fn names_are_cut_last_wherever_they_are() {
        let cells = ["7", "a-queue-with-a-long-name", "a key of some length", "it broke in the night"];
        let text =
            table_within(60, &["ID", "QUEUE", "KEY", "LAST ERROR"], vec![cells.map(str::to_owned).to_vec()]);
        assert_eq!(
            text,
            "ID QUEUE                    KEY                  LAST ERROR\n\
             7  a-queue-with-a-long-name a key of some length it broke i…\n"
        );
        let text =
            table_within(46, &["ID", "QUEUE", "KEY", "LAST ERROR"], vec![cells.map(str::to_owned).to_vec()]);
        assert!(text.contains("a-queue-with-a-long-name a key"), "{text}");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(one_line("ab\ncd", 9), "ab");
        assert_eq!(one_line("äöü", 2), "äö…");
        assert_eq!(one_line("a\u{1b}[31mb", 99), "a\\u{1b}[31mb");
    }
}
