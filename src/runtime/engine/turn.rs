//! Inside a turn: events go to every stage in pipeline order until none has work, and a stage that
//! fails is rebuilt and tried once more.

use std::time::Duration;

use serde_json::json;

use super::{Engine, JOB_PATIENCE, TRAINING_PATIENCE};
use crate::agents::{Chain, Effect, Outbox, Stage, StageError};
use crate::domain::command::{CommandResult, Refusal};
use crate::domain::event::{Body, Event, JobSpec, Phase};
use crate::domain::ids::EventId;
use crate::domain::reading::Reading;
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Now;

/// A turn that brings about more events than this is cut short: something feeds itself.
const TURN_EVENTS_MAX: usize = 10_000;

/// What one call of a stage brought about.
#[derive(Debug, Default)]
pub(super) struct Produced {
    events: Vec<Event>,
    records: Vec<Record>,
    effects: Vec<Effect>,
}

impl Engine {
    /// Hands readings to every stage and drains what they bring about.
    pub(super) fn feed(&mut self, now: Now, readings: &[Reading], historical: bool) {
        if readings.is_empty() {
            return;
        }
        for index in 0..self.slots.len() {
            if !self.slots[index].on {
                continue;
            }
            let result = self.guarded(now, index, None, |stage, out| {
                stage.on_readings(now, readings, historical, out)
            });
            match result {
                Ok(produced) if produced.is_empty() => {}
                Ok(produced) => self.drain(now, produced),
                Err(error) => {
                    let name = self.slots[index].name.as_str();
                    let skipped = self.first(
                        now,
                        Body::Condition {
                            condition: "readings-skipped".to_owned(),
                            subject: name.to_owned(),
                            active: true,
                            severity: crate::domain::severity::Severity::High,
                            message: format!(
                                "stage {name} could not digest {} readings: {error}",
                                readings.len()
                            ),
                        },
                    );
                    let mut work = vec![skipped];
                    self.count_failure(now, index, &mut work);
                    self.run(now, work);
                }
            }
        }
    }

