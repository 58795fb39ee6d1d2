//! I/O: subscribes at a broker and acknowledges a message only when its readings are durable.
//!
//! The session is kept by the broker over our absence, so what was not acknowledged comes again.
//! Acknowledgements go out in the order of the messages; as many may be outstanding as the broker
//! allows (its packet ids bound them to 65,535). What the client library takes in once a connection
//! is lost is forgotten: a stale packet id may name another message in the next session.
//!
//! A packet the library cannot digest (too large, broken) ends the connection, and the broker would
//! send it again for ever: after [`POISON_MAX`] such ends the session is begun anew, once, at the
//! price of what waited in it, and a condition says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{
    AsyncClient, ConnAck, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Packet,
    Publish, QoS, StateError, SubAck, SubscribeFilter, SubscribeReasonCode, TlsConfiguration,
    Transport,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::{Broker, MqttSource, MqttTag, Payload};
use crate::domain::ids::TagKey;
use crate::domain::reading::{Ack, RawBatch, RawReading};
use crate::domain::severity::Severity;
use crate::domain::tag::Plant;
use crate::port::{EngineHandle, EngineStopped, Input};
use crate::sources::health::{DEGRADED, DOWN, HealthCell, UP};
use crate::sources::payload::{self, PayloadError, Pointer};
use crate::sources::topics::{Filter, subscriptions};
use crate::sources::{Published, SourceError};

/// Largest packet the library takes; above [`payload::BYTES_MAX`], so that a message that is merely
/// too long is dropped in peace.
const PACKET_MAX: usize = 256 * 1024;
/// Connections that may end on an indigestible packet before the session is begun anew.
pub const POISON_MAX: u32 = 3;
/// TCP, TLS and CONNACK together; also for flushing.
const CONNECT_SECONDS: u64 = 10;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const RECONNECT_MIN: Duration = Duration::from_secs(1);
const RECONNECT_MAX: Duration = Duration::from_secs(60);
/// Connected this long, the next pause is a short one again.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Failed connections in a row after which the sources count as silent.
const SILENT_AFTER: u32 = 3;
/// Filters in one SUBSCRIBE; it must fit a broker's packet limit.
const FILTERS_MAX: usize = 50;
/// Requests that may wait for the library: one acknowledgement per packet id and the subscriptions,
/// so that it is never full.
const REQUESTS_MAX: usize = u16::MAX as usize + 1024;
/// A topic's garbage is logged at most once in this time.
const GARBAGE_LOG_EVERY: Duration = Duration::from_secs(60);
/// Topics whose last log is remembered; garbage on more topics goes unlogged, but counted.
const GARBAGE_TOPICS_MAX: usize = 256;
/// Bytes of a garbage payload shown.
const GARBAGE_SAMPLE: usize = 64;

#[derive(Debug)]
enum Format {
    Json { pointer: Pointer, time: Option<Pointer> },
    Text,
}

#[derive(Debug)]
struct Subscribed {
    source: usize,
    key: TagKey,
    filter: Filter,
    format: Format,
}

/// The tags of the sources at one broker, found by topic.
#[derive(Debug, Default)]
pub(super) struct Routes {
    tags: Vec<Subscribed>,
    exact: BTreeMap<String, Vec<usize>>,
    wild: Vec<usize>,
}

impl Routes {
    /// Adds a tag, unless its topic or pointer is one no broker or document could have; the
    /// configuration refuses those.
    pub(super) fn route(&mut self, source: usize, key: TagKey, tag: &MqttTag) {
        let filter = Filter::new(&tag.topic, &tag.tag.path);
        if let (Some(filter), Some(format)) = (filter, format_of(&tag.payload)) {
            self.add(Subscribed { source, key, filter, format });
        }
    }

    /// The filters to subscribe to.
    pub(super) fn subscriptions(&self) -> Vec<Filter> {
        let filters: Vec<Filter> = self.tags.iter().map(|tag| tag.filter.clone()).collect();
        subscriptions(&filters)
    }

    fn add(&mut self, tag: Subscribed) {
        let place = self.tags.len();
        if tag.filter.is_exact() {
            self.exact.entry(tag.filter.as_str().to_owned()).or_default().push(place);
        } else {
            self.wild.push(place);
        }
        self.tags.push(tag);
    }

    fn of(&self, topic: &str) -> impl Iterator<Item = &Subscribed> {
        let exact = self.exact.get(topic).map_or(&[][..], Vec::as_slice).iter();
        let wild = self.wild.iter();
        let wild = wild.filter(move |&&place| self.tags[place].filter.matches(topic));
        exact.chain(wild).map(|&place| &self.tags[place])
    }
}

