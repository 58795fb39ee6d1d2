//! JSON: the pointers of all tags as one tree, walked once along the document.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{DEPTH_MAX, Item, KEYS_MAX, PayloadError, Value, exact_u64, time_of_text, unix_time};
use crate::domain::time::Timestamp;

/// A JSON pointer (RFC 6901), taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    tokens: Vec<String>,
}

impl Pointer {
    /// Reads a pointer; `None` when it is neither empty nor begins with `/`, or has a `~` that is
    /// followed by neither 0 nor 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let tokens = match text.strip_prefix('/') {
            None if text.is_empty() => Vec::new(),
            None => return None,
            Some(rest) => rest.split('/').map(unescaped).collect::<Option<_>>()?,
        };
        Some(Self { text: text.to_owned(), tokens })
    }

    /// The pointer as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn unescaped(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (escape, rest) = (part.chars().next()?, part.get(1..)?);
        plain.push(match escape {
            '0' => '~',
            '1' => '/',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

/// What is looked for in a document: a slot a value, each with or without a time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JsonPlan {
    root: Step,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, PartialEq)]
struct Slot {
    pointer: String,
    timed: bool,
}

/// A place in the document: what is wanted here, and the ways on.
#[derive(Debug, Clone, Default, PartialEq)]
struct Step {
    /// Slots whose value is here.
    values: Vec<usize>,
    /// Slots whose time is here.
    times: Vec<usize>,
    next: Vec<(Token, Step)>,
}

#[derive(Debug, Clone, PartialEq)]
struct Token {
    name: String,
    /// The name as an array's index; they have no leading zeros (RFC 6901, §4).
    index: Option<usize>,
}

impl JsonPlan {
    /// Adds a value and its time; returns its slot.
    pub fn add(&mut self, value: &Pointer, time: Option<&Pointer>) -> usize {
        let slot = self.slots.len();
        self.slots.push(Slot { pointer: value.text.clone(), timed: time.is_some() });
        self.root.at(&value.tokens).values.push(slot);
        if let Some(time) = time {
            self.root.at(&time.tokens).times.push(slot);
        }
        slot
    }

