//! One poll of one source, for a person who wants to know what is really there. Nothing is kept and
//! the daemon is not needed; at a broker it is another client, which takes nothing from the daemon's
//! session.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Clock;
use crate::config::{ModbusSource, MqttSource, Point, TagConfig};
use crate::domain::ids::TagKey;
use crate::domain::reading::{Quality, RawValue, Reason};
use crate::sources::breaker::handling;
use crate::sources::line::{Answer, Line, LineError};
use crate::sources::mqtt::routes::{Heard, Routes};
use crate::sources::mqtt::wire::{self, HEAD_MAX, Packet};
use crate::sources::mqtt::{Address, Link, LinkError};
use crate::sources::poll_class::{ClassPoint, PlannedRead, PollClass};
use crate::sources::topics::Filter;
use crate::sources::{SourceError, decode};

/// Bytes of a payload shown.
const SAMPLE_MAX: usize = 64;
/// Filters in one SUBSCRIBE; it must fit a broker's packet limit.
const FILTERS_MAX: usize = 50;

/// Why nothing could be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The server cannot be reached.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The broker cannot be used as configured.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The broker cannot be reached, or ended the connection.
    #[error("connecting to {broker}")]
    Broker {
        /// Host and port.
        broker: String,
        /// Why.
        source: LinkError,
    },
}

/// What was found of one tag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probed {
    /// `asset/tag`.
    pub tag: String,
    /// Registers in hexadecimal, bits, or the payload.
    pub raw: String,
    /// Value in the tag's unit.
    pub value: Option<f64>,
    /// The unit.
    pub unit: String,
    /// `good`, `uncertain` or `bad`.
    pub quality: &'static str,
    /// Why it is not good.
    pub reason: Option<&'static str>,
    /// From the request to the answer; at a broker, from the subscription to the message.
    pub round_trip_ms: Option<f64>,
    /// What went wrong, in words.
    pub note: String,
}

impl Probed {
    fn new(tag: &TagConfig, raw: String, value: RawValue, took: Option<Duration>) -> Self {
        let (value, quality) = judged(tag, value);
        Self {
            tag: tag.path.to_string(),
            raw,
            value,
            unit: tag.unit.clone(),
            quality: quality.as_str(),
            reason: quality.reason().map(Reason::as_str),
            round_trip_ms: took.map(|took| took.as_secs_f64() * 1e3),
            note: String::new(),
        }
    }
}

/// Scale, offset and what can be said of a single value; the rest of judging is acquisition's.
fn judged(tag: &TagConfig, value: RawValue) -> (Option<f64>, Quality) {
    let raw = match value {
        RawValue::Failed(reason) => return (None, Quality::Bad(reason)),
        RawValue::Scaled(value, quality) => return (Some(value), quality),
        RawValue::Number(raw) => raw,
    };
    if !raw.is_finite() {
        return (None, Quality::Bad(Reason::Nan));
    }
    // A sentinel is an exact bit pattern, not a measurement near it.
    if tag.invalid.iter().any(|invalid| invalid.to_bits() == raw.to_bits()) {
        return (None, Quality::Bad(Reason::Sentinel));
    }
    let value = raw * tag.scale + tag.offset;
    if !value.is_finite() {
        return (None, Quality::Bad(Reason::Nan));
    }
    let outside = tag.range.is_some_and(|(low, high)| !(low..=high).contains(&value));
    (Some(value), if outside { Quality::Bad(Reason::Range) } else { Quality::Good })
}

/// One poll of a Modbus source, every request once.
///
/// # Errors
/// [`ProbeError::Line`] when there is no connection.
pub async fn modbus(source: &ModbusSource, clock: &Clock) -> Result<Vec<Probed>, ProbeError> {
    let mut rng = fastrand::Rng::with_seed(0);
    let mut line = Line::new(&source.host, source.port);
    line.connect().await?;
    let mut units: BTreeMap<u8, Vec<(usize, ClassPoint)>> = BTreeMap::new();
    for (place, tag) in source.tags.iter().enumerate() {
        let key = TagKey(u32::try_from(place).unwrap_or(u32::MAX));
        let point = ClassPoint { key, path: tag.tag.path.clone(), point: tag.point };
        units.entry(tag.point.unit).or_default().push((place, point));
    }
    let mut found = BTreeMap::new();
    for (unit, members) in units {
        let (places, points): (Vec<usize>, Vec<ClassPoint>) = members.into_iter().unzip();
        let class = PollClass::new(0, 0, points, source.poll, source.max_registers);
        let mut stack: Vec<PlannedRead> = class.plan().iter().rev().cloned().collect();
        while let Some(read) = stack.pop() {
            if line.retry_at().is_some() {
                line.connect().await?;
            }
            let asked = clock.now().mono;
            let (address, count) = (read.block.address, read.block.count);
            let answer = line.read(unit, read.table, address, count, source.timeout).await;
            let took = clock.now().mono.saturating_sub(asked);
            if let Ok(Answer::Exception(2 | 3)) = answer
                && let Some((left, right)) = class.halves(&read)
            {
                stack.extend([right, left]);
                continue;
            }
            for &point in read.block.points.iter() {
                let tag = &source.tags[places[point]];
                let (raw, value, note) = shown(&tag.point, address, &answer);
                let took = answer.is_ok().then_some(took);
                let mut row = Probed::new(&tag.tag, raw, value, took);
                row.note = note;
                found.insert(places[point], row);
            }
            if answer.is_err() {
                line.drop_connection(clock.now().mono, &mut rng);
            }
        }
    }
    Ok(found.into_values().collect())
}

