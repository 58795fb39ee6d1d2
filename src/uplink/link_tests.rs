//! The link against a simulated broker, ring and journal, with every fault a broker can have, from
//! a printed seed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::domain::alarm::{Alarm, AlarmCause, AlarmState, LimitKind};
use crate::domain::asset::{Asset, AssetClass};
use crate::domain::decision::{Choice, Decision};
use crate::domain::event::{AssetState, Body, Class, Event, Phase};
use crate::domain::ids::{Arrival, AssetId, SourceId, TagId, TagKey, TagPath};
use crate::domain::prognosis::HealthIndex;
use crate::domain::reading::{Quality, Reading};
use crate::domain::severity::Criticality;
use crate::domain::tag::{Limits, Tag};
use crate::domain::work_order::OrderRequest;

const START: Timestamp = Timestamp::from_micros(1_777_630_830_000_000);

fn at(mono: Duration) -> Now {
    Now { mono, utc: START.after(mono), trusted: true }
}

fn asset(number: u64) -> AssetId {
    AssetId::new(&format!("P-{number}")).unwrap()
}

fn plant() -> Arc<Plant> {
    let assets = (0..3).map(|number| Asset {
        id: asset(number),
        name: String::new(),
        class: AssetClass::Pump,
        criticality: Criticality::DEFAULT,
        bearing: None,
        rated_rpm: None,
        iso20816_group: None,
    });
    let tags = (0..6_u32).map(|key| Tag {
        key: TagKey(key),
        path: TagPath {
            asset: asset(u64::from(key) / 2),
            tag: TagId::new(&format!("t{}", key % 2)).unwrap(),
        },
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
        handling: crate::domain::tag::Handling::default(),
    });
    Arc::new(Plant::new(assets, tags))
}

/// What was really committed: the journal and the ring of a simulated store.
struct Store {
    random: fastrand::Rng,
    ids: IdSource,
    rows: Vec<Committed>,
    sequences: BTreeMap<Class, u64>,
    ring: BTreeMap<u64, Reading>,
    ring_head: u64,
    ring_size: usize,
}

impl Store {
    fn new(seed: u64, ring_size: usize) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            ids: IdSource::new(seed),
            rows: Vec::new(),
            sequences: BTreeMap::new(),
            ring: BTreeMap::new(),
            ring_head: 0,
            ring_size,
        }
    }

    fn head(&self) -> u64 {
        self.rows.last().map_or(0, |committed| committed.row)
    }

    fn commit(&mut self, now: Now, body: Body) -> EventId {
        let id = self.ids.next(now);
        let sequence = body.class().map(|class| {
            let number = self.sequences.entry(class).or_default();
            *number += 1;
            (class, *number)
        });
        // Retention leaves holes.
        let row = self.head() + 1 + u64::from(self.random.u8(..) < 20);
        let event =
            Event { id, cause: None, correlation: id, time: now.utc, clock_trusted: true, body };
        self.rows.push(Committed { row, sequence, event, durable: true });
        id
    }

    fn commit_some(&mut self, now: Now) {
        for _ in 0..self.random.u8(0..4) {
            let number = self.random.u64(0..3);
            let body = match self.random.u8(0..6) {
                0 | 1 => Body::AlarmRaised(alarm(now, number)),
                2 | 3 => Body::AssetStateChanged(state(number)),
                4 => {
                    let question = decision(now, self.random.u64(..));
                    self.commit(now, Body::DecisionRequested(question.clone()));
                    Body::DecisionMade(question)
                }
                _ => Body::PhaseChanged {
                    asset: asset(number),
                    phase: Phase::Armed,
                    reasons: Vec::new(),
                },
            };
            self.commit(now, body);
        }
        for _ in 0..self.random.u64(0..30) {
            self.ring_head += 1;
            let reading = Reading {
                tag: TagKey(self.random.u32(0..6)),
                arrival: Arrival(self.ring_head),
                // One microsecond a reading: the time alone names it.
                time: Timestamp::from_micros(START.micros() + self.ring_head as i64),
                value: 1.0,
                quality: Quality::Good,
            };
            self.ring.insert(self.ring_head, reading);
        }
        while self.ring.len() > self.ring_size {
            self.ring.pop_first();
        }
    }

    fn journal_page(&self, after: u64) -> Vec<Committed> {
        let from = self.rows.partition_point(|committed| committed.row <= after);
        let upstream = |committed: &&Committed| committed.sequence.is_some();
        self.rows[from..].iter().filter(upstream).take(20).cloned().collect()
    }

    fn ring_page(&self, request: PageRequest) -> Page {
        let limit = 40;
        let range = self.ring.range(request.after + 1..=request.through);
        let readings: Vec<Reading> = range.map(|(_, reading)| *reading).take(limit).collect();
        let complete = readings.len() < limit;
        Page {
            request,
            complete,
            readings,
            words: Arc::default(),
            first: self.ring.first_key_value().map_or(1, |(first, _)| *first),
        }
    }
}

