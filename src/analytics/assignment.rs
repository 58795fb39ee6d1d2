//! Arithmetic on spans of time, and the choice of a person for a piece of work.
//!
//! The rule is greedy: each order takes the earliest span in which a suitable person is free and
//! the asset may be stopped, and keeps it. For one order this is optimal (no other choice ends
//! earlier), so a due time is met whenever the bookings that already stand leave room for it.
//! Orders are never moved to make room for later ones.
//!
//! Spans exclude their end: work that ends at ten and work that begins at ten do not overlap.

use std::time::Duration;

use crate::domain::ids::TechnicianId;
use crate::domain::time::Timestamp;

/// A span of time, its end excluded.
///
/// Invariant: `start < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    start: Timestamp,
    end: Timestamp,
}

impl Span {
    /// The span from `start` to `end`; `None` when it would be empty.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// First moment.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// First moment after it.
    #[must_use]
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> Duration {
        self.end.since(self.start)
    }

    /// Whether the two have a moment in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether `other` lies wholly inside.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

/// The same moments as ordered spans that neither overlap nor touch. The functions below want
/// their spans in this form.
#[must_use]
pub fn joined(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            Some(_) | None => joined.push(span),
        }
    }
    joined
}

/// What is left of `spans` when `taken` is cut out. Both joined; so is the result.
#[must_use]
pub fn without(spans: &[Span], taken: &[Span]) -> Vec<Span> {
    let mut left = Vec::with_capacity(spans.len());
    for span in spans {
        let mut start = span.start;
        for hole in taken.iter().filter(|hole| hole.overlaps(*span)) {
            left.extend(Span::new(start, hole.start));
            start = hole.end;
        }
        left.extend(Span::new(start, span.end));
    }
    left
}

/// The moments that are in both. Both joined; so is the result.
#[must_use]
pub fn common(a: &[Span], b: &[Span]) -> Vec<Span> {
    let (mut i, mut j) = (0, 0);
    let mut both = Vec::new();
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        both.extend(Span::new(x.start.max(y.start), x.end.min(y.end)));
        if x.end < y.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    both
}

/// The earliest span of `length` that begins at `from` or later and lies inside one of `free`
/// (joined). `None` when there is none.
#[must_use]
pub fn earliest(free: &[Span], from: Timestamp, length: Duration) -> Option<Span> {
    free.iter().find_map(|span| {
        let start = span.start.max(from);
        let slot = Span::new(start, start.after(length))?;
        (slot.end <= span.end).then_some(slot)
    })
}

/// A person who could do the work.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate<'a> {
    /// Who.
    pub id: &'a TechnicianId,
    /// When this person is at work, not booked, and the asset may be stopped and is not being
    /// worked on. Joined.
    pub free: Vec<Span>,
    /// How much work this person has already been given.
    pub load: Duration,
}

/// Who does a piece of work of `length` from `from` on, and when: the one who is done first; of
/// those the one with the least work; of those the first by id. `None` when nobody has room.
#[must_use]
pub fn choose<'a>(
    candidates: &[Candidate<'a>],
    from: Timestamp,
    length: Duration,
) -> Option<(&'a TechnicianId, Span)> {
    candidates
        .iter()
        .filter_map(|candidate| {
            let slot = earliest(&candidate.free, from, length)?;
            Some((slot.end, candidate.load, candidate.id, slot))
        })
        .min()
        .map(|(_, _, id, slot)| (id, slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: i64, end: i64) -> Span {
        Span::new(at(start), at(end)).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    /// The same set as seconds, for brute force.
    fn seconds(spans: &[Span]) -> Vec<i64> {
        (0..100).filter(|s| spans.iter().any(|span| span.contains(self::span(*s, s + 1)))).collect()
    }

    #[test]
    fn span_arithmetic_agrees_with_counting_seconds() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..500 {
            let mut some = || {
                let count = random.usize(0..6);
                let spans = (0..count).map(|_| {
                    let start = random.i64(0..90);
                    span(start, start + random.i64(1..10))
                });
                joined(spans.collect())
            };
            let (a, b) = (some(), some());
            let (in_a, in_b) = (seconds(&a), seconds(&b));
            let both: Vec<i64> = in_a.iter().copied().filter(|s| in_b.contains(s)).collect();
            let only: Vec<i64> = in_a.iter().copied().filter(|s| !in_b.contains(s)).collect();
            assert_eq!(seconds(&common(&a, &b)), both, "round {round}");
            assert_eq!(seconds(&without(&a, &b)), only, "round {round}");
            assert_eq!(joined(common(&a, &b)), common(&a, &b), "round {round}");
            assert_eq!(joined(without(&a, &b)), without(&a, &b), "round {round}");
        }
    }

    #[test]
    fn touching_spans_are_one_and_do_not_overlap() {
        assert_eq!(joined(vec![span(5, 9), span(0, 5)]), vec![span(0, 9)]);
        assert!(!span(0, 5).overlaps(span(5, 9)));
    }

    #[test]
    fn earliest_slot_lies_in_one_piece() {
        let free = [span(0, 3), span(5, 9)];
        let four = Duration::from_secs(4);
        assert_eq!(earliest(&free, at(0), four), Some(span(5, 9)));
        assert_eq!(earliest(&free, at(6), four), None);
        assert_eq!(earliest(&free, at(1), Duration::from_secs(2)), Some(span(1, 3)));
    }

    #[test]
    fn first_done_then_least_loaded_then_id() {
        let [a, b, c] = ["a", "b", "c"].map(|id| TechnicianId::new(id).unwrap());
        let person = |id, from, load| Candidate {
            id,
            free: vec![span(from, 50)],
            load: Duration::from_secs(load),
        };
        let choice = |candidates: &[Candidate<'_>]| {
            choose(candidates, at(0), Duration::from_secs(5)).map(|(id, slot)| (id.clone(), slot))
        };
        assert_eq!(choice(&[person(&a, 10, 0), person(&b, 2, 99)]), Some((b.clone(), span(2, 7))));
        assert_eq!(choice(&[person(&a, 2, 9), person(&c, 2, 1)]), Some((c.clone(), span(2, 7))));
        assert_eq!(choice(&[person(&c, 2, 1), person(&b, 2, 1)]), Some((b.clone(), span(2, 7))));
        assert_eq!(choice(&[person(&a, 46, 0)]), None);
    }
}
