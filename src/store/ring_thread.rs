//! The thread that owns the ring: gathers readings into group commits, and tells waiting senders
//! when theirs are durable.
//!
//! A group is committed `commit_every` after its first reading at the latest; when somebody waits,
//! 100 ms after they began to, and at once when ten wait (a broker's send window must never stand
//! still for a group commit). When commits fail, the group stays in memory up to
//! [`GROUP_READINGS_MAX`]; then the oldest readings fall, counted and reported.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{BootInfo, ErrorKind, Lost, RingDb};
use crate::domain::ids::{Arrival, TagKey};
use crate::domain::reading::{Ack, Burst, Reading};

/// Readings that may wait for the thread. When it is full the batch is handed back: the engine
/// keeps it and waits.
pub const QUEUE_READINGS_MAX: usize = 100_000;
/// Readings kept in memory while commits fail; then the oldest fall.
pub const GROUP_READINGS_MAX: usize = 200_000;
/// Readings in a group that are committed without waiting for anything else.
const GROUP_READINGS_DUE: usize = 65_536;
/// Longest that a waiting sender waits for its commit to begin.
const ACK_WAIT: Duration = Duration::from_millis(100);
/// Waiting senders for whom a commit begins at once.
const ACKS_DUE: usize = 10;
/// Senders that may wait while commits fail; the oldest are then dropped untold, and repeat.
const ACKS_MAX: usize = 4096;
/// Pause between attempts while commits fail.
const RETRY: Duration = Duration::from_secs(1);
/// The loop comes round at least this often, so that the watchdog sees it live.
const ROUND_MAX: Duration = Duration::from_secs(1);

/// Readings in order of arrival, and who waits for them to be durable.
#[derive(Debug, Default)]
pub struct RingBatch {
    /// The readings.
    pub readings: Vec<Reading>,
    /// Bursts whose readings are among them.
    pub bursts: Vec<Burst>,
    /// Told once all of `readings`, and their bursts, are durable.
    pub acks: Vec<Ack>,
    /// Arrival numbers and tags of the readings whose times are the device's own; only while the
    /// gateway's clock is not believed.
    pub own: Vec<(u64, TagKey)>,
    /// A new era begins before these readings.
    pub era: Option<BootInfo>,
}

impl RingBatch {
    /// What it counts against bounds on readings: a reading is one, and so are eight samples.
    #[must_use]
    pub fn weight(&self) -> usize {
        let samples: usize = self.bursts.iter().map(|burst| burst.samples.len()).sum();
        self.readings.len() + samples / 8
    }
}

/// What the thread has to say. Told once when it begins, not at every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingReport {
    /// Commits fail. With [`ErrorKind::IoFailed`] nothing is written any more: end with exit code
    /// 74, and verify at the next start.
    Failing {
        /// Why, in kind.
        kind: ErrorKind,
        /// Why, in words.
        error: String,
    },
    /// Commits succeed again.
    Recovered,
    /// Readings fell because memory is bounded.
    Lost(Lost),
    /// The file is damaged; the next start moves it aside and begins anew.
    Corrupt {
        /// What was found.
        error: String,
    },
}

/// The thread that owns the ring.
#[derive(Debug)]
pub struct RingThread<R> {
    ring: RingDb,
    commit_every: Duration,
    report: R,
    queue: Arc<Queue>,
    durable: watch::Sender<Arrival>,
    acks: VecDeque<Waiting>,
    /// When the open group began.
    group_since: Option<Instant>,
    failing: Option<Failing>,
    started: Instant,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// First and last arrival of its batch.
    arrivals: (Arrival, Arrival),
    ack: Ack,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    kind: ErrorKind,
    retry_at: Instant,
}

#[derive(Debug, Default)]
struct Queue {
    inner: Mutex<Waiters>,
    wake: Condvar,
    rounds: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiters {
    batches: VecDeque<RingBatch>,
    readings: usize,
    stop: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiters> {
        // Nobody leaves it half changed; a panic elsewhere must not stop the readings.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's end. Clones share the queue; the thread stops when the last one is gone.
#[derive(Debug, Clone)]
pub struct RingHandle {
    shared: Arc<StopOnDrop>,
    durable: watch::Receiver<Arrival>,
}

#[derive(Debug)]
struct StopOnDrop(Arc<Queue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.wake.notify_one();
    }
}

impl RingHandle {
    /// Hands readings over, in order of arrival. Never waits.
    ///
    /// # Errors
    /// The batch itself when [`QUEUE_READINGS_MAX`] readings are waiting.
    #[expect(clippy::result_large_err, reason = "the batch itself is handed back, not an error")]
    pub fn try_append(&self, batch: RingBatch) -> Result<(), RingBatch> {
        let queue = &self.shared.0;
        let mut waiters = queue.lock();
        let full = waiters.readings + batch.weight() > QUEUE_READINGS_MAX;
        // A batch larger than the whole queue is taken when nothing else waits.
        if waiters.stop || (full && !waiters.batches.is_empty()) {
            return Err(batch);
        }
        waiters.readings += batch.weight();
        waiters.batches.push_back(batch);
        drop(waiters);
        queue.wake.notify_one();
        Ok(())
    }

    /// The last durable arrival, as it grows.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Arrival> {
        self.durable.clone()
    }

    /// Readings that wait for the thread.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.0.lock().readings
    }

    /// How often the thread's loop came round; stands still when the thread does.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.shared.0.rounds.load(Ordering::Relaxed)
    }

    /// Asks the thread to commit what it has, mark the file clean and end. Join it afterwards.
    pub fn stop(self) {
        self.shared.0.lock().stop = true;
        self.shared.0.wake.notify_one();
    }
}

