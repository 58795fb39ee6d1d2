//! The transaction of a ring commit: what it writes, and what it deletes to make room.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::codec::{self, Columns};
use super::ring_live::Live;
use super::ring_read::{self, BLOCK_BITS, HOURS, MINUTES};
use super::rollup::{Pack, day_of};
use super::{connection, int, ring_bursts, uint};
use crate::domain::ids::TagKey;
use crate::domain::reading::Burst;

/// Segments deleted in one go.
pub(super) const DROP_SLICE: i64 = 64;

/// What a commit has to write, roll-ups apart.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) last: u64,
    pub(super) due: BTreeMap<TagKey, usize>,
    pub(super) segments: Vec<Sealed>,
    /// First and last arrival, and the row.
    pub(super) tail: Option<(u64, u64, Vec<u8>)>,
    pub(super) shared: Option<Shared>,
    /// The oldest arrival that is in no segment of its own afterwards.
    pub(super) oldest: Option<u64>,
    /// Up to which arrival the roll-ups of an era that was dated late are made.
    pub(super) rolled: Option<u64>,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.tail.is_none() && self.shared.is_none()
    }
}

/// A shared segment to write; with `merge` in the place of all older ones.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) merge: bool,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) data: Vec<u8>,
}

/// A segment to write.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) tag: TagKey,
    pub(super) arrivals: (u64, u64),
    pub(super) times: (i64, i64),
    pub(super) count: usize,
    pub(super) data: Vec<u8>,
}

impl Sealed {
    pub(super) fn new(tag: TagKey, columns: &Columns, range: std::ops::Range<usize>) -> Self {
        let times = &columns.times[range.clone()];
        let arrivals = &columns.arrivals[range.clone()];
        Self {
            tag,
            arrivals: (arrivals[0], arrivals[arrivals.len() - 1]),
            times: times
                .iter()
                .fold((i64::MAX, i64::MIN), |(low, high), time| (low.min(*time), high.max(*time))),
            count: range.len(),
            data: codec::seal_segment(columns, range),
        }
    }
}

/// How much room there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Pages that may be in use.
    pub(super) pages: u64,
    /// Segments to delete whatever is in use.
    pub(super) extra: i64,
    /// Bytes for packs of minutes.
    pub(super) minutes: u64,
    /// Bytes for packs of hours.
    pub(super) hours: u64,
    /// The hour it is; packs of a day later were written under a wrong clock, and fall first.
    pub(super) hour: i32,
    /// Bytes for bursts.
    pub(super) bursts: u64,
}

/// What a transaction left behind.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) dropped: u64,
    pub(super) shared: Vec<(i64, u64)>,
    pub(super) tail_rows: u64,
}

pub(super) fn write(
    conn: &mut Connection,
    boot: i64,
    work: &Work,
    live: &Live,
    bursts: &[Burst],
    room: &Room,
) -> rusqlite::Result<Done> {
    let step = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let dropped = make_room(&step, room)?;
    ring_bursts::write(&step, boot, bursts, room.bursts)?;
    for sealed in &work.segments {
        step.prepare_cached(
            "INSERT INTO segment (boot, upto, block, tag, a0, a1, t0, t1, n, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            boot,
            int(work.last),
            int(work.last >> BLOCK_BITS),
            sealed.tag.0,
            int(sealed.arrivals.0),
            int(sealed.arrivals.1),
            sealed.times.0,
            sealed.times.1,
            int(sealed.count as u64),
            sealed.data,
        ])?;
    }
    let insert = |table: &'static str, first: u64, last: u64, data: &[u8]| {
        step.prepare_cached(table)?.execute(params![boot, int(first), int(last), data])
    };
    if let Some(shared) = &work.shared {
        step.prepare_cached("DELETE FROM tail")?.execute([])?;
        if shared.merge {
            step.prepare_cached("DELETE FROM shared")?.execute([])?;
        }
        let table = "INSERT INTO shared (boot, a0, a1, data) VALUES (?1, ?2, ?3, ?4)";
        insert(table, shared.first, shared.last, &shared.data)?;
    }
    if let Some((first, last, data)) = &work.tail {
        let table = "INSERT INTO tail (boot, a0, a1, data) VALUES (?1, ?2, ?3, ?4)";
        insert(table, *first, *last, data)?;
    }
    if !work.segments.is_empty() {
        let below = int(work.oldest.unwrap_or(u64::MAX));
        step.prepare_cached("DELETE FROM tail WHERE a1 < ?1")?.execute([below])?;
        step.prepare_cached("DELETE FROM shared WHERE a1 < ?1")?.execute([below])?;
    }
    write_tagged(&step, work, live)?;
    write_rollups(&step, live, room)?;
    if let Some(rolled) = work.rolled {
        connection::set_meta(&step, "rolled", int(rolled))?;
    }
    let shared = shared_rows(&step)?;
    let tail_rows: i64 =
        step.prepare_cached("SELECT count(*) FROM tail")?.query_row([], |row| row.get(0))?;
    step.commit()?;
    Ok(Done { dropped, shared, tail_rows: uint(tail_rows) })
}

