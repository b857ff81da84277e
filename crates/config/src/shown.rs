//! Text that isn't this program's own, made fit for a log and for a terminal.
//!
//! Names, messages, paths and lines come from guests, components, jobs and clients. A character in them may move a
//! person's cursor, begin a false line, or turn the order of what follows. These functions write such a character as
//! its code, `\u{202e}`, and cut the text at a bound. Everything foreign passes through them before it is kept, logged
//! or printed:
//!
//! - [`one_line`] for a name or a message;
//! - [`lines`] for a text that may have several lines: a backtrace, a payload;
//! - [`json`] for JSON that may be shown on a terminal, without a loss to programs that read it.

use std::borrow::Cow;
use std::fmt::Write;

/// Bytes of a name that are shown: a host, a queue, an import, a function, a path.
pub const NAME_BYTES_MAX: usize = 256;

/// Bytes of a message that are shown or kept: an error of a guest or a job.
pub const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Bytes of a text with several lines that are shown: a backtrace.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// Stands in the place of what was cut off.
const CUT: &str = "...";

/// The text as one line: what a terminal doesn't show as it is, a line's end included, is written as its code. At most
/// `bytes_max` bytes come out, and `...` if there was more.
pub fn one_line(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max && text.chars().all(is_shown_in_names) {
        return Cow::Borrowed(text);
    }
    let mut out = Bounded::new(text.len(), bytes_max);
    let all = text.chars().all(|c| out.push(c, is_shown_in_names(c)));
    Cow::Owned(out.ended(all))
}

/// The text with its lines: all but line ends and tabs is as in [`one_line`]. A line after the first begins with a
/// space, so that none looks like a line of its own in a log. A line's end at the text's end is left out.
pub fn lines(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let text = text.trim_end_matches(['\n', '\r']);
    let is_fit = |c| is_shown(c) || c == '\t';
    if text.len() <= bytes_max && text.chars().all(is_fit) {
        return Cow::Borrowed(text);
    }
    let mut out = Bounded::new(text.len(), bytes_max);
    let all = text.split('\n').enumerate().all(|(number, line)| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let begin = match number {
            0 => "",
            _ if line.is_empty() || line.starts_with(' ') => "\n",
            _ => "\n    ",
        };
        out.push_str(begin) && line.chars().all(|c| out.push(c, is_fit(c)))
    });
    Cow::Owned(out.ended(all))
}

/// JSON in which a terminal shows every character as it is: the others are written as `\u202e`, which means the same.
pub fn json(json: &str) -> Cow<'_, str> {
    // Below DEL there are line ends between values, and nothing else that isn't shown: JSON has escaped it in strings.
    let is_fit = |c| c < '\u{7f}' || is_shown(c);
    if json.bytes().all(|byte| byte < 0x7f) || json.chars().all(is_fit) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_fit(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String doesn't fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    Cow::Owned(out)
}

/// As much of the text as fits, up to a character's end.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// A text that is being written, and that has a bound.
struct Bounded {
    text: String,
    bytes_max: usize,
}

impl Bounded {
    fn new(expected: usize, bytes_max: usize) -> Bounded {
        Bounded { text: String::with_capacity(expected.min(bytes_max) + 16), bytes_max }
    }

