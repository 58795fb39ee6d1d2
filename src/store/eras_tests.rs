use std::path::Path;
use std::time::Duration;

use super::*;
use crate::domain::event::{Body, Class, Event};
use crate::domain::ids::{Arrival, EventId, TagKey};
use crate::domain::reading::{Quality, Reading, Reason};
use crate::store::ring::RingDb;
use crate::store::rollup::Resolution;
use crate::store::state::{Commit, StateDb};
use crate::store::{RingReader, StateReader};
use proptest::prelude::*;

const MIB: u64 = 1024 * 1024;
const SECOND: i64 = 1_000_000;
/// 2026-05-01T10:00:00Z
const TRUTH: i64 = 1_777_629_600 * SECOND;
/// What the clock says instead.
const WRONG: i64 = 1_767_225_600 * SECOND;

/// The clocks of a boot that is up for `mono` seconds.
fn clocks(boot: u128, mono: u64, right: bool) -> BootInfo {
    let utc = if right { TRUTH } else { WRONG };
    BootInfo {
        id: Uuid::from_u128(boot),
        utc: Timestamp::from_micros(utc + mono.cast_signed() * SECOND),
        mono: Duration::from_secs(mono),
        trusted: right,
    }
}

fn reading(arrival: u64, tag: u32, time: i64) -> Reading {
    Reading {
        tag: TagKey(tag),
        arrival: Arrival(arrival),
        time: Timestamp::from_micros(time),
        value: arrival as f64,
        quality: Quality::Good,
    }
}

fn all(ring: &RingDb) -> Vec<(u64, i64)> {
    let mut found: Vec<(u64, i64)> = Vec::new();
    let mut from = Arrival(0);
    loop {
        let page = ring.after(from, 10_000).unwrap();
        let Some(last) = page.last() else { return found };
        from = last.arrival;
        found.extend(page.iter().map(|reading| (reading.arrival.0, reading.time.micros())));
    }
}

fn open(dir: &Path, boot: &BootInfo) -> RingDb {
    RingDb::open(dir, 64 * MIB, boot).unwrap().0
}

/// A second apart, from the arrival's own second of uptime on.
fn polls(from: u64, count: u64, begin: i64) -> Vec<Reading> {
    let time = |arrival: u64| begin + arrival.cast_signed() * SECOND;
    (from..from + count).map(|arrival| reading(arrival, 1, time(arrival))).collect()
}

#[test]
fn e01_one_row_puts_all_readings_of_an_unset_clock_right_and_their_rollups_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), &clocks(1, 0, false));
    // Enough for segments of the tag's own, some in the tail, and one dated by its device.
    ring.append(&polls(1, 700, WRONG));
    ring.commit().unwrap();
    let own = reading(701, 2, TRUTH + 5 * SECOND);
    ring.append_timed(&[own], &[(701, TagKey(2))]);
    ring.commit().unwrap();
    let reader = RingReader::open(dir.path()).unwrap();
    assert_eq!(reader.after(Arrival(0), 1).unwrap()[0].time.micros(), WRONG + SECOND);
    // A restart while the clock is still wrong.
    drop(ring);
    let mut ring = open(dir.path(), &clocks(1, 800, false));
    ring.append(&polls(801, 50, WRONG));
    ring.commit().unwrap();
    let from_always = Timestamp::from_micros(i64::MIN);
    let to_always = Timestamp::from_micros(i64::MAX);
    let minutes = |ring: &RingDb| {
        ring.rollups(TagKey(1), from_always, to_always, Resolution::Minute).unwrap()
    };
    assert!(minutes(&ring).is_empty());

    ring.date_boot(&clocks(1, 900, true));
    ring.append(&polls(901, 100, TRUTH));
    ring.commit().unwrap();
    let expected: Vec<(u64, i64)> = (1..=700_u64)
        .chain(801..=850)
        .chain(901..=1000)
        .map(|arrival| (arrival, TRUTH + arrival.cast_signed() * SECOND))
        .collect();
    let found = all(&ring);
    let polled: Vec<_> = found.iter().filter(|(arrival, _)| *arrival != 701).copied().collect();
    assert_eq!(polled.len(), expected.len());
    assert_eq!(polled.last(), expected.last());
    assert_eq!(polled, expected);
    assert!(found.contains(&(701, TRUTH + 5 * SECOND)), "the device's own time stays");
    let again = reader.after(Arrival(0), 1).unwrap();
    assert_eq!(again[0].time.micros(), TRUTH + SECOND, "a reader's window is renewed");
    let page = ring
        .range(
            TagKey(1),
            Timestamp::from_micros(TRUTH + 690 * SECOND),
            Timestamp::from_micros(TRUTH + 802 * SECOND),
            100,
            None,
        )
        .unwrap();
    let arrivals: Vec<u64> = page.items.iter().map(|reading| reading.arrival.0).collect();
    assert_eq!(arrivals, (690..=700).chain([801]).collect::<Vec<_>>());
    let counted: u64 = minutes(&ring).iter().map(|minute| minute.count).sum();
    assert_eq!(counted, 850);
    // The same after a restart, when the open hour is counted again.
    drop(ring);
    let ring = open(dir.path(), &clocks(1, 1100, true));
    assert_eq!(minutes(&ring).iter().map(|minute| minute.count).sum::<u64>(), 850);
    assert_eq!(all(&ring), found);
}

