//! What becomes of values on their way through acquisition, one test a row of what devices do.

use std::time::Duration;

use proptest::prelude::*;

use crate::agents::acquisition::Acquisition;
use crate::agents::{Acquire, IdSource, Outbox, Saved, Stage};
use crate::domain::ids::{Arrival, AssetId, SourceId, TagId, TagKey, TagPath};
use crate::domain::reading::{
    Extras, Quality, RawBatch, RawReading, RawText, RawValue, RawWaveform, Reading, Reason,
};
use crate::domain::record::{Record, RecordKind};
use crate::domain::tag::{Form, Handling, Limits, Plant, Tag};
use crate::domain::text::{self, KnownText};
use crate::domain::time::{Now, Timestamp};

fn tag(change: impl FnOnce(&mut Tag)) -> Plant {
    let mut tag = Tag {
        key: TagKey(0),
        path: TagPath { asset: AssetId::new("P-1").unwrap(), tag: TagId::new("t").unwrap() },
        source: SourceId::new("plc").unwrap(),
        unit: String::new(),
        quantity: String::new(),
        scale: 1.0,
        offset: 0.0,
        range: None,
        invalid: Vec::new(),
        limits: Limits::default(),
        period: None,
        discrete: false,
        handling: Handling::default(),
    };
    change(&mut tag);
    Plant::new([], [tag])
}

fn now(seconds: u64) -> Now {
    let utc = Timestamp::from_micros(i64::try_from(seconds).unwrap() * 1_000_000);
    Now { mono: Duration::from_secs(seconds), utc, trusted: true }
}

fn batch(readings: Vec<RawReading>, extras: Option<Extras>) -> RawBatch {
    let source = SourceId::new("plc").unwrap();
    let extras = extras.map(Box::new);
    RawBatch { source, readings, extras, ack: None, historical: false }
}

fn number(seconds: u64, value: f64) -> RawReading {
    let (value, arrived) = (RawValue::Number(value), now(seconds).utc);
    RawReading { tag: TagKey(0), source_time: None, arrived, value, retained: false }
}

fn judge(stage: &mut Acquisition, seconds: u64, value: f64) -> Reading {
    let mut readings = Vec::new();
    stage.judge(now(seconds), &batch(vec![number(seconds, value)], None), &mut readings);
    readings[0]
}

fn say(stage: &mut Acquisition, seconds: u64, said: &str) -> (Reading, Vec<Record>) {
    let arrived = now(seconds).utc;
    let text =
        RawText { tag: TagKey(0), source_time: None, arrived, text: said.into(), retained: false };
    let extras = Extras { texts: vec![text], waveforms: Vec::new() };
    let mut readings = Vec::new();
    stage.judge(now(seconds), &batch(Vec::new(), Some(extras)), &mut readings);
    (readings[0], records(stage, seconds, &readings))
}

fn records(stage: &mut Acquisition, seconds: u64, readings: &[Reading]) -> Vec<Record> {
    let mut ids = IdSource::new(1);
    let mut out = Outbox::new(now(seconds), &mut ids, None);
    stage.on_readings(now(seconds), readings, false, &mut out).unwrap();
    out.records
}

#[test]
fn row16_a_listed_state_has_its_name_and_an_unlisted_one_stays_a_good_number() {
    let plant = tag(|tag| {
        tag.handling.states = vec![(-1, "unknown".to_owned()), (0, "stopped".to_owned())];
    });
    let mut stage = Acquisition::for_plant(&plant);
    let handling = &plant.tag(TagKey(0)).unwrap().handling;
    for (at, value, name) in [(1, 0.0, Some("stopped")), (2, -1.0, Some("unknown")), (3, 7.0, None)]
    {
        let reading = judge(&mut stage, at, value);
        assert_eq!((reading.value, reading.quality), (value, Quality::Good));
        assert_eq!(handling.state(reading.value), name);
    }
    assert_eq!(handling.state(0.5), None);
    assert_eq!(handling.state(f64::NAN), None);
}

#[test]
fn row23_row24_value_is_raw_times_scale_plus_offset() {
    let plant = tag(|tag| (tag.scale, tag.offset) = (0.01, -273.15));
    let reading = judge(&mut Acquisition::for_plant(&plant), 1, 29_815.0);
    assert!((reading.value - 25.0).abs() < 1e-9);
}

