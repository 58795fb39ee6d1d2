//! `ring.db`: readings and roll-ups inside a fixed size, the oldest overwritten. Owned by the store
//! thread.
//!
//! A commit is one transaction: the group's readings as one row of the tail, in order of arrival;
//! a segment for every tag that has [`SEGMENT_READINGS`](super::ring_live::SEGMENT_READINGS)
//! readings together, and the rows of the tail that this empties deleted; closed and late roll-ups;
//! and as many of the oldest segments deleted as the new ones need room. What a commit did not
//! make durable stays in memory and goes with the next one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::codec::{self, Columns};
use super::connection::{self, PAGE_BYTES, Plan, Writer};
use super::eras::{self, Redated};
use super::ring_bursts::{BURSTS_SHARE, PendingBursts};
use super::ring_known::{Doubtful, identity, recount, stored_between};
use super::ring_live::{self, Live};
use super::ring_read::{self, Window};
use super::ring_write::{DROP_SLICE, Done, Room, Sealed, Shared, Work, shared_rows, write};
use super::rollup::{Resolution, Rollup};
use super::schema::RING;
use super::state::TAG_KEYS_MAX;
use super::{BootInfo, ErrorKind, Opened, Page, StoreError, uint};
use crate::domain::ids::{Arrival, TagKey, TagPath};
use crate::domain::reading::{Burst, Reading};
use crate::domain::time::Timestamp;

/// What stays in the tail longer than this moves into a shared segment.
const TAIL_AGE_MAX: Duration = Duration::from_secs(600);
/// The same for a tail of more rows than this: many small commits because senders wait.
const TAIL_ROWS_MAX: u64 = 8192;
/// The same for a tail of more bytes than this, or than 32 for every reading that it must keep.
const TAIL_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Shared segments from which on they are written together as one.
const SHARED_MAX: usize = 8;
/// Share of the file in percent that is in use before the oldest segments fall.
const FILL_PERCENT: u64 = 90;
/// Minutes may take one part in so many of the file.
const MINUTES_SHARE: u64 = 4;
/// Hours may take one part in so many of the file.
const HOURS_SHARE: u64 = 16;
/// Attempts at one commit, each making more room, when the file has reached its bound.
const ROOM_ATTEMPTS: u32 = 4;
/// Most readings in one transaction. Bounds its size, and how far a segment can reach back.
const COMMIT_READINGS_MAX: usize = 1 << 20;

/// The writing connection to `ring.db`.
#[derive(Debug)]
pub struct RingDb {
    writer: Writer,
    live: Live,
    /// Readings that are not durable yet, in order of arrival.
    group: Vec<Reading>,
    /// How many of them are in `live` already.
    absorbed: usize,
    last: u64,
    /// The highest arrival taken in, repeats included.
    given: u64,
    mono: Duration,
    tail: Tail,
    /// Row and last arrival of the shared segments.
    shared: Vec<(i64, u64)>,
    /// Whether roll-ups are made: not while the clock is not to be believed.
    rolling: bool,
    /// Arrival numbers and tags of the group whose times are the device's own, while the clock is
    /// not believed (otherwise it does not matter).
    own: Vec<(u64, TagKey)>,
    /// A new era begins behind so many readings of the group.
    next_era: Option<(usize, BootInfo)>,
    /// Eras that were dated and not told of yet.
    redated: Option<Redated>,
    /// The hour it is, by the last reading.
    hour: i32,
    /// Up to which arrival the roll-ups of eras dated late are made; for the next commit.
    rolled: Option<u64>,
    window: RefCell<Window>,
    counts: RingCounts,
    /// Bytes that packs of minutes may take.
    minutes_max: u64,
    /// Bytes that packs of hours may take.
    hours_max: u64,
    /// Bursts that are not durable yet.
    bursts: PendingBursts,
    /// Bytes that bursts may take.
    bursts_max: u64,
}

/// What is in the tail.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    rows: u64,
    bytes: u64,
    since: Option<Duration>,
}

