//! The lane of the events: the journal in row order, old rows first.
//!
//! Every connection begins at the first row that is not acknowledged. Of the rows that are older
//! than the connection only the newest `asset.state` of each asset is sent; the others are passed
//! as superseded, once that newest one stands in the queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::cloudevents::retained;
use super::lane::Acknowledged;
use crate::domain::event::Body;
use crate::domain::ids::{AssetId, EventId};
use crate::port::{Committed, LanePosition, URGENT_MAX};

/// Rows in one page of the journal.
pub const PAGE_ROWS: usize = 200;
/// The next page is read when fewer events than this wait for the window.
const QUEUE_LOW: usize = 50;
/// Pause before reading again after the store failed to answer.
pub(super) const READ_RETRY: Duration = Duration::from_secs(1);

/// Events on their way upstream.
#[derive(Debug)]
pub struct EventLane {
    done: Acknowledged,
    /// Last committed row.
    head: u64,
    /// Last row taken from the journal on this connection.
    cursor: u64,
    /// Rows up to here were committed before the connection.
    catch_up: u64,
    reading: bool,
    retry_at: Option<Duration>,
    queue: VecDeque<Committed>,
    /// While catching up: the newest state of each asset.
    states: BTreeMap<AssetId, Committed>,
    /// Rows at or above the first unacknowledged one whose newest message the broker keeps. An
    /// older one that is sent again must be followed by the newer ones again, acknowledged or not.
    kept: BTreeSet<u64>,
    /// Messages of a row that are not acknowledged yet.
    outstanding: BTreeMap<u64, u32>,
    /// Released from memory while the store could not commit; at most [`URGENT_MAX`].
    urgent: VecDeque<Committed>,
    urgent_under_way: BTreeMap<EventId, Committed>,
}

impl EventLane {
    /// Goes on from a saved position.
    #[must_use]
    pub fn resume(position: &LanePosition, head: u64) -> Self {
        // Which of the rows ahead the broker keeps is not saved: all of them go again.
        let done = Acknowledged::resume(&LanePosition { ahead: Vec::new(), ..position.clone() });
        let cursor = done.below() - 1;
        Self {
            done,
            head,
            cursor,
            catch_up: head,
            reading: false,
            retry_at: None,
            queue: VecDeque::new(),
            states: BTreeMap::new(),
            kept: BTreeSet::new(),
            outstanding: BTreeMap::new(),
            urgent: VecDeque::new(),
            urgent_under_way: BTreeMap::new(),
        }
    }

    /// How far it is acknowledged.
    #[must_use]
    pub const fn done(&self) -> &Acknowledged {
        &self.done
    }

