//! Starts and stops the daemon: opens the stores, starts threads and tasks, and stops them in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::engine::{Engine, Start};
use super::engine_thread::{self, Fatal, Outlets};
use super::jobs::Jobs;
use super::parts::{
    ring_reports, start_carrier, start_hearts, start_http, start_sources, start_uplink,
    start_watchdog,
};
use super::shutdown::Asked;
use super::supervisor::Supervisor;
use super::watchdog::Watch;
use super::watchdog::notify;
use super::{boot, deliveries, stages};
use crate::agents::Setting;
use crate::config::{self, Config};
use crate::domain::command::Refusal;
use crate::domain::severity::Severity;
use crate::domain::time::Now;
use crate::http::{self, ReloadRequest, SourceBoard};
use crate::port::{Announcements, ConditionReport, EngineHandle, Input, UplinkHealth};
use crate::sources::notes::Notes;
use crate::store::RingReader;
use crate::store::ring::RingDb;
use crate::store::ring_thread::{RingHandle, RingThread};
use crate::store::state::StateDb;
use crate::store::{DirLock, ErrorKind, LockError, StoreError};
use crate::uplink;

/// Part of `max_disk` that `state.db` may take, its backups and reserve included.
const STATE_SHARE: u64 = 4;
const STOP_SOURCES_MAX: Duration = Duration::from_secs(2);
const STOP_ENGINE_MAX: Duration = Duration::from_secs(4);
const STOP_UPLINK_MAX: Duration = Duration::from_secs(3);
const STOP_REST_MAX: Duration = Duration::from_secs(1);

