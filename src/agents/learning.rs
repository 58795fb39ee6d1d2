//! Learning: what people say of anomalies becomes labels, and labels move priors.
//!
//! A label comes from direct feedback or from a completed order: something repaired or found says
//! that the anomaly behind it was real, "no fault found" that it was not, and work that did not
//! help says nothing unless it names a finding. The newest word counts; the one before is taken
//! back first, so that repeating a word changes nothing.
//!
//! Per asset, tag and detector the labels are counted in a Beta prior that begins at (1, 1)
//! (Bayes–Laplace); validation weighs later anomalies by it. An anomaly speaks for the detectors
//! that reported it, on the tag most answerable.
//!
//! Bounds: the newest [`ANOMALIES_MAX`] anomalies can be labelled, older ones are forgotten (their
//! labels stay counted); priors exist only for configured tags that were ever labelled.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::registry::Registry;
use super::{Chain, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::anomaly::{Anomaly, Verdict};
use crate::domain::command::{Command, CommandResult, Refusal, Verb};
use crate::domain::event::{Body, Event};
use crate::domain::ids::EventId;
use crate::domain::label::{Label, Labelled, Prior};
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::{Now, Timestamp};
use crate::domain::work_order::{Completion, Outcome, WorkOrder};

/// Anomalies that can still be labelled.
pub const ANOMALIES_MAX: usize = 1_000;

/// The stage.
#[derive(Debug)]
pub struct Learning {
    /// By id, which grows with time: the first is the oldest.
    anomalies: BTreeMap<EventId, Remembered>,
    /// By the identity of their records.
    priors: BTreeMap<String, Prior>,
    /// Models, and what they are learnt from.
    registry: Registry,
}

#[derive(Debug, Clone)]
struct Remembered {
    labelled: Labelled,
    /// When the anomaly was announced.
    since: Timestamp,
}

impl Learning {
    /// A stage that has heard nothing yet.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        let registry = Registry::new(setting);
        Self { anomalies: BTreeMap::new(), priors: BTreeMap::new(), registry }
    }

    fn remember(
        &mut self,
        event: &Event,
        id: EventId,
        anomaly: &Anomaly,
        verdict: Option<Verdict>,
        out: &mut Outbox<'_>,
    ) {
        let Some(tag) = anomaly.tags.first() else { return };
        let since = self.anomalies.get(&id).map_or(event.time, |known| known.since);
        let label = self.anomalies.get(&id).and_then(|known| known.labelled.label.clone());
        if label.is_some() {
            // What a label has moved must be taken back from the same priors; nothing to update.
            return;
        }
        let mut detectors: Vec<String> =
            anomaly.detectors.iter().map(|score| score.detector.clone()).collect();
        detectors.sort_unstable();
        detectors.dedup();
        let labelled = Labelled {
            anomaly: id,
            asset: anomaly.asset.clone(),
            tag: tag.clone(),
            detectors,
            verdict,
            label,
            correlation: event.correlation,
        };
        let remembered = Remembered { labelled, since };
        out.save(record(&remembered, true));
        self.anomalies.insert(id, remembered);
        while self.anomalies.len() > ANOMALIES_MAX {
            if let Some((_, oldest)) = self.anomalies.pop_first() {
                out.save(record(&oldest, false));
            }
        }
    }

    /// Takes a label for an anomaly; says whether it changed anything.
    fn label(&mut self, id: EventId, label: Label, chain: Chain, out: &mut Outbox<'_>) -> bool {
        let Some(remembered) = self.anomalies.get_mut(&id) else { return false };
        let earlier = remembered.labelled.label.clone();
        let same = |earlier: &Label| {
            (earlier.real, &earlier.notes, &earlier.by) == (label.real, &label.notes, &label.by)
        };
        if earlier.as_ref().is_some_and(same) {
            return false;
        }
        let given = out.emit_from(
            chain,
            Body::FeedbackGiven {
                asset: remembered.labelled.asset.clone(),
                anomaly: id,
                real: label.real,
                by: label.by.clone(),
                notes: label.notes.clone(),
            },
        );
        let moved = earlier.as_ref().map(|earlier| earlier.real) != Some(label.real);
        let real = label.real;
        remembered.labelled.label = Some(label);
        let labelled = remembered.labelled.clone();
        out.save(record(remembered, true));
        if moved {
            let chain = Chain { cause: given, correlation: chain.correlation };
            for detector in &labelled.detectors {
                self.count(&labelled, detector, earlier.as_ref(), real, chain, out);
            }
        }
        true
    }

    /// Moves one prior: takes the earlier word back, counts the new one.
    fn count(
        &mut self,
        labelled: &Labelled,
        detector: &str,
        earlier: Option<&Label>,
        real: bool,
        chain: Chain,
        out: &mut Outbox<'_>,
    ) {
        let fresh = Prior::new(labelled.asset.clone(), labelled.tag.clone(), detector.to_owned());
        let prior = self.priors.entry(fresh.record_id()).or_insert(fresh);
        match earlier.map(|earlier| earlier.real) {
            Some(true) => prior.right = (prior.right - 1.0).max(1.0),
            Some(false) => prior.wrong = (prior.wrong - 1.0).max(1.0),
            None => {}
        }
        if real {
            prior.right += 1.0;
        } else {
            prior.wrong += 1.0;
        }
        out.emit_from(
            chain,
            Body::PriorMoved {
                asset: prior.asset.clone(),
                tag: prior.tag.clone(),
                detector: prior.detector.clone(),
                right: prior.right,
                wrong: prior.wrong,
            },
        );
        out.save(prior_record(prior, labelled.label.as_ref().map(|label| label.time), true));
    }

    /// What a completed order says of the anomaly behind it.
    fn learn_from_work(
        &mut self,
        now: Now,
        event: &Event,
        order: &WorkOrder,
        completion: &Completion,
        out: &mut Outbox<'_>,
    ) {
        let Some(anomaly) = order.request.anomaly else { return };
        let found = completion.found.as_ref().is_some_and(|found| !found.trim().is_empty());
        let real = match completion.outcome {
            Outcome::Fixed | Outcome::Partial => true,
            Outcome::NoFaultFound => false,
            Outcome::Failed if found => true,
            Outcome::Failed => return,
        };
        let booked = order.booking.as_ref().map(|booking| booking.technician.to_string());
        let by = completion.by.clone().or(booked).unwrap_or_else(|| "technician".to_owned());
        let notes = completion.found.clone().or_else(|| completion.notes.clone());
        let label = Label { real, by, notes, time: now.utc, order: Some(order.id) };
        self.label(anomaly, label, Chain::of(event), out);
    }

    fn feedback(
        &mut self,
        now: Now,
        id: EventId,
        real: bool,
        notes: Option<&String>,
        by: &str,
        out: &mut Outbox<'_>,
    ) -> CommandResult {
        let Some(known) = self.anomalies.get(&id) else {
            return Err(Refusal::NotFound(format!("there is no anomaly {id} to label")));
        };
        let chain = Chain { cause: id, correlation: known.labelled.correlation };
        let label =
            Label { real, by: by.to_owned(), notes: notes.cloned(), time: now.utc, order: None };
        let changed = self.label(id, label, chain, out);
        Ok(self.answer(id, changed))
    }

    fn answer(&self, id: EventId, changed: bool) -> Value {
        let Some(known) = self.anomalies.get(&id) else { return Value::Null };
        let priors: Vec<&Prior> = known
            .labelled
            .detectors
            .iter()
            .filter_map(|detector| {
                let (asset, tag) = (known.labelled.asset.clone(), known.labelled.tag.clone());
                self.priors.get(&Prior::new(asset, tag, detector.clone()).record_id())
            })
            .collect();
        json!({"anomaly": id, "label": known.labelled.label, "changed": changed, "priors": priors})
    }
}

