//! The state of each asset as subscribers see it, put together from what other stages announce.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agents::Chain;
use crate::domain::alarm::{Alarm, AlarmCause, AlarmState, LimitKind};
use crate::domain::event::{AssetState, Body, Event, Phase};
use crate::domain::ids::{AssetId, EventId};
use crate::domain::prognosis::HealthIndex;
use crate::domain::severity::Severity;
use crate::domain::time::{Now, Timestamp};
use crate::domain::work_order::WorkOrder;

/// An asset's state is announced at most this often.
pub(super) const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// A prediction that stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Standing {
    event: EventId,
    failure_mode: String,
    rul_p50: f64,
    as_of: Timestamp,
    health: HealthIndex,
}

/// What the record of an asset holds: the state as last announced, and what it cannot be made
/// from by other stages' records alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(flatten)]
    pub(super) state: AssetState,
    #[serde(default)]
    standing: Vec<Standing>,
}

/// One asset.
#[derive(Debug, Clone)]
struct Entry {
    phase: Phase,
    notes: Vec<String>,
    /// The newest prediction of each failure mode.
    standing: BTreeMap<String, Standing>,
    /// Alarms whose condition holds: severity, and whether it is a failure limit.
    alarms: BTreeMap<EventId, (Severity, bool)>,
    orders: BTreeSet<EventId>,
    announced: Option<AssetState>,
    announced_at: Option<Duration>,
    /// Something changed that subscribers may see, and what.
    dirty: Option<Option<Chain>>,
}

/// All configured assets.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: BTreeMap<AssetId, Entry>,
}

impl Entry {
    const fn new() -> Self {
        Self {
            phase: Phase::Learning,
            notes: Vec::new(),
            standing: BTreeMap::new(),
            alarms: BTreeMap::new(),
            orders: BTreeSet::new(),
            announced: None,
            announced_at: None,
            dirty: Some(None),
        }
    }

    fn state(&self, asset: &AssetId, now: Timestamp) -> AssetState {
        let left = |standing: &Standing| {
            (standing.rul_p50 - now.since(standing.as_of).as_secs_f64()).max(0.0).round()
        };
        // A tag beyond its failure limit is what "failed" means, predicted or not.
        let failed = self.alarms.values().any(|(_, failed)| *failed);
        let predicted =
            self.standing.values().map(|standing| standing.health.get()).fold(1.0, f64::min);
        AssetState {
            asset: asset.clone(),
            phase: self.phase,
            health: HealthIndex::new(if failed { 0.0 } else { predicted }),
            worst_alarm: self.alarms.values().map(|(severity, _)| *severity).max(),
            // The order that began first is the one whose time is nearest to being over.
            work_order: self.orders.first().copied(),
            rul_p50: self.standing.values().map(left).reduce(f64::min),
            notes: self.notes.clone(),
        }
    }
}

