//! Questions to `state.db`: the same ones for the writing connection and for readers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use uuid::Uuid;

use super::schema::STATE;
use super::{PAGE_ROWS_MAX, Page, StoreError, connection, int, uint};
use crate::domain::event::{Class, Event};
use crate::domain::ids::{AssetId, EventId, TagKey, TagPath};
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Timestamp;
use crate::port::{Committed, Lane, LanePosition};

/// Which events of the journal are wanted. Everything left out does not matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JournalFilter {
    /// Only of this asset.
    pub asset: Option<AssetId>,
    /// Only of this kind, e.g. `alarm-raised`.
    pub kind: Option<String>,
    /// Only of this topic class.
    pub class: Option<Class>,
    /// Only of this chain.
    pub correlation: Option<EventId>,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// Only rows below this one; the newest come first.
    pub before: Option<u64>,
    /// Only rows above this one; the oldest come first. Without it the newest come first.
    pub after: Option<u64>,
    /// At most so many (and never more than [`PAGE_ROWS_MAX`]).
    pub limit: usize,
}

/// Which records are wanted; the newest come first. Everything left out does not matter.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordFilter {
    /// Of which kind.
    pub kind: RecordKind,
    /// Only of this asset.
    pub asset: Option<AssetId>,
    /// Only in this state.
    pub state: Option<String>,
    /// Only open ones, or only closed ones.
    pub open: Option<bool>,
    /// Begun not before.
    pub from: Option<Timestamp>,
    /// Begun before.
    pub to: Option<Timestamp>,
    /// [`Page::next`] of the page before.
    pub cursor: Option<String>,
    /// At most so many (and never more than [`PAGE_ROWS_MAX`]).
    pub limit: usize,
}

impl RecordFilter {
    /// All records of a kind.
    #[must_use]
    pub const fn all(kind: RecordKind) -> Self {
        Self {
            kind,
            asset: None,
            state: None,
            open: None,
            from: None,
            to: None,
            cursor: None,
            limit: PAGE_ROWS_MAX,
        }
    }
}

/// A connection to `state.db` that only reads. One per thread.
#[derive(Debug)]
pub struct StateReader {
    conn: Connection,
    file: PathBuf,
}

macro_rules! ask {
    ($self:ident, $doing:literal, $answer:expr) => {
        $answer.map_err(|source| connection::sql($doing, &$self.file, source))
    };
}

impl StateReader {
    /// Opens the file in `dir`, which a [`super::StateDb`] must have made.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let file = dir.join(STATE.file);
        let conn = connection::open_reader(&file)?;
        Ok(Self { conn, file })
    }

    /// All tags that ever had a number, those of removed assets included.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn known_tags(&self) -> Result<BTreeMap<TagPath, TagKey>, StoreError> {
        ask!(self, "reading tags", known_tags(&self.conn))
    }

    /// Events with a topic class in rows above `row`, oldest first: what the events lane sends.
    ///
    /// # Errors
    /// When the file cannot be read. A row that cannot be understood is left out, and logged.
    pub fn journal_after(&self, row: u64, limit: usize) -> Result<Vec<Committed>, StoreError> {
        ask!(self, "reading the journal", journal_after(&self.conn, row, limit))
    }

    /// Events that match `filter`.
    ///
    /// # Errors
    /// As [`Self::journal_after`].
    pub fn journal(&self, filter: &JournalFilter) -> Result<Vec<Committed>, StoreError> {
        ask!(self, "reading the journal", journal(&self.conn, filter))
    }

    /// Records that match `filter`.
    ///
    /// # Errors
    /// As [`Self::journal_after`].
    pub fn records(&self, filter: &RecordFilter) -> Result<Page<Record>, StoreError> {
        ask!(self, "reading records", records(&self.conn, filter))
    }

    /// One record.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn record(&self, kind: RecordKind, id: &str) -> Result<Option<Record>, StoreError> {
        ask!(self, "reading a record", record(&self.conn, kind, id))
    }

    /// The bytes of a model; `None` when there are none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn model(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        ask!(self, "reading a model", model(&self.conn, id))
    }

    /// One event.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn event(&self, id: EventId) -> Result<Option<Committed>, StoreError> {
        ask!(self, "reading an event", event(&self.conn, id))
    }

    /// How far a lane is acknowledged, as last saved.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lane(&self, lane: Lane) -> Result<LanePosition, StoreError> {
        ask!(self, "reading a lane", position(&self.conn, lane))
    }

    /// How many events with a topic class stand in rows from `below` on.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn class_events_waiting(&self, below: u64) -> Result<u64, StoreError> {
        ask!(
            self,
            "counting events",
            self.conn
                .prepare_cached(
                    "SELECT count(*) FROM journal WHERE row >= ?1 AND class IS NOT NULL"
                )
                .and_then(|mut count| count.query_row([int(below)], |row| row.get(0)))
                .map(uint)
        )
    }

    /// How often the file has been opened for writing, this time included.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn starts(&self) -> Result<u64, StoreError> {
        let starts = ask!(self, "counting starts", connection::meta(&self.conn, "starts"))?;
        Ok(starts.map_or(0, uint))
    }

    /// The moment of the last commit, as the gateway's clock then said; none before the first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_moment(&self) -> Result<Option<Timestamp>, StoreError> {
        let found = ask!(self, "reading the last moment", connection::meta(&self.conn, "utc"))?;
        Ok(found.map(Timestamp::from_micros))
    }

    /// The newest row of the journal; 0 while it is empty.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_row(&self) -> Result<u64, StoreError> {
        ask!(self, "reading the journal", last_row(&self.conn))
    }
}

