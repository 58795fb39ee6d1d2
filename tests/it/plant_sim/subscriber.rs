//! A subscriber behind a broker that comes and goes: reads the journal as the uplink does, loses
//! acknowledgements, drops repeats by id, and checks that sequences have no gaps.

use std::collections::{BTreeMap, BTreeSet};

use wheeltap::domain::event::Class;
use wheeltap::domain::ids::EventId;
use wheeltap::port::{Lane, LanePosition};
use wheeltap::store::StateReader;

/// Rows handed over at a time.
const WINDOW: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Subscriber {
    pub(super) broker_up: bool,
    /// Everything received, repeats dropped.
    pub(super) received: BTreeSet<EventId>,
    next: BTreeMap<Class, u64>,
    /// Rows below this are acknowledged as far as the gateway knows.
    below: u64,
}

impl Subscriber {
    pub(super) fn new(position: &LanePosition) -> Self {
        Self { broker_up: true, below: position.below, ..Self::default() }
    }

    /// The gateway has started again and goes on from what it had saved.
    pub(super) fn resume(&mut self, position: &LanePosition) {
        assert!(
            position.below <= self.below,
            "the gateway believes in acknowledgements nobody gave: {} > {}",
            position.below,
            self.below
        );
        self.below = position.below;
    }

    /// One exchange: sends a window, of which a random part is acknowledged in time. Returns the
    /// new position when it moved, and whether anything was left to send.
    pub(super) fn exchange(
        &mut self,
        journal: &StateReader,
        rng: &mut fastrand::Rng,
    ) -> (Option<LanePosition>, bool) {
        if !self.broker_up {
            return (None, true);
        }
        let rows = journal.journal_after(self.below - 1, WINDOW).expect("the journal can be read");
        if rows.is_empty() {
            return (None, false);
        }
        let delivered = rng.usize(0..=rows.len());
        for row in &rows[..delivered] {
            if !self.received.insert(row.event.id) {
                continue;
            }
            let (class, sequence) = row.sequence.expect("rows with a class have a number");
            let next = self.next.entry(class).or_insert(1);
            assert_eq!(sequence, *next, "a gap or a repeat in class {}", class.as_str());
            *next += 1;
        }
        // Acknowledgements of the last few may be lost with the connection.
        let acknowledged = rng.usize(0..=delivered);
        if acknowledged == 0 {
            return (None, true);
        }
        self.below = rows[acknowledged - 1].row + 1;
        (Some(LanePosition { lane: Lane::Events, below: self.below, ahead: Vec::new() }), true)
    }
}
