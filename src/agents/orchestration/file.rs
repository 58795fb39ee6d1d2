//! What orchestration is doing about one asset: its confirmed anomalies and, per failure mode, one
//! case.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agents::Chain;
use crate::domain::anomaly::Anomaly;
use crate::domain::event::Action;
use crate::domain::ids::{AssetId, EventId};
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Timestamp;
use crate::domain::work_order::OrderRequest;

/// Confirmed anomalies followed per asset; the oldest makes room.
pub(super) const TROUBLES_MAX: usize = 16;
/// Cases per asset: more failure modes than this are not told apart.
pub(super) const CASES_MAX: usize = 16;

/// A confirmed anomaly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Trouble {
    pub anomaly: Anomaly,
    /// Confidence after validation.
    pub confidence: f64,
    pub alarm: EventId,
    /// The verdict's chain.
    pub chain: Chain,
}

/// How far a case is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stand {
    /// Nothing is planned; it is looked at with every prediction.
    Watching,
    /// A person was asked.
    Asked,
    /// An order was authorised.
    Ordered,
}

impl Stand {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::Asked => "asked",
            Self::Ordered => "ordered",
        }
    }

    pub(super) const fn of(action: Action) -> Self {
        match action {
            Action::Watch => Self::Watching,
            Action::Ask => Self::Asked,
            Action::Act => Self::Ordered,
        }
    }
}

/// One failure mode of one asset that something is done about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Case {
    pub stand: Stand,
    /// The anomaly it rests on.
    pub anomaly: EventId,
    /// The chain its events belong to.
    pub chain: Chain,
    /// Median time to the limit in seconds when the stand was last chosen, if it was known.
    pub p50: Option<f64>,
    /// What was proposed or ordered; tells whose answers and orders are this case's.
    pub task: Option<String>,
}

/// All of one asset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct File {
    pub troubles: BTreeMap<EventId, Trouble>,
    /// By failure mode.
    pub cases: BTreeMap<String, Case>,
    /// Failure modes that a person does not want repaired now, with the median time to the limit
    /// (seconds) when that was said. They are raised again when it has halved.
    pub declined: BTreeMap<String, Option<f64>>,
}

impl File {
    pub(super) fn is_empty(&self) -> bool {
        self.troubles.is_empty() && self.cases.is_empty()
    }

    /// The failure mode whose case an order belongs to.
    pub(super) fn mode_of(&self, order: &OrderRequest) -> Option<String> {
        self.cases
            .iter()
            .find(|(_, case)| case.task.as_ref() == Some(&order.task))
            .map(|(mode, _)| mode.clone())
    }

    pub(super) fn record(&self, asset: &AssetId, time: Timestamp) -> Record {
        let stand = self.cases.values().map(|case| case.stand).max();
        let state = stand.map_or(if self.is_empty() { "closed" } else { "open" }, Stand::as_str);
        Record::new(RecordKind::CaseFile, asset, time, self)
            .about(asset)
            .in_state(state, !self.is_empty())
    }
}
