//! The eleven stages, each a state machine: readings, events, commands and time go in, events,
//! records and effects come out. A stage reads no clock, does no I/O and knows no other stage.
//!
//! The engine drives them in the order of [`StageName::ALL`], in turns. What a stage emits is seen
//! by every stage, itself included, later in the same turn. Three kinds of output:
//!
//! * **events** ([`Outbox::emit`]) become rows of the journal and go to all stages;
//! * **records** ([`Outbox::save`]) are what the stage must remember over a restart; the open ones
//!   are handed back by [`Stage::restore`];
//! * **effects** ([`Outbox::effect`]) are what the runtime carries out after the commit.
//!
//! A stage that returns an error or panics on an event is rebuilt from its records and its last
//! snapshot and sees the event once more; failing again, the event is set aside.

pub mod acquisition;
pub mod approval;
pub mod detection;
pub mod failure_modes;
pub mod learning;
pub mod logbook;
pub mod notification;
pub mod orchestration;
pub mod prediction;
pub mod promise;
mod registry;
pub mod reporting;
pub mod scheduling;
#[cfg(test)]
mod story;
#[cfg(test)]
#[allow(dead_code, reason = "every stage's tests use their own part of the bench")]
pub(crate) mod testing;
pub mod validation;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::domain::command::{Command, CommandResult};
use crate::domain::event::{Body, Event, JobSpec, Message};
use crate::domain::ids::EventId;
use crate::domain::reading::{Burst, RawBatch, Reading};
use crate::domain::record::{Record, RecordKind};
use crate::domain::tag::Plant;
use crate::domain::time::Now;

/// The stages in pipeline order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StageName {
    /// Raw values become readings.
    Acquisition,
    /// Readings become anomalies and limit alarms.
    Detection,
    /// Anomalies get a verdict.
    Validation,
    /// Verdicts become decisions what to do.
    Orchestration,
    /// When will it fail?
    Prediction,
    /// Questions to a person.
    Approval,
    /// Who repairs it, and when.
    Scheduling,
    /// Who is told.
    Notification,
    /// What was done.
    Logbook,
    /// What was learnt from it.
    Learning,
    /// Summaries.
    Reporting,
}

impl StageName {
    /// All stages in pipeline order.
    pub const ALL: [Self; 11] = [
        Self::Acquisition,
        Self::Detection,
        Self::Validation,
        Self::Orchestration,
        Self::Prediction,
        Self::Approval,
        Self::Scheduling,
        Self::Notification,
        Self::Logbook,
        Self::Learning,
        Self::Reporting,
    ];

    /// The word in messages, records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acquisition => "acquisition",
            Self::Detection => "detection",
            Self::Validation => "validation",
            Self::Orchestration => "orchestration",
            Self::Prediction => "prediction",
            Self::Approval => "approval",
            Self::Scheduling => "scheduling",
            Self::Notification => "notification",
            Self::Logbook => "logbook",
            Self::Learning => "learning",
            Self::Reporting => "reporting",
        }
    }

    /// Reads the word of [`Self::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }
}

/// A stage could not digest an event.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{what}")]
pub struct StageError {
    /// What went wrong, in one sentence.
    pub what: String,
}

impl StageError {
    /// An error with this sentence.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// What a stage works with: the configuration in force.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// Its assets and tags.
    pub plant: Arc<Plant>,
}

/// What an earlier run (or an earlier life of the stage in this run) left behind.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// All open records, of every kind; a stage picks its own.
    pub records: &'a [Record],
    /// The newest snapshot of what this stage learnt, if there is one.
    pub snapshot: Option<&'a [u8]>,
}

impl<'a> Saved<'a> {
    /// The open records of one kind.
    pub fn of(&self, kind: RecordKind) -> impl Iterator<Item = &'a Record> {
        self.records.iter().filter(move |record| record.kind == kind)
    }
}

