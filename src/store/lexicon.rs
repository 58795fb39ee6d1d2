//! What the numbers of texts mean: the records of acquisition, looked up for a page of readings.

use std::sync::Arc;

use super::{StateReader, StoreError};
use crate::domain::reading::Reading;
use crate::domain::record::RecordKind;
use crate::domain::tag::{Form, Plant};
use crate::domain::text::{self, KnownText, Words};

/// Texts remembered between pages; beyond, all are forgotten and looked up again.
const WORDS_MAX: usize = 20_000;

/// Adds to `words` the texts that `readings` stand for. A text that is not known (yet) is left out:
/// its reading may be durable a moment before it.
///
/// # Errors
/// When `state.db` cannot be read.
pub fn look_up(
    reader: &StateReader,
    plant: &Plant,
    readings: &[Reading],
    words: &mut Words,
) -> Result<(), StoreError> {
    if words.len() > WORDS_MAX {
        words.clear();
    }
    for reading in readings {
        let Some(tag) = plant.tag(reading.tag).filter(|tag| tag.handling.form == Form::Text) else {
            continue;
        };
        let Some(number) = text::in_reading(reading.value) else { continue };
        if words.contains_key(&(reading.tag, number)) {
            continue;
        }
        let record = reader.record(RecordKind::Text, &text::record_id(&tag.path, number))?;
        if let Some(known) = record.and_then(|record| record.read::<KnownText>().ok()) {
            words.insert((reading.tag, number), Arc::from(known.text));
        }
    }
    Ok(())
}