pub(super) fn shared_rows(conn: &Connection) -> rusqlite::Result<Vec<(i64, u64)>> {
    conn.prepare_cached("SELECT id, a1 FROM shared ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, uint(row.get(1)?))))?
        .collect()
}

/// Deletes the oldest segments until what is left leaves room; their pages are used again.
fn make_room(step: &Transaction<'_>, room: &Room) -> rusqlite::Result<u64> {
    let get = |pragma: &str| step.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0));
    let mut dropped = 0;
    let mut extra = room.extra;
    loop {
        let used = uint(get("PRAGMA page_count")? - get("PRAGMA freelist_count")?);
        if used <= room.pages && extra <= 0 {
            return Ok(dropped);
        }
        extra -= DROP_SLICE;
        let oldest = "SELECT id, a1 FROM segment ORDER BY id LIMIT ?1";
        let (last_row, last_arrival): (Option<i64>, Option<i64>) = step
            .prepare_cached(&format!("SELECT max(id), max(a1) FROM ({oldest})"))?
            .query_row([DROP_SLICE], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(last_row), Some(last_arrival)) = (last_row, last_arrival) else {
            return Ok(dropped);
        };
        let gone =
            step.prepare_cached("DELETE FROM segment WHERE id <= ?1")?.execute([last_row])?;
        dropped += gone as u64;
        let first = int(ring_read::first(step)?).max(last_arrival.saturating_add(1));
        connection::set_meta(step, "first", first)?;
    }
}

fn write_tagged(step: &Transaction<'_>, work: &Work, live: &Live) -> rusqlite::Result<()> {
    let mut changed: BTreeSet<TagKey> = live.moved.iter().copied().collect();
    changed.extend(work.due.keys());
    for key in changed {
        let tag = live.get(key).expect("only met tags change");
        let due = work.due.get(&key).copied().unwrap_or(0);
        let folded = if due > 0 { tag.columns.arrivals[due - 1] } else { tag.folded };
        let newest = tag.columns.times[..due].iter().copied().fold(tag.folded_newest, i64::max);
        step.prepare_cached(
            "INSERT OR REPLACE INTO tagged (tag, folded, newest, hour, since)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![key.0, int(folded), newest, tag.hour, int(tag.since)])?;
    }
    Ok(())
}

fn write_rollups(step: &Transaction<'_>, live: &Live, room: &Room) -> rusqlite::Result<()> {
    let mut packs: BTreeMap<(i32, TagKey), Pack> = BTreeMap::new();
    for ((tag, hour), more) in live.closed.iter().chain(&live.late) {
        pack_of(step, MINUTES, &mut packs, *hour, *tag)?.merge(more);
    }
    if packs.is_empty() {
        return Ok(());
    }
    let mut days: BTreeMap<(i32, TagKey), Pack> = BTreeMap::new();
    for ((hour, tag), pack) in &packs {
        let (day, index) = day_of(*hour);
        if let Some(sum) = pack.sum(index) {
            pack_of(step, HOURS, &mut days, day, *tag)?.replace(sum);
        }
    }
    PackTable::MINUTES.write(step, &packs, room.minutes, room.hour.saturating_add(24))?;
    PackTable::HOURS.write(step, &days, room.hours, day_of(room.hour).0.saturating_add(1))
}

/// The pack that is about to be written, or else the one on disk.
fn pack_of<'a>(
    step: &Transaction<'_>,
    select: &'static str,
    packs: &'a mut BTreeMap<(i32, TagKey), Pack>,
    span: i32,
    tag: TagKey,
) -> rusqlite::Result<&'a mut Pack> {
    Ok(match packs.entry((span, tag)) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => {
            place.insert(ring_read::pack(step, select, span, tag)?.unwrap_or_default())
        }
    })
}

/// A table of packs. How many bytes they take stands in `meta`, because counting would read the
/// whole table.
struct PackTable {
    bytes: &'static str,
    length: &'static str,
    put: &'static str,
    oldest: &'static str,
    newest: &'static str,
    delete: &'static str,
}

impl PackTable {
    const MINUTES: Self = Self {
        bytes: "minutes_bytes",
        length: "SELECT length(data) FROM minutes WHERE key = ?1",
        put: "INSERT OR REPLACE INTO minutes (key, data) VALUES (?1, ?2)",
        oldest: "SELECT key, length(data) FROM minutes ORDER BY key LIMIT 1",
        newest: "SELECT key, length(data) FROM minutes ORDER BY key DESC LIMIT 1",
        delete: "DELETE FROM minutes WHERE key = ?1",
    };
    const HOURS: Self = Self {
        bytes: "hours_bytes",
        length: "SELECT length(data) FROM hours WHERE key = ?1",
        put: "INSERT OR REPLACE INTO hours (key, data) VALUES (?1, ?2)",
        oldest: "SELECT key, length(data) FROM hours ORDER BY key LIMIT 1",
        newest: "SELECT key, length(data) FROM hours ORDER BY key DESC LIMIT 1",
        delete: "DELETE FROM hours WHERE key = ?1",
    };

    /// Writes packs. While all together take more than `most` bytes, those of spans after `latest`
    /// fall, which cannot have been yet; then the oldest.
    fn write(
        &self,
        step: &Transaction<'_>,
        packs: &BTreeMap<(i32, TagKey), Pack>,
        most: u64,
        latest: i32,
    ) -> rusqlite::Result<()> {
        let mut bytes = connection::meta(step, self.bytes)?.unwrap_or(0);
        for ((span, tag), pack) in packs {
            let key = ring_read::pack_key(*span, *tag);
            let data = codec::seal_buckets(&pack.0);
            let before: Option<i64> =
                step.prepare_cached(self.length)?.query_row([key], |row| row.get(0)).optional()?;
            step.prepare_cached(self.put)?.execute(params![key, data])?;
            bytes += int(data.len() as u64) - before.unwrap_or(0);
        }
        while bytes > int(most) {
            let end = |select| {
                step.prepare_cached(select)?
                    .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
                    .optional()
            };
            let future = end(self.newest)?.filter(|(key, _)| key >> 32 > i64::from(latest));
            let first = if future.is_some() { future } else { end(self.oldest)? };
            let Some((key, length)) = first else { break };
            step.prepare_cached(self.delete)?.execute([key])?;
            bytes -= length;
        }
        connection::set_meta(step, self.bytes, bytes)
    }
}
