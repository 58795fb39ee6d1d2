//! What the uplink reads from: the journal and the ring, each through a reader of its own, in pages
//! that take a few milliseconds. Calls block; they run where that is allowed.

use std::path::Path;
use std::sync::Arc;

use super::event_lane::PAGE_ROWS;
use super::reading_lane::{PAGE_READINGS, Page, PageRequest};
use crate::domain::ids::Arrival;
use crate::domain::tag::Plant;
use crate::domain::text::Words;
use crate::port::{Committed, Lane, LanePosition};
use crate::store::{RingReader, StateReader, StoreError, lexicon};

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
pub(super) struct RingShelf {
    ring: RingReader,
    state: StateReader,
    /// Texts met so far.
    words: Words,
    /// The same, to be handed out.
    shared: Arc<Words>,
}

impl RingShelf {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let (ring, state) = (RingReader::open(dir)?, StateReader::open(dir)?);
        Ok(Self { ring, state, words: Words::new(), shared: Arc::default() })
    }

    pub(super) fn read(&mut self, plant: &Plant, request: PageRequest) -> Result<Page, StoreError> {
        let mut readings = self.ring.after(Arrival(request.after), PAGE_READINGS)?;
        // Asked afterwards: what the ring dropped in between was read just now, and what it had
        // dropped before stands below this.
        let first = self.ring.first_arrival()?.0;
        let found = readings.len();
        readings.retain(|reading| reading.arrival.0 <= request.through);
        // A short page may only have left out what could not be read.
        let complete = readings.len() < found || found == 0;
        let before = self.words.len();
        lexicon::look_up(&self.state, plant, &readings, &mut self.words)?;
        if self.words.len() != before {
            self.shared = Arc::new(self.words.clone());
        }
        let words = Arc::clone(&self.shared);
        Ok(Page { request, readings, words, complete, first })
    }
}