fn shown(
    point: &Point,
    address: u16,
    answer: &Result<Answer, LineError>,
) -> (String, RawValue, String) {
    let from = usize::from(point.address - address);
    match answer {
        Ok(Answer::Registers(words)) => {
            let own = words.iter().skip(from).take(usize::from(point.kind.registers()));
            let hex: Vec<String> = own.map(|word| format!("{word:04x}")).collect();
            (hex.join(" "), decode::point(point, address, words), String::new())
        }
        Ok(Answer::Bits(bits)) => {
            let bit = bits.get(from).map_or("", |bit| if *bit { "1" } else { "0" });
            (bit.to_owned(), decode::coil(point, address, bits), String::new())
        }
        Ok(Answer::Exception(code)) => {
            let reason = handling(*code).reason;
            (String::new(), RawValue::Failed(reason), format!("exception {code}"))
        }
        Err(error) => (String::new(), RawValue::Failed(Reason::Comm), error.chain()),
    }
}

/// The first message of every tag of an MQTT source, waiting at most `patience` for all of them.
///
/// # Errors
/// [`ProbeError::Source`], [`ProbeError::Broker`].
pub async fn mqtt(
    source: &MqttSource,
    patience: Duration,
    clock: &Clock,
) -> Result<Vec<Probed>, ProbeError> {
    let mut routes = Routes::default();
    let place = routes.source(&source.intake);
    for (number, tag) in source.tags.iter().enumerate() {
        routes.route(place, TagKey(u32::try_from(number).unwrap_or(u32::MAX)), tag);
    }
    routes.finish();
    let packet_max = HEAD_MAX + routes.payload_max();
    let address = Address::new(&source.broker, source.intake.keep_alive, packet_max)?;
    let mut found: BTreeMap<usize, Probed> = BTreeMap::new();
    let listening = listen(source, &address, &mut routes, clock, &mut found);
    match tokio::time::timeout(patience, listening).await {
        // Not all of them spoke in time; that is what the rows say.
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(source_error)) => {
            let broker = format!("{}:{}", source.broker.host, source.broker.port);
            return Err(ProbeError::Broker { broker, source: source_error });
        }
    }
    for (place, tag) in source.tags.iter().enumerate() {
        found.entry(place).or_insert_with(|| {
            let nothing = RawValue::Failed(Reason::Comm);
            let mut row = Probed::new(&tag.tag, String::new(), nothing, None);
            row.note = format!("no message on {} within {patience:?}", tag.topic);
            row
        });
    }
    Ok(found.into_values().collect())
}

/// Listens as another client, in a session of its own, until every tag has spoken.
async fn listen(
    source: &MqttSource,
    address: &Address,
    routes: &mut Routes,
    clock: &Clock,
    found: &mut BTreeMap<usize, Probed>,
) -> Result<(), LinkError> {
    let id = format!("{}-probe-{}", source.broker.client_id, std::process::id());
    let mut link = Link::open(address, &id, true).await?;
    let began = clock.now().mono;
    let filters = routes.subscriptions();
    for (id, filters) in (1..).zip(filters.chunks(FILTERS_MAX)) {
        let texts = filters.iter().map(Filter::as_str);
        wire::subscribe(&mut link.outbox, address.version(), id, texts, 0);
    }
    link.flush().await?;
    let mut heard = Heard::default();
    while found.len() < source.tags.len() {
        link.read().await?;
        let now = clock.now();
        while let Some(packet) = link.inbox.next()? {
            let Packet::Message(message) = packet else { continue };
            routes.hear(&message, now, &mut heard);
            let sample = &message.payload[..message.payload.len().min(SAMPLE_MAX)];
            let raw = sample.escape_ascii().to_string();
            let took = now.mono.saturating_sub(began);
            let mut keep = |tag: TagKey, value: RawValue, note: String| {
                let place = tag.0 as usize;
                found.entry(place).or_insert_with(|| {
                    let mut row =
                        Probed::new(&source.tags[place].tag, raw.clone(), value, Some(took));
                    row.note = note;
                    row
                });
            };
            for reading in heard.readings.iter().chain(&heard.historical) {
                let note = if reading.retained { "retained" } else { "" };
                keep(reading.tag, reading.value, note.to_owned());
            }
            for burst in &heard.extras.waveforms {
                let last = burst.samples.last().copied().unwrap_or(f32::NAN);
                let note = format!("{} samples, the last one shown", burst.samples.len());
                keep(burst.tag, RawValue::Number(f64::from(last)), note);
            }
            for text in &heard.extras.texts {
                keep(text.tag, RawValue::Failed(Reason::Nan), format!("text: {}", text.text));
            }
        }
    }
    Ok(())
}
