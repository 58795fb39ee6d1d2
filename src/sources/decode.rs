//! Pure: registers as they arrived become numbers, texts and bursts.
//!
//! A value is an `f64`: integers up to 2⁵³ (9·10¹⁵) are exact, larger ones of the 64-bit types are
//! the nearest `f64`, at most one part in 10¹⁶ away. NaN and infinities pass through; acquisition
//! judges them.

use crate::config::{ByteOrder, Packing, Point, PointType, Sample, Table};
use crate::domain::reading::{RawValue, Reason};

/// Most registers a number takes.
const REGISTERS_MAX: usize = 4;

/// What a point holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number, unscaled.
    Number(f64),
    /// A text, see [`text`].
    Text(Box<str>),
    /// Samples of a burst, unscaled, in the order they arrived.
    Samples(Box<[f32]>),
}

/// What a point of any type holds, from the registers that were read for it.
///
/// # Errors
/// As [`registers`].
pub fn value(kind: PointType, order: ByteOrder, words: &[u16]) -> Result<Value, Reason> {
    let words = words.get(..usize::from(kind.registers())).ok_or(Reason::Config)?;
    match kind {
        PointType::String { packing, .. } => Ok(Value::Text(text(words, packing, order).into())),
        PointType::Waveform { sample, .. } => samples(words, sample, order).map(Value::Samples),
        PointType::Bool
        | PointType::U8h
        | PointType::U8l
        | PointType::U16
        | PointType::I16
        | PointType::U32
        | PointType::I32
        | PointType::U64
        | PointType::I64
        | PointType::F16
        | PointType::F32
        | PointType::F64
        | PointType::Bcd16
        | PointType::Bcd32
        | PointType::Mod10k(_)
        | PointType::Bits { .. } => registers(kind, order, words).map(Value::Number),
    }
}

/// The number of a point from the registers that were read for it, in the order they arrived.
///
/// Words beyond those the point needs are ignored.
///
/// # Errors
/// [`Reason::Config`] when `words` is shorter than the point, or the point is no number;
/// [`Reason::Device`] for a decimal encoding (BCD, modulo 10,000) with a digit that is none.
pub fn registers(kind: PointType, order: ByteOrder, words: &[u16]) -> Result<f64, Reason> {
    let needed = usize::from(kind.registers());
    let mut buffer = [0_u16; REGISTERS_MAX];
    let words = words.get(..needed).ok_or(Reason::Config)?;
    let word = buffer.get_mut(..needed).ok_or(Reason::Config)?;
    word.copy_from_slice(words);
    straighten(order, word);
    Ok(match kind {
        PointType::Bool => f64::from(u8::from(word[0] != 0)),
        PointType::U8h => f64::from(word[0] >> 8),
        PointType::U8l => f64::from(word[0] & 0xff),
        PointType::U16 => f64::from(word[0]),
        PointType::I16 => f64::from(word[0].cast_signed()),
        PointType::U32 => f64::from(join32(word)),
        PointType::I32 => f64::from(join32(word).cast_signed()),
        PointType::U64 => join64(word) as f64,
        PointType::I64 => join64(word).cast_signed() as f64,
        PointType::F16 => half(word[0]),
        PointType::F32 => f64::from(f32::from_bits(join32(word))),
        PointType::F64 => f64::from_bits(join64(word)),
        PointType::Bcd16 => f64::from(decimal(u32::from(word[0]))?),
        PointType::Bcd32 => f64::from(decimal(join32(word))?),
        PointType::Mod10k(_) => modulo_10k(word)?,
        PointType::Bits { from, to } => bits(word[0], from, to)?,
        PointType::String { .. } | PointType::Waveform { .. } => return Err(Reason::Config),
    })
}

/// The characters in `words`: cut at the first NUL, without control characters, blanks trimmed at
/// both ends, and so is the 0xFF that some devices fill unused room with. Bytes that are no UTF-8
/// are taken as Latin-1, in which no byte is wrong.
#[must_use]
pub fn text(words: &[u16], packing: Packing, order: ByteOrder) -> String {
    let swap = match order {
        ByteOrder::Badc | ByteOrder::Dcba => true,
        ByteOrder::Abcd | ByteOrder::Cdab | ByteOrder::Places { .. } => false,
    };
    let mut bytes = Vec::with_capacity(words.len() * 2);
    for word in words {
        let [upper, lower] = if swap { word.to_le_bytes() } else { word.to_be_bytes() };
        match packing {
            Packing::Both => bytes.extend([upper, lower]),
            Packing::Upper => bytes.push(upper),
            Packing::Lower => bytes.push(lower),
        }
    }
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let bytes = bytes[..end].trim_ascii();
    let filled = bytes.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
    let bytes = &bytes[..filled];
    let all: String = match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().filter(|c| !c.is_control()).collect(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).filter(|c| !c.is_control()).collect(),
    };
    all.trim().to_owned()
}

