//! Lives of machines, and when to learn from them.

use serde_json::json;

use super::{LIVES_MAX, Pending, Registry};
use crate::agents::{Effect, Outbox};
use crate::analytics::training::LIVES_MIN;
use crate::domain::command::{CommandResult, Refusal};
use crate::domain::event::{Body, JobSpec};
use crate::domain::ids::{AssetId, TagId};
use crate::domain::model::{Life, ModelKind, Training};
use crate::domain::tag::Form;
use crate::domain::time::{Now, Timestamp};

/// Tags a model sees at most.
const FEATURES_MAX: usize = 32;
/// Lives one model is learnt from at most; the newest of all like assets.
const TRAINING_LIVES_MAX: usize = 48;
/// Letters of a finding that are kept as the name of a class.
const FINDING_MAX: usize = 64;

impl Registry {
    /// The asset has reached its failure limit.
    pub(super) fn failed(
        &mut self,
        now: Now,
        asset: &AssetId,
        at: Timestamp,
        out: &mut Outbox<'_>,
    ) {
        let Some(book) = self.books.get_mut(asset) else { return };
        if book.failed.is_some() || !now.trusted {
            return;
        }
        book.failed = Some(at);
        self.save_book(now, asset, out);
        self.truth(asset, at, out);
    }

    /// The asset was repaired: a life has ended, another begins.
    pub(super) fn life_ended(
        &mut self,
        now: Now,
        asset: &AssetId,
        found: Option<&str>,
        out: &mut Outbox<'_>,
    ) {
        let Some(book) = self.books.get_mut(asset) else { return };
        let failed = book.failed.take();
        let since = std::mem::replace(&mut book.since, now.trusted.then_some(now.utc));
        book.foreign = 0;
        // Moments of a clock that was not believed do not find their readings later.
        let life = since.filter(|_| now.trusted).map(|from| Life {
            asset: asset.clone(),
            from,
            to: failed.unwrap_or(now.utc),
            failed: failed.is_some(),
            found: found.map(shortened).filter(|found| !found.is_empty()),
        });
        let life = life.filter(|life| life.to > life.from && (life.failed || life.found.is_some()));
        if let Some(life) = life.clone() {
            book.lives.push(life);
            let surplus = book.lives.len().saturating_sub(LIVES_MAX);
            book.lives.drain(..surplus);
        }
        self.save_book(now, asset, out);
        self.forget_awaited(asset, out);
        let Some(life) = life else { return };
        // A life teaches all assets of its class.
        for like in self.like(asset) {
            if life.failed {
                self.want(&like, ModelKind::Rul, &format!("a life of {asset} has ended"));
            }
            if life.found.is_some() {
                self.want(&like, ModelKind::Classifier, &format!("a finding on {asset}"));
            }
            self.save_book(now, &like, out);
            self.start_wanted(now, &like, out);
        }
    }

    pub(super) fn want(&mut self, asset: &AssetId, kind: ModelKind, why: &str) {
        if let Some(book) = self.books.get_mut(asset) {
            book.wanted.insert(kind, why.to_owned());
        }
    }

    /// The assets of the same class, itself included.
    fn like(&self, asset: &AssetId) -> Vec<AssetId> {
        let assets = &self.setting.plant.assets;
        let Some(class) = assets.get(asset).map(|it| it.class) else { return Vec::new() };
        assets.values().filter(|it| it.class == class).map(|it| it.id.clone()).collect()
    }

    /// What would be learnt for an asset now.
    fn training(&self, asset: &AssetId, kind: ModelKind, why: &str) -> Training {
        let plant = &self.setting.plant;
        let features: Vec<TagId> = plant
            .tags_of(asset)
            .filter(|tag| !tag.discrete && tag.handling.form != Form::Text)
            .map(|tag| tag.path.tag.clone())
            .take(FEATURES_MAX)
            .collect();
        let has = |like: &AssetId| {
            features.iter().all(|tag| plant.find(like.as_str(), tag.as_str()).is_some())
        };
        let mut lives: Vec<Life> = self
            .like(asset)
            .iter()
            .filter(|like| has(like))
            .filter_map(|like| self.books.get(like))
            .flat_map(|book| book.lives.iter().cloned())
            .filter(|life| match kind {
                ModelKind::Rul => life.failed,
                ModelKind::Classifier => life.found.is_some(),
            })
            .collect();
        lives.sort_by_key(|life| life.to);
        let surplus = lives.len().saturating_sub(TRAINING_LIVES_MAX);
        lives.drain(..surplus);
        let active = self.active(asset, kind).map(|model| (model.id, model.to));
        Training { asset: asset.clone(), kind, lives, features, active, why: why.to_owned() }
    }

