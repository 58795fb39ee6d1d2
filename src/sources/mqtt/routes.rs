//! Pure: which tags a message is for, and what it says of them.
//!
//! Tags that share a topic and a form of payload share a *reader*, which reads a message once for
//! all of them. A topic with `{asset}` or `{tag}` leads to one reader a captured name; what is
//! captured and has none is listed as unknown.

use std::collections::BTreeMap;
use std::time::Duration;

use super::unknown::Unknown;
use super::wire::Message;
use crate::config::{Intake, MqttTag, Payload};
use crate::domain::ids::TagKey;
use crate::domain::reading::{Extras, Quality, RawReading, RawText, RawValue, RawWaveform, Reason};
use crate::domain::tag::Form;
use crate::domain::time::{Now, Timestamp};
use crate::sources::payload::{
    self, CsvPlan, CsvSlot, Format, Found, Item, JsonPlan, PayloadError, Pointer, Value,
};
use crate::sources::sparkplug::{Host, Level, Listener, Said, SaidValue};
use crate::sources::topics::{Filter, Pattern, Tree, subscriptions};
use crate::sparkplug::incoming::{self, IncomingError};
use crate::sparkplug::topic::{NAMESPACE, Topic};

/// A tag has been silent when nothing came for so many of its expected intervals.
const SILENT_INTERVALS: u32 = 2;

/// Why nothing could be made of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Its payload.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Its Sparkplug payload.
    #[error(transparent)]
    Sparkplug(#[from] IncomingError),
    /// Its topic.
    #[error("the topic is not UTF-8")]
    Topic,
}

#[derive(Debug)]
struct TagRoute {
    source: usize,
    key: TagKey,
    scale: f64,
    offset: f64,
    states: Vec<(i64, String)>,
    form: Form,
    device_time: bool,
    every: Option<Duration>,
    /// Last number that came, as it came.
    last: Option<f64>,
    /// When something last came, on this run's clock; `None` before, and once its silence is told.
    heard: Option<Duration>,
}

/// Reads the payloads of one filter for its tags.
#[derive(Debug)]
struct Reader {
    source: usize,
    format: Format,
    bytes_max: usize,
    /// Tags by slot.
    slots: Vec<Vec<usize>>,
}

#[derive(Debug)]
enum Entry {
    Reader(usize),
    Captured(Captured),
    Sparkplug { source: usize },
}

/// A filter that captures names: readers by asset and tag; a name that is not captured is empty.
#[derive(Debug)]
struct Captured {
    source: usize,
    asset: Option<usize>,
    tag: Option<usize>,
    readers: BTreeMap<Box<str>, BTreeMap<Box<str>, Vec<usize>>>,
}

impl Captured {
    fn readers(&self, topic: &str) -> &[usize] {
        let level = |place: Option<usize>| match place {
            Some(place) => topic.split('/').nth(place).unwrap_or(""),
            None => "",
        };
        let assets = self.readers.get(level(self.asset));
        assets.and_then(|tags| tags.get(level(self.tag))).map_or(&[], Vec::as_slice)
    }
}

/// The tags of the sources at one broker, found by topic.
#[derive(Debug, Default)]
pub struct Routes {
    tags: Vec<TagRoute>,
    readers: Vec<Reader>,
    entries: Vec<Entry>,
    tree: Tree<usize>,
    /// Filter, form and captured levels of each entry, for the next tag that has the same.
    made: BTreeMap<Made, usize>,
    host: Host,
    unknown: Vec<Unknown>,
    payload_max: Vec<usize>,
    found: Found,
    matched: Vec<usize>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Made {
    source: usize,
    filter: Filter,
    asset: Option<usize>,
    tag: Option<usize>,
    sparkplug: bool,
}

/// What came of messages, gathered until it is handed to the engine.
#[derive(Debug, Default)]
pub struct Heard {
    /// The source that the message is counted for.
    pub source: Option<usize>,
    /// Values.
    pub readings: Vec<RawReading>,
    /// Values that their sender calls late.
    pub historical: Vec<RawReading>,
    /// Texts and bursts.
    pub extras: Extras,
    /// Why nothing could be made of it.
    pub error: Option<MessageError>,
    /// A time that should have been there could not be read.
    pub bad_time: bool,
    /// No tag has this topic.
    pub unknown: bool,
    /// Group and node to be asked for their births.
    pub rebirth: Option<(String, String)>,
}

impl Heard {
    fn begin(&mut self) {
        self.source = None;
        self.readings.clear();
        self.historical.clear();
        self.extras.texts.clear();
        self.extras.waveforms.clear();
        self.error = None;
        self.bad_time = false;
        self.unknown = false;
        self.rebirth = None;
    }

