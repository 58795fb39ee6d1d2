//! The simulated world around the real engine and the real stores: virtual clocks, machines,
//! people, a worker, a broker, and a power supply that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;
use wheeltap::agents::{Delivery, Effect, Setting};
use wheeltap::analytics::degradation;
use wheeltap::config;
use wheeltap::domain::anomaly::{Fault, Verdict};
use wheeltap::domain::command::{Command, CommandResult, Refusal, Verb};
use wheeltap::domain::decision::{Choice, Decision};
use wheeltap::domain::event::{Body, Event, JobSpec};
use wheeltap::domain::ids::{Arrival, EventId, SourceId};
use wheeltap::domain::reading::{RawBatch, RawReading};
use wheeltap::domain::record::RecordKind;
use wheeltap::domain::time::{Now, Timestamp};
use wheeltap::domain::work_order::{Completion, Outcome, WorkOrder};
use wheeltap::port::{Input, Lane};
use wheeltap::runtime::engine::{Engine, Released, Start};
use wheeltap::runtime::stages;
use wheeltap::store::BootInfo;
use wheeltap::store::StateReader;
use wheeltap::store::ring::RingDb;
use wheeltap::store::state::StateDb;

use super::machine::{Machine, Trouble};
use super::subscriber::Subscriber;

const POLL: Duration = Duration::from_secs(10);
const COMMIT_EVERY: Duration = Duration::from_secs(5);
const MAX_DISK: u64 = 64 << 20;
const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// What goes wrong, per step of the simulation (ten seconds).
#[derive(Debug, Clone, Copy)]
pub(super) struct Odds {
    pub(super) crash: f64,
    pub(super) trouble: f64,
    pub(super) broker: f64,
    pub(super) clock: f64,
    pub(super) disk: f64,
    pub(super) lost_job: f64,
}

impl Odds {
    pub(super) const CALM: Self =
        Self { crash: 0.0, trouble: 0.0, broker: 0.0, clock: 0.0, disk: 0.0, lost_job: 0.0 };
    pub(super) const ROUGH: Self = Self {
        crash: 0.004,
        trouble: 0.003,
        broker: 0.01,
        clock: 0.002,
        disk: 0.002,
        lost_job: 0.1,
    };
}

/// A chain of events as the journal tells it.
#[derive(Debug, Default)]
struct Story {
    confirmed: bool,
    by_hand: bool,
    agreed: bool,
    asked: bool,
}

pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    pub(super) odds: Odds,
    dir: TempDir,
    setting_text: String,
    engine: Option<Engine>,
    ring: Option<RingDb>,
    journal: Option<StateReader>,
    pub(super) subscriber: Subscriber,
    machines: Vec<Machine>,
    mono: Duration,
    utc: Timestamp,
    next_commit: Duration,
    disk_full: bool,
    jobs: Vec<(Duration, EventId, JobSpec)>,
    deliveries: Vec<(Duration, EventId)>,
    /// Commands under way, and whether the store took commits when they were given.
    answers: Vec<(oneshot::Receiver<CommandResult>, Verb, bool)>,
    /// Every committed event.
    pub(super) committed: BTreeSet<EventId>,
    stories: BTreeMap<EventId, Story>,
    questions: BTreeSet<EventId>,
    durable: Arrival,
    pub(super) crashes: u32,
    pub(super) orders: u32,
    pub(super) counts: BTreeMap<&'static str, u32>,
}

impl World {
    pub(super) fn new(seed: u64, odds: Odds) -> Self {
        let dir = match Path::new("/dev/shm").is_dir() {
            // A RAM disk: the test is about what is written, not about how fast flash is.
            true => TempDir::new_in("/dev/shm"),
            false => TempDir::new(),
        }
        .expect("a temporary directory can be made");
        let mut rng = fastrand::Rng::with_seed(seed);
        let machines = ["pump", "fan", "gear"].map(|asset| Machine::new(asset, rng.fork())).into();
        let mut world = Self {
            rng,
            odds,
            setting_text: include_str!("plant.toml").to_owned(),
            engine: None,
            ring: None,
            journal: None,
            subscriber: Subscriber::default(),
            machines,
            mono: Duration::ZERO,
            utc: START,
            next_commit: Duration::ZERO,
            disk_full: false,
            jobs: Vec::new(),
            deliveries: Vec::new(),
            answers: Vec::new(),
            committed: BTreeSet::new(),
            stories: BTreeMap::new(),
            questions: BTreeSet::new(),
            durable: Arrival(0),
            crashes: 0,
            orders: 0,
            counts: BTreeMap::new(),
            dir,
        };
        world.boot();
        let position = world.engine().store().lane(Lane::Events).expect("lanes can be read");
        world.subscriber = Subscriber::new(&position);
        world
    }

