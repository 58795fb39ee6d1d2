//! The engine: one owner of all stages, driven in turns that are gathered into commits.
//!
//! ```text
//!  Input ──▶ turn: drain the stages in pipeline order ──▶ pending ──▶ commit ──▶ Released
//!                     │                                      ▲            (events, answers,
//!                     └─ readings, at once, to the ring      └ records     effects, in order)
//! ```
//!
//! A turn takes one input and [`Now`] and runs every stage until none has work. What it brought
//! about waits in `pending`. [`Engine::commit`] writes it in one transaction of `state.db`; only
//! then does it leave the engine as [`Released`]. Readings go to the ring at once: a ring that is
//! ahead of the state is caught up with at the next start, because every commit records the arrival
//! number the stages have seen.
//!
//! The engine does no I/O but the commit and reads no clock, so the simulation drives the very same
//! code. It leaves to the runtime: threads, sockets, delivering messages, running jobs.

mod era;
mod history;
mod models;
mod pending;
mod slot;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::agents::{Acquire, Effect, IdSource, Setting, Stage, StageName};
use crate::config::Config;
use crate::domain::command::{Command, CommandResult, Refusal, Verb};
use crate::domain::event::{Body, Event, JobSpec};
use crate::domain::ids::{Arrival, EventId};
use crate::domain::reading::{Ack, RawBatch, Reading};
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Now;
use crate::port::{Committed, EngineStatus, Input, LanePosition, StageStatus};
use crate::store::StoreError;
use crate::store::ring_thread::RingBatch;
use crate::store::state::StateDb;

use pending::Pending;
use slot::Slot;

/// How often what the stages learnt is written, besides a clean stop and an asset being armed.
pub const SNAPSHOT_EVERY: Duration = Duration::from_secs(3600);
/// How often a copy is taken in memory, from which a stage that failed is rebuilt.
const KEEPSAKE_EVERY: Duration = Duration::from_secs(60);
/// How often retention of the journal runs.
const RETAIN_EVERY: Duration = Duration::from_secs(3600);
/// A job that has not answered by then counts as failed.
const JOB_PATIENCE: Duration = Duration::from_secs(300);
/// The same of one that learns a model, and of one that an earlier run left.
const TRAINING_PATIENCE: Duration = Duration::from_secs(3600);
/// A stage that asks for the same deadline again right after it passed is asked again only then.
const DEADLINE_REST: Duration = Duration::from_millis(100);

/// Makes a stage.
pub type Make<S> = fn(&Setting) -> Box<S>;

/// Stands for the arrival number of a reading that is not stored.
const UNSTORED: Arrival = Arrival(u64::MAX);

/// How the stages are made; a failed one is made anew.
pub struct Factories {
    /// The first stage.
    pub acquisition: Make<dyn Acquire>,
    /// The other ten, in pipeline order.
    pub others: Vec<Make<dyn Stage>>,
}

/// What the engine finds at a start.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Last arrival number in the ring.
    pub ring_last: Arrival,
    /// Whether `state.db` was made anew: the ring's readings were then judged by an earlier one.
    pub fresh: bool,
}

/// What a commit sets free.
#[derive(Debug, Default)]
pub struct Released {
    /// Events with their places in the journal, in order.
    pub events: Vec<Arc<Committed>>,
    /// What the runtime has to carry out.
    pub effects: Vec<Effect>,
}

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed.
    #[error("reading what an earlier run left behind")]
    Store(#[source] StoreError),
    /// A stage cannot take up what it had promised.
    #[error("stage {stage} cannot take up its records: {what}")]
    Restore {
        /// Which stage.
        stage: &'static str,
        /// Why.
        what: String,
    },
}

