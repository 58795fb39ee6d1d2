//! What `db info` and `db verify` ask of a data directory, daemon running or not: read-only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row};
use serde::Serialize;

use super::schema::{RING, STATE, Schema};
use super::{StoreError, codec, connection, quarantine, state, state_read, uint};
use crate::domain::event::{Body, Class};
use crate::domain::time::Timestamp;
use crate::port::Lane;

/// Faults listed of one file; the rest is counted.
const FAULTS_MAX: usize = 100;

/// What there is to say of one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileInfo {
    /// The file.
    pub file: PathBuf,
    /// Name and value of each fact, in order.
    pub facts: Vec<(&'static str, String)>,
}

/// What verifying one file found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verified {
    /// The file.
    pub file: PathBuf,
    /// How many rows, segments and blobs were looked at.
    pub checked: u64,
    /// What is wrong, at most 100 faults; empty when nothing is.
    pub faults: Vec<String>,
    /// How many faults there are.
    pub fault_count: u64,
}

/// Size, span and counts of both files of `dir`. A file that is not there is left out.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn info(dir: &Path) -> Result<Vec<FileInfo>, StoreError> {
    let mut found = Vec::new();
    for (schema, facts) in
        [(&STATE, state_facts as fn(&Connection) -> rusqlite::Result<Facts>), (&RING, ring_facts)]
    {
        let file = dir.join(schema.file);
        if !file.exists() {
            continue;
        }
        let conn = connection::open_reader(&file)?;
        let describing = |source| connection::sql("describing", &file, source);
        // A daemon that has only just made the file has not filled it with tables yet.
        if number(&conn, "PRAGMA user_version").map_err(describing)? == 0 {
            found.push(FileInfo { facts: vec![("schema", "none yet".to_owned())], file });
            continue;
        }
        let mut all = file_facts(&conn, schema, dir).map_err(describing)?;
        all.extend(facts(&conn).map_err(describing)?);
        found.push(FileInfo { file, facts: all });
    }
    Ok(found)
}

/// Checks both files of `dir`: structure, checks of all blobs, bodies that can be understood, and
/// sequences without holes among what upstream has not acknowledged. `progress` is called now and
/// then with the rows checked so far.
///
/// # Errors
/// When a file cannot be opened at all.
pub fn verify(dir: &Path, mut progress: impl FnMut(u64)) -> Result<Vec<Verified>, StoreError> {
    let mut found = Vec::new();
    for (schema, check) in [(&STATE, check_state as Check), (&RING, check_ring)] {
        let file = dir.join(schema.file);
        if !file.exists() {
            continue;
        }
        let conn = connection::open_reader(&file)?;
        let mut faults = Faults { checked: 0, count: 0, list: Vec::new(), progress: &mut progress };
        for step in [integrity as Check, check] {
            if let Err(error) = step(&conn, &mut faults) {
                faults.put(error.to_string());
            }
        }
        found.push(Verified {
            file,
            checked: faults.checked,
            faults: faults.list,
            fault_count: faults.count,
        });
    }
    Ok(found)
}

