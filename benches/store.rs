//! Readings per second through append and commit, beside a row-per-reading table with an index
//! under the same commit rule, and bytes written per reading of both.
//!
//! `cargo bench --bench store` prints the ratios, then divan's table. The files lie under `target`,
//! on a real disk; `write_bytes` of `/proc/self/io` counts what was sent towards it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::ItemsCount;
use rusqlite::Connection;
use uuid::Uuid;
use wheeltap::domain::ids::{Arrival, TagKey};
use wheeltap::domain::reading::{Quality, Reading};
use wheeltap::domain::time::Timestamp;
use wheeltap::store::{BootInfo, RingDb};

/// 2026-05-01T10:00:00Z
const START: i64 = 1_777_629_600_000_000;
/// Tags polled once a second.
const TAGS: u32 = 1000;
/// Readings of one commit: five seconds.
const COMMIT: usize = 5 * TAGS as usize;
/// Commits of one comparison: 20 minutes of plant.
const COMMITS: u64 = 240;

fn main() {
    compare();
    divan::main();
}

/// `count` polled readings with hundredths, a slow walk each, and a few milliseconds of jitter.
fn polled(first: u64, count: usize, tags: u32, random: &mut fastrand::Rng) -> Vec<Reading> {
    (first..first + count as u64)
        .map(|arrival| {
            let round = (arrival - 1) / u64::from(tags);
            let tag = u32::try_from((arrival - 1) % u64::from(tags)).unwrap_or(0);
            let walk = (round as f64 / 50.0 + f64::from(tag)).sin() * 5.0 + random.f64() * 0.3;
            Reading {
                tag: TagKey(tag + 1),
                arrival: Arrival(arrival),
                time: Timestamp::from_micros(
                    START
                        + round.cast_signed() * 1_000_000
                        + i64::from(tag / 100) * 2000
                        + random.i64(0..2000),
                ),
                value: ((50.0 + walk) * 100.0).round() / 100.0,
                quality: Quality::Good,
            }
        })
        .collect()
}

fn place(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-store").join(name);
    fs::remove_dir_all(&dir).ok();
    fs::create_dir_all(&dir).expect("target can be written");
    dir
}

fn ring(name: &str) -> RingDb {
    let boot = BootInfo {
        id: Uuid::from_u128(1),
        utc: Timestamp::from_micros(START),
        mono: Duration::ZERO,
        trusted: true,
    };
    RingDb::open(&place(name), 512 << 20, &boot).expect("a fresh ring opens").0
}

/// What most gateways do: a row a reading, an index over tag and time.
struct Rows(Connection);

impl Rows {
    #[expect(clippy::disallowed_methods, reason = "the baseline is not the store")]
    fn open(name: &str) -> Self {
        let conn = Connection::open(place(name).join("rows.db")).expect("a fresh file opens");
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).expect("WAL");
        conn.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA cache_size = -4000;
             CREATE TABLE reading (tag INTEGER, time INTEGER, value REAL, quality INTEGER);
             CREATE INDEX reading_place ON reading (tag, time);",
        )
        .expect("tables");
        Self(conn)
    }

    fn commit(&mut self, readings: &[Reading]) {
        let step = self.0.transaction().expect("begin");
        {
            let mut insert = step
                .prepare_cached("INSERT INTO reading VALUES (?1, ?2, ?3, ?4)")
                .expect("a statement");
            for reading in readings {
                let quality = reading.quality.to_byte();
                insert
                    .execute((reading.tag.0, reading.time.micros(), reading.value, quality))
                    .expect("a row");
            }
        }
        step.commit().expect("a commit");
    }
}

/// Bytes this process sent towards the disk.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.trim().parse().ok()).unwrap_or(0)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn measured(mut commit: impl FnMut(&[Reading])) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut spent = Duration::ZERO;
    let before = written();
    for round in 0..COMMITS {
        let group = polled(round * COMMIT as u64 + 1, COMMIT, TAGS, &mut random);
        let start = Instant::now();
        commit(&group);
        spent += start.elapsed();
    }
    let readings = (COMMITS * COMMIT as u64) as f64;
    (readings / spent.as_secs_f64(), (written() - before) as f64 / readings)
}

fn compare() {
    let mut ring = ring("ring");
    let (ring_rate, ring_bytes) = measured(|group| {
        ring.append(group);
        ring.commit().expect("a commit");
    });
    let mut rows = Rows::open("rows");
    let (rows_rate, rows_bytes) = measured(|group| rows.commit(group));
    println!("{TAGS} tags, {COMMIT} readings a commit, synchronous=FULL, one thread");
    println!("ring:            {ring_rate:>12.0} readings/s {ring_bytes:>8.1} bytes/reading");
    println!("row per reading: {rows_rate:>12.0} readings/s {rows_bytes:>8.1} bytes/reading");
    println!(
        "ratio:           {:>12.1} x          {:>8.1} x",
        ring_rate / rows_rate,
        rows_bytes / ring_bytes.max(f64::MIN_POSITIVE)
    );
    drop(ring);
    let boot = BootInfo {
        id: Uuid::from_u128(1),
        utc: Timestamp::from_micros(START),
        mono: Duration::ZERO,
        trusted: true,
    };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-store/ring");
    let size = fs::metadata(dir.join("ring.db")).map_or(0, |file| file.len());
    let readings = COMMITS * COMMIT as u64;
    println!("ring.db: {:.2} bytes/reading stored", size as f64 / readings as f64);
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    let start = Instant::now();
    let (ring, _) = RingDb::open(&dir, 512 << 20, &boot).expect("the ring opens again");
    println!("opened again after an unclean end in {:?}", start.elapsed());
    drop(ring);
}

/// One commit of a hundred thousand readings, in memory: what the code itself costs.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn burst_in_memory(bencher: Bencher) {
    const BURST: usize = 100_000;
    let mut ring = RingDb::in_memory().expect("memory");
    let mut random = fastrand::Rng::with_seed(7);
    let mut next = 1;
    bencher
        .counter(ItemsCount::new(BURST))
        .with_inputs(|| {
            let group = polled(next, BURST, 50, &mut random);
            next += BURST as u64;
            group
        })
        .bench_local_values(|group| {
            ring.append(&group);
            ring.commit().expect("a commit");
        });
}

/// The same group commits on disk.
#[divan::bench(sample_count = 50, sample_size = 1)]
fn group_commit_on_disk(bencher: Bencher) {
    let mut ring = ring("divan");
    let mut random = fastrand::Rng::with_seed(7);
    let mut next = 1;
    bencher
        .counter(ItemsCount::new(COMMIT))
        .with_inputs(|| {
            let group = polled(next, COMMIT, TAGS, &mut random);
            next += COMMIT as u64;
            group
        })
        .bench_local_values(|group| {
            ring.append(&group);
            ring.commit().expect("a commit");
        });
}
