//! Computed tags: worked out from judged values, in the first stage, so that all others see them
//! like any reading.
//!
//! A tag is evaluated when each of the tags it rests on brought a value since the last time, or
//! when one of them brings a second one before the others came (those are slower). Tags that arrive
//! when they like are not waited for when another one has a period. What one bad input gives is
//! bad, with the input's reason.
//!
//! Totals (`integral`, `hours`, `starts`) survive: the stage's snapshot holds them, and after a
//! crash the readings in the ring since then are gone through once more.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::ComputedTag;
use crate::domain::expression::{Expression, Memory};
use crate::domain::ids::TagKey;
use crate::domain::reading::{Quality, RawValue, Reading, Reason};
use crate::domain::tag::Plant;
use crate::domain::time::Timestamp;

/// What happened in between is unknown after this many periods without a value, and after
/// [`GAP_LEAST`] in any case: totals do not grow over it.
const GAP_PERIODS: u32 = 10;
/// See [`GAP_PERIODS`]; a minute bridges a restart of the daemon.
const GAP_LEAST: Duration = Duration::from_secs(60);
/// Values from before the last evaluation are passed over; after this many in a row the clock was
/// set back, and evaluation goes on from there.
const BACKWARD_MAX: u32 = 10;

/// One value that was worked out; still to be judged by range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Worked {
    pub(super) tag: TagKey,
    pub(super) time: Timestamp,
    pub(super) value: RawValue,
}

/// All computed tags.
#[derive(Debug, Default)]
pub(super) struct Computed {
    tags: Vec<One>,
    /// By tag key: which computed tag uses it, and as which input.
    users: Vec<Vec<(usize, usize)>>,
}

#[derive(Debug)]
struct One {
    key: TagKey,
    path: String,
    expression: Expression,
    memory: Memory,
    inputs: Vec<Input>,
    /// Values of the inputs, for the evaluation.
    values: Vec<f64>,
    gap: Duration,
    last: Option<Timestamp>,
    backward: u32,
}

#[derive(Debug, Clone, Copy)]
struct Input {
    quality: Quality,
    /// `None` before its first value.
    time: Option<Timestamp>,
    fresh: bool,
    waited_for: bool,
}

/// What is kept of one computed tag over a restart.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Kept {
    expression: String,
    numbers: Vec<f64>,
    last: Option<Timestamp>,
}

impl Computed {
    /// The computed tags of a configuration; what `old` remembers of the same expressions is taken
    /// over.
    pub(super) fn new(tags: &[ComputedTag], plant: &Plant, old: &Self) -> Self {
        let mut computed = Self { tags: Vec::new(), users: vec![Vec::new(); plant.key_bound()] };
        for tag in tags {
            let keys: Option<Vec<TagKey>> = tag.inputs().map(|path| plant.key(&path)).collect();
            let (Some(key), Some(keys)) = (plant.key(&tag.tag.path), keys) else { continue };
            let place = computed.tags.len();
            let mut inputs = Vec::new();
            for (number, input) in keys.iter().enumerate() {
                computed.users[input.0 as usize].push((place, number));
                let periodic = plant.tag(*input).is_some_and(|tag| tag.period.is_some());
                inputs.push(Input {
                    quality: Quality::Good,
                    time: None,
                    fresh: false,
                    waited_for: periodic || tag.period.is_none(),
                });
            }
            computed.tags.push(One {
                key,
                path: tag.tag.path.to_string(),
                memory: tag.expression.memory(),
                values: vec![f64::NAN; inputs.len()],
                expression: tag.expression.clone(),
                inputs,
                gap: tag.period.map_or(GAP_LEAST, |period| GAP_LEAST.max(period * GAP_PERIODS)),
                last: None,
                backward: 0,
            });
        }
        computed.take_up(&old.kept());
        computed
    }

    /// Takes one judged reading and appends what follows from it.
    pub(super) fn take(&mut self, reading: &Reading, worked: &mut Vec<Worked>) {
        let Some(users) = self.users.get(reading.tag.0 as usize) else { return };
        for &(place, input) in users {
            let one = &mut self.tags[place];
            if one.inputs[input].fresh {
                one.evaluate(worked);
            }
            one.values[input] = reading.value;
            let slot = &mut one.inputs[input];
            *slot = Input {
                quality: reading.quality,
                time: Some(reading.time),
                fresh: true,
                waited_for: slot.waited_for,
            };
            if one.inputs.iter().all(|input| input.fresh || !input.waited_for) {
                one.evaluate(worked);
            }
        }
    }

