//! How models do on the running machine. Active models, their parents and candidates are asked
//! every [`CONSULT_EVERY`] about the machine; when it reaches its failure limit each answer is
//! compared with the truth, and one whose p90 has passed before did not hold. A repair before the
//! failure leaves the truth unknown: those answers do not count.

use std::time::Duration;

use serde_json::json;

use super::{Registry, shelf};
use crate::agents::{Effect, Outbox};
use crate::analytics::training::Opinion;
use crate::domain::event::{Body, JobSpec};
use crate::domain::ids::{AssetId, EventId};
use crate::domain::model::{Given, Live, Model, ModelKind, ModelState};
use crate::domain::time::{Now, Timestamp};

/// How often models are asked about the machine.
const CONSULT_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Models asked at a time.
const ASKED_MAX: usize = 3;
/// Answers of a model whose truth is awaited; beyond, the second oldest makes room.
const AWAITED_MAX: usize = 64;
/// Scored answers before a model is judged by them.
pub(super) const SCORED_MIN: u32 = 8;
/// Times in a row that a machine must be foreign to its model.
pub(super) const FOREIGN_ROUNDS: u32 = 3;

impl Registry {
    /// Asks an asset's models about it, when it is time to.
    pub(super) fn consult(&mut self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        let Some(book) = self.books.get(asset) else { return };
        let (Some(from), None, None) = (book.since, book.failed, book.consulting) else { return };
        let Some(active) = self.active(asset, ModelKind::Rul) else { return };
        if !now.trusted || book.consulted.is_some_and(|at| now.utc.since(at) < CONSULT_EVERY) {
            return;
        }
        let mut models = vec![active.id];
        models.extend(active.parent.filter(|parent| self.models.contains_key(parent)));
        let candidates =
            self.of(asset, ModelKind::Rul).filter(|it| it.state == ModelState::Candidate);
        models.extend(candidates.map(|model| model.id).last());
        models.truncate(ASKED_MAX);
        let spec = JobSpec::Consult { asset: asset.clone(), models, from, to: now.utc };
        let job = out.emit(Body::JobStarted { spec: spec.clone() });
        out.effect(Effect::Run { job, spec });
        if let Some(book) = self.books.get_mut(asset) {
            book.consulting = Some(job);
            book.consulted = Some(now.utc);
        }
        self.save_book(now, asset, out);
    }

    /// Takes what models said.
    pub(super) fn note(
        &mut self,
        now: Now,
        asset: &AssetId,
        opinions: &[Opinion],
        out: &mut Outbox<'_>,
    ) {
        let as_of = self.books.get(asset).and_then(|book| book.consulted).unwrap_or(now.utc);
        let active = self.active(asset, ModelKind::Rul).map(|model| model.id);
        for opinion in opinions {
            let Some(model) = self.models.get_mut(&opinion.model) else { continue };
            if let Some(rul) = opinion.rul {
                let awaited = &mut model.live.awaited;
                if awaited.len() >= AWAITED_MAX {
                    awaited.remove(1);
                }
                awaited.push(Given { as_of, rul });
                out.save(shelf::record(model, true));
            }
            if Some(opinion.model) == active {
                self.compare_inputs(now, asset, opinion, out);
            }
        }
    }

    /// A machine that is unlike all its model has learnt from, again and again, has drifted.
    fn compare_inputs(
        &mut self,
        now: Now,
        asset: &AssetId,
        opinion: &Opinion,
        out: &mut Outbox<'_>,
    ) {
        let Some(book) = self.books.get_mut(asset) else { return };
        let before = book.foreign;
        book.foreign = if opinion.foreign { before + 1 } else { 0 };
        let drifted = book.foreign == FOREIGN_ROUNDS;
        if book.foreign != before {
            self.save_book(now, asset, out);
        }
        if drifted {
            out.emit(Body::DriftDetected {
                asset: asset.clone(),
                model: opinion.model,
                metrics: json!({ "rounds": FOREIGN_ROUNDS, "reason": opinion.silence }),
            });
            self.want(asset, ModelKind::Rul, "drift");
            self.save_book(now, asset, out);
            self.start_wanted(now, asset, out);
        }
    }

    /// The asset has failed: all that was said of it in this life is now right or wrong.
    pub(super) fn truth(&mut self, asset: &AssetId, at: Timestamp, out: &mut Outbox<'_>) {
        self.score(asset, out, |live| {
            for given in std::mem::take(&mut live.awaited) {
                let rest = at.since(given.as_of).as_secs_f64();
                live.scored += 1;
                live.covered += u32::from((given.rul.p10..=given.rul.p90).contains(&rest));
            }
        });
    }

    /// Answers whose pessimist's and optimist's time has passed did not hold.
    pub(super) fn outlived(&mut self, now: Now, out: &mut Outbox<'_>) {
        let mut assets: Vec<AssetId> = self.models.values().map(|it| it.asset.clone()).collect();
        assets.dedup();
        for asset in assets {
            self.score(&asset, out, |live| {
                let due = |given: &Given| {
                    let longest =
                        Duration::try_from_secs_f64(given.rul.p90).unwrap_or(Duration::MAX);
                    given.as_of.after(longest) <= now.utc
                };
                let before = live.awaited.len();
                live.awaited.retain(|given| !due(given));
                live.scored += u32::try_from(before - live.awaited.len()).unwrap_or(0);
            });
        }
    }

    /// What would have been is not known.
    pub(super) fn forget_awaited(&mut self, asset: &AssetId, out: &mut Outbox<'_>) {
        self.score(asset, out, |live| live.awaited.clear());
    }

    fn score(&mut self, asset: &AssetId, out: &mut Outbox<'_>, mut change: impl FnMut(&mut Live)) {
        for model in self.models.values_mut().filter(|model| model.asset == *asset) {
            let before = model.live.clone();
            change(&mut model.live);
            if model.live != before {
                out.save(shelf::record(model, true));
            }
        }
        self.keep_promise(asset, out);
    }

    /// Rolls the active model back when its answers hold less often than its parent's by the
    /// configured margin. The parent counts by its own answers about the running machine, or, while
    /// it has too few, by its held-back lives.
    fn keep_promise(&mut self, asset: &AssetId, out: &mut Outbox<'_>) {
        let Some(active) = self.active(asset, ModelKind::Rul) else { return };
        if active.pinned || active.live.scored < SCORED_MIN {
            return;
        }
        let Some(parent) = active.parent.and_then(|parent| self.models.get(&parent)) else {
            return;
        };
        let (Some(own), Some(other)) = (active.live.coverage(), coverage(parent)) else { return };
        let margin = self.setting.config.models.rollback_margin;
        if own + margin < other {
            let reason = format!(
                "{own:.2} of its answers held, {other:.2} of version {}'s: more than {margin} less",
                parent.version
            );
            let id: EventId = active.id;
            self.roll_back(id, &reason, true, out);
        }
    }
}

fn coverage(model: &Model) -> Option<f64> {
    if model.live.scored >= SCORED_MIN {
        return model.live.coverage();
    }
    model.metrics["candidate"]["covered"].as_f64()
}