    /// Last committed row.
    #[must_use]
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// Rows not yet acknowledged, at most.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.done.missing(self.done.below(), self.head)
    }

    /// Whether all rows older than the connection have been handed out.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.queue.is_empty() && self.states.is_empty() && self.cursor >= self.catch_up
    }

    /// Whether everything known is acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.caught_up()
            && self.cursor >= self.head
            && self.outstanding.is_empty()
            && self.urgent.is_empty()
            && self.urgent_under_way.is_empty()
    }

    /// A new connection: everything unacknowledged is sent again.
    pub fn connected(&mut self) {
        for row in std::mem::take(&mut self.kept) {
            self.done.unmark(row);
        }
        self.cursor = self.done.below() - 1;
        self.catch_up = self.head;
        self.reading = false;
        self.retry_at = None;
        self.queue.clear();
        self.states.clear();
        self.outstanding.clear();
        // Ids grow with time, so the map hands them back in order.
        let again = std::mem::take(&mut self.urgent_under_way).into_values();
        let later = std::mem::take(&mut self.urgent);
        self.urgent = again.chain(later).collect();
    }

    /// The journal has grown.
    pub fn on_head(&mut self, row: u64) {
        self.head = self.head.max(row);
    }

    /// An alarm that could not be made durable. When too many wait, the oldest goes: it will come
    /// through the journal once the store commits again. Returns whether one was dropped.
    pub fn on_urgent(&mut self, committed: Committed) -> bool {
        let full = self.urgent.len() + self.urgent_under_way.len() >= URGENT_MAX;
        if full {
            self.urgent.pop_front();
        }
        self.urgent.push_back(committed);
        full
    }

    /// The page to read next: rows after this one.
    pub fn wants(&mut self, now: Duration) -> Option<u64> {
        let due = self.retry_at.is_none_or(|at| now >= at);
        if self.reading || !due || self.queue.len() >= QUEUE_LOW || self.cursor >= self.head {
            return None;
        }
        self.reading = true;
        self.retry_at = None;
        Some(self.cursor)
    }

    /// When a failed read is tried again.
    #[must_use]
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        self.retry_at.filter(|at| *at > now)
    }

    /// The store did not answer.
    pub fn on_read_failed(&mut self, now: Duration) {
        self.reading = false;
        self.retry_at = Some(now + READ_RETRY);
    }

    /// A page of rows with a topic class, in order, and what the head was when it was asked for. An
    /// empty page is the end: a short one may only have left out rows that could not be read.
    pub fn on_page(&mut self, rows: Vec<Committed>, head: u64) {
        self.reading = false;
        let end = rows.is_empty();
        for committed in rows {
            let row = committed.row;
            if row <= self.cursor {
                continue;
            }
            // Rows in between stay on the gateway, or were taken by retention.
            self.done.mark(self.cursor + 1, row - 1);
            self.cursor = row;
            if row > self.catch_up {
                self.release_states();
            }
            self.take(committed);
        }
        if end && head > self.cursor {
            self.done.mark(self.cursor + 1, head);
            self.cursor = head;
        }
        if self.cursor >= self.catch_up {
            self.release_states();
        }
    }

    fn take(&mut self, committed: Committed) {
        let row = committed.row;
        let Some(class) = committed.event.body.class() else {
            self.done.mark(row, row);
            return;
        };
        if retained(class) {
            self.kept.insert(row);
        }
        if self.done.contains(row) {
            return;
        }
        self.urgent.retain(|urgent| urgent.event.id != committed.event.id);
        let Body::AssetStateChanged(state) = &committed.event.body else {
            self.queue.push_back(committed);
            return;
        };
        if row > self.catch_up {
            self.queue.push_back(committed);
        } else if let Some(older) = self.states.insert(state.asset.clone(), committed) {
            self.done.mark(older.row, older.row);
        }
    }

    fn release_states(&mut self) {
        let mut states: Vec<Committed> = std::mem::take(&mut self.states).into_values().collect();
        states.sort_by_key(|committed| committed.row);
        self.queue.extend(states);
    }

    /// The next alarm released from memory.
    pub fn next_urgent(&mut self) -> Option<Committed> {
        let committed = self.urgent.pop_front()?;
        self.urgent_under_way.insert(committed.event.id, committed.clone());
        Some(committed)
    }

    /// The next row to send.
    pub fn next_event(&mut self) -> Option<Committed> {
        self.queue.pop_front()
    }

    /// A row was handed to the client in this many messages.
    pub fn handed(&mut self, row: u64, messages: u32) {
        self.outstanding.insert(row, messages);
    }

    /// A row was given up: it can never be sent.
    pub fn give_up(&mut self, row: u64) {
        self.done.mark(row, row);
    }

    /// One message of a row was acknowledged.
    pub fn acknowledged(&mut self, row: u64) {
        let Some(left) = self.outstanding.get_mut(&row) else { return };
        *left -= 1;
        if *left == 0 {
            self.outstanding.remove(&row);
            self.done.mark(row, row);
            self.kept = self.kept.split_off(&self.done.below());
        }
    }

    /// An alarm released from memory was acknowledged.
    pub fn urgent_acknowledged(&mut self, id: EventId) {
        self.urgent_under_way.remove(&id);
    }
}
