use std::fs;

use super::*;
use crate::domain::reading::{Quality, Reason};
use crate::store::{RingReader, damage};
use uuid::Uuid;

const MIB: u64 = 1024 * 1024;
/// 2026-05-01T10:00:00Z
const START: i64 = 1_777_629_600_000_000;
const SECOND: i64 = 1_000_000;

fn boot(id: u128) -> BootInfo {
    BootInfo {
        id: Uuid::from_u128(id),
        utc: Timestamp::from_micros(START),
        mono: Duration::from_secs(60),
        trusted: true,
    }
}

fn open(dir: &Path, max_bytes: u64) -> RingDb {
    RingDb::open(dir, max_bytes, &boot(1)).unwrap().0
}

fn reading(arrival: u64, tag: u32, time: i64, value: f64) -> Reading {
    Reading {
        tag: TagKey(tag),
        arrival: Arrival(arrival),
        time: Timestamp::from_micros(time),
        value,
        quality: if value.is_nan() { Quality::Bad(Reason::Comm) } else { Quality::Good },
    }
}

/// `rounds` polls of `tags` tags, a second apart, the first arrival being `from`.
fn polls(from: u64, tags: u32, rounds: u32) -> Vec<Reading> {
    (0..rounds * tags)
        .map(|n| {
            let (round, tag) = (n / tags, n % tags + 1);
            let time = START + (from.cast_signed() - 1) / i64::from(tags) * SECOND;
            let value = f64::from((round * 7 + tag * 3) % 1000) * 0.01;
            reading(from + u64::from(n), tag, time + i64::from(round) * SECOND, value)
        })
        .collect()
}

/// Bit for bit, every NaN being the same.
fn same(left: &[Reading], right: &[Reading]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(l, r)| {
            identity(l) == identity(r) && l.arrival == r.arrival && l.quality == r.quality
        })
}

fn all_after(ring: &RingDb, arrival: u64) -> Vec<Reading> {
    let (mut found, mut from) = (Vec::new(), Arrival(arrival));
    loop {
        let page = ring.after(from, 777).unwrap();
        let Some(last) = page.last() else { return found };
        from = last.arrival;
        found.extend(page);
    }
}

fn all_of(ring: &RingDb, tag: u32, from: i64, to: i64) -> Vec<Reading> {
    let (from, to) = (Timestamp::from_micros(from), Timestamp::from_micros(to));
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = ring.range(TagKey(tag), from, to, 100, cursor.as_deref()).unwrap();
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

/// Everything that was ever committed, and what the ring must answer.
#[derive(Default)]
struct Model(Vec<Reading>);

impl Model {
    fn add(&mut self, readings: &[Reading]) {
        for reading in readings {
            if !self.0.iter().any(|old| identity(old) == identity(reading)) {
                self.0.push(*reading);
            }
        }
    }

    fn of(&self, tag: u32, from: i64, to: i64) -> Vec<Reading> {
        let mut of: Vec<_> = self
            .0
            .iter()
            .filter(|reading| reading.tag.0 == tag)
            .filter(|reading| (from..to).contains(&reading.time.micros()))
            .copied()
            .collect();
        of.sort_by_key(|reading| (reading.time, reading.arrival));
        of
    }

    fn rollups(&self, tag: u32, resolution: Resolution) -> Vec<Rollup> {
        let mut spans: BTreeMap<i64, Vec<Reading>> = BTreeMap::new();
        for reading in self.of(tag, i64::MIN, i64::MAX) {
            if reading.quality.is_good() {
                let start = reading.time.micros().div_euclid(resolution.micros());
                spans.entry(start * resolution.micros()).or_default().push(reading);
            }
        }
        spans
            .into_iter()
            .map(|(start, readings)| {
                let values: Vec<f64> = readings.iter().map(|reading| reading.value).collect();
                let count = values.len() as f64;
                let mean = values.iter().sum::<f64>() / count;
                Rollup {
                    start: Timestamp::from_micros(start),
                    count: values.len() as u64,
                    min: values.iter().copied().fold(f64::INFINITY, f64::min),
                    max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    mean,
                    std: (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt(),
                    last: *values.last().unwrap(),
                }
            })
            .collect()
    }

    fn check(&self, ring: &RingDb, tags: u32) {
        assert!(same(&all_after(ring, 0), &self.0), "in order of arrival");
        for tag in 1..=tags {
            let (all, model) =
                (all_of(ring, tag, i64::MIN, i64::MAX), self.of(tag, i64::MIN, i64::MAX));
            assert!(same(&all, &model), "tag {tag} in order of time");
            let (from, to) = (START + 100 * SECOND, START + 4000 * SECOND);
            assert!(same(&all_of(ring, tag, from, to), &self.of(tag, from, to)), "part of {tag}");
            for resolution in [Resolution::Minute, Resolution::Hour, Resolution::Day] {
                let (from, to) =
                    (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
                let found = ring.rollups(TagKey(tag), from, to, resolution).unwrap();
                check_rollups(&found, &self.rollups(tag, resolution));
            }
        }
    }
}

/// The mean and the deviation are sums in another order: equal up to roundings of 1e-9.
fn check_rollups(found: &[Rollup], expected: &[Rollup]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.start, found.count), (expected.start, expected.count));
        let whole = |rollup: &Rollup| [rollup.min, rollup.max].map(f64::to_bits);
        assert_eq!(whole(found), whole(expected));
        assert!((found.mean - expected.mean).abs() < 1e-9, "{found:?} {expected:?}");
        assert!((found.std - expected.std).abs() < 1e-6, "{found:?} {expected:?}");
    }
}

