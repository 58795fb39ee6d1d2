//! The first stage: raw values become readings, each with a quality and, when it is not good, the
//! reason. Nothing is thrown away but exact repeats; what later stages may use is marked good.
//!
//! Order of judgement, the first that applies counts: the source's own failure, not a number,
//! sentinel, implausible, kept by a broker, wrong device clock, too old, changed too fast, stuck.
//! Works on tables indexed
//! by [`TagKey`](crate::domain::ids::TagKey); a reading costs no allocation and no look-up by name.

mod bursts;
mod checks;
mod computed;
mod counters;
mod gaps;
#[cfg(test)]
mod points_tests;
mod texts;

use std::sync::Arc;
use std::time::Duration;

use checks::Checks;
use gaps::Gaps;

use self::computed::{Computed, Worked};
use self::counters::{Counter, Step};
use self::texts::Texts;
use super::{Acquire, Mark, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::event::Event;
use crate::domain::reading::{
    Burst, Extras, Quality, RawBatch, RawReading, RawText, RawValue, RawWaveform, Reading, Reason,
};
use crate::domain::record::{Record, RecordKind};
use crate::domain::tag::{Plant, Tag};
use crate::domain::time::{Now, Timestamp};

/// A device's time may run ahead of a trusted gateway clock by this much: field devices keep time
/// to seconds a week and are set by hand once a year.
const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);
/// A value that is older than this when it arrives (or than [`LATE_PERIODS`] periods, whichever is
/// longer) describes the past, not the present: a buffering gateway reconnects within minutes.
const LATE_MAX: Duration = Duration::from_secs(10 * 60);
/// See [`LATE_MAX`].
const LATE_PERIODS: u32 = 10;
/// Readings of a tag that are remembered to recognise repeats. Brokers send again what was in
/// flight, 20 messages by default.
const REPEATS: usize = 32;
/// Whole numbers below this are exact in an `f64`: 2⁵³.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// What a tag's readings are judged by.
#[derive(Debug, Clone)]
struct Rule {
    scale: f64,
    offset: f64,
    low: f64,
    high: f64,
    /// Sentinels, each also as a 32-bit float would bring it.
    invalid: Box<[f64]>,
    late: Duration,
    last: Option<(Timestamp, u64)>,
    /// Older readings than the last, only for tags that bring their own time.
    earlier: Option<Box<Repeats>>,
    /// Checks against the tag's past; none for tags that have none.
    checks: Option<Box<Checks>>,
    /// Place among the tags whose silence is told.
    gap: Option<usize>,
    decimals: Option<i32>,
    counter: Option<Counter>,
}

/// The newest readings of a tag by time and bits of the value, oldest overwritten.
#[derive(Debug, Clone)]
struct Repeats {
    seen: [(i64, u64); REPEATS],
    next: usize,
}

/// The acquisition stage.
#[derive(Debug)]
pub struct Acquisition {
    rules: Vec<Option<Rule>>,
    /// What is special about the readings judged last.
    marks: Vec<Mark>,
    gaps: Gaps,
    plant: Arc<Plant>,
    texts: Texts,
    /// Bursts of the batch judged last.
    bursts: Vec<Burst>,
    /// Counters that wrapped or were reset since the last call that could say so.
    turned: Vec<Record>,
    computed: Computed,
    /// Scratch of [`Acquire::judge`].
    worked: Vec<Worked>,
    /// The readings that come next are those just judged.
    just_judged: bool,
}

/// Leads the snapshot.
const SNAPSHOT_VERSION: u8 = 1;

