//! The bytes of models: kept in `state.db` exactly as long as their record is open, written by the
//! commit that writes the record.

use serde_json::json;

use super::Engine;
use crate::analytics::model_file;
use crate::domain::event::{Body, JobSpec};
use crate::domain::ids::EventId;
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Now;

/// Starts of the daemon that a training may outlast; one that ends the process must not do so at
/// every start.
const TRAINING_STARTS_MAX: u64 = 3;

impl Engine {
    /// A record of a model is about to be kept: a new one takes the bytes this turn brings, a
    /// closed one lets its bytes go.
    pub(super) fn shelve_model(&mut self, record: &Record, identity: &(RecordKind, String)) {
        if record.kind != RecordKind::Model {
            return;
        }
        if !record.open {
            self.pending.model(record.id.clone(), None);
        } else if !self.mirror.contains_key(identity)
            && let Some(bytes) = self.parcel.take()
        {
            self.pending.model(record.id.clone(), Some(bytes));
        }
    }

    /// Looks once, at a start, whether all that is kept of models is as it was written, and counts
    /// the starts that open trainings have seen.
    pub fn take_stock(&mut self, now: Now) {
        let of = |kind: RecordKind| self.mirror.values().filter(move |it| it.kind == kind).cloned();
        let models: Vec<Record> = of(RecordKind::Model).collect();
        let jobs: Vec<Record> = of(RecordKind::Job).collect();
        for record in models {
            let error = match self.store.model(&record.id) {
                Ok(Some(bytes)) => model_file::check(&bytes).err().map(|error| error.to_string()),
                Ok(None) => Some("its content is not there".to_owned()),
                Err(error) => Some(format!("its content cannot be read: {error}")),
            };
            let (Some(error), Some(asset), Ok(model)) =
                (error, record.asset.clone(), EventId::parse(&record.id))
            else {
                continue;
            };
            let damaged = self.first(now, Body::ModelDamaged { asset, model, error });
            self.drain_event(now, damaged);
        }
        for mut record in jobs {
            let Ok(job) = EventId::parse(&record.id) else { continue };
            let Some(spec @ JobSpec::Train(_)) = self.job_spec(job) else { continue };
            let starts = record.body["starts"].as_u64().unwrap_or(0) + 1;
            if starts > TRAINING_STARTS_MAX {
                let why = format!("the daemon ended {TRAINING_STARTS_MAX} times while it learnt");
                self.finish_job(now, job, spec, Err(why));
                continue;
            }
            record.body["starts"] = json!(starts);
            self.keep(record);
        }
    }
}
