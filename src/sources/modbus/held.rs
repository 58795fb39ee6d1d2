//! What was answered and is not with the engine yet: the answers of one poll go there together.
//!
//! Waking the engine costs more than judging a hundred readings, and a poll of scattered points is
//! a score of answers. So they are gathered until the poll is done, and for [`HELD_MAX`] at most:
//! a device that becomes silent in the middle of a poll holds up nothing that came before. Every
//! reading keeps the time at which its own answer came.

use std::pin::pin;
use std::time::Duration;

use crate::domain::ids::SourceId;
use crate::domain::reading::{RawBatch, RawReading};
use crate::port::{EngineStopped, Input};
use crate::sources::gather::Gathered;
use crate::sources::poll_class::PlannedRead;

use super::Bus;
use super::cycle::{Cycle, Read};

/// Nothing is held longer than this, whatever the line does.
const HELD_MAX: Duration = Duration::from_millis(5);
/// Readings that are handed over at once, however young.
const READINGS_MAX: usize = 1024;

/// Readings of one source, oldest first.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Whose they are: a place in the list of sources.
    pub(super) source: usize,
    /// When the oldest came, monotonic.
    pub(super) since: Duration,
    pub(super) found: Gathered,
}

impl Held {
    fn batch(&mut self, source: SourceId) -> RawBatch {
        let Gathered { readings, extras } = &mut self.found;
        // The next poll is most often of the same size.
        let next = Vec::with_capacity(readings.len());
        let readings = std::mem::replace(readings, next);
        RawBatch { source, readings, extras: extras.take(), ack: None, historical: false }
    }
}

impl Bus {
    /// Makes room for readings of this source that came at `now` (monotonic).
    pub(super) async fn hold(&mut self, source: usize, now: Duration) -> Result<(), EngineStopped> {
        let old = now.saturating_sub(self.held.since) >= HELD_MAX;
        let many = self.held.found.readings.len() >= READINGS_MAX;
        if old || many || self.held.source != source {
            self.hand_over().await?;
        }
        if self.held.found.is_empty() {
            (self.held.source, self.held.since) = (source, now);
        }
        Ok(())
    }

    /// Gives the engine all that is held.
    pub(super) async fn hand_over(&mut self) -> Result<(), EngineStopped> {
        if self.held.found.is_empty() {
            return Ok(());
        }
        let source = self.sources[self.held.source].health.name().clone();
        let batch = self.held.batch(source);
        self.engine.send(Input::Readings(batch)).await
    }

    /// Readings that say why there is no value.
    pub(super) async fn hold_failures(
        &mut self,
        source: usize,
        failed: Vec<RawReading>,
    ) -> Result<(), EngineStopped> {
        if failed.is_empty() {
            return Ok(());
        }
        self.hold(source, self.clock.now().mono).await?;
        self.held.found.readings.extend(failed);
        Ok(())
    }

    /// A request, while which what is held is handed over when its time has come.
    pub(super) async fn request_meanwhile(
        &mut self,
        poll: usize,
        read: &PlannedRead,
        cycle: &mut Cycle,
    ) -> Result<Read, EngineStopped> {
        if self.held.found.is_empty() {
            return Ok(self.request(poll, read, cycle).await);
        }
        // A request holds nothing itself, so that what it is lent comes back to an empty place.
        let mut held = std::mem::take(&mut self.held);
        let source = self.sources[held.source].health.name().clone();
        let engine = self.engine.clone();
        let left = (held.since + HELD_MAX).saturating_sub(self.clock.now().mono);
        let answer = {
            let mut request = pin!(self.request(poll, read, cycle));
            tokio::select! {
                biased;
                answer = &mut request => answer,
                () = tokio::time::sleep(left) => {
                    let sending = engine.send(Input::Readings(held.batch(source)));
                    let (sent, answer) = tokio::join!(sending, request);
                    sent?;
                    answer
                }
            }
        };
        self.held = held;
        Ok(answer)
    }
}