const EVENT_COLUMNS: &str =
    "row, id, cause, correlation, time + shift_of, trusted OR dated_of, class, sequence, body FROM
     (SELECT journal.*, coalesce(shift, 0) AS shift_of, coalesce(dated, 0) AS dated_of
      FROM journal LEFT JOIN boots ON boots.id = journal.boot)";

/// All tags that ever had a number.
pub(super) fn known_tags(conn: &Connection) -> rusqlite::Result<BTreeMap<TagPath, TagKey>> {
    let mut select = conn.prepare_cached("SELECT asset, tag, key FROM tags")?;
    Ok(understood(select.query([])?, super::salvage::tag)?.into_iter().collect())
}

fn uuid_of(bytes: &[u8]) -> rusqlite::Result<EventId> {
    Uuid::from_slice(bytes)
        .map(EventId)
        .map_err(|_| connection::bad_value(format!("an id of {} bytes", bytes.len())))
}

/// Reads an event from [`EVENT_COLUMNS`].
pub(super) fn committed(row: &Row<'_>) -> rusqlite::Result<Committed> {
    let id: Vec<u8> = row.get(1)?;
    let cause: Option<Vec<u8>> = row.get(2)?;
    let correlation: Vec<u8> = row.get(3)?;
    let class: Option<String> = row.get(6)?;
    let number: Option<i64> = row.get(7)?;
    let sequence = match (class, number) {
        (Some(class), Some(number)) => Some((
            Class::parse(&class)
                .ok_or_else(|| connection::bad_value(format!("class `{class}`")))?,
            uint(number),
        )),
        (None, _) | (_, None) => None,
    };
    let body =
        row.get_ref(8)?.as_str().map_err(|error| connection::bad_value(error.to_string()))?;
    let body =
        serde_json::from_str(body).map_err(|error| connection::bad_value(error.to_string()))?;
    Ok(Committed {
        row: uint(row.get(0)?),
        sequence,
        event: Event {
            id: uuid_of(&id)?,
            cause: cause.as_deref().map(uuid_of).transpose()?,
            correlation: uuid_of(&correlation)?,
            time: Timestamp::from_micros(row.get(4)?),
            clock_trusted: row.get(5)?,
            body,
        },
        durable: true,
    })
}

/// Reads rows, leaving out (and logging) those that cannot be understood: one damaged row must
/// not hide its neighbours or stop a lane.
pub(super) fn understood<T>(
    mut rows: rusqlite::Rows<'_>,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(thing) => found.push(thing),
            Err(error) => tracing::error!(%error, "row of state.db cannot be understood, left out"),
        }
    }
    Ok(found)
}

fn page_limit(limit: usize) -> i64 {
    int(limit.min(PAGE_ROWS_MAX) as u64)
}

pub(super) fn journal_after(
    conn: &Connection,
    row: u64,
    limit: usize,
) -> rusqlite::Result<Vec<Committed>> {
    let mut select = conn.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS} WHERE row > ?1 AND class IS NOT NULL ORDER BY row LIMIT ?2"
    ))?;
    understood(select.query(params![int(row), page_limit(limit)])?, committed)
}

pub(super) fn journal(
    conn: &Connection,
    filter: &JournalFilter,
) -> rusqlite::Result<Vec<Committed>> {
    // Only fixed fragments are put together; everything from outside is bound.
    let mut text = format!("SELECT {EVENT_COLUMNS} WHERE TRUE");
    let mut bound: Vec<Sql> = Vec::new();
    let mut also = |fragment: &str, value: Sql| {
        text.push_str(" AND ");
        text.push_str(fragment);
        bound.push(value);
    };
    if let Some(asset) = &filter.asset {
        also("asset = ?", Sql::Text(asset.as_str().to_owned()));
    }
    if let Some(kind) = &filter.kind {
        also("kind = ?", Sql::Text(kind.clone()));
    }
    if let Some(class) = filter.class {
        also("class = ?", Sql::Text(class.as_str().to_owned()));
    }
    if let Some(chain) = filter.correlation {
        also("correlation = ?", Sql::Blob(chain.0.as_bytes().to_vec()));
    }
    if let Some(from) = filter.from {
        also("time + shift_of >= ?", Sql::Integer(from.micros()));
    }
    if let Some(to) = filter.to {
        also("time + shift_of < ?", Sql::Integer(to.micros()));
    }
    if let Some(before) = filter.before {
        also("row < ?", Sql::Integer(int(before)));
    }
    if let Some(after) = filter.after {
        also("row > ?", Sql::Integer(int(after)));
    }
    text.push_str(if filter.after.is_some() {
        " ORDER BY row LIMIT ?"
    } else {
        " ORDER BY row DESC LIMIT ?"
    });
    bound.push(Sql::Integer(page_limit(filter.limit)));
    let mut select = conn.prepare_cached(&text)?;
    understood(select.query(params_from_iter(bound))?, committed)
}

