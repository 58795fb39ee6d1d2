//! What the ring holds in memory: per tag the readings that are not in a segment of its own yet,
//! and the roll-ups of its open hour. Pure: the file is told about it in `ring`.
//!
//! A tag's *open hour* is the one its newest good reading lies in. Its roll-ups are nowhere but
//! here and are made anew from raw readings at start; those of all earlier hours are on disk. So
//! every good reading is counted once: in the open hour here, in an earlier one by merging its
//! pack in the commit that makes the reading itself durable.

use std::collections::BTreeMap;

use super::codec::Columns;
use super::rollup::{Pack, Resolution, hour_of};
use super::state::TAG_KEYS_MAX;
use crate::domain::ids::TagKey;
use crate::domain::reading::Reading;

/// Readings that make a segment.
pub(super) const SEGMENT_READINGS: usize = 256;
/// With more readings than this in memory, segments are made of half as many: 25 bytes each.
const LIVE_READINGS_MAX: usize = 1 << 19;
/// A tag's oldest reading outside a segment lies at most so many arrivals back. Bounds how many
/// segments overlap a range of arrivals.
pub(super) const SPAN_MAX: u64 = 1 << 21;
/// An hour is closed for a tag that fell silent when the others are so many microseconds into the
/// next one.
const SILENT_MICROS: i64 = 600_000_000;
/// No reading has come in the open hour. The largest number SQLite knows.
pub(super) const NEVER: u64 = i64::MAX as u64;

/// One tag.
#[derive(Debug)]
pub(super) struct LiveTag {
    /// Readings not in a segment of the tag's own.
    pub(super) columns: Columns,
    /// Last arrival in a segment of the tag's own.
    pub(super) folded: u64,
    /// Latest time of a reading.
    pub(super) newest: i64,
    /// Latest time of a reading in a segment of the tag's own.
    pub(super) folded_newest: i64,
    /// The open hour with its roll-ups; none before the first good reading.
    pub(super) hour: Option<i32>,
    /// First arrival in the open hour.
    pub(super) since: u64,
    /// Roll-ups of the open hour.
    pub(super) minutes: Pack,
}

impl Default for LiveTag {
    fn default() -> Self {
        Self {
            columns: Columns::default(),
            folded: 0,
            newest: i64::MIN,
            folded_newest: i64::MIN,
            hour: None,
            since: 0,
            minutes: Pack::default(),
        }
    }
}

/// All tags, by key, and what the next commit has to write of their roll-ups.
#[derive(Debug, Default)]
pub(super) struct Live {
    tags: Vec<Option<Box<LiveTag>>>,
    /// Packs of hours that were closed: merged with what is on disk of an hour that an earlier
    /// era ended in.
    pub(super) closed: BTreeMap<(TagKey, i32), Pack>,
    /// Late readings: merged into what is on disk.
    pub(super) late: BTreeMap<(TagKey, i32), Pack>,
    /// Tags whose open hour changed.
    pub(super) moved: Vec<TagKey>,
    /// Time of the last reading of the group before.
    common_time: i64,
}

impl Live {
    /// A tag that has been met before.
    pub(super) fn get(&self, tag: TagKey) -> Option<&LiveTag> {
        self.tags.get(tag.0 as usize)?.as_deref()
    }

    /// A tag, met for the first time or not; `None` for a number that is none of ours.
    pub(super) fn tag(&mut self, tag: TagKey) -> Option<&mut LiveTag> {
        let index = tag.0 as usize;
        if index >= self.tags.len() {
            if tag.0 >= TAG_KEYS_MAX {
                return None;
            }
            self.tags.resize_with(index + 1, || None);
        }
        Some(self.tags[index].get_or_insert_default())
    }