impl Acquisition {
    /// A stage for this configuration.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        let computed =
            Computed::new(&setting.config.computed, &setting.plant, &Computed::default());
        Self { computed, ..Self::for_plant(&setting.plant) }
    }

    /// A stage for these tags, without a configuration (recordings).
    #[must_use]
    pub fn for_plant(plant: &Plant) -> Self {
        let plant = Arc::new(plant.clone());
        let gaps = Gaps::of(&plant, None);
        let rules = rules(&plant, &mut [], &gaps);
        Self {
            rules,
            marks: Vec::new(),
            gaps,
            plant,
            texts: Texts::default(),
            bursts: Vec::new(),
            turned: Vec::new(),
            computed: Computed::default(),
            worked: Vec::new(),
            just_judged: false,
        }
    }

    /// Texts and bursts as values that are judged like all others.
    fn extra(&mut self, now: Now, extras: &Extras) -> Vec<RawReading> {
        let mut found = Vec::with_capacity(extras.texts.len() + extras.waveforms.len());
        for raw in &extras.texts {
            let value = match self.plant.tag(raw.tag) {
                Some(tag) => {
                    let (number, quality) = self.texts.intern(now, tag, &raw.text);
                    RawValue::Scaled(number, quality)
                }
                None => RawValue::Failed(Reason::Config),
            };
            let RawText { tag, source_time, arrived, retained, .. } = *raw;
            found.push(RawReading { tag, source_time, arrived, value, retained });
        }
        for raw in &extras.waveforms {
            let rule = self.rules.get(raw.tag.0 as usize).and_then(Option::as_ref);
            let value = match self.plant.tag(raw.tag).zip(rule) {
                Some((tag, rule)) => {
                    let (rms, quality, burst) = bursts::judge(tag, raw, &rule.invalid);
                    self.bursts.extend(burst);
                    RawValue::Scaled(rms, quality)
                }
                None => RawValue::Failed(Reason::Config),
            };
            let RawWaveform { tag, source_time, arrived, retained, .. } = *raw;
            found.push(RawReading { tag, source_time, arrived, value, retained });
        }
        found
    }
}

/// The rules of a plant; what was seen of a tag is taken over from `old`.
fn rules(plant: &Plant, old: &mut [Option<Rule>], gaps: &Gaps) -> Vec<Option<Rule>> {
    let mut rules = vec![None; plant.key_bound()];
    for tag in plant.tags() {
        let index = tag.key.0 as usize;
        let mut invalid = tag.invalid.clone();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the rounding of the device is wanted"
        )]
        invalid.extend(tag.invalid.iter().map(|v| f64::from(*v as f32)));
        let (low, high) = tag.range.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
        let (last, earlier, counted, checks) =
            old.get_mut(index).and_then(Option::as_mut).map_or((None, None, None, None), |rule| {
                (rule.last, rule.earlier.take(), rule.counter, rule.checks.take())
            });
        let counter = tag.handling.counter.map(|modulus| {
            counted.filter(|counter| counter.modulus() == modulus).unwrap_or(Counter::new(modulus))
        });
        let late = tag.period.map_or(LATE_MAX, |period| LATE_MAX.max(period * LATE_PERIODS));
        rules[index] = Some(Rule {
            scale: tag.scale,
            offset: tag.offset,
            low,
            high,
            invalid: invalid.into(),
            late,
            last,
            earlier,
            checks: Checks::of(tag, checks),
            gap: gaps.place(tag.key),
            decimals: tag.handling.decimals.map(i32::from),
            counter,
        });
    }
    rules
}

