//! The words of a command, by a shell's rules for quotes and variables. No shell is run: what only a shell could do is
//! a fault that names it.
//!
//! ```text
//! a\ b 'c $d' "e $F ${G:-h}"  # comment      ->  [a b] [c $d] [e ${F} ${G:-h}]
//! ```
//!
//! A variable's value is never split into words: `$OPTIONS` is one argument.

use crate::expand::{escape, is_variable_name};
use crate::spelling::quoted;
use std::ops::Range;

/// One word, and where it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) span: Range<usize>,
    /// The word in the form of a formation's string: `${NAME}` for a variable, `$${` for a `${` of its own.
    pub(super) text: String,
    /// The bytes of `text`, from its beginning, that stand in the file just so, without a quote or an escape.
    pub(super) plain_bytes: usize,
}

/// The parts of a command, and what is wrong with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) words: Vec<Word>,
    /// The text behind `#`, where there is one.
    pub(super) comment: Option<String>,
    pub(super) faults: Vec<(Range<usize>, String)>,
}

/// Reads a command that stands at `offset` of its file, on one line.
pub(super) fn words(command: &str, offset: usize) -> Words {
    let mut reader = Reader { rest: command, offset, found: Words::default() };
    while reader.word() {}
    reader.found
}

struct Reader<'a> {
    rest: &'a str,
    /// Where `rest` begins in the file.
    offset: usize,
    found: Words,
}

/// A word that is being read.
#[derive(Default)]
struct Writing {
    text: String,
    /// Literal text that isn't in `text` yet: it is escaped as a whole.
    literal: String,
    plain_bytes: usize,
    is_plain: bool,
}

impl Writing {
    fn push_plain(&mut self, c: char) {
        self.literal.push(c);
        if self.is_plain {
            self.plain_bytes += c.len_utf8();
        }
    }

    fn push_quoted(&mut self, text: &str) {
        self.is_plain = false;
        self.literal.push_str(text);
    }

    /// False where a `$` stands before the variable: a formation's string has no form for that.
    fn push_variable(&mut self, variable: &str) -> bool {
        self.is_plain = false;
        let is_told_apart = !self.literal.ends_with('$');
        self.flush();
        self.text.push_str(variable);
        is_told_apart
    }

    fn flush(&mut self) {
        self.text.push_str(&escape(&std::mem::take(&mut self.literal)));
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
        self.offset += bytes;
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.skip(c.len_utf8());
        Some(c)
    }

    /// A fault at the next `bytes` of the command.
    fn fault(&mut self, bytes: usize, message: String) {
        self.found.faults.push((self.offset..self.offset + bytes, message));
    }

    /// Reads one word; false at the end, and where a shell would go on with another command.
    fn word(&mut self) -> bool {
        let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r']).len();
        self.skip(blank);
        if let Some(comment) = self.rest.strip_prefix('#') {
            self.found.comment = Some(comment.trim().to_owned());
            return false;
        }
        if self.rest.is_empty() {
            return false;
        }
        let start = self.offset;
        let mut word = Writing { is_plain: true, ..Writing::default() };
        let goes_on = self.parts_of(&mut word, start);
        let is_empty_at_an_operator = !goes_on && start == self.offset;
        word.flush();
        if !is_empty_at_an_operator {
            let Writing { text, plain_bytes, .. } = word;
            self.found.words.push(Word { span: start..self.offset, text, plain_bytes });
        }
        goes_on
    }