#[test]
fn f_f01_what_was_committed_is_there_after_an_unclean_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), 64 * MIB);
    let first = polls(1, 5, 300);
    ring.append(&first);
    assert_eq!(ring.pending(), 1500);
    assert_eq!(ring.commit().unwrap(), Arrival(1500));
    ring.append(&polls(1501, 5, 10));
    drop(ring);
    let ring = open(dir.path(), 64 * MIB);
    assert_eq!(ring.last_arrival(), Arrival(1500));
    assert!(same(&all_after(&ring, 0), &first));
    let reader = RingReader::open(dir.path()).unwrap();
    assert_eq!(reader.last_arrival().unwrap(), Arrival(1500));
    assert_eq!(reader.first_arrival().unwrap(), Arrival(1));
    assert!(same(&reader.after(Arrival(1490), 5).unwrap(), &first[1490..1495]));
    assert_eq!(reader.after(Arrival(1500), 5).unwrap(), vec![]);
}

/// Random groups of live, late, repeated and missing values, commits, crashes and ageing, held
/// against a plain list after every few steps.
#[test]
fn the_ring_answers_what_a_plain_list_would() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or_else(|| (0..12).map(|_| fastrand::u64(..)).collect(), |one| vec![one]) {
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut ring = open(dir.path(), 64 * MIB);
        let mut model = Model::default();
        let (mut arrival, mut now, mut mono) = (0, START, 0);
        let mut boots = 1;
        for _ in 0..40 {
            let mut group: Vec<Reading> = Vec::new();
            for _ in 0..random.usize(0..400) {
                arrival += if random.u8(..) == 0 { random.u64(1..100) } else { 1 };
                now += random.i64(0..20) * SECOND;
                let time = match random.u8(0..20) {
                    0 => START + random.i64(0..20_000) * SECOND,
                    1 => START - random.i64(0..100_000) * SECOND,
                    _ => now,
                };
                // Few tags are often read, some seldom.
                let tag = if random.u8(0..10) < 8 { 1 } else { random.u32(2..6) };
                let value = match random.u8(0..20) {
                    0 => f64::NAN,
                    1 => random.f64() * 1e6,
                    _ => f64::from(random.i32(0..10_000)) * 0.01,
                };
                group.push(reading(arrival, tag, time, value));
                if random.u8(0..20) == 0 && !model.0.is_empty() {
                    arrival += 1;
                    let old = *random.choice(&model.0).unwrap();
                    group.push(Reading { arrival: Arrival(arrival), ..old });
                }
            }
            mono += random.u64(0..300);
            ring.advance(Duration::from_secs(mono));
            let (one, two) = group.split_at(random.usize(..=group.len()));
            ring.append(one);
            ring.append(two);
            if random.u8(0..6) == 0 {
                drop(ring);
                boots += u128::from(random.bool());
                ring = RingDb::open(dir.path(), 64 * MIB, &boot(boots)).unwrap().0;
                mono = 0;
                arrival = ring.last_arrival().0;
                continue;
            }
            let last = group.last().map_or(ring.last_arrival(), |last| last.arrival);
            assert!(ring.commit().unwrap() >= last);
            model.add(&group);
            if random.u8(0..5) == 0 {
                model.check(&ring, 5);
            }
        }
        model.check(&ring, 5);
    }
}