impl Rule {
    /// What a counter's value means: the total over wraps and resets. Others stay as they are.
    fn counted(&mut self, raw: RawValue) -> (RawValue, Step) {
        let (Some(counter), RawValue::Number(number)) = (&mut self.counter, raw) else {
            return (raw, Step::Counted);
        };
        let sentinel = self.invalid.iter().any(|value| value.total_cmp(&number).is_eq());
        if sentinel || !number.is_finite() || number < 0.0 {
            return (raw, Step::Counted);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are whole and not negative"
        )]
        let step = counter.advance(number as u128);
        let value = counter.total() as f64 * self.scale + self.offset;
        (RawValue::Scaled(value, Quality::Good), step)
    }

    /// A value rounded for keeping, half away from zero; after the range was checked, so that
    /// rounding never makes a good value bad or a bad one good.
    fn rounded(&self, value: f64) -> f64 {
        let Some(decimals) = self.decimals else { return value };
        let power = 10.0_f64.powi(decimals);
        let rounded = (value * power).round() / power;
        if rounded.is_finite() { rounded } else { value }
    }

    /// Value and quality of what a source found, time left aside.
    fn value(&self, raw: RawValue) -> (f64, Quality) {
        let (value, told) = match raw {
            RawValue::Failed(reason) => return (f64::NAN, Quality::Bad(reason)),
            RawValue::Number(number) => {
                if !number.is_finite() {
                    return (f64::NAN, Quality::Bad(Reason::Nan));
                }
                let value = number * self.scale + self.offset;
                if self.invalid.iter().any(|sentinel| sentinel.total_cmp(&number).is_eq()) {
                    return (f64::NAN, Quality::Bad(Reason::Sentinel));
                }
                (value, Quality::Good)
            }
            RawValue::Scaled(value, told) => (value, told),
        };
        if !value.is_finite() {
            return match told {
                Quality::Bad(_) => (f64::NAN, told),
                Quality::Good | Quality::Uncertain(_) => (f64::NAN, Quality::Bad(Reason::Nan)),
            };
        }
        if matches!(told, Quality::Bad(_)) {
            return (value, told);
        }
        if value < self.low || value > self.high {
            return (value, Quality::Bad(Reason::Range));
        }
        (value, told)
    }

    /// What speaks against the time of an otherwise good value.
    fn age(&self, now: Now, raw: &RawReading, historical: bool) -> Quality {
        if raw.retained {
            return Quality::Uncertain(Reason::Retained);
        }
        let Some(time) = raw.source_time else { return Quality::Good };
        // An untrusted clock cannot tell that another one is wrong.
        if !now.trusted {
            return Quality::Good;
        }
        if time > raw.arrived.after(AHEAD_MAX) {
            return Quality::Bad(Reason::Clock);
        }
        if !historical && raw.arrived.since(time) > self.late {
            return Quality::Uncertain(Reason::Stale);
        }
        Quality::Good
    }

    /// Whether this very value was there before; remembers it otherwise. Only a value with the
    /// payload's own time can come twice, or one of the same instant.
    fn is_repeat(&mut self, time: Timestamp, bits: u64, own_time: bool) -> bool {
        if self.last == Some((time, bits)) {
            return true;
        }
        if own_time {
            let entry = (time.micros(), bits);
            // Allocated once per tag that brings its own time.
            let earlier = self.earlier.get_or_insert_with(|| {
                Box::new(Repeats { seen: [(i64::MIN, 0); REPEATS], next: 0 })
            });
            let newer = self.last.is_none_or(|(last, _)| time > last);
            if !newer && earlier.seen.contains(&entry) {
                return true;
            }
            earlier.seen[earlier.next] = entry;
            earlier.next = (earlier.next + 1) % REPEATS;
        }
        if self.last.is_none_or(|(last, _)| time >= last) {
            self.last = Some((time, bits));
        }
        false
    }
}

impl Acquire for Acquisition {
    fn judge(&mut self, now: Now, batch: &RawBatch, readings: &mut Vec<Reading>) {
        self.bursts.clear();
        self.marks.clear();
        let extra = batch.extras.as_ref().map_or(Vec::new(), |extras| self.extra(now, extras));
        let begin = readings.len();
        let mut next = begin;
        readings.reserve(batch.readings.len() + extra.len());
        for raw in batch.readings.iter().chain(&extra) {
            self.judge_one(now, raw, raw.source_time.is_some(), batch.historical, readings);
        }
        // What was computed may be what another tag is computed from: the list grows as it is read.
        while let Some(reading) = readings.get(next) {
            self.computed.take(reading, &mut self.worked);
            let own = self.marks.get(next - begin).is_some_and(|mark| mark.own_time);
            let mut worked = std::mem::take(&mut self.worked);
            for Worked { tag, time, value } in worked.drain(..) {
                let arrived = now.utc;
                let raw =
                    RawReading { tag, source_time: Some(time), arrived, value, retained: false };
                self.judge_one(now, &raw, own, batch.historical, readings);
            }
            self.worked = worked;
            next += 1;
        }
        self.just_judged = !readings.is_empty();
    }

