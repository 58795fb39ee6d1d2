//! What people said of anomalies, and how far a detector is therefore believed.

use serde::{Deserialize, Serialize};

use super::anomaly::Verdict;
use super::ids::{AssetId, EventId, TagId};
use super::time::Timestamp;

/// How often a detector was right and wrong on a tag, as a Beta distribution: the expected share of
/// real anomalies is `right / (right + wrong)`.
///
/// Invariant: both counts are at least 1 (Bayes–Laplace: one of each before anything was seen).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// The asset.
    pub asset: AssetId,
    /// The tag.
    pub tag: TagId,
    /// The detector.
    pub detector: String,
    /// How often it was right, plus one.
    pub right: f64,
    /// How often it was wrong, plus one.
    pub wrong: f64,
}

impl Prior {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new(asset: AssetId, tag: TagId, detector: String) -> Self {
        Self { asset, tag, detector, right: 1.0, wrong: 1.0 }
    }

    /// Expected share of real ones among what this detector reports on this tag, 0 to 1.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.right / (self.right + self.wrong)
    }

    /// Identity of its record: `asset/tag/detector`.
    #[must_use]
    pub fn record_id(&self) -> String {
        format!("{}/{}/{}", self.asset, self.tag, self.detector)
    }
}

/// An anomaly as learning remembers it, with what was said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Labelled {
    /// The event that announced the anomaly.
    pub anomaly: EventId,
    /// The asset.
    pub asset: AssetId,
    /// The tag most answerable for it.
    pub tag: TagId,
    /// The detectors that reported it.
    pub detectors: Vec<String>,
    /// What validation concluded, once it has.
    pub verdict: Option<Verdict>,
    /// What a person said, once one has.
    pub label: Option<Label>,
    /// First event of its chain.
    pub correlation: EventId,
}

/// What a person said of an anomaly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// Whether it was real.
    pub real: bool,
    /// Who says so.
    pub by: String,
    /// Anything else.
    pub notes: Option<String>,
    /// When.
    pub time: Timestamp,
    /// The work order whose completion says so; none for direct feedback.
    pub order: Option<EventId>,
}