impl Board {
    /// Takes up the assets of a configuration; says which ones are gone, with their last state.
    pub(super) fn configure<'a>(&mut self, assets: impl Iterator<Item = &'a AssetId>) -> Vec<Row> {
        let mut before = std::mem::take(&mut self.entries);
        self.entries = assets
            .map(|asset| (asset.clone(), before.remove(asset).unwrap_or_else(Entry::new)))
            .collect();
        let gone = before.into_values();
        gone.filter_map(|entry| Some(Row { state: entry.announced?, standing: Vec::new() }))
            .collect()
    }

    /// Takes up a state as last announced; hands it back when its asset is not configured.
    pub(super) fn restore(&mut self, row: Row) -> Option<Row> {
        let Some(entry) = self.entries.get_mut(&row.state.asset) else { return Some(row) };
        entry.phase = row.state.phase;
        entry.notes.clone_from(&row.state.notes);
        entry.standing =
            row.standing.into_iter().map(|one| (one.failure_mode.clone(), one)).collect();
        entry.announced = Some(row.state);
        None
    }

    /// Takes up an alarm that was open before the restart.
    pub(super) fn restore_alarm(&mut self, alarm: &Alarm) {
        self.with(alarm.asset.as_ref(), None, |entry| entry.take_alarm(alarm));
    }

    /// Takes up an order that was open before the restart.
    pub(super) fn restore_order(&mut self, order: &WorkOrder) {
        self.with(Some(&order.request.asset), None, |entry| entry.take_order(order));
    }

    /// Takes up what an event says of an asset.
    pub(super) fn take(&mut self, event: &Event) {
        let chain = Some(Chain::of(event));
        match &event.body {
            Body::AlarmRaised(alarm)
            | Body::AlarmUpdated(alarm)
            | Body::AlarmAcknowledged(alarm)
            | Body::AlarmShelved(alarm)
            | Body::AlarmUnshelved(alarm) => {
                self.with(alarm.asset.as_ref(), chain, |entry| entry.take_alarm(alarm));
            }
            Body::AlarmCleared(alarm) => {
                self.with(alarm.asset.as_ref(), chain, |entry| {
                    entry.alarms.remove(&alarm.id);
                });
            }
            Body::PhaseChanged { asset, phase, reasons } => {
                self.with(Some(asset), chain, |entry| {
                    entry.phase = *phase;
                    entry.notes.clone_from(reasons);
                });
            }
            Body::FailurePredicted(prediction) => {
                let standing = Standing {
                    event: event.id,
                    failure_mode: prediction.failure_mode.clone(),
                    rul_p50: prediction.rul.p50,
                    as_of: prediction.as_of,
                    health: prediction.health,
                };
                self.with(Some(&prediction.asset), chain, |entry| {
                    entry.standing.insert(standing.failure_mode.clone(), standing);
                });
            }
            Body::PredictionWithdrawn { asset, prediction, .. } => {
                self.with(Some(asset), chain, |entry| {
                    entry.standing.retain(|_, standing| standing.event != *prediction);
                });
            }
            Body::WorkOrderPlanned(order)
            | Body::WorkOrderStarted(order)
            | Body::WorkOrderRescheduled(order)
            | Body::WorkOrderCancelled(order)
            | Body::WorkOrderCompleted(order, _)
            | Body::WorkOrderFailed(order, _)
            | Body::WorkOrderUnschedulable(order) => {
                self.with(Some(&order.request.asset), chain, |entry| entry.take_order(order));
            }
            Body::AnomalyDetected(_)
            | Body::AnomalyValidated(_)
            | Body::AnomalyEnded { .. }
            | Body::ActionChosen { .. }
            | Body::PredictionRequested { .. }
            | Body::PredictionAbstained { .. }
            | Body::PredictionScored { .. }
            | Body::JobStarted { .. }
            | Body::JobFinished { .. }
            | Body::ApprovalRequested { .. }
            | Body::DecisionRequested(_)
            | Body::DecisionMade(_)
            | Body::DecisionExpired(_)
            | Body::OrderAuthorised { .. }
            | Body::NotificationQueued(_)
            | Body::NotificationSent(_)
            | Body::NotificationFailed { .. }
            | Body::WorkLogged { .. }
            | Body::BaselineReset { .. }
            | Body::ModelTrained { .. }
            | Body::ModelPromoted { .. }
            | Body::ModelRolledBack { .. }
            | Body::ModelDamaged { .. }
            | Body::TrainingAbstained { .. }
            | Body::DriftDetected { .. }
            | Body::FeedbackGiven { .. }
            | Body::PriorMoved { .. }
            | Body::ReportMade { .. }
            | Body::AssetStateChanged(_)
            | Body::CommandTaken(_)
            | Body::EventSetAside { .. }
            | Body::StageSwitched { .. }
            | Body::Condition { .. }
            | Body::Gap { .. }
            | Body::ClockCorrected { .. }
            | Body::ConfigurationApplied { .. } => {}
        }
    }

    /// When a state is to be announced next.
    pub(super) fn due(&self) -> Option<Duration> {
        let dirty = self.entries.values().filter(|entry| entry.dirty.is_some());
        dirty.map(Entry::due).min()
    }

    /// The states to announce now, each with the newest event that changed it.
    pub(super) fn announce(&mut self, now: Now) -> Vec<(Row, Option<Chain>)> {
        let mut rows = Vec::new();
        for (asset, entry) in &mut self.entries {
            let Some(chain) = entry.dirty else { continue };
            if entry.due() > now.mono {
                continue;
            }
            entry.dirty = None;
            let state = entry.state(asset, now.utc);
            if entry.announced.as_ref() == Some(&state) {
                continue;
            }
            entry.announced = Some(state.clone());
            entry.announced_at = Some(now.mono);
            rows.push((Row { state, standing: entry.standing.values().cloned().collect() }, chain));
        }
        rows
    }

    fn with(
        &mut self,
        asset: Option<&AssetId>,
        chain: Option<Chain>,
        change: impl FnOnce(&mut Entry),
    ) {
        if let Some(entry) = asset.and_then(|asset| self.entries.get_mut(asset)) {
            change(entry);
            entry.dirty = Some(chain.or(entry.dirty.flatten()));
        }
    }
}

impl Entry {
    /// The moment from which the state may be announced again.
    fn due(&self) -> Duration {
        self.announced_at.map_or(Duration::ZERO, |at| at.saturating_add(ANNOUNCE_EVERY))
    }

    fn take_alarm(&mut self, alarm: &Alarm) {
        let over = match alarm.state {
            AlarmState::Unacknowledged | AlarmState::Acknowledged | AlarmState::Shelved => {
                alarm.cleared.is_some()
            }
            AlarmState::ReturnedUnacknowledged | AlarmState::Cleared => true,
        };
        if over {
            self.alarms.remove(&alarm.id);
            return;
        }
        let failed = match &alarm.cause {
            AlarmCause::Limit { which, .. } => match which {
                LimitKind::LowLow | LimitKind::HighHigh => true,
                LimitKind::Low | LimitKind::High => false,
            },
            AlarmCause::Score { .. } | AlarmCause::System { .. } => false,
        };
        self.alarms.insert(alarm.id, (alarm.severity, failed));
    }

    fn take_order(&mut self, order: &WorkOrder) {
        if order.state.is_final() {
            self.orders.remove(&order.id);
        } else {
            self.orders.insert(order.id);
        }
    }
}
