//! I/O: subscribes at a broker and acknowledges a message only when its readings are durable.
//!
//! The session is kept by the broker over our absence, so what was not acknowledged comes again.
//! Acknowledgements go out in the order of the messages. A stale packet id may name another message
//! in the next connection, so nothing of one outlives it.
//!
//! All messages of one read from the network become one batch a source; the engine and the ring see
//! how many senders wait for it. What a source sends beyond its rate is thinned (see [`flood`]),
//! what comes for no tag is listed (see [`unknown`]).
//!
//! A broker that speaks no MQTT ends the connection and would do so for ever: after [`POISON_MAX`]
//! such ends the session is begun anew, once, at the price of what waited in it, and a condition
//! says so. A message that is merely too large is passed over and acknowledged.

pub mod flood;
mod link;
pub mod routes;
mod session;
pub mod unknown;
pub mod wire;

pub use link::{Address, Link, LinkError};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::{Broker, Intake, MqttSource};
use crate::domain::reading::{RawBatch, RawReading};
use crate::domain::severity::Severity;
use crate::domain::tag::Plant;
use crate::domain::time::Now;
use crate::port::{EngineHandle, EngineStopped, Input};
use crate::sources::health::{DEGRADED, DOWN, HealthCell, UP};
use crate::sources::topics::Filter;
use crate::sources::{Published, SourceError};

use flood::Thinner;
use routes::{Heard, MessageError, Routes};
use session::Session;
use wire::{HEAD_MAX, Message};

/// Connections that may end on something that is no MQTT before the session is begun anew.
pub const POISON_MAX: u32 = 3;
const RECONNECT_MIN: Duration = Duration::from_millis(500);
/// A local broker that comes back is found again within this.
const RECONNECT_MAX: Duration = Duration::from_secs(4);
/// The same for one that refuses us: asking again sooner changes nothing.
const REFUSED_MAX: Duration = Duration::from_secs(60);
/// Connected this long, the next pause is a short one again.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Failed connections in a row after which the sources count as silent.
const SILENT_AFTER: u32 = 3;
/// A topic's garbage is logged at most once in this time.
const GARBAGE_LOG_EVERY: Duration = Duration::from_secs(60);
/// Topics whose last log is remembered; garbage on more topics goes unlogged, but counted.
const GARBAGE_TOPICS_MAX: usize = 256;
/// Bytes of a garbage payload, and of its topic, shown.
const GARBAGE_SAMPLE: usize = 64;
/// How often the list of unknown series is published, while it changes.
const UNKNOWN_EVERY: Duration = Duration::from_secs(2);
/// Longest time between two looks at what is due.
const TICK_MAX: Duration = Duration::from_secs(1);
/// Shortest likewise; what the thinner holds is due after 100 ms.
const TICK_MIN: Duration = Duration::from_millis(25);

/// Why a connection was left.
enum Left {
    Cancelled,
    Broken(LinkError),
    /// The engine will not make a message durable: have the broker send it again.
    AckLost,
    /// A clean session was begun; the lasting one follows.
    Cleaned,
}

/// What one source has gathered and not yet handed in.
struct Gathered {
    thinner: Thinner,
    batch: Heard,
    /// Messages that are acknowledged when the readings gathered are durable.
    waiting: Vec<u64>,
    /// The same of what the thinner holds.
    held: Vec<u64>,
    /// Messages that brought values since the last batch.
    good: u64,
    bad_times: u64,
}

