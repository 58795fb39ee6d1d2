//! Pure: MQTT payloads become raw values.
//!
//! A JSON document is walked once along the pointer; what lies beside the way is skipped without
//! being built. Bounds: [`BYTES_MAX`], [`DEPTH_MAX`], [`KEYS_MAX`]. Of a repeated key the last one
//! counts. Integers beyond 2⁵³ lose their lowest bits, as all values of the plant are `f64`.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::domain::reading::{RawValue, Reason};
use crate::domain::time::Timestamp;

/// Longest payload that is looked at, in bytes.
pub const BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of a JSON document.
pub const DEPTH_MAX: usize = 32;
/// Most keys in a JSON document, all objects together.
pub const KEYS_MAX: usize = 256;

/// Numbers from here on are milliseconds since 1970, smaller ones seconds: as seconds this is the
/// year 5138, as milliseconds March 1973.
const MILLIS_FROM: f64 = 1e11;

/// Why a payload is of no use. Such messages are dropped, counted and acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Longer than [`BYTES_MAX`].
    #[error("{length} bytes are more than the {BYTES_MAX} that are looked at")]
    TooLong {
        /// Bytes that came.
        length: usize,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// More keys than [`KEYS_MAX`].
    #[error("more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// Not JSON.
    #[error("not JSON: {what}")]
    Json {
        /// What the parser says.
        what: String,
    },
    /// Nothing at the pointer.
    #[error("nothing at `{pointer}`")]
    Missing {
        /// The pointer.
        pointer: String,
    },
    /// Not a number as text.
    #[error("not a number")]
    Text,
}

/// A JSON pointer (RFC 6901), taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    tokens: Vec<String>,
}