fn alarm(now: Now, number: u64) -> Alarm {
    let id = EventId(uuid::Uuid::from_u128(u128::from(number)));
    Alarm {
        id,
        asset: Some(asset(number)),
        tag: Some(TagId::new("t0").unwrap()),
        cause: AlarmCause::Limit { which: LimitKind::High, limit: 85.0 },
        severity: Severity::High,
        value: Some(90.0),
        message: "too hot".to_owned(),
        state: AlarmState::Unacknowledged,
        raised: now.utc,
        cleared: None,
        closed_by: None,
        acknowledged_by: None,
        shelved_until: None,
        correlation: id,
    }
}

fn state(number: u64) -> AssetState {
    AssetState {
        asset: asset(number),
        phase: Phase::Armed,
        health: HealthIndex::NEW,
        worst_alarm: None,
        work_order: None,
        rul_p50: None,
        notes: Vec::new(),
    }
}

fn decision(now: Now, number: u64) -> Decision {
    let id = EventId(uuid::Uuid::from_u128(u128::from(number)));
    Decision {
        id,
        asset: asset(number),
        order: OrderRequest {
            asset: asset(number),
            task: "look".to_owned(),
            skills: Vec::new(),
            duration_seconds: 60.0,
            priority: Severity::Low,
            not_before: None,
            due: None,
            technician: None,
            alarms: Vec::new(),
            anomaly: None,
        },
        question: "shall we?".to_owned(),
        severity: Severity::Low,
        deadline: now.utc,
        default: Choice::Defer,
        asked: 1,
        answer: None,
        correlation: id,
    }
}

/// What the broker has got, in the order it came.
#[derive(Default)]
struct Subscriber {
    /// Numbers per class, repeats dropped by id.
    sequences: BTreeMap<String, Vec<u64>>,
    ids: BTreeSet<String>,
    readings: BTreeSet<u64>,
    retained: BTreeMap<String, Vec<u8>>,
}

impl Subscriber {
    fn receive(&mut self, message: &Message) {
        if message.retain {
            self.retained.insert(message.topic.clone(), message.payload.clone());
        }
        if message.payload.is_empty() {
            return;
        }
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let level = message.topic.split('/').nth(3).unwrap().to_owned();
        if !self.ids.insert(event["id"].as_str().unwrap().to_owned()) {
            return;
        }
        if level == "readings" {
            for reading in event["data"].as_array().unwrap() {
                let time = Timestamp::parse_rfc3339(reading["time"].as_str().unwrap()).unwrap();
                self.readings.insert(u64::try_from(time.micros() - START.micros()).unwrap());
            }
        }
        if let Some(number) = event["sequence"].as_str() {
            assert_eq!(number.len(), 18);
            self.sequences.entry(level).or_default().push(number.parse().unwrap());
        }
    }
}

/// One run of gateway, store and broker.
struct World {
    random: fastrand::Rng,
    now: Duration,
    store: Store,
    subscriber: Subscriber,
    link: Link,
    events: LanePosition,
    readings: LanePosition,
    starts: u64,
    /// The broker accepts connections and is connected.
    broker_up: bool,
    connected: bool,
    /// Published, not yet on the wire.
    queue: Vec<Message>,
    /// On the wire, with packet ids.
    wire: Vec<(u16, Message)>,
    /// Received, not acknowledged.
    unacknowledged: Vec<u16>,
    packet: u16,
    gaps: Vec<GapReport>,
    stopped: bool,
    /// Reads of the store that answer late, perhaps after the connection they were for.
    late: Vec<Late>,
}

