//! The engine with stages made for the purpose: what happens when they fail, and what leaves when.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::agents::{Outbox, Saved, StageError};
use crate::config;
use crate::domain::reading::RawReading;
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;
use crate::port::ConditionReport;

const PLANT: &str = r#"
[gateway]
site = "s"
id = "g"
data_dir = "data"

[[asset]]
id = "a"

[[modbus]]
name = "m"
url = "tcp://127.0.0.1:5020"
unit = 1

  [[modbus.tag]]
  id = "t"
  asset = "a"
  point = "holding:0"
  type = "u16"
"#;

/// Passes numbers through.
struct Pass;

impl Stage for Pass {
    fn name(&self) -> StageName {
        StageName::Acquisition
    }
    fn restore(&mut self, _: Now, _: Saved<'_>) -> Result<(), StageError> {
        Ok(())
    }
    fn on_event(&mut self, _: Now, _: &Event, _: &mut Outbox<'_>) -> Result<(), StageError> {
        Ok(())
    }
}

impl Acquire for Pass {
    fn judge(&mut self, _: Now, batch: &RawBatch, readings: &mut Vec<Reading>) {
        readings.extend(batch.readings.iter().map(|raw| Reading {
            tag: raw.tag,
            arrival: Arrival(0),
            time: raw.arrived,
            value: 1.0,
            quality: crate::domain::reading::Quality::Good,
        }));
    }
}

/// Counts conditions in a record, panics on the subject `poison`, and once on `flaky`.
#[derive(Default)]
struct Count {
    seen: u64,
    learnt: u64,
}

static FLAKY: AtomicBool = AtomicBool::new(true);
static ANTIDOTE: AtomicBool = AtomicBool::new(false);

impl Stage for Count {
    fn name(&self) -> StageName {
        StageName::Detection
    }
    fn restore(&mut self, _: Now, saved: Saved<'_>) -> Result<(), StageError> {
        self.seen = saved
            .of(RecordKind::CaseFile)
            .next()
            .map_or(0, |record| record.body.as_u64().expect("the record holds a number"));
        self.learnt = saved.snapshot.map_or(0, |bytes| u64::from(bytes[0]));
        Ok(())
    }
    fn on_readings(
        &mut self,
        _: Now,
        readings: &[Reading],
        _: bool,
        _: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.learnt += readings.len() as u64;
        Ok(())
    }
    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        let Body::Condition { subject, .. } = &event.body else { return Ok(()) };
        // The count is spoilt before the failure, as a real bug would do.
        self.seen += 1;
        match subject.as_str() {
            "poison" if !ANTIDOTE.load(Ordering::Relaxed) => panic!("poisoned"),
            "flaky" if FLAKY.swap(false, Ordering::Relaxed) => {
                return Err(StageError::new("not now"));
            }
            _ => {}
        }
        out.save(Record::new(RecordKind::CaseFile, "count", now.utc, &self.seen));
        out.emit(Body::ReportMade { kind: "count".to_owned(), figures: json!(self.seen) });
        Ok(())
    }
    fn snapshot(&self) -> Option<Vec<u8>> {
        Some(vec![u8::try_from(self.learnt).unwrap_or(u8::MAX)])
    }
}

fn factories() -> Factories {
    Factories { acquisition: |_| Box::new(Pass), others: vec![|_| Box::new(Count::default())] }
}

fn now(seconds: u64) -> Now {
    let mono = Duration::from_secs(seconds);
    Now { mono, utc: Timestamp::from_micros(1_790_000_000_000_000).after(mono), trusted: true }
}

fn setting() -> (Setting, BTreeMap<crate::domain::ids::TagPath, crate::domain::ids::TagKey>) {
    let config = config::parse(PLANT, Path::new("plant.toml"), &BTreeMap::new()).unwrap();
    let mut store = StateDb::in_memory().unwrap();
    let paths: Vec<_> = config.tags().map(|(_, tag, _)| tag.path.clone()).collect();
    let keys = store.tag_keys(&paths).unwrap();
    (Setting { plant: Arc::new(config.plant(&keys)), config: Arc::new(config) }, keys)
}

