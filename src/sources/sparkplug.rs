//! Pure: the host's side of Sparkplug B. Births say which metric an alias is; data count up; deaths
//! make values stale.
//!
//! A value is taken only when it is certain whose it is. After a gap in the numbers a birth may have
//! been missed, so aliases mean nothing until the next one; names still do. Whatever is missing is
//! asked for by a rebirth request, at most one a node in [`REBIRTH_PAUSE`].
//!
//! Bounds: [`NODES_MAX`] nodes, [`METRICS_MAX`] metrics a node with its devices and
//! [`METRICS_TOTAL_MAX`] in all; what is born beyond them is not listened to.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::time::Timestamp;
use crate::sparkplug::incoming::{self, Incoming, IncomingError, METRICS_MAX, Value};
use crate::sparkplug::topic::{Kind, Topic};

/// Shortest time between two rebirth requests to one node.
pub const REBIRTH_PAUSE: Duration = Duration::from_secs(30);
/// Most nodes that are remembered.
pub const NODES_MAX: usize = 1_000;
/// Most metrics of all nodes together.
pub const METRICS_TOTAL_MAX: usize = 100_000;
/// Longest name of a node, a device or a metric that is remembered, in bytes.
const NAME_MAX: usize = 256;
/// Metric with the birth's number, in births and deaths of nodes.
const BD_SEQ: &str = "bdSeq";

/// Which groups, nodes or devices a tag listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// All of them.
    Any,
    /// One.
    Named(String),
}

impl Level {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(own) => own == name,
        }
    }
}

/// One metric that a tag listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The tag's place, as the caller counts.
    pub tag: usize,
    /// Group of nodes.
    pub group: Level,
    /// The node.
    pub node: Level,
    /// The device; `None` for metrics of the node itself.
    pub device: Option<Level>,
    /// The metric's name.
    pub metric: String,
}

/// A value that a node said.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Whose.
    pub tag: usize,
    /// What; `None` is null or a kind of value that is no reading.
    pub value: Option<SaidValue>,
    /// Property `Quality`: 0 bad, 192 good, 500 stale.
    pub quality: Option<u32>,
    /// When it was measured.
    pub time: Option<Timestamp>,
    /// It was sent late and is not the present value.
    pub historical: bool,
}

/// A number or a text.
#[derive(Debug, Clone, PartialEq)]
pub enum SaidValue {
    /// A number.
    Number(f64),
    /// A text that is no number.
    Text(Box<str>),
}

/// What came of a message.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    /// Values, in the order of the message.
    pub said: Vec<Said>,
    /// Tags that have no present value any more.
    pub stale: Vec<usize>,
    /// Whether the node is to be asked for its births.
    pub rebirth: bool,
    /// Metrics that no tag listens to, `group/node/device:name`.
    pub unknown: Vec<String>,
    /// Metrics left out because a bound was reached.
    pub refused: usize,
}

/// The nodes that are listened to.
#[derive(Debug, Default)]
pub struct Host {
    listeners: BTreeMap<String, Vec<Listener>>,
    nodes: BTreeMap<String, Node>,
    metrics: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Number of its birth; a death with another number is a late one of an earlier session.
    bd_seq: Option<u64>,
    /// Number of its last message; `None` while a birth is missing.
    seq: Option<u8>,
    /// By name; the node's own metrics under the empty name.
    devices: BTreeMap<String, Device>,
    /// When it was last asked for its births, on this run's clock.
    asked: Option<Duration>,
}

#[derive(Debug, Default)]
struct Device {
    metrics: Vec<Metric>,
    names: BTreeMap<Box<str>, usize>,
    aliases: BTreeMap<u64, usize>,
    alive: bool,
}

#[derive(Debug)]
struct Metric {
    name: Box<str>,
    datatype: Option<u32>,
    tags: Box<[usize]>,
}