    /// Reads until the word's end; false where nothing that follows can be read.
    fn parts_of(&mut self, word: &mut Writing, start: usize) -> bool {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' => return true,
                '\'' => {
                    if !self.single_quoted(word) {
                        return false;
                    }
                }
                '"' => {
                    if !self.double_quoted(word) {
                        return false;
                    }
                }
                '\\' => {
                    self.skip(1);
                    match self.next() {
                        Some(escaped) => word.push_quoted(escaped.encode_utf8(&mut [0; 4])),
                        None => {
                            let message =
                                "found \"\\\" at the line's end, expected the whole command on one line";
                            self.found.faults.push((self.offset - 1..self.offset, message.to_owned()));
                            return false;
                        }
                    }
                }
                '$' => {
                    if !self.variable(word) {
                        return false;
                    }
                }
                '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' => {
                    self.operator();
                    return false;
                }
                '*' | '?' | '[' => {
                    let message = format!(
                        "found {}, a pattern of file names that no shell is there to expand: put it in quotes where it stands for itself",
                        quoted(&c.to_string())
                    );
                    self.fault(1, message);
                    self.skip(1);
                }
                '~' if self.offset == start => {
                    let message = "found \"~\", a folder that no shell is there to look up: write its path, or put it in quotes where it stands for itself";
                    self.fault(1, message.to_owned());
                    self.skip(1);
                }
                c => {
                    self.skip(c.len_utf8());
                    word.push_plain(c);
                }
            }
        }
        true
    }

    fn single_quoted(&mut self, word: &mut Writing) -> bool {
        match self.rest[1..].split_once('\'') {
            Some((inside, _)) => {
                word.push_quoted(inside);
                self.skip(inside.len() + 2);
                true
            }
            None => self.unclosed('\''),
        }
    }

    fn double_quoted(&mut self, word: &mut Writing) -> bool {
        let (rest, offset) = (self.rest, self.offset);
        self.skip(1);
        word.push_quoted("");
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.skip(1);
                    return true;
                }
                '\\' => {
                    self.skip(1);
                    match self.next() {
                        Some(escaped @ ('$' | '`' | '"' | '\\')) => {
                            word.push_quoted(escaped.encode_utf8(&mut [0; 4]))
                        }
                        Some(other) => word.push_quoted(&format!("\\{other}")),
                        None => break,
                    }
                }
                '$' => {
                    if !self.variable(word) {
                        return false;
                    }
                }
                '`' => {
                    self.operator();
                    return false;
                }
                c => {
                    self.skip(c.len_utf8());
                    word.push_quoted(c.encode_utf8(&mut [0; 4]));
                }
            }
        }
        (self.rest, self.offset) = (rest, offset);
        self.unclosed('"')
    }

    fn unclosed(&mut self, quote: char) -> bool {
        let message = format!(
            "found {quote} without the {quote} that closes it; before one that stands for itself, write \\"
        );
        self.fault(1, message);
        self.skip(self.rest.len());
        false
    }

    /// `$NAME`, `${NAME}`, `${NAME:-default}`, or a `$` that stands for itself. False where nothing that follows can be
    /// read.
    fn variable(&mut self, word: &mut Writing) -> bool {
        let after = &self.rest[1..];
        let name_bytes = after
            .char_indices()
            .find(|(at, c)| !(c.is_ascii_alphabetic() || *c == '_' || (*at > 0 && c.is_ascii_digit())))
            .map_or(after.len(), |(at, _)| at);
        if name_bytes > 0 {
            let name = &after[..name_bytes];
            self.push_variable(word, &format!("${{{name}}}"), 1 + name_bytes);
            return true;
        }
        match after.chars().next() {
            Some('{') => self.variable_in_braces(word),
            Some('(') => {
                self.operator();
                false
            }
            Some(c @ ('0'..='9' | '@' | '*' | '#' | '?' | '$' | '!' | '-')) => {
                let found = quoted(&format!("${c}"));
                let message = format!(
                    "found {found}, which only a shell knows; expected a variable such as \"$NAME\", or \"\\$\" for a $ that stands for itself"
                );
                self.fault(2, message);
                self.skip(2);
                true
            }
            _ => {
                word.push_quoted("$");
                self.skip(1);
                true
            }
        }
    }

    fn variable_in_braces(&mut self, word: &mut Writing) -> bool {
        let Some((inside, _)) = self.rest[2..].split_once('}') else {
            let message = "found \"${\" without its \"}\"; for a $ that stands for itself, write \"\\$\"";
            self.fault(2, message.to_owned());
            self.skip(self.rest.len());
            return false;
        };
        let bytes = inside.len() + 3;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, default),
            None => (inside, ""),
        };
        if !is_variable_name(name) || default.contains(['$', '`', '\\', '"', '\'', '{']) {
            let message = format!(
                "found {}, expected \"${{NAME}}\" or \"${{NAME:-default}}\" with a plain default",
                quoted(&format!("${{{inside}}}"))
            );
            self.fault(bytes, message);
            self.skip(bytes);
            return true;
        }
        self.push_variable(word, &format!("${{{inside}}}"), bytes);
        true
    }

    fn push_variable(&mut self, word: &mut Writing, variable: &str, bytes: usize) {
        // The host listens, and a guest that asks is told the port that this would be.
        let variable = if variable == "${PORT}" { super::PORT } else { variable };
        if !word.push_variable(variable) {
            let message = "found a variable right behind a $ that stands for itself, which can't be told apart: give the whole text by one variable";
            self.fault(bytes, message.to_owned());
        }
        self.skip(bytes);
    }

    /// Names what only a shell does; what follows it is no argument of ours.
    fn operator(&mut self) {
        const OPERATORS: [(&str, &str); 13] = [
            ("||", "another command if the first fails"),
            ("|", "a pipe"),
            ("&&", "another command after the first"),
            ("&", "a command in the background"),
            (";", "another command after the first"),
            ("<<", "a text for its standard input"),
            ("<", "a file for its standard input"),
            (">>", "a file for its output"),
            (">", "a file for its output"),
            ("$((", "arithmetic"),
            ("$(", "the output of another command"),
            ("`", "the output of another command"),
            ("(", "a group of commands"),
        ];
        let operator = OPERATORS.iter().find(|(operator, _)| self.rest.starts_with(operator));
        let (operator, means) = operator.copied().unwrap_or((")", "the end of a group of commands"));
        let message = format!(
            "found {}, {means}, and no shell is run; expected the component and its arguments alone (in quotes it stands for itself)",
            quoted(operator)
        );
        self.fault(operator.len(), message);
    }
}