/// The sources at one broker.
pub struct Tap {
    name: String,
    address: Address,
    client_id: String,
    routes: Routes,
    filters: Vec<Filter>,
    health: Vec<HealthCell>,
    gathered: Vec<Gathered>,
    heard: Heard,
    engine: EngineHandle,
    clock: Clock,
    rng: fastrand::Rng,
    logged: BTreeMap<String, Duration>,
    garbage: u64,
    unknown: u64,
    refused: Vec<String>,
    /// Arrival of the last message; the next one is later, so that no two readings of a tag have
    /// one time.
    arrived: Now,
    tick: Duration,
    unknown_told: Duration,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tap {
    /// A tap for these sources, which share a broker.
    ///
    /// Tags the plant does not know are left out.
    ///
    /// # Errors
    /// [`SourceError::Tls`], [`SourceError::Unsupported`].
    pub fn new(
        broker: &Broker,
        sources: &[MqttSource],
        plant: &Plant,
        published: &Published,
        engine: EngineHandle,
        clock: Clock,
        rng: fastrand::Rng,
    ) -> Result<Self, SourceError> {
        let mut routes = Routes::default();
        let mut health = Vec::new();
        let mut gathered = Vec::new();
        let mut keep_alive = Intake::KEEP_ALIVE.1;
        for source in sources {
            let Some(sender) = published.get(&source.name) else { continue };
            let place = routes.source(&source.intake);
            health.push(HealthCell::new(source.name.clone(), Arc::clone(sender)));
            gathered.push(Gathered::new(source.intake.max_rate));
            keep_alive = keep_alive.min(source.intake.keep_alive);
            for tag in &source.tags {
                if let Some(key) = plant.key(&tag.tag.path) {
                    routes.route(place, key, tag);
                }
            }
        }
        routes.finish();
        let interval = routes.shortest_interval().unwrap_or(TICK_MAX);
        let tick = (interval / 4).min(keep_alive / 4).clamp(TICK_MIN, TICK_MAX);
        Ok(Self {
            name: format!("{}:{}", broker.host, broker.port),
            address: Address::new(broker, keep_alive, HEAD_MAX + routes.payload_max())?,
            client_id: broker.client_id.clone(),
            filters: routes.subscriptions(),
            routes,
            health,
            gathered,
            heard: Heard::default(),
            arrived: clock.now(),
            engine,
            clock,
            rng,
            logged: BTreeMap::new(),
            garbage: 0,
            unknown: 0,
            refused: Vec::new(),
            tick,
            unknown_told: Duration::ZERO,
        })
    }

    /// Listens until cancelled.
    ///
    /// # Errors
    /// [`SourceError::Engine`] when the engine takes nothing any more.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), SourceError> {
        let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX, 0.5);
        let mut refusals = Backoff::new(RECONNECT_MIN, REFUSED_MAX, 0.5);
        let mut poisoned = 0;
        let mut clean = false;
        // The filters may have changed since the session was begun.
        let mut subscribed = false;
        loop {
            let began = self.clock.now().mono;
            let left = tokio::select! {
                () = cancel.cancelled() => Left::Cancelled,
                left = self.stay(clean, &mut subscribed) => left?,
            };
            self.forget();
            if self.clock.now().mono.saturating_sub(began) >= STABLE_AFTER {
                backoff.reset();
                refusals.reset();
                poisoned = 0;
            }
            let mut refused = false;
            match left {
                Left::Cancelled => return Ok(()),
                Left::Cleaned => {
                    (clean, subscribed) = (false, false);
                    continue;
                }
                Left::AckLost => {
                    self.note("readings were not made durable: asking the broker for them again");
                }
                Left::Broken(error) => {
                    poisoned += u32::from(error.is_poison());
                    refused = error.is_refusal();
                    let failures = backoff.failures().max(refusals.failures());
                    self.down(&error.chain(), failures + 1).await?;
                }
            }
            if poisoned >= POISON_MAX {
                poisoned = 0;
                self.discarded(true).await?;
                clean = true;
            }
            let pauses = if refused { &mut refusals } else { &mut backoff };
            let pause = pauses.next(&mut self.rng);
            let until = self.clock.now().mono + pause;
            // The silence of tags goes on being told while there is no connection.
            loop {
                let left = until.saturating_sub(self.clock.now().mono);
                if left.is_zero() {
                    break;
                }
                tokio::select! {
                    () = cancel.cancelled() => return Ok(()),
                    () = tokio::time::sleep(left.min(self.tick)) => {}
                }
                self.tell_silence().await?;
            }
        }
    }

    /// One connection, from connecting to its end. Dropped at any await when the task is cancelled:
    /// what was not acknowledged comes again.
    async fn stay(&mut self, clean: bool, subscribed: &mut bool) -> Result<Left, EngineStopped> {
        let mut link = match Link::open(&self.address, &self.client_id, clean).await {
            Ok(link) => link,
            Err(error) => return Ok(Left::Broken(error)),
        };
        if clean {
            wire::disconnect(&mut link.outbox);
            return Ok(match link.flush().await {
                Ok(()) => Left::Cleaned,
                Err(error) => Left::Broken(error),
            });
        }
        let now = self.clock.now().mono;
        let mut session = Session::new(link, self.address.version(), now);
        if *subscribed && session.link.session_present {
            self.up(&mut session).await?;
        } else {
            self.refused.clear();
            session.subscribe(&self.filters, now);
            *subscribed = false;
        }
        // What came in one piece with the CONNACK.
        if let Some(left) = self.take_in(&mut session, subscribed).await? {
            return Ok(left);
        }
        let mut due = now;
        loop {
            if let Err(error) = session.link.flush().await {
                return Ok(Left::Broken(error));
            }
            let wait = due.saturating_sub(self.clock.now().mono);
            // All three are cancel-safe: nothing is taken before it is there.
            let (read, told) = tokio::select! {
                biased;
                told = session::told(session.groups.front_mut()), if !session.groups.is_empty() => (None, Some(told)),
                read = session.link.read() => (Some(read), None),
                () = tokio::time::sleep(wait) => (None, None),
            };
            if told.is_some_and(|durable| !durable || !session.group_done()) {
                return Ok(Left::AckLost);
            }
            match read {
                Some(Ok(())) => {
                    if let Some(left) = self.take_in(&mut session, subscribed).await? {
                        return Ok(left);
                    }
                }
                Some(Err(error)) => return Ok(Left::Broken(error)),
                None => {}
            }
            session.acknowledge();
            let now = self.clock.now().mono;
            if now >= due {
                due = now + self.tick;
                if let Some(error) = session.overdue(now) {
                    return Ok(Left::Broken(error));
                }
                self.tick(&mut session, now).await?;
            }
            if self.gathered.iter().any(|gathered| gathered.thinner.holds()) {
                due = due.min(now + TICK_MIN);
            }
        }
    }

    /// All packets that have come.
    async fn take_in(
        &mut self,
        session: &mut Session,
        subscribed: &mut bool,
    ) -> Result<Option<Left>, EngineStopped> {
        use wire::Packet;
        session.heard_at = self.clock.now().mono;
        session.pinged_at = None;
        loop {
            let Session { link, acks, expected, .. } = &mut *session;
            match link.inbox.next_packet() {
                Ok(None) => break,
                Ok(Some(Packet::Message(message))) => {
                    let rebirth = self.message(&message, acks);
                    if let Some((group, node)) = rebirth {
                        session.ask_rebirth(&group, &node, self.clock.now().utc);
                    }
                }
                Ok(Some(Packet::SubAck { id, codes })) => {
                    let Some(filters) = expected.remove(&id) else { continue };
                    let refused = codes.iter().zip(&filters).filter(|(code, _)| **code >= 0x80);
                    self.refused.extend(refused.map(|(_, filter)| filter.as_str().to_owned()));
                    if expected.is_empty() {
                        *subscribed = true;
                        self.up(session).await?;
                    }
                }
                Ok(Some(Packet::Release { id })) => {
                    wire::answer(&mut link.outbox, wire::Answer::Complete, id);
                }
                Ok(Some(Packet::Disconnect { code })) => {
                    let what = wire::refusal(wire::Version::V5, code);
                    return Ok(Some(Left::Broken(LinkError::Dismissed { what, code })));
                }
                Ok(Some(Packet::ConnAck { .. } | Packet::Pong | Packet::Other)) => {}
                Err(error) => return Ok(Some(Left::Broken(error.into()))),
            }
        }
        self.hand_in(session, false).await?;
        Ok(None)
    }

    /// One message: its readings are gathered, and what to wait for before it is acknowledged is
    /// noted. Returns the node that is to be asked for its births.
    fn message(
        &mut self,
        message: &Message<'_>,
        acks: &mut session::Acks,
    ) -> Option<(String, String)> {
        let now = self.clock.now();
        self.arrived = Now {
            utc: now.utc.max(self.arrived.utc.after(Duration::from_micros(1))),
            // A clock that was set back is followed at once.
            ..now
        };
        if now.utc.after(Duration::from_secs(1)) < self.arrived.utc {
            self.arrived = now;
        }
        let at = self.arrived;
        let mut heard = std::mem::take(&mut self.heard);
        self.routes.hear(message, at, &mut heard);
        let mut failed = false;
        if let Some(error) = heard.error.take() {
            failed = true;
            self.reject(message, heard.source, &error);
        } else if heard.unknown && heard.source.is_none() {
            // A session that outlived a change of configuration still has the old topics.
            self.unknown += 1;
        }
        let ticket = (message.qos > 0).then(|| acks.expect(message.id, message.qos));
        let rebirth = heard.rebirth.take();
        if let Some(source) = heard.source
            && !heard.is_empty()
        {
            let gathered = &mut self.gathered[source];
            gathered.good += u64::from(!failed);
            gathered.take(&mut heard, at.mono, ticket, acks);
        }
        self.heard = heard;
        rebirth
    }

    /// Hands to the engine what is gathered; what the thinners hold only when it is due, or `all`.
    async fn hand_in(&mut self, session: &mut Session, all: bool) -> Result<(), EngineStopped> {
        let now = self.clock.now();
        for (gathered, health) in self.gathered.iter_mut().zip(&self.health) {
            gathered.release(now.mono, all);
            if gathered.good > 0 {
                health.goods(std::mem::take(&mut gathered.good), now.utc);
            }
            let source = health.name();
            if !gathered.batch.historical.is_empty() {
                let readings = std::mem::take(&mut gathered.batch.historical);
                let source = source.clone();
                let batch =
                    RawBatch { source, readings, extras: None, ack: None, historical: true };
                self.engine.send(Input::Readings(batch)).await?;
            }
            if gathered.batch.is_empty() {
                continue;
            }
            let readings = std::mem::take(&mut gathered.batch.readings);
            let extras = std::mem::take(&mut gathered.batch.extras);
            let some = !extras.texts.is_empty() || !extras.waveforms.is_empty();
            let ack = session.acks.group(&mut gathered.waiting, &mut session.groups);
            let source = source.clone();
            let extras = some.then(|| Box::new(extras));
            let batch = RawBatch { source, readings, extras, ack, historical: false };
            self.engine.send(Input::Readings(batch)).await?;
        }
        Ok(())
    }

    /// What is due now and then.
    async fn tick(&mut self, session: &mut Session, now: Duration) -> Result<(), EngineStopped> {
        self.hand_in(session, false).await?;
        self.tell_silence().await?;
        if now.saturating_sub(session.connected_at) >= STABLE_AFTER {
            self.discarded(false).await?;
        }
        if now.saturating_sub(self.unknown_told) < UNKNOWN_EVERY {
            return Ok(());
        }
        self.unknown_told = now;
        let engine = self.engine.clone();
        for (place, health) in self.health.iter_mut().enumerate() {
            let gathered = &self.gathered[place];
            let some = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}"));
            health.detail("payload times", some(gathered.bad_times, "unreadable"));
            health.detail("thinned", some(gathered.thinner.dropped(), "readings let go"));
            health.detail("unknown topics", some(self.unknown, "messages"));
            let Some(unknown) = self.routes.unknown(place) else { continue };
            let refused = unknown.refused();
            if let Some(list) = unknown.news() {
                health.detail("unknown series", some(list.len() as u64, "listed"));
                health.detail("refused series", some(refused, "messages"));
                health.unknown(list);
            }
            let name = health.name().to_string();
            health
                .condition(&engine, "series-refused", &name, refused > 0, Severity::Medium, || {
                    format!("source {name} has more unknown series than are listed (series_max)")
                })
                .await?;
        }
        Ok(())
    }

    /// Tags that were expected and did not come.
    async fn tell_silence(&mut self) -> Result<(), EngineStopped> {
        let mut silent: Vec<(usize, RawReading)> = Vec::new();
        self.routes.silent(self.clock.now(), |source, reading| silent.push((source, reading)));
        for (source, reading) in silent {
            let source = self.health[source].name().clone();
            let readings = vec![reading];
            let batch = RawBatch { source, readings, extras: None, ack: None, historical: false };
            self.engine.send(Input::Readings(batch)).await?;
        }
        Ok(())
    }

    /// Nothing that waited in a connection outlives it; the broker sends it again.
    fn forget(&mut self) {
        for gathered in &mut self.gathered {
            gathered.forget();
        }
        self.routes.host().disconnected();
    }

    /// Counts a message nothing could be made of, and shows one per topic and minute.
    fn reject(&mut self, message: &Message<'_>, source: Option<usize>, error: &MessageError) {
        let Some(health) = self.health.get(source.unwrap_or(0)) else { return };
        let now = self.clock.now().mono;
        self.garbage += 1;
        let topic = &message.topic[..message.topic.len().min(4 * GARBAGE_SAMPLE)];
        let topic = topic.escape_ascii().to_string();
        health.failed(1, &format!("{topic}: {error}"));
        if self.logged.len() >= GARBAGE_TOPICS_MAX || self.logged.contains_key(&topic) {
            self.logged.retain(|_, at| now.saturating_sub(*at) < GARBAGE_LOG_EVERY);
        }
        if self.logged.contains_key(&topic) || self.logged.len() >= GARBAGE_TOPICS_MAX {
            return;
        }
        let sample = &message.payload[..message.payload.len().min(GARBAGE_SAMPLE)];
        tracing::warn!(
            source = %health.name(),
            topic,
            %error,
            sample = %sample.escape_ascii(),
            unreadable = self.garbage,
            "message could not be read"
        );
        self.logged.insert(topic, now);
    }

    /// Subscribed: messages may come.
    async fn up(&mut self, session: &mut Session) -> Result<(), EngineStopped> {
        session.subscribing_since = None;
        let now = self.clock.now();
        for (group, node) in self.routes.host().unborn(now.mono) {
            session.ask_rebirth(&group, &node, now.utc);
        }
        let refused = self.refused.join(" ");
        let (address, engine) = (self.name.clone(), self.engine.clone());
        for health in &mut self.health {
            let name = health.name().to_string();
            health.state(if refused.is_empty() { UP } else { DEGRADED });
            health.detail("refused topics", (!refused.is_empty()).then(|| refused.clone()));
            health
                .condition(&engine, "source-silent", &name, false, Severity::High, || {
                    format!("source {name} is connected to {address}")
                })
                .await?;
            let active = !refused.is_empty();
            health
                .condition(&engine, "point-refused", &name, active, Severity::Medium, || {
                    if active {
                        format!("broker {address} refuses the subscription of {refused}")
                    } else {
                        format!("broker {address} takes all subscriptions of {name}")
                    }
                })
                .await?;
        }
        Ok(())
    }

    async fn down(&mut self, error: &str, failures: u32) -> Result<(), EngineStopped> {
        tracing::debug!(broker = %self.name, error, "connection to the broker ended");
        let (address, engine) = (self.name.clone(), self.engine.clone());
        for health in &mut self.health {
            health.state(DOWN);
            health.error(error);
            if failures >= SILENT_AFTER {
                let name = health.name().to_string();
                health
                    .condition(&engine, "source-silent", &name, true, Severity::High, || {
                        format!("source {name} has no connection to {address}: {error}")
                    })
                    .await?;
            }
        }
        Ok(())
    }

    async fn discarded(&mut self, active: bool) -> Result<(), EngineStopped> {
        let (address, engine) = (self.name.clone(), self.engine.clone());
        for health in &mut self.health {
            let name = health.name().to_string();
            health
                .condition(&engine, "messages-discarded", &name, active, Severity::Medium, || {
                    if active {
                        format!(
                            "broker {address} kept sending what is no MQTT; the session was begun \
                             anew and what waited in it is lost"
                        )
                    } else {
                        format!("broker {address} sends nothing that cannot be taken in")
                    }
                })
                .await?;
        }
        Ok(())
    }

    fn note(&self, error: &str) {
        for health in &self.health {
            health.error(error);
        }
    }
}

