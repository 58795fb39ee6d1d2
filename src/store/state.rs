//! `state.db`: the journal, what the stages promised and learnt, sequences and cursors. Owned by
//! the engine's thread; everything in one [`Commit`] becomes durable together or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::Value;

use super::connection::{self, Plan, Writer};
use super::eras::{self, DatedEra, Redated};
use super::schema::STATE;
use super::state_read::{self, JournalFilter, RecordFilter};
use super::{BootInfo, Opened, Page, StoreError, int, salvage, uint};
use crate::domain::event::{Class, Event};
use crate::domain::ids::{Arrival, EventId, TagKey, TagPath};
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Timestamp;
use crate::port::{Committed, Lane, LanePosition};

/// Most tags a gateway may ever have had. Tables indexed by key stay small.
pub const TAG_KEYS_MAX: u32 = 1 << 20;
/// Version of the envelope around a snapshot.
const SNAPSHOT_VERSION: u8 = 1;
/// Closed chains, and closed records, dropped in one call of [`StateDb::retain`].
const DROPPED_PER_CALL: usize = 256;
/// The same while the file is nearly full: no more shall go than must.
const DROPPED_PER_CALL_PRESSED: usize = 32;
/// Share of the file, in percent, from which on closed chains fall before their time.
const PRESSURE_PERCENT: u64 = 80;

/// What one turn, or several, want to become durable together.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Events in order, each with its number within its topic class if it goes upstream.
    pub events: Vec<(Event, Option<(Class, u64)>)>,
    /// Records to write, in order; the last one of an identity counts.
    pub records: Vec<Record>,
    /// Last reading the stages have seen.
    pub seen: Option<Arrival>,
    /// The moment of the commit: nothing is believed to be earlier at the next start.
    pub utc: Option<Timestamp>,
    /// Eras whose correction is told by an event of this commit.
    pub corrected: Vec<i64>,
    /// How far upstream has acknowledged.
    pub lanes: Vec<LanePosition>,
    /// What stages have learnt, by stage.
    pub snapshots: Vec<(&'static str, Vec<u8>)>,
    /// Ends of blocks of sequence numbers that may be used before they are stored.
    pub sequences_reserved: Vec<(Class, u64)>,
    /// Bytes of models, by the id of their record; `None` drops them.
    pub models: Vec<(String, Option<Vec<u8>>)>,
}

impl Commit {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.records.is_empty()
            && self.seen.is_none()
            && self.lanes.is_empty()
            && self.snapshots.is_empty()
            && self.sequences_reserved.is_empty()
            && self.utc.is_none()
            && self.corrected.is_empty()
            && self.models.is_empty()
    }
}

/// What [`StateDb::retain`] dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retained {
    /// Closed chains.
    pub chains: u64,
    /// Their events.
    pub events: u64,
    /// Closed records.
    pub records: u64,
    /// There is more to drop: call again.
    pub more: bool,
    /// The file is nearly full and nothing more may be dropped: raise `storage-full`.
    pub full: bool,
}

/// The writing connection to `state.db`.
#[derive(Debug)]
pub struct StateDb {
    writer: Writer,
    /// Only for what comes in memory: nothing to check, nothing to tidy.
    dir: Option<PathBuf>,
}

impl StateDb {
    /// Opens or makes the file in `dir`, at most `max_bytes` large. A corrupt one is moved aside,
    /// and what can be read of it is taken over under a new epoch.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] for a file of a newer version, which stays untouched; otherwise when
    /// the directory or the disk does not play along.
    pub fn open(dir: &Path, max_bytes: u64, boot: &BootInfo) -> Result<(Self, Opened), StoreError> {
        let plan = Plan { schema: &STATE, dir, max_bytes, always_check: true, cache_kib: 2000 };
        let (writer, mut opened) = plan.open(boot)?;
        let mut state = Self { writer, dir: Some(dir.to_owned()) };
        if opened.fresh {
            opened.salvaged = salvage::into_fresh(&mut state, dir, opened.quarantined.as_deref())?;
        }
        Ok((state, opened))
    }

