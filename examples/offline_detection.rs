//! The library on a recording, without daemon, store or network: learn from the first part, then
//! print every departure with what speaks for it.
//!
//! ```sh
//! cargo run --example offline_detection                 # on a recording it makes itself
//! cargo run --example offline_detection -- run.csv 400  # a CSV, and how many rows to learn from
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use wheeltap::agents::acquisition::Acquisition;
use wheeltap::agents::detection::{Detection, Learn};
use wheeltap::agents::{Acquire, IdSource, Outbox, Stage};
use wheeltap::domain::event::Body;
use wheeltap::domain::ids::{AssetId, SourceId, TagId, TagKey, TagPath};
use wheeltap::domain::reading::{RawBatch, RawReading, RawValue, Reason};
use wheeltap::domain::tag::{Limits, Plant, Tag};
use wheeltap::domain::time::{Now, Timestamp};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (names, rows) = match arguments.first() {
        Some(path) => read(&std::fs::read_to_string(path)?)?,
        None => invented(),
    };
    let learn = arguments.get(1).map_or(Ok(400), |text| text.parse())?;

    // One asset, one tag a column, one reading a second.
    let asset = AssetId::new("P-101")?;
    let source = SourceId::new("recording")?;
    let mut tags = Vec::new();
    for (key, name) in (0..).zip(&names) {
        tags.push(Tag {
            key: TagKey(key),
            path: TagPath { asset: asset.clone(), tag: TagId::new(name)? },
            source: source.clone(),
            unit: String::new(),
            quantity: String::new(),
            scale: 1.0,
            offset: 0.0,
            range: None,
            invalid: Vec::new(),
            limits: Limits::default(),
            period: Some(Duration::from_secs(1)),
            discrete: false,
            handling: wheeltap::domain::tag::Handling::default(),
        });
    }
    let plant = Arc::new(Plant::new([], tags));

    // Two stages of the daemon, driven by hand: time is an input like any other.
    let mut acquisition = Acquisition::for_plant(&plant);
    let mut detection = Detection::for_plant(plant, Learn::Rows(learn));
    let (mut ids, mut readings) = (IdSource::new(1), Vec::new());
    for (second, row) in (0_u32..).zip(&rows) {
        let utc = Timestamp::from_micros(i64::from(second) * 1_000_000);
        let now = Now { mono: Duration::from_secs(second.into()), utc, trusted: true };
        let raw = |(key, value): (u32, &Option<f64>)| RawReading {
            tag: TagKey(key),
            source_time: None,
            arrived: utc,
            value: value.map_or(RawValue::Failed(Reason::Device), RawValue::Number),
            retained: false,
        };
        let values = (0..).zip(row).map(raw).collect();
        let batch = RawBatch {
            source: source.clone(),
            readings: values,
            extras: None,
            ack: None,
            historical: false,
        };
        readings.clear();
        acquisition.judge(now, &batch, &mut readings);
        let mut out = Outbox::new(now, &mut ids, None);
        detection.on_readings(now, &readings, false, &mut out)?;
        for event in out.events {
            tell(second, &event.body);
        }
    }
    Ok(())
}

/// One line for what happened, and three for why.
fn tell(second: u32, body: &Body) {
    if let Body::PhaseChanged { phase, .. } = body {
        println!("{second:>6} s  {phase:?}");
    } else if let Body::AnomalyDetected(anomaly) = body {
        let (fault, pattern) = (anomaly.fault, anomaly.pattern.as_str());
        let (score, severity) = (anomaly.score, anomaly.severity);
        println!("{second:>6} s  {fault:?} fault, {pattern}, score {score:.3}, {severity}");
        for e in &anomaly.evidence {
            let (tag, part) = (e.tag.as_str(), 100.0 * e.contribution);
            println!(
                "          {tag:<12} {:>9.3} instead of {:>9.3} ({:+.1} sigma, {part:.0} % of it)",
                e.value, e.expected, e.sigma
            );
        }
    } else if let Body::AnomalyEnded { .. } = body {
        println!("{second:>6} s  over");
    }
}

/// Names of the columns, and rows with their missing cells.
type Table = (Vec<String>, Vec<Vec<Option<f64>>>);

/// A pump in normal running; its flow sensor sticks for a while, then its bearing wears.
fn invented() -> Table {
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = move || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    let names = ["bearing_temp", "vibration", "pressure", "flow", "current"];
    let mut rows = Vec::new();
    for second in 0..1500 {
        let load = 0.3 * noise();
        let wear = (f64::from(second) - 1000.0).max(0.0) / 500.0;
        let flow = if (700..820).contains(&second) { 31.4 } else { 31.0 + load + 0.3 * noise() };
        rows.push(vec![
            Some(62.0 + 0.5 * noise() + 12.0 * wear * wear),
            Some(2.1 + 0.1 * noise() + 3.0 * wear),
            Some(4.2 - 0.2 * load + 0.05 * noise()),
            Some(flow),
            Some(7.5 + load + 0.1 * noise()),
        ]);
    }
    (names.map(str::to_owned).to_vec(), rows)
}

/// A header line, then numbers; an empty cell is a missing value. Columns of times are left out:
/// the rows count as one second apart.
fn read(text: &str) -> Result<Table, Box<dyn Error>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().ok_or("the file is empty")?.split(',').collect();
    let cells: Vec<Vec<&str>> =
        lines.map(|line| line.split(',').map(str::trim).collect()).collect();
    let is_time = |column: usize| {
        let mut times = cells.iter().filter_map(|row| row.get(column)).map(|cell| {
            Timestamp::parse_rfc3339(cell).is_some()
                || cell.parse::<jiff::civil::DateTime>().is_ok()
        });
        times.next().is_some_and(|first| first && times.all(|time| time))
    };
    let kept: Vec<usize> = (0..names.len()).filter(|column| !is_time(*column)).collect();
    let mut rows = Vec::new();
    for (line, row) in (2..).zip(&cells) {
        let cell = |column: &usize| match row.get(*column) {
            None => {
                Err(format!("line {line}: {} cells, the header has {}", row.len(), names.len()))
            }
            Some(&"") => Ok(None),
            Some(text) => {
                text.parse().map(Some).map_err(|_| format!("line {line}: `{text}` is no number"))
            }
        };
        rows.push(kept.iter().map(cell).collect::<Result<Vec<_>, _>>()?);
    }
    Ok((kept.into_iter().map(|column| names[column].trim().to_owned()).collect(), rows))
}
