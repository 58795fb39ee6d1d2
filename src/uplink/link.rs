//! The uplink as a state machine without I/O: events of the connection, the store and the clock go
//! in, actions come out.
//!
//! ```text
//!  journal ─▶ EventLane ──┐                    ┌─▶ Publish ──▶ client ─▶ broker
//!                         ├─▶ window, Session ─┤                            │
//!  ring ───▶ ReadingLane ─┘        ▲           └─▶ Connect, Drop …          │
//!                                  └──────── sent(packet), acknowledged(packet)
//! ```
//!
//! Order of what may go: status, alarms that could not be made durable, events, live readings,
//! backlog. Events have slots of the window that readings cannot take, and the other way round, so
//! neither waits for the other's acknowledgements.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::cloudevents::{Birth, Message, Sender};
use super::event_lane::EventLane;
use super::reading_lane::{Page, PageRequest, ReadingLane};
use super::readings;
use super::session::{Loss, Pace, Parcel, STALLS_MAX, Session, State};
use crate::agents::IdSource;
use crate::config::{Encoding, ReadingsMode};
use crate::domain::ids::EventId;
use crate::domain::severity::Severity;
use crate::domain::tag::Plant;
use crate::domain::time::{Now, Timestamp};
use crate::port::{Committed, ConditionReport, GapReport, Lane, LanePosition, UplinkHealth};

/// Messages under way at most (mosquitto's own window per client is 20, and it queues beyond).
pub const WINDOW: usize = 50;
/// Slots of the window that only events may take, and only readings.
const EVENT_SLOTS: usize = 34;
const READING_SLOTS: usize = 16;
/// Largest event; a larger one is given up and announced, for the broker would drop us each time.
pub const EVENT_BYTES_MAX: usize = 192 * 1024;
/// Positions are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// What a stop waits for events to be acknowledged, and then for the farewell.
const STOP_FLUSH: Duration = Duration::from_millis(1500);
const STOP_FAREWELL: Duration = Duration::from_millis(500);
/// Status and health messages that may wait; the oldest is dropped.
const LOOSE_MAX: usize = 16;
/// Numbers a start may use for batches before the next start's begin: a thousand a second for
/// thirty years.
const SEQUENCES_PER_START: u64 = 1_000_000_000_000;

/// What is sent, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkOptions {
    /// What is sent of the readings.
    pub readings: ReadingsMode,
    /// How they are encoded.
    pub encoding: Encoding,
    /// Most readings of the backlog a second.
    pub backlog_per_second: f64,
    /// Deadlines and pauses of the connection.
    pub pace: Pace,
}

impl LinkOptions {
    /// Default deadlines; the backlog of a day at 50 readings a second takes a quarter of an hour.
    #[must_use]
    pub fn new(readings: ReadingsMode, encoding: Encoding) -> Self {
        Self { readings, encoding, backlog_per_second: 5000.0, pace: Pace::default() }
    }
}

/// What an earlier run left, and where the store stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// Saved position of the events.
    pub events: LanePosition,
    /// Saved position of the readings.
    pub readings: LanePosition,
    /// Last committed journal row.
    pub journal_head: u64,
    /// Last durable reading.
    pub ring_head: u64,
    /// Grows with every start of the daemon on this `state.db`.
    pub start_number: u64,
    /// Seed of ids and pauses.
    pub seed: u64,
}

/// What the shell has to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open a new connection with this last will.
    Connect {
        /// The will.
        will: Message,
    },
    /// Drop the connection without a word: the broker sends the will.
    Drop,
    /// Send DISCONNECT, then drop the connection.
    Disconnect,
    /// Publish, in the order of these actions.
    Publish(Message),
    /// Read journal rows after this one.
    ReadJournal {
        /// Rows after this one.
        after: u64,
        /// The journal's head as it is known now.
        head: u64,
        /// Goes back with the answer.
        generation: u64,
    },
    /// Read a page of the ring.
    ReadRing {
        /// Which.
        request: PageRequest,
        /// Goes back with the answer.
        generation: u64,
    },
    /// Tell the engine how far a lane has come.
    Report(LanePosition),
    /// Tell the engine what holds.
    Condition(ConditionReport),
    /// Tell the engine what will never be sent.
    Gap(GapReport),
    /// All is done; the shell may end.
    Stopped,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Status and health: sent once, not repeated.
    Loose,
    /// `gateway.offline` at a stop.
    Farewell,
    /// A row of the journal.
    Row(u64),
    /// An alarm released from memory.
    Urgent(EventId),
    /// A page of readings.
    Page(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Events are still being sent, until this moment.
    Flushing(Duration),
    /// The farewell is under way, until this moment.
    Farewell(Duration),
    /// The connection is closed; positions are told once more.
    Closing,
    /// Nothing happens any more.
    Stopped,
}