impl<R: FnMut(RingReport) + Send + 'static> RingThread<R> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        ring: RingDb,
        commit_every: Duration,
        report: R,
    ) -> io::Result<(RingHandle, JoinHandle<()>)> {
        let queue = Arc::new(Queue::default());
        let (durable, receiver) = watch::channel(ring.last_arrival());
        let thread = Self {
            ring,
            commit_every,
            report,
            queue: Arc::clone(&queue),
            durable,
            acks: VecDeque::new(),
            group_since: None,
            failing: None,
            started: clock(),
        };
        let join =
            std::thread::Builder::new().name("ring".to_owned()).spawn(move || thread.run())?;
        Ok((RingHandle { shared: Arc::new(StopOnDrop(queue)), durable: receiver }, join))
    }

    fn run(mut self) {
        loop {
            let stop = self.gather();
            self.queue.rounds.fetch_add(1, Ordering::Relaxed);
            let now = clock();
            if stop || self.due_at().is_some_and(|due| due <= now) {
                self.commit(now);
            }
            self.bound();
            if stop {
                break;
            }
        }
        if self.failing.is_none()
            && let Err(error) = self.ring.mark_clean_stop()
        {
            tracing::warn!(%error, "ring not marked clean, the next start checks it");
        }
    }

    /// Waits for readings, for the next commit, or for a round's length; takes in what there is.
    /// Returns whether the thread is to stop.
    fn gather(&mut self) -> bool {
        let now = clock();
        let wait = self.due_at().map_or(ROUND_MAX, |due| due.saturating_duration_since(now));
        let queue = Arc::clone(&self.queue);
        let mut waiters = queue.lock();
        if waiters.batches.is_empty() && !waiters.stop && !wait.is_zero() {
            waiters = queue
                .wake
                .wait_timeout(waiters, wait.min(ROUND_MAX))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let batches = std::mem::take(&mut waiters.batches);
        waiters.readings = 0;
        let stop = waiters.stop;
        drop(waiters);
        let now = clock();
        for batch in batches {
            self.take(batch, now);
        }
        stop
    }

    fn take(&mut self, batch: RingBatch, now: Instant) {
        if let Some(boot) = &batch.era {
            self.ring.date_boot(boot);
            self.group_since.get_or_insert(now);
        }
        let (Some(first), Some(last)) = (batch.readings.first(), batch.readings.last()) else {
            // Nothing to wait for.
            batch.acks.into_iter().for_each(Ack::done);
            return;
        };
        let arrivals = (first.arrival, last.arrival);
        self.ring.append_timed(&batch.readings, &batch.own);
        self.ring.append_bursts(batch.bursts);
        self.group_since.get_or_insert(now);
        let waiting = batch.acks.into_iter().map(|ack| Waiting { since: now, arrivals, ack });
        self.acks.extend(waiting);
    }

    /// When the next commit is due; none while there is nothing to commit.
    fn due_at(&self) -> Option<Instant> {
        let since = self.group_since?;
        if let Some(failing) = self.failing {
            return Some(failing.retry_at);
        }
        let full = self.ring.pending() >= GROUP_READINGS_DUE;
        if full || self.acks.len() >= ACKS_DUE || self.ring.era_waits() {
            return Some(since);
        }
        let group = since + self.commit_every;
        Some(self.acks.front().map_or(group, |waiting| group.min(waiting.since + ACK_WAIT)))
    }

    fn commit(&mut self, now: Instant) {
        self.ring.advance(now.saturating_duration_since(self.started));
        match self.ring.commit() {
            Ok(durable) => {
                self.group_since = None;
                if let Some(redated) = self.ring.take_redated() {
                    tracing::info!(
                        boot = %redated.boot,
                        eras = redated.eras.len(),
                        "readings of an unset clock were put right"
                    );
                }
                self.durable.send_replace(durable);
                while let Some(waiting) = self.acks.pop_front_if(|w| w.arrivals.1 <= durable) {
                    waiting.ack.done();
                }
                if self.failing.take().is_some() {
                    (self.report)(RingReport::Recovered);
                }
            }
            Err(error) => {
                let kind = error.kind();
                let retry_at = clock() + RETRY;
                let before = self.failing.replace(Failing { kind, retry_at });
                if before.is_none_or(|before| before.kind != kind) {
                    let error = chain(&error);
                    (self.report)(match kind {
                        ErrorKind::Corrupt => RingReport::Corrupt { error },
                        ErrorKind::Full
                        | ErrorKind::ReadOnly
                        | ErrorKind::IoFailed
                        | ErrorKind::Busy
                        | ErrorKind::TooNew
                        | ErrorKind::Unusable
                        | ErrorKind::Other => RingReport::Failing { kind, error },
                    });
                }
            }
        }
    }

    /// Keeps memory bounded while commits fail.
    fn bound(&mut self) {
        if self.failing.is_none() {
            return;
        }
        if let Some(lost) = self.ring.shed(GROUP_READINGS_MAX) {
            // Whoever waits for a reading that is gone is dropped untold, and sends it again.
            self.acks.retain(|waiting| waiting.arrivals.0 > lost.to);
            (self.report)(RingReport::Lost(lost));
        }
        while self.acks.len() > ACKS_MAX {
            self.acks.pop_front();
        }
    }
}

/// An error with all its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[expect(clippy::disallowed_methods, reason = "a thread's own pauses; nothing is dated by it")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
#[path = "ring_thread_tests.rs"]
mod tests;
