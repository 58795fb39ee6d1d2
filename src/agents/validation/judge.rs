//! What speaks for and against an anomaly, each by a named amount.
//!
//! Confidence begins with what detection believes and is moved by every circumstance that holds.
//! The amounts are judgements, not measurements; their order is what matters: maintenance overrules
//! everything, persistence and a limit alarm weigh most, history least.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Rule;
use crate::domain::anomaly::{Adjustment, Anomaly, Fault, Pattern, Verdict};
use crate::domain::time::Timestamp;

/// Version of the stage's snapshot.
pub(super) const SNAPSHOT_VERSION: u8 = 1;

/// From here on an anomaly is confirmed.
const CONFIRMED_MIN: f64 = 0.6;
/// From here on it is confirmed before patience is over.
const STRONG_MIN: f64 = 0.7;
/// Below it is dismissed.
const INCONCLUSIVE_MIN: f64 = 0.35;
/// Below this share of departing readings a departure has not lasted.
const LASTED_SHARE: f64 = 0.5;
/// From this many deviations on a further tag agrees.
const AGREES_SIGMA: f64 = 3.0;
/// Tags an asset needs before the silence of the others says anything.
const SILENT_TAGS_MIN: usize = 3;
/// Readings of bad quality beyond this share make the others doubtful.
const BAD_SHARE: f64 = 0.3;

/// Weight of persistence: all or none of the readings departing.
const PERSISTENCE: f64 = 0.25;
/// More for a departure that outlasts patience several times.
const ENDURANCE: f64 = 0.15;
/// Weight of each further tag that departs.
const AGREEMENT: f64 = 0.08;
/// Most that agreement can add.
const AGREEMENT_MAX: f64 = 0.16;
/// A limit alarm on the same tag.
const LIMIT_SAME: f64 = 0.25;
/// A limit alarm on another tag of the asset.
const LIMIT_OTHER: f64 = 0.1;
/// The tag was steady before, or restless.
const STABILITY: f64 = 0.05;
/// Restless: scatter before beyond this multiple of what the baseline says.
const RESTLESS: f64 = 2.0;
/// Weight of what learning knows, from never right to always right.
const PRIOR: f64 = 0.8;

/// How a departure has gone on since it was announced.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Persistence {
    /// When it began.
    pub since: Timestamp,
    /// Newest reading seen.
    pub until: Timestamp,
    /// Good readings of its tags since then.
    pub seen: u32,
    /// Those that departed.
    pub departing: u32,
    /// Readings that were not good.
    pub bad: u32,
}

impl Persistence {
    pub(super) fn since(since: Timestamp, announced: Timestamp) -> Self {
        Self { since, until: announced.max(since), seen: 0, departing: 0, bad: 0 }
    }

    pub(super) fn count(&mut self, departs: bool, time: Timestamp) {
        self.seen = self.seen.saturating_add(1);
        self.departing = self.departing.saturating_add(u32::from(departs));
        self.until = self.until.max(time);
    }

    fn share(&self) -> Option<f64> {
        (self.seen > 0).then(|| f64::from(self.departing) / f64::from(self.seen))
    }
}

/// How often a detector was right and wrong on a tag, each plus one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prior {
    pub right: f64,
    pub wrong: f64,
}

impl Prior {
    /// Nothing is known.
    pub(super) const NONE: Self = Self { right: 1.0, wrong: 1.0 };
}

/// What is known beside the anomaly itself.
#[derive(Debug)]
pub(super) struct Circumstances<'a> {
    /// Configured rules that hold.
    pub rules: Vec<&'a Rule>,
    /// Other open machine anomalies of the asset on other tags.
    pub other_cases: usize,
    /// A limit alarm stands on the first tag.
    pub limit_same_tag: bool,
    /// A limit alarm stands on another tag of the asset.
    pub limit_other_tag: bool,
    /// Somebody is at work on the asset.
    pub in_work: bool,
    /// Scatter of the first tag before the anomaly, in its unit.
    pub scatter_before: Option<f64>,
    /// The deviation its baseline expects, in its unit; zero when unknown.
    pub deviation: f64,
    /// Measured tags of the asset.
    pub tags_of_asset: usize,
    /// What learning knows of the detectors on the first tag.
    pub prior: Prior,
    /// The case's patience.
    pub patience: Duration,
}

/// Confidence after all adjustments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judgement {
    /// Confidence, 0 to 1.
    pub confidence: f64,
    /// What moved it.
    pub adjustments: Vec<Adjustment>,
    /// Whether the departure has lasted; a lone spike is never confirmed.
    lasted: bool,
    /// Dismissed whatever the confidence is.
    overruled: bool,
}

