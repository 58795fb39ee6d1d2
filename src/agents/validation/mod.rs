//! Validation: is an anomaly real?
//!
//! Detection says that something is unusual. Validation watches it over a patience time (scaled to
//! how often the tags are read), weighs what speaks for and against it ([`judge`]) and gives one
//! verdict with its reasons: confirmed, dismissed or inconclusive. Strong evidence is confirmed
//! before patience runs out; nothing is dismissed before. What stays inconclusive and goes on is
//! judged again, more and more seldom, and may still be confirmed.
//!
//! The stage is a function of the events and readings it is given, so `wheeltap detect` runs it on
//! recordings. Per asset [`CASES_MAX`] cases are kept; one more ends the oldest.

mod case;
mod judge;
mod memory;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::case::{Case, CaseView, record, state_word, watch};
use self::judge::{Judgement, Persistence, Prior};
use self::memory::Memory;
use super::promise::Promise;
use super::{Chain, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::config::Rule;
use crate::domain::alarm::{Alarm, AlarmCause};
use crate::domain::anomaly::{Anomaly, Validated, Verdict};
use crate::domain::event::{Body, Event};
use crate::domain::ids::{AssetId, EventId, TagId, TagKey};
use crate::domain::reading::Reading;
use crate::domain::record::{Record, RecordKind};
use crate::domain::tag::Plant;
use crate::domain::time::{Now, Timestamp};
use crate::domain::work_order::{OrderState, WorkOrder};

/// Cases kept open per asset; the oldest makes room.
pub const CASES_MAX: usize = 8;
/// Open limit alarms remembered per asset; more say nothing new.
const LIMIT_ALARMS_MAX: usize = 32;
/// Priors remembered; beyond, new ones are not taken up.
const PRIORS_MAX: usize = 16_384;
/// Patience in expected periods of the slowest tag involved.
const PATIENCE_PERIODS: u32 = 10;
/// Patience is at least this; the fastest polls would leave no time for other evidence.
const PATIENCE_MIN: Duration = Duration::from_secs(3);
/// Patience is at most this; an hourly tag must not wait half a day for its verdict.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);
/// Period assumed of a tag that has never told its own.
const PERIOD_UNKNOWN: Duration = Duration::from_secs(1);
/// Departing readings after which strong evidence needs no more patience.
const EARLY_READINGS: u32 = 3;
/// An inconclusive case is judged again after 2, 4, 8 … times its patience, this often.
const RETRIALS_MAX: u32 = 6;

/// The validation stage.
#[derive(Debug)]
pub struct Validation {
    plant: Arc<Plant>,
    rules: Vec<Rule>,
    memory: Vec<Memory>,
    cases: BTreeMap<AssetId, BTreeMap<EventId, Case>>,
    /// Open limit alarms per asset, with their tags.
    limits: BTreeMap<AssetId, BTreeMap<EventId, Option<TagId>>>,
    /// Orders that are being carried out, with the time until which that is believed.
    working: BTreeMap<AssetId, BTreeMap<EventId, Option<Timestamp>>>,
    /// Departures dismissed because of that work, per asset ([`CASES_MAX`], the oldest is forgotten
    /// first): while it lasts they are not spoken of again.
    hushed: BTreeMap<AssetId, BTreeSet<EventId>>,
    priors: BTreeMap<(AssetId, TagId, String), Prior>,
    /// Cases that wait for a verdict; readings cost nothing while it is zero.
    pending: usize,
}

impl Validation {
    /// The stage, with no case open.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        let rules = setting.config.rules.clone();
        Self { rules, ..Self::for_plant(Arc::clone(&setting.plant)) }
    }

    /// A stage for these assets and tags, without a configuration (recordings).
    #[must_use]
    pub fn for_plant(plant: Arc<Plant>) -> Self {
        Self {
            memory: vec![Memory::default(); plant.key_bound()],
            plant,
            rules: Vec::new(),
            cases: BTreeMap::new(),
            limits: BTreeMap::new(),
            working: BTreeMap::new(),
            hushed: BTreeMap::new(),
            priors: BTreeMap::new(),
            pending: 0,
        }
    }

    fn open(&mut self, now: Now, event: &Event, anomaly: &Anomaly, out: &mut Outbox<'_>) {
        // Detection says more of a departure that it announced before by an event that goes on from
        // the first one; the first one stays the anomaly's name.
        let id = event.cause.unwrap_or(event.id);
        let in_work = self.is_in_work(now, &anomaly.asset);
        if in_work && self.hushed.get(&anomaly.asset).is_some_and(|ids| ids.contains(&id)) {
            return;
        }
        let of_asset = self.cases.entry(anomaly.asset.clone()).or_default();
        if let Some(case) = of_asset.get_mut(&id) {
            case.worsen(anomaly);
            out.save(record(case));
            return;
        }
        let patience = self.patience(anomaly);
        let promise = Promise::new(now, patience);
        let case = Case {
            id,
            validated: CaseView {
                anomaly: anomaly.clone(),
                verdict: None,
                confidence: anomaly.confidence,
                adjustments: Vec::new(),
                ended: None,
            },
            chain: Chain::of(event),
            watched: watch(anomaly),
            persistence: Persistence::since(anomaly.since, event.time),
            patience_seconds: patience.as_secs_f64(),
            promise,
            retrials: 0,
            due: Some(promise.mono(now)),
            touched: false,
        };
        out.save(record(&case));
        let of_asset = self.cases.entry(anomaly.asset.clone()).or_default();
        of_asset.insert(id, case);
        if of_asset.len() > CASES_MAX
            && let Some(oldest) = of_asset.keys().next().copied()
        {
            self.decide(now, &anomaly.asset, oldest, Moment::Ended, out);
            self.forget(now, &anomaly.asset, oldest, out);
        }
        if in_work {
            self.decide(now, &anomaly.asset, id, Moment::Patience, out);
            let hushed = self.hushed.entry(anomaly.asset.clone()).or_default();
            hushed.insert(id);
            if hushed.len() > CASES_MAX {
                hushed.pop_first();
            }
        }
    }

    fn patience(&self, anomaly: &Anomaly) -> Duration {
        let period = anomaly
            .tags
            .iter()
            .filter_map(|tag| self.key(&anomaly.asset, tag))
            .map(|key| {
                let configured = self.plant.tag(key).and_then(|tag| tag.period);
                let learnt = self.memory.get(key.0 as usize).and_then(Memory::period);
                configured.or(learnt).unwrap_or(PERIOD_UNKNOWN)
            })
            .max()
            .unwrap_or(PERIOD_UNKNOWN);
        period.saturating_mul(PATIENCE_PERIODS).clamp(PATIENCE_MIN, PATIENCE_MAX)
    }

    fn key(&self, asset: &AssetId, tag: &TagId) -> Option<TagKey> {
        self.plant.find(asset.as_str(), tag.as_str())
    }

    fn is_in_work(&self, now: Now, asset: &AssetId) -> bool {
        self.working.get(asset).is_some_and(|orders| {
            orders.values().any(|until| until.is_none_or(|until| now.utc <= until))
        })
    }

    /// Judges a case and, when a verdict is reached (or patience is over), announces it.
    fn decide(
        &mut self,
        now: Now,
        asset: &AssetId,
        id: EventId,
        moment: Moment,
        out: &mut Outbox<'_>,
    ) {
        let Some(case) = self.cases.get(asset).and_then(|cases| cases.get(&id)) else { return };
        if !case.is_pending() {
            return;
        }
        let judgement = match moment {
            Moment::Person(real) => judge::person(&case.validated.anomaly, real),
            Moment::Arrival | Moment::Patience | Moment::Ended => {
                judge::judge(&case.validated.anomaly, &case.persistence, &self.around(now, case))
            }
        };
        let verdict = match moment {
            Moment::Arrival => {
                // Before patience is over only confirmation counts, and only once it has lasted.
                if !(judgement.is_strong() && case.persistence.departing >= EARLY_READINGS) {
                    return;
                }
                Verdict::Confirmed
            }
            Moment::Patience | Moment::Ended | Moment::Person(_) => judgement.verdict(),
        };
        let again = case.verdict() == Some(Verdict::Inconclusive) && verdict != Verdict::Confirmed;
        self.conclude(now, asset, id, verdict, judgement, again, moment, out);
    }

    #[expect(clippy::too_many_arguments, reason = "one caller; the arguments are its findings")]
    fn conclude(
        &mut self,
        now: Now,
        asset: &AssetId,
        id: EventId,
        verdict: Verdict,
        judgement: Judgement,
        again: bool,
        moment: Moment,
        out: &mut Outbox<'_>,
    ) {
        let Some(case) = self.cases.get_mut(asset).and_then(|cases| cases.get_mut(&id)) else {
            return;
        };
        case.due = None;
        let over = matches!(moment, Moment::Ended | Moment::Person(_));
        if verdict == Verdict::Inconclusive && !over && case.retrials < RETRIALS_MAX {
            case.retrials += 1;
            case.promise = Promise::new(now, case.patience() * (1 << case.retrials));
            case.due = Some(case.promise.mono(now));
        }
        // A second verdict is given only when it is another one: still inconclusive is no news.
        if !again || matches!(moment, Moment::Person(_)) {
            case.validated.verdict = Some(verdict);
            case.validated.confidence = judgement.confidence;
            case.validated.adjustments.clone_from(&judgement.adjustments);
            out.emit_from(
                case.chain,
                Body::AnomalyValidated(Validated {
                    anomaly_id: case.id,
                    anomaly: case.validated.anomaly.clone(),
                    verdict,
                    confidence: judgement.confidence,
                    adjustments: judgement.adjustments,
                }),
            );
        }
        out.save(record(case));
        if verdict == Verdict::Dismissed {
            self.forget(now, asset, id, out);
        }
        self.count_pending();
    }

    /// The anomaly is over: nothing more is waited for.
    fn forget(&mut self, now: Now, asset: &AssetId, id: EventId, out: &mut Outbox<'_>) {
        let Some(cases) = self.cases.get_mut(asset) else { return };
        if let Some(mut case) = cases.remove(&id) {
            case.due = None;
            case.validated.ended = Some(now.utc);
            out.save(record(&case).in_state(state_word(&case), false));
        }
        if cases.is_empty() {
            self.cases.remove(asset);
        }
        self.count_pending();
    }

    /// Dismisses every case of an asset that has no verdict yet.
    fn dismiss_all(&mut self, now: Now, asset: &AssetId, reason: &str, out: &mut Outbox<'_>) {
        let ids: Vec<EventId> =
            self.cases.get(asset).into_iter().flat_map(|cases| cases.keys().copied()).collect();
        for id in ids {
            let Some(case) = self.cases.get(asset).and_then(|cases| cases.get(&id)) else {
                continue;
            };
            if case.verdict().is_none() {
                let judgement = Judgement::dismissal(&case.validated.anomaly, reason);
                let ended = Moment::Ended;
                let verdict = Verdict::Dismissed;
                self.conclude(now, asset, id, verdict, judgement, false, ended, out);
            } else {
                self.forget(now, asset, id, out);
            }
        }
    }

    fn count_pending(&mut self) {
        self.pending = self
            .cases
            .values()
            .map(|cases| cases.values().filter(|case| case.is_pending()).count())
            .sum();
    }

    fn take_order(&mut self, order: &WorkOrder) {
        let asset = &order.request.asset;
        if order.state == OrderState::Started {
            // An order that nobody ever closes must not silence the asset for good: it is believed
            // for its planned time once more.
            let until = order
                .booking
                .as_ref()
                .map(|booking| booking.end.after(booking.end.since(booking.start)));
            self.working.entry(asset.clone()).or_default().insert(order.id, until);
        } else if let Some(orders) = self.working.get_mut(asset) {
            orders.remove(&order.id);
            if orders.is_empty() {
                self.working.remove(asset);
            }
        }
    }

    fn take_alarm(&mut self, alarm: &Alarm, open: bool) {
        let (AlarmCause::Limit { .. }, Some(asset)) = (&alarm.cause, &alarm.asset) else { return };
        let alarms = self.limits.entry(asset.clone()).or_default();
        if open && alarms.len() < LIMIT_ALARMS_MAX {
            alarms.insert(alarm.id, alarm.tag.clone());
        } else if !open {
            alarms.remove(&alarm.id);
        }
        if alarms.is_empty() {
            self.limits.remove(asset);
        }
    }

    fn take_prior(&mut self, row: PriorRow) {
        let key = (row.asset, row.tag, row.detector);
        if self.priors.len() < PRIORS_MAX || self.priors.contains_key(&key) {
            self.priors.insert(key, Prior { right: row.right, wrong: row.wrong });
        }
    }

    /// Looks once more at the cases whose readings came, or at all pending ones of an asset.
    fn look_again(&mut self, now: Now, asset: Option<&AssetId>, out: &mut Outbox<'_>) {
        let due: Vec<(AssetId, EventId)> = self
            .cases
            .iter_mut()
            .flat_map(|(of, cases)| cases.values_mut().map(move |case| (of, case)))
            .filter_map(|(of, case)| {
                let touched = std::mem::take(&mut case.touched) || asset == Some(of);
                (touched && case.is_pending()).then(|| (of.clone(), case.id))
            })
            .collect();
        for (asset, id) in due {
            self.decide(now, &asset, id, Moment::Arrival, out);
        }
    }
}

