//! What goes wrong, and the named stories of what goes wrong together.

use std::time::Duration;

use super::law::Law;
use super::machine::{Damage, Signal};

/// Names of all scenarios, in the order `simulate --help` lists them.
pub const SCENARIOS: [&str; 8] = [
    "healthy",
    "demo",
    "bearing-wear",
    "seal-leak",
    "stuck-sensor",
    "noisy-sensor",
    "dropout",
    "shutdowns",
];

/// Beyond this a bearing would have been stopped by its protection; wear stays there.
const WEAR_MAX: f64 = 4.0;
/// Beyond this share of the rated flow a seal has no lips left; the leak stays there.
const LEAK_MAX: f64 = 0.6;
/// Where the leak of [`Part::Seal`] ends, which is far beyond any limit.
const WORN_LEAK_MAX: f64 = 2.0;
/// Beyond this windings would have burnt; they get no warmer.
const COOLING_MAX: f64 = 4.0;
/// Share of the rated flow that leaks after [`FaultKind::SealLeak`]'s `span`.
const LEAK_PER_SPAN: f64 = 0.3;

/// What a register shows while its sensor is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// Reads that touch it are answered with exception 04 (server device failure).
    Exception,
    /// The largest negative number of a signed register, all ones of an unsigned one, NaN of a float.
    Sentinel,
}

/// What can wear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A bearing, or the teeth of a gearbox; at 1 vibration has about doubled.
    Bearing,
    /// A pump's seal; counted as the share of the rated flow that leaks.
    Seal,
    /// A motor's cooling; at 1 its windings get twice as warm above the hall.
    Cooling,
}

/// One kind of damage or sensor trouble.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// A bearing wears: wear is e^(t/growth) − 1, felt in vibration, kurtosis and temperature.
    BearingWear {
        /// Time in which damage grows by a factor e.
        growth: Duration,
    },
    /// A seal leaks more and more, evenly.
    SealLeak {
        /// Time until three tenths of the rated flow are lost.
        span: Duration,
    },
    /// A part wears by some law, and goes on wearing beyond its end.
    Worn {
        /// What wears.
        part: Part,
        /// How.
        law: Law,
        /// Length of the wear phase.
        span: Duration,
        /// Damage at its end, as the part counts it.
        reach: f64,
    },
    /// A sensor keeps showing the value it had.
    StuckSensor {
        /// Which one.
        signal: Signal,
    },
    /// A sensor scatters more.
    NoisySensor {
        /// Which one.
        signal: Signal,
        /// By how much its noise is multiplied.
        factor: f64,
    },
    /// A sensor goes away again and again.
    Dropout {
        /// Which one.
        signal: Signal,
        /// Time from one absence to the next.
        every: Duration,
        /// Length of an absence.
        length: Duration,
        /// What its register shows meanwhile.
        away: Away,
    },
}

/// One thing that goes wrong with one machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// Which machine.
    pub asset: &'static str,
    /// What.
    pub kind: FaultKind,
    /// When it begins, counted from the start of the plant.
    pub onset: Duration,
}

/// Machines that stand still now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stops {
    /// From one stop to the next; the machines take turns.
    pub every: Duration,
    /// Length of a stop.
    pub length: Duration,
}

/// What happens to the plant.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Whether machines stand still now and then.
    pub stops: Option<Stops>,
    /// How many times faster damage grows; sensor troubles and onsets stay where they are.
    pub wear_speed: f64,
    /// Time of day at the start. At 14:00 day cycle and load are at their turning point.
    pub start_of_day: Duration,
}

impl Scenario {
    /// A plant in which nothing goes wrong.
    #[must_use]
    pub fn healthy() -> Self {
        Self {
            name: "healthy",
            faults: Vec::new(),
            stops: None,
            wear_speed: 1.0,
            start_of_day: Duration::from_secs(14 * 3600),
        }
    }