/// Readings that are gone before they were durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// First arrival.
    pub from: Arrival,
    /// Last arrival.
    pub to: Arrival,
    /// How many.
    pub count: u64,
}

/// What the ring did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingCounts {
    /// Commits.
    pub commits: u64,
    /// Readings made durable.
    pub readings: u64,
    /// Readings left out because they were there already.
    pub repeats: u64,
    /// Segments written.
    pub segments: u64,
    /// Segments overwritten.
    pub dropped_segments: u64,
}

impl RingDb {
    /// Opens or makes the file in `dir`, at most `max_bytes` large with its log. A corrupt one is
    /// moved aside and begun anew.
    ///
    /// # Errors
    /// As [`super::StateDb::open`].
    pub fn open(dir: &Path, max_bytes: u64, boot: &BootInfo) -> Result<(Self, Opened), StoreError> {
        let plan = Plan { schema: &RING, dir, max_bytes, always_check: false, cache_kib: 4000 };
        let (writer, opened) = plan.open(boot)?;
        match Self::with(writer, max_bytes, boot.trusted) {
            Ok(ring) => Ok((ring, opened)),
            // Damage that the check does not look for, or met in a file too large to be checked.
            Err(error) if error.kind() == ErrorKind::Corrupt && opened.quarantined.is_none() => {
                super::quarantine::mark_suspect(&dir.join(RING.file));
                let (writer, opened) = plan.open(boot)?;
                Ok((Self::with(writer, max_bytes, boot.trusted)?, opened))
            }
            Err(error) => Err(error),
        }
    }