impl Host {
    /// Listens to one more metric.
    pub fn listen(&mut self, listener: Listener) {
        self.listeners.entry(listener.metric.clone()).or_default().push(listener);
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Our own connection is gone: what was missed nobody knows.
    pub fn disconnected(&mut self) {
        for node in self.nodes.values_mut() {
            node.seq = None;
        }
    }

    /// Nodes (group, node) whose births are missing, each told once in [`REBIRTH_PAUSE`]: to be
    /// asked as soon as we are subscribed.
    pub fn unborn(&mut self, now: Duration) -> Vec<(String, String)> {
        for listener in self.listeners.values().flatten() {
            if let (Level::Named(group), Level::Named(node)) = (&listener.group, &listener.node)
                && self.nodes.len() < NODES_MAX
            {
                self.nodes.entry(format!("{group}/{node}")).or_default();
            }
        }
        let unborn = self.nodes.iter_mut().filter_map(|(name, node)| {
            let (group, own) = name.split_once('/')?;
            (node.seq.is_none() && node.may_ask(now)).then(|| (group.to_owned(), own.to_owned()))
        });
        unborn.collect()
    }

    /// Takes in a message that arrived at `now` on this run's clock.
    ///
    /// # Errors
    /// [`IncomingError`], after which nothing has changed.
    pub fn hear(
        &mut self,
        topic: &Topic<'_>,
        payload: &[u8],
        now: Duration,
    ) -> Result<Heard, IncomingError> {
        let mut heard = Heard::default();
        if matches!(topic.kind, Kind::NodeCommand | Kind::DeviceCommand) {
            return Ok(heard);
        }
        let message = incoming::decode(payload)?;
        let name = format!("{}/{}", topic.group, topic.node);
        let known = self.nodes.contains_key(&name);
        if !known && (self.nodes.len() >= NODES_MAX || name.len() > NAME_MAX) {
            heard.refused = message.metrics.len();
            return Ok(heard);
        }
        let node = self.nodes.entry(name).or_default();
        let seq = message.seq.and_then(|seq| u8::try_from(seq).ok());
        match topic.kind {
            Kind::NodeBirth => {
                self.metrics -= node.metrics();
                node.devices.clear();
                node.bd_seq = bd_seq(&message);
                node.seq = Some(seq.unwrap_or(0));
            }
            Kind::NodeDeath => {
                // A will that was registered by a session before this birth says nothing now.
                let late = node.bd_seq.is_some() && bd_seq(&message) != node.bd_seq;
                if !late {
                    node.seq = None;
                    node.devices.values_mut().for_each(|device| device.die(&mut heard.stale));
                }
                return Ok(heard);
            }
            Kind::DeviceBirth | Kind::NodeData | Kind::DeviceData | Kind::DeviceDeath => {
                let expected = node.seq.map(|last| last.wrapping_add(1));
                if expected.is_some() && seq == expected {
                    node.seq = seq;
                } else {
                    node.seq = None;
                    heard.rebirth = node.may_ask(now);
                }
            }
            Kind::NodeCommand | Kind::DeviceCommand => return Ok(heard),
        }
        let own = topic.device.unwrap_or("");
        match topic.kind {
            Kind::NodeBirth | Kind::DeviceBirth => {
                if own.len() <= NAME_MAX {
                    self.born(topic, &message, &mut heard);
                }
            }
            Kind::NodeData | Kind::DeviceData => {
                let in_step = node.seq.is_some();
                match node.devices.get(own) {
                    Some(device) if device.alive => {
                        let missing = device.said(topic, &message, in_step, &mut heard);
                        if missing {
                            heard.rebirth |= node.may_ask(now);
                        }
                    }
                    Some(_) | None => heard.rebirth |= node.may_ask(now),
                }
            }
            Kind::DeviceDeath => {
                if let Some(device) = node.devices.get_mut(own) {
                    device.die(&mut heard.stale);
                }
            }
            Kind::NodeDeath | Kind::NodeCommand | Kind::DeviceCommand => {}
        }
        Ok(heard)
    }

    /// A birth: what the metrics are called, and their first values.
    fn born(&mut self, topic: &Topic<'_>, message: &Incoming, heard: &mut Heard) {
        let Some(node) = self.nodes.get_mut(&format!("{}/{}", topic.group, topic.node)) else {
            return;
        };
        let own = topic.device.unwrap_or("");
        if let Some(old) = node.devices.remove(own) {
            self.metrics -= old.metrics.len();
        }
        let room = (METRICS_MAX - node.metrics().min(METRICS_MAX))
            .min(METRICS_TOTAL_MAX - self.metrics.min(METRICS_TOTAL_MAX));
        let mut device = Device { alive: true, ..Device::default() };
        for metric in &message.metrics {
            let Some(name) = metric.name.as_deref() else { continue };
            if device.metrics.len() >= room || name.len() > NAME_MAX {
                heard.refused += 1;
                continue;
            }
            let listeners = self.listeners.get(name).map_or(&[][..], Vec::as_slice);
            let hears = |listener: &&Listener| {
                let device = match (&listener.device, topic.device) {
                    (None, None) => true,
                    (Some(level), Some(device)) => level.is(device),
                    (None, Some(_)) | (Some(_), None) => false,
                };
                device && listener.group.is(topic.group) && listener.node.is(topic.node)
            };
            let tags = listeners.iter().filter(hears).map(|listener| listener.tag).collect();
            let place = device.metrics.len();
            if let Some(alias) = metric.alias {
                device.aliases.insert(alias, place);
            }
            device.names.insert(name.into(), place);
            device.metrics.push(Metric { name: name.into(), datatype: metric.datatype, tags });
        }
        self.metrics += device.metrics.len();
        device.said(topic, message, true, heard);
        node.devices.insert(own.to_owned(), device);
    }
}

impl Node {
    fn metrics(&self) -> usize {
        self.devices.values().map(|device| device.metrics.len()).sum()
    }