    /// The scenario with this name out of [`SCENARIOS`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let seconds = Duration::from_secs;
        let name = *SCENARIOS.iter().find(|known| **known == name)?;
        let one = |asset, kind| vec![Fault { asset, kind, onset: seconds(300) }];
        let faults = match name {
            "demo" => demo(),
            "bearing-wear" => one("P-101", FaultKind::BearingWear { growth: seconds(1200) }),
            "seal-leak" => one("P-102", FaultKind::SealLeak { span: seconds(1200) }),
            "stuck-sensor" => one("F-201", FaultKind::StuckSensor { signal: Signal::Vibration }),
            "noisy-sensor" => {
                one("F-201", FaultKind::NoisySensor { signal: Signal::BearingTemp, factor: 12.0 })
            }
            "dropout" => {
                let away = |asset, signal, away| Fault {
                    asset,
                    kind: FaultKind::Dropout {
                        signal,
                        every: seconds(60),
                        length: seconds(15),
                        away,
                    },
                    onset: seconds(60),
                };
                vec![
                    away("F-201", Signal::BearingTemp, Away::Exception),
                    away("G-301", Signal::OilTemp, Away::Sentinel),
                ]
            }
            _ => Vec::new(),
        };
        let stops =
            (name == "shutdowns").then_some(Stops { every: seconds(3600), length: seconds(600) });
        Some(Self { name, faults, stops, ..Self::healthy() })
    }

    /// The same, with damage growing `speed` times faster.
    #[must_use]
    pub fn with_wear_speed(self, speed: f64) -> Self {
        Self { wear_speed: speed, ..self }
    }

    /// How far damage on `asset` has gone `seconds` after the start.
    pub(crate) fn damage(&self, asset: &str, seconds: f64) -> Damage {
        let mut damage = Damage::default();
        let mut worn_leak = 0.0;
        for fault in self.faults.iter().filter(|fault| fault.asset == asset) {
            let grown = (seconds - fault.onset.as_secs_f64()).max(0.0) * self.wear_speed;
            match fault.kind {
                FaultKind::BearingWear { growth } => {
                    damage.wear += (grown / growth.as_secs_f64()).exp_m1();
                }
                FaultKind::SealLeak { span } => {
                    damage.leak += LEAK_PER_SPAN * grown / span.as_secs_f64();
                }
                FaultKind::Worn { part, law, span, reach } => {
                    let worn = reach * law.at(grown / span.as_secs_f64());
                    match part {
                        Part::Bearing => damage.wear += worn,
                        Part::Seal => worn_leak += worn,
                        Part::Cooling => damage.cooling += worn,
                    }
                }
                FaultKind::StuckSensor { .. }
                | FaultKind::NoisySensor { .. }
                | FaultKind::Dropout { .. } => {}
            }
        }
        Damage {
            wear: damage.wear.min(WEAR_MAX),
            // A worn part goes on until the pump gives nothing any more.
            leak: damage.leak.min(LEAK_MAX) + f64::min(worn_leak, WORN_LEAK_MAX),
            cooling: damage.cooling.min(COOLING_MAX),
        }
    }

    /// Whether the machine at place `index` out of `machines` is switched on.
    pub(crate) fn is_on(&self, index: usize, machines: usize, seconds: f64) -> bool {
        let Some(stops) = self.stops else { return true };
        let every = stops.every.as_secs_f64();
        let turn = every * (index + 1) as f64 / (machines + 1) as f64;
        (seconds - turn).rem_euclid(every) >= stops.length.as_secs_f64() || seconds < turn
    }
}

/// The story of `wheeltap demo`: the baselines are learnt in half a minute, then a bearing wears, a
/// seal leaks and a sensor sticks, and all of it can be told within three minutes.
fn demo() -> Vec<Fault> {
    let seconds = Duration::from_secs;
    vec![
        Fault {
            asset: "P-101",
            kind: FaultKind::BearingWear { growth: seconds(180) },
            onset: seconds(45),
        },
        Fault {
            asset: "F-201",
            kind: FaultKind::StuckSensor { signal: Signal::Vibration },
            onset: seconds(55),
        },
        Fault {
            asset: "P-102",
            kind: FaultKind::SealLeak { span: seconds(110) },
            onset: seconds(60),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_scenario_exists_and_no_other() {
        for name in SCENARIOS {
            assert_eq!(Scenario::named(name).unwrap().name, name);
        }
        assert_eq!(Scenario::named("flood"), None);
    }

    #[test]
    fn wear_begins_at_its_onset_grows_and_ends_somewhere() {
        let scenario = Scenario::named("demo").unwrap();
        assert_eq!(scenario.damage("P-101", 44.0), Damage::default());
        let mut last = 0.0;
        for second in 46..1000 {
            let wear = scenario.damage("P-101", f64::from(second)).wear;
            assert!(wear > last || (wear - WEAR_MAX).abs() < 1e-12);
            last = wear;
        }
        assert!((last - WEAR_MAX).abs() < 1e-12);
        let faster = scenario.clone().with_wear_speed(3.0);
        let same = scenario.damage("P-101", 45.0 + 90.0).wear;
        assert!((faster.damage("P-101", 45.0 + 30.0).wear - same).abs() < 1e-9);
        assert_eq!(scenario.damage("G-301", 500.0), Damage::default());
    }

    #[test]
    fn machines_take_turns_in_stopping() {
        let scenario = Scenario::named("shutdowns").unwrap();
        let mut stopped = [0; 4];
        for second in 0..4 * 3600 {
            let off: Vec<usize> =
                (0..4).filter(|i| !scenario.is_on(*i, 4, f64::from(second))).collect();
            assert!(off.len() <= 1, "one at a time");
            off.iter().for_each(|i| stopped[*i] += 1);
        }
        assert!(stopped.iter().all(|seconds| *seconds >= 3 * 600), "{stopped:?}");
    }
}
