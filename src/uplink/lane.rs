//! How far a lane is acknowledged: everything below a number, and ranges ahead of it.
//!
//! Rows are acknowledged one by one and out of order, live readings long before the backlog behind
//! them. The number of ranges is bounded by what makes them: the window of unacknowledged messages,
//! one held state per asset, one hole per outage.

use std::collections::BTreeMap;

use crate::port::{Lane, LanePosition};

/// Ranges that are saved with a position. What does not fit is sent again after a restart, and
/// dropped there by its identity.
pub const AHEAD_SAVED_MAX: usize = 64;

/// The acknowledged numbers of one lane.
///
/// Invariant: ranges in `ahead` are apart, none touches `below` or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    lane: Lane,
    below: u64,
    ahead: BTreeMap<u64, u64>,
}

impl Acknowledged {
    /// Goes on from a saved position.
    #[must_use]
    pub fn resume(position: &LanePosition) -> Self {
        let mut done =
            Self { lane: position.lane, below: position.below.max(1), ahead: BTreeMap::new() };
        for &(from, to) in &position.ahead {
            done.mark(from, to);
        }
        done
    }

    /// What shall be saved.
    #[must_use]
    pub fn position(&self) -> LanePosition {
        let ahead = self.ahead.iter().take(AHEAD_SAVED_MAX).map(|(&from, &to)| (from, to));
        LanePosition { lane: self.lane, below: self.below, ahead: ahead.collect() }
    }

    /// All numbers below this one are acknowledged.
    #[must_use]
    pub const fn below(&self) -> u64 {
        self.below
    }

    /// Takes `from ..= to` as acknowledged; a range that ends before it begins changes nothing.
    pub fn mark(&mut self, from: u64, to: u64) {
        let (mut from, mut to) = (from.max(self.below), to);
        if to < from {
            return;
        }
        // Swallow every range that overlaps or touches the new one.
        while let Some((&start, &end)) = self.ahead.range(..=to.saturating_add(1)).next_back() {
            if end.saturating_add(1) < from {
                break;
            }
            self.ahead.remove(&start);
            from = from.min(start);
            to = to.max(end);
        }
        if from == self.below {
            self.below = to.saturating_add(1);
        } else {
            self.ahead.insert(from, to);
        }
    }

    /// Takes a number ahead back: it is to be sent again. One below stays acknowledged.
    pub fn unmark(&mut self, number: u64) {
        let Some((&start, &end)) = self.ahead.range(..=number).next_back() else { return };
        if end < number {
            return;
        }
        self.ahead.remove(&start);
        if start < number {
            self.ahead.insert(start, number - 1);
        }
        if number < end {
            self.ahead.insert(number + 1, end);
        }
    }

    /// Whether this number is acknowledged.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        number < self.below
            || self.ahead.range(..=number).next_back().is_some_and(|(_, &end)| end >= number)
    }

    /// The first range of unacknowledged numbers within `from ..= to`.
    #[must_use]
    pub fn first_missing(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let mut from = from.max(self.below);
        if let Some((_, &end)) = self.ahead.range(..=from).next_back()
            && end >= from
        {
            from = end.saturating_add(1);
        }
        if from > to {
            return None;
        }
        let to = self.ahead.range(from..=to).next().map_or(to, |(&start, _)| start - 1);
        Some((from, to))
    }

    /// How many numbers of `from ..= to` are not acknowledged.
    #[must_use]
    pub fn missing(&self, from: u64, to: u64) -> u64 {
        let mut count = 0;
        let mut next = from;
        while let Some((start, end)) = self.first_missing(next, to) {
            count += end - start + 1;
            let Some(after) = end.checked_add(1) else { break };
            next = after;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn marks_agree_with_a_plain_set_of_numbers() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let mut done = Acknowledged::resume(&LanePosition::start(Lane::Events));
            let mut set: BTreeSet<u64> = BTreeSet::from([0]);
            for _ in 0..40 {
                let from = random.u64(1..60);
                let to = from + random.u64(0..5);
                done.mark(from, to);
                set.extend(from..=to);
                let back = random.u64(1..70);
                if back >= done.below() {
                    done.unmark(back);
                    set.remove(&back);
                }
                for number in 0..70 {
                    assert_eq!(done.contains(number), set.contains(&number), "{number} {done:?}");
                }
                let missing = (1..=65).filter(|number| !set.contains(number)).count() as u64;
                assert_eq!(done.missing(1, 65), missing);
                assert_eq!(done, Acknowledged::resume(&done.position()));
                let first = (1..).find(|number| !set.contains(number)).unwrap();
                assert_eq!(done.below(), first);
            }
        }
    }

    #[test]
    fn a_saved_position_is_bounded() {
        let mut done = Acknowledged::resume(&LanePosition::start(Lane::Readings));
        for number in 1..1000 {
            done.mark(number * 2, number * 2);
        }
        assert_eq!(done.position().ahead.len(), AHEAD_SAVED_MAX);
    }
}
