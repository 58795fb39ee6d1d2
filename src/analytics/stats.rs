//! Moments, order statistics and smoothing.

use serde::{Deserialize, Serialize};

/// MAD × this is the standard deviation of a normal distribution: 1 / Φ⁻¹(3/4).
pub const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;

/// Running mean and variance in one pass, without storing the values.
///
/// Source: B. P. Welford, Technometrics 4(3), 1962; merging: Chan, Golub, LeVeque, 1979.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Takes one value.
    pub fn push(&mut self, value: f64) {
        self.count += 1.0;
        let from_old = value - self.mean;
        self.mean += from_old / self.count;
        self.squares += from_old * (value - self.mean);
    }

    /// How many values were taken.
    #[must_use]
    pub const fn count(&self) -> f64 {
        self.count
    }

    /// Their mean; 0 when there are none.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// Their variance with divisor n − 1; 0 below two values.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count < 2.0 { 0.0 } else { (self.squares / (self.count - 1.0)).max(0.0) }
    }

    /// Square root of [`Self::variance`], in the unit of the values.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        self.variance().sqrt()
    }

    /// The moments of both sets of values together.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let count = self.count + other.count;
        if count < 1.0 {
            return Self::default();
        }
        let gap = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + gap * other.count / count,
            squares: self.squares + other.squares + gap * gap * self.count * other.count / count,
        }
    }
}

/// Weight of a new value that comes `step` after the one before in an exponential mean of time
/// constant `span` (same unit): 1 − exp(−step/span). Counts time, not rows.
#[must_use]
pub fn ewma_weight(step: f64, span: f64) -> f64 {
    if step <= 0.0 { 0.0 } else { -(-step / span).exp_m1() }
}

/// The `q`-quantile (0 to 1) of `values`, linear between order statistics (Hyndman & Fan 1996,
/// type 7). Reorders `values`; NaN when there are none.
#[must_use]
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let place = q.clamp(0.0, 1.0) * (values.len() - 1) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the length"
    )]
    let below = place.floor() as usize;
    let (_, &mut low, rest) = values.select_nth_unstable_by(below, f64::total_cmp);
    let high = rest.iter().copied().min_by(f64::total_cmp).unwrap_or(low);
    low + (high - low) * (place - below as f64)
}

/// The median of `values`; reorders them; NaN when there are none.
#[must_use]
pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// Median and robust standard deviation (MAD × 1.4826) of `values`, in their unit. `scratch` is
/// overwritten.
///
/// Source: F. R. Hampel, JASA 69, 1974.
#[must_use]
pub fn median_and_sigma(values: &[f64], scratch: &mut Vec<f64>) -> (f64, f64) {
    scratch.clear();
    scratch.extend_from_slice(values);
    let middle = median(scratch);
    scratch.clear();
    scratch.extend(values.iter().map(|value| (value - middle).abs()));
    (middle, MAD_TO_SIGMA * median(scratch))
}

/// Least-squares slope of `values` against `times` (value per unit of time); 0 when the times do
/// not differ.
#[must_use]
pub fn slope(times: &[f64], values: &[f64]) -> f64 {
    let n = times.len().min(values.len()) as f64;
    if n < 2.0 {
        return 0.0;
    }
    let (mean_t, mean_v) = (times.iter().sum::<f64>() / n, values.iter().sum::<f64>() / n);
    let (mut cross, mut square) = (0.0, 0.0);
    for (t, v) in times.iter().zip(values) {
        cross += (t - mean_t) * (v - mean_v);
        square += (t - mean_t) * (t - mean_t);
    }
    if square > 0.0 { cross / square } else { 0.0 }
}

/// Correlation of each value with the one before it; 0 for constant series and below three values.
#[must_use]
pub fn lag_one_correlation(values: &[f64]) -> f64 {
    if values.len() < 3 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let square: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let cross: f64 = values.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum();
    if square > 0.0 { cross / square } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_nist_michelson_series() {
        // NIST StRD "NumAcc3": 1000000.2 followed by 1000 times .1 and .3 alternating;
        // certified mean 1000000.2, standard deviation 0.1.
        let mut moments = Moments::default();
        moments.push(1_000_000.2);
        for i in 0..1000 {
            moments.push(if i % 2 == 0 { 1_000_000.1 } else { 1_000_000.3 });
        }
        assert!((moments.mean() - 1_000_000.2).abs() < 1e-9);
        // Digits: the values carry 1e-10 of rounding, the deviation is 0.1.
        assert!((moments.deviation() - 0.1).abs() < 1e-8);
    }

    #[test]
    fn merged_moments_are_those_of_the_whole() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i * i % 17)).collect();
        let (mut all, mut left, mut right) =
            (Moments::default(), Moments::default(), Moments::default());
        for (i, v) in values.iter().enumerate() {
            all.push(*v);
            if i < 13 { left.push(*v) } else { right.push(*v) }
        }
        let both = left.merged(&right);
        assert!((both.mean() - all.mean()).abs() < 1e-12);
        assert!((both.variance() - all.variance()).abs() < 1e-12);
        assert_eq!(Moments::default().merged(&Moments::default()), Moments::default());
    }

    #[test]
    fn quantiles_are_type_seven() {
        let quantile_of = |q| quantile(&mut [4.0, 1.0, 3.0, 2.0], q);
        assert!((quantile_of(0.5) - 2.5).abs() < 1e-12);
        assert!((quantile_of(0.25) - 1.75).abs() < 1e-12);
        assert!((quantile_of(1.0) - 4.0).abs() < 1e-12);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn mad_of_a_textbook_sample() {
        // Median 2, absolute deviations 1 1 0 0 2 4 7 have the median 1.
        let (middle, sigma) =
            median_and_sigma(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0], &mut Vec::new());
        assert!((middle - 2.0).abs() < 1e-12);
        assert!((sigma - MAD_TO_SIGMA).abs() < 1e-12);
    }

    #[test]
    fn a_weight_over_two_steps_is_that_of_both_together() {
        let once = ewma_weight(3.0, 10.0);
        let twice = 1.0 - (1.0 - ewma_weight(1.0, 10.0)) * (1.0 - ewma_weight(2.0, 10.0));
        assert!((once - twice).abs() < 1e-15);
        assert!(ewma_weight(-1.0, 10.0).abs() < 1e-15);
    }

    #[test]
    fn slope_of_a_line_is_exact() {
        let times: Vec<f64> = (0..20).map(f64::from).collect();
        let values: Vec<f64> = times.iter().map(|t| 3.0 - 0.25 * t).collect();
        assert!((slope(&times, &values) + 0.25).abs() < 1e-12);
    }
}