#[test]
fn a_rings_size_stays_where_it_is_bound() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), MIB);
    let mut random = fastrand::Rng::with_seed(5);
    let mut arrival = 0;
    for round in 0..400_i64 {
        let group: Vec<_> = (0..3000)
            .map(|n| {
                arrival += 1;
                let time = START + (round * 300 + n / 10) * SECOND;
                reading(arrival, u32::try_from(n % 10).unwrap() + 1, time, random.f64())
            })
            .collect();
        ring.append(&group);
        ring.commit().unwrap();
        let size: u64 = ["ring.db", "ring.db-wal"]
            .map(|name| fs::metadata(dir.path().join(name)).map_or(0, |file| file.len()))
            .iter()
            .sum();
        assert!(size <= MIB + MIB / 4, "{size} bytes in round {round}");
    }
    let counts = ring.counts();
    assert!(counts.dropped_segments > 1000, "{counts:?}");
    // What is left is the newest, whole from the first arrival on.
    let first = ring.first_arrival().unwrap();
    let left = all_after(&ring, 0);
    assert_eq!(left.first().unwrap().arrival, first);
    assert_eq!(left.len() as u64, arrival - first.0 + 1);
    // Random values do not compress, and a page holds one segment of them: 4 KiB for 256.
    assert!(left.len() > 15_000, "{}", left.len());
}

#[test]
fn slow_tags_leave_the_tail_and_come_together_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), 64 * MIB);
    let mut model = Model::default();
    let mut arrival = 0;
    // One reading a minute: 256 take more than four hours, the tail lasts ten minutes.
    for minute in 0..600_i64 {
        let group: Vec<_> = (1..=3)
            .map(|tag| {
                arrival += 1;
                reading(arrival, tag, START + minute * 60 * SECOND, f64::from(tag))
            })
            .collect();
        ring.advance(Duration::from_secs(u64::try_from(minute).unwrap() * 60));
        ring.append(&group);
        ring.commit().unwrap();
        model.add(&group);
        assert!(ring.tail.rows <= 11, "{:?}", ring.tail);
        assert!(ring.shared.len() < SHARED_MAX, "{:?}", ring.shared);
    }
    assert_eq!(ring.counts().segments, 6);
    model.check(&ring, 3);
    drop(ring);
    model.check(&open(dir.path(), 64 * MIB), 3);
}

#[test]
fn readings_of_another_boot_get_segments_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), 64 * MIB);
    ring.append(&polls(1, 2, 10));
    ring.commit().unwrap();
    drop(ring);
    let (mut ring, _) = RingDb::open(dir.path(), 64 * MIB, &boot(2)).unwrap();
    assert_eq!((ring.counts().segments, ring.tail.rows), (2, 0));
    ring.append(&polls(21, 2, 300));
    ring.commit().unwrap();
    let boots: Vec<i64> = ring
        .ask(|conn| {
            conn.prepare("SELECT DISTINCT boot FROM segment ORDER BY id")?
                .query_map([], |row| row.get(0))?
                .collect()
        })
        .unwrap();
    assert_eq!(boots, [1, 2]);
    let mut all = polls(1, 2, 10);
    all.extend(polls(21, 2, 300));
    assert!(same(&all_after(&ring, 0), &all));
}

