//! Which model is in use, which are kept.

use serde_json::{Value, json};

use super::{BYTES_MAX, CANDIDATES_MAX, RETIRED_MAX, Registry};
use crate::agents::Outbox;
use crate::domain::command::{CommandResult, Refusal};
use crate::domain::event::Body;
use crate::domain::ids::{AssetId, EventId};
use crate::domain::model::{Model, ModelKind, ModelState};
use crate::domain::record::{Record, RecordKind};
use crate::domain::severity::Severity;
use crate::domain::time::Now;

/// The condition raised while a model is damaged and none has taken its place since.
const DAMAGED: &str = "model-damaged";

pub(super) fn record(model: &Model, open: bool) -> Record {
    Record::new(RecordKind::Model, model.id, model.time, model)
        .about(&model.asset)
        .in_state(model.state.as_str(), open)
}

/// What an event says of a model: what was before, what is now.
pub(super) fn told(model: &Model, before: Value) -> Value {
    json!({
        "model": model.id,
        "kind": model.kind,
        "version": model.version,
        "state": model.state,
        "reason": model.reason,
        "before": before,
        "after": model.metrics,
    })
}

fn metrics_of(model: Option<&Model>) -> Value {
    model.map_or(Value::Null, |model| {
        json!({ "held_back": model.metrics, "live": { "scored": model.live.scored, "covered": model.live.covered } })
    })
}

impl Registry {
    pub(super) fn next_version(&self, asset: &AssetId, kind: ModelKind) -> u32 {
        self.of(asset, kind).map(|model| model.version).max().unwrap_or(0) + 1
    }

    /// Takes in a model that was learnt; announces it.
    pub(super) fn admit(&mut self, model: Model, out: &mut Outbox<'_>) -> Result<(), String> {
        self.make_room(model.size, out)?;
        let before = self.active(&model.asset, model.kind).map(|active| active.metrics.clone());
        out.save(record(&model, true));
        out.emit(Body::ModelTrained {
            asset: model.asset.clone(),
            metrics: told(&model, before.unwrap_or_default()),
        });
        self.models.insert(model.id, model);
        Ok(())
    }

    /// Says why a model stands where it stands.
    pub(super) fn explain(&mut self, id: EventId, reason: String, out: &mut Outbox<'_>) {
        if let Some(model) = self.models.get_mut(&id) {
            model.reason = reason;
            out.save(record(model, true));
        }
    }

    /// Puts a model to use; the one before is retired.
    pub(super) fn promote(&mut self, id: EventId, reason: String, out: &mut Outbox<'_>) {
        let Some(model) = self.models.get(&id) else { return };
        let (asset, kind, version) = (model.asset.clone(), model.kind, model.version);
        let after = metrics_of(Some(model));
        let replaced = self.active(&asset, kind).map(|model| model.id).filter(|old| *old != id);
        let before = metrics_of(replaced.and_then(|old| self.models.get(&old)));
        if let Some(old) = replaced {
            self.retire(old, format!("replaced by version {version}"), out);
        }
        if let Some(model) = self.models.get_mut(&id) {
            model.state = ModelState::Active;
            model.reason.clone_from(&reason);
            // What it replaces is what a roll-back leads to.
            model.parent = replaced.or(model.parent);
            out.save(record(model, true));
        }
        out.emit(Body::ModelPromoted {
            asset: asset.clone(),
            model: id,
            replaces: replaced,
            reason,
            metrics: json!({ "before": before, "after": after }),
        });
        self.condition(&asset, kind, false, format!("version {version} is in use"), out);
        self.tidy(&asset, kind, out);
    }

    fn retire(&mut self, id: EventId, reason: String, out: &mut Outbox<'_>) {
        if let Some(model) = self.models.get_mut(&id) {
            model.state = ModelState::Retired;
            model.reason = reason;
            model.live.awaited.clear();
            out.save(record(model, true));
        }
    }

    /// Takes the active model out of use; its parent, or else the newest retired one, is in use
    /// again. `keep`: whether what is taken out can be used later.
    pub(super) fn roll_back(
        &mut self,
        id: EventId,
        reason: &str,
        keep: bool,
        out: &mut Outbox<'_>,
    ) -> Option<EventId> {
        let model = self.models.get(&id)?;
        let (asset, kind, parent) = (model.asset.clone(), model.kind, model.parent);
        let before = metrics_of(Some(model));
        let kept = |it: &&Model| it.id != id && it.state == ModelState::Retired;
        let restores = parent.filter(|parent| self.models.contains_key(parent)).or_else(|| {
            self.of(&asset, kind).filter(kept).max_by_key(|it| it.version).map(|it| it.id)
        });
        if keep {
            self.retire(id, reason.to_owned(), out);
        } else {
            self.drop_model(id, reason, out);
        }
        if let Some(model) = restores.and_then(|parent| self.models.get_mut(&parent)) {
            model.state = ModelState::Active;
            model.reason = format!("in use again: {reason}");
            out.save(record(model, true));
        }
        let after = metrics_of(restores.and_then(|parent| self.models.get(&parent)));
        out.emit(Body::ModelRolledBack {
            asset: asset.clone(),
            model: id,
            restores,
            reason: reason.to_owned(),
            metrics: json!({ "before": before, "after": after }),
        });
        self.tidy(&asset, kind, out);
        restores
    }