/// The uplink without its I/O.
#[derive(Debug)]
pub struct Link {
    sender: Sender,
    birth: Birth,
    plant: Arc<Plant>,
    options: LinkOptions,
    session: Session<Unit>,
    generation: u64,
    events: EventLane,
    readings: ReadingLane,
    ids: IdSource,
    /// Last number given to a batch of readings or a health message.
    sequence: u64,
    /// Status and health messages that wait for the connection.
    loose: VecDeque<(Unit, Message)>,
    /// Second messages of rows already begun: they come before anything else of the lane.
    follow: VecDeque<(Unit, Message)>,
    notices: VecDeque<Action>,
    stalled: bool,
    refused: bool,
    reported: [Option<LanePosition>; 2],
    report_at: Duration,
    stop: Option<Stop>,
    since: Option<Timestamp>,
    last_error: Option<String>,
}

impl Link {
    /// A link that is not connected yet.
    #[must_use]
    pub fn new(
        sender: Sender,
        birth: Birth,
        plant: Arc<Plant>,
        options: LinkOptions,
        resume: &Resume,
        now: Now,
    ) -> Self {
        let millis = u64::try_from(now.mono.as_millis()).unwrap_or(0);
        Self {
            sender,
            birth,
            plant,
            session: Session::new(options.pace.clone(), resume.seed),
            generation: 0,
            events: EventLane::resume(&resume.events, resume.journal_head),
            readings: ReadingLane::resume(
                options.readings,
                options.backlog_per_second,
                &resume.readings,
                resume.ring_head,
            ),
            options,
            ids: IdSource::new(resume.seed),
            // A link that is built anew within one start goes on above the earlier one, for none
            // sends a thousand batches a second.
            sequence: resume.start_number.saturating_mul(SEQUENCES_PER_START)
                + millis % SEQUENCES_PER_START,
            loose: VecDeque::new(),
            follow: VecDeque::new(),
            notices: VecDeque::new(),
            stalled: false,
            refused: false,
            reported: [Some(resume.events.clone()), Some(resume.readings.clone())],
            report_at: now.mono,
            stop: None,
            since: None,
            last_error: None,
        }
    }

    /// Takes a new configuration; `reconnect` when the broker itself has changed.
    pub fn configure(
        &mut self,
        now: Now,
        plant: Arc<Plant>,
        config_hash: String,
        options: LinkOptions,
        reconnect: bool,
    ) {
        self.plant = plant;
        self.birth.config_hash = config_hash;
        self.readings.set_mode(options.readings);
        self.options = options;
        if self.stop.is_some() {
            return;
        }
        if reconnect {
            self.notices.push_back(Action::Drop);
            self.session.retry_now(now.mono);
            self.since = Some(now.utc);
        } else if self.session.is_up() {
            let online = self.sender.online(self.ids.next(now), &self.birth, now);
            self.push_loose(Unit::Loose, online);
        }
    }

    /// CONNACK has come.
    pub fn on_connected(&mut self, now: Now) {
        self.session.connected(now.mono);
        self.events.connected();
        self.readings.connected();
        self.follow.clear();
        self.loose.clear();
        self.since = Some(now.utc);
        self.last_error = None;
        let online = self.sender.online(self.ids.next(now), &self.birth, now);
        self.loose.push_back((Unit::Loose, online));
        if std::mem::take(&mut self.refused) {
            self.notices.push_back(refused(false, ""));
        }
    }