fn record(remembered: &Remembered, open: bool) -> Record {
    let labelled = &remembered.labelled;
    let state = match &labelled.label {
        None => "unlabelled",
        Some(label) if label.real => "real",
        Some(_) => "false",
    };
    Record::new(RecordKind::Label, labelled.anomaly, remembered.since, labelled)
        .about(&labelled.asset)
        .in_state(state, open)
}

fn prior_record(prior: &Prior, time: Option<Timestamp>, open: bool) -> Record {
    Record::new(RecordKind::Prior, prior.record_id(), time.unwrap_or_default(), prior)
        .about(&prior.asset)
        .in_state(if open { "counted" } else { "configuration" }, open)
}

impl Stage for Learning {
    fn name(&self) -> StageName {
        StageName::Learning
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        let unreadable = |record: &Record, error| {
            let kind = record.kind.as_str();
            StageError::new(format!("{kind} {} cannot be read: {error}", record.id))
        };
        for record in saved.of(RecordKind::Label) {
            let labelled: Labelled = record.read().map_err(|error| unreadable(record, error))?;
            let remembered = Remembered { labelled, since: record.time };
            self.anomalies.insert(remembered.labelled.anomaly, remembered);
        }
        for record in saved.of(RecordKind::Prior) {
            let prior: Prior = record.read().map_err(|error| unreadable(record, error))?;
            self.priors.insert(prior.record_id(), prior);
        }
        self.registry.restore(now, saved)
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        if let Body::AnomalyDetected(anomaly) = &event.body {
            self.remember(event, event.id, anomaly, None, out);
        } else if let Body::AnomalyValidated(validated) = &event.body {
            let (id, verdict) = (validated.anomaly_id, Some(validated.verdict));
            self.remember(event, id, &validated.anomaly, verdict, out);
        } else if let Body::WorkOrderCompleted(order, completion)
        | Body::WorkOrderFailed(order, completion) = &event.body
        {
            self.learn_from_work(now, event, order, completion, out);
        }
        self.registry.on_event(now, event, out);
        Ok(())
    }

