//! What happened in one period, counted as it happens, and the figures made from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::anomaly::Verdict;
use crate::domain::event::{Body, Event};
use crate::domain::ids::AssetId;
use crate::domain::reading::Quality;
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;

/// A sum with its count.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Mean {
    count: u64,
    sum_seconds: f64,
}

impl Mean {
    fn add(&mut self, from: Timestamp, to: Timestamp) {
        self.count += 1;
        self.sum_seconds += to.since(from).as_secs_f64();
    }

    /// Seconds; `None` of nothing.
    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_seconds / self.count as f64)
    }
}

/// Events of one period. Its JSON is a record's body: fields may be added, never renamed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Day {
    /// Where it begins.
    pub(super) from: Timestamp,
    anomalies_detected: u64,
    anomalies_confirmed: u64,
    anomalies_dismissed: u64,
    anomalies_inconclusive: u64,
    /// By severity's word.
    alarms_raised: BTreeMap<String, u64>,
    alarms_cleared: u64,
    to_acknowledge: Mean,
    predictions_made: u64,
    predictions_abstained: u64,
    predictions_withdrawn: u64,
    #[serde(default)]
    predictions_scored: u64,
    /// Of those scored, the ones whose interval held the truth.
    #[serde(default)]
    predictions_held: u64,
    decisions_requested: u64,
    decisions_made: u64,
    decisions_expired: u64,
    orders_planned: u64,
    orders_late: u64,
    orders_unschedulable: u64,
    orders_started: u64,
    orders_rescheduled: u64,
    orders_cancelled: u64,
    orders_completed: u64,
    orders_failed: u64,
    to_repair: Mean,
    feedback: u64,
    notifications_sent: u64,
    notifications_failed: u64,
    dead_letters: u64,
    gaps: u64,
    gap_count: u64,
}

/// Readings of one asset in one period, by quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Readings {
    pub(super) good: u64,
    pub(super) uncertain: u64,
    pub(super) bad: u64,
}

impl Readings {
    /// Counts one.
    pub(super) const fn add(&mut self, quality: Quality) {
        match quality {
            Quality::Good => self.good += 1,
            Quality::Uncertain(_) => self.uncertain += 1,
            Quality::Bad(_) => self.bad += 1,
        }
    }

    pub(super) const fn total(self) -> u64 {
        self.good + self.uncertain + self.bad
    }

    fn figures(self) -> Value {
        let total = self.total();
        let share = |part: u64| (total > 0).then(|| part as f64 / total as f64);
        json!({
            "good": self.good,
            "uncertain": self.uncertain,
            "bad": self.bad,
            "good_share": share(self.good),
            "bad_share": share(self.bad),
        })
    }
}

impl Day {
    /// A period that begins here.
    pub(super) fn beginning(from: Timestamp) -> Self {
        Self { from, ..Self::default() }
    }

