//! Two clocks: a monotonic one for deadlines, UTC for records.
//!
//! Gateways boot without a battery clock and jump years when NTP first answers. Whoever waits for
//! something therefore counts on [`Now::mono`]; whoever writes something down uses [`Now::utc`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment in UTC, in microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `micros` microseconds after 1970 began.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970 began.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Seconds since 1970 began, with fraction.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This moment moved later by `span`; stops at the end of the range.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span_micros(span)))
    }

    /// This moment moved earlier by `span`; stops at the end of the range.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span_micros(span)))
    }

    /// How long after `earlier` this moment lies; zero when it does not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads RFC 3339, e.g. `2026-05-01T10:20:30.5Z` or with an offset.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let moment: jiff::Timestamp = text.parse().ok()?;
        Some(Self(moment.as_microsecond()))
    }

    /// The same moment for calendar arithmetic; moments outside the calendar's range are clamped.
    #[must_use]
    pub fn calendar(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

fn span_micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// RFC 3339 with milliseconds, in UTC: `2026-05-01T10:20:30.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.calendar())
    }
}

/// When the system's UTC may be believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trust {
    /// When the kernel says that it is synchronised; without that also when the machine keeps time
    /// over a power cut (everything but a board without a battery clock) and the time is not before
    /// what was stored last.
    #[default]
    Auto,
    /// Only when the kernel says so.
    Synchronised,
    /// Whenever it is later than this program: somebody sets the clock by hand.
    System,
    /// As soon as this file exists: whatever synchronises the clock makes it
    /// (`/run/systemd/timesync/synchronized`).
    File(PathBuf),
}

/// What time it is, as told to a stage. Stages never ask a clock themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// Monotonic time since the daemon (or the simulation) began; for deadlines.
    pub mono: Duration,
    /// Civil time as the gateway believes it; for records.
    pub utc: Timestamp,
    /// Whether `utc` may be believed (false until the clock was set after a boot).
    pub trusted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_read_and_written() {
        let moment = Timestamp::parse_rfc3339("2026-05-01T12:20:30.123456+02:00").unwrap();
        assert_eq!(moment.to_string(), "2026-05-01T10:20:30.123Z");
        assert_eq!(moment.after(Duration::from_secs(2)).since(moment), Duration::from_secs(2));
        assert_eq!(moment.since(moment.after(Duration::from_secs(1))), Duration::ZERO);
    }
}