    /// What is kept of a model is not what was written: it is out of use, aloud.
    pub(super) fn damaged(
        &mut self,
        _now: Now,
        asset: &AssetId,
        id: EventId,
        error: &str,
        out: &mut Outbox<'_>,
    ) {
        let Some(model) = self.models.get(&id) else { return };
        let (kind, version, state) = (model.kind, model.version, model.state);
        let reason = format!("damaged: {error}");
        let mut message =
            format!("model {} version {version} of {asset} is damaged: {error}", kind.as_str());
        if state == ModelState::Active {
            let restored = self.roll_back(id, &reason, false, out);
            let parent = restored.and_then(|parent| self.models.get(&parent));
            message.push_str(&parent.map_or_else(
                || "; no model is in use".to_owned(),
                |parent| format!("; version {} is in use again", parent.version),
            ));
        } else {
            self.drop_model(id, &reason, out);
        }
        self.condition(asset, kind, true, message, out);
    }

    fn condition(
        &self,
        asset: &AssetId,
        kind: ModelKind,
        active: bool,
        message: String,
        out: &mut Outbox<'_>,
    ) {
        out.emit(Body::Condition {
            condition: DAMAGED.to_owned(),
            subject: format!("{asset}/{}", kind.as_str()),
            active,
            severity: Severity::High,
            message,
        });
    }

    /// Lets a model go: its record closes, its bytes with it.
    pub(super) fn drop_model(&mut self, id: EventId, reason: &str, out: &mut Outbox<'_>) {
        if let Some(mut model) = self.models.remove(&id) {
            model.state = ModelState::Retired;
            model.reason = reason.to_owned();
            out.save(record(&model, false));
        }
    }

    /// Keeps an asset's and kind's models within their bounds.
    pub(super) fn tidy(&mut self, asset: &AssetId, kind: ModelKind, out: &mut Outbox<'_>) {
        let parent = self.active(asset, kind).and_then(|active| active.parent);
        for (state, most) in
            [(ModelState::Retired, RETIRED_MAX), (ModelState::Candidate, CANDIDATES_MAX)]
        {
            let mut kept: Vec<(u32, EventId)> = self
                .of(asset, kind)
                .filter(|model| model.state == state && !model.pinned && Some(model.id) != parent)
                .map(|model| (model.version, model.id))
                .collect();
            kept.sort_unstable();
            let parent_counts = usize::from(state == ModelState::Retired && parent.is_some());
            let gone = (kept.len() + parent_counts).saturating_sub(most).min(kept.len());
            for (_, id) in kept.into_iter().take(gone) {
                self.drop_model(id, "no room: newer ones are kept", out);
            }
        }
    }

    /// Makes room for `size` bytes: the oldest retired ones fall, then candidates.
    pub(super) fn make_room(&mut self, size: u64, out: &mut Outbox<'_>) -> Result<(), String> {
        for state in [ModelState::Retired, ModelState::Candidate] {
            while self.bytes() + size > BYTES_MAX {
                let oldest = self
                    .models
                    .values()
                    .filter(|model| model.state == state && !model.pinned)
                    .map(|model| model.id)
                    .next();
                let Some(oldest) = oldest else { break };
                self.drop_model(oldest, "no room: the registry is full", out);
            }
        }
        if self.bytes() + size > BYTES_MAX {
            return Err(format!(
                "the registry holds {} bytes of active and pinned models; {size} more pass {BYTES_MAX}",
                self.bytes()
            ));
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.models.values().map(|model| model.size).sum()
    }

    fn known(&self, id: EventId) -> Result<&Model, Refusal> {
        self.models.get(&id).ok_or_else(|| Refusal::NotFound(format!("there is no model {id}")))
    }

    pub(super) fn promote_asked(
        &mut self,
        _now: Now,
        id: EventId,
        by: &str,
        out: &mut Outbox<'_>,
    ) -> CommandResult {
        let model = self.known(id)?;
        let first = json!({ "id": id, "state": model.state });
        if model.state == ModelState::Active {
            return Err(Refusal::Conflict { detail: "it is in use".to_owned(), first });
        }
        if let Some(active) = self.active(&model.asset, model.kind).filter(|it| it.pinned) {
            return Err(Refusal::Conflict {
                detail: "the active model is pinned: unpin it first".to_owned(),
                first: json!({ "id": active.id, "state": active.state }),
            });
        }
        self.promote(id, format!("promoted by {by}"), out);
        Ok(self.models.get(&id).map_or(Value::Null, |model| told(model, Value::Null)))
    }

    pub(super) fn rollback_asked(
        &mut self,
        _now: Now,
        id: EventId,
        by: &str,
        out: &mut Outbox<'_>,
    ) -> CommandResult {
        let model = self.known(id)?;
        let first = json!({ "id": id, "state": model.state });
        if model.state != ModelState::Active {
            return Err(Refusal::Conflict { detail: "it is not in use".to_owned(), first });
        }
        let restored = self.roll_back(id, &format!("rolled back by {by}"), true, out);
        Ok(json!({ "id": id, "state": ModelState::Retired, "restores": restored }))
    }

    pub(super) fn pin(&mut self, id: EventId, pinned: bool, out: &mut Outbox<'_>) -> CommandResult {
        self.known(id)?;
        if let Some(model) = self.models.get_mut(&id) {
            model.pinned = pinned;
            out.save(record(model, true));
        }
        Ok(json!({ "id": id, "pinned": pinned }))
    }
}
