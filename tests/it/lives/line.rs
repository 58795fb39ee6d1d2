//! The five stages from raw values to predictions behind the simulated plant, in virtual time.

#![allow(unreachable_pub, reason = "a benchmark and the tests share this file")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wheeltap::agents::acquisition::Acquisition;
use wheeltap::agents::detection::Detection;
use wheeltap::agents::orchestration::Orchestration;
use wheeltap::agents::prediction::Prediction;
use wheeltap::agents::validation::Validation;
use wheeltap::agents::{Acquire, Chain, Effect, IdSource, Outbox, Setting, Stage};
use wheeltap::analytics::degradation;
use wheeltap::config;
use wheeltap::domain::event::{Body, Event, JobSpec};
use wheeltap::domain::ids::{EventId, TagKey};
use wheeltap::domain::reading::{RawBatch, RawReading, RawValue, Reading};
use wheeltap::domain::time::{Now, Timestamp};
use wheeltap::sim::{Encoding, Plant, Register, Scenario, Shown};

/// From one reading of a tag to the next.
pub const POLL: Duration = Duration::from_secs(2);
/// How long a plant is learnt before it is judged.
pub const LEARN: Duration = Duration::from_secs(600);
/// How long the worker takes for a job.
const JOB: Duration = Duration::from_secs(1);
/// Readings handed to one job, as the worker does.
const JOB_READINGS_MAX: usize = 4096;

/// Plant, stages and worker.
pub struct Line {
    plant: Plant,
    setting: Setting,
    acquisition: Acquisition,
    stages: Vec<Box<dyn Stage>>,
    ids: IdSource,
    now: Now,
    /// Every good reading, by tag.
    history: Vec<Vec<Reading>>,
    jobs: Vec<(Duration, EventId, Chain, JobSpec)>,
    /// What the last step said, without the jobs.
    pub told: Vec<Event>,
    /// Print everything that is said.
    pub loud: bool,
}