/// The samples of a burst.
fn samples(words: &[u16], sample: Sample, order: ByteOrder) -> Result<Box<[f32]>, Reason> {
    let kind = sample.point_type();
    words
        .chunks_exact(usize::from(kind.registers()))
        .map(|words| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "16 bits and single precision fit into an f32"
            )]
            registers(kind, order, words).map(|number| number as f32)
        })
        .collect()
}

/// The value of a coil or a discrete input.
#[must_use]
pub fn bit(set: bool) -> f64 {
    f64::from(u8::from(set))
}

/// What a point of any type holds, from the answer to a read that began at `address`.
///
/// # Errors
/// As [`registers`].
pub fn held(point: &Point, address: u16, words: &[u16]) -> Result<Value, Reason> {
    let offset = point.address.checked_sub(address).ok_or(Reason::Config)?;
    let words = words.get(usize::from(offset)..).ok_or(Reason::Config)?;
    value(point.kind, point.order, words)
}

/// The raw value of a point from the answer to a read of a register table that began at `address`.
#[must_use]
pub fn point(point: &Point, address: u16, words: &[u16]) -> RawValue {
    let value = point
        .address
        .checked_sub(address)
        .and_then(|offset| words.get(usize::from(offset)..))
        .ok_or(Reason::Config)
        .and_then(|words| registers(point.kind, point.order, words));
    match value {
        Ok(value) => RawValue::Number(value),
        Err(reason) => RawValue::Failed(reason),
    }
}

/// The same for a table of bits.
#[must_use]
pub fn coil(point: &Point, address: u16, bits: &[bool]) -> RawValue {
    let offset = point.address.checked_sub(address).map(usize::from);
    match offset.and_then(|offset| bits.get(offset)) {
        Some(&set) => RawValue::Number(bit(set)),
        None => RawValue::Failed(Reason::Config),
    }
}

/// Whether a table holds bits rather than registers.
#[must_use]
pub const fn is_bits(table: Table) -> bool {
    match table {
        Table::Coil | Table::Discrete => true,
        Table::Holding | Table::Input => false,
    }
}

/// Puts words and bytes into the order most significant first. A permutation of another length
/// than the words' changes nothing; the configuration lets none through.
fn straighten(order: ByteOrder, words: &mut [u16]) {
    let (swap_words, swap_bytes) = match order {
        ByteOrder::Abcd => (false, false),
        ByteOrder::Cdab => (true, false),
        ByteOrder::Badc => (false, true),
        ByteOrder::Dcba => (true, true),
        ByteOrder::Places { count, at } => return permute(usize::from(count), at, words),
    };
    if swap_words {
        words.reverse();
    }
    if swap_bytes {
        for word in words {
            *word = word.swap_bytes();
        }
    }
}

fn permute(count: usize, at: [u8; 8], words: &mut [u16]) {
    let mut bytes = [0_u8; 8];
    if count != words.len() * 2 || count > bytes.len() {
        return;
    }
    let arrived = words.iter().flat_map(|word| word.to_be_bytes());
    for (byte, place) in arrived.zip(at) {
        if let Some(slot) = bytes.get_mut(usize::from(place)) {
            *slot = byte;
        }
    }
    for (word, pair) in words.iter_mut().zip(bytes.chunks_exact(2)) {
        *word = u16::from_be_bytes([pair[0], pair[1]]);
    }
}

fn join32(words: &[u16]) -> u32 {
    u32::from(words[0]) << 16 | u32::from(words[1])
}

fn join64(words: &[u16]) -> u64 {
    u64::from(join32(words)) << 32 | u64::from(join32(&words[2..]))
}

/// IEEE 754 binary16: 1 sign bit, 5 bits of exponent (bias 15), 10 bits of fraction.
fn half(word: u16) -> f64 {
    let sign = if word & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(word >> 10 & 0x1f);
    let fraction = f64::from(word & 0x3ff);
    sign * match exponent {
        0 => fraction * 2.0_f64.powi(-24),
        31 if word & 0x3ff == 0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2.0_f64.powi(exponent - 25),
    }
}

