//! What has been told, and what was held back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::notice::Notice;
use crate::domain::ids::EventId;
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;

/// The same matter is not told again for this long.
pub(super) const REPEAT_AFTER: Duration = Duration::from_secs(300);

/// Matters remembered for [`REPEAT_AFTER`]; beyond, the oldest is forgotten (and may be told again).
const MATTERS_MAX: usize = 1_000;

/// Messages per channel in [`RATE_SPAN`]; critical ones are never held back. A person reads one
/// every other minute at best.
pub(super) const RATE_MAX: usize = 30;

/// See [`RATE_MAX`].
pub(super) const RATE_SPAN: Duration = Duration::from_secs(3600);

/// Subjects a digest spells out; the rest is a number.
const DIGEST_SUBJECTS_MAX: usize = 10;

/// Predictions remembered as told: assets times failure modes. Beyond, the oldest is forgotten.
const PREDICTIONS_MAX: usize = 1_000;

/// Whether a notice says anything new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It does.
    New,
    /// The very same thing has just been told.
    Repeated,
    /// The like of it has just been told; it is counted.
    Chatter,
}

/// Matters told within the last minutes.
#[derive(Debug, Default)]
pub(super) struct Recent {
    told: BTreeMap<String, (Duration, Severity, Option<EventId>)>,
}

impl Recent {
    /// Judges a notice and remembers it when it is new.
    pub(super) fn judge(&mut self, mono: Duration, notice: &Notice) -> News {
        self.told.retain(|_, (at, _, _)| mono.saturating_sub(*at) < REPEAT_AFTER);
        if let Some((_, severity, instance)) = self.told.get(&notice.matter)
            && *severity >= notice.severity
        {
            if *instance == notice.instance {
                return News::Repeated;
            }
            if notice.severity < Severity::Critical {
                return News::Chatter;
            }
        }
        if self.told.len() >= MATTERS_MAX {
            let oldest = self.told.iter().min_by_key(|(_, (at, _, _))| *at);
            if let Some(matter) = oldest.map(|(matter, _)| matter.clone()) {
                self.told.remove(&matter);
            }
        }
        self.told.insert(notice.matter.clone(), (mono, notice.severity, notice.instance));
        News::New
    }
}

/// When messages went to one channel.
#[derive(Debug, Default)]
pub(super) struct Rate {
    sent: VecDeque<Duration>,
}

impl Rate {
    /// Counts a message, unless it has to be held back.
    pub(super) fn admit(&mut self, mono: Duration, severity: Severity) -> bool {
        while self.sent.front().is_some_and(|at| mono.saturating_sub(*at) >= RATE_SPAN) {
            self.sent.pop_front();
        }
        if self.sent.len() >= RATE_MAX {
            if severity < Severity::Critical {
                return false;
            }
            // The bound holds for critical ones too: the newest times are the ones that count.
            self.sent.pop_front();
        }
        self.sent.push_back(mono);
        true
    }
}

/// What was held back from one channel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Held {
    /// How many, by template.
    pub(super) counts: BTreeMap<String, u64>,
    /// The first subjects.
    pub(super) subjects: Vec<String>,
    /// The worst severity.
    pub(super) worst: Option<Severity>,
}

impl Held {
    /// Counts one.
    pub(super) fn add(&mut self, notice: &Notice) {
        *self.counts.entry(notice.template.to_owned()).or_default() += 1;
        if self.subjects.len() < DIGEST_SUBJECTS_MAX {
            self.subjects.push(notice.subject.clone());
        }
        self.worst = self.worst.max(Some(notice.severity));
    }

    /// The digest.
    pub(super) fn notice(&self) -> Notice {
        let total: u64 = self.counts.values().sum();
        let counts: Vec<String> =
            self.counts.iter().map(|(template, count)| format!("{count} × {template}")).collect();
        let more = total - u64::try_from(self.subjects.len()).unwrap_or(total);
        let mut text = format!("{}\n{}", counts.join(", "), self.subjects.join("\n"));
        if more > 0 {
            text.push_str(&format!("\nand {more} more"));
        }
        Notice {
            template: "digest",
            severity: self.worst.unwrap_or(Severity::Low),
            recipients: vec![super::notice::OPERATOR.to_owned()],
            subject: format!("{total} messages were held back"),
            text,
            matter: "digest".to_owned(),
            instance: None,
        }
    }
}

/// A prediction as people were last told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ToldPrediction {
    /// The event that made it.
    pub(super) event: EventId,
    /// The median failure time.
    pub(super) failure: Timestamp,
    /// How urgent it was.
    pub(super) severity: Severity,
}

/// What must outlive a restart besides the messages under way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// By channel.
    #[serde(default)]
    pub(super) held: BTreeMap<String, Held>,
    /// By asset and failure mode.
    #[serde(default)]
    pub(super) predictions: BTreeMap<String, ToldPrediction>,
}

impl Ledger {
    /// Whether a prediction is worth telling, and if so remembers it as told: the first of its
    /// kind, a more urgent one, or one whose remaining time has halved or doubled against what
    /// people were led to expect.
    pub(super) fn news(&mut self, matter: &str, new: ToldPrediction, as_of: Timestamp) -> bool {
        if let Some(told) = self.predictions.get(matter) {
            let expected = told.failure.since(as_of).as_secs_f64().max(1.0);
            let remaining = new.failure.since(as_of).as_secs_f64();
            let alike = remaining >= expected / 2.0 && remaining <= expected * 2.0;
            if alike && new.severity <= told.severity {
                return false;
            }
        }
        self.predictions.insert(matter.to_owned(), new);
        if self.predictions.len() > PREDICTIONS_MAX {
            let oldest = self.predictions.iter().min_by_key(|(_, told)| told.event);
            if let Some(matter) = oldest.map(|(matter, _)| matter.clone()) {
                self.predictions.remove(&matter);
            }
        }
        true
    }
}
