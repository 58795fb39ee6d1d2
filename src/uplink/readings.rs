//! Readings on the wire: batches of one asset, cut so that none is larger than 64 KiB.
//!
//! The identity of a reading is asset, tag and time: after a restart the same readings may come in
//! other batches. JSON is `[{tag, time, value, quality, reason?, state?, text?}]`; the binary form is drawn at
//! [`postcard_batch`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::cloudevents::{Message, Sender};
use crate::config::{Encoding, ReadingsMode};
use crate::domain::ids::{AssetId, EventId, TagKey};
use crate::domain::reading::Reading;
use crate::domain::tag::{Form, Plant, Tag};
use crate::domain::text::{self, Words};
use crate::domain::time::{Now, Timestamp};

/// Largest batch in bytes, envelope included (failures B19).
pub const BATCH_BYTES_MAX: usize = 64 * 1024;
/// What the envelope takes of it at most.
const ENVELOPE_BYTES: usize = 1024;
/// Upper bound of one JSON reading without its tag's name: the longest time, value, quality and
/// reason with their keys come to 125 bytes.
const READING_BYTES: usize = 132;
/// The key of a state or text, with its quotes and comma. The words themselves have no control
/// characters, so that each byte takes two at most.
const SAID_BYTES: usize = 12;

/// Readings of one asset that go out in one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The asset.
    pub asset: AssetId,
    /// In order of arrival; never empty.
    pub readings: Vec<Reading>,
    /// The texts that readings among them stand for.
    pub words: Arc<Words>,
    /// Upper bound of its size on the wire.
    pub bytes: usize,
}

/// Sorts a page of readings into batches, in the order in which assets first appear. Readings of
/// tags the configuration no longer has are left out: nobody could say what they were.
#[must_use]
pub fn batches(
    plant: &Plant,
    readings: &[Reading],
    words: &Arc<Words>,
    bytes_max: usize,
) -> Vec<Batch> {
    let bytes_max = bytes_max.clamp(4 * ENVELOPE_BYTES, BATCH_BYTES_MAX);
    let mut done: Vec<Batch> = Vec::new();
    let mut open: BTreeMap<AssetId, usize> = BTreeMap::new();
    for reading in readings {
        let Some(tag) = plant.tag(reading.tag) else { continue };
        let said = said(tag, reading, words).map_or(0, |(_, said)| SAID_BYTES + 2 * said.len());
        let bytes = READING_BYTES + tag.path.tag.as_str().len() + said;
        let place = open.get(&tag.path.asset).copied();
        match place {
            Some(index) if done[index].bytes + bytes <= bytes_max => {
                done[index].readings.push(*reading);
                done[index].bytes += bytes;
            }
            Some(_) | None => {
                open.insert(tag.path.asset.clone(), done.len());
                done.push(Batch {
                    asset: tag.path.asset.clone(),
                    readings: vec![*reading],
                    words: Arc::clone(words),
                    bytes: ENVELOPE_BYTES + bytes,
                });
            }
        }
    }
    done
}

/// What a reading says beside its number: `state`, the name of a state, or `text`, a text.
#[must_use]
pub fn said<'a>(
    tag: &'a Tag,
    reading: &Reading,
    words: &'a Words,
) -> Option<(&'static str, &'a str)> {
    match tag.handling.form {
        Form::Text => {
            let number = text::in_reading(reading.value)?;
            Some(("text", &**words.get(&(reading.tag, number))?))
        }
        Form::Number => Some(("state", tag.handling.state(reading.value)?)),
        Form::Waveform { .. } => None,
    }
}

/// Which readings have been sent last, per tag, for `readings = "changes"`.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    last: BTreeMap<TagKey, (u64, u8)>,
}

impl Changes {
    /// Keeps only readings whose value or quality differ from the one before of the same tag.
    pub fn filter(&mut self, mode: ReadingsMode, readings: &mut Vec<Reading>) {
        match mode {
            ReadingsMode::All => {}
            ReadingsMode::None | ReadingsMode::Rollups => readings.clear(),
            ReadingsMode::Changes => readings.retain(|reading| {
                let seen = (reading.value.to_bits(), reading.quality.to_byte());
                self.last.insert(reading.tag, seen) != Some(seen)
            }),
        }
    }