    /// The same tables in memory, for tests and the simulation.
    ///
    /// # Errors
    /// When SQLite cannot be used.
    pub fn in_memory() -> Result<Self, StoreError> {
        Ok(Self { writer: connection::in_memory(&STATE)?, dir: None })
    }

    /// The directory the file is in; `None` in memory.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Bounds the file at `max_bytes` from now on; it never shrinks below what it holds already.
    ///
    /// # Errors
    /// When SQLite does not take the bound.
    pub fn set_max_bytes(&mut self, max_bytes: u64) -> Result<(), StoreError> {
        self.writer.set_max_bytes(max_bytes)
    }

    /// Makes `commit` durable, all of it or nothing. Returns the journal rows of its events.
    ///
    /// # Errors
    /// When it did not become durable: the caller keeps it and tries again, or stops when
    /// [`StoreError::is_transient`] says so.
    pub fn commit(&mut self, commit: &Commit) -> Result<Vec<u64>, StoreError> {
        self.writer.trusted()?;
        if commit.is_empty() {
            return Ok(Vec::new());
        }
        let boot = self.writer.boot;
        let rows = write(&mut self.writer.conn, boot, commit)
            .map_err(|source| self.writer.fault("committing", source))?;
        self.writer.tidy();
        Ok(rows)
    }

    /// All open records, by kind, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read. A record that cannot be understood is left out, and logged.
    pub fn open_records(&self) -> Result<Vec<Record>, StoreError> {
        self.ask("reading open records", state_read::open_records)
    }

