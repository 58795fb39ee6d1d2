//! What a reading costs on its way through acquisition and detection, beside the simplest thing
//! that would call itself a detector: a running mean and deviation per tag, looked up by name.
//!
//! `cargo bench --bench hot_path`; one iteration is one second of a plant, `items` are readings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use divan::counter::ItemsCount;
use wheeltap::agents::acquisition::Acquisition;
use wheeltap::agents::detection::{Detection, Learn};
use wheeltap::agents::{Acquire, IdSource, Outbox, Stage};
use wheeltap::domain::ids::{Arrival, AssetId, SourceId, TagId, TagKey, TagPath};
use wheeltap::domain::reading::{Quality, RawBatch, RawReading, RawValue, Reading};
use wheeltap::domain::tag::{Limits, Plant, Tag};
use wheeltap::domain::time::{Now, Timestamp};

fn main() {
    divan::main();
}

/// Seconds the detectors learn before anything is measured.
const LEARN: u32 = 600;

fn plant(assets: u32, columns: u32) -> Arc<Plant> {
    let tags = (0..assets * columns).map(|key| Tag {
        key: TagKey(key),
        path: TagPath {
            asset: AssetId::new(&format!("A-{}", key / columns)).expect("an identifier"),
            tag: TagId::new(&format!("t{}", key % columns)).expect("an identifier"),
        },
        source: SourceId::new("plc").expect("an identifier"),
        unit: "bar".to_owned(),
        quantity: String::new(),
        scale: 0.01,
        offset: 3.0,
        range: Some((-1e6, 1e6)),
        invalid: vec![65535.0],
        limits: Limits { high: Some(1e5), ..Limits::default() },
        period: Some(Duration::from_secs(1)),
        discrete: false,
        handling: wheeltap::domain::tag::Handling::default(),
    });
    Arc::new(Plant::new([], tags))
}

/// A plant whose seconds can be asked for one after the other.
struct Source {
    random: fastrand::Rng,
    keys: u32,
    second: i64,
}

impl Source {
    fn new(keys: u32) -> Self {
        Self { random: fastrand::Rng::with_seed(1), keys, second: 0 }
    }

    fn next(&mut self) -> (Now, RawBatch) {
        self.second += 1;
        let utc = Timestamp::from_micros(1_767_225_600_000_000 + self.second * 1_000_000);
        let mono = Duration::from_secs(self.second.unsigned_abs());
        let readings = (0..self.keys)
            .map(|key| RawReading {
                tag: TagKey(key),
                source_time: None,
                arrived: utc,
                value: RawValue::Number(1000.0 + self.random.f64() + self.random.f64()),
                retained: false,
            })
            .collect();
        let source = SourceId::new("plc").expect("an identifier");
        let batch = RawBatch { source, readings, extras: None, ack: None, historical: false };
        (Now { mono, utc, trusted: true }, batch)
    }
}

/// Both stages, having learnt.
fn learnt(assets: u32, columns: u32) -> (Acquisition, Detection, Source, IdSource) {
    let plant = plant(assets, columns);
    let mut acquisition = Acquisition::for_plant(&plant);
    let mut detection = Detection::for_plant(plant, Learn::Seconds(f64::from(LEARN - 100)));
    let mut source = Source::new(assets * columns);
    let mut ids = IdSource::new(1);
    let mut readings = Vec::new();
    for _ in 0..LEARN {
        let (now, batch) = source.next();
        readings.clear();
        acquisition.judge(now, &batch, &mut readings);
        let mut out = Outbox::new(now, &mut ids, None);
        detection.on_readings(now, &readings, false, &mut out).expect("detection digests it");
    }
    (acquisition, detection, source, ids)
}

/// Assets × tags of each.
const PLANTS: [(u32, u32); 3] = [(1000, 1), (125, 8), (16, 64)];

#[divan::bench(args = PLANTS)]
fn acquisition_and_detection(bencher: divan::Bencher<'_, '_>, (assets, columns): (u32, u32)) {
    let (mut acquisition, mut detection, mut source, mut ids) = learnt(assets, columns);
    let mut readings: Vec<Reading> = Vec::new();
    bencher
        .counter(ItemsCount::new(assets * columns))
        .with_inputs(|| source.next())
        .bench_local_values(|(now, batch)| {
            readings.clear();
            acquisition.judge(now, &batch, &mut readings);
            let mut out = Outbox::new(now, &mut ids, None);
            detection.on_readings(now, &readings, false, &mut out).expect("detection digests it");
            out.events.len()
        });
}

#[divan::bench(args = PLANTS)]
fn acquisition_alone(bencher: divan::Bencher<'_, '_>, (assets, columns): (u32, u32)) {
    let mut acquisition = Acquisition::for_plant(&plant(assets, columns));
    let mut source = Source::new(assets * columns);
    let mut readings: Vec<Reading> = Vec::new();
    bencher
        .counter(ItemsCount::new(assets * columns))
        .with_inputs(|| source.next())
        .bench_local_values(|(now, batch)| {
            readings.clear();
            acquisition.judge(now, &batch, &mut readings);
            readings.len()
        });
}

/// The baseline: `asset/tag` made for each reading, a map from it to count, mean and squares, and
/// an anomaly beyond three deviations.
#[divan::bench(args = PLANTS)]
fn baseline_mean_per_name(bencher: divan::Bencher<'_, '_>, (assets, columns): (u32, u32)) {
    let plant = plant(assets, columns);
    let mut source = Source::new(assets * columns);
    let mut known: HashMap<String, (f64, f64, f64)> = HashMap::new();
    bencher
        .counter(ItemsCount::new(assets * columns))
        .with_inputs(|| {
            let (_, batch) = source.next();
            let reading = |raw: &RawReading| Reading {
                tag: raw.tag,
                arrival: Arrival(0),
                time: raw.arrived,
                value: match raw.value {
                    RawValue::Number(value) | RawValue::Scaled(value, _) => value,
                    RawValue::Failed(_) => f64::NAN,
                },
                quality: Quality::Good,
            };
            batch.readings.iter().map(reading).collect::<Vec<_>>()
        })
        .bench_local_values(|readings| {
            let mut found = 0_u32;
            for reading in &readings {
                let name = plant.tag(reading.tag).expect("declared").path.to_string();
                let (count, mean, squares) = known.entry(name).or_default();
                *count += 1.0;
                let gap = reading.value - *mean;
                *mean += gap / *count;
                *squares += gap * (reading.value - *mean);
                found += u32::from(gap.abs() > 3.0 * (*squares / *count).sqrt());
            }
            found
        });
}
