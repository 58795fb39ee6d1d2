//! The detection stage: readings become limit alarms and anomalies.
//!
//! Layers, from the surest to the subtlest:
//!
//! 1. limits that a person set ([`limits`](self)): alarms from the first good reading, owned here;
//! 2. sanity of each sensor: stuck, noisy, spiking, silent. A *sensor* fault, and the tag takes no
//!    further part in the judgement of its machine;
//! 3. the machine: how far the smoothed tags of an asset lie from where they were while it was
//!    learnt, in the metric of their covariance. One tag that departs alone in company is its
//!    sensor's doing, unless it has a limit;
//! 4. slow single series: surprise against the time of the day, calibrated on their own past.
//!
//! A departure is announced when it has lasted, once; again when it became much worse, as an event
//! whose cause is the first one; and its end is announced too. Where the defaults come from stands
//! at each constant and in `docs/detection.md`.
//!
//! Hot path: tables indexed by [`TagKey`](crate::domain::ids::TagKey), no allocation, no look-up
//! by name. Historical readings are learnt from and raise nothing.

mod announce;
mod asset;
mod channel;
mod cloud;
mod limits;
mod slow;
mod state;
#[cfg(test)]
mod tests;
mod tracks;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use self::asset::AssetWatch;
pub use self::asset::{Assessment, Learn};
use self::limits::{LimitWatch, SavedDelay};
use self::tracks::{Open, Track};
use super::{Chain, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::alarm::{Alarm, AlarmCause, AlarmState};
use crate::domain::command::{Command, CommandResult, Refusal, Verb};
use crate::domain::event::{Body, Event, Phase};
use crate::domain::ids::{AssetId, EventId, SourceId, TagId, TagKey};
use crate::domain::reading::{Reading, Reason};
use crate::domain::record::RecordKind;
use crate::domain::tag::{Plant, Tag};
use crate::domain::time::Now;

/// Ended alarms that are remembered, so that a late acknowledgement is understood. The oldest is
/// forgotten first.
const ENDED_MAX: usize = 256;
/// How often silent tags are looked for.
const SILENCE_EVERY: Duration = Duration::from_secs(10);
/// First byte of a snapshot.
const SNAPSHOT_VERSION: u8 = 2;

/// What a call hands down.
#[derive(Debug)]
struct Context<'c, 'o> {
    now: Now,
    out: &'c mut Outbox<'o>,
    /// Learn only, announce nothing.
    quiet: bool,
}

/// What a tag is to detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Nothing but its limits.
    None,
    /// A column of an asset.
    Channel { asset: usize, index: usize },
    /// Says whether an asset runs.
    Switch { asset: usize },
}

#[derive(Debug)]
struct Slot {
    limits: Option<Box<LimitWatch>>,
    role: Role,
    source: usize,
}

/// The detection stage.
#[derive(Debug)]
pub struct Detection {
    plant: Arc<Plant>,
    learn: Learn,
    slots: Vec<Option<Slot>>,
    assets: Vec<AssetWatch>,
    sources: Vec<SourceId>,
    /// When a source last brought a good value, on the monotonic clock, in seconds.
    heard: Vec<f64>,
    /// Alarms of an earlier run about tags that have no limit any more.
    orphans: Vec<Alarm>,
    /// Likewise departures of assets that are gone.
    lost: Vec<Open>,
    ended: VecDeque<Alarm>,
    limit_deadline: Option<Duration>,
    silence_check: Duration,
}

/// What is kept of an asset over restarts.
#[derive(Debug, Serialize, Deserialize)]
struct SavedAsset {
    id: AssetId,
    tags: Vec<SavedTag>,
    cloud: cloud::SavedCloud,
    phase: Phase,
    learnt: f64,
}

/// What is kept of a tag: what its values mean, and what was learnt of its sensor.
#[derive(Debug, Serialize, Deserialize)]
struct SavedTag {
    id: TagId,
    unit: String,
    scale: f64,
    offset: f64,
    sanity: channel::Sanity,
    slow: Option<slow::Slow>,
}