/// What the daemon is started with.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Where it came from, for reloading.
    pub config_path: Option<PathBuf>,
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another daemon holds the directory, or it cannot be used.
    #[error("taking the data directory {}", dir.display())]
    Lock {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        source: LockError,
    },
    /// A database could not be opened.
    #[error("opening {file} in {}", dir.display())]
    Store {
        /// Which file.
        file: &'static str,
        /// Where.
        dir: PathBuf,
        /// Why.
        source: Box<StoreError>,
    },
    /// The engine could not take up where it left off.
    #[error("taking up where the last run left off")]
    Engine(#[source] super::engine::StartError),
    /// The HTTP address cannot be had.
    #[error("listening on http://{address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("starting thread {name}")]
    Thread {
        /// Which.
        name: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl DaemonError {
    /// The exit code of the process.
    #[must_use]
    pub fn code(&self) -> crate::cli::Code {
        use crate::cli::Code;
        match self {
            Self::Lock { source: LockError::Held { .. }, .. } => Code::Busy,
            Self::Lock { .. } => Code::Config,
            Self::Store { source, .. } => match source.kind() {
                ErrorKind::Unusable | ErrorKind::TooNew | ErrorKind::ReadOnly => Code::Config,
                ErrorKind::IoFailed | ErrorKind::Corrupt => Code::Disk,
                ErrorKind::Full | ErrorKind::Busy | ErrorKind::Other => Code::Failed,
            },
            Self::Engine(_) | Self::Listen { .. } | Self::Thread { .. } => Code::Failed,
        }
    }
}

/// A running daemon.
pub struct Daemon {
    /// For commands and readings from within the process.
    pub engine: EngineHandle,
    /// What the engine announces.
    pub announcements: Announcements,
    /// Where HTTP listens, if it does.
    pub http: Option<SocketAddr>,
    /// How each source does.
    pub sources: watch::Receiver<SourceBoard>,
    board: watch::Sender<SourceBoard>,
    setting: watch::Receiver<Setting>,
    options: DaemonOptions,
    clock: Clock,
    /// What the sources have found out about devices.
    notes: Notes,
    sources_part: Part,
    carrier_part: Part,
    uplink_part: Part,
    http_part: Part,
    engine_thread: JoinHandle<Result<(), Fatal>>,
    engine_ended: oneshot::Receiver<()>,
    ring_thread: JoinHandle<()>,
    ring: RingHandle,
    reloads: mpsc::Receiver<ReloadRequest>,
    fatal: mpsc::Receiver<String>,
    _lock: DirLock,
}

/// Tasks that are stopped together.
pub(super) struct Part {
    pub(super) tasks: Supervisor,
    pub(super) stop: CancellationToken,
}

impl Part {
    fn new(engine: &EngineHandle, clock: &Clock, fatal: &mpsc::Sender<String>) -> Self {
        let stop = CancellationToken::new();
        let tasks = Supervisor::new(engine.clone(), clock.clone(), stop.clone(), fatal.clone());
        Self { tasks, stop }
    }

    async fn end(self, name: &str, patience: Duration) {
        self.stop.cancel();
        if !self.tasks.join(patience).await {
            tracing::warn!(part = name, ?patience, "a part did not stop in time and is dropped");
        }
    }
}

/// Why a running daemon ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The engine's thread ended.
    #[error("the engine ended")]
    Engine(#[source] Fatal),
    /// The engine's thread ended and left no reason.
    #[error("the engine's thread panicked")]
    EnginePanicked,
    /// An essential task was given up.
    #[error("{0}")]
    Task(String),
}

impl Ended {
    /// The exit code of the process.
    #[must_use]
    pub const fn code(&self) -> crate::cli::Code {
        match self {
            Self::Engine(Fatal::Disk(_)) => crate::cli::Code::Disk,
            Self::EnginePanicked | Self::Task(_) => crate::cli::Code::Failed,
        }
    }
}

impl Daemon {
    /// Opens the stores and starts everything. Returns when the store is open and the sources have
    /// been started: the moment of `READY=1`.
    ///
    /// # Errors
    /// [`DaemonError`]; nothing runs then.
    pub async fn start(options: DaemonOptions, clock: Clock) -> Result<Self, DaemonError> {
        let config = options.config.clone();
        let dir = config.gateway.data_dir.clone();
        let lock =
            DirLock::take(&dir).map_err(|source| DaemonError::Lock { dir: dir.clone(), source })?;
        let now = clock.now();
        let Opened { state, ring, setting, epoch, fresh, reports } = open(&config, now)?;
        let start = Start { ring_last: ring.last_arrival(), fresh };
        let history = RingReader::open(&dir).map_err(|source| DaemonError::Store {
            file: "ring.db",
            dir: dir.clone(),
            source: Box::new(source),
        })?;

        let mut watched = Watch::new(clock.clone());
        let (handle, inputs) = EngineHandle::channel();
        let seed = fastrand::u64(..);
        let engine = Engine::start(setting.clone(), state, &stages(), start, seed, now)
            .map_err(DaemonError::Engine)?;
        let notes = Notes::from_records(engine.open_records());
        let journal = engine.last_row();
        let (ring, ring_thread) =
            RingThread::start(ring, config.store.commit_every, ring_reports(handle.clone()))
                .map_err(|source| DaemonError::Thread { name: "ring", source })?;
        let (effects, effects_seen) = mpsc::channel(deliveries::EFFECTS_MAX);
        let (outlets, announcements, urgent, setting_seen) =
            Outlets::new(ring.clone(), effects, journal, setting);
        let (ended, engine_ended) = oneshot::channel();
        let heart = watched.part("engine");
        let engine_thread = {
            let (clock, commit_every) = (clock.clone(), config.store.commit_every);
            let life = move || {
                let result = engine_thread::run(
                    engine,
                    Some(&history),
                    inputs,
                    outlets,
                    clock,
                    commit_every,
                    &heart,
                );
                heart.rest();
                drop(ended);
                result
            };
            let thread = std::thread::Builder::new().name("engine".to_owned());
            thread.spawn(life).map_err(|source| DaemonError::Thread { name: "engine", source })?
        };
        let (jobs, _) = Jobs::start(dir.clone(), setting_seen.clone(), handle.clone())
            .map_err(|source| DaemonError::Thread { name: "jobs", source })?;

        let (fatal_sender, fatal) = mpsc::channel(4);
        let part = || Part::new(&handle, &clock, &fatal_sender);
        let mut carrier_part = part();
        start_carrier(&mut carrier_part, effects_seen, &setting_seen, &handle, jobs);
        let (tasks_heart, ring_heart) = (watched.part("tasks"), watched.part("ring"));
        start_hearts(&mut carrier_part, tasks_heart, ring_heart, ring.clone());

        let mut sources_part = part();
        let source_health =
            start_sources(&mut sources_part, &setting_seen, &handle, &clock, &notes);

        let (board, board_seen) = watch::channel(Arc::new(source_health));
        let tell = clock.clone();
        let tell: Arc<dyn Fn() -> Now + Send + Sync> = Arc::new(move || tell.now());
        let mut uplink_part = part();
        let (uplink_health, uplink_health_seen) = watch::channel(UplinkHealth::default());
        let parts = uplink::Parts {
            setting: setting_seen.clone(),
            data_dir: dir.clone(),
            epoch,
            engine: handle.clone(),
            announcements: announcements.clone(),
            ring_durable: ring.durable(),
            urgent,
            health: uplink_health,
            sources: BTreeMap::clone(&board_seen.borrow()),
            clock: clock.clone(),
            started: now,
        };
        start_uplink(&mut uplink_part, parts);

        let mut http_part = part();
        let (reload, reloads) = mpsc::channel(1);
        let state = http::ApiState {
            engine: handle.clone(),
            announcements: announcements.clone(),
            setting: setting_seen.clone(),
            sources: board_seen.clone(),
            uplink: uplink_health_seen,
            data_dir: dir,
            clock: tell,
            started: now.utc,
            reload: options.config_path.is_some().then_some(reload),
        };
        let http = start_http(&mut http_part, config.http.listen, state).await?;
        start_watchdog(&mut http_part, watched);
        for report in reports {
            handle.send(Input::Condition(report)).await.ok();
        }
        Ok(Self {
            engine: handle,
            announcements,
            http,
            sources: board_seen,
            board,
            setting: setting_seen,
            options,
            clock,
            notes,
            sources_part,
            carrier_part,
            uplink_part,
            http_part,
            engine_thread,
            engine_ended,
            ring_thread,
            ring,
            reloads,
            fatal,
            _lock: lock,
        })
    }

    /// Runs until a signal or a failure ends it, reloading on request; then stops in order.
    ///
    /// # Errors
    /// Why it ended when nobody asked it to.
    pub async fn run(mut self, asked: &mut mpsc::Receiver<Asked>) -> Result<(), Ended> {
        let reason = loop {
            // Cancel-safe: each branch receives a whole message or nothing.
            tokio::select! {
                asked = asked.recv() => match asked {
                    Some(Asked::Reload) => {
                        self.reload().await.ok();
                    }
                    Some(Asked::Stop) | None => break None,
                },
                Some(reply) = self.reloads.recv() => {
                    let result = self.reload().await;
                    // Whoever asked may have gone.
                    reply.send(result.map_err(|refusal| refusal_text(&refusal))).ok();
                }
                Some(task) = self.fatal.recv() => break Some(Ended::Task(task)),
                _ = &mut self.engine_ended => break None,
            }
        };
        let stopped = self.stop().await;
        match reason {
            Some(reason) => Err(reason),
            None => stopped,
        }
    }

    /// Stops in order, each step with a deadline: sources, engine, uplink, HTTP, ring.
    ///
    /// # Errors
    /// When the engine had ended by itself.
    pub async fn stop(self) -> Result<(), Ended> {
        notify(&[NotifyState::Stopping]);
        self.sources_part.end("sources", STOP_SOURCES_MAX).await;
        self.carrier_part.end("deliveries", STOP_REST_MAX).await;
        let (done, durable) = oneshot::channel();
        if self.engine.send(Input::Stop { done }).await.is_ok()
            && tokio::time::timeout(STOP_ENGINE_MAX, durable).await.is_err()
        {
            tracing::warn!(
                "the engine did not commit in time; the next start takes up from the ring"
            );
        }
        self.uplink_part.end("uplink", STOP_UPLINK_MAX).await;
        self.http_part.end("http", STOP_REST_MAX).await;
        let (ring, ring_thread, engine_thread) = (self.ring, self.ring_thread, self.engine_thread);
        drop(self.engine);
        let last = tokio::task::spawn_blocking(move || {
            let engine = engine_thread.join();
            ring.stop();
            if ring_thread.join().is_err() {
                tracing::error!("the ring's thread panicked");
            }
            engine
        });
        match last.await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(fatal))) => Err(Ended::Engine(fatal)),
            Ok(Err(_)) | Err(_) => Err(Ended::EnginePanicked),
        }
    }

    /// Reads the configuration file again. A bad file, or one that changes what needs a restart,
    /// leaves everything as it is and says so.
    async fn reload(&mut self) -> Result<String, Refusal> {
        notify(&[
            NotifyState::Reloading,
            NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Status("reloading")),
        ]);
        let result = self.apply().await;
        match &result {
            Ok(_) => {
                tracing::info!("the configuration was reloaded");
                notify(&[NotifyState::Ready, NotifyState::Status("running")]);
            }
            Err(refusal) => {
                tracing::error!(?refusal, "the configuration was not reloaded; the old one stays");
                notify(&[
                    NotifyState::Ready,
                    NotifyState::Status("running on the old configuration: the new one is refused"),
                ]);
            }
        }
        result
    }

    async fn apply(&mut self) -> Result<String, Refusal> {
        let Some(path) = &self.options.config_path else {
            return Err(Refusal::Invalid("there is no configuration file to read".to_owned()));
        };
        let new = config::load(path).map_err(|mistakes| Refusal::Invalid(mistakes.to_string()))?;
        let old = &self.options.config;
        let fixed = fixed_keys(old, &new);
        if !fixed.is_empty() {
            let keys = fixed.join(", ");
            return Err(Refusal::Invalid(format!("{keys}: a change needs a restart")));
        }
        let new = Arc::new(new);
        let (reply, answer) = oneshot::channel();
        let stopping = || Refusal::Unavailable("the engine is stopping".to_owned());
        self.engine
            .send(Input::Configure { config: new.clone(), reply })
            .await
            .map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())??;
        let same_sources = old.modbus == new.modbus
            && old.mqtt == new.mqtt
            && old.replay == new.replay
            && old.assets == new.assets;
        if !same_sources {
            let (fatal, _) = mpsc::channel(1);
            let fresh = Part::new(&self.engine, &self.clock, &fatal);
            let before = std::mem::replace(&mut self.sources_part, fresh);
            before.end("sources", STOP_SOURCES_MAX).await;
            let health = start_sources(
                &mut self.sources_part,
                &self.setting,
                &self.engine,
                &self.clock,
                &self.notes,
            );
            self.board.send_replace(Arc::new(health));
        }
        let hash = new.hash.clone();
        self.options.config = new;
        Ok(hash)
    }
}

fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotFound(text) | Refusal::Invalid(text) | Refusal::Unavailable(text) => {
            text.clone()
        }
        Refusal::Conflict { detail, .. } => detail.clone(),
    }
}

/// Keys that need a restart and differ.
fn fixed_keys(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut differ = |key, same: bool| {
        if !same {
            keys.push(key);
        }
    };
    differ("gateway.site", old.gateway.site == new.gateway.site);
    differ("gateway.id", old.gateway.id == new.gateway.id);
    differ("gateway.data_dir", old.gateway.data_dir == new.gateway.data_dir);
    differ("store", old.store == new.store);
    differ("http.listen", old.http.listen == new.http.listen);
    keys
}

/// The stores, opened, and what was found.
pub(super) struct Opened {
    pub(super) state: StateDb,
    pub(super) ring: RingDb,
    pub(super) setting: Setting,
    epoch: u64,
    pub(super) fresh: bool,
    pub(super) reports: Vec<ConditionReport>,
}

pub(super) fn open(config: &Arc<Config>, now: Now) -> Result<Opened, DaemonError> {
    let dir = &config.gateway.data_dir;
    let failed = |file| {
        move |source| DaemonError::Store { file, dir: dir.clone(), source: Box::new(source) }
    };
    let boot = boot::current(now);
    let state_bytes = config.store.max_disk / STATE_SHARE;
    let (mut state, state_found) =
        StateDb::open(dir, state_bytes, &boot).map_err(failed("state.db"))?;
    let (mut ring, ring_found) =
        RingDb::open(dir, config.store.max_disk - state_bytes, &boot).map_err(failed("ring.db"))?;
    let paths: Vec<_> = config.tags().map(|(_, tag, _)| tag.path.clone()).collect();
    let keys = state.tag_keys(&paths).map_err(failed("state.db"))?;
    // A lost state.db gets its numbers back from the ring.
    ring.name_tags(&keys).map_err(failed("ring.db"))?;
    let setting = Setting { plant: Arc::new(config.plant(&keys)), config: config.clone() };
    let mut reports = Vec::new();
    for (file, found) in [("state.db", &state_found), ("ring.db", &ring_found)] {
        if let Some(place) = &found.quarantined {
            let salvaged = found.salvaged.as_deref().unwrap_or("nothing could be saved");
            reports.push(ConditionReport {
                condition: "storage-corrupt".to_owned(),
                subject: file.to_owned(),
                active: true,
                severity: Severity::High,
                message: format!(
                    "{file} was corrupt and was moved to {}; {salvaged}",
                    place.display()
                ),
            });
        }
    }
    Ok(Opened { state, ring, setting, epoch: state_found.epoch, fresh: state_found.fresh, reports })
}
