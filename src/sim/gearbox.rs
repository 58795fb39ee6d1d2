//! A gearbox: losses that warm its oil, and a shaft-driven oil pump that gives less pressure the
//! thinner the oil is.

use std::time::Duration;

use super::machine::{Damage, Load, Shaft, Signal, Step, Surroundings};
use super::noise::{Wander, follow};

/// At full load: 1/min of the input shaft, N·m on the output shaft, K of oil warming, mm/s.
const RPM: f64 = 1485.0;
const TORQUE: f64 = 4200.0;
const OIL_RISE: f64 = 44.0;
const VIBRATION: f64 = 1.9;
/// Share of the losses that is there without load (churning).
const CHURNING: f64 = 0.35;
/// Time constant of the oil sump in seconds.
const OIL_S: f64 = 1100.0;
/// Oil pressure at full speed and 60 °C in bar, and its loss per kelvin.
const OIL_PRESSURE: f64 = 2.6;
const THINNING: f64 = 0.007;
/// What wear 1 adds, as shares.
const WEAR_VIBRATION: f64 = 1.2;
const WEAR_HEAT: f64 = 0.3;

#[derive(Debug, Clone)]
pub(crate) struct Gearbox {
    load: Load,
    shaft: Shaft,
    roughness: Wander,
    oil_rise: f64,
    ambient: f64,
    on: bool,
    damage: Damage,
}

impl Gearbox {
    /// A gearbox that has been running for hours.
    pub(crate) fn new(surroundings: Surroundings, random: &mut fastrand::Rng) -> Self {
        Self {
            load: Load::new(surroundings.demand, random),
            shaft: Shaft::turning(),
            roughness: Wander::new(0.03, Duration::from_secs(1), random),
            oil_rise: oil_target(1.0, surroundings.demand, 0.0),
            ambient: surroundings.ambient,
            on: true,
            damage: Damage::default(),
        }
    }

    pub(crate) fn step(&mut self, step: Step, random: &mut fastrand::Rng) {
        self.load.step(step.dt, step.surroundings.demand, random);
        self.roughness.step(step.dt, random);
        self.shaft.step(step.dt, step.on);
        self.ambient = step.surroundings.ambient;
        self.on = step.on;
        self.damage = step.damage;
        let target = oil_target(self.shaft.get(), self.load.get(), step.damage.wear);
        self.oil_rise = follow(self.oil_rise, target, OIL_S, step.dt);
    }

    pub(crate) fn signal(&self, signal: Signal) -> Option<f64> {
        let speed = self.shaft.get();
        let oil = self.ambient + self.oil_rise;
        Some(match signal {
            Signal::OilTemp => oil,
            Signal::OilPressure => OIL_PRESSURE * speed * (1.0 - THINNING * (oil - 60.0)),
            Signal::Speed => RPM * speed * (1.0 - 0.008 * self.load.get()),
            Signal::Torque => TORQUE * speed * self.load.get(),
            Signal::Vibration => {
                VIBRATION
                    * speed
                    * (0.6 + 0.4 * self.load.get())
                    * (1.0 + self.roughness.get())
                    * (1.0 + WEAR_VIBRATION * self.damage.wear)
            }
            Signal::Running => f64::from(u8::from(self.on)),
            Signal::BearingTemp
            | Signal::WindingTemp
            | Signal::MotorCurrent
            | Signal::SuctionPressure
            | Signal::DischargePressure
            | Signal::Flow
            | Signal::Kurtosis
            | Signal::Airflow
            | Signal::PressureRise => return None,
        })
    }
}

fn oil_target(speed: f64, load: f64, wear: f64) -> f64 {
    OIL_RISE * speed * (CHURNING + (1.0 - CHURNING) * load) * (1.0 + WEAR_HEAT * wear)
}
