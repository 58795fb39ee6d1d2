//! The rows of a recording, long or wide, as readings: pure, over anything that can be read.
//!
//! A long file has the columns time, asset, tag, value and perhaps quality and reason; a wide one has
//! a time column and one column a tag.

use std::io::Read;

use crate::domain::ids::{TagKey, TagPath};
use crate::domain::reading::{Quality, RawReading, RawValue, Reason};
use crate::domain::tag::Plant;
use crate::domain::time::Timestamp;

/// What is known of the file.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Name of the time column.
    pub time: &'a str,
    /// Where the values are.
    pub columns: Columns<'a>,
}

/// Where the values of a file are.
#[derive(Debug, Clone, Copy)]
pub enum Columns<'a> {
    /// A row is a reading, and says of which tag.
    Long,
    /// Every column but the ignored ones is a tag of this asset, in the tag's unit.
    Asset(&'a str, &'a [String]),
    /// These columns are these tags, as a device would give them.
    Tags(&'a [(String, TagPath)]),
}

/// A file that cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// Not CSV.
    #[error("{name}: line 1: {what}")]
    Header {
        /// The file.
        name: String,
        /// What is wrong.
        what: String,
    },
}

/// Where the cells of a row are.
#[derive(Debug)]
enum Layout {
    Long { asset: usize, tag: usize, value: usize, quality: Option<usize>, reason: Option<usize> },
    Wide { tags: Vec<Column>, raw: bool },
}

/// A column of a wide file.
#[derive(Debug)]
struct Column {
    at: usize,
    name: String,
    asset: String,
    tag: String,
    key: Option<TagKey>,
}

/// What one row was.
#[derive(Debug, PartialEq, Eq)]
pub enum Row {
    /// There are no more.
    End,
    /// Its values have been appended; so many cells had none.
    Taken {
        /// Cells without a value.
        missing: u64,
    },
    /// It was left out, for this reason.
    Bad(String),
}

/// Reads row after row.
#[derive(Debug)]
pub struct Rows<R> {
    reader: csv::Reader<R>,
    name: String,
    width: usize,
    time: usize,
    layout: Layout,
    record: csv::StringRecord,
    count: u64,
    line: u64,
    /// The file cannot be read on.
    broken: bool,
    /// The tag of the row before: long files mostly come sorted by tag or repeat a few.
    last: Option<(String, String, Option<TagKey>)>,
}