impl Detection {
    /// A stage for this configuration.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        let learn = Learn::Seconds(setting.config.detection.learn.as_secs_f64());
        Self::for_plant(Arc::clone(&setting.plant), learn)
    }

    /// A stage for these assets and tags, without a configuration (recordings).
    #[must_use]
    pub fn for_plant(plant: Arc<Plant>, learn: Learn) -> Self {
        let mut stage = Self {
            plant,
            learn,
            slots: Vec::new(),
            assets: Vec::new(),
            sources: Vec::new(),
            heard: Vec::new(),
            orphans: Vec::new(),
            lost: Vec::new(),
            ended: VecDeque::new(),
            limit_deadline: None,
            silence_check: Duration::ZERO,
        };
        stage.lay_out();
        stage
    }

    /// How an asset looks after its newest row; `None` for an unknown asset.
    #[must_use]
    pub fn assessment(&self, asset: &AssetId) -> Option<Assessment> {
        self.assets.iter().find(|watch| watch.id == *asset).map(|watch| watch.latest)
    }

    /// How far an asset is learnt.
    #[must_use]
    pub fn phase(&self, asset: &AssetId) -> Option<Phase> {
        self.assets.iter().find(|watch| watch.id == *asset).map(|watch| watch.phase)
    }

    /// Builds slots and watches from the plant.
    fn lay_out(&mut self) {
        let plant = Arc::clone(&self.plant);
        let mut columns: BTreeMap<&AssetId, Vec<Arc<Tag>>> = BTreeMap::new();
        for tag in plant.tags() {
            let tags = columns.entry(&tag.path.asset).or_default();
            if !tag.discrete {
                tags.push(Arc::clone(tag));
            }
        }
        self.assets = columns
            .iter()
            .map(|(id, tags)| {
                let level = plant.assets.get(*id).map_or(3, |asset| asset.criticality.level());
                AssetWatch::new((*id).clone(), level, tags, self.learn)
            })
            .collect();
        let place: BTreeMap<&AssetId, usize> =
            columns.keys().enumerate().map(|(i, id)| (*id, i)).collect();
        self.slots = (0..plant.key_bound()).map(|_| None).collect();
        for tag in plant.tags() {
            let asset = place[&tag.path.asset];
            let column = self.assets[asset].channels.iter().position(|c| c.tag.key == tag.key);
            let role = match column {
                Some(index) => Role::Channel { asset, index },
                None if state::is_run_switch(tag) => Role::Switch { asset },
                None => Role::None,
            };
            let source =
                self.sources.iter().position(|id| *id == tag.source).unwrap_or_else(|| {
                    self.sources.push(tag.source.clone());
                    self.heard.push(f64::NEG_INFINITY);
                    self.sources.len() - 1
                });
            let limits = LimitWatch::new(tag, plant.assets.get(&tag.path.asset)).map(Box::new);
            self.slots[tag.key.0 as usize] = Some(Slot { limits, role, source });
        }
    }

    fn limit_watches(&mut self) -> impl Iterator<Item = &mut LimitWatch> {
        self.slots.iter_mut().flatten().filter_map(|slot| slot.limits.as_deref_mut())
    }

    fn watch_of(&mut self, alarm: EventId) -> Option<&mut LimitWatch> {
        self.limit_watches().find(|watch| watch.alarm().is_some_and(|a| a.id == alarm))
    }

    fn renew_deadline(&mut self) {
        self.limit_deadline = self.limit_watches().filter_map(|watch| watch.deadline()).min();
    }

    /// Closes what an earlier run left about things that are gone.
    fn close_leftovers(&mut self, now: Now, out: &mut Outbox<'_>) {
        for mut alarm in std::mem::take(&mut self.orphans) {
            alarm.state = AlarmState::Cleared;
            alarm.cleared = Some(now.utc);
            alarm.closed_by = Some(CONFIGURATION.to_owned());
            out.save(limits::record(now, &alarm));
            let chain = Chain { cause: alarm.id, correlation: alarm.correlation };
            out.emit_from(chain, Body::AlarmCleared(alarm));
        }
        for open in std::mem::take(&mut self.lost) {
            let mut track = Track { open: Some(open), ..Track::default() };
            Context { now, out, quiet: false }.end(&mut track);
        }
    }

    fn load(&mut self, saved: SavedAsset) {
        let Some(watch) = self.assets.iter_mut().find(|watch| watch.id == saved.id) else {
            return;
        };
        let same = |tag: &Tag, old: &SavedTag| {
            tag.path.tag == old.id
                && tag.unit == old.unit
                && tag.scale.total_cmp(&old.scale).is_eq()
                && tag.offset.total_cmp(&old.offset).is_eq()
        };
        let unchanged = watch.channels.len() == saved.tags.len()
            && watch.channels.iter().zip(&saved.tags).all(|(c, old)| same(&c.tag, old));
        // The metric is about all columns together: it holds only while they are the same ones.
        if unchanged && let Some(cloud) = cloud::Cloud::load(saved.cloud, watch.channels.len()) {
            watch.cloud = cloud;
            watch.phase = saved.phase;
            watch.learnt = saved.learnt;
            watch.take_up();
            for (channel, old) in watch.channels.iter_mut().zip(saved.tags) {
                channel.sanity = old.sanity;
                channel.slow = old.slow.map(Box::new);
            }
        }
    }

    fn save(watch: &AssetWatch) -> SavedAsset {
        let tag = |channel: &channel::Channel| SavedTag {
            id: channel.tag.path.tag.clone(),
            unit: channel.tag.unit.clone(),
            scale: channel.tag.scale,
            offset: channel.tag.offset,
            sanity: channel.sanity.clone(),
            slow: channel.slow.as_deref().cloned(),
        };
        SavedAsset {
            id: watch.id.clone(),
            tags: watch.channels.iter().map(tag).collect(),
            cloud: watch.cloud.save(),
            phase: watch.phase,
            learnt: watch.learnt,
        }
    }

    /// Carries out a command about an alarm of ours.
    fn alarm_command(
        &mut self,
        now: Now,
        id: EventId,
        out: &mut Outbox<'_>,
        act: impl FnOnce(&mut LimitWatch, &mut Outbox<'_>) -> bool,
    ) -> Option<CommandResult> {
        if let Some(watch) = self.watch_of(id) {
            let done = act(watch, out);
            let alarm = watch.alarm().cloned();
            self.renew_deadline();
            let alarm = json!(alarm);
            return Some(if done {
                Ok(alarm)
            } else {
                Err(Refusal::Conflict {
                    detail: "the alarm is already in that state".to_owned(),
                    first: alarm,
                })
            });
        }
        let ended = self.ended.iter_mut().find(|alarm| alarm.id == id)?;
        // Its condition has ended before anybody said that they know: nothing is left to do.
        let _ = now;
        Some(Err(Refusal::Conflict {
            detail: "the alarm's condition has already ended".to_owned(),
            first: json!(ended),
        }))
    }

    /// Remembers alarms that ended in this call.
    fn remember_ended(&mut self, out: &Outbox<'_>) {
        for event in &out.events {
            if let Body::AlarmCleared(alarm) = &event.body {
                if self.ended.len() >= ENDED_MAX {
                    self.ended.pop_front();
                }
                self.ended.push_back(alarm.clone());
            }
        }
    }

    fn check_silence(&mut self, now: Now, out: &mut Outbox<'_>) {
        let mono = now.mono.as_secs_f64();
        let (sources, heard) = (&self.sources, &self.heard);
        let alive = |tag: &Tag| {
            let place = sources.iter().position(|source| *source == tag.source);
            let recent = tag.period.map_or(60.0, |period| 3.0 * period.as_secs_f64());
            place.is_some_and(|place| mono - heard[place] <= recent.max(10.0))
        };
        for watch in &mut self.assets {
            let mut ctx = Context { now, out, quiet: false };
            watch.check_silence(mono, now.utc.seconds(), alive, &mut ctx);
        }
    }

    fn reset(&mut self, now: Now, asset: &AssetId, out: &mut Outbox<'_>) {
        if let Some(watch) = self.assets.iter_mut().find(|watch| watch.id == *asset) {
            let mut ctx = Context { now, out, quiet: false };
            end_all(watch, &mut ctx);
            watch.relearn();
            let reason = "learning anew".to_owned();
            ctx.phase_changed(asset, Phase::Learning, vec![reason]);
        }
    }
}