fn start(ring_last: u64) -> Start {
    Start { ring_last: Arrival(ring_last), fresh: false }
}

fn engine(store: StateDb) -> Engine {
    Engine::start(setting().0, store, &factories(), start(0), 1, now(0)).unwrap()
}

fn report(engine: &mut Engine, at: u64, subject: &str) {
    let report = ConditionReport {
        condition: "test".to_owned(),
        subject: subject.to_owned(),
        active: true,
        severity: Severity::Low,
        message: String::new(),
    };
    engine.turn(now(at), Input::Condition(report));
}

fn kinds(released: &Released) -> Vec<&'static str> {
    released.events.iter().map(|committed| committed.event.body.kind()).collect()
}

fn count(engine: &Engine) -> u64 {
    let record = engine.open_records().find(|record| record.kind == RecordKind::CaseFile);
    record.and_then(|record| record.body.as_u64()).unwrap_or(0)
}

#[test]
fn nothing_leaves_before_its_commit_and_causes_are_kept() {
    let mut engine = engine(StateDb::in_memory().unwrap());
    report(&mut engine, 1, "fine");
    assert!(engine.must_commit());
    assert!(engine.store().journal_after(0, 10).unwrap().is_empty());
    let released = engine.commit(now(1)).unwrap();
    assert_eq!(kinds(&released), ["condition", "report-made"]);
    let (condition, made) = (&released.events[0].event, &released.events[1].event);
    assert_eq!(made.cause, Some(condition.id));
    assert_eq!(made.correlation, condition.id);
    assert!(!engine.must_commit());
}

#[test]
fn a_stage_that_fails_once_is_rebuilt_and_loses_nothing() {
    FLAKY.store(true, Ordering::Relaxed);
    let mut engine = engine(StateDb::in_memory().unwrap());
    report(&mut engine, 1, "fine");
    report(&mut engine, 2, "flaky");
    let released = engine.commit(now(2)).unwrap();
    assert_eq!(kinds(&released), ["condition", "report-made", "condition", "report-made"]);
    // The spoilt count of the first try is gone with the old stage.
    assert_eq!(count(&engine), 2);
    assert_eq!(engine.status().stages[1].failures, 1);
}

#[test]
fn f_f04_a_poisonous_event_is_set_aside_five_switch_the_stage_off_and_a_person_retries() {
    ANTIDOTE.store(false, Ordering::Relaxed);
    let mut engine = engine(StateDb::in_memory().unwrap());
    report(&mut engine, 1, "poison");
    let released = engine.commit(now(1)).unwrap();
    assert_eq!(kinds(&released), ["condition", "event-set-aside"]);
    assert_eq!(engine.status().stages[1].state, "running");
    report(&mut engine, 2, "fine");
    assert_eq!(count(&engine), 1, "the rest goes on");
    for at in 3..7 {
        report(&mut engine, at, "poison");
    }
    assert_eq!(engine.status().stages[1].state, "off");
    let released_later = engine.commit(now(7)).unwrap();
    assert!(kinds(&released_later).contains(&"stage-switched"));
    report(&mut engine, 8, "fine");
    assert_eq!(count(&engine), 1, "a stage that is off sees nothing");

    ANTIDOTE.store(true, Ordering::Relaxed);
    let (reply, mut answer) = oneshot::channel();
    let verb = Verb::Retry { event: released.events[0].event.id };
    let command = Command { by: "somebody".to_owned(), verb };
    engine.turn(now(9), Input::Command { command, reply });
    assert!(answer.try_recv().is_err(), "the answer waits for the commit");
    engine.commit(now(9)).unwrap();
    assert!(answer.try_recv().unwrap().is_ok());
    assert_eq!(engine.status().stages[1].state, "running");
    assert_eq!(count(&engine), 2);
}

