//! What the uplink reads from: the journal and the ring, each through a reader of its own, in pages
//! that take a few milliseconds. Calls block; they run where that is allowed.

use std::path::Path;

use super::event_lane::PAGE_ROWS;
use super::reading_lane::{PAGE_READINGS, Page, PageRequest};
use crate::domain::ids::Arrival;
use crate::port::{Committed, Lane, LanePosition};
use crate::store::{RingReader, StateReader, StoreError};

/// The journal.
pub(super) struct JournalShelf(StateReader);

impl JournalShelf {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        StateReader::open(dir).map(Self)
    }

    /// Where the lanes were left, and the number of this start.
    pub(super) fn left_at(&self) -> Result<(LanePosition, LanePosition, u64), StoreError> {
        Ok((self.0.lane(Lane::Events)?, self.0.lane(Lane::Readings)?, self.0.starts()?))
    }

    pub(super) fn read(&self, after: u64) -> Result<Vec<Committed>, StoreError> {
        self.0.journal_after(after, PAGE_ROWS)
    }
}

/// The ring.
pub(super) struct RingShelf(RingReader);

impl RingShelf {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        RingReader::open(dir).map(Self)
    }

    pub(super) fn read(&self, request: PageRequest) -> Result<Page, StoreError> {
        let mut readings = self.0.after(Arrival(request.after), PAGE_READINGS)?;
        // Asked afterwards: what the ring dropped in between was read just now, and what it had
        // dropped before stands below this.
        let first = self.0.first_arrival()?.0;
        let found = readings.len();
        readings.retain(|reading| reading.arrival.0 <= request.through);
        // A short page may only have left out what could not be read.
        let complete = readings.len() < found || found == 0;
        Ok(Page { request, readings, complete, first })
    }
}
