//! A gateway without stages: real stores, the real uplink, and in the engine's place a test that
//! commits what it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wheeltap::agents::{IdSource, Setting};
use wheeltap::clock::Clock;
use wheeltap::config::{Broker, Encoding, ReadingsMode, Upstream};
use wheeltap::domain::alarm::{Alarm, AlarmCause, AlarmState, LimitKind};
use wheeltap::domain::event::{Body, Class, Event};
use wheeltap::domain::ids::{Arrival, AssetId, EventId, TagId, TagKey};
use wheeltap::domain::reading::{Quality, Reading};
use wheeltap::domain::severity::Severity;
use wheeltap::domain::time::Timestamp;
use wheeltap::port::{
    Announcements, ConditionReport, EngineHandle, EngineStatus, Input, Lane, LanePosition,
    UplinkHealth,
};
use wheeltap::store::{BootInfo, Commit, RingDb, StateDb};
use wheeltap::uplink::session::Pace;
use wheeltap::uplink::{Parts, Uplink, UplinkError};

use crate::support::setting::{json, mqtt, setting};

/// Nothing a test waits for takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Short pauses, so that tests are.
pub(crate) fn fast() -> Pace {
    Pace {
        connect_within: Duration::from_secs(6),
        acknowledge_within: Duration::from_secs(5),
        retry_min: Duration::from_millis(20),
        retry_young: Duration::from_millis(200),
        retry_max: Duration::from_millis(500),
        ..Pace::default()
    }
}

/// The gateway.
pub(crate) struct Gateway {
    dir: TempDir,
    pace: Pace,
    setting: Setting,
    clock: Clock,
    state: StateDb,
    ring: RingDb,
    ids: IdSource,
    sequences: BTreeMap<Class, u64>,
    arrival: u64,
    epoch: u64,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), UplinkError>>,
    inputs: mpsc::Receiver<Input>,
    journal: watch::Sender<u64>,
    durable: watch::Sender<Arrival>,
    health: watch::Receiver<UplinkHealth>,
    /// Kept so that the uplink sees them open.
    _rest: (watch::Sender<Setting>, watch::Sender<Arc<EngineStatus>>),
}