proptest! {
    #[test]
    fn row25_rounding_never_changes_what_the_range_says(
        raw in -1.0e6..1.0e6_f64, low in -1.0e6..1.0e6_f64, width in 0.001..1.0e6_f64,
        decimals in 0..6_u8,
    ) {
        let rounded = tag(|tag| {
            tag.range = Some((low, low + width));
            tag.handling.decimals = Some(decimals);
        });
        let exact = tag(|tag| tag.range = Some((low, low + width)));
        let with = judge(&mut Acquisition::for_plant(&rounded), 1, raw);
        let without = judge(&mut Acquisition::for_plant(&exact), 1, raw);
        prop_assert_eq!(with.quality, without.quality);
        let step = 10.0_f64.powi(-i32::from(decimals));
        prop_assert!((with.value - raw).abs() <= step / 2.0 + 1e-9);
    }

    #[test]
    fn c16_no_float_that_is_none_and_no_sentinel_is_good(bits in any::<u32>(), pick in 0..4_u8) {
        // Every class: quiet and signalling NaN, infinities, subnormals, zeros, numbers.
        let bits = match pick {
            0 => bits | 0x7f80_0000,
            1 => bits & 0x807f_ffff,
            2 => [0x7fc0_0000, 0x7f80_0000, 0xff80_0000, 0x8000_0000][bits as usize % 4],
            _ => bits,
        };
        let value = f32::from_bits(bits);
        let plant = tag(|tag| tag.invalid = vec![-9999.9, -32_768.0]);
        let mut stage = Acquisition::for_plant(&plant);
        let reading = judge(&mut stage, 1, f64::from(value));
        prop_assert_eq!(reading.quality.is_good(), value.is_finite());
        prop_assert_eq!(reading.value.is_nan(), !value.is_finite());
        for (second, sentinel) in [f64::from(-9999.9_f32), -9999.9, -32_768.0].into_iter().enumerate() {
            let reading = judge(&mut stage, 2 + second as u64, sentinel);
            prop_assert_eq!(reading.quality, Quality::Bad(Reason::Sentinel));
            prop_assert!(reading.value.is_nan());
        }
    }

    /// Swapped words carry the noise of the lowest digits in sign and exponent. A range that leaves
    /// zero out catches them; what swapped words give near zero, a range with zero in it cannot.
    #[test]
    fn c15_swapped_words_are_flagged_within_three_readings(
        truth in 40.0..80.0_f32, noise in proptest::array::uniform3(-0.5..0.5_f32),
    ) {
        use crate::config::{ByteOrder, PointType};
        use crate::sources::decode;
        let plant = tag(|tag| tag.range = Some((5.0, 200.0)));
        let mut stage = Acquisition::for_plant(&plant);
        let mut flagged = 0;
        for (second, noise) in noise.into_iter().enumerate() {
            let [a, b, c, d] = (truth + noise).to_be_bytes();
            let wire = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
            let right = decode::registers(PointType::F32, ByteOrder::Abcd, &wire).unwrap();
            prop_assert!(judge(&mut stage, 100 + second as u64, right).quality.is_good());
            let wrong = decode::registers(PointType::F32, ByteOrder::Cdab, &wire).unwrap();
            flagged += u32::from(!judge(&mut stage, second as u64, wrong).quality.is_good());
        }
        prop_assert!(flagged > 0);
    }
}

#[test]
fn row26_row27_sentinels_are_raw_and_ranges_are_in_the_unit() {
    let plant = tag(|tag| {
        (tag.scale, tag.range) = (0.1, Some((0.0, 100.0)));
        tag.invalid = vec![65_535.0, 500.0];
    });
    let mut stage = Acquisition::for_plant(&plant);
    for (at, (raw, quality)) in (1..).zip([
        (65_535.0, Quality::Bad(Reason::Sentinel)),
        (500.0, Quality::Bad(Reason::Sentinel)),
        (5_000.0, Quality::Bad(Reason::Range)),
        (1_000.0, Quality::Good),
        (-1.0, Quality::Bad(Reason::Range)),
    ]) {
        assert_eq!(judge(&mut stage, at, raw).quality, quality, "{raw}");
    }
}

#[test]
fn c18_a_counter_tag_reads_its_total_and_remembers_it_over_a_restart() {
    let plant = tag(|tag| {
        tag.handling.counter = Some(1 << 16);
        (tag.scale, tag.invalid) = (0.5, vec![65_535.0]);
    });
    let mut stage = Acquisition::for_plant(&plant);
    assert!((judge(&mut stage, 1, 65_530.0).value - 32_765.0).abs() < 1e-9);
    assert_eq!(judge(&mut stage, 2, 65_535.0).quality, Quality::Bad(Reason::Sentinel));
    let wrapped = judge(&mut stage, 3, 10.0);
    assert!((wrapped.value - 0.5 * 65_546.0).abs() < 1e-9);
    let saved = records(&mut stage, 3, &[wrapped]);
    assert_eq!(saved.len(), 1);
    assert!((judge(&mut stage, 4, 40.0).value - 0.5 * 65_576.0).abs() < 1e-9);

    // After a crash: the record of the wrap, and what the ring holds of later readings.
    let mut again = Acquisition::for_plant(&plant);
    again.restore(now(5), Saved { records: &saved, snapshot: None }).unwrap();
    let later = Reading {
        tag: TagKey(0),
        arrival: Arrival(9),
        time: now(4).utc,
        value: 0.5 * 65_576.0,
        quality: Quality::Good,
    };
    records(&mut again, 5, &[later]);
    // The device was reset meanwhile: what it shows was counted since.
    assert!((judge(&mut again, 6, 7.0).value - 0.5 * 65_583.0).abs() < 1e-9);

    // After a clean stop: the snapshot.
    let snapshot = stage.snapshot().unwrap();
    let mut clean = Acquisition::for_plant(&plant);
    clean.restore(now(5), Saved { records: &[], snapshot: Some(&snapshot) }).unwrap();
    assert!((judge(&mut clean, 6, 41.0).value - 0.5 * 65_577.0).abs() < 1e-9);
}