/// On which occasion a case is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Something spoke for it; patience is not over.
    Arrival,
    /// Patience is over.
    Patience,
    /// The departure has ended.
    Ended,
    /// A person has said whether it is real.
    Person(bool),
}

/// A prior as learning keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct PriorRow {
    asset: AssetId,
    tag: TagId,
    detector: String,
    right: f64,
    wrong: f64,
}

impl Stage for Validation {
    fn name(&self) -> StageName {
        StageName::Validation
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        let unreadable = |record: &Record, error: serde_json::Error| {
            StageError::new(format!("{} {}: {error}", record.kind.as_str(), record.id))
        };
        for row in saved.of(RecordKind::Anomaly) {
            let mut case: Case = row.read().map_err(|error| unreadable(row, error))?;
            let waits = match case.verdict() {
                None => true,
                Some(Verdict::Inconclusive) => case.retrials <= RETRIALS_MAX,
                Some(Verdict::Confirmed | Verdict::Dismissed) => false,
            };
            case.due = waits.then(|| case.promise.mono(now));
            let asset = case.validated.anomaly.asset.clone();
            self.cases.entry(asset).or_default().insert(case.id, case);
        }
        // What other stages keep and say only once is looked up in their records.
        for row in saved.of(RecordKind::Alarm) {
            if let Ok(alarm) = row.read::<Alarm>() {
                self.take_alarm(&alarm, true);
            }
        }
        for row in saved.of(RecordKind::WorkOrder) {
            if let Ok(order) = row.read::<WorkOrder>() {
                self.take_order(&order);
            }
        }
        for row in saved.of(RecordKind::Prior) {
            if let Ok(prior) = row.read::<PriorRow>() {
                self.take_prior(prior);
            }
        }
        if let Some([judge::SNAPSHOT_VERSION, body @ ..]) = saved.snapshot {
            let rows: Option<Vec<PriorRow>> = serde_json::from_slice(body).ok();
            for row in rows.into_iter().flatten() {
                let key = (row.asset.clone(), row.tag.clone(), row.detector.clone());
                if !self.priors.contains_key(&key) {
                    self.take_prior(row);
                }
            }
        }
        self.count_pending();
        Ok(())
    }

