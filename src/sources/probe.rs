//! One poll of one source, for a person who wants to know what is really there. Nothing is kept and
//! the daemon is not needed; at a broker it is another client, which takes nothing from the daemon's
//! session.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::agents::Acquire as _;
use crate::agents::acquisition::Acquisition;
use crate::clock::Clock;
use crate::config::{ModbusSource, MqttSource, Point, Table, TagConfig};
use crate::domain::ids::{SourceId, TagKey};
use crate::domain::reading::{Extras, Quality, RawBatch, Reading, Reason};
use crate::domain::tag::Plant;
use crate::domain::time::Now;
use crate::sources::breaker::handling;
use crate::sources::gather::Gathered;
use crate::sources::guess::{Guess, REGISTERS_MAX, guesses};
use crate::sources::line::{Answer, Line, LineError};
use crate::sources::modbus::read_rules;
use crate::sources::mqtt::routes::{Heard, Routes};
use crate::sources::mqtt::wire::{self, HEAD_MAX, Packet};
use crate::sources::mqtt::{Address, Link, LinkError};
use crate::sources::poll_class::{ClassPoint, PlannedRead, PollClass};
use crate::sources::topics::Filter;
use crate::sources::{SourceError, decode, long_read};

/// Bytes of a payload shown.
const SAMPLE_MAX: usize = 64;
/// Registers of a tag shown.
const WORDS_MAX: usize = 8;
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
    /// Value in the tag's unit; of a burst its RMS about the mean.
    pub value: Option<f64>,
    /// The name of the state, or the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
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

/// Judges what was found with the code that judges for the daemon.
struct Judge {
    plant: Plant,
    stage: Acquisition,
    source: SourceId,
}

impl Judge {
    /// For these tags, which are numbered in their order.
    fn new<'a>(source: &SourceId, tags: impl Iterator<Item = &'a TagConfig>) -> Self {
        let tags = tags.zip(0..).map(|(tag, key)| tag.numbered(TagKey(key), source.clone(), None));
        let plant = Plant::new([], tags);
        let stage = Acquisition::for_plant(&plant);
        Self { plant, stage, source: source.clone() }
    }

    fn judge(&mut self, now: Now, found: Gathered) -> Vec<Reading> {
        let Gathered { readings, extras } = found;
        let source = self.source.clone();
        let batch = RawBatch { source, readings, extras, ack: None, historical: false };
        let mut readings = Vec::new();
        self.stage.judge(now, &batch, &mut readings);
        readings
    }

    /// The row of what was found of one tag.
    fn row(&mut self, now: Now, key: TagKey, found: Gathered, took: Option<Duration>) -> Probed {
        let text = found.extras.as_ref().and_then(|extras| extras.texts.first());
        let text = text.map(|raw| raw.text.to_string());
        let reading = self.judge(now, found).into_iter().find(|reading| reading.tag == key);
        let tag = self.plant.tag(key).expect("rows are made of tags that were numbered");
        let (value, quality) = reading.map_or((f64::NAN, Quality::Bad(Reason::Comm)), |reading| {
            (reading.value, reading.quality)
        });
        Probed {
            tag: tag.path.to_string(),
            raw: String::new(),
            value: value.is_finite().then_some(value),
            state: text.or_else(|| tag.handling.state(value).map(str::to_owned)),
            unit: tag.unit.clone(),
            quality: quality.as_str(),
            reason: quality.reason().map(Reason::as_str),
            round_trip_ms: took.map(|took| took.as_secs_f64() * 1e3),
            note: String::new(),
        }
    }
}

