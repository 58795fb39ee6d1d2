//! The registry of models, part of the learning stage: what was learnt from which lives, which
//! model is in use, and whether it keeps its promise.
//!
//! ```text
//!  repairs, failures ──▶ lives ──▶ training (a job) ──▶ candidate ──beats──▶ active ──▶ retired
//!                          ▲           ▲                                       │   ▲
//!      findings ───────────┘           └── drift ◀── asked about the machine ──┘   └─ rolled back
//! ```
//!
//! A model is put to use by itself only when it is better on held-back lives; it is taken out of
//! use by itself when its answers about the running machine hold clearly less often than its
//! parent's. A person may do either at any time, and pin a model against both.
//!
//! Bounds: [`RETIRED_MAX`] retired models and [`CANDIDATES_MAX`] candidates of an asset and kind,
//! [`BYTES_MAX`] in all; the oldest that are neither active nor pinned fall, retired ones first.
//! [`LIVES_MAX`] lives of an asset are remembered, the newest.

mod lives;
mod scores;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Outbox, Saved, Setting, StageError};
use crate::analytics::training::{Facts, Opinion};
use crate::domain::alarm::{AlarmCause, LimitKind};
use crate::domain::command::{Command, CommandResult, Refusal, Verb};
use crate::domain::event::{Body, Event, JobSpec};
use crate::domain::ids::{AssetId, EventId};
use crate::domain::model::{Life, Model, ModelKind, ModelState, Origin, Parcel};
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::{Now, Timestamp};

/// Retired models kept of an asset and kind.
const RETIRED_MAX: usize = 8;
/// Candidates kept of an asset and kind.
const CANDIDATES_MAX: usize = 4;
/// Bytes of all models kept.
const BYTES_MAX: u64 = 8 << 20;
/// Lives remembered of an asset.
const LIVES_MAX: usize = 24;
/// How often the registry looks round: at what was outlived, is wanted, or due.
const ROUND: Duration = Duration::from_secs(300);

/// What is remembered of one asset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Book {
    /// When its present life began; unknown when the clock was not believed then.
    since: Option<Timestamp>,
    /// When its failure limit was first reached in this life.
    failed: Option<Timestamp>,
    /// Ended lives, in the order they ended.
    lives: Vec<Life>,
    /// What is being learnt, by kind.
    training: BTreeMap<ModelKind, Pending>,
    /// When each kind was last tried.
    tried: BTreeMap<ModelKind, Timestamp>,
    /// What is to be learnt as soon as the cooldown allows, and why.
    wanted: BTreeMap<ModelKind, String>,
    /// When its models were last asked about it, and the job that asks now.
    consulted: Option<Timestamp>,
    consulting: Option<EventId>,
    /// How often in a row the active model said that the machine is unlike all it has seen.
    foreign: u32,
}

/// A training under way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Pending {
    job: EventId,
    /// The model that was active when it began: the result is compared with this one.
    active: Option<EventId>,
}

/// The registry.
#[derive(Debug)]
pub(super) struct Registry {
    setting: Setting,
    models: BTreeMap<EventId, Model>,
    books: BTreeMap<AssetId, Book>,
    round: Option<Duration>,
}

impl Registry {
    pub(super) fn new(setting: &Setting) -> Self {
        Self {
            setting: setting.clone(),
            models: BTreeMap::new(),
            books: BTreeMap::new(),
            round: None,
        }
    }