fn decimal(packed: u32) -> Result<u32, Reason> {
    (0..8).rev().try_fold(0, |value, place| {
        let digit = packed >> (4 * place) & 0xf;
        if digit > 9 { Err(Reason::Device) } else { Ok(value * 10 + digit) }
    })
}

/// Registers of 0 to 9999 each, the most significant one last.
fn modulo_10k(words: &[u16]) -> Result<f64, Reason> {
    words.iter().rev().try_fold(0.0, |value, &word| {
        if word > 9999 { Err(Reason::Device) } else { Ok(value * 10_000.0 + f64::from(word)) }
    })
}

fn bits(word: u16, from: u8, to: u8) -> Result<f64, Reason> {
    if from > to || to > 15 {
        return Err(Reason::Config);
    }
    let mask = (1_u32 << (to - from + 1)) - 1;
    Ok(f64::from(u32::from(word) >> from & mask))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORDERS: [ByteOrder; 4] =
        [ByteOrder::Abcd, ByteOrder::Cdab, ByteOrder::Badc, ByteOrder::Dcba];

    fn words(bytes: &[u8]) -> Vec<u16> {
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    #[track_caller]
    fn check(kind: PointType, order: ByteOrder, arrived: &[u8], expected: f64) {
        let value = registers(kind, order, &words(arrived)).unwrap();
        assert_eq!(value.to_bits(), expected.to_bits(), "{kind:?} {order:?}: {value}");
    }

    #[test]
    fn thirty_two_bits_in_all_four_orders() {
        // 0x42F6E979 is 123.456 (IEEE 754 single, rounded).
        let value = f64::from(123.456_f32);
        check(PointType::F32, ByteOrder::Abcd, &[0x42, 0xF6, 0xE9, 0x79], value);
        check(PointType::F32, ByteOrder::Cdab, &[0xE9, 0x79, 0x42, 0xF6], value);
        check(PointType::F32, ByteOrder::Badc, &[0xF6, 0x42, 0x79, 0xE9], value);
        check(PointType::F32, ByteOrder::Dcba, &[0x79, 0xE9, 0xF6, 0x42], value);
        check(PointType::U32, ByteOrder::Cdab, &[0x56, 0x78, 0x12, 0x34], 305_419_896.0);
        check(PointType::I32, ByteOrder::Dcba, &[0xFE, 0xFF, 0xFF, 0xFF], -2.0);
    }

    #[test]
    fn sixty_four_bits_extend_the_pattern() {
        let bytes = 1_234.567_8_f64.to_be_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        check(PointType::F64, ByteOrder::Abcd, &[a, b, c, d, e, f, g, h], 1_234.567_8);
        check(PointType::F64, ByteOrder::Cdab, &[g, h, e, f, c, d, a, b], 1_234.567_8);
        check(PointType::F64, ByteOrder::Badc, &[b, a, d, c, f, e, h, g], 1_234.567_8);
        check(PointType::F64, ByteOrder::Dcba, &[h, g, f, e, d, c, b, a], 1_234.567_8);
        check(PointType::U64, ByteOrder::Abcd, &[0, 0, 0, 1, 0, 0, 0, 2], 4_294_967_298.0);
        check(PointType::I64, ByteOrder::Abcd, &[0xFF; 8], -1.0);
    }

    #[test]
    fn sixteen_bits_and_less() {
        check(PointType::U16, ByteOrder::Abcd, &[0x80, 0x01], 32_769.0);
        check(PointType::U16, ByteOrder::Badc, &[0x01, 0x80], 32_769.0);
        check(PointType::U16, ByteOrder::Cdab, &[0x80, 0x01], 32_769.0);
        check(PointType::I16, ByteOrder::Abcd, &[0x80, 0x01], -32_767.0);
        check(PointType::U8h, ByteOrder::Abcd, &[0x12, 0x34], 18.0);
        check(PointType::U8l, ByteOrder::Abcd, &[0x12, 0x34], 52.0);
        check(PointType::Bool, ByteOrder::Abcd, &[0, 0], 0.0);
        check(PointType::Bool, ByteOrder::Abcd, &[0, 2], 1.0);
        check(PointType::Bits { from: 4, to: 7 }, ByteOrder::Abcd, &[0x12, 0x34], 3.0);
        check(PointType::Bits { from: 0, to: 15 }, ByteOrder::Abcd, &[0xff, 0xff], 65_535.0);
    }

    #[test]
    fn halves_follow_ieee_754() {
        check(PointType::F16, ByteOrder::Abcd, &[0x3C, 0x00], 1.0);
        check(PointType::F16, ByteOrder::Abcd, &[0xC0, 0x00], -2.0);
        check(PointType::F16, ByteOrder::Abcd, &[0x7B, 0xFF], 65_504.0);
        check(PointType::F16, ByteOrder::Abcd, &[0x00, 0x01], 2.0_f64.powi(-24));
        check(PointType::F16, ByteOrder::Abcd, &[0x35, 0x55], 0.333_251_953_125);
        check(PointType::F16, ByteOrder::Abcd, &[0x7C, 0x00], f64::INFINITY);
        assert!(registers(PointType::F16, ByteOrder::Abcd, &[0x7E00]).unwrap().is_nan());
    }

    #[test]
    fn decimal_encodings_refuse_digits_that_are_none() {
        check(PointType::Bcd16, ByteOrder::Abcd, &[0x12, 0x34], 1234.0);
        check(PointType::Bcd32, ByteOrder::Abcd, &[0x98, 0x76, 0x54, 0x32], 98_765_432.0);
        check(PointType::Bcd32, ByteOrder::Cdab, &[0x54, 0x32, 0x98, 0x76], 98_765_432.0);
        check(PointType::Mod10k(2), ByteOrder::Abcd, &[0x16, 0x2E, 0x04, 0xD2], 12_345_678.0);
        check(
            PointType::Mod10k(4),
            ByteOrder::Cdab,
            &[0, 1, 0, 2, 0, 3, 0, 4],
            1_000_200_030_004.0,
        );
        let bad = |kind, words: &[u16]| registers(kind, ByteOrder::Abcd, words);
        assert_eq!(bad(PointType::Bcd16, &[0x12A4]), Err(Reason::Device));
        assert_eq!(bad(PointType::Bcd32, &[0x1234, 0xF000]), Err(Reason::Device));
        assert_eq!(bad(PointType::Mod10k(3), &[1, 10_000, 1]), Err(Reason::Device));
    }

    #[test]
    fn c16_every_class_of_float_passes_through_as_it_is() {
        for bits in [0x7FC0_0000_u32, 0x7F80_0001, 0x7F80_0000, 0xFF80_0000, 0, 0x8000_0000, 1] {
            let value = f32::from_bits(bits);
            let [a, b, c, d] = value.to_be_bytes();
            let read = registers(PointType::F32, ByteOrder::Abcd, &words(&[a, b, c, d])).unwrap();
            assert_eq!(read.is_nan(), value.is_nan());
            assert!(value.is_nan() || read.to_bits() == f64::from(value).to_bits());
        }
    }

    fn any_kind() -> impl Strategy<Value = PointType> {
        prop_oneof![
            Just(PointType::Bool),
            Just(PointType::U8h),
            Just(PointType::U8l),
            Just(PointType::U16),
            Just(PointType::I16),
            Just(PointType::U32),
            Just(PointType::I32),
            Just(PointType::U64),
            Just(PointType::I64),
            Just(PointType::F16),
            Just(PointType::F32),
            Just(PointType::F64),
            Just(PointType::Bcd16),
            Just(PointType::Bcd32),
            any::<u8>().prop_map(PointType::Mod10k),
            (any::<u8>(), any::<u8>()).prop_map(|(from, to)| PointType::Bits { from, to }),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_arrives_panics(
            kind in any_kind(),
            order in 0..4_usize,
            words in proptest::collection::vec(any::<u16>(), 0..8),
            address in any::<u16>(),
            start in any::<u16>(),
        ) {
            let order = ORDERS[order];
            registers(kind, order, &words).ok();
            let at = Point { unit: 1, table: Table::Holding, address, kind, order };
            for raw in [point(&at, start, &words), coil(&at, start, &[true, false])] {
                prop_assert!(!matches!(raw, RawValue::Scaled(..)));
            }
        }

        #[test]
        fn every_order_is_undone(value in any::<u64>(), order in 0..4_usize) {
            let order = ORDERS[order];
            let mut wire = words(&value.to_be_bytes());
            straighten(order, &mut wire);
            let read = registers(PointType::U64, order, &wire).unwrap();
            prop_assert_eq!(read.to_bits(), (value as f64).to_bits());
        }
    }
}

#[cfg(test)]
#[path = "decode_rows.rs"]
mod rows;
