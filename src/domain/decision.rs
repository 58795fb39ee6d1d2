//! Questions to a person, with a deadline and a default.

use serde::{Deserialize, Serialize};

use super::ids::{AssetId, EventId, TechnicianId};
use super::severity::Severity;
use super::time::Timestamp;
use super::work_order::OrderRequest;

/// What a person, or the deadline, can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// Plan the order as proposed.
    Approve,
    /// Plan it with changes.
    Modify,
    /// Do not plan it.
    Reject,
    /// Ask again later.
    Defer,
}

impl Choice {
    /// All choices, in the order they are offered.
    pub const ALL: [Self; 4] = [Self::Approve, Self::Modify, Self::Reject, Self::Defer];

    /// The word used in configuration and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Modify => "modify",
            Self::Reject => "reject",
            Self::Defer => "defer",
        }
    }
}

/// What a `modify` changes; what is absent stays as proposed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// Do it by this person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub technician: Option<TechnicianId>,
    /// Not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// It takes this long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// It needs these skills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<String>>,
}

/// A question as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id: that of the event that first asked.
    pub id: EventId,
    /// The asset concerned.
    pub asset: AssetId,
    /// What would be planned.
    pub order: OrderRequest,
    /// Why, in one sentence for a person.
    pub question: String,
    /// How urgent the answer is.
    pub severity: Severity,
    /// When the default applies, in UTC.
    pub deadline: Timestamp,
    /// What happens at the deadline.
    pub default: Choice,
    /// How often it has been asked (1 the first time).
    pub asked: u32,
    /// The answer, once there is one.
    pub answer: Option<Answer>,
    /// First event of its chain.
    pub correlation: EventId,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What was chosen.
    pub choice: Choice,
    /// By whom; `deadline` when nobody answered.
    pub by: String,
    /// Why, as the person put it.
    pub reason: Option<String>,
    /// What a `modify` changes.
    pub changes: Option<Changes>,
    /// When.
    pub time: Timestamp,
}