impl<R: Read> Rows<R> {
    /// Reads the header and finds the columns.
    ///
    /// # Errors
    /// When there is no header, or a column is missing or there twice.
    pub fn open(
        input: R,
        name: &str,
        separator: u8,
        wanted: &Wanted<'_>,
    ) -> Result<Self, RowsError> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(input);
        let wrong = |what: String| RowsError::Header { name: name.to_owned(), what };
        let header: Vec<String> = match reader.headers() {
            Ok(header) => header.iter().map(str::to_owned).collect(),
            Err(error) => return Err(wrong(error.to_string())),
        };
        if header.iter().all(String::is_empty) {
            return Err(wrong("no header".to_owned()));
        }
        let find = |column: &str| header.iter().position(|name| name == column);
        let need = |column: &str| {
            find(column).ok_or_else(|| {
                wrong(format!("no column `{column}`; there are: {}", header.join(", ")))
            })
        };
        for (index, column) in header.iter().enumerate() {
            if header[..index].contains(column) {
                return Err(wrong(format!("the column `{column}` is there twice")));
            }
        }
        let time = need(wanted.time)?;
        let layout = match wanted.columns {
            Columns::Long => Layout::Long {
                asset: need("asset")?,
                tag: need("tag")?,
                value: need("value")?,
                quality: find("quality"),
                reason: find("reason"),
            },
            Columns::Asset(asset, ignore) => {
                for column in ignore {
                    need(column)?;
                }
                let columns = header.iter().enumerate();
                let columns = columns.filter(|(at, name)| *at != time && !ignore.contains(*name));
                let tags = columns.map(|(at, name)| Column {
                    at,
                    name: name.clone(),
                    asset: asset.to_owned(),
                    tag: name.clone(),
                    key: None,
                });
                Layout::Wide { tags: tags.collect(), raw: false }
            }
            Columns::Tags(columns) => {
                let tags = columns.iter().map(|(name, path)| {
                    Ok(Column {
                        at: need(name)?,
                        name: name.clone(),
                        asset: path.asset.to_string(),
                        tag: path.tag.to_string(),
                        key: None,
                    })
                });
                Layout::Wide { tags: tags.collect::<Result<_, RowsError>>()?, raw: true }
            }
        };
        if matches!(&layout, Layout::Wide { tags, .. } if tags.is_empty()) {
            return Err(wrong("no column of values is left".to_owned()));
        }
        Ok(Self {
            reader,
            name: name.to_owned(),
            width: header.len(),
            time,
            layout,
            record: csv::StringRecord::new(),
            count: 0,
            line: 1,
            broken: false,
            last: None,
        })
    }

    /// Rows so far.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Line of the row read last, the header being line 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// Reads a row and appends its readings; all of them or none.
    pub fn next(&mut self, plant: &Plant, arrived: Timestamp, into: &mut Vec<RawReading>) -> Row {
        if self.broken {
            return Row::End;
        }
        if let (0, Layout::Wide { tags, .. }) = (self.count, &mut self.layout) {
            for column in tags {
                column.key = plant.find(&column.asset, &column.tag);
            }
        }
        match self.reader.read_record(&mut self.record) {
            Ok(false) => return Row::End,
            Ok(true) => self.line = self.record.position().map_or(self.line + 1, |at| at.line()),
            Err(error) => {
                if matches!(error.kind(), csv::ErrorKind::Io(_)) {
                    // The csv reader would say the same for ever.
                    self.broken = true;
                    self.count += 1;
                    self.line += 1;
                    return Row::Bad(self.told(&error.to_string()));
                }
                self.line = error.position().map_or(self.line + 1, csv::Position::line);
                self.count += 1;
                return Row::Bad(self.told("the row is not UTF-8"));
            }
        }
        self.count += 1;
        let began = into.len();
        match self.read(plant, arrived, into) {
            Ok(missing) => Row::Taken { missing },
            Err(what) => {
                into.truncate(began);
                Row::Bad(self.told(&what))
            }
        }
    }

    fn told(&self, what: &str) -> String {
        format!("{}: line {}: {what}", self.name, self.line)
    }

    fn read(
        &mut self,
        plant: &Plant,
        arrived: Timestamp,
        into: &mut Vec<RawReading>,
    ) -> Result<u64, String> {
        let record = &self.record;
        if record.len() != self.width {
            return Err(format!("{} cells, the header has {}", record.len(), self.width));
        }
        let time = moment(&record[self.time])
            .ok_or_else(|| format!("`{}` is no time", &record[self.time]))?;
        let reading = |tag, value| RawReading {
            tag,
            source_time: Some(time),
            arrived,
            value,
            retained: false,
        };
        let mut missing = 0;
        match &self.layout {
            Layout::Long { asset, tag, value, quality, reason } => {
                let (asset, tag) = (&record[*asset], &record[*tag]);
                let same = self.last.as_ref().filter(|last| last.0 == asset && last.1 == tag);
                let key = match same {
                    Some((_, _, key)) => *key,
                    None => {
                        let key = plant.find(asset, tag);
                        self.last = Some((asset.to_owned(), tag.to_owned(), key));
                        key
                    }
                };
                let key = key.ok_or_else(|| format!("no source declares the tag {asset}/{tag}"))?;
                let cell = |column: &Option<usize>| column.map_or("", |column| &record[column]);
                let told = judged(cell(quality), cell(reason))?;
                match (number(&record[*value])?, told) {
                    (Some(value), told) => {
                        let told = told.unwrap_or(Quality::Good);
                        into.push(reading(key, RawValue::Scaled(value, told)));
                    }
                    (None, Some(Quality::Bad(reason))) => {
                        into.push(reading(key, RawValue::Failed(reason)));
                    }
                    (None, None) => missing += 1,
                    (None, Some(Quality::Good | Quality::Uncertain(_))) => {
                        return Err("there is no value, but a quality that needs one".to_owned());
                    }
                }
            }
            Layout::Wide { tags, raw } => {
                for Column { at, name, asset, tag, key } in tags {
                    let value =
                        number(&record[*at]).map_err(|what| format!("column `{name}`: {what}"))?;
                    let Some(value) = value else {
                        missing += 1;
                        continue;
                    };
                    let key =
                        key.ok_or_else(|| format!("no source declares the tag {asset}/{tag}"))?;
                    let value = match raw {
                        true => RawValue::Number(value),
                        false => RawValue::Scaled(value, Quality::Good),
                    };
                    into.push(reading(key, value));
                }
            }
        }
        Ok(missing)
    }
}

