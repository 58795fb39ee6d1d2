//! Reporting: what subscribers see of each asset, and the daily summary.
//!
//! The **state** of an asset (phase, health, worst alarm, order, remaining life) is announced when
//! it changes, at most once a second per asset; changes in between are merged.
//!
//! The **daily summary** is made at 06:00 of the gateway's time zone from what was counted since
//! the one before, and from nothing else. Events are counted in a row written in the commit of the
//! event itself, so they are exact, also over a crash. Readings are counted in memory and
//! snapshotted (hourly, and at a clean stop): a crash can cost up to an hour of their counts, never
//! of the readings. A summary that fell into a time when the daemon was off is made at the next
//! start and says which period it covers.

mod board;
mod day;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::ToSpan;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::alarm::Alarm;
use crate::domain::event::{Body, Event, Phase};
use crate::domain::ids::{AssetId, EventId};
use crate::domain::reading::Reading;
use crate::domain::record::{Record, RecordKind};
use crate::domain::tag::Plant;
use crate::domain::time::{Now, Timestamp};
use crate::domain::work_order::WorkOrder;
use board::{Board, Row};
use day::{Day, Readings};

/// Hour of the daily summary by the clock on the wall: it lies ready when the early shift begins.
const SUMMARY_HOUR: i8 = 6;

/// The next summary is counted off in pieces of at most this length, so that a clock that is set
/// meanwhile is noticed.
const CLOCK_CHECK_EVERY: Duration = Duration::from_secs(900);

/// Identity of the record of the running period.
const RUNNING: &str = "running";

/// First byte of the snapshot; another one makes it unreadable for this version.
const SNAPSHOT_VERSION: u8 = 1;

/// The stage.
#[derive(Debug)]
pub struct Reporting {
    zone: TimeZone,
    board: Board,
    day: Day,
    /// When the period began on this run's clock; none when it began in an earlier run.
    began: Option<Duration>,
    /// The period began by a clock that was not to be believed.
    guessed: bool,
    counter: Counter,
    /// When each open order was first announced.
    orders: BTreeMap<EventId, Timestamp>,
    look_at: Duration,
    /// Announced assets that the configuration no longer had at the start.
    strays: Vec<Row>,
}

/// Counts readings by asset; an index per tag keeps names off the hot path.
#[derive(Debug, Default)]
struct Counter {
    assets: Vec<(AssetId, Readings)>,
    of_tag: Vec<Option<usize>>,
}

impl Counter {
    /// Takes up the tags of a configuration; counts of assets that are gone stay until reported.
    fn configure(&mut self, plant: &Plant) {
        let before = self.counts();
        let there = plant.assets.keys().map(|asset| (asset, Readings::default()));
        let mut counts: BTreeMap<&AssetId, Readings> = there.collect();
        counts.extend(before.iter().filter(|(_, count)| count.total() > 0).map(|(a, c)| (a, *c)));
        self.assets = counts.into_iter().map(|(asset, count)| (asset.clone(), count)).collect();
        self.of_tag = vec![None; plant.key_bound()];
        for tag in plant.tags() {
            let index = self.assets.binary_search_by(|(asset, _)| asset.cmp(&tag.path.asset));
            self.of_tag[tag.key.0 as usize] = index.ok();
        }
    }

    fn counts(&self) -> BTreeMap<AssetId, Readings> {
        self.assets.iter().cloned().collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    from: Timestamp,
    readings: Vec<(AssetId, Readings)>,
}

impl Reporting {
    /// A stage that has counted nothing.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        let mut board = Board::default();
        board.configure(setting.plant.assets.keys());
        let mut counter = Counter::default();
        counter.configure(&setting.plant);
        Self {
            zone: setting.config.gateway.time_zone.clone(),
            board,
            day: Day::default(),
            began: None,
            guessed: false,
            counter,
            orders: BTreeMap::new(),
            look_at: Duration::ZERO,
            strays: Vec::new(),
        }
    }

    fn begin_day(&mut self, now: Now) {
        self.day = Day::beginning(now.utc);
        self.began = Some(now.mono);
        self.guessed = !now.trusted;
        for (_, count) in &mut self.counter.assets {
            *count = Readings::default();
        }
    }

    /// Corrects the beginning of the period when the clock was set since.
    fn follow_clock(&mut self, now: Now, out: &mut Outbox<'_>) {
        let before = self.day.from;
        if self.guessed && now.trusted {
            self.guessed = false;
            if let Some(began) = self.began {
                self.day.from = now.utc.before(now.mono.saturating_sub(began));
            }
        }
        // A clock that was set back. One that nobody has set yet proves nothing.
        if now.trusted {
            self.day.from = self.day.from.min(now.utc);
        }
        if self.day.from != before {
            self.save_day(out);
        }
    }

    fn save_day(&self, out: &mut Outbox<'_>) {
        out.save(
            Record::new(RecordKind::Report, RUNNING, self.day.from, &self.day)
                .in_state(RUNNING, true),
        );
    }

    fn summarise(&mut self, now: Now, out: &mut Outbox<'_>) {
        let from = self.day.from;
        let figures = self.day.figures(now.utc, &self.counter.counts());
        let kind = "daily".to_owned();
        let id = out.emit_first(Body::ReportMade { kind: kind.clone(), figures: figures.clone() });
        out.save(Record::new(RecordKind::Report, id, from, &figures).in_state(&kind, false));
        self.begin_day(now);
        self.save_day(out);
    }

    fn set_look(&mut self, now: Now) {
        let left = summary_after(self.day.from, &self.zone).since(now.utc);
        self.look_at = now.mono.saturating_add(left.min(CLOCK_CHECK_EVERY));
    }