#[test]
fn a_clock_that_is_not_trusted_makes_no_rollups_until_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let untrusted = BootInfo { trusted: false, ..boot(1) };
    let (mut ring, _) = RingDb::open(dir.path(), 64 * MIB, &untrusted).unwrap();
    ring.append(&[reading(1, 1, 5 * SECOND, 1.0)]);
    ring.commit().unwrap();
    let always = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
    assert!(ring.rollups(TagKey(1), always.0, always.1, Resolution::Hour).unwrap().is_empty());
    ring.date_boot(&boot(1));
    ring.commit().unwrap();
    ring.append(&[reading(2, 1, START, 2.0)]);
    ring.commit().unwrap();
    let found = ring.rollups(TagKey(1), always.0, always.1, Resolution::Hour).unwrap();
    assert_eq!(found.iter().map(|rollup| rollup.count).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn what_a_failing_disk_does_not_take_goes_with_a_later_commit() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), 64 * MIB);
    ring.append(&polls(1, 4, 100));
    ring.commit().unwrap();
    // A file that may not grow stands for a full disk.
    let (pages, _) = ring.writer.pages().unwrap();
    let bound = |ring: &RingDb, pages: u64| {
        ring.writer
            .conn
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .unwrap();
    };
    bound(&ring, pages);
    let mut next = 401;
    let error = loop {
        let group = polls(next, 4, 500);
        next += 2000;
        ring.append(&group);
        match ring.commit() {
            Ok(_) => assert!(next < 1_000_000, "the file has no bound"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert!(ring.pending() >= 2000);
    let durable = ring.last_arrival();
    assert!(ring.commit().is_err());
    let lost = ring.shed(1500).unwrap();
    assert_eq!((lost.from, lost.to.0 - durable.0), (Arrival(durable.0 + 1), lost.count));
    assert_eq!(ring.shed(1500), None);
    bound(&ring, 100_000);
    assert_eq!(ring.commit().unwrap(), Arrival(next - 1));
    let kept: Vec<u64> = all_after(&ring, 0).iter().map(|reading| reading.arrival.0).collect();
    let expected: Vec<u64> = (ring.first_arrival().unwrap().0..next)
        .filter(|n| !(lost.from.0..=lost.to.0).contains(n))
        .collect();
    assert_eq!(kept, expected);
    drop(ring);
    assert_eq!(all_after(&open(dir.path(), 64 * MIB), 0).len(), kept.len());
}

#[test]
fn numbers_of_tags_keep_their_names() {
    let mut ring = RingDb::in_memory().unwrap();
    let path = |name: &str| TagPath {
        asset: crate::domain::ids::AssetId::new("P-1").unwrap(),
        tag: crate::domain::ids::TagId::new(name).unwrap(),
    };
    ring.name_tags(&BTreeMap::from([(path("a"), TagKey(1)), (path("b"), TagKey(2))])).unwrap();
    ring.name_tags(&BTreeMap::from([(path("b"), TagKey(2)), (path("c"), TagKey(3))])).unwrap();
    let wrong = ring.name_tags(&BTreeMap::from([(path("c"), TagKey(1))])).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Other);
}

#[test]
fn a_lost_state_file_learns_the_numbers_of_tags_from_the_ring() {
    use crate::store::StateDb;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| TagPath {
        asset: crate::domain::ids::AssetId::new("P-1").unwrap(),
        tag: crate::domain::ids::TagId::new(name).unwrap(),
    };
    let mut ring = open(dir.path(), 64 * MIB);
    ring.name_tags(&BTreeMap::from([(path("a"), TagKey(7)), (path("b"), TagKey(3))])).unwrap();
    let (mut state, opened) = StateDb::open(dir.path(), 16 * MIB, &boot(1)).unwrap();
    assert!(opened.fresh && opened.salvaged.is_some());
    let keys = state.tag_keys(&[path("b"), path("a"), path("new")]).unwrap();
    assert_eq!(
        (keys[&path("a")], keys[&path("b")], keys[&path("new")]),
        (TagKey(7), TagKey(3), TagKey(8))
    );
}

#[test]
fn f_a11_a_damaged_segment_is_left_out_and_its_neighbours_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), 64 * MIB);
    ring.append(&polls(1, 1, 1024));
    ring.commit().unwrap();
    let changed = ring
        .writer
        .conn
        .execute("UPDATE segment SET data = zeroblob(length(data)) WHERE id = 2", [])
        .unwrap();
    assert_eq!(changed, 1);
    assert_eq!(all_after(&ring, 0).len(), 768);
    assert_eq!(all_of(&ring, 1, i64::MIN, i64::MAX).len(), 768);
}

