//! Questions to `ring.db`: the same ones for the writing connection and for readers. A reading
//! stands in the tail, then perhaps in a shared segment, then in one of its tag's own; copies left
//! behind by these moves are told by their arrival number.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{self, Damaged, Dated};
use super::eras::Shifts;
use super::ring_live::{SPAN_MAX, counts, hour_start};
use super::rollup::{Pack, Resolution, Rollup, day_of, hour_of};
use super::schema::RING;
use super::{PAGE_ROWS_MAX, Page, StoreError, connection, int, ring_bursts, uint};
use crate::domain::ids::{Arrival, TagKey};
use crate::domain::reading::{Burst, Reading};
use crate::domain::time::Timestamp;

/// Arrival numbers that a reader decodes at once: their segments serve many pages.
const WINDOW: u64 = 1 << 16;
/// Windows without a reading that are skipped in one call.
const WINDOWS_EMPTY_MAX: usize = 4096;
/// A segment was written at most so many arrivals after its first reading: [`SPAN_MAX`] and the
/// largest group commit.
const REACH: u64 = SPAN_MAX + (1 << 21);
/// Arrivals per block of the index, as a power of two.
pub(super) const BLOCK_BITS: u32 = 20;

/// A connection to `ring.db` that only reads. One per thread.
#[derive(Debug)]
pub struct RingReader {
    conn: Connection,
    file: PathBuf,
    window: RefCell<Window>,
}

/// Readings decoded for [`after`]: all with arrivals in `from..to`, in order.
#[derive(Debug, Default)]
pub(super) struct Window {
    from: u64,
    to: u64,
    readings: Vec<Reading>,
    shifts: Shifts,
}