    fn announce(&mut self, now: Now, out: &mut Outbox<'_>) {
        for (row, chain) in self.board.announce(now) {
            out.save(asset_record(&row, now.utc, true));
            let body = Body::AssetStateChanged(row.state);
            match chain {
                Some(chain) => out.emit_from(chain, body),
                None => out.emit_first(body),
            };
        }
    }
}

fn asset_record(row: &Row, time: Timestamp, open: bool) -> Record {
    let phase = match row.state.phase {
        Phase::Learning => "learning",
        Phase::Provisional => "provisional",
        Phase::Armed => "armed",
    };
    Record::new(RecordKind::AssetState, row.state.asset.as_str(), time, row)
        .about(&row.state.asset)
        .in_state(if open { phase } else { "configuration" }, open)
}

/// The first summary time after `from`.
fn summary_after(from: Timestamp, zone: &TimeZone) -> Timestamp {
    let mut date = zone.to_datetime(from.calendar()).date();
    // The day may have to be the next one; clock changes never move six o'clock by a day.
    for _ in 0..2 {
        let civil = date.at(SUMMARY_HOUR, 0, 0, 0);
        if let Ok(moment) = zone.to_ambiguous_timestamp(civil).compatible() {
            let moment = Timestamp::from_micros(moment.as_microsecond());
            if moment > from {
                return moment;
            }
        }
        date = date.saturating_add(1.day());
    }
    from.after(Duration::from_secs(86_400))
}

impl Stage for Reporting {
    fn name(&self) -> StageName {
        StageName::Reporting
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        self.begin_day(now);
        let unreadable = |record: &Record, error| {
            let kind = record.kind.as_str();
            StageError::new(format!("{kind} {} cannot be read: {error}", record.id))
        };
        let snapshot = saved.snapshot.and_then(|bytes| {
            let (version, bytes) = bytes.split_first()?;
            (*version == SNAPSHOT_VERSION).then(|| postcard::from_bytes::<Snapshot>(bytes).ok())?
        });
        let running = saved.of(RecordKind::Report).find(|record| record.id == RUNNING);
        if let Some(record) = running {
            self.day = record.read().map_err(|error| unreadable(record, error))?;
            self.began = None;
        }
        if let Some(snapshot) = snapshot {
            if running.is_none() {
                self.day.from = snapshot.from;
                self.began = None;
            }
            // A snapshot from before the newest summary was counted there.
            if snapshot.from == self.day.from {
                for (asset, count) in snapshot.readings {
                    match self.counter.assets.binary_search_by(|(known, _)| known.cmp(&asset)) {
                        Ok(index) => self.counter.assets[index].1 = count,
                        // Its tags are gone; its count stays until reported.
                        Err(index) => {
                            self.counter.assets.insert(index, (asset, count));
                            for of_tag in self.counter.of_tag.iter_mut().flatten() {
                                *of_tag += usize::from(*of_tag >= index);
                            }
                        }
                    }
                }
            }
        }
        for record in saved.of(RecordKind::AssetState) {
            let row = record.read().map_err(|error| unreadable(record, error))?;
            self.strays.extend(self.board.restore(row));
        }
        // These belong to other stages; whatever has another form is left to its owner to report.
        let alarms = saved.of(RecordKind::Alarm).filter_map(|record| record.read::<Alarm>().ok());
        for alarm in alarms {
            self.board.restore_alarm(&alarm);
        }
        for record in saved.of(RecordKind::WorkOrder) {
            if let Ok(order) = record.read::<WorkOrder>() {
                self.board.restore_order(&order);
                self.orders.insert(order.id, record.time);
            }
        }
        self.set_look(now);
        Ok(())
    }

    fn on_readings(
        &mut self,
        _now: Now,
        readings: &[Reading],
        historical: bool,
        _out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        // Imports and refills are no part of the day: the latter were counted when they came.
        if historical {
            return Ok(());
        }
        for reading in readings {
            let index = self.counter.of_tag.get(reading.tag.0 as usize).copied().flatten();
            if let Some(index) = index {
                self.counter.assets[index].1.add(reading.quality);
            }
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.follow_clock(now, out);
        self.board.take(event);
        if let Body::WorkOrderPlanned(order) | Body::WorkOrderUnschedulable(order) = &event.body {
            self.orders.entry(order.id).or_insert(event.time);
        }
        if self.day.count(event, |order| self.orders.get(&order).copied()) {
            self.save_day(out);
        }
        if let Body::WorkOrderCompleted(order, _)
        | Body::WorkOrderFailed(order, _)
        | Body::WorkOrderCancelled(order) = &event.body
        {
            self.orders.remove(&order.id);
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Duration> {
        [Some(self.look_at), self.board.due()].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        for row in std::mem::take(&mut self.strays) {
            out.save(asset_record(&row, now.utc, false));
        }
        self.announce(now, out);
        if self.look_at <= now.mono {
            self.follow_clock(now, out);
            if summary_after(self.day.from, &self.zone) <= now.utc {
                self.summarise(now, out);
            }
            self.set_look(now);
        }
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.zone = setting.config.gateway.time_zone.clone();
        self.counter.configure(&setting.plant);
        for row in self.board.configure(setting.plant.assets.keys()) {
            out.save(asset_record(&row, now.utc, false));
        }
        self.set_look(now);
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        let readings = self.counter.assets.iter().filter(|(_, count)| count.total() > 0);
        let snapshot = Snapshot { from: self.day.from, readings: readings.cloned().collect() };
        let bytes = postcard::to_extend(&snapshot, vec![SNAPSHOT_VERSION]);
        Some(bytes.expect("a snapshot of counts can always be written"))
    }
}