    fn now(&self) -> Now {
        Now { mono: self.mono, utc: self.utc, trusted: true }
    }

    pub(super) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the gateway runs")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// Starts the gateway on whatever is on the disk.
    fn boot(&mut self) {
        self.mono = Duration::ZERO;
        let now = self.now();
        let boot = BootInfo {
            id: uuid::Uuid::from_u128(u128::from(self.crashes) + 1),
            utc: now.utc,
            mono: now.mono,
            trusted: now.trusted,
        };
        let (mut state, opened) =
            StateDb::open(&self.data(), MAX_DISK / 4, &boot).expect("state.db opens");
        let (ring, _) = RingDb::open(&self.data(), MAX_DISK / 2, &boot).expect("ring.db opens");
        let config = config::parse(&self.setting_text, Path::new("plant.toml"), &BTreeMap::new())
            .expect("the simulation's configuration is right");
        let paths: Vec<_> = config.tags().map(|(_, tag, _)| tag.path.clone()).collect();
        let keys = state.tag_keys(&paths).expect("tags get numbers");
        let setting = Setting { plant: Arc::new(config.plant(&keys)), config: Arc::new(config) };
        let last = ring.last_arrival();
        assert!(last >= self.durable, "readings that were durable are gone: {last:?}");
        let start = Start { ring_last: last, fresh: opened.fresh };
        let seed = self.rng.u64(..);
        let mut engine = Engine::start(setting, state, &stages(), start, seed, now)
            .expect("the engine takes up where it left off");
        engine.settle(now);
        let mut from = engine.replay_from();
        loop {
            let page = ring.after(from, 500).expect("the ring can be read");
            let Some(newest) = page.last() else { break };
            from = newest.arrival;
            engine.replay(now, &page);
        }
        engine.announce_lost(now, last);
        for effect in engine.unfinished() {
            self.schedule(effect);
        }
        self.engine = Some(engine);
        self.ring = Some(ring);
        self.journal = Some(StateReader::open(&self.data()).expect("the journal opens"));
        self.next_commit = self.mono;
        self.questions_survived();
        self.commit();
    }

    /// Power fails: whatever was not committed is gone.
    fn crash(&mut self) {
        self.crashes += 1;
        self.engine = None;
        self.ring = None;
        self.journal = None;
        self.jobs.clear();
        self.deliveries.clear();
        self.answers.clear();
        self.disk_full = false;
        let off = Duration::from_secs(self.rng.u64(1..600));
        self.utc = self.utc.after(off);
        self.boot();
        let position = self.engine().store().lane(Lane::Events).expect("lanes can be read");
        self.subscriber.resume(&position);
    }

    fn crash_perhaps(&mut self) {
        if self.rng.f64() < self.odds.crash / 6.0 {
            self.crash();
        }
    }

    /// Ten virtual seconds.
    pub(super) fn step(&mut self) {
        let dt = POLL.mul_f64(0.9 + 0.2 * self.rng.f64());
        self.mono += dt;
        self.utc = self.utc.after(dt);
        self.misfortune();
        self.poll(dt);
        self.crash_perhaps();
        self.time_passes();
        self.crash_perhaps();
        self.store();
        self.crash_perhaps();
        self.worker();
        self.people();
        self.crash_perhaps();
        self.commit_when_due();
        self.crash_perhaps();
        self.upstream();
        self.crash_perhaps();
    }

