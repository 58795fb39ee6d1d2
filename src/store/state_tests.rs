use std::fs;

use proptest::prelude::*;

use super::*;
use crate::domain::event::Body;
use crate::domain::ids::{AssetId, TagId};
use crate::store::{BootInfo, ErrorKind, StateReader};
use uuid::Uuid;

const MIB: u64 = 1024 * 1024;

fn boot() -> BootInfo {
    BootInfo {
        id: Uuid::from_u128(7),
        utc: Timestamp::parse_rfc3339("2026-05-01T10:00:00Z").unwrap(),
        mono: Duration::from_secs(60),
        trusted: true,
    }
}

fn open(dir: &Path) -> (StateDb, Opened) {
    StateDb::open(dir, 16 * MIB, &boot()).unwrap()
}

fn event(number: u128, chain: u128, seconds: i64) -> Event {
    Event {
        id: EventId(Uuid::from_u128(number)),
        cause: (number != chain).then(|| EventId(Uuid::from_u128(chain))),
        correlation: EventId(Uuid::from_u128(chain)),
        time: Timestamp::from_micros(seconds * 1_000_000),
        clock_trusted: true,
        body: Body::PredictionAbstained {
            asset: AssetId::new("P-101").unwrap(),
            anomaly: None,
            reason: format!("event {number} of chain {chain}"),
        },
    }
}

fn record(id: &str, open: bool, seconds: i64) -> Record {
    let time = Timestamp::from_micros(seconds * 1_000_000);
    Record::new(RecordKind::Alarm, id, time, &serde_json::json!({ "id": id }))
        .in_state("unacknowledged", open)
}

fn path(asset: &str, tag: &str) -> TagPath {
    TagPath { asset: AssetId::new(asset).unwrap(), tag: TagId::new(tag).unwrap() }
}

fn full_commit() -> Commit {
    Commit {
        events: vec![
            (event(1, 1, 10), Some((Class::Alarm, 1))),
            (event(2, 1, 11), None),
            (event(3, 1, 12), Some((Class::Alarm, 2))),
        ],
        records: vec![record("a", true, 10), record("b", false, 11)],
        seen: Some(Arrival(77)),
        lanes: vec![LanePosition { lane: Lane::Events, below: 2, ahead: vec![(4, 9)] }],
        snapshots: vec![("detection", vec![1, 2, 3])],
        sequences_reserved: vec![(Class::Alarm, 1000)],
        ..Commit::default()
    }
}

fn check_full(state: &StateDb) {
    assert_eq!(state.open_records().unwrap(), vec![record("a", true, 10)]);
    assert_eq!(state.record(RecordKind::Alarm, "b").unwrap(), Some(record("b", false, 11)));
    assert_eq!(state.seen().unwrap(), Arrival(77));
    assert_eq!(state.lane(Lane::Events).unwrap().ahead, vec![(4, 9)]);
    assert_eq!(state.lane(Lane::Readings).unwrap(), LanePosition::start(Lane::Readings));
    assert_eq!(state.snapshot("detection").unwrap(), Some(vec![1, 2, 3]));
    assert_eq!(state.snapshot("learning").unwrap(), None);
    assert_eq!(state.sequences().unwrap(), BTreeMap::from([(Class::Alarm, 2)]));
    assert_eq!(state.sequences_reserved().unwrap(), BTreeMap::from([(Class::Alarm, 1000)]));
    let found = state.event(EventId(Uuid::from_u128(3))).unwrap().unwrap();
    assert_eq!((found.event, found.sequence), (event(3, 1, 12), Some((Class::Alarm, 2))));
}

#[test]
fn f_f01_what_was_committed_is_there_after_an_unclean_end() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, opened) = open(dir.path());
    assert!(opened.fresh && opened.clean_stop && opened.quarantined.is_none());
    assert_eq!(state.commit(&full_commit()).unwrap(), vec![1, 2, 3]);
    drop(state);
    let (mut state, again) = open(dir.path());
    assert!(!again.fresh && !again.clean_stop);
    assert_eq!(again.epoch, opened.epoch);
    check_full(&state);
    state.mark_clean_stop().unwrap();
    drop(state);
    let (state, third) = open(dir.path());
    assert!(third.clean_stop);
    check_full(&state);
}

