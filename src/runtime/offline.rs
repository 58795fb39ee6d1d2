//! The engine and its stores without threads, sources or a network: for commands that put something
//! into the store while no daemon runs.

use std::sync::Arc;

use super::clock::Clock;
use super::daemon::{self, DaemonError};
use super::engine::{Engine, Start};
use super::stages;
use crate::config::Config;
use crate::domain::ids::SourceId;
use crate::domain::reading::{RawBatch, RawReading};
use crate::domain::tag::Plant;
use crate::port::Input;
use crate::store::ring::RingDb;
use crate::store::{DirLock, StoreError};

/// Readings of the ring fed at a time after a start.
const REPLAY_PAGE: usize = 8192;
/// The source that imported readings are filed under.
const SOURCE: &str = "import";

/// A gateway at rest, held against daemons as long as this lives.
pub struct Offline {
    engine: Engine,
    ring: RingDb,
    clock: Clock,
    _lock: DirLock,
}

impl Offline {
    /// Takes the data directory and opens what is in it, as a start of the daemon does.
    ///
    /// # Errors
    /// As [`super::Daemon::start`]; exit code 75 while a daemon runs.
    pub fn open(config: &Arc<Config>, clock: Clock) -> Result<Self, DaemonError> {
        let dir = &config.gateway.data_dir;
        let lock =
            DirLock::take(dir).map_err(|source| DaemonError::Lock { dir: dir.clone(), source })?;
        let now = clock.now();
        let opened = daemon::open(config, now)?;
        let start = Start { ring_last: opened.ring.last_arrival(), fresh: opened.fresh };
        let seed = fastrand::u64(..);
        let mut engine = Engine::start(opened.setting, opened.state, &stages(), start, seed, now)
            .map_err(DaemonError::Engine)?;
        engine.settle(now);
        let ring = opened.ring;
        // What the stages learn now is saved under a number that says they know all before it.
        let failed = |source| DaemonError::Store {
            file: "ring.db",
            dir: dir.clone(),
            source: Box::new(source),
        };
        engine.set_refilling(true);
        let mut from = engine.replay_from();
        loop {
            let page = ring.after(from, REPLAY_PAGE).map_err(failed)?;
            let Some(last) = page.last() else { break };
            from = last.arrival;
            engine.replay(clock.now(), &page);
        }
        engine.set_refilling(false);
        engine.announce_lost(clock.now(), ring.last_arrival());
        for report in opened.reports {
            engine.turn(clock.now(), Input::Condition(report));
        }
        Ok(Self { engine, ring, clock, _lock: lock })
    }

    /// The assets and tags of the configuration.
    #[must_use]
    pub fn plant(&self) -> Arc<Plant> {
        Arc::clone(&self.engine.setting().plant)
    }

    /// The time of this gateway.
    #[must_use]
    pub fn now(&self) -> crate::domain::time::Now {
        self.clock.now()
    }

    /// Takes in history in one piece: judged by acquisition, learnt from by the stages, raising
    /// nothing, and durable when this returns. Returns how many readings were new.
    ///
    /// # Errors
    /// When the piece did not become durable; taking it in again does no harm.
    pub fn take(&mut self, readings: Vec<RawReading>) -> Result<u64, StoreError> {
        let source = SourceId::new(SOURCE).expect("`import` is an id");
        let batch = RawBatch { source, readings, extras: None, ack: None, historical: true };
        let now = self.clock.now();
        self.engine.turn(now, Input::Readings(batch));
        // The state goes first: a ring that were ahead of it would be judged as live at the next
        // start, and raise alarms about the past. Behind it, the piece is merely imported again.
        self.engine.commit(now)?;
        let before = self.ring.counts();
        while let Some(batch) = self.engine.take_readings() {
            self.ring.append(&batch.readings);
        }
        self.ring.advance(now.mono);
        self.ring.commit()?;
        Ok(self.ring.counts().readings - before.readings)
    }

    /// Saves what the stages learnt and closes both files cleanly.
    ///
    /// # Errors
    /// When the stores do not take it.
    pub fn close(mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        let (done, _) = tokio::sync::oneshot::channel();
        self.engine.turn(now, Input::Stop { done });
        self.engine.commit(now)?;
        self.ring.mark_clean_stop()?;
        self.engine.close()
    }
}