    fn marks(&self) -> &[Mark] {
        &self.marks
    }

    fn take_bursts(&mut self) -> Vec<Burst> {
        std::mem::take(&mut self.bursts)
    }
}

impl Acquisition {
    fn judge_one(
        &mut self,
        now: Now,
        raw: &RawReading,
        own_time: bool,
        historical: bool,
        readings: &mut Vec<Reading>,
    ) {
        let time = raw.source_time.unwrap_or(raw.arrived);
        let rule = self.rules.get_mut(raw.tag.0 as usize).and_then(Option::as_mut);
        let Some(rule) = rule else {
            // The configuration lost the tag while the value was under way.
            let quality = Quality::Bad(Reason::Config);
            readings.push(reading(raw, time, f64::NAN, quality));
            self.marks.push(Mark { stored: true, own_time });
            return;
        };
        if let Some(place) = rule.gap {
            self.gaps.heard(place, now);
        }
        let (counted, step) = rule.counted(raw.value);
        if let (Step::Wrapped | Step::Reset, Some(counter)) = (step, &rule.counter) {
            self.turned.extend(self.plant.tag(raw.tag).map(|tag| turned(now, tag, counter)));
        }
        let (value, mut quality) = rule.value(counted);
        let value = rule.rounded(value);
        if quality.is_good() {
            quality = rule.age(now, raw, historical);
        }
        // All NaN are one value here; the quality tells failures apart.
        let bits = if value.is_nan() { u64::from(quality.to_byte()) } else { value.to_bits() };
        if rule.is_repeat(time, bits, raw.source_time.is_some()) {
            return;
        }
        let mut stored = true;
        if let Some(checks) = &mut rule.checks {
            if quality.is_good() {
                quality = checks.judge(value, time);
            }
            stored = checks.is_news(value, quality, time) || historical;
        }
        readings.push(reading(raw, time, value, quality));
        self.marks.push(Mark { stored, own_time });
    }

    /// Takes up a counter as it was saved.
    fn take_up_counter(&mut self, path: &str, saved: Counter) {
        let Some((asset, tag)) = path.split_once('/') else { return };
        let key = self.plant.find(asset, tag);
        let rule = key.and_then(|key| self.rules.get_mut(key.0 as usize).and_then(Option::as_mut));
        if let Some(own) = rule.and_then(|rule| rule.counter.as_mut()) {
            own.merge(saved);
        }
    }

    /// A reading that was stored after the counter's state was saved.
    fn catch_up(&mut self, reading: &Reading) {
        let rule = self.rules.get_mut(reading.tag.0 as usize).and_then(Option::as_mut);
        let Some(rule) = rule.filter(|_| reading.quality.is_good()) else { return };
        // A rounded total is not exact to the count.
        let (Some(counter), None) = (&mut rule.counter, rule.decimals) else { return };
        let total = ((reading.value - rule.offset) / rule.scale).round();
        if (0.0..EXACT_BELOW).contains(&total) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole, not negative, below 2^53"
            )]
            counter.catch_up(total as u128);
        }
    }
}

fn turned(now: Now, tag: &Tag, counter: &Counter) -> Record {
    Record::new(RecordKind::Counter, &tag.path, now.utc, counter).about(&tag.path.asset)
}

fn reading(raw: &RawReading, time: Timestamp, value: f64, quality: Quality) -> Reading {
    Reading { tag: raw.tag, arrival: crate::domain::ids::Arrival(0), time, value, quality }
}

impl Stage for Acquisition {
    fn name(&self) -> StageName {
        StageName::Acquisition
    }

