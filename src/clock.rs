//! The one place that reads time.
//!
//! Three clocks of the system are read and two are told on. `CLOCK_BOOTTIME` counts from the boot,
//! suspend included, and is never set: it is [`Now::mono`] (less the start of the process), so a
//! deadline that passed while the machine slept has passed, and a poll that was due then is late
//! once. UTC is told as an *anchor* plus that monotonic time. The anchor follows the system's UTC
//! while that may be believed, and stands still otherwise ([`Discipline`]): a clock that jumps from
//! 1970 to a wrong year and on to the right one gives records of one run that can all be put right
//! by one number.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rtime_clock::adjtime::{Timex, adjtimex};
use rustix::time::{ClockId, clock_gettime};

use crate::domain::time::{Now, Timestamp, Trust};

/// A clock that says earlier than this has not been set since the boot: 2026-01-01.
pub const PLAUSIBLE_FROM: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// How far before the newest moment that was ever stored an unsynchronised clock may lie and still
/// count as set: what a person or a time server corrects in a running plant.
const BEHIND_MAX: Duration = Duration::from_secs(600);
/// A jump of a believed clock by more than this is held back for [`HOLD`].
const JUMP_MAX: Duration = Duration::from_secs(3600);
/// A jump that stays for so long is a clock that was set; one that does not was a mistake.
const HOLD: Duration = Duration::from_secs(300);
/// Smaller differences between the clocks are how finely they are read one after the other.
const FINE: i64 = 2_000;
/// How often the kernel is asked whether its clock is synchronised.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// `STA_UNSYNC` of adjtimex(2).
const UNSYNCHRONISED: i32 = 0x40;

/// What the system says about its own UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is right: a time server, or the configuration says so.
    Synchronised,
    /// Nobody vouches for it, but the machine keeps time by itself.
    Free,
    /// Nobody vouches for it, and after a power cut it begins anywhere.
    Lost,
}

/// Turns the readings of the system's clocks into [`Now`]. Pure.
#[derive(Debug, Clone)]
pub struct Discipline {
    floor: Timestamp,
    /// UTC less monotonic time, in microseconds.
    anchor: Option<i64>,
    trusted: bool,
    /// A jump that is being watched: where to, and since when.
    jump: Option<(i64, Duration)>,
}

impl Discipline {
    /// Nothing is believed before `floor`: the newest moment that was ever stored.
    #[must_use]
    pub fn new(floor: Timestamp) -> Self {
        Self { floor: floor.max(PLAUSIBLE_FROM), anchor: None, trusted: false, jump: None }
    }

    /// What time it is when the clocks say `mono` and `system`.
    pub fn read(&mut self, mono: Duration, system: Timestamp, standing: Standing) -> Now {
        let offset = system.micros().saturating_sub(micros(mono));
        let anchor = match self.anchor {
            None => {
                self.trusted = self.believable(system, standing);
                let begin = if self.trusted { system } else { system.max(self.floor) };
                begin.micros().saturating_sub(micros(mono))
            }
            Some(anchor) if (offset - anchor).abs() <= FINE => {
                self.jump = None;
                self.trusted |= self.believable(system, standing);
                anchor
            }
            Some(anchor) if !self.believable(system, standing) => {
                // Whatever it shows, it is no better than counting on.
                self.jump = None;
                anchor
            }
            Some(_) if !self.trusted && self.jump.is_none() => {
                self.trusted = true;
                offset
            }
            Some(anchor) if offset.abs_diff(anchor) <= micros(JUMP_MAX).unsigned_abs() => {
                self.jump = None;
                self.trusted = true;
                offset
            }
            Some(anchor) => match self.jump {
                Some((to, since)) if to.abs_diff(offset) <= micros(JUMP_MAX).unsigned_abs() => {
                    let stays = mono.saturating_sub(since) >= HOLD;
                    if stays {
                        self.jump = None;
                        self.trusted = true;
                    }
                    if stays { offset } else { anchor }
                }
                Some(_) | None => {
                    self.jump = Some((offset, mono));
                    self.trusted = false;
                    anchor
                }
            },
        };
        self.anchor = Some(anchor);
        let utc = Timestamp::from_micros(anchor.saturating_add(micros(mono)));
        Now { mono, utc, trusted: self.trusted }
    }

