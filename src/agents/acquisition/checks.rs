//! Checks of one tag's values against its own recent past: faster than the quantity can change,
//! repeating itself for longer than a working sensor does; and whether a value says anything new.
//! Each costs a few comparisons a reading and allocates nothing.

use std::time::Duration;

use crate::domain::reading::{Quality, Reason};
use crate::domain::tag::Tag;
use crate::domain::time::Timestamp;

/// Values in a row that agree with each other, and not with the last good one, after which they are
/// believed: a real step must not blind the tag.
const CONFIRM: u8 = 3;
/// Changes that are looked at before the smallest of them counts as the step the values come in.
const CHANGES: u8 = 16;

/// What a tag's values are checked by, and what is remembered for it.
#[derive(Debug, Clone)]
pub(super) struct Checks {
    rate: Option<Rate>,
    flat: Option<Flat>,
    report: Option<Report>,
}

impl Checks {
    /// The checks of a tag, if it has any; what was seen is taken over from `old` while the
    /// definition did not change.
    pub(super) fn of(tag: &Tag, old: Option<Box<Self>>) -> Option<Box<Self>> {
        let handling = &tag.handling;
        let discrete = tag.discrete;
        let new = Self {
            rate: handling
                .rate_max
                .filter(|_| !discrete)
                .map(|most| Rate::new(most, handling.quantum)),
            flat: handling
                .stuck
                .filter(|_| !discrete)
                .map(|span| Flat::new(span, handling.quantum)),
            report: handling.deadband.map(|band| Report {
                width: band.width,
                silence: micros(band.max_silence),
                stored: None,
            }),
        };
        if new.rate.is_none() && new.flat.is_none() && new.report.is_none() {
            return None;
        }
        match old {
            Some(old) if old.is_like(&new) => Some(old),
            Some(_) | None => Some(Box::new(new)),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        let rate = |checks: &Self| {
            checks.rate.as_ref().map(|rate| (rate.most.to_bits(), rate.given.to_bits()))
        };
        let flat =
            |checks: &Self| checks.flat.as_ref().map(|flat| (flat.span, flat.apart.to_bits()));
        let report = |checks: &Self| {
            checks.report.as_ref().map(|report| (report.width.to_bits(), report.silence))
        };
        rate(self) == rate(other) && flat(self) == flat(other) && report(self) == report(other)
    }

    /// What speaks against a value that is good so far.
    pub(super) fn judge(&mut self, value: f64, time: Timestamp) -> Quality {
        let time = time.micros();
        if let Some(rate) = &mut self.rate
            && !rate.is_possible(value, time)
        {
            return Quality::Bad(Reason::Rate);
        }
        if let Some(flat) = &mut self.flat
            && flat.is_stuck(value, time)
        {
            return Quality::Uncertain(Reason::SensorFault);
        }
        Quality::Good
    }

    /// Whether a judged value is to be stored.
    pub(super) fn is_news(&mut self, value: f64, quality: Quality, time: Timestamp) -> bool {
        self.report.as_mut().is_none_or(|report| report.is_news(value, quality, time.micros()))
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// The fastest a quantity can change.
#[derive(Debug, Clone)]
struct Rate {
    /// In the tag's unit per microsecond.
    most: f64,
    /// The step that values come in, as configured; one step is no speed.
    given: f64,
    /// The smallest change seen, while it is not configured.
    learnt: f64,
    changes: u8,
    good: Option<(f64, i64)>,
    /// The last value that was not believed, and how many agreed with it.
    doubted: Option<(f64, i64, u8)>,
}

impl Rate {
    const fn new(per_second: f64, quantum: f64) -> Self {
        Self {
            most: per_second / 1e6,
            given: quantum,
            learnt: f64::INFINITY,
            changes: 0,
            good: None,
            doubted: None,
        }
    }

    fn allows(&self, from: (f64, i64), value: f64, time: i64) -> bool {
        let span = time.saturating_sub(from.1) as f64;
        (value - from.0).abs() <= self.most * span + self.quantum()
    }

    const fn quantum(&self) -> f64 {
        if self.given > 0.0 {
            self.given
        } else if self.changes >= CHANGES {
            self.learnt
        } else {
            0.0
        }
    }

    fn is_possible(&mut self, value: f64, time: i64) -> bool {
        let Some(good) = self.good else {
            self.good = Some((value, time));
            return true;
        };
        if time <= good.1 {
            // Late, or the clock was set back: there is no speed to be told. The new time counts
            // from now on when it lies far back.
            if good.1.saturating_sub(time) > FAR_BACK {
                self.good = Some((value, time));
                self.doubted = None;
            }
            return true;
        }
        if self.allows(good, value, time) {
            self.learn((value - good.0).abs());
            self.good = Some((value, time));
            self.doubted = None;
            return true;
        }
        let agreed = match self.doubted {
            Some((last, at, count)) if self.allows((last, at), value, time) => count + 1,
            Some(_) | None => 1,
        };
        if agreed >= CONFIRM {
            self.learn((value - good.0).abs());
            self.good = Some((value, time));
            self.doubted = None;
            return true;
        }
        self.doubted = Some((value, time, agreed));
        false
    }

    fn learn(&mut self, change: f64) {
        if change > 0.0 {
            self.learnt = self.learnt.min(change);
            self.changes = self.changes.saturating_add(1);
        }
    }
}

/// A time this far before the last one (in microseconds) is no late value, but a clock set back.
const FAR_BACK: i64 = 3_600_000_000;

/// A value that does not move.
#[derive(Debug, Clone)]
struct Flat {
    /// How long it may, in microseconds.
    span: i64,
    /// What lies apart by less is the same value: half a step.
    apart: f64,
    held: Option<(f64, i64)>,
}

impl Flat {
    fn new(span: Duration, quantum: f64) -> Self {
        Self { span: micros(span), apart: quantum / 2.0, held: None }
    }

    fn is_stuck(&mut self, value: f64, time: i64) -> bool {
        match self.held {
            Some((held, since)) if (value - held).abs() <= self.apart && since <= time => {
                // A machine that stands still has a level of nothing at all, for as long as it does.
                value.abs() > self.apart && time.saturating_sub(since) >= self.span
            }
            Some((_, since)) if since > time && since.saturating_sub(time) <= FAR_BACK => false,
            Some(_) | None => {
                self.held = Some((value, time));
                false
            }
        }
    }
}

/// Report by exception.
#[derive(Debug, Clone)]
struct Report {
    width: f64,
    /// In microseconds.
    silence: i64,
    stored: Option<(f64, u8, i64)>,
}

impl Report {
    fn is_news(&mut self, value: f64, quality: Quality, time: i64) -> bool {
        let quality = quality.to_byte();
        let old = self.stored.is_some_and(|(last, before, at)| {
            let near = (value - last).abs() <= self.width || (value.is_nan() && last.is_nan());
            quality == before && near && time.abs_diff(at) < self.silence.unsigned_abs()
        });
        if !old {
            self.stored = Some((value, quality, time));
        }
        !old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: f64) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "seconds of a test")]
        let micros = (seconds * 1e6) as i64;
        1_777_629_600_000_000 + micros
    }

