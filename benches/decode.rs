//! What a response costs from the bytes to raw values, each beside what one would otherwise write.

use wheeltap::config::{ByteOrder, Point, PointType, Table};
use wheeltap::domain::ids::TagKey;
use wheeltap::domain::reading::{RawReading, RawValue, Reason};
use wheeltap::domain::time::Timestamp;
use wheeltap::sources::decode;
use wheeltap::sources::payload::{self, Format, Found, JsonPlan, Pointer};

fn main() {
    divan::main();
}

/// The points and registers of a full answer: 62 single-precision values in 124 registers.
fn answer() -> (Vec<(TagKey, Point)>, Vec<u16>) {
    let points = (0..62)
        .map(|value: u16| {
            let point = Point {
                unit: 1,
                table: Table::Holding,
                address: 100 + 2 * value,
                kind: PointType::F32,
                order: ByteOrder::Cdab,
            };
            (TagKey(u32::from(value)), point)
        })
        .collect();
    let words = (0..62_u16)
        .flat_map(|value| {
            let [a, b, c, d] = (f32::from(value) * 1.1).to_be_bytes();
            [u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b])]
        })
        .collect();
    (points, words)
}

fn reading(tag: TagKey, value: RawValue) -> RawReading {
    let arrived = Timestamp::from_micros(1_800_000_000_000_000);
    RawReading { tag, source_time: None, arrived, value, retained: false }
}

#[divan::bench]
fn registers_f32_ours(bencher: divan::Bencher<'_, '_>) {
    let (points, words) = answer();
    bencher.counter(divan::counter::ItemsCount::new(points.len())).bench(|| {
        points
            .iter()
            .map(|(tag, point)| reading(*tag, decode::point(point, 100, divan::black_box(&words))))
            .collect::<Vec<_>>()
    });
}

/// The usual way: the bytes of each value are collected, put in order and parsed.
#[divan::bench]
fn registers_f32_baseline_bytes_per_value(bencher: divan::Bencher<'_, '_>) {
    let (points, words) = answer();
    bencher.counter(divan::counter::ItemsCount::new(points.len())).bench(|| {
        points
            .iter()
            .map(|(tag, point)| {
                let start = usize::from(point.address - 100);
                let mut pairs: Vec<[u8; 2]> = divan::black_box(&words)[start..start + 2]
                    .iter()
                    .map(|word| word.to_be_bytes())
                    .collect();
                pairs.reverse();
                let bytes: Vec<u8> = pairs.concat();
                let value = bytes.try_into().map_or(RawValue::Failed(Reason::Config), |bytes| {
                    RawValue::Number(f64::from(f32::from_be_bytes(bytes)))
                });
                reading(*tag, value)
            })
            .collect::<Vec<_>>()
    });
}

/// What a vibration sensor sends: the value among its attributes.
const MESSAGE: &[u8] = br#"{"device":{"id":"vs-0815","fw":"2.4.1","battery":{"v":3.61,"pct":87}},
"ts":"2026-05-01T10:20:30.123Z","seq":18231,"values":{"rms":{"x":1.213,"y":0.874,"z":2.001},
"peak":{"x":4.1,"y":3.2,"z":7.7},"temperature":41.25},"tags":["line-3","pump","P-101"]}"#;

#[divan::bench]
fn json_ours(bencher: divan::Bencher<'_, '_>) {
    let pointer = Pointer::parse("/values/rms/z").expect("a pointer");
    let mut plan = JsonPlan::default();
    plan.add(&pointer, None);
    let (format, mut found) = (Format::Json(plan), Found::default());
    bencher.counter(divan::counter::BytesCount::new(MESSAGE.len())).bench_local(|| {
        let message = divan::black_box(MESSAGE);
        payload::decode(&format, message, payload::BYTES_MAX, &mut found)
    });
}

/// The usual way: the whole document as a tree, then the pointer.
#[divan::bench]
fn json_baseline_value_tree(bencher: divan::Bencher<'_, '_>) {
    bencher.counter(divan::counter::BytesCount::new(MESSAGE.len())).bench(|| {
        let tree: serde_json::Value = serde_json::from_slice(divan::black_box(MESSAGE)).ok()?;
        tree.pointer("/values/rms/z")?.as_f64()
    });
}