    fn believable(&self, system: Timestamp, standing: Standing) -> bool {
        match standing {
            Standing::Synchronised => system >= PLAUSIBLE_FROM,
            Standing::Free => system >= self.floor.before(BEHIND_MAX).max(PLAUSIBLE_FROM),
            Standing::Lost => false,
        }
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// Reads both clocks. Cloning gives the same clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

/// What the machine's clock keeps between two readings.
struct Machine {
    discipline: Discipline,
    standing: Standing,
    asked: Option<Duration>,
}

impl Clock {
    /// The machine's clocks; the monotonic one counts from this call. Nothing is known of an
    /// earlier run.
    #[must_use]
    pub fn system() -> Self {
        Self::machine(Trust::default(), PLAUSIBLE_FROM)
    }

    /// The machine's clocks, believed as `trust` says and not before `floor`. The monotonic one
    /// counts from this call.
    #[must_use]
    pub fn machine(trust: Trust, floor: Timestamp) -> Self {
        let began = since_boot();
        let keeps_time = keeps_time();
        let state = Mutex::new(Machine {
            discipline: Discipline::new(floor),
            standing: Standing::Lost,
            asked: None,
        });
        Self(Arc::new(move || {
            // A panic elsewhere leaves nothing half done here.
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let mono = since_boot().saturating_sub(began);
            if state.asked.is_none_or(|at| mono.saturating_sub(at) >= ASK_EVERY) {
                state.asked = Some(mono);
                state.standing = standing(&trust, keeps_time);
            }
            let standing = state.standing;
            state.discipline.read(mono, system_utc(), standing)
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

/// Time since the machine's boot, suspend included.
#[must_use]
pub fn since_boot() -> Duration {
    let read = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(read.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(read.tv_nsec).unwrap_or(0))
}

fn standing(trust: &Trust, keeps_time: bool) -> Standing {
    match trust {
        Trust::System => Standing::Synchronised,
        Trust::File(path) if path.exists() => Standing::Synchronised,
        Trust::File(_) => Standing::Lost,
        Trust::Auto | Trust::Synchronised if synchronised() => Standing::Synchronised,
        Trust::Auto if keeps_time => Standing::Free,
        Trust::Auto | Trust::Synchronised => Standing::Lost,
    }
}

/// Whether the kernel's clock is disciplined by somebody (read-only, allowed to everyone).
fn synchronised() -> bool {
    let mut query = Timex::new();
    adjtimex(&mut query).is_ok() && query.0.status & UNSYNCHRONISED == 0
}

/// A board described by a device tree and without a clock on a battery begins anywhere after a
/// power cut; a PC has such a clock, and virtual machines and containers have their host's.
fn keeps_time() -> bool {
    let board = std::path::Path::new("/proc/device-tree/model").exists();
    !board || std::path::Path::new("/sys/class/rtc/rtc0").exists()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000_000;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn true_time(mono: Duration) -> Timestamp {
        PLAUSIBLE_FROM.after(at(90 * 86_400)).after(mono)
    }

    #[test]
    fn e01_a_clock_from_1970_counts_on_from_the_newest_stored_moment_until_it_is_set() {
        let floor = true_time(Duration::ZERO).before(at(3600));
        let mut clock = Discipline::new(floor);
        let wrong = |mono: u64| Timestamp::from_micros(0).after(at(mono));
        let first = clock.read(at(0), wrong(0), Standing::Free);
        assert_eq!((first.utc, first.trusted), (floor, false));
        let later = clock.read(at(50), wrong(50), Standing::Free);
        assert_eq!((later.utc, later.trusted), (floor.after(at(50)), false));
        // A step to another wrong time changes nothing.
        let still = clock.read(at(60), wrong(60).after(at(86_400 * 9000)), Standing::Lost);
        assert_eq!((still.utc, still.trusted), (floor.after(at(60)), false));
        let set = clock.read(at(61), true_time(at(61)), Standing::Free);
        assert_eq!((set.utc, set.trusted), (true_time(at(61)), true));
    }

    #[test]
    fn e01_a_clock_restored_from_the_last_shutdown_needs_somebody_who_vouches_for_it() {
        let mut clock = Discipline::new(true_time(at(0)));
        assert!(!clock.read(at(0), true_time(at(5)), Standing::Lost).trusted, "a bare board");
        let now = clock.read(at(1), true_time(at(7_000_000)), Standing::Synchronised);
        assert!(now.trusted);
        assert_eq!(now.utc, true_time(at(7_000_000)));
    }

    #[test]
    fn e02_a_jump_of_ten_years_is_held_back_until_it_has_stayed() {
        for years in [10_i64, -10] {
            let mut clock = Discipline::new(PLAUSIBLE_FROM);
            let jumped = |mono: u64| {
                Timestamp::from_micros(true_time(at(mono)).micros() + years * 365 * DAY)
            };
            assert!(clock.read(at(0), true_time(at(0)), Standing::Synchronised).trusted);
            let held = clock.read(at(10), jumped(10), Standing::Synchronised);
            // Ten years back is before this program: not to be believed at all.
            assert_eq!((held.utc, held.trusted), (true_time(at(10)), years < 0), "{years}");
            let back = clock.read(at(20), true_time(at(20)), Standing::Synchronised);
            assert_eq!((back.utc, back.trusted), (true_time(at(20)), true), "{years}");
        }
        let mut clock = Discipline::new(PLAUSIBLE_FROM);
        let jumped = |mono: u64| true_time(at(mono)).after(at(86_400 * 3650));
        clock.read(at(0), true_time(at(0)), Standing::Synchronised);
        for mono in [10, 200, 309] {
            assert!(!clock.read(at(mono), jumped(mono), Standing::Synchronised).trusted);
        }
        let accepted = clock.read(at(311), jumped(311), Standing::Synchronised);
        assert_eq!((accepted.utc, accepted.trusted), (jumped(311), true));
    }

    proptest! {
        /// Whatever the system's clock does, monotonic time goes on, and UTC moves backwards by no
        /// more than a correction that was believed.
        #[test]
        fn e03_small_steps_are_followed_at_once(
            steps in prop::collection::vec((1..100_u64, -3_000_000..3_000_000_i64), 1..60)
        ) {
            let mut clock = Discipline::new(PLAUSIBLE_FROM);
            let (mut mono, mut error) = (0, 0);
            clock.read(at(0), true_time(at(0)), Standing::Synchronised);
            for (wait, step) in steps {
                mono += wait;
                error += step;
                let system = Timestamp::from_micros(true_time(at(mono)).micros() + error);
                let now = clock.read(at(mono), system, Standing::Synchronised);
                prop_assert_eq!(now.mono, at(mono));
                prop_assert!(now.trusted);
                prop_assert!((now.utc.micros() - system.micros()).abs() <= FINE);
            }
        }
    }

    #[test]
    fn the_machine_can_be_asked() {
        let clock = Clock::system();
        let (first, second) = (clock.now(), clock.now());
        assert!(second.mono >= first.mono);
        assert!(since_boot() > Duration::ZERO);
        // Either answer is right; the question must be possible for everyone.
        let mut query = Timex::new();
        assert!(adjtimex(&mut query).is_ok());
    }
}