/// A number; `None` for a missing one.
fn number(text: &str) -> Result<Option<f64>, String> {
    if text.is_empty() || text.eq_ignore_ascii_case("nan") || text.eq_ignore_ascii_case("null") {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Some(value)),
        Ok(_) | Err(_) => Err(format!("`{text}` is no number")),
    }
}

/// What a row says of its value; `None` when it says nothing.
fn judged(quality: &str, reason: &str) -> Result<Option<Quality>, String> {
    let why = || {
        if reason.is_empty() {
            // Who doubts a value without saying why is a device that cannot tell.
            return Ok(Reason::Device);
        }
        Reason::ALL
            .into_iter()
            .find(|known| known.as_str() == reason)
            .ok_or_else(|| format!("`{reason}` is no reason"))
    };
    match quality {
        "" | "good" if !reason.is_empty() => {
            Err(format!("a reason, `{reason}`, for a value that is good"))
        }
        "" => Ok(None),
        "good" => Ok(Some(Quality::Good)),
        "uncertain" => Ok(Some(Quality::Uncertain(why()?))),
        "bad" => Ok(Some(Quality::Bad(why()?))),
        other => Err(format!("`{other}` is no quality: good, uncertain, bad")),
    }
}

/// RFC 3339, `YYYY-MM-DD hh:mm:ss` as UTC, or seconds since 1970.
#[must_use]
pub fn moment(text: &str) -> Option<Timestamp> {
    if let Some(moment) = Timestamp::parse_rfc3339(text) {
        return Some(moment);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let micros = (seconds * 1e6).round();
        #[expect(clippy::cast_possible_truncation, reason = "rounded, and far below 2^63")]
        return (micros.abs() < 9e18).then(|| Timestamp::from_micros(micros as i64));
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let moment = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(Timestamp::from_micros(moment.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quality_needs_its_words() {
        assert_eq!(judged("", ""), Ok(None));
        assert_eq!(judged("bad", "comm"), Ok(Some(Quality::Bad(Reason::Comm))));
        assert_eq!(judged("uncertain", ""), Ok(Some(Quality::Uncertain(Reason::Device))));
        for (quality, reason) in [("good", "comm"), ("", "comm"), ("fine", ""), ("bad", "x")] {
            assert!(judged(quality, reason).is_err(), "{quality} {reason}");
        }
    }

    #[test]
    fn times_are_read_to_the_microsecond() {
        let micros = |text| moment(text).map(Timestamp::micros);
        assert_eq!(micros("2026-05-01T10:20:30.123456Z"), Some(1_777_630_830_123_456));
        assert_eq!(micros("2026-05-01 10:20:30"), Some(1_777_630_830_000_000));
        assert_eq!(micros("1777630830.5"), Some(1_777_630_830_500_000));
        assert_eq!(micros("yesterday"), None);
        assert_eq!(micros("NaN"), None);
        assert_eq!(micros("1e300"), None);
    }
}
