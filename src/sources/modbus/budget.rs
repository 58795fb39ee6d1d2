//! Pure: how much of a line's time units without an answer may cost.
//!
//! A token bucket: it fills with a share of the time that passes, and every request that ended
//! without an answer empties it by what it took. While it is empty nobody is asked who did not
//! answer last time. So dead units cost at most `share` of any span of time, plus [`BURST`] once,
//! plus the first, unforeseen timeout of each unit.

use std::time::Duration;

/// Timeouts that may follow each other at once: a single unit that falls silent is found dead
/// (three cycles and one repetition) without waiting.
const BURST: u32 = 4;

/// The bucket of one line.
#[derive(Debug, Clone)]
pub(super) struct DeadTime {
    share: f64,
    /// Seconds; negative after an expense that could not be foreseen.
    balance: f64,
    most: f64,
    at: Duration,
}

impl DeadTime {
    /// A full bucket for a line on which a request takes at most `timeout`.
    pub(super) fn new(share: f64, timeout: Duration, now: Duration) -> Self {
        let most = (timeout * BURST).as_secs_f64();
        Self { share, balance: most, most, at: now }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.balance = (self.balance + passed * self.share).min(self.most);
    }

    /// `None` when a unit that may not answer may be asked at `now`; otherwise when it may.
    pub(super) fn wait(&mut self, now: Duration) -> Option<Duration> {
        self.fill(now);
        (self.balance <= 0.0).then(|| {
            // A little over nothing, so that rounding never makes it wait once more.
            let pause = (1e-6 - self.balance) / self.share;
            now + Duration::try_from_secs_f64(pause).unwrap_or(Duration::from_secs(3600))
        })
    }

    /// A request without an answer took this long.
    pub(super) fn spend(&mut self, now: Duration, took: Duration) {
        self.fill(now);
        // The debt is bounded: units found dead all at once must not keep a repaired one waiting.
        self.balance = (self.balance - took.as_secs_f64()).max(-self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);

    #[test]
    fn dead_units_cost_no_more_than_their_share() {
        let mut budget = DeadTime::new(0.1, TIMEOUT, Duration::ZERO);
        let (mut now, mut spent) = (Duration::ZERO, Duration::ZERO);
        let end = Duration::from_secs(1000);
        while now < end {
            match budget.wait(now) {
                None => {
                    now += TIMEOUT;
                    spent += TIMEOUT;
                    budget.spend(now, TIMEOUT);
                }
                Some(until) => {
                    assert!(until > now);
                    now = until;
                }
            }
        }
        let bound = end.mul_f64(0.1) + TIMEOUT * (BURST + 1);
        assert!(spent <= bound && spent >= end.mul_f64(0.09), "{spent:?}");
    }

    #[test]
    fn a_single_unit_is_found_dead_without_waiting() {
        let mut budget = DeadTime::new(0.1, TIMEOUT, Duration::ZERO);
        for _ in 0..BURST {
            assert_eq!(budget.wait(Duration::ZERO), None);
            budget.spend(Duration::ZERO, TIMEOUT);
        }
        assert!(budget.wait(Duration::ZERO).is_some());
    }
}
