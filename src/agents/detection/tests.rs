//! The real stage on synthetic plants; the random series come from printed seeds.

use super::*;
use crate::agents::IdSource;
use crate::domain::alarm::LimitKind;
use crate::domain::anomaly::{Anomaly, Fault, Pattern};
use crate::domain::asset::{Asset, AssetClass};
use crate::domain::ids::{Arrival, TagPath};
use crate::domain::reading::{Quality, Reason};
use crate::domain::record::Record;
use crate::domain::severity::{Criticality, Severity};
use crate::domain::tag::Limits;
use crate::domain::time::Timestamp;

const COLUMNS: usize = 6;
/// 2026-01-01 in seconds.
const START: i64 = 1_767_225_600;

fn asset() -> Asset {
    Asset {
        id: AssetId::new("P-101").unwrap(),
        name: "Feed pump".to_owned(),
        class: AssetClass::Pump,
        criticality: Criticality::DEFAULT,
        bearing: None,
        rated_rpm: None,
        iso20816_group: None,
    }
}

fn tag(key: u32, name: &str) -> Tag {
    Tag {
        key: TagKey(key),
        path: TagPath { asset: asset().id, tag: TagId::new(name).unwrap() },
        source: SourceId::new("plc").unwrap(),
        unit: "°C".to_owned(),
        quantity: String::new(),
        scale: 1.0,
        offset: 0.0,
        range: None,
        invalid: Vec::new(),
        limits: Limits::default(),
        period: Some(Duration::from_secs(1)),
        discrete: false,
        handling: crate::domain::tag::Handling::default(),
    }
}

fn limited(limits: Limits) -> Tag {
    Tag { limits, ..tag(0, "bearing_temp") }
}

fn plain() -> Vec<Tag> {
    (0..COLUMNS).map(|i| tag(u32::try_from(i).unwrap(), &format!("t{i}"))).collect()
}

/// A stage with its clock and everything it said.
struct Rig {
    stage: Detection,
    ids: IdSource,
    second: u32,
    events: Vec<Event>,
    records: BTreeMap<(RecordKind, String), Record>,
}

impl Rig {
    fn new(tags: Vec<Tag>, learn: f64) -> Self {
        let plant = Arc::new(Plant::new([asset()], tags));
        Self {
            stage: Detection::for_plant(plant, Learn::Seconds(learn)),
            ids: IdSource::new(7),
            second: 0,
            events: Vec::new(),
            records: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            mono: Duration::from_secs(u64::from(self.second)),
            utc: Timestamp::from_micros((START + i64::from(self.second)) * 1_000_000),
            trusted: true,
        }
    }

    fn call<T>(&mut self, act: impl FnOnce(&mut Detection, Now, &mut Outbox<'_>) -> T) -> T {
        let now = self.now();
        let mut out = Outbox::new(now, &mut self.ids, None);
        let result = act(&mut self.stage, now, &mut out);
        let (events, records) = (out.events, out.records);
        self.events.extend(events);
        for record in records {
            self.records.insert((record.kind, record.id.clone()), record);
        }
        result
    }

    /// One second passes, with these values (NaN: a failed poll).
    fn step(&mut self, values: &[f64]) {
        self.second += 1;
        let time = self.now().utc;
        let readings: Vec<Reading> = values
            .iter()
            .zip(0..)
            .map(|(value, key)| Reading {
                tag: TagKey(key),
                arrival: Arrival(0),
                time,
                value: *value,
                quality: if value.is_nan() { Quality::Bad(Reason::Comm) } else { Quality::Good },
            })
            .collect();
        self.call(|stage, now, out| stage.on_readings(now, &readings, false, out).unwrap());
        self.wake();
    }

    fn wake(&mut self) {
        if self.stage.next_deadline().is_some_and(|at| at <= self.now().mono) {
            self.call(|stage, now, out| stage.on_deadline(now, out).unwrap());
        }
    }

    /// The stage dies and is built anew from its open records and its snapshot.
    fn restart(&mut self, tags: Vec<Tag>, snapshot: Option<&[u8]>) {
        let plant = Arc::new(Plant::new([asset()], tags));
        let learn = self.stage.learn;
        self.stage = Detection::for_plant(plant, learn);
        let open: Vec<Record> = self.records.values().filter(|r| r.open).cloned().collect();
        self.stage.restore(self.now(), Saved { records: &open, snapshot }).unwrap();
    }

    fn configure(&mut self, tags: &[Tag]) {
        let plant = Arc::new(Plant::new([asset()], tags.to_vec()));
        let learn = self.stage.learn;
        self.call(|stage, now, out| stage.take_plant(now, plant, learn, out));
    }

    fn command(&mut self, verb: Verb) -> Option<CommandResult> {
        let command = Command { by: "mia".to_owned(), verb };
        self.call(|stage, now, out| stage.on_command(now, &command, out))
    }

    fn take(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.events).iter().map(|event| event.body.kind()).collect()
    }