/// What came of a message.
#[derive(Debug, Default)]
pub(super) struct Heard {
    source: usize,
    pub(super) readings: Vec<RawReading>,
    error: Option<PayloadError>,
    bad_time: bool,
    /// No tag has this topic.
    unknown: bool,
}

/// A message that waits to be acknowledged.
struct Waiting {
    /// The message without topic and payload.
    stub: Publish,
    /// Fires when it is durable; `None` when there is nothing to wait for.
    durable: Option<oneshot::Receiver<()>>,
}

/// Why a connection was left.
enum Left {
    Cancelled,
    Broken(ConnectionError),
    /// The engine will not make a message durable: have the broker send it again.
    AckLost,
    /// A clean session was begun; the lasting one follows.
    Cleaned,
}

/// The sources at one broker.
pub struct Tap {
    address: String,
    options: MqttOptions,
    routes: Routes,
    filters: Vec<Filter>,
    health: Vec<HealthCell>,
    engine: EngineHandle,
    clock: Clock,
    rng: fastrand::Rng,
    logged: BTreeMap<String, Duration>,
    garbage: u64,
    unknown: u64,
    bad_times: u64,
    refused: Vec<String>,
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
        for source in sources {
            let Some(sender) = published.get(&source.name) else { continue };
            let place = health.len();
            health.push(HealthCell::new(source.name.clone(), Arc::clone(sender)));
            for tag in &source.tags {
                if let Some(key) = plant.key(&tag.tag.path) {
                    routes.route(place, key, tag);
                }
            }
        }
        Ok(Self {
            address: format!("{}:{}", broker.host, broker.port),
            options: options(broker, &broker.client_id, false)?,
            filters: routes.subscriptions(),
            routes,
            health,
            engine,
            clock,
            rng,
            logged: BTreeMap::new(),
            garbage: 0,
            unknown: 0,
            bad_times: 0,
            refused: Vec::new(),
        })
    }

    /// Listens until cancelled.
    ///
    /// # Errors
    /// [`SourceError::Engine`] when the engine takes nothing any more.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), SourceError> {
        let (client, mut connection) = AsyncClient::new(self.options.clone(), REQUESTS_MAX);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_SECONDS);
        connection.set_network_options(network);
        let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX, 1.0);
        let mut poisoned = 0;
        // The filters may have changed since the session was begun.
        let mut subscribed = false;
        loop {
            let mut session =
                Session { connected_at: None, stable: false, waiting: VecDeque::new() };
            let left =
                self.stay(&cancel, &client, &mut connection, &mut session, &mut subscribed).await?;
            if session.stable {
                backoff.reset();
                poisoned = 0;
            }
            forget(&mut connection);
            match left {
                Left::Cancelled => return Ok(()),
                Left::Cleaned => {
                    connection.mqtt_options.set_clean_session(false);
                    subscribed = false;
                    continue;
                }
                Left::AckLost => {
                    self.note("readings were not made durable: asking the broker for them again");
                }
                Left::Broken(error) => {
                    if is_poison(&error) {
                        poisoned += 1;
                    }
                    self.down(&error.to_string(), backoff.failures() + 1).await?;
                }
            }
            if poisoned >= POISON_MAX {
                poisoned = 0;
                self.discarded(true).await?;
                connection.mqtt_options.set_clean_session(true);
            }
            let pause = backoff.next(&mut self.rng);
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One connection, from connecting to its end.
    async fn stay(
        &mut self,
        cancel: &CancellationToken,
        client: &AsyncClient,
        connection: &mut EventLoop,
        session: &mut Session,
        subscribed: &mut bool,
    ) -> Result<Left, EngineStopped> {
        let mut expected: VecDeque<Vec<Filter>> = VecDeque::new();
        loop {
            let cleaning = connection.mqtt_options.clean_session();
            let event = {
                // The library's poll is not cancel-safe (it may hold a half-written packet), so it
                // is kept while acknowledgements are handed in beside it.
                let mut poll = std::pin::pin!(connection.poll());
                loop {
                    let until_stable = self.until_stable(session);
                    tokio::select! {
                        biased;
                        () = cancel.cancelled() => return Ok(Left::Cancelled),
                        told = told(session.waiting.front_mut()), if !session.waiting.is_empty() => {
                            if !told {
                                return Ok(Left::AckLost);
                            }
                            let Some(done) = session.waiting.pop_front() else { continue };
                            client.try_ack(&done.stub).ok();
                        }
                        () = tokio::time::sleep(until_stable), if !session.stable => {
                            session.stable = session.connected_at.is_some();
                            if session.stable {
                                self.discarded(false).await?;
                            }
                        }
                        event = &mut poll => break event,
                    }
                }
            };
            match event {
                Err(error) => return Ok(Left::Broken(error)),
                Ok(Event::Incoming(Packet::ConnAck(_))) if cleaning => return Ok(Left::Cleaned),
                Ok(Event::Incoming(Packet::ConnAck(ConnAck { session_present, .. }))) => {
                    session.connected_at = Some(self.clock.now().mono);
                    if *subscribed && session_present {
                        self.up().await?;
                    } else {
                        self.subscribe(client, &mut expected);
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(suback))) => {
                    if let Some(filters) = expected.pop_front() {
                        self.subscribed(&suback, &filters);
                    }
                    if expected.is_empty() {
                        *subscribed = true;
                        self.up().await?;
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    session.waiting.extend(self.heard(publish).await?);
                }
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            }
        }
    }

    /// How long this connection has yet to last before it counts as stable.
    fn until_stable(&self, session: &Session) -> Duration {
        let lasted = session
            .connected_at
            .map_or(Duration::ZERO, |at| self.clock.now().mono.saturating_sub(at));
        STABLE_AFTER.saturating_sub(lasted)
    }

    fn subscribe(&mut self, client: &AsyncClient, expected: &mut VecDeque<Vec<Filter>>) {
        self.refused.clear();
        expected.clear();
        for filters in self.filters.chunks(FILTERS_MAX) {
            let wanted = filters
                .iter()
                .map(|filter| SubscribeFilter::new(filter.as_str().to_owned(), QoS::AtLeastOnce));
            match client.try_subscribe_many(wanted) {
                Ok(()) => expected.push_back(filters.to_vec()),
                Err(error) => tracing::error!(%error, "subscription could not be queued"),
            }
        }
    }

    fn subscribed(&mut self, suback: &SubAck, filters: &[Filter]) {
        for (code, filter) in suback.return_codes.iter().zip(filters) {
            match code {
                SubscribeReasonCode::Success(_) => {}
                SubscribeReasonCode::Failure => self.refused.push(filter.as_str().to_owned()),
            }
        }
    }

    /// One message: readings to the engine, and what to wait for before it is acknowledged.
    async fn heard(&mut self, publish: Publish) -> Result<Option<Waiting>, EngineStopped> {
        let arrived = self.clock.now();
        let mut heard =
            listen(&self.routes, &publish.topic, &publish.payload, publish.retain, arrived.utc);
        if heard.bad_time {
            self.bad_times += 1;
            let text = format!("{} unreadable", self.bad_times);
            self.health[heard.source].detail("payload times", Some(text));
        }
        if let Some(error) = heard.error.take() {
            self.reject(&publish, heard.source, &error);
        }
        if heard.unknown {
            // A session that outlived a change of configuration still has the old topics.
            self.unknown += 1;
            let text = format!("{} messages", self.unknown);
            self.detail("unknown topics", &text);
        }
        let mut durable = None;
        if !heard.readings.is_empty() {
            let health = &self.health[heard.source];
            health.good(arrived.utc);
            let mut ack = None;
            if publish.qos != QoS::AtMostOnce {
                let (told, telling) = oneshot::channel();
                ack = Some(Ack(told));
                durable = Some(telling);
            }
            let source = health.name().clone();
            let batch =
                RawBatch { source, readings: heard.readings, extras: None, ack, historical: false };
            self.engine.send(Input::Readings(batch)).await?;
        }
        let stub = Publish { topic: String::new(), payload: bytes::Bytes::new(), ..publish };
        Ok((stub.qos != QoS::AtMostOnce).then_some(Waiting { stub, durable }))
    }

    /// Counts a message nothing could be made of, and shows one per topic and minute.
    fn reject(&mut self, publish: &Publish, source: usize, error: &PayloadError) {
        let Some(health) = self.health.get(source) else { return };
        let now = self.clock.now().mono;
        self.garbage += 1;
        health.failed(1, &format!("{}: {error}", publish.topic));
        self.logged.retain(|_, at| now.saturating_sub(*at) < GARBAGE_LOG_EVERY);
        if self.logged.contains_key(&publish.topic) || self.logged.len() >= GARBAGE_TOPICS_MAX {
            return;
        }
        self.logged.insert(publish.topic.clone(), now);
        let sample = &publish.payload[..publish.payload.len().min(GARBAGE_SAMPLE)];
        tracing::warn!(
            source = %health.name(),
            topic = %publish.topic,
            %error,
            sample = %sample.escape_ascii(),
            dropped = self.garbage,
            "payload dropped"
        );
    }

    async fn up(&mut self) -> Result<(), EngineStopped> {
        let refused = self.refused.join(" ");
        let (address, engine) = (self.address.clone(), self.engine.clone());
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
        tracing::debug!(broker = %self.address, error, "connection to the broker ended");
        let (address, engine) = (self.address.clone(), self.engine.clone());
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
        let (address, engine) = (self.address.clone(), self.engine.clone());
        for health in &mut self.health {
            let name = health.name().to_string();
            health
                .condition(&engine, "messages-discarded", &name, active, Severity::Medium, || {
                    if active {
                        format!(
                            "broker {address} kept sending a packet that cannot be taken in; the \
                             session was begun anew and what waited in it is lost"
                        )
                    } else {
                        format!("broker {address} sends nothing that cannot be taken in")
                    }
                })
                .await?;
        }
        Ok(())
    }

    fn detail(&self, name: &str, text: &str) {
        for health in &self.health {
            health.detail(name, Some(text.to_owned()));
        }
    }

    fn note(&self, error: &str) {
        for health in &self.health {
            health.error(error);
        }
    }
}

/// What lasts as long as one connection.
struct Session {
    connected_at: Option<Duration>,
    /// It has lasted [`STABLE_AFTER`].
    stable: bool,
    waiting: VecDeque<Waiting>,
}

/// Whether the oldest waiting message is durable; cancel-safe, as nothing is taken out.
async fn told(waiting: Option<&mut Waiting>) -> bool {
    match waiting.and_then(|waiting| waiting.durable.as_mut()) {
        Some(durable) => durable.await.is_ok(),
        None => true,
    }
}

/// Closes the connection and forgets all that belongs to it.
fn forget(connection: &mut EventLoop) {
    connection.clean();
    connection.state.events.clear();
    connection.pending.clear();
}

/// Whether the end came from a packet that will come again.
fn is_poison(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(error)) => {
            !matches!(error, PacketError::Io(_))
        }
        ConnectionError::MqttState(_)
        | ConnectionError::NetworkTimeout
        | ConnectionError::FlushTimeout
        | ConnectionError::Tls(_)
        | ConnectionError::Io(_)
        | ConnectionError::ConnectionRefused(_)
        | ConnectionError::NotConnAck(_)
        | ConnectionError::RequestsDone => false,
    }
}

