//! The logbook: what was done to which machine.
//!
//! Scheduling closes an order and says so; this stage writes the entry, and where the technician
//! set the machine right it asks for a fresh baseline: what was normal of the worn part is not
//! normal of the new one. Alarms that the order was about are closed by the stages that own them.
//!
//! The newest [`ENTRIES_OPEN_MAX`] entries stay open: they answer, also after a restart, whoever
//! completes an order a second time. Older ones follow the journal's retention.

use std::collections::BTreeMap;

use super::{Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::event::{Body, Event};
use crate::domain::ids::EventId;
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::{Now, Timestamp};
use crate::domain::work_order::{Completion, LogEntry, Outcome, WorkOrder};

/// Entries that are handed back at a start.
pub const ENTRIES_OPEN_MAX: usize = 1_000;

/// The stage.
#[derive(Debug)]
pub struct Logbook {
    /// Open entries in the order they were written; orders are named in that order too.
    open: BTreeMap<(Timestamp, EventId), LogEntry>,
}

impl Logbook {
    /// An empty logbook.
    #[must_use]
    pub const fn new(_setting: &Setting) -> Self {
        Self { open: BTreeMap::new() }
    }

    fn write(
        &mut self,
        now: Now,
        order: &WorkOrder,
        completion: &Completion,
        out: &mut Outbox<'_>,
    ) {
        let renewed = match completion.outcome {
            Outcome::Fixed => true,
            Outcome::NoFaultFound | Outcome::Partial | Outcome::Failed => false,
        };
        let asset = &order.request.asset;
        out.emit(Body::WorkLogged {
            asset: asset.clone(),
            order: order.id,
            completion: completion.clone(),
            renewed,
        });
        if renewed {
            // A repair changes more than the tag that betrayed it: a new bearing runs cooler,
            // quieter and draws less. So the whole asset is learnt anew.
            out.emit(Body::BaselineReset {
                asset: asset.clone(),
                tags: Vec::new(),
                reason: format!("work order {} was completed: {}", order.id, order.request.task),
            });
        }
        let entry = LogEntry {
            order: order.clone(),
            completion: completion.clone(),
            renewed,
            time: now.utc,
        };
        out.save(record(&entry, true));
        self.open.insert((entry.time, order.id), entry);
        while self.open.len() > ENTRIES_OPEN_MAX {
            if let Some((_, oldest)) = self.open.pop_first() {
                out.save(record(&oldest, false));
            }
        }
    }
}

fn record(entry: &LogEntry, open: bool) -> Record {
    let outcome = match entry.completion.outcome {
        Outcome::Fixed => "fixed",
        Outcome::NoFaultFound => "no-fault-found",
        Outcome::Partial => "partial",
        Outcome::Failed => "failed",
    };
    Record::new(RecordKind::LogEntry, entry.order.id, entry.time, entry)
        .about(&entry.order.request.asset)
        .in_state(outcome, open)
}

impl Stage for Logbook {
    fn name(&self) -> StageName {
        StageName::Logbook
    }

    fn restore(&mut self, _now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        for record in saved.of(RecordKind::LogEntry) {
            let entry: LogEntry = record.read().map_err(|error| {
                StageError::new(format!("log entry {} cannot be read: {error}", record.id))
            })?;
            self.open.insert((entry.time, entry.order.id), entry);
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        if let Body::WorkOrderCompleted(order, completion)
        | Body::WorkOrderFailed(order, completion) = &event.body
        {
            self.write(now, order, completion, out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agents::scheduling::Scheduling;
    use crate::agents::testing::{Bench, asset, plain_config, setting};
    use crate::domain::command::{CommandResult, Refusal, Verb};
    use crate::domain::severity::Severity;
    use crate::domain::work_order::OrderRequest;

    fn bench() -> Bench {
        Bench::new(setting(plain_config()), |setting| {
            vec![Box::new(Scheduling::new(setting)), Box::new(Logbook::new(setting))]
        })
    }

    fn ordered(bench: &mut Bench) -> EventId {
        let order = OrderRequest {
            asset: asset("P-101"),
            task: "replace the bearing".to_owned(),
            skills: vec!["mechanical".to_owned()],
            duration_seconds: 3600.0,
            priority: Severity::High,
            not_before: None,
            due: None,
            technician: None,
            alarms: Vec::new(),
            anomaly: None,
        };
        bench.emit(Body::OrderAuthorised { order, by: "policy".to_owned() });
        bench.last("work-order-planned").id
    }

    fn complete(bench: &mut Bench, order: EventId, outcome: Outcome) -> CommandResult {
        let completion = Completion {
            outcome,
            found: Some("outer race spalled".to_owned()),
            notes: None,
            duration: Some(5400.0),
            by: None,
        };
        bench.command_by("eva", Verb::Complete { order, completion }).unwrap()
    }

    #[test]
    fn a_repair_is_written_down_and_begins_a_fresh_baseline() {
        let mut bench = bench();
        let order = ordered(&mut bench);
        complete(&mut bench, order, Outcome::Fixed).unwrap();
        let logged = bench.last("work-logged");
        let Body::WorkLogged { order: of, renewed: true, completion, .. } = &logged.body else {
            panic!("{logged:?}")
        };
        assert_eq!((*of, completion.by.as_deref()), (order, Some("eva")));
        assert_eq!(logged.correlation, bench.events[0].correlation);
        let Body::BaselineReset { asset: of, tags, .. } = &bench.last("baseline-reset").body else {
            panic!()
        };
        assert_eq!((of, tags.len()), (&asset("P-101"), 0));
        let record = &bench.records[&(RecordKind::LogEntry, order.to_string())];
        assert_eq!((record.state.as_str(), record.open), ("fixed", true));
    }

    #[test]
    fn what_was_not_repaired_keeps_its_baseline() {
        for outcome in [Outcome::NoFaultFound, Outcome::Partial, Outcome::Failed] {
            let mut bench = bench();
            let order = ordered(&mut bench);
            complete(&mut bench, order, outcome).unwrap();
            assert_eq!((bench.count("work-logged"), bench.count("baseline-reset")), (1, 0));
        }
    }

    #[test]
    fn a_second_completion_is_told_of_the_first_also_after_a_restart() {
        let mut bench = bench();
        let order = ordered(&mut bench);
        let answer = complete(&mut bench, order, Outcome::Fixed).unwrap();
        bench.restart(Duration::from_secs(60), true);
        let Err(Refusal::Conflict { first, .. }) = complete(&mut bench, order, Outcome::Failed)
        else {
            panic!()
        };
        assert_eq!(first, answer);
        assert_eq!(bench.count("work-logged"), 1);
    }

    #[test]
    fn the_oldest_entry_is_closed_when_there_are_too_many() {
        let mut bench = bench();
        for _ in 0..=ENTRIES_OPEN_MAX {
            let order = ordered(&mut bench);
            complete(&mut bench, order, Outcome::NoFaultFound).unwrap();
            bench.pass(Duration::from_secs(1));
        }
        let entries = bench.of_record(RecordKind::LogEntry);
        assert_eq!(entries.len(), ENTRIES_OPEN_MAX + 1);
        let closed: Vec<_> = entries.iter().filter(|record| !record.open).collect();
        assert_eq!(closed.len(), 1);
        assert!(entries.iter().all(|record| record.time >= closed[0].time));
    }
}