/// The engine; see the module.
pub struct Engine {
    setting: Setting,
    store: StateDb,
    ids: IdSource,
    slots: Vec<Slot>,
    /// All open records as the turns so far left them: what stages are rebuilt from.
    mirror: BTreeMap<(RecordKind, String), Record>,
    pending: Pending,
    /// The next reading's number.
    next_arrival: u64,
    seen: Arrival,
    /// Readings for the ring, taken by [`Self::take_readings`].
    outgoing: VecDeque<RingBatch>,
    /// Scratch for judged readings; its contents move out with every batch.
    judged: Vec<Reading>,
    /// When each open job is given up.
    jobs: BTreeMap<EventId, Duration>,
    /// Bytes of the model that this turn brings, until a record takes them.
    parcel: Option<Vec<u8>>,
    lanes: BTreeMap<crate::port::Lane, LanePosition>,
    upstream_lacks: u64,
    last_row: u64,
    next_keepsake: Duration,
    next_snapshot: Duration,
    next_retain: Duration,
    commits: u64,
    committed_events: u64,
    refilling: bool,
    /// What is to be added to arrival times that were taken before the clock was set, and until
    /// when such may come.
    step: Option<(i64, Duration)>,
    started: Now,
}

impl Engine {
    /// Makes the stages and hands back to them what an earlier run left behind. The caller then
    /// feeds [`Self::replay`] and carries out [`Self::unfinished`].
    ///
    /// `seed` makes ids.
    ///
    /// # Errors
    /// When the store cannot be read, or a stage cannot read its records.
    pub fn start(
        setting: Setting,
        store: StateDb,
        factories: &Factories,
        start: Start,
        seed: u64,
        now: Now,
    ) -> Result<Self, StartError> {
        let records = store.open_records().map_err(StartError::Store)?;
        let sequences = store.sequences().map_err(StartError::Store)?;
        let seen = match start.fresh {
            true => start.ring_last,
            false => store.seen().map_err(StartError::Store)?,
        };
        let mut slots = slot::make(&setting, factories);
        for slot in &mut slots {
            if let Some(stamped) = store.snapshot(slot.name.as_str()).map_err(StartError::Store)? {
                let (at, bytes) = history::unstamp(&stamped);
                slot.saved_at = at;
                slot.saved = Some(bytes.to_vec());
            }
            slot.restore(now, &records).map_err(|error| StartError::Restore {
                stage: slot.name.as_str(),
                what: error.what,
            })?;
        }
        let jobs = records
            .iter()
            .filter(|record| record.kind == RecordKind::Job)
            .filter_map(|record| EventId::parse(&record.id).ok())
            .map(|job| (job, now.mono + TRAINING_PATIENCE))
            .collect();
        let mut lanes = BTreeMap::new();
        for lane in [crate::port::Lane::Events, crate::port::Lane::Readings] {
            lanes.insert(lane, store.lane(lane).map_err(StartError::Store)?);
        }
        let last_row = store.last_row().map_err(StartError::Store)?;
        let upstream_lacks = lanes[&crate::port::Lane::Events].below;
        Ok(Self {
            mirror: records
                .into_iter()
                .map(|record| ((record.kind, record.id.clone()), record))
                .collect(),
            setting,
            store,
            ids: IdSource::new(seed),
            slots,
            pending: Pending::new(sequences),
            next_arrival: seen.0.max(start.ring_last.0) + 1,
            seen,
            outgoing: VecDeque::new(),
            judged: Vec::new(),
            jobs,
            parcel: None,
            lanes,
            upstream_lacks,
            last_row,
            next_keepsake: now.mono + KEEPSAKE_EVERY,
            next_snapshot: now.mono + SNAPSHOT_EVERY,
            next_retain: now.mono + RETAIN_EVERY,
            commits: 0,
            committed_events: 0,
            refilling: false,
            step: None,
            started: now,
        })
    }