enum Late {
    Journal(u64, u64, Vec<Committed>),
    Ring(u64, Page),
}

impl World {
    fn new(seed: u64, ring_size: usize) -> Self {
        let store = Store::new(seed, ring_size);
        let events = LanePosition::start(Lane::Events);
        let readings = LanePosition::start(Lane::Readings);
        let link = Self::start(&store, &events, &readings, 1, seed, at(Duration::ZERO));
        Self {
            random: fastrand::Rng::with_seed(seed ^ 1),
            now: Duration::ZERO,
            store,
            subscriber: Subscriber::default(),
            link,
            events,
            readings,
            starts: 1,
            broker_up: true,
            connected: false,
            queue: Vec::new(),
            wire: Vec::new(),
            unacknowledged: Vec::new(),
            packet: 0,
            gaps: Vec::new(),
            stopped: false,
            late: Vec::new(),
        }
    }

    fn start(
        store: &Store,
        events: &LanePosition,
        readings: &LanePosition,
        start_number: u64,
        seed: u64,
        now: Now,
    ) -> Link {
        Link::new(
            Sender { site: "plant-a".to_owned(), gateway: "gw-01".to_owned() },
            Birth {
                version: "0.1.0".to_owned(),
                started: now.utc,
                config_hash: "abc".to_owned(),
                epoch: 1,
            },
            plant(),
            LinkOptions::new(ReadingsMode::All, Encoding::Json),
            &Resume {
                events: events.clone(),
                readings: readings.clone(),
                journal_head: store.head(),
                ring_head: store.ring_head,
                start_number,
                seed: seed ^ start_number,
            },
            now,
        )
    }

    fn break_connection(&mut self) {
        self.connected = false;
        self.queue.clear();
        // What was on the wire arrives as far as it gets: a prefix.
        let arrived = self.random.usize(0..=self.wire.len());
        for (_, message) in self.wire.drain(..).take(arrived) {
            self.subscriber.receive(&message);
        }
        self.unacknowledged.clear();
        self.packet = 0;
    }

    /// Carries out what the link wants; reads answer late or fail when `faults`.
    fn act(&mut self, faults: bool) {
        self.carry_out(faults);
        while !(self.late.is_empty() || faults && self.random.bool()) {
            match self.late.remove(0) {
                Late::Journal(generation, head, page) => {
                    self.link.on_journal_page(generation, head, page);
                }
                Late::Ring(generation, page) => {
                    self.link.on_ring_page(at(self.now), generation, page);
                }
            }
            self.carry_out(faults);
        }
    }

    fn carry_out(&mut self, faults: bool) {
        while let Some(action) = self.link.poll(at(self.now)) {
            match action {
                Action::Connect { will } => {
                    assert!(will.retain && will.topic.ends_with("/status"));
                    if !self.broker_up {
                        self.link.on_lost(at(self.now), &Loss::Broken("refused".to_owned()));
                    } else if !faults || self.random.u8(..) < 200 {
                        self.connected = true;
                        self.link.on_connected(at(self.now));
                    }
                }
                Action::Drop | Action::Disconnect => self.break_connection(),
                Action::Publish(message) => {
                    assert!(self.connected, "published while not connected");
                    assert!(message.payload.len() <= readings::BATCH_BYTES_MAX);
                    self.queue.push(message);
                    assert!(
                        self.queue.len() + self.wire.len() + self.unacknowledged.len() <= WINDOW
                    );
                }
                Action::ReadJournal { after, head, generation } => {
                    if faults && self.random.u8(..) < 30 {
                        self.link.on_read_failed(at(self.now), generation, Lane::Events);
                    } else {
                        let page = self.store.journal_page(after);
                        self.late.push(Late::Journal(generation, head, page));
                    }
                }
                Action::ReadRing { request, generation } => {
                    if faults && self.random.u8(..) < 30 {
                        self.link.on_read_failed(at(self.now), generation, Lane::Readings);
                    } else {
                        let page = self.store.ring_page(request);
                        self.late.push(Late::Ring(generation, page));
                    }
                }
                Action::Report(position) => {
                    self.check(&position);
                    match position.lane {
                        Lane::Events => self.events = position,
                        Lane::Readings => self.readings = position,
                    }
                }
                Action::Condition(_) => {}
                Action::Gap(gap) => self.gaps.push(gap),
                Action::Stopped => self.stopped = true,
            }
        }
    }

