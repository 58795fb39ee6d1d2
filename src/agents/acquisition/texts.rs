//! Acquisition's memory of texts. A text becomes a reading whose value is the text's number
//! ([`crate::domain::text`]); the text itself is a record, written once.
//!
//! Bound: [`TEXTS_MAX`] texts a tag. When a tag has more, the one not met for longest gives way if
//! it was not met for [`IDLE_MIN`]; otherwise the new one is not kept, and its reading is uncertain
//! for reason `config`: a tag that never repeats a text is no status, and would wear the flash out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::ids::TagKey;
use crate::domain::reading::{Quality, Reason};
use crate::domain::record::{Record, RecordKind};
use crate::domain::tag::{Form, Plant, Tag};
use crate::domain::text::{self, KnownText};
use crate::domain::time::Now;

/// Texts kept of one tag.
pub(super) const TEXTS_MAX: usize = 1000;
/// A text gives way to another only when it was not met for so long.
pub(super) const IDLE_MIN: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
struct Known {
    text: Box<str>,
    met: Duration,
}

/// The texts of all tags.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    known: BTreeMap<TagKey, BTreeMap<u64, Known>>,
    /// Not handed out yet.
    records: Vec<Record>,
}

impl Texts {
    /// Takes up what was kept of the tags of `plant`.
    pub(crate) fn restore<'a>(
        &mut self,
        now: Now,
        plant: &Plant,
        records: impl Iterator<Item = &'a Record>,
    ) {
        for record in records {
            // A record that cannot be read is a text that is met anew.
            let Ok(known) = record.read::<KnownText>() else { continue };
            let Some(key) = plant.key(&known.tag) else { continue };
            let entry = Known { text: known.text.into(), met: now.mono };
            self.known.entry(key).or_default().insert(known.number, entry);
        }
    }

    /// The reading of a text: its number, and whether it is known what the number means.
    pub(crate) fn intern(&mut self, now: Now, tag: &Tag, raw: &str) -> (f64, Quality) {
        let text = text::cut(raw);
        let number = text::number(text);
        let value = number as f64;
        let known = self.known.entry(tag.key).or_default();
        if let Some(entry) = known.get_mut(&number) {
            entry.met = now.mono;
            if &*entry.text == text {
                return (value, Quality::Good);
            }
            // Two texts of one number: the one that came first keeps it.
            return (value, Quality::Uncertain(Reason::Config));
        }
        if known.len() >= TEXTS_MAX {
            let oldest = known.iter().min_by_key(|(_, entry)| entry.met);
            let Some(oldest) = oldest.map(|(number, entry)| (*number, entry.met)) else {
                return (value, Quality::Uncertain(Reason::Config));
            };
            if now.mono.saturating_sub(oldest.1) < IDLE_MIN {
                return (value, Quality::Uncertain(Reason::Config));
            }
            if let Some(gone) = known.remove(&oldest.0) {
                let text = gone.text.into_string();
                self.records.push(record(now, tag, oldest.0, text).in_state("idle", false));
            }
        }
        known.insert(number, Known { text: text.into(), met: now.mono });
        self.records.push(record(now, tag, number, text.to_owned()));
        (value, Quality::Good)
    }

    /// Records of texts that are new since the last call.
    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// Forgets the texts of tags that are gone or are no texts any more; closes their records.
    pub(crate) fn configure(&mut self, now: Now, old: &Plant, new: &Plant) {
        let is_text = |key: TagKey| new.tag(key).is_some_and(|tag| tag.handling.form == Form::Text);
        let gone: Vec<TagKey> = self.known.keys().copied().filter(|key| !is_text(*key)).collect();
        for key in gone {
            let texts = self.known.remove(&key).unwrap_or_default();
            let Some(tag) = old.tag(key) else { continue };
            for (number, known) in texts {
                let closed = record(now, tag, number, known.text.into_string());
                self.records.push(closed.in_state("configuration", false));
            }
        }
    }
}

fn record(now: Now, tag: &Tag, number: u64, text: String) -> Record {
    let known = KnownText { tag: tag.path.clone(), number, text };
    Record::new(RecordKind::Text, text::record_id(&tag.path, number), now.utc, &known)
        .about(&tag.path.asset)
}