fn format_of(payload: &Payload) -> Option<Format> {
    match payload {
        Payload::Text => Some(Format::Text),
        Payload::Json { pointer, time_pointer } => {
            let time = match time_pointer {
                Some(time) => Some(Pointer::parse(time)?),
                None => None,
            };
            Some(Format::Json { pointer: Pointer::parse(pointer)?, time })
        }
    }
}

pub(super) fn listen(
    routes: &Routes,
    topic: &str,
    payload: &[u8],
    retained: bool,
    arrived: crate::domain::time::Timestamp,
) -> Heard {
    let mut heard = Heard { unknown: true, ..Heard::default() };
    let mut bounds_checked = false;
    for tag in routes.of(topic) {
        heard.unknown = false;
        if heard.readings.is_empty() {
            heard.source = tag.source;
        }
        let is_json = matches!(tag.format, Format::Json { .. });
        if !bounds_checked {
            if let Err(error) = payload::within_bounds(payload, is_json) {
                heard.error = Some(error);
                return heard;
            }
            bounds_checked = is_json;
        }
        let value = match &tag.format {
            Format::Text => payload::text(payload),
            Format::Json { pointer, .. } => payload::json(payload, pointer),
        };
        let value = match value {
            Ok(value) => value,
            Err(error) => {
                heard.error = Some(error);
                continue;
            }
        };
        let mut source_time = None;
        if let Format::Json { time: Some(pointer), .. } = &tag.format {
            source_time = payload::json_time(payload, pointer);
            heard.bad_time |= source_time.is_none();
        }
        heard.readings.push(RawReading { tag: tag.key, source_time, arrived, value, retained });
    }
    if !heard.readings.is_empty() {
        // Several tags may share a topic whose messages carry some of them at a time.
        heard.error = None;
    }
    heard
}

pub(super) fn options(
    broker: &Broker,
    client_id: &str,
    clean: bool,
) -> Result<MqttOptions, SourceError> {
    let address = || format!("{}:{}", broker.host, broker.port);
    if broker.websocket {
        return Err(SourceError::Unsupported { broker: address(), what: "MQTT over websocket" });
    }
    if broker.v5 {
        return Err(SourceError::Unsupported { broker: address(), what: "MQTT 5" });
    }
    let mut options = MqttOptions::new(client_id, &broker.host, broker.port);
    options
        .set_keep_alive(KEEP_ALIVE)
        // A lasting session needs a name; the configuration gives one.
        .set_clean_session(clean || client_id.is_empty())
        .set_manual_acks(true)
        .set_max_packet_size(PACKET_MAX, PACKET_MAX);
    if let Some(username) = &broker.username {
        let password = broker.password.as_ref().map_or("", |password| password.expose());
        options.set_credentials(username, password);
    }
    if broker.tls {
        let config = crate::tls::client_config(broker)
            .map_err(|source| SourceError::Tls { broker: address(), source })?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
    }
    Ok(options)
}