    /// Whether there is anything for the engine.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.readings.is_empty()
            && self.historical.is_empty()
            && self.extras.texts.is_empty()
            && self.extras.waveforms.is_empty()
    }
}

impl Routes {
    /// Makes room for one more source; returns its place.
    pub fn source(&mut self, intake: &Intake) -> usize {
        self.unknown.push(Unknown::new(intake.series_max));
        self.payload_max.push(intake.payload_max);
        self.unknown.len() - 1
    }

    /// Adds a tag of a source, unless its topic or pointer is one no broker or document could have;
    /// the configuration refuses those.
    pub fn route(&mut self, source: usize, key: TagKey, tag: &MqttTag) {
        let Some(pattern) = Pattern::new(&tag.topic, &tag.tag.path) else { return };
        let place = self.tags.len();
        let added = match &tag.payload {
            Payload::Sparkplug { metric } => self.add_sparkplug(source, place, metric, tag),
            Payload::Json { .. } | Payload::Text | Payload::Csv { .. } | Payload::Binary(_) => {
                self.add_reader(source, place, &pattern, tag)
            }
        };
        if added.is_none() {
            return;
        }
        let handling = &tag.tag.handling;
        self.tags.push(TagRoute {
            source,
            key,
            scale: tag.tag.scale,
            offset: tag.tag.offset,
            states: handling.states.clone(),
            form: handling.form,
            device_time: tag.device_time,
            every: tag.expect_every,
            last: None,
            heard: None,
        });
    }

    fn add_reader(
        &mut self,
        source: usize,
        place: usize,
        pattern: &Pattern,
        tag: &MqttTag,
    ) -> Option<()> {
        let entry = self.entry(source, pattern);
        let (asset, name) = (&tag.tag.path.asset, &tag.tag.path.tag);
        let known: &mut Vec<usize> = match &mut self.entries[entry] {
            Entry::Captured(captured) => {
                let asset = if captured.asset.is_some() { asset.as_str() } else { "" };
                let name = if captured.tag.is_some() { name.as_str() } else { "" };
                captured.readers.entry(asset.into()).or_default().entry(name.into()).or_default()
            }
            Entry::Reader(_) | Entry::Sparkplug { .. } => return None,
        };
        let wanted = blank_format(&tag.payload)?;
        let alike = |reader: &&usize| same_form(&self.readers[**reader].format, &wanted);
        let reader = match known.iter().find(alike) {
            Some(reader) => *reader,
            None => {
                known.push(self.readers.len());
                let bytes_max = self.payload_max.get(source).copied();
                self.readers.push(Reader {
                    source,
                    format: wanted,
                    bytes_max: bytes_max.unwrap_or(payload::BYTES_MAX),
                    slots: Vec::new(),
                });
                self.readers.len() - 1
            }
        };
        let reader = &mut self.readers[reader];
        let slot = match (&mut reader.format, &tag.payload) {
            (Format::Json(plan), Payload::Json { pointer, time_pointer }) => {
                let time = time_pointer.as_deref().map(Pointer::parse);
                let time = time.filter(|_| tag.device_time);
                plan.add(&Pointer::parse(pointer)?, time.flatten().as_ref())
            }
            (Format::Csv(plan), Payload::Csv { column, time_column, .. }) => {
                plan.add(CsvSlot { value: column.clone(), time: time_column.clone() })
            }
            (Format::Text | Format::Binary(_) | Format::Json(_) | Format::Csv(_), _) => 0,
        };
        if reader.slots.len() <= slot {
            reader.slots.resize(slot + 1, Vec::new());
        }
        reader.slots[slot].push(place);
        Some(())
    }

