//! `.env`: `KEY=VALUE` lines, as shells and other dotenv readers take them.
//!
//! Values are literal: nothing is expanded in them. The last of two lines with one key wins. No message repeats a line's
//! text, which may be part of a secret.

use crate::report::Report;
use std::collections::BTreeMap;

/// Reads the text; lines that are wrong are reported and left out.
pub(crate) fn parse(text: &str, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut cursor = Cursor { text, offset: if text.starts_with('\u{feff}') { 3 } else { 0 } };
    while cursor.offset < text.len() {
        let start = cursor.offset;
        match cursor.line() {
            Ok(None) => {}
            Ok(Some((name, value))) => {
                variables.insert(name, value);
            }
            Err(message) => {
                let indent = text[start..].len() - text[start..].trim_start_matches([' ', '\t']).len();
                report.add(&(start + indent..start + indent), "", message);
                cursor.skip_line();
            }
        }
    }
    variables
}

struct Cursor<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    /// The rest of the line, without its end; moves past it.
    fn skip_line(&mut self) -> &'a str {
        let (line, length) = match self.rest().find('\n') {
            Some(newline) => (&self.rest()[..newline], newline + 1),
            None => (self.rest(), self.rest().len()),
        };
        self.offset += length;
        line
    }

    /// One line, or more where a quoted value goes on; `None` where it has no variable. After an error, the
    /// cursor is in the line at fault.
    fn line(&mut self) -> Result<Option<(String, String)>, String> {
        let line = self.rest().split('\n').next().unwrap_or_default();
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            self.skip_line();
            return Ok(None);
        }
        let Some((before, after)) = line.split_once('=') else {
            return Err("found a line without \"=\", expected KEY=VALUE".to_owned());
        };
        let name = before.trim();
        let name =
            name.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(name).trim();
        if !is_key(name) {
            return Err(
                "found another name before the \"=\", expected letters, digits and \"_\", a letter or \"_\" first"
                    .to_owned(),
            );
        }
        self.offset += before.len() + 1;
        let padding = after.len() - after.trim_start_matches([' ', '\t']).len();
        let value = match after[padding..].chars().next() {
            Some(quote @ ('"' | '\'')) => {
                self.offset += padding;
                self.quoted_value(name, quote)?
            }
            _ => unquoted_value(self.skip_line()),
        };
        match value.contains('\0') {
            true => Err(format!("the value of {name} has a zero byte in it, which no environment can hold")),
            false => Ok(Some((name.to_owned(), value))),
        }
    }

    /// A value in quotes, which may go over several lines; escapes count in double quotes alone, as in a
    /// shell.
    fn quoted_value(&mut self, name: &str, quote: char) -> Result<String, String> {
        let inside = &self.rest()[1..];
        let mut value = String::new();
        let mut characters = inside.char_indices();
        while let Some((at, character)) = characters.next() {
            if character == quote {
                return self.after_quote(name, 1 + at + 1).map(|()| value);
            }
            if character != '\\' || quote == '\'' {
                value.push(character);
                continue;
            }
            match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, escaped @ ('"' | '\\' | '$' | '`'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            }
        }
        Err(format!("the value of {name} starts with {quote} but doesn't end with it"))
    }

    /// Moves past a closing quote and its line, in which only a comment may follow.
    fn after_quote(&mut self, name: &str, length: usize) -> Result<(), String> {
        let after = self.rest()[length..].split('\n').next().unwrap_or_default().trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(format!(
                "found more text after the quoted value of {name}, expected the line to end"
            ));
        }
        self.offset += length;
        self.skip_line();
        Ok(())
    }
}

/// The value up to a comment, without the space around it. As in a shell, `#` starts one only after a space.
fn unquoted_value(line: &str) -> String {
    let comment = line
        .char_indices()
        .find(|(at, c)| *c == '#' && line[..*at].ends_with(char::is_whitespace))
        .map_or(line.len(), |(at, _)| at);
    line[..comment].trim().to_owned()
}

/// Wider than a shell's rule: `.env` files are shared with programs that allow `.` and `-`.
fn is_key(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn read(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let mut report = Report::new(Path::new(".env"), text);
        let variables = parse(text, &mut report).into_iter().collect();
        (variables, report.into_problems().iter().map(ToString::to_string).collect())
    }

    fn value(line: &str) -> String {
        let (variables, problems) = read(line);
        assert_eq!(problems, Vec::<String>::new(), "{line}");
        variables.into_iter().next().expect("one variable").1
    }

    #[test]
    fn values_are_read_as_a_shell_would() {
        for (line, expected) in [
            ("A=1", "1"),
            ("export A=1", "1"),
            ("  A = 1  ", "1"),
            ("A=", ""),
            ("A= # nothing", ""),
            ("A=a#b # c", "a#b"),
            ("A=#b", "#b"),
            ("A=a=b", "a=b"),
            ("A=\"x # y\" # c", "x # y"),
            (r#"A="a\n\"b\" \$c \d""#, "a\n\"b\" $c \\d"),
            (r"A='a\n${B}'", "a\\n${B}"),
            ("A=\"two\nlines\"\r\nB=2", "two\nlines"),
            ("A=1\r\n", "1"),
            ("\u{feff}A=1", "1"),
            ("A=1\nA=2", "2"),
        ] {
            assert_eq!(value(line), expected, "{line}");
        }
    }

    #[test]
    fn comments_and_blank_lines_say_nothing() {
        assert_eq!(read("# a\n\n   \n\t# b"), (vec![], vec![]));
    }

    #[test]
    fn a_bad_line_is_told_and_the_others_are_kept() {
        let (variables, problems) = read("A=1\n  oops\n1B=2\nC='x' y\nD=\"x\nE=5");
        assert_eq!(variables, [("A".to_owned(), "1".to_owned()), ("E".to_owned(), "5".to_owned())]);
        assert_eq!(
            problems,
            [
                ".env:2:3: found a line without \"=\", expected KEY=VALUE",
                ".env:3:1: found another name before the \"=\", expected letters, digits and \"_\", a letter or \"_\" first",
                ".env:4:1: found more text after the quoted value of C, expected the line to end",
                ".env:5:1: the value of D starts with \" but doesn't end with it",
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[A='\"\\\\\n# \r\u{feff}ä]{0,20}|\\PC*") {
            read(&text);
        }
    }
}