    pub(super) fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        let unreadable = |record: &Record, error: serde_json::Error| {
            StageError::new(format!(
                "{} {} cannot be read: {error}",
                record.kind.as_str(),
                record.id
            ))
        };
        for record in saved.of(RecordKind::Model) {
            let model: Model = record.read().map_err(|error| unreadable(record, error))?;
            self.models.insert(model.id, model);
        }
        for record in saved.of(RecordKind::Lives) {
            let book = record.read().map_err(|error| unreadable(record, error))?;
            if let Some(asset) = &record.asset {
                self.books.insert(asset.clone(), book);
            }
        }
        self.set_round(now);
        Ok(())
    }

    pub(super) fn on_event(&mut self, now: Now, event: &Event, out: &mut Outbox<'_>) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "models depend on few of the many events; the others concern other stages"
        )]
        match &event.body {
            Body::AlarmRaised(alarm) | Body::AlarmUpdated(alarm) => {
                if let (AlarmCause::Limit { which, .. }, Some(asset)) = (&alarm.cause, &alarm.asset)
                    && matches!(which, LimitKind::HighHigh | LimitKind::LowLow)
                {
                    self.failed(now, asset, event.time, out);
                }
            }
            Body::WorkLogged { asset, renewed: true, completion, .. } => {
                self.life_ended(now, asset, completion.found.as_deref(), out);
            }
            Body::JobFinished { job, spec: JobSpec::Train(training), result } => {
                self.trained(now, *job, training, result, out);
            }
            Body::JobFinished { job, spec: JobSpec::Consult { asset, .. }, result } => {
                self.consulted(now, *job, asset, result, out);
            }
            Body::ModelDamaged { asset, model, error } => {
                self.damaged(now, asset, *model, error, out);
            }
            _ => {}
        }
        self.set_round(now);
    }

    pub(super) fn on_command(
        &mut self,
        now: Now,
        command: &Command,
        out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        let by = &command.by;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the other commands are for other stages"
        )]
        let result = match &command.verb {
            Verb::Train { asset, kind } => self.train_now(now, asset, *kind, by, out),
            Verb::Promote { model } => self.promote_asked(now, *model, by, out),
            Verb::Rollback { model } => self.rollback_asked(now, *model, by, out),
            Verb::Pin { model, pinned } => self.pin(*model, *pinned, out),
            Verb::ImportModel(parcel) => self.import(now, parcel, out),
            _ => return None,
        };
        self.set_round(now);
        Some(result)
    }

    pub(super) const fn next_deadline(&self) -> Option<Duration> {
        self.round
    }

    pub(super) fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) {
        if self.round.is_none_or(|round| round > now.mono) {
            return;
        }
        self.outlived(now, out);
        self.schedule(now, out);
        let assets: Vec<AssetId> = self.books.keys().cloned().collect();
        for asset in assets {
            self.start_wanted(now, &asset, out);
            self.consult(now, &asset, out);
        }
        self.round = None;
        self.set_round(now);
    }

    pub(super) fn configure(&mut self, now: Now, setting: &Setting, out: &mut Outbox<'_>) {
        self.setting = setting.clone();
        let plant = self.setting.plant.clone();
        let assets = &plant.assets;
        let gone: Vec<AssetId> =
            self.books.keys().filter(|asset| !assets.contains_key(*asset)).cloned().collect();
        for asset in gone {
            let book = self.books.remove(&asset).unwrap_or_default();
            out.save(book.record(&asset, now.utc, false));
        }
        let orphans: Vec<EventId> = self
            .models
            .values()
            .filter(|model| !assets.contains_key(&model.asset))
            .map(|model| model.id)
            .collect();
        for model in orphans {
            self.drop_model(model, "configuration", out);
        }
        let new: Vec<AssetId> =
            assets.keys().filter(|asset| !self.books.contains_key(*asset)).cloned().collect();
        for asset in new {
            let book = Book { since: now.trusted.then_some(now.utc), ..Book::default() };
            out.save(book.record(&asset, now.utc, true));
            self.books.insert(asset, book);
        }
        self.set_round(now);
    }

    /// There is something to look at now and then only while something was learnt or can be.
    fn set_round(&mut self, now: Now) {
        let busy = !self.models.is_empty()
            || self.books.values().any(|book| !book.lives.is_empty() || !book.wanted.is_empty());
        if !busy {
            self.round = None;
        } else if self.round.is_none() {
            self.round = Some(now.mono + ROUND);
        }
    }

    fn active(&self, asset: &AssetId, kind: ModelKind) -> Option<&Model> {
        self.of(asset, kind).find(|model| model.state == ModelState::Active)
    }

    /// The models of an asset and kind, oldest first.
    fn of(&self, asset: &AssetId, kind: ModelKind) -> impl Iterator<Item = &Model> {
        self.models.values().filter(move |model| model.asset == *asset && model.kind == kind)
    }

    fn save_book(&self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        if let Some(book) = self.books.get(asset) {
            out.save(book.record(asset, now.utc, true));
        }
    }

    /// A training has answered.
    fn trained(
        &mut self,
        now: Now,
        job: EventId,
        training: &crate::domain::model::Training,
        result: &Result<Value, String>,
        out: &mut Outbox<'_>,
    ) {
        let (asset, kind) = (&training.asset, training.kind);
        let active = self.active(asset, kind).map(|model| model.id);
        let Some(book) = self.books.get_mut(asset) else { return };
        let Some(pending) = book.training.get(&kind).copied().filter(|it| it.job == job) else {
            return;
        };
        book.training.remove(&kind);
        if pending.active != active {
            // It was compared with a model that is no longer the one to beat.
            book.wanted.insert(kind, "another model is active meanwhile".to_owned());
            book.tried.remove(&kind);
            self.save_book(now, asset, out);
            self.start_wanted(now, asset, out);
            return;
        }
        self.save_book(now, asset, out);
        let facts = result.clone().and_then(|facts| {
            serde_json::from_value::<Facts>(facts).map_err(|error| error.to_string())
        });
        let facts = match facts {
            Ok(facts) => facts,
            Err(reason) => {
                out.emit(Body::TrainingAbstained {
                    asset: asset.clone(),
                    kind: kind.as_str().to_owned(),
                    reason,
                });
                return;
            }
        };
        let (beats, verdict) = (facts.beats, facts.verdict.clone());
        let model = Model {
            id: job,
            asset: asset.clone(),
            kind,
            version: self.next_version(asset, kind),
            parent: active,
            from: Some(facts.from),
            to: Some(facts.to),
            features: facts.features,
            step_seconds: facts.step_seconds,
            lives: facts.lives,
            metrics: facts.metrics,
            size: facts.size,
            sha256: facts.sha256,
            state: ModelState::Candidate,
            pinned: false,
            time: now.utc,
            origin: Origin::Trained,
            reason: verdict.clone(),
            live: Default::default(),
        };
        if let Err(reason) = self.admit(model, out) {
            out.emit(Body::TrainingAbstained {
                asset: asset.clone(),
                kind: kind.as_str().to_owned(),
                reason,
            });
            return;
        }
        let pinned = self.active(asset, kind).is_some_and(|model| model.pinned);
        if beats && pinned {
            self.explain(job, format!("{verdict}; the active model is pinned"), out);
        } else if beats {
            self.promote(job, verdict, out);
        }
        self.tidy(asset, kind, out);
    }

    fn import(&mut self, now: Now, parcel: &Parcel, out: &mut Outbox<'_>) -> CommandResult {
        let asset = &parcel.asset;
        if !self.setting.plant.assets.contains_key(asset) {
            return Err(Refusal::NotFound(format!("there is no asset {asset}")));
        }
        let unknown: Vec<&str> = parcel
            .features
            .iter()
            .map(String::as_str)
            .filter(|name| self.setting.plant.find(asset.as_str(), name).is_none())
            .collect();
        if !unknown.is_empty() {
            let detail =
                format!("{asset} has no tags {}: the model needs them", unknown.join(", "));
            return Err(Refusal::Invalid(detail));
        }
        if let Some(known) = self.of(asset, parcel.kind).find(|it| it.sha256 == parcel.sha256) {
            return Err(Refusal::Conflict {
                detail: "this model is in the registry".to_owned(),
                first: json!({ "id": known.id, "state": known.state }),
            });
        }
        let metrics = json!({ "issuer": parcel.issuer });
        let model = |id: EventId, version: u32, parent: Option<EventId>| Model {
            id,
            asset: asset.clone(),
            kind: parcel.kind,
            version,
            parent,
            from: None,
            to: None,
            features: parcel.features.clone(),
            step_seconds: parcel.step_seconds,
            lives: parcel.lives,
            metrics: metrics.clone(),
            size: parcel.size,
            sha256: parcel.sha256.clone(),
            state: ModelState::Candidate,
            pinned: false,
            time: now.utc,
            origin: Origin::Imported(parcel.issuer.clone()),
            reason: format!("imported, signed by {}", parcel.issuer),
            live: Default::default(),
        };
        let version = self.next_version(asset, parcel.kind);
        let parent = self.active(asset, parcel.kind).map(|model| model.id);
        // The model is named after the event that announces it.
        let id = out.emit_with(None, |id| Body::ModelTrained {
            asset: asset.clone(),
            metrics: shelf::told(&model(id, version, parent), Value::Null),
        });
        let model = model(id, version, parent);
        let answer = json!({ "id": id, "version": version, "state": "candidate" });
        self.make_room(model.size, out).map_err(Refusal::Invalid)?;
        out.save(shelf::record(&model, true));
        self.models.insert(id, model);
        self.tidy(asset, parcel.kind, out);
        Ok(answer)
    }

    fn consulted(
        &mut self,
        now: Now,
        job: EventId,
        asset: &AssetId,
        result: &Result<Value, String>,
        out: &mut Outbox<'_>,
    ) {
        let Some(book) = self.books.get_mut(asset) else { return };
        if book.consulting != Some(job) {
            return;
        }
        book.consulting = None;
        let opinions: Vec<Opinion> = match result.clone().map(serde_json::from_value) {
            Ok(Ok(opinions)) => opinions,
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        self.save_book(now, asset, out);
        self.note(now, asset, &opinions, out);
    }
}

impl Book {
    fn record(&self, asset: &AssetId, time: Timestamp, open: bool) -> Record {
        let state = if open { "kept" } else { "configuration" };
        Record::new(RecordKind::Lives, asset, time, self).about(asset).in_state(state, open)
    }
}
