//! Pure: pauses between attempts, doubling up to a cap, with jitter so that a hall full of gateways
//! does not come back in step.

use std::time::Duration;

/// Pauses of one kind of attempt.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    /// Share of the pause that is left to chance, 0 to 1.
    spread: f64,
    failures: u32,
}

impl Backoff {
    /// Pauses from `first` to `max`, of which the part `spread` (0 none, 1 all of it, which is called
    /// full jitter) is drawn anew each time.
    #[must_use]
    pub const fn new(first: Duration, max: Duration, spread: f64) -> Self {
        Self { first, max, spread, failures: 0 }
    }

    /// An attempt has failed: how long to wait before the next one.
    pub fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let doubled =
            self.first.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        // 2^20 times any first pause is beyond every cap in use.
        self.failures = (self.failures + 1).min(20);
        doubled.min(self.max).mul_f64(1.0 - self.spread * rng.f64())
    }

    /// It works again: the next pause is the first one.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Attempts failed since the last reset.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_begin_anew_after_a_reset() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, max, 0.5);
        for attempt in 0..100_u32 {
            let whole = first.saturating_mul(1 << attempt.min(20)).min(max);
            let pause = backoff.next(&mut rng);
            assert!(pause <= whole && pause >= whole / 2, "attempt {attempt}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= first);
    }

    #[test]
    fn full_jitter_spreads_over_the_whole_pause() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(60), 1.0);
        let pauses: Vec<_> = (0..1000).map(|_| backoff.next(&mut rng).as_secs()).collect();
        for tenth in 0..10 {
            let inside = pauses.iter().filter(|pause| **pause / 6 == tenth).count();
            // 100 expected, standard deviation 9.5.
            assert!((60..=140).contains(&inside), "{inside} pauses in tenth {tenth}");
        }
    }
}
