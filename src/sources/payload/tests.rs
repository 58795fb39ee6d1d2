//! Each form of payload, with what strangers make of it.

#![allow(clippy::wildcard_enum_match_arm, reason = "tests tell one case from all others")]

use proptest::prelude::*;

use super::*;
use crate::config::Column;

fn at(pointer: &str) -> Pointer {
    Pointer::parse(pointer).unwrap()
}

fn json_format(pointer: &str) -> Format {
    let mut plan = JsonPlan::default();
    plan.add(&at(pointer), None);
    Format::Json(plan)
}

fn read(format: &Format, payload: &[u8]) -> Result<Vec<Item>, PayloadError> {
    let mut found = Found::default();
    decode(format, payload, BYTES_MAX, &mut found)?;
    Ok(found.items().to_vec())
}

fn value(format: &Format, payload: &[u8]) -> Result<Value, PayloadError> {
    read(format, payload).map(|items| items.into_iter().next().unwrap().value)
}

fn json(payload: &[u8], pointer: &str) -> Result<Value, PayloadError> {
    value(&json_format(pointer), payload)
}

fn text(payload: &[u8]) -> Result<Value, PayloadError> {
    value(&Format::Text, payload)
}

#[track_caller]
fn check(document: &str, pointer: &str, expected: Result<Value, &str>) {
    let value = json(document.as_bytes(), pointer).map_err(|error| error.to_string());
    match (&value, expected) {
        (Ok(value), Ok(expected)) => assert_eq!(*value, expected, "{document} {pointer}"),
        (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
        (value, expected) => panic!("{document} {pointer}: {value:?}, not {expected:?}"),
    }
}

#[test]
fn values_are_found_along_the_pointer() {
    let document = r#"{"a":{"b/c":[1,{"d~":2.5}]},"x":true,"n":null,"s":" 3e2 ","t":"hot"}"#;
    check(document, "/a/b~1c/0", Ok(Value::Number(1.0)));
    check(r#"{"x":[null]}"#, "/x", Ok(Value::Null));
    check(document, "/a/b~1c/1/d~0", Ok(Value::Number(2.5)));
    check(document, "/x", Ok(Value::Number(1.0)));
    check(document, "/n", Ok(Value::Null));
    check(document, "/s", Ok(Value::Number(300.0)));
    check(document, "/t", Ok(Value::Text("hot".into())));
    check(document, "/a", Ok(Value::Nested));
    check(document, "/a/b~1c/2", Err("nothing at"));
    check(document, "/a/b~1c/00", Err("nothing at"));
    check(document, "/x/y", Err("nothing at"));
    check("17", "", Ok(Value::Number(17.0)));
    check("[]", "/0", Err("nothing at"));
}

#[test]
fn one_walk_fills_the_slots_of_all_tags() {
    let mut plan = JsonPlan::default();
    let time = at("/t");
    assert_eq!(plan.add(&at("/a/x"), Some(&time)), 0);
    assert_eq!(plan.add(&at("/a/y"), Some(&time)), 1);
    assert_eq!(plan.add(&at("/gone"), None), 2);
    assert_eq!(plan.add(&at("/a/x"), None), 3);
    let format = Format::Json(plan);
    let items = read(&format, br#"{"t":1790000000,"a":{"y":2,"x":1}}"#).unwrap();
    let slots: Vec<usize> = items.iter().map(|item| item.slot).collect();
    assert_eq!(slots, [0, 1, 3]);
    let time = Some(Timestamp::from_micros(1_790_000_000_000_000));
    assert_eq!((items[0].time, items[1].time, items[2].time), (time, time, None));
    let items = read(&format, br#"{"t":"soon","a":{"y":2}}"#).unwrap();
    assert!(items[0].bad_time && items[0].time.is_none());
}

#[test]
fn an_array_of_numbers_is_a_burst() {
    match json(b"[1,2.5,null]", "").unwrap() {
        Value::Samples(samples) => assert!(samples[2].is_nan() && samples.len() == 3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn arrays_that_are_no_burst() {
    check("[7]", "", Ok(Value::Number(7.0)));
    check("[]", "", Ok(Value::Null));
    check("[1,\"a\"]", "", Ok(Value::Nested));
    check("[[1],[2]]", "", Ok(Value::Nested));
    check("[1,2]", "", Ok(Value::Samples(Box::new([1.0, 2.0]))));
}

#[test]
fn d01_garbage_is_an_error_and_no_panic() {
    for garbage in [&b"\xff\xfe"[..], b"", b"{", b"{\"a\":1}x", b"\"\\ud800\"", b"{\"\xff\":1}"] {
        assert!(json(garbage, "/a").is_err(), "{}", garbage.escape_ascii());
    }
    assert_eq!(text(b"\xff1"), Err(PayloadError::Text));
    assert_eq!(text(b""), Ok(Value::Null));
    let binary = Format::Binary(Samples::F32Le);
    for length in [0, 1, 3, 5, 7] {
        let error = value(&binary, &vec![0; length]).unwrap_err();
        assert_eq!(error, PayloadError::Samples { length, width: 4 });
    }
}

#[test]
fn d02_long_payloads_are_not_looked_at() {
    let long = vec![b'1'; BYTES_MAX + 1];
    let length = long.len();
    let error = PayloadError::TooLong { length, most: BYTES_MAX };
    for format in [
        json_format(""),
        Format::Text,
        Format::Binary(Samples::I16Le),
        Format::Csv(CsvPlan::new(b',')),
    ] {
        assert_eq!(read(&format, &long), Err(error.clone()));
    }
    assert!(text(&long[1..]).is_ok());
}

#[test]
fn d03_deep_nesting_is_refused_before_parsing() {
    let deep = vec![b'['; 60_000];
    assert_eq!(json(&deep, "/a"), Err(PayloadError::TooDeep));
    let nested = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    assert_eq!(json(&nested(DEPTH_MAX), "/a"), json(b"[]", "/a"));
    assert_eq!(json(&nested(DEPTH_MAX + 1), "/a"), Err(PayloadError::TooDeep));
    // Brackets in text do not nest.
    let quoted = format!("{{\"a\\\"{}\":1,\"b\":2}}", "[".repeat(1000));
    check(&quoted, "/b", Ok(Value::Number(2.0)));
}

#[test]
fn d04_odd_numbers_are_errors_or_bad_but_never_another_number() {
    check("1e999", "", Err("not JSON"));
    check("-0", "", Ok(Value::Number(-0.0)));
    check("18446744073709551616", "", Ok(Value::Number(18_446_744_073_709_551_616.0)));
    check("9007199254740993", "", Ok(Value::Inexact));
    check("-9007199254740993", "", Ok(Value::Inexact));
    check("9007199254740994", "", Ok(Value::Number(9_007_199_254_740_994.0)));
    check("\"9007199254740993\"", "", Ok(Value::Inexact));
    check("\"1e999\"", "", Ok(Value::Number(f64::INFINITY)));
    match json(b"\"NaN\"", "").unwrap() {
        Value::Number(value) => assert!(value.is_nan()),
        other => panic!("{other:?}"),
    }
    check("NaN", "", Err("not JSON"));
    check("0x10", "", Err("not JSON"));
    assert_eq!(text(b"1,5"), Ok(Value::Text("1,5".into())));
    assert_eq!(text(b" -1.5e1\n"), Ok(Value::Number(-15.0)));
    assert_eq!(text(b"false"), Ok(Value::Number(0.0)));
}

#[test]
fn d05_of_repeated_keys_the_last_counts_and_too_many_are_refused() {
    check(r#"{"a":1,"b":{"a":9},"a":2}"#, "/a", Ok(Value::Number(2.0)));
    check(r#"{"a":1,"a":{"b":2}}"#, "/a", Ok(Value::Nested));
    check(r#"{"a":{"b":1},"a":{"c":2},"d":0}"#, "/a/b", Err("nothing at"));
    let keys = |count: usize| {
        let keys: Vec<String> = (0..count).map(|key| format!("\"k{key}\":{key}")).collect();
        format!("{{{}}}", keys.join(","))
    };
    check(&keys(KEYS_MAX), "/k7", Ok(Value::Number(7.0)));
    assert_eq!(json(keys(KEYS_MAX + 1).as_bytes(), "/k7"), Err(PayloadError::TooManyKeys));
}

#[test]
fn d05_the_order_of_keys_makes_no_difference() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut members: Vec<String> = (0..40).map(|key| format!("\"k{key}\":{key}")).collect();
    let format = json_format("/k31");
    for _ in 0..100_000 / 40 {
        rng.shuffle(&mut members);
        let document = format!("{{{}}}", members.join(","));
        assert_eq!(value(&format, document.as_bytes()), Ok(Value::Number(31.0)));
    }
}

#[test]
fn times_come_as_text_or_as_numbers() {
    let mut plan = JsonPlan::default();
    plan.add(&at("/v"), Some(&at("/t")));
    let format = Format::Json(plan);
    let time =
        |text: &str| read(&format, format!("{{\"v\":1,\"t\":{text}}}").as_bytes()).unwrap()[0].time;
    let expected = Some(Timestamp::from_micros(1_790_000_000_500_000));
    assert_eq!(time("1790000000.5"), expected);
    assert_eq!(time("1790000000500"), expected);
    assert_eq!(time("\"1790000000500\""), expected);
    assert_eq!(time("\"2026-09-21T14:13:20.5Z\""), expected);
    for none in ["null", "true", "{}", "\"yesterday\"", "1e300", "[1]"] {
        assert_eq!(time(none), None, "{none}");
    }
}

#[test]
fn cells_are_found_by_place_and_by_name() {
    let csv = |value: Column, time: Option<Column>| {
        let mut plan = CsvPlan::new(b';');
        plan.add(CsvSlot { value, time });
        Format::Csv(plan)
    };
    let second = csv(Column::Index(1), None);
    assert_eq!(value(&second, b"a;2.5;x\r\n"), Ok(Value::Number(2.5)));
    assert_eq!(value(&second, b"time;rms\n1;2\n"), Ok(Value::Number(2.0)));
    let burst = Value::Samples(Box::new([1.0, 2.0]));
    assert_eq!(value(&second, b"0;1\n0;2\n"), Ok(burst));
    assert!(matches!(value(&second, b"1"), Err(PayloadError::Missing { .. })));
    let named = csv(Column::Name("rms".to_owned()), Some(Column::Name("t".to_owned())));
    let items = read(&named, b"t;\"rms\"\n1790000000;\"7\"\n1790000001;8\nnow;9\n").unwrap();
    let values: Vec<&Value> = items.iter().map(|item| &item.value).collect();
    assert_eq!(values, [&Value::Number(7.0), &Value::Number(8.0), &Value::Number(9.0)]);
    assert_eq!(items[1].time, Some(Timestamp::from_micros(1_790_000_001_000_000)));
    assert!(items[2].bad_time);
    assert!(matches!(read(&named, b"t;other\n1;2\n"), Err(PayloadError::Missing { .. })));
    let long = "1\n".repeat(ROWS_MAX + 1);
    assert_eq!(read(&second, long.as_bytes()), Err(PayloadError::TooManyRows));
}

#[test]
fn binary_is_a_value_or_a_burst() {
    let floats = Format::Binary(Samples::F32Le);
    assert_eq!(value(&floats, &2.5_f32.to_le_bytes()), Ok(Value::Number(2.5)));
    let two = [1.0_f32.to_le_bytes(), (-1.0_f32).to_le_bytes()].concat();
    assert_eq!(value(&floats, &two), Ok(Value::Samples(Box::new([1.0, -1.0]))));
    let words = Format::Binary(Samples::I16Le);
    assert_eq!(value(&words, &(-3_i16).to_le_bytes()), Ok(Value::Number(-3.0)));
    assert_eq!(value(&words, &[1, 0, 2, 0]), Ok(Value::Samples(Box::new([1.0, 2.0]))));
}

proptest! {
    #[test]
    fn d04_a_number_survives_its_way(value in proptest::num::f64::ANY.prop_filter("JSON has no others", |v| v.is_finite())) {
        let document = serde_json::to_string(&serde_json::json!({ "a": value })).unwrap();
        match json(document.as_bytes(), "/a").unwrap() {
            Value::Number(read) => prop_assert_eq!(read.to_bits(), value.to_bits(), "{}", document),
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn d01_any_bytes_end_in_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in [json_format("/a/0"), Format::Text, Format::Binary(Samples::I16Le)] {
            read(&format, &bytes).ok();
        }
        let mut plan = CsvPlan::new(b',');
        plan.add(CsvSlot { value: Column::Index(1), time: Some(Column::Name("t".to_owned())) });
        read(&Format::Csv(plan), &bytes).ok();
    }

    #[test]
    fn d01_any_structure_ends_in_a_value_or_an_error(text in r#"[\[\]{},:"\\a0-9.eE+\-tfn ]{0,80}"#) {
        json(text.as_bytes(), "/a/0").ok();
        json(text.as_bytes(), "").ok();
    }
}

#[test]
fn pointers_keep_to_rfc_6901() {
    for bad in ["a", "a/b", "/~", "/~2", "/a~"] {
        assert_eq!(Pointer::parse(bad), None, "{bad}");
    }
    check(r#"{"~1":1,"":2}"#, "/~01", Ok(Value::Number(1.0)));
    check(r#"{"~1":1,"":2}"#, "/", Ok(Value::Number(2.0)));
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[a-c~/\"\\\\]{0,3}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map("[ab~/]{0,2}", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// serde_json's own tree and pointer are the reference.
    #[test]
    fn the_walk_finds_what_the_tree_holds(
        document in any_json(),
        pointer in "(/(a|b|~0|~1|0|1|ab)){0,3}",
    ) {
        let bytes = serde_json::to_vec(&document).unwrap();
        let tree: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let found = json(&bytes, &pointer);
        match tree.pointer(&pointer) {
            None => prop_assert!(matches!(found, Err(PayloadError::Missing { .. })), "{found:?}"),
            Some(serde_json::Value::Array(_)) => prop_assert!(found.is_ok()),
            Some(value) => {
                let expected = match value {
                    serde_json::Value::Null => Value::Null,
                    serde_json::Value::Bool(set) => Value::Number(f64::from(u8::from(*set))),
                    serde_json::Value::Number(value) => Value::Number(value.as_f64().unwrap()),
                    serde_json::Value::String(text) => Value::of_text(text),
                    _ => Value::Nested,
                };
                prop_assert_eq!(found.unwrap(), expected);
            }
        }
    }
}
