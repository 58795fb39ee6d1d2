//! Readings: one value of one tag at one time, with quality. Many, and each worth little.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{Arrival, SourceId, TagKey};
use super::time::Timestamp;

/// Why a reading is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Reason {
    /// The point is configured wrongly (no such register, wrong length).
    Config = 1,
    /// The device said that it cannot tell.
    Device = 2,
    /// The device could not be reached.
    Comm = 3,
    /// Outside the plausible range.
    Range = 4,
    /// Changed faster than the quantity can.
    Rate = 5,
    /// A raw value that means "no value".
    Sentinel = 6,
    /// Not a number, or infinite.
    Nan = 7,
    /// Too old when it came.
    Stale = 8,
    /// Kept by a broker from before we listened.
    Retained = 9,
    /// The device's time cannot be right.
    Clock = 10,
    /// The sensor is judged broken.
    SensorFault = 11,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Config,
        Self::Device,
        Self::Comm,
        Self::Range,
        Self::Rate,
        Self::Sentinel,
        Self::Nan,
        Self::Stale,
        Self::Retained,
        Self::Clock,
        Self::SensorFault,
    ];

    /// The word used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Device => "device",
            Self::Comm => "comm",
            Self::Range => "range",
            Self::Rate => "rate",
            Self::Sentinel => "sentinel",
            Self::Nan => "nan",
            Self::Stale => "stale",
            Self::Retained => "retained",
            Self::Clock => "clock",
            Self::SensorFault => "sensor-fault",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a reading may be trusted. Only good ones enter a statistic; all are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// Nothing speaks against it.
    Good,
    /// It may be right.
    Uncertain(Reason),
    /// It is not a measurement.
    Bad(Reason),
}

impl Quality {
    /// Whether statistics may use it.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Good)
    }

    /// `good`, `uncertain` or `bad`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Uncertain(_) => "uncertain",
            Self::Bad(_) => "bad",
        }
    }

    /// Why it is not good.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Good => None,
            Self::Uncertain(reason) | Self::Bad(reason) => Some(reason),
        }
    }

    /// One byte for the store: 0 good, 0x40 | reason uncertain, 0x80 | reason bad.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Uncertain(reason) => 0x40 | reason as u8,
            Self::Bad(reason) => 0x80 | reason as u8,
        }
    }

    /// Reads the byte of [`Self::to_byte`]; `None` for a byte that it never writes.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        let reason = || Reason::ALL.into_iter().find(|reason| *reason as u8 == byte & 0x3f);
        match byte & 0xc0 {
            0 if byte == 0 => Some(Self::Good),
            0x40 => reason().map(Self::Uncertain),
            0x80 => reason().map(Self::Bad),
            _ => None,
        }
    }
}

/// One value of one tag at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Which tag.
    pub tag: TagKey,
    /// Order of arrival, over restarts.
    pub arrival: Arrival,
    /// When it was measured, or when the answer arrived.
    pub time: Timestamp,
    /// Value in the tag's engineering unit; NaN exactly when no number came.
    pub value: f64,
    /// How far it may be trusted.
    pub quality: Quality,
}

/// What a source found for one tag, before scaling and judgement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RawValue {
    /// A number as the device gave it.
    Number(f64),
    /// A number that came already in the engineering unit, with what its sender says of it
    /// (HTTP, import): neither scaled nor offset again.
    Scaled(f64, Quality),
    /// The poll or the message brought no number.
    Failed(Reason),
}

/// One raw value of one tag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RawReading {
    /// Which tag.
    pub tag: TagKey,
    /// Time from the payload, when it has one.
    pub source_time: Option<Timestamp>,
    /// Arrival of the response or message in UTC.
    pub arrived: Timestamp,
    /// What came.
    pub value: RawValue,
    /// Kept by the broker from before we listened.
    pub retained: bool,
}

/// One text of one tag: a status in words, a serial number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawText {
    /// Which tag.
    pub tag: TagKey,
    /// Time from the payload, when it has one.
    pub source_time: Option<Timestamp>,
    /// Arrival of the response or message in UTC.
    pub arrived: Timestamp,
    /// What came, trimmed, without control characters.
    pub text: Box<str>,
    /// Kept by the broker from before we listened.
    pub retained: bool,
}

/// One burst of evenly spaced samples of one tag, unscaled.
#[derive(Debug, Clone, PartialEq)]
pub struct RawWaveform {
    /// Which tag.
    pub tag: TagKey,
    /// Time of the first sample from the payload, when it has one.
    pub source_time: Option<Timestamp>,
    /// Arrival of the response or message in UTC.
    pub arrived: Timestamp,
    /// The samples, in the device's units, oldest first.
    pub samples: Box<[f32]>,
    /// Kept by the broker from before we listened.
    pub retained: bool,
}

/// One burst as it is kept: samples in the tag's unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Burst {
    /// Which tag.
    pub tag: TagKey,
    /// The number of the reading that stands for it (its RMS about the mean).
    pub arrival: Arrival,
    /// Time of its first sample, or when it arrived.
    pub time: Timestamp,
    /// Samples a second, where known.
    pub rate_hz: Option<f64>,
    /// How far it may be trusted.
    pub quality: Quality,
    /// The samples in the tag's engineering unit, oldest first.
    pub samples: Box<[f32]>,
}

/// What a source hands over in one piece: one response, one message, one request body.
#[derive(Debug)]
pub struct RawBatch {
    /// Where it came from.
    pub source: SourceId,
    /// The values, in the order they came.
    pub readings: Vec<RawReading>,
    /// What came that is no number; `None` almost always, so that a batch of numbers costs nothing.
    pub extras: Option<Box<Extras>>,
    /// Told when the readings are durable; a sender is waiting.
    pub ack: Option<Ack>,
    /// History handed in later (`import`): stored and learnt from, raises no alarm.
    pub historical: bool,
}

/// The part of a batch that is no number.
#[derive(Debug, Default, PartialEq)]
pub struct Extras {
    /// Texts, in the order they came.
    pub texts: Vec<RawText>,
    /// Bursts, in the order they came.
    pub waveforms: Vec<RawWaveform>,
}

/// Somebody waits until readings are durable. Told `true` when they are; dropped untold when they
/// will not be (the sender then repeats).
#[derive(Debug)]
pub struct Ack(pub tokio::sync::oneshot::Sender<()>);

impl Ack {
    /// Tells the waiting sender. Whoever no longer waits does not mind.
    pub fn done(self) {
        self.0.send(()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_survives_its_byte() {
        let mut all = vec![Quality::Good];
        for reason in Reason::ALL {
            all.extend([Quality::Uncertain(reason), Quality::Bad(reason)]);
        }
        for quality in all {
            assert_eq!(Quality::from_byte(quality.to_byte()), Some(quality));
        }
        for byte in [1, 0x40, 0x80, 0xc1, 0x8c, 0xff] {
            assert_eq!(Quality::from_byte(byte), None, "{byte:#x}");
        }
    }
}
