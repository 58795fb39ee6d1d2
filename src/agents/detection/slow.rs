//! Slow series (a reading a minute or rarer): what is usual follows the day, and there is little to
//! smooth. Three statistics of the one series, each calibrated on its own past, are combined: the
//! residual to this time of the day, its half-hour mean, and scatter now against scatter usually.
//!
//! Their surprises (−ln p) are averaged, so that one statistic alone must be very strange. Limit and
//! rest were chosen with public files in view and are sensitive there: see `docs/detection.md`.

use serde::{Deserialize, Serialize};

use crate::analytics::calibrate::Tail;
use crate::analytics::profile::DayProfile;
use crate::analytics::stats::ewma_weight;

/// Readings at least this far apart, in seconds, are slow: below, the smoothing of the other layer
/// (10 s) still gathers several of them.
pub(super) const SLOW_FROM: f64 = 60.0;
/// Time constants in seconds: half an hour for a level that matters within a shift, an hour against
/// a day for scatter.
const LEVEL: f64 = 1800.0;
const SCATTER_NOW: f64 = 3600.0;
const SCATTER_USUAL: f64 = 86_400.0;
/// Mean surprise at the limit. Were the three independent, a reading in two thousand would reach
/// it (Erlang tail of 3 at 12): with one every five minutes, once a week.
const LIMIT: f64 = 4.0;
/// After an announcement the same series rests for this long, in seconds: half a day, so that each
/// shift hears of a lasting trouble once.
pub(super) const REST: f64 = 43_200.0;
/// Values a tail is fitted on; when full every second one is dropped and half as many are taken.
const PAST_MAX: usize = 512;
/// Values between two fits of a tail.
const FIT_EVERY: u32 = 16;
/// Beyond this quantile the tail begins.
const TAIL_FROM: f64 = 0.9;
/// Values that come before the first fit.
const PAST_LEAST: usize = 48;

/// The tail of one statistic's own past.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct OwnTail {
    past: Vec<f32>,
    stride: u32,
    skipped: u32,
    since_fit: u32,
    tail: Option<Tail>,
}

impl OwnTail {
    /// Surprise of a value by what was before it; then takes it in.
    fn judge(&mut self, value: f64) -> f64 {
        let value = value.abs();
        let surprise = self.tail.as_ref().map_or(0.0, |tail| tail.surprise(value));
        self.skipped += 1;
        if self.skipped >= self.stride.max(1) {
            self.skipped = 0;
            if self.past.len() >= PAST_MAX {
                let mut odd = false;
                self.past.retain(|_| {
                    odd = !odd;
                    odd
                });
                self.stride = self.stride.max(1) * 2;
            }
            #[expect(clippy::cast_possible_truncation, reason = "seven digits are plenty here")]
            self.past.push(value as f32);
        }
        self.since_fit += 1;
        if self.since_fit >= FIT_EVERY && self.past.len() >= PAST_LEAST {
            self.since_fit = 0;
            let mut past: Vec<f64> = self.past.iter().map(|v| f64::from(*v)).collect();
            self.tail = Tail::exponential(&mut past, TAIL_FROM);
        }
        surprise
    }
}

/// What was learnt of one slow series.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Slow {
    profile: DayProfile,
    count: f64,
    mean: f64,
    level: f64,
    last: Option<(f64, f64)>,
    now: f64,
    usual: f64,
    tails: [OwnTail; 3],
    /// Newest residual, for the explanation.
    expected: f64,
}

impl Slow {
    /// The clock was set back by so many seconds.
    pub(super) fn set_back(&mut self, by: f64) {
        self.last = self.last.map(|(time, value)| (time - by, value));
    }

    /// Takes a value at a time in seconds; its evidence over the limit by what was known before.
    pub(super) fn push(&mut self, time: f64, value: f64) -> f64 {
        let step = self.last.map_or(0.0, |(at, _)| time - at);
        self.count += 1.0;
        // A plain mean at first in each of these, so that the start does not weigh on for long.
        let weigh = |span: f64, count: f64| ewma_weight(step, span).max(1.0 / count);
        if self.count < 2.0 {
            self.mean = value;
        }
        self.expected = self.profile.expected(time).unwrap_or(self.mean);
        let residual = value - self.expected;
        self.level += weigh(LEVEL, self.count) * (residual - self.level);
        let bend = self.last.map_or(0.0, |(_, last)| (value - last) * (value - last));
        self.now += weigh(SCATTER_NOW, self.count) * (bend - self.now);
        self.usual += weigh(SCATTER_USUAL, self.count) * (bend - self.usual);
        let floor = 1e-9 * (1.0 + value * value);
        let scatter = ((self.now + floor) / (self.usual + floor)).ln();
        let parts = [residual, self.level, scatter];
        let surprise: f64 =
            self.tails.iter_mut().zip(parts).map(|(tail, part)| tail.judge(part)).sum();
        self.mean += weigh(SCATTER_USUAL, self.count) * (value - self.mean);
        self.profile.push(time, value);
        self.last = Some((time, value));
        surprise / (3.0 * LIMIT)
    }

    /// What was expected of the newest value.
    pub(super) const fn expected(&self) -> f64 {
        self.expected
    }

    /// Usual difference of neighbours.
    pub(super) fn usual(&self) -> f64 {
        self.usual.sqrt()
    }
}
