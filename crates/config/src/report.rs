//! Collects what is wrong with one text, and knows the line and column of each byte of it.

use crate::error::Problem;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The problems of one file.
pub(crate) struct Report<'a> {
    file: PathBuf,
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &Path, text: &'a str) -> Self {
        Report { file: file.to_owned(), text, problems: Vec::new() }
    }

    /// Notes a problem at the start of `span`.
    pub(crate) fn add(&mut self, span: &Range<usize>, key: impl Into<String>, message: impl Into<String>) {
        let (line, column) = position(self.text, span.start);
        let (key, message) = (key.into(), message.into());
        self.problems.push(Problem { file: self.file.clone(), line, column, key, message });
    }

    /// The line, from 1, that a byte is in.
    pub(crate) fn line(&self, offset: usize) -> usize {
        position(self.text, offset).0
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

/// Line and column of a byte, both from 1; past the end is the end.
pub(crate) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_start_at_one() {
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a\nöb", 2), (2, 1));
        assert_eq!(position("a\nöb", 4), (2, 2));
        assert_eq!(position("a\r\nb", 3), (2, 1));
        assert_eq!(position("a", 99), (1, 2));
    }
}