    fn add_sparkplug(
        &mut self,
        source: usize,
        place: usize,
        metric: &str,
        tag: &MqttTag,
    ) -> Option<()> {
        let level = |level: &str| match level {
            "+" => Level::Any,
            "{asset}" => Level::Named(tag.tag.path.asset.as_str().to_owned()),
            name => Level::Named(name.to_owned()),
        };
        let levels: Vec<&str> = tag.topic.split('/').collect();
        let (group, node, device) = match levels[..] {
            [NAMESPACE, group, _, node] => (level(group), level(node), None),
            [NAMESPACE, group, _, node, device] => (level(group), level(node), Some(level(device))),
            _ => return None,
        };
        let word = |level: &Level| match level {
            Level::Any => "+".to_owned(),
            Level::Named(name) => name.clone(),
        };
        // Births, data and deaths of the node and of all its devices: numbers run through them all.
        let filter = Filter::new(&format!("{NAMESPACE}/{}/+/{}/#", word(&group), word(&node)))?;
        let made = Made { source, filter, asset: None, tag: None, sparkplug: true };
        if !self.made.contains_key(&made) {
            let place = self.entries.len();
            self.tree.add(&made.filter, place);
            self.entries.push(Entry::Sparkplug { source });
            self.made.insert(made, place);
        }
        self.host.listen(Listener { tag: place, group, node, device, metric: metric.to_owned() });
        Some(())
    }

    /// The entry for a filter of a source, made when it is new.
    fn entry(&mut self, source: usize, pattern: &Pattern) -> usize {
        let Pattern { filter, asset, tag } = pattern.clone();
        let made = Made { source, filter, asset, tag, sparkplug: false };
        if let Some(place) = self.made.get(&made) {
            return *place;
        }
        let place = self.entries.len();
        self.tree.add(&made.filter, place);
        let readers = BTreeMap::new();
        self.entries.push(Entry::Captured(Captured { source, asset, tag, readers }));
        self.made.insert(made, place);
        place
    }

    /// Turns what needs no look-up by name into readers; called once, when all tags are there.
    pub fn finish(&mut self) {
        for entry in &mut self.entries {
            if let Entry::Captured(captured) = entry
                && captured.asset.is_none()
                && captured.tag.is_none()
                && let [reader] = captured.readers("")
            {
                *entry = Entry::Reader(*reader);
            }
        }
    }