    fn anomalies(&self) -> Vec<&Anomaly> {
        self.events
            .iter()
            .filter(|event| event.cause.is_none())
            .filter_map(|event| {
                if let Body::AnomalyDetected(anomaly) = &event.body { Some(anomaly) } else { None }
            })
            .collect()
    }

    fn alarm(&self) -> Alarm {
        let record = self
            .records
            .values()
            .filter(|r| r.kind == RecordKind::Alarm)
            .max_by_key(|r| r.id.clone());
        record.unwrap().read().unwrap()
    }
}

/// Autoregressive noise around levels of different size; columns 0 and 1 move together.
struct Healthy {
    random: fastrand::Rng,
    state: [f64; COLUMNS],
}

impl Healthy {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self { random: fastrand::Rng::with_seed(seed), state: [0.0; COLUMNS] }
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.random.f64()).sum::<f64>() - 6.0
    }

    fn row(&mut self) -> Vec<f64> {
        let shared = self.normal();
        (0..COLUMNS)
            .map(|i| {
                let fresh = if i < 2 { 0.98 * shared + 0.2 * self.normal() } else { self.normal() };
                // φ = 0.5, variance 1.
                self.state[i] = 0.5 * self.state[i] + 0.866 * fresh;
                let size = 10.0_f64.powi(i32::try_from(i).unwrap() - 2);
                size * (50.0 + self.state[i])
            })
            .collect()
    }
}

/// Deviation of a column of [`Healthy`].
fn sigma(column: usize) -> f64 {
    10.0_f64.powi(i32::try_from(column).unwrap() - 2)
}

fn learnt(seed: u64) -> (Rig, Healthy) {
    let (mut rig, mut plant) = (Rig::new(plain(), 600.0), Healthy::new(seed));
    for _ in 0..700 {
        rig.step(&plant.row());
    }
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Armed));
    assert_eq!(rig.take(), ["phase-changed"]);
    (rig, plant)
}

#[test]
fn a_healthy_machine_raises_nothing() {
    for seed in [1, 2, 3] {
        let (mut rig, mut plant) = learnt(seed);
        for _ in 0..20_000 {
            rig.step(&plant.row());
        }
        assert_eq!(rig.take(), [""; 0], "seed {seed}");
    }
}

/// Lets `fault` change each row for five minutes and returns what was found.
fn found(seed: u64, mut fault: impl FnMut(u32, &mut Healthy, &mut [f64])) -> Option<Anomaly> {
    let (mut rig, mut plant) = learnt(seed);
    for i in 0..300 {
        let mut row = plant.row();
        fault(i, &mut plant, &mut row);
        rig.step(&row);
    }
    let anomalies = rig.anomalies();
    anomalies.first().map(|anomaly| (*anomaly).clone())
}

