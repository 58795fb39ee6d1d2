//! What a Modbus tag may say of its registers.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::domain::tag::Form;

fn read(source: &str, tag: &str) -> Result<ModbusTag, String> {
    let text = format!(
        "[gateway]\nsite = \"s\"\nid = \"g\"\n[[asset]]\nid = \"A\"\n[[modbus]]\nname = \"m\"\n\
         url = \"tcp://127.0.0.1\"\n{source}\n[[modbus.tag]]\nid = \"t\"\nasset = \"A\"\n{tag}\n"
    );
    let config = parse(&text, Path::new("x.toml"), &BTreeMap::new());
    config.map(|config| config.modbus[0].tags[0].clone()).map_err(|errors| errors.to_string())
}

fn register(kind: &str, rest: &str) -> Result<ModbusTag, String> {
    read("", &format!("point = \"holding:1\"\ntype = \"{kind}\"\n{rest}"))
}

#[track_caller]
fn mistake(kind: &str, rest: &str, what: &str) {
    let error = register(kind, rest).unwrap_err();
    assert!(error.contains(what), "{error}");
}

#[test]
fn row26_sentinels_are_raw_values_of_the_type() {
    let invalid = |kind: &str, list: &str| {
        register(kind, &format!("invalid = [{list}]")).unwrap_or_else(|e| panic!("{e}")).tag.invalid
    };
    assert_eq!(invalid("u16", "0xFFFF, 65534.0"), [65_535.0, 65_534.0]);
    assert_eq!(invalid("i16", "0x8000, -5, 0xFFFF"), [-32_768.0, -5.0, -1.0]);
    assert_eq!(invalid("i32", "0x80000000"), [-2_147_483_648.0]);
    assert_eq!(invalid("u64", "\"0xFFFFFFFFFFFFFFFF\""), [18_446_744_073_709_551_615.0]);
    assert_eq!(invalid("i64", "\"0x8000000000000000\""), [-9_223_372_036_854_775_808.0]);
    assert_eq!(invalid("f32", "-9999.9, \"0x7F7FFFFF\""), [-9999.9, f64::from(f32::MAX)]);
    assert_eq!(invalid("bcd16", "\"0x9999\", 9998"), [9_999.0, 9_998.0]);
    assert_eq!(invalid("waveform:i16:8", "0x8000, \"0x7FFF\""), [-32_768.0, 32_767.0]);
    for (kind, list, what) in [
        ("u16", "70000", "no raw value of a `u16`"),
        ("u16", "-1", "no raw value"),
        ("u16", "0.5", "no raw value"),
        ("bool", "2", "no raw value"),
        ("i16", "\"0x80000000\"", "0x and 4 hexadecimal digits"),
        ("f32", "\"0x7FC00000\"", "bad without being listed"),
        ("bcd16", "\"0xFFFF\"", "bad anyway"),
        ("u16", "true", "not a raw value"),
    ] {
        mistake(kind, &format!("invalid = [{list}]"), what);
    }
}

#[test]
fn row16_states_name_raw_values() {
    let tag =
        register("u16", "values = { 2 = \"fault\", 0 = \"stopped\", 0x10 = \"test\" }").unwrap();
    let states: Vec<(i64, &str)> =
        tag.tag.handling.states.iter().map(|(number, name)| (*number, name.as_str())).collect();
    assert_eq!(states, [(0, "stopped"), (2, "fault"), (16, "test")]);
    assert!(tag.tag.discrete);
    assert!(!register("u16", "values = { 0 = \"a\" }\ndiscrete = false").unwrap().tag.discrete);
    for (kind, rest, what) in [
        ("u16", "values = { -1 = \"a\" }", "which a `u16` never is"),
        ("bits:0-1", "values = { 4 = \"a\" }", "never is"),
        ("f32", "values = { 0 = \"a\" }", "has no states"),
        ("u16", "values = { 0 = \"a\" }\nscale = 2", "stand for raw values"),
        ("u16", "values = { 0 = 1 }", "not a string"),
        ("u16", "values = { 0 = \" \" }", "1 to 64 bytes"),
        ("u16", "values = { 1 = \"a\", 0x1 = \"b\" }", "named twice"),
        ("u16", "values = [1]", "must be a table"),
    ] {
        mistake(kind, rest, what);
    }
}

#[test]
fn row18_row19_row25_counters_and_decimals_are_read() {
    let tag = register("u32", "counter = true\ndecimals = 2").unwrap().tag;
    assert_eq!((tag.handling.counter, tag.handling.decimals), (Some(1 << 32), Some(2)));
    assert!(tag.discrete, "a total is a drift without end");
    let modulus = |kind: &str| register(kind, "counter = true").unwrap().tag.handling.counter;
    assert_eq!((modulus("bcd32"), modulus("mod10k:2")), (Some(100_000_000), Some(100_000_000)));
    assert_eq!(modulus("u64"), Some(1 << 64));
    mistake("i16", "counter = true", "does not count");
    mistake("u16", "decimals = 16", "allowed are 0 to 15");
}

#[test]
fn row17_texts_and_bursts_take_what_makes_sense() {
    let text = register("string:8", "").unwrap().tag;
    assert_eq!((text.handling.form, text.discrete), (Form::Text, true));
    mistake("string:8", "scale = 2", "a text is no number");
    mistake("string:8", "order = \"CDAB\"", "lower byte first");
    let burst = register("waveform:i16:512", "sample_rate = 25600").unwrap();
    assert_eq!(burst.tag.handling.form, Form::Waveform { rate_hz: Some(25_600.0) });
    assert_eq!(burst.point.kind.registers(), 512);
    mistake("waveform:i16:8", "values = { 0 = \"a\" }", "neither states nor counts");
    mistake("u16", "sample_rate = 5", "belongs to a `waveform`");
}

#[test]
fn row20_row22_the_source_has_a_habit_and_a_tag_may_differ() {
    let point = "point = \"holding:101\"\n";
    let tag = |source: &str, rest: &str| read(source, &format!("{point}{rest}"));
    let order =
        |kind: &str| tag("order = \"CDAB\"", &format!("type = \"{kind}\"")).unwrap().point.order;
    // What has no words to swap is not troubled by the source's order.
    assert_eq!((order("f32"), order("f64")), (ByteOrder::Cdab, ByteOrder::Cdab));
    assert_eq!((order("u16"), order("u8h")), (ByteOrder::Abcd, ByteOrder::Abcd));
    let own = tag("order = \"CDAB\"", "type = \"f32\"\norder = \"DCBA\"").unwrap();
    assert_eq!(own.point.order, ByteOrder::Dcba);
    assert_eq!(tag("address_base = 1", "type = \"u16\"").unwrap().point.address, 100);
    let mixed = tag("", "type = \"u16\"\naddress_base = 1").unwrap_err();
    assert!(mixed.contains("belongs to the source: one habit"), "{mixed}");
    let classic = read("", "point = \"40101\"\ntype = \"u16\"").unwrap_err();
    assert!(classic.contains("write holding:100, or holding:101"), "{classic}");
    let zero = read("address_base = 1", "point = \"holding:0\"\ntype = \"u16\"").unwrap_err();
    assert!(zero.contains("begin at 1"), "{zero}");
}