impl RingReader {
    /// Opens the file in `dir`, which a [`super::RingDb`] must have made.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let file = dir.join(RING.file);
        let conn = connection::open_reader(&file)?;
        Ok(Self { conn, file, window: RefCell::default() })
    }

    /// The readings behind `arrival`, in order of arrival, at most `limit` (and
    /// [`PAGE_ROWS_MAX`]). Empty only when there are none. Readings below
    /// [`Self::first_arrival`] are not returned: not all of them are there any more.
    ///
    /// # Errors
    /// When the file cannot be read. A damaged segment is left out, and logged.
    pub fn after(&self, arrival: Arrival, limit: usize) -> Result<Vec<Reading>, StoreError> {
        let mut window = self.window.borrow_mut();
        self.ask("reading the ring", |conn| after(conn, &mut window, arrival, limit))
    }

    /// Identity of the file's numbering: a new file begins a new one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn epoch(&self) -> Result<u64, StoreError> {
        self.ask("reading the ring", |conn| Ok(connection::meta(conn, "epoch")?.map_or(0, uint)))
    }

    /// All readings from this arrival on are there; earlier ones may be.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn first_arrival(&self) -> Result<Arrival, StoreError> {
        self.ask("reading the ring", |conn| first(conn).map(Arrival))
    }

    /// First and last arrival numbers of readings that were dated by a clock that is not believed to
    /// this day. Nearly always none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn doubtful(&self) -> Result<Vec<(u64, u64)>, StoreError> {
        self.ask("reading eras", super::eras::doubtful)
    }

    /// The last durable arrival; 0 when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_arrival(&self) -> Result<Arrival, StoreError> {
        self.ask("reading the ring", |conn| last(conn).map(Arrival))
    }

    /// One tag's readings in order of time, from `from` on and before `to`, at most `limit` (and
    /// [`PAGE_ROWS_MAX`]). `cursor` is [`Page::next`] of the page before.
    ///
    /// # Errors
    /// As [`Self::after`].
    pub fn range(
        &self,
        tag: TagKey,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<Reading>, StoreError> {
        self.ask("reading a tag's readings", |conn| range(conn, tag, from, to, limit, cursor))
    }

    /// One tag's roll-ups of spans that begin from `from` on and before `to`, the open one
    /// included, at most [`PAGE_ROWS_MAX`].
    ///
    /// # Errors
    /// As [`Self::after`].
    pub fn rollups(
        &self,
        tag: TagKey,
        from: Timestamp,
        to: Timestamp,
        resolution: Resolution,
    ) -> Result<Vec<Rollup>, StoreError> {
        self.ask("reading roll-ups", |conn| rollups(conn, tag, from, to, resolution))
    }

    /// One tag's bursts in order of time, from `from` on and before `to`, at most `limit` (and
    /// [`super::PAGE_BURSTS_MAX`], and as many as have a million samples). `cursor` is
    /// [`Page::next`] of the page before.
    ///
    /// # Errors
    /// When the file cannot be read. A damaged burst is left out, and logged.
    pub fn bursts(
        &self,
        tag: TagKey,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<Burst>, StoreError> {
        self.ask("reading a tag's bursts", |conn| {
            ring_bursts::range(conn, tag, from, to, limit, cursor)
        })
    }

    fn ask<T>(
        &self,
        doing: &'static str,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        question(&self.conn).map_err(|source| connection::sql(doing, &self.file, source))
    }
}

fn number(conn: &Connection, select: &str) -> rusqlite::Result<Option<u64>> {
    conn.prepare_cached(select)?
        .query_row([], |row| row.get::<_, Option<i64>>(0))
        .map(|found| found.map(uint))
}

pub(super) fn first(conn: &Connection) -> rusqlite::Result<u64> {
    Ok(connection::meta(conn, "first")?.map_or(1, uint).max(1))
}

pub(super) fn last(conn: &Connection) -> rusqlite::Result<u64> {
    let mut last = 0;
    for select in [
        "SELECT max(a1) FROM tail",
        "SELECT max(a1) FROM shared",
        "SELECT max(a1) FROM segment WHERE block = (SELECT max(block) FROM segment)",
    ] {
        last = last.max(number(conn, select)?.unwrap_or(0));
    }
    Ok(last)
}

/// Logs a blob that cannot be read; its neighbours are served.
pub(super) fn served(result: Result<(), Damaged>, what: &'static str, row: i64) {
    if let Err(damage) = result {
        tracing::error!(what, row, error = %damage, "readings left out");
    }
}

pub(super) fn after(
    conn: &Connection,
    window: &mut Window,
    arrival: Arrival,
    limit: usize,
) -> rusqlite::Result<Vec<Reading>> {
    let limit = limit.clamp(1, PAGE_ROWS_MAX);
    let step = conn.unchecked_transaction()?;
    let last = last(&step)?;
    let shifts = Shifts::load(&step)?;
    if shifts != window.shifts {
        *window = Window::default();
    }
    let mut from = arrival.0.saturating_add(1).max(first(&step)?);
    for _ in 0..WINDOWS_EMPTY_MAX {
        if from > last {
            return Ok(Vec::new());
        }
        if !(window.from..window.to).contains(&from) {
            let to = from.saturating_add(WINDOW).min(last + 1);
            *window = load(&step, from, to, shifts.clone())?;
        }
        let start = window.readings.partition_point(|reading| reading.arrival.0 < from);
        let found = &window.readings[start..];
        if !found.is_empty() {
            return Ok(found[..found.len().min(limit)].to_vec());
        }
        from = window.to;
    }
    Err(connection::bad_value("arrival numbers with an endless gap"))
}

/// Decodes everything with arrivals in `from..to`.
fn load(conn: &Connection, from: u64, to: u64, shifts: Shifts) -> rusqlite::Result<Window> {
    let mut readings = Vec::new();
    each_blob(
        conn,
        "SELECT id, data, boot FROM tail WHERE a1 >= ?1 AND a0 < ?2 ORDER BY id",
        (from, to),
        |id, data, era| {
            let mut into = Dated(&mut readings, shifts.of(era));
            served(codec::open_tail(data, &mut into), "tail", id);
        },
    )?;
    each_blob(
        conn,
        "SELECT id, data, boot FROM shared WHERE a1 >= ?1 AND a0 < ?2 ORDER BY id",
        (from, to),
        |id, data, era| {
            let mut into = Dated(&mut readings, shifts.of(era));
            served(codec::open_shared(data, &mut into), "shared segment", id);
        },
    )?;
    let mut select = conn.prepare_cached(
        "SELECT id, tag, data, boot FROM segment
         WHERE id >= ?1 AND id <= ?2 AND a1 >= ?3 AND a0 < ?4 ORDER BY id",
    )?;
    let low = first_segment(conn, from)?;
    let high = first_segment(conn, to.saturating_add(REACH))?;
    let mut rows = select.query(params![low, high, int(from), int(to)])?;
    while let Some(row) = rows.next()? {
        let data = row.get_ref(2)?.as_blob().map_err(|_| connection::bad_value("a blob"))?;
        let mut into = Dated(&mut readings, shifts.of(row.get(3)?));
        let opened = codec::open_segment(data, TagKey(row.get(1)?), &mut into);
        served(opened, "segment", row.get(0)?);
    }
    readings.retain(|reading| (from..to).contains(&reading.arrival.0));
    readings.sort_unstable_by_key(|reading| reading.arrival);
    readings.dedup_by_key(|reading| reading.arrival);
    Ok(Window { from, to, readings, shifts })
}

fn each_blob(
    conn: &Connection,
    select: &str,
    (from, to): (u64, u64),
    mut take: impl FnMut(i64, &[u8], i64),
) -> rusqlite::Result<()> {
    let mut select = conn.prepare_cached(select)?;
    let mut rows = select.query(params![int(from), int(to)])?;
    while let Some(row) = rows.next()? {
        let data = row.get_ref(1)?.as_blob().map_err(|_| connection::bad_value("a blob"))?;
        take(row.get(0)?, data, row.get(2)?);
    }
    Ok(())
}

/// The first segment written when `arrival` or a later one was the newest: `upto` grows with `id`.
fn first_segment(conn: &Connection, arrival: u64) -> rusqlite::Result<i64> {
    let bounds: (Option<i64>, Option<i64>) = conn
        .prepare_cached("SELECT min(id), max(id) FROM segment")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(mut low), Some(mut high)) = bounds else { return Ok(0) };
    // Rows are deleted from the front only, but a hole would do no harm: the next row answers.
    let mut upto =
        conn.prepare_cached("SELECT id, upto FROM segment WHERE id >= ?1 ORDER BY id LIMIT 1")?;
    while low < high {
        let middle = low + (high - low) / 2;
        let (id, found): (i64, i64) =
            upto.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if uint(found) >= arrival {
            high = middle;
        } else {
            low = id.max(middle) + 1;
        }
    }
    Ok(low)
}