    /// Takes up texts, counters and totals of computed tags. The store recognises older repeats.
    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        self.texts.restore(now, &self.plant, saved.of(RecordKind::Text));
        if let Some((&SNAPSHOT_VERSION, bytes)) = saved.snapshot.and_then(<[u8]>::split_first)
            && let Ok((kept, counters)) = postcard::from_bytes::<(_, Vec<(String, Counter)>)>(bytes)
        {
            self.computed.take_up(&kept);
            for (path, counter) in counters {
                self.take_up_counter(&path, counter);
            }
        }
        for record in saved.of(RecordKind::Counter) {
            if let Ok(counter) = record.read() {
                self.take_up_counter(&record.id, counter);
            }
        }
        Ok(())
    }

    /// Says which texts are new and which counters turned. Readings of the ring that are fed again
    /// after a restart move totals and counters on; live ones did so when they were judged.
    fn on_readings(
        &mut self,
        _now: Now,
        readings: &[Reading],
        _historical: bool,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        for record in self.texts.take_records().into_iter().chain(self.turned.drain(..)) {
            out.save(record);
        }
        if !std::mem::take(&mut self.just_judged) {
            for reading in readings {
                self.computed.take(reading, &mut self.worked);
                self.catch_up(reading);
            }
            self.worked.clear();
        }
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        let kept = self.computed.kept();
        let counter = |tag: &Arc<Tag>| {
            let rule = self.rules.get(tag.key.0 as usize).and_then(Option::as_ref);
            Some((tag.path.to_string(), rule?.counter?))
        };
        let counters: Vec<(String, Counter)> = self.plant.tags().filter_map(counter).collect();
        if kept.is_empty() && counters.is_empty() {
            return None;
        }
        let bytes = postcard::to_extend(&(kept, counters), vec![SNAPSHOT_VERSION]);
        Some(bytes.expect("numbers and texts can be written"))
    }

    fn on_event(&mut self, _: Now, _: &Event, _: &mut Outbox<'_>) -> Result<(), StageError> {
        Ok(())
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.gaps.next()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        self.gaps.look(now, out);
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.gaps = Gaps::of(&setting.plant, Some(&self.gaps));
        self.rules = rules(&setting.plant, &mut self.rules, &self.gaps);
        self.texts.configure(now, &self.plant, &setting.plant);
        self.plant = Arc::clone(&setting.plant);
        for record in self.texts.take_records() {
            out.save(record);
        }
        self.computed = Computed::new(&setting.config.computed, &setting.plant, &self.computed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{AssetId, SourceId, TagId, TagKey, TagPath};
    use crate::domain::tag::{Limits, Tag};

    fn tag() -> Tag {
        Tag {
            key: TagKey(3),
            path: TagPath { asset: AssetId::new("P-1").unwrap(), tag: TagId::new("t").unwrap() },
            source: SourceId::new("plc").unwrap(),
            unit: String::new(),
            quantity: String::new(),
            scale: 0.1,
            offset: -40.0,
            range: Some((-40.0, 200.0)),
            invalid: vec![65535.0, -9999.9],
            limits: Limits::default(),
            period: Some(Duration::from_secs(1)),
            discrete: false,
            handling: crate::domain::tag::Handling::default(),
        }
    }

    fn stage() -> Acquisition {
        Acquisition::for_plant(&Plant::new([], [tag()]))
    }

    fn now(seconds: i64) -> Now {
        Now {
            mono: Duration::ZERO,
            utc: Timestamp::from_micros(seconds * 1_000_000),
            trusted: true,
        }
    }

    fn raw(value: RawValue, at: i64, own: Option<i64>) -> RawReading {
        RawReading {
            tag: TagKey(3),
            source_time: own.map(|s| Timestamp::from_micros(s * 1_000_000)),
            arrived: Timestamp::from_micros(at * 1_000_000),
            value,
            retained: false,
        }
    }

    fn judged(stage: &mut Acquisition, now: Now, raws: Vec<RawReading>) -> Vec<Reading> {
        let source = SourceId::new("plc").unwrap();
        let batch = RawBatch { source, readings: raws, extras: None, ack: None, historical: false };
        let mut readings = Vec::new();
        stage.judge(now, &batch, &mut readings);
        readings
    }

    #[test]
    fn each_kind_of_value_gets_its_quality() {
        let bad = Quality::Bad;
        for (value, expected, quality) in [
            (RawValue::Number(500.0), 10.0, Quality::Good),
            (RawValue::Number(65535.0), f64::NAN, bad(Reason::Sentinel)),
            (RawValue::Number(f64::from(-9999.9_f32)), f64::NAN, bad(Reason::Sentinel)),
            (RawValue::Number(2401.0), 200.1, bad(Reason::Range)),
            (RawValue::Number(2400.0), 200.0, Quality::Good),
            (RawValue::Number(f64::NAN), f64::NAN, bad(Reason::Nan)),
            (RawValue::Number(f64::INFINITY), f64::NAN, bad(Reason::Nan)),
            (RawValue::Failed(Reason::Comm), f64::NAN, bad(Reason::Comm)),
            (RawValue::Scaled(500.0, Quality::Good), 500.0, bad(Reason::Range)),
            (RawValue::Scaled(65535.0, Quality::Good), 65535.0, bad(Reason::Range)),
            (
                RawValue::Scaled(50.0, Quality::Uncertain(Reason::Device)),
                50.0,
                Quality::Uncertain(Reason::Device),
            ),
            (RawValue::Scaled(f64::NAN, Quality::Good), f64::NAN, bad(Reason::Nan)),
        ] {
            let found = judged(&mut stage(), now(100), vec![raw(value, 100, None)]);
            assert_eq!(found[0].quality, quality, "{value:?}");
            let same = found[0].value.is_nan() && f64::is_nan(expected)
                || (found[0].value - expected).abs() < 1e-3;
            assert!(same, "{value:?}: {}", found[0].value);
        }
    }

    #[test]
    fn times_far_off_are_told_apart() {
        let quality = |own, retained, trusted| {
            let mut value = raw(RawValue::Number(500.0), 10_000, Some(own));
            value.retained = retained;
            judged(&mut stage(), Now { trusted, ..now(10_000) }, vec![value])[0].quality
        };
        assert_eq!(quality(9_990, false, true), Quality::Good);
        assert_eq!(quality(10_200, false, true), Quality::Good);
        assert_eq!(quality(10_400, false, true), Quality::Bad(Reason::Clock));
        assert_eq!(quality(9_000, false, true), Quality::Uncertain(Reason::Stale));
        assert_eq!(quality(9_000, true, true), Quality::Uncertain(Reason::Retained));
        assert_eq!(quality(99_000, false, false), Quality::Good, "our own clock is not trusted");
    }

    #[test]
    fn repeats_count_once_and_late_values_are_kept() {
        let mut stage = stage();
        let at = |own, value| raw(RawValue::Number(value), 1000, Some(own));
        let first = vec![at(900, 500.0), at(901, 501.0), at(902, 502.0)];
        assert_eq!(judged(&mut stage, now(1000), first.clone()).len(), 3);
        assert_eq!(judged(&mut stage, now(1000), first).len(), 0, "sent again by the broker");
        let other = vec![at(901, 601.0), at(899, 500.0), at(899, 500.0)];
        let kept = judged(&mut stage, now(1000), other);
        assert_eq!(kept.len(), 2, "another value, and a late one once");
        let polled = |at| raw(RawValue::Number(500.0), at, None);
        assert_eq!(judged(&mut stage, now(1000), vec![polled(1001), polled(1002)]).len(), 2);
        assert_eq!(judged(&mut stage, now(1000), vec![polled(1002)]).len(), 0);
    }

    #[test]
    fn a_tag_without_definition_is_kept_as_bad() {
        let mut value = raw(RawValue::Number(1.0), 5, None);
        value.tag = TagKey(77);
        let found = judged(&mut stage(), now(5), vec![value]);
        assert_eq!(found[0].quality, Quality::Bad(Reason::Config));
    }

    /// Every class of single-precision value, as devices send them.
    const CLASSES: [u32; 14] = [
        0x0000_0000, // 0
        0x8000_0000, // -0
        0x0000_0001, // least subnormal
        0x007f_ffff, // largest subnormal
        0x0080_0000, // least normal
        0x3f80_0000, // 1
        0x7f7f_ffff, // largest
        0xff7f_ffff, // largest negative
        0x7f80_0000, // infinity
        0xff80_0000, // -infinity
        0x7fc0_0000, // quiet NaN
        0xffc0_0000, // quiet NaN, negative
        0x7f80_0001, // signalling NaN
        0x7fbf_ffff, // signalling NaN
    ];

    proptest::proptest! {
        /// What is no number is bad, enters no statistic (they take good values alone), and JSON has
        /// null for it, whatever scale and offset make of it.
        #[test]
        fn c16_no_value_that_is_no_number_is_good_or_written_as_one(
            random: u32, scale in -1e30..1e30_f64, offset in -1e308..1e308_f64
        ) {
            let mut tag = tag();
            (tag.scale, tag.offset, tag.range) = (scale, offset, None);
            let mut stage = Acquisition::for_plant(&Plant::new([], [tag]));
            for (second, bits) in CLASSES.into_iter().chain([random]).enumerate() {
                let second = i64::try_from(second).unwrap();
                let number = f64::from(f32::from_bits(bits));
                let found = judged(
                    &mut stage,
                    now(100 + second),
                    vec![raw(RawValue::Number(number), 100 + second, None)],
                );
                let reading = found[0];
                proptest::prop_assert_eq!(reading.quality.is_good(), reading.value.is_finite());
                if !number.is_finite() {
                    proptest::prop_assert_eq!(reading.quality, Quality::Bad(Reason::Nan));
                }
                let json = serde_json::to_string(&reading.value).unwrap();
                proptest::prop_assert_eq!(json == "null", !reading.value.is_finite());
            }
        }
    }

    #[test]
    fn c15_swapped_words_are_flagged_within_three_values() {
        // A temperature of some 20 °C read with its words, or its bytes, in the wrong order.
        let mut tag = tag();
        (tag.scale, tag.offset, tag.range) = (1.0, 0.0, Some((-273.15, 3226.85)));
        tag.invalid.clear();
        tag.handling.rate_max = Some(50.0);
        let swapped = |value: f32, how: usize| {
            let [a, b, c, d] = value.to_be_bytes();
            f64::from(f32::from_be_bytes([[c, d, a, b], [b, a, d, c], [d, c, b, a]][how]))
        };
        for how in 0..3 {
            let mut stage = Acquisition::for_plant(&Plant::new([], [tag.clone()]));
            let flagged = (0..3_u8).any(|second| {
                let value = swapped(20.3 + 0.7 * f32::from(second), how);
                let at = 100 + i64::from(second);
                let found =
                    judged(&mut stage, now(at), vec![raw(RawValue::Number(value), at, None)]);
                // Next to nothing for a temperature is not implausible, but it does not move.
                !found[0].quality.is_good() || value.abs() < 1e-3
            });
            assert!(flagged, "order {how}");
        }
    }

    #[test]
    fn a_suppressed_value_is_judged_and_marked() {
        let mut tag = tag();
        tag.handling.deadband =
            Some(crate::domain::tag::Deadband { width: 1.0, max_silence: Duration::from_secs(60) });
        let mut stage = Acquisition::for_plant(&Plant::new([], [tag]));
        let mut stored = |at: i64, value: f64, own: Option<i64>| {
            let found = judged(&mut stage, now(at), vec![raw(RawValue::Number(value), at, own)]);
            assert_eq!(found.len(), 1, "every stage sees it");
            let mark = stage.marks()[0];
            (mark.stored, mark.own_time)
        };
        assert_eq!(stored(100, 500.0, None), (true, false));
        assert_eq!(stored(101, 505.0, None), (false, false));
        assert_eq!(stored(102, 520.0, Some(102)), (true, true));
        assert_eq!(stored(103, 65535.0, None), (true, false), "the quality changed");
    }
}