#[test]
fn e01_a_clock_set_while_nobody_ran_puts_the_last_run_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), &clocks(1, 0, false));
    ring.append(&polls(1, 300, WRONG));
    ring.commit().unwrap();
    drop(ring);
    let ring = open(dir.path(), &clocks(1, 500, true));
    assert_eq!(all(&ring)[0], (1, TRUTH + SECOND));
    let always = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
    let hours = ring.rollups(TagKey(1), always.0, always.1, Resolution::Hour).unwrap();
    assert_eq!(hours.iter().map(|hour| hour.count).sum::<u64>(), 300);
    // Another boot that was never set stays as it was told.
    drop(ring);
    let mut ring = open(dir.path(), &clocks(2, 0, false));
    ring.append(&polls(501, 10, WRONG));
    ring.commit().unwrap();
    drop(ring);
    let ring = open(dir.path(), &clocks(3, 0, true));
    assert_eq!(all(&ring).last(), Some(&(510, WRONG + 510 * SECOND)));
}

#[test]
fn e02_readings_around_a_step_are_neither_lost_nor_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), &clocks(1, 0, true));
    ring.append(&polls(1, 300, TRUTH));
    ring.commit().unwrap();
    let decade = 3650 * 86_400 * SECOND;
    let mut stepped = clocks(1, 300, true);
    stepped.utc = Timestamp::from_micros(TRUTH + 300 * SECOND + decade);
    ring.date_boot(&stepped);
    ring.append(&polls(301, 300, TRUTH + decade));
    ring.commit().unwrap();
    ring.date_boot(&clocks(1, 600, true));
    ring.append(&polls(601, 300, TRUTH));
    ring.commit().unwrap();
    assert_eq!(ring.counts().dropped_segments, 0);
    assert_eq!(ring.counts().repeats, 0);
    let found = all(&ring);
    assert_eq!(found.len(), 900);
    assert_eq!(found[899], (900, TRUTH + 900 * SECOND));
    let always = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
    let minutes = ring.rollups(TagKey(1), always.0, always.1, Resolution::Minute).unwrap();
    assert_eq!(minutes.iter().map(|minute| minute.count).sum::<u64>(), 900);
}

#[test]
fn e01_events_of_an_unset_clock_are_put_right_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, _) = StateDb::open(dir.path(), 64 * MIB, &clocks(7, 0, false)).unwrap();
    let event = |id: u128, second: i64, trusted: bool| Event {
        id: EventId(Uuid::from_u128(id)),
        cause: None,
        correlation: EventId(Uuid::from_u128(id)),
        time: Timestamp::from_micros(if trusted { TRUTH } else { WRONG } + second * SECOND),
        clock_trusted: trusted,
        body: Body::Gap {
            lane: "readings".to_owned(),
            from: 1,
            to: 2,
            count: 2,
            reason: "test".to_owned(),
        },
    };
    let commit = |event: Event, sequence: u64| Commit {
        events: vec![(event, Some((Class::Gateway, sequence)))],
        utc: Some(Timestamp::from_micros(WRONG + 20 * SECOND)),
        ..Commit::default()
    };
    state.commit(&commit(event(1, 10, false), 1)).unwrap();
    state.commit(&commit(event(2, 20, false), 2)).unwrap();
    let reader = StateReader::open(dir.path()).unwrap();
    assert_eq!(reader.last_moment().unwrap().unwrap().micros(), WRONG + 20 * SECOND);
    assert!(state.uncorrected().unwrap().eras.is_empty());

    let redated = state.date_boot(&clocks(7, 30, true)).unwrap();
    assert_eq!(redated.eras.len(), 1);
    assert_eq!(redated.eras[0].shift, TRUTH - WRONG);
    state.commit(&commit(event(3, 40, true), 3)).unwrap();
    let read = reader.journal_after(0, 10).unwrap();
    let times: Vec<(i64, bool)> = read
        .iter()
        .map(|read| (read.event.time.micros() - TRUTH, read.event.clock_trusted))
        .collect();
    assert_eq!(times, [(10 * SECOND, true), (20 * SECOND, true), (40 * SECOND, true)]);

    let told = state.uncorrected().unwrap();
    assert_eq!(told.boot, Uuid::from_u128(7));
    assert_eq!(state.sequences_of(told.eras[0].row).unwrap(), [("gateway".to_owned(), 1, 2)]);
    let corrected = told.eras.iter().map(|era| era.row).collect();
    state.commit(&Commit { corrected, ..Commit::default() }).unwrap();
    assert!(state.uncorrected().unwrap().eras.is_empty(), "told once");
}