/// Something for the runtime to do once the turn is committed.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Deliver a message; the answer comes back as [`Delivery`]. Retried by the runtime.
    Notify {
        /// The record of the message, by which the answer is told.
        id: EventId,
        /// The message.
        message: Message,
    },
    /// Compute something on the worker; the answer comes back as `JobFinished`.
    Run {
        /// The event `JobStarted`.
        job: EventId,
        /// What to compute.
        spec: JobSpec,
    },
}

/// How the delivery of a message ended, after all attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The message's id, from [`Effect::Notify`].
    pub id: EventId,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it was given up, if it was.
    pub result: Result<(), String>,
}

/// Whence an event comes: its cause and the chain it belongs to. Stages keep it beside whatever
/// they will emit later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Chain {
    /// The event that is the cause.
    pub cause: EventId,
    /// First event of the chain.
    pub correlation: EventId,
}

impl Chain {
    /// The chain that goes on from `event`.
    #[must_use]
    pub const fn of(event: &Event) -> Self {
        Self { cause: event.id, correlation: event.correlation }
    }
}

/// Makes ids of events. Seeded in the simulation, so that runs are repeatable.
#[derive(Debug, Clone)]
pub struct IdSource {
    random: fastrand::Rng,
    last_millis: u64,
    counter: u16,
}

impl IdSource {
    /// A source from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), last_millis: 0, counter: 0 }
    }

    /// The next id: a UUIDv7 of `now`, growing within this source even when the clock does not
    /// (RFC 9562 §6.2, method 1: a counter in `rand_a`).
    pub fn next(&mut self, now: Now) -> EventId {
        let millis = u64::try_from(now.utc.micros() / 1000).unwrap_or(0);
        if millis > self.last_millis {
            self.last_millis = millis;
            self.counter = self.random.u16(0..0x400);
        } else if self.counter == 0x0fff {
            self.last_millis += 1;
            self.counter = 0;
        } else {
            self.counter += 1;
        }
        let mut bytes = self.random.u128(..).to_be_bytes();
        bytes[..6].copy_from_slice(&self.last_millis.to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(0x7000 | self.counter).to_be_bytes());
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        EventId(uuid::Uuid::from_bytes(bytes))
    }
}

/// What a stage hands out during one call. The engine gives every call an empty one and takes its
/// contents only when the call succeeded.
#[derive(Debug)]
pub struct Outbox<'a> {
    now: Now,
    ids: &'a mut IdSource,
    context: Option<Chain>,
    /// Events in the order they were emitted.
    pub events: Vec<Event>,
    /// Records to write, in order; the last one of an identity counts.
    pub records: Vec<Record>,
    /// Effects to carry out after the commit.
    pub effects: Vec<Effect>,
}

impl<'a> Outbox<'a> {
    /// An empty outbox for a call at `now`, on behalf of the event in `context` (none for readings,
    /// deadlines and commands).
    pub fn new(now: Now, ids: &'a mut IdSource, context: Option<Chain>) -> Self {
        Self { now, ids, context, events: Vec::new(), records: Vec::new(), effects: Vec::new() }
    }

    /// Emits an event caused by the one being handled, or beginning a chain when there is none.
    pub fn emit(&mut self, body: Body) -> EventId {
        self.push(self.context, body)
    }

    /// Emits an event that goes on from another one than the one being handled.
    pub fn emit_from(&mut self, chain: Chain, body: Body) -> EventId {
        self.push(Some(chain), body)
    }

    /// Emits an event that begins a chain of its own.
    pub fn emit_first(&mut self, body: Body) -> EventId {
        self.push(None, body)
    }

    /// Emits an event whose body needs to know its own id (alarms, questions and orders are named
    /// after the event that began them).
    pub fn emit_with(
        &mut self,
        chain: Option<Chain>,
        body: impl FnOnce(EventId) -> Body,
    ) -> EventId {
        let id = self.ids.next(self.now);
        let body = body(id);
        self.push_as(id, chain, body)
    }

    /// The chain of the event being handled.
    #[must_use]
    pub const fn context(&self) -> Option<Chain> {
        self.context
    }

