//! A bench for stages: one or several of them in a loop like the engine's, on a virtual clock,
//! with the records and snapshots kept as the store would keep them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::Value;

use super::{Chain, Delivery, Effect, IdSource, Outbox, Saved, Setting, Stage, StageError};
use crate::config::{
    Approval, Config, DecisionRow, Detection, FailureMode, Gateway, Host, Http, LineOptions, Link,
    ModbusSource, ModbusTag, Point, PointType, Shift, Store, Table, TagConfig, Technician,
};
use crate::domain::asset::{Asset, AssetClass};
use crate::domain::command::{Command, CommandResult, Verb};
use crate::domain::decision::Choice;
use crate::domain::event::{Action, Body, Event, JobSpec};
use crate::domain::ids::{Arrival, AssetId, EventId, SourceId, TagId, TagKey, TagPath};
use crate::domain::reading::{Quality, Reading};
use crate::domain::record::{Record, RecordKind};
use crate::domain::severity::{Criticality, Severity};
use crate::domain::tag::Limits;
use crate::domain::time::{Now, Timestamp};

/// Events one turn may bring about before the bench says that the stages go round in circles.
const TURN_EVENTS_MAX: usize = 10_000;

/// Makes new stages, at the start and after every restart.
pub(crate) type Make = Box<dyn Fn(&Setting) -> Vec<Box<dyn Stage>>>;

/// Computes the answer of a job.
pub(crate) type Worker = Box<dyn Fn(&JobSpec) -> Result<Value, String>>;

/// The bench. Everything that the stages have brought about is public, for assertions.
pub(crate) struct Bench {
    /// The configuration in force.
    pub setting: Setting,
    /// The time the stages are told.
    pub now: Now,
    /// All events since the bench began, over restarts too.
    pub events: Vec<Event>,
    /// All records, the newest version of each.
    pub records: BTreeMap<(RecordKind, String), Record>,
    /// Effects that nobody has carried out yet (jobs are, when there is a worker).
    pub effects: Vec<Effect>,
    make: Make,
    worker: Option<Worker>,
    stages: Vec<Box<dyn Stage>>,
    ids: IdSource,
    arrival: u64,
}

impl Bench {
    /// A bench with the stages `make` makes, in pipeline order, at an arbitrary moment.
    pub(crate) fn new(
        setting: Setting,
        make: impl Fn(&Setting) -> Vec<Box<dyn Stage>> + 'static,
    ) -> Self {
        let now = Now { mono: Duration::from_secs(5), utc: noon(), trusted: true };
        let mut bench = Self {
            stages: make(&setting),
            setting,
            now,
            events: Vec::new(),
            records: BTreeMap::new(),
            effects: Vec::new(),
            make: Box::new(make),
            worker: None,
            ids: IdSource::new(7),
            arrival: 0,
        };
        for stage in &mut bench.stages {
            stage.restore(now, Saved { records: &[], snapshot: None }).unwrap();
        }
        bench
    }

    /// Answers jobs at once, in the turn that asked for them.
    pub(crate) fn work_with(
        mut self,
        worker: impl Fn(&JobSpec) -> Result<Value, String> + 'static,
    ) -> Self {
        self.worker = Some(Box::new(worker));
        self
    }

    /// Hands in an event as if another stage had begun a chain with it.
    pub(crate) fn emit(&mut self, body: Body) -> EventId {
        self.inject(None, |_| body)
    }

    /// The same, going on from an earlier event.
    pub(crate) fn emit_from(&mut self, chain: Chain, body: Body) -> EventId {
        self.inject(Some(chain), |_| body)
    }

    /// The same for a body that carries its own id (alarms, orders, questions).
    pub(crate) fn inject(
        &mut self,
        chain: Option<Chain>,
        body: impl FnOnce(EventId) -> Body,
    ) -> EventId {
        let mut ids = self.ids.clone();
        let mut out = Outbox::new(self.now, &mut ids, None);
        let id = out.emit_with(chain, body);
        let taken = Taken::of(out);
        self.ids = ids;
        self.run(taken);
        id
    }

    /// Hands in values of tags (named `asset/tag`), all good and of this moment.
    pub(crate) fn values(&mut self, values: &[(&str, f64)]) {
        let time = self.now.utc;
        let mut readings = Vec::new();
        for (name, value) in values {
            let (asset, tag) = name.split_once('/').expect("asset/tag");
            let tag = self.setting.plant.find(asset, tag).expect("a configured tag");
            self.arrival += 1;
            let arrival = Arrival(self.arrival);
            readings.push(Reading { tag, arrival, time, value: *value, quality: Quality::Good });
        }
        self.readings(&readings, false);
    }

    /// Hands in readings as they are.
    pub(crate) fn readings(&mut self, readings: &[Reading], historical: bool) {
        let now = self.now;
        self.each(|stage, out| stage.on_readings(now, readings, historical, out));
    }

