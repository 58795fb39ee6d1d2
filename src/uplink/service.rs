//! The uplink's task: carries out what the [`Link`] asks for, and tells it what happened.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cloudevents::{Birth, Sender};
use super::event_lane::PAGE_ROWS;
use super::health::{self, CpuMark, HEALTH_EVERY, Machine};
use super::link::{Action, Link, LinkOptions, Resume};
use super::mqtt::{Connection, Happened};
use super::reading_lane::{PAGE_READINGS, Page, PageRequest};
use super::session::{Loss, Pace};
use crate::agents::Setting;
use crate::config::{Encoding, ReadingsMode, Upstream};
use crate::domain::ids::{Arrival, SourceId};
use crate::domain::time::Now;
use crate::port::{
    Announcements, Committed, EngineHandle, Input, Lane, SourceHealth, UplinkHealth,
};

/// Reports to the engine that may wait while its queue is full. Positions beyond are dropped (the
/// next one says more), gaps and conditions wait in [`Uplink`].
const TO_ENGINE_MAX: usize = 64;
/// Health is published at most this often while the state stays.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// Tells the time.
pub type TellTime = Arc<dyn Fn() -> Now + Send + Sync>;
/// Reads committed rows after a row, in order, at most so many. Runs on a blocking thread; the
/// error is for the log.
pub type ReadJournal = Arc<dyn Fn(u64, usize) -> Result<Vec<Committed>, String> + Send + Sync>;
/// Reads a page of the ring of at most so many readings. Runs on a blocking thread.
pub type ReadRing = Arc<dyn Fn(PageRequest, usize) -> Result<Page, String> + Send + Sync>;

/// What the uplink is made of.
pub struct UplinkParts {
    /// The configuration in force.
    pub setting: watch::Receiver<Setting>,
    /// Who speaks.
    pub sender: Sender,
    /// What `gateway.online` says.
    pub birth: Birth,
    /// Where the lanes were left, where the store stands.
    pub resume: Resume,
    /// The journal.
    pub journal: ReadJournal,
    /// The ring.
    pub ring: ReadRing,
    /// The engine's inputs.
    pub engine: EngineHandle,
    /// What the engine tells.
    pub announcements: Announcements,
    /// Newest durable reading.
    pub ring_head: watch::Receiver<Arrival>,
    /// Alarms released while the store cannot commit.
    pub urgent: mpsc::Receiver<Committed>,
    /// Where the uplink's own health is told.
    pub health: watch::Sender<UplinkHealth>,
    /// Health of the sources.
    pub sources: Vec<(SourceId, watch::Receiver<SourceHealth>)>,
    /// For the disk figures.
    pub data_dir: PathBuf,
    /// The clock.
    pub clock: TellTime,
    /// Deadlines and pauses; [`Pace::default`] but in tests.
    pub pace: Pace,
}

type JournalAnswer = (u64, u64, Result<Vec<Committed>, String>);
type RingAnswer = (u64, Result<Page, String>);

/// The uplink's task.
pub struct Uplink {
    parts: UplinkParts,
    link: Link,
    upstream: Option<Upstream>,
    connection: Option<Connection>,
    journal_read: Option<JoinHandle<JournalAnswer>>,
    ring_read: Option<JoinHandle<RingAnswer>>,
    machine_look: Option<JoinHandle<Machine>>,
    cpu: Option<CpuMark>,
    health_at: Duration,
    publish_at: Duration,
    /// Gaps and conditions that wait for the engine; as rare as the outages that cause them.
    waiting: VecDeque<Input>,
    lost_readings: u64,
    lost_events: u64,
    reading_failed: bool,
}

impl Uplink {
    /// An uplink that has not connected yet.
    #[must_use]
    pub fn new(parts: UplinkParts) -> Self {
        let setting = parts.setting.borrow().clone();
        let upstream = setting.config.upstream.clone();
        let now = (parts.clock)();
        let link = Link::new(
            parts.sender.clone(),
            parts.birth.clone(),
            Arc::clone(&setting.plant),
            options(upstream.as_ref(), &parts.pace),
            &parts.resume,
            now,
        );
        Self {
            link,
            upstream,
            connection: None,
            journal_read: None,
            ring_read: None,
            machine_look: None,
            cpu: None,
            health_at: Duration::ZERO,
            publish_at: Duration::ZERO,
            waiting: VecDeque::new(),
            lost_readings: 0,
            lost_events: 0,
            reading_failed: false,
            parts,
        }
    }

