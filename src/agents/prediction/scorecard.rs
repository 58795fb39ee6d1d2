//! How often predictions were right. Each announced prediction stays open until the truth is
//! known, and is then scored:
//!
//! * **reached**: the tag crossed its failure limit. The time it took is compared with the
//!   interval.
//! * **outlived**: the pessimist's and the optimist's time (p90) passed, and the limit was not
//!   reached: the interval did not hold.
//! * **prevented**: the machine was repaired first. What would have been is not known; counted,
//!   not scored.
//! * **withdrawn**: taken back by the stage itself. Counted, not scored.
//!
//! Every prediction counts, not only the last one of a chain: whoever acted on an early one is
//! owed its truth. Source of the measure: interval coverage, Saxena et al., Int. J. Progn. Health
//! Manag. 1(1), 2010.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Prediction as Stage;
use crate::agents::{Chain, Outbox, Saved, StageError};
use crate::domain::alarm::{Alarm, AlarmCause, LimitKind};
use crate::domain::event::Body;
use crate::domain::ids::{AssetId, TagId};
use crate::domain::prognosis::{Prediction, Quantiles, TrackRecord};
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::{Now, Timestamp};

/// Begins the ids of records of cards.
pub(super) const CARD: &str = "card:";
/// The truth is looked for at least this often, because the clock may be set.
const LOOK_MAX: Duration = Duration::from_secs(6 * 3600);

/// Predictions of an asset whose truth is awaited; beyond, the second oldest makes room, because
/// the oldest gives the lead time.
pub(super) const OPEN_MAX: usize = 32;

/// A prediction whose truth is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    /// The prediction, and the first event of its story.
    pub chain: Chain,
    pub failure_mode: String,
    pub tag: TagId,
    pub upward: bool,
    pub as_of: Timestamp,
    pub rul: Quantiles,
}

/// How a prediction ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scored {
    pub open: Open,
    pub outcome: Outcome,
}

/// What became of what was predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    /// The limit was reached after these seconds.
    Reached(f64),
    /// It was not, though p90 has passed.
    Outlived,
    /// A repair came first.
    Prevented,
    /// It was taken back.
    Withdrawn,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Reached(_) => "reached",
            Self::Outlived => "outlived",
            Self::Prevented => "prevented",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// What is remembered of one asset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Card {
    open: VecDeque<Open>,
    /// By failure mode.
    tally: BTreeMap<String, TrackRecord>,
}

impl Card {
    /// Whether anything was ever predicted.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.tally.is_empty()
    }

    /// How predictions of this failure mode did so far.
    pub(super) fn record(&self, failure_mode: &str) -> TrackRecord {
        self.tally.get(failure_mode).copied().unwrap_or_default()
    }

    /// Takes an announced prediction, whose tag goes up (or down) to its limit.
    pub(super) fn announce(&mut self, chain: Chain, prediction: &Prediction, upward: bool) {
        if self.open.len() >= OPEN_MAX {
            self.open.remove(1);
        }
        self.open.push_back(Open {
            chain,
            failure_mode: prediction.failure_mode.clone(),
            tag: prediction.tag.clone(),
            upward,
            as_of: prediction.as_of,
            rul: prediction.rul,
        });
    }

    /// The tag crossed its failure limit.
    pub(super) fn reached(&mut self, tag: &TagId, upward: bool, at: Timestamp) -> Vec<Scored> {
        self.end(
            |open| open.tag == *tag && open.upward == upward,
            |open| Outcome::Reached(at.since(open.as_of).as_secs_f64()),
        )
    }

    /// The machine was repaired, or its configuration ended.
    pub(super) fn prevented(&mut self) -> Vec<Scored> {
        self.end(|_| true, |_| Outcome::Prevented)
    }

    /// A prediction was taken back, and with it the older ones of its failure mode.
    pub(super) fn withdrawn(&mut self, failure_mode: &str) -> Vec<Scored> {
        self.end(|open| open.failure_mode == failure_mode, |_| Outcome::Withdrawn)
    }

    /// Those whose p90 has passed by `now`.
    pub(super) fn outlived(&mut self, now: Timestamp) -> Vec<Scored> {
        self.end(|open| due(open) <= now, |_| Outcome::Outlived)
    }

    /// When the next one is outlived.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.open.iter().map(due).min()
    }

    fn end(
        &mut self,
        ends: impl Fn(&Open) -> bool,
        outcome: impl Fn(&Open) -> Outcome,
    ) -> Vec<Scored> {
        let mut ended = Vec::new();
        // The oldest of a failure mode says how early it was known.
        let mut first_of: BTreeMap<String, Timestamp> = BTreeMap::new();
        self.open.retain(|open| {
            if !ends(open) {
                return true;
            }
            first_of.entry(open.failure_mode.clone()).or_insert(open.as_of);
            ended.push(Scored { outcome: outcome(open), open: open.clone() });
            false
        });
        for Scored { open, outcome } in &ended {
            let tally = self.tally.entry(open.failure_mode.clone()).or_default();
            match *outcome {
                Outcome::Reached(seconds) => {
                    tally.scored += 1;
                    tally.covered += u32::from((open.rul.p10..=open.rul.p90).contains(&seconds));
                    if first_of.get(&open.failure_mode) == Some(&open.as_of) {
                        tally.failures += 1;
                        tally.lead_seconds += seconds;
                    }
                }
                Outcome::Outlived => tally.scored += 1,
                Outcome::Prevented => tally.prevented += 1,
                Outcome::Withdrawn => tally.withdrawn += 1,
            }
        }
        ended
    }
}

