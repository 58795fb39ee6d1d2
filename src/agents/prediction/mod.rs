//! Prediction: when will it fail?
//!
//! Asked about an anomaly, the stage follows the tags that have failure limits (the anomaly's own
//! first, then the asset's others) by jobs on the worker ([`crate::analytics::degradation`]). When
//! all have answered, the most urgent proven trend becomes a prediction; when none is proven, the
//! stage says so and why. As long as the anomaly lasts it looks again, the more often the nearer
//! the limit is; a prediction whose trend is lost is withdrawn.
//!
//! ```text
//! requested ─▶ round of jobs ─▶ all answered ─┬─ proven: predicted ─┐
//!                  ▲                          └─ none: abstained ───┤
//!                  └───────────────── pause ◀───────────────────────┘   until the anomaly ends
//! ```
//!
//! Bounds: [`TAGS_MAX`] limits followed per asset, one round at a time, [`ANOMALIES_MAX`] anomalies
//! per asset. A job that does not answer within [`JOB_PATIENCE`] is given up.

mod explain;
mod scorecard;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use self::scorecard::{Card, Cards};
use self::watch::{Asked, Standing, Target, Watch};
use super::failure_modes;
use super::{Chain, Effect, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::analytics::degradation::{Estimate, Outlook};
use crate::analytics::spectrum::{ZoneLimits, zone_limits};
use crate::domain::alarm::{Alarm, AlarmCause, LimitKind};
use crate::domain::asset::Asset;
use crate::domain::event::{Body, Event, JobSpec};
use crate::domain::ids::{AssetId, EventId, TagId};
use crate::domain::prognosis::{HealthIndex, Prediction as Prognosis, Quantiles};
use crate::domain::record::{Record, RecordKind};
use crate::domain::tag::Tag;
use crate::domain::time::{Now, Timestamp};

/// Limits followed per asset and round.
pub const TAGS_MAX: usize = 8;
/// Anomalies remembered per asset; the oldest makes room.
pub const ANOMALIES_MAX: usize = 16;
/// A job that has not answered after this counts as failed.
pub const JOB_PATIENCE: Duration = Duration::from_secs(120);
/// Shortest pause between two rounds.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// Longest pause between two rounds.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);
/// A prediction is looked at again after this share of its median …
const PAUSE_SHARE: f64 = 0.1;
/// … an abstention after this share of the time the anomaly has lasted, so that the rounds of a
/// lasting anomaly become seldom …
const PAUSE_SHARE_ABSTAINED: f64 = 0.2;
/// … a prediction at the soonest after this share of it …
const PAUSE_SHARE_LASTED: f64 = 0.05;
/// … and nothing before this many new readings may have come.
const PAUSE_PERIODS: u32 = 5;
/// A prediction is announced again when its failure time has moved by this share of what is left …
const MOVED_SHARE: f64 = 0.2;
/// … or after this share of its median has passed.
const ANNOUNCE_SHARE: f64 = 0.33;
/// Rounds in a row without a proven trend after which a prediction is withdrawn.
const LOST_ROUNDS: u32 = 3;
/// The history followed is at least this many times as long as the anomaly has lasted; it grows
/// fourfold with every round that abstains.
const LOOK_BACK: u32 = 4;
/// The history followed has at least this many periods of the tag.
const LOOK_BACK_PERIODS: u32 = 400;
/// Period assumed of a tag that has none.
const PERIOD_UNKNOWN: Duration = Duration::from_secs(10);
/// Name of the method in predictions.
const METHOD: &str = "wiener-inverse-gaussian";

/// The prediction stage.
#[derive(Debug)]
pub struct Prediction {
    setting: Setting,
    watches: BTreeMap<AssetId, Watch>,
    /// Since when the asset's parts live, if a repair is known.
    lives: BTreeMap<AssetId, Timestamp>,
    /// Since when anomalies have been seen, until they are asked about or over.
    begun: BTreeMap<EventId, Timestamp>,
    /// How predictions did.
    cards: Cards,
}

/// Anomalies whose beginning is remembered before they are asked about.
const BEGUN_MAX: usize = 1024;

impl Prediction {
    /// The stage, asked about nothing.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        Self {
            setting: setting.clone(),
            watches: BTreeMap::new(),
            lives: BTreeMap::new(),
            begun: BTreeMap::new(),
            cards: Cards::default(),
        }
    }

    fn ask(
        &mut self,
        now: Now,
        chain: Chain,
        asset: &AssetId,
        anomaly: EventId,
        tags: &[TagId],
        out: &mut Outbox<'_>,
    ) {
        let since = self.begun.remove(&anomaly).unwrap_or(now.utc);
        let watch = self.watches.entry(asset.clone()).or_default();
        let asked = Asked { chain, tags: tags.to_vec(), since, over: false, by_alarm: false };
        watch.asked.insert(anomaly, asked);
        self.look(now, asset, out);
    }

    /// A new question is looked into, after the round that runs.
    fn look(&mut self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        let watch = self.watches.entry(asset.clone()).or_default();
        while watch.asked.len() > ANOMALIES_MAX {
            watch.asked.pop_first();
        }
        if watch.pending.is_empty() {
            self.begin_round(now, asset, out);
        } else {
            // The round that runs does not know of it: another follows at once.
            watch.due = Some(now.mono);
            self.keep(now, asset, out);
        }
    }

    /// A warning limit is crossed: what wears too slowly to look unusual from one hour to the next
    /// is followed from here.
    fn warned(&mut self, now: Now, event: &Event, alarm: &Alarm, out: &mut Outbox<'_>) {
        let AlarmCause::Limit { which: LimitKind::High | LimitKind::Low, .. } = alarm.cause else {
            return;
        };
        let (Some(asset), Some(tag)) = (&alarm.asset, &alarm.tag) else { return };
        if self.targets(asset, &Watch::default()).is_empty() {
            return;
        }
        let watch = self.watches.entry(asset.clone()).or_default();
        // Values near a limit cross it again and again: one question a tag.
        let same = |asked: &Asked| asked.by_alarm && asked.tags.first() == Some(tag);
        if let Some((known, mut asked)) = watch
            .asked
            .iter()
            .find(|(_, asked)| same(asked))
            .map(|(id, asked)| (*id, asked.clone()))
        {
            asked.over = false;
            watch.asked.remove(&known);
            watch.asked.insert(alarm.id, asked);
            self.keep(now, asset, out);
            return;
        }
        let asked = Asked {
            chain: Chain::of(event),
            tags: vec![tag.clone()],
            since: event.time,
            over: false,
            by_alarm: true,
        };
        watch.asked.insert(alarm.id, asked);
        self.look(now, asset, out);
    }

    /// The limits to follow: those of the anomalies' tags, most answerable first, then the rest of
    /// the asset's.
    fn targets(&self, asset: &AssetId, watch: &Watch) -> Vec<Target> {
        let plant = &self.setting.plant;
        // The newest anomaly's tags come first.
        let named = watch.asked.values().rev().flat_map(|asked| &asked.tags);
        let named = named.filter_map(|tag| plant.tag(plant.find(asset.as_str(), tag.as_str())?));
        let mut targets: Vec<Target> = Vec::new();
        for tag in named.chain(plant.tags_of(asset)).filter(|tag| !tag.discrete) {
            let limits = [(tag.limits.high_high, true), (tag.limits.low_low, false)];
            for (limit, upward) in limits {
                let Some(limit) = limit else { continue };
                let target = Target { tag: tag.path.tag.clone(), limit, upward, iso_group: None };
                if targets.len() < TAGS_MAX && !targets.contains(&target) {
                    targets.push(target);
                }
            }
            if let Some(target) = zone_end(plant.assets.get(asset), tag)
                && targets.len() < TAGS_MAX
                && !targets.contains(&target)
            {
                targets.push(target);
            }
        }
        targets
    }

    fn begin_round(&mut self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        let Some(watch) = self.watches.get(asset) else { return };
        let Some((anomaly, asked)) = watch.newest() else { return };
        let targets = self.targets(asset, watch);
        if targets.is_empty() {
            let body = Body::PredictionAbstained {
                asset: asset.clone(),
                anomaly: Some(anomaly),
                reason: "no tag of the asset has a failure limit (high_high or low_low)".to_owned(),
            };
            out.emit_from(onward(out, asked.chain), body);
            self.close(now, asset, "the asset has no failure limit any more", out);
            return;
        }
        let chain = onward(out, asked.chain);
        let widened = watch.rounds_lost.min(8);
        let lasted = now.utc.since(watch.since());
        let mut pending = BTreeMap::new();
        let mut slowest = Duration::ZERO;
        for target in targets {
            let period = self
                .setting
                .plant
                .find(asset.as_str(), target.tag.as_str())
                .and_then(|key| self.setting.plant.tag(key)?.period)
                .unwrap_or(PERIOD_UNKNOWN);
            slowest = slowest.max(period);
            let span = lasted
                .saturating_mul(LOOK_BACK)
                .max(period.saturating_mul(LOOK_BACK_PERIODS))
                .saturating_mul(1 << (2 * widened));
            let life = self.lives.get(asset).copied();
            let from = now.utc.before(span);
            let spec = JobSpec::Degradation {
                asset: asset.clone(),
                tag: target.tag.clone(),
                limit: target.limit,
                upward: target.upward,
                from: Some(life.map_or(from, |life| life.max(from))),
                to: now.utc,
            };
            let job = out.emit_from(chain, Body::JobStarted { spec: spec.clone() });
            out.effect(Effect::Run { job, spec });
            pending.insert(job, target);
        }
        let watch = self.watches.get_mut(asset).expect("it was there above");
        watch.pending = pending;
        watch.answers.clear();
        watch.pause_min = PAUSE_MIN.max(slowest.saturating_mul(PAUSE_PERIODS));
        watch.due = Some(now.mono + JOB_PATIENCE);
        self.keep(now, asset, out);
    }

    fn answer(
        &mut self,
        now: Now,
        event: &Event,
        job: EventId,
        spec: &JobSpec,
        result: &Result<serde_json::Value, String>,
        out: &mut Outbox<'_>,
    ) {
        let JobSpec::Degradation { asset, .. } = spec else { return };
        let Some(watch) = self.watches.get_mut(asset) else { return };
        // What is not pending was asked about an earlier life or an earlier round.
        let Some(target) = watch.pending.remove(&job) else { return };
        let outlook = match result {
            Ok(value) => serde_json::from_value(value.clone()).map_err(|error| error.to_string()),
            Err(error) => Err(error.clone()),
        };
        let outlook = outlook.unwrap_or_else(|error| Outlook::Abstained {
            reason: format!("the computation failed: {error}"),
            as_of: None,
        });
        watch.answers.push((target, outlook));
        if watch.pending.is_empty() {
            self.end_round(now, Some(event), asset, out);
        }
    }

    fn end_round(
        &mut self,
        now: Now,
        event: Option<&Event>,
        asset: &AssetId,
        out: &mut Outbox<'_>,
    ) {
        let Some(watch) = self.watches.get_mut(asset) else { return };
        watch.pending.clear();
        let answers = std::mem::take(&mut watch.answers);
        let Some((anomaly, asked)) = watch.newest() else { return };
        let cause = event.map_or(asked.chain.cause, |event| event.id);
        let chain = Chain { cause, correlation: asked.chain.correlation };
        let proven = answers
            .iter()
            .filter_map(|(target, outlook)| match outlook {
                Outlook::Predicted(estimate) => Some((target.clone(), *estimate)),
                Outlook::Abstained { .. } => None,
            })
            .min_by(|(_, one), (_, other)| one.p50.total_cmp(&other.p50));
        if let Some((target, estimate)) = proven {
            self.predicted(now, chain, asset, anomaly, &target, &estimate, out);
        } else {
            let reason = answers
                .iter()
                .find_map(|(target, outlook)| match outlook {
                    Outlook::Abstained { reason, .. } => Some(format!("{}: {reason}", target.tag)),
                    Outlook::Predicted(_) => None,
                })
                .unwrap_or_else(|| "the computation did not answer in time".to_owned());
            self.abstained(now, chain, asset, anomaly, reason, out);
        }
        self.keep(now, asset, out);
    }

    #[expect(clippy::too_many_arguments, reason = "one caller; the arguments are its findings")]
    fn predicted(
        &mut self,
        now: Now,
        chain: Chain,
        asset: &AssetId,
        anomaly: EventId,
        target: &Target,
        estimate: &Estimate,
        out: &mut Outbox<'_>,
    ) {
        let Some(prediction) = self.prognosis(asset, anomaly, target, estimate) else { return };
        let Some(watch) = self.watches.get_mut(asset) else { return };
        watch.rounds_lost = 0;
        watch.abstained = None;
        let lasted = now.utc.since(watch.since()).as_secs_f64();
        let wait = (prediction.rul.p50 * PAUSE_SHARE).max(lasted * PAUSE_SHARE_LASTED);
        watch.due = Some(now.mono + pause(watch.pause_min, wait));
        let news = watch.standing.as_ref().is_none_or(|standing| {
            standing.is_outdated_by(&prediction, MOVED_SHARE, ANNOUNCE_SHARE)
        });
        if news {
            if let Some(standing) = &watch.standing
                && standing.prediction.failure_mode != prediction.failure_mode
            {
                let withdrawn = Body::PredictionWithdrawn {
                    asset: asset.clone(),
                    prediction: standing.event,
                    reason: format!("{} is more urgent", prediction.failure_mode),
                };
                out.emit_from(chain, withdrawn);
            }
            let old = watch.standing.take();
            let event = out.emit_from(chain, Body::FailurePredicted(prediction.clone()));
            let standing = Standing { event, prediction: prediction.clone() };
            out.save(standing.record(true));
            watch.standing = Some(standing);
            if let Some(old) = old {
                // Another failure mode takes its place; the same one is written over.
                let mode = &old.prediction.failure_mode;
                if *mode != prediction.failure_mode {
                    out.save(old.record(false));
                    self.settle(now, asset, out, |card| card.withdrawn(mode));
                }
            }
            let story = Chain { cause: event, correlation: chain.correlation };
            if estimate.health > 0.0 {
                self.await_truth(now, story, &prediction, target.upward, out);
            } else if target.iso_group.is_some() {
                // No alarm will tell: the tag has no limit of its own.
                let (tag, at) = (target.tag.clone(), prediction.as_of);
                self.settle(now, asset, out, |card| card.reached(&tag, true, at));
            }
        }
    }

    fn prognosis(
        &self,
        asset: &AssetId,
        anomaly: EventId,
        target: &Target,
        estimate: &Estimate,
    ) -> Option<Prognosis> {
        let known = self.setting.plant.assets.get(asset)?;
        let key = self.setting.plant.find(asset.as_str(), target.tag.as_str())?;
        let tag = self.setting.plant.tag(key)?;
        let mode = failure_modes::infer(&self.setting.config, known, tag, Some(target.upward));
        let track_record = self.cards.record(asset, &mode.id);
        let asked = self.watches.get(asset).and_then(|watch| watch.asked.get(&anomaly));
        let by_alarm = asked.is_some_and(|asked| asked.by_alarm);
        Some(Prognosis {
            asset: asset.clone(),
            tag: target.tag.clone(),
            failure_mode: mode.id,
            rul: Quantiles::new(estimate.p10, estimate.p50, estimate.p90)?,
            as_of: estimate.as_of,
            limit: target.limit,
            value: estimate.value,
            method: match target.iso_group {
                None => METHOD.to_owned(),
                Some(_) => format!("{METHOD} to ISO 20816-3 zone C/D"),
            },
            confidence: estimate.confidence.clamp(0.0, 1.0),
            probability_7_30_90_d: estimate.probability_7_30_90_d,
            health: HealthIndex::new(estimate.health),
            actions: mode.actions,
            skills: mode.skills,
            repair_seconds: mode.repair.as_secs_f64(),
            // An alarm is no anomaly: nobody would find it by that id.
            anomaly: (!by_alarm).then_some(anomaly),
            track_record,
            explanation: explain::trend(tag, target, estimate),
        })
    }

    fn abstained(
        &mut self,
        now: Now,
        chain: Chain,
        asset: &AssetId,
        anomaly: EventId,
        reason: String,
        out: &mut Outbox<'_>,
    ) {
        let Some(watch) = self.watches.get_mut(asset) else { return };
        watch.rounds_lost = watch.rounds_lost.saturating_add(1);
        let lasted = now.utc.since(watch.since()).as_secs_f64();
        watch.due = Some(now.mono + pause(watch.pause_min, lasted * PAUSE_SHARE_ABSTAINED));
        if let Some(standing) = &watch.standing {
            if watch.rounds_lost < LOST_ROUNDS {
                return;
            }
            let withdrawn = Body::PredictionWithdrawn {
                asset: asset.clone(),
                prediction: standing.event,
                reason: reason.clone(),
            };
            out.emit_from(chain, withdrawn);
            out.save(standing.record(false));
            let mode = standing.prediction.failure_mode.clone();
            watch.standing = None;
            self.settle(now, asset, out, |card| card.withdrawn(&mode));
        }
        let Some(watch) = self.watches.get_mut(asset) else { return };
        if watch.rounds_lost >= LOST_ROUNDS {
            watch.asked.retain(|_, asked| !asked.over);
            if watch.asked.is_empty() {
                self.close(now, asset, "the alarm has cleared", out);
                return;
            }
        }
        // Said once per anomaly; the same answer to the same question is no news.
        if watch.abstained != Some(anomaly) {
            watch.abstained = Some(anomaly);
            let by_alarm = watch.asked.get(&anomaly).is_some_and(|asked| asked.by_alarm);
            let anomaly = (!by_alarm).then_some(anomaly);
            let asset = asset.clone();
            out.emit_from(chain, Body::PredictionAbstained { asset, anomaly, reason });
        }
    }

    /// An anomaly is over; the asset is no longer watched when it was the last one.
    fn ended(&mut self, now: Now, asset: &AssetId, anomaly: EventId, out: &mut Outbox<'_>) {
        self.begun.remove(&anomaly);
        let Some(watch) = self.watches.get_mut(asset) else { return };
        if watch.asked.remove(&anomaly).is_none() {
            return;
        }
        if watch.asked.is_empty() {
            self.close(now, asset, "the departure has ended", out);
        } else {
            self.keep(now, asset, out);
        }
    }

    fn close(&mut self, now: Now, asset: &AssetId, reason: &str, out: &mut Outbox<'_>) {
        let Some(mut watch) = self.watches.remove(asset) else { return };
        if let Some(standing) = watch.standing.take() {
            let withdrawn = Body::PredictionWithdrawn {
                asset: asset.clone(),
                prediction: standing.event,
                reason: reason.to_owned(),
            };
            match watch.newest() {
                Some((_, asked)) => out.emit_from(onward(out, asked.chain), withdrawn),
                None => out.emit(withdrawn),
            };
            out.save(standing.record(false));
            let mode = standing.prediction.failure_mode;
            self.settle(now, asset, out, |card| card.withdrawn(&mode));
        }
        out.save(Watch::default().record(asset, now.utc, false));
    }

    fn keep(&self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        if let Some(watch) = self.watches.get(asset) {
            out.save(watch.record(asset, now.utc, true));
        }
    }

    /// The asset's parts are new from now on.
    fn renew(&mut self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        self.lives.insert(asset.clone(), now.utc);
        out.save(life(asset, now.utc, true));
    }
}