    /// Nothing is reported as acknowledged that the broker never got.
    fn check(&self, position: &LanePosition) {
        let done = super::super::lane::Acknowledged::resume(position);
        match position.lane {
            Lane::Events => {
                for committed in self.store.rows.iter().filter(|one| done.contains(one.row)) {
                    assert!(self.arrived(committed), "row {} was skipped", committed.row);
                }
            }
            Lane::Readings => {
                for number in (1..=self.store.ring_head).filter(|number| done.contains(*number)) {
                    assert!(
                        self.subscriber.readings.contains(&number) || self.announced(number),
                        "reading {number} was skipped"
                    );
                }
            }
        }
    }

    fn announced(&self, number: u64) -> bool {
        let holds = |gap: &GapReport| (gap.from..=gap.to).contains(&number);
        self.gaps.iter().any(|gap| gap.lane == "readings" && holds(gap))
    }

    /// Whether a row arrived, or need not: an asset's state may be superseded by a newer row.
    fn arrived(&self, committed: &Committed) -> bool {
        let event = &committed.event;
        let given_up = |gap: &GapReport| {
            committed.sequence.is_some_and(|(class, number)| {
                class.as_str() == gap.lane && (gap.from..=gap.to).contains(&number)
            })
        };
        event.body.class().is_none()
            || self.gaps.iter().any(given_up)
            || self.subscriber.ids.contains(&event.id.to_string())
            || matches!(&event.body, Body::AssetStateChanged(state) if self.store.rows.iter().any(
                |other| other.row > committed.row && matches!(
                    &other.event.body,
                    Body::AssetStateChanged(newer) if newer.asset == state.asset
                )
            ))
    }

    /// The broker and the wire do something.
    fn broker(&mut self, faults: bool) {
        for _ in 0..self.random.u8(0..20) {
            match self.random.u8(0..8) {
                0..3 if !self.queue.is_empty() => {
                    let message = self.queue.remove(0);
                    self.packet += 1;
                    self.wire.push((self.packet, message));
                    self.link.on_sent(self.packet);
                }
                3..5 if !self.wire.is_empty() => {
                    let (packet, message) = self.wire.remove(0);
                    self.subscriber.receive(&message);
                    self.unacknowledged.push(packet);
                }
                5..7 if !self.unacknowledged.is_empty() => {
                    let index =
                        if faults { self.random.usize(0..self.unacknowledged.len()) } else { 0 };
                    let packet = self.unacknowledged.remove(index);
                    self.link.on_acknowledged(at(self.now), packet);
                    if faults && self.random.bool() {
                        self.link.on_acknowledged(at(self.now), packet);
                    }
                }
                7 if faults => {
                    // An acknowledgement of nothing we sent.
                    self.link.on_acknowledged(at(self.now), 60_000);
                }
                _ => {}
            }
        }
    }

    fn step(&mut self, faults: bool) {
        self.now += Duration::from_millis(self.random.u64(1..400));
        if faults {
            match self.random.u8(..) {
                0..4 => {
                    self.broker_up = false;
                    self.break_connection();
                    self.link.on_lost(at(self.now), &Loss::Broken("reset".to_owned()));
                }
                4..12 => self.broker_up = true,
                12..15 if self.connected => {
                    self.break_connection();
                    self.link.on_lost(at(self.now), &Loss::Broken("reset".to_owned()));
                }
                15 => self.now += Duration::from_secs(40),
                16 => {
                    // The gateway crashes; what was reported last is what the store knows.
                    self.break_connection();
                    self.late.clear();
                    self.starts += 1;
                    self.link = Self::start(
                        &self.store,
                        &self.events,
                        &self.readings,
                        self.starts,
                        self.random.u64(..),
                        at(self.now),
                    );
                }
                _ => {}
            }
        }
        self.store.commit_some(at(self.now));
        self.link.on_journal_head(self.store.head());
        self.link.on_ring_head(self.store.ring_head);
        self.act(faults);
        if self.connected {
            self.broker(faults);
        }
        self.act(faults);
    }

