//! The uplink's task: carries out what the [`Link`] asks for, and tells it what happened.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::cloudevents::{Birth, Sender};
use super::health::{self, CpuMark, HEALTH_EVERY, Machine};
use super::link::{Action, Link, LinkOptions, Resume};
use super::mqtt::{Connection, Happened};
use super::reading_lane::{Page, PageRequest};
use super::session::{Loss, Pace};
use super::shelf::{JournalShelf, RingShelf};
use crate::agents::Setting;
use crate::clock::Clock;
use crate::config::{Encoding, ReadingsMode, Upstream};
use crate::domain::ids::{Arrival, SourceId};
use crate::domain::time::Now;
use crate::port::{
    Announcements, Committed, EngineHandle, Input, Lane, SourceHealth, UplinkHealth,
};
use crate::store::StoreError;

/// Reports to the engine that may wait while its queue is full. Positions beyond are dropped: the
/// next one says more. Gaps and conditions wait in [`Run::waiting`].
const TO_ENGINE_MAX: usize = 64;
/// What a stop waits for the engine to take them; after a stop of its own it takes none.
const TO_ENGINE_AT_STOP: Duration = Duration::from_millis(300);
/// Health is published at most this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// What the uplink is made of.
pub struct Parts {
    /// The configuration in force.
    pub setting: watch::Receiver<Setting>,
    /// Where the stores are.
    pub data_dir: PathBuf,
    /// Identity of the present `state.db`.
    pub epoch: u64,
    /// The engine's inputs.
    pub engine: EngineHandle,
    /// What the engine tells.
    pub announcements: Announcements,
    /// Newest durable reading.
    pub ring_durable: watch::Receiver<Arrival>,
    /// Alarms released while the store cannot commit.
    pub urgent: mpsc::Receiver<Committed>,
    /// Where the uplink's own health is told.
    pub health: watch::Sender<UplinkHealth>,
    /// Health of the sources.
    pub sources: BTreeMap<SourceId, watch::Receiver<SourceHealth>>,
    /// The clock.
    pub clock: Clock,
    /// When the daemon was started.
    pub started: Now,
}

/// Why the uplink ended without being asked to. It may be run again, and goes on from what the
/// store knows.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The stores cannot be opened or read at a start.
    #[error("taking up where upstream was left")]
    Resume(#[source] StoreError),
    /// A read of the store panicked.
    #[error("reading what goes upstream")]
    Reader(#[source] JoinError),
}

impl UplinkError {
    /// Whether running again may succeed without anybody repairing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resume(error) => error.is_transient(),
            Self::Reader(_) => true,
        }
    }
}

/// The uplink, which may be run again after it failed.
pub struct Uplink {
    parts: Parts,
    pace: Pace,
}

impl Uplink {
    /// An uplink that does nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts, pace: Pace::default() }
    }

    /// The same with other deadlines and pauses, for tests.
    #[must_use]
    pub fn at_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Runs until `stop`, then sends what there is, says farewell and returns.
    ///
    /// # Errors
    /// [`UplinkError`] when the stores cannot be read at all.
    pub async fn run(&mut self, stop: CancellationToken) -> Result<(), UplinkError> {
        let mut run = Run::begin(&mut self.parts, &self.pace).await?;
        let result = run.until(stop).await;
        run.parts.health.send_modify(|health| "off".clone_into(&mut health.state));
        result
    }
}

/// A blocking call that returns what it was called on, so that one reader serves all calls.
type Call<R, T> = JoinHandle<(R, T)>;

struct JournalAnswer {
    generation: u64,
    head: u64,
    rows: Result<Vec<Committed>, StoreError>,
}

struct RingAnswer {
    generation: u64,
    page: Result<Page, StoreError>,
}

/// One run of the uplink.
struct Run<'a> {
    parts: &'a mut Parts,
    pace: &'a Pace,
    link: Link,
    upstream: Option<Upstream>,
    connection: Option<Connection>,
    /// At home, or out on a call.
    journal: Option<JournalShelf>,
    ring: Option<RingShelf>,
    journal_call: Option<Call<JournalShelf, JournalAnswer>>,
    ring_call: Option<Call<RingShelf, RingAnswer>>,
    /// Asked for while the reader was still out for an earlier connection.
    journal_next: Option<(u64, u64, u64)>,
    ring_next: Option<(PageRequest, u64)>,
    machine_call: Option<JoinHandle<Machine>>,
    cpu: Option<CpuMark>,
    health_at: Duration,
    publish_at: Duration,
    /// Gaps and conditions that wait for the engine; as rare as the outages that cause them.
    waiting: VecDeque<Input>,
    lost_readings: u64,
    lost_events: u64,
    reading_failed: bool,
}