fn due(open: &Open) -> Timestamp {
    let longest = Duration::try_from_secs_f64(open.rul.p90).unwrap_or(Duration::MAX);
    open.as_of.after(longest)
}

/// All assets' cards.
#[derive(Debug, Default)]
pub(super) struct Cards {
    by_asset: BTreeMap<AssetId, Card>,
    /// When to look for those that were outlived, on this run's clock.
    due: Option<Duration>,
}

impl Cards {
    pub(super) fn record(&self, asset: &AssetId, failure_mode: &str) -> TrackRecord {
        self.by_asset.get(asset).map_or_else(TrackRecord::default, |card| card.record(failure_mode))
    }

    pub(super) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Takes up what earlier runs left open.
    pub(super) fn restore(&mut self, now: Now, saved: &Saved<'_>) -> Result<(), StageError> {
        for row in saved.of(RecordKind::Outlook).filter(|row| row.id.starts_with(CARD)) {
            let card = row.read().map_err(|error: serde_json::Error| {
                StageError::new(format!("prediction {}: {error}", row.id))
            })?;
            if let Some(asset) = &row.asset {
                self.by_asset.insert(asset.clone(), card);
            }
        }
        self.set_due(now);
        Ok(())
    }

    fn set_due(&mut self, now: Now) {
        let next = self.by_asset.values().filter_map(Card::next_due).min();
        self.due = next.map(|at| now.mono + at.since(now.utc).min(LOOK_MAX));
    }
}

impl Stage {
    /// An announced prediction waits for its truth.
    pub(super) fn await_truth(
        &mut self,
        now: Now,
        chain: Chain,
        prediction: &Prediction,
        upward: bool,
        out: &mut Outbox<'_>,
    ) {
        let card = self.cards.by_asset.entry(prediction.asset.clone()).or_default();
        card.announce(chain, prediction, upward);
        out.save(record(&prediction.asset, card, now.utc));
        self.cards.set_due(now);
    }

    /// Predictions of this asset end as `end` says.
    pub(super) fn settle(
        &mut self,
        now: Now,
        asset: &AssetId,
        out: &mut Outbox<'_>,
        end: impl FnOnce(&mut Card) -> Vec<Scored>,
    ) {
        let Some(card) = self.cards.by_asset.get_mut(asset) else { return };
        let ended = end(card);
        if ended.is_empty() {
            return;
        }
        out.save(record(asset, card, now.utc));
        for Scored { open, outcome } in ended {
            let actual = match outcome {
                Outcome::Reached(seconds) => Some(seconds),
                Outcome::Outlived | Outcome::Prevented | Outcome::Withdrawn => None,
            };
            let scored = Body::PredictionScored {
                asset: asset.clone(),
                prediction: open.chain.cause,
                failure_mode: open.failure_mode,
                outcome: outcome.as_str().to_owned(),
                actual,
                promised: open.rul,
            };
            out.emit_from(open.chain, scored);
        }
        self.cards.set_due(now);
    }

    /// A limit alarm: a failure limit that was crossed is the truth about what was predicted of it.
    pub(super) fn settle_alarm(
        &mut self,
        now: Now,
        alarm: &Alarm,
        at: Timestamp,
        out: &mut Outbox<'_>,
    ) {
        let AlarmCause::Limit { which, .. } = &alarm.cause else { return };
        let upward = match which {
            LimitKind::HighHigh => true,
            LimitKind::LowLow => false,
            LimitKind::High | LimitKind::Low => return,
        };
        if let (Some(asset), Some(tag)) = (&alarm.asset, &alarm.tag) {
            self.settle(now, asset, out, |card| card.reached(tag, upward, at));
        }
    }

