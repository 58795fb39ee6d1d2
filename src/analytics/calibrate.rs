//! From a statistic to how surprising it is: tails beyond a threshold, and a score that never
//! saturates.

use serde::{Deserialize, Serialize};

/// A generalised Pareto tail over a threshold.
///
/// Source: J. Pickands, Ann. Statist. 3(1), 1975; estimators by probability-weighted moments,
/// J. R. M. Hosking, J. R. Wallis, Technometrics 29(3), 1987.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// Where the tail begins, in the unit of the statistic.
    pub threshold: f64,
    /// Scale σ, same unit, positive.
    pub scale: f64,
    /// Shape ξ: 0 exponential, positive heavier. Kept to 0 … 0.5: a bounded tail (ξ < 0) would
    /// promise that more is impossible.
    pub shape: f64,
    /// Share of all values beyond the threshold.
    pub share: f64,
}

impl Tail {
    /// Fits the tail of `values` beyond their `quantile` (0 to 1). `None` below ten values beyond
    /// it, or when these do not differ. Reorders `values`.
    #[must_use]
    pub fn fit(values: &mut [f64], quantile: f64) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the length"
        )]
        let cut = (quantile.clamp(0.0, 1.0) * values.len() as f64) as usize;
        let beyond = values.get(cut..)?;
        if beyond.len() < 10 || cut == 0 {
            return None;
        }
        let threshold = values[cut - 1];
        let n = beyond.len() as f64;
        let mean = beyond.iter().map(|v| v - threshold).sum::<f64>() / n;
        let weighted = beyond
            .iter()
            .enumerate()
            .map(|(i, v)| (v - threshold) * (n - 1.0 - i as f64) / (n - 1.0))
            .sum::<f64>()
            / n;
        let gap = mean - 2.0 * weighted;
        if gap <= 0.0 || mean <= 0.0 {
            return None;
        }
        let shape = (2.0 - mean / gap).clamp(0.0, 0.5);
        Some(Self { threshold, scale: mean * (1.0 - shape), shape, share: n / values.len() as f64 })
    }

    /// The same with shape 0, which needs only a mean: for few values. `None` when nothing lies
    /// beyond the quantile or values there do not differ. Reorders `values`.
    #[must_use]
    pub fn exponential(values: &mut [f64], quantile: f64) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the length"
        )]
        let cut = (quantile.clamp(0.0, 1.0) * values.len() as f64) as usize;
        let beyond = values.get(cut..).filter(|beyond| !beyond.is_empty() && cut > 0)?;
        let threshold = values[cut - 1];
        let n = beyond.len() as f64;
        let mean = beyond.iter().map(|v| v - threshold).sum::<f64>() / n;
        // A tail narrower than a thousandth of where it begins is rounding.
        let scale = mean.max(1e-3 * threshold.abs());
        (scale > 0.0).then_some(Self {
            threshold,
            scale,
            shape: 0.0,
            share: n / values.len() as f64,
        })
    }

    /// Surprise of a value: −ln P(statistic ≥ value); grows for ever. Below the threshold linear
    /// up to the surprise there.
    #[must_use]
    pub fn surprise(&self, value: f64) -> f64 {
        let base = -self.share.ln();
        if value <= self.threshold {
            let part = if self.threshold > 0.0 { value / self.threshold } else { 0.0 };
            return base * part.clamp(0.0, 1.0);
        }
        let excess = (value - self.threshold) / self.scale;
        base + if self.shape > 1e-6 { (self.shape * excess).ln_1p() / self.shape } else { excess }
    }

    /// The value whose surprise is `surprise` (which must lie beyond the threshold).
    #[must_use]
    pub fn level(&self, surprise: f64) -> f64 {
        let rest = (surprise + self.share.ln()).max(0.0);
        self.threshold
            + self.scale
                * if self.shape > 1e-6 { (rest * self.shape).exp_m1() / self.shape } else { rest }
    }
}

/// Maxima of consecutive blocks of `length` values: clusters of a dependent series count once.
#[must_use]
pub fn block_maxima(values: &[f64], length: usize) -> Vec<f64> {
    values
        .chunks(length.max(1))
        .map(|block| block.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        .collect()
}

/// A score in [0, 1) that grows strictly with `ratio` (evidence over what is allowed): 0.5 at the
/// limit. In double precision ties begin only beyond a ratio of 10¹⁵.
#[must_use]
pub fn bounded(ratio: f64) -> f64 {
    if ratio.is_nan() {
        0.0
    } else if ratio.is_infinite() {
        1.0
    } else {
        let ratio = ratio.max(0.0);
        ratio / (1.0 + ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponential_tail_is_found() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut values: Vec<f64> = (0..20_000).map(|_| -3.0 * random.f64().ln()).collect();
        let tail = Tail::fit(&mut values, 0.9).unwrap();
        assert!(tail.shape < 0.1 && (tail.scale - 3.0).abs() < 0.4, "{tail:?}");
        // P(X ≥ 30) = exp(−10); half a nat is five standard errors of the scale.
        assert!((tail.surprise(30.0) - 10.0).abs() < 1.2, "{}", tail.surprise(30.0));
        assert!((tail.surprise(tail.level(12.0)) - 12.0).abs() < 1e-9);
    }

    #[test]
    fn a_heavy_tail_is_found() {
        // Pareto with index 4: ξ = 1/4.
        let mut random = fastrand::Rng::with_seed(6);
        let mut values: Vec<f64> = (0..50_000).map(|_| random.f64().powf(-0.25)).collect();
        let tail = Tail::fit(&mut values, 0.9).unwrap();
        assert!((tail.shape - 0.25).abs() < 0.08, "{tail:?}");
    }

    #[test]
    fn too_little_is_refused() {
        assert_eq!(Tail::fit(&mut [1.0; 50], 0.9), None);
        assert_eq!(Tail::fit(&mut [5.0; 500], 0.9), None);
    }

    #[test]
    fn the_score_does_not_saturate() {
        assert!((bounded(1.0) - 0.5).abs() < 1e-15);
        assert!(bounded(1e12) < bounded(1.1e12) && bounded(1.1e12) < 1.0);
        assert!(bounded(f64::NAN).abs() < 1e-15);
    }

    #[test]
    fn clusters_count_once() {
        assert_eq!(block_maxima(&[1.0, 5.0, 2.0, 3.0, 4.0], 2), vec![5.0, 3.0, 4.0]);
    }
}
