//! The thread that owns the engine and `state.db`: takes inputs, wakes at deadlines, commits, and
//! hands out what the commits set free.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};

use super::clock::Clock;
use super::engine::{Engine, Released};
use super::watchdog::{Heart, ROUND_IDLE};
use crate::agents::{Effect, Setting};
use crate::domain::severity::Severity;
use crate::domain::time::Now;
use crate::port::{
    Announcements, Committed, ConditionReport, EngineStatus, GapReport, Input, URGENT_MAX,
};
use crate::store::ring_thread::{RingBatch, RingHandle};
use crate::store::{ErrorKind, RingReader, StoreError};

/// Inputs taken into one commit when they are waiting anyway.
const TURNS_PER_COMMIT_MAX: usize = 64;
/// Readings held while the ring's queue is full; beyond, the oldest fall and are announced.
const HELD_READINGS_MAX: usize = 200_000;
/// Effects held while their carriers are busy; beyond, they wait for the next start.
const HELD_EFFECTS_MAX: usize = 1024;
/// Pause after a commit that failed.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);
/// Readings of the ring fed at a time after a start.
const REPLAY_PAGE: usize = 8192;
/// A step of UTC against monotonic time, in microseconds, from which on times before and after do
/// not compare any more: a new era. Smaller ones are corrections of one clock.
const ERA_STEP: u64 = 3_600_000_000;
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Why the engine's thread ended when nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The disk failed in a way that must not be trusted again before a new start verifies it.
    #[error("the state store cannot be trusted any more")]
    Disk(#[source] StoreError),
}

/// Where the engine's products go.
pub struct Outlets {
    /// To the ring's thread.
    pub ring: RingHandle,
    /// Messages to deliver and jobs to run.
    pub effects: mpsc::Sender<Effect>,
    /// Alarms while the store does not commit.
    pub urgent: mpsc::Sender<Committed>,
    journal: watch::Sender<u64>,
    events: broadcast::Sender<Arc<Committed>>,
    status: watch::Sender<Arc<EngineStatus>>,
    setting: watch::Sender<Setting>,
}

impl Outlets {
    /// Outlets, and what listeners get of them. `journal` is the last journal row of an earlier run.
    #[must_use]
    pub fn new(
        ring: RingHandle,
        effects: mpsc::Sender<Effect>,
        journal: u64,
        setting: Setting,
    ) -> (Self, Announcements, mpsc::Receiver<Committed>, watch::Receiver<Setting>) {
        let (journal, journal_seen) = watch::channel(journal);
        let (events, _) = broadcast::channel(crate::port::LISTENER_LAG_MAX);
        let (status, status_seen) = watch::channel(Arc::new(EngineStatus::default()));
        let (urgent, urgent_seen) = mpsc::channel(URGENT_MAX);
        let announcements =
            Announcements { journal: journal_seen, events: events.clone(), status: status_seen };
        let (setting, setting_seen) = watch::channel(setting);
        let outlets = Self { ring, effects, urgent, journal, events, status, setting };
        (outlets, announcements, urgent_seen, setting_seen)
    }
}

/// The loop's own state.
struct Loop {
    engine: Engine,
    outlets: Outlets,
    clock: Clock,
    commit_every: Duration,
    next_commit: Duration,
    next_status: Duration,
    held_readings: VecDeque<RingBatch>,
    held_count: usize,
    held_effects: VecDeque<Effect>,
    failing: bool,
    /// The clocks of the present era.
    era: Now,
}