#[test]
fn each_fault_is_found_and_named() {
    let check = |name: &str, anomaly: Option<Anomaly>, fault: Fault, pattern: Pattern| {
        let anomaly = anomaly.unwrap_or_else(|| panic!("{name} was not found"));
        assert_eq!((anomaly.fault, anomaly.pattern), (fault, pattern), "{name}: {anomaly:?}");
        assert!(!anomaly.tags.is_empty() && anomaly.tags.len() == anomaly.evidence.len());
        assert!(anomaly.score > 0.5 && anomaly.confidence > 0.6, "{name}: {anomaly:?}");
        anomaly
    };
    let stuck = found(11, |_, _, row| row[3] = 503.25);
    check("stuck", stuck, Fault::Sensor, Pattern::Stuck);
    let noise = found(12, |_, plant, row| row[2] += 4.0 * sigma(2) * plant.normal());
    check("noise", noise, Fault::Sensor, Pattern::Noise);
    let spike = found(13, |i, _, row| row[4] += if i == 50 { 12.0 * sigma(4) } else { 0.0 });
    check("spike", spike, Fault::Sensor, Pattern::Spike);
    let offset = found(14, |_, _, row| row[5] += 15.0 * sigma(5));
    check("a sensor that jumps", offset, Fault::Sensor, Pattern::Offset);
    let drift = found(15, |i, _, row| {
        row[3] += f64::from(i) / 40.0 * sigma(3);
        row[4] += f64::from(i) / 90.0 * sigma(4);
    });
    let drift = check("a machine that drifts", drift, Fault::Machine, Pattern::Drift);
    assert_eq!(drift.tags[0].as_str(), "t3");
    assert!(drift.evidence[0].sigma > 1.0 && (drift.evidence[0].expected - 500.0).abs() < 5.0);
    let shape = found(16, |_, _, row| {
        row[0] += sigma(0);
        row[1] -= sigma(1);
    });
    // Two that always went together: one of the sensors is wrong.
    check("a pair that parts", shape, Fault::Sensor, Pattern::Shape);
}

#[test]
fn a_lone_drift_of_a_limited_tag_is_the_machines() {
    let mut tags = plain();
    tags[3].limits.high_high = Some(700.0);
    let (mut rig, mut plant) = (Rig::new(tags, 600.0), Healthy::new(17));
    for i in 0..1100 {
        let mut row = plant.row();
        row[3] += f64::from(i.max(700) - 700) / 30.0 * sigma(3);
        rig.step(&row);
    }
    assert_eq!(rig.anomalies()[0].fault, Fault::Machine);
}

#[test]
fn a_departure_is_announced_once_and_ends() {
    let (mut rig, mut plant) = learnt(21);
    for i in 0..400 {
        let mut row = plant.row();
        if i < 200 {
            row[3] += 6.0 * sigma(3);
            row[4] += 6.0 * sigma(4);
        }
        rig.step(&row);
    }
    let first: Vec<_> = rig.events.iter().filter(|event| event.cause.is_none()).collect();
    assert_eq!(first.len(), 1);
    let id = first[0].id;
    assert!(rig.events.iter().skip(1).all(|event| event.cause == Some(id)));
    assert_eq!(rig.events.last().unwrap().body.kind(), "anomaly-ended");
    assert!(!rig.stage.assessment(&asset().id).unwrap().anomalous);
    let open = rig.records.values().any(|r| r.kind == RecordKind::Departure && r.open);
    assert!(!open, "the departure's row is closed");
}

#[test]
fn a_restart_neither_forgets_nor_repeats_a_departure() {
    let (mut rig, mut plant) = learnt(22);
    let ill = |plant: &mut Healthy| {
        let mut row = plant.row();
        row[3] += 6.0 * sigma(3);
        row[4] += 6.0 * sigma(4);
        row
    };
    for _ in 0..60 {
        rig.step(&ill(&mut plant));
    }
    assert_eq!(rig.take()[0], "anomaly-detected");
    let snapshot = rig.stage.snapshot().unwrap();
    rig.restart(plain(), Some(&snapshot));
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Armed));
    for _ in 0..60 {
        rig.step(&ill(&mut plant));
    }
    assert!(!rig.events.iter().any(|event| event.cause.is_none()), "{:?}", rig.events);
    rig.take();
    for _ in 0..120 {
        rig.step(&plant.row());
    }
    assert_eq!(rig.take(), ["anomaly-ended"]);
}

#[test]
fn a_snapshot_of_another_version_counts_as_none() {
    let (mut rig, _) = learnt(23);
    for bad in [vec![], vec![0xff, 1, 2], vec![SNAPSHOT_VERSION, 0xff, 0xff, 0xff]] {
        rig.restart(plain(), Some(&bad));
        assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Learning));
    }
}

#[test]
fn history_is_learnt_from_and_raises_nothing() {
    let limits = Limits { high: Some(0.1), ..Limits::default() };
    let mut tags = plain();
    tags[0].limits = limits;
    let (mut rig, mut plant) = (Rig::new(tags, 600.0), Healthy::new(24));
    let mut readings = Vec::new();
    for second in 0..900 {
        let time = Timestamp::from_micros((START - 5000 + second) * 1_000_000);
        for (value, key) in plant.row().into_iter().zip(0..) {
            let value = if second > 800 { 3.0 * value } else { value };
            let quality = Quality::Good;
            readings.push(Reading { tag: TagKey(key), arrival: Arrival(0), time, value, quality });
        }
    }
    rig.call(|stage, now, out| stage.on_readings(now, &readings, true, out).unwrap());
    assert_eq!(rig.take(), ["phase-changed"]);
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Armed));
}

