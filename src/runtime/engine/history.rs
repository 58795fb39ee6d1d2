//! What happens at a start: readings the stages had not seen, or had forgotten, are fed again.
//!
//! A snapshot in the store leads with the arrival number of the last reading it knows (8 bytes,
//! little endian). Readings after it and up to `seen` were judged before the stop: stages learn from
//! them and raise nothing. Readings after `seen` are in the ring but were never judged: they are
//! taken like live ones, and what they bring about is kept.

use super::Engine;
use crate::domain::event::Body;
use crate::domain::ids::Arrival;
use crate::domain::reading::Reading;
use crate::domain::time::Now;

/// Leads a snapshot with the last reading it knows.
pub(super) fn stamp(at: Arrival, bytes: &[u8]) -> Vec<u8> {
    let mut stamped = at.0.to_le_bytes().to_vec();
    stamped.extend_from_slice(bytes);
    stamped
}

/// Takes apart what [`stamp`] made. A snapshot too short to have a stamp knows nothing.
pub(super) fn unstamp(stamped: &[u8]) -> (Arrival, &[u8]) {
    match stamped.split_first_chunk::<8>() {
        Some((at, bytes)) => (Arrival(u64::from_le_bytes(*at)), bytes),
        None => (Arrival(0), &[]),
    }
}

/// Most readings that are fed again to refill windows: what arrives in a quarter of an hour at a
/// thousand tags a second, about two seconds of work on a small board.
const REFILL_MAX: u64 = 1_000_000;

impl Engine {
    /// From which reading on the ring has to be fed to [`Self::replay`] after a start, exclusive.
    ///
    /// After a clean stop this is the last reading of the ring. After a crash it lies as far back
    /// as the oldest snapshot, but at most a million readings.
    #[must_use]
    pub fn replay_from(&self) -> Arrival {
        let learnt = self.slots.iter().filter(|slot| slot.saved.is_some());
        let oldest = learnt.map(|slot| slot.saved_at).min().unwrap_or_default();
        Arrival(oldest.0.min(self.seen.0).max(self.seen.0.saturating_sub(REFILL_MAX)))
    }

    /// Feeds readings of the ring after a start, in arrival order, in pieces of any size.
    pub fn replay(&mut self, now: Now, readings: &[Reading]) {
        let seen = self.seen;
        let known = readings.partition_point(|reading| reading.arrival <= seen);
        let (judged, new) = readings.split_at(known);
        if !judged.is_empty() {
            for index in 0..self.slots.len() {
                let from = self.slots[index].saved_at;
                let start = judged.partition_point(|reading| reading.arrival <= from);
                let part = &judged[start..];
                if part.is_empty() {
                    continue;
                }
                // What a stage says about readings that were judged before was said before.
                if self
                    .guarded(now, index, None, |stage, out| stage.on_readings(now, part, true, out))
                    .is_err()
                {
                    tracing::warn!(
                        stage = self.slots[index].name.as_str(),
                        "refilling a stage from the ring failed; it goes on without"
                    );
                }
            }
        }
        if let Some(last) = new.last() {
            self.seen = last.arrival;
            self.next_arrival = self.next_arrival.max(last.arrival.0 + 1);
            self.feed(now, new, false);
        }
    }

    /// Announces readings that were judged before a crash and that the ring has lost.
    pub fn announce_lost(&mut self, now: Now, ring_last: Arrival) {
        if ring_last.0 < self.seen.0 {
            let (from, to) = (ring_last.0 + 1, self.seen.0);
            let event = self.first(
                now,
                Body::Gap {
                    lane: "readings".to_owned(),
                    from,
                    to,
                    count: to - from + 1,
                    reason: "not yet on disk when the gateway stopped".to_owned(),
                },
            );
            self.drain_event(now, event);
        }
    }

    /// Says whether windows are being refilled, for the status.
    pub fn set_refilling(&mut self, refilling: bool) {
        self.refilling = refilling;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_off_as_it_went_on() {
        assert_eq!(unstamp(&stamp(Arrival(77), b"abc")), (Arrival(77), b"abc".as_slice()));
        assert_eq!(unstamp(b"short"), (Arrival(0), b"".as_slice()));
    }
}