/// One poll of a Modbus source, every request once.
///
/// # Errors
/// [`ProbeError::Line`] when there is no connection.
pub async fn modbus(source: &ModbusSource, clock: &Clock) -> Result<Vec<Probed>, ProbeError> {
    let mut rng = fastrand::Rng::with_seed(0);
    let mut line = Line::new(&source.link, &source.line);
    line.connect().await?;
    let mut units: BTreeMap<u8, Vec<(usize, ClassPoint)>> = BTreeMap::new();
    for (place, tag) in source.tags.iter().enumerate() {
        let key = TagKey(u32::try_from(place).unwrap_or(u32::MAX));
        let point = ClassPoint { key, path: tag.tag.path.clone(), point: tag.point };
        units.entry(tag.point.unit).or_default().push((place, point));
    }
    let mut judge = Judge::new(&source.name, source.tags.iter().map(|tag| &tag.tag));
    let mut found = BTreeMap::new();
    for (unit, members) in units {
        let (places, points): (Vec<usize>, Vec<ClassPoint>) = members.into_iter().unzip();
        let rules = read_rules(source);
        let class = PollClass::new(0, 0, points, source.poll, rules);
        let mut stack: Vec<PlannedRead> = class.plan().iter().rev().cloned().collect();
        while let Some(read) = stack.pop() {
            if line.retry_at().is_some() {
                line.connect().await?;
            }
            let asked = clock.now().mono;
            let (address, count) = (read.block.address, read.block.count);
            let longest = match read.table {
                Table::Coil | Table::Discrete => rules.max_coils,
                Table::Holding | Table::Input => rules.max_registers,
            };
            let span = (address, count);
            let answer =
                long_read::read(&mut line, unit, read.table, span, longest, source.timeout).await;
            let took = clock.now().mono.saturating_sub(asked);
            if let Ok(Answer::Exception(2 | 3)) = answer
                && let Some((left, right)) = class.halves(&read)
            {
                stack.extend([right, left]);
                continue;
            }
            for &point in read.block.points.iter() {
                let tag = &source.tags[places[point]];
                let (now, key) = (clock.now(), class.points[point].key);
                let (raw, note) = shown(&tag.point, address, &answer);
                let gathered = match &answer {
                    Ok(Answer::Exception(code)) => {
                        Gathered::failed(key, handling(*code).reason, now.utc)
                    }
                    Ok(answer @ (Answer::Registers(_) | Answer::Bits(_))) => {
                        let mut gathered = Gathered::default();
                        gathered.point(key, &tag.point, address, answer, now.utc);
                        gathered
                    }
                    Err(_) => Gathered::failed(key, Reason::Comm, now.utc),
                };
                let took = answer.is_ok().then_some(took);
                let row = judge.row(now, key, gathered, took);
                found.insert(places[point], Probed { raw, note, ..row });
            }
            if answer.is_err() {
                line.drop_connection(clock.now().mono, &mut rng);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// What came for a point as it came, and what went wrong.
fn shown(point: &Point, address: u16, answer: &Result<Answer, LineError>) -> (String, String) {
    let from = usize::from(point.address.saturating_sub(address));
    match answer {
        Ok(Answer::Registers(words)) => {
            let count = usize::from(point.kind.registers());
            let own = words.iter().skip(from).take(count.min(WORDS_MAX));
            let mut hex: Vec<String> = own.map(|word| format!("{word:04x}")).collect();
            if count > WORDS_MAX {
                hex.push(format!("… {count} registers"));
            }
            (hex.join(" "), String::new())
        }
        Ok(Answer::Bits(bits)) => {
            let bit = bits.get(from).map_or("", |bit| if *bit { "1" } else { "0" });
            (bit.to_owned(), String::new())
        }
        Ok(Answer::Exception(code)) => (String::new(), format!("exception {code}")),
        Err(error) => (String::new(), error.chain()),
    }
}

/// How often [`all_types`] asks: a value that is wrongly put together jumps, a right one moves.
const GUESS_READS: usize = 3;
/// Pause between them, long enough for a noisy value to change its lowest digits.
const GUESS_PAUSE: Duration = Duration::from_millis(300);

/// Every register tag of a Modbus source under every type and order, from its first register on.
/// Reads three times; changes nothing. Registers beyond the tag's own are read along where the
/// device lets them be read.
///
/// # Errors
/// [`ProbeError::Line`] when there is no connection.
pub async fn all_types(source: &ModbusSource, clock: &Clock) -> Result<Vec<Guess>, ProbeError> {
    let mut rng = fastrand::Rng::with_seed(0);
    let mut line = Line::new(&source.link, &source.line);
    line.connect().await?;
    let points = || source.tags.iter().filter(|tag| !decode::is_bits(tag.point.table));
    let mut seen: Vec<Vec<Vec<u16>>> = points().map(|_| Vec::new()).collect();
    for turn in 0..GUESS_READS {
        if turn > 0 {
            tokio::time::sleep(GUESS_PAUSE).await;
        }
        for (tag, reads) in points().zip(&mut seen) {
            let (unit, table, address) = (tag.point.unit, tag.point.table, tag.point.address);
            let own = tag.point.kind.registers().min(REGISTERS_MAX);
            let known = reads.first().map(|words| words.len());
            for count in [REGISTERS_MAX, own, 1] {
                let count = count.min(source.max_registers).min(u16::MAX - address);
                if known.is_some_and(|known| known != usize::from(count)) || count == 0 {
                    continue;
                }
                if line.retry_at().is_some() {
                    line.connect().await?;
                }
                match line.read(unit, table, address, count, source.timeout).await {
                    Ok(Answer::Registers(words)) => {
                        reads.push(words);
                        break;
                    }
                    // Perhaps only the registers beyond the tag's own are refused.
                    Ok(Answer::Exception(_) | Answer::Bits(_)) => {}
                    Err(_) => {
                        line.drop_connection(clock.now().mono, &mut rng);
                        break;
                    }
                }
            }
        }
    }
    Ok(points().zip(&seen).flat_map(|(tag, reads)| guesses(tag, reads)).collect())
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
    let mut judge = Judge::new(&source.name, source.tags.iter().map(|tag| &tag.tag));
    let mut found: BTreeMap<usize, Probed> = BTreeMap::new();
    let listening = listen(source, &address, &mut routes, &mut judge, clock, &mut found);
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
            let (now, key) = (clock.now(), TagKey(u32::try_from(place).unwrap_or(u32::MAX)));
            let row = judge.row(now, key, Gathered::failed(key, Reason::Comm, now.utc), None);
            let note = format!("no message on {} within {patience:?}", tag.topic);
            Probed { note, ..row }
        });
    }
    Ok(found.into_values().collect())
}

/// Listens as another client, in a session of its own, until every tag has spoken.
async fn listen(
    source: &MqttSource,
    address: &Address,
    routes: &mut Routes,
    judge: &mut Judge,
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
        while let Some(packet) = link.inbox.next_packet()? {
            let Packet::Message(message) = packet else { continue };
            routes.hear(&message, now, &mut heard);
            let sample = &message.payload[..message.payload.len().min(SAMPLE_MAX)];
            let raw = sample.escape_ascii().to_string();
            let note = if message.retained { "retained" } else { "" };
            let took = now.mono.saturating_sub(began);
            for (tag, one) in apart(&mut heard) {
                found.entry(tag.0 as usize).or_insert_with(|| {
                    let row = judge.row(now, tag, one, Some(took));
                    Probed { raw: raw.clone(), note: note.to_owned(), ..row }
                });
            }
        }
    }
    Ok(())
}

/// What a message said, tag by tag.
fn apart(heard: &mut Heard) -> Vec<(TagKey, Gathered)> {
    let readings = heard.readings.drain(..).chain(heard.historical.drain(..));
    let readings =
        readings.map(|reading| (reading.tag, Gathered { readings: vec![reading], extras: None }));
    let texts = heard.extras.texts.drain(..).map(|text| {
        let extras = Extras { texts: vec![text.clone()], waveforms: Vec::new() };
        (text.tag, Gathered { readings: Vec::new(), extras: Some(Box::new(extras)) })
    });
    let bursts = heard.extras.waveforms.drain(..).map(|burst| {
        let tag = burst.tag;
        let extras = Extras { texts: Vec::new(), waveforms: vec![burst] };
        (tag, Gathered { readings: Vec::new(), extras: Some(Box::new(extras)) })
    });
    readings.chain(texts).chain(bursts).collect()
}
