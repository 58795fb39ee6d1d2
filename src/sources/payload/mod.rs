//! Pure: MQTT payloads become raw values. Bytes in, values by slot out; [`decode`] is the door.
//!
//! One message is read once, however many tags it feeds: each tag has a *slot* of the format, and
//! what lies beside the slots' way is skipped without being built. Bounds: the length is checked
//! before anything is looked at, JSON has at most [`DEPTH_MAX`] levels and [`KEYS_MAX`] keys, CSV at
//! most [`ROWS_MAX`] lines. Of a repeated key the last one counts. Readings are `f64`: an integer
//! that they cannot hold exactly is said to be [`Value::Inexact`], never rounded.

mod cells;
mod json;

pub use cells::{CsvPlan, CsvSlot};
pub use json::{JsonPlan, Pointer};

use crate::config::Samples;
use crate::domain::time::Timestamp;

/// Longest payload that is looked at, in bytes, unless configured otherwise.
pub const BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of a JSON document.
pub const DEPTH_MAX: usize = 32;
/// Most keys in a JSON document, all objects together.
pub const KEYS_MAX: usize = 256;
/// Most lines of CSV in one message.
pub const ROWS_MAX: usize = 4_096;

/// Numbers from here on are milliseconds since 1970, smaller ones seconds: as seconds this is the
/// year 5138, as milliseconds March 1973.
const MILLIS_FROM: f64 = 1e11;

/// Why a payload is of no use. Such messages are counted and acknowledged, and their tags are bad.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Longer than what is looked at.
    #[error("{length} bytes are more than the {most} that are looked at")]
    TooLong {
        /// Bytes that came.
        length: usize,
        /// Bytes that are looked at.
        most: usize,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// More keys than [`KEYS_MAX`].
    #[error("more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// More lines than [`ROWS_MAX`].
    #[error("more than {ROWS_MAX} lines")]
    TooManyRows,
    /// Not JSON.
    #[error("not JSON: {what}")]
    Json {
        /// What the parser says.
        what: String,
    },
    /// Nothing at the pointer or in the column.
    #[error("nothing at `{place}`")]
    Missing {
        /// The pointer or the column.
        place: String,
    },
    /// Neither a number nor the name of a state.
    #[error("not a number")]
    Text,
    /// Not a whole number of samples.
    #[error("{length} bytes are no samples of {width} bytes each")]
    Samples {
        /// Bytes that came.
        length: usize,
        /// Bytes of a sample.
        width: usize,
    },
}

/// What was found for a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number; `true` and `false` are 1 and 0.
    Number(f64),
    /// An integer that no `f64` holds.
    Inexact,
    /// A text that is no number.
    Text(Box<str>),
    /// Evenly spaced samples, oldest first; at least two.
    Samples(Box<[f32]>),
    /// "No value".
    Null,
    /// Something with parts, which no value is.
    Nested,
}

impl Value {
    /// What a text means as a value.
    fn of_text(text: &str) -> Self {
        let text = text.trim();
        match text {
            "" | "null" => return Self::Null,
            "true" => return Self::Number(1.0),
            "false" => return Self::Number(0.0),
            _ => {}
        }
        match number(text) {
            Some(value) if exact(text, value) => Self::Number(value),
            Some(_) => Self::Inexact,
            None => Self::Text(text.chars().filter(|c| !c.is_control()).collect()),
        }
    }

    fn of_samples(samples: Vec<f32>) -> Self {
        match samples[..] {
            [] => Self::Null,
            [one] => Self::Number(f64::from(one)),
            _ => Self::Samples(samples.into()),
        }
    }
}

/// One value of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Whose value.
    pub slot: usize,
    /// The value.
    pub value: Value,
    /// Its own time.
    pub time: Option<Timestamp>,
    /// There should have been a time and none could be read.
    pub bad_time: bool,
}

/// How the payloads of one topic are read, for all tags that hear it.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// One JSON document.
    Json(JsonPlan),
    /// One number or word; slot 0.
    Text,
    /// Separated cells.
    Csv(CsvPlan),
    /// Numbers in binary; slot 0.
    Binary(Samples),
}

/// Where [`decode`] puts what it finds; kept from message to message, so that numbers cost no
/// allocation.
#[derive(Debug, Default)]
pub struct Found {
    items: Vec<Item>,
    json: json::Scratch,
}

impl Found {
    /// What the last message held, in the order of the slots; CSV in the order of its lines.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The same, handed over.
    pub fn drain(&mut self) -> impl Iterator<Item = Item> + '_ {
        self.items.drain(..)
    }
}

/// Reads a payload of at most `bytes_max` bytes. A slot that the message does not mention has no
/// item.
///
/// # Errors
/// [`PayloadError`], after which nothing counts as found.
pub fn decode(
    format: &Format,
    payload: &[u8],
    bytes_max: usize,
    found: &mut Found,
) -> Result<(), PayloadError> {
    found.items.clear();
    let length = payload.len();
    if length > bytes_max {
        return Err(PayloadError::TooLong { length, most: bytes_max });
    }
    let one = |value| Item { slot: 0, value, time: None, bad_time: false };
    match format {
        Format::Json(plan) => plan.read(payload, &mut found.json, &mut found.items),
        Format::Csv(plan) => plan.read(payload, &mut found.items),
        Format::Text => {
            let text = std::str::from_utf8(payload).map_err(|_| PayloadError::Text)?;
            found.items.push(one(Value::of_text(text)));
            Ok(())
        }
        Format::Binary(kind) => {
            let width = match kind {
                Samples::F32Le => 4,
                Samples::I16Le => 2,
            };
            if length == 0 || !length.is_multiple_of(width) {
                return Err(PayloadError::Samples { length, width });
            }
            let sample = |bytes: &[u8]| match (kind, bytes) {
                (Samples::F32Le, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
                (Samples::I16Le, &[a, b]) => f32::from(i16::from_le_bytes([a, b])),
                (Samples::F32Le | Samples::I16Le, _) => f32::NAN,
            };
            let samples = payload.chunks_exact(width).map(sample).collect();
            found.items.push(one(Value::of_samples(samples)));
            Ok(())
        }
    }
}

/// A number as text. `NaN` and `inf` are numbers here and are judged bad later; a number too large
/// for a float is infinite and judged likewise.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

/// Whether a float holds the integer that the text is; what is no integer is rounded anyway.
fn exact(text: &str, value: f64) -> bool {
    // Up to 15 digits always fit.
    if text.len() <= 15 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return true;
    }
    #[expect(clippy::cast_possible_truncation, reason = "beyond 128 bits it is not equal")]
    text.parse::<i128>().is_ok_and(|whole| whole == value as i128)
}

/// Whether a float holds this integer.
fn exact_u64(whole: u64) -> bool {
    // An integer fits when what is left without its trailing zeros fits 53 bits.
    whole == 0 || (whole >> whole.trailing_zeros()) >> 53 == 0
}

/// A time as JSON or CSV gives it in text.
fn time_of_text(text: &str) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(text).or_else(|| number(text).and_then(unix_time))
}

/// Seconds or milliseconds since 1970.
fn unix_time(value: f64) -> Option<Timestamp> {
    let micros = if value.abs() >= MILLIS_FROM { value * 1e3 } else { value * 1e6 };
    // The calendar ends with the year 9999 (253 402 300 800 s).
    if !micros.is_finite() || micros.abs() >= 2.534_023_008e17 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the year 9999 just above")]
    let micros = micros.round() as i64;
    Some(Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests;
