//! Control charts for one series: exponential mean and cumulative sum, both in units of sigma.

use serde::{Deserialize, Serialize};

use super::stats::ewma_weight;

/// An exponential mean of standardised values, with its own standard deviation, so that the
/// statistic has variance 1 for independent input whatever the time constant is.
///
/// Source: S. W. Roberts, Technometrics 1(3), 1959.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EwmaChart {
    span: f64,
    mean: f64,
    variance: f64,
}

impl EwmaChart {
    /// A chart with time constant `span` (same unit as the steps given to [`Self::push`]).
    #[must_use]
    pub const fn new(span: f64) -> Self {
        Self { span, mean: 0.0, variance: 0.0 }
    }

    /// Takes a standardised value that comes `step` after the one before; returns the mean in
    /// units of its own standard deviation.
    pub fn push(&mut self, step: f64, value: f64) -> f64 {
        let weight = ewma_weight(step, self.span);
        self.mean += weight * (value - self.mean);
        self.variance = (1.0 - weight).powi(2) * self.variance + weight * weight;
        if self.variance > 0.0 { self.mean / self.variance.sqrt() } else { 0.0 }
    }
}

/// Two-sided cumulative sum of standardised values.
///
/// Source: E. S. Page, Biometrika 41, 1954; D. C. Montgomery, Introduction to Statistical Quality
/// Control, 6th ed., §9.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cusum {
    slack: f64,
    above: f64,
    below: f64,
}

impl Cusum {
    /// A chart that ignores shifts up to `slack` sigma (half the shift it shall find soonest).
    #[must_use]
    pub const fn new(slack: f64) -> Self {
        Self { slack, above: 0.0, below: 0.0 }
    }

    /// Takes a standardised value; returns the larger of both sums.
    pub fn push(&mut self, value: f64) -> f64 {
        self.above = (self.above + value - self.slack).max(0.0);
        self.below = (self.below - value - self.slack).max(0.0);
        self.above.max(self.below)
    }

    /// Begins anew.
    pub const fn reset(&mut self) {
        self.above = 0.0;
        self.below = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cusum_follows_montgomerys_table() {
        // Montgomery, table 9.2 (mu 10, sigma 1, k 0.5): the first values and their sums C+.
        let x = [9.45, 7.99, 9.29, 11.66, 12.16, 10.18, 8.04, 11.46, 9.20, 10.34];
        let above = [0.0, 0.0, 0.0, 1.16, 2.82, 2.50, 0.04, 1.00, 0.0, 0.0];
        let below = [0.05, 1.56, 1.77, 0.0, 0.0, 0.0, 1.46, 0.0, 0.30, 0.0];
        let mut chart = Cusum::new(0.5);
        for ((x, up), down) in x.iter().zip(above).zip(below) {
            let worst = chart.push(x - 10.0);
            assert!((worst - f64::max(up, down)).abs() < 1e-9, "{x}: {worst}");
        }
        chart.reset();
        assert_eq!(chart, Cusum::new(0.5));
    }

    #[test]
    fn an_ewma_has_unit_variance_from_the_first_value_on() {
        let mut chart = EwmaChart::new(10.0);
        assert!((chart.push(1.0, 2.0) - 2.0).abs() < 1e-12);
        // After long time the standard deviation is sqrt(w / (2 − w)) (Roberts).
        let weight = ewma_weight(1.0, 10.0);
        let mut last = 0.0;
        for _ in 0..1000 {
            last = chart.push(1.0, 1.0);
        }
        assert!((last - ((2.0 - weight) / weight).sqrt()).abs() < 1e-9);
    }
}