    /// Looks for predictions that were outlived, when it is time to.
    pub(super) fn settle_outlived(&mut self, now: Now, out: &mut Outbox<'_>) {
        if self.cards.due.is_none_or(|due| due > now.mono) {
            return;
        }
        let assets: Vec<AssetId> = self.cards.by_asset.keys().cloned().collect();
        for asset in assets {
            self.settle(now, &asset, out, |card| card.outlived(now.utc));
        }
        self.cards.set_due(now);
    }

    /// What is known of an asset that is gone is closed; its history stays in the journal.
    pub(super) fn close_cards(
        &mut self,
        now: Now,
        stays: impl Fn(&AssetId) -> bool,
        out: &mut Outbox<'_>,
    ) {
        let gone: Vec<AssetId> =
            self.cards.by_asset.keys().filter(|asset| !stays(asset)).cloned().collect();
        for asset in gone {
            if let Some(card) = self.cards.by_asset.remove(&asset) {
                out.save(record(&asset, &card, now.utc).in_state("card", false));
            }
        }
        self.cards.set_due(now);
    }
}

fn record(asset: &AssetId, card: &Card, time: Timestamp) -> Record {
    Record::new(RecordKind::Outlook, format!("{CARD}{asset}"), time, card)
        .about(asset)
        .in_state("card", !card.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::EventId;

    fn chain(at: i64) -> Chain {
        let id = EventId(uuid::Uuid::from_u128(u128::try_from(at).unwrap()));
        Chain { cause: id, correlation: id }
    }

    fn open(card: &mut Card, at: i64, p10: f64, p90: f64) {
        card.open.push_back(Open {
            chain: chain(at),
            failure_mode: "bearing-wear".to_owned(),
            tag: TagId::new("temp").unwrap(),
            upward: true,
            as_of: Timestamp::from_micros(at * 1_000_000),
            rul: Quantiles::new(p10, f64::midpoint(p10, p90), p90).unwrap(),
        });
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn the_truth_scores_every_open_prediction_of_the_tag() {
        let mut card = Card::default();
        open(&mut card, 0, 50.0, 150.0);
        open(&mut card, 60, 10.0, 20.0);
        let tag = TagId::new("temp").unwrap();
        assert!(card.reached(&tag, false, at(100)).is_empty(), "the other limit");
        let scored = card.reached(&tag, true, at(100));
        assert_eq!(scored[0].outcome, Outcome::Reached(100.0));
        assert_eq!(scored[1].outcome, Outcome::Reached(40.0));
        let record = card.record("bearing-wear");
        assert_eq!((record.scored, record.covered, record.failures), (2, 1, 1));
        assert!((record.lead_seconds - 100.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_outlived_was_wrong_and_what_is_prevented_is_not_judged() {
        let mut card = Card::default();
        open(&mut card, 0, 50.0, 150.0);
        open(&mut card, 100, 50.0, 150.0);
        assert_eq!(card.next_due(), Some(at(150)));
        assert_eq!(card.outlived(at(149)), []);
        assert_eq!(card.outlived(at(150)).len(), 1);
        assert_eq!(card.prevented().len(), 1);
        let record = card.record("bearing-wear");
        assert_eq!((record.scored, record.covered, record.prevented), (1, 0, 1));
        assert_eq!(card.next_due(), None);
    }

    #[test]
    fn a_full_card_keeps_the_oldest_for_the_lead_time() {
        let mut card = Card::default();
        let prediction = |second: i64| {
            let text = format!(
                r#"{{"asset":"P-1","tag":"temp","failure_mode":"m","rul":{{"p10":1.0,"p50":2.0,
                "p90":3.0}},"as_of":{},"limit":1.0,"value":0.5,"method":"w","confidence":0.5,
                "probability_7_30_90_d":[0.0,0.0,0.0],"health":0.5,"actions":[],"skills":[],
                "repair_seconds":1.0,"anomaly":null}}"#,
                serde_json::to_string(&at(second)).unwrap()
            );
            serde_json::from_str::<Prediction>(&text).unwrap()
        };
        for second in 0..100 {
            card.announce(chain(second), &prediction(second), true);
        }
        assert_eq!(card.open.len(), OPEN_MAX);
        assert_eq!((card.open[0].as_of, card.open[31].as_of), (at(0), at(99)));
    }
}
