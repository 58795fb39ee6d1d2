//! The lane of the readings: live ones first, the backlog in what is left.
//!
//! Arrival numbers order everything. A connection splits the lane at the newest reading there is:
//! what comes later is live, every unacknowledged number before is backlog, lowest first. Live
//! readings that cannot keep up become backlog too, so that what is called live is fresh.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::event_lane::READ_RETRY;
use super::lane::Acknowledged;
use super::readings::{self, Batch, Changes};
use crate::config::ReadingsMode;
use crate::domain::reading::Reading;
use crate::domain::tag::Plant;
use crate::domain::text::Words;
use crate::port::{GapReport, LanePosition};

/// Readings in one page of the ring.
pub const PAGE_READINGS: usize = 4000;
/// Live readings older than this are no longer called live.
const LIVE_LAG_MAX: Duration = Duration::from_secs(10);
/// Smallest and largest share of bytes under way, and where it begins. It follows the round trip,
/// so that on a slow line no alarm waits behind a megabyte of readings (failures B23).
const BYTES_MIN: usize = 8 * 1024;
const BYTES_START: usize = 64 * 1024;
const BYTES_MAX: usize = 512 * 1024;
/// A round trip above this halves the share, one below the second lets it grow.
const ROUND_TRIP_LONG: Duration = Duration::from_secs(2);
const ROUND_TRIP_SHORT: Duration = Duration::from_millis(500);

/// Which end of the lane a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Readings that came after the connection.
    Live,
    /// Readings that had to wait.
    Backlog,
}

/// A page the lane asks the ring for: numbers `after + 1 ..= through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// For which end.
    pub part: Part,
    /// Numbers above this one.
    pub after: u64,
    /// Up to this one.
    pub through: u64,
}

/// What the ring answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// What was asked.
    pub request: PageRequest,
    /// In order of arrival; none above `through`.
    pub readings: Vec<Reading>,
    /// The texts that readings among them stand for.
    pub words: Arc<Words>,
    /// Whether the ring holds no more of what was asked.
    pub complete: bool,
    /// From this number on the ring had dropped nothing, asked after the page was read.
    pub first: u64,
}

#[derive(Debug)]
struct Pending {
    from: u64,
    to: u64,
    outstanding: usize,
}

/// Readings on their way upstream.
#[derive(Debug)]
pub struct ReadingLane {
    mode: ReadingsMode,
    backlog_per_second: f64,
    done: Acknowledged,
    head: u64,
    live_cursor: u64,
    backlog_cursor: u64,
    reading: bool,
    retry_at: Option<Duration>,
    backlog_at: Duration,
    lag: Option<(Duration, u64)>,
    live: VecDeque<(u64, Batch)>,
    backlog: VecDeque<(u64, Batch)>,
    live_changes: Changes,
    backlog_changes: Changes,
    pages: BTreeMap<u64, Pending>,
    next_page: u64,
    bytes_max: usize,
}

impl ReadingLane {
    /// Goes on from a saved position. The backlog is sent at `backlog_per_second` readings at most.
    #[must_use]
    pub fn resume(
        mode: ReadingsMode,
        backlog_per_second: f64,
        position: &LanePosition,
        head: u64,
    ) -> Self {
        let mut lane = Self {
            mode,
            backlog_per_second,
            done: Acknowledged::resume(position),
            head: 0,
            live_cursor: head,
            backlog_cursor: 0,
            reading: false,
            retry_at: None,
            backlog_at: Duration::ZERO,
            lag: None,
            live: VecDeque::new(),
            backlog: VecDeque::new(),
            live_changes: Changes::default(),
            backlog_changes: Changes::default(),
            pages: BTreeMap::new(),
            next_page: 0,
            bytes_max: BYTES_START,
        };
        lane.on_head(head);
        lane
    }

    /// How far it is acknowledged.
    #[must_use]
    pub const fn done(&self) -> &Acknowledged {
        &self.done
    }