impl<'a> Run<'a> {
    async fn begin(parts: &'a mut Parts, pace: &'a Pace) -> Result<Self, UplinkError> {
        let dir = parts.data_dir.clone();
        let open = tokio::task::spawn_blocking(move || {
            let journal = JournalShelf::open(&dir)?;
            let (events, readings, starts) = journal.left_at()?;
            Ok((journal, RingShelf::open(&dir)?, events, readings, starts))
        });
        let (journal, ring, events, readings, starts) =
            open.await.map_err(UplinkError::Reader)?.map_err(UplinkError::Resume)?;
        let setting = parts.setting.borrow_and_update().clone();
        let upstream = setting.config.upstream.clone();
        let gateway = &setting.config.gateway;
        let now = parts.clock.now();
        let link = Link::new(
            Sender { site: gateway.site.clone(), gateway: gateway.id.clone() },
            Birth {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started: parts.started.utc,
                config_hash: setting.config.hash.clone(),
                epoch: parts.epoch,
            },
            Arc::clone(&setting.plant),
            options(upstream.as_ref(), pace),
            &Resume {
                events,
                readings,
                journal_head: *parts.announcements.journal.borrow_and_update(),
                ring_head: parts.ring_durable.borrow_and_update().0,
                start_number: starts,
                seed: fastrand::u64(..),
            },
            now,
        );
        Ok(Self {
            parts,
            pace,
            link,
            upstream,
            connection: None,
            journal: Some(journal),
            ring: Some(ring),
            journal_call: None,
            ring_call: None,
            journal_next: None,
            ring_next: None,
            machine_call: None,
            cpu: None,
            health_at: Duration::ZERO,
            publish_at: Duration::ZERO,
            waiting: VecDeque::new(),
            lost_readings: 0,
            lost_events: 0,
            reading_failed: false,
        })
    }

