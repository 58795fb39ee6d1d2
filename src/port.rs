//! The ports of the engine: what the shells hand in, and what they are told after a commit.
//!
//! Shells (`sources`, `uplink`, `http`, `notify`) know this module and the domain, never the
//! engine itself; `runtime` connects the two ends. All queues are bounded; ARCHITECTURE.md has
//! the table of their bounds and policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::agents::Delivery;
use crate::config::Config;
use crate::domain::command::{Command, CommandResult, Refusal};
use crate::domain::event::{Class, Event, JobSpec};
use crate::domain::ids::{Arrival, EventId};
use crate::domain::reading::RawBatch;
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;

/// Inputs that may wait for the engine. Sources wait when it is full, so a slow engine slows the
/// polls instead of losing them.
pub const INPUTS_MAX: usize = 256;
/// Committed events that a slow listener (dashboard, demo) may lag behind before it loses some.
pub const LISTENER_LAG_MAX: usize = 1024;
/// Alarms that may wait for the uplink while the store cannot commit.
pub const URGENT_MAX: usize = 1024;

/// What the engine takes in; each one is a turn.
#[derive(Debug)]
pub enum Input {
    /// Raw values of a source.
    Readings(RawBatch),
    /// A person's command; answered after the commit.
    Command {
        /// What, and who.
        command: Command,
        /// Told after the commit.
        reply: oneshot::Sender<CommandResult>,
    },
    /// A job has answered.
    JobFinished {
        /// Which.
        job: EventId,
        /// What it was asked.
        spec: JobSpec,
        /// What it found, or why it failed.
        result: Result<Value, String>,
    },
    /// A job has learnt a model.
    ModelLearnt {
        /// Which.
        job: EventId,
        /// What it was asked.
        spec: JobSpec,
        /// What is to be known of the model.
        facts: Value,
        /// The model, as a file.
        bytes: Vec<u8>,
    },
    /// The delivery of a message has ended.
    Delivered(Delivery),
    /// Something of ours began or ended: a silent source, a full disk.
    Condition(ConditionReport),
    /// Readings or events are missing upstream.
    Gap(GapReport),
    /// How far upstream has acknowledged; saved with the next commit.
    Lane(LanePosition),
    /// A new configuration, already checked.
    Configure {
        /// What is in force from now on.
        config: Arc<Config>,
        /// Told after the commit.
        reply: oneshot::Sender<CommandResult>,
    },
    /// What a source has found out about a device; kept as a record.
    Note(SourceNote),
    /// Commit what is there, save what was learnt, and stop.
    Stop {
        /// Told when all is durable.
        done: oneshot::Sender<()>,
    },
}

/// A condition of the gateway itself. Reporting the same state again changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionReport {
    /// Short stable word: `source-silent`, `point-refused`, `storage-full`, `storage-corrupt`,
    /// `upstream-stalled` …
    pub condition: String,
    /// What it is about, e.g. the source's name.
    pub subject: String,
    /// Whether it holds now.
    pub active: bool,
    /// How bad.
    pub severity: Severity,
    /// One sentence for a person.
    pub message: String,
}

/// Something a source has found out about a device and is handed back after a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceNote {
    /// What it is about, e.g. `modbus/plc1/3`; a later note of this id replaces it.
    pub id: String,
    /// What was found; `None` when there is nothing to know any more.
    pub body: Option<Value>,
}

/// Rows that will never be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct GapReport {
    /// `readings`, or the class of the events.
    pub lane: String,
    /// First number missing.
    pub from: u64,
    /// Last number missing.
    pub to: u64,
    /// How many.
    pub count: u64,
    /// Why.
    pub reason: String,
}

/// The two lanes upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// The journal.
    Events,
    /// The ring.
    Readings,
}

impl Lane {
    /// The word in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Readings => "readings",
        }
    }
}

/// How far upstream has acknowledged a lane. Numbers are journal rows or arrival numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanePosition {
    /// Which lane.
    pub lane: Lane,
    /// All numbers below this one are acknowledged (or given up and announced).
    pub below: u64,
    /// Ranges at or above `below` that were sent ahead, both ends included, in order, apart.
    pub ahead: Vec<(u64, u64)>,
}

impl LanePosition {
    /// Nothing acknowledged yet.
    #[must_use]
    pub const fn start(lane: Lane) -> Self {
        Self { lane, below: 1, ahead: Vec::new() }
    }
}

/// A committed event with its place in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Row in the journal; grows, may have holes after retention.
    pub row: u64,
    /// Number within its topic class, for events that go upstream.
    pub sequence: Option<(Class, u64)>,
    /// The event.
    pub event: Event,
    /// False while the store cannot commit: the event was released from memory.
    pub durable: bool,
}

/// The shells' end of the engine's input queue.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    inputs: mpsc::Sender<Input>,
}

/// The engine has stopped and takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineStopped;

