//! Detection and validation on the simulated plant of the demo, in virtual time: half a minute is
//! learnt, then a bearing wears, a seal leaks and a sensor sticks. No sockets, no waiting.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wheeltap::agents::acquisition::Acquisition;
use wheeltap::agents::detection::Detection;
use wheeltap::agents::validation::Validation;
use wheeltap::agents::{Acquire, IdSource, Outbox, Setting, Stage};
use wheeltap::config;
use wheeltap::domain::anomaly::{Fault, Pattern, Verdict};
use wheeltap::domain::event::{Body, Event};
use wheeltap::domain::ids::TagKey;
use wheeltap::domain::reading::{RawBatch, RawReading, RawValue};
use wheeltap::domain::time::{Now, Timestamp};
use wheeltap::sim::{Encoding, Plant, Register, Scenario, Shown};

/// What `config/demo.toml` polls with.
const POLL: Duration = Duration::from_millis(250);
/// When the bearing of P-101 begins to wear, in seconds.
const ONSET: f64 = 45.0;

/// The three stages behind the simulated plant.
struct Line {
    plant: Plant,
    setting: Setting,
    acquisition: Acquisition,
    detection: Detection,
    validation: Validation,
    ids: IdSource,
    now: Now,
    /// Everything that was said, with when, in seconds.
    told: Vec<(f64, Event)>,
}

impl Line {
    fn new(scenario: &str, seed: u64) -> Self {
        let text = include_str!("../../config/demo.toml");
        let config = config::parse(text, Path::new("config/demo.toml"), &BTreeMap::new())
            .unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let keys = config.tags().zip(0..).map(|((_, tag, _), key)| (tag.path.clone(), TagKey(key)));
        let keys = keys.collect();
        let plant = Arc::new(config.plant(&keys));
        let setting = Setting { config: Arc::new(config), plant };
        let utc = Timestamp::from_micros(1_777_638_600_000_000);
        Self {
            plant: Plant::new(Scenario::named(scenario).unwrap(), seed),
            acquisition: Acquisition::new(&setting),
            detection: Detection::new(&setting),
            validation: Validation::new(&setting),
            setting,
            ids: IdSource::new(seed),
            now: Now { mono: Duration::ZERO, utc, trusted: true },
            told: Vec::new(),
        }
    }

    /// Polls every register until this time.
    fn until(&mut self, seconds: u64) {
        while self.now.mono < Duration::from_secs(seconds) {
            self.plant.step(POLL);
            self.now =
                Now { mono: self.now.mono + POLL, utc: self.now.utc.after(POLL), trusted: true };
            self.poll();
        }
    }

    fn poll(&mut self) {
        let mut of_source: BTreeMap<_, Vec<RawReading>> = BTreeMap::new();
        for (register, shown) in self.plant.shown() {
            let tag = self.setting.plant.find(register.asset, register.signal.tag()).unwrap();
            let source = self.setting.plant.tag(tag).unwrap().source.clone();
            of_source.entry(source).or_default().push(RawReading {
                tag,
                source_time: None,
                arrived: self.now.utc,
                value: RawValue::Number(raw(register, shown)),
                retained: false,
            });
        }
        for (source, readings) in of_source {
            let batch = RawBatch { source, readings, extras: None, ack: None, historical: false };
            let mut judged = Vec::new();
            self.acquisition.judge(self.now, &batch, &mut judged);
            self.turn(|stage, now, out| stage.on_readings(now, &judged, false, out).unwrap());
        }
        let now = self.now;
        self.turn(|stage, _, out| {
            if stage.next_deadline().is_some_and(|at| at <= now.mono) {
                stage.on_deadline(now, out).unwrap();
            }
        });
    }