    /// Forgets all: the next reading of every tag counts as changed.
    pub fn clear(&mut self) {
        self.last.clear();
    }
}

/// One reading in JSON.
#[derive(Serialize)]
struct Row<'a> {
    tag: &'a str,
    time: String,
    value: Option<f64>,
    quality: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// One batch as a message of its own, with `sequence` of the class `readings`.
#[must_use]
pub fn message(
    sender: &Sender,
    plant: &Plant,
    batch: &Batch,
    encoding: Encoding,
    id: EventId,
    sequence: u64,
    now: Now,
) -> Message {
    let newest = batch.readings.iter().map(|reading| reading.time).max().unwrap_or_default();
    let envelope = super::cloudevents::Envelope {
        subject: batch.asset.to_string(),
        sequence: Some(sequence),
        clock_trusted: now.trusted,
        ..sender.envelope(id, "readings.batch", newest, now)
    };
    let topic = format!("{}/readings/{}", sender.root(), batch.asset);
    match encoding {
        Encoding::Json => {
            let rows: Vec<Row<'_>> = batch
                .readings
                .iter()
                .filter_map(|reading| {
                    let tag = plant.tag(reading.tag)?;
                    let said = said(tag, reading, &batch.words);
                    let of = |kind| said.filter(|(of, _)| *of == kind).map(|(_, said)| said);
                    Some(Row {
                        tag: tag.path.tag.as_str(),
                        time: precise(reading.time),
                        value: reading.value.is_finite().then_some(reading.value),
                        quality: reading.quality.as_str(),
                        reason: reading.quality.reason().map(|reason| reason.as_str()),
                        state: of("state"),
                        text: of("text"),
                    })
                })
                .collect();
            Message { topic, retain: false, payload: envelope.json(&rows) }
        }
        Encoding::Postcard => Message {
            topic: format!("{topic}/bin"),
            retain: false,
            payload: postcard_batch(plant, batch, id, sequence, envelope.replayed),
        },
    }
}

/// RFC 3339 in milliseconds, or in microseconds when the time has them: the time is part of the
/// reading's identity, and must not be rounded into another one's.
fn precise(time: Timestamp) -> String {
    if time.micros() % 1000 == 0 { time.to_string() } else { format!("{:.6}", time.calendar()) }
}

/// The binary form: postcard 1.0 of the following fields, in this order, after a version byte 1.
///
/// ```text
/// u8        version, 1
/// 16 bytes  id (UUIDv7)            u64   sequence         bool  replayed
/// i64       base: microseconds since 1970 of the first reading
/// [str]     tags
/// [(u16 index into tags, i64 microseconds after base, f64 value (NaN = none), u8 quality)]
/// ```
///
/// `quality`: 0 good; 0x40 | reason uncertain; 0x80 | reason bad; reasons count from 1 in the order
/// `config device comm range rate sentinel nan stale retained clock sensor-fault`.
fn postcard_batch(
    plant: &Plant,
    batch: &Batch,
    id: EventId,
    sequence: u64,
    replayed: bool,
) -> Vec<u8> {
    let base = batch.readings.first().map_or(0, |reading| reading.time.micros());
    let mut tags: Vec<&str> = Vec::new();
    let mut index: BTreeMap<TagKey, u16> = BTreeMap::new();
    let mut rows: Vec<(u16, i64, f64, u8)> = Vec::with_capacity(batch.readings.len());
    for reading in &batch.readings {
        let Some(tag) = plant.tag(reading.tag) else { continue };
        let place = *index.entry(reading.tag).or_insert_with(|| {
            tags.push(tag.path.tag.as_str());
            u16::try_from(tags.len() - 1).expect("a batch of 64 KiB names fewer than 65536 tags")
        });
        rows.push((place, reading.time.micros() - base, reading.value, reading.quality.to_byte()));
    }
    let wire = (1_u8, id.0.into_bytes(), sequence, replayed, base, tags, rows);
    postcard::to_allocvec(&wire).expect("plain tuples are postcard")
}