type Check = fn(&Connection, &mut Faults<'_>) -> rusqlite::Result<()>;
type Facts = Vec<(&'static str, String)>;

fn number(conn: &Connection, select: &str) -> rusqlite::Result<i64> {
    conn.query_row(select, [], |row| row.get::<_, Option<i64>>(0)).map(Option::unwrap_or_default)
}

fn file_facts(conn: &Connection, schema: &Schema, dir: &Path) -> rusqlite::Result<Facts> {
    let size = |suffix: &str| {
        fs::metadata(dir.join(format!("{}{suffix}", schema.file))).map_or(0, |file| file.len())
    };
    let aside = fs::read_dir(dir.join(quarantine::DIR)).map_or(0, Iterator::count);
    Ok(vec![
        ("bytes", size("").to_string()),
        ("log bytes", size("-wal").to_string()),
        ("schema", number(conn, "PRAGMA user_version")?.to_string()),
        ("epoch", uint(connection::meta(conn, "epoch")?.unwrap_or(0)).to_string()),
        ("stopped clean", (connection::meta(conn, "clean")? == Some(1)).to_string()),
        ("damaged files kept", aside.to_string()),
    ])
}

fn span(conn: &Connection, select: &str) -> rusqlite::Result<(String, String)> {
    conn.query_row(select, [], |row| {
        let time = |at| -> rusqlite::Result<String> {
            let micros: Option<i64> = row.get(at)?;
            Ok(micros.map_or("-".into(), |time| Timestamp::from_micros(time).to_string()))
        };
        Ok((time(0)?, time(1)?))
    })
}

fn state_facts(conn: &Connection) -> rusqlite::Result<Facts> {
    let (first, last) = span(conn, "SELECT min(time), max(time) FROM journal")?;
    let lane = |lane| state_read::position(conn, lane).map(|lane| lane.below.to_string());
    Ok(vec![
        ("events", number(conn, "SELECT count(*) FROM journal")?.to_string()),
        ("first event", first),
        ("last event", last),
        ("last row", state_read::last_row(conn)?.to_string()),
        ("records", number(conn, "SELECT count(*) FROM records")?.to_string()),
        ("open records", number(conn, "SELECT count(*) FROM records WHERE open")?.to_string()),
        ("tags", number(conn, "SELECT count(*) FROM tags")?.to_string()),
        ("readings seen", uint(connection::meta(conn, "seen")?.unwrap_or(0)).to_string()),
        ("events acknowledged below", lane(Lane::Events)?),
        ("readings acknowledged below", lane(Lane::Readings)?),
    ])
}

fn ring_facts(conn: &Connection) -> rusqlite::Result<Facts> {
    // The newest readings stand outside of segments for up to some minutes.
    let newest = super::ring_read::unfolded(conn)?;
    let times = || newest.iter().map(|reading| reading.time.micros());
    let segments: (Option<i64>, Option<i64>) =
        conn.query_row("SELECT min(t0), max(t1) FROM segment", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let shown = |time: Option<i64>| {
        time.map_or("-".to_owned(), |time| Timestamp::from_micros(time).to_string())
    };
    let first = shown(segments.0.into_iter().chain(times().min()).min());
    let last = shown(segments.1.into_iter().chain(times().max()).max());
    Ok(vec![
        ("first arrival", super::ring_read::first(conn)?.to_string()),
        ("last arrival", super::ring_read::last(conn)?.to_string()),
        ("segments", number(conn, "SELECT count(*) FROM segment")?.to_string()),
        ("readings in segments", number(conn, "SELECT sum(n) FROM segment")?.to_string()),
        ("bytes in segments", number(conn, "SELECT sum(length(data)) FROM segment")?.to_string()),
        ("first reading", first),
        ("last reading", last),
        ("tail rows", number(conn, "SELECT count(*) FROM tail")?.to_string()),
        ("tail bytes", number(conn, "SELECT sum(length(data)) FROM tail")?.to_string()),
        ("shared segments", number(conn, "SELECT count(*) FROM shared")?.to_string()),
        ("packs of minutes", number(conn, "SELECT count(*) FROM minutes")?.to_string()),
        ("packs of hours", number(conn, "SELECT count(*) FROM hours")?.to_string()),
        ("tags", number(conn, "SELECT count(*) FROM tagged")?.to_string()),
    ])
}

struct Faults<'a> {
    checked: u64,
    count: u64,
    list: Vec<String>,
    progress: &'a mut dyn FnMut(u64),
}

impl Faults<'_> {
    fn put(&mut self, fault: String) {
        self.count += 1;
        if self.list.len() < FAULTS_MAX {
            self.list.push(fault);
        }
    }

    fn saw(&mut self) {
        self.checked += 1;
        if self.checked.is_multiple_of(1024) {
            (self.progress)(self.checked);
        }
    }
}

fn integrity(conn: &Connection, faults: &mut Faults<'_>) -> rusqlite::Result<()> {
    let mut check = conn.prepare("PRAGMA integrity_check(100)")?;
    let mut rows = check.query([])?;
    while let Some(row) = rows.next()? {
        let answer: String = row.get(0)?;
        if answer != "ok" {
            faults.put(answer);
        }
    }
    Ok(())
}

/// Goes over all rows of `select`, whose first column says which row it is.
fn each(
    conn: &Connection,
    faults: &mut Faults<'_>,
    select: &str,
    mut fault_of: impl FnMut(&Row<'_>) -> Result<(), String>,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        faults.saw();
        if let Err(fault) = fault_of(row) {
            faults.put(fault);
        }
    }
    Ok(())
}

fn check_state(conn: &Connection, faults: &mut Faults<'_>) -> rusqlite::Result<()> {
    let below = state_read::position(conn, Lane::Events)?.below;
    let mut numbers: BTreeMap<Class, BTreeSet<u64>> = BTreeMap::new();
    let mut announced: BTreeMap<Class, Vec<(u64, u64)>> = BTreeMap::new();
    each(
        conn,
        faults,
        "SELECT row, id, cause, correlation, time, trusted, class, sequence, body FROM journal",
        |row| {
            let event = state_read::committed(row)
                .map_err(|error| format!("journal row {}: {error}", name(row)))?;
            if let Some((class, number)) = event.sequence.filter(|_| event.row >= below) {
                numbers.entry(class).or_default().insert(number);
            }
            if let Body::Gap { lane, from, to, .. } = &event.event.body
                && let Some(class) = Class::parse(lane)
            {
                announced.entry(class).or_default().push((*from, *to));
            }
            Ok(())
        },
    )?;
    each(conn, faults, "SELECT kind, id, asset, state, open, time, body FROM records", |row| {
        let found = state_read::to_record(row);
        found.map(drop).map_err(|error| format!("record {}: {error}", name(row)))
    })?;
    each(conn, faults, "SELECT stage, data FROM snapshots", |row| {
        let sealed: Vec<u8> = row.get(1).map_err(|error| error.to_string())?;
        match state::unseal(&sealed) {
            Some(_) => Ok(()),
            None => Err(format!("snapshot of {}: its check does not fit", name(row))),
        }
    })?;
    for (class, there) in numbers {
        let (Some(first), Some(last)) = (there.first(), there.last()) else { continue };
        let excused = |number: u64| {
            let gaps = announced.get(&class).map(Vec::as_slice).unwrap_or_default();
            gaps.iter().any(|(from, to)| (*from..=*to).contains(&number))
        };
        let mut expected = *first;
        for number in there.iter().copied() {
            let missing = (expected..number).take(FAULTS_MAX).filter(|number| !excused(*number));
            for number in missing.collect::<Vec<_>>() {
                faults.put(format!("event {number} of class {} is missing", class.as_str()));
            }
            expected = number + 1;
        }
        let given = conn.query_row(
            "SELECT last FROM sequences WHERE class = ?1",
            [class.as_str()],
            |row| row.get(0),
        );
        if given.map_or(0, uint) < *last {
            faults.put(format!("class {} has events beyond its last number", class.as_str()));
        }
    }
    Ok(())
}

fn check_ring(conn: &Connection, faults: &mut Faults<'_>) -> rusqlite::Result<()> {
    for (what, select) in [
        ("segment", "SELECT id, data FROM segment"),
        ("shared segment", "SELECT id, data FROM shared"),
        ("tail row", "SELECT id, data FROM tail"),
        ("minutes", "SELECT key, data FROM minutes"),
        ("hours", "SELECT key, data FROM hours"),
    ] {
        each(conn, faults, select, |row| {
            let blob = row.get_ref(1).map_err(|error| error.to_string())?;
            let blob = blob.as_blob().map_err(|error| error.to_string())?;
            codec::check(blob).map_err(|error| format!("{what} {}: {error}", name(row)))
        })?;
    }
    Ok(())
}

/// The first column, whatever it is.
fn name(row: &Row<'_>) -> String {
    row.get_ref(0).map_or_else(
        |error| error.to_string(),
        |value| match value {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            rusqlite::types::ValueRef::Null
            | rusqlite::types::ValueRef::Real(_)
            | rusqlite::types::ValueRef::Blob(_) => "without a name".to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Event;
    use crate::domain::ids::{Arrival, EventId, TagKey};
    use crate::domain::reading::{Quality, Reading};
    use crate::store::{BootInfo, Commit, RingDb, StateDb};
    use std::time::Duration;
    use uuid::Uuid;

    fn boot() -> BootInfo {
        BootInfo {
            id: Uuid::from_u128(1),
            utc: Timestamp::default(),
            mono: Duration::ZERO,
            trusted: true,
        }
    }

    fn event(number: u64) -> (Event, Option<(Class, u64)>) {
        let id = EventId(Uuid::from_u128(number.into()));
        let body = Body::CommandTaken(crate::domain::command::Command {
            by: "operator".into(),
            verb: crate::domain::command::Verb::Acknowledge { alarm: id },
        });
        let time = Timestamp::default();
        let event = Event { id, cause: None, correlation: id, time, clock_trusted: true, body };
        (event, Some((Class::Alarm, number)))
    }

    #[test]
    fn a_ring_that_has_just_begun_is_described() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RING.file), "").unwrap();
        assert_eq!(info(dir.path()).unwrap()[0].facts, [("schema", "none yet".to_owned())]);
        let (mut ring, _) = RingDb::open(dir.path(), 16 << 20, &boot()).unwrap();
        let fact = |name: &str| {
            let facts = info(dir.path()).unwrap().remove(0).facts;
            facts.into_iter().find(|fact| fact.0 == name).unwrap().1
        };
        assert_eq!((fact("last arrival"), fact("last reading")), ("0".into(), "-".into()));
        let reading = |n: u64| Reading {
            tag: TagKey(1),
            arrival: Arrival(n),
            time: Timestamp::from_micros(n.cast_signed() * 1_000_000),
            value: 0.5,
            quality: Quality::Good,
        };
        ring.append(&[reading(1), reading(2)]);
        ring.commit().unwrap();
        assert_eq!(fact("first reading"), "1970-01-01T00:00:01.000Z");
        assert_eq!(fact("last reading"), "1970-01-01T00:00:02.000Z", "though no segment holds it");
    }

    #[test]
    fn verify_finds_what_is_wrong_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(verify(dir.path(), |_| {}).unwrap(), vec![]);
        let (mut state, _) = StateDb::open(dir.path(), 16 << 20, &boot()).unwrap();
        let events = [1, 2, 4].map(event).to_vec();
        state
            .commit(&Commit {
                events,
                snapshots: vec![("detection", vec![7; 50])],
                ..Commit::default()
            })
            .unwrap();
        let (mut ring, _) = RingDb::open(dir.path(), 16 << 20, &boot()).unwrap();
        let readings: Vec<_> = (1..=600)
            .map(|n: u64| Reading {
                tag: TagKey(1),
                arrival: Arrival(n),
                time: Timestamp::from_micros(n.cast_signed()),
                value: 0.5,
                quality: Quality::Good,
            })
            .collect();
        ring.append(&readings);
        ring.commit().unwrap();
        let found = verify(dir.path(), |_| {}).unwrap();
        assert_eq!(found[0].faults, ["event 3 of class alarm is missing"]);
        assert_eq!((found[1].fault_count, found[1].checked), (0, 3));
        let facts = info(dir.path()).unwrap();
        let fact = |file: usize, name: &str| {
            facts[file].facts.iter().find(|fact| fact.0 == name).unwrap().1.clone()
        };
        assert_eq!(
            (fact(0, "events"), fact(1, "readings in segments")),
            ("3".into(), "512".into())
        );
        state
            .writer()
            .conn
            .execute_batch(
                "UPDATE snapshots SET data = zeroblob(20);
                 UPDATE journal SET body = '{' WHERE row = 1;",
            )
            .unwrap();
        assert_eq!(verify(dir.path(), |_| {}).unwrap()[0].fault_count, 3);
    }
}