    /// Adds a character, or its code if it isn't shown. False where there is no room for it.
    fn push(&mut self, c: char, is_shown: bool) -> bool {
        if is_shown {
            return self.push_str(c.encode_utf8(&mut [0; 4]));
        }
        match c {
            '\n' => self.push_str("\\n"),
            '\r' => self.push_str("\\r"),
            '\t' => self.push_str("\\t"),
            c => self.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }

    fn push_str(&mut self, piece: &str) -> bool {
        let fits = self.text.len() + piece.len() <= self.bytes_max;
        if fits {
            self.text.push_str(piece);
        }
        fits
    }

    fn ended(mut self, all: bool) -> String {
        if !all {
            self.text.push_str(CUT);
        }
        self.text
    }
}

/// In a name also the two joiners are written as codes: they can't be seen, and tell two names apart that look the same.
fn is_shown_in_names(c: char) -> bool {
    is_shown(c) && !matches!(c, '\u{200c}' | '\u{200d}')
}

/// Whether a terminal shows a character as itself, without a say in what comes before or after it.
fn is_shown(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // C0, DEL and C1.
        '\0'..='\u{9f}' => false,
        // The joiners are part of words in some scripts, and of emoji.
        '\u{200c}' | '\u{200d}' => true,
        // Soft hyphen; grapheme joiner; the Arabic letter mark; Hangul fillers; Khmer and Mongolian invisibles.
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' => false,
        // Invisible, bidirectional and line-breaking characters.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => false,
        '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' => false,
        // Format characters of shorthand and music; tags and supplementary variation selectors.
        '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_that_is_fit_stays_as_it_is() {
        for text in ["", "web.1", "größer 字 🙂", "a \\ b"] {
            assert!(matches!(one_line(text, 256), Cow::Borrowed(same) if same == text), "{text}");
            assert!(matches!(lines(text, 256), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn characters_that_act_on_a_terminal_become_codes() {
        let cases = [
            ("\u{1b}[2Jx", "\\u{1b}[2Jx"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\u{0}"),
            ("\u{7f}\u{80}\u{9b}31m\u{9f}", "\\u{7f}\\u{80}\\u{9b}31m\\u{9f}"),
            ("a\u{202e}b\u{2066}\u{200f}\u{61c}", "a\\u{202e}b\\u{2066}\\u{200f}\\u{61c}"),
            ("\u{feff}\u{200b}\u{ad}\u{2028}\u{2029}", "\\u{feff}\\u{200b}\\u{ad}\\u{2028}\\u{2029}"),
            ("we\u{200d}b\u{e0041}", "we\\u{200d}b\\u{e0041}"),
        ];
        for (text, shown) in cases {
            assert_eq!(one_line(text, 256), shown);
        }
    }

    #[test]
    fn a_text_keeps_its_lines_and_none_of_them_looks_like_one_of_the_log() {
        let text = "trapped\r\n  0: main\n2026-11-21T05:10:12Z ERROR all is lost\n\n\tx\u{1b}\u{200d}\n";
        let shown =
            "trapped\n  0: main\n    2026-11-21T05:10:12Z ERROR all is lost\n\n    \tx\\u{1b}\u{200d}";
        assert_eq!(lines(text, 256), shown);
    }

    #[test]
    fn long_text_is_cut_at_a_characters_end() {
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdefg", 6), "abcdef...");
        assert_eq!(one_line("aäöü", 4), "aä...");
        assert_eq!(one_line("ab\u{1b}", 5), "ab...");
        assert_eq!(lines("a\nb\nc", 9), "a\n    b...");
        assert_eq!(cut("aä", 2), "a");
    }

    #[test]
    fn json_means_the_same_and_shows_nothing_that_acts() {
        let value = serde_json::json!({ "line": "\u{1b}[m \u{9b} \u{202e} \u{e0041} \u{7f} ü \n" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(shown.chars().all(|c| c == '\n' || is_shown(c)), "{shown}");
        assert!(shown.contains("\\u202e") && shown.contains("\\udb40\\udc41"), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded_and_shown(
            chars in prop::collection::vec(any::<char>(), 0..40),
            bytes_max in 0_usize..64,
        ) {
            let text: String = chars.into_iter().collect();
            let line = one_line(&text, bytes_max);
            prop_assert!(line.len() <= bytes_max + CUT.len());
            prop_assert!(line.chars().all(is_shown_in_names));
            let text = lines(&text, bytes_max);
            prop_assert!(text.len() <= bytes_max + CUT.len());
            prop_assert!(text.chars().all(|c| is_shown(c) || c == '\n' || c == '\t'));
            prop_assert!(text.split('\n').skip(1).all(|line| line.is_empty() || line.starts_with([' ', '.'])));
        }
    }
}
