//! Collects what is wrong with one text, and knows the line and column of each byte of it.

use crate::error::Problem;
use crate::shown::{TEXT_BYTES_MAX, one_line};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The problems of one file.
pub(crate) struct Report<'a> {
    file: PathBuf,
    text: &'a str,
    /// Where each line begins. A file with a problem in each of its lines is looked at once for each of them.
    lines: Vec<usize>,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &Path, text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(newline, _)| newline + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        Report { file: file.to_owned(), text, lines, problems: Vec::new() }
    }

    /// Notes a problem at the start of `span`. A key may be quoted, and have anything in it.
    pub(crate) fn add(&mut self, span: &Range<usize>, key: impl Into<String>, message: impl Into<String>) {
        let (line, column) = self.position(span.start);
        let fit = |text: String| one_line(&text, TEXT_BYTES_MAX).into_owned();
        let (key, message) = (fit(key.into()), fit(message.into()));
        self.problems.push(Problem { file: self.file.clone(), line, column, key, message });
    }

    /// The line, from 1, that a byte is in.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.position(offset).0
    }

    /// Line and column of a byte, both from 1; past the end is the end.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        (line, self.text[self.lines[line - 1]..offset].chars().count() + 1)
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, offset: usize) -> (usize, usize) {
        Report::new(Path::new(""), text).position(offset)
    }

    #[test]
    fn columns_count_characters_and_start_at_one() {
        assert_eq!(at("", 0), (1, 1));
        assert_eq!(at("a\nöb", 2), (2, 1));
        assert_eq!(at("a\nöb", 4), (2, 2));
        assert_eq!(at("a\r\nb", 3), (2, 1));
        assert_eq!(at("a", 99), (1, 2));
    }
}
