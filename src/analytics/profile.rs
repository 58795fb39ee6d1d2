//! What is usual at this time of the day.

use serde::{Deserialize, Serialize};

/// Bins of a day; 48 half hours resolve shifts and day cycles, and fill with 5-minute data in one
/// day (6 values each).
pub const BINS: usize = 48;
const DAY: f64 = 86_400.0;

/// Mean and scatter per time of day, forgetting slowly.
///
/// Source: seasonal means, e.g. R. J. Hyndman, G. Athanasopoulos, Forecasting, 3rd ed., §3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DayProfile {
    mean: Vec<f64>,
    days: Vec<f64>,
    day: i64,
    bin: usize,
    sum: f64,
    count: f64,
}

impl Default for DayProfile {
    fn default() -> Self {
        let (mean, days) = (vec![0.0; BINS], vec![0.0; BINS]);
        Self { mean, days, day: i64::MIN, bin: 0, sum: 0.0, count: 0.0 }
    }
}

/// A new day weighs at least this much in the mean of its bin: a memory of about a week.
const WEIGHT_LEAST: f64 = 1.0 / 7.0;

/// Day and bin of a moment in seconds.
fn place(seconds: f64) -> (i64, usize) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a day number, and a bin below BINS"
    )]
    {
        let bin = (seconds.rem_euclid(DAY) / DAY * BINS as f64) as usize;
        ((seconds / DAY).floor() as i64, bin.min(BINS - 1))
    }
}

impl DayProfile {
    /// Takes a value at a moment in seconds (any epoch; days are cut at multiples of 86,400).
    pub fn push(&mut self, seconds: f64, value: f64) {
        let (day, bin) = place(seconds);
        if (day, bin) != (self.day, self.bin) {
            self.close();
            (self.day, self.bin) = (day, bin);
        }
        self.sum += value;
        self.count += 1.0;
    }

    fn close(&mut self) {
        if self.count > 0.0 {
            let (mean, days) = (&mut self.mean[self.bin], &mut self.days[self.bin]);
            *days += 1.0;
            *mean += (1.0 / *days).max(WEIGHT_LEAST) * (self.sum / self.count - *mean);
        }
        (self.sum, self.count) = (0.0, 0.0);
    }

    /// What earlier days had at this time of the day, between bin centres linearly; `None` until
    /// both neighbours were seen.
    #[must_use]
    pub fn expected(&self, seconds: f64) -> Option<f64> {
        let along = seconds.rem_euclid(DAY) / DAY * BINS as f64 - 0.5;
        #[expect(clippy::cast_possible_truncation, reason = "between −1 and BINS")]
        let below = (along.floor() as i64).rem_euclid(BINS as i64);
        let left = usize::try_from(below).ok()?;
        let right = (left + 1) % BINS;
        let known = self.days[left] > 0.0 && self.days[right] > 0.0;
        let part = along - along.floor();
        known.then(|| self.mean[left] * (1.0 - part) + self.mean[right] * part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daily_wave_is_expected_on_the_second_day() {
        let wave = |s: f64| 20.0 + 5.0 * (s / DAY * std::f64::consts::TAU).sin();
        let mut profile = DayProfile::default();
        assert_eq!(profile.expected(0.0), None);
        for i in 0..=288 {
            let seconds = f64::from(i) * 300.0;
            profile.push(seconds, wave(seconds));
        }
        for i in 289..576 {
            let seconds = f64::from(i) * 300.0;
            let expected = profile.expected(seconds).unwrap();
            // A bin averages the wave over half an hour: at most 2π·5/48 of slope within it.
            assert!((expected - wave(seconds)).abs() < 0.2, "{seconds}: {expected}");
            profile.push(seconds, wave(seconds));
        }
    }
}
