//! Anomalies: statistics found something unusual. It may mean nothing; a verdict says.

use serde::{Deserialize, Serialize};

use super::ids::{AssetId, EventId, TagId};
use super::severity::Severity;
use super::time::Timestamp;

/// Whose trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The machine behaves differently.
    Machine,
    /// The sensor does; the machine may be well. Starts no prediction and no order.
    Sensor,
}

/// What the departure looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// One or a few values far out.
    Spike,
    /// Slowly away from normal.
    Drift,
    /// No longer moving.
    Stuck,
    /// Moved by a constant.
    Offset,
    /// More scatter than normal.
    Noise,
    /// Another level.
    Level,
    /// Tags no longer fit together.
    Shape,
}

impl Pattern {
    /// The word used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spike => "spike",
            Self::Drift => "drift",
            Self::Stuck => "stuck",
            Self::Offset => "offset",
            Self::Noise => "noise",
            Self::Level => "level",
            Self::Shape => "shape",
        }
    }
}

/// What one detector says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectorScore {
    /// Name of the detector, e.g. `robust`, `multivariate`, `stuck`.
    pub detector: String,
    /// Its score in [0, 1]; larger is stranger.
    pub score: f64,
}

/// What speaks for an anomaly, per tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Which tag.
    pub tag: TagId,
    /// Its value, in its unit.
    pub value: f64,
    /// What was expected instead, in its unit.
    pub expected: f64,
    /// Distance from the expectation in robust standard deviations, signed.
    pub sigma: f64,
    /// Share of the score this tag is answerable for, 0 to 1.
    pub contribution: f64,
}

/// Something unusual about an asset. Carries the values it rests on, so that it can be understood
/// when the readings are gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// The asset concerned.
    pub asset: AssetId,
    /// Tags involved, the most answerable first; never empty.
    pub tags: Vec<TagId>,
    /// Whose trouble it is.
    pub fault: Fault,
    /// What it looks like.
    pub pattern: Pattern,
    /// What the detectors say.
    pub detectors: Vec<DetectorScore>,
    /// Combined score in [0, 1].
    pub score: f64,
    /// How sure the detection is that this is no chance, 0 to 1.
    pub confidence: f64,
    /// How bad it would be.
    pub severity: Severity,
    /// Per tag, the values it rests on.
    pub evidence: Vec<Evidence>,
    /// Since when the departure has been seen (time of the readings).
    pub since: Timestamp,
}

/// What validation concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is real.
    Confirmed,
    /// It is not.
    Dismissed,
    /// It cannot be told.
    Inconclusive,
}

impl Verdict {
    /// The word used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Dismissed => "dismissed",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A named amount by which validation moved the confidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adjustment {
    /// Why, in words for a person.
    pub reason: String,
    /// By how much, −1 to 1.
    pub amount: f64,
}

/// Validation's judgement of one anomaly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// The event that announced the anomaly.
    pub anomaly_id: EventId,
    /// The anomaly as it is known now.
    pub anomaly: Anomaly,
    /// What was concluded.
    pub verdict: Verdict,
    /// Confidence after all adjustments, 0 to 1.
    pub confidence: f64,
    /// What moved it.
    pub adjustments: Vec<Adjustment>,
}