/// A tag's own segments that overlap `from..=to` in time: id and earliest time, sorted by it.
pub(super) fn segments_between(
    conn: &Connection,
    tag: TagKey,
    from: i64,
    to: i64,
    first_block: i64,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut next = conn.prepare_cached("SELECT min(block) FROM segment WHERE block >= ?1")?;
    let mut select = conn.prepare_cached(
        "SELECT id, t0 FROM segment WHERE block = ?1 AND tag = ?2 AND t1 >= ?3 AND t0 <= ?4",
    )?;
    // Times of a segment may be the device's own, or the gateway's that are to be moved.
    let mut select_moved = conn.prepare_cached(
        "SELECT id, t0 FROM segment WHERE block = ?1 AND tag = ?2 AND boot = ?3
            AND max(t1, t1 + ?4) >= ?5 AND min(t0, t0 + ?4) <= ?6",
    )?;
    let shifts = Shifts::load(conn)?;
    let mut found = Vec::new();
    let mut block = first_block;
    while let Some(this) = next.query_row([block], |row| row.get::<_, Option<i64>>(0))? {
        let mut rows = select.query(params![this, tag.0, from, to])?;
        while let Some(row) = rows.next()? {
            found.push((row.get(1)?, row.get(0)?));
        }
        for (era, shift) in shifts.iter() {
            let mut rows = select_moved.query(params![this, tag.0, era, shift, from, to])?;
            while let Some(row) = rows.next()? {
                let t0: i64 = row.get(1)?;
                found.push((t0.min(t0.saturating_add(shift)), row.get(0)?));
            }
        }
        block = this.saturating_add(1);
    }
    found.sort_unstable();
    if !shifts.is_empty() {
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|(_, id)| seen.insert(*id));
    }
    Ok(found.into_iter().map(|(t0, id)| (id, t0)).collect())
}