    /// Lets both stages act, then hands round what they say until nothing more is said.
    fn turn(&mut self, act: impl Fn(&mut dyn Stage, Now, &mut Outbox<'_>)) {
        let mut waiting = VecDeque::new();
        let stages: [&mut dyn Stage; 2] = [&mut self.detection, &mut self.validation];
        for stage in stages {
            let mut out = Outbox::new(self.now, &mut self.ids, None);
            act(stage, self.now, &mut out);
            waiting.extend(out.events);
        }
        while let Some(event) = waiting.pop_front() {
            let stages: [&mut dyn Stage; 2] = [&mut self.detection, &mut self.validation];
            for stage in stages {
                let mut out = Outbox::new(self.now, &mut self.ids, None);
                stage.on_event(self.now, &event, &mut out).unwrap();
                waiting.extend(out.events);
            }
            println!("{:>8.2} {}", self.now.mono.as_secs_f64(), line(&event));
            self.told.push((self.now.mono.as_secs_f64(), event));
        }
    }

    /// When an anomaly of this asset of which `is` holds was said first, in seconds.
    fn first(&self, asset: &str, is: impl Fn(Fault, Pattern) -> bool) -> Option<f64> {
        self.told.iter().find_map(|(at, event)| match &event.body {
            Body::AnomalyDetected(anomaly)
                if anomaly.asset.as_str() == asset && is(anomaly.fault, anomaly.pattern) =>
            {
                Some(*at)
            }
            _ => None,
        })
    }

    fn anomalies(&self, asset: &str) -> usize {
        let of_asset = |event: &Event| match &event.body {
            Body::AnomalyDetected(anomaly) => anomaly.asset.as_str() == asset,
            _ => false,
        };
        self.told.iter().filter(|(_, event)| of_asset(event)).count()
    }

    /// When this asset was first said to be really departed as a machine, in seconds.
    fn confirmed(&self, asset: &str) -> Option<f64> {
        self.told.iter().find_map(|(at, event)| match &event.body {
            Body::AnomalyValidated(said)
                if said.anomaly.asset.as_str() == asset
                    && said.anomaly.fault == Fault::Machine
                    && said.verdict == Verdict::Confirmed =>
            {
                Some(*at)
            }
            _ => None,
        })
    }
}

/// What a client reads from the register.
fn raw(register: &Register, shown: Shown) -> f64 {
    let Shown::Value(value) = shown else { return f64::NAN };
    match register.encoding {
        Encoding::F32(_) => value / register.scale,
        Encoding::Bit | Encoding::U16 | Encoding::I16 | Encoding::U32(_) => {
            (value / register.scale).round()
        }
    }
}

fn line(event: &Event) -> String {
    match &event.body {
        Body::AnomalyDetected(a) => {
            let tags: Vec<_> =
                a.evidence.iter().map(|e| format!("{} {:+.1}", e.tag, e.sigma)).collect();
            format!("{} {:?} {:?} {:.3} {tags:?}", a.asset, a.fault, a.pattern, a.score)
        }
        Body::AnomalyValidated(v) => {
            let why: Vec<_> = v.adjustments.iter().map(|a| a.reason.as_str()).collect();
            format!("{} {:?} {:.2} {why:?}", v.anomaly.asset, v.verdict, v.confidence)
        }
        Body::PhaseChanged { asset, phase, reasons } => format!("{asset} {phase:?} {reasons:?}"),
        other => other.kind().to_owned(),
    }
}

#[test]
fn what_the_demo_plant_suffers_is_told_after_half_a_minute_of_learning() {
    let mut wrong = Vec::new();
    for seed in 1..=10 {
        println!("seed {seed}");
        let mut line = Line::new("demo", seed);
        line.until(180);
        let machine = |fault, _| fault == Fault::Machine;
        let sensor = |fault, _| fault == Fault::Sensor;
        let stuck = |fault, pattern| fault == Fault::Sensor && pattern == Pattern::Stuck;
        let worn = line.first("P-101", machine);
        let (worn_really, leaks) = (line.confirmed("P-101"), line.confirmed("P-102"));
        println!("seed {seed}: worn {worn:?}, {worn_really:?}, leaking {leaks:?}");
        let soon = |at: Option<f64>| at.is_some_and(|at| (ONSET..=ONSET + 50.0).contains(&at));
        for (holds, what) in [
            (soon(worn), "the wear is announced as the machine's"),
            (soon(worn_really), "and confirmed"),
            (line.first("P-101", sensor).is_none(), "no sensor of P-101 is blamed"),
            (leaks.is_some(), "the leak is the machine's"),
            (line.first("P-102", sensor).is_none(), "no sensor of P-102 is blamed"),
            (line.first("F-201", stuck).is_some(), "the stuck sensor is a sensor fault"),
            (line.first("F-201", machine).is_none(), "the fan is well"),
            (line.anomalies("G-301") == 0, "nothing is said of the gearbox"),
        ] {
            if !holds {
                wrong.push(format!("seed {seed}: not so: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_healthy_plant_learnt_for_half_a_minute_stays_quiet_for_two_hours() {
    let mut wrong = Vec::new();
    for seed in 1..=10 {
        println!("seed {seed}");
        let mut line = Line::new("healthy", seed);
        line.until(7_200);
        for asset in ["P-101", "P-102", "F-201", "G-301"] {
            if line.anomalies(asset) > 0 {
                wrong.push(format!("seed {seed}: {asset}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