#[test]
fn a_commit_happens_whole_or_not_at_all() {
    let mut state = StateDb::in_memory().unwrap();
    state.commit(&Commit { events: vec![(event(1, 1, 1), None)], ..Commit::default() }).unwrap();
    let mut second = full_commit();
    // Its last event has the id of the one that is there.
    second.events.reverse();
    assert!(state.commit(&second).is_err());
    assert_eq!(state.last_row().unwrap(), 1);
    assert_eq!(state.open_records().unwrap(), vec![]);
    assert_eq!(state.seen().unwrap(), Arrival(0));
    assert_eq!(state.sequences().unwrap(), BTreeMap::new());
}

#[test]
fn readers_see_the_journal_in_order_and_only_what_they_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, _) = open(dir.path());
    state.commit(&full_commit()).unwrap();
    let reader = StateReader::open(dir.path()).unwrap();
    let rows = |found: Vec<Committed>| found.iter().map(|event| event.row).collect::<Vec<_>>();
    assert_eq!(rows(reader.journal_after(0, 10).unwrap()), [1, 3]);
    assert_eq!(rows(reader.journal_after(1, 10).unwrap()), [3]);
    assert_eq!(reader.class_events_waiting(2).unwrap(), 1);
    let all = JournalFilter { limit: 10, ..JournalFilter::default() };
    assert_eq!(rows(reader.journal(&all).unwrap()), [3, 2, 1]);
    let chain = Some(EventId(Uuid::from_u128(1)));
    let oldest = JournalFilter { correlation: chain, after: Some(0), limit: 2, ..all.clone() };
    assert_eq!(rows(reader.journal(&oldest).unwrap()), [1, 2]);
    let late = JournalFilter { from: Some(Timestamp::from_micros(12_000_000)), ..all.clone() };
    assert_eq!(rows(reader.journal(&late).unwrap()), [3]);
    let none = JournalFilter { asset: Some(AssetId::new("other").unwrap()), ..all };
    assert_eq!(rows(reader.journal(&none).unwrap()), [] as [u64; 0]);
}

#[test]
fn records_are_paged_without_gap_or_repeat() {
    let mut state = StateDb::in_memory().unwrap();
    let records: Vec<_> = (0..25).map(|n| record(&format!("r{n:02}"), n % 2 == 0, n / 3)).collect();
    state.commit(&Commit { records, ..Commit::default() }).unwrap();
    let mut filter = RecordFilter { limit: 4, ..RecordFilter::all(RecordKind::Alarm) };
    let mut seen = Vec::new();
    loop {
        let page = state.records(&filter).unwrap();
        seen.extend(page.items.into_iter().map(|record| record.id));
        filter.cursor = page.next;
        if filter.cursor.is_none() {
            break;
        }
    }
    let mut expected: Vec<_> = (0..25).map(|n| format!("r{n:02}")).collect();
    expected.reverse();
    assert_eq!(seen, expected);
    let open = RecordFilter { open: Some(true), ..RecordFilter::all(RecordKind::Alarm) };
    assert_eq!(state.records(&open).unwrap().items.len(), 13);
}

#[test]
fn tags_keep_their_number_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, _) = open(dir.path());
    let first = state.tag_keys(&[path("P-1", "a"), path("P-1", "b")]).unwrap();
    let second = state.tag_keys(&[path("P-2", "a"), path("P-1", "a")]).unwrap();
    assert_eq!(first[&path("P-1", "a")], second[&path("P-1", "a")]);
    drop(state);
    let (mut state, _) = open(dir.path());
    let third = state.tag_keys(&[path("P-3", "x"), path("P-2", "a")]).unwrap();
    assert_eq!(third[&path("P-2", "a")], second[&path("P-2", "a")]);
    assert_eq!(state.known_tags().unwrap().len(), 4);
    let mut keys: Vec<_> = state.known_tags().unwrap().into_values().collect();
    keys.dedup();
    assert_eq!(keys.len(), 4);
}