    /// Whether it may be asked for its births now; if so it counts as asked.
    fn may_ask(&mut self, now: Duration) -> bool {
        let may = self.asked.is_none_or(|at| now.saturating_sub(at) >= REBIRTH_PAUSE);
        if may {
            self.asked = Some(now);
        }
        may
    }
}

impl Device {
    /// The values of a message; returns whether a metric is none of the birth's. Aliases count only
    /// `in_step`.
    fn said(
        &self,
        topic: &Topic<'_>,
        message: &Incoming,
        in_step: bool,
        heard: &mut Heard,
    ) -> bool {
        let mut missing = false;
        for metric in &message.metrics {
            let place = match (&metric.name, metric.alias) {
                (Some(name), _) => self.names.get(name.as_str()),
                (None, Some(alias)) if in_step => self.aliases.get(&alias),
                (None, _) => None,
            };
            let Some(known) = place.and_then(|place| self.metrics.get(*place)) else {
                missing = true;
                continue;
            };
            if known.tags.is_empty() {
                if !is_housekeeping(&known.name) {
                    let device = topic.device.map_or(String::new(), |device| format!("/{device}"));
                    let (group, node, name) = (topic.group, topic.node, &known.name);
                    heard.unknown.push(format!("{group}/{node}{device}:{name}"));
                }
                continue;
            }
            let datatype = metric.datatype.or(known.datatype);
            let null = metric.is_null == Some(true);
            let value = metric.value.as_ref().filter(|_| !null);
            let value = value.and_then(|value| said_value(value, datatype));
            let time = metric.timestamp.or(message.timestamp).and_then(time_of);
            for &tag in &known.tags {
                heard.said.push(Said {
                    tag,
                    value: value.clone(),
                    quality: metric.quality(),
                    time,
                    historical: metric.is_historical == Some(true),
                });
            }
        }
        missing
    }

    fn die(&mut self, stale: &mut Vec<usize>) {
        if self.alive {
            stale.extend(self.metrics.iter().flat_map(|metric| &metric.tags));
        }
        self.alive = false;
    }
}

/// Metrics of the protocol itself.
fn is_housekeeping(name: &str) -> bool {
    name == BD_SEQ || name.starts_with("Node Control/") || name.starts_with("Device Control/")
}

fn said_value(value: &Value, datatype: Option<u32>) -> Option<SaidValue> {
    match (incoming::number(value, datatype), value) {
        (Some(number), _) => Some(SaidValue::Number(number)),
        (None, Value::Text(text)) => {
            let plain: String = text.trim().chars().filter(|c| !c.is_control()).collect();
            Some(SaidValue::Text(plain.into()))
        }
        (
            None,
            Value::Int(_) | Value::Long(_) | Value::Float(_) | Value::Double(_) | Value::Boolean(_),
        ) => None,
    }
}

fn bd_seq(message: &Incoming) -> Option<u64> {
    let metric = message.metrics.iter().find(|m| m.name.as_deref() == Some(BD_SEQ))?;
    match metric.value {
        Some(Value::Long(number)) => Some(number),
        Some(Value::Int(number)) => Some(u64::from(number)),
        Some(Value::Float(_) | Value::Double(_) | Value::Boolean(_) | Value::Text(_)) | None => {
            None
        }
    }
}

/// Milliseconds since 1970, up to the year 9999.
fn time_of(millis: u64) -> Option<Timestamp> {
    let micros = i64::try_from(millis.checked_mul(1000)?).ok()?;
    (micros < 253_402_300_800_000_000).then(|| Timestamp::from_micros(micros))
}

#[cfg(test)]
#[path = "sparkplug_tests.rs"]
mod tests;