    /// Writes a record.
    pub fn save(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Asks the runtime for something.
    pub fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn push(&mut self, chain: Option<Chain>, body: Body) -> EventId {
        let id = self.ids.next(self.now);
        self.push_as(id, chain, body)
    }

    fn push_as(&mut self, id: EventId, chain: Option<Chain>, body: Body) -> EventId {
        self.events.push(Event {
            id,
            cause: chain.map(|chain| chain.cause),
            correlation: chain.map_or(id, |chain| chain.correlation),
            time: self.now.utc,
            clock_trusted: self.now.trusted,
            body,
        });
        id
    }
}

/// One stage of the pipeline.
pub trait Stage: Send {
    /// Which one it is.
    fn name(&self) -> StageName;

    /// Takes up what an earlier run promised and learnt. Called once, on a new stage, before
    /// anything else. A snapshot it cannot read (another version) counts as none.
    ///
    /// # Errors
    /// When a record cannot be read: the stage then does not start, and says so aloud.
    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError>;

    /// Takes a batch of judged readings, in arrival order, bad ones included.
    ///
    /// `historical` readings (imports, refilling after a restart) are learnt from and raise nothing.
    ///
    /// # Errors
    /// When the batch cannot be digested.
    fn on_readings(
        &mut self,
        _now: Now,
        _readings: &[Reading],
        _historical: bool,
        _out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        Ok(())
    }

    /// Takes an event of any stage.
    ///
    /// # Errors
    /// When the event cannot be digested; its outputs are then discarded.
    fn on_event(&mut self, now: Now, event: &Event, out: &mut Outbox<'_>)
    -> Result<(), StageError>;

    /// Carries out a command, or returns `None` when it is not for this stage.
    fn on_command(
        &mut self,
        _now: Now,
        _command: &Command,
        _out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        None
    }

    /// Takes the result of a delivery (only the notification stage).
    ///
    /// # Errors
    /// When it cannot be digested.
    fn on_delivery(
        &mut self,
        _now: Now,
        _delivery: &Delivery,
        _out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        Ok(())
    }

    /// When the stage wants [`Self::on_deadline`], on the monotonic clock.
    fn next_deadline(&self) -> Option<Duration> {
        None
    }

    /// The deadline has passed (by `now.mono`).
    ///
    /// # Errors
    /// When it cannot be digested.
    fn on_deadline(&mut self, _now: Now, _out: &mut Outbox<'_>) -> Result<(), StageError> {
        Ok(())
    }

    /// Takes a new configuration. What was learnt stays with every tag and asset whose definition
    /// did not change; what belonged to removed ones is closed with the reason `configuration`.
    ///
    /// # Errors
    /// When it cannot be digested.
    fn configure(
        &mut self,
        _now: Now,
        _setting: &Setting,
        _out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        Ok(())
    }

    /// What the stage has learnt, for the next start; `None` when it learns nothing.
    fn snapshot(&self) -> Option<Vec<u8>> {
        None
    }
}

/// Turns raw values into readings; the first stage, and the only one that sees raw values.
pub trait Acquire: Stage {
    /// Judges one batch: scale, range, sentinels, NaN, stale, duplicate and late values. Appends one
    /// reading for every raw value that is not an exact repeat; arrival numbers are given by the
    /// engine afterwards.
    fn judge(&mut self, now: Now, batch: &RawBatch, readings: &mut Vec<Reading>);

    /// What else is to be known of the readings that the last call of [`Self::judge`] appended, one
    /// mark each; fewer marks mean that nothing is special about the rest.
    fn marks(&self) -> &[Mark] {
        &[]
    }

    /// The bursts of the batch judged last, in the tag's unit. A burst belongs to the reading of
    /// the same tag and time; without one it is a repeat.
    fn take_bursts(&mut self) -> Vec<Burst> {
        Vec::new()
    }
}

/// What is to be known of a judged reading besides itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Whether it is stored and sent upstream. One that says nothing new (deadband) is seen by every
    /// stage all the same: limits and detection lose nothing.
    pub stored: bool,
    /// Its time is the device's own: it stays when the gateway's clock is put right.
    pub own_time: bool,
}

impl Default for Mark {
    fn default() -> Self {
        Self { stored: true, own_time: false }
    }
}
