//! The types and orders of the contract, one test a row of what field devices do.

use proptest::prelude::*;

use crate::config::{ByteOrder, Packing, Point, PointType, Sample, Table};
use crate::domain::reading::{RawValue, Reason};
use crate::sources::decode::{Value, bit, coil, held, registers, text, value};

#[track_caller]
fn check(kind: PointType, order: ByteOrder, words: &[u16], expected: f64) {
    let found = registers(kind, order, words).unwrap();
    assert_eq!(found.to_bits(), expected.to_bits(), "{} {}: {found}", kind.name(), order.name());
}

const ABCD: ByteOrder = ByteOrder::Abcd;

#[test]
fn row06_sixteen_bits_with_and_without_sign() {
    check(PointType::U16, ABCD, &[0x8001], 32_769.0);
    check(PointType::I16, ABCD, &[0x8001], -32_767.0);
    check(PointType::I16, ABCD, &[0x7fff], 32_767.0);
}

#[test]
fn row07_the_upper_and_the_lower_byte() {
    check(PointType::U8h, ABCD, &[0x12f4], 18.0);
    check(PointType::U8l, ABCD, &[0x12f4], 244.0);
}

#[test]
fn row08_thirty_two_bits_with_and_without_sign() {
    check(PointType::U32, ABCD, &[0xffff, 0xfffe], 4_294_967_294.0);
    check(PointType::I32, ABCD, &[0xffff, 0xfffe], -2.0);
    check(PointType::I32, ByteOrder::Cdab, &[0x0001, 0x8000], -2_147_483_647.0);
}

#[test]
fn row09_sixty_four_bits_are_exact_to_two_to_the_53_and_then_the_nearest_number() {
    check(PointType::U64, ABCD, &[0x0020, 0, 0, 0], 9_007_199_254_740_992.0);
    check(PointType::U64, ABCD, &[0x001f, 0xffff, 0xffff, 0xffff], 9_007_199_254_740_991.0);
    check(PointType::I64, ABCD, &[0xffff, 0xffff, 0xffff, 0xffff], -1.0);
    // 2^53 + 1 lies between two numbers: the even one.
    check(PointType::U64, ABCD, &[0x0020, 0, 0, 1], 9_007_199_254_740_992.0);
    check(PointType::U64, ABCD, &[0xffff; 4], 18_446_744_073_709_551_615.0);
}

#[test]
fn row10_single_precision() {
    check(PointType::F32, ABCD, &[0x42f6, 0xe979], f64::from(123.456_f32));
    check(PointType::F32, ABCD, &[0x8000, 0], -0.0);
}

#[test]
fn row11_double_precision() {
    check(PointType::F64, ABCD, &[0x4093, 0x4a45, 0x6d5c, 0xfaad], 1_234.567_8);
}

#[test]
fn row12_half_precision() {
    check(PointType::F16, ABCD, &[0x3c00], 1.0);
    check(PointType::F16, ABCD, &[0xfbff], -65_504.0);
    check(PointType::F16, ABCD, &[0x0001], 2.0_f64.powi(-24));
}

#[test]
fn row13_coils_and_discrete_inputs() {
    let point =
        Point { unit: 1, table: Table::Coil, address: 7, kind: PointType::Bool, order: ABCD };
    assert_eq!(coil(&point, 5, &[false, false, true]), RawValue::Number(1.0));
    assert_eq!(coil(&point, 7, &[false]), RawValue::Number(0.0));
    assert_eq!(coil(&point, 5, &[true]), RawValue::Failed(Reason::Config));
    assert_eq!((bit(true), bit(false)), (1.0, 0.0));
}

#[test]
fn row14_one_bit_of_a_register() {
    for place in 0..16 {
        let kind = PointType::Bits { from: place, to: place };
        check(kind, ABCD, &[1 << place], 1.0);
        check(kind, ABCD, &[!(1 << place)], 0.0);
    }
    check(PointType::Bool, ABCD, &[0x0100], 1.0);
}

#[test]
fn row15_a_field_of_bits() {
    check(PointType::Bits { from: 3, to: 6 }, ABCD, &[0b0101_1000], 11.0);
    check(PointType::Bits { from: 0, to: 15 }, ABCD, &[0xffff], 65_535.0);
}