impl Pointer {
    /// Reads a pointer; `None` when it is neither empty nor begins with `/`, or has a `~` that is
    /// followed by neither 0 nor 1.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let tokens = match text.strip_prefix('/') {
            None if text.is_empty() => Vec::new(),
            None => return None,
            Some(rest) => rest.split('/').map(unescaped).collect::<Option<_>>()?,
        };
        Some(Self { text: text.to_owned(), tokens })
    }

    /// The pointer as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn unescaped(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (escape, rest) = (part.chars().next()?, part.get(1..)?);
        plain.push(match escape {
            '0' => '~',
            '1' => '/',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

/// Whether a payload keeps to the bounds; asked once per message, before [`json`] or [`text`].
///
/// # Errors
/// [`PayloadError::TooLong`], and for JSON [`PayloadError::TooDeep`] or
/// [`PayloadError::TooManyKeys`].
pub fn within_bounds(payload: &[u8], is_json: bool) -> Result<(), PayloadError> {
    if payload.len() > BYTES_MAX {
        return Err(PayloadError::TooLong { length: payload.len() });
    }
    if !is_json {
        return Ok(());
    }
    let (mut depth, mut keys) = (0_usize, 0_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in payload {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b':' => keys += 1,
            _ => continue,
        }
        if depth > DEPTH_MAX {
            return Err(PayloadError::TooDeep);
        }
        if keys > KEYS_MAX {
            return Err(PayloadError::TooManyKeys);
        }
    }
    Ok(())
}

/// The raw value at a pointer of a JSON document.
///
/// Numbers, numbers as text, and booleans (0 and 1) are values; null means "no value"
/// ([`Reason::Sentinel`]); other text is the device's failure to tell ([`Reason::Device`]); an
/// object or an array is a pointer to the wrong place ([`Reason::Config`]).
///
/// # Errors
/// [`PayloadError::Json`] and [`PayloadError::Missing`].
pub fn json(payload: &[u8], pointer: &Pointer) -> Result<RawValue, PayloadError> {
    Ok(match leaf(payload, pointer)? {
        Leaf::Number(value) => RawValue::Number(value),
        Leaf::Bool(set) => RawValue::Number(f64::from(u8::from(set))),
        Leaf::Text(text) => {
            number(&text).map_or(RawValue::Failed(Reason::Device), RawValue::Number)
        }
        Leaf::Null => RawValue::Failed(Reason::Sentinel),
        Leaf::Nested => RawValue::Failed(Reason::Config),
    })
}

/// The time at a pointer of a JSON document: RFC 3339, or seconds or milliseconds since 1970 as a
/// number or as text. `None` when there is none that can be read.
#[must_use]
pub fn json_time(payload: &[u8], pointer: &Pointer) -> Option<Timestamp> {
    match leaf(payload, pointer).ok()? {
        Leaf::Number(value) => unix_time(value),
        Leaf::Text(text) => {
            Timestamp::parse_rfc3339(&text).or_else(|| number(&text).and_then(unix_time))
        }
        Leaf::Bool(_) | Leaf::Null | Leaf::Nested => None,
    }
}

/// The raw value of a payload that is a number as text; `true` and `false` count as 1 and 0.
///
/// # Errors
/// [`PayloadError::Text`] when it is none.
pub fn text(payload: &[u8]) -> Result<RawValue, PayloadError> {
    let text = std::str::from_utf8(payload).map_err(|_| PayloadError::Text)?.trim();
    match text {
        "true" => Ok(RawValue::Number(1.0)),
        "false" => Ok(RawValue::Number(0.0)),
        text => number(text).map(RawValue::Number).ok_or(PayloadError::Text),
    }
}

/// A number as text. `NaN` and `inf` are numbers here and are judged bad later; a number too large
/// for a float is infinite and judged likewise.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn unix_time(value: f64) -> Option<Timestamp> {
    let micros = if value.abs() >= MILLIS_FROM { value * 1e3 } else { value * 1e6 };
    // The calendar ends with the year 9999 (253 402 300 800 s).
    if !micros.is_finite() || micros.abs() >= 2.534_023_008e17 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the year 9999 just above")]
    let micros = micros.round() as i64;
    Some(Timestamp::from_micros(micros))
}

/// What lies at a pointer.
#[derive(Debug, Clone, PartialEq)]
enum Leaf {
    Number(f64),
    Bool(bool),
    Text(String),
    Null,
    Nested,
}

fn leaf(payload: &[u8], pointer: &Pointer) -> Result<Leaf, PayloadError> {
    let mut parser = serde_json::Deserializer::from_slice(payload);
    let walked = Walk { tokens: &pointer.tokens }.deserialize(&mut parser);
    let found = walked.and_then(|found| parser.end().map(|()| found));
    let found = found.map_err(|error| PayloadError::Json { what: error.to_string() })?;
    found.ok_or_else(|| PayloadError::Missing { pointer: pointer.text.clone() })
}

/// Follows the tokens down the document; `None` when the way ends before them.
struct Walk<'a> {
    tokens: &'a [String],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<Leaf>;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Option<Leaf>, D::Error> {
        parser.deserialize_any(self)
    }
}

