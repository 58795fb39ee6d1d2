//! What a forecast costs, from readings to bands and paths, printed beside its target; then divan's
//! table by length.
//!
//! `cargo bench --bench forecast` takes made-up windows of the lengths that matter. With
//! `FORECAST_WINDOWS=DIR` (a folder with `windows.json` and `SERIES.csv` as `tests/scores` reads
//! them) those are timed as well.

use std::f64::consts::TAU;
use std::fs;
use std::path::Path;
use std::time::Instant;

use divan::Bencher;
use wheeltap::analytics::forecast::{Regular, forecast};

/// Median of one window.
const TARGET_MS: f64 = 5.0;
/// Times each window is forecast; the fastest counts, as the machine has other work too.
const ROUNDS: usize = 5;
const LEVELS: [f64; 2] = [80.0, 95.0];

struct Window {
    name: String,
    times: Vec<f64>,
    values: Vec<f64>,
    horizon: usize,
}

fn main() {
    report("made-up windows", &made_up());
    if let Ok(folder) = std::env::var("FORECAST_WINDOWS") {
        report(&folder, &read(Path::new(&folder)));
    }
    divan::main();
}

fn report(title: &str, windows: &[Window]) {
    let mut times: Vec<(f64, &str)> =
        windows.iter().map(|window| (fastest_ms(window), window.name.as_str())).collect();
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    let median = times[times.len() / 2].0;
    let (slowest, name) = times[times.len() - 1];
    println!(
        "{title}: {} windows, median {median:.2} ms (target {TARGET_MS} ms), slowest {slowest:.2} ms ({name})",
        times.len()
    );
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn fastest_ms(window: &Window) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            divan::black_box(run(window));
            began.elapsed().as_secs_f64() * 1e3
        })
        .fold(f64::INFINITY, f64::min)
}

fn run(window: &Window) -> usize {
    let series = Regular::from_readings(&window.times, &window.values).expect("a usable series");
    let found = forecast(&series, window.horizon, &LEVELS).expect("a forecast");
    found.paths.count()
}

/// A day and a week with a wandering level and noise.
fn made(points: usize, step: f64, horizon: usize) -> Window {
    let mut random = fastrand::Rng::with_seed(points as u64);
    let mut level = 0.0;
    let times: Vec<f64> = (0..points).map(|at| at as f64 * step).collect();
    let values = times
        .iter()
        .map(|time| {
            level += random.f64() - 0.5;
            20.0 + level
                + 10.0 * (TAU * time / 86_400.0).sin()
                + 3.0 * (TAU * time / 604_800.0).cos()
                + random.f64()
        })
        .collect();
    Window { name: format!("{points} points, {horizon} steps"), times, values, horizon }
}

fn made_up() -> Vec<Window> {
    vec![
        made(700, 3600.0, 48),
        made(960, 3600.0, 48),
        made(1440, 3600.0, 48),
        made(1440, 1800.0, 96),
        made(1440, 900.0, 96),
        made(4096, 300.0, 144),
    ]
}

fn read(folder: &Path) -> Vec<Window> {
    let text = fs::read_to_string(folder.join("windows.json")).expect("windows.json is there");
    let windows: serde_json::Value = serde_json::from_str(&text).expect("windows.json is JSON");
    windows
        .as_array()
        .expect("a list of windows")
        .iter()
        .map(|window| {
            let number = |key: &str| {
                let number = window[key].as_u64().and_then(|number| usize::try_from(number).ok());
                number.expect("windows.json holds numbers")
            };
            let name = |key: &str| window[key].as_str().unwrap_or_default().to_owned();
            let csv = folder.join(format!("{}.csv", name("series")));
            let text = fs::read_to_string(&csv).expect("the series is there");
            let rows = text.lines().skip(1 + number("start")).take(number("n"));
            let cells = rows.map(|row| row.split_once(',').expect("two cells"));
            let (times, values) = cells
                .map(|(time, value)| {
                    (time.parse::<f64>().expect("a time"), value.parse::<f64>().expect("a value"))
                })
                .unzip();
            Window { name: name("id"), times, values, horizon: number("h") }
        })
        .collect()
}

#[divan::bench(args = [700, 1440, 4096])]
fn hourly(bencher: Bencher<'_, '_>, points: usize) {
    let window = made(points, 3600.0, 48);
    bencher.bench(|| run(&window));
}