/// Decodes one segment of `tag`.
pub(super) fn open_segment(
    conn: &Connection,
    id: i64,
    tag: TagKey,
    into: &mut Vec<Reading>,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "SELECT segment.data, coalesce(boots.shift, 0)
         FROM segment LEFT JOIN boots ON boots.id = segment.boot WHERE segment.id = ?1",
    )?
    .query_row([id], |row| {
        let data = row.get_ref(0)?.as_blob().map_err(|_| connection::bad_value("a blob"))?;
        let mut into = Dated(into, row.get(1)?);
        served(codec::open_segment(data, tag, &mut into), "segment", id);
        Ok(())
    })
}

/// All readings outside own segments, dead copies included.
pub(super) fn unfolded(conn: &Connection) -> rusqlite::Result<Vec<Reading>> {
    let shifts = Shifts::load(conn)?;
    let mut readings = Vec::new();
    each_unfolded(conn, |era, what, id, data| {
        let mut into = Dated(&mut readings, shifts.of(era));
        let opened = match what {
            Unfolded::Shared => codec::open_shared(data, &mut into),
            Unfolded::Tail => codec::open_tail(data, &mut into),
        };
        served(opened, what.name(), id);
    })?;
    Ok(readings)
}

/// The same as they were written, each with whether its time is the device's own.
pub(super) fn unfolded_raw(conn: &Connection) -> rusqlite::Result<Vec<(Reading, bool)>> {
    let mut readings: Vec<(Reading, bool)> = Vec::new();
    each_unfolded(conn, |_, what, id, data| {
        let opened = match what {
            Unfolded::Shared => codec::open_shared(data, &mut readings),
            Unfolded::Tail => codec::open_tail(data, &mut readings),
        };
        served(opened, what.name(), id);
    })?;
    Ok(readings)
}

/// Where readings stand that are in no segment of their own.
#[derive(Clone, Copy)]
enum Unfolded {
    Shared,
    Tail,
}

impl Unfolded {
    const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared segment",
            Self::Tail => "tail",
        }
    }
}

fn each_unfolded(
    conn: &Connection,
    mut take: impl FnMut(i64, Unfolded, i64, &[u8]),
) -> rusqlite::Result<()> {
    let all = (0, u64::MAX);
    each_blob(
        conn,
        "SELECT id, data, boot FROM shared WHERE a1 >= ?1 AND a0 <= ?2 ORDER BY id",
        all,
        |id, data, era| take(era, Unfolded::Shared, id, data),
    )?;
    each_blob(
        conn,
        "SELECT id, data, boot FROM tail WHERE a1 >= ?1 AND a0 <= ?2 ORDER BY id",
        all,
        |id, data, era| take(era, Unfolded::Tail, id, data),
    )
}

/// What is remembered of a tag: last folded arrival, open hour, its first arrival.
fn tagged(conn: &Connection, tag: TagKey) -> rusqlite::Result<(u64, Option<i32>, u64)> {
    let found = conn
        .prepare_cached("SELECT folded, hour, since FROM tagged WHERE tag = ?1")?
        .query_row([tag.0], |row| Ok((uint(row.get(0)?), row.get(1)?, uint(row.get(2)?))))
        .optional()?;
    Ok(found.unwrap_or((0, None, 0)))
}

pub(super) fn range(
    conn: &Connection,
    tag: TagKey,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
    cursor: Option<&str>,
) -> rusqlite::Result<Page<Reading>> {
    let step = conn.unchecked_transaction()?;
    range_in(&step, tag, from, to, limit, cursor)
}