    /// The connection ended, or could not be made.
    pub fn on_lost(&mut self, now: Now, loss: &Loss) {
        if matches!(self.session.state(), State::Down { .. }) {
            return;
        }
        let was_up = self.session.is_up();
        self.session.lost(now.mono, loss);
        if was_up || self.since.is_none() {
            self.since = Some(now.utc);
        }
        self.last_error = Some(match loss {
            Loss::Broken(why) => why.clone(),
            Loss::Refused(why) => format!("refused by the broker: {why}"),
            Loss::Silent => {
                let limit = self.options.pace.acknowledge_within;
                format!("no acknowledgement within {limit:?}")
            }
        });
        if let Loss::Refused(why) = loss
            && !std::mem::replace(&mut self.refused, true)
        {
            self.notices.push_back(refused(true, why));
        }
        if self.session.stalls() >= STALLS_MAX && !std::mem::replace(&mut self.stalled, true) {
            self.notices.push_back(stalled(true));
        }
    }

    /// The client has sent the next handed message, under this packet id.
    pub fn on_sent(&mut self, packet: u16) {
        if let Some(parcel) = self.session.sent(packet) {
            self.settle(&parcel, Duration::ZERO);
        }
    }

    /// PUBACK (or PUBCOMP) for this packet id.
    pub fn on_acknowledged(&mut self, now: Now, packet: u16) {
        let Some(parcel) = self.session.acknowledged(now.mono, packet) else { return };
        if std::mem::take(&mut self.stalled) {
            self.notices.push_back(stalled(false));
        }
        self.settle(&parcel, now.mono.saturating_sub(parcel.handed));
    }

    fn settle(&mut self, parcel: &Parcel<Unit>, round_trip: Duration) {
        match parcel.unit {
            Unit::Loose => {}
            Unit::Farewell => self.stop = Some(Stop::Closing),
            Unit::Row(row) => self.events.acknowledged(row),
            Unit::Urgent(id) => self.events.urgent_acknowledged(id),
            Unit::Page(page) => self.readings.acknowledged(page, round_trip),
        }
    }

    /// The journal has grown.
    pub fn on_journal_head(&mut self, row: u64) {
        self.events.on_head(row);
    }

    /// The ring has grown.
    pub fn on_ring_head(&mut self, arrival: u64) {
        self.readings.on_head(arrival);
    }

    /// Rows of the journal. Pages of earlier connections count for nothing.
    pub fn on_journal_page(&mut self, generation: u64, head: u64, rows: Vec<Committed>) {
        if generation == self.generation && self.session.is_up() {
            self.events.on_page(rows, head);
        }
    }

    /// A page of the ring. Pages of earlier connections count for nothing.
    pub fn on_ring_page(&mut self, now: Now, generation: u64, page: Page) {
        if generation == self.generation && self.session.is_up() {
            let gap = self.readings.on_page(now.mono, &self.plant, page);
            self.notices.extend(gap.map(Action::Gap));
        }
    }

    /// The store could not answer; asked again after a second.
    pub fn on_read_failed(&mut self, now: Now, generation: u64, lane: Lane) {
        if generation != self.generation {
            return;
        }
        match lane {
            Lane::Events => self.events.on_read_failed(now.mono),
            Lane::Readings => self.readings.on_read_failed(now.mono),
        }
    }

    /// An alarm that could not be made durable. Returns whether an older one was dropped for it.
    pub fn on_urgent(&mut self, committed: Committed) -> bool {
        self.events.on_urgent(committed)
    }

    /// `gateway.health` with these data, when there is a connection; it is never sent again.
    pub fn on_health(&mut self, now: Now, data: &Value) {
        if !self.session.is_up() {
            return;
        }
        let envelope = super::cloudevents::Envelope {
            sequence: Some(self.next_sequence()),
            clock_trusted: now.trusted,
            ..self.sender.envelope(self.ids.next(now), "gateway.health", now.utc, now)
        };
        let topic = format!("{}/health", self.sender.root());
        let message = Message { topic, retain: false, payload: envelope.json(data) };
        self.push_loose(Unit::Loose, message);
    }

    /// Send what is there, say farewell, and stop.
    pub fn on_stop(&mut self, now: Now) {
        if self.stop.is_none() {
            self.stop = Some(Stop::Flushing(now.mono + STOP_FLUSH));
        }
    }

    fn push_loose(&mut self, unit: Unit, message: Message) {
        if self.loose.len() >= LOOSE_MAX {
            self.loose.pop_front();
        }
        self.loose.push_back((unit, message));
    }