#[test]
fn bad_values_never_enter() {
    let (mut rig, mut plant) = learnt(25);
    for i in 0..40 {
        let mut row = plant.row();
        row[i % COLUMNS] = f64::NAN;
        rig.step(&row);
        let latest = rig.stage.assessment(&asset().id).unwrap();
        assert!(latest.ratio.is_finite() && latest.ratio < 1.0, "{latest:?}");
    }
    assert_eq!(rig.take(), [""; 0]);
}

/// A reading of column 0 outside the polls' rhythm.
fn stray(rig: &mut Rig, key: u32, time: Timestamp, quality: Quality) {
    let value = 50.0;
    let reading = Reading { tag: TagKey(key), arrival: Arrival(0), time, value, quality };
    rig.call(|stage, now, out| stage.on_readings(now, &[reading], false, out).unwrap());
}

#[test]
fn a_time_that_cannot_be_right_stops_no_clock() {
    let (mut rig, mut plant) = (Rig::new(plain(), 600.0), Healthy::new(27));
    let years = Duration::from_secs(4 * 365 * 86_400);
    for i in 0..700 {
        rig.step(&plant.row());
        if i == 5 || i == 650 {
            let future = rig.now().utc.after(years);
            stray(&mut rig, 0, future, Quality::Bad(Reason::Clock));
        }
    }
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Armed));
    for _ in 0..120 {
        let mut row = plant.row();
        row[2] += 12.0 * sigma(2);
        rig.step(&row);
    }
    assert!(!rig.anomalies().is_empty(), "the asset has become blind");
}

#[test]
fn a_burst_of_messages_does_not_keep_the_asset_from_learning() {
    let mut tags = plain();
    tags.push(Tag { period: None, ..tag(u32::try_from(COLUMNS).unwrap(), "over_mqtt") });
    let (mut rig, mut plant) = (Rig::new(tags, 600.0), Healthy::new(28));
    for i in 0..700 {
        rig.step(&plant.row());
        if i == 20 {
            for piece in 1..=50 {
                let time = rig.now().utc.after(Duration::from_millis(piece));
                stray(&mut rig, u32::try_from(COLUMNS).unwrap(), time, Quality::Good);
            }
        }
    }
    assert_ne!(rig.stage.phase(&asset().id), Some(Phase::Learning));
}

#[test]
fn a_silent_tag_is_its_sensors_and_a_silent_source_is_not() {
    let (mut rig, mut plant) = learnt(26);
    for _ in 0..120 {
        let mut row = plant.row();
        row[2] = f64::NAN;
        rig.step(&row);
    }
    let anomaly = rig.anomalies()[0].clone();
    assert_eq!((anomaly.fault, anomaly.pattern), (Fault::Sensor, Pattern::Stuck));
    assert_eq!(anomaly.detectors[0].detector, "dead");
    rig.take();
    for _ in 0..60 {
        rig.step(&plant.row());
    }
    assert_eq!(rig.take(), ["anomaly-ended"]);
    for _ in 0..300 {
        rig.step(&[f64::NAN; COLUMNS]);
    }
    assert_eq!(rig.take(), [""; 0]);
}

#[test]
fn what_stands_still_is_not_judged() {
    let mut tags = plain();
    tags.push(Tag { discrete: true, ..tag(6, "running") });
    let (mut rig, mut plant) = (Rig::new(tags, 600.0), Healthy::new(27));
    let on = |rig: &mut Rig, plant: &mut Healthy, count: u32, runs: bool| {
        for _ in 0..count {
            let mut row = plant.row();
            if !runs {
                row.iter_mut().for_each(|value| *value *= 0.1);
            }
            row.push(if runs { 1.0 } else { 0.0 });
            rig.step(&row);
        }
    };
    on(&mut rig, &mut plant, 700, true);
    assert_eq!(rig.take(), ["phase-changed"]);
    for _ in 0..3 {
        on(&mut rig, &mut plant, 300, false);
        on(&mut rig, &mut plant, 300, true);
    }
    assert_eq!(rig.take(), [""; 0]);
}