    /// All tags in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TagKey, &LiveTag)> {
        self.tags.iter().zip(0..).filter_map(|(tag, key)| Some((TagKey(key), tag.as_deref()?)))
    }

    /// All tags in order, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (TagKey, &mut LiveTag)> {
        self.tags
            .iter_mut()
            .zip(0..)
            .filter_map(|(tag, key)| Some((TagKey(key), tag.as_deref_mut()?)))
    }

    /// Takes readings in, in order of arrival. `roll` says whether their times can be believed
    /// enough to make roll-ups of them.
    pub(super) fn absorb(&mut self, readings: &[Reading], roll: bool) {
        for reading in readings {
            let Some(tag) = self.tag(reading.tag) else { continue };
            tag.columns.push(reading);
            if roll && counts(reading) {
                self.roll(reading, reading.time.micros());
            }
        }
    }

    /// The group that was taken in ended at `time`: closes the hour of tags that fell silent.
    pub(super) fn settle(&mut self, time: i64) {
        // Two groups must agree on the time: one wild clock shall not close everybody's hour.
        self.close_silent(self.common_time.min(time));
        self.common_time = time;
    }

    /// One reading more in the roll-ups.
    pub(super) fn roll(&mut self, reading: &Reading, time: i64) {
        let Some((hour, minute)) = hour_of(time) else { return };
        let key = reading.tag;
        let tag = self.tags[key.0 as usize].as_deref_mut().expect("the tag was just met");
        match tag.hour {
            Some(open) if open == hour => {
                if tag.since > reading.arrival.0 {
                    tag.since = reading.arrival.0;
                    self.moved.push(key);
                }
            }
            Some(open) if open > hour => {
                self.late.entry((key, hour)).or_default().add(minute, time, reading.value);
                return;
            }
            before => {
                if let Some(before) = before {
                    let pack = std::mem::take(&mut tag.minutes);
                    self.closed.entry((key, before)).or_default().merge(&pack);
                }
                tag.hour = Some(hour);
                tag.since = reading.arrival.0;
                self.moved.push(key);
            }
        }
        tag.minutes.add(minute, time, reading.value);
    }

    /// The clock was set, or is no longer believed: ends every open hour, and forgets what was the
    /// newest time, because times before and after do not compare.
    pub(super) fn end_era(&mut self) {
        let Self { tags, closed, moved, .. } = self;
        for (slot, key) in tags.iter_mut().zip(0..) {
            let Some(tag) = slot.as_deref_mut() else { continue };
            tag.newest = i64::MIN;
            tag.folded_newest = i64::MIN;
            if let Some(open) = tag.hour.take() {
                let pack = std::mem::take(&mut tag.minutes);
                if !pack.0.is_empty() {
                    closed.entry((TagKey(key), open)).or_default().merge(&pack);
                }
                moved.push(TagKey(key));
            }
        }
    }

    /// Counts a reading of a tag's open hour again, after a start.
    pub(super) fn recount(&mut self, reading: &Reading) {
        let time = reading.time.micros();
        if let Some((hour, minute)) = hour_of(time)
            && counts(reading)
            && let Some(tag) = self.tag(reading.tag)
            && tag.hour == Some(hour)
            && reading.arrival.0 >= tag.since
        {
            tag.minutes.add(minute, time, reading.value);
        }
    }

    /// Closes the hour of tags that fell silent in it.
    fn close_silent(&mut self, common_time: i64) {
        let Some((hour, _)) = hour_of(common_time.saturating_sub(SILENT_MICROS)) else { return };
        let Self { tags, closed, moved, .. } = self;
        for (slot, key) in tags.iter_mut().zip(0..) {
            let Some(tag) = slot.as_deref_mut() else { continue };
            if let Some(open) = tag.hour
                && open < hour
                && !tag.minutes.0.is_empty()
            {
                let pack = std::mem::take(&mut tag.minutes);
                closed.entry((TagKey(key), open)).or_default().merge(&pack);
                tag.hour = Some(open + 1);
                tag.since = NEVER;
                moved.push(TagKey(key));
            }
        }
    }

    /// Which tags are due for segments, when the newest arrival is `last`: tag, and how many of its
    /// readings. With `all`, every reading of every tag.
    pub(super) fn due(&self, last: u64, all: bool) -> Vec<(TagKey, usize)> {
        let held: usize = self.iter().map(|(_, tag)| tag.columns.len()).sum();
        let whole = if held > LIVE_READINGS_MAX { SEGMENT_READINGS / 2 } else { SEGMENT_READINGS };
        let due = |tag: &LiveTag| {
            let count = tag.columns.len();
            let far = tag.columns.arrivals.first().is_some_and(|oldest| last - oldest > SPAN_MAX);
            if all || far { count } else { count - count % whole }
        };
        self.iter().map(|(key, tag)| (key, due(tag))).filter(|(_, count)| *count > 0).collect()
    }

    /// Forgets roll-ups that were written.
    pub(super) fn rolled_up(&mut self) {
        self.closed.clear();
        self.late.clear();
        self.moved.clear();
    }

    /// Whether roll-ups wait to be written.
    pub(super) fn has_rollups(&self) -> bool {
        !(self.closed.is_empty() && self.late.is_empty() && self.moved.is_empty())
    }

    /// The oldest arrival outside the tags' own segments, leaving `due` out of account.
    pub(super) fn oldest_after(&self, due: &BTreeMap<TagKey, usize>) -> Option<u64> {
        self.iter()
            .filter_map(|(key, tag)| {
                tag.columns.arrivals.get(due.get(&key).copied().unwrap_or(0)).copied()
            })
            .min()
    }
}

/// Whether a reading enters roll-ups.
pub(super) fn counts(reading: &Reading) -> bool {
    reading.quality.is_good() && reading.value.is_finite()
}

/// When an hour begins.
pub(super) fn hour_start(hour: i32) -> i64 {
    i64::from(hour) * Resolution::Hour.micros()
}