    #[test]
    fn a_spike_is_refused_and_a_real_step_believed_at_the_third_value() {
        let mut rate = Rate::new(2.0, 0.0);
        let mut possible = |second: u32, value| rate.is_possible(value, at(f64::from(second)));
        assert!(possible(0, 20.0));
        assert!(possible(1, 21.5));
        assert!(!possible(2, 80.0), "a spike");
        assert!(possible(3, 22.0), "back again");
        assert!(!possible(4, 60.0));
        assert!(!possible(5, 60.5));
        assert!(possible(6, 61.0), "three agree: it is real");
        assert!(possible(7, 61.5));
        assert!(!possible(8, 0.0));
        assert!(!possible(9, 61.5 + 90.0), "neither agrees with the other");
        assert!(possible(10, 62.0));
    }

    #[test]
    fn one_step_of_a_coarse_sensor_is_no_speed() {
        for quantum in [1.0, 0.0] {
            let mut rate = Rate::new(0.5, quantum);
            let mut refused = 0;
            for n in 0..1000_u32 {
                // Polled ten times a second, a whole degree now and then.
                let value = [0.0, 1.0, 2.0, 1.0][n as usize / 40 % 4];
                refused += u32::from(!rate.is_possible(value, at(f64::from(n) / 10.0)));
            }
            // Until the step is learnt, each of the first changes takes three values.
            assert!(refused <= if quantum > 0.0 { 0 } else { 2 * u32::from(CHANGES) }, "{refused}");
        }
    }