    fn misfortune(&mut self) {
        if self.rng.f64() < self.odds.broker {
            self.subscriber.broker_up = !self.subscriber.broker_up;
        }
        if self.rng.f64() < self.odds.clock {
            // Civil time jumps by up to a day; deadlines must neither fire at once nor never.
            let jump = Duration::from_secs(self.rng.u64(1..86_400));
            self.utc = if self.rng.bool() { self.utc.after(jump) } else { self.utc.before(jump) };
        }
        if self.rng.f64() < self.odds.disk {
            self.disk_full = !self.disk_full;
            let full = self.disk_full;
            let bound = if full { 0 } else { MAX_DISK / 4 };
            self.engine_mut().store_mut().set_max_bytes(bound).expect("the bound can be set");
        }
        for index in 0..self.machines.len() {
            if self.rng.f64() < self.odds.trouble {
                let machine = &mut self.machines[index];
                if machine.trouble == Trouble::None {
                    machine.fail();
                } else {
                    machine.heal();
                }
            }
        }
    }

    fn engine_mut(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("the gateway runs")
    }

    fn poll(&mut self, dt: Duration) {
        let now = self.now();
        for index in 0..self.machines.len() {
            let asset = self.machines[index].asset;
            let values = self.machines[index].poll(dt);
            let plant = self.engine().setting().plant.clone();
            let readings = ["temp", "vib", "pressure"]
                .into_iter()
                .zip(values)
                .map(|(tag, value)| RawReading {
                    tag: plant.find(asset, tag).expect("the simulation's tags are declared"),
                    source_time: None,
                    arrived: now.utc,
                    value,
                    retained: false,
                })
                .collect();
            let source = SourceId::new("line").expect("a legal name");
            let batch = RawBatch { source, readings, extras: None, ack: None, historical: false };
            self.engine_mut().turn(now, Input::Readings(batch));
        }
    }

    fn time_passes(&mut self) {
        let now = self.now();
        self.engine_mut().turn_deadlines(now);
    }

    fn store(&mut self) {
        while let Some(batch) = self.engine_mut().take_readings() {
            self.ring.as_mut().expect("the gateway runs").append(&batch.readings);
        }
        if self.rng.f64() < 0.7 {
            let ring = self.ring.as_mut().expect("the gateway runs");
            self.durable = ring.commit().expect("the ring commits");
        }
    }

    fn worker(&mut self) {
        let now = self.now();
        let due = |at: &Duration| *at <= now.mono;
        let (ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.jobs).into_iter().partition(|(at, _, _)| due(at));
        self.jobs = rest;
        for (_, job, spec) in ready {
            let result = self.compute(&spec);
            self.engine_mut().turn(now, Input::JobFinished { job, spec, result });
        }
        let (ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.deliveries).into_iter().partition(|(at, _)| due(at));
        self.deliveries = rest;
        for (_, id) in ready {
            let result = match self.rng.u8(0..10) {
                0 => Err("nobody answered".to_owned()),
                _ => Ok(()),
            };
            let delivery = Delivery { id, attempts: 1, result };
            self.engine_mut().turn(now, Input::Delivered(delivery));
        }
    }

    fn compute(&self, spec: &JobSpec) -> Result<serde_json::Value, String> {
        let JobSpec::Degradation { asset, tag, from, to, .. } = spec else {
            return Err("an unknown job".to_owned());
        };
        let key = self.engine().setting().plant.find(asset.as_str(), tag.as_str());
        let key = key.ok_or("the tag is gone")?;
        let from = from.unwrap_or(Timestamp::from_micros(0));
        let ring = self.ring.as_ref().expect("the gateway runs");
        let all = ring.after(Arrival(0), usize::MAX).map_err(|error| error.to_string())?;
        let mut readings: Vec<_> = all
            .into_iter()
            .filter(|reading| reading.tag == key && reading.quality.is_good())
            .filter(|reading| from <= reading.time && reading.time <= *to)
            .collect();
        readings.sort_by_key(|reading| reading.time);
        let skip = readings.len().saturating_sub(2000);
        degradation::run_job(spec, &readings[skip..])
    }

