//! The one place that reads time.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::domain::time::{Now, Timestamp};

/// No gateway runs this program before 2026-01-01T00:00:00Z: a clock that says so has not been set
/// since the boot.
const FLOOR: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Something that tells the time: the machine's clocks, or a simulation's.
pub trait TimeSource: Send + Sync {
    /// What time it is.
    fn now(&self) -> Now;
}

/// A clock to hand to whoever does I/O; cloning is cheap.
#[derive(Clone)]
pub struct Clock(Arc<dyn TimeSource>);

impl Clock {
    /// The clocks of this machine; monotonic time counts from this call.
    #[must_use]
    pub fn system() -> Self {
        Self::new(SystemClock::start())
    }

    /// Another clock.
    pub fn new(source: impl TimeSource + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Now {
        self.0.now()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

/// The clocks of this machine.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts counting monotonic time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock everybody else asks")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }
}

impl TimeSource for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock everybody else asks")]
    fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let utc = Timestamp::from_micros(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX));
        Now { mono: self.start.elapsed(), utc, trusted: utc > FLOOR }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back() {
        let clock = Clock::system();
        let first = clock.now();
        let second = clock.now();
        assert!(second.mono >= first.mono);
    }

    #[test]
    fn the_floor_is_the_date_it_is_named_after() {
        assert_eq!(FLOOR.to_string(), "2026-01-01T00:00:00.000Z");
    }
}
