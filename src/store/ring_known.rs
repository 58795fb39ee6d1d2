//! What the ring knows already: a reading that is there counts once, and the roll-ups of open
//! hours are made anew at start from the readings that are there.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::int;
use super::ring_live::{Live, NEVER, hour_start};
use super::ring_read::{self, BLOCK_BITS};
use super::rollup::Resolution;
use crate::domain::ids::TagKey;
use crate::domain::reading::Reading;

/// Readings that may be there already.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    /// Of which tags.
    pub(super) tags: BTreeSet<TagKey>,
    /// Tags and spans of time in which their own segments must be searched.
    pub(super) stored: BTreeMap<TagKey, (i64, i64)>,
    /// A reading of a tag that cannot be ours is among them.
    foreign: bool,
}

impl Doubtful {
    /// Which of `readings` are not newer than all before them of their tag. Moves the tags' newest
    /// times on.
    pub(super) fn find(live: &mut Live, readings: &[Reading]) -> Self {
        let mut doubtful = Self::default();
        for reading in readings {
            let Some(tag) = live.tag(reading.tag) else {
                doubtful.foreign = true;
                tracing::error!(tag = reading.tag.0, "reading of an impossible tag left out");
                continue;
            };
            let time = reading.time.micros();
            if time > tag.newest {
                tag.newest = time;
                continue;
            }
            doubtful.tags.insert(reading.tag);
            if time <= tag.folded_newest {
                let span = doubtful.stored.entry(reading.tag).or_insert((time, time));
                *span = (span.0.min(time), span.1.max(time));
            }
        }
        doubtful
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty() && !self.foreign
    }
}

/// What makes two readings of one tag the same one.
pub(super) type Identity = (TagKey, i64, u64, u8);

pub(super) fn identity(reading: &Reading) -> Identity {
    let value = if reading.value.is_nan() { f64::NAN } else { reading.value };
    (reading.tag, reading.time.micros(), value.to_bits(), reading.quality.to_byte())
}

/// The readings that own segments of these tags hold in these spans of time.
pub(super) fn stored_between(
    conn: &Connection,
    spans: &BTreeMap<TagKey, (i64, i64)>,
) -> rusqlite::Result<BTreeSet<Identity>> {
    let mut stored = BTreeSet::new();
    let mut opened = Vec::new();
    for (tag, (from, to)) in spans {
        for (id, _) in ring_read::segments_between(conn, *tag, *from, *to, 0)? {
            opened.clear();
            ring_read::open_segment(conn, id, *tag, &mut opened)?;
            let inside = |reading: &&Reading| (*from..=*to).contains(&reading.time.micros());
            stored.extend(opened.iter().filter(inside).map(identity));
        }
    }
    Ok(stored)
}

/// Makes the roll-ups of the open hours anew.
pub(super) fn recount(conn: &Connection, live: &mut Live) -> rusqlite::Result<()> {
    let rolled = ring_read::rolled(conn)?;
    let mut readings = Vec::new();
    let open: Vec<_> = live
        .iter()
        .filter(|(_, tag)| tag.since != NEVER)
        .filter_map(|(key, tag)| Some((key, tag.hour?, tag.since)))
        .collect();
    for (key, hour, since) in open {
        readings.clear();
        let start = hour_start(hour);
        let end = start.saturating_add(Resolution::Hour.micros() - 1);
        let block = int(since >> BLOCK_BITS);
        for (id, _) in ring_read::segments_between(conn, key, start, end, block)? {
            ring_read::open_segment(conn, id, key, &mut readings)?;
        }
        if let Some(tag) = live.get(key) {
            readings.extend((0..tag.columns.len()).map(|at| tag.columns.get(key, at)));
        }
        readings.retain(|reading| reading.arrival.0 <= rolled);
        readings.iter().for_each(|reading| live.recount(reading));
    }
    Ok(())
}