    /// People answer questions, finish orders, and say what was real, when they feel like it.
    fn people(&mut self) {
        if self.rng.f64() > 0.05 {
            return;
        }
        let open: Vec<_> = self
            .engine()
            .open_records()
            .filter(|record| {
                matches!(record.kind, RecordKind::Decision | RecordKind::WorkOrder)
                    || (record.kind == RecordKind::Alarm && record.state == "unacknowledged")
            })
            .cloned()
            .collect();
        let Some(record) = self.rng.choice(open) else { return };
        let id = EventId::parse(&record.id).expect("ids of records are ids of events");
        let verb = match record.kind {
            RecordKind::Decision => Verb::Decide {
                decision: id,
                choice: Choice::ALL[self.rng.usize(..4)],
                reason: None,
                changes: None,
            },
            RecordKind::WorkOrder => {
                let fixed = self.rng.bool();
                if fixed {
                    let asset = record.asset.as_ref().map(ToString::to_string);
                    for machine in &mut self.machines {
                        if Some(machine.asset) == asset.as_deref() {
                            machine.heal();
                        }
                    }
                }
                let outcome = if fixed { Outcome::Fixed } else { Outcome::NoFaultFound };
                let completion =
                    Completion { outcome, found: None, notes: None, duration: None, by: None };
                Verb::Complete { order: id, completion }
            }
            _ => Verb::Acknowledge { alarm: id },
        };
        let durable = self.engine().status().durable;
        let (reply, answer) = oneshot::channel();
        let command = Command { by: "somebody".to_owned(), verb: verb.clone() };
        let now = self.now();
        self.engine_mut().turn(now, Input::Command { command, reply });
        self.answers.push((answer, verb, durable));
    }

    fn commit_when_due(&mut self) {
        let due = self.next_commit <= self.mono && self.engine().has_uncommitted();
        if self.engine().must_commit() || due {
            self.commit();
        }
    }

    fn commit(&mut self) {
        let now = self.now();
        match self.engine_mut().commit(now) {
            Ok(released) => {
                self.next_commit = self.mono + COMMIT_EVERY;
                self.take(released);
            }
            Err(error) => {
                assert!(self.disk_full, "a commit failed on a healthy disk: {error}");
                for alarm in self.engine_mut().take_urgent() {
                    assert!(!alarm.durable);
                }
            }
        }
        for (mut answer, verb, durable) in std::mem::take(&mut self.answers) {
            match answer.try_recv() {
                Ok(Ok(_)) => {
                    if let Verb::Decide { decision, .. } = verb {
                        self.questions.remove(&decision);
                    }
                }
                Ok(Err(Refusal::Unavailable(why))) => assert!(!durable, "refused: {why}"),
                Ok(Err(_)) => {}
                Err(oneshot::error::TryRecvError::Empty) => {
                    self.answers.push((answer, verb, durable));
                }
                Err(oneshot::error::TryRecvError::Closed) => panic!("a command got no answer"),
            }
        }
    }

    fn take(&mut self, released: Released) {
        for committed in released.events {
            assert!(self.committed.insert(committed.event.id), "an event was committed twice");
            self.judge(&committed.event);
        }
        for effect in released.effects {
            self.schedule(effect);
        }
        self.nobody_is_in_two_places();
    }

    fn schedule(&mut self, effect: Effect) {
        let delay = Duration::from_secs(self.rng.u64(0..60));
        match effect {
            Effect::Run { job, spec } => {
                if self.rng.f64() >= self.odds.lost_job {
                    self.jobs.push((self.mono + delay, job, spec));
                }
            }
            Effect::Notify { id, .. } => self.deliveries.push((self.mono + delay, id)),
        }
    }

    /// What must be true of every event, given its chain.
    fn judge(&mut self, event: &Event) {
        *self.counts.entry(event.body.kind()).or_default() += 1;
        let story = self.stories.entry(event.correlation).or_default();
        match &event.body {
            Body::AnomalyValidated(validated)
                if validated.verdict == Verdict::Confirmed
                    && validated.anomaly.fault == Fault::Machine =>
            {
                story.confirmed = true;
            }
            Body::CommandTaken(Command { verb: Verb::CreateOrder { .. }, .. }) => {
                story.by_hand = true;
            }
            Body::DecisionRequested(decision) => {
                story.asked = true;
                self.questions.insert(decision.id);
            }
            Body::DecisionMade(Decision { id, answer: Some(answer), .. }) => {
                self.questions.remove(id);
                story.agreed |= matches!(answer.choice, Choice::Approve | Choice::Modify);
            }
            Body::OrderAuthorised { order, .. } => {
                assert!(
                    story.confirmed || story.by_hand,
                    "an order without a confirmed anomaly or a person: {event}"
                );
                let critical = matches!(order.asset.as_str(), "pump" | "gear");
                assert!(
                    !critical || story.agreed || story.by_hand,
                    "an order for a critical asset that nobody agreed to: {event}"
                );
            }
            Body::WorkOrderPlanned(order) => {
                self.orders += 1;
                assert!(order.booking.is_some(), "planned without a person and a time: {event}");
            }
            _ => {}
        }
    }