    const fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Whether messages flow.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.session.is_up()
    }

    /// How it does.
    #[must_use]
    pub fn health(&self) -> UplinkHealth {
        let state = match self.session.state() {
            _ if self.stalled => "stalled",
            State::Up { .. } => "up",
            State::Down { .. } | State::Connecting { .. } => "connecting",
        };
        UplinkHealth {
            state: state.to_owned(),
            since: self.since,
            events_waiting: self.events.waiting(),
            readings_waiting: self.readings.waiting(),
            last_round_trip: self.session.round_trip(),
            last_error: self.last_error.clone(),
        }
    }

    /// When [`Self::poll`] has something to do without any event; `None` for never.
    #[must_use]
    pub fn next_deadline(&self, now: Now) -> Option<Duration> {
        let stop = match self.stop {
            Some(Stop::Flushing(at) | Stop::Farewell(at)) => Some(at),
            Some(Stop::Closing | Stop::Stopped) | None => None,
        };
        let report = self.unreported().map(|_| self.report_at);
        let reads = self.session.is_up().then(|| {
            self.events.deadline(now.mono).into_iter().chain(self.readings.deadline(now.mono)).min()
        });
        [stop, report, self.session.deadline(), reads.flatten()].into_iter().flatten().min()
    }

    fn unreported(&self) -> Option<usize> {
        let now = [self.events.done().position(), self.readings.done().position()];
        (0..2).find(|&index| self.reported[index].as_ref() != Some(&now[index]))
    }

    /// The next thing to do at `now`; call until `None`.
    pub fn poll(&mut self, now: Now) -> Option<Action> {
        if self.stop == Some(Stop::Stopped) {
            return None;
        }
        if let Some(notice) = self.notices.pop_front() {
            return Some(notice);
        }
        if let Some(action) = self.poll_stop(now) {
            return Some(action);
        }
        if now.mono >= self.report_at
            && let Some(report) = self.report()
        {
            if self.unreported().is_none() {
                self.report_at = now.mono + REPORT_EVERY;
            }
            return Some(report);
        }
        self.poll_session(now)
    }

    fn report(&mut self) -> Option<Action> {
        let index = self.unreported()?;
        let done = if index == 0 { self.events.done() } else { self.readings.done() };
        let position = done.position();
        self.reported[index] = Some(position.clone());
        Some(Action::Report(position))
    }

    fn poll_stop(&mut self, now: Now) -> Option<Action> {
        let stop = self.stop?;
        if !self.session.is_up() && stop != Stop::Closing {
            self.stop = Some(Stop::Closing);
            return Some(Action::Drop);
        }
        match stop {
            Stop::Flushing(until) if self.events.is_idle() || now.mono >= until => {
                let id = self.ids.next(now);
                let offline = self.sender.offline(id, &self.birth, "stopped", now);
                self.loose.push_back((Unit::Farewell, offline));
                self.stop = Some(Stop::Farewell(now.mono + STOP_FAREWELL));
                None
            }
            Stop::Farewell(until) if now.mono >= until => {
                self.stop = Some(Stop::Closing);
                None
            }
            Stop::Closing => {
                if self.session.is_up() {
                    self.session.lost(now.mono, &Loss::Broken("stopped".to_owned()));
                    return Some(Action::Disconnect);
                }
                let report = self.report();
                if report.is_none() {
                    self.stop = Some(Stop::Stopped);
                    return Some(Action::Stopped);
                }
                report
            }
            Stop::Flushing(_) | Stop::Farewell(_) | Stop::Stopped => None,
        }
    }

    fn poll_session(&mut self, now: Now) -> Option<Action> {
        let due = self.session.deadline().is_some_and(|at| now.mono >= at);
        match self.session.state() {
            State::Down { .. } if due => {
                self.session.connecting(now.mono);
                self.generation += 1;
                let id = self.ids.next(now);
                let will = self.sender.offline(id, &self.birth, "connection lost", now);
                Some(Action::Connect { will })
            }
            State::Connecting { .. } if due => {
                let limit = self.options.pace.connect_within;
                let why = format!("no connection within {limit:?}");
                self.on_lost(now, &Loss::Broken(why));
                Some(Action::Drop)
            }
            State::Up { .. } if due => {
                self.on_lost(now, &Loss::Silent);
                Some(Action::Drop)
            }
            State::Up { .. } => self.poll_up(now),
            State::Down { .. } | State::Connecting { .. } => None,
        }
    }

    fn poll_up(&mut self, now: Now) -> Option<Action> {
        if let Some(publish) = self.publish(now) {
            return Some(publish);
        }
        if matches!(self.stop, Some(Stop::Farewell(_))) {
            return None;
        }
        let generation = self.generation;
        if let Some(after) = self.events.wants(now.mono) {
            let head = self.events.head();
            return Some(Action::ReadJournal { after, head, generation });
        }
        if self.stop.is_some() {
            return None;
        }
        let backlog = self.events.caught_up();
        let request = self.readings.wants(now.mono, backlog)?;
        Some(Action::ReadRing { request, generation })
    }

    fn publish(&mut self, now: Now) -> Option<Action> {
        if self.session.under_way() >= WINDOW {
            return None;
        }
        if let Some((unit, message)) = self.loose.pop_front() {
            return Some(self.hand(now, unit, message));
        }
        let pages = |parcel: &&Parcel<Unit>| matches!(parcel.unit, Unit::Page(_));
        let reading_parcels = self.session.parcels().filter(pages).count();
        if self.session.under_way() - reading_parcels < EVENT_SLOTS
            && let Some(action) = self.publish_event(now)
        {
            return Some(action);
        }
        if self.stop.is_some() || reading_parcels >= READING_SLOTS {
            return None;
        }
        let bytes = self.session.parcels().filter(pages).map(|parcel| parcel.bytes).sum();
        let (page, batch) = self.readings.next_batch(bytes)?;
        let id = self.ids.next(now);
        let sequence = self.next_sequence();
        let encoding = self.options.encoding;
        let message =
            readings::message(&self.sender, &self.plant, &batch, encoding, id, sequence, now);
        Some(self.hand(now, Unit::Page(page), message))
    }

    fn publish_event(&mut self, now: Now) -> Option<Action> {
        if let Some((unit, message)) = self.follow.pop_front() {
            return Some(self.hand(now, unit, message));
        }
        if let Some(committed) = self.events.next_urgent() {
            let wire = self.sender.wire(&committed, now)?;
            return Some(self.hand(now, Unit::Urgent(committed.event.id), wire.event));
        }
        while let Some(committed) = self.events.next_event() {
            let row = committed.row;
            let fitting = self
                .sender
                .wire(&committed, now)
                .filter(|wire| wire.event.payload.len() <= EVENT_BYTES_MAX);
            let Some(wire) = fitting else {
                self.give_up(&committed);
                continue;
            };
            let messages = 1 + u32::from(wire.clearing.is_some());
            self.events.handed(row, messages);
            self.follow.extend(wire.clearing.map(|clearing| (Unit::Row(row), clearing)));
            return Some(self.hand(now, Unit::Row(row), wire.event));
        }
        None
    }

    fn give_up(&mut self, committed: &Committed) {
        self.events.give_up(committed.row);
        let Some((class, number)) = committed.sequence else { return };
        self.notices.push_back(Action::Gap(GapReport {
            lane: class.as_str().to_owned(),
            from: number,
            to: number,
            count: 1,
            reason: format!("event {} is larger than {EVENT_BYTES_MAX} bytes", committed.event.id),
        }));
    }

    fn hand(&mut self, now: Now, unit: Unit, message: Message) -> Action {
        let bytes = message.payload.len();
        self.session.hand(Parcel { unit, handed: now.mono, bytes });
        Action::Publish(message)
    }
}

fn stalled(active: bool) -> Action {
    Action::Condition(ConditionReport {
        condition: "upstream-stalled".to_owned(),
        subject: "upstream".to_owned(),
        active,
        severity: Severity::High,
        message: if active {
            format!("the broker took {STALLS_MAX} connections in a row and acknowledged nothing")
        } else {
            "the broker acknowledges again".to_owned()
        },
    })
}

fn refused(active: bool, why: &str) -> Action {
    Action::Condition(ConditionReport {
        condition: "upstream-refused".to_owned(),
        subject: "upstream".to_owned(),
        active,
        severity: Severity::Medium,
        message: if active {
            format!("the broker refuses the gateway: {why}")
        } else {
            "the broker lets the gateway in".to_owned()
        },
    })
}

#[cfg(test)]
#[path = "link_tests.rs"]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test looks for what it needs")]
mod tests;
