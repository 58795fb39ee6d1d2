//! What turns brought about and no commit has written yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Released;
use crate::agents::Effect;
use crate::domain::command::CommandResult;
use crate::domain::event::{Body, Class, Event};
use crate::domain::ids::Arrival;
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::Timestamp;
use crate::port::{Committed, Lane, LanePosition};
use crate::store::state::Commit;

/// Events that wait at most while the store does not commit; then those that are not alarms fall,
/// oldest first, and are counted.
const WAITING_EVENTS_MAX: usize = 10_000;

/// Everything that waits for the next commit.
pub(super) struct Pending {
    events: Vec<Event>,
    records: BTreeMap<(RecordKind, String), Record>,
    effects: Vec<Effect>,
    answers: Vec<(oneshot::Sender<CommandResult>, CommandResult)>,
    waiting: Vec<oneshot::Sender<()>>,
    lanes: BTreeMap<Lane, LanePosition>,
    snapshots: BTreeMap<&'static str, Vec<u8>>,
    /// Bytes of models to keep, or (none) to drop.
    models: BTreeMap<String, Option<Vec<u8>>>,
    /// Last number given per class.
    sequences: BTreeMap<Class, u64>,
    /// Events of the front that were handed out from memory already.
    released_early: usize,
    fallen: u64,
    /// The moment, for the next commit.
    pub(super) utc: Option<Timestamp>,
    /// Eras whose correction is among the events.
    pub(super) corrected: Vec<i64>,
    /// The last commit's arrival number.
    pub(super) seen: Option<Arrival>,
    /// Whether the store takes commits.
    pub(super) durable: bool,
}

impl Pending {
    pub(super) fn new(sequences: BTreeMap<Class, u64>) -> Self {
        Self {
            events: Vec::new(),
            records: BTreeMap::new(),
            effects: Vec::new(),
            answers: Vec::new(),
            waiting: Vec::new(),
            lanes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            models: BTreeMap::new(),
            sequences,
            released_early: 0,
            fallen: 0,
            utc: None,
            corrected: Vec::new(),
            seen: None,
            durable: true,
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        if self.events.len() >= WAITING_EVENTS_MAX {
            let from = self.released_early;
            let victim = self.events[from..].iter().position(|event| !is_alarm(event));
            let Some(victim) = victim else { return };
            self.events.remove(from + victim);
            self.fallen += 1;
            if self.fallen.is_power_of_two() {
                tracing::error!(fallen = self.fallen, "events are lost: the store does not commit");
            }
        }
        self.events.push(event);
    }

    pub(super) fn record(&mut self, record: Record) {
        self.records.insert((record.kind, record.id.clone()), record);
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn lane(&mut self, position: LanePosition) {
        self.lanes.insert(position.lane, position);
    }

    pub(super) fn snapshot(&mut self, stage: &'static str, bytes: Vec<u8>) {
        self.snapshots.insert(stage, bytes);
    }

    pub(super) fn model(&mut self, id: String, bytes: Option<Vec<u8>>) {
        self.models.insert(id, bytes);
    }

    pub(super) fn answer(&mut self, reply: oneshot::Sender<CommandResult>, result: CommandResult) {
        self.answers.push((reply, result));
    }

    pub(super) fn wait(&mut self, done: oneshot::Sender<()>) {
        self.waiting.push(done);
    }

    /// Whether a journal row was written or somebody waits.
    pub(super) fn urgent(&self) -> bool {
        !(self.events.is_empty()
            && self.records.is_empty()
            && self.effects.is_empty()
            && self.answers.is_empty()
            && self.waiting.is_empty())
    }

    pub(super) fn any(&self) -> bool {
        self.urgent() || !self.lanes.is_empty() || !self.snapshots.is_empty()
    }

    /// Takes everything as one transaction, with numbers for the classes that go upstream.
    pub(super) fn transaction(&mut self, seen: Arrival) -> Commit {
        let mut sequences = self.sequences.clone();
        let events = std::mem::take(&mut self.events)
            .into_iter()
            .map(|event| {
                let place = event.body.class().map(|class| {
                    let last = sequences.entry(class).or_insert(0);
                    *last += 1;
                    (class, *last)
                });
                (event, place)
            })
            .collect();
        Commit {
            events,
            records: std::mem::take(&mut self.records).into_values().collect(),
            seen: Some(seen),
            utc: self.utc,
            corrected: std::mem::take(&mut self.corrected),
            lanes: std::mem::take(&mut self.lanes).into_values().collect(),
            snapshots: std::mem::take(&mut self.snapshots).into_iter().collect(),
            sequences_reserved: Vec::new(),
            models: std::mem::take(&mut self.models).into_iter().collect(),
        }
    }

    /// Puts back a transaction that failed; newer things win over it.
    pub(super) fn give_back(&mut self, commit: Commit) {
        let newer = std::mem::take(&mut self.events);
        self.events = commit.events.into_iter().map(|(event, _)| event).collect();
        self.events.extend(newer);
        self.corrected.extend(commit.corrected);
        for record in commit.records {
            self.records.entry((record.kind, record.id.clone())).or_insert(record);
        }
        for lane in commit.lanes {
            self.lanes.entry(lane.lane).or_insert(lane);
        }
        for (stage, bytes) in commit.snapshots {
            self.snapshots.entry(stage).or_insert(bytes);
        }
        for (id, bytes) in commit.models {
            self.models.entry(id).or_insert(bytes);
        }
    }

    /// A transaction is durable: answers whoever waits and sets the rest free.
    pub(super) fn release(&mut self, commit: Commit, rows: &[u64]) -> Released {
        if !self.durable {
            tracing::info!("the store commits again");
        }
        self.durable = true;
        self.released_early = 0;
        self.seen = commit.seen;
        let mut events = Vec::with_capacity(rows.len());
        for ((event, sequence), row) in commit.events.into_iter().zip(rows) {
            if let Some((class, number)) = sequence {
                self.sequences.insert(class, number);
            }
            events.push(Arc::new(Committed { row: *row, sequence, event, durable: true }));
        }
        for (reply, result) in self.answers.drain(..) {
            // Whoever asked may have gone; the command stands all the same.
            reply.send(result).ok();
        }
        for waiting in self.waiting.drain(..) {
            waiting.send(()).ok();
        }
        Released { events, effects: std::mem::take(&mut self.effects) }
    }

    /// Alarms among the waiting events, each handed out once, with the numbers they will have.
    pub(super) fn take_urgent(&mut self) -> Vec<Committed> {
        let mut sequences = self.sequences.clone();
        let mut urgent = Vec::new();
        for (place, event) in self.events.iter().enumerate() {
            let Some(class) = event.body.class() else { continue };
            let number = sequences.entry(class).or_insert(0);
            *number += 1;
            if place >= self.released_early && is_alarm(event) {
                urgent.push(Committed {
                    row: 0,
                    sequence: Some((class, *number)),
                    event: event.clone(),
                    durable: false,
                });
            }
        }
        self.released_early = self.events.len();
        urgent
    }
}

const fn is_alarm(event: &Event) -> bool {
    matches!(event.body, Body::AlarmRaised(_) | Body::AlarmUpdated(_) | Body::AlarmCleared(_))
}