pub(super) fn event(conn: &Connection, id: EventId) -> rusqlite::Result<Option<Committed>> {
    conn.prepare_cached(&format!("SELECT {EVENT_COLUMNS} WHERE id = ?1"))?
        .query_row([id.0.as_bytes()], committed)
        .optional()
}

pub(super) fn last_row(conn: &Connection) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT max(row) FROM journal")?
        .query_row([], |row| row.get::<_, Option<i64>>(0))
        .map(|row| row.map_or(0, uint))
}

const RECORD_COLUMNS: &str = "kind, id, asset, state, open, time, body FROM records";

/// Reads a record from [`RECORD_COLUMNS`].
pub(super) fn to_record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let kind: String = row.get(0)?;
    let asset: Option<String> = row.get(2)?;
    let body: String = row.get(6)?;
    let bad = |what: String| connection::bad_value(what);
    Ok(Record {
        kind: RecordKind::parse(&kind).ok_or_else(|| bad(format!("record kind `{kind}`")))?,
        id: row.get(1)?,
        asset: asset
            .map(|asset| AssetId::new(&asset))
            .transpose()
            .map_err(|error| bad(error.to_string()))?,
        state: row.get(3)?,
        open: row.get(4)?,
        time: Timestamp::from_micros(row.get(5)?),
        body: serde_json::from_str(&body).map_err(|error| bad(error.to_string()))?,
    })
}

pub(super) fn open_records(conn: &Connection) -> rusqlite::Result<Vec<Record>> {
    let mut select = conn
        .prepare_cached(&format!("SELECT {RECORD_COLUMNS} WHERE open ORDER BY kind, time, id"))?;
    understood(select.query([])?, to_record)
}

pub(super) fn model(conn: &Connection, id: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    conn.prepare_cached("SELECT data FROM model WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

pub(super) fn record(
    conn: &Connection,
    kind: RecordKind,
    id: &str,
) -> rusqlite::Result<Option<Record>> {
    conn.prepare_cached(&format!("SELECT {RECORD_COLUMNS} WHERE kind = ?1 AND id = ?2"))?
        .query_row(params![kind.as_str(), id], to_record)
        .optional()
}

pub(super) fn records(conn: &Connection, filter: &RecordFilter) -> rusqlite::Result<Page<Record>> {
    let mut text = format!("SELECT {RECORD_COLUMNS} WHERE kind = ?");
    let mut bound: Vec<Sql> = vec![Sql::Text(filter.kind.as_str().to_owned())];
    let mut also = |fragment: &str, values: Vec<Sql>| {
        text.push_str(" AND ");
        text.push_str(fragment);
        bound.extend(values);
    };
    if let Some(asset) = &filter.asset {
        also("asset = ?", vec![Sql::Text(asset.as_str().to_owned())]);
    }
    if let Some(state) = &filter.state {
        also("state = ?", vec![Sql::Text(state.clone())]);
    }
    if let Some(open) = filter.open {
        also("open = ?", vec![Sql::Integer(i64::from(open))]);
    }
    if let Some(from) = filter.from {
        also("time >= ?", vec![Sql::Integer(from.micros())]);
    }
    if let Some(to) = filter.to {
        also("time < ?", vec![Sql::Integer(to.micros())]);
    }
    // A cursor that is none of ours begins at the first page.
    let place = filter.cursor.as_deref().and_then(|cursor| cursor.split_once('~'));
    if let Some((time, id)) =
        place.and_then(|(time, id)| Some((time.parse::<i64>().ok()?, id.to_owned())))
    {
        also("(time, id) < (?, ?)", vec![Sql::Integer(time), Sql::Text(id)]);
    }
    text.push_str(" ORDER BY time DESC, id DESC LIMIT ?");
    let limit = filter.limit.clamp(1, PAGE_ROWS_MAX);
    bound.push(Sql::Integer(page_limit(limit)));
    let mut select = conn.prepare_cached(&text)?;
    let items = understood(select.query(params_from_iter(bound))?, to_record)?;
    let next = if items.len() < limit {
        None
    } else {
        items.last().map(|last| format!("{}~{}", last.time.micros(), last.id))
    };
    Ok(Page { items, next })
}

pub(super) fn position(conn: &Connection, lane: Lane) -> rusqlite::Result<LanePosition> {
    let found = conn
        .prepare_cached("SELECT below, ahead FROM lanes WHERE lane = ?1")?
        .query_row([lane.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    let Some((below, ahead)) = found else { return Ok(LanePosition::start(lane)) };
    // Without the list of what went ahead some of it goes twice, and is dropped by id.
    let ahead = serde_json::from_str(&ahead).unwrap_or_default();
    Ok(LanePosition { lane, below: uint(below).max(1), ahead })
}