    /// Begins what is wanted, when the cooldown allows and there is enough to learn from.
    pub(super) fn start_wanted(&mut self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        let cooldown = self.setting.config.models.cooldown;
        let Some(book) = self.books.get(asset) else { return };
        let ready: Vec<(ModelKind, String)> = book
            .wanted
            .iter()
            .filter(|(kind, _)| !book.training.contains_key(*kind))
            .filter(|(kind, _)| {
                book.tried.get(*kind).is_none_or(|tried| now.utc.since(*tried) >= cooldown)
            })
            .map(|(kind, why)| (*kind, why.clone()))
            .collect();
        for (kind, why) in ready {
            if let Some(book) = self.books.get_mut(asset) {
                book.wanted.remove(&kind);
            }
            // Too little is no news at every repair; it is told to whoever asks.
            if self.begin(now, asset, kind, &why, out).is_err() {
                self.save_book(now, asset, out);
            }
        }
    }

    /// Begins a training, or says why not.
    fn begin(
        &mut self,
        now: Now,
        asset: &AssetId,
        kind: ModelKind,
        why: &str,
        out: &mut Outbox<'_>,
    ) -> Result<crate::domain::ids::EventId, String> {
        let training = self.training(asset, kind, why);
        if training.lives.len() < LIVES_MIN {
            let what = match kind {
                ModelKind::Rul => "lives that ended in failure",
                ModelKind::Classifier => "lives that ended with a finding",
            };
            return Err(format!(
                "{} {what} are on record, {LIVES_MIN} are needed",
                training.lives.len()
            ));
        }
        if training.features.is_empty() {
            return Err(format!("{asset} has no tag to learn from"));
        }
        let active = training.active.map(|(id, _)| id);
        let spec = JobSpec::Train(training);
        let job = out.emit(Body::JobStarted { spec: spec.clone() });
        out.effect(Effect::Run { job, spec });
        if let Some(book) = self.books.get_mut(asset) {
            book.training.insert(kind, Pending { job, active });
            book.tried.insert(kind, now.utc);
        }
        self.save_book(now, asset, out);
        Ok(job)
    }

    pub(super) fn train_now(
        &mut self,
        now: Now,
        asset: &AssetId,
        kind: Option<ModelKind>,
        by: &str,
        out: &mut Outbox<'_>,
    ) -> CommandResult {
        let Some(book) = self.books.get(asset) else {
            return Err(Refusal::NotFound(format!("there is no asset {asset}")));
        };
        let kinds: Vec<ModelKind> =
            ModelKind::ALL.into_iter().filter(|it| kind.is_none_or(|kind| kind == *it)).collect();
        if let Some(busy) = kinds.iter().find_map(|kind| book.training.get(kind)) {
            return Err(Refusal::Conflict {
                detail: "a model is being learnt".to_owned(),
                first: json!({ "job": busy.job }),
            });
        }
        let (mut started, mut abstained) = (Vec::new(), Vec::new());
        for kind in kinds {
            match self.begin(now, asset, kind, &format!("asked by {by}"), out) {
                Ok(job) => started.push(json!({ "kind": kind, "job": job })),
                Err(reason) => abstained.push(format!("{}: {reason}", kind.as_str())),
            }
        }
        if started.is_empty() {
            return Err(Refusal::Invalid(format!(
                "too little to learn from: {}",
                abstained.join("; ")
            )));
        }
        Ok(json!({ "asset": asset, "started": started, "abstained": abstained }))
    }

    /// What the schedule wants: another model after `retrain_every`, when a life has ended that the
    /// active one has not seen.
    pub(super) fn schedule(&mut self, now: Now, out: &mut Outbox<'_>) {
        let every = self.setting.config.models.retrain_every;
        let assets: Vec<AssetId> = self.books.keys().cloned().collect();
        for asset in assets {
            for kind in ModelKind::ALL {
                let Some(book) = self.books.get(&asset) else { continue };
                let due = book.tried.get(&kind).is_none_or(|tried| now.utc.since(*tried) >= every);
                if !due || book.wanted.contains_key(&kind) || book.training.contains_key(&kind) {
                    continue;
                }
                let training = self.training(&asset, kind, "");
                let seen = training.active.and_then(|(_, to)| to);
                let new = training.lives.iter().any(|life| seen.is_none_or(|seen| life.to > seen));
                if new && training.lives.len() >= LIVES_MIN {
                    self.want(&asset, kind, "the schedule");
                    self.save_book(now, &asset, out);
                }
            }
        }
    }
}

fn shortened(text: &str) -> String {
    text.trim().chars().take(FINDING_MAX).collect()
}