#[test]
fn a_constant_plant_is_never_armed_and_says_why() {
    let mut rig = Rig::new(plain(), 100.0);
    for _ in 0..250 {
        rig.step(&[1.0; COLUMNS]);
    }
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Learning));
    let Body::PhaseChanged { reasons, .. } = &rig.events[0].body else {
        panic!("{:?}", rig.events)
    };
    assert!(reasons[0].contains("moved"), "{reasons:?}");
}

#[test]
fn a_short_lesson_makes_a_provisional_detector() {
    let (mut rig, mut plant) = (Rig::new(plain(), 30.0), Healthy::new(28));
    for _ in 0..40 {
        rig.step(&plant.row());
    }
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Provisional));
    for _ in 0..600 {
        rig.step(&plant.row());
    }
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Armed));
    assert_eq!(rig.take(), ["phase-changed"; 2]);
}

#[test]
fn a_person_may_ask_to_learn_anew() {
    let (mut rig, _) = learnt(29);
    let unknown = Verb::Relearn { asset: AssetId::new("nobody").unwrap() };
    assert!(matches!(rig.command(unknown), Some(Err(Refusal::NotFound(_)))));
    assert!(matches!(rig.command(Verb::Relearn { asset: asset().id }), Some(Ok(_))));
    let event = rig.events.pop().unwrap();
    assert_eq!(event.body.kind(), "baseline-reset");
    rig.call(|stage, now, out| stage.on_event(now, &event, out).unwrap());
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Learning));
    assert_eq!(rig.take(), ["phase-changed"]);
}

fn limits() -> Limits {
    Limits {
        high: Some(85.0),
        high_high: Some(95.0),
        low: Some(10.0),
        deadband: 2.0,
        ..Limits::default()
    }
}

#[test]
fn a_limit_alarm_lives_as_isa_18_2_says() {
    let mut rig = Rig::new(vec![limited(limits())], 1e9);
    rig.step(&[86.0]);
    assert_eq!(rig.take(), ["alarm-raised"], "from the first good reading");
    let alarm = rig.alarm();
    assert_eq!(alarm.severity, Severity::Medium);
    assert_eq!(alarm.message, "Feed pump: bearing_temp is 86 °C, above its high limit of 85 °C");
    rig.step(&[84.0]);
    assert_eq!(rig.take(), [""; 0], "within the deadband");
    rig.step(&[96.0]);
    assert_eq!(rig.take(), ["alarm-updated"]);
    let AlarmCause::Limit { which, limit } = rig.alarm().cause else { panic!() };
    assert_eq!((which, rig.alarm().severity), (LimitKind::HighHigh, Severity::High));
    assert!((limit - 95.0).abs() < 1e-12);
    rig.step(&[94.0]);
    assert_eq!(rig.take(), [""; 0], "within the deadband of the higher limit");
    rig.step(&[92.0]);
    assert_eq!(rig.take(), ["alarm-updated"]);
    rig.step(&[82.9]);
    assert_eq!(rig.take(), ["alarm-cleared"]);
    let cleared = rig.alarm();
    assert_eq!(cleared.state, AlarmState::ReturnedUnacknowledged);
    let again = rig.command(Verb::Acknowledge { alarm: cleared.id });
    assert!(matches!(again, Some(Err(Refusal::Conflict { .. }))), "{again:?}");
    rig.step(&[90.0]);
    assert_eq!(rig.take(), ["alarm-raised"]);
    assert_ne!(rig.alarm().id, cleared.id, "the next crossing is another alarm");
    rig.step(&[5.0]);
    assert_eq!(rig.take(), ["alarm-cleared", "alarm-raised"], "through to the other side");
}

