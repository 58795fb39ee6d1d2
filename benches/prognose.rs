//! What one more row of a unit costs: features, trees and band, beside the trees alone.
//!
//! `cargo bench --bench prognose`; a fleet of 60 units with 14 columns, about 9,000 rows.

use divan::Bencher;
use divan::counter::ItemsCount;
use wheeltap::analytics::prognosis::{Follower, Learning, Model, Unit, learn};

fn main() {
    divan::main();
}

const COLUMNS: usize = 14;

fn unit(seed: u64) -> Unit {
    let mut random = fastrand::Rng::with_seed(seed);
    let life = 130 + random.usize(0..70);
    let mut unit = Unit::default();
    for at in 0..life {
        unit.times.push(at as f64);
        let wear = (1.0 - (life - 1 - at) as f64 / 110.0).max(0.0).powi(2);
        for column in 0..COLUMNS {
            unit.values.push(column as f64 * wear + random.f64() + random.f64());
        }
    }
    unit
}

fn columns() -> Vec<String> {
    (0..COLUMNS).map(|column| format!("c{column}")).collect()
}

fn fleet() -> Vec<Unit> {
    (0..60).map(unit).collect()
}

fn model() -> Model {
    learn(&columns(), &fleet(), Learning { seed: 1 }).0
}

/// Six fits: the model and the five its bands come from.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn training(bencher: Bencher) {
    let (columns, fleet) = (columns(), fleet());
    bencher.bench_local(|| learn(&columns, &fleet, Learning { seed: 1 }));
}

#[divan::bench]
fn row_and_answer(bencher: Bencher) {
    let model = model();
    let unit = unit(1000);
    bencher.counter(ItemsCount::new(100_u32)).bench_local(|| {
        let mut follower = Follower::new(&model);
        let mut sum = 0.0;
        for at in 0..100 {
            follower.push(unit.times[at], &unit.values[at * COLUMNS..(at + 1) * COLUMNS]);
            sum += follower.answer().map_or(0.0, |answer| answer.p50);
        }
        sum
    });
}

#[divan::bench]
fn contributions(bencher: Bencher) {
    let model = model();
    let unit = unit(1000);
    let mut follower = Follower::new(&model);
    for at in 0..100 {
        follower.push(unit.times[at], &unit.values[at * COLUMNS..(at + 1) * COLUMNS]);
    }
    bencher.bench_local(|| follower.contributions());
}
