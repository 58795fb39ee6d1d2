//! What validation remembers of a tag: its newest value, how often it comes, how restless it was.

use std::time::Duration;

use crate::domain::reading::Reading;
use crate::domain::time::Timestamp;

/// Readings per block of the scatter estimate.
const BLOCK: u32 = 32;
/// Weight of the newest interval in the mean interval.
const INTERVAL_WEIGHT: f64 = 0.1;

/// The memory of one tag; small, because every reading passes it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    last: Option<(Timestamp, f64)>,
    interval_seconds: f64,
    /// Mean squared successive difference of the two last full blocks, the older one first. The
    /// newer may hold the beginning of a departure, so the older one is asked.
    blocks: [Option<f64>; 2],
    filling: f64,
    filled: u32,
}

impl Memory {
    pub(super) fn take(&mut self, reading: &Reading) {
        if !reading.quality.is_good() {
            return;
        }
        if let Some((time, value)) = self.last {
            if reading.time < time {
                return;
            }
            let interval = reading.time.since(time).as_secs_f64();
            self.interval_seconds = if self.interval_seconds > 0.0 {
                self.interval_seconds + INTERVAL_WEIGHT * (interval - self.interval_seconds)
            } else {
                interval
            };
            let step = reading.value - value;
            self.filling += step * step;
            self.filled += 1;
            if self.filled == BLOCK {
                self.blocks = [self.blocks[1], Some(self.filling / f64::from(BLOCK))];
                self.filling = 0.0;
                self.filled = 0;
            }
        }
        self.last = Some((reading.time, reading.value));
    }

    /// The newest good value.
    pub(super) fn value(&self) -> Option<f64> {
        self.last.map(|(_, value)| value)
    }

    /// How often the tag comes.
    pub(super) fn period(&self) -> Option<Duration> {
        (self.interval_seconds > 0.0)
            .then(|| Duration::try_from_secs_f64(self.interval_seconds).ok())
            .flatten()
    }

    /// Standard deviation from reading to reading before the last block, free of slow trends (half
    /// the mean squared successive difference; J. von Neumann, Ann. Math. Statist. 12, 1941).
    pub(super) fn scatter(&self) -> Option<f64> {
        self.blocks[0].or(self.blocks[1]).map(|square| (square / 2.0).sqrt())
    }
}