/// [`range`] within a transaction.
fn range_in(
    step: &Connection,
    tag: TagKey,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
    cursor: Option<&str>,
) -> rusqlite::Result<Page<Reading>> {
    let limit = limit.clamp(1, PAGE_ROWS_MAX);
    // A cursor that is none of ours begins at the first page.
    let place = cursor
        .and_then(|cursor| cursor.split_once('~'))
        .and_then(|(time, arrival)| Some((time.parse().ok()?, arrival.parse().ok()?)))
        .unwrap_or((i64::MIN, 0_u64));
    let from = from.micros().max(place.0);
    let (folded, ..) = tagged(step, tag)?;
    let wanted = |reading: &Reading| {
        let time = reading.time.micros();
        reading.tag == tag
            && time >= from
            && time < to.micros()
            && (time, reading.arrival.0) > place
    };
    let mut found = unfolded(step)?;
    found.retain(|reading| reading.arrival.0 > folded && wanted(reading));
    let mut opened = Vec::new();
    for (id, t0) in segments_between(step, tag, from, to.micros().saturating_sub(1), 0)? {
        // What is still to come begins at `t0`: enough when a full page lies before it.
        if found.len() > limit
            && found.iter().filter(|reading| reading.time.micros() < t0).count() > limit
        {
            break;
        }
        opened.clear();
        open_segment(step, id, tag, &mut opened)?;
        found.extend(opened.iter().filter(|reading| wanted(reading)));
    }
    found.sort_unstable_by_key(|reading| (reading.time, reading.arrival));
    found.dedup_by_key(|reading| reading.arrival);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| format!("{}~{}", last.time.micros(), last.arrival.0));
    Ok(Page { items: found, next })
}

/// The key of a pack.
pub(super) fn pack_key(span: i32, tag: TagKey) -> i64 {
    i64::from(span) << 32 | i64::from(tag.0)
}

/// One pack of `minutes` or `hours`; a damaged one counts as none.
pub(super) fn pack(
    conn: &Connection,
    select: &'static str,
    span: i32,
    tag: TagKey,
) -> rusqlite::Result<Option<Pack>> {
    let sealed: Option<Vec<u8>> = conn
        .prepare_cached(select)?
        .query_row([pack_key(span, tag)], |row| row.get(0))
        .optional()?;
    Ok(sealed.and_then(|sealed| match codec::open_buckets(&sealed) {
        Ok(buckets) => Some(Pack(buckets)),
        Err(error) => {
            tracing::error!(tag = tag.0, span, %error, "roll-ups left out");
            None
        }
    }))
}

/// Reads a pack of minutes.
pub(super) const MINUTES: &str = "SELECT data FROM minutes WHERE key = ?1";
/// Reads a pack of hours.
pub(super) const HOURS: &str = "SELECT data FROM hours WHERE key = ?1";

pub(super) fn rollups(
    conn: &Connection,
    tag: TagKey,
    from: Timestamp,
    to: Timestamp,
    resolution: Resolution,
) -> rusqlite::Result<Vec<Rollup>> {
    let step = conn.unchecked_transaction()?;
    let (_, open, since) = tagged(&step, tag)?;
    let open_pack = match open {
        Some(open) => {
            // An earlier era may have ended in this hour.
            let mut pack = pack(&step, MINUTES, open, tag)?.unwrap_or_default();
            pack.merge(&recount(&step, tag, open, since)?);
            pack
        }
        None => Pack::default(),
    };
    let bounds = spans(&step, tag, from, to, resolution)?;
    let mut found = Vec::new();
    let mut put = |start: i64, bucket: &super::rollup::Bucket| {
        if start >= from.micros() && start < to.micros() && found.len() < PAGE_ROWS_MAX {
            found.push(bucket.rollup(start));
        }
    };
    for span in bounds {
        match resolution {
            Resolution::Minute => {
                let stored = pack(&step, MINUTES, span, tag)?;
                let pack =
                    if open == Some(span) { &open_pack } else { &stored.unwrap_or_default() };
                for bucket in &pack.0 {
                    let offset = i64::from(bucket.index) * Resolution::Minute.micros();
                    put(hour_start(span) + offset, bucket);
                }
            }
            Resolution::Hour | Resolution::Day => {
                let mut hours = pack(&step, HOURS, span, tag)?.unwrap_or_default();
                if let Some(open) = open
                    && day_of(open).0 == span
                    && let Some(sum) = open_pack.sum(day_of(open).1)
                {
                    hours.replace(sum);
                }
                let start = i64::from(span) * Resolution::Day.micros();
                if resolution == Resolution::Day {
                    if let Some(sum) = hours.sum(0) {
                        put(start, &sum);
                    }
                    continue;
                }
                for bucket in &hours.0 {
                    put(start + i64::from(bucket.index) * Resolution::Hour.micros(), bucket);
                }
            }
        }
    }
    Ok(found)
}

