//! What is proposed about an asset: the failure mode, the order, and the words for a person.

use std::time::Duration;

use super::file::Trouble;
use super::{Orchestration, table};
use crate::agents::failure_modes::{self, Mode};
use crate::domain::anomaly::{Anomaly, Fault};
use crate::domain::ids::{AssetId, EventId};
use crate::domain::prognosis::Prediction;
use crate::domain::severity::{Criticality, Severity};
use crate::domain::work_order::OrderRequest;

/// What an action is chosen for.
pub(super) struct Prospect<'a> {
    pub mode: Mode,
    /// None when the prediction abstained.
    pub prediction: Option<&'a Prediction>,
    /// Why it abstained.
    pub abstained: Option<&'a str>,
}

impl Prospect<'_> {
    pub(super) fn p50(&self) -> Option<f64> {
        self.prediction.map(|prediction| prediction.rul.p50)
    }
}

impl Orchestration {
    pub(super) fn sentence(&self, anomaly: &Anomaly, confidence: f64) -> String {
        let asset = &anomaly.asset;
        let name = self.name(asset);
        let whose = match anomaly.fault {
            Fault::Machine => "behaves unusually",
            Fault::Sensor => "has a sensor fault",
        };
        let pattern = anomaly.pattern.as_str();
        let values = anomaly.evidence.first().map_or_else(String::new, |evidence| {
            let unit = self
                .setting
                .plant
                .find(asset.as_str(), evidence.tag.as_str())
                .and_then(|key| self.setting.plant.tag(key))
                .map_or("", |tag| tag.unit.as_str());
            let gap = if unit.is_empty() { "" } else { " " };
            format!(
                ": {} {:.4}{gap}{unit} instead of {:.4}{gap}{unit}",
                evidence.tag, evidence.value, evidence.expected
            )
        });
        format!("{name} {whose} ({pattern}, confidence {confidence:.2}){values}")
    }

    pub(super) fn name(&self, asset: &AssetId) -> String {
        match self.setting.plant.assets.get(asset) {
            Some(known) if known.name != asset.as_str() => format!("{} ({asset})", known.name),
            Some(_) | None => asset.to_string(),
        }
    }

    pub(super) fn order(
        &self,
        anomaly: EventId,
        trouble: &Trouble,
        asset: &AssetId,
        prospect: &Prospect<'_>,
    ) -> OrderRequest {
        let (action, skills, duration, due) = match prospect.prediction {
            Some(prediction) => {
                let p10 = Duration::try_from_secs_f64(prediction.rul.p10).unwrap_or(Duration::MAX);
                (
                    prediction.actions.first().or(prospect.mode.actions.first()),
                    prediction.skills.clone(),
                    prediction.repair_seconds,
                    // The pessimistic failure time: one repair in ten would come too late.
                    Some(prediction.as_of.after(p10)),
                )
            }
            None => (
                prospect.mode.actions.first(),
                prospect.mode.skills.clone(),
                prospect.mode.repair.as_secs_f64(),
                None,
            ),
        };
        let action = action.map_or("Inspect the machine", String::as_str);
        let task = format!("{action}: {}, {}", self.name(asset), prospect.mode.id);
        let alarm_severity =
            self.alarms.get(trouble.alarm).map_or(trouble.anomaly.severity, |alarm| alarm.severity);
        let urgency = prospect
            .p50()
            .map_or(Severity::Low, |p50| adjusted(table::urgency(p50), self.criticality(asset)));
        let alarms = self
            .files
            .get(asset)
            .into_iter()
            .flat_map(|file| file.troubles.values())
            .filter(|trouble| trouble.anomaly.fault == Fault::Machine)
            .map(|trouble| trouble.alarm)
            .collect();
        OrderRequest {
            asset: asset.clone(),
            task,
            skills,
            duration_seconds: duration,
            priority: alarm_severity.max(urgency),
            not_before: None,
            due,
            technician: None,
            alarms,
            anomaly: Some(anomaly),
        }
    }

    pub(super) fn question(&self, order: &OrderRequest, reason: &str) -> String {
        format!("{}? It takes {}; {reason}.", order.task, table::span(order.duration_seconds))
    }

    /// What an anomaly points to when no tag's way to a limit could be followed.
    pub(super) fn mode_without_prediction(&self, anomaly: &Anomaly) -> Option<Mode> {
        let asset = self.setting.plant.assets.get(&anomaly.asset)?;
        let tag = anomaly.tags.first()?;
        let upward = anomaly
            .evidence
            .iter()
            .find(|evidence| evidence.tag == *tag)
            .map(|evidence| evidence.value >= evidence.expected);
        let key = self.setting.plant.find(anomaly.asset.as_str(), tag.as_str());
        let tag = key.and_then(|key| self.setting.plant.tag(key));
        Some(tag.map_or_else(
            || failure_modes::unknown(asset.class),
            |tag| failure_modes::infer(&self.setting.config, asset, tag, upward),
        ))
    }
}

/// One step up where the plant depends on the asset, one down where hardly anybody notices.
pub(super) fn adjusted(severity: Severity, criticality: Criticality) -> Severity {
    match (severity, criticality.level()) {
        (Severity::Low, 5) | (Severity::High, 1) => Severity::Medium,
        (Severity::Medium, 5) | (Severity::Critical, 1) => Severity::High,
        (Severity::High, 5) => Severity::Critical,
        (Severity::Medium, 1) => Severity::Low,
        (severity, _) => severity,
    }
}

pub(super) fn alarm_severity(anomaly: &Anomaly, criticality: Criticality) -> Severity {
    let severity = adjusted(anomaly.severity, criticality);
    match anomaly.fault {
        Fault::Machine => severity,
        // Nothing breaks because a sensor did; but somebody is blind.
        Fault::Sensor => severity.min(Severity::Medium),
    }
}
