//! Work orders: authorised maintenance tasks, their states, and who can do them.

use serde::{Deserialize, Serialize};

use super::ids::{AssetId, EventId, TechnicianId};
use super::severity::Severity;
use super::time::Timestamp;

/// A piece of work that shall be planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderRequest {
    /// The asset concerned.
    pub asset: AssetId,
    /// What to do, in one sentence.
    pub task: String,
    /// Skills that are all needed.
    pub skills: Vec<String>,
    /// How long it takes, in seconds.
    pub duration_seconds: f64,
    /// How urgent.
    pub priority: Severity,
    /// Not before; none for at once.
    pub not_before: Option<Timestamp>,
    /// When it ought to be done: the prediction's pessimistic failure time.
    pub due: Option<Timestamp>,
    /// Only this person, if asked for.
    pub technician: Option<TechnicianId>,
    /// The alarms that are closed when it is completed.
    pub alarms: Vec<EventId>,
    /// The anomaly behind it, if one is.
    pub anomaly: Option<EventId>,
}

/// Where a work order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderState {
    /// No slot was found; looked for again when something changes.
    Unschedulable,
    /// Has a person and a time.
    Planned,
    /// Its time has come.
    Started,
    /// Done.
    Completed,
    /// Tried, did not help.
    Failed,
    /// Called off.
    Cancelled,
}

impl OrderState {
    /// The word used in messages and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unschedulable => "unschedulable",
            Self::Planned => "planned",
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing further can happen to the order.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Whether the order may pass from this state to `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Unschedulable, Self::Planned | Self::Cancelled | Self::Completed | Self::Failed)
                | (
                    Self::Planned,
                    Self::Planned
                        | Self::Started
                        | Self::Cancelled
                        | Self::Completed
                        | Self::Failed
                        | Self::Unschedulable
                )
                | (Self::Started, Self::Planned | Self::Completed | Self::Failed | Self::Cancelled)
        )
    }
}

/// Who does it, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Booking {
    /// Who.
    pub technician: TechnicianId,
    /// From.
    pub start: Timestamp,
    /// To.
    pub end: Timestamp,
}

/// A work order as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkOrder {
    /// Its id: that of the event that asked for it.
    pub id: EventId,
    /// What shall be done.
    pub request: OrderRequest,
    /// Who and when; none while unschedulable.
    pub booking: Option<Booking>,
    /// Where it stands.
    pub state: OrderState,
    /// Whether it lies after its due time.
    pub late: bool,
    /// Why it was planned so, or could not be.
    pub reasons: Vec<String>,
    /// Who authorised it: a name, `policy`, or `deadline`.
    pub authorised_by: String,
    /// First event of its chain.
    pub correlation: EventId,
}

/// How a work order ended, as the technician says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Repaired; parts were replaced or set right: the machine is as new in this respect.
    Fixed,
    /// Looked at; nothing was wrong.
    NoFaultFound,
    /// Done in part; more is needed.
    Partial,
    /// Tried, did not help.
    Failed,
}

/// What the technician reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, e.g. `outer race spalled`.
    #[serde(default)]
    pub found: Option<String>,
    /// Anything else.
    #[serde(default)]
    pub notes: Option<String>,
    /// How long it took, in seconds.
    #[serde(default)]
    pub duration: Option<f64>,
    /// Who says so.
    #[serde(default)]
    pub by: Option<String>,
}

/// What was done to a machine, as the logbook keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The order as it was closed.
    pub order: WorkOrder,
    /// What the technician reported.
    pub completion: Completion,
    /// Whether the machine counts as new in the respects the order was about.
    pub renewed: bool,
    /// When it was reported.
    pub time: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_order_stays_closed() {
        use OrderState::{Cancelled, Completed, Failed, Planned, Started, Unschedulable};
        let all = [Unschedulable, Planned, Started, Completed, Failed, Cancelled];
        for state in all.into_iter().filter(|state| state.is_final()) {
            assert!(all.into_iter().all(|next| !state.may_become(next)), "{state:?}");
        }
        assert!(!Started.may_become(Unschedulable));
        assert!(Planned.may_become(Started));
    }
}