    /// One record.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn record(&self, kind: RecordKind, id: &str) -> Result<Option<Record>, StoreError> {
        self.ask("reading a record", |conn| state_read::record(conn, kind, id))
    }

    /// Records that match `filter`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn records(&self, filter: &RecordFilter) -> Result<Page<Record>, StoreError> {
        self.ask("reading records", |conn| state_read::records(conn, filter))
    }

    /// Events that match `filter`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn journal(&self, filter: &JournalFilter) -> Result<Vec<Committed>, StoreError> {
        self.ask("reading the journal", |conn| state_read::journal(conn, filter))
    }

    /// Events with a topic class in rows above `row`, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn journal_after(&self, row: u64, limit: usize) -> Result<Vec<Committed>, StoreError> {
        self.ask("reading the journal", |conn| state_read::journal_after(conn, row, limit))
    }

    /// The newest row of the journal; 0 while it is empty.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_row(&self) -> Result<u64, StoreError> {
        self.ask("reading the journal", state_read::last_row)
    }

    /// One event.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn event(&self, id: EventId) -> Result<Option<Committed>, StoreError> {
        self.ask("reading an event", |conn| state_read::event(conn, id))
    }

    /// How far a lane is acknowledged, as last saved.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lane(&self, lane: Lane) -> Result<LanePosition, StoreError> {
        self.ask("reading a lane", |conn| state_read::position(conn, lane))
    }

    /// What a stage had learnt when it last said so; `None` when it never did, or when that is
    /// damaged (which is logged).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn snapshot(&self, stage: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed: Option<Vec<u8>> = self.ask("reading a snapshot", |conn| {
            conn.prepare_cached("SELECT data FROM snapshots WHERE stage = ?1")?
                .query_row([stage], |row| row.get(0))
                .optional()
        })?;
        let Some(sealed) = sealed else { return Ok(None) };
        let opened = unseal(&sealed);
        if opened.is_none() {
            tracing::error!(stage, "snapshot is damaged, the stage learns anew");
        }
        Ok(opened.map(<[u8]>::to_vec))
    }

    /// The bytes of a model; `None` when there are none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn model(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask("reading a model", |conn| state_read::model(conn, id))
    }

    /// The last number given in each topic class.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sequences(&self) -> Result<BTreeMap<Class, u64>, StoreError> {
        self.numbers("SELECT class, last FROM sequences")
    }

    /// The ends of the blocks of numbers that may have been used without being stored.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sequences_reserved(&self) -> Result<BTreeMap<Class, u64>, StoreError> {
        self.numbers("SELECT class, reserved FROM sequences")
    }

    fn numbers(&self, select: &'static str) -> Result<BTreeMap<Class, u64>, StoreError> {
        self.ask("reading sequences", |conn| {
            let mut select = conn.prepare_cached(select)?;
            let mut rows = select.query([])?;
            let mut found = BTreeMap::new();
            while let Some(row) = rows.next()? {
                let class: String = row.get(0)?;
                let class = Class::parse(&class)
                    .ok_or_else(|| connection::bad_value(format!("class `{class}`")))?;
                found.insert(class, uint(row.get(1)?));
            }
            Ok(found)
        })
    }

    /// The last reading the stages had seen at the last commit.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn seen(&self) -> Result<Arrival, StoreError> {
        self.ask("reading what was seen", |conn| {
            Ok(Arrival(connection::meta(conn, "seen")?.map_or(0, uint)))
        })
    }

    /// The numbers of `tags`. New ones are given a number that was never used, durable before it
    /// is returned.
    ///
    /// # Errors
    /// When the file cannot be read or written, or has seen [`TAG_KEYS_MAX`] tags.
    pub fn tag_keys(&mut self, tags: &[TagPath]) -> Result<BTreeMap<TagPath, TagKey>, StoreError> {
        self.writer.trusted()?;
        let keys = give_keys(&mut self.writer.conn, tags)
            .map_err(|source| self.writer.fault("numbering tags", source))?;
        if let Some((path, key)) = keys.iter().find(|(_, key)| key.0 >= TAG_KEYS_MAX) {
            return Err(StoreError::Unstorable {
                what: format!("tag {path}"),
                why: format!("its number would be {}, the last is {TAG_KEYS_MAX}", key.0),
            });
        }
        self.writer.tidy();
        Ok(keys)
    }

    /// All tags that ever had a number, those of removed assets included.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn known_tags(&self) -> Result<BTreeMap<TagPath, TagKey>, StoreError> {
        self.ask("reading tags", state_read::known_tags)
    }

    /// Writes down that all is in order. The last thing before the file is closed.
    ///
    /// # Errors
    /// When it cannot be written; the next start then checks the file.
    pub fn mark_clean_stop(&mut self) -> Result<(), StoreError> {
        self.writer.mark_clean()
    }

    /// A new era begins: the gateway's clock was set, or is no longer believed. Puts right what
    /// this boot wrote while its clock was not believed; says which eras these are.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn date_boot(&mut self, boot: &BootInfo) -> Result<Redated, StoreError> {
        self.writer.trusted()?;
        let enter = |conn: &mut Connection| {
            let step = conn.transaction()?;
            let redated = eras::date(&step, boot)?;
            let row = eras::enter(&step, boot)?;
            step.commit()?;
            Ok((redated, row))
        };
        let (redated, row) = enter(&mut self.writer.conn)
            .map_err(|source| self.writer.fault("entering an era", source))?;
        self.writer.boot = row;
        Ok(redated)
    }

    /// Eras of this boot that were dated but not corrected upstream: after a crash in between, or
    /// when the clock was set while the daemon did not run.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn uncorrected(&self) -> Result<Redated, StoreError> {
        self.ask("reading eras", |conn| {
            let mut select = conn.prepare_cached(
                "SELECT boots.id, utc, shift, boot FROM boots WHERE dated AND NOT rolled
                    AND boot = (SELECT boot FROM boots WHERE id = ?1) ORDER BY id",
            )?;
            let mut redated = Redated::default();
            let mut rows = select.query([self.writer.boot])?;
            while let Some(row) = rows.next()? {
                let boot: Vec<u8> = row.get(3)?;
                redated.boot = uuid::Uuid::from_slice(&boot).unwrap_or_default();
                redated.eras.push(DatedEra {
                    row: row.get(0)?,
                    began: Timestamp::from_micros(row.get(1)?),
                    shift: row.get(2)?,
                });
            }
            Ok(redated)
        })
    }

    /// The first and last number of each topic class in an era.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sequences_of(&self, era: i64) -> Result<Vec<(String, u64, u64)>, StoreError> {
        self.ask("reading the journal", |conn| {
            conn.prepare_cached(
                "SELECT class, min(sequence), max(sequence) FROM journal
                 WHERE boot = ?1 AND class IS NOT NULL GROUP BY class ORDER BY class",
            )?
            .query_map([era], |row| Ok((row.get(0)?, uint(row.get(1)?), uint(row.get(2)?))))?
            .collect()
        })
    }

    /// Drops closed chains whose newest event is older than `keep` and lies below row
    /// `upstream_below`, and closed records as old whose event is gone. When the file is nearly
    /// full, the oldest closed chains fall before their time. Whatever an open record names, in its
    /// id or anywhere in its body, stays with its whole chain; so does the newest row.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn retain(
        &mut self,
        now: Timestamp,
        keep: Duration,
        upstream_below: u64,
    ) -> Result<Retained, StoreError> {
        self.writer.trusted()?;
        let used = self.pressure()?;
        let pressed = used >= PRESSURE_PERCENT;
        let (cut, most) = if pressed {
            (Timestamp::from_micros(i64::MAX), DROPPED_PER_CALL_PRESSED)
        } else {
            (now.before(keep), DROPPED_PER_CALL)
        };
        let mut retained = drop_closed(&mut self.writer.conn, cut, upstream_below, most)
            .map_err(|source| self.writer.fault("dropping closed chains", source))?;
        retained.full = pressed && retained.chains == 0 && retained.records == 0;
        self.writer.tidy();
        Ok(retained)
    }

    /// How much of its share the file uses, in percent.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn pressure(&self) -> Result<u64, StoreError> {
        let (_, used) = self.ask("measuring the file", |_| self.writer.pages())?;
        Ok(used * 100 / self.writer.pages_max)
    }

    fn ask<T>(
        &self,
        doing: &'static str,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        question(&self.writer.conn)
            .map_err(|source| connection::sql(doing, &self.writer.file, source))
    }

    pub(super) fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }
}

