//! A machine of the simulation: three signals with inertia and noise, and what goes wrong with them.

use std::time::Duration;

use wheeltap::domain::reading::{RawValue, Reason};

/// What is wrong with a machine or its sensors at present.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Trouble {
    /// Nothing.
    None,
    /// A bearing wears: temperature and vibration grow exponentially.
    Wear,
    /// A seal leaks: pressure falls.
    Leak,
    /// The temperature sensor no longer moves.
    Stuck,
    /// The vibration sensor scatters.
    Noisy,
    /// The device does not answer.
    Dead,
    /// The pressure register holds no number.
    NotANumber,
}

const TROUBLES: [Trouble; 6] = [
    Trouble::Wear,
    Trouble::Leak,
    Trouble::Stuck,
    Trouble::Noisy,
    Trouble::Dead,
    Trouble::NotANumber,
];

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) asset: &'static str,
    pub(super) trouble: Trouble,
    /// Virtual time since the trouble began.
    since: Duration,
    /// By how much wear grows a factor e.
    pace: Duration,
    slow: f64,
    values: [f64; 3],
    rng: fastrand::Rng,
}

impl Machine {
    pub(super) fn new(asset: &'static str, rng: fastrand::Rng) -> Self {
        Self {
            asset,
            trouble: Trouble::None,
            since: Duration::ZERO,
            pace: Duration::from_secs(3600),
            slow: 0.0,
            values: [60.0, 2.0, 6.0],
            rng,
        }
    }

    /// Something new goes wrong.
    pub(super) fn fail(&mut self) {
        self.trouble = TROUBLES[self.rng.usize(..TROUBLES.len())];
        self.since = Duration::ZERO;
        self.pace = Duration::from_secs(self.rng.u64(900..5400));
    }

    /// Repaired, or the sensor came back.
    pub(super) fn heal(&mut self) {
        self.trouble = Trouble::None;
    }

    /// Sum of twelve uniform numbers: near enough to a normal one, mean 0, deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.rng.f64()).sum::<f64>() - 6.0
    }

    /// The three raw values (temperature, vibration, pressure) `dt` later.
    pub(super) fn poll(&mut self, dt: Duration) -> [RawValue; 3] {
        self.since += dt;
        self.slow = 0.98 * self.slow + 0.2 * self.normal();
        let noise = [self.normal(), self.normal(), self.normal()];
        let growth = match self.trouble {
            Trouble::Wear => {
                (self.since.as_secs_f64() / self.pace.as_secs_f64()).min(4.0).exp() - 1.0
            }
            _ => 0.0,
        };
        let leak = match self.trouble {
            Trouble::Leak => (self.since.as_secs_f64() / self.pace.as_secs_f64()).min(6.0),
            _ => 0.0,
        };
        let scatter = if self.trouble == Trouble::Noisy { 12.0 } else { 1.0 };
        if self.trouble != Trouble::Stuck {
            self.values[0] = 60.0 + 0.5 * self.slow + 4.0 * growth + 0.3 * noise[0];
        }
        self.values[1] =
            (2.0 + 0.05 * self.slow + 0.6 * growth + 0.08 * scatter * noise[1]).max(0.0);
        self.values[2] = (6.0 - 0.05 * self.slow - 0.6 * leak + 0.05 * noise[2]).max(0.0);
        if self.trouble == Trouble::Dead {
            return [RawValue::Failed(Reason::Comm); 3];
        }
        let mut raw = self.values.map(RawValue::Number);
        if self.trouble == Trouble::NotANumber {
            raw[2] = RawValue::Number(f64::NAN);
        }
        raw
    }
}
