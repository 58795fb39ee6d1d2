//! Pure: what an answer of a unit means, and when a unit that does not answer is asked again.
//!
//! A dead unit costs a timeout at every visit, time in which its neighbours on the line are not
//! read. After three failed cycles it is therefore left alone and only probed, with one request,
//! at pauses that double.

use std::time::Duration;

use crate::domain::reading::Reason;

/// Failed cycles after which the breaker opens.
pub const FAILURES_MAX: u32 = 3;
/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Whether a unit may be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Read all of it.
    Poll,
    /// Send one request, and go on only if it is answered.
    Probe,
    /// Leave it alone until then (monotonic time).
    Pause(Duration),
}

/// The breaker of one unit.
#[derive(Debug, Clone)]
pub struct Breaker {
    max: Duration,
    failures: u32,
    /// While open: when the next probe is due, and the pause after which it was set.
    open: Option<(Duration, Duration)>,
}

impl Breaker {
    /// A closed breaker whose pauses never exceed `max`.
    #[must_use]
    pub const fn new(max: Duration) -> Self {
        Self { max, failures: 0, open: None }
    }

    /// Whether the unit may be asked at `now` (monotonic).
    #[must_use]
    pub fn permit(&self, now: Duration) -> Permit {
        match self.open {
            None => Permit::Poll,
            Some((until, _)) if until <= now => Permit::Probe,
            Some((until, _)) => Permit::Pause(until),
        }
    }

    /// The unit has answered. Returns whether the breaker was open.
    pub const fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// A cycle (or a probe) has failed. Returns whether this one opened the breaker.
    pub fn failed(&mut self, now: Duration, rng: &mut fastrand::Rng) -> bool {
        self.failures = self.failures.saturating_add(1);
        let pause = match self.open {
            None if self.failures < FAILURES_MAX => return false,
            None => FIRST_PAUSE,
            Some((_, pause)) => pause.saturating_mul(2),
        };
        let pause = pause.min(self.max);
        // Jitter only shortens: `max` is what the operator was promised.
        let jittered = pause.mul_f64(1.0 - 0.25 * rng.f64());
        self.open.replace((now + jittered, pause)).is_none()
    }

    /// The reason for the failures is gone (the line is back): probe at once.
    pub const fn probe_now(&mut self, now: Duration) {
        if let Some((_, _)) = self.open {
            self.open = Some((now, FIRST_PAUSE));
        }
    }

    /// Whether the unit counts as silent.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether no cycle has failed since the last answer.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        self.failures == 0
    }
}

/// What to do about an exception response. Any of them proves that the line is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handling {
    /// What the tags of the request are told.
    pub reason: Reason,
    /// What to do with the request now.
    pub then: Then,
    /// Whether the breaker of the unit counts it.
    pub counts: bool,
}

/// What to do with a request that was answered by an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing until the next cycle.
    Leave,
    /// Ask once more at once.
    AskAgain,
    /// Ask again soon, a few times: the device is at work.
    AskLater,
    /// Halve the request until the guilty point is found.
    Split,
    /// Nothing, and leave the other requests to this unit too: a gateway in between answers for it.
    LeaveUnit,
}

/// How an exception code is handled (codes: Modbus application protocol V1.1b3, §7).
#[must_use]
pub const fn handling(code: u8) -> Handling {
    let (reason, then, counts) = match code {
        // Illegal function.
        0x01 => (Reason::Config, Then::Leave, false),
        // Illegal address; illegal value, which devices also say of a length they do not take.
        0x02 | 0x03 => (Reason::Config, Then::Split, false),
        // Acknowledge: a long job, which is no fault.
        0x05 => (Reason::Stale, Then::AskLater, false),
        // Busy: a fault only when it stays so.
        0x06 => (Reason::Stale, Then::AskLater, true),
        // Gateway: no path, target silent.
        0x0A | 0x0B => (Reason::Comm, Then::LeaveUnit, true),
        // Device failure, memory parity.
        0x04 | 0x08 => (Reason::Device, Then::AskAgain, true),
        _ => (Reason::Device, Then::Leave, true),
    };
    Handling { reason, then, counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn it_opens_after_three_failed_cycles_and_closes_on_an_answer() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut breaker = Breaker::new(MAX);
        let now = Duration::from_secs(100);
        assert!(!breaker.failed(now, &mut rng));
        assert!(!breaker.failed(now, &mut rng));
        assert_eq!(breaker.permit(now), Permit::Poll);
        assert!(breaker.failed(now, &mut rng), "the third one opens");
        assert!(matches!(breaker.permit(now), Permit::Pause(_)));
        assert_eq!(breaker.permit(now + FIRST_PAUSE), Permit::Probe);
        assert!(breaker.succeeded());
        assert_eq!(breaker.permit(now), Permit::Poll);
        assert!(!breaker.succeeded());
    }

    #[test]
    fn an_answer_in_between_forgives_earlier_failures() {
        let mut rng = fastrand::Rng::with_seed(4);
        let mut breaker = Breaker::new(MAX);
        for _ in 0..10 {
            assert!(!breaker.failed(Duration::ZERO, &mut rng));
            assert!(!breaker.failed(Duration::ZERO, &mut rng));
            breaker.succeeded();
        }
    }

    #[test]
    fn pauses_double_and_never_exceed_the_limit() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut breaker = Breaker::new(MAX);
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            breaker.failed(now, &mut rng);
            if let Permit::Pause(until) = breaker.permit(now) {
                pauses.push(until - now);
                now = until;
            }
        }
        assert_eq!(pauses.len(), 10, "{pauses:?}");
        for (step, pause) in pauses.iter().enumerate() {
            let whole = FIRST_PAUSE.saturating_mul(1 << step.min(6)).min(MAX);
            assert!(*pause <= whole && *pause >= whole.mul_f64(0.75), "{step}: {pause:?}");
        }
    }

    #[test]
    fn a_returned_line_is_probed_at_once() {
        let mut rng = fastrand::Rng::with_seed(6);
        let mut breaker = Breaker::new(MAX);
        let now = Duration::from_secs(5);
        for _ in 0..9 {
            breaker.failed(now, &mut rng);
        }
        breaker.probe_now(now);
        assert_eq!(breaker.permit(now), Permit::Probe);
    }

    #[test]
    fn f_c11_every_exception_code_has_a_handling() {
        for code in 0..=u8::MAX {
            let handling = handling(code);
            assert_eq!(handling.then == Then::Split, matches!(code, 2 | 3), "{code}");
            assert_eq!(handling.counts, !matches!(code, 1 | 2 | 3 | 5), "{code}");
        }
        assert_eq!(handling(0x0B).reason, Reason::Comm);
        assert_eq!(handling(0x04).reason, Reason::Device);
        assert_eq!(handling(0x06).reason, Reason::Stale);
        assert_eq!(handling(0x77).reason, Reason::Device);
    }
}
