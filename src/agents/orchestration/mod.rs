//! Orchestration: from a verdict to what is done about it.
//!
//! ```text
//! confirmed ─▶ alarm ─┬─ sensor fault: that is all
//!                     └─ machine: prediction requested ─▶ predicted or abstained
//!                              ─▶ decision table ─▶ watch │ ask a person │ act
//! ```
//!
//! Per asset and failure mode there is one case at a time: a new prediction updates it instead of
//! asking twice, and only one that has become much more urgent ([`ESCALATION`]) is raised again. A
//! case ends when its order is completed, called off or rejected. This stage owns the alarms of
//! anomalies and of the gateway itself; limit alarms are detection's.

mod alarms;
mod file;
mod proposal;
mod system;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use self::alarms::{Alarms, New};
use self::file::{CASES_MAX, Case, File, Stand, TROUBLES_MAX, Trouble};
use self::proposal::{Prospect, adjusted, alarm_severity};
use self::table::Situation;
use super::failure_modes::Mode;
use super::{Chain, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::alarm::AlarmCause;
use crate::domain::anomaly::{Anomaly, Fault, Validated, Verdict};
use crate::domain::command::{Command, CommandResult, Verb};
use crate::domain::decision::{Choice, Decision};
use crate::domain::event::{Action, Body, Event};
use crate::domain::ids::{AssetId, EventId};
use crate::domain::prognosis::Prediction;
use crate::domain::record::RecordKind;
use crate::domain::severity::Criticality;
use crate::domain::time::Now;
use crate::domain::work_order::{OrderRequest, Outcome, WorkOrder};

/// A prediction is much more urgent than before when its median is at most this share of it.
const ESCALATION: f64 = 0.5;

/// The orchestration stage.
#[derive(Debug)]
pub struct Orchestration {
    setting: Setting,
    alarms: Alarms,
    files: BTreeMap<AssetId, File>,
}

impl Orchestration {
    /// The stage, with nothing on its desk.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        Self { setting: setting.clone(), alarms: Alarms::default(), files: BTreeMap::new() }
    }

    fn confirmed(&mut self, now: Now, event: &Event, validated: &Validated, out: &mut Outbox<'_>) {
        let Validated { anomaly_id, anomaly, confidence, .. } = validated;
        let asset = &anomaly.asset;
        if self.files.get(asset).is_some_and(|file| file.troubles.contains_key(anomaly_id)) {
            return;
        }
        let chain = Chain::of(event);
        let alarm = self.alarms.raise(
            now,
            Some(chain),
            New {
                asset: Some(asset.clone()),
                tag: anomaly.tags.first().cloned(),
                cause: AlarmCause::Score {
                    anomaly: *anomaly_id,
                    score: anomaly.score,
                    fault: anomaly.fault,
                    pattern: anomaly.pattern,
                },
                severity: alarm_severity(anomaly, self.criticality(asset)),
                value: anomaly.evidence.first().map(|evidence| evidence.value),
                message: self.sentence(anomaly, *confidence),
                subject: String::new(),
            },
            out,
        );
        let file = self.files.entry(asset.clone()).or_default();
        while file.troubles.len() >= TROUBLES_MAX {
            let Some((_, oldest)) = file.troubles.pop_first() else { break };
            self.alarms.clear(now, oldest.alarm, Some("overflow"), out);
        }
        file.troubles.insert(
            *anomaly_id,
            Trouble { anomaly: anomaly.clone(), confidence: *confidence, alarm, chain },
        );
        match anomaly.fault {
            Fault::Machine => {
                out.emit_from(
                    chain,
                    Body::PredictionRequested {
                        asset: asset.clone(),
                        anomaly: *anomaly_id,
                        tags: anomaly.tags.clone(),
                    },
                );
            }
            Fault::Sensor => {
                out.emit_from(
                    chain,
                    Body::ActionChosen {
                        asset: asset.clone(),
                        anomaly: *anomaly_id,
                        action: Action::Watch,
                        reason: "a sensor fault: the machine may be well".to_owned(),
                    },
                );
            }
        }
        out.save(file.record(asset, now.utc));
    }

    /// Detection says more of an anomaly that is confirmed already.
    fn worsened(&mut self, now: Now, event: &Event, anomaly: &Anomaly, out: &mut Outbox<'_>) {
        let Some(id) = event.cause else { return };
        let criticality = self.criticality(&anomaly.asset);
        let Some(file) = self.files.get_mut(&anomaly.asset) else { return };
        let Some(trouble) = file.troubles.get_mut(&id) else { return };
        let severity = alarm_severity(anomaly, criticality);
        trouble.anomaly = anomaly.clone();
        let (alarm, confidence) = (trouble.alarm, trouble.confidence);
        out.save(file.record(&anomaly.asset, now.utc));
        if self.alarms.get(alarm).is_some_and(|alarm| severity > alarm.severity) {
            let message = self.sentence(anomaly, confidence);
            self.alarms.update(alarm, severity, message, out);
        }
    }

    fn criticality(&self, asset: &AssetId) -> Criticality {
        self.setting.plant.assets.get(asset).map_or(Criticality::DEFAULT, |asset| asset.criticality)
    }

    /// Takes a prediction, or that there is none (`mode` is then told by the anomaly), and chooses
    /// what to do.
    #[expect(clippy::too_many_arguments, reason = "a prediction and its absence share one way")]
    fn choose(
        &mut self,
        now: Now,
        asset: &AssetId,
        anomaly: Option<EventId>,
        mode: Option<Mode>,
        prediction: Option<&Prediction>,
        abstained: Option<&str>,
        out: &mut Outbox<'_>,
    ) {
        let Some(file) = self.files.get(asset) else { return };
        let machine = |trouble: &Trouble| trouble.anomaly.fault == Fault::Machine;
        // A prediction whose anomaly is over may still concern another one of the asset.
        let found = anomaly
            .and_then(|id| file.troubles.get_key_value(&id))
            .or_else(|| file.troubles.iter().rfind(|(_, trouble)| machine(trouble)))
            .filter(|(_, trouble)| machine(trouble));
        let Some((id, trouble)) = found.map(|(id, trouble)| (*id, trouble.clone())) else { return };
        let mode = mode.or_else(|| self.mode_without_prediction(&trouble.anomaly));
        let Some(mode) = mode else { return };
        self.weigh(now, asset, id, &trouble, &Prospect { mode, prediction, abstained }, out);
    }

    fn weigh(
        &mut self,
        now: Now,
        asset: &AssetId,
        anomaly: EventId,
        trouble: &Trouble,
        prospect: &Prospect<'_>,
        out: &mut Outbox<'_>,
    ) {
        let p50 = prospect.p50();
        let config = self.setting.config.clone();
        let (action, mut reason) = table::choose(
            &config.decisions,
            config.approval.min_criticality,
            Situation {
                p50,
                confidence: trouble.confidence,
                criticality: self.criticality(asset),
                severity: trouble.anomaly.severity,
            },
        );
        if let Some(why) = prospect.abstained {
            reason = format!("no prediction ({why}): {reason}");
        }
        let mode = &prospect.mode.id;
        let (known, declined) = match self.files.get(asset) {
            Some(file) => (file.cases.get(mode).cloned(), file.declined.get(mode).copied()),
            None => (None, None),
        };
        if let Some(then) = declined
            && !has_halved(then, p50)
        {
            return;
        }
        let wanted = Stand::of(action);
        let new = match &known {
            None => wanted,
            Some(case) if case.stand < wanted && case.stand == Stand::Watching => wanted,
            // What was asked or ordered stays so; only when it has become much more urgent is it
            // said again, as the same question.
            Some(case) => {
                if case.stand > Stand::Watching && has_halved(case.p50, p50) {
                    self.escalate(now, asset, anomaly, trouble, case, prospect, out);
                }
                return;
            }
        };
        let order = self.order(anomaly, trouble, asset, prospect);
        let chain = known.map_or(trouble.chain, |case| case.chain);
        let cause = out.context().map_or(chain.cause, |context| context.cause);
        let chosen = out.emit_from(
            Chain { cause, ..chain },
            Body::ActionChosen { asset: asset.clone(), anomaly, action, reason: reason.clone() },
        );
        let chain = Chain { cause: chosen, ..chain };
        let task = order.task.clone();
        match action {
            Action::Watch => {}
            Action::Ask => {
                let question = self.question(&order, &reason);
                out.emit_from(chain, Body::ApprovalRequested { order, question });
            }
            Action::Act => {
                out.emit_from(chain, Body::OrderAuthorised { order, by: "policy".to_owned() });
            }
        }
        if let Some(p50) = p50 {
            self.tell_urgency(trouble, prospect, p50, out);
        }
        let Some(file) = self.files.get_mut(asset) else { return };
        file.declined.remove(mode);
        if p50.is_some() {
            // What was guessed of this anomaly before anything could be predicted is superseded.
            file.cases.retain(|_, case| {
                case.stand > Stand::Watching || case.p50.is_some() || case.anomaly != anomaly
            });
        }
        if file.cases.len() >= CASES_MAX && !file.cases.contains_key(mode) {
            // Modes that are only watched lose nothing by being forgotten.
            let watched = |(_, case): &(&String, &Case)| case.stand == Stand::Watching;
            if let Some(victim) = file.cases.iter().find(watched).map(|(mode, _)| mode.clone()) {
                file.cases.remove(&victim);
            }
        }
        let case = Case { stand: new, anomaly, chain, p50, task: Some(task) };
        file.cases.insert(mode.clone(), case);
        out.save(file.record(asset, now.utc));
    }

    #[expect(clippy::too_many_arguments, reason = "one caller; the arguments are its findings")]
    fn escalate(
        &mut self,
        now: Now,
        asset: &AssetId,
        anomaly: EventId,
        trouble: &Trouble,
        case: &Case,
        prospect: &Prospect<'_>,
        out: &mut Outbox<'_>,
    ) {
        let Some(p50) = prospect.p50() else { return };
        let reason = format!(
            "the limit is now about {} away, before it was {}",
            table::span(p50),
            case.p50.map_or_else(|| "unknown".to_owned(), table::span)
        );
        if case.stand == Stand::Asked {
            let mut order = self.order(anomaly, trouble, asset, prospect);
            order.anomaly = Some(case.anomaly);
            // The same task: approval takes it for the question that is open, not for another.
            order.task = case.task.clone().unwrap_or(order.task);
            let chosen = out.emit_from(
                case.chain,
                Body::ActionChosen {
                    asset: asset.clone(),
                    anomaly: case.anomaly,
                    action: Action::Ask,
                    reason: reason.clone(),
                },
            );
            let question = self.question(&order, &reason);
            let chain = Chain { cause: chosen, ..case.chain };
            out.emit_from(chain, Body::ApprovalRequested { order, question });
        }
        self.tell_urgency(trouble, prospect, p50, out);
        if let Some(file) = self.files.get_mut(asset) {
            if let Some(case) = file.cases.get_mut(&prospect.mode.id) {
                case.p50 = Some(p50);
            }
            out.save(file.record(asset, now.utc));
        }
    }

    /// Raises the alarm's severity to the prediction's urgency.
    fn tell_urgency(
        &mut self,
        trouble: &Trouble,
        prospect: &Prospect<'_>,
        p50: f64,
        out: &mut Outbox<'_>,
    ) {
        let Some(alarm) = self.alarms.get(trouble.alarm) else { return };
        let criticality = self.criticality(&trouble.anomaly.asset);
        let urgency = adjusted(table::urgency(p50), criticality);
        if urgency > alarm.severity {
            let message = format!(
                "{}; {} expected in about {}",
                alarm.message,
                prospect.mode.id,
                table::span(p50)
            );
            self.alarms.update(trouble.alarm, urgency, message, out);
        }
    }

    fn answered(&mut self, now: Now, decision: &Decision, out: &mut Outbox<'_>) {
        let rejected =
            decision.answer.as_ref().is_some_and(|answer| answer.choice == Choice::Reject);
        if rejected {
            self.decline(now, &decision.order, out);
        }
    }

    /// The case is closed; it is raised again only when it has become much more urgent.
    fn decline(&mut self, now: Now, order: &OrderRequest, out: &mut Outbox<'_>) {
        let Some(file) = self.files.get_mut(&order.asset) else { return };
        let Some(mode) = file.mode_of(order) else { return };
        if let Some(case) = file.cases.remove(&mode) {
            file.declined.insert(mode, case.p50);
        }
        self.keep(now, &order.asset, out);
    }

    fn authorised(&mut self, now: Now, order: &OrderRequest, out: &mut Outbox<'_>) {
        let Some(file) = self.files.get_mut(&order.asset) else { return };
        let Some(mode) = file.mode_of(order) else { return };
        if let Some(case) = file.cases.get_mut(&mode)
            && case.stand != Stand::Ordered
        {
            case.stand = Stand::Ordered;
            self.keep(now, &order.asset, out);
        }
    }

    fn completed(&mut self, now: Now, order: &WorkOrder, outcome: Outcome, out: &mut Outbox<'_>) {
        let request = &order.request;
        let helped = match outcome {
            Outcome::Fixed | Outcome::NoFaultFound => true,
            Outcome::Partial | Outcome::Failed => false,
        };
        if helped {
            for alarm in &request.alarms {
                self.alarms.clear(now, *alarm, Some("work-order"), out);
            }
        }
        let Some(file) = self.files.get_mut(&request.asset) else { return };
        if let Some(mode) = file.mode_of(request) {
            file.cases.remove(&mode);
        }
        if helped {
            let about = |id: &EventId, trouble: &Trouble| {
                request.anomaly == Some(*id) || request.alarms.contains(&trouble.alarm)
            };
            for (id, trouble) in &file.troubles {
                if about(id, trouble) {
                    self.alarms.clear(now, trouble.alarm, Some("work-order"), out);
                }
            }
            file.troubles.retain(|id, trouble| !about(id, trouble));
            file.declined.clear();
        }
        self.keep(now, &request.asset, out);
    }

    /// An anomaly is over: by itself, or `by` says how.
    fn ended(
        &mut self,
        now: Now,
        asset: &AssetId,
        anomaly: EventId,
        by: Option<&str>,
        out: &mut Outbox<'_>,
    ) {
        let Some(file) = self.files.get_mut(asset) else { return };
        let Some(trouble) = file.troubles.remove(&anomaly) else { return };
        self.alarms.clear(now, trouble.alarm, by, out);
        // What is only watched ends with its anomaly. A question or an order stays: the machine
        // that comes back to normal by itself after a warning is not repaired by that.
        file.cases.retain(|_, case| case.stand > Stand::Watching || case.anomaly != anomaly);
        if file.troubles.is_empty() {
            file.declined.clear();
        }
        self.keep(now, asset, out);
    }

    /// The asset's normal behaviour is learnt anew: what was found against the old one is over.
    fn renewed(&mut self, now: Now, asset: &AssetId, by: &str, out: &mut Outbox<'_>) {
        let anomalies: Vec<EventId> = self
            .files
            .get(asset)
            .into_iter()
            .flat_map(|file| file.troubles.keys().copied())
            .collect();
        for anomaly in anomalies {
            self.ended(now, asset, anomaly, Some(by), out);
        }
    }

    /// Writes an asset's file, and forgets it when nothing is in it.
    fn keep(&mut self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        let Some(file) = self.files.get(asset) else { return };
        out.save(file.record(asset, now.utc));
        if file.is_empty() {
            self.files.remove(asset);
        }
    }
}

