//! Alarms: conditions that need a person's response, with the life cycle of ISA-18.2.

use serde::{Deserialize, Serialize};

use super::anomaly::{Fault, Pattern};
use super::ids::{AssetId, EventId, TagId};
use super::severity::Severity;
use super::time::Timestamp;

/// Where an alarm stands (ANSI/ISA-18.2, alarm state transition diagram).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmState {
    /// The condition holds, nobody has said that they know.
    Unacknowledged,
    /// The condition holds, somebody knows.
    Acknowledged,
    /// The condition has ended before anybody said that they know.
    ReturnedUnacknowledged,
    /// Put aside by a person until a time.
    Shelved,
    /// Over.
    Cleared,
}

impl AlarmState {
    /// The word used in messages and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unacknowledged => "unacknowledged",
            Self::Acknowledged => "acknowledged",
            Self::ReturnedUnacknowledged => "returned-unacknowledged",
            Self::Shelved => "shelved",
            Self::Cleared => "cleared",
        }
    }
}

/// Which limit was crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Failure limit from below.
    LowLow,
    /// Warning limit from below.
    Low,
    /// Warning limit from above.
    High,
    /// Failure limit from above.
    HighHigh,
}

impl LimitKind {
    /// The word used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LowLow => "low_low",
            Self::Low => "low",
            Self::High => "high",
            Self::HighHigh => "high_high",
        }
    }
}

/// What an alarm is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum AlarmCause {
    /// A tag is beyond a limit.
    Limit {
        /// Which limit.
        which: LimitKind,
        /// The limit, in the tag's unit.
        limit: f64,
    },
    /// A confirmed anomaly.
    Score {
        /// The event that announced the anomaly.
        anomaly: EventId,
        /// Combined score, 0 to 1.
        score: f64,
        /// Whose trouble it is.
        fault: Fault,
        /// What it looks like.
        pattern: Pattern,
    },
    /// The gateway itself: a silent device, a full disk, a stage that gave up.
    System {
        /// Short stable word for what is wrong, e.g. `source-silent`.
        condition: String,
    },
}

/// An alarm as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its id: that of the event that raised it.
    pub id: EventId,
    /// The asset; `None` for the gateway itself.
    pub asset: Option<AssetId>,
    /// The tag that is most answerable, if one is.
    pub tag: Option<TagId>,
    /// What it is about.
    pub cause: AlarmCause,
    /// How bad.
    pub severity: Severity,
    /// Value at the last change, in the tag's unit; none for system alarms.
    pub value: Option<f64>,
    /// One sentence for a person.
    pub message: String,
    /// Where it stands.
    pub state: AlarmState,
    /// When it was raised.
    pub raised: Timestamp,
    /// When the condition ended.
    pub cleared: Option<Timestamp>,
    /// Why it was closed when not by the condition's end, e.g. `configuration`, `work-order`.
    pub closed_by: Option<String>,
    /// Who acknowledged it.
    pub acknowledged_by: Option<String>,
    /// Until when it is shelved.
    pub shelved_until: Option<Timestamp>,
    /// First event of its chain.
    pub correlation: EventId,
}