impl EngineHandle {
    /// A handle and the receiving end for the engine.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Input>) {
        let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
        (Self { inputs }, receiver)
    }

    /// Hands in an input, waiting while the queue is full.
    ///
    /// # Errors
    /// [`EngineStopped`] when nobody listens any more.
    pub async fn send(&self, input: Input) -> Result<(), EngineStopped> {
        self.inputs.send(input).await.map_err(|_| EngineStopped)
    }

    /// The same from a thread without a runtime.
    ///
    /// # Errors
    /// [`EngineStopped`] when nobody listens any more.
    pub fn blocking_send(&self, input: Input) -> Result<(), EngineStopped> {
        self.inputs.blocking_send(input).map_err(|_| EngineStopped)
    }

    /// Carries out a command and waits for its commit.
    ///
    /// # Errors
    /// The refusal; [`Refusal::Unavailable`] when the engine is stopping.
    pub async fn command(&self, command: Command) -> CommandResult {
        let stopped = || Refusal::Unavailable(EngineStopped.to_string());
        let (reply, answer) = oneshot::channel();
        self.send(Input::Command { command, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Inputs now waiting.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.inputs.max_capacity() - self.inputs.capacity()
    }
}

/// What the engine tells the shells after each commit.
#[derive(Debug, Clone)]
pub struct Announcements {
    /// Last committed journal row; the uplink wakes on it and reads the journal itself.
    pub journal: watch::Receiver<u64>,
    /// Committed events, for live listeners.
    pub events: broadcast::Sender<Arc<Committed>>,
    /// The engine's state as last published (at most once a second).
    pub status: watch::Receiver<Arc<EngineStatus>>,
}

/// The engine's state, for `ctl status`, `/stages` and `/readyz`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineStatus {
    /// Per stage, in pipeline order.
    pub stages: Vec<StageStatus>,
    /// Last reading taken in.
    pub seen: Arrival,
    /// Whether `state.db` commits.
    pub durable: bool,
    /// Events committed since the start.
    pub events: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Stages whose windows are still being refilled from the ring.
    pub refilling: bool,
}

/// One stage's state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageStatus {
    /// Its name.
    pub name: &'static str,
    /// `running` or `off`.
    pub state: &'static str,
    /// Events it has handled since the start.
    pub handled: u64,
    /// Events it failed on since the start.
    pub failures: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// How a source does, published by its task on a watch channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SourceHealth {
    /// `starting`, `up`, `degraded` (some units or points fail) or `down`.
    pub state: String,
    /// When it last answered.
    pub last_answer: Option<Timestamp>,
    /// Polls or messages that brought values.
    pub good: u64,
    /// Polls or messages that failed.
    pub failed: u64,
    /// Polls left out because an earlier one took too long.
    pub missed: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Anything else worth knowing, by name (e.g. unit states, unknown topics).
    pub details: BTreeMap<String, String>,
    /// What came under a wildcard and is no declared tag; asked for by itself, as it may be long.
    #[serde(skip)]
    pub unknown: Arc<[UnknownSeries]>,
    /// What its line's time goes to, for sources that are polled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<BusLoad>,
}

/// What the time of a line goes to. Shares are of the last ten seconds, 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BusLoad {
    /// Share of the line's time that requests took, those of other sources on it included.
    pub line_share: f64,
    /// Of these, requests without an answer.
    pub dead_share: f64,
    /// The units of this source.
    pub units: BTreeMap<u8, UnitLoad>,
    /// How long after its tick a poll had its last answer.
    pub lateness: Lateness,
}

/// What one unit takes of its line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct UnitLoad {
    /// Share of the line's time.
    pub share: f64,
    /// Seconds since the start.
    pub busy_seconds: f64,
}

/// How late polls are: a histogram over the whole run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(into = "LatenessSummary")]
pub struct Lateness {
    /// Polls by bucket; the last one holds those beyond all bounds.
    counts: [u64; Lateness::BOUNDS.len() + 1],
    sum_seconds: f64,
}

/// What people are told of a [`Lateness`].
#[derive(Debug, Clone, Serialize)]
struct LatenessSummary {
    polls: u64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

impl From<Lateness> for LatenessSummary {
    fn from(lateness: Lateness) -> Self {
        let finite = |share| lateness.quantile(share).filter(|bound| bound.is_finite());
        Self { polls: lateness.polls(), p50_seconds: finite(0.5), p99_seconds: finite(0.99) }
    }
}

impl Lateness {
    /// Upper bounds of the buckets, in seconds.
    pub const BOUNDS: [f64; 12] =
        [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

    /// One more poll, this late.
    pub fn count(&mut self, by: Duration) {
        let by = by.as_secs_f64();
        self.counts[Self::BOUNDS.partition_point(|bound| *bound < by)] += 1;
        self.sum_seconds += by;
    }

    /// How many polls were counted.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Polls within each of [`Self::BOUNDS`], and their lateness in all, in seconds.
    #[must_use]
    pub fn cumulative(&self) -> (Vec<(f64, u64)>, f64) {
        let mut within = 0;
        let rows = Self::BOUNDS.iter().zip(&self.counts).map(|(&bound, count)| {
            within += count;
            (bound, within)
        });
        (rows.collect(), self.sum_seconds)
    }

    /// The bound, in seconds, below which this share of the polls lies; infinite beyond the last,
    /// `None` when there were none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let polls = self.polls();
        if polls == 0 {
            return None;
        }
        let wanted = share * polls as f64;
        let mut within = 0_u64;
        for (bound, count) in Self::BOUNDS.iter().chain([&f64::INFINITY]).zip(&self.counts) {
            within += count;
            if within as f64 >= wanted {
                return Some(*bound);
            }
        }
        Some(f64::INFINITY)
    }
}

/// A series that no tag is declared for: listed, not stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnknownSeries {
    /// Its topic, or node, device and metric.
    pub name: String,
    /// Messages since the start.
    pub count: u64,
    /// When the last one came.
    pub last: Timestamp,
    /// The beginning of its first payload, escaped.
    pub sample: String,
}

/// How the uplink does.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UplinkHealth {
    /// `off`, `connecting`, `up` or `stalled`.
    pub state: String,
    /// Since when, in UTC.
    pub since: Option<Timestamp>,
    /// Events not yet acknowledged.
    pub events_waiting: u64,
    /// Readings not yet acknowledged.
    pub readings_waiting: u64,
    /// Round trip of the last acknowledgement.
    pub last_round_trip: Option<Duration>,
    /// What went wrong last.
    pub last_error: Option<String>,
}