#[test]
fn after_a_start_unseen_readings_are_judged_and_known_ones_only_learnt_from() {
    let dir = tempfile::tempdir().unwrap();
    let boot = crate::store::BootInfo {
        id: uuid::Uuid::from_u128(1),
        utc: now(0).utc,
        mono: Duration::ZERO,
        trusted: true,
    };
    let open = || StateDb::open(dir.path(), 1 << 24, &boot).unwrap().0;
    let (setting, keys) = setting();
    let key = *keys.values().next().unwrap();
    let mut first =
        Engine::start(setting.clone(), open(), &factories(), start(0), 1, now(0)).unwrap();
    let mut ring = Vec::new();
    for at in 1..=5 {
        let raw = RawReading {
            tag: key,
            source_time: None,
            arrived: now(at).utc,
            value: crate::domain::reading::RawValue::Number(1.0),
            retained: false,
        };
        let source = crate::domain::ids::SourceId::new("m").unwrap();
        let batch =
            RawBatch { source, readings: vec![raw], extras: None, ack: None, historical: false };
        first.turn(now(at), Input::Readings(batch));
        ring.extend(first.take_readings().unwrap().readings);
        if at == 3 {
            first.commit(now(at)).unwrap();
        }
    }
    assert_eq!(ring.last().unwrap().arrival, Arrival(5));
    drop(first);

    let mut second = Engine::start(setting, open(), &factories(), start(5), 2, now(0)).unwrap();
    assert_eq!(second.seen(), Arrival(3));
    assert_eq!(second.replay_from(), Arrival(0));
    second.replay(now(1), &ring);
    assert_eq!(second.seen(), Arrival(5));
    assert_eq!(second.slots[1].saved, None);
    second.turn(now(2), Input::Stop { done: oneshot::channel().0 });
    assert_eq!(second.slots[1].saved.as_deref(), Some([5_u8].as_slice()), "all five were learnt");
    // A ring that lost what was seen is announced, and numbers are not given again.
    second.announce_lost(now(3), Arrival(4));
    let released = second.commit(now(3)).unwrap();
    assert_eq!(kinds(&released), ["gap"]);
}

#[test]
fn f_a04_alarms_go_out_from_memory_while_the_store_is_full_and_are_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let boot = crate::store::BootInfo {
        id: uuid::Uuid::from_u128(1),
        utc: now(0).utc,
        mono: Duration::ZERO,
        trusted: true,
    };
    let store = StateDb::open(dir.path(), 1 << 24, &boot).unwrap().0;
    let mut engine = engine(store);
    engine.store_mut().set_max_bytes(0).unwrap();
    let alarm = crate::domain::alarm::Alarm {
        id: EventId(uuid::Uuid::from_u128(9)),
        asset: None,
        tag: None,
        cause: crate::domain::alarm::AlarmCause::System { condition: "x".repeat(200_000) },
        severity: Severity::High,
        value: None,
        message: String::new(),
        state: crate::domain::alarm::AlarmState::Unacknowledged,
        raised: now(0).utc,
        cleared: None,
        closed_by: None,
        acknowledged_by: None,
        shelved_until: None,
        correlation: EventId(uuid::Uuid::from_u128(9)),
    };
    let event = engine.first(now(1), Body::AlarmRaised(alarm));
    engine.drain_event(now(1), event.clone());
    assert!(engine.commit(now(1)).is_err());
    let urgent = engine.take_urgent();
    assert_eq!(urgent.len(), 1);
    assert!(!urgent[0].durable);
    assert_eq!(urgent[0].sequence, Some((crate::domain::event::Class::Alarm, 1)));
    assert!(engine.take_urgent().is_empty(), "each is handed out once");
    let (reply, mut answer) = oneshot::channel();
    let verb = Verb::Relearn { asset: crate::domain::ids::AssetId::new("a").unwrap() };
    let command = Command { by: "somebody".to_owned(), verb };
    engine.turn(now(2), Input::Command { command, reply });
    assert!(matches!(answer.try_recv().unwrap(), Err(Refusal::Unavailable(_))));

    engine.store_mut().set_max_bytes(1 << 24).unwrap();
    let released = engine.commit(now(3)).unwrap();
    assert_eq!(released.events[0].event.id, event.id);
    assert_eq!(released.events[0].sequence, urgent[0].sequence);
}
