//! The gateway's clock was set, or is no longer believed: a new era begins in both files, and what
//! was said under a clock that was not believed is put right by one event.

use std::time::Duration;

use super::Engine;
use crate::domain::event::{Body, ClockRange};
use crate::domain::reading::RawBatch;
use crate::domain::time::{Now, Timestamp};
use crate::store::ring_thread::RingBatch;
use crate::store::{BootInfo, StoreError};

/// Raw values that were dated before the clock was set come at the latest so long after it: the
/// queue of inputs holds less than this.
const LATE: Duration = Duration::from_secs(60);

impl Engine {
    /// A new era begins: `boot` has its clocks, `step` is what UTC jumped by in microseconds. The
    /// caller has committed what was said before.
    ///
    /// # Errors
    /// When the store does not take it: everything stays in the era before, and the caller repeats.
    pub fn enter_era(&mut self, now: Now, boot: &BootInfo, step: i64) -> Result<(), StoreError> {
        self.store.date_boot(boot)?;
        self.step = Some((step, now.mono + LATE));
        self.outgoing.push_back(RingBatch { era: Some(*boot), ..RingBatch::default() });
        self.announce_corrections(now)
    }

    /// Tells subscribers what this boot said under a clock that was not believed, once it is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn announce_corrections(&mut self, now: Now) -> Result<(), StoreError> {
        let redated = self.store.uncorrected()?;
        let Some(last) = redated.eras.last() else { return Ok(()) };
        let offset = seconds(last.shift);
        let mut ranges = Vec::new();
        for (at, era) in redated.eras.iter().enumerate() {
            let offset = seconds(era.shift);
            for (class, from, to) in self.store.sequences_of(era.row)? {
                ranges.push(ClockRange { class, sequences: Some((from, to)), times: None, offset });
            }
            let end = redated
                .eras
                .get(at + 1)
                .map_or(now.utc.micros(), |next| next.began.micros().saturating_add(next.shift));
            let end = Timestamp::from_micros(end.saturating_sub(era.shift));
            ranges.push(ClockRange {
                class: "readings".to_owned(),
                sequences: None,
                times: Some((era.began, end)),
                offset,
            });
        }
        let rows = redated.eras.iter().map(|era| era.row);
        self.pending.corrected.extend(rows);
        let boot = redated.boot.to_string();
        tracing::warn!(boot, offset, "the clock was set; what was said before is corrected");
        let event = self.first(now, Body::ClockCorrected { boot, offset, ranges });
        self.drain_event(now, event);
        Ok(())
    }

    /// Puts arrival times right that were taken before the clock was set and waited in the queue.
    pub(super) fn redate(&mut self, now: Now, batch: &mut RawBatch) {
        let Some((step, until)) = self.step else { return };
        if now.mono > until {
            self.step = None;
            return;
        }
        for raw in &mut batch.readings {
            let moved = Timestamp::from_micros(raw.arrived.micros().saturating_add(step));
            let off = |time: Timestamp| time.micros().abs_diff(now.utc.micros());
            if off(moved) < off(raw.arrived) {
                raw.arrived = moved;
            }
        }
    }
}

fn seconds(micros: i64) -> f64 {
    // Microseconds of a million years are exact enough in 53 bits of seconds.
    micros as f64 / 1e6
}