/// Feeds the engine what the ring has beyond it, then runs it until it is told to stop or nobody
/// can give it anything any more.
///
/// # Errors
/// When the disk failed.
///
/// # Panics
/// When the thread's own timer cannot be made.
pub fn run(
    mut engine: Engine,
    history: Option<&RingReader>,
    mut inputs: mpsc::Receiver<Input>,
    outlets: Outlets,
    clock: Clock,
    commit_every: Duration,
    heart: &Heart,
) -> Result<(), Fatal> {
    engine.settle(clock.now());
    engine.take_stock(clock.now());
    if let Err(error) = engine.announce_corrections(clock.now()) {
        tracing::warn!(%error, "corrections of an earlier clock could not be read");
    }
    if let Some(ring) = history {
        replay(&mut engine, ring, &clock, heart);
    }
    let now = clock.now();
    let era = engine.started();
    let mut held_effects: VecDeque<Effect> = engine.unfinished().into();
    held_effects.truncate(HELD_EFFECTS_MAX);
    let mut this = Loop {
        engine,
        outlets,
        clock,
        commit_every,
        next_commit: now.mono,
        next_status: now.mono,
        held_readings: VecDeque::new(),
        held_count: 0,
        held_effects,
        failing: false,
        era,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime with nothing but a timer can be made");
    loop {
        let now = this.clock.now();
        let wait = this.wake(now).saturating_sub(now.mono).min(ROUND_IDLE);
        let received = runtime.block_on(async { tokio::time::timeout(wait, inputs.recv()).await });
        let mut stopping = false;
        match received {
            Ok(None) => return this.finish(),
            Ok(Some(input)) => {
                stopping |= this.take(input)?;
                for _ in 1..TURNS_PER_COMMIT_MAX {
                    let Ok(input) = inputs.try_recv() else { break };
                    stopping |= this.take(input)?;
                }
            }
            Err(_) => {}
        }
        this.after_turns(stopping)?;
        heart.beat();
        if stopping {
            return this.finish();
        }
    }
}

fn replay(engine: &mut Engine, ring: &RingReader, clock: &Clock, heart: &Heart) {
    engine.set_refilling(true);
    let mut from = engine.replay_from();
    loop {
        match ring.after(from, REPLAY_PAGE) {
            Ok(page) => {
                let Some(last) = page.last() else { break };
                from = last.arrival;
                engine.replay(clock.now(), &page);
                heart.beat();
            }
            Err(error) => {
                let error = super::parts::chain(&error);
                tracing::warn!(error, "the ring could not be read; windows begin empty");
                break;
            }
        }
    }
    engine.set_refilling(false);
    if let Ok(last) = ring.last_arrival() {
        engine.announce_lost(clock.now(), last);
    }
}

impl Loop {
    /// When something is to be done even if no input comes.
    fn wake(&self, now: Now) -> Duration {
        let mut wake = self.engine.next_deadline().min(self.next_status);
        if self.engine.has_uncommitted() {
            wake = wake.min(self.next_commit);
        }
        if !self.held_readings.is_empty() || !self.held_effects.is_empty() {
            wake = wake.min(now.mono + COMMIT_PAUSE);
        }
        wake
    }

    /// Notices that the clock was set, or is no longer believed: a new era begins. Nothing that was
    /// dated before is taken after it.
    fn watch_clock(&mut self, now: Now) -> Result<(), Fatal> {
        let offset = |at: Now| at.utc.micros().saturating_sub(span_micros(at.mono));
        let step = offset(now).saturating_sub(offset(self.era));
        if now.trusted == self.era.trusted && step.unsigned_abs() < ERA_STEP {
            return Ok(());
        }
        if self.engine.has_uncommitted() {
            self.commit(now)?;
        }
        match self.engine.enter_era(now, &super::boot::current(now), step) {
            Ok(()) => {
                tracing::warn!(step, trusted = now.trusted, "the clock was set");
                self.era = now;
            }
            Err(error) if !self.failing => {
                tracing::error!(%error, "the new clock could not be written down; tried again");
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// One turn; true when it asks to stop.
    fn take(&mut self, input: Input) -> Result<bool, Fatal> {
        let stop = matches!(input, Input::Stop { .. });
        let configure = matches!(input, Input::Configure { .. });
        let now = self.clock.now();
        self.watch_clock(now)?;
        self.engine.turn(now, input);
        if configure {
            self.commit_every = self.engine.setting().config.store.commit_every;
            self.outlets.setting.send_replace(self.engine.setting().clone());
        }
        self.hold_readings();
        Ok(stop)
    }

    /// Takes over what the engine has for the ring.
    fn hold_readings(&mut self) {
        while let Some(batch) = self.engine.take_readings() {
            self.held_count += batch.weight();
            self.held_readings.push_back(batch);
        }
    }

    fn after_turns(&mut self, stopping: bool) -> Result<(), Fatal> {
        let now = self.clock.now();
        self.watch_clock(now)?;
        self.engine.turn_deadlines(now);
        self.hold_readings();
        self.pass_readings();
        let now = self.clock.now();
        let due = self.engine.has_uncommitted() && self.next_commit <= now.mono;
        let urgent = self.engine.must_commit() && (!self.failing || due);
        if urgent || due || stopping {
            self.commit(now)?;
        }
        self.pass_effects();
        if self.next_status <= now.mono {
            self.next_status = now.mono + STATUS_EVERY;
            self.outlets.status.send_replace(Arc::new(self.engine.status()));
        }
        Ok(())
    }

    fn commit(&mut self, now: Now) -> Result<(), Fatal> {
        match self.engine.commit(now) {
            Ok(released) => {
                self.next_commit = now.mono + self.commit_every;
                if self.failing {
                    self.failing = false;
                    self.report_storage(now, false, "the state store commits again".to_owned());
                }
                self.release(released);
                Ok(())
            }
            Err(error) => {
                self.next_commit = now.mono + COMMIT_PAUSE;
                match error.kind() {
                    ErrorKind::IoFailed | ErrorKind::Corrupt => return Err(Fatal::Disk(error)),
                    ErrorKind::Full
                    | ErrorKind::ReadOnly
                    | ErrorKind::Busy
                    | ErrorKind::TooNew
                    | ErrorKind::Unusable
                    | ErrorKind::Other => {}
                }
                if !self.failing {
                    self.failing = true;
                    let error = super::parts::chain(&error);
                    tracing::error!(
                        error,
                        "the state store does not commit; alarms go on from memory"
                    );
                    self.report_storage(
                        now,
                        true,
                        format!("the state store does not commit: {error}"),
                    );
                }
                for alarm in self.engine.take_urgent() {
                    if self.outlets.urgent.try_send(alarm).is_err() {
                        tracing::error!("an alarm waits for the disk: the uplink takes no more");
                    }
                }
                Ok(())
            }
        }
    }

    fn report_storage(&mut self, now: Now, active: bool, message: String) {
        let report = ConditionReport {
            condition: "storage-not-committing".to_owned(),
            subject: "state.db".to_owned(),
            active,
            severity: Severity::Critical,
            message,
        };
        self.engine.turn(now, Input::Condition(report));
    }

    fn release(&mut self, released: Released) {
        if let Some(last) = released.events.last() {
            self.outlets.journal.send_replace(last.row);
        }
        for event in released.events {
            // Nobody may be listening.
            self.outlets.events.send(event).ok();
        }
        for effect in released.effects {
            if self.held_effects.len() >= HELD_EFFECTS_MAX {
                tracing::error!("an effect waits for the next start: too many are under way");
                continue;
            }
            self.held_effects.push_back(effect);
        }
    }

    fn pass_effects(&mut self) {
        while let Some(effect) = self.held_effects.pop_front() {
            if let Err(error) = self.outlets.effects.try_send(effect) {
                match error {
                    mpsc::error::TrySendError::Full(effect) => {
                        self.held_effects.push_front(effect);
                    }
                    mpsc::error::TrySendError::Closed(_) => {}
                }
                return;
            }
        }
    }

    fn pass_readings(&mut self) {
        while let Some(batch) = self.held_readings.pop_front() {
            self.held_count -= batch.weight();
            if let Err(batch) = self.outlets.ring.try_append(batch) {
                self.held_count += batch.weight();
                self.held_readings.push_front(batch);
                break;
            }
        }
        while self.held_count > HELD_READINGS_MAX {
            let Some(batch) = self.held_readings.pop_front() else { return };
            self.held_count -= batch.weight();
            if let (Some(era), Some(next)) = (batch.era, self.held_readings.front_mut()) {
                next.era.get_or_insert(era);
            }
            let (Some(first), Some(last)) = (batch.readings.first(), batch.readings.last()) else {
                continue;
            };
            let gap = GapReport {
                lane: "readings".to_owned(),
                from: first.arrival.0,
                to: last.arrival.0,
                count: batch.readings.len() as u64,
                reason: "the ring takes no more readings".to_owned(),
            };
            self.engine.turn(self.clock.now(), Input::Gap(gap));
        }
    }

    /// The last commit has been made, if it could be; says so in the store.
    fn finish(mut self) -> Result<(), Fatal> {
        let now = self.clock.now();
        if self.engine.has_uncommitted() {
            self.commit(now)?;
        }
        self.pass_readings();
        self.engine.close().map_err(Fatal::Disk)
    }
}

fn span_micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