    /// Questions that were put are still open after a restart, unless they were answered.
    fn questions_survived(&self) {
        let open: BTreeSet<EventId> = self
            .engine()
            .open_records()
            .filter(|record| record.kind == RecordKind::Decision)
            .filter_map(|record| EventId::parse(&record.id).ok())
            .collect();
        let lost: Vec<_> = self.questions.difference(&open).collect();
        assert!(lost.is_empty(), "questions forgotten over a restart: {lost:?}");
    }

    fn nobody_is_in_two_places(&self) {
        let orders: Vec<WorkOrder> = self
            .engine()
            .open_records()
            .filter(|record| record.kind == RecordKind::WorkOrder)
            .map(|record| record.read().expect("orders can be read"))
            .collect();
        for (index, one) in orders.iter().enumerate() {
            for other in &orders[index + 1..] {
                let (Some(a), Some(b)) = (&one.booking, &other.booking) else { continue };
                let shared =
                    a.technician == b.technician || one.request.asset == other.request.asset;
                assert!(
                    !shared || a.end <= b.start || b.end <= a.start,
                    "two orders at one time: {a:?} and {b:?}"
                );
            }
        }
    }

    fn upstream(&mut self) {
        let journal = self.journal.as_ref().expect("the gateway runs");
        let (moved, _) = self.subscriber.exchange(journal, &mut self.rng);
        if let Some(position) = moved {
            let now = self.now();
            self.engine_mut().turn(now, Input::Lane(position));
        }
    }

    /// Faults stop; within an hour everything must have come to rest.
    pub(super) fn converge(&mut self) {
        self.odds = Odds::CALM;
        self.subscriber.broker_up = true;
        if self.disk_full {
            self.disk_full = false;
            self.engine_mut()
                .store_mut()
                .set_max_bytes(MAX_DISK / 4)
                .expect("the bound can be set");
        }
        for machine in &mut self.machines {
            machine.heal();
        }
        for _ in 0..360 {
            self.step();
        }
        self.commit();
        let journal = self.journal.as_ref().expect("the gateway runs");
        for _ in 0..100_000 {
            let (moved, left) = self.subscriber.exchange(journal, &mut self.rng);
            if let Some(position) = moved {
                let now = Now { mono: self.mono, utc: self.utc, trusted: true };
                self.engine.as_mut().expect("the gateway runs").turn(now, Input::Lane(position));
            } else if !left {
                break;
            }
        }
        let status = self.engine().status();
        for stage in &status.stages {
            assert_eq!(
                stage.state, "running",
                "stage {} is off: {:?}",
                stage.name, stage.last_error
            );
            assert_eq!(stage.failures, 0, "stage {} failed: {:?}", stage.name, stage.last_error);
        }
        assert!(status.durable, "the store does not commit although the disk has room");
        self.everything_is_there();
    }

    fn everything_is_there(&self) {
        let journal = self.journal.as_ref().expect("the gateway runs");
        let mut from = 0;
        loop {
            let rows = journal.journal_after(from, 500).expect("the journal can be read");
            let Some(last) = rows.last() else { break };
            from = last.row;
            for row in rows {
                assert!(
                    self.subscriber.received.contains(&row.event.id),
                    "never sent: {}",
                    row.event
                );
            }
        }
        for id in &self.subscriber.received {
            assert!(self.committed.contains(id), "sent, but never committed: {id}");
        }
        let ring = self.ring.as_ref().expect("the gateway runs");
        let stored = ring.after(Arrival(0), usize::MAX).expect("the ring can be read");
        let numbers: Vec<u64> = stored.iter().map(|reading| reading.arrival.0).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "arrival numbers repeat or run backwards");
        let size = std::fs::metadata(self.data().join("ring.db")).expect("ring.db is there").len();
        assert!(size <= MAX_DISK, "the ring has outgrown its disk: {size}");
    }
}
