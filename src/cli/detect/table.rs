//! The recording: CSV with a header line, times in any of three forms, missing cells.

use std::io::BufRead;

use super::Row;
use crate::domain::time::Timestamp;

/// Which column is what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    time: Option<usize>,
    label: Option<usize>,
    /// Columns the detector sees.
    pub(super) values: Vec<usize>,
    /// Their names.
    pub(super) names: Vec<String>,
}

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    /// Not CSV, a ragged row, or the file cannot be read on.
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
    /// A column that is asked for is not there.
    #[error("{name}: line 1: no column `{column}`; there are: {present}")]
    NoColumn {
        /// The file.
        name: String,
        /// The column.
        column: String,
        /// The header.
        present: String,
    },
    /// A column that is asked for is there more than once.
    #[error("{name}: line 1: the column `{column}` is there more than once")]
    Twice {
        /// The file.
        name: String,
        /// The column.
        column: String,
    },
    /// No column is left to judge.
    #[error("{name}: line 1: no column is left to judge")]
    NoValues {
        /// The file.
        name: String,
    },
}

/// Reads rows one by one.
pub(super) struct Rows<R> {
    reader: csv::Reader<R>,
    name: String,
    header: Vec<String>,
    record: csv::StringRecord,
    count: u64,
}

impl<R: BufRead> Rows<R> {
    /// Reads the header.
    pub(super) fn open(input: R, name: String, separator: u8) -> Result<Self, TableError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(input);
        let header: Vec<String> = match reader.headers() {
            Ok(header) => header.iter().map(str::to_owned).collect(),
            Err(e) => return Err(TableError::Line { name, line: 1, what: e.to_string() }),
        };
        if header.is_empty() || header.iter().all(String::is_empty) {
            return Err(TableError::Empty { name, line: 1 });
        }
        Ok(Self { reader, name, header, record: csv::StringRecord::new(), count: 0 })
    }

    /// The error for a file without rows.
    pub(super) fn empty(&self) -> TableError {
        TableError::Empty { name: self.name.clone(), line: 2 }
    }

    /// Names that the header has more than once.
    pub(super) fn repeated(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.header.iter().map(String::as_str).collect();
        names.sort_unstable();
        let mut repeated: Vec<&str> =
            names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        repeated.dedup();
        repeated
    }

    /// Finds the columns.
    pub(super) fn layout(
        &self,
        time: Option<&str>,
        label: Option<&str>,
        ignore: &[String],
    ) -> Result<Layout, TableError> {
        let find = |column: &str| {
            let mut places = (0..self.header.len()).filter(|at| self.header[*at] == column);
            let name = || self.name.clone();
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                // Which of the two is meant, nobody can tell.
                (Some(_), Some(_)) => {
                    Err(TableError::Twice { name: name(), column: column.to_owned() })
                }
                (None, _) => Err(TableError::NoColumn {
                    name: name(),
                    column: column.to_owned(),
                    present: self.header.join(", "),
                }),
            }
        };
        let time = time.map(find).transpose()?;
        let label = label.map(find).transpose()?;
        let mut left_out: Vec<usize> = time.into_iter().chain(label).collect();
        for column in ignore.iter().filter(|column| !column.is_empty()) {
            left_out.push(find(column)?);
        }
        let values: Vec<usize> =
            (0..self.header.len()).filter(|column| !left_out.contains(column)).collect();
        if values.is_empty() {
            return Err(TableError::NoValues { name: self.name.clone() });
        }
        let names = values.iter().map(|column| self.header[*column].clone()).collect();
        Ok(Layout { time, label, values, names })
    }

    /// The next row; `None` at the end.
    pub(super) fn next(&mut self, layout: &Layout) -> Result<Option<Row>, TableError> {
        let more = match self.reader.read_record(&mut self.record) {
            Ok(more) => more,
            Err(e) => {
                let line = e.position().map_or(self.count + 2, csv::Position::line);
                return Err(self.wrong(line, &e.to_string()));
            }
        };
        if !more {
            return Ok(None);
        }
        let line = self.record.position().map_or(self.count + 2, csv::Position::line);
        if self.record.len() != self.header.len() {
            let (found, wanted) = (self.record.len(), self.header.len());
            return Err(self.wrong(line, &format!("{found} cells, the header has {wanted}")));
        }
        let (written, seconds) = match layout.time {
            None => (self.count.to_string(), self.count as f64),
            Some(column) => {
                let text = &self.record[column];
                let seconds = seconds(text)
                    .ok_or_else(|| self.wrong(line, &format!("`{text}` is no time")))?;
                (text.to_owned(), seconds)
            }
        };
        let mut values = Vec::with_capacity(layout.values.len());
        for (column, name) in layout.values.iter().zip(&layout.names) {
            let text = &self.record[*column];
            let value = number(text).ok_or_else(|| {
                self.wrong(line, &format!("column `{name}`: `{text}` is no number"))
            })?;
            values.push(value);
        }
        let label = match layout.label {
            None => false,
            Some(column) => {
                let text = &self.record[column];
                number(text)
                    .ok_or_else(|| self.wrong(line, &format!("label `{text}` is no number")))?
                    > 0.5
            }
        };
        self.count += 1;
        Ok(Some(Row { line, written: quoted(written), seconds, values, label }))
    }

    fn wrong(&self, line: u64, what: &str) -> TableError {
        TableError::Line { name: self.name.clone(), line, what: what.to_owned() }
    }
}

/// A cell as CSV wants it; times hold no separator as a rule.
pub(in crate::cli) fn quoted(text: String) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// A number; NaN for a missing one.
pub(in crate::cli) fn number(text: &str) -> Option<f64> {
    if text.is_empty() || text.eq_ignore_ascii_case("nan") || text.eq_ignore_ascii_case("null") {
        return Some(f64::NAN);
    }
    // `inf` and `1e400` are no measurements, and no way to leave one out.
    text.parse::<f64>().ok().filter(|value| !value.is_infinite())
}

/// A time in seconds: a plain number, `YYYY-MM-DD hh:mm:ss` as UTC, or RFC 3339.
pub(in crate::cli) fn seconds(text: &str) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then_some(number);
    }
    if let Some(moment) = Timestamp::parse_rfc3339(text) {
        return Some(moment.seconds());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let moment = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(moment.as_microsecond() as f64 / 1e6)
}