/// Whether a time to the limit has become much shorter than it was (never known counts as long).
fn has_halved(then: Option<f64>, now: Option<f64>) -> bool {
    match (then, now) {
        (Some(then), Some(now)) => now <= then * ESCALATION,
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

impl Stage for Orchestration {
    fn name(&self) -> StageName {
        StageName::Orchestration
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        self.alarms.restore(now, saved)?;
        for row in saved.of(RecordKind::CaseFile) {
            let unreadable = |error: &dyn std::fmt::Display| {
                StageError::new(format!("case {}: {error}", row.id))
            };
            let asset = AssetId::new(&row.id).map_err(|error| unreadable(&error))?;
            let file: File = row.read().map_err(|error| unreadable(&error))?;
            self.files.insert(asset, file);
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "most events need nothing from orchestration; those that do are listed"
        )]
        match &event.body {
            Body::AnomalyValidated(validated) => match validated.verdict {
                Verdict::Confirmed => self.confirmed(now, event, validated, out),
                Verdict::Dismissed | Verdict::Inconclusive => {}
            },
            Body::AnomalyDetected(anomaly) => self.worsened(now, event, anomaly, out),
            Body::AnomalyEnded { asset, anomaly } => self.ended(now, asset, *anomaly, None, out),
            Body::FeedbackGiven { asset, anomaly, real: false, .. } => {
                self.ended(now, asset, *anomaly, Some("feedback"), out);
            }
            Body::BaselineReset { asset, tags, .. } if tags.is_empty() => {
                self.renewed(now, asset, "baseline", out);
            }
            Body::FailurePredicted(prediction) => {
                let mode = Mode {
                    id: prediction.failure_mode.clone(),
                    actions: prediction.actions.clone(),
                    skills: prediction.skills.clone(),
                    repair: Duration::try_from_secs_f64(prediction.repair_seconds)
                        .unwrap_or(Duration::ZERO),
                };
                self.choose(
                    now,
                    &prediction.asset,
                    prediction.anomaly,
                    Some(mode),
                    Some(prediction),
                    None,
                    out,
                );
            }
            Body::PredictionAbstained { asset, anomaly, reason } => {
                self.choose(now, asset, *anomaly, None, None, Some(reason), out);
            }
            Body::DecisionMade(decision) => self.answered(now, decision, out),
            Body::OrderAuthorised { order, .. } => self.authorised(now, order, out),
            Body::WorkOrderCancelled(order) => self.decline(now, &order.request, out),
            Body::WorkOrderCompleted(order, completion)
            | Body::WorkOrderFailed(order, completion) => {
                self.completed(now, order, completion.outcome, out);
            }
            Body::Condition { .. } => self.condition(now, &event.body, out),
            Body::EventSetAside { stage, event: aside, error, .. } => {
                self.set_aside(now, stage, *aside, error, out);
            }
            Body::StageSwitched { stage, on, reason } => {
                self.switched(now, stage, *on, reason, out);
            }
            Body::CommandTaken(Command { verb: Verb::Retry { event }, .. }) => {
                self.alarms.remove_event(now, *event, out);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_command(
        &mut self,
        now: Now,
        command: &Command,
        out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        match &command.verb {
            Verb::Acknowledge { alarm } => self.alarms.acknowledge(*alarm, &command.by, out),
            Verb::Shelve { alarm, span, .. } => self.alarms.shelve(now, *alarm, *span, out),
            Verb::Unshelve { alarm } => self.alarms.unshelve(*alarm, out),
            Verb::Decide { .. }
            | Verb::CreateOrder { .. }
            | Verb::Complete { .. }
            | Verb::Reschedule { .. }
            | Verb::Cancel { .. }
            | Verb::Feedback { .. }
            | Verb::Relearn { .. }
            | Verb::Train { .. }
            | Verb::Promote { .. }
            | Verb::Rollback { .. }
            | Verb::Pin { .. }
            | Verb::ImportModel(_)
            | Verb::Retry { .. } => None,
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.alarms.next_deadline()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        self.alarms.on_deadline(now, out);
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.setting = setting.clone();
        let kept = |asset: &AssetId| setting.plant.assets.contains_key(asset);
        self.alarms.close_removed(now, kept, out);
        let gone: Vec<AssetId> = self.files.keys().filter(|asset| !kept(asset)).cloned().collect();
        for asset in gone {
            self.files.remove(&asset);
            out.save(File::default().record(&asset, now.utc));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
