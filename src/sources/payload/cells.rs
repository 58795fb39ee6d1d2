//! CSV: lines of cells, with or without a first line of names. Cells may stand in quotes (RFC 4180);
//! a line ends where it ends, also inside quotes.

use super::{Item, PayloadError, ROWS_MAX, Value, time_of_text};
use crate::config::Column;

/// What is looked for in lines of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvPlan {
    separator: u8,
    slots: Vec<CsvSlot>,
}

/// One value of each line.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvSlot {
    /// Where the value is.
    pub value: Column,
    /// Where its time is. Without one, several lines are a burst.
    pub time: Option<Column>,
}

impl CsvPlan {
    /// A plan for cells between which this character stands.
    #[must_use]
    pub const fn new(separator: u8) -> Self {
        Self { separator, slots: Vec::new() }
    }

    /// Adds a value; returns its slot.
    pub fn add(&mut self, slot: CsvSlot) -> usize {
        self.slots.push(slot);
        self.slots.len() - 1
    }

    /// Between two cells.
    #[must_use]
    pub const fn separator(&self) -> u8 {
        self.separator
    }

    pub(super) fn read(&self, payload: &[u8], items: &mut Vec<Item>) -> Result<(), PayloadError> {
        let text = std::str::from_utf8(payload).map_err(|_| PayloadError::Text)?;
        let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
        let named = |column: &Column| matches!(column, Column::Name(_));
        let any_name = self
            .slots
            .iter()
            .any(|slot| named(&slot.value) || slot.time.as_ref().is_some_and(named));
        let header = if any_name { lines.next() } else { None };
        let body: Vec<&str> = lines.take(ROWS_MAX + 1).collect();
        if body.len() > ROWS_MAX {
            return Err(PayloadError::TooManyRows);
        }
        for (slot, wanted) in self.slots.iter().enumerate() {
            let Some(place) = self.place(&wanted.value, header) else { continue };
            let time = wanted.time.as_ref().map(|column| self.place(column, header));
            self.column(slot, &body, place, time, items);
        }
        match self.slots.first() {
            Some(slot) if items.is_empty() => {
                let place = match &slot.value {
                    Column::Index(index) => index.to_string(),
                    Column::Name(name) => name.clone(),
                };
                Err(PayloadError::Missing { place })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The values of one slot. `time` is `Some(None)` when there should be one and its column is
    /// missing.
    fn column(
        &self,
        slot: usize,
        body: &[&str],
        place: usize,
        time: Option<Option<usize>>,
        items: &mut Vec<Item>,
    ) {
        let value = |line: &str| self.cell(line, place).map(Value::of_text);
        // A first line of words over numbers is a line of names that nobody asked for.
        let is_word = |line: &str| matches!(value(line), Some(Value::Text(_)));
        let body = match body {
            [first, rest @ ..] if !rest.is_empty() && is_word(first) && !is_word(rest[0]) => rest,
            all => all,
        };
        if time.is_none() && body.len() > 1 {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "bursts are kept in single precision"
            )]
            let sample = |line: &&str| match value(line) {
                Some(Value::Number(number)) => Some(number as f32),
                Some(Value::Null | Value::Inexact) | None => Some(f32::NAN),
                Some(Value::Text(_) | Value::Samples(_) | Value::Nested) => None,
            };
            let samples: Option<Vec<f32>> = body.iter().map(sample).collect();
            let value = samples.map_or(Value::Nested, Value::of_samples);
            items.push(Item { slot, value, time: None, bad_time: false });
            return;
        }
        for line in body {
            let Some(value) = value(line) else { continue };
            let own = time.flatten().and_then(|column| time_of_text(self.cell(line, column)?));
            items.push(Item { slot, value, time: own, bad_time: time.is_some() && own.is_none() });
        }
    }

    fn place(&self, column: &Column, header: Option<&str>) -> Option<usize> {
        match column {
            Column::Index(index) => Some(*index),
            Column::Name(name) => Cells { rest: Some(header?), separator: self.separator }
                .position(|cell| cell == name),
        }
    }

    fn cell<'a>(&self, line: &'a str, place: usize) -> Option<&'a str> {
        Cells { rest: Some(line), separator: self.separator }.nth(place)
    }
}

/// The cells of a line.
struct Cells<'a> {
    rest: Option<&'a str>,
    separator: u8,
}

impl<'a> Iterator for Cells<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let mut quoted = false;
        // The separator is ASCII, so cutting there never cuts a character.
        let end = rest.bytes().position(|byte| {
            quoted ^= byte == b'"';
            !quoted && byte == self.separator
        });
        let cell = match end {
            Some(end) => {
                self.rest = rest.get(end + 1..);
                rest.get(..end).unwrap_or_default()
            }
            None => {
                self.rest = None;
                rest
            }
        };
        let cell = cell.trim();
        let plain = cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"'));
        Some(plain.unwrap_or(cell))
    }
}
