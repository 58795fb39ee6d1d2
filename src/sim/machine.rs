//! What all machines share: surroundings, load, a drive that starts and stops, and the list of what
//! can be measured on them.

use std::f64::consts::TAU;
use std::time::Duration;

use super::fan::Fan;
use super::gearbox::Gearbox;
use super::noise::{Wander, follow};
use super::pump::Pump;

/// What can be measured; not every machine has every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Drive-end bearing temperature in °C.
    BearingTemp,
    /// Motor winding temperature in °C.
    WindingTemp,
    /// Motor current in A.
    MotorCurrent,
    /// Shaft speed in 1/min.
    Speed,
    /// Pressure before the pump in bar.
    SuctionPressure,
    /// Pressure behind the pump in bar.
    DischargePressure,
    /// Flow to the process in m³/h.
    Flow,
    /// Vibration velocity, RMS, in mm/s.
    Vibration,
    /// Kurtosis of the acceleration; 3 for a sound bearing.
    Kurtosis,
    /// Air moved in m³/s.
    Airflow,
    /// Pressure rise of the fan in Pa.
    PressureRise,
    /// Oil sump temperature in °C.
    OilTemp,
    /// Oil pressure in bar.
    OilPressure,
    /// Torque on the output shaft in N·m.
    Torque,
    /// Whether the machine runs: 1 or 0.
    Running,
}

impl Signal {
    /// The tag's id.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::BearingTemp => "bearing_temp",
            Self::WindingTemp => "winding_temp",
            Self::MotorCurrent => "motor_current",
            Self::Speed => "speed",
            Self::SuctionPressure => "suction_pressure",
            Self::DischargePressure => "discharge_pressure",
            Self::Flow => "flow",
            Self::Vibration => "vibration",
            Self::Kurtosis => "kurtosis",
            Self::Airflow => "airflow",
            Self::PressureRise => "pressure_rise",
            Self::OilTemp => "oil_temp",
            Self::OilPressure => "oil_pressure",
            Self::Torque => "torque",
            Self::Running => "running",
        }
    }

    /// Whether it is a state rather than a measurement; states carry no noise.
    #[must_use]
    pub const fn is_state(self) -> bool {
        matches!(self, Self::Running)
    }

    /// The engineering unit; empty for numbers without one.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::BearingTemp | Self::WindingTemp | Self::OilTemp => "°C",
            Self::MotorCurrent => "A",
            Self::Speed => "1/min",
            Self::SuctionPressure | Self::DischargePressure | Self::OilPressure => "bar",
            Self::Flow => "m³/h",
            Self::Vibration => "mm/s",
            Self::Airflow => "m³/s",
            Self::PressureRise => "Pa",
            Self::Torque => "N·m",
            Self::Kurtosis | Self::Running => "",
        }
    }
}

/// What surrounds all machines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    /// Temperature of the hall in °C.
    pub(crate) ambient: f64,
    /// What the process asks for, as a share of the rated load.
    pub(crate) demand: f64,
}

impl Surroundings {
    /// A working day: hall and demand are highest at 14:00 and lowest at 02:00.
    pub(crate) fn at(seconds_of_day: f64) -> Self {
        let phase = (TAU * (seconds_of_day / 86_400.0 - 14.0 / 24.0)).cos();
        Self { ambient: 22.0 + 4.0 * phase, demand: 0.89 + 0.06 * phase }
    }
}

/// Load as the machine feels it: the demand, the control loop's hunting (seconds) and what the
/// process does by itself (minutes).
#[derive(Debug, Clone)]
pub(crate) struct Load {
    hunting: Wander,
    process: Wander,
    demand: f64,
}

impl Load {
    pub(crate) fn new(demand: f64, random: &mut fastrand::Rng) -> Self {
        Self {
            hunting: Wander::new(0.006, Duration::from_secs(2), random),
            process: Wander::new(0.002, Duration::from_secs(600), random),
            demand,
        }
    }

    pub(crate) fn step(&mut self, dt: f64, demand: f64, random: &mut fastrand::Rng) {
        self.hunting.step(dt, random);
        self.process.step(dt, random);
        self.demand = demand;
    }

    /// Share of the rated load.
    pub(crate) fn get(&self) -> f64 {
        (self.demand + self.hunting.get() + self.process.get()).max(0.05)
    }
}

/// Time constants of a shaft coming up to speed and running down, in seconds.
const SPIN_UP_S: f64 = 2.0;
const RUN_DOWN_S: f64 = 6.0;
/// Below this share of the rated speed a shaft counts as standing: friction stops the last turns.
const STANDSTILL: f64 = 0.005;

/// How fast the shaft turns, as a share of its speed under load.
#[derive(Debug, Clone)]
pub(crate) struct Shaft {
    speed: f64,
}

impl Shaft {
    pub(crate) fn turning() -> Self {
        Self { speed: 1.0 }
    }

    pub(crate) fn step(&mut self, dt: f64, on: bool) {
        let (target, tau) = if on { (1.0, SPIN_UP_S) } else { (0.0, RUN_DOWN_S) };
        self.speed = follow(self.speed, target, tau, dt);
        if !on && self.speed < STANDSTILL {
            self.speed = 0.0;
        }
    }

    pub(crate) fn get(&self) -> f64 {
        self.speed
    }
}

/// How far damage has gone at this moment; all zero for a sound machine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Damage {
    /// Bearing wear; at 1 vibration has about doubled.
    pub(crate) wear: f64,
    /// Share of the rated flow that a worn seal lets past.
    pub(crate) leak: f64,
    /// What windings warm more than as new, as a share.
    pub(crate) cooling: f64,
}

/// One machine of the plant.
#[derive(Debug, Clone)]
pub(crate) enum Machine {
    Pump(Pump),
    Fan(Fan),
    Gearbox(Gearbox),
}

/// What a machine goes through in one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Length in seconds.
    pub(crate) dt: f64,
    pub(crate) surroundings: Surroundings,
    /// Whether it is switched on.
    pub(crate) on: bool,
    pub(crate) damage: Damage,
}

impl Machine {
    pub(crate) fn step(&mut self, step: Step, random: &mut fastrand::Rng) {
        match self {
            Self::Pump(pump) => pump.step(step, random),
            Self::Fan(fan) => fan.step(step, random),
            Self::Gearbox(gearbox) => gearbox.step(step, random),
        }
    }

    /// The true value of a signal; `None` where the machine has no such thing.
    pub(crate) fn signal(&self, signal: Signal) -> Option<f64> {
        match self {
            Self::Pump(pump) => pump.signal(signal),
            Self::Fan(fan) => fan.signal(signal),
            Self::Gearbox(gearbox) => gearbox.signal(signal),
        }
    }
}
