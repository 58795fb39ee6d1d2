//! What is taken in from MQTT brokers: `[[mqtt]]` and `[[mqtt.tag]]`.

use std::time::Duration;

use super::{Broker, TagConfig};
use crate::domain::ids::SourceId;

/// How an MQTT payload is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// JSON; the value at an RFC 6901 pointer, its time at another.
    Json {
        /// Where the value is.
        pointer: String,
        /// Where its time is (RFC 3339, or seconds or milliseconds since 1970).
        time_pointer: Option<String>,
    },
    /// A number, or the name of a state, as text.
    Text,
    /// Lines of separated cells.
    Csv {
        /// Where the value is.
        column: Column,
        /// Where its time is, in the forms of JSON.
        time_column: Option<Column>,
        /// Between two cells.
        separator: u8,
    },
    /// Little-endian numbers: one is a value, several are a burst.
    Binary(Samples),
    /// Eclipse Sparkplug B; the topic names group, node and device.
    Sparkplug {
        /// Name of the metric.
        metric: String,
    },
}

/// A column of separated cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// By place, the first is 0.
    Index(usize),
    /// By its name in the first line of the message.
    Name(String),
}

/// Numbers in binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Samples {
    /// IEEE 754 single precision, little endian.
    F32Le,
    /// 16 bits, two's complement, little endian.
    I16Le,
}

/// One tag of an MQTT source.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttTag {
    /// What all tags share.
    pub tag: TagConfig,
    /// Topic filter; `{asset}` and `{tag}` capture.
    pub topic: String,
    /// How the payload is read.
    pub payload: Payload,
    /// How often a value is expected, if it is known.
    pub expect_every: Option<Duration>,
    /// Whether the time in the payload counts, where there is one; else the arrival.
    pub device_time: bool,
}

/// `[[mqtt]]`
#[derive(Debug, Clone, PartialEq)]
pub struct MqttSource {
    /// Its name.
    pub name: SourceId,
    /// The broker.
    pub broker: Broker,
    /// Its tags.
    pub tags: Vec<MqttTag>,
    /// How much is taken in.
    pub intake: Intake,
}

/// How much a source takes in, and how soon a silent broker is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intake {
    /// Longest payload that is looked at, in bytes.
    pub payload_max: usize,
    /// Most unknown series that are listed.
    pub series_max: usize,
    /// Readings a second beyond which a tag's values are thinned to smallest, largest and last.
    pub max_rate: u32,
    /// A broker that is silent this long is asked whether it lives.
    pub keep_alive: Duration,
}

impl Intake {
    /// Smallest and largest `payload_max`, in bytes.
    pub const PAYLOAD_MAX: (usize, usize) = (1 << 10, 1 << 20);
    /// Largest `series_max`.
    pub const SERIES_MAX: usize = 100_000;
    /// Largest `max_rate`.
    pub const MAX_RATE: u32 = 1_000_000;
    /// Shortest and longest `keep_alive`.
    pub const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            payload_max: 64 << 10,
            series_max: 2_000,
            max_rate: 2_000,
            keep_alive: Duration::from_secs(20),
        }
    }
}