fn write(conn: &mut Connection, boot: i64, commit: &Commit) -> rusqlite::Result<Vec<u64>> {
    let step = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut rows = Vec::with_capacity(commit.events.len());
    for (event, sequence) in &commit.events {
        rows.push(write_event(&step, boot, event, *sequence)?);
    }
    for record in &commit.records {
        write_record(&step, record)?;
    }
    for (class, end) in &commit.sequences_reserved {
        step.prepare_cached(
            "INSERT INTO sequences (class, last, reserved) VALUES (?1, 0, ?2)
             ON CONFLICT (class) DO UPDATE SET reserved = max(reserved, ?2)",
        )?
        .execute(params![class.as_str(), int(*end)])?;
    }
    if let Some(seen) = commit.seen {
        connection::set_meta(&step, "seen", int(seen.0))?;
    }
    if let Some(utc) = commit.utc {
        connection::set_meta(&step, "utc", utc.micros())?;
    }
    for era in &commit.corrected {
        step.prepare_cached("UPDATE boots SET rolled = 1 WHERE id = ?1")?.execute([era])?;
    }
    for lane in &commit.lanes {
        write_lane(&step, lane)?;
    }
    for (id, bytes) in &commit.models {
        write_model(&step, id, bytes.as_deref())?;
    }
    for (stage, learnt) in &commit.snapshots {
        step.prepare_cached("INSERT OR REPLACE INTO snapshots (stage, data) VALUES (?1, ?2)")?
            .execute(params![stage, seal(learnt)])?;
    }
    step.commit()?;
    Ok(rows)
}

