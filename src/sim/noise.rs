//! Random disturbances, all from one seeded generator.

use std::time::Duration;

/// A standard normal number.
///
/// Source: G. Marsaglia, T. A. Bray, SIAM Review 6(3), 1964 (polar method).
pub(crate) fn normal(random: &mut fastrand::Rng) -> f64 {
    loop {
        let (u, v) = (2.0 * random.f64() - 1.0, 2.0 * random.f64() - 1.0);
        let s = u * u + v * v;
        if s > 0.0 && s < 1.0 {
            return u * (-2.0 * s.ln() / s).sqrt();
        }
    }
}

/// A disturbance that remembers itself for a while: an Ornstein–Uhlenbeck process, sampled exactly,
/// which on equal steps is an AR(1) process.
///
/// Source: D. T. Gillespie, Phys. Rev. E 54(2), 1996.
#[derive(Debug, Clone)]
pub(crate) struct Wander {
    deviation: f64,
    memory_s: f64,
    value: f64,
}

impl Wander {
    /// A disturbance around zero with this standard deviation and correlation time. It begins
    /// somewhere in its stationary distribution, so that a plant does not start suspiciously calm.
    pub(crate) fn new(deviation: f64, memory: Duration, random: &mut fastrand::Rng) -> Self {
        let value = deviation * normal(random);
        Self { deviation, memory_s: memory.as_secs_f64(), value }
    }

    /// Moves on by `dt` seconds.
    pub(crate) fn step(&mut self, dt: f64, random: &mut fastrand::Rng) {
        let keep = (-dt / self.memory_s).exp();
        self.value =
            keep * self.value + self.deviation * (1.0 - keep * keep).sqrt() * normal(random);
    }

    /// Its present value.
    pub(crate) fn get(&self) -> f64 {
        self.value
    }
}

/// Follows `target` with the time constant `tau` (seconds) over a step of `dt` seconds, exactly for
/// a target that is constant during the step.
pub(crate) fn follow(value: f64, target: f64, tau: f64, dt: f64) -> f64 {
    target + (value - target) * (-dt / tau).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wander_has_the_deviation_and_memory_it_was_given() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut wander = Wander::new(2.0, Duration::from_secs(5), &mut random);
        let values: Vec<f64> = (0..200_000)
            .map(|_| {
                wander.step(1.0, &mut random);
                wander.get()
            })
            .collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let lagged = values.windows(2).map(|w| (w[0] - mean) * (w[1] - mean)).sum::<f64>() / n;
        // About 20,000 independent values: the standard error of the variance is near 2 %.
        assert!((variance.sqrt() - 2.0).abs() < 0.08, "{}", variance.sqrt());
        assert!((lagged / variance - (-0.2f64).exp()).abs() < 0.02, "{}", lagged / variance);
    }
}
