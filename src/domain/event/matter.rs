//! What events are about where no noun of its own stands for it: phases, actions, messages, jobs.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{AssetId, EventId, TagId};
use crate::domain::model::Training;
use crate::domain::prognosis::HealthIndex;
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;

/// How far an asset's baseline is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Cannot know yet.
    Learning,
    /// Knows little: wider limits.
    Provisional,
    /// Knows.
    Armed,
}

/// What orchestration does about a validated anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Plan an order without asking.
    Act,
    /// Ask a person whether to plan one.
    Ask,
    /// Only keep an eye on it.
    Watch,
}

impl Action {
    /// The word used in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Ask => "ask",
            Self::Watch => "watch",
        }
    }
}

/// State of an asset as subscribers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetState {
    /// The asset.
    pub asset: AssetId,
    /// How far its baseline is learnt.
    pub phase: Phase,
    /// 1 as new, 0 failed.
    pub health: HealthIndex,
    /// Severity of its worst open alarm.
    pub worst_alarm: Option<Severity>,
    /// Its open work order.
    pub work_order: Option<EventId>,
    /// Median remaining useful life in seconds, when a prediction stands.
    pub rul_p50: Option<f64>,
    /// Anything the operator must know, e.g. that the baseline is being refilled.
    pub notes: Vec<String>,
}

/// A message to people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `console`, `email`, `webhook` or `mqtt`.
    pub channel: String,
    /// For whom: technicians' ids, roles or addresses.
    pub recipients: Vec<String>,
    /// Which text, e.g. `alarm-raised`.
    pub template: String,
    /// How urgent.
    pub severity: Severity,
    /// One line.
    pub subject: String,
    /// The text.
    pub text: String,
    /// Deliveries tried so far.
    pub attempts: u32,
}

/// What a job is to compute. Results name the state they were computed from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum JobSpec {
    /// Follow a tag's way to its failure limit.
    Degradation {
        /// The asset.
        asset: AssetId,
        /// The tag.
        tag: TagId,
        /// The failure limit, in the tag's unit.
        limit: f64,
        /// Whether failure lies above (`true`) or below.
        upward: bool,
        /// Readings from here on belong to the present life of the part.
        from: Option<Timestamp>,
        /// Readings up to here.
        to: Timestamp,
    },
    /// Learn a model from ended lives.
    Train(Training),
    /// What models say of the machine now.
    Consult {
        /// The asset.
        asset: AssetId,
        /// Which models; those gone meanwhile are left out.
        models: Vec<EventId>,
        /// Readings from here on belong to the present life.
        from: Timestamp,
        /// Readings up to here.
        to: Timestamp,
    },
}

impl JobSpec {
    /// The asset concerned.
    #[must_use]
    pub const fn asset(&self) -> &AssetId {
        match self {
            Self::Degradation { asset, .. } | Self::Consult { asset, .. } => asset,
            Self::Train(training) => &training.asset,
        }
    }
}

/// What was said under a clock that was not believed: either numbers of a topic class, or times of
/// readings as they were told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClockRange {
    /// The topic class, or `readings`.
    pub class: String,
    /// First and last sequence number of the class.
    #[serde(default)]
    pub sequences: Option<(u64, u64)>,
    /// First and last time of the readings, as that clock said.
    #[serde(default)]
    pub times: Option<(Timestamp, Timestamp)>,
    /// What is to be added to the times, in seconds.
    pub offset: f64,
}