    fn on_command(
        &mut self,
        now: Now,
        command: &Command,
        out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        if let Verb::Feedback { anomaly, real, notes } = &command.verb {
            return Some(self.feedback(now, *anomaly, *real, notes.as_ref(), &command.by, out));
        }
        self.registry.on_command(now, command, out)
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.registry.next_deadline()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        self.registry.on_deadline(now, out);
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        let plant = &setting.plant;
        self.priors.retain(|_, prior| {
            let kept = plant.find(prior.asset.as_str(), prior.tag.as_str()).is_some();
            if !kept {
                out.save(prior_record(prior, Some(now.utc), false));
            }
            kept
        });
        self.anomalies.retain(|_, known| {
            let kept = plant.assets.contains_key(&known.labelled.asset);
            if !kept {
                out.save(record(known, false));
            }
            kept
        });
        self.registry.configure(now, setting, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::testing::{Bench, asset, noon, plain_config, setting, tag};
    use crate::domain::anomaly::{DetectorScore, Fault, Pattern, Validated};
    use crate::domain::severity::Severity;
    use crate::domain::work_order::{OrderRequest, OrderState};

    fn bench() -> Bench {
        Bench::new(setting(plain_config()), |setting| vec![Box::new(Learning::new(setting))])
    }

    fn anomaly(detectors: &[&str]) -> Anomaly {
        let score =
            |detector: &&str| DetectorScore { detector: (*detector).to_owned(), score: 0.9 };
        Anomaly {
            asset: asset("P-101"),
            tags: vec![tag("vibration"), tag("bearing_temp")],
            fault: Fault::Machine,
            pattern: Pattern::Drift,
            detectors: detectors.iter().map(score).collect(),
            score: 0.9,
            confidence: 0.8,
            severity: Severity::High,
            evidence: Vec::new(),
            since: noon(),
        }
    }

    fn feedback(bench: &mut Bench, anomaly: EventId, real: bool) -> CommandResult {
        bench.command(Verb::Feedback { anomaly, real, notes: None }).unwrap()
    }

    /// Right and wrong counts of a detector on the vibration tag.
    fn prior(bench: &Bench, detector: &str) -> Option<(f64, f64)> {
        let id = format!("P-101/vibration/{detector}");
        let record = bench.records.get(&(RecordKind::Prior, id))?;
        let prior: Prior = record.read().unwrap();
        Some((prior.right, prior.wrong))
    }

    #[test]
    fn feedback_moves_the_priors_of_the_detectors_that_spoke() {
        let mut bench = bench();
        let id = bench.emit(Body::AnomalyDetected(anomaly(&["robust", "multivariate"])));
        let answer = feedback(&mut bench, id, false).unwrap();
        assert_eq!(answer["label"]["real"], false);
        assert_eq!(prior(&bench, "robust"), Some((1.0, 2.0)));
        assert_eq!(prior(&bench, "multivariate"), Some((1.0, 2.0)));
        assert_eq!(prior(&bench, "stuck"), None);
        assert_eq!((bench.count("feedback-given"), bench.count("prior-moved")), (1, 2));
        assert!(bench.events.iter().all(|event| event.correlation == id));
        let label = &bench.records[&(RecordKind::Label, id.to_string())];
        assert_eq!((label.state.as_str(), label.open), ("false", true));
    }

    #[test]
    fn repeating_changes_nothing_and_another_word_takes_the_first_back() {
        let mut bench = bench();
        let id = bench.emit(Body::AnomalyDetected(anomaly(&["robust"])));
        feedback(&mut bench, id, true).unwrap();
        assert_eq!(feedback(&mut bench, id, true).unwrap()["changed"], false);
        assert_eq!(prior(&bench, "robust"), Some((2.0, 1.0)));
        assert_eq!(bench.count("feedback-given"), 1);
        bench.restart(Duration::from_secs(60), true);
        feedback(&mut bench, id, false).unwrap();
        assert_eq!(prior(&bench, "robust"), Some((1.0, 2.0)));
        assert_eq!(bench.count("feedback-given"), 2);
    }

    #[test]
    fn an_unknown_anomaly_cannot_be_labelled() {
        let unknown = EventId(uuid::Uuid::nil());
        assert!(matches!(feedback(&mut bench(), unknown, true), Err(Refusal::NotFound(_))));
    }

    #[test]
    fn completed_work_labels_the_anomaly_behind_it() {
        let found = Some("outer race spalled");
        for (outcome, found, expected) in [
            (Outcome::Fixed, None, Some((2.0, 1.0))),
            (Outcome::Partial, None, Some((2.0, 1.0))),
            (Outcome::NoFaultFound, None, Some((1.0, 2.0))),
            (Outcome::Failed, None, None),
            (Outcome::Failed, found, Some((2.0, 1.0))),
        ] {
            let mut bench = bench();
            let id = bench.emit(Body::AnomalyDetected(anomaly(&["robust"])));
            let order = WorkOrder {
                id: EventId(uuid::Uuid::from_u128(5)),
                request: OrderRequest {
                    asset: asset("P-101"),
                    task: "look".to_owned(),
                    skills: Vec::new(),
                    duration_seconds: 60.0,
                    priority: Severity::Low,
                    not_before: None,
                    due: None,
                    technician: None,
                    alarms: Vec::new(),
                    anomaly: Some(id),
                },
                booking: None,
                state: OrderState::Completed,
                late: false,
                reasons: Vec::new(),
                authorised_by: "policy".to_owned(),
                correlation: id,
            };
            let completion = Completion {
                outcome,
                found: found.map(str::to_owned),
                notes: None,
                duration: None,
                by: Some("tech-1".to_owned()),
            };
            bench.emit(Body::WorkOrderCompleted(order, completion));
            assert_eq!(prior(&bench, "robust"), expected, "{outcome:?}");
        }
    }

    #[test]
    fn the_verdict_is_remembered_and_a_labelled_anomaly_keeps_its_detectors() {
        let mut bench = bench();
        let id = bench.emit(Body::AnomalyDetected(anomaly(&["robust"])));
        let validated = |detectors: &[&str]| {
            Body::AnomalyValidated(Validated {
                anomaly_id: id,
                anomaly: anomaly(detectors),
                verdict: Verdict::Confirmed,
                confidence: 0.9,
                adjustments: Vec::new(),
            })
        };
        bench.emit(validated(&["robust", "multivariate"]));
        feedback(&mut bench, id, true).unwrap();
        assert_eq!(prior(&bench, "multivariate"), Some((2.0, 1.0)));
        bench.emit(validated(&["robust", "stuck"]));
        feedback(&mut bench, id, false).unwrap();
        assert_eq!(
            (prior(&bench, "multivariate"), prior(&bench, "stuck")),
            (Some((1.0, 2.0)), None)
        );
    }

    #[test]
    fn only_the_newest_anomalies_are_remembered() {
        let mut bench = bench();
        let oldest = bench.emit(Body::AnomalyDetected(anomaly(&["robust"])));
        for _ in 0..ANOMALIES_MAX {
            bench.pass(Duration::from_secs(1));
            bench.emit(Body::AnomalyDetected(anomaly(&["robust"])));
        }
        assert!(feedback(&mut bench, oldest, true).is_err());
        let open = bench.of_record(RecordKind::Label).into_iter().filter(|record| record.open);
        assert_eq!(open.count(), ANOMALIES_MAX);
    }

    #[test]
    fn a_removed_asset_takes_its_priors_along() {
        let mut bench = bench();
        let id = bench.emit(Body::AnomalyDetected(anomaly(&["robust"])));
        feedback(&mut bench, id, true).unwrap();
        let mut config = plain_config();
        config.assets.remove(0);
        config.modbus[0].tags.retain(|kept| kept.tag.path.asset != asset("P-101"));
        bench.configure(setting(config));
        let learnt = [RecordKind::Label, RecordKind::Prior];
        let learnt = bench.records.values().filter(|record| learnt.contains(&record.kind));
        assert!(learnt.clone().count() > 0 && learnt.into_iter().all(|record| !record.open));
        assert!(feedback(&mut bench, id, false).is_err());
    }
}
