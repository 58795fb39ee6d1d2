//! Eras: stretches of one boot under one clock. What is written names its era; a clock that is set
//! later changes rows of `boots`, never what was written under it.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::BootInfo;
use crate::domain::time::Timestamp;

/// Two pairs of clocks that agree to this many microseconds are of one era: what a restart of the
/// process takes to read them one after the other, and small corrections.
const SAME: i64 = 1_000_000;

/// An era that was put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatedEra {
    /// Its row in `boots`.
    pub row: i64,
    /// When it began, as the clock then said.
    pub began: Timestamp,
    /// What is to be added to times written in it, in microseconds.
    pub shift: i64,
}

/// What entering an era has put right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Redated {
    /// The boot.
    pub boot: Uuid,
    /// Eras of the same boot that are dated from now on, the oldest first.
    pub eras: Vec<DatedEra>,
}

fn anchor(boot: &BootInfo) -> (i64, i64) {
    (boot.utc.micros(), i64::try_from(boot.mono.as_micros()).unwrap_or(i64::MAX))
}

/// Enters the era of these clocks, taking up the one before when they are the same. Returns its
/// row.
pub(super) fn enter(conn: &Connection, boot: &BootInfo) -> rusqlite::Result<i64> {
    date(conn, boot)?;
    let (utc, mono) = anchor(boot);
    let before: Option<(i64, i64, bool)> = conn
        .prepare_cached(
            "SELECT id, utc - mono, trusted FROM boots WHERE boot = ?1 ORDER BY id DESC LIMIT 1",
        )?
        .query_row([boot.id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    if let Some((row, offset, trusted)) = before
        && trusted == boot.trusted
        && offset.abs_diff(utc.saturating_sub(mono)) <= SAME.unsigned_abs()
    {
        return Ok(row);
    }
    conn.prepare_cached(
        "INSERT INTO boots (boot, utc, mono, trusted, rolled) VALUES (?1, ?2, ?3, ?4, ?4)",
    )?
    .execute(params![boot.id.as_bytes(), utc, mono, boot.trusted])?;
    Ok(conn.last_insert_rowid())
}

/// Dates what was written in this boot while its clock was not believed, now that it is.
pub(super) fn date(conn: &Connection, boot: &BootInfo) -> rusqlite::Result<Redated> {
    let mut redated = Redated { boot: boot.id, eras: Vec::new() };
    if !boot.trusted {
        return Ok(redated);
    }
    let (utc, mono) = anchor(boot);
    let offset = utc.saturating_sub(mono);
    let mut select = conn.prepare_cached(
        "SELECT id, utc, ?2 - (utc - mono) FROM boots
         WHERE boot = ?1 AND NOT trusted AND NOT dated ORDER BY id",
    )?;
    let mut rows = select.query(params![boot.id.as_bytes(), offset])?;
    while let Some(row) = rows.next()? {
        redated.eras.push(DatedEra {
            row: row.get(0)?,
            began: Timestamp::from_micros(row.get(1)?),
            shift: row.get(2)?,
        });
    }
    for era in &redated.eras {
        conn.prepare_cached("UPDATE boots SET shift = ?2, dated = 1 WHERE id = ?1")?
            .execute(params![era.row, era.shift])?;
    }
    Ok(redated)
}

/// Writes down with which arrival number an era begins, unless that is known.
pub(super) fn begin_at(conn: &Connection, era: i64, first: u64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE boots SET first = ?2 WHERE id = ?1 AND first = 0")?
        .execute(params![era, super::int(first)])?;
    Ok(())
}

/// First and last arrival numbers of what was written under clocks that are not believed to this
/// day.
pub(super) fn doubtful(conn: &Connection) -> rusqlite::Result<Vec<(u64, u64)>> {
    conn.prepare_cached(
        "SELECT first, coalesce((SELECT min(later.first) - 1 FROM boots AS later
                                 WHERE later.id > boots.id AND later.first > 0), ?1)
         FROM boots WHERE NOT trusted AND NOT dated AND first > 0 ORDER BY id",
    )?
    .query_map([i64::MAX], |row| Ok((super::uint(row.get(0)?), super::uint(row.get(1)?))))?
    .collect()
}

/// Eras whose times are to be moved when they are read, by row. Nearly always none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shifts(Vec<(i64, i64)>);

impl Shifts {
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached("SELECT id, shift FROM boots WHERE shift <> 0 ORDER BY id")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// What is to be added to times written in this era, in microseconds.
    pub(super) fn of(&self, era: i64) -> i64 {
        self.0.binary_search_by_key(&era, |(row, _)| *row).map_or(0, |at| self.0[at].1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, i64)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
#[path = "eras_tests.rs"]
mod tests;