    /// Runs until `stop`, then sends what there is, says farewell and returns.
    pub async fn run(mut self, stop: CancellationToken) {
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
            let now = (self.parts.clock)();
            if self.act(now, &to_engine).await {
                break;
            }
            let sleep = self.sleep();
            // Every branch is cancel-safe: channels and watches keep what is not taken, join
            // handles and the connection are borrowed, never dropped.
            tokio::select! {
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.link.on_stop((self.parts.clock)());
                    if self.upstream.is_none() {
                        break;
                    }
                }
                () = &mut forward, if forwarding => forwarding = false,
                () = tokio::time::sleep(sleep) => {}
                event = next_of(&mut self.connection) => self.on_connection(event),
                answer = finished(&mut self.journal_read) => self.on_journal(answer),
                answer = finished(&mut self.ring_read) => self.on_ring(answer),
                machine = finished(&mut self.machine_look) => self.on_machine(machine),
                row = changed(&mut self.parts.announcements.journal) => {
                    self.link.on_journal_head(row);
                }
                arrival = changed(&mut self.parts.ring_head) => self.link.on_ring_head(arrival.0),
                setting = changed(&mut self.parts.setting) => self.on_setting(&setting),
                Some(committed) = self.parts.urgent.recv() => {
                    if self.link.on_urgent(committed) {
                        tracing::warn!("too many alarms wait in memory, the oldest was dropped");
                    }
                }
            }
        }
        // What the lanes reached last is worth a moment, but not more: it costs only repeats.
        drop(to_engine);
        if forwarding && tokio::time::timeout(Duration::from_secs(1), forward).await.is_err() {
            tracing::debug!("the engine took no more positions");
        }
        self.tell_health("off");
    }

    fn sleep(&self) -> Duration {
        let now = (self.parts.clock)();
        let link = self.upstream.as_ref().and_then(|_| self.link.next_deadline(now));
        let mut until = now.mono + HEALTH_EVERY;
        for deadline in link.into_iter().chain([self.publish_at, self.health_at]) {
            if deadline > now.mono || Some(deadline) == link {
                until = until.min(deadline);
            }
        }
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
            Action::Connect { will, generation: _ } => {
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
                let read = Arc::clone(&self.parts.journal);
                self.journal_read = Some(tokio::task::spawn_blocking(move || {
                    (generation, head, read(after, PAGE_ROWS))
                }));
            }
            Action::ReadRing { request, generation } => {
                let read = Arc::clone(&self.parts.ring);
                self.ring_read = Some(tokio::task::spawn_blocking(move || {
                    (generation, read(request, PAGE_READINGS))
                }));
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

    fn on_connection(&mut self, event: Result<Happened, Loss>) {
        let mut next = Some(event);
        while let Some(event) = next {
            let now = (self.parts.clock)();
            match event {
                Ok(Happened::Connected) => {
                    self.link.on_connected(now);
                    tracing::info!("connected to the broker upstream");
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

    fn on_journal(&mut self, answer: Result<JournalAnswer, tokio::task::JoinError>) {
        self.journal_read = None;
        let now = (self.parts.clock)();
        match answer {
            Ok((generation, head, Ok(rows))) => {
                self.reading_failed = false;
                self.link.on_journal_page(generation, head, rows);
            }
            Ok((generation, _, Err(error))) => {
                self.read_failed(&error);
                self.link.on_read_failed(now, generation, Lane::Events);
            }
            Err(error) => {
                self.read_failed(&error.to_string());
                self.link.on_read_failed(now, self.link.generation(), Lane::Events);
            }
        }
    }

    fn on_ring(&mut self, answer: Result<RingAnswer, tokio::task::JoinError>) {
        self.ring_read = None;
        let now = (self.parts.clock)();
        match answer {
            Ok((generation, Ok(page))) => {
                self.reading_failed = false;
                self.link.on_ring_page(now, generation, page);
            }
            Ok((generation, Err(error))) => {
                self.read_failed(&error);
                self.link.on_read_failed(now, generation, Lane::Readings);
            }
            Err(error) => {
                self.read_failed(&error.to_string());
                self.link.on_read_failed(now, self.link.generation(), Lane::Readings);
            }
        }
    }

    fn read_failed(&mut self, error: &str) {
        if !std::mem::replace(&mut self.reading_failed, true) {
            tracing::warn!(error, "reading what goes upstream");
        }
    }

    fn on_setting(&mut self, setting: &Setting) {
        let now = (self.parts.clock)();
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
            now,
            Arc::clone(&setting.plant),
            setting.config.hash.clone(),
            options(self.upstream.as_ref(), &self.parts.pace),
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
        if now.mono >= self.health_at && self.connection.is_some() && self.link.is_up() {
            self.health_at = now.mono + HEALTH_EVERY;
            let data_dir = self.parts.data_dir.clone();
            self.machine_look = Some(tokio::task::spawn_blocking(move || Machine::look(&data_dir)));
        }
    }

    fn tell_health(&self, state: &str) {
        self.parts.health.send_modify(|health| state.clone_into(&mut health.state));
    }

    fn on_machine(&mut self, machine: Result<Machine, tokio::task::JoinError>) {
        self.machine_look = None;
        let Ok(machine) = machine else { return };
        let now = (self.parts.clock)();
        let figures = health::Figures {
            engine: self.parts.announcements.status.borrow().as_ref().clone(),
            engine_queue: self.parts.engine.depth(),
            sources: self
                .parts
                .sources
                .iter()
                .map(|(name, health)| (name.clone(), health.borrow().clone()))
                .collect::<BTreeMap<_, _>>(),
            uplink: self.link.health(),
            lost_readings: self.lost_readings,
            lost_events: self.lost_events,
        };
        self.link.on_health(now, &health::data(&machine, self.cpu, &figures, now));
        self.cpu = machine.cpu_used.map(|used| CpuMark { at: now.mono, used });
    }
}

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
async fn finished<T>(call: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
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