    /// No more faults and nothing new: everything must arrive.
    fn settle(&mut self) {
        self.broker_up = true;
        for _ in 0..100_000 {
            let idle = self.link.health();
            self.now += Duration::from_millis(50);
            self.act(false);
            if idle.events_waiting == 0 && idle.readings_waiting == 0 && idle.state == "up" {
                return;
            }
            if self.connected {
                self.broker(false);
            }
        }
        panic!("did not converge: {:?}", self.link.health());
    }

    fn verify(&self) {
        for committed in &self.store.rows {
            assert!(self.arrived(committed), "row {} never arrived", committed.row);
        }
        for number in 1..=self.store.ring_head {
            assert!(
                self.subscriber.readings.contains(&number) || self.announced(number),
                "reading {number} never arrived and was not announced"
            );
        }
        for (class, numbers) in &self.subscriber.sequences {
            assert!(numbers.is_sorted(), "{class} out of order: {numbers:?}");
            if class == "alarm" || class == "decision" {
                let all: Vec<u64> = (1..=numbers.len() as u64).collect();
                assert_eq!(*numbers, all, "{class} has holes");
            }
        }
        let newest: BTreeMap<AssetId, &Committed> = self
            .store
            .rows
            .iter()
            .filter_map(|committed| match &committed.event.body {
                Body::AssetStateChanged(state) => Some((state.asset.clone(), committed)),
                _ => None,
            })
            .collect();
        for (asset, committed) in newest {
            let topic = format!("wheeltap/plant-a/gw-01/asset/{asset}");
            let retained: Value =
                serde_json::from_slice(&self.subscriber.retained[&topic]).unwrap();
            assert_eq!(retained["id"], committed.event.id.to_string(), "retained state of {asset}");
        }
        for (topic, payload) in &self.subscriber.retained {
            assert!(!topic.contains("/decision/") || payload.is_empty(), "{topic} still retained");
        }
    }
}

fn run(seed: u64, steps: u32, ring_size: usize) -> World {
    let mut world = World::new(seed, ring_size);
    for _ in 0..steps {
        world.step(true);
    }
    world.settle();
    world.verify();
    world
}

/// Failures B08, B09, B10, B11: whatever broker and line do, nothing acknowledged is lost, nothing
/// is skipped, and every class keeps its order.
#[test]
fn f_b09_nothing_is_lost_skipped_or_reordered() {
    let seeds: Vec<u64> = std::env::var("WHEELTAP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .map_or_else(|| (0..60).map(|_| fastrand::u64(..)).collect(), |seed| vec![seed]);
    for seed in seeds {
        println!("WHEELTAP_SEED={seed}");
        run(seed, 400, usize::MAX);
    }
}

/// Failures B02: a ring that overtakes the lane is announced, number by number.
#[test]
fn f_b02_overwritten_readings_are_announced() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let gaps: usize = (0..40).map(|_| run(random.u64(..), 300, 400).gaps.len()).sum();
    assert!(gaps > 0, "the ring was never overtaken");
}

#[test]
fn live_readings_pass_the_backlog() {
    let mut world = World::new(7, usize::MAX);
    world.broker_up = false;
    while world.store.ring_head < 20_000 {
        world.step(false);
    }
    let (outage, head) = (world.now, world.store.ring_head);
    world.broker_up = true;
    while world.subscriber.readings.last().is_none_or(|newest| *newest <= head) {
        world.step(false);
        // The pause before connecting again, and a few round trips.
        assert!(world.now - outage < Duration::from_secs(15), "no live reading came through");
    }
    assert!(world.link.health().readings_waiting > 5_000, "the backlog went first");
}