pub(super) fn write_event(
    step: &Transaction<'_>,
    boot: i64,
    event: &Event,
    sequence: Option<(Class, u64)>,
) -> rusqlite::Result<u64> {
    let body = serde_json::to_string(&event.body)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    step.prepare_cached(
        "INSERT INTO journal
         (id, cause, correlation, kind, asset, time, trusted, class, sequence, boot, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        event.id.0.as_bytes(),
        event.cause.as_ref().map(|cause| cause.0.as_bytes().as_slice()),
        event.correlation.0.as_bytes(),
        event.body.kind(),
        event.body.asset().map(|asset| asset.as_str()),
        event.time.micros(),
        event.clock_trusted,
        sequence.map(|(class, _)| class.as_str()),
        sequence.map(|(_, number)| int(number)),
        boot,
        body,
    ])?;
    let row = uint(step.last_insert_rowid());
    if let Some((class, number)) = sequence {
        step.prepare_cached(
            "INSERT INTO sequences (class, last, reserved) VALUES (?1, ?2, 0)
             ON CONFLICT (class) DO UPDATE SET last = max(last, ?2)",
        )?
        .execute(params![class.as_str(), int(number)])?;
    }
    Ok(row)
}

pub(super) fn write_record(step: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    step.prepare_cached(
        "INSERT INTO records (kind, id, asset, state, open, time, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (kind, id) DO UPDATE SET
             asset = ?3, state = ?4, open = ?5, time = ?6, body = ?7",
    )?
    .execute(params![
        record.kind.as_str(),
        record.id,
        record.asset.as_ref().map(|asset| asset.as_str()),
        record.state,
        record.open,
        record.time.micros(),
        record.body.to_string(),
    ])?;
    Ok(())
}

pub(super) fn write_model(
    step: &Transaction<'_>,
    id: &str,
    bytes: Option<&[u8]>,
) -> rusqlite::Result<()> {
    match bytes {
        Some(bytes) => step
            .prepare_cached("INSERT OR REPLACE INTO model (id, data) VALUES (?1, ?2)")?
            .execute(params![id, bytes])?,
        None => step.prepare_cached("DELETE FROM model WHERE id = ?1")?.execute([id])?,
    };
    Ok(())
}

pub(super) fn write_lane(step: &Transaction<'_>, lane: &LanePosition) -> rusqlite::Result<()> {
    let ahead = serde_json::to_string(&lane.ahead)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    step.prepare_cached("INSERT OR REPLACE INTO lanes (lane, below, ahead) VALUES (?1, ?2, ?3)")?
        .execute(params![lane.lane.as_str(), int(lane.below), ahead])?;
    Ok(())
}

fn give_keys(
    conn: &mut Connection,
    tags: &[TagPath],
) -> rusqlite::Result<BTreeMap<TagPath, TagKey>> {
    let step = conn.transaction()?;
    let mut keys = BTreeMap::new();
    for path in tags {
        let names = params![path.asset.as_str(), path.tag.as_str()];
        let find = "SELECT key FROM tags WHERE asset = ?1 AND tag = ?2";
        let found: Option<i64> =
            step.prepare_cached(find)?.query_row(names, |row| row.get(0)).optional()?;
        let key = match found {
            Some(key) => key,
            None => {
                step.prepare_cached("INSERT INTO tags (asset, tag) VALUES (?1, ?2)")?
                    .execute(names)?;
                step.last_insert_rowid()
            }
        };
        let key =
            u32::try_from(key).map_err(|_| connection::bad_value(format!("tag number {key}")))?;
        keys.insert(path.clone(), TagKey(key));
    }
    step.commit()?;
    Ok(keys)
}