    /// What must be kept, by the tag's full name.
    pub(super) fn kept(&self) -> BTreeMap<String, Kept> {
        let kept = |one: &One| Kept {
            expression: one.expression.text().to_owned(),
            numbers: one.memory.to_numbers(),
            last: one.last,
        };
        self.tags.iter().map(|one| (one.path.clone(), kept(one))).collect()
    }

    /// Takes up what was kept; of another expression nothing.
    pub(super) fn take_up(&mut self, kept: &BTreeMap<String, Kept>) {
        for one in &mut self.tags {
            if let Some(kept) = kept.get(&one.path)
                && kept.expression == one.expression.text()
                && one.memory.restore(&kept.numbers)
            {
                one.last = kept.last;
            }
        }
    }
}

impl One {
    fn evaluate(&mut self, worked: &mut Vec<Worked>) {
        // Until each input had a value there is nothing to say.
        if self.inputs.iter().any(|input| input.time.is_none()) {
            return;
        }
        let newest = self.inputs.iter().filter(|input| input.fresh).filter_map(|input| input.time);
        let Some(time) = newest.max() else { return };
        self.inputs.iter_mut().for_each(|input| input.fresh = false);
        if self.last.is_some_and(|last| time <= last) {
            self.backward += 1;
            if self.backward < BACKWARD_MAX {
                return;
            }
            self.last = None;
        }
        self.backward = 0;

        let reasons = || self.inputs.iter().map(|input| input.quality);
        let bad = reasons().find_map(|quality| match quality {
            Quality::Bad(reason) => Some(reason),
            Quality::Good | Quality::Uncertain(_) => None,
        });
        let value = if let Some(reason) = bad {
            RawValue::Failed(reason)
        } else {
            let known = |last: &Timestamp| time.since(*last);
            let seconds = self.last.as_ref().map(known).filter(|step| *step <= self.gap);
            let seconds = seconds.map(|step| step.as_secs_f64());
            let value = self.expression.evaluate(&self.values, seconds, &mut self.memory);
            self.last = Some(time);
            let doubt = reasons().find(|quality| !quality.is_good());
            if value.is_finite() {
                RawValue::Scaled(value, doubt.unwrap_or(Quality::Good))
            } else {
                RawValue::Failed(Reason::Nan)
            }
        };
        worked.push(Worked { tag: self.key, time, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::acquisition::Acquisition;
    use crate::agents::{Acquire, IdSource, Outbox, Saved, Setting, Stage};
    use crate::domain::ids::SourceId;
    use crate::domain::reading::{RawBatch, RawReading};
    use crate::domain::time::Now;

    const SHAFT: &str = r#"
[gateway]
site = "s"
id = "g"

[[asset]]
id = "M-1"
name = "Mixer"
class = "motor"
criticality = 3

[[modbus]]
name = "plc"
url = "tcp://127.0.0.1:502"
[[modbus.tag]]
id = "torque"
asset = "M-1"
point = "holding:0"
type = "f32"
[[modbus.tag]]
id = "rpm"
asset = "M-1"
point = "holding:2"
type = "f32"

[[computed]]
id = "energy"
asset = "M-1"
expression = "integral(power) / 3600"
unit = "Wh"
[[computed]]
id = "power"
asset = "M-1"
expression = "torque * rpm * 2π/60"
unit = "W"
range = [0.0, 100000.0]
"#;

    struct Bench {
        stage: Acquisition,
        setting: Setting,
    }

    impl Bench {
        fn new() -> Self {
            let origin = std::path::Path::new("test.toml");
            let config = crate::config::parse(SHAFT, origin, &BTreeMap::new()).unwrap();
            let tags = config.tags().map(|(_, tag, _)| tag.path.clone());
            let keys = tags.zip(0..).map(|(path, key)| (path, TagKey(key))).collect();
            let plant = std::sync::Arc::new(config.plant(&keys));
            let setting = Setting { config: std::sync::Arc::new(config), plant };
            Self { stage: Acquisition::new(&setting), setting }
        }

        fn now(second: i64) -> Now {
            let utc = Timestamp::from_micros((1_000_000 + second) * 1_000_000);
            Now { mono: Duration::ZERO, utc, trusted: true }
        }

        /// What follows from these values, by tag, as text.
        fn step(&mut self, second: i64, values: &[(&str, f64)]) -> Vec<String> {
            let now = Self::now(second);
            let readings = values.iter().map(|(tag, value)| RawReading {
                tag: self.setting.plant.find("M-1", tag).unwrap(),
                source_time: None,
                arrived: now.utc,
                value: RawValue::Number(*value),
                retained: false,
            });
            let batch = RawBatch {
                source: SourceId::new("plc").unwrap(),
                readings: readings.collect(),
                extras: None,
                ack: None,
                historical: false,
            };
            let mut judged = Vec::new();
            self.stage.judge(now, &batch, &mut judged);
            self.hear(now, &judged);
            judged[values.len()..].iter().map(|reading| self.shown(reading)).collect()
        }

        fn hear(&mut self, now: Now, readings: &[Reading]) {
            let mut ids = IdSource::new(1);
            let mut out = Outbox::new(now, &mut ids, None);
            self.stage.on_readings(now, readings, false, &mut out).unwrap();
        }

        fn shown(&self, reading: &Reading) -> String {
            let tag = &self.setting.plant.tag(reading.tag).unwrap().path.tag;
            match reading.quality.reason() {
                None => format!("{tag} {:.0}", reading.value),
                Some(reason) => format!("{tag} {reason}"),
            }
        }
    }

    #[test]
    fn a_tag_computed_from_a_computed_one_follows_in_the_same_turn() {
        let mut bench = Bench::new();
        assert_eq!(bench.step(0, &[("torque", 10.0)]), [""; 0], "the speed is not known yet");
        assert_eq!(bench.step(0, &[("rpm", 955.0)]), ["power 1000", "energy 0"]);
        assert_eq!(
            bench.step(36, &[("torque", 10.0), ("rpm", 955.0)]),
            ["power 1000", "energy 10"]
        );
    }

    #[test]
    fn a_slower_input_is_not_waited_for_twice() {
        let mut bench = Bench::new();
        bench.step(0, &[("torque", 10.0), ("rpm", 955.0)]);
        assert_eq!(bench.step(1, &[("torque", 20.0)]), [""; 0]);
        assert_eq!(bench.step(2, &[("torque", 30.0)]), ["power 2000", "energy 0"]);
    }

    #[test]
    fn bad_inputs_and_impossible_results_are_bad_and_add_nothing() {
        let mut bench = Bench::new();
        bench.step(0, &[("torque", 10.0), ("rpm", 955.0)]);
        let found = bench.step(1, &[("torque", f64::NAN), ("rpm", 955.0)]);
        assert_eq!(found, ["power nan", "energy nan"]);
        assert_eq!(bench.step(2, &[("torque", 1e9), ("rpm", 955.0)])[0], "power range");
        assert_eq!(bench.step(36, &[("torque", 10.0), ("rpm", 955.0)])[1], "energy 10");
    }

    #[test]
    fn totals_survive_a_snapshot_and_what_the_ring_brings_after_it() {
        let mut bench = Bench::new();
        bench.step(0, &[("torque", 10.0), ("rpm", 955.0)]);
        bench.step(36, &[("torque", 10.0), ("rpm", 955.0)]);
        let snapshot = bench.stage.snapshot().unwrap();

        let mut later = Bench::new();
        let saved = Saved { records: &[], snapshot: Some(&snapshot) };
        later.stage.restore(Bench::now(40), saved).unwrap();
        let old = |tag: &str, value: f64| Reading {
            tag: later.setting.plant.find("M-1", tag).unwrap(),
            arrival: crate::domain::ids::Arrival(9),
            time: Bench::now(54).utc,
            value,
            quality: Quality::Good,
        };
        let refilled = [old("torque", 10.0), old("rpm", 955.0), old("power", 1000.1)];
        later.hear(Bench::now(60), &refilled);
        let found = later.step(72, &[("torque", 10.0), ("rpm", 955.0)]);
        assert_eq!(found, ["power 1000", "energy 20"]);
    }

    #[test]
    fn a_clock_set_back_stops_a_computed_tag_only_for_a_while() {
        let mut bench = Bench::new();
        bench.step(5000, &[("torque", 10.0), ("rpm", 955.0)]);
        let silent = (0..).take_while(|second| {
            bench.step(*second, &[("torque", 10.0), ("rpm", 955.0)]).is_empty()
        });
        assert_eq!(silent.count(), 9);
    }
}
