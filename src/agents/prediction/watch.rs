//! An asset whose way to failure is followed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agents::Chain;
use crate::analytics::degradation::Outlook;
use crate::domain::ids::{AssetId, EventId, TagId};
use crate::domain::prognosis::Prediction;
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Timestamp;

/// An anomaly that a prediction was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub chain: Chain,
    pub tags: Vec<TagId>,
    /// Since when the departure has been seen.
    pub since: Timestamp,
    /// A limit alarm asked for it and has cleared: it is followed only while a trend is proven,
    /// because values near a limit cross it many times.
    #[serde(default)]
    pub over: bool,
    /// A limit alarm asked for it, no anomaly.
    #[serde(default)]
    pub by_alarm: bool,
}

/// A limit that is followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Target {
    pub tag: TagId,
    pub limit: f64,
    pub upward: bool,
    /// The tag has no failure limit of its own: this is the end of zone C of ISO 20816-3 for this
    /// group of machines.
    #[serde(default)]
    pub iso_group: Option<u8>,
}

/// The prediction that was announced last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub event: EventId,
    pub prediction: Prediction,
}

impl Standing {
    /// Whether `new` says something else: another failure mode, a failure time that has moved by
    /// `moved` of what is left, or simply much later.
    pub(super) fn is_outdated_by(&self, new: &Prediction, moved: f64, later: f64) -> bool {
        let old = &self.prediction;
        if old.failure_mode != new.failure_mode || old.tag != new.tag {
            return true;
        }
        if old.rul.p50 <= 0.0 {
            return new.rul.p50 > 0.0;
        }
        let passed = new.as_of.since(old.as_of).as_secs_f64();
        let expected = (old.rul.p50 - passed).max(0.0);
        let shift = (new.rul.p50 - expected).abs();
        passed >= old.rul.p50 * later || shift > moved * old.rul.p50.max(expected)
    }

    /// The prediction itself, for whoever looks; one row per asset and failure mode.
    pub(super) fn record(&self, stands: bool) -> Record {
        let prediction = &self.prediction;
        let id = format!("{}/{}", prediction.asset, prediction.failure_mode);
        let state = if stands { "standing" } else { "withdrawn" };
        Record::new(RecordKind::Prediction, id, prediction.as_of, prediction)
            .about(&prediction.asset)
            .in_state(state, stands)
    }
}

/// Begins the ids of records of watches, which are no predictions themselves.
pub(super) const WATCH: &str = "watch:";

/// All that is known of one asset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Watch {
    /// The prediction that stands, if one does.
    pub standing: Option<Standing>,
    /// By anomaly (ids grow with time: the last is the newest).
    pub asked: BTreeMap<EventId, Asked>,
    /// Jobs that have not answered.
    pub pending: BTreeMap<EventId, Target>,
    /// Answers of this round.
    pub answers: Vec<(Target, Outlook)>,
    /// Rounds in a row without a proven trend.
    pub rounds_lost: u32,
    /// The anomaly about which it was last said that nothing can be predicted.
    pub abstained: Option<EventId>,
    /// When the next round begins, or the one that runs is given up, on this run's clock.
    #[serde(skip)]
    pub due: Option<Duration>,
    /// Shortest pause that lets new readings come.
    #[serde(skip)]
    pub pause_min: Duration,
}

impl Watch {
    /// The newest question; one about an anomaly goes before those of alarms.
    pub(super) fn newest(&self) -> Option<(EventId, &Asked)> {
        let anomaly = self.asked.iter().rfind(|(_, asked)| !asked.by_alarm);
        anomaly.or_else(|| self.asked.last_key_value()).map(|(id, asked)| (*id, asked))
    }

    /// Since when the oldest departure has been seen.
    pub(super) fn since(&self) -> Timestamp {
        self.asked.values().map(|asked| asked.since).min().unwrap_or_default()
    }

    pub(super) fn record(&self, asset: &AssetId, time: Timestamp, open: bool) -> Record {
        let id = format!("{WATCH}{asset}");
        Record::new(RecordKind::Outlook, id, time, self).about(asset).in_state("watch", open)
    }
}