    /// Gives a command in the name of `by`; `None` when no stage took it.
    pub(crate) fn command_by(&mut self, by: &str, verb: Verb) -> Option<CommandResult> {
        let now = self.now;
        let command = Command { by: by.to_owned(), verb };
        for index in 0..self.stages.len() {
            let mut ids = self.ids.clone();
            let mut out = Outbox::new(now, &mut ids, None);
            let answer = self.stages[index].on_command(now, &command, &mut out);
            let taken = Taken::of(out);
            self.ids = ids;
            self.run(taken);
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    /// Gives a command in the name of `operator`.
    pub(crate) fn command(&mut self, verb: Verb) -> Option<CommandResult> {
        self.command_by("operator", verb)
    }

    /// Tells the stages how a delivery ended.
    pub(crate) fn delivered(&mut self, delivery: &Delivery) {
        let now = self.now;
        self.each(|stage, out| stage.on_delivery(now, delivery, out));
    }

    /// Lets time pass; every deadline on the way is kept, in order.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now.mono + span;
        let mut stood_still = 0;
        loop {
            let due = self.stages.iter().filter_map(|stage| stage.next_deadline()).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            stood_still = if due <= self.now.mono { stood_still + 1 } else { 0 };
            assert!(stood_still < 100, "a stage's deadline {due:?} does not move on");
            self.forward(due.max(self.now.mono));
            let now = self.now;
            self.each(|stage, out| {
                if stage.next_deadline().is_some_and(|due| due <= now.mono) {
                    stage.on_deadline(now, out)?;
                }
                Ok(())
            });
        }
        self.forward(end);
    }

    /// Takes a new configuration.
    pub(crate) fn configure(&mut self, setting: Setting) {
        let now = self.now;
        self.setting = setting.clone();
        self.each(|stage, out| stage.configure(now, &setting, out));
    }

    /// Stops, stays down for `pause`, and starts new stages from the open records and snapshots.
    /// `trusted`: whether the clock is believed after it.
    pub(crate) fn restart(&mut self, pause: Duration, trusted: bool) {
        let snapshots: Vec<Option<Vec<u8>>> =
            self.stages.iter().map(|stage| stage.snapshot()).collect();
        let open: Vec<Record> =
            self.records.values().filter(|record| record.open).cloned().collect();
        self.now = Now { mono: Duration::ZERO, utc: self.now.utc.after(pause), trusted };
        self.stages = (self.make)(&self.setting);
        for (stage, snapshot) in self.stages.iter_mut().zip(&snapshots) {
            let saved = Saved { records: &open, snapshot: snapshot.as_deref() };
            stage.restore(self.now, saved).unwrap();
        }
    }

    /// Events of one kind, e.g. `alarm-raised`, oldest first.
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<&Event> {
        self.events.iter().filter(|event| event.body.kind() == kind).collect()
    }

    /// How many events of one kind there were.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.of_kind(kind).len()
    }

    /// The newest event of one kind.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn last(&self, kind: &str) -> &Event {
        self.of_kind(kind).pop().unwrap_or_else(|| panic!("no {kind} among {:?}", self.kinds()))
    }

    /// The kinds of all events, in order.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.body.kind()).collect()
    }

    /// All records of one kind.
    pub(crate) fn of_record(&self, kind: RecordKind) -> Vec<&Record> {
        self.records.values().filter(|record| record.kind == kind).collect()
    }

    fn forward(&mut self, mono: Duration) {
        let span = mono.saturating_sub(self.now.mono);
        self.now.mono += span;
        self.now.utc = self.now.utc.after(span);
    }

    fn each(
        &mut self,
        mut call: impl FnMut(&mut dyn Stage, &mut Outbox<'_>) -> Result<(), StageError>,
    ) {
        for index in 0..self.stages.len() {
            let mut ids = self.ids.clone();
            let mut out = Outbox::new(self.now, &mut ids, None);
            call(self.stages[index].as_mut(), &mut out).unwrap();
            let taken = Taken::of(out);
            self.ids = ids;
            self.run(taken);
        }
    }

    /// Takes what a call brought about and hands its events round until none is left.
    fn run(&mut self, taken: Taken) {
        let mut waiting = VecDeque::new();
        self.take(taken, &mut waiting);
        let mut handled = 0;
        while let Some(event) = waiting.pop_front() {
            handled += 1;
            assert!(handled < TURN_EVENTS_MAX, "circle: {:?}", self.kinds());
            for index in 0..self.stages.len() {
                let mut ids = self.ids.clone();
                let mut out = Outbox::new(self.now, &mut ids, Some(Chain::of(&event)));
                self.stages[index].on_event(self.now, &event, &mut out).unwrap();
                let taken = Taken::of(out);
                self.ids = ids;
                self.take(taken, &mut waiting);
            }
        }
    }

    fn take(&mut self, taken: Taken, waiting: &mut VecDeque<Event>) {
        for event in taken.events {
            self.events.push(event.clone());
            waiting.push_back(event);
        }
        for record in taken.records {
            self.records.insert((record.kind, record.id.clone()), record);
        }
        for effect in taken.effects {
            match (effect, &self.worker) {
                (Effect::Run { job, spec }, Some(worker)) => {
                    let result = worker(&spec);
                    let cause = self.events.iter().find(|event| event.id == job);
                    let chain = cause.map(Chain::of);
                    let mut ids = self.ids.clone();
                    let mut out = Outbox::new(self.now, &mut ids, chain);
                    out.emit(Body::JobFinished { job, spec, result });
                    let answered = Taken::of(out);
                    self.ids = ids;
                    self.take(answered, waiting);
                }
                (effect @ (Effect::Run { .. } | Effect::Notify { .. }), _) => {
                    self.effects.push(effect);
                }
            }
        }
    }
}