/// Why something was closed that nobody ended.
const CONFIGURATION: &str = "configuration";

fn end_all(watch: &mut AssetWatch, ctx: &mut Context<'_, '_>) {
    ctx.end(&mut watch.track);
    watch.track = Track::default();
    for channel in &mut watch.channels {
        ctx.end(&mut channel.track);
        channel.track = Track::default();
        channel.alone = false;
        channel.dead = false;
    }
    watch.latest.anomalous = false;
}

impl Stage for Detection {
    fn name(&self) -> StageName {
        StageName::Detection
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        let unreadable = |what: &str, error: serde_json::Error| {
            StageError::new(format!("the record of {what} cannot be read: {error}"))
        };
        if let Some([SNAPSHOT_VERSION, body @ ..]) = saved.snapshot
            && let Ok(assets) = postcard::from_bytes::<Vec<SavedAsset>>(body)
        {
            for asset in assets {
                self.load(asset);
            }
        }
        for record in saved.of(RecordKind::Alarm) {
            let alarm: Alarm = record.read().map_err(|e| unreadable("an alarm", e))?;
            if !matches!(alarm.cause, AlarmCause::Limit { .. }) {
                continue;
            }
            let key = match (&alarm.asset, &alarm.tag) {
                (Some(asset), Some(tag)) => self.plant.find(asset.as_str(), tag.as_str()),
                _ => None,
            };
            match key.and_then(|key| self.limits_mut(key)) {
                Some(watch) => watch.restore_alarm(now, alarm),
                None => self.orphans.push(alarm),
            }
        }
        for record in saved.of(RecordKind::Delay) {
            let delay: SavedDelay = record.read().map_err(|e| unreadable("a delay", e))?;
            let key = self.plant.key(&delay.tag);
            if let Some(watch) = key.and_then(|key| self.limits_mut(key)) {
                watch.restore_delay(now, &delay);
            }
        }
        for record in saved.of(RecordKind::Departure) {
            let open: Open = record.read().map_err(|e| unreadable("a departure", e))?;
            match self.assets.iter_mut().find(|watch| watch.id == open.asset) {
                Some(watch) => watch.adopt(open),
                None => self.lost.push(open),
            }
        }
        self.renew_deadline();
        Ok(())
    }