/// Snapshots carry their own check: version byte, CRC-32 of the rest (little endian), the rest.
fn seal(learnt: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(learnt.len() + 5);
    sealed.push(SNAPSHOT_VERSION);
    sealed.extend_from_slice(&crc32fast::hash(learnt).to_le_bytes());
    sealed.extend_from_slice(learnt);
    sealed
}

pub(super) fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (head, learnt) = sealed.split_at_checked(5)?;
    let (version, crc) = head.split_first()?;
    (*version == SNAPSHOT_VERSION && crc == crc32fast::hash(learnt).to_le_bytes()).then_some(learnt)
}

fn drop_closed(
    conn: &mut Connection,
    cut: Timestamp,
    upstream_below: u64,
    most: usize,
) -> rusqlite::Result<Retained> {
    let step = conn.transaction()?;
    let protected = protected_chains(&step)?;
    let mut retained = Retained::default();
    let chains: Vec<Vec<u8>> = step
        .prepare_cached(
            "SELECT correlation FROM journal GROUP BY correlation
             HAVING max(time + coalesce((SELECT shift FROM boots WHERE boots.id = journal.boot), 0)) < ?1 AND max(row) < ?2
                AND max(row) < (SELECT max(row) FROM journal)
             ORDER BY max(row)",
        )?
        .query_map(params![cut.micros(), int(upstream_below)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut closed = chains.into_iter().filter(|chain| !protected.contains(chain));
    for chain in closed.by_ref().take(most) {
        retained.chains += 1;
        retained.events += step
            .prepare_cached("DELETE FROM journal WHERE correlation = ?1")?
            .execute([chain])? as u64;
    }
    retained.records = drop_records(&step, cut, most)?;
    retained.more = closed.next().is_some() || retained.records == most as u64;
    step.commit()?;
    Ok(retained)
}

/// Closed records that began before `cut` and whose event, if they are named after one, is gone.
fn drop_records(step: &Transaction<'_>, cut: Timestamp, most: usize) -> rusqlite::Result<u64> {
    let mut select = step.prepare_cached(
        "SELECT rowid, id FROM records WHERE NOT open AND time < ?1 ORDER BY time",
    )?;
    let mut rows = select.query([cut.micros()])?;
    let mut gone: Vec<i64> = Vec::new();
    while let Some(row) = rows.next()?
        && gone.len() < most
    {
        let still_told = match EventId::parse(&row.get::<_, String>(1)?) {
            Ok(id) => step
                .prepare_cached("SELECT 1 FROM journal WHERE id = ?1")?
                .exists([id.0.as_bytes()])?,
            Err(_) => false,
        };
        if !still_told {
            gone.push(row.get(0)?);
        }
    }
    for row in &gone {
        step.prepare_cached("DELETE FROM records WHERE rowid = ?1")?.execute([row])?;
    }
    Ok(gone.len() as u64)
}

/// The chains that open records name.
fn protected_chains(step: &Transaction<'_>) -> rusqlite::Result<BTreeSet<Vec<u8>>> {
    let mut named = BTreeSet::new();
    for record in state_read::open_records(step)? {
        named.extend(EventId::parse(&record.id));
        collect_ids(&record.body, &mut named);
    }
    let mut chains = BTreeSet::new();
    for id in named {
        let chain: Option<Vec<u8>> = step
            .prepare_cached("SELECT correlation FROM journal WHERE id = ?1")?
            .query_row([id.0.as_bytes()], |row| row.get(0))
            .optional()?;
        chains.extend(chain);
        chains.insert(id.0.as_bytes().to_vec());
    }
    Ok(chains)
}

fn collect_ids(value: &Value, into: &mut BTreeSet<EventId>) {
    match value {
        Value::String(text) if text.len() == 36 => into.extend(EventId::parse(text)),
        Value::Array(items) => items.iter().for_each(|item| collect_ids(item, into)),
        Value::Object(fields) => fields.values().for_each(|field| collect_ids(field, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