/// Failures B07: without acknowledgements the link reconnects by itself, says so after three times,
/// and takes it back.
#[test]
fn f_b07_a_silent_broker_is_left_and_reported() {
    let mut world = World::new(3, usize::MAX);
    let mut conditions = Vec::new();
    let mut connects = Vec::new();
    while conditions.is_empty() {
        assert!(world.now < Duration::from_secs(600), "never reported");
        while let Some(action) = world.link.poll(at(world.now)) {
            match action {
                Action::Connect { .. } => {
                    connects.push(world.now);
                    world.link.on_connected(at(world.now));
                }
                Action::Publish(_) => {
                    world.packet += 1;
                    world.link.on_sent(world.packet);
                }
                Action::Condition(report) => conditions.push(report),
                _ => {}
            }
        }
        if let Some(deadline) = world.link.next_deadline(at(world.now)) {
            world.now = world.now.max(deadline);
        }
    }
    assert_eq!(connects.len(), 3);
    assert!(connects[1] - connects[0] >= Duration::from_secs(30));
    assert!(connects[1] - connects[0] <= Duration::from_secs(32));
    assert!(conditions[0].active && conditions[0].condition == "upstream-stalled");
    assert_eq!(world.link.health().state, "stalled");
    world.settle();
    assert_eq!(world.link.health().state, "up");
}

#[test]
fn stopping_says_farewell_after_the_last_event() {
    let mut world = World::new(11, usize::MAX);
    world.settle();
    world.store.commit(at(world.now), Body::AlarmRaised(alarm(at(world.now), 1)));
    world.link.on_journal_head(world.store.head());
    world.link.on_stop(at(world.now));
    while !world.stopped {
        world.now += Duration::from_millis(10);
        assert!(world.now < Duration::from_secs(60));
        world.act(false);
        if world.connected {
            world.broker(false);
        }
    }
    world.verify();
    assert_eq!(world.events.below, world.store.head() + 1);
    let status = &world.subscriber.retained["wheeltap/plant-a/gw-01/status"];
    let status: Value = serde_json::from_slice(status).unwrap();
    assert_eq!(status["type"], "wheeltap.gateway.offline");
    assert_eq!(status["data"]["reason"], "stopped");
}

#[test]
fn an_event_too_large_is_given_up_aloud_and_the_next_ones_pass() {
    let mut world = World::new(5, usize::MAX);
    let now = at(world.now);
    let huge = Alarm { message: "x".repeat(EVENT_BYTES_MAX), ..alarm(now, 1) };
    world.store.commit(now, Body::AlarmRaised(huge));
    let next = world.store.commit(now, Body::AlarmRaised(alarm(now, 2)));
    world.link.on_journal_head(world.store.head());
    world.settle();
    assert!(world.subscriber.ids.contains(&next.to_string()));
    assert_eq!(world.gaps.len(), 1);
    assert_eq!((world.gaps[0].lane.as_str(), world.gaps[0].from), ("alarm", 1));
}

#[test]
fn an_alarm_that_is_not_durable_goes_first_and_says_so() {
    let mut world = World::new(9, usize::MAX);
    let now = at(world.now);
    let id = world.store.ids.next(now);
    let event = Event {
        id,
        cause: None,
        correlation: id,
        time: now.utc,
        clock_trusted: true,
        body: Body::AlarmRaised(alarm(now, 1)),
    };
    world.link.on_urgent(Committed {
        row: 0,
        sequence: Some((Class::Alarm, 1001)),
        event,
        durable: false,
    });
    let mut first_alarm = None;
    for _ in 0..100 {
        while let Some(action) = world.link.poll(at(world.now)) {
            match action {
                Action::Connect { .. } => world.link.on_connected(at(world.now)),
                Action::Publish(message) if message.topic.contains("/alarm/") => {
                    first_alarm = first_alarm.or(Some(message));
                }
                _ => {}
            }
        }
        world.now += Duration::from_secs(1);
    }
    let alarm: Value = serde_json::from_slice(&first_alarm.unwrap().payload).unwrap();
    assert_eq!(alarm["id"], id.to_string());
    assert_eq!(alarm["data"]["durable"], false);
}