#[test]
fn people_acknowledge_and_shelve() {
    let mut rig = Rig::new(vec![limited(limits())], 1e9);
    rig.step(&[86.0]);
    let alarm = rig.alarm().id;
    assert!(rig.command(Verb::Acknowledge { alarm: EventId(uuid::Uuid::nil()) }).is_none());
    assert!(matches!(rig.command(Verb::Acknowledge { alarm }), Some(Ok(_))));
    assert_eq!(rig.alarm().acknowledged_by.as_deref(), Some("mia"));
    assert!(matches!(
        rig.command(Verb::Acknowledge { alarm }),
        Some(Err(Refusal::Conflict { .. }))
    ));
    let span = Duration::from_secs(5);
    rig.command(Verb::Shelve { alarm, span, reason: None });
    assert_eq!(rig.alarm().state, AlarmState::Shelved);
    rig.take();
    for _ in 0..6 {
        rig.step(&[87.0]);
    }
    assert_eq!(rig.take(), ["alarm-unshelved"], "by itself, when the time is over");
    assert_eq!(rig.alarm().state, AlarmState::Acknowledged);
    rig.step(&[96.0]);
    assert_eq!(rig.alarm().state, AlarmState::Unacknowledged, "worse than what was acknowledged");
}

#[test]
fn delays_hold_an_alarm_back_over_a_restart() {
    let slow =
        Limits { on_delay: Duration::from_secs(10), off_delay: Duration::from_secs(5), ..limits() };
    let tags = || vec![limited(slow)];
    let mut rig = Rig::new(tags(), 1e9);
    for _ in 0..6 {
        rig.step(&[90.0]);
    }
    assert_eq!(rig.take(), [""; 0]);
    rig.restart(tags(), None);
    rig.second += 2;
    rig.wake();
    assert_eq!(rig.take(), [""; 0], "nothing was seen since the restart");
    for _ in 0..2 {
        rig.step(&[90.0]);
    }
    assert_eq!(rig.take(), [""; 0], "nine seconds");
    for _ in 0..2 {
        rig.step(&[90.0]);
    }
    assert_eq!(rig.take(), ["alarm-raised"]);
    rig.restart(tags(), None);
    rig.step(&[90.0]);
    assert_eq!(rig.take(), [""; 0], "the alarm is still the same one");
    for _ in 0..4 {
        rig.step(&[50.0]);
    }
    rig.second += 2;
    rig.wake();
    assert_eq!(rig.take(), ["alarm-cleared"], "the deadline comes without a reading");
    assert!(rig.records.values().all(|record| !record.open), "{:?}", rig.records);
}

#[test]
fn a_lone_crossing_shorter_than_the_delay_is_no_alarm() {
    let slow = Limits { on_delay: Duration::from_secs(10), ..limits() };
    let mut rig = Rig::new(vec![limited(slow)], 1e9);
    for i in 0..60 {
        rig.step(&[if i % 9 == 8 { 50.0 } else { 90.0 }]);
    }
    assert_eq!(rig.take(), [""; 0]);
}

#[test]
fn late_and_bad_values_change_no_alarm() {
    let mut rig = Rig::new(vec![limited(limits())], 1e9);
    rig.step(&[90.0]);
    rig.take();
    rig.step(&[f64::NAN]);
    let old = Reading {
        tag: TagKey(0),
        arrival: Arrival(0),
        time: rig.now().utc.before(Duration::from_secs(30)),
        value: 20.0,
        quality: Quality::Good,
    };
    rig.call(|stage, now, out| stage.on_readings(now, &[old], false, out).unwrap());
    assert_eq!(rig.take(), [""; 0]);
}

#[test]
fn alarms_of_what_is_gone_are_closed_by_the_configuration() {
    let mut rig = Rig::new(vec![limited(limits())], 1e9);
    rig.step(&[90.0]);
    rig.take();
    rig.restart(vec![tag(0, "bearing_temp")], None);
    rig.wake();
    assert_eq!(rig.take(), ["alarm-cleared"]);
    assert_eq!(rig.alarm().closed_by.as_deref(), Some("configuration"));
    assert!(rig.records.values().all(|record| !record.open));
}

#[test]
fn a_new_configuration_keeps_what_did_not_change() {
    let (mut rig, mut plant) = learnt(31);
    let mut changed = plain();
    changed[0].limits.high = Some(0.1);
    rig.configure(&changed);
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Armed), "a limit is no new meaning");
    rig.step(&plant.row());
    assert_eq!(rig.take(), ["alarm-raised"]);
    changed[1].unit = "°F".to_owned();
    changed[0].limits.high = None;
    rig.configure(&changed);
    assert_eq!(rig.stage.phase(&asset().id), Some(Phase::Learning), "another unit is");
    assert_eq!(rig.take(), ["alarm-cleared"]);
    assert_eq!(rig.alarm().closed_by.as_deref(), Some("configuration"));
}