impl Line {
    /// A plant of the demo, with everything slower than there.
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        let text = include_str!("../../../config/demo.toml")
            .replace("learn = \"30s\"", "learn = \"10m\"")
            .replace("poll = \"250ms\"", "poll = \"2s\"");
        let config = config::parse(&text, Path::new("config/demo.toml"), &BTreeMap::new())
            .unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let keys = config.tags().zip(0..).map(|((_, tag, _), key)| (tag.path.clone(), TagKey(key)));
        let keys = keys.collect();
        let plant = Arc::new(config.plant(&keys));
        let history = vec![Vec::new(); plant.key_bound()];
        let setting = Setting { config: Arc::new(config), plant };
        let utc = Timestamp::from_micros(1_777_638_600_000_000);
        Self {
            plant: Plant::new(scenario, seed),
            acquisition: Acquisition::new(&setting),
            stages: vec![
                Box::new(Detection::new(&setting)),
                Box::new(Validation::new(&setting)),
                Box::new(Orchestration::new(&setting)),
                Box::new(Prediction::new(&setting)),
            ],
            setting,
            ids: IdSource::new(seed),
            now: Now { mono: Duration::ZERO, utc, trusted: true },
            history,
            jobs: Vec::new(),
            told: Vec::new(),
            loud: false,
        }
    }

    /// Virtual seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.now.mono.as_secs_f64()
    }

    /// The next poll and all that follows from it.
    pub fn step(&mut self) {
        self.told.clear();
        self.plant.step(POLL);
        self.now = Now { mono: self.now.mono + POLL, utc: self.now.utc.after(POLL), trusted: true };
        let mut of_source: BTreeMap<_, Vec<RawReading>> = BTreeMap::new();
        for (register, shown) in self.plant.shown() {
            let Some(tag) = self.setting.plant.find(register.asset, register.signal.tag()) else {
                continue;
            };
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
            for reading in judged.iter().filter(|reading| reading.quality.is_good()) {
                self.history[reading.tag.0 as usize].push(*reading);
            }
            self.turn(None, |stage, now, out| stage.on_readings(now, &judged, false, out).unwrap());
        }
        self.work();
        let now = self.now;
        self.turn(None, |stage, _, out| {
            if stage.next_deadline().is_some_and(|at| at <= now.mono) {
                stage.on_deadline(now, out).unwrap();
            }
        });
    }

    /// Jobs whose time has come are computed and answered.
    fn work(&mut self) {
        let now = self.now;
        let (ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.jobs).into_iter().partition(|(at, ..)| *at <= now.mono);
        self.jobs = rest;
        for (_, job, chain, spec) in ready {
            let JobSpec::Degradation { asset, tag, from, to, .. } = &spec else { continue };
            let key = self.setting.plant.find(asset.as_str(), tag.as_str()).unwrap();
            let all = &self.history[key.0 as usize];
            let first = from.map_or(0, |from| all.partition_point(|reading| reading.time < from));
            let last = all.partition_point(|reading| reading.time <= *to);
            let mut readings = all[first..last.max(first)].to_vec();
            while readings.len() > JOB_READINGS_MAX {
                let mut index = 0;
                readings.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
            }
            let result = degradation::run_job(&spec, &readings);
            let mut out = Outbox::new(now, &mut self.ids, Some(chain));
            out.emit(Body::JobFinished { job, spec, result });
            let events: VecDeque<Event> = out.events.into();
            self.hand_round(events);
        }
    }

    fn turn(&mut self, context: Option<Chain>, act: impl Fn(&mut dyn Stage, Now, &mut Outbox<'_>)) {
        let mut waiting = VecDeque::new();
        for index in 0..self.stages.len() {
            let mut out = Outbox::new(self.now, &mut self.ids, context);
            act(self.stages[index].as_mut(), self.now, &mut out);
            let (events, effects) = (out.events, out.effects);
            self.take(effects, &events);
            waiting.extend(events);
        }
        self.hand_round(waiting);
    }

    fn hand_round(&mut self, mut waiting: VecDeque<Event>) {
        while let Some(event) = waiting.pop_front() {
            for index in 0..self.stages.len() {
                let mut out = Outbox::new(self.now, &mut self.ids, Some(Chain::of(&event)));
                self.stages[index].on_event(self.now, &event, &mut out).unwrap();
                let (events, effects) = (out.events, out.effects);
                self.take(effects, &events);
                waiting.extend(events);
            }
            let job = matches!(event.body, Body::JobStarted { .. } | Body::JobFinished { .. });
            if !job {
                if self.loud {
                    println!("{:>9.0} {}", self.now.mono.as_secs_f64(), brief(&event));
                }
                self.told.push(event);
            }
        }
    }

    fn take(&mut self, effects: Vec<Effect>, events: &[Event]) {
        for effect in effects {
            if let Effect::Run { job, spec } = effect {
                let started = events.iter().find(|event| event.id == job).unwrap();
                self.jobs.push((self.now.mono + JOB, job, Chain::of(started), spec));
            }
        }
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

/// One line about an event.
fn brief(event: &Event) -> String {
    match &event.body {
        Body::AnomalyDetected(a) => {
            let tags: Vec<_> =
                a.evidence.iter().map(|e| format!("{} {:+.1}", e.tag, e.sigma)).collect();
            format!("anomaly {} {:?} {:?} {:.3} {tags:?}", a.asset, a.fault, a.pattern, a.score)
        }
        Body::AnomalyValidated(v) => {
            let why: Vec<_> = v.adjustments.iter().map(|a| a.reason.as_str()).collect();
            format!("verdict {} {:?} {:.2} {why:?}", v.anomaly.asset, v.verdict, v.confidence)
        }
        Body::FailurePredicted(p) => {
            let rul = p.rul;
            format!(
                "predicted {} {} {}: {:.0} {:.0} {:.0} s, health {:.2}, {}",
                p.asset,
                p.failure_mode,
                p.tag,
                rul.p10,
                rul.p50,
                rul.p90,
                p.health.get(),
                p.method
            )
        }
        Body::PredictionScored { asset, failure_mode, outcome, actual, promised, .. } => {
            format!("scored {asset} {failure_mode} {outcome} {actual:?} {promised:?}")
        }
        Body::PredictionWithdrawn { asset, reason, .. } => format!("withdrawn {asset} {reason}"),
        Body::PredictionAbstained { asset, reason, .. } => format!("abstained {asset} {reason}"),
        Body::AnomalyEnded { asset, .. } => format!("ended {asset}"),
        Body::AlarmRaised(alarm) => format!("alarm {:?} {}", alarm.cause, alarm.message),
        other => other.kind().to_owned(),
    }
}
