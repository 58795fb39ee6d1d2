//! An anomaly under watch.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PATIENCE_MAX;
use super::judge::Persistence;
use crate::agents::Chain;
use crate::agents::promise::Promise;
use crate::domain::anomaly::{Adjustment, Anomaly, Pattern, Verdict};
use crate::domain::ids::{EventId, TagId};
use crate::domain::reading::Reading;
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Timestamp;

/// What is expected of one tag of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Watched {
    pub tag: TagId,
    /// Expected value.
    pub expected: f64,
    /// One robust standard deviation, in the tag's unit; zero when it is not known.
    pub deviation: f64,
    /// Distance of the evidence, in deviations, signed.
    pub sigma: f64,
    /// The reading before this one.
    #[serde(skip)]
    pub last: Option<f64>,
}

/// An anomaly under watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Case {
    pub id: EventId,
    /// What was said of it, for the views: the anomaly, its verdict and the reasons.
    #[serde(flatten)]
    pub validated: CaseView,
    pub chain: Chain,
    pub watched: Vec<Watched>,
    pub persistence: Persistence,
    pub patience_seconds: f64,
    /// When it is judged (again).
    pub promise: Promise,
    pub retrials: u32,
    /// Where the promise stands on this run's clock; none when nothing more is waited for.
    #[serde(skip)]
    pub due: Option<Duration>,
    #[serde(skip)]
    pub touched: bool,
}

/// The part of a case that others may read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CaseView {
    pub anomaly: Anomaly,
    pub verdict: Option<Verdict>,
    pub confidence: f64,
    pub adjustments: Vec<Adjustment>,
    pub ended: Option<Timestamp>,
}

impl Case {
    pub(super) const fn verdict(&self) -> Option<Verdict> {
        self.validated.verdict
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::try_from_secs_f64(self.patience_seconds).unwrap_or(PATIENCE_MAX)
    }

    /// Whether a verdict (or a better one) may still come.
    pub(super) fn is_pending(&self) -> bool {
        self.due.is_some()
    }

    /// Takes what detection says anew of the same departure.
    pub(super) fn worsen(&mut self, anomaly: &Anomaly) {
        let since = self.validated.anomaly.since.min(anomaly.since);
        self.watched = watch(anomaly);
        self.validated.anomaly = Anomaly { since, ..anomaly.clone() };
        self.touched = true;
    }

    pub(super) fn see(&mut self, tag: &TagId, reading: &Reading) {
        let pattern = self.validated.anomaly.pattern;
        let Some(watched) = self.watched.iter_mut().find(|watched| watched.tag == *tag) else {
            return;
        };
        if !reading.quality.is_good() {
            self.persistence.bad = self.persistence.bad.saturating_add(1);
            return;
        }
        // A slow series is judged by means over half an hour and more.
        let detectors = &self.validated.anomaly.detectors;
        let by_means = detectors.iter().any(|score| score.detector == BY_MEANS);
        let departs = match pattern {
            _ if by_means => true,
            Pattern::Spike | Pattern::Drift | Pattern::Offset | Pattern::Level => {
                departs(watched, reading.value)
            }
            Pattern::Stuck => watched
                .last
                .is_none_or(|last| (reading.value - last).abs() <= f64::EPSILON * last.abs()),
            // Scatter and lost fit do not show in one value: that the anomaly has not ended is
            // what counts.
            Pattern::Noise | Pattern::Shape => true,
        };
        watched.last = Some(reading.value);
        self.persistence.count(departs, reading.time);
        self.touched = true;
    }
}

/// The detector of slow series; what it finds does not show in one value.
const BY_MEANS: &str = "time-of-day";
/// Evidence watched per case; only the first few tell anything, the most answerable come first.
const WATCHED_MAX: usize = 8;

/// What to expect of the tags that the anomaly rests on.
pub(super) fn watch(anomaly: &Anomaly) -> Vec<Watched> {
    let finite = |value: f64| if value.is_finite() { value } else { 0.0 };
    anomaly
        .evidence
        .iter()
        .take(WATCHED_MAX)
        .map(|evidence| Watched {
            tag: evidence.tag.clone(),
            expected: evidence.expected,
            // Nothing is known of the deviation when the evidence is at no distance: x/0 and 0/0.
            deviation: finite((evidence.value - evidence.expected).abs() / evidence.sigma.abs()),
            sigma: finite(evidence.sigma),
            last: None,
        })
        .collect()
}

/// A value still counts as departed at this share of the evidence's distance …
const DEPARTED_SHARE: f64 = 0.4;
/// … but not closer to the expectation than this many deviations.
const DEPARTED_SIGMA_MIN: f64 = 2.0;

fn departs(watched: &Watched, value: f64) -> bool {
    if watched.deviation <= 0.0 || watched.sigma.abs() < DEPARTED_SIGMA_MIN {
        return true;
    }
    let sigma = (value - watched.expected) / watched.deviation * watched.sigma.signum();
    sigma >= (watched.sigma.abs() * DEPARTED_SHARE).max(DEPARTED_SIGMA_MIN)
}

pub(super) fn state_word(case: &Case) -> &'static str {
    case.verdict().map_or("open", Verdict::as_str)
}

pub(super) fn record(case: &Case) -> Record {
    let anomaly = &case.validated.anomaly;
    Record::new(RecordKind::Anomaly, case.id, anomaly.since, case)
        .about(&anomaly.asset)
        .in_state(state_word(case), true)
}