    fn on_readings(
        &mut self,
        now: Now,
        readings: &[Reading],
        historical: bool,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        for reading in readings {
            let Some(memory) = self.memory.get_mut(reading.tag.0 as usize) else { continue };
            memory.take(reading);
            if self.pending == 0 || historical {
                continue;
            }
            let Some(tag) = self.plant.tag(reading.tag) else { continue };
            if let Some(cases) = self.cases.get_mut(&tag.path.asset) {
                for case in cases.values_mut().filter(|case| case.is_pending()) {
                    case.see(&tag.path.tag, reading);
                }
            }
        }
        if self.pending > 0 && !historical {
            self.look_again(now, None, out);
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
            reason = "a verdict rests on few of the many events; the others concern other stages"
        )]
        match &event.body {
            Body::AnomalyDetected(anomaly) => {
                self.open(now, event, anomaly, out);
                self.count_pending();
                // It may be what another case of the asset was waiting for.
                self.look_again(now, Some(&anomaly.asset), out);
            }
            Body::AnomalyEnded { asset, anomaly } => {
                self.decide(now, asset, *anomaly, Moment::Ended, out);
                self.forget(now, asset, *anomaly, out);
                if let Some(hushed) = self.hushed.get_mut(asset) {
                    hushed.remove(anomaly);
                }
            }
            Body::AlarmRaised(alarm) => {
                self.take_alarm(alarm, true);
                if let (AlarmCause::Limit { .. }, Some(asset)) = (&alarm.cause, &alarm.asset) {
                    self.look_again(now, Some(asset), out);
                }
            }
            Body::AlarmCleared(alarm) => self.take_alarm(alarm, false),
            Body::WorkOrderPlanned(order)
            | Body::WorkOrderStarted(order)
            | Body::WorkOrderRescheduled(order)
            | Body::WorkOrderCancelled(order)
            | Body::WorkOrderUnschedulable(order)
            | Body::WorkOrderCompleted(order, _)
            | Body::WorkOrderFailed(order, _) => self.take_order(order),
            Body::PriorMoved { asset, tag, detector, right, wrong } => {
                self.take_prior(PriorRow {
                    asset: asset.clone(),
                    tag: tag.clone(),
                    detector: detector.clone(),
                    right: *right,
                    wrong: *wrong,
                });
            }
            Body::FeedbackGiven { asset, anomaly, real, .. } => {
                self.decide(now, asset, *anomaly, Moment::Person(*real), out);
            }
            Body::BaselineReset { asset, tags, .. } if tags.is_empty() => {
                self.dismiss_all(now, asset, "the baseline is learnt anew", out);
            }
            _ => {}
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Duration> {
        if self.pending == 0 {
            return None;
        }
        self.cases.values().flat_map(BTreeMap::values).filter_map(|case| case.due).min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        let due: Vec<(AssetId, EventId)> = self
            .cases
            .values()
            .flat_map(BTreeMap::values)
            .filter(|case| case.due.is_some_and(|due| due <= now.mono))
            .map(|case| (case.validated.anomaly.asset.clone(), case.id))
            .collect();
        for (asset, id) in due {
            self.decide(now, &asset, id, Moment::Patience, out);
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
            .cases
            .keys()
            .filter(|asset| !setting.plant.assets.contains_key(*asset))
            .cloned()
            .collect();
        for asset in gone {
            self.dismiss_all(now, &asset, "configuration", out);
        }
        let kept = |asset: &AssetId| setting.plant.assets.contains_key(asset);
        self.limits.retain(|asset, _| kept(asset));
        self.working.retain(|asset, _| kept(asset));
        self.hushed.retain(|asset, _| kept(asset));
        self.priors.retain(|(asset, _, _), _| kept(asset));
        self.memory.resize(setting.plant.key_bound(), Memory::default());
        self.plant = Arc::clone(&setting.plant);
        self.rules.clone_from(&setting.config.rules);
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        let rows: Vec<PriorRow> = self
            .priors
            .iter()
            .map(|((asset, tag, detector), prior)| PriorRow {
                asset: asset.clone(),
                tag: tag.clone(),
                detector: detector.clone(),
                right: prior.right,
                wrong: prior.wrong,
            })
            .collect();
        let mut bytes = vec![judge::SNAPSHOT_VERSION];
        bytes.extend(serde_json::to_vec(&rows).expect("priors are JSON"));
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