    pub(super) fn read(
        &self,
        payload: &[u8],
        scratch: &mut Scratch,
        items: &mut Vec<Item>,
    ) -> Result<(), PayloadError> {
        within_bounds(payload)?;
        scratch.begin(self.slots.len());
        let mut parser = serde_json::Deserializer::from_slice(payload);
        let walked = Walk { step: &self.root, scratch }.deserialize(&mut parser);
        walked
            .and_then(|()| parser.end())
            .map_err(|error| PayloadError::Json { what: error.to_string() })?;
        for (slot, wanted) in self.slots.iter().enumerate() {
            let Some(value) = scratch.values[slot].take() else { continue };
            let time = scratch.times[slot].take();
            items.push(Item { slot, value, time, bad_time: wanted.timed && time.is_none() });
        }
        match self.slots.first() {
            Some(slot) if items.is_empty() => {
                Err(PayloadError::Missing { place: slot.pointer.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Step {
    fn at(&mut self, tokens: &[String]) -> &mut Self {
        let Some((token, rest)) = tokens.split_first() else { return self };
        let place = self.next.iter().position(|(known, _)| known.name == *token);
        let place = place.unwrap_or_else(|| {
            let token = Token { name: token.clone(), index: array_index(token) };
            self.next.push((token, Self::default()));
            self.next.len() - 1
        });
        self.next[place].1.at(rest)
    }

    fn is_wanted(&self) -> bool {
        !self.values.is_empty() || !self.times.is_empty()
    }
}

fn array_index(token: &str) -> Option<usize> {
    let plain = token == "0" || (token.starts_with(|c: char| ('1'..='9').contains(&c)));
    if plain && token.bytes().all(|byte| byte.is_ascii_digit()) { token.parse().ok() } else { None }
}

/// What has been found so far, by slot.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    values: Vec<Option<Value>>,
    times: Vec<Option<Timestamp>>,
}

impl Scratch {
    fn begin(&mut self, slots: usize) {
        self.values.clear();
        self.values.resize(slots, None);
        self.times.clear();
        self.times.resize(slots, None);
    }

    /// Forgets what was found from here on: a key has come again.
    fn forget(&mut self, step: &Step) {
        for &slot in &step.values {
            self.values[slot] = None;
        }
        for &slot in &step.times {
            self.times[slot] = None;
        }
        for (_, next) in &step.next {
            self.forget(next);
        }
    }

    fn found(&mut self, step: &Step, value: &Value, time: Option<Timestamp>) {
        for &slot in &step.values {
            self.values[slot] = Some(value.clone());
        }
        for &slot in &step.times {
            self.times[slot] = time;
        }
    }
}

/// Whether a document keeps to the bounds, without parsing it.
fn within_bounds(payload: &[u8]) -> Result<(), PayloadError> {
    let (mut depth, mut keys) = (0_usize, 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in payload {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b':' => keys += 1,
            _ => continue,
        }
        if depth > DEPTH_MAX {
            return Err(PayloadError::TooDeep);
        }
        if keys > KEYS_MAX {
            return Err(PayloadError::TooManyKeys);
        }
    }
    Ok(())
}

/// Follows the steps down the document.
struct Walk<'p, 's> {
    step: &'p Step,
    scratch: &'s mut Scratch,
}

impl Walk<'_, '_> {
    fn number(self, value: f64) {
        if self.step.is_wanted() {
            let time = if self.step.times.is_empty() { None } else { unix_time(value) };
            self.scratch.found(self.step, &Value::Number(value), time);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        if !self.step.is_wanted() && self.step.next.is_empty() {
            return parser.deserialize_ignored_any(IgnoredAny).map(|_| ());
        }
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scratch.found(self.step, &Value::Number(f64::from(u8::from(value))), None);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        if exact_u64(value.unsigned_abs()) {
            self.number(value as f64);
        } else {
            self.scratch.found(self.step, &Value::Inexact, None);
        }
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        if exact_u64(value) {
            self.number(value as f64);
        } else {
            self.scratch.found(self.step, &Value::Inexact, None);
        }
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.number(value);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.step.is_wanted() {
            let time = if self.step.times.is_empty() { None } else { time_of_text(text) };
            self.scratch.found(self.step, &Value::of_text(text), time);
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scratch.found(self.step, &Value::Null, None);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.scratch.found(self.step, &Value::Nested, None);
        while let Some(next) = map.next_key_seed(Key { step: self.step })? {
            match next {
                Some(step) => {
                    self.scratch.forget(step);
                    map.next_value_seed(Walk { step, scratch: self.scratch })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.step.values.is_empty() {
            let mut place = 0;
            loop {
                let next = self.step.next.iter().find(|(token, _)| token.index == Some(place));
                let more = match next {
                    Some((_, step)) => {
                        items.next_element_seed(Walk { step, scratch: self.scratch })?.is_some()
                    }
                    None => items.next_element::<IgnoredAny>()?.is_some(),
                };
                if !more {
                    return Ok(());
                }
                place += 1;
            }
        }
        // The array itself is the value: a burst, if all of it is numbers.
        let mut samples = Vec::new();
        let mut numbers = true;
        while let Some(sample) = items.next_element::<Sample>()? {
            numbers &= sample.0.is_some();
            samples.extend(sample.0);
        }
        let value = match samples[..] {
            _ if !numbers => Value::Nested,
            // JSON knows no NaN: this was `null`, and alone it is no value.
            [one] if one.is_nan() => Value::Null,
            _ => Value::of_samples(samples),
        };
        self.scratch.found(self.step, &value, None);
        Ok(())
    }
}

/// The way on that a key names, found without keeping the key.
struct Key<'p> {
    step: &'p Step,
}

impl<'de, 'p> DeserializeSeed<'de> for Key<'p> {
    type Value = Option<&'p Step>;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_str(self)
    }
}

impl<'p> Visitor<'_> for Key<'p> {
    type Value = Option<&'p Step>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.step.next.iter().find(|(token, _)| token.name == key).map(|(_, step)| step))
    }
}

/// One number of a burst; null is a missing sample.
struct Sample(Option<f32>);

impl<'de> serde::Deserialize<'de> for Sample {
    fn deserialize<D: serde::Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        parser.deserialize_any(SampleVisitor)
    }
}

struct SampleVisitor;

#[expect(clippy::cast_possible_truncation, reason = "bursts are kept in single precision")]
impl<'de> Visitor<'de> for SampleVisitor {
    type Value = Sample;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E>(self, value: i64) -> Result<Sample, E> {
        Ok(Sample(Some(value as f32)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Sample, E> {
        Ok(Sample(Some(value as f32)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Sample, E> {
        Ok(Sample(Some(value as f32)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Sample, E> {
        Ok(Sample(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Sample, E> {
        Ok(Sample(None))
    }

    fn visit_unit<E>(self) -> Result<Sample, E> {
        Ok(Sample(Some(f32::NAN)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sample, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Sample(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Sample, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Sample(None))
    }
}
