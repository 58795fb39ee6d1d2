//! Deadlines that people were told: they hold over a restart, and over a clock that jumps.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::time::{Now, Timestamp};

/// A deadline as it is saved: in UTC and as the time left at the last save.
///
/// In a running daemon the monotonic clock counts. After a restart the UTC counts when the clock
/// can be believed now and could be then, and the time left otherwise: a gateway without a battery
/// clock must neither let a question expire at once nor wait for it for years.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// When, in UTC.
    pub utc: Timestamp,
    /// How long it then still was, in seconds.
    pub left_seconds: f64,
    /// Whether the clock was believed when this was written.
    pub trusted: bool,
}

impl Promise {
    /// A deadline `span` from now.
    #[must_use]
    pub fn new(now: Now, span: Duration) -> Self {
        Self { utc: now.utc.after(span), left_seconds: span.as_secs_f64(), trusted: now.trusted }
    }

    /// The same deadline, saved anew at `now`, when it stands at `mono` on the monotonic clock.
    #[must_use]
    pub fn resaved(self, now: Now, mono: Duration) -> Self {
        Self { left_seconds: mono.saturating_sub(now.mono).as_secs_f64(), ..self }
    }

    /// Where it stands on the monotonic clock of a run in which it is `now`.
    #[must_use]
    pub fn mono(self, now: Now) -> Duration {
        let left = if now.trusted && self.trusted {
            self.utc.since(now.utc)
        } else {
            Duration::try_from_secs_f64(self.left_seconds).unwrap_or(Duration::ZERO)
        };
        now.mono.saturating_add(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_counts_when_believed_and_the_time_left_otherwise() {
        let begin = Timestamp::from_micros(1_000_000_000_000);
        let now = Now { mono: Duration::from_secs(100), utc: begin, trusted: true };
        let promise = Promise::new(now, Duration::from_secs(60));
        assert_eq!(promise.mono(now), Duration::from_secs(160));

        let saved =
            promise.resaved(Now { mono: Duration::from_secs(140), ..now }, promise.mono(now));
        let back = |utc, trusted| Now { mono: Duration::ZERO, utc, trusted };
        let later = begin.after(Duration::from_secs(50));
        assert_eq!(saved.mono(back(later, true)), Duration::from_secs(10));
        // The clock is back in 1970 and says so.
        assert_eq!(saved.mono(back(Timestamp::from_micros(0), false)), Duration::from_secs(20));
        let overdue = begin.after(Duration::from_secs(3600));
        assert_eq!(saved.mono(back(overdue, true)), Duration::ZERO);
    }
}