fn life(asset: &AssetId, since: Timestamp, open: bool) -> Record {
    Record::new(RecordKind::Outlook, format!("{LIFE}{asset}"), since, &since)
        .about(asset)
        .in_state("life", open)
}

/// Begins the ids of records that say since when an asset's parts live.
const LIFE: &str = "life:";

fn pause(min: Duration, seconds: f64) -> Duration {
    let wanted = Duration::try_from_secs_f64(seconds).unwrap_or(PAUSE_MAX);
    wanted.clamp(PAUSE_MIN, PAUSE_MAX).max(min)
}

/// Where zone C of ISO 20816-3 ends, for a velocity of vibration without a failure limit of its own;
/// on a rigid support, which is the stricter row.
fn zone_end(asset: Option<&std::sync::Arc<Asset>>, tag: &Tag) -> Option<Target> {
    let group = asset?.iso20816_group?;
    let velocity = tag.unit == "mm/s" && tag.limits.high_high.is_none();
    let ZoneLimits([_, _, limit]) = velocity.then(|| zone_limits(group, false))??;
    Some(Target { tag: tag.path.tag.clone(), limit, upward: true, iso_group: Some(group) })
}

/// The chain of an anomaly, going on from the event that is handled.
fn onward(out: &Outbox<'_>, chain: Chain) -> Chain {
    Chain { cause: out.context().map_or(chain.cause, |context| context.cause), ..chain }
}

