//! What a new `state.db` takes over from a damaged one: every table row by row, as far as it can be
//! read. Events keep their ids and get new rows; those upstream has not acknowledged get new
//! sequence numbers from 1, because a new file begins a new epoch. When nothing is left of the old
//! file, the names of tags come from `ring.db`, so that readings stay with their tags.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, Row, params};

use super::connection;
use super::schema::{RING, STATE};
use super::state::{self, StateDb};
use super::{StoreError, state_read};
use crate::domain::event::Class;
use crate::domain::ids::{AssetId, TagId, TagKey, TagPath};
use crate::domain::record::Record;
use crate::port::{Committed, Lane, LanePosition};

/// Events given to upstream again when the old file does not say what it had.
const RESENT_MAX: usize = 1000;
/// Most rows taken over from one table.
const ROWS_MAX: usize = 1_000_000;

/// Fills a fresh file; returns what was taken over, in one sentence.
///
/// # Errors
/// When the new file cannot be written. Whatever cannot be read of the old one is left out.
pub(super) fn into_fresh(
    fresh: &mut StateDb,
    dir: &Path,
    quarantined: Option<&Path>,
) -> Result<Option<String>, StoreError> {
    let mut old = Old::default();
    if let Some(place) = quarantined
        && let Ok(conn) = connection::open_reader(&place.join(STATE.file))
    {
        old = Old::read(&conn);
    }
    let ring = dir.join(RING.file);
    if ring.exists()
        && let Ok(conn) = connection::open_reader(&ring)
    {
        for (path, key) in rows(&conn, "SELECT asset, name, tag FROM names", "tag", tag) {
            old.tags.entry(key).or_insert(path);
        }
    }
    if old.is_empty() {
        return Ok(None);
    }
    let writer = fresh.writer();
    let boot = writer.boot;
    old.write(&mut writer.conn, boot)
        .map_err(|source| writer.fault("taking over what was saved", source))?;
    Ok(Some(format!(
        "{} records, {} events and {} tags were taken over",
        old.records.len(),
        old.events.len(),
        old.tags.len()
    )))
}

#[derive(Default)]
struct Old {
    tags: BTreeMap<TagKey, TagPath>,
    records: Vec<Record>,
    events: Vec<Committed>,
    /// Rows below this one need not be sent again.
    sent_below: u64,
    seen: Option<i64>,
    readings: Option<LanePosition>,
    models: Vec<(String, Vec<u8>)>,
}

impl Old {
    fn read(conn: &Connection) -> Self {
        let tags = rows(conn, "SELECT asset, tag, key FROM tags", "key", tag);
        let records = rows(
            conn,
            "SELECT kind, id, asset, state, open, time, body FROM records",
            "rowid",
            state_read::to_record,
        );
        let mut events = rows(
            conn,
            "SELECT row, id, cause, correlation, time, trusted, class, sequence, body FROM journal",
            "row",
            state_read::committed,
        );
        events.sort_by_key(|event| event.row);
        let to_send = || events.iter().rev().filter(|event| event.sequence.is_some());
        let fallback = || to_send().nth(RESENT_MAX).map_or(0, |event| event.row + 1);
        let sent_below =
            state_read::position(conn, Lane::Events).map_or_else(|_| fallback(), |lane| lane.below);
        Self {
            tags: tags.into_iter().map(|(path, key)| (key, path)).collect(),
            records,
            sent_below,
            events,
            seen: connection::meta(conn, "seen").ok().flatten(),
            readings: state_read::position(conn, Lane::Readings).ok(),
            models: rows(conn, "SELECT id, data FROM model", "rowid", |row| {
                Ok((row.get(0)?, row.get(1)?))
            }),
        }
    }

    fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.records.is_empty() && self.events.is_empty()
    }

    fn write(&self, conn: &mut Connection, boot: i64) -> rusqlite::Result<()> {
        let step = conn.transaction()?;
        for (key, path) in &self.tags {
            step.prepare_cached(
                "INSERT OR IGNORE INTO tags (key, asset, tag) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![key.0, path.asset.as_str(), path.tag.as_str()])?;
        }
        for record in &self.records {
            state::write_record(&step, record)?;
        }
        for (id, bytes) in &self.models {
            state::write_model(&step, id, Some(bytes))?;
        }
        let mut numbers: BTreeMap<Class, u64> = BTreeMap::new();
        let mut first_unsent = None;
        for old in &self.events {
            let known: bool = step
                .prepare_cached("SELECT 1 FROM journal WHERE id = ?1")?
                .exists([old.event.id.0.as_bytes()])?;
            if known {
                continue;
            }
            let class = old.sequence.map(|(class, _)| class).filter(|_| old.row >= self.sent_below);
            let sequence = class.map(|class| {
                let number = numbers.entry(class).or_insert(0);
                *number += 1;
                (class, *number)
            });
            let row = state::write_event(&step, boot, &old.event, sequence)?;
            if sequence.is_some() {
                first_unsent.get_or_insert(row);
            }
        }
        let newest = state_read::last_row(&step)?;
        let below = first_unsent.unwrap_or(newest + 1);
        state::write_lane(&step, &LanePosition { lane: Lane::Events, below, ahead: Vec::new() })?;
        if let Some(readings) = &self.readings {
            state::write_lane(&step, readings)?;
        }
        if let Some(seen) = self.seen {
            connection::set_meta(&step, "seen", seen)?;
        }
        step.commit()
    }
}

/// Reads a table from its beginning until damage is met, then from its end.
fn rows<T>(
    conn: &Connection,
    select: &str,
    key: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let mut found = Vec::new();
    // Rows behind the damage are met from the other end. A row met twice does no harm: whoever
    // writes them skips what is there.
    for order in ["ASC", "DESC"] {
        match each(conn, &format!("{select} ORDER BY {key} {order}"), |row| found.extend(read(row)))
        {
            Ok(()) => break,
            Err(error) => tracing::warn!(%error, order, "damaged table read in part"),
        }
    }
    found
}

fn each(conn: &Connection, select: &str, mut take: impl FnMut(&Row<'_>)) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(select)?;
    let mut rows = statement.query([])?;
    // Damage may lead a table round in a circle.
    for _ in 0..ROWS_MAX {
        match rows.next()? {
            Some(row) => take(row),
            None => break,
        }
    }
    Ok(())
}

/// Reads a tag's names and number.
pub(super) fn tag(row: &Row<'_>) -> rusqlite::Result<(TagPath, TagKey)> {
    let (asset, name): (String, String) = (row.get(0)?, row.get(1)?);
    let bad = |error: crate::domain::ids::BadId| connection::bad_value(error.to_string());
    let path =
        TagPath { asset: AssetId::new(&asset).map_err(bad)?, tag: TagId::new(&name).map_err(bad)? };
    Ok((path, TagKey(row.get(2)?)))
}
