//! The one place that reads time.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::time::{Now, Timestamp};

/// A clock that says earlier than this has not been set since the boot: 2026-01-01.
const PLAUSIBLE_FROM: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Reads both clocks. Cloning gives the same clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

impl Clock {
    /// The machine's clocks; the monotonic one counts from this call.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
    pub fn system() -> Self {
        let began = std::time::Instant::now();
        Self(Arc::new(move || {
            let utc = system_utc();
            Now { mono: began.elapsed(), utc, trusted: utc >= PLAUSIBLE_FROM }
        }))
    }

    /// A clock made of any function: for tests and the simulation.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Now {
        (self.0)()
    }

    /// How long ago `earlier` was, on the monotonic clock.
    #[must_use]
    pub fn since(&self, earlier: Now) -> Duration {
        self.now().mono.saturating_sub(earlier.mono)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the place that reads clocks")]
fn system_utc() -> Timestamp {
    let micros = match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        // A clock before 1970 is as good as none.
        Err(_) => 0,
    };
    Timestamp::from_micros(micros)
}