    /// Calls a stage. When it fails it is rebuilt and called once more; failing again, its outputs
    /// are gone and the error is returned.
    pub(super) fn guarded(
        &mut self,
        now: Now,
        index: usize,
        chain: Option<Chain>,
        mut call: impl FnMut(&mut dyn Stage, &mut Outbox<'_>) -> Result<(), StageError>,
    ) -> Result<Produced, StageError> {
        let first = self.attempt(now, index, chain, &mut call);
        let Err(error) = first else { return first };
        let stage = self.slots[index].name.as_str();
        tracing::error!(stage, %error, "a stage failed and is rebuilt");
        self.rebuild(now, index)?;
        let second = self.attempt(now, index, chain, &mut call);
        if second.is_err() {
            // What it was left with after the failure must not see another event.
            self.rebuild(now, index)?;
        }
        second
    }

    /// Makes a stage anew; one that cannot be made is switched off.
    fn rebuild(&mut self, now: Now, index: usize) -> Result<(), StageError> {
        let records: Vec<Record> = self.mirror.values().cloned().collect();
        let slot = &mut self.slots[index];
        slot.rebuild(now, &records).inspect_err(|error| {
            slot.on = false;
            slot.last_error = Some(error.what.clone());
            tracing::error!(stage = slot.name.as_str(), %error, "a stage cannot be rebuilt");
        })
    }

    fn attempt(
        &mut self,
        now: Now,
        index: usize,
        chain: Option<Chain>,
        call: &mut dyn FnMut(&mut dyn Stage, &mut Outbox<'_>) -> Result<(), StageError>,
    ) -> Result<Produced, StageError> {
        let mut out = Outbox::new(now, &mut self.ids, chain);
        self.slots[index].call(&mut out, call)?;
        let Outbox { events, records, effects, .. } = out;
        Ok(Produced { events, records, effects })
    }

    /// Takes what a stage brought about and runs all stages until none has work.
    pub(super) fn drain(&mut self, now: Now, produced: Produced) {
        let work = self.accept(now, produced);
        self.run(now, work);
    }

    /// Runs all stages on one event until none has work.
    pub(super) fn drain_event(&mut self, now: Now, event: Event) {
        self.run(now, vec![event]);
    }

    fn run(&mut self, now: Now, mut work: Vec<Event>) {
        let mut read = vec![0_usize; self.slots.len()];
        loop {
            // The earliest stage that lags behind goes first: events pass down the pipeline.
            let next = (0..self.slots.len()).find(|index| read[*index] < work.len());
            let Some(index) = next else { break };
            let event = work[read[index]].clone();
            read[index] += 1;
            if !self.slots[index].on {
                continue;
            }
            let result = self.guarded(now, index, Some(Chain::of(&event)), |stage, out| {
                stage.on_event(now, &event, out)
            });
            match result {
                Ok(produced) => {
                    let new = self.accept(now, produced);
                    work.extend(new);
                }
                Err(error) => self.set_aside(now, index, &event, &error, &mut work),
            }
            if work.len() > TURN_EVENTS_MAX {
                tracing::error!(
                    events = work.len(),
                    "a turn brings about events without end and is cut short"
                );
                break;
            }
        }
        for event in work {
            if let Body::PhaseChanged { phase: Phase::Armed, .. } = event.body {
                // What has just been learnt took long; it must not be learnt again after a crash.
                self.next_snapshot = self.next_snapshot.min(now.mono + Duration::from_secs(1));
            }
            self.pending.event(event);
        }
    }

    /// Records and effects of a call that succeeded; returns its events.
    fn accept(&mut self, now: Now, produced: Produced) -> Vec<Event> {
        for record in produced.records {
            self.keep(record);
        }
        for effect in produced.effects {
            if let Effect::Run { job, spec } = &effect {
                let correlation = produced
                    .events
                    .iter()
                    .find(|event| event.id == *job)
                    .map_or(*job, |event| event.correlation);
                let body = json!({ "spec": spec, "correlation": correlation });
                let patience = match spec {
                    JobSpec::Degradation { .. } => JOB_PATIENCE,
                    JobSpec::Train(_) | JobSpec::Consult { .. } => TRAINING_PATIENCE,
                };
                self.jobs.insert(*job, now.mono + patience);
                self.keep(Record::new(RecordKind::Job, job, now.utc, &body).in_state("open", true));
            }
            self.pending.effect(effect);
        }
        produced.events
    }

    /// Writes a record and keeps the mirror of open ones.
    pub(super) fn keep(&mut self, record: Record) {
        let identity = (record.kind, record.id.clone());
        self.shelve_model(&record, &identity);
        if record.open {
            self.mirror.insert(identity, record.clone());
        } else {
            self.mirror.remove(&identity);
        }
        self.pending.record(record);
    }

    /// An event that a stage could not digest twice: kept for a person, announced, counted.
    fn set_aside(
        &mut self,
        now: Now,
        index: usize,
        event: &Event,
        error: &StageError,
        work: &mut Vec<Event>,
    ) {
        let stage = self.slots[index].name.as_str();
        let letter = json!({ "stage": stage, "event": event.id, "error": error.what });
        self.keep(
            Record::new(RecordKind::DeadLetter, format!("{stage}:{}", event.id), now.utc, &letter)
                .in_state("set-aside", true),
        );
        // A stage that fails on the news of a failure is not told of that one too.
        if !matches!(event.body, Body::EventSetAside { .. } | Body::StageSwitched { .. }) {
            let mut out = Outbox::new(now, &mut self.ids, Some(Chain::of(event)));
            out.emit(Body::EventSetAside {
                stage: stage.to_owned(),
                event: event.id,
                asset: event.body.asset().cloned(),
                error: error.what.clone(),
                attempts: 2,
            });
            work.append(&mut out.events);
        }
        self.count_failure(now, index, work);
    }

    /// Switches a stage off, aloud, when it has failed too often.
    fn count_failure(&mut self, now: Now, index: usize, work: &mut Vec<Event>) {
        let slot = &mut self.slots[index];
        if slot.count_set_aside(now) && slot.on {
            slot.on = false;
            let stage = slot.name.as_str().to_owned();
            tracing::error!(stage, "a stage failed too often and is switched off");
            let event = self.first(
                now,
                Body::StageSwitched {
                    stage,
                    on: false,
                    reason: "set aside five events in ten minutes".to_owned(),
                },
            );
            work.push(event);
        }
    }

    /// Gives an event that was set aside to its stages once more; switches them on again.
    pub(super) fn retry(&mut self, now: Now, id: EventId) -> CommandResult {
        let letters: Vec<Record> = self
            .mirror
            .values()
            .filter(|record| record.kind == RecordKind::DeadLetter)
            .filter(|record| record.body["event"] == json!(id))
            .cloned()
            .collect();
        if letters.is_empty() {
            return Err(Refusal::NotFound(format!("no event {id} was set aside")));
        }
        let stored =
            self.store.event(id).map_err(|error| Refusal::Unavailable(error.to_string()))?;
        let Some(stored) = stored else {
            return Err(Refusal::NotFound(format!("event {id} is no longer in the journal")));
        };
        let mut again = Vec::new();
        for letter in letters {
            let stage = letter.body["stage"].as_str().unwrap_or_default().to_owned();
            let Some(index) = self.slots.iter().position(|slot| slot.name.as_str() == stage) else {
                continue;
            };
            if !self.slots[index].on {
                self.slots[index].forgive();
                let switched = self.first(
                    now,
                    Body::StageSwitched {
                        stage: stage.clone(),
                        on: true,
                        reason: "a person retries".to_owned(),
                    },
                );
                self.drain_event(now, switched);
            }
            let event = stored.event.clone();
            let chain = Some(Chain::of(&event));
            match self.guarded(now, index, chain, |stage, out| stage.on_event(now, &event, out)) {
                Ok(produced) => {
                    self.keep(letter.in_state("retried", false));
                    self.drain(now, produced);
                }
                Err(error) => again.push(format!("{stage}: {error}")),
            }
        }
        if again.is_empty() {
            Ok(json!({ "event": id, "state": "retried" }))
        } else {
            Err(Refusal::Conflict {
                detail: format!("it failed again: {}", again.join("; ")),
                first: json!({ "event": id, "state": "set-aside" }),
            })
        }
    }
}

impl Produced {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.records.is_empty() && self.effects.is_empty()
    }
}
