//! Counters that wrap and are reset (`counter = true`): the reading is the total over all of it.
//!
//! A device's counter begins again at 0 after its largest value (a *wrap*), and when the device
//! restarts (a *reset*). Seen from outside both are a step down. It is a wrap when counting on
//! through zero is the shorter way, at most half the counter's range, and a reset otherwise; after
//! a reset what the counter shows was counted since. Exact while a tag is read so often that less
//! than half the range is counted between two readings, and a reset never falls into the lower
//! half's reach of a wrap. Pure.

use serde::{Deserialize, Serialize};

/// What a new value of a counter was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The first one.
    First,
    /// It counted on (or stood still).
    Counted,
    /// It went through zero.
    Wrapped,
    /// It began again.
    Reset,
}

/// One counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter {
    /// After so many counts the device begins again at 0.
    modulus: u128,
    /// What the device showed last.
    last: Option<u128>,
    /// Counts over all wraps and resets, beginning with what the device showed first.
    total: u128,
    /// Whether the device was heard in this run.
    #[serde(skip)]
    heard: bool,
}

impl Counter {
    /// A counter that was never read.
    ///
    /// # Panics
    /// When `modulus` is 0.
    #[must_use]
    pub(super) const fn new(modulus: u128) -> Self {
        assert!(modulus > 0, "a counter has values");
        Self { modulus, last: None, total: 0, heard: false }
    }

    /// The modulus.
    #[must_use]
    pub(super) const fn modulus(&self) -> u128 {
        self.modulus
    }

    /// Counts over all wraps and resets.
    #[must_use]
    pub(super) const fn total(&self) -> u128 {
        self.total
    }

    /// Takes what the device shows, below the modulus; a larger value counts as the largest.
    pub(super) fn advance(&mut self, raw: u128) -> Step {
        self.heard = true;
        let raw = raw.min(self.modulus - 1);
        let Some(last) = self.last.replace(raw) else {
            self.total = self.total.saturating_add(raw);
            return Step::First;
        };
        let (increase, step) = if raw >= last {
            (raw - last, Step::Counted)
        } else {
            let round = self.modulus - last + raw;
            if round <= self.modulus / 2 { (round, Step::Wrapped) } else { (raw, Step::Reset) }
        };
        self.total = self.total.saturating_add(increase);
        step
    }

    /// Takes a total that was stored after this state was saved: the device had counted on to it.
    /// Does nothing once the device was heard, or when nothing was saved.
    pub(super) fn catch_up(&mut self, total: u128) {
        let Some(last) = self.last else { return };
        if self.heard || total <= self.total {
            return;
        }
        self.last = Some((last + (total - self.total)) % self.modulus);
        self.total = total;
    }

    /// Takes the newer of two saved states.
    pub(super) fn merge(&mut self, saved: Self) {
        if saved.modulus == self.modulus && (self.last.is_none() || saved.total > self.total) {
            *self = Self { heard: self.heard, ..saved };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODULI: [u128; 4] = [1 << 16, 1 << 32, 1 << 64, 100_000_000];

    fn read(counter: &mut Counter, raws: &[u128]) -> Vec<Step> {
        raws.iter().map(|raw| counter.advance(*raw)).collect()
    }

    #[test]
    fn c18_a_step_down_is_a_wrap_or_a_reset_by_the_shorter_way() {
        let mut counter = Counter::new(1 << 16);
        let steps = read(&mut counter, &[65_000, 65_535, 10, 30_000, 5, 5]);
        let expected =
            [Step::First, Step::Counted, Step::Wrapped, Step::Counted, Step::Reset, Step::Counted];
        assert_eq!(steps, expected);
        assert_eq!(counter.total(), 65_000 + 535 + 11 + 29_990 + 5);
        let mut counter = Counter::new(1 << 32);
        let steps = read(&mut counter, &[1_000_000, 7, 9]);
        assert_eq!(steps, [Step::First, Step::Reset, Step::Counted]);
        assert_eq!(counter.total(), 1_000_009);
    }

    #[test]
    fn c18_a_saved_counter_goes_on_after_a_restart_whatever_happened_meanwhile() {
        let mut before = Counter::new(1 << 16);
        read(&mut before, &[60_000, 100]);
        let text = serde_json::to_string(&before).unwrap();
        let saved: Counter = serde_json::from_str(&text).unwrap();
        let mut after = Counter::new(1 << 16);
        after.merge(saved);
        // The ring knows of a later reading than the snapshot.
        after.catch_up(65_936);
        assert_eq!(after.advance(500), Step::Counted);
        assert_eq!(after.total(), 65_536 + 500);
        after.catch_up(1 << 40);
        assert_eq!(after.total(), 65_536 + 500, "the device itself was heard");
    }

    proptest! {
        #[test]
        fn c18_totals_are_exact_over_wraps(
            modulus in 0..MODULI.len(),
            start in any::<u64>(),
            increments in proptest::collection::vec(any::<u64>(), 0..200),
        ) {
            let modulus = MODULI[modulus];
            let start = u128::from(start) % modulus;
            let mut counter = Counter::new(modulus);
            counter.advance(start);
            let mut truth = start;
            for increment in increments {
                truth += u128::from(increment) % (modulus / 2 + 1);
                counter.advance(truth % modulus);
                prop_assert_eq!(counter.total(), truth);
            }
        }

        #[test]
        fn c18_totals_are_exact_over_resets_from_the_lower_half(
            modulus in 0..MODULI.len(),
            runs in proptest::collection::vec(proptest::collection::vec(any::<u64>(), 1..20), 1..20),
        ) {
            // A device that never comes past half its range before it restarts at a lower value.
            let modulus = MODULI[modulus];
            let half = modulus / 2;
            let mut counter = Counter::new(modulus);
            let (mut truth, mut shown) = (0_u128, None::<u128>);
            for run in runs {
                let mut raws: Vec<u128> =
                    run.iter().map(|raw| u128::from(*raw) % half).collect();
                raws.sort_unstable();
                // Without a step down nobody could see the restart.
                if shown.is_some_and(|shown| raws[0] >= shown) {
                    continue;
                }
                let mut from = 0;
                for raw in raws {
                    counter.advance(raw);
                    truth += raw - from;
                    from = raw;
                }
                shown = Some(from);
                prop_assert_eq!(counter.total(), truth);
            }
        }
    }
}