    /// The same tables in memory, for tests and the simulation.
    ///
    /// # Errors
    /// When SQLite cannot be used.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::with(connection::in_memory(&RING)?, u64::from(u32::MAX) * PAGE_BYTES, true)
    }

    fn with(writer: Writer, max_bytes: u64, rolling: bool) -> Result<Self, StoreError> {
        let mut ring = Self {
            writer,
            live: Live::default(),
            group: Vec::new(),
            absorbed: 0,
            last: 0,
            given: 0,
            mono: Duration::ZERO,
            tail: Tail::default(),
            shared: Vec::new(),
            rolling,
            own: Vec::new(),
            next_era: None,
            redated: None,
            hour: i32::MAX - 48,
            rolled: None,
            window: RefCell::default(),
            counts: RingCounts::default(),
            minutes_max: max_bytes / MINUTES_SHARE,
            hours_max: max_bytes / HOURS_SHARE,
            bursts: PendingBursts::default(),
            bursts_max: max_bytes / BURSTS_SHARE,
        };
        let other_boot = ring.restore().map_err(|source| {
            match connection::kind_of(&source) {
                // Tables that are not what they were are damage.
                ErrorKind::Other => connection::corrupt(&ring.writer.file, source.to_string()),
                ErrorKind::Full
                | ErrorKind::ReadOnly
                | ErrorKind::Corrupt
                | ErrorKind::IoFailed
                | ErrorKind::Busy
                | ErrorKind::TooNew
                | ErrorKind::Unusable => connection::sql("reading back", &ring.writer.file, source),
            }
        })?;
        if let Some(boot) = other_boot {
            // Segments never span boots: what an earlier one left in the tail is folded at once.
            let own = std::mem::replace(&mut ring.writer.boot, boot);
            let folded = ring.commit_as(true);
            ring.writer.boot = own;
            if let Err(error) = folded {
                tracing::warn!(%error, "readings of an earlier boot stay in the tail");
            }
        }
        let first = ring.last + 1;
        eras::begin_at(&ring.writer.conn, ring.writer.boot, first)
            .map_err(|source| ring.writer.fault("beginning an era", source))?;
        if let Err(error) = ring.roll_dated() {
            tracing::warn!(%error, "roll-ups of readings dated late are not made yet");
        }
        Ok(ring)
    }

    /// Takes readings into the open group, in order of arrival. Memory only.
    pub fn append(&mut self, readings: &[Reading]) {
        self.group.extend_from_slice(readings);
    }

    /// The same, with the arrival numbers and tags of those whose times are the device's own: they
    /// stay when the gateway's clock is put right. Only needed while it is not believed.
    pub fn append_timed(&mut self, readings: &[Reading], own: &[(u64, TagKey)]) {
        self.append(readings);
        if !self.rolling {
            self.own.extend_from_slice(own);
        }
    }

    /// Takes bursts in whose readings were appended. Memory only.
    pub fn append_bursts(&mut self, bursts: Vec<Burst>) {
        self.bursts.append(bursts);
    }

    /// Tells the ring how late it is on the monotonic clock, for what ages by itself.
    pub fn advance(&mut self, mono: Duration) {
        self.mono = mono;
    }

    /// Readings in memory that are not durable yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.group.len()
    }

    /// The last durable arrival; 0 when there is none.
    #[must_use]
    pub fn last_arrival(&self) -> Arrival {
        Arrival(self.last)
    }

    /// What the ring did since it was opened.
    #[must_use]
    pub fn counts(&self) -> RingCounts {
        self.counts
    }

    /// Makes the open group durable. Returns the last durable arrival.
    ///
    /// # Errors
    /// When it did not become durable; the group is kept for the next attempt.
    pub fn commit(&mut self) -> Result<Arrival, StoreError> {
        loop {
            self.commit_as(self.next_era.is_some())?;
            if let Some((0, boot)) = self.next_era {
                self.enter_era(&boot)?;
                self.next_era = None;
                continue;
            }
            if self.group.is_empty() {
                // A group of nothing but repeats is as durable as any.
                self.last = self.last.max(self.given);
                return Ok(Arrival(self.last));
            }
        }
    }

    /// Gives up the oldest readings of the open group beyond `keep`.
    pub fn shed(&mut self, keep: usize) -> Option<Lost> {
        let count = self.group.len().checked_sub(keep).filter(|count| *count > 0)?;
        let (from, to) = (self.group[0].arrival, self.group[count - 1].arrival);
        self.group.drain(..count);
        self.absorbed = self.absorbed.saturating_sub(count);
        if let Some((ahead, _)) = &mut self.next_era {
            *ahead = ahead.saturating_sub(count);
        }
        self.own.retain(|(arrival, _)| *arrival > to.0);
        for (_, tag) in self.live.iter_mut() {
            tag.columns.drop_arrivals(from.0, to.0);
        }
        Some(Lost { from, to, count: count as u64 })
    }

    /// Writes down what the tags' numbers mean, so that readings keep their names when `state.db`
    /// is lost.
    ///
    /// # Errors
    /// When it cannot be written, or a number belongs to another tag.
    pub fn name_tags(&mut self, keys: &BTreeMap<TagPath, TagKey>) -> Result<(), StoreError> {
        self.writer.trusted()?;
        name_tags(&mut self.writer.conn, keys)
            .map_err(|source| self.writer.fault("naming tags", source))
            .and_then(|other| match other {
                None => Ok(()),
                Some((path, other)) => Err(StoreError::Unstorable {
                    what: format!("readings of {path}"),
                    why: format!("its number holds readings of {other}"),
                }),
            })
    }

    /// A new era begins behind what was appended so far: the gateway's clock was set, or is no
    /// longer believed. Takes effect with the next commit; what this boot wrote while its clock was
    /// not believed is put right then, and its roll-ups are made.
    pub fn date_boot(&mut self, boot: &BootInfo) {
        let behind = self.next_era.map_or(self.group.len(), |(behind, _)| behind);
        self.next_era = Some((behind, *boot));
    }

    /// A burst has the time of the reading that stands for it.
    fn date_bursts(&mut self, era: i64) -> Result<(), StoreError> {
        let doing = "dating bursts";
        let bursts: Vec<(i64, i64)> = self.ask(|conn| {
            conn.prepare_cached("SELECT id, arrival FROM burst WHERE boot = ?1 ORDER BY arrival")?
                .query_map([era], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        for (row, arrival) in bursts {
            let before = Arrival(uint(arrival).saturating_sub(1));
            let found = self.after(before, 1)?;
            let Some(reading) = found.first().filter(|found| found.arrival.0 == uint(arrival))
            else {
                continue;
            };
            self.writer
                .conn
                .execute(
                    "UPDATE OR IGNORE burst SET time = ?2 WHERE id = ?1",
                    params![row, reading.time.micros()],
                )
                .map_err(|source| self.writer.fault(doing, source))?;
        }
        Ok(())
    }

    /// Whether a new era waits for a commit.
    #[must_use]
    pub fn era_waits(&self) -> bool {
        self.next_era.is_some()
    }

    /// What the last commits have put right; told once.
    pub fn take_redated(&mut self) -> Option<Redated> {
        self.redated.take()
    }

    /// Everything before it is durable in segments: nothing of two eras ever stands together.
    fn enter_era(&mut self, boot: &BootInfo) -> Result<(), StoreError> {
        self.live.end_era();
        self.commit_as(true)?;
        let first = self.last + 1;
        let enter = |conn: &mut Connection| {
            let step = conn.transaction()?;
            let redated = eras::date(&step, boot)?;
            let row = eras::enter(&step, boot)?;
            eras::begin_at(&step, row, first)?;
            step.commit()?;
            Ok((redated, row))
        };
        let (redated, row) = enter(&mut self.writer.conn)
            .map_err(|source| self.writer.fault("entering an era", source))?;
        self.writer.boot = row;
        self.rolling = boot.trusted;
        self.own.clear();
        if !redated.eras.is_empty() {
            self.redated = Some(redated);
        }
        self.roll_dated()
    }

    /// Makes the roll-ups of eras that were dated after they had ended, in order of arrival and in
    /// slices; how far it got is written with each slice.
    fn roll_dated(&mut self) -> Result<(), StoreError> {
        let doing = "making roll-ups of readings dated late";
        let spans = ring_read::dated_spans(&self.writer.conn)
            .map_err(|source| self.writer.fault(doing, source))?;
        for (era, first, last) in spans {
            let mut from = connection::meta(&self.writer.conn, "rolled")
                .map_err(|source| self.writer.fault(doing, source))?
                .map_or(0, uint)
                .max(first.saturating_sub(1));
            while from < last {
                let page = self.after(Arrival(from), super::PAGE_ROWS_MAX)?;
                let Some(end) = page.last() else { break };
                from = end.arrival.0.min(last);
                for reading in page.iter().filter(|reading| reading.arrival.0 <= last) {
                    if ring_live::counts(reading) && self.live.tag(reading.tag).is_some() {
                        self.live.roll(reading, reading.time.micros());
                    }
                }
                self.rolled = Some(from);
                self.commit_as(false)?;
            }
            self.date_bursts(era)?;
            self.writer
                .conn
                .execute("UPDATE boots SET rolled = 1 WHERE id = ?1", [era])
                .map_err(|source| self.writer.fault(doing, source))?;
        }
        Ok(())
    }

    /// Writes down that all is in order. The last thing before the file is closed.
    ///
    /// # Errors
    /// When it cannot be written; the next start then checks the file.
    pub fn mark_clean_stop(&mut self) -> Result<(), StoreError> {
        self.writer.mark_clean()
    }

    /// As [`super::RingReader::after`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn after(&self, arrival: Arrival, limit: usize) -> Result<Vec<Reading>, StoreError> {
        let mut window = self.window.borrow_mut();
        self.ask(|conn| ring_read::after(conn, &mut window, arrival, limit))
    }

    /// As [`super::RingReader::first_arrival`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn first_arrival(&self) -> Result<Arrival, StoreError> {
        self.ask(|conn| ring_read::first(conn).map(Arrival))
    }

    /// As [`super::RingReader::range`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn range(
        &self,
        tag: TagKey,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<Reading>, StoreError> {
        self.ask(|conn| ring_read::range(conn, tag, from, to, limit, cursor))
    }

    /// As [`super::RingReader::bursts`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn bursts(
        &self,
        tag: TagKey,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page<Burst>, StoreError> {
        self.ask(|conn| super::ring_bursts::range(conn, tag, from, to, limit, cursor))
    }

    /// As [`super::RingReader::rollups`].
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rollups(
        &self,
        tag: TagKey,
        from: Timestamp,
        to: Timestamp,
        resolution: Resolution,
    ) -> Result<Vec<Rollup>, StoreError> {
        self.ask(|conn| ring_read::rollups(conn, tag, from, to, resolution))
    }

    /// Makes every later commit fail, as a disk would.
    #[cfg(test)]
    pub(super) fn break_for_test(&self) {
        self.writer.conn.execute_batch("DROP TABLE tail; DROP TABLE segment").expect("tables");
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        question(&self.writer.conn)
            .map_err(|source| connection::sql("reading", &self.writer.file, source))
    }

    /// One transaction with at most [`COMMIT_READINGS_MAX`] readings.
    fn commit_as(&mut self, fold_all: bool) -> Result<(), StoreError> {
        self.writer.trusted()?;
        let doing = "committing readings";
        self.absorb().map_err(|source| self.writer.fault(doing, source))?;
        let plan = self.plan(fold_all);
        if plan.is_empty() && !self.live.has_rollups() && self.bursts.is_empty() {
            return Ok(());
        }
        let mut attempt = 0;
        let dropped = loop {
            attempt += 1;
            let room = Room {
                pages: self.writer.pages_max * FILL_PERCENT / 100,
                extra: DROP_SLICE * (1_i64 << attempt) - 2 * DROP_SLICE,
                minutes: self.minutes_max,
                hours: self.hours_max,
                hour: self.hour,
                bursts: self.bursts_max,
            };
            let (boot, bursts) = (self.writer.boot, self.bursts.all());
            match write(&mut self.writer.conn, boot, &plan, &self.live, bursts, &room) {
                Ok(dropped) => break dropped,
                Err(source)
                    if attempt < ROOM_ATTEMPTS
                        && connection::kind_of(&source) == ErrorKind::Full => {}
                Err(source) => return Err(self.writer.fault(doing, source)),
            }
        };
        self.apply(plan, dropped);
        self.bursts.written();
        self.writer.tidy();
        Ok(())
    }

    /// Takes the new readings of the group into `live`, leaving out what is there already.
    fn absorb(&mut self) -> rusqlite::Result<()> {
        let all = self.group.len();
        let era = self.next_era.map_or(all, |(behind, _)| behind);
        let end = all.min(COMMIT_READINGS_MAX).min(era);
        if self.absorbed >= end {
            return Ok(());
        }
        let last = self.group[end - 1];
        let doubtful = Doubtful::find(&mut self.live, &self.group[self.absorbed..end]);
        if doubtful.is_empty() {
            self.live.absorb(&self.group[self.absorbed..end], self.rolling);
            self.absorbed = end;
        } else {
            let mut known = stored_between(&self.writer.conn, &doubtful.stored)?;
            for key in &doubtful.tags {
                if let Some(tag) = self.live.get(*key) {
                    let held = (0..tag.columns.len()).map(|at| tag.columns.get(*key, at));
                    known.extend(held.map(|reading| identity(&reading)));
                }
            }
            let mut fresh = Vec::with_capacity(end - self.absorbed);
            for at in self.absorbed..end {
                let reading = self.group[at];
                if doubtful.tags.contains(&reading.tag) && !known.insert(identity(&reading)) {
                    self.counts.repeats += 1;
                } else if reading.tag.0 < TAG_KEYS_MAX {
                    fresh.push(reading);
                }
            }
            self.live.absorb(&fresh, self.rolling);
            let kept = self.absorbed + fresh.len();
            self.group.splice(self.absorbed..end, fresh);
            self.absorbed = kept;
        }
        for (arrival, tag) in &self.own {
            if let Some(tag) = self.live.tag(*tag) {
                tag.columns.mark_own(*arrival);
            }
        }
        if let Some((behind, _)) = &mut self.next_era {
            *behind = behind.saturating_sub(all - self.group.len());
        }
        self.hour = super::rollup::hour_of(last.time.micros()).map_or(self.hour, |(hour, _)| hour);
        self.given = self.given.max(last.arrival.0);
        if self.rolling {
            self.live.settle(last.time.micros());
        }
        Ok(())
    }

    /// What a commit of all that was absorbed has to write.
    fn plan(&self, fold_all: bool) -> Work {
        let group = &self.group[..self.absorbed];
        let last = group.last().map_or(self.last, |reading| reading.arrival.0);
        let due: BTreeMap<TagKey, usize> = self.live.due(last, fold_all).into_iter().collect();
        let mut segments = Vec::new();
        for (tag, count) in &due {
            let live = self.live.get(*tag).expect("only met tags are due");
            for start in (0..*count).step_by(super::ring_live::SEGMENT_READINGS) {
                let end = (start + super::ring_live::SEGMENT_READINGS).min(*count);
                segments.push(Sealed::new(*tag, &live.columns, start..end));
            }
        }
        let in_due = |reading: &Reading| {
            due.get(&reading.tag).is_some_and(|count| {
                let live = self.live.get(reading.tag).expect("only met tags are due");
                live.columns.arrivals[count - 1] >= reading.arrival.0
            })
        };
        let mut unfolded: Vec<Reading> = Vec::new();
        unfolded.extend(group.iter().filter(|reading| !in_due(reading)));
        let mut work = Work {
            last,
            oldest: self.live.oldest_after(&due),
            due,
            segments,
            tail: None,
            shared: None,
            rolled: self.rolled,
        };
        if self.tail_is_long(unfolded.len()) {
            work.shared = self.shared_segment(&work.due);
        } else if let (Some(first), Some(newest)) = (unfolded.first(), unfolded.last()) {
            let ends = (first.arrival.0, newest.arrival.0);
            let own: Vec<u64> = self.own.iter().map(|(arrival, _)| *arrival).collect();
            work.tail = Some((ends.0, ends.1, codec::seal_tail(&unfolded, &own)));
        }
        work
    }

    fn tail_is_long(&self, new: usize) -> bool {
        let aged = self.tail.since.is_some_and(|since| self.mono >= since + TAIL_AGE_MAX);
        let live: usize = self.live.iter().map(|(_, tag)| tag.columns.len()).sum();
        let bytes_max = TAIL_BYTES_MAX.max(live as u64 * 32);
        aged || self.tail.rows >= TAIL_ROWS_MAX || self.tail.bytes + new as u64 * 12 > bytes_max
    }

    /// All of the tail that must be kept, and the group, as one shared segment; with the older
    /// shared ones when there are many.
    fn shared_segment(&self, due: &BTreeMap<TagKey, usize>) -> Option<Shared> {
        let merge = self.shared.len() + 1 >= SHARED_MAX;
        let above = if merge { 0 } else { self.shared.last().map_or(0, |(_, a1)| *a1) };
        let mut tags = Vec::new();
        let mut columns = Columns::default();
        for (key, tag) in self.live.iter() {
            let own = &tag.columns;
            let folded = due.get(&key).copied().unwrap_or(0);
            let start = folded.max(own.arrivals.partition_point(|arrival| *arrival <= above));
            tags.resize(tags.len() + own.len() - start, key.0);
            columns.arrivals.extend_from_slice(&own.arrivals[start..]);
            columns.times.extend_from_slice(&own.times[start..]);
            columns.values.extend_from_slice(&own.values[start..]);
            columns.quality.extend_from_slice(&own.quality[start..]);
        }
        let first = *columns.arrivals.iter().min()?;
        let last = *columns.arrivals.iter().max()?;
        Some(Shared { merge, first, last, data: codec::seal_shared(&tags, &columns) })
    }

    /// Takes over what a transaction made durable.
    fn apply(&mut self, work: Work, done: Done) {
        for (tag, count) in &work.due {
            if let Some(live) = self.live.tag(*tag) {
                let last_folded = live.columns.arrivals[count - 1];
                let newest = live.columns.times[..*count].iter().copied().max();
                live.folded = last_folded;
                live.folded_newest = live.folded_newest.max(newest.unwrap_or(i64::MIN));
                live.columns.drop_front(*count);
            }
        }
        self.live.rolled_up();
        self.counts.commits += 1;
        self.counts.readings += self.absorbed as u64;
        self.counts.segments += work.segments.len() as u64;
        self.counts.dropped_segments += done.dropped;
        self.group.drain(..self.absorbed);
        if let Some((behind, _)) = &mut self.next_era {
            *behind = behind.saturating_sub(self.absorbed);
        }
        self.absorbed = 0;
        self.own.retain(|(arrival, _)| *arrival > work.last);
        self.rolled = None;
        if self.group.is_empty() && self.group.capacity() > (1 << 16) {
            self.group = Vec::new();
        }
        self.last = work.last;
        self.shared = done.shared;
        self.tail.rows = done.tail_rows;
        if done.tail_rows == 0 {
            self.tail = Tail::default();
        } else if let Some((.., data)) = &work.tail {
            self.tail.bytes += data.len() as u64;
            self.tail.since.get_or_insert(self.mono);
        }
    }

    /// Reads back what lives in memory. Returns the boot of what is in the tail when it is not
    /// this one.
    fn restore(&mut self) -> rusqlite::Result<Option<i64>> {
        let conn = &self.writer.conn;
        let mut select =
            conn.prepare("SELECT tag, folded, newest, hour, since FROM tagged ORDER BY tag")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let key = TagKey(row.get(0)?);
            let tag = self
                .live
                .tag(key)
                .ok_or_else(|| connection::bad_value(format!("tag number {}", key.0)))?;
            tag.folded = uint(row.get(1)?);
            tag.newest = row.get(2)?;
            tag.folded_newest = tag.newest;
            tag.hour = row.get(3)?;
            tag.since = uint(row.get(4)?);
        }
        for (reading, own) in ring_read::unfolded_raw(conn)? {
            let tag = self
                .live
                .tag(reading.tag)
                .ok_or_else(|| connection::bad_value("a tag number in the tail"))?;
            let newest = tag.columns.arrivals.last().copied().unwrap_or(tag.folded);
            if reading.arrival.0 > newest {
                tag.columns.push(&reading);
                if own {
                    tag.columns.mark_own(reading.arrival.0);
                }
                tag.newest = tag.newest.max(reading.time.micros());
            }
        }
        self.last = ring_read::last(conn)?;
        self.shared = shared_rows(conn)?;
        let (count, bytes): (i64, Option<i64>) =
            conn.query_row("SELECT count(*), sum(length(data)) FROM tail", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        self.tail = Tail {
            rows: uint(count),
            bytes: bytes.map_or(0, uint),
            since: (count > 0).then_some(self.mono),
        };
        recount(conn, &mut self.live)?;
        conn.query_row(
            "SELECT max(boot) FROM (SELECT boot FROM tail UNION SELECT boot FROM shared)
             WHERE boot <> ?1",
            [self.writer.boot],
            |row| row.get(0),
        )
    }
}

/// Returns a tag whose number means another one.
fn name_tags(
    conn: &mut Connection,
    keys: &BTreeMap<TagPath, TagKey>,
) -> rusqlite::Result<Option<(TagPath, String)>> {
    let step = conn.transaction()?;
    for (path, key) in keys {
        let found: Option<(String, String)> = step
            .prepare_cached("SELECT asset, name FROM names WHERE tag = ?1")?
            .query_row([key.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((asset, name)) if asset == path.asset.as_str() && name == path.tag.as_str() => {}
            Some((asset, name)) => return Ok(Some((path.clone(), format!("{asset}/{name}")))),
            None => {
                step.prepare_cached("INSERT INTO names (tag, asset, name) VALUES (?1, ?2, ?3)")?
                    .execute(params![key.0, path.asset.as_str(), path.tag.as_str()])?;
            }
        }
    }
    step.commit()?;
    Ok(None)
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
