//! One column of a recording with its times, and times written as they were read.

use std::io::BufRead;

use jiff::tz::{Offset, TimeZone};

use crate::cli::detect::table::{number, quoted, seconds};

/// Newest rows that are kept: sixteen for each point that is looked at.
const ROWS_MAX: usize = 16 * crate::analytics::forecast::POINTS_MAX;

/// A column of a recording.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    /// Seconds.
    pub(super) times: Vec<f64>,
    /// NaN where missing.
    pub(super) values: Vec<f64>,
    /// The newest time as it was written.
    pub(super) newest: String,
    /// Rows before the kept ones.
    pub(super) left_out: usize,
}

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{name}: line {line}: {what}")]
pub(super) struct Unreadable {
    name: String,
    /// Counted from 1, the header included.
    line: u64,
    what: String,
}

/// Reads `column` and the times beside it: those of `time_column`, else of a column `time`, else of
/// the first. A file with that column alone is taken as one row a second.
pub(super) fn read(
    input: impl BufRead,
    name: &str,
    separator: u8,
    column: &str,
    time_column: Option<&str>,
) -> Result<Column, Unreadable> {
    let wrong = |line: u64, what: String| Unreadable { name: name.to_owned(), line, what };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(input);
    let header = reader.headers().map_err(|e| wrong(1, e.to_string()))?.clone();
    if header.iter().all(str::is_empty) {
        return Err(wrong(1, "no rows".to_owned()));
    }
    let find = |wanted: &str| {
        let mut places = header.iter().enumerate().filter(|(_, name)| *name == wanted);
        match (places.next(), places.next()) {
            (Some((place, _)), None) => Ok(place),
            (Some(_), Some(_)) => Err(wrong(1, format!("column `{wanted}` is there twice"))),
            (None, _) => {
                let present = header.iter().collect::<Vec<_>>().join(", ");
                Err(wrong(1, format!("no column `{wanted}`; there are: {present}")))
            }
        }
    };
    let value_at = find(column)?;
    let time_at = match time_column {
        Some(time) => Some(find(time)?),
        None if header.iter().any(|name| name == "time") => Some(find("time")?),
        None => Some(0).filter(|first| *first != value_at),
    };
    if time_at.is_none() && header.len() > 1 {
        let what = format!("column `{column}` is the first: name the time with --time-column");
        return Err(wrong(1, what));
    }
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut newest = (f64::NEG_INFINITY, String::new());
    let mut rows = 0_u64;
    let mut left_out = 0;
    let mut record = csv::StringRecord::new();
    loop {
        let more = reader.read_record(&mut record).map_err(|e| {
            wrong(e.position().map_or(rows + 2, csv::Position::line), e.to_string())
        })?;
        if !more {
            break;
        }
        let line = record.position().map_or(rows + 2, csv::Position::line);
        if record.len() != header.len() {
            let (found, wanted) = (record.len(), header.len());
            return Err(wrong(line, format!("{found} cells, the header has {wanted}")));
        }
        let (time, written) = match time_at {
            None => (rows as f64, rows.to_string()),
            Some(place) => {
                let text = &record[place];
                let time =
                    seconds(text).ok_or_else(|| wrong(line, format!("`{text}` is no time")))?;
                (time, text.to_owned())
            }
        };
        let text = &record[value_at];
        let value = number(text)
            .ok_or_else(|| wrong(line, format!("column `{column}`: `{text}` is no number")))?;
        if time >= newest.0 {
            newest = (time, written);
        }
        times.push(time);
        values.push(value);
        rows += 1;
        if times.len() >= 2 * ROWS_MAX {
            left_out += ROWS_MAX;
            times.drain(..ROWS_MAX);
            values.drain(..ROWS_MAX);
        }
    }
    if rows == 0 {
        return Err(wrong(2, "no rows".to_owned()));
    }
    Ok(Column { times, values, newest: newest.1, left_out })
}

/// How times of a recording are written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TimeForm {
    /// A plain number with so many decimals.
    Number(usize),
    /// A calendar time; the format of `strftime`, in this offset from UTC.
    Calendar(String, Offset),
}

impl TimeForm {
    /// The form of `text`, with as many decimals as steps of `step_s` seconds need.
    pub(super) fn of(text: &str, step_s: f64) -> Self {
        let decimals = decimals(step_s);
        if text.parse::<f64>().is_ok() {
            let written = text.split_once('.').map_or(0, |(_, fraction)| {
                fraction.bytes().take_while(u8::is_ascii_digit).count().min(9)
            });
            return Self::Number(decimals.max(written));
        }
        let (civil, zone) = split_zone(text);
        let separator = civil.as_bytes().get(10).map(|byte| char::from(*byte));
        let whole_days = step_s % 86_400.0;
        if separator.is_none() && whole_days.abs() < 1e-6 {
            return Self::Calendar("%Y-%m-%d".to_owned(), Offset::UTC);
        }
        let written = civil.rsplit_once('.').map_or(0, |(_, fraction)| fraction.len().min(9));
        let mut format = format!("%Y-%m-%d{}%H:%M:%S", separator.unwrap_or(' '));
        match decimals.max(written) {
            0 => {}
            digits => format.push_str(&format!("%.{digits}f")),
        }
        format.push_str(match zone {
            "" => "",
            "Z" => "Z",
            "z" => "z",
            _ => "%:z",
        });
        Self::Calendar(format, offset(zone))
    }

    /// Writes a moment, given in seconds; empty when it lies outside the calendar.
    pub(super) fn write(&self, seconds: f64) -> String {
        match self {
            Self::Number(decimals) => format!("{seconds:.decimals$}"),
            Self::Calendar(format, offset) => {
                #[expect(clippy::cast_possible_truncation, reason = "saturates")]
                let micros = (seconds * 1e6).round() as i64;
                let moment = jiff::Timestamp::from_microsecond(micros).ok();
                let text = moment.map(|moment| {
                    let there = moment.to_zoned(TimeZone::fixed(*offset));
                    there.strftime(format).to_string()
                });
                quoted(text.unwrap_or_default())
            }
        }
    }
}

/// Decimals, at most 6, that times in steps of `step_s` need.
fn decimals(step_s: f64) -> usize {
    let exact = |digits: &i32| {
        let scaled = step_s * 10.0_f64.powi(*digits);
        (scaled - scaled.round()).abs() < 1e-6 * scaled.abs().max(1.0)
    };
    (0..6).find(exact).and_then(|digits| usize::try_from(digits).ok()).unwrap_or(6)
}

/// A calendar time and its zone: `Z`, `+02:00` or nothing.
fn split_zone(text: &str) -> (&str, &str) {
    if let Some(at) = text.find(['Z', 'z']) {
        return text.split_at(at);
    }
    let sign = text.get(11..).and_then(|clock| clock.rfind(['+', '-']));
    sign.map_or((text, ""), |sign| text.split_at(11 + sign))
}

fn offset(zone: &str) -> Offset {
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits: Vec<i32> =
        zone.chars().filter_map(|c| c.to_digit(10)).filter_map(|d| i32::try_from(d).ok()).collect();
    let [a, b, rest @ ..] = digits.as_slice() else { return Offset::UTC };
    let minutes = if let [c, d, ..] = rest { 10 * c + d } else { 0 };
    Offset::from_seconds(sign * (3600 * (10 * a + b) + 60 * minutes)).unwrap_or(Offset::UTC)
}