    /// The filters to subscribe to.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<Filter> {
        let filters: Vec<Filter> = self.made.keys().map(|made| made.filter.clone()).collect();
        subscriptions(&filters)
    }

    /// Longest payload that any tag looks at, in bytes.
    #[must_use]
    pub fn payload_max(&self) -> usize {
        let sparkplug = if self.host.is_empty() { 0 } else { incoming::BYTES_MAX };
        self.payload_max.iter().copied().fold(sparkplug, usize::max)
    }

    /// The unknown series of a source.
    pub fn unknown(&mut self, source: usize) -> Option<&mut Unknown> {
        self.unknown.get_mut(source)
    }

    /// The Sparkplug nodes.
    pub fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    /// Reads a message that arrived at `now`; what came of it is put into `heard`.
    pub fn hear(&mut self, message: &Message<'_>, now: Now, heard: &mut Heard) {
        heard.begin();
        let Ok(topic) = std::str::from_utf8(message.topic) else {
            heard.error = Some(MessageError::Topic);
            return;
        };
        let mut matched = std::mem::take(&mut self.matched);
        matched.clear();
        self.tree.find(topic, |entry| matched.push(*entry));
        heard.unknown = matched.is_empty();
        for &entry in &matched {
            self.entry_hears(entry, topic, message, now, heard);
        }
        self.matched = matched;
        if !heard.is_empty() && heard.error.as_ref().is_some_and(is_missing) {
            // Several tags may share a topic whose messages carry some of them at a time.
            heard.error = None;
        }
    }

    fn entry_hears(
        &mut self,
        entry: usize,
        topic: &str,
        message: &Message<'_>,
        now: Now,
        heard: &mut Heard,
    ) {
        match &self.entries[entry] {
            Entry::Reader(reader) => {
                let reader = *reader;
                self.read(reader, message, now, heard);
            }
            Entry::Captured(captured) => {
                let source = captured.source;
                let count = captured.readers(topic).len();
                if count == 0 && message.length > 0 {
                    heard.source.get_or_insert(source);
                    self.unknown[source].note(topic, message.payload, now.utc);
                }
                for place in 0..count {
                    let reader = match &self.entries[entry] {
                        Entry::Captured(captured) => captured.readers(topic)[place],
                        Entry::Reader(_) | Entry::Sparkplug { .. } => return,
                    };
                    self.read(reader, message, now, heard);
                }
            }
            Entry::Sparkplug { source } => {
                let source = *source;
                self.hear_node(source, topic, message, now, heard);
            }
        }
    }

    /// One reader's tags.
    fn read(&mut self, reader: usize, message: &Message<'_>, now: Now, heard: &mut Heard) {
        let Self { readers, tags, found, .. } = self;
        let reader = &readers[reader];
        heard.source.get_or_insert(reader.source);
        if message.length == 0 {
            // A retained message was cleared.
            return;
        }
        let most = reader.bytes_max;
        let read = if message.length > most || message.length != message.payload.len() {
            Err(PayloadError::TooLong { length: message.length, most })
        } else {
            payload::decode(&reader.format, message.payload, most, found)
        };
        let at = Moment { now, retained: message.retained };
        match read {
            Ok(()) => {
                for item in found.drain() {
                    heard.bad_time |= item.bad_time;
                    let slot = reader.slots.get(item.slot).map_or(&[][..], Vec::as_slice);
                    give(slot, tags, item, at, heard);
                }
            }
            Err(error) => {
                let error = MessageError::from(error);
                if !is_missing(&error) {
                    for &place in reader.slots.iter().flatten() {
                        let tag = &mut tags[place];
                        tag.heard = Some(now.mono);
                        let value = RawValue::Failed(Reason::Device);
                        heard.readings.push(at.reading(tag.key, None, value));
                    }
                }
                heard.error = Some(error);
            }
        }
    }

    fn hear_node(
        &mut self,
        source: usize,
        topic: &str,
        message: &Message<'_>,
        now: Now,
        heard: &mut Heard,
    ) {
        heard.source.get_or_insert(source);
        let Some(name) = Topic::parse(topic) else { return };
        if message.length != message.payload.len() {
            heard.error = Some(IncomingError::TooLong { length: message.length }.into());
            return;
        }
        let news = match self.host.hear(&name, message.payload, now.mono) {
            Ok(news) => news,
            Err(error) => {
                heard.error = Some(error.into());
                return;
            }
        };
        let at = Moment { now, retained: message.retained };
        for said in news.said {
            self.tags[said.tag].says(said, at, heard);
        }
        for place in news.stale {
            let tag = &mut self.tags[place];
            heard.readings.extend(tag.stale(at));
        }
        for series in &news.unknown {
            self.unknown[source].note(series, &[], now.utc);
        }
        if news.rebirth {
            heard.rebirth = Some((name.group.to_owned(), name.node.to_owned()));
        }
    }

    /// The tags that were silent for two of their intervals, each once: their last value is stale.
    /// `source` of each is told to `found`.
    pub fn silent(&mut self, now: Now, mut found: impl FnMut(usize, RawReading)) {
        for tag in &mut self.tags {
            let Some(every) = tag.every else { continue };
            let since = *tag.heard.get_or_insert(now.mono);
            if now.mono.saturating_sub(since) <= every.saturating_mul(SILENT_INTERVALS) {
                continue;
            }
            let at = Moment { now, retained: false };
            found(tag.source, at.reading(tag.key, None, tag.stale_value()));
            // Told once: this moment never comes. The next message sets it back.
            tag.heard = Some(Duration::MAX);
        }
    }

    /// The shortest interval at which a tag is expected.
    #[must_use]
    pub fn shortest_interval(&self) -> Option<Duration> {
        self.tags.iter().filter_map(|tag| tag.every).min()
    }
}

/// When and how a message came.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Now,
    retained: bool,
}

impl Moment {
    fn reading(self, tag: TagKey, source_time: Option<Timestamp>, value: RawValue) -> RawReading {
        RawReading { tag, source_time, arrived: self.now.utc, value, retained: self.retained }
    }
}

impl TagRoute {
    /// What a text means: a state by its name, or a text where the tag is one.
    fn word(&self, text: &str) -> Option<f64> {
        let state = self.states.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        state.map(|(number, _)| *number as f64)
    }

    /// The last value, no longer the present one.
    fn stale_value(&self) -> RawValue {
        match self.last {
            None => RawValue::Failed(Reason::Comm),
            Some(last) => {
                let value = last * self.scale + self.offset;
                RawValue::Scaled(value, Quality::Uncertain(Reason::Stale))
            }
        }
    }

    fn stale(&mut self, at: Moment) -> Option<RawReading> {
        self.heard = Some(at.now.mono);
        self.last.map(|_| at.reading(self.key, None, self.stale_value()))
    }