#[test]
fn a_text_is_written_once_and_means_the_same_after_a_restart() {
    let plant = tag(|tag| tag.handling.form = Form::Text);
    let mut stage = Acquisition::for_plant(&plant);
    let (first, written) = say(&mut stage, 1, "running");
    assert_eq!((first.quality, written.len()), (Quality::Good, 1));
    assert_eq!(written[0].kind, RecordKind::Text);
    let known: KnownText = written[0].read().unwrap();
    assert_eq!((known.text.as_str(), known.number), ("running", text::number("running")));
    let (same, again) = say(&mut stage, 2, "running");
    assert_eq!((same.value, again.len()), (first.value, 0));

    let mut later = Acquisition::for_plant(&plant);
    later.restore(now(3), Saved { records: &written, snapshot: None }).unwrap();
    let (after, again) = say(&mut later, 4, "running");
    assert_eq!((after.value, again.len()), (first.value, 0));
    let long = "x".repeat(400);
    let (_, written) = say(&mut later, 5, &long);
    assert_eq!(written[0].read::<KnownText>().unwrap().text.len(), text::TEXT_BYTES_MAX);
}

#[test]
fn texts_without_end_are_bounded_and_make_room_after_a_day() {
    let plant = tag(|tag| tag.handling.form = Form::Text);
    let mut stage = Acquisition::for_plant(&plant);
    let most = super::texts::TEXTS_MAX as u64;
    for number in 0..most {
        assert_eq!(say(&mut stage, number, &format!("text {number}")).0.quality, Quality::Good);
    }
    let (refused, written) = say(&mut stage, most, "one too many");
    assert_eq!(refused.quality, Quality::Uncertain(Reason::Config));
    assert_eq!((refused.value, written.len()), (text::number("one too many") as f64, 0));
    let day = 86_400 + most;
    let (kept, written) = say(&mut stage, day, "a new one");
    assert_eq!(kept.quality, Quality::Good);
    let (gone, new) = (&written[0], &written[1]);
    assert_eq!((gone.open, gone.read::<KnownText>().unwrap().text.as_str()), (false, "text 0"));
    assert!(new.open);
}

#[test]
fn a_burst_is_one_reading_its_rms_and_samples_in_the_unit() {
    let plant = tag(|tag| {
        tag.handling.form = Form::Waveform { rate_hz: Some(1000.0) };
        (tag.scale, tag.offset, tag.invalid) = (0.5, 10.0, vec![-32_768.0]);
        tag.range = Some((0.0, 5.0));
    });
    let mut stage = Acquisition::for_plant(&plant);
    let mut burst = |seconds: u64, samples: &[f32]| {
        let arrived = now(seconds).utc;
        let samples = samples.into();
        let raw =
            RawWaveform { tag: TagKey(0), source_time: None, arrived, samples, retained: false };
        let extras = Extras { texts: Vec::new(), waveforms: vec![raw] };
        let mut readings = Vec::new();
        stage.judge(now(seconds), &batch(Vec::new(), Some(extras)), &mut readings);
        (readings[0], stage.take_bursts())
    };
    let (reading, bursts) = burst(1, &[-2.0, 2.0, -2.0, 2.0]);
    assert_eq!((reading.value, reading.quality), (1.0, Quality::Good));
    assert_eq!(*bursts[0].samples, [9.0, 11.0, 9.0, 11.0]);
    assert_eq!((bursts[0].rate_hz, bursts[0].time), (Some(1000.0), reading.time));
    assert_eq!(burst(2, &[-60.0, 60.0]).0.quality, Quality::Bad(Reason::Range));
    assert_eq!(burst(3, &[1.0, -32_768.0]).0.quality, Quality::Bad(Reason::Sentinel));
    assert_eq!(burst(4, &[1.0, f32::NAN]).0.quality, Quality::Bad(Reason::Nan));
    let (empty, bursts) = burst(5, &[]);
    assert_eq!((empty.quality, bursts.len()), (Quality::Bad(Reason::Config), 0));
}