/// The spans (hours for minutes, days otherwise) in which a tag may have packs between two moments:
/// never more than there are rows.
fn spans(
    conn: &Connection,
    tag: TagKey,
    from: Timestamp,
    to: Timestamp,
    resolution: Resolution,
) -> rusqlite::Result<std::ops::RangeInclusive<i32>> {
    let (select, day) = match resolution {
        Resolution::Minute => ("SELECT min(key), max(key) FROM minutes", false),
        Resolution::Hour | Resolution::Day => ("SELECT min(key), max(key) FROM hours", true),
    };
    let span = |time: i64| {
        let hour =
            hour_of(time).map_or(if time < 0 { i32::MIN } else { i32::MAX }, |(hour, _)| hour);
        if day { day_of(hour).0 } else { hour }
    };
    let (least, most): (Option<i64>, Option<i64>) =
        conn.prepare_cached(select)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let of_key = |key: i64| i32::try_from(key >> 32).unwrap_or(0);
    let mut low = least.map_or(i32::MAX, of_key);
    let mut high = most.map_or(i32::MIN, of_key);
    if let (_, Some(open), _) = tagged(conn, tag)? {
        let open = if day { day_of(open).0 } else { open };
        (low, high) = (low.min(open), high.max(open));
    }
    Ok(low.max(span(from.micros()))..=high.min(span(to.micros().saturating_sub(1))))
}

/// Eras that were dated late and whose roll-ups are to be made, with their first and last arrival.
pub(super) fn dated_spans(conn: &Connection) -> rusqlite::Result<Vec<(i64, u64, u64)>> {
    conn.prepare_cached(
        "SELECT boots.id, coalesce(min(a0), 1), coalesce(max(a1), 0)
         FROM boots LEFT JOIN segment ON segment.boot = boots.id
         WHERE dated AND NOT rolled GROUP BY boots.id ORDER BY boots.id",
    )?
    .query_map([], |row| Ok((row.get(0)?, uint(row.get(1)?), uint(row.get(2)?))))?
    .collect()
}

/// Up to which arrival readings are in roll-ups, while those of an era that was dated late are
/// being made; without bound otherwise.
pub(super) fn rolled(conn: &Connection) -> rusqlite::Result<u64> {
    let pending: bool = conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM boots WHERE dated AND NOT rolled)")?
        .query_row([], |row| row.get(0))?;
    if pending { Ok(connection::meta(conn, "rolled")?.map_or(0, uint)) } else { Ok(u64::MAX) }
}

/// Makes the roll-ups of a tag's open hour from its raw readings.
fn recount(conn: &Connection, tag: TagKey, hour: i32, since: u64) -> rusqlite::Result<Pack> {
    let start = Timestamp::from_micros(hour_start(hour));
    let end = Timestamp::from_micros(hour_start(hour).saturating_add(Resolution::Hour.micros()));
    let rolled = rolled(conn)?;
    let mut minutes = Pack::default();
    let mut cursor: Option<String> = None;
    loop {
        let page = range_in(conn, tag, start, end, PAGE_ROWS_MAX, cursor.as_deref())?;
        let counted =
            |reading: &&Reading| counts(reading) && (since..=rolled).contains(&reading.arrival.0);
        for reading in page.items.iter().filter(counted) {
            let time = reading.time.micros();
            if let Some((_, minute)) = hour_of(time) {
                minutes.add(minute, time, reading.value);
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(minutes);
        }
    }
}