    /// A value of a Sparkplug metric.
    fn says(&mut self, said: Said, at: Moment, heard: &mut Heard) {
        const BAD: u32 = 0;
        const STALE: u32 = 500;
        self.heard = Some(at.now.mono);
        let time = said.time.filter(|_| self.device_time);
        let number = match &said.value {
            None => None,
            Some(SaidValue::Number(number)) => Some(*number),
            Some(SaidValue::Text(text)) => match self.word(text) {
                Some(number) => Some(number),
                None if self.form == Form::Text && !said.historical => {
                    let (arrived, retained) = (at.now.utc, at.retained);
                    let text = text.clone();
                    let text =
                        RawText { tag: self.key, source_time: time, arrived, text, retained };
                    heard.extras.texts.push(text);
                    return;
                }
                None => {
                    let value = RawValue::Failed(Reason::Device);
                    heard.readings.push(at.reading(self.key, time, value));
                    return;
                }
            },
        };
        let value = match (number, said.quality) {
            (_, Some(BAD)) => RawValue::Failed(Reason::Device),
            (None, _) => RawValue::Failed(Reason::Sentinel),
            (Some(number), Some(STALE)) => {
                let value = number * self.scale + self.offset;
                RawValue::Scaled(value, Quality::Uncertain(Reason::Stale))
            }
            (Some(number), _) => RawValue::Number(number),
        };
        if said.historical {
            heard.historical.push(at.reading(self.key, time, value));
            return;
        }
        self.last = number.or(self.last);
        heard.readings.push(at.reading(self.key, time, value));
    }
}

/// Hands one item of a message to the tags of its slot.
fn give(slot: &[usize], tags: &mut [TagRoute], item: Item, at: Moment, heard: &mut Heard) {
    for &place in slot {
        let tag = &mut tags[place];
        tag.heard = Some(at.now.mono);
        let time = item.time.filter(|_| tag.device_time);
        let value = match &item.value {
            Value::Number(number) => RawValue::Number(*number),
            Value::Null => RawValue::Failed(Reason::Sentinel),
            Value::Nested => RawValue::Failed(Reason::Config),
            Value::Inexact => RawValue::Failed(Reason::Range),
            Value::Text(text) => match tag.word(text) {
                Some(number) => RawValue::Number(number),
                None if tag.form == Form::Text => {
                    let (arrived, retained) = (at.now.utc, at.retained);
                    let text = text.clone();
                    let text = RawText { tag: tag.key, source_time: time, arrived, text, retained };
                    heard.extras.texts.push(text);
                    continue;
                }
                None => {
                    heard.error = Some(PayloadError::Text.into());
                    RawValue::Failed(Reason::Device)
                }
            },
            Value::Samples(samples) => {
                heard.extras.waveforms.push(RawWaveform {
                    tag: tag.key,
                    source_time: time,
                    arrived: at.now.utc,
                    samples: samples.clone(),
                    retained: at.retained,
                });
                continue;
            }
        };
        if let RawValue::Number(number) = value {
            tag.last = Some(number);
        }
        heard.readings.push(at.reading(tag.key, time, value));
    }
}

/// A message that holds nothing of what is looked for is not broken.
fn is_missing(error: &MessageError) -> bool {
    matches!(error, MessageError::Payload(PayloadError::Missing { .. }))
}

/// A format without slots; `None` for Sparkplug, which has none.
fn blank_format(payload: &Payload) -> Option<Format> {
    Some(match payload {
        Payload::Json { .. } => Format::Json(JsonPlan::default()),
        Payload::Text => Format::Text,
        Payload::Csv { separator, .. } => Format::Csv(CsvPlan::new(*separator)),
        Payload::Binary(kind) => Format::Binary(*kind),
        Payload::Sparkplug { .. } => return None,
    })
}

/// Whether two tags can share a reader.
fn same_form(one: &Format, other: &Format) -> bool {
    match (one, other) {
        (Format::Json(_), Format::Json(_)) | (Format::Text, Format::Text) => true,
        (Format::Csv(one), Format::Csv(other)) => one.separator() == other.separator(),
        (Format::Binary(one), Format::Binary(other)) => one == other,
        (Format::Json(_) | Format::Text | Format::Csv(_) | Format::Binary(_), _) => false,
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
