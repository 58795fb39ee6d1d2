//! Pure: series that came under a wildcard and that no tag is declared for. They are listed, with
//! how often and when last, and not stored.
//!
//! Bound: a source lists at most `series_max` series with names of at most [`NAME_MAX`] bytes; new
//! ones beyond are refused and counted, those listed go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::time::Timestamp;
use crate::port::UnknownSeries;

/// Longest name that is kept, in bytes.
pub const NAME_MAX: usize = 256;
/// Longest sample of a payload that is kept, in bytes.
const SAMPLE_MAX: usize = 32;

/// The unknown series of one source.
#[derive(Debug)]
pub struct Unknown {
    series: BTreeMap<Box<str>, Seen>,
    most: usize,
    refused: u64,
    changed: bool,
}

#[derive(Debug)]
struct Seen {
    count: u64,
    last: Timestamp,
    sample: Box<[u8]>,
}

impl Unknown {
    /// An empty list of at most so many series.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { series: BTreeMap::new(), most, refused: 0, changed: false }
    }

    /// One message of a series; its name is a topic, or node, device and metric.
    pub fn note(&mut self, name: &str, payload: &[u8], at: Timestamp) {
        self.changed = true;
        let name = shortened(name);
        if let Some(seen) = self.series.get_mut(name) {
            seen.count += 1;
            seen.last = at;
        } else if self.series.len() < self.most {
            let sample = payload[..payload.len().min(SAMPLE_MAX)].into();
            self.series.insert(name.into(), Seen { count: 1, last: at, sample });
        } else {
            self.refused += 1;
        }
    }

    /// Messages of series that were refused.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// The list, if it has changed since it was last asked for.
    pub fn news(&mut self) -> Option<Arc<[UnknownSeries]>> {
        std::mem::take(&mut self.changed).then(|| {
            let view = |name: &str, seen: &Seen| UnknownSeries {
                name: name.to_owned(),
                count: seen.count,
                last: seen.last,
                sample: seen.sample.escape_ascii().to_string(),
            };
            self.series.iter().map(|(name, seen)| view(name, seen)).collect()
        })
    }
}

/// The name, cut at the border of a character.
fn shortened(name: &str) -> &str {
    let mut end = name.len().min(NAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d07_a_million_topics_leave_a_list_of_the_first_and_a_count() {
        let mut unknown = Unknown::new(2_000);
        let at = Timestamp::from_micros;
        unknown.note("known/first", b"1", at(0));
        for topic in 0..1_000_000 {
            unknown.note(&format!("plant/{topic}/x"), b"2", at(topic));
        }
        unknown.note("known/first", b"3", at(7));
        let list = unknown.news().unwrap();
        assert_eq!(list.len(), 2_000);
        let first = list.iter().find(|series| series.name == "known/first").unwrap();
        assert_eq!((first.count, first.last), (2, at(7)));
        assert_eq!(unknown.refused(), 1_000_000 - 1_999);
        assert!(unknown.news().is_none());
        let long = "ü".repeat(10_000);
        let mut unknown = Unknown::new(1);
        unknown.note(&long, &[0xff; 100], at(0));
        let list = unknown.news().unwrap();
        assert!(list[0].name.len() <= NAME_MAX && list[0].sample.len() <= 4 * SAMPLE_MAX);
    }
}