impl Judgement {
    pub(super) fn verdict(&self) -> Verdict {
        if self.overruled || self.confidence < INCONCLUSIVE_MIN {
            Verdict::Dismissed
        } else if self.confidence >= CONFIRMED_MIN && self.lasted {
            Verdict::Confirmed
        } else {
            Verdict::Inconclusive
        }
    }

    pub(super) fn is_strong(&self) -> bool {
        self.verdict() == Verdict::Confirmed && self.confidence >= STRONG_MIN
    }

    /// Dismisses it for one reason.
    pub(super) fn dismissal(anomaly: &Anomaly, reason: &str) -> Self {
        let adjustments =
            vec![Adjustment { reason: reason.to_owned(), amount: -anomaly.confidence }];
        Self { confidence: 0.0, adjustments, lasted: false, overruled: true }
    }
}

/// What a person says overrules the rest.
pub(super) fn person(anomaly: &Anomaly, real: bool) -> Judgement {
    if real {
        let amount = 1.0 - anomaly.confidence;
        let adjustments = vec![Adjustment { reason: "a person says it is real".into(), amount }];
        Judgement { confidence: 1.0, adjustments, lasted: true, overruled: false }
    } else {
        Judgement::dismissal(anomaly, "a person says it is not real")
    }
}

/// Weighs all that is known.
pub(super) fn judge(
    anomaly: &Anomaly,
    persistence: &Persistence,
    around: &Circumstances<'_>,
) -> Judgement {
    if around.in_work {
        return Judgement::dismissal(anomaly, "somebody is at work on the asset");
    }
    let mut adjustments = Vec::new();
    let mut add = |reason: String, amount: f64| {
        if amount.abs() >= 0.005 {
            adjustments.push(Adjustment { reason, amount });
        }
    };
    for rule in &around.rules {
        add(format!("rule {}", rule.name), rule.adjust);
    }
    let share = persistence.share();
    if let Some(share) = share {
        let weight = (f64::from(persistence.seen) / 3.0).min(1.0);
        add(
            format!("{} of {} readings since departed", persistence.departing, persistence.seen),
            PERSISTENCE * (2.0 * share - 1.0) * weight,
        );
        let lasted = persistence.until.since(persistence.since).as_secs_f64();
        let patiences = lasted / around.patience.as_secs_f64().max(1e-3);
        if share >= LASTED_SHARE && patiences > 1.0 {
            add(
                format!("lasts {lasted:.0} s"),
                (ENDURANCE * patiences.log2() / 3.0).min(ENDURANCE),
            );
        }
    }
    let agreeing = anomaly
        .evidence
        .iter()
        .skip(1)
        .filter(|evidence| evidence.sigma.abs() >= AGREES_SIGMA)
        .count()
        + around.other_cases;
    match anomaly.fault {
        Fault::Machine if agreeing > 0 => {
            let count = u32::try_from(agreeing).unwrap_or(u32::MAX);
            add(
                format!("{agreeing} more tags of the asset depart"),
                (AGREEMENT * f64::from(count)).min(AGREEMENT_MAX),
            );
        }
        Fault::Machine if around.tags_of_asset >= SILENT_TAGS_MIN => {
            add("no other tag of the asset departs".to_owned(), -STABILITY);
        }
        Fault::Machine | Fault::Sensor => {}
    }
    if around.limit_same_tag {
        add("a limit alarm stands on the tag".to_owned(), LIMIT_SAME);
    } else if around.limit_other_tag {
        add("a limit alarm stands on the asset".to_owned(), LIMIT_OTHER);
    }
    if let Some(scatter) = around.scatter_before
        && around.deviation > 0.0
        && anomaly.pattern != Pattern::Noise
    {
        if scatter > RESTLESS * around.deviation {
            add("the tag was restless before".to_owned(), -2.0 * STABILITY);
        } else if share.is_some_and(|share| share >= LASTED_SHARE) {
            add("the tag was steady before".to_owned(), STABILITY);
        }
    }
    let all = f64::from(persistence.bad) + f64::from(persistence.seen);
    if all > 0.0 && f64::from(persistence.bad) > BAD_SHARE * all {
        add(format!("{} readings were not good", persistence.bad), -2.0 * STABILITY);
    }
    let Prior { right, wrong } = around.prior;
    let known = right + wrong;
    if known > 0.0 {
        let (rights, judged) = ((right - 1.0).max(0.0), (known - 2.0).max(0.0));
        add(
            format!("right {rights:.0} of {judged:.0} times before"),
            PRIOR * (right / known - 0.5),
        );
    }
    let moved: f64 = adjustments.iter().map(|adjustment| adjustment.amount).sum();
    Judgement {
        confidence: (anomaly.confidence + moved).clamp(0.0, 1.0),
        adjustments,
        lasted: share.is_none_or(|share| share >= LASTED_SHARE)
            && (anomaly.pattern != Pattern::Spike || persistence.departing > 0),
        overruled: false,
    }
}
