//! The first stage: raw values become readings, each with a quality and, when it is not good, the
//! reason. Nothing is thrown away but exact repeats; what later stages may use is marked good.
//!
//! Order of judgement, the first that applies counts: the source's own failure, not a number,
//! sentinel, implausible, kept by a broker, wrong device clock, too old, changed too fast, stuck.
//! Works on tables indexed
//! by [`TagKey`](crate::domain::ids::TagKey); a reading costs no allocation and no look-up by name.

mod checks;
mod gaps;

use std::time::Duration;

use checks::Checks;
use gaps::Gaps;

use super::{Acquire, Mark, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::event::Event;
use crate::domain::reading::{Quality, RawBatch, RawReading, RawValue, Reading, Reason};
use crate::domain::tag::Plant;
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
}

impl Acquisition {
    /// A stage for this configuration.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        Self::for_plant(&setting.plant)
    }

    /// A stage for these tags, without a configuration (recordings).
    #[must_use]
    pub fn for_plant(plant: &Plant) -> Self {
        let gaps = Gaps::of(plant, None);
        Self { rules: rules(plant, &mut [], &gaps), marks: Vec::new(), gaps }
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
        let (last, earlier, checks) =
            old.get_mut(index).and_then(Option::as_mut).map_or((None, None, None), |rule| {
                (rule.last, rule.earlier.take(), rule.checks.take())
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
        });
    }
    rules
}

impl Rule {
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
        readings.reserve(batch.readings.len());
        self.marks.clear();
        for raw in &batch.readings {
            let time = raw.source_time.unwrap_or(raw.arrived);
            let rule = self.rules.get_mut(raw.tag.0 as usize).and_then(Option::as_mut);
            let Some(rule) = rule else {
                // The configuration lost the tag while the value was under way.
                let quality = Quality::Bad(Reason::Config);
                readings.push(reading(raw, time, f64::NAN, quality));
                self.marks.push(Mark { stored: true, own_time: raw.source_time.is_some() });
                continue;
            };
            if let Some(place) = rule.gap {
                self.gaps.heard(place, now);
            }
            let (value, mut quality) = rule.value(raw.value);
            if quality.is_good() {
                quality = rule.age(now, raw, batch.historical);
            }
            // All NaN are one value here; the quality tells failures apart.
            let bits = if value.is_nan() { u64::from(quality.to_byte()) } else { value.to_bits() };
            if rule.is_repeat(time, bits, raw.source_time.is_some()) {
                continue;
            }
            let mut stored = true;
            if let Some(checks) = &mut rule.checks {
                if quality.is_good() {
                    quality = checks.judge(value, time);
                }
                stored = checks.is_news(value, quality, time) || batch.historical;
            }
            readings.push(reading(raw, time, value, quality));
            self.marks.push(Mark { stored, own_time: raw.source_time.is_some() });
        }
    }

    fn marks(&self) -> &[Mark] {
        &self.marks
    }
}

fn reading(raw: &RawReading, time: Timestamp, value: f64, quality: Quality) -> Reading {
    Reading { tag: raw.tag, arrival: crate::domain::ids::Arrival(0), time, value, quality }
}

impl Stage for Acquisition {
    fn name(&self) -> StageName {
        StageName::Acquisition
    }

    /// Remembers nothing over a restart: the store recognises older repeats.
    fn restore(&mut self, _now: Now, _saved: Saved<'_>) -> Result<(), StageError> {
        Ok(())
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
        _now: Now,
        setting: &Setting,
        _out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.gaps = Gaps::of(&setting.plant, Some(&self.gaps));
        self.rules = rules(&setting.plant, &mut self.rules, &self.gaps);
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
}