#[test]
fn retention_takes_closed_old_chains_and_nothing_else() {
    let mut state = StateDb::in_memory().unwrap();
    let day = 86_400;
    let mut commit = Commit::default();
    for (chain, at) in [(100, 0), (200, 0), (300, 90 * day), (400, 0), (500, 99 * day)] {
        commit.events.push((event(chain, chain, at), None));
        commit.events.push((event(chain + 1, chain, at + 1), None));
    }
    // Chain 200 is named inside an open record, chain 100 by a closed one.
    let open = Record::new(
        RecordKind::CaseFile,
        "P-101",
        Timestamp::default(),
        &serde_json::json!({ "anomalies": [EventId(Uuid::from_u128(201))] }),
    );
    commit.records = vec![open, record(&EventId(Uuid::from_u128(100)).to_string(), false, 0)];
    state.commit(&commit).unwrap();
    let now = Timestamp::from_micros(100 * day * 1_000_000);
    let keep = Duration::from_secs(30 * 86_400);
    // Row 7 and 8 (chain 400) are not upstream yet.
    let retained = state.retain(now, keep, 7).unwrap();
    assert_eq!((retained.chains, retained.events, retained.records), (1, 2, 1));
    let left = JournalFilter { after: Some(0), limit: 100, ..JournalFilter::default() };
    let rows: Vec<_> = state.journal(&left).unwrap().into_iter().map(|event| event.row).collect();
    assert_eq!(rows, [3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(state.retain(now, keep, 100).unwrap().chains, 1);
    assert_eq!(
        state
            .commit(&Commit { events: vec![(event(600, 600, 0), None)], ..Commit::default() })
            .unwrap(),
        [11]
    );
}

#[test]
fn f_a04_a_full_file_refuses_whole_commits_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, _) = StateDb::open(dir.path(), 600 * 1024, &boot()).unwrap();
    let mut number: u64 = 0;
    let error = loop {
        number += 1;
        let mut fat = record(&format!("r{number}"), false, 0);
        fat.body = "x".repeat(20_000).into();
        let events = vec![(event(number.into(), number.into(), 0), Some((Class::Alarm, number)))];
        match state.commit(&Commit { events, records: vec![fat], ..Commit::default() }) {
            Ok(_) => {}
            Err(error) => break error,
        }
        assert!(number < 100, "the file has no bound");
    };
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Full, true));
    assert_eq!(state.sequences().unwrap()[&Class::Alarm], number - 1);
    assert!(state.pressure().unwrap() >= PRESSURE_PERCENT);
    let retained = state.retain(Timestamp::default(), Duration::MAX, u64::MAX).unwrap();
    assert!(retained.records > 0, "{retained:?}");
    let small = Commit {
        events: vec![(event(number.into(), number.into(), 0), None)],
        ..Commit::default()
    };
    state.commit(&small).unwrap();
}

#[test]
fn f_a17_a_newer_file_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, _) = open(dir.path());
    state.commit(&full_commit()).unwrap();
    connection::set_meta(&state.writer.conn, "schema", 99).unwrap();
    state.writer.conn.pragma_update(None, "user_version", 99).unwrap();
    state.mark_clean_stop().unwrap();
    drop(state);
    let file = dir.path().join("state.db");
    let before = fs::read(&file).unwrap();
    let error = StateDb::open(dir.path(), 16 * MIB, &boot()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooNew, "{error}");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert!(!dir.path().join("corrupt").exists());
}

#[test]
fn f_a09_a_damaged_file_is_moved_aside_and_what_can_be_read_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, first) = open(dir.path());
    let keys = state.tag_keys(&[path("P-1", "a"), path("P-1", "b")]).unwrap();
    state.commit(&full_commit()).unwrap();
    state.mark_clean_stop().unwrap();
    drop(state);
    let file = dir.path().join("state.db");
    let mut bytes = fs::read(&file).unwrap();
    // Page 1 holds the schema; somewhere behind it lies an index that is not needed for salvage.
    let page = find_index_page(&file);
    bytes[page * 4096..(page + 1) * 4096].fill(0);
    fs::write(&file, bytes).unwrap();
    let (mut state, opened) = open(dir.path());
    assert!(opened.fresh && !opened.clean_stop);
    assert_ne!(opened.epoch, first.epoch);
    let place = opened.quarantined.unwrap();
    assert!(place.join("state.db").exists() && place.starts_with(dir.path().join("corrupt")));
    assert!(opened.salvaged.unwrap().starts_with("2 records, 3 events and 2 tags"));
    assert_eq!(state.tag_keys(&[path("P-1", "b"), path("P-1", "a")]).unwrap(), keys);
    assert_eq!(state.open_records().unwrap(), vec![record("a", true, 10)]);
    assert_eq!(state.seen().unwrap(), Arrival(77));
    // Upstream had row 1; only the event behind it is sent again, numbered from 1.
    let below = state.lane(Lane::Events).unwrap().below;
    let unsent = state.journal_after(below - 1, 10).unwrap();
    assert_eq!(unsent.len(), 1);
    assert_eq!(unsent[0].sequence, Some((Class::Alarm, 1)));
    assert_eq!(unsent[0].event, event(3, 1, 12));
}