/// Files of schema 1, as the first versions made them.
fn of_schema_1(dir: &Path, file: &str, tables: &str, id: i64) {
    #[expect(clippy::disallowed_methods, reason = "a file of an older version is made by hand")]
    let conn = Connection::open(dir.join(file)).unwrap();
    conn.execute_batch(&format!(
        "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         {tables}
         INSERT INTO meta (key, value) VALUES ('schema', 1), ('epoch', 42), ('clean', 1);
         INSERT INTO boots (boot, utc, mono, trusted) VALUES (x'00000000000000000000000000000009',
             {TRUTH}, 5000000, 1);
         PRAGMA application_id = {id}; PRAGMA user_version = 1;"
    ))
    .unwrap();
}

#[test]
fn files_of_schema_1_are_brought_to_the_newest_schema() {
    let dir = tempfile::tempdir().unwrap();
    let state_tables = crate::store::schema::STATE.migrations[0];
    let ring_tables = crate::store::schema::RING.migrations[0];
    let ids =
        (crate::store::schema::STATE.application_id, crate::store::schema::RING.application_id);
    of_schema_1(dir.path(), "state.db", state_tables, ids.0.into());
    of_schema_1(dir.path(), "ring.db", ring_tables, ids.1.into());
    let (state, opened) = StateDb::open(dir.path(), 64 * MIB, &clocks(1, 0, true)).unwrap();
    assert_eq!((opened.fresh, opened.epoch, opened.quarantined), (false, 42, None));
    assert!(state.uncorrected().unwrap().eras.is_empty());
    let (mut ring, opened) = RingDb::open(dir.path(), 64 * MIB, &clocks(1, 0, true)).unwrap();
    assert_eq!((opened.fresh, opened.epoch, opened.quarantined), (false, 42, None));
    ring.append(&polls(1, 10, TRUTH));
    ring.commit().unwrap();
    assert_eq!(all(&ring).len(), 10);
    drop((state, ring));
    #[expect(clippy::disallowed_methods, reason = "the tables themselves are looked at")]
    let conn = Connection::open(dir.path().join("ring.db")).unwrap();
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    let boots: i64 = conn.query_row("SELECT count(*) FROM boots", [], |row| row.get(0)).unwrap();
    assert_eq!((version, boots), (3, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever times devices put into their payloads, what falls first is what came first.
    #[test]
    fn d09_wild_timestamps_never_make_the_ring_drop_the_wrong_readings(
        times in prop::collection::vec(prop_oneof![
            any::<i64>(), Just(i64::MIN), Just(i64::MAX), Just(0), TRUTH..TRUTH + 86_400 * SECOND
        ], 40..80),
        seed in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut ring, _) = RingDb::open(dir.path(), 2 * MIB, &clocks(1, 0, true)).unwrap();
        let mut arrival = 0;
        for time in &times {
            let group: Vec<Reading> = (0..512)
                .map(|n| {
                    arrival += 1;
                    let quality = if random.u8(0..4) == 0 {
                        Quality::Bad(Reason::Clock)
                    } else {
                        Quality::Good
                    };
                    // Values that do not compress, so that the file fills.
                    Reading { value: random.f64(), quality, ..reading(arrival, 1, time.saturating_add(n)) }
                })
                .collect();
            ring.append(&group);
            ring.commit().unwrap();
        }
        let found: Vec<u64> = all(&ring).iter().map(|(arrival, _)| *arrival).collect();
        prop_assert!(!found.is_empty());
        let first = found[0];
        let expected: Vec<u64> = (first..=arrival).collect();
        prop_assert_eq!(found, expected, "the newest arrivals are there, without a hole");
        if arrival > 20_000 {
            prop_assert!(arrival - first >= 10_000, "much of the file is used: from {}", first);
        }
    }
}

#[test]
fn e03_small_steps_back_keep_the_order_of_arrival_and_count_every_reading_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), &clocks(1, 0, true));
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut error = 0;
    // Two hours of readings a second apart; now and then the clock is put back by some seconds,
    // across the turn of minutes and of the hour.
    for group in 0..72_u64 {
        let group: Vec<Reading> = (1..=100)
            .map(|n| {
                let arrival = group * 100 + n;
                if random.u8(0..50) == 0 {
                    error -= random.i64(0..5 * SECOND);
                }
                reading(arrival, 1, TRUTH + arrival.cast_signed() * SECOND + error)
            })
            .collect();
        ring.append(&group);
        ring.commit().unwrap();
    }
    let arrivals: Vec<u64> = all(&ring).iter().map(|(arrival, _)| *arrival).collect();
    assert_eq!(arrivals, (1..=7200).collect::<Vec<u64>>(), "seed {seed}");
    let always = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
    for resolution in [Resolution::Minute, Resolution::Hour, Resolution::Day] {
        let rows = ring.rollups(TagKey(1), always.0, always.1, resolution).unwrap();
        assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 7200, "seed {seed}");
        assert!(rows.windows(2).all(|pair| pair[0].start < pair[1].start), "seed {seed}");
    }
}