    async fn until(&mut self, stop: CancellationToken) -> Result<(), UplinkError> {
        let (to_engine, mut from_uplink) = mpsc::channel::<Input>(TO_ENGINE_MAX);
        let engine = self.parts.engine.clone();
        let forward = async move {
            while let Some(input) = from_uplink.recv().await {
                if engine.send(input).await.is_err() {
                    break;
                }
            }
        };
        tokio::pin!(forward);
        let mut forwarding = true;
        let mut stopping = false;
        loop {
            let now = self.parts.clock.now();
            if self.act(now, &to_engine).await {
                break;
            }
            let sleep = self.sleep();
            // Every branch is cancel-safe: channels and watches keep what is not taken; calls and
            // the connection are borrowed, never dropped half-way.
            tokio::select! {
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    // Rows of the last commits may have been announced a moment ago.
                    self.link.on_journal_head(*self.parts.announcements.journal.borrow());
                    self.link.on_stop(self.parts.clock.now());
                    if self.upstream.is_none() {
                        break;
                    }
                }
                () = &mut forward, if forwarding => forwarding = false,
                () = tokio::time::sleep(sleep) => {}
                event = next_of(&mut self.connection) => self.on_connection(event),
                answer = finished(&mut self.journal_call) => self.on_journal(answer)?,
                answer = finished(&mut self.ring_call) => self.on_ring(answer)?,
                machine = finished(&mut self.machine_call) => self.on_machine(machine),
                row = changed(&mut self.parts.announcements.journal) => {
                    self.link.on_journal_head(row);
                }
                arrival = changed(&mut self.parts.ring_durable) => {
                    self.link.on_ring_head(arrival.0);
                }
                setting = changed(&mut self.parts.setting) => self.on_setting(&setting),
                Some(committed) = self.parts.urgent.recv() => {
                    if self.link.on_urgent(committed) {
                        tracing::warn!("too many alarms wait in memory, the oldest was dropped");
                    }
                }
            }
        }
        drop(to_engine);
        if forwarding && tokio::time::timeout(TO_ENGINE_AT_STOP, forward).await.is_err() {
            tracing::debug!("the engine took no more positions");
        }
        Ok(())
    }

    fn sleep(&self) -> Duration {
        let now = self.parts.clock.now();
        let link = self.upstream.as_ref().and_then(|_| self.link.next_deadline(now));
        let own = [self.publish_at, self.health_at].into_iter().filter(|at| *at > now.mono);
        let until = link.into_iter().chain(own).min().unwrap_or(now.mono + HEALTH_EVERY);
        until.saturating_sub(now.mono)
    }

    /// Carries out all that is due. Returns whether the uplink has stopped.
    async fn act(&mut self, now: Now, to_engine: &mpsc::Sender<Input>) -> bool {
        while let Some(input) = self.waiting.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(input)) = to_engine.try_send(input) {
                self.waiting.push_front(input);
                break;
            }
        }
        if self.upstream.is_some() {
            while let Some(action) = self.link.poll(now) {
                if self.carry_out(now, action, to_engine).await {
                    return true;
                }
            }
        }
        self.health(now);
        false
    }

    async fn carry_out(
        &mut self,
        now: Now,
        action: Action,
        to_engine: &mpsc::Sender<Input>,
    ) -> bool {
        match action {
            Action::Connect { will } => {
                let Some(upstream) = &self.upstream else { return false };
                match Connection::open(upstream, will) {
                    Ok(connection) => self.connection = Some(connection),
                    Err(why) => self.lost(now, &Loss::Refused(why)),
                }
            }
            Action::Drop => self.connection = None,
            Action::Disconnect => {
                if let Some(connection) = self.connection.take() {
                    connection.farewell().await;
                }
            }
            Action::Publish(message) => {
                let handed = self
                    .connection
                    .as_ref()
                    .map_or(Ok(()), |connection| connection.publish(message));
                if let Err(why) = handed {
                    self.lost(now, &Loss::Broken(why));
                }
            }
            Action::ReadJournal { after, head, generation } => {
                self.journal_next = Some((after, head, generation));
                self.call_journal();
            }
            Action::ReadRing { request, generation } => {
                self.ring_next = Some((request, generation));
                self.call_ring();
            }
            Action::Report(position) => {
                if to_engine.try_send(Input::Lane(position)).is_err() {
                    tracing::debug!("the engine is busy: a lane's position is told later");
                }
            }
            Action::Condition(report) => {
                tracing::warn!(active = report.active, "{}", report.message);
                self.waiting.push_back(Input::Condition(report));
            }
            Action::Gap(gap) => {
                tracing::error!(
                    lane = gap.lane,
                    from = gap.from,
                    to = gap.to,
                    count = gap.count,
                    reason = gap.reason,
                    "not sent upstream, and never will be"
                );
                if gap.lane == Lane::Readings.as_str() {
                    self.lost_readings += gap.count;
                } else {
                    self.lost_events += gap.count;
                }
                self.waiting.push_back(Input::Gap(gap));
            }
            Action::Stopped => return true,
        }
        false
    }

    fn call_journal(&mut self) {
        let Some(shelf) = self.journal.take() else { return };
        let Some((after, head, generation)) = self.journal_next.take() else {
            self.journal = Some(shelf);
            return;
        };
        self.journal_call = Some(tokio::task::spawn_blocking(move || {
            let rows = shelf.read(after);
            (shelf, JournalAnswer { generation, head, rows })
        }));
    }

    fn call_ring(&mut self) {
        let Some(mut shelf) = self.ring.take() else { return };
        let Some((request, generation)) = self.ring_next.take() else {
            self.ring = Some(shelf);
            return;
        };
        let plant = Arc::clone(&self.parts.setting.borrow().plant);
        self.ring_call = Some(tokio::task::spawn_blocking(move || {
            let page = shelf.read(&plant, request);
            (shelf, RingAnswer { generation, page })
        }));
    }

    fn on_journal(
        &mut self,
        answer: Result<(JournalShelf, JournalAnswer), JoinError>,
    ) -> Result<(), UplinkError> {
        self.journal_call = None;
        let (shelf, JournalAnswer { generation, head, rows }) =
            answer.map_err(UplinkError::Reader)?;
        self.journal = Some(shelf);
        self.call_journal();
        match rows {
            Ok(rows) => {
                self.reading_failed = false;
                self.link.on_journal_page(generation, head, rows);
            }
            Err(error) => self.read_failed(generation, Lane::Events, &error),
        }
        Ok(())
    }

    fn on_ring(
        &mut self,
        answer: Result<(RingShelf, RingAnswer), JoinError>,
    ) -> Result<(), UplinkError> {
        self.ring_call = None;
        let (shelf, RingAnswer { generation, page }) = answer.map_err(UplinkError::Reader)?;
        self.ring = Some(shelf);
        self.call_ring();
        match page {
            Ok(page) => {
                self.reading_failed = false;
                self.link.on_ring_page(self.parts.clock.now(), generation, page);
            }
            Err(error) => self.read_failed(generation, Lane::Readings, &error),
        }
        Ok(())
    }

    fn read_failed(&mut self, generation: u64, lane: Lane, error: &StoreError) {
        if !std::mem::replace(&mut self.reading_failed, true) {
            let error: &dyn std::error::Error = error;
            tracing::warn!(lane = lane.as_str(), error, "reading what goes upstream failed");
        }
        self.link.on_read_failed(self.parts.clock.now(), generation, lane);
    }

    fn on_connection(&mut self, event: Result<Happened, Loss>) {
        let mut next = Some(event);
        while let Some(event) = next {
            let now = self.parts.clock.now();
            match event {
                Ok(Happened::Connected) => {
                    self.link.on_connected(now);
                    tracing::info!("connected upstream");
                }
                Ok(Happened::Sent(packet)) => self.link.on_sent(packet),
                Ok(Happened::Acknowledged(packet)) => self.link.on_acknowledged(now, packet),
                Err(loss) => {
                    self.lost(now, &loss);
                    return;
                }
            }
            next = self.connection.as_mut().and_then(Connection::try_next).map(Ok);
        }
    }

    fn lost(&mut self, now: Now, loss: &Loss) {
        self.connection = None;
        let before = self.link.health();
        self.link.on_lost(now, loss);
        let after = self.link.health();
        // A lasting trouble is told when it begins or changes, not at every attempt.
        if before.state == "up" || before.last_error != after.last_error {
            let error = after.last_error.as_deref().unwrap_or_default();
            tracing::warn!(error, "no connection upstream");
        }
    }

    fn on_setting(&mut self, setting: &Setting) {
        let upstream = setting.config.upstream.clone();
        let broker = |upstream: &Option<Upstream>| {
            upstream.as_ref().map(|upstream| (upstream.broker.clone(), upstream.qos))
        };
        let reconnect = broker(&upstream) != broker(&self.upstream);
        if reconnect {
            self.connection = None;
        }
        self.upstream = upstream;
        self.link.configure(
            self.parts.clock.now(),
            Arc::clone(&setting.plant),
            setting.config.hash.clone(),
            options(self.upstream.as_ref(), self.pace),
            reconnect,
        );
    }

    /// Tells how the uplink does, and once a minute upstream how the gateway does.
    fn health(&mut self, now: Now) {
        if now.mono >= self.publish_at {
            self.publish_at = now.mono + PUBLISH_EVERY;
            let health = self.link.health();
            let state = if self.upstream.is_some() { health.state } else { "off".to_owned() };
            let health = UplinkHealth { state, ..health };
            self.parts.health.send_if_modified(|told| {
                let differs = *told != health;
                *told = health;
                differs
            });
        }
        if now.mono >= self.health_at && self.link.is_up() {
            self.health_at = now.mono + HEALTH_EVERY;
            let data_dir = self.parts.data_dir.clone();
            self.machine_call = Some(tokio::task::spawn_blocking(move || Machine::look(&data_dir)));
        }
    }

    fn on_machine(&mut self, machine: Result<Machine, JoinError>) {
        self.machine_call = None;
        let Ok(machine) = machine else { return };
        let now = self.parts.clock.now();
        let health = |(name, health): (&SourceId, &watch::Receiver<SourceHealth>)| {
            (name.clone(), health.borrow().clone())
        };
        let figures = health::Figures {
            engine: self.parts.announcements.status.borrow().as_ref().clone(),
            engine_queue: self.parts.engine.depth(),
            sources: self.parts.sources.iter().map(health).collect(),
            uplink: self.link.health(),
            lost_readings: self.lost_readings,
            lost_events: self.lost_events,
        };
        self.link.on_health(now, &health::data(&machine, self.cpu, &figures, now));
        self.cpu = machine.cpu_used.map(|used| CpuMark { at: now.mono, used });
    }
}

/// Without an upstream no reading waits for one.
fn options(upstream: Option<&Upstream>, pace: &Pace) -> LinkOptions {
    let (readings, encoding) = upstream.map_or((ReadingsMode::None, Encoding::Json), |upstream| {
        (upstream.readings, upstream.encoding)
    });
    LinkOptions { pace: pace.clone(), ..LinkOptions::new(readings, encoding) }
}

/// The connection's next event; never, while there is none.
async fn next_of(connection: &mut Option<Connection>) -> Result<Happened, Loss> {
    match connection {
        Some(connection) => connection.next().await,
        None => std::future::pending().await,
    }
}

/// The result of a blocking call; never, while none is under way.
async fn finished<T>(call: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// The next value of a watch; never, once its other end is gone.
async fn changed<T: Clone>(watch: &mut watch::Receiver<T>) -> T {
    if watch.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    watch.borrow_and_update().clone()
}