impl Gateway {
    /// A gateway whose broker is at `port`; the uplink is not started.
    pub(crate) fn new(port: u16, pace: Pace) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = mqtt("shop", port, vec![json("a", "a", "/a"), json("b", "b", "/b")]);
        let broker = Broker { client_id: "wheeltap-uplink".to_owned(), ..source.broker.clone() };
        let upstream =
            Upstream { broker, qos: 1, readings: ReadingsMode::All, encoding: Encoding::Json };
        let mut setting = setting(vec![], vec![source]);
        let mut config = (*setting.config).clone();
        config.upstream = Some(upstream);
        config.gateway.data_dir = dir.path().to_owned();
        setting.config = Arc::new(config);
        let clock = Clock::system();
        let now = clock.now();
        let boot =
            BootInfo { id: uuid::Uuid::from_u128(1), utc: now.utc, mono: now.mono, trusted: true };
        let (state, opened) = StateDb::open(dir.path(), 64 << 20, &boot).unwrap();
        let (ring, _) = RingDb::open(dir.path(), 64 << 20, &boot).unwrap();
        Self {
            dir,
            pace,
            setting,
            clock,
            state,
            ring,
            ids: IdSource::new(1),
            sequences: BTreeMap::new(),
            arrival: 0,
            epoch: opened.epoch,
            running: None,
        }
    }

    /// Starts the uplink.
    #[expect(clippy::disallowed_methods, reason = "the test stands in for the supervisor")]
    pub(crate) fn start(&mut self) {
        let (engine, inputs) = EngineHandle::channel();
        let (setting, setting_seen) = watch::channel(self.setting.clone());
        let (journal, journal_seen) = watch::channel(self.state.last_row().unwrap());
        let (status, status_seen) = watch::channel(Arc::new(EngineStatus::default()));
        let (durable, durable_seen) = watch::channel(self.ring.last_arrival());
        let (_, urgent) = mpsc::channel(1);
        let (health, health_seen) = watch::channel(UplinkHealth::default());
        let parts = Parts {
            setting: setting_seen,
            data_dir: self.dir.path().to_owned(),
            epoch: self.epoch,
            engine,
            announcements: Announcements {
                journal: journal_seen,
                events: broadcast::channel(1).0,
                status: status_seen,
            },
            ring_durable: durable_seen,
            urgent,
            health,
            sources: BTreeMap::new(),
            clock: self.clock.clone(),
            started: self.clock.now(),
        };
        let stop = CancellationToken::new();
        let mut uplink = Uplink::new(parts).at_pace(self.pace.clone());
        let token = stop.clone();
        let task = tokio::spawn(async move { uplink.run(token).await });
        let rest = (setting, status);
        self.running = Some(Running {
            stop,
            task,
            inputs,
            journal,
            durable,
            health: health_seen,
            _rest: rest,
        });
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("the uplink was started")
    }

    /// Stops the uplink in order.
    pub(crate) async fn stop(&mut self) {
        let mut running = self.running.take().unwrap();
        running.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, running.task).await;
        ended.expect("a stopped uplink ends").expect("it does not panic").expect("no error");
        running.inputs.close();
        while let Some(input) = running.inputs.recv().await {
            self.take(input);
        }
    }

    /// Ends the uplink as a crash does.
    pub(crate) async fn crash(&mut self) {
        let running = self.running.take().unwrap();
        running.task.abort();
        assert!(running.task.await.unwrap_err().is_cancelled());
    }

    /// Commits a limit alarm, the `number`th of this test.
    pub(crate) fn alarm(&mut self) -> EventId {
        let now = self.clock.now();
        let id = self.ids.next(now);
        let alarm = Alarm {
            id,
            asset: Some(AssetId::new("A").unwrap()),
            tag: Some(TagId::new("a").unwrap()),
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
        };
        self.commit(id, Body::AlarmRaised(alarm));
        id
    }

    fn commit(&mut self, id: EventId, body: Body) {
        let now = self.clock.now();
        let sequence = body.class().map(|class| {
            let number = self.sequences.entry(class).or_default();
            *number += 1;
            (class, *number)
        });
        let event =
            Event { id, cause: None, correlation: id, time: now.utc, clock_trusted: true, body };
        let commit = Commit { events: vec![(event, sequence)], ..Commit::default() };
        let rows = self.state.commit(&commit).unwrap();
        if let Some(running) = &self.running {
            running.journal.send(*rows.last().unwrap()).unwrap();
        }
    }

    /// Makes readings durable.
    pub(crate) fn readings(&mut self, count: u64) {
        let utc = self.clock.now().utc;
        let readings: Vec<Reading> = (0..count)
            .map(|index| {
                self.arrival += 1;
                Reading {
                    tag: TagKey(u32::try_from(self.arrival % 2).unwrap()),
                    arrival: Arrival(self.arrival),
                    time: Timestamp::from_micros(utc.micros() + i64::try_from(index).unwrap()),
                    value: 0.5 * self.arrival as f64,
                    quality: Quality::Good,
                }
            })
            .collect();
        self.ring.append(&readings);
        let last = self.ring.commit().unwrap();
        if let Some(running) = &self.running {
            running.durable.send(last).unwrap();
        }
    }

    /// The engine's part: saves positions, hands back conditions.
    fn take(&mut self, input: Input) -> Option<ConditionReport> {
        match input {
            Input::Lane(position) => {
                self.state.commit(&Commit { lanes: vec![position], ..Commit::default() }).unwrap();
                None
            }
            Input::Condition(report) => Some(report),
            other => panic!("the uplink handed in {other:?}"),
        }
    }

    /// Takes what the uplink has handed in so far.
    pub(crate) fn take_all(&mut self) {
        while let Ok(input) = self.running().inputs.try_recv() {
            self.take(input);
        }
    }

    /// The next condition the uplink reports.
    pub(crate) async fn condition(&mut self) -> ConditionReport {
        loop {
            let input = tokio::time::timeout(PATIENCE, self.running().inputs.recv()).await;
            if let Some(report) = self.take(input.expect("a condition is reported").unwrap()) {
                return report;
            }
        }
    }

    /// Waits until a lane is saved as acknowledged below `number`.
    pub(crate) async fn acknowledged(&mut self, lane: Lane, number: u64) {
        while self.position(lane).below < number {
            let input = tokio::time::timeout(PATIENCE, self.running().inputs.recv()).await;
            self.take(input.expect("a position is reported").expect("the uplink lives"));
        }
    }

    /// Where a lane was saved.
    pub(crate) fn position(&self, lane: Lane) -> LanePosition {
        self.state.lane(lane).unwrap()
    }

    /// Waits until the uplink says it is in a state.
    pub(crate) async fn is(&mut self, state: &str) -> UplinkHealth {
        let health = &mut self.running().health;
        let reached = health.wait_for(|health| health.state == state);
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("the state is reached")
            .unwrap()
            .clone()
    }
}
