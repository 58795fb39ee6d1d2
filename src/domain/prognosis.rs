//! Predictions: when an asset will reach its limit, with an interval and an as-of time.

use serde::{Deserialize, Serialize};

use super::ids::{AssetId, EventId, TagId};
use super::time::Timestamp;

/// How well an asset does: 1 as new, 0 failed.
///
/// Invariant: 0 to 1, finite.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HealthIndex(f64);

impl HealthIndex {
    /// As new.
    pub const NEW: Self = Self(1.0);

    /// Takes an index; values outside are moved to the nearer end, NaN counts as 0.
    #[must_use]
    pub fn new(index: f64) -> Self {
        Self(if index.is_nan() { 0.0 } else { index.clamp(0.0, 1.0) })
    }

    /// The index, 0 to 1.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// A time span with its uncertainty, in seconds from the as-of time.
///
/// Invariant: p10 ≤ p50 ≤ p90, none negative.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// One in ten is shorter.
    pub p10: f64,
    /// Half are shorter.
    pub p50: f64,
    /// Nine in ten are shorter.
    pub p90: f64,
}

impl Quantiles {
    /// Takes three quantiles in any order of computation; `None` unless ordered and not negative.
    #[must_use]
    pub fn new(p10: f64, p50: f64, p90: f64) -> Option<Self> {
        (p10 >= 0.0 && p10 <= p50 && p50 <= p90 && p90.is_finite()).then_some(Self {
            p10,
            p50,
            p90,
        })
    }
}

/// A prediction for one failure mode of one asset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The asset concerned.
    pub asset: AssetId,
    /// The tag whose way to its limit was followed.
    pub tag: TagId,
    /// The way the plant loses a function, e.g. `bearing-wear`.
    pub failure_mode: String,
    /// Remaining useful life in seconds from `as_of`: time until the tag reaches `limit`.
    pub rul: Quantiles,
    /// When the newest reading behind it was taken.
    pub as_of: Timestamp,
    /// The failure limit, in the tag's unit.
    pub limit: f64,
    /// The value at `as_of`, smoothed, in the tag's unit.
    pub value: f64,
    /// The method, with its source, e.g. `wiener-inverse-gaussian`.
    pub method: String,
    /// How sure the method is, 0 to 1.
    pub confidence: f64,
    /// Probability of reaching the limit within 7, 30 and 90 days.
    pub probability_7_30_90_d: [f64; 3],
    /// 1 as new, 0 at the limit.
    pub health: HealthIndex,
    /// What to do about it, in words.
    pub actions: Vec<String>,
    /// What a repair needs.
    pub skills: Vec<String>,
    /// How long a repair takes, in seconds.
    pub repair_seconds: f64,
    /// The anomaly that asked for it, if one did.
    pub anomaly: Option<EventId>,
    /// How earlier predictions of this failure mode of this asset did.
    #[serde(default)]
    pub track_record: TrackRecord,
    /// Why it says so.
    #[serde(default)]
    pub explanation: Explanation,
}

/// Why a prediction says what it says: short sentences with numbers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// Which stage of the prediction spoke: `limit` (it is crossed already) or `trend`.
    pub stage: String,
    /// What it rests on.
    pub evidence: Vec<String>,
    /// Failed peers it was compared with.
    pub peers: Vec<String>,
    /// What would change its mind.
    pub would_change: Vec<String>,
}

/// How often predictions were right so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TrackRecord {
    /// Predictions whose truth is known.
    pub scored: u32,
    /// Those whose interval p10 to p90 held it; 80 of 100 are promised.
    pub covered: u32,
    /// Failures that were announced before.
    pub failures: u32,
    /// How early, in seconds, over all of these.
    pub lead_seconds: f64,
    /// Predictions that a repair overtook.
    pub prevented: u32,
    /// Predictions that were taken back.
    pub withdrawn: u32,
}
