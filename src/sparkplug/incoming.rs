//! Payloads of strangers: the fields a host needs, bounded before anything is built.
//!
//! Tables, structures and bytes are skipped by the decoder, so nothing nests and a short message
//! cannot become a large one: at most [`METRICS_MAX`] metrics of a few hundred bytes each.

use prost::Message;

/// Most metrics in one message.
pub const METRICS_MAX: usize = 10_000;
/// Longest message that is looked at, in bytes. Births carry all names and are long.
pub const BYTES_MAX: usize = 1 << 20;

/// Why a message is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IncomingError {
    /// Longer than [`BYTES_MAX`].
    #[error("{length} bytes are more than the {BYTES_MAX} that are looked at")]
    TooLong {
        /// Bytes that came.
        length: usize,
    },
    /// More than [`METRICS_MAX`].
    #[error("more than {METRICS_MAX} metrics")]
    TooManyMetrics,
    /// Not a Sparkplug B payload.
    #[error("not a Sparkplug payload: {what}")]
    Broken {
        /// What the decoder says.
        what: String,
    },
}

/// One message.
#[derive(Clone, PartialEq, Message)]
pub struct Incoming {
    /// When it was sent, milliseconds since 1970 in UTC.
    #[prost(uint64, optional, tag = "1")]
    pub timestamp: Option<u64>,
    /// What it says.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// Running number of the node.
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
}

/// One named value.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Name, in births and without aliases.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Number that stands for the name.
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    /// When it was measured, milliseconds since 1970 in UTC.
    #[prost(uint64, optional, tag = "3")]
    pub timestamp: Option<u64>,
    /// Its type, in births.
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    /// Sent late: not the present value.
    #[prost(bool, optional, tag = "5")]
    pub is_historical: Option<bool>,
    /// There is no value.
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    /// About the value.
    #[prost(message, optional, tag = "9")]
    pub properties: Option<Properties>,
    /// The value; `None` also for tables, structures and bytes.
    #[prost(oneof = "Value", tags = "10, 11, 12, 13, 14, 15")]
    pub value: Option<Value>,
}

/// A value that can become a reading.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Up to 32 bits, signed ones as two's complement.
    #[prost(uint32, tag = "10")]
    Int(u32),
    /// 64 bits, likewise.
    #[prost(uint64, tag = "11")]
    Long(u64),
    /// Single precision.
    #[prost(float, tag = "12")]
    Float(f32),
    /// Double precision.
    #[prost(double, tag = "13")]
    Double(f64),
    /// True or false.
    #[prost(bool, tag = "14")]
    Boolean(bool),
    /// Text.
    #[prost(string, tag = "15")]
    Text(String),
}

/// Properties by name.
#[derive(Clone, PartialEq, Message)]
pub struct Properties {
    /// Names.
    #[prost(string, repeated, tag = "1")]
    pub keys: Vec<String>,
    /// Values in the order of the names.
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<Property>,
}

/// One property, as far as it is a number.
#[derive(Clone, PartialEq, Message)]
pub struct Property {
    /// The value.
    #[prost(uint32, optional, tag = "3")]
    pub int: Option<u32>,
}

impl Metric {
    /// The property `Quality`: 0 bad, 192 good, 500 stale; `None` when it is not there.
    #[must_use]
    pub fn quality(&self) -> Option<u32> {
        let properties = self.properties.as_ref()?;
        let place = properties.keys.iter().position(|key| key == "Quality")?;
        properties.values.get(place)?.int
    }
}

/// Reads a message.
///
/// # Errors
/// [`IncomingError`].
pub fn decode(payload: &[u8]) -> Result<Incoming, IncomingError> {
    if payload.len() > BYTES_MAX {
        return Err(IncomingError::TooLong { length: payload.len() });
    }
    if count_metrics(payload).is_some_and(|count| count > METRICS_MAX) {
        return Err(IncomingError::TooManyMetrics);
    }
    Incoming::decode(payload).map_err(|error| IncomingError::Broken { what: error.to_string() })
}