/// The contents of an outbox.
struct Taken {
    events: Vec<Event>,
    records: Vec<Record>,
    effects: Vec<Effect>,
}

impl Taken {
    fn of(out: Outbox<'_>) -> Self {
        Self { events: out.events, records: out.records, effects: out.effects }
    }
}

/// Friday, 1 May 2026, 10:00 UTC.
pub(crate) fn noon() -> Timestamp {
    Timestamp::parse_rfc3339("2026-05-01T10:00:00Z").unwrap()
}

/// An asset's id.
pub(crate) fn asset(id: &str) -> AssetId {
    AssetId::new(id).unwrap()
}

/// A tag's id.
pub(crate) fn tag(id: &str) -> TagId {
    TagId::new(id).unwrap()
}

/// A shift on all days, round the clock.
pub(crate) fn always() -> Shift {
    Shift { days: [true; 7], from_minute: 0, to_minute: 1440 }
}

/// A small plant: pump `P-101` (criticality 4) with `bearing_temp` (°C, high 85, high_high 95),
/// `vibration` (mm/s, high 4.5, high_high 7.1), `flow` (m³/h, low 30, low_low 20) and `speed` (no
/// limits), fan `F-1` (criticality 2) with `vibration`; all polled each second; three technicians
/// round the clock. Change what a test is about, then [`setting`].
pub(crate) fn plain_config() -> Config {
    let new_asset = |id: &str, name: &str, class, criticality| Asset {
        id: asset(id),
        name: name.to_owned(),
        class,
        criticality: Criticality::new(criticality).unwrap(),
        bearing: None,
        rated_rpm: Some(1480.0),
        iso20816_group: Some(2),
    };
    let above = |high, high_high| Limits {
        high: Some(high),
        high_high: Some(high_high),
        ..Limits::default()
    };
    let below =
        |low, low_low| Limits { low: Some(low), low_low: Some(low_low), ..Limits::default() };
    let tags = vec![
        modbus_tag("P-101", "bearing_temp", "temperature", "°C", above(85.0, 95.0)),
        modbus_tag("P-101", "vibration", "vibration", "mm/s", above(4.5, 7.1)),
        modbus_tag("P-101", "flow", "flow", "m³/h", below(30.0, 20.0)),
        modbus_tag("P-101", "speed", "speed", "1/min", Limits::default()),
        modbus_tag("F-1", "vibration", "vibration", "mm/s", above(4.5, 7.1)),
    ];
    let technician = |id: &str, skills: &[&str]| Technician {
        id: crate::domain::ids::TechnicianId::new(id).unwrap(),
        skills: skills.iter().map(|skill| (*skill).to_owned()).collect(),
        shifts: vec![always()],
        email: None,
    };
    let row = |within: Option<u64>, min_confidence, min_criticality, action| DecisionRow {
        within: within.map(|days| Duration::from_secs(days * 86_400)),
        min_confidence,
        min_criticality,
        min_severity: Severity::Low,
        action,
    };
    Config {
        gateway: Gateway {
            site: "plant-a".to_owned(),
            id: "gw-01".to_owned(),
            data_dir: "data".into(),
            time_zone: jiff::tz::TimeZone::UTC,
            clock: Default::default(),
        },
        store: Store {
            max_disk: 512 << 20,
            commit_every: Duration::from_secs(5),
            write_budget: 1 << 30,
            journal_keep: Duration::from_secs(400 * 86_400),
        },
        detection: Detection { learn: Duration::from_secs(30) },
        approval: Approval {
            min_criticality: Criticality::new(4).unwrap(),
            deadline: Duration::from_secs(4 * 3600),
            default: Choice::Defer,
        },
        http: Http { listen: None, tokens: Vec::new(), metrics_open: false },
        upstream: None,
        assets: vec![
            new_asset("P-101", "Feed pump", AssetClass::Pump, 4),
            new_asset("F-1", "Cooling fan", AssetClass::Fan, 2),
        ],
        technicians: vec![
            technician("tech-1", &["mechanical", "lubrication"]),
            technician("tech-2", &["electrical", "instrumentation"]),
            technician("tech-3", &["mechanical", "hydraulics", "electrical"]),
        ],
        modbus: vec![ModbusSource {
            name: SourceId::new("plc1").unwrap(),
            link: Link::Tcp(Host { name: "127.0.0.1".to_owned(), port: 5020 }),
            line: LineOptions::default(),
            poll: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            breaker_max: Duration::from_secs(60),
            max_registers: 125,
            polling: crate::config::Polling::default(),
            tags,
        }],
        mqtt: Vec::new(),
        computed: Vec::new(),
        replay: Vec::new(),
        notify: Vec::new(),
        decisions: vec![
            row(Some(30), 0.6, 1, Action::Act),
            row(None, 0.6, 1, Action::Watch),
            row(None, 0.0, 1, Action::Watch),
        ],
        rules: Vec::new(),
        windows: Vec::new(),
        absences: Vec::new(),
        failure_modes: Vec::<FailureMode>::new(),
        models: Default::default(),
        hash: "0".repeat(64),
    }
}