    /// Lets every stage compare what it took up with the configuration: what belonged to assets
    /// that are gone is closed. Called after the start and with a new configuration.
    pub fn settle(&mut self, now: Now) {
        let setting = self.setting.clone();
        for index in 0..self.slots.len() {
            let settled =
                self.guarded(now, index, None, |stage, out| stage.configure(now, &setting, out));
            if let Ok(produced) = settled {
                self.drain(now, produced);
            }
        }
    }

    /// Effects of an earlier run that never answered: its open jobs.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Effect> {
        let open = self.mirror.values().filter(|record| record.kind == RecordKind::Job);
        open.filter_map(|record| {
            let job = EventId::parse(&record.id).ok()?;
            let spec = serde_json::from_value(record.body["spec"].clone()).ok()?;
            Some(Effect::Run { job, spec })
        })
        .collect()
    }

    /// One turn: takes an input and runs every stage until none has work.
    pub fn turn(&mut self, now: Now, input: Input) {
        match input {
            Input::Readings(batch) => self.take_raw(now, batch),
            Input::Command { mut command, reply } => {
                if let Verb::ImportModel(parcel) = &mut command.verb {
                    self.parcel = Some(std::mem::take(&mut parcel.content));
                }
                self.take_command(now, &command, reply);
                self.parcel = None;
            }
            Input::JobFinished { job, spec, result } => self.finish_job(now, job, spec, result),
            Input::ModelLearnt { job, spec, facts, bytes } => {
                self.parcel = Some(bytes);
                self.finish_job(now, job, spec, Ok(facts));
                self.parcel = None;
            }
            Input::Delivered(delivery) => {
                let index = Self::index(StageName::Notification);
                let produced = self
                    .guarded(now, index, None, |stage, out| stage.on_delivery(now, &delivery, out));
                if let Ok(produced) = produced {
                    self.drain(now, produced);
                }
            }
            Input::Condition(report) => {
                let first = self.first(
                    now,
                    Body::Condition {
                        condition: report.condition,
                        subject: report.subject,
                        active: report.active,
                        severity: report.severity,
                        message: report.message,
                    },
                );
                self.drain_event(now, first);
            }
            Input::Gap(gap) => {
                let first = self.first(
                    now,
                    Body::Gap {
                        lane: gap.lane,
                        from: gap.from,
                        to: gap.to,
                        count: gap.count,
                        reason: gap.reason,
                    },
                );
                self.drain_event(now, first);
            }
            Input::Lane(position) => {
                if position.lane == crate::port::Lane::Events {
                    self.upstream_lacks = position.below;
                }
                self.lanes.insert(position.lane, position.clone());
                self.pending.lane(position);
            }
            Input::Note(note) => {
                let body = note.body.as_ref().unwrap_or(&Value::Null);
                let record = Record::new(RecordKind::SourceNote, note.id, now.utc, body);
                let state = if note.body.is_some() { "known" } else { "gone" };
                self.keep(record.in_state(state, note.body.is_some()));
            }
            Input::Configure { config, reply } => self.configure(now, &config, reply),
            Input::Stop { done } => {
                self.save_snapshots();
                self.pending.wait(done);
            }
        }
    }

    /// A turn for whatever deadlines have passed. Cheap when none has.
    pub fn turn_deadlines(&mut self, now: Now) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let due = slot.wakes().is_some_and(|at| at <= now.mono);
            if !due || !slot.on {
                continue;
            }
            let produced = self.guarded(now, index, None, |stage, out| stage.on_deadline(now, out));
            let slot = &mut self.slots[index];
            // A stage that asks for the past again must not keep the engine turning.
            slot.not_before = now.mono + DEADLINE_REST;
            if let Ok(produced) = produced {
                self.drain(now, produced);
            }
        }
        let late: Vec<EventId> = self
            .jobs
            .iter()
            .filter(|(_, until)| **until <= now.mono)
            .map(|(job, _)| *job)
            .collect();
        for job in late {
            if let Some(spec) = self.job_spec(job) {
                self.finish_job(now, job, spec, Err("the job did not answer in time".to_owned()));
            } else {
                self.jobs.remove(&job);
            }
        }
        if self.next_keepsake <= now.mono {
            self.next_keepsake = now.mono + KEEPSAKE_EVERY;
            for slot in &mut self.slots {
                slot.keepsake();
            }
        }
        if self.next_snapshot <= now.mono {
            self.next_snapshot = now.mono + SNAPSHOT_EVERY;
            self.save_snapshots();
        }
    }

    /// When [`Self::turn_deadlines`] wants to be called, on the monotonic clock.
    #[must_use]
    pub fn next_deadline(&self) -> Duration {
        let stages = self.slots.iter().filter(|slot| slot.on).filter_map(Slot::wakes);
        let jobs = self.jobs.values().copied();
        stages
            .chain(jobs)
            .chain([self.next_keepsake, self.next_snapshot])
            .min()
            .unwrap_or(self.next_keepsake)
    }

    /// Whether something waits that must be committed at once.
    #[must_use]
    pub fn must_commit(&self) -> bool {
        self.pending.urgent()
    }

    /// Whether anything at all waits for a commit.
    #[must_use]
    pub fn has_uncommitted(&self) -> bool {
        self.pending.any() || self.pending.seen != Some(self.seen)
    }

    /// Writes all that waits in one transaction and sets it free.
    ///
    /// # Errors
    /// When the store does not commit: everything goes on waiting, and alarms can be had from
    /// [`Self::take_urgent`].
    pub fn commit(&mut self, now: Now) -> Result<Released, StoreError> {
        self.pending.utc = Some(now.utc);
        let commit = self.pending.transaction(self.seen);
        let rows = match self.store.commit(&commit) {
            Ok(rows) => rows,
            Err(error) => {
                self.pending.give_back(commit);
                self.pending.durable = false;
                return Err(error);
            }
        };
        self.commits += 1;
        self.committed_events += rows.len() as u64;
        self.last_row = rows.last().copied().unwrap_or(self.last_row);
        let released = self.pending.release(commit, &rows);
        self.retain(now);
        Ok(released)
    }

    /// Alarms that must be heard although the store does not commit; each is handed out once.
    pub fn take_urgent(&mut self) -> Vec<Committed> {
        self.pending.take_urgent()
    }

    /// Readings for the ring, oldest first.
    pub fn take_readings(&mut self) -> Option<RingBatch> {
        self.outgoing.pop_front()
    }

    /// Last reading the stages have seen.
    #[must_use]
    pub fn seen(&self) -> Arrival {
        self.seen
    }

    /// How far upstream has acknowledged a lane.
    ///
    /// # Panics
    /// Never: both lanes are read at the start.
    #[must_use]
    pub fn lane(&self, lane: crate::port::Lane) -> LanePosition {
        self.lanes[&lane].clone()
    }

    /// The clocks it was started with: those of the era both files were opened in.
    #[must_use]
    pub const fn started(&self) -> Now {
        self.started
    }

    /// The last row of the journal.
    #[must_use]
    pub const fn last_row(&self) -> u64 {
        self.last_row
    }

    /// The store, for reading.
    #[must_use]
    pub const fn store(&self) -> &StateDb {
        &self.store
    }

    /// The store, for changing its bounds.
    pub const fn store_mut(&mut self) -> &mut StateDb {
        &mut self.store
    }

    /// All open records, as the turns so far left them.
    pub fn open_records(&self) -> impl Iterator<Item = &Record> {
        self.mirror.values()
    }

    /// The state of the stages.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        EngineStatus {
            stages: self
                .slots
                .iter()
                .map(|slot| StageStatus {
                    name: slot.name.as_str(),
                    state: if slot.on { "running" } else { "off" },
                    handled: slot.handled,
                    failures: slot.failures,
                    last_error: slot.last_error.clone(),
                })
                .collect(),
            seen: self.seen,
            durable: self.pending.durable,
            events: self.committed_events,
            commits: self.commits,
            refilling: self.refilling,
        }
    }

    /// Writes that the stop was clean and closes the store.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.store.mark_clean_stop()
    }

    fn take_raw(&mut self, now: Now, mut batch: RawBatch) {
        self.redate(now, &mut batch);
        let mut judged = std::mem::take(&mut self.judged);
        judged.clear();
        if self.slots[0].judge(now, &batch, &mut judged).is_err() {
            // Without a judgement there is no reading; the sender keeps its message and repeats.
            self.judged = judged;
            return;
        }
        let mut own = Vec::new();
        let mut left_out = 0;
        let marks = self.slots[0].marks();
        for (at, reading) in judged.iter_mut().enumerate() {
            let mark = marks.get(at).copied().unwrap_or_default();
            if mark.stored {
                reading.arrival = Arrival(self.next_arrival);
                self.next_arrival += 1;
                self.seen = reading.arrival;
                if mark.own_time && !now.trusted {
                    own.push((reading.arrival.0, reading.tag));
                }
            } else {
                // It has no number of its own: the ring never hears of it.
                reading.arrival = UNSTORED;
                left_out += 1;
            }
        }
        let mut bursts = self.slots[0].take_bursts();
        bursts.retain_mut(|burst| {
            let of = |reading: &&Reading| reading.tag == burst.tag && reading.time == burst.time;
            let Some(reading) = judged.iter().find(of) else { return false };
            (burst.arrival, burst.quality) = (reading.arrival, reading.quality);
            true
        });
        self.feed(now, &judged, batch.historical);
        if left_out > 0 {
            judged.retain(|reading| reading.arrival != UNSTORED);
        }
        let acks: Vec<Ack> = batch.ack.into_iter().collect();
        if !judged.is_empty() || !acks.is_empty() {
            let batch = RingBatch { readings: judged, bursts, acks, own, era: None };
            self.outgoing.push_back(batch);
        }
    }

    fn take_command(&mut self, now: Now, command: &Command, reply: oneshot::Sender<CommandResult>) {
        if !self.pending.durable {
            let refusal = Refusal::Unavailable(
                "the store does not take anything; nothing would be durable".to_owned(),
            );
            reply.send(Err(refusal)).ok();
            return;
        }
        let result = if let Verb::Retry { event } = &command.verb {
            self.retry(now, *event)
        } else {
            self.ask_stages(now, command)
        };
        if result.is_ok() {
            let taken = self.first(now, Body::CommandTaken(command.clone()));
            self.drain_event(now, taken);
        }
        self.pending.answer(reply, result);
    }

    fn ask_stages(&mut self, now: Now, command: &Command) -> CommandResult {
        for index in 0..self.slots.len() {
            let mut answer = None;
            let produced = self.guarded(now, index, None, |stage, out| {
                answer = stage.on_command(now, command, out);
                Ok(())
            });
            match (produced, answer) {
                (Ok(produced), Some(answer)) => {
                    self.drain(now, produced);
                    return answer;
                }
                (Ok(_), None) => {}
                (Err(error), _) => {
                    let name = self.slots[index].name.as_str();
                    return Err(Refusal::Unavailable(format!(
                        "stage {name} failed on the command: {error}"
                    )));
                }
            }
        }
        Err(Refusal::NotFound(format!("nothing here answers to {}", verb_target(&command.verb))))
    }

    fn configure(&mut self, now: Now, config: &Arc<Config>, reply: oneshot::Sender<CommandResult>) {
        let paths: Vec<_> = config.tags().map(|(_, tag, _)| tag.path.clone()).collect();
        let keys = match self.store.tag_keys(&paths) {
            Ok(keys) => keys,
            Err(error) => {
                let refusal = Refusal::Unavailable(format!("numbering the tags failed: {error}"));
                reply.send(Err(refusal)).ok();
                return;
            }
        };
        let setting = Setting { plant: Arc::new(config.plant(&keys)), config: config.clone() };
        let kept = &setting.plant.assets;
        let old = &self.setting.plant.assets;
        let removed = old.keys().filter(|asset| !kept.contains_key(*asset)).cloned().collect();
        for slot in &mut self.slots {
            slot.setting = setting.clone();
        }
        self.setting = setting;
        self.settle(now);
        let hash = config.hash.clone();
        let applied = self.first(now, Body::ConfigurationApplied { hash: hash.clone(), removed });
        self.drain_event(now, applied);
        self.pending.answer(reply, Ok(json!({ "config_hash": hash })));
    }

    /// The configuration in force.
    #[must_use]
    pub const fn setting(&self) -> &Setting {
        &self.setting
    }

    fn job_spec(&self, job: EventId) -> Option<JobSpec> {
        let record = self.mirror.get(&(RecordKind::Job, job.to_string()))?;
        serde_json::from_value(record.body["spec"].clone()).ok()
    }

    /// Takes a job's answer, once; answers to jobs that are no longer open are dropped.
    fn finish_job(&mut self, now: Now, job: EventId, spec: JobSpec, result: Result<Value, String>) {
        self.jobs.remove(&job);
        let Some(record) = self.mirror.get(&(RecordKind::Job, job.to_string())).cloned() else {
            return;
        };
        let correlation = serde_json::from_value(record.body["correlation"].clone()).unwrap_or(job);
        self.keep(record.in_state("answered", false));
        let id = self.ids.next(now);
        let event = Event {
            id,
            cause: Some(job),
            correlation,
            time: now.utc,
            clock_trusted: now.trusted,
            body: Body::JobFinished { job, spec, result },
        };
        self.drain_event(now, event);
    }

    fn retain(&mut self, now: Now) {
        if self.next_retain > now.mono || !now.trusted {
            return;
        }
        self.next_retain = now.mono + RETAIN_EVERY;
        let keep = self.setting.config.store.journal_keep;
        if let Err(error) = self.store.retain(now.utc, keep, self.upstream_lacks) {
            tracing::warn!(%error, "retention of the journal failed; it is tried again in an hour");
        }
    }

    fn save_snapshots(&mut self) {
        let seen = self.seen;
        for slot in &mut self.slots {
            slot.keepsake();
            if let Some(bytes) = &slot.saved {
                self.pending.snapshot(slot.name.as_str(), history::stamp(seen, bytes));
            }
        }
    }

    const fn index(stage: StageName) -> usize {
        stage as usize
    }

    /// An event that begins a chain of its own.
    fn first(&mut self, now: Now, body: Body) -> Event {
        let id = self.ids.next(now);
        Event { id, cause: None, correlation: id, time: now.utc, clock_trusted: now.trusted, body }
    }
}

fn verb_target(verb: &Verb) -> String {
    match verb {
        Verb::Acknowledge { alarm } | Verb::Shelve { alarm, .. } | Verb::Unshelve { alarm } => {
            format!("alarm {alarm}")
        }
        Verb::Decide { decision, .. } => format!("decision {decision}"),
        Verb::CreateOrder { request } => format!("asset {}", request.asset),
        Verb::Complete { order, .. }
        | Verb::Reschedule { order, .. }
        | Verb::Cancel { order, .. } => format!("work order {order}"),
        Verb::Feedback { anomaly, .. } => format!("anomaly {anomaly}"),
        Verb::Relearn { asset } | Verb::Train { asset, .. } => format!("asset {asset}"),
        Verb::ImportModel(parcel) => format!("asset {}", parcel.asset),
        Verb::Promote { model } | Verb::Rollback { model } | Verb::Pin { model, .. } => {
            format!("model {model}")
        }
        Verb::Retry { event } => format!("dead letter {event}"),
    }
}
