//! Mistakes in a configuration: where each one is, and what is wrong.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

/// One mistake, with the place where a person has to go to put it right.
///
/// Printed as `FILE:LINE:COLUMN: table.key: what is wrong`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file; for an override, the name of the environment variable behind a `$`.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Table and key, e.g. `modbus.tag.point`; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// All mistakes of a configuration, in the order of the file; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigErrors {
    /// The mistakes.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At this byte of the file.
    Byte(usize),
    /// At this byte of another file: a profile.
    In(Arc<Origin>, usize),
    /// In this environment variable.
    Variable(Arc<str>),
}

/// A file and its text, for lines and columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    file: PathBuf,
    text: String,
    /// Byte at which each line begins.
    lines: Vec<usize>,
}

impl Origin {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        let lines = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(i, _)| i + 1))
            .collect();
        Self { file: file.to_owned(), text: text.to_owned(), lines }
    }

    fn line_and_column(&self, byte: usize) -> (usize, usize) {
        let byte = byte.min(self.text.len());
        let line = self.lines.partition_point(|begin| *begin <= byte).max(1);
        let begin = self.lines[line - 1];
        let column = self.text.as_bytes()[begin..byte]
            .iter()
            // Continuation bytes of UTF-8 belong to the character before them.
            .filter(|byte| **byte & 0xc0 != 0x80)
            .count();
        (line, column + 1)
    }
}

/// Gathers mistakes while a configuration is read.
#[derive(Debug)]
pub(super) struct Report {
    origin: Origin,
    found: RefCell<Vec<Found>>,
}

#[derive(Debug)]
struct Found {
    mistake: Mistake,
    kind: Kind,
}

/// Mistakes that may be mere consequences of a syntax error are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Syntax,
    Missing,
    Other,
}

impl Report {
    pub(super) fn new(origin: &Path, text: &str) -> Self {
        Self { origin: Origin::new(origin, text), found: RefCell::default() }
    }

    /// The file as a whole cannot be used.
    pub(super) fn whole_file(origin: &Path, what: String) -> ConfigErrors {
        let file = origin.to_owned();
        let mistake = Mistake { file, line: 1, column: 1, key: String::new(), what };
        ConfigErrors { mistakes: vec![mistake] }
    }

    pub(super) fn wrong(&self, place: &Place, key: &str, what: impl Into<String>) {
        self.push(place, key, what.into(), Kind::Other);
    }

    pub(super) fn missing(&self, place: &Place, key: &str, what: impl Into<String>) {
        self.push(place, key, what.into(), Kind::Missing);
    }

    pub(super) fn syntax(&self, place: &Place, what: impl Into<String>) {
        self.push(place, "", what.into(), Kind::Syntax);
    }

    /// Whether nothing was found.
    pub(super) fn is_clean(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All that was found, in the order of the file, overrides last.
    ///
    /// After a syntax error the parser goes on as well as it can; what it then finds on the same
    /// line, or misses, is left out, because it may be there.
    pub(super) fn into_errors(self) -> ConfigErrors {
        let found = self.found.into_inner();
        let broken: Vec<(PathBuf, usize)> = found
            .iter()
            .filter(|found| found.kind == Kind::Syntax)
            .map(|found| (found.mistake.file.clone(), found.mistake.line))
            .collect();
        let believed = |found: &Found| match found.kind {
            Kind::Syntax => true,
            Kind::Missing => broken.is_empty(),
            Kind::Other => !broken
                .iter()
                .any(|(file, line)| *file == found.mistake.file && *line == found.mistake.line),
        };
        let mut mistakes: Vec<Mistake> =
            found.into_iter().filter(believed).map(|found| found.mistake).collect();
        let origin = &self.origin.file;
        mistakes.sort_by(|a, b| {
            let order = |m: &Mistake| (m.file != *origin, m.file.clone(), m.line, m.column);
            order(a).cmp(&order(b))
        });
        mistakes.dedup();
        ConfigErrors { mistakes }
    }

    fn push(&self, place: &Place, key: &str, what: String, kind: Kind) {
        let (file, line, column) = match place {
            Place::Byte(byte) => {
                let (line, column) = self.origin.line_and_column(*byte);
                (self.origin.file.clone(), line, column)
            }
            Place::In(origin, byte) => {
                let (line, column) = origin.line_and_column(*byte);
                (origin.file.clone(), line, column)
            }
            Place::Variable(name) => (PathBuf::from(format!("${name}")), 1, 1),
        };
        let mistake = Mistake { file, line, column, key: key.to_owned(), what };
        self.found.borrow_mut().push(Found { mistake, kind });
    }
}