/// One tag of a Modbus source, polled each second.
pub(crate) fn modbus_tag(
    asset_id: &str,
    id: &str,
    quantity: &str,
    unit: &str,
    limits: Limits,
) -> ModbusTag {
    ModbusTag {
        tag: TagConfig {
            path: TagPath { asset: asset(asset_id), tag: tag(id) },
            unit: unit.to_owned(),
            quantity: quantity.to_owned(),
            scale: 1.0,
            offset: 0.0,
            range: None,
            invalid: Vec::new(),
            limits,
            discrete: false,
            handling: crate::domain::tag::Handling::default(),
        },
        point: Point {
            unit: 1,
            table: Table::Holding,
            address: 0,
            kind: PointType::F32,
            order: crate::config::ByteOrder::Abcd,
        },
        poll: Duration::from_secs(1),
    }
}

/// The setting of a configuration; tags are numbered in its order.
pub(crate) fn setting(config: Config) -> Setting {
    let keys: BTreeMap<TagPath, TagKey> = config
        .tags()
        .zip(1_u32..)
        .map(|((_, tag, _), number)| (tag.path.clone(), TagKey(number)))
        .collect();
    let plant = config.plant(&keys);
    Setting { config: config.into(), plant: plant.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::StageName;

    /// Answers every request for approval with a chosen action, once a second at most.
    struct Echo {
        due: Option<Duration>,
        heard: usize,
    }

    impl Stage for Echo {
        fn name(&self) -> StageName {
            StageName::Reporting
        }
        fn restore(&mut self, _: Now, saved: Saved<'_>) -> Result<(), StageError> {
            self.heard = saved.records.len();
            Ok(())
        }
        fn on_event(
            &mut self,
            now: Now,
            event: &Event,
            out: &mut Outbox<'_>,
        ) -> Result<(), StageError> {
            if let Body::AnomalyEnded { asset, anomaly } = &event.body {
                self.due = Some(now.mono + Duration::from_secs(1));
                out.save(Record::new(RecordKind::Label, anomaly, now.utc, asset).about(asset));
            }
            Ok(())
        }
        fn next_deadline(&self) -> Option<Duration> {
            self.due
        }
        fn on_deadline(&mut self, _: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
            self.due = None;
            out.emit(Body::BaselineReset {
                asset: asset("P-101"),
                tags: Vec::new(),
                reason: format!("after {}", self.heard),
            });
            Ok(())
        }
    }

    #[test]
    fn a_bench_delivers_keeps_deadlines_and_restarts() {
        let mut bench = Bench::new(setting(plain_config()), |_| {
            vec![Box::new(Echo { due: None, heard: 0 }) as Box<dyn Stage>]
        });
        let anomaly = EventId(uuid::Uuid::from_u128(1));
        let ended = Body::AnomalyEnded { asset: asset("P-101"), anomaly };
        bench.emit(ended.clone());
        bench.pass(Duration::from_millis(900));
        assert_eq!(bench.count("baseline-reset"), 0);
        bench.pass(Duration::from_millis(200));
        assert_eq!(bench.count("baseline-reset"), 1);
        bench.restart(Duration::from_secs(60), true);
        bench.emit(ended);
        bench.pass(Duration::from_secs(2));
        let Body::BaselineReset { reason, .. } = &bench.last("baseline-reset").body else {
            panic!()
        };
        assert_eq!(reason, "after 1");
    }
}
