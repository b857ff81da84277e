//! Text of systemd units, by the rules of systemd.syntax(5), systemd.service(5) and systemd.exec(5): where a `%` is
//! doubled, which words may be quoted, and which paths no unit can name.

use std::fmt::Write;
use std::path::Path;

/// A unit that is being written.
#[derive(Default)]
pub(super) struct Unit(String);

impl Unit {
    pub(super) fn comment(&mut self, text: &str) {
        // A comment goes on in the next line where it ends with a backslash.
        let text = text.replace(char::is_control, " ");
        let _ = writeln!(self.0, "# {}", text.trim_end_matches('\\'));
    }

    pub(super) fn section(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}[{name}]");
    }

    /// A setting whose value is written as it stands.
    pub(super) fn set(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a String doesn't fail.
        let _ = writeln!(self.0, "{key}={value}");
    }

    /// Settings of our own, `KEY=VALUE` lines and comments.
    pub(super) fn lines(&mut self, lines: &str) {
        self.0.push_str(lines);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// A path that no unit can name, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unnameable(pub(super) String);

/// A word of a command line, behind the program's path: quoted, with `%` and `$` doubled.
pub(super) fn word(text: &str) -> String {
    program(text).replace('$', "$$")
}

/// The program of a command line. No variable is looked for in it.
pub(super) fn program(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./=:,@+".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            '\n' => write!(quoted, "\\n"),
            '\t' => write!(quoted, "\\t"),
            '%' => write!(quoted, "%%"),
            c if c.is_ascii_control() => write!(quoted, "\\x{:02x}", u32::from(c)),
            c => write!(quoted, "{c}"),
        };
    }
    quoted.push('"');
    quoted
}

/// The value of a setting that is one text up to the line's end, such as `Description`.
pub(super) fn text(text: &str) -> String {
    let line = text.replace(char::is_control, " ").replace('%', "%%");
    line.trim().trim_end_matches('\\').to_owned()
}

/// A path that is the whole value of a setting: nothing in it can be quoted.
pub(super) fn whole_path(path: &Path) -> Result<String, Unnameable> {
    let text = utf8(path)?;
    match text.contains(char::is_control) || text.ends_with(['\\', ' ']) {
        true => Err(unnameable(path, "a control character, or a space or backslash at its end")),
        false => Ok(text.replace('%', "%%")),
    }
}

/// A path in a list of paths, such as `ReadWritePaths`. Quotes group there, and nothing is an escape.
pub(super) fn listed_path(path: &Path) -> Result<String, Unnameable> {
    let text = utf8(path)?;
    if text.contains(char::is_control) || text.contains(['"', '\'', '\\']) {
        return Err(unnameable(path, "a quote, a backslash or a control character"));
    }
    let text = text.replace('%', "%%");
    Ok(if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text })
}

/// The same where a colon parts the path from a second one, as in `BindPaths`.
pub(super) fn bound_path(path: &Path) -> Result<String, Unnameable> {
    match utf8(path)?.contains(':') {
        true => Err(unnameable(path, "a colon")),
        false => listed_path(path),
    }
}

/// A text as a part of a unit's name, as `systemd-escape` writes it.
pub(super) fn unit_name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(char::from(byte)),
            other => {
                let _ = write!(name, "\\x{other:02x}");
            }
        }
    }
    name
}

/// A word of a command that a person is told to type.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./=:,@%+".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

pub(super) fn utf8(path: &Path) -> Result<&str, Unnameable> {
    path.to_str().ok_or_else(|| unnameable(path, "bytes that aren't UTF-8"))
}

fn unnameable(path: &Path, what: &str) -> Unnameable {
    Unnameable(format!(
        "{}: the path has {what} in it, which a systemd unit can't name here: rename it",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn words_of_a_command_are_escaped() {
        for (text, expected) in [
            ("/srv/shop/formation.toml", "/srv/shop/formation.toml"),
            ("/srv/my shop", "\"/srv/my shop\""),
            ("100%", "\"100%%\""),
            ("a$b", "\"a$$b\""),
            ("a\"b\\c'd", "\"a\\\"b\\\\c'd\""),
            ("a\nb\u{1}", "\"a\\nb\\x01\""),
            ("", "\"\""),
            (";", "\";\""),
        ] {
            assert_eq!(word(text), expected, "{text}");
        }
        assert_eq!(program("/opt/$x"), "\"/opt/$x\"");
    }

    #[test]
    fn paths_are_named_as_a_setting_takes_them_or_not_at_all() {
        let path = Path::new;
        assert_eq!(whole_path(path("/a b%c\"d")).unwrap(), "/a b%%c\"d");
        assert_eq!(listed_path(path("/a b%c:d")).unwrap(), "\"/a b%%c:d\"");
        assert_eq!(bound_path(path("/a/b")).unwrap(), "/a/b");
        for wrong in ["/a\nb", "/a\\", "/a "] {
            assert!(whole_path(path(wrong)).is_err(), "{wrong:?}");
        }
        for wrong in ["/a\nb", "/a\\b", "/a\"b", "/a'b"] {
            assert!(listed_path(path(wrong)).is_err(), "{wrong:?}");
        }
        assert!(bound_path(path("/a:b")).unwrap_err().0.contains("a colon"));
        assert!(whole_path(Path::new(OsStr::from_bytes(b"/\xff"))).is_err());
    }

    #[test]
    fn texts_stay_on_their_line() {
        assert_eq!(text(" 100 %\nUser=root\\"), "100 %% User=root");
        assert_eq!(unit_name("web-1 ä"), "web\\x2d1\\x20\\xc3\\xa4");
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        let mut unit = Unit::default();
        unit.comment("a\nb\\");
        assert_eq!(unit.into_text(), "# a b\n");
    }
}