    fn on_readings(
        &mut self,
        now: Now,
        readings: &[Reading],
        historical: bool,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.close_leftovers(now, out);
        let mono = now.mono.as_secs_f64();
        let mut timers = false;
        for reading in readings {
            if reading.quality.reason() == Some(Reason::Clock) {
                // A time that cannot be right must not become the asset's: until it came round,
                // nothing would be newer.
                continue;
            }
            let slot = self.slots.get_mut(reading.tag.0 as usize).and_then(Option::as_mut);
            let Some(slot) = slot else { continue };
            let good = reading.quality.is_good();
            if good && !historical {
                self.heard[slot.source] = mono;
                if let Some(watch) = &mut slot.limits {
                    let before = watch.deadline();
                    watch.on_value(now, reading.value, reading.time, out);
                    timers |= watch.deadline() != before;
                }
            }
            match slot.role {
                Role::Channel { asset, index } => {
                    let mut ctx = Context { now, out, quiet: historical };
                    let value = good.then_some(reading.value);
                    let time = reading.time.seconds();
                    self.assets[asset].on_reading(index, value, time, &mut ctx);
                }
                Role::Switch { asset } if good => self.assets[asset].running.switch(reading.value),
                Role::Switch { .. } | Role::None => {}
            }
        }
        if timers {
            self.renew_deadline();
        }
        if !out.events.is_empty() {
            self.remember_ended(out);
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.close_leftovers(now, out);
        if let Body::BaselineReset { asset, .. } = &event.body {
            // The metric is about all tags together: one of them new makes all of it new.
            self.reset(now, asset, out);
        }
        Ok(())
    }

    fn on_command(
        &mut self,
        now: Now,
        command: &Command,
        out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        match &command.verb {
            Verb::Acknowledge { alarm } => self.alarm_command(now, *alarm, out, |watch, out| {
                watch.acknowledge(now, &command.by, out)
            }),
            Verb::Shelve { alarm, span, .. } => {
                self.alarm_command(now, *alarm, out, |watch, out| {
                    watch.shelve(now, *span, out);
                    true
                })
            }
            Verb::Unshelve { alarm } => {
                self.alarm_command(now, *alarm, out, |watch, out| watch.unshelve(now, out))
            }
            Verb::Relearn { asset } => {
                if !self.assets.iter().any(|watch| watch.id == *asset) {
                    return Some(Err(Refusal::NotFound(format!("there is no asset {asset}"))));
                }
                let reason = format!("asked for by {}", command.by);
                let body = Body::BaselineReset { asset: asset.clone(), tags: vec![], reason };
                let id = out.emit_first(body);
                Some(Ok(json!({ "event": id })))
            }
            Verb::Decide { .. }
            | Verb::CreateOrder { .. }
            | Verb::Complete { .. }
            | Verb::Reschedule { .. }
            | Verb::Cancel { .. }
            | Verb::Feedback { .. }
            | Verb::Train { .. }
            | Verb::Promote { .. }
            | Verb::Rollback { .. }
            | Verb::Pin { .. }
            | Verb::ImportModel(_)
            | Verb::Retry { .. } => None,
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        if !self.orphans.is_empty() || !self.lost.is_empty() {
            return Some(Duration::ZERO);
        }
        Some(self.limit_deadline.map_or(self.silence_check, |at| at.min(self.silence_check)))
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        self.close_leftovers(now, out);
        if self.limit_deadline.is_some_and(|at| at <= now.mono) {
            for watch in self.limit_watches() {
                watch.tick(now, out);
            }
            self.renew_deadline();
        }
        if self.silence_check <= now.mono {
            self.silence_check = now.mono + SILENCE_EVERY;
            self.check_silence(now, out);
        }
        self.remember_ended(out);
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        let learn = Learn::Seconds(setting.config.detection.learn.as_secs_f64());
        self.take_plant(now, Arc::clone(&setting.plant), learn, out);
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        let saved: Vec<SavedAsset> = self.assets.iter().map(Self::save).collect();
        let mut bytes = vec![SNAPSHOT_VERSION];
        bytes.extend(postcard::to_allocvec(&saved).expect("plain data has a postcard form"));
        Some(bytes)
    }
}

impl Detection {
    fn limits_mut(&mut self, key: TagKey) -> Option<&mut LimitWatch> {
        self.slots.get_mut(key.0 as usize)?.as_mut()?.limits.as_deref_mut()
    }

    /// Lays out anew for other assets and tags, keeping what is about unchanged ones.
    fn take_plant(&mut self, now: Now, plant: Arc<Plant>, learn: Learn, out: &mut Outbox<'_>) {
        self.close_leftovers(now, out);
        let old_slots = std::mem::take(&mut self.slots);
        let old_assets = std::mem::take(&mut self.assets);
        let old_plant = std::mem::replace(&mut self.plant, plant);
        self.learn = learn;
        self.lay_out();
        let path_of = |index: usize| {
            let key = u32::try_from(index).ok().map(TagKey)?;
            old_plant.tag(key).map(|tag| tag.path.clone())
        };
        for (index, slot) in old_slots.into_iter().enumerate() {
            let Some(mut old) = slot.and_then(|slot| slot.limits) else { continue };
            let key = path_of(index).and_then(|path| self.plant.key(&path));
            match key.and_then(|key| self.limits_mut(key)) {
                Some(watch) => watch.inherit(*old),
                None => old.clear(now, Some(CONFIGURATION), out),
            }
        }
        for mut old in old_assets {
            let unchanged = self.assets.iter_mut().find(|watch| {
                watch.id == old.id
                    && watch.channels.len() == old.channels.len()
                    && watch.channels.iter().zip(&old.channels).all(|(a, b)| same_meaning(a, b))
            });
            match unchanged {
                Some(watch) => {
                    for (channel, new) in old.channels.iter_mut().zip(&watch.channels) {
                        channel.tag = Arc::clone(&new.tag);
                    }
                    old.criticality = watch.criticality;
                    old.set_learn(learn);
                    *watch = old;
                }
                None => {
                    let mut ctx = Context { now, out, quiet: false };
                    end_all(&mut old, &mut ctx);
                }
            }
        }
        self.renew_deadline();
        self.remember_ended(out);
    }
}

/// Whether two channels measure the same thing in the same unit.
fn same_meaning(a: &channel::Channel, b: &channel::Channel) -> bool {
    a.tag.path == b.tag.path
        && a.tag.unit == b.tag.unit
        && a.tag.scale.total_cmp(&b.tag.scale).is_eq()
        && a.tag.offset.total_cmp(&b.tag.offset).is_eq()
        && a.tag.quantity == b.tag.quantity
}