impl Stage for Prediction {
    fn name(&self) -> StageName {
        StageName::Prediction
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        for row in saved.of(RecordKind::Outlook) {
            let unreadable = |error: serde_json::Error| {
                StageError::new(format!("prediction {}: {error}", row.id))
            };
            let Some(asset) = row.asset.clone() else { continue };
            if row.id.starts_with(LIFE) {
                self.lives.insert(asset, row.read().map_err(unreadable)?);
                continue;
            }
            if !row.id.starts_with(watch::WATCH) {
                continue;
            }
            let mut watch: Watch = row.read().map_err(unreadable)?;
            watch.pause_min = PAUSE_MIN;
            // Jobs that were under way are started again by the engine; if one is lost after all,
            // patience ends the round.
            let wait = if watch.pending.is_empty() { PAUSE_MIN } else { JOB_PATIENCE };
            watch.due = Some(now.mono + wait);
            self.watches.insert(asset, watch);
        }
        self.cards.restore(now, &saved)
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "a prediction depends on few of the many events; the others concern other stages"
        )]
        match &event.body {
            Body::AnomalyDetected(anomaly) => {
                // Said again, it goes on from the event that announced it first.
                let id = event.cause.unwrap_or(event.id);
                self.begun.entry(id).or_insert(anomaly.since);
                while self.begun.len() > BEGUN_MAX {
                    self.begun.pop_first();
                }
            }
            Body::PredictionRequested { asset, anomaly, tags } => {
                self.ask(now, Chain::of(event), asset, *anomaly, tags, out);
            }
            Body::JobFinished { job, spec, result } => {
                self.answer(now, event, *job, spec, result, out);
            }
            Body::AnomalyEnded { asset, anomaly }
            | Body::FeedbackGiven { asset, anomaly, real: false, .. } => {
                self.ended(now, asset, *anomaly, out);
            }
            Body::WorkLogged { asset, renewed: true, .. } => {
                self.renew(now, asset, out);
                self.settle(now, asset, out, Card::prevented);
                self.close(now, asset, "the machine was repaired", out);
            }
            Body::BaselineReset { asset, tags, .. } if tags.is_empty() => {
                self.close(now, asset, "the baseline is learnt anew", out);
            }
            Body::AlarmRaised(alarm) | Body::AlarmUpdated(alarm) => {
                self.settle_alarm(now, alarm, event.time, out);
                if event.body.kind() == "alarm-raised" {
                    self.warned(now, event, alarm, out);
                }
            }
            Body::AlarmCleared(alarm) => {
                let watch = alarm.asset.as_ref().and_then(|asset| self.watches.get_mut(asset));
                if let Some(asked) = watch.and_then(|watch| watch.asked.get_mut(&alarm.id)) {
                    asked.over = true;
                    if let Some(asset) = &alarm.asset {
                        self.keep(now, asset, out);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Duration> {
        let rounds = self.watches.values().filter_map(|watch| watch.due);
        rounds.chain(self.cards.due()).min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        self.settle_outlived(now, out);
        let due: Vec<AssetId> = self
            .watches
            .iter()
            .filter(|(_, watch)| watch.due.is_some_and(|due| due <= now.mono))
            .map(|(asset, _)| asset.clone())
            .collect();
        for asset in due {
            if self.watches.get(&asset).is_some_and(|watch| !watch.pending.is_empty()) {
                // What has answered counts; the rest is late and will be dropped as outdated.
                self.end_round(now, None, &asset, out);
            } else {
                self.begin_round(now, &asset, out);
            }
        }
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        let gone: Vec<AssetId> = self
            .watches
            .keys()
            .filter(|asset| !setting.plant.assets.contains_key(*asset))
            .cloned()
            .collect();
        for asset in gone {
            self.close(now, &asset, "configuration", out);
        }
        let gone: Vec<AssetId> = self
            .lives
            .keys()
            .filter(|asset| !setting.plant.assets.contains_key(*asset))
            .cloned()
            .collect();
        for asset in gone {
            if let Some(since) = self.lives.remove(&asset) {
                out.save(life(&asset, since, false));
            }
        }
        self.close_cards(now, |asset| setting.plant.assets.contains_key(asset), out);
        self.setting = setting.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