/// Metrics of a message, counted without building them, up to one more than [`METRICS_MAX`];
/// `None` when the message is broken.
fn count_metrics(mut rest: &[u8]) -> Option<usize> {
    const METRICS: u64 = 2;
    let mut count = 0;
    while !rest.is_empty() && count <= METRICS_MAX {
        let key = varint(&mut rest)?;
        let length = match key & 7 {
            0 => {
                varint(&mut rest)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        count += usize::from(key >> 3 == METRICS);
        rest = rest.get(length..)?;
    }
    Some(count)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..10 {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * place).min(63);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The number behind a value of this type; `None` for text that is none and for types that are no
/// number.
#[must_use]
pub fn number(value: &Value, datatype: Option<u32>) -> Option<f64> {
    use super::payload::datatype as of;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "signed numbers travel as two's complement in the width of their type"
    )]
    Some(match *value {
        Value::Int(bits) => match datatype {
            Some(of::INT8) => f64::from(bits as u8 as i8),
            Some(of::INT16) => f64::from(bits as u16 as i16),
            Some(of::INT32) => f64::from(bits as i32),
            _ => f64::from(bits),
        },
        Value::Long(bits) => match datatype {
            Some(of::INT64) => bits as i64 as f64,
            _ => bits as f64,
        },
        Value::Float(value) => f64::from(value),
        Value::Double(value) => value,
        Value::Boolean(set) => f64::from(u8::from(set)),
        Value::Text(ref text) => return text.trim().parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::payload::{self, datatype};
    use super::*;

    #[test]
    fn what_is_composed_is_read() {
        let sent = payload::Payload {
            timestamp: Some(5),
            seq: Some(7),
            metrics: vec![payload::Metric {
                name: Some("a".to_owned()),
                alias: Some(3),
                datatype: Some(datatype::INT8),
                properties: Some(payload::PropertySet {
                    keys: vec!["unit".to_owned(), "Quality".to_owned()],
                    values: vec![
                        payload::PropertyValue {
                            value: Some(payload::property::Value::String("°C".to_owned())),
                            ..Default::default()
                        },
                        payload::PropertyValue {
                            value: Some(payload::property::Value::Int(500)),
                            ..Default::default()
                        },
                    ],
                }),
                value: Some(payload::metric::Value::Int(0xff)),
                ..Default::default()
            }],
            ..Default::default()
        };
        let read = decode(&sent.encode_to_vec()).unwrap();
        assert_eq!((read.timestamp, read.seq), (Some(5), Some(7)));
        let metric = &read.metrics[0];
        assert_eq!(metric.quality(), Some(500));
        let value = number(metric.value.as_ref().unwrap(), metric.datatype).unwrap();
        assert!((value + 1.0).abs() < 1e-9, "{value}");
    }

    #[test]
    fn d06_too_many_metrics_are_refused_before_they_are_built() {
        // Two bytes each: empty metrics.
        let flood = [0x12, 0x00].repeat(100_000);
        assert_eq!(decode(&flood), Err(IncomingError::TooManyMetrics));
        let just = [0x12, 0x00].repeat(METRICS_MAX);
        assert_eq!(decode(&just).unwrap().metrics.len(), METRICS_MAX);
        let length = BYTES_MAX + 1;
        assert_eq!(decode(&vec![0; length]), Err(IncomingError::TooLong { length }));
    }

    #[test]
    fn d06_truncated_messages_are_errors_and_no_panic() {
        let sent = payload::Payload::rebirth(1_790_000_000_000).encode_to_vec();
        for length in 1..sent.len() {
            // A cut at the border of a field is a shorter message.
            if let Err(error) = decode(&sent[..length]) {
                assert!(matches!(error, IncomingError::Broken { .. }), "{error}");
            }
        }
        let mut rng = fastrand::Rng::with_seed(6);
        for _ in 0..20_000 {
            let mut broken = sent.clone();
            for _ in 0..rng.usize(1..6) {
                let place = rng.usize(..broken.len());
                broken[place] = rng.u8(..);
            }
            decode(&broken).ok();
        }
        assert!(decode(&[0xff; 32]).is_err());
    }
}
