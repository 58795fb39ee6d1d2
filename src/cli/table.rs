//! Tables in CSV for commands that learn: a header line, cells as text or numbers, errors that name
//! the line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use super::Failure;

/// Rows a table may have; the memory of a gateway is small.
const ROWS_MAX: usize = 5_000_000;
/// Columns a table may have.
const COLUMNS_MAX: usize = 256;

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    /// Not CSV, a ragged row, or a cell that is not what it should be.
    #[error("{name}: line {line}: {what}")]
    Line {
        /// The file.
        name: String,
        /// Counted from 1, the header included.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// There is nothing in it.
    #[error("{name}: line {line}: no rows")]
    Empty {
        /// The file.
        name: String,
        /// Where rows would begin.
        line: u64,
    },
    /// Columns that are asked for are not there.
    #[error("{name}: line 1: no column {columns}; there are: {present}")]
    NoColumn {
        /// The file.
        name: String,
        /// Those that miss.
        columns: String,
        /// The header.
        present: String,
    },
}

/// A table as it was written.
pub(super) struct Table {
    name: String,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// One row and where it stands.
pub(super) struct Row {
    line: u64,
    pub(super) cells: csv::StringRecord,
}

impl Table {
    /// Reads the file at `path`; `-` is stdin.
    pub(super) fn read(path: &Path, separator: u8) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            let file = File::open(path)
                .map_err(|e| Failure::failed(format!("opening {}: {e}", path.display())))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        Self::from_reader(input, name, separator).map_err(Failure::failed)
    }

    /// Reads CSV.
    pub(super) fn from_reader(
        input: impl Read,
        name: String,
        separator: u8,
    ) -> Result<Self, TableError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(input);
        let header: Vec<String> = match reader.headers() {
            // A byte order mark is no part of a name.
            Ok(header) => {
                header.iter().map(|cell| cell.trim_start_matches('\u{feff}').to_owned()).collect()
            }
            Err(e) => return Err(TableError::Line { name, line: 1, what: e.to_string() }),
        };
        if header.is_empty() || header.iter().all(String::is_empty) {
            return Err(TableError::Empty { name, line: 1 });
        }
        let mut this = Self { name, header, rows: Vec::new() };
        if this.header.len() > COLUMNS_MAX {
            let found = this.header.len();
            return Err(
                this.wrong(1, format!("{found} columns are too many: at most {COLUMNS_MAX}"))
            );
        }
        if let Some(twice) =
            (1..this.header.len()).find(|at| this.header[..*at].contains(&this.header[*at]))
        {
            return Err(this.wrong(1, format!("two columns `{}`", this.header[twice])));
        }
        let mut record = csv::StringRecord::new();
        loop {
            let guess = this.rows.last().map_or(2, |row| row.line + 1);
            match reader.read_record(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    let line = e.position().map_or(guess, csv::Position::line);
                    return Err(this.wrong(line, e.to_string()));
                }
            }
            let line = record.position().map_or(guess, csv::Position::line);
            if record.len() != this.header.len() {
                let (found, wanted) = (record.len(), this.header.len());
                return Err(this.wrong(line, format!("{found} cells, the header has {wanted}")));
            }
            if this.rows.len() == ROWS_MAX {
                return Err(this.wrong(line, format!("more than {ROWS_MAX} rows")));
            }
            this.rows.push(Row { line, cells: std::mem::take(&mut record) });
        }
        if this.rows.is_empty() {
            return Err(TableError::Empty { name: this.name, line: 2 });
        }
        Ok(this)
    }

    /// Where these columns stand.
    pub(super) fn find<'a>(
        &self,
        columns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<usize>, Failure> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for column in columns {
            match self.header.iter().position(|name| name == column) {
                Some(at) => found.push(at),
                None => missing.push(format!("`{column}`")),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        Err(Failure::failed(TableError::NoColumn {
            name: self.name.clone(),
            columns: missing.join(", "),
            present: self.header.join(", "),
        }))
    }

    /// The number in a cell; NaN for a missing one.
    pub(super) fn number(&self, row: &Row, column: usize) -> Result<f64, Failure> {
        let text = &row.cells[column];
        number(text).ok_or_else(|| {
            let what = format!("column `{}`: `{text}` is no number", self.header[column]);
            Failure::failed(self.wrong(row.line, what))
        })
    }

    /// The failure that something is wrong in this row.
    pub(super) fn fault(&self, row: &Row, what: impl Into<String>) -> Failure {
        Failure::failed(self.wrong(row.line, what.into()))
    }

    fn wrong(&self, line: u64, what: String) -> TableError {
        TableError::Line { name: self.name.clone(), line, what }
    }
}

/// A number; NaN for a missing one; `None` for what is no finite number.
pub(super) fn number(text: &str) -> Option<f64> {
    if is_missing(text) {
        return Some(f64::NAN);
    }
    // `inf` and `1e400` are no measurements, and no way to leave one out.
    text.parse::<f64>().ok().filter(|value| !value.is_infinite())
}

/// Whether a cell says that there is no value.
pub(super) fn is_missing(text: &str) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case("nan") || text.eq_ignore_ascii_case("null")
}

/// Where results go: a file, or stdout.
pub(super) fn output(path: Option<&Path>) -> Result<Box<dyn Write>, Failure> {
    Ok(match path {
        Some(path) => Box::new(create(path)?),
        None => Box::new(std::io::stdout().lock()),
    })
}

/// Creates a file.
pub(super) fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|e| Failure::failed(format!("creating {}: {e}", path.display())))
}

/// Reads a model, not more of it than a model can have.
pub(super) fn read_model(path: &Path) -> Result<Vec<u8>, Failure> {
    use crate::analytics::model_file::SIZE_MAX;
    let failed = |e: std::io::Error| Failure::failed(format!("reading {}: {e}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(SIZE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The failure that a model cannot be used.
pub(super) fn model_fault(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("{}: {why}", path.display()))
}

/// Writes a model beside its place, then moves it there: a reader sees the old one or the new one.
pub(super) fn write_model(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("writing {}: {e}", path.display()));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = create(&beside)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}

/// The failure that a result cannot be written.
#[expect(clippy::needless_pass_by_value, reason = "the form map_err wants")]
pub(super) fn writing(error: std::io::Error) -> Failure {
    Failure::failed(format!("writing the result: {error}"))
}

/// A separator of cells.
pub(super) fn separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ if text == "\\t" => Ok(b'\t'),
        _ => Err("the separator is one character".to_owned()),
    }
}
