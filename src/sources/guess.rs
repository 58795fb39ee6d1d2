//! Pure: what a block of registers could mean. Every type in every order that it knows, each with
//! the word whether its values could be true: manuals are wrong about orders more often than about
//! addresses.

use serde::Serialize;

use crate::config::{ByteOrder, ModbusTag, PointType};
use crate::sources::decode;

/// Registers from the first one on that are tried.
pub const REGISTERS_MAX: u16 = 4;
/// Without a range: what a float in an engineering unit is, unless it is zero.
const FLOAT_SIZES: (f64, f64) = (1e-4, 1e7);
/// Without a range: the largest integer of 32 or 64 bits that is not taken for two others glued
/// together. Types of 16 bits may have any value.
const INTEGER_MAX: f64 = 1e7;

/// One meaning of the registers of a tag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guess {
    /// `asset/tag`.
    pub tag: String,
    /// The registers in hexadecimal.
    pub raw: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The order.
    pub order: String,
    /// Value in the tag's unit, of the last read; none where the registers are no such number.
    pub value: Option<f64>,
    /// The unit.
    pub unit: String,
    /// Whether it could be true: see [`guesses`].
    pub plausible: bool,
    /// Whether it is what is configured.
    pub configured: bool,
}

/// All meanings of the registers of a tag in some reads, the oldest first.
///
/// With a `range` a meaning is plausible when all its values lie within and none is further than
/// half the range from another. Without, when each is zero or of a usual size, and none is further
/// from another than half the largest: a number put together wrongly carries the noise of its
/// lowest digits in its highest.
#[must_use]
pub fn guesses(tag: &ModbusTag, reads: &[Vec<u16>]) -> Vec<Guess> {
    let Some(last) = reads.last() else { return Vec::new() };
    let mut found = Vec::new();
    for kind in PointType::PLAIN {
        for order in ByteOrder::COMMON {
            if order.fits(kind).is_err() || usize::from(kind.registers()) > last.len() {
                continue;
            }
            let values: Vec<Option<f64>> = reads
                .iter()
                .map(|words| {
                    let raw = decode::registers(kind, order, words).ok()?;
                    Some(raw * tag.tag.scale + tag.tag.offset).filter(|value| value.is_finite())
                })
                .collect();
            let own = &last[..usize::from(kind.registers())];
            let raw: Vec<String> = own.iter().map(|word| format!("{word:04x}")).collect();
            found.push(Guess {
                tag: tag.tag.path.to_string(),
                raw: raw.join(" "),
                kind: kind.name(),
                order: order.name(),
                value: values.last().copied().flatten(),
                unit: tag.tag.unit.clone(),
                plausible: plausible(kind, &values, tag.tag.range),
                configured: tag.point.kind == kind && tag.point.order == order,
            });
        }
    }
    found
}

fn plausible(kind: PointType, values: &[Option<f64>], range: Option<(f64, f64)>) -> bool {
    let Some(values) = values.iter().copied().collect::<Option<Vec<f64>>>() else { return false };
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    if let Some((least, most)) = range {
        return low >= least && high <= most && high - low <= (most - least) / 2.0;
    }
    let largest = low.abs().max(high.abs());
    let steady = high - low <= largest / 2.0;
    let sized = match kind {
        PointType::F16 | PointType::F32 | PointType::F64 => values.iter().all(|value| {
            value.abs() < f64::MIN_POSITIVE
                || (FLOAT_SIZES.0..=FLOAT_SIZES.1).contains(&value.abs())
        }),
        PointType::U32
        | PointType::I32
        | PointType::U64
        | PointType::I64
        | PointType::Bcd32
        | PointType::Mod10k(_) => largest <= INTEGER_MAX,
        PointType::Bool
        | PointType::U8h
        | PointType::U8l
        | PointType::U16
        | PointType::I16
        | PointType::Bcd16
        | PointType::Bits { .. } => true,
        PointType::String { .. } | PointType::Waveform { .. } => false,
    };
    sized && steady
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Point, Table, TagConfig};
    use crate::domain::ids::{AssetId, TagId, TagPath};
    use crate::domain::tag::{Handling, Limits};

    fn tag(range: Option<(f64, f64)>) -> ModbusTag {
        ModbusTag {
            tag: TagConfig {
                path: TagPath { asset: AssetId::new("a").unwrap(), tag: TagId::new("t").unwrap() },
                unit: "°C".to_owned(),
                quantity: String::new(),
                scale: 1.0,
                offset: 0.0,
                range,
                invalid: Vec::new(),
                limits: Limits::default(),
                discrete: false,
                handling: Handling::default(),
            },
            point: Point {
                unit: 1,
                table: Table::Holding,
                address: 0,
                kind: PointType::F32,
                order: ByteOrder::Abcd,
            },
            poll: std::time::Duration::from_secs(1),
        }
    }

    /// Reads of a float whose words are swapped, with two registers of nothing behind.
    fn swapped(values: &[f32]) -> Vec<Vec<u16>> {
        let words = |value: &f32| {
            let [a, b, c, d] = value.to_be_bytes();
            vec![u16::from_be_bytes([c, d]), u16::from_be_bytes([a, b]), 0, 0]
        };
        values.iter().map(words).collect()
    }

    #[test]
    fn c15_the_right_order_is_among_the_plausible_and_the_configured_wrong_one_is_not() {
        for range in [None, Some((5.0, 200.0))] {
            let found = guesses(&tag(range), &swapped(&[63.217_f32, 63.244, 63.198]));
            let f32s: Vec<&Guess> = found.iter().filter(|guess| guess.kind == "f32").collect();
            let right: Vec<&str> =
                f32s.iter().filter(|one| one.plausible).map(|one| one.order.as_str()).collect();
            assert_eq!(right, ["CDAB"], "{f32s:#?}");
            let configured = f32s.iter().find(|guess| guess.configured).unwrap();
            assert_eq!((configured.order.as_str(), configured.plausible), ("ABCD", false));
        }
    }

    #[test]
    fn every_type_is_tried_in_every_order_it_knows() {
        let found = guesses(&tag(None), &swapped(&[1.0]));
        assert_eq!(found.iter().filter(|guess| guess.kind == "f64").count(), 4);
        assert_eq!(found.iter().filter(|guess| guess.kind == "u16").count(), 2);
        assert_eq!(found.iter().filter(|guess| guess.kind == "mod10k:3").count(), 2);
        // A device that gives one register alone is tried with what fits into one.
        let single = guesses(&tag(None), &[vec![0x3c00]]);
        assert!(single.iter().all(|guess| guess.raw.len() == 4));
        assert!(guesses(&tag(None), &[]).is_empty());
    }
}
