//! Readings through the whole engine and into the ring, on one thread, beside the plainest thing a
//! gateway could do: a table with a row per reading and an index.
//!
//! ```sh
//! cargo bench --bench pipeline
//! ```
//!
//! A thousand tags of a hundred assets at 1 s; a commit for every five seconds of readings, as the
//! daemon does, with `synchronous=FULL` on disk. Fails only beyond three times the target.

#![expect(clippy::disallowed_methods, reason = "wall time is what is measured here")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wheeltap::agents::Setting;
use wheeltap::config;
use wheeltap::domain::ids::{SourceId, TagKey};
use wheeltap::domain::reading::{RawBatch, RawReading, RawValue};
use wheeltap::domain::time::{Now, Timestamp};
use wheeltap::port::Input;
use wheeltap::runtime::engine::{Engine, Start};
use wheeltap::runtime::stages;
use wheeltap::store::BootInfo;
use wheeltap::store::ring::RingDb;
use wheeltap::store::state::StateDb;

const ASSETS: usize = 100;
const TAGS_PER_ASSET: usize = 10;
/// Seconds of readings in one commit.
const COMMIT_SECONDS: u64 = 5;
/// Simulated seconds; the first tenth is learnt from.
const SECONDS: u64 = 1_200;
const TARGET: f64 = 400_000.0;
const BEGAN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn main() -> ExitCode {
    let readings = ASSETS as f64 * TAGS_PER_ASSET as f64 * SECONDS as f64;
    let ours = readings / pipeline();
    // The baseline is slow; a tenth of the readings tells its speed.
    let seconds = SECONDS / 10;
    let rows = ASSETS as f64 * TAGS_PER_ASSET as f64 * seconds as f64 / row_per_reading(seconds);
    println!("engine (eleven stages) and ring: {ours:.0} readings/s");
    println!("row per reading with an index:   {rows:.0} readings/s; ratio {:.1}", ours / rows);
    let verdict = if ours >= TARGET { "met" } else { "MISSED" };
    println!("target {TARGET:.0} readings/s in one thread ({verdict})");
    if ours < TARGET / 3.0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn setting(keys: &mut StateDb) -> Setting {
    let mut text = String::from(
        "[gateway]\nsite = \"b\"\nid = \"g\"\ndata_dir = \"d\"\n[detection]\nlearn = \"2m\"\n",
    );
    for asset in 0..ASSETS {
        write!(text, "[[asset]]\nid = \"A{asset}\"\n").expect("memory takes text");
    }
    text.push_str("[[modbus]]\nname = \"m\"\nurl = \"tcp://127.0.0.1:502\"\n");
    for tag in 0..ASSETS * TAGS_PER_ASSET {
        write!(
            text,
            "[[modbus.tag]]\nid = \"t{}\"\nasset = \"A{}\"\npoint = \"holding:{}\"\n\
             type = \"f32\"\nrange = [-50.0, 500.0]\nlimits = {{ high = 90.0 }}\n",
            tag % TAGS_PER_ASSET,
            tag / TAGS_PER_ASSET,
            tag * 2
        )
        .expect("memory takes text");
    }
    let config = config::parse(&text, Path::new("bench.toml"), &BTreeMap::new())
        .expect("the configuration is right");
    let paths: Vec<_> = config.tags().map(|(_, tag, _)| tag.path.clone()).collect();
    let keys = keys.tag_keys(&paths).expect("tags get numbers");
    Setting { plant: Arc::new(config.plant(&keys)), config: Arc::new(config) }
}

/// Values with a little noise, drawn before the clock runs: one row of all tags a second.
fn values() -> Vec<Vec<f64>> {
    let mut random = fastrand::Rng::with_seed(9);
    let mut normal = move || (0..6).map(|_| random.f64()).sum::<f64>() - 3.0;
    (0..64)
        .map(|_| {
            (0..ASSETS * TAGS_PER_ASSET)
                .map(|tag| ((20.0 + (tag % 50) as f64 + 0.5 * normal()) * 100.0).round() / 100.0)
                .collect()
        })
        .collect()
}

/// Seconds for everything.
fn pipeline() -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let boot =
        BootInfo { id: uuid::Uuid::from_u128(1), utc: BEGAN, mono: Duration::ZERO, trusted: true };
    let (mut state, _) = StateDb::open(dir.path(), 1 << 26, &boot).expect("state.db opens");
    let (mut ring, _) = RingDb::open(dir.path(), 1 << 28, &boot).expect("ring.db opens");
    let setting = setting(&mut state);
    let keys: Vec<TagKey> = setting.plant.tags().map(|tag| tag.key).collect();
    let at = |second: u64| {
        let mono = Duration::from_secs(second);
        Now { mono, utc: BEGAN.after(mono), trusted: true }
    };
    let start = Start { ring_last: ring.last_arrival(), fresh: true };
    let mut engine =
        Engine::start(setting, state, &stages(), start, 1, at(0)).expect("the engine starts");
    let values = values();
    let source = SourceId::new("m").expect("a legal name");
    let began = Instant::now();
    for second in 1..=SECONDS {
        let now = at(second);
        let row = &values[usize::try_from(second).unwrap_or(0) % values.len()];
        // A poll of an asset is one response, as from a device.
        for asset in 0..ASSETS {
            let tags = asset * TAGS_PER_ASSET..(asset + 1) * TAGS_PER_ASSET;
            let readings = tags
                .map(|tag| RawReading {
                    tag: keys[tag],
                    source_time: None,
                    arrived: now.utc,
                    value: RawValue::Number(row[tag]),
                    retained: false,
                })
                .collect();
            let source = source.clone();
            let batch = RawBatch { source, readings, extras: None, ack: None, historical: false };
            engine.turn(now, Input::Readings(batch));
        }
        engine.turn_deadlines(now);
        while let Some(batch) = engine.take_readings() {
            ring.append(&batch.readings);
        }
        if engine.must_commit() || second % COMMIT_SECONDS == 0 {
            engine.commit(now).expect("the state commits");
        }
        if second % COMMIT_SECONDS == 0 {
            ring.advance(now.mono);
            ring.commit().expect("the ring commits");
        }
    }
    began.elapsed().as_secs_f64()
}

/// Seconds for the same readings as rows, under the same commit rule.
#[expect(clippy::disallowed_methods, reason = "the baseline is not our store")]
fn row_per_reading(seconds: u64) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut table =
        rusqlite::Connection::open(dir.path().join("rows.db")).expect("the baseline opens");
    table
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE readings (tag INTEGER, time INTEGER, value REAL, quality INTEGER);
             CREATE INDEX by_tag ON readings (tag, time);",
        )
        .expect("the baseline has a table");
    let values = values();
    let began = Instant::now();
    for first in (1..=seconds).step_by(usize::try_from(COMMIT_SECONDS).unwrap_or(5)) {
        let step = table.transaction().expect("the baseline begins");
        for second in first..first + COMMIT_SECONDS {
            let row = &values[usize::try_from(second).unwrap_or(0) % values.len()];
            for (tag, value) in (0_i64..).zip(row) {
                step.prepare_cached("INSERT INTO readings VALUES (?1, ?2, ?3, 0)")
                    .and_then(|mut insert| {
                        insert.execute((tag, i64::try_from(second).unwrap_or(0), value))
                    })
                    .expect("the baseline takes a row");
            }
        }
        step.commit().expect("the baseline commits");
    }
    began.elapsed().as_secs_f64()
}