impl Gathered {
    fn new(max_rate: u32) -> Self {
        Self {
            thinner: Thinner::new(max_rate),
            batch: Heard::default(),
            waiting: Vec::new(),
            held: Vec::new(),
            good: 0,
            bad_times: 0,
        }
    }

    fn forget(&mut self) {
        self.thinner.release(&mut Vec::new());
        self.batch = Heard::default();
        self.waiting.clear();
        self.held.clear();
    }

    /// Takes what a message brought; `ticket` is its place among the messages to be acknowledged.
    fn take(
        &mut self,
        heard: &mut Heard,
        now: Duration,
        ticket: Option<u64>,
        acks: &mut session::Acks,
    ) {
        self.bad_times += u64::from(heard.bad_time);
        let before = self.batch.readings.len();
        let mut held = false;
        for reading in heard.readings.drain(..) {
            match self.thinner.take(now, reading) {
                Some(reading) => self.batch.readings.push(reading),
                None => held = true,
            }
        }
        let extras = &mut self.batch.extras;
        let rest = !heard.historical.is_empty()
            || !heard.extras.texts.is_empty()
            || !heard.extras.waveforms.is_empty()
            || self.batch.readings.len() > before;
        self.batch.historical.append(&mut heard.historical);
        extras.texts.append(&mut heard.extras.texts);
        extras.waveforms.append(&mut heard.extras.waveforms);
        let Some(ticket) = ticket else { return };
        if held {
            self.held.push(ticket);
        } else if rest {
            self.waiting.push(ticket);
        } else {
            return;
        }
        acks.wait(ticket);
    }

    /// Adds what the thinner holds, when it is due.
    fn release(&mut self, now: Duration, all: bool) {
        let crowded = self.held.len() >= flood::WAITING_MAX;
        if self.thinner.holds() && (all || crowded || self.thinner.is_due(now)) {
            self.thinner.release(&mut self.batch.readings);
            self.waiting.append(&mut self.held);
        }
    }
}
