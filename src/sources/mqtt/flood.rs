//! Pure: thins what a source sends beyond its rate. A sensor gone wild must neither fill the flash
//! nor hide an excursion: of each tag's values in a short while the smallest, the largest and the
//! last are kept, in the order they came, so that a limit that was crossed is seen crossed. A tag
//! that says no more than [`FEW`] values meanwhile loses none.
//!
//! Bounds: [`FEW`] readings and three more a tag are held, for [`HOLD_MAX`] or until
//! [`WAITING_MAX`] senders wait.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::ids::TagKey;
use crate::domain::reading::{RawReading, RawValue};

/// Longest that a reading is held.
pub const HOLD_MAX: Duration = Duration::from_millis(100);
/// Messages whose senders wait for held readings: below the 20 that brokers send ahead.
pub const WAITING_MAX: usize = 16;
/// Values of one tag in that time that are kept whole: its neighbours' flood is not its fault.
pub const FEW: usize = 16;
/// Seconds of the full rate that may come at once: what a broker kept while we were away.
const BURST_SECONDS: f64 = 10.0;

/// One source's rate, and what is held of its readings.
#[derive(Debug)]
pub struct Thinner {
    rate: f64,
    tokens: f64,
    filled: Duration,
    held: BTreeMap<TagKey, Held>,
    /// When the oldest held reading came.
    since: Option<Duration>,
    /// Readings let go since the start.
    dropped: u64,
}

/// The extremes and the last of a tag's readings, each with its running number.
#[derive(Debug)]
struct Held {
    few: Vec<RawReading>,
    low: (u64, RawReading),
    high: (u64, RawReading),
    last: (u64, RawReading),
    count: u64,
}

impl Thinner {
    /// Lets `rate` readings a second through.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        let rate = f64::from(rate);
        Self {
            rate,
            tokens: rate * BURST_SECONDS,
            filled: Duration::ZERO,
            held: BTreeMap::new(),
            since: None,
            dropped: 0,
        }
    }

    /// Takes a reading that came at `now` on this run's clock; gives it back when there is room for
    /// it, else holds it.
    pub fn take(&mut self, now: Duration, reading: RawReading) -> Option<RawReading> {
        let gained = now.saturating_sub(self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.rate * BURST_SECONDS);
        self.filled = now;
        if self.held.is_empty() && self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Some(reading);
        }
        self.since.get_or_insert(now);
        let new = (self.held.get(&reading.tag).map_or(0, |held| held.count), reading);
        let held = self.held.entry(reading.tag).or_insert(Held {
            low: new,
            high: new,
            last: new,
            few: Vec::with_capacity(FEW),
            count: 0,
        });
        if held.few.len() < FEW {
            held.few.push(reading);
        }
        held.count += 1;
        held.last = new;
        if let RawValue::Number(value) = reading.value {
            let beyond = |kept: &RawReading, low: bool| match kept.value {
                RawValue::Number(kept) => {
                    if low {
                        value < kept
                    } else {
                        value > kept
                    }
                }
                RawValue::Scaled(..) | RawValue::Failed(_) => true,
            };
            if beyond(&held.low.1, true) {
                held.low = new;
            }
            if beyond(&held.high.1, false) {
                held.high = new;
            }
        }
        None
    }

    /// Whether something is held.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether what is held is due.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_sub(since) >= HOLD_MAX)
    }

    /// Appends what is kept of the held readings, each tag's in the order they came.
    pub fn release(&mut self, readings: &mut Vec<RawReading>) {
        for held in self.held.values() {
            if held.count <= FEW as u64 {
                readings.extend_from_slice(&held.few);
                self.tokens -= held.few.len() as f64;
                continue;
            }
            let mut kept = [held.low, held.high, held.last];
            kept.sort_unstable_by_key(|(place, _)| *place);
            let mut before = None;
            let mut count = 0;
            for (place, reading) in kept {
                if before.replace(place) != Some(place) {
                    readings.push(reading);
                    count += 1;
                }
            }
            self.dropped += held.count - count;
            // What is stored counts against the rate, what is let go does not.
            self.tokens -= count as f64;
        }
        self.tokens = self.tokens.max(-self.rate);
        self.held.clear();
        self.since = None;
    }

    /// Readings let go since the start.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn reading(tag: u32, value: f64) -> RawReading {
        RawReading {
            tag: TagKey(tag),
            source_time: None,
            arrived: Timestamp::from_micros(0),
            value: RawValue::Number(value),
            retained: false,
        }
    }

    fn values(readings: &[RawReading]) -> Vec<(u32, f64)> {
        let value = |reading: &RawReading| match reading.value {
            RawValue::Number(value) => (reading.tag.0, value),
            other @ (RawValue::Scaled(..) | RawValue::Failed(_)) => panic!("{other:?}"),
        };
        readings.iter().map(value).collect()
    }

    #[test]
    fn d08_within_the_rate_nothing_is_touched() {
        let mut thinner = Thinner::new(100);
        for step in 0..1_000_u64 {
            let now = Duration::from_millis(10 * step);
            assert!(thinner.take(now, reading(1, 0.0)).is_some());
        }
        assert!(!thinner.holds());
    }

    #[test]
    fn d08_of_a_flood_the_extremes_and_the_last_are_kept_and_others_lose_nothing() {
        let mut thinner = Thinner::new(50);
        let mut stored = Vec::new();
        let mut seldom = 0;
        // 5,000 a second for a minute, and a neighbour that speaks twice a second.
        for step in 0..300_000_u64 {
            let now = Duration::from_micros(200 * step);
            let wild = if step == 200_001 { 999.0 } else { (step % 7) as f64 };
            stored.extend(thinner.take(now, reading(1, wild)));
            if step % 2_500 == 0 {
                seldom += 1;
                stored.extend(thinner.take(now, reading(2, step as f64)));
            }
            if thinner.is_due(now) {
                thinner.release(&mut stored);
            }
        }
        thinner.release(&mut stored);
        let stored = values(&stored);
        let quiet = stored.iter().filter(|(tag, _)| *tag == 2).count();
        assert_eq!(quiet, seldom);
        assert!(stored.iter().any(|(_, value)| *value > 998.0), "the excursion is seen");
        let kept = stored.len() - quiet;
        assert!((500..6_000).contains(&kept), "{kept} of 300,000");
        assert_eq!(thinner.dropped() + kept as u64, 300_000);
    }

    #[test]
    fn what_is_kept_keeps_its_order() {
        let mut thinner = Thinner::new(1);
        for _ in 0..10 {
            assert!(thinner.take(Duration::ZERO, reading(1, 0.0)).is_some());
        }
        for value in [3.0, 9.0, 1.0].into_iter().chain([5.0; FEW]) {
            assert!(thinner.take(Duration::ZERO, reading(1, value)).is_none());
            if value < 2.0 {
                assert!(thinner.take(Duration::ZERO, reading(2, value)).is_none());
            }
        }
        let mut kept = Vec::new();
        thinner.release(&mut kept);
        assert_eq!(values(&kept), [(1, 9.0), (1, 1.0), (1, 5.0), (2, 1.0)]);
    }
}