/// The page of the index `journal_asset`.
fn find_index_page(file: &Path) -> usize {
    let conn = connection::open_reader(file).unwrap();
    conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'journal_asset'", [], |row| {
        row.get::<_, i64>(0)
    })
    .map(|page| usize::try_from(page).unwrap() - 1)
    .unwrap()
}

#[test]
fn f_a09_two_hundred_damaged_files_all_open() {
    let dir = tempfile::tempdir().unwrap();
    let (mut state, _) = open(dir.path());
    state.tag_keys(&[path("P-1", "a")]).unwrap();
    state.commit(&full_commit()).unwrap();
    for number in 100..400_u64 {
        let commit = Commit {
            events: vec![(event(number.into(), number.into(), 0), Some((Class::Anomaly, number)))],
            ..Commit::default()
        };
        state.commit(&commit).unwrap();
    }
    drop(state);
    let names = ["state.db", "state.db-wal"];
    let whole: Vec<_> = names.map(|name| fs::read(dir.path().join(name)).unwrap()).into();
    let seed = fastrand::u64(..);
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..200 {
        let place = tempfile::tempdir().unwrap();
        for (name, bytes) in names.iter().zip(&whole) {
            let mut bytes = bytes.clone();
            crate::store::damage(&mut bytes, &mut random);
            fs::write(place.path().join(name), bytes).unwrap();
        }
        let (mut state, opened) = StateDb::open(place.path(), 16 * MIB, &boot())
            .unwrap_or_else(|error| panic!("round {round} of seed {seed}: {error:?}"));
        let next = event(1000, 1000, 0);
        match state.commit(&Commit { events: vec![(next, None)], ..Commit::default() }) {
            Ok(rows) => assert_eq!(rows.len(), 1),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{opened:?} {error:?}"),
        }
        drop(state);
        open(place.path());
    }
}

proptest! {
    #[test]
    fn every_flipped_bit_of_a_snapshot_is_noticed(
        learnt in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()
    ) {
        let sealed = seal(&learnt);
        prop_assert_eq!(unseal(&sealed), Some(learnt.as_slice()));
        let bit = at.index(sealed.len() * 8);
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(unseal(&flipped), None);
    }
}

#[test]
fn schema_2_is_migrated_and_keeps_models_with_the_commit_that_brings_them() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (mut state, _) = open(dir.path());
        state.commit(&full_commit()).unwrap();
        state.mark_clean_stop().unwrap();
        // As a gateway that never knew of models left it.
        state.writer.conn.execute_batch("DROP TABLE model; PRAGMA user_version = 2;").unwrap();
        connection::set_meta(&state.writer.conn, "schema", 2).unwrap();
    }
    let (mut state, opened) = open(dir.path());
    assert!(!opened.fresh && opened.quarantined.is_none());
    check_full(&state);
    let bytes = vec![7_u8; 100_000];
    let bring = |bytes| Commit { models: vec![("m".to_owned(), bytes)], ..Commit::default() };
    state.commit(&bring(Some(bytes.clone()))).unwrap();
    drop(state);
    let (mut state, _) = open(dir.path());
    assert_eq!(state.model("m").unwrap(), Some(bytes.clone()));
    assert_eq!(StateReader::open(dir.path()).unwrap().model("m").unwrap(), Some(bytes));
    state.commit(&bring(None)).unwrap();
    assert_eq!(state.model("m").unwrap(), None);
}
