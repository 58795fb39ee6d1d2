//! First-passage and survival: how likely a wandering quantity has reached its limit by a time.

use std::f64::consts::{PI, SQRT_2};

/// Below this argument the normal distribution is continued by its tail series.
const TAIL: f64 = -3.0;

/// Standard normal distribution function, absolute error below 1.5e-7.
///
/// Source: M. Abramowitz, I. Stegun, Handbook of Mathematical Functions, 7.1.26; the tail below
/// −3 by the continued fraction 26.2.14.
#[must_use]
pub fn normal_cdf(x: f64) -> f64 {
    if x < TAIL {
        return ln_normal_cdf(x).exp();
    }
    if x > 0.0 {
        return 1.0 - normal_cdf(-x);
    }
    let z = -x / SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    0.5 * poly * (-z * z).exp()
}

/// Natural logarithm of [`normal_cdf`], usable far into the lower tail.
#[must_use]
pub fn ln_normal_cdf(x: f64) -> f64 {
    if x >= TAIL {
        return normal_cdf(x).ln();
    }
    // 26.2.14: Q(z) = φ(z) / (z + 1/(z + 2/(z + 3/(z + …)))), ample from z = 3 on.
    let z = -x;
    let fraction = (1..=40).rev().fold(z, |inner, k| z + f64::from(k) / inner);
    -0.5 * z * z - 0.5 * (2.0 * PI).ln() - fraction.ln()
}

/// Distribution function at `t` of the time at which a Wiener process with drift `drift` > 0 and
/// diffusion `sigma` (standard deviation after one unit of time) first reaches `distance`: the
/// inverse Gaussian with mean `distance / drift` and shape `distance² / sigma²`.
///
/// With `sigma` = 0 the passage is certain at the mean. Non-positive distances are passed already.
/// A drift ≤ 0 need not ever pass; the same formula then gives a defective distribution.
///
/// Source: E. Schrödinger, Physik. Zeitschr. 16, 1915; R. S. Chhikara, J. L. Folks, The Inverse
/// Gaussian Distribution, 1989, §1.4 and §11.2.
#[must_use]
pub fn first_passage_cdf(t: f64, distance: f64, drift: f64, sigma: f64) -> f64 {
    if distance <= 0.0 {
        return 1.0;
    }
    if t <= 0.0 {
        return 0.0;
    }
    if sigma <= 0.0 {
        return if drift * t >= distance { 1.0 } else { 0.0 };
    }
    let root = sigma * t.sqrt();
    let reached = normal_cdf((drift * t - distance) / root);
    // exp(2·drift·distance/sigma²) overflows where its partner underflows: added as logarithms.
    let reflected =
        2.0 * drift * distance / (sigma * sigma) + ln_normal_cdf(-(distance + drift * t) / root);
    (reached + reflected.exp()).clamp(0.0, 1.0)
}

/// The time in `0..=horizon` at which the non-decreasing `cdf` reaches `level`, found by bisection
/// to a relative 1e-4; `None` when it does not within the horizon.
#[must_use]
pub fn quantile(cdf: impl Fn(f64) -> f64, level: f64, horizon: f64) -> Option<f64> {
    if cdf(horizon) < level {
        return None;
    }
    let (mut low, mut high) = (0.0, horizon);
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < level {
            low = middle;
        } else {
            high = middle;
        }
        if high - low <= 1e-4 * high {
            break;
        }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64, tolerance: f64) {
        assert!((value - expected).abs() <= tolerance, "{value} instead of {expected}");
    }

    #[test]
    fn the_normal_distribution_agrees_with_its_tables() {
        close(normal_cdf(0.0), 0.5, 2e-7);
        close(normal_cdf(1.0), 0.841_344_746, 2e-7);
        close(normal_cdf(-1.959_963_985), 0.025, 2e-7);
        // R: pnorm(-10, log.p = TRUE), pnorm(-40, log.p = TRUE)
        close(ln_normal_cdf(-10.0), -53.231_285_15, 1e-6);
        close(ln_normal_cdf(-40.0), -804.608_442, 1e-4);
        // The two branches meet within the polynomial's 1.5e-7.
        close(normal_cdf(-5.0), 2.866_516e-7, 1e-12);
        close(normal_cdf(-3.0), 1.349_898e-3, 2e-7);
        close(normal_cdf(-3.000_001), 1.349_894e-3, 1e-8);
    }

    #[test]
    fn first_passage_agrees_with_simulation() {
        // Euler steps underestimate passages between steps; the tolerance covers that and chance.
        let (distance, drift, sigma) = (3.0, 0.5, 0.7);
        let mut random = fastrand::Rng::with_seed(11);
        let (runs, step) = (4000, 0.01_f64);
        let mut times = Vec::new();
        for _ in 0..runs {
            let (mut x, mut t) = (0.0, 0.0);
            while x < distance && t < 50.0 {
                let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
                x += drift * step + sigma * step.sqrt() * normal;
                t += step;
            }
            times.push(t);
        }
        for t in [3.0, 6.0, 12.0] {
            let share = times.iter().filter(|time| **time <= t).count() as f64 / f64::from(runs);
            close(first_passage_cdf(t, distance, drift, sigma), share, 0.04);
        }
    }

    #[test]
    fn first_passage_survives_extremes() {
        for sigma in [0.0, 1e-9, 1e-3, 1.0] {
            let early = first_passage_cdf(5.0, 10.0, 1.0, sigma);
            let late = first_passage_cdf(2000.0, 10.0, 1.0, sigma);
            assert!((0.0..0.2).contains(&early) && late > 0.99, "{sigma}: {early} {late}");
        }
        close(first_passage_cdf(1.0, 0.0, 1.0, 1.0), 1.0, 0.0);
        // Driftless: 2·Φ(−d/σ√t), by reflection.
        close(first_passage_cdf(4.0, 1.0, 0.0, 1.0), 2.0 * normal_cdf(-0.5), 1e-6);
        let median = quantile(|t| first_passage_cdf(t, 10.0, 1.0, 1e-6), 0.5, 100.0).unwrap();
        close(median, 10.0, 0.01);
        assert_eq!(quantile(|_| 0.3, 0.5, 100.0), None);
    }
}