    /// Readings not yet acknowledged.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.done.missing(self.done.below(), self.head)
    }

    const fn sends(&self) -> bool {
        matches!(self.mode, ReadingsMode::All | ReadingsMode::Changes)
    }

    /// What is sent has been configured anew.
    pub fn set_mode(&mut self, mode: ReadingsMode) {
        self.mode = mode;
        self.on_head(self.head);
    }

    /// A new connection: everything unacknowledged is sent again.
    pub fn connected(&mut self) {
        self.live_cursor = self.head;
        self.backlog_cursor = self.done.below() - 1;
        self.reading = false;
        self.retry_at = None;
        self.lag = None;
        self.live.clear();
        self.backlog.clear();
        self.live_changes.clear();
        self.backlog_changes.clear();
        self.pages.clear();
        self.bytes_max = BYTES_START;
    }

    /// The ring has grown (or was begun anew with a higher number).
    pub fn on_head(&mut self, arrival: u64) {
        self.head = self.head.max(arrival);
        if !self.sends() {
            self.done.mark(1, self.head);
        }
    }

    /// The page to read next. Backlog is read only when `backlog` allows it and nothing live waits.
    pub fn wants(&mut self, now: Duration, backlog: bool) -> Option<PageRequest> {
        let due = self.retry_at.is_none_or(|at| now >= at);
        if self.reading || !due || !self.sends() {
            return None;
        }
        self.judge_lag(now);
        let request = if self.live_cursor < self.head {
            if !self.live.is_empty() {
                return None;
            }
            PageRequest { part: Part::Live, after: self.live_cursor, through: self.head }
        } else {
            if !backlog || !self.backlog.is_empty() || now < self.backlog_at {
                return None;
            }
            let (from, to) =
                self.done.first_missing(self.backlog_cursor + 1, self.backlog_end())?;
            PageRequest { part: Part::Backlog, after: from - 1, through: to }
        };
        self.reading = true;
        self.retry_at = None;
        Some(request)
    }

    /// Backlog ends where the live pages under way begin.
    fn backlog_end(&self) -> u64 {
        let live = self.pages.values().filter(|page| page.from > self.backlog_cursor);
        live.map(|page| page.from - 1).min().unwrap_or(self.live_cursor).min(self.live_cursor)
    }

    /// Live readings that have waited too long are left to the backlog.
    fn judge_lag(&mut self, now: Duration) {
        match self.lag {
            Some((since, head)) if now.saturating_sub(since) >= LIVE_LAG_MAX => {
                if self.live_cursor < head {
                    self.live_cursor = self.head;
                    self.live_changes.clear();
                }
                self.lag = Some((now, self.head));
            }
            Some(_) => {}
            None => self.lag = Some((now, self.head)),
        }
    }

    /// When something can be read that could not be before.
    #[must_use]
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let backlog = Some(self.backlog_at);
        self.retry_at.max(backlog).filter(|at| *at > now)
    }

    /// The store did not answer.
    pub fn on_read_failed(&mut self, now: Duration) {
        self.reading = false;
        self.retry_at = Some(now + READ_RETRY);
    }

    /// A page of the ring. Returns the gap when the ring has overtaken the lane.
    pub fn on_page(&mut self, now: Duration, plant: &Plant, page: Page) -> Option<GapReport> {
        self.reading = false;
        let Page { request, mut readings, words, complete, first } = page;
        let from = request.after + 1;
        let to = match readings.last() {
            _ if complete => request.through,
            Some(last) => last.arrival.0,
            None => request.after,
        };
        match request.part {
            Part::Live => self.live_cursor = self.live_cursor.max(to),
            Part::Backlog => {
                self.backlog_cursor = self.backlog_cursor.max(to);
                let span = readings.len() as f64 / self.backlog_per_second;
                self.backlog_at = now + Duration::try_from_secs_f64(span).unwrap_or_default();
            }
        }
        let read = readings.first().map_or(u64::MAX, |reading| reading.arrival.0);
        let gone = (first.min(read) - 1).min(request.through);
        let gap = (gone >= from).then(|| self.gap(from, gone)).flatten();
        let from = from.max(gone + 1);
        if to < from {
            return gap;
        }
        readings.retain(|reading| !self.done.contains(reading.arrival.0));
        match request.part {
            Part::Live => self.live_changes.filter(self.mode, &mut readings),
            Part::Backlog => self.backlog_changes.filter(self.mode, &mut readings),
        }
        let batches = readings::batches(plant, &readings, &words, self.bytes_max);
        let id = self.next_page;
        self.next_page += 1;
        if batches.is_empty() {
            self.done.mark(from, to);
            return gap;
        }
        self.pages.insert(id, Pending { from, to, outstanding: batches.len() });
        let queue = match request.part {
            Part::Live => &mut self.live,
            Part::Backlog => &mut self.backlog,
        };
        queue.extend(batches.into_iter().map(|batch| (id, batch)));
        gap
    }

    fn gap(&mut self, from: u64, to: u64) -> Option<GapReport> {
        let count = self.done.missing(from, to);
        self.done.mark(from, to);
        (count > 0).then(|| GapReport {
            lane: "readings".to_owned(),
            from,
            to,
            count,
            reason: "overwritten before upstream acknowledged them".to_owned(),
        })
    }

    /// The next batch that fits beside `under_way` bytes of readings, live ones first.
    pub fn next_batch(&mut self, under_way: usize) -> Option<(u64, Batch)> {
        let queue = if self.live.is_empty() { &mut self.backlog } else { &mut self.live };
        let (_, batch) = queue.front()?;
        // One batch always goes, else a line slower than the smallest share would stand still.
        if under_way > 0 && under_way + batch.bytes > self.bytes_max {
            return None;
        }
        queue.pop_front()
    }

    /// One batch of a page was acknowledged after `round_trip`.
    pub fn acknowledged(&mut self, page: u64, round_trip: Duration) {
        if round_trip > ROUND_TRIP_LONG {
            self.bytes_max = (self.bytes_max / 2).max(BYTES_MIN);
        } else if round_trip < ROUND_TRIP_SHORT {
            self.bytes_max = (self.bytes_max + BYTES_MIN).min(BYTES_MAX);
        }
        let Some(pending) = self.pages.get_mut(&page) else { return };
        pending.outstanding -= 1;
        if pending.outstanding == 0 {
            self.done.mark(pending.from, pending.to);
            self.pages.remove(&page);
        }
    }
}