#[test]
fn f_a09_two_hundred_damaged_rings_all_open_and_take_readings() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = open(dir.path(), 64 * MIB);
    let mut next = 1;
    for round in 0..80 {
        ring.advance(Duration::from_secs(round * 20));
        let group = polls(next, 7, 30);
        next += group.len() as u64;
        ring.append(&group);
        ring.commit().unwrap();
    }
    drop(ring);
    let names = ["ring.db", "ring.db-wal"];
    let whole = names.map(|name| fs::read(dir.path().join(name)).unwrap());
    let seed = fastrand::u64(..);
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut quarantined = 0;
    for round in 0..200 {
        let place = tempfile::tempdir().unwrap();
        for (name, bytes) in names.iter().zip(&whole) {
            let mut bytes = bytes.clone();
            damage(&mut bytes, &mut random);
            fs::write(place.path().join(name), bytes).unwrap();
        }
        let (mut ring, opened) = RingDb::open(place.path(), 64 * MIB, &boot(2))
            .unwrap_or_else(|error| panic!("round {round} of seed {seed}: {error:?}"));
        quarantined += u32::from(opened.quarantined.is_some());
        let from = ring.last_arrival().0 + 1;
        ring.append(&polls(from, 7, 300));
        match ring.commit() {
            Ok(last) => assert!(last.0 >= from),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{opened:?} {error:?}"),
        }
        let read = (
            ring.after(Arrival(0), 100),
            ring.range(
                TagKey(1),
                Timestamp::from_micros(START),
                Timestamp::from_micros(i64::MAX),
                100,
                None,
            ),
        );
        drop((read, ring));
        let (mut ring, _) = RingDb::open(place.path(), 64 * MIB, &boot(2)).unwrap();
        ring.append(&polls(ring.last_arrival().0 + 1, 7, 300));
        ring.commit().ok();
    }
    println!("{quarantined} of 200 were moved aside");
}

fn burst(arrival: u64, tag: u32, time: i64, samples: Vec<f32>) -> Burst {
    Burst {
        tag: TagKey(tag),
        arrival: Arrival(arrival),
        time: Timestamp::from_micros(time),
        rate_hz: Some(25_600.0),
        quality: Quality::Good,
        samples: samples.into(),
    }
}

fn whole(ring: &RingDb, tag: u32, limit: usize, cursor: Option<&str>) -> Page<Burst> {
    let (from, to) = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
    ring.bursts(TagKey(tag), from, to, limit, cursor).unwrap()
}

#[test]
fn bursts_come_back_bit_for_bit_in_pages_and_once() {
    let mut ring = RingDb::in_memory().unwrap();
    let odd = vec![0.1, -0.0, f32::NAN, f32::MIN_POSITIVE / 4.0, 3.0e38];
    let bursts: Vec<Burst> =
        (0..5).map(|n| burst(n + 1, 7, i64::try_from(n).unwrap(), odd.clone())).collect();
    ring.append_bursts(bursts.clone());
    ring.append_bursts(vec![burst(9, 7, 3, vec![1.0]), burst(10, 8, 3, vec![2.0])]);
    ring.commit().unwrap();
    let first = whole(&ring, 7, 3, None);
    let second = whole(&ring, 7, 3, first.next.as_deref());
    assert_eq!((first.items.len(), second.items.len(), second.next), (3, 2, None));
    for (found, burst) in first.items.iter().chain(&second.items).zip(&bursts) {
        assert_eq!(
            (found.arrival, found.time, found.rate_hz),
            (burst.arrival, burst.time, burst.rate_hz)
        );
        let bits = |burst: &Burst| burst.samples.iter().map(|s| s.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(found), bits(burst));
    }
    assert_eq!(whole(&ring, 8, 10, None).items.len(), 1);
}

#[test]
fn bursts_keep_to_their_share_and_leave_the_readings_alone() {
    let dir = tempfile::tempdir().unwrap();
    let max = 4 << 20;
    let (mut ring, _) = RingDb::open(dir.path(), max, &boot(1)).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for n in 0..200_u64 {
        // Noise: 4096 samples of single precision take 16 KiB.
        let samples = (0..4096).map(|_| random.f32()).collect();
        let time = i64::try_from(n).unwrap() * 1_000_000;
        ring.append(&[reading(n + 1, 1, time, 1.5)]);
        ring.append_bursts(vec![burst(n + 1, 1, time, samples)]);
        ring.commit().unwrap();
    }
    let kept = whole(&ring, 1, 1000, None).items;
    let bytes = kept.len() as u64 * 4096 * 3;
    assert!(kept.len() > 20 && bytes < max / 3, "{} bursts", kept.len());
    assert_eq!(kept.last().unwrap().arrival, Arrival(200), "the oldest fell");
    let (from, to) = (Timestamp::from_micros(0), Timestamp::from_micros(i64::MAX));
    assert_eq!(ring.range(TagKey(1), from, to, 1000, None).unwrap().items.len(), 200);
}