#[test]
fn row17_texts_are_cut_at_nul_and_trimmed() {
    let words = |text: &[u8]| -> Vec<u16> {
        text.chunks(2)
            .map(|two| u16::from_be_bytes([two[0], two.get(1).copied().unwrap_or(0)]))
            .collect()
    };
    let both = |bytes: &[u8]| text(&words(bytes), Packing::Both, ABCD);
    assert_eq!(both(b"  PUMP 7 \0garbage"), "PUMP 7");
    assert_eq!(both(b"AB\x07C\r\n"), "ABC");
    assert_eq!(both("Störung".as_bytes()), "Störung");
    assert_eq!(both(b"\xb0C K\xfchler"), "°C Kühler", "Latin-1");
    assert_eq!(both(b"V1.2\xff\xff\xff\xff"), "V1.2");
    assert_eq!(both(b"\0\0\0\0"), "");
    assert_eq!(both(b"\xff\xff"), "");
    assert_eq!(text(&words(b"BADC"), Packing::Both, ByteOrder::Badc), "ABCD");
    assert_eq!(text(&[0x4100, 0x4200, 0], Packing::Upper, ABCD), "AB");
    assert_eq!(text(&[0x0041, 0x0042, 0], Packing::Lower, ABCD), "AB");
    let kind = PointType::String { registers: 2, packing: Packing::Both };
    let found = value(kind, ABCD, &words(b"abcdef"));
    assert_eq!(found, Ok(Value::Text("abcd".into())));
    assert_eq!(value(kind, ABCD, &[0]), Err(Reason::Config));
}

#[test]
fn row18_binary_coded_decimals() {
    check(PointType::Bcd16, ABCD, &[0x1234], 1234.0);
    check(PointType::Bcd32, ABCD, &[0x9876, 0x5432], 98_765_432.0);
    assert_eq!(registers(PointType::Bcd16, ABCD, &[0x12a4]), Err(Reason::Device));
}

#[test]
fn row19_modulo_ten_thousand() {
    check(PointType::Mod10k(2), ABCD, &[5678, 1234], 12_345_678.0);
    check(PointType::Mod10k(3), ABCD, &[9012, 5678, 1234], 123_456_789_012.0);
    check(PointType::Mod10k(4), ByteOrder::Cdab, &[1, 2, 3, 4], 1_000_200_030_004.0);
    assert_eq!(registers(PointType::Mod10k(2), ABCD, &[10_000, 0]), Err(Reason::Device));
}

#[test]
fn row20_the_four_orders_of_four_bytes() {
    let value = f64::from(123.456_f32);
    check(PointType::F32, ByteOrder::Abcd, &[0x42f6, 0xe979], value);
    check(PointType::F32, ByteOrder::Cdab, &[0xe979, 0x42f6], value);
    check(PointType::F32, ByteOrder::Badc, &[0xf642, 0x79e9], value);
    check(PointType::F32, ByteOrder::Dcba, &[0x79e9, 0xf642], value);
    check(PointType::U16, ByteOrder::Badc, &[0x3412], 4660.0);
}

#[test]
fn waveforms_are_samples_in_the_order_they_came() {
    let kind = PointType::Waveform { sample: Sample::I16, count: 3 };
    let found = value(kind, ByteOrder::Badc, &[0x0100, 0xffff, 0x0080, 7]);
    assert_eq!(found, Ok(Value::Samples([1.0, -1.0, -32_768.0].into())));
    let kind = PointType::Waveform { sample: Sample::F32, count: 2 };
    let point = Point { unit: 1, table: Table::Input, address: 11, kind, order: ByteOrder::Cdab };
    let found = held(&point, 10, &[0, 0, 0x3f80, 0, 0xbf80]);
    assert_eq!(found, Ok(Value::Samples([1.0, -1.0].into())));
    assert_eq!(held(&point, 12, &[0; 8]), Err(Reason::Config));
}

proptest! {
    /// The order is applied to the bytes by another way than the decoder's: by its letters.
    #[test]
    fn row21_every_permutation_of_eight_and_four_bytes_is_undone(
        letters in Just((0..8_u8).collect::<Vec<u8>>()).prop_shuffle(),
        number in any::<u64>(),
    ) {
        for count in [4_usize, 8] {
            let own: Vec<u8> = letters.iter().copied().filter(|at| usize::from(*at) < count).collect();
            let name: String = own.iter().map(|at| char::from(b'A' + at)).collect();
            let order = crate::config::point::order(&name).unwrap();
            let bytes = &number.to_be_bytes()[8 - count..];
            let wire: Vec<u8> = own.iter().map(|at| bytes[usize::from(*at)]).collect();
            let words: Vec<u16> =
                wire.chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
            let (kind, expected) = if count == 8 {
                (PointType::U64, number as f64)
            } else {
                (PointType::U32, (number & 0xffff_ffff) as f64)
            };
            let found = registers(kind, order, &words).unwrap();
            prop_assert_eq!(found.to_bits(), expected.to_bits(), "{}", name);
        }
    }

    #[test]
    fn no_text_and_no_burst_panics(
        words in proptest::collection::vec(any::<u16>(), 0..300),
        count in 0..300_u16,
        which in 0..6_usize,
    ) {
        let text = |packing| PointType::String { registers: count, packing };
        let burst = |sample| PointType::Waveform { sample, count };
        let kind = [
            text(Packing::Both), text(Packing::Upper), text(Packing::Lower),
            burst(Sample::I16), burst(Sample::U16), burst(Sample::F32),
        ][which];
        for order in ByteOrder::COMMON {
            if let Ok(Value::Text(text)) = value(kind, order, &words) {
                prop_assert!(!text.chars().any(char::is_control) && &*text == text.trim());
            }
        }
    }
}
