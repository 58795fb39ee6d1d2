//! A fan on a frequency converter: its speed follows the load, the rest follows the affinity laws.

use std::time::Duration;

use super::machine::{Damage, Load, Shaft, Signal, Step, Surroundings};
use super::noise::Wander;
use super::thermal::{Bearing, HeatPath};

/// At full load: 1/min, m³/s, Pa, A, W of bearing friction, mm/s.
const RPM: f64 = 1460.0;
const AIRFLOW: f64 = 12.0;
const PRESSURE_RISE: f64 = 1850.0;
const AMPS: f64 = 62.0;
const IDLE_AMPS: f64 = 17.0;
const FRICTION_W: f64 = 150.0;
const VIBRATION: f64 = 2.1;
/// What wear 1 adds, as shares.
const WEAR_VIBRATION: f64 = 1.2;
const WEAR_FRICTION: f64 = 1.3;

const HEAT_PATH: HeatPath =
    HeatPath { ring_k_per_w: 0.06, ring_s: 30.0, housing_k_per_w: 0.10, housing_s: 840.0 };

#[derive(Debug, Clone)]
pub(crate) struct Fan {
    load: Load,
    shaft: Shaft,
    roughness: Wander,
    duct: Wander,
    bearing: Bearing,
    ambient: f64,
    on: bool,
    damage: Damage,
}

impl Fan {
    /// A fan that has been running for hours.
    pub(crate) fn new(surroundings: Surroundings, random: &mut fastrand::Rng) -> Self {
        Self {
            load: Load::new(surroundings.demand, random),
            shaft: Shaft::turning(),
            roughness: Wander::new(0.04, Duration::from_millis(1200), random),
            duct: Wander::new(0.01, Duration::from_secs(2), random),
            bearing: Bearing::settled(HEAT_PATH, friction(surroundings.demand, 0.0)),
            ambient: surroundings.ambient,
            on: true,
            damage: Damage::default(),
        }
    }

    pub(crate) fn step(&mut self, step: Step, random: &mut fastrand::Rng) {
        self.load.step(step.dt, step.surroundings.demand, random);
        self.roughness.step(step.dt, random);
        self.duct.step(step.dt, random);
        self.shaft.step(step.dt, step.on);
        self.ambient = step.surroundings.ambient;
        self.on = step.on;
        self.damage = step.damage;
        self.bearing.step(step.dt, friction(self.speed(), step.damage.wear));
    }

    pub(crate) fn signal(&self, signal: Signal) -> Option<f64> {
        let speed = self.speed();
        Some(match signal {
            Signal::BearingTemp => self.bearing.celsius(self.ambient),
            Signal::MotorCurrent if self.on => {
                (AMPS * speed.powi(2) * (1.0 + self.duct.get() / 2.0)).hypot(IDLE_AMPS)
            }
            Signal::MotorCurrent => 0.0,
            Signal::Speed => RPM * speed,
            Signal::Airflow => AIRFLOW * speed * (1.0 + self.duct.get()),
            Signal::PressureRise => PRESSURE_RISE * speed.powi(2) * (1.0 - self.duct.get()),
            Signal::Vibration => {
                VIBRATION
                    * speed.powi(2)
                    * (1.0 + self.roughness.get())
                    * (1.0 + WEAR_VIBRATION * self.damage.wear)
            }
            Signal::Running => f64::from(u8::from(self.on)),
            Signal::WindingTemp
            | Signal::SuctionPressure
            | Signal::DischargePressure
            | Signal::Flow
            | Signal::Kurtosis
            | Signal::OilTemp
            | Signal::OilPressure
            | Signal::Torque => return None,
        })
    }

    /// Share of the full speed.
    fn speed(&self) -> f64 {
        self.shaft.get() * self.load.get()
    }
}

fn friction(speed: f64, wear: f64) -> f64 {
    FRICTION_W * speed * (1.0 + WEAR_FRICTION * wear)
}
