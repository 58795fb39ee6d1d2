//! Tells systemd that we live, only while the loop of every part comes round within its deadline.
//!
//! Each part owns a [`Heart`] and beats it once per round of its loop; an idle part still comes
//! round. Waiting for a peer is no stall, being inside one call past the deadline is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Clock;

/// How long a part's loop may take for one round before the watchdog starves.
pub const ROUND_MAX: Duration = Duration::from_secs(20);
/// How often an idle loop has to come round.
pub const ROUND_IDLE: Duration = Duration::from_secs(5);

/// One part's sign of life.
#[derive(Debug, Clone)]
pub struct Heart {
    name: &'static str,
    clock: Clock,
    last_ms: Arc<AtomicU64>,
    resting: Arc<AtomicBool>,
}

impl Heart {
    /// Says that the loop has come round.
    pub fn beat(&self) {
        self.last_ms.store(millis(self.clock.now().mono), Ordering::Relaxed);
    }

    /// Says that the part has ended in order and is no longer watched.
    pub fn rest(&self) {
        self.resting.store(true, Ordering::Relaxed);
    }
}

/// All parts that are watched.
#[derive(Debug, Clone)]
pub struct Watch {
    clock: Clock,
    hearts: Vec<Heart>,
}

impl Watch {
    /// Watches nothing yet.
    #[must_use]
    pub const fn new(clock: Clock) -> Self {
        Self { clock, hearts: Vec::new() }
    }

    /// Adds a part, alive from now on.
    pub fn part(&mut self, name: &'static str) -> Heart {
        let heart = Heart {
            name,
            clock: self.clock.clone(),
            last_ms: Arc::new(AtomicU64::new(millis(self.clock.now().mono))),
            resting: Arc::new(AtomicBool::new(false)),
        };
        self.hearts.push(heart.clone());
        heart
    }

    /// Parts whose loop has not come round within [`ROUND_MAX`].
    #[must_use]
    pub fn stalled(&self) -> Vec<&'static str> {
        let now = millis(self.clock.now().mono);
        let late = |heart: &&Heart| {
            !heart.resting.load(Ordering::Relaxed)
                && now.saturating_sub(heart.last_ms.load(Ordering::Relaxed)) > millis(ROUND_MAX)
        };
        self.hearts.iter().filter(late).map(|heart| heart.name).collect()
    }

    /// Feeds systemd's watchdog while no part is stalled; returns at once when there is none.
    pub async fn feed(self) {
        let Some(limit) = sd_notify::watchdog_enabled() else { return };
        let mut every = tokio::time::interval(limit / 3);
        loop {
            every.tick().await;
            let stalled = self.stalled();
            if stalled.is_empty() {
                notify(&[sd_notify::NotifyState::Watchdog]);
            } else {
                tracing::error!(?stalled, "parts do not come round; systemd is not told we live");
            }
        }
    }
}

/// Tells systemd something; without systemd nobody listens, which is fine.
pub fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