    /// Counts an event; `begun` tells when an order was first announced. Says whether it counts.
    pub(super) fn count(
        &mut self,
        event: &Event,
        begun: impl Fn(crate::domain::ids::EventId) -> Option<Timestamp>,
    ) -> bool {
        match &event.body {
            Body::AnomalyDetected(_) => self.anomalies_detected += 1,
            Body::AnomalyValidated(validated) => match validated.verdict {
                Verdict::Confirmed => self.anomalies_confirmed += 1,
                Verdict::Dismissed => self.anomalies_dismissed += 1,
                Verdict::Inconclusive => self.anomalies_inconclusive += 1,
            },
            Body::AlarmRaised(alarm) => {
                *self.alarms_raised.entry(alarm.severity.as_str().to_owned()).or_default() += 1;
            }
            Body::AlarmAcknowledged(alarm) => self.to_acknowledge.add(alarm.raised, event.time),
            Body::AlarmCleared(_) => self.alarms_cleared += 1,
            Body::FailurePredicted(_) => self.predictions_made += 1,
            Body::PredictionAbstained { .. } => self.predictions_abstained += 1,
            Body::PredictionWithdrawn { .. } => self.predictions_withdrawn += 1,
            Body::PredictionScored { outcome, actual, promised, .. } => {
                let known = outcome == "reached" || outcome == "outlived";
                let held = actual.is_some_and(|s| (promised.p10..=promised.p90).contains(&s));
                self.predictions_scored += u64::from(known);
                self.predictions_held += u64::from(held);
            }
            // Asking again is the same question.
            Body::DecisionRequested(decision) if decision.asked > 1 => return false,
            Body::DecisionRequested(_) => self.decisions_requested += 1,
            Body::DecisionMade(_) => self.decisions_made += 1,
            Body::DecisionExpired(_) => self.decisions_expired += 1,
            Body::WorkOrderPlanned(order) => {
                self.orders_planned += 1;
                self.orders_late += u64::from(order.late);
            }
            Body::WorkOrderUnschedulable(_) => self.orders_unschedulable += 1,
            Body::WorkOrderStarted(_) => self.orders_started += 1,
            Body::WorkOrderRescheduled(_) => self.orders_rescheduled += 1,
            Body::WorkOrderCancelled(_) => self.orders_cancelled += 1,
            Body::WorkOrderCompleted(order, _) => {
                self.orders_completed += 1;
                if let Some(begun) = begun(order.id) {
                    self.to_repair.add(begun, event.time);
                }
            }
            Body::WorkOrderFailed(..) => self.orders_failed += 1,
            Body::FeedbackGiven { .. } => self.feedback += 1,
            Body::NotificationSent(_) => self.notifications_sent += 1,
            Body::NotificationFailed { .. } => self.notifications_failed += 1,
            Body::EventSetAside { .. } => self.dead_letters += 1,
            Body::Gap { count, .. } => {
                self.gaps += 1;
                self.gap_count = self.gap_count.saturating_add(*count);
            }
            Body::AnomalyEnded { .. }
            | Body::ClockCorrected { .. }
            | Body::AlarmUpdated(_)
            | Body::AlarmShelved(_)
            | Body::AlarmUnshelved(_)
            | Body::PhaseChanged { .. }
            | Body::ActionChosen { .. }
            | Body::PredictionRequested { .. }
            | Body::JobStarted { .. }
            | Body::JobFinished { .. }
            | Body::ApprovalRequested { .. }
            | Body::OrderAuthorised { .. }
            | Body::NotificationQueued(_)
            | Body::WorkLogged { .. }
            | Body::BaselineReset { .. }
            | Body::ModelTrained { .. }
            | Body::ModelPromoted { .. }
            | Body::ModelRolledBack { .. }
            | Body::ModelDamaged { .. }
            | Body::TrainingAbstained { .. }
            | Body::DriftDetected { .. }
            | Body::PriorMoved { .. }
            | Body::ReportMade { .. }
            | Body::AssetStateChanged(_)
            | Body::CommandTaken(_)
            | Body::StageSwitched { .. }
            | Body::Condition { .. }
            | Body::ConfigurationApplied { .. } => return false,
        }
        true
    }

    /// The figures of the period that ends here. Times in seconds; a mean of nothing is null.
    pub(super) fn figures(&self, to: Timestamp, readings: &BTreeMap<AssetId, Readings>) -> Value {
        let raised = |severity: Severity| {
            self.alarms_raised.get(severity.as_str()).copied().unwrap_or_default()
        };
        let by_asset: BTreeMap<&str, Value> =
            readings.iter().map(|(asset, readings)| (asset.as_str(), readings.figures())).collect();
        json!({
            "from": self.from.to_string(),
            "to": to.to_string(),
            "anomalies": {
                "detected": self.anomalies_detected,
                "confirmed": self.anomalies_confirmed,
                "dismissed": self.anomalies_dismissed,
                "inconclusive": self.anomalies_inconclusive,
            },
            "alarms": {
                "low": raised(Severity::Low),
                "medium": raised(Severity::Medium),
                "high": raised(Severity::High),
                "critical": raised(Severity::Critical),
                "acknowledged": self.to_acknowledge.count,
                "cleared": self.alarms_cleared,
                "mean_seconds_to_acknowledge": self.to_acknowledge.mean(),
            },
            "predictions": {
                "made": self.predictions_made,
                "abstained": self.predictions_abstained,
                "withdrawn": self.predictions_withdrawn,
                "scored": self.predictions_scored,
                "held": self.predictions_held,
            },
            "decisions": {
                "requested": self.decisions_requested,
                "made": self.decisions_made,
                "expired": self.decisions_expired,
            },
            "work_orders": {
                "planned": self.orders_planned,
                "late": self.orders_late,
                "unschedulable": self.orders_unschedulable,
                "started": self.orders_started,
                "rescheduled": self.orders_rescheduled,
                "cancelled": self.orders_cancelled,
                "completed": self.orders_completed,
                "failed": self.orders_failed,
                "mean_seconds_to_repair": self.to_repair.mean(),
            },
            "feedback": self.feedback,
            "readings": by_asset,
            "notifications": {
                "sent": self.notifications_sent,
                "failed": self.notifications_failed,
            },
            "dead_letters": self.dead_letters,
            "gaps": {"announced": self.gaps, "missing": self.gap_count},
        })
    }
}