impl Walk<'_> {
    /// A scalar: what was looked for if the pointer ends here.
    fn scalar(&self, leaf: impl FnOnce() -> Leaf) -> Option<Leaf> {
        self.tokens.is_empty().then(leaf)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<Leaf>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Leaf>, E> {
        Ok(self.scalar(|| Leaf::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Leaf>, E> {
        Ok(self.scalar(|| Leaf::Number(value as f64)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Leaf>, E> {
        Ok(self.scalar(|| Leaf::Number(value as f64)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Leaf>, E> {
        Ok(self.scalar(|| Leaf::Number(value)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<Leaf>, E> {
        Ok(self.scalar(|| Leaf::Text(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Option<Leaf>, E> {
        Ok(self.scalar(|| Leaf::Null))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Leaf>, A::Error> {
        let Some((token, rest)) = self.tokens.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Some(Leaf::Nested));
        };
        let mut found = None;
        while let Some(wanted) = map.next_key_seed(IsKey { token })? {
            if wanted {
                found = map.next_value_seed(Walk { tokens: rest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Leaf>, A::Error> {
        let Some((token, rest)) = self.tokens.split_first() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Some(Leaf::Nested));
        };
        let mut found = None;
        if let Some(index) = array_index(token) {
            let mut place = 0;
            while place < index && items.next_element::<IgnoredAny>()?.is_some() {
                place += 1;
            }
            if place == index {
                found = items.next_element_seed(Walk { tokens: rest })?.flatten();
            }
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

/// Array indices have no leading zeros (RFC 6901, §4).
fn array_index(token: &str) -> Option<usize> {
    let plain = token == "0" || (token.starts_with(|c: char| ('1'..='9').contains(&c)));
    if plain && token.bytes().all(|byte| byte.is_ascii_digit()) { token.parse().ok() } else { None }
}

/// Compares a key without keeping it.
struct IsKey<'a> {
    token: &'a str,
}

impl<'de> DeserializeSeed<'de> for IsKey<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<bool, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(pointer: &str) -> Pointer {
        Pointer::parse(pointer).unwrap()
    }

    #[track_caller]
    fn check(document: &str, pointer: &str, expected: Result<RawValue, &str>) {
        let value = json(document.as_bytes(), &at(pointer));
        let value = value.map_err(|error| error.to_string());
        match (&value, expected) {
            (Ok(value), Ok(expected)) => assert_eq!(*value, expected, "{document} {pointer}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (value, expected) => panic!("{document} {pointer}: {value:?}, not {expected:?}"),
        }
    }

    #[test]
    fn values_are_found_along_the_pointer() {
        let document = r#"{"a":{"b/c":[1,{"d~":2.5}]},"x":true,"n":null,"s":" 3e2 ","t":"hot"}"#;
        check(document, "/a/b~1c/0", Ok(RawValue::Number(1.0)));
        check(document, "/a/b~1c/1/d~0", Ok(RawValue::Number(2.5)));
        check(document, "/x", Ok(RawValue::Number(1.0)));
        check(document, "/n", Ok(RawValue::Failed(Reason::Sentinel)));
        check(document, "/s", Ok(RawValue::Number(300.0)));
        check(document, "/t", Ok(RawValue::Failed(Reason::Device)));
        check(document, "/a", Ok(RawValue::Failed(Reason::Config)));
        check(document, "/a/b~1c/2", Err("nothing at"));
        check(document, "/a/b~1c/00", Err("nothing at"));
        check(document, "/x/y", Err("nothing at"));
        check("17", "", Ok(RawValue::Number(17.0)));
        check("[]", "/0", Err("nothing at"));
    }

    #[test]
    fn f_d01_garbage_is_an_error_and_no_panic() {
        for garbage in [&b"\xff\xfe"[..], b"", b"{", b"{\"a\":1}x", b"\"\\ud800\"", b"{\"\xff\":1}"]
        {
            assert!(json(garbage, &at("/a")).is_err(), "{}", garbage.escape_ascii());
        }
        assert_eq!(text(b"\xff1"), Err(PayloadError::Text));
        assert_eq!(text(b""), Err(PayloadError::Text));
    }

    #[test]
    fn f_d02_long_payloads_are_not_looked_at() {
        let long = vec![b'1'; BYTES_MAX + 1];
        let length = long.len();
        assert_eq!(within_bounds(&long, true), Err(PayloadError::TooLong { length }));
        assert_eq!(within_bounds(&long[1..], true), Ok(()));
    }

    #[test]
    fn f_d03_deep_nesting_is_refused_before_parsing() {
        let deep = vec![b'['; 60_000];
        assert_eq!(within_bounds(&deep, true), Err(PayloadError::TooDeep));
        // Brackets in text do not nest.
        let quoted = format!("{{\"a\\\"{}\":1}}", "[".repeat(1000));
        assert_eq!(within_bounds(quoted.as_bytes(), true), Ok(()));
        // Even unasked, the parser does not run out of stack.
        assert!(json(&deep, &at("/a")).is_err());
        assert!(json(&deep, &at("")).is_err());
    }

    #[test]
    fn f_d04_odd_numbers_are_errors_or_bad_but_never_another_number() {
        check("1e999", "", Err("not JSON"));
        check("-0", "", Ok(RawValue::Number(-0.0)));
        check("18446744073709551616", "", Ok(RawValue::Number(18_446_744_073_709_551_616.0)));
        check("\"1e999\"", "", Ok(RawValue::Number(f64::INFINITY)));
        match json(b"\"NaN\"", &at("")).unwrap() {
            RawValue::Number(value) => assert!(value.is_nan()),
            other @ (RawValue::Scaled(..) | RawValue::Failed(_)) => panic!("{other:?}"),
        }
        check("NaN", "", Err("not JSON"));
        check("0x10", "", Err("not JSON"));
        assert_eq!(text(b"1,5"), Err(PayloadError::Text));
        assert_eq!(text(b" -1.5e1\n"), Ok(RawValue::Number(-15.0)));
        assert_eq!(text(b"false"), Ok(RawValue::Number(0.0)));
    }

    #[test]
    fn f_d05_of_repeated_keys_the_last_counts_and_too_many_are_refused() {
        check(r#"{"a":1,"b":{"a":9},"a":2}"#, "/a", Ok(RawValue::Number(2.0)));
        check(r#"{"a":1,"a":{"b":2}}"#, "/a", Ok(RawValue::Failed(Reason::Config)));
        let keys: Vec<String> = (0..=KEYS_MAX).map(|key| format!("\"k{key}\":{key}")).collect();
        let document = format!("{{{}}}", keys.join(","));
        assert_eq!(within_bounds(document.as_bytes(), true), Err(PayloadError::TooManyKeys));
        let document = format!("{{{}}}", keys[1..].join(","));
        assert_eq!(within_bounds(document.as_bytes(), true), Ok(()));
    }

    #[test]
    fn times_are_read_in_all_three_forms() {
        let document = br#"{"r":"2026-05-01T10:20:30.5Z","s":1777630830.5,"m":1777630830500,
            "t":"1777630830500","x":"soon","n":null,"far":1e300}"#;
        let moment = Timestamp::parse_rfc3339("2026-05-01T10:20:30.5Z");
        for pointer in ["/r", "/s", "/m", "/t"] {
            assert_eq!(json_time(document, &at(pointer)), moment, "{pointer}");
        }
        for pointer in ["/x", "/n", "/far", "/nowhere"] {
            assert_eq!(json_time(document, &at(pointer)), None, "{pointer}");
        }
    }

    #[test]
    fn pointers_keep_to_rfc_6901() {
        for bad in ["a", "a/b", "/~", "/~2", "/a~"] {
            assert_eq!(Pointer::parse(bad), None, "{bad}");
        }
        assert_eq!(at("/~01").tokens, ["~1"]);
        assert_eq!(at("/").tokens, [""]);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
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
        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            within_bounds(&payload, true).ok();
            json(&payload, &at("/a/0")).ok();
            prop_assert!(json_time(&payload, &at("/nowhere")).is_none());
            text(&payload).ok();
        }

        /// serde_json's own tree and pointer are the reference.
        #[test]
        fn the_walk_finds_what_the_tree_holds(
            document in any_json(),
            pointer in "(/(a|b|~0|~1|0|1|ab)){0,3}",
        ) {
            let bytes = serde_json::to_vec(&document).unwrap();
            let tree: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let found = leaf(&bytes, &at(&pointer));
            match tree.pointer(&pointer) {
                None => {
                    let missing = matches!(found, Err(PayloadError::Missing { .. }));
                    prop_assert!(missing, "{found:?}");
                }
                Some(value) => {
                    let expected = match value {
                        serde_json::Value::Null => Leaf::Null,
                        serde_json::Value::Bool(set) => Leaf::Bool(*set),
                        serde_json::Value::Number(value) => Leaf::Number(value.as_f64().unwrap()),
                        serde_json::Value::String(text) => Leaf::Text(text.clone()),
                        serde_json::Value::Array(_) | serde_json::Value::Object(_) => Leaf::Nested,
                    };
                    prop_assert_eq!(found.unwrap(), expected);
                }
            }
        }
    }
}