    proptest! {
        /// Never blind: after at most `CONFIRM` values that agree, the tag is good again.
        #[test]
        fn a_tag_is_never_blind_for_longer_than_it_takes_to_agree(
            before in prop::collection::vec(-1e6..1e6_f64, 0..30), level in -1e6..1e6_f64
        ) {
            let mut rate = Rate::new(0.1, 0.0);
            let mut second = 0.0;
            for value in before {
                second += 1.0;
                rate.is_possible(value, at(second));
            }
            let believed = (0..u32::from(CONFIRM))
                .map(|n| rate.is_possible(level, at(second + 1.0 + f64::from(n))))
                .last();
            prop_assert_eq!(believed, Some(true));
        }
    }

    #[test]
    fn c17_a_flat_line_is_told_within_its_window_and_one_poll() {
        let mut flat = Flat::new(Duration::from_secs(60), 0.0);
        let mut random = fastrand::Rng::with_seed(17);
        for second in 0..100 {
            assert!(!flat.is_stuck(4.0 + random.f64(), at(f64::from(second))));
        }
        let told = (100..300).find(|second| flat.is_stuck(4.25, at(f64::from(*second))));
        assert!(told.is_some_and(|told| told <= 161), "{told:?}");
        assert!(!flat.is_stuck(4.5, at(400.0)), "it moves again");
    }

    #[test]
    fn c17_noise_of_one_step_and_machines_that_stand_still_are_never_stuck() {
        let mut random = fastrand::Rng::with_seed(18);
        let mut flat = Flat::new(Duration::from_secs(60), 0.0);
        let mut noisy = Flat::new(Duration::from_secs(60), 0.01);
        for second in 0..1_000_000_u32 {
            let value = 4.0 + 0.01 * f64::from(random.i32(-1..=1));
            assert!(!flat.is_stuck(value, at(f64::from(second))), "second {second}");
            assert!(!noisy.is_stuck(value, at(f64::from(second))), "second {second}");
        }
        let mut still = Flat::new(Duration::from_secs(60), 0.0);
        assert!((0..10_000).all(|second| !still.is_stuck(0.0, at(f64::from(second)))));
    }

    #[test]
    fn only_news_are_stored_and_never_less_often_than_agreed() {
        let mut report = Report { width: 0.5, silence: 60_000_000, stored: None };
        let mut news = |second, value, quality| report.is_news(value, quality, at(second));
        assert!(news(0.0, 20.0, Quality::Good));
        assert!(!news(1.0, 20.4, Quality::Good));
        assert!(!news(2.0, 19.6, Quality::Good));
        assert!(news(3.0, 20.6, Quality::Good));
        assert!(news(4.0, f64::NAN, Quality::Bad(Reason::Comm)), "the quality changed");
        assert!(!news(5.0, f64::NAN, Quality::Bad(Reason::Comm)));
        assert!(news(6.0, f64::NAN, Quality::Bad(Reason::Device)), "the reason changed");
        assert!(news(7.0, 20.6, Quality::Good));
        assert!(!news(66.9, 20.6, Quality::Good));
        assert!(news(67.0, 20.6, Quality::Good), "a minute has passed");
        assert!(news(0.0, 20.6, Quality::Good), "the clock was set back");
    }
}
