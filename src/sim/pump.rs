//! A centrifugal pump with its motor: a pump curve against a system curve, losses that become heat,
//! a bearing that wears and a seal that leaks.

use std::time::Duration;

use super::machine::{Damage, Load, Shaft, Signal, Step, Surroundings};
use super::noise::{Wander, follow};
use super::thermal::{Bearing, HeatPath};

/// What stands on the plates of pump and motor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rating {
    /// Speed without load, 1/min.
    pub(crate) synchronous_rpm: f64,
    /// Slip at rated load, as a share.
    pub(crate) slip: f64,
    /// m³/h.
    pub(crate) flow: f64,
    /// Pressure rise without flow, bar.
    pub(crate) shut_off: f64,
    /// Pressure rise at rated flow, bar.
    pub(crate) rise: f64,
    /// What the process holds against the pump without flow, bar.
    pub(crate) back_pressure: f64,
    /// Pressure of the feed vessel, bar.
    pub(crate) feed: f64,
    /// Lost in the suction line at rated flow, bar.
    pub(crate) suction_loss: f64,
    /// Hydraulic efficiency.
    pub(crate) efficiency: f64,
    /// Shaft power of the motor, kW.
    pub(crate) motor_kw: f64,
    /// Motor current at that power, A.
    pub(crate) motor_amps: f64,
    /// Magnetising current, A.
    pub(crate) idle_amps: f64,
    /// Bearing friction at rated load, W.
    pub(crate) friction_w: f64,
    /// Vibration as new, mm/s RMS.
    pub(crate) vibration: f64,
}

/// A boiler feed pump with a 30 kW motor.
pub(crate) const FEED_PUMP: Rating = Rating {
    synchronous_rpm: 1500.0,
    slip: 0.0133,
    flow: 120.0,
    shut_off: 7.6,
    rise: 5.0,
    back_pressure: 1.6,
    feed: 1.3,
    suction_loss: 0.25,
    efficiency: 0.72,
    motor_kw: 30.0,
    motor_amps: 56.0,
    idle_amps: 18.0,
    friction_w: 175.0,
    vibration: 1.35,
};

/// A transfer pump with an 11 kW motor.
pub(crate) const TRANSFER_PUMP: Rating = Rating {
    synchronous_rpm: 3000.0,
    slip: 0.02,
    flow: 60.0,
    shut_off: 5.6,
    rise: 3.4,
    back_pressure: 0.8,
    feed: 1.1,
    suction_loss: 0.15,
    efficiency: 0.68,
    motor_kw: 11.0,
    motor_amps: 21.0,
    idle_amps: 7.0,
    friction_w: 140.0,
    vibration: 1.1,
};

const HEAT_PATH: HeatPath =
    HeatPath { ring_k_per_w: 0.065, ring_s: 25.0, housing_k_per_w: 0.115, housing_s: 720.0 };
/// Warming of the windings at rated current, K, and their time constant, s.
const WINDING_RISE: f64 = 68.0;
const WINDING_S: f64 = 900.0;
/// What wear 1 adds: share of vibration, share of friction, kurtosis.
const WEAR_VIBRATION: f64 = 1.2;
const WEAR_FRICTION: f64 = 1.3;
const WEAR_KURTOSIS: f64 = 2.2;
/// Kurtosis of a sound bearing (a Gaussian signal), and where impacts begin to overlap.
const KURTOSIS_SOUND: f64 = 3.0;
const KURTOSIS_MAX: f64 = 14.0;
/// Halvings in the search for the duty point: 10 bar / 2⁴⁰ is far below any sensor.
const HALVINGS: u32 = 40;

#[derive(Debug, Clone)]
pub(crate) struct Pump {
    rating: Rating,
    load: Load,
    shaft: Shaft,
    roughness: Wander,
    impacts: Wander,
    vessel: Wander,
    bearing: Bearing,
    winding_rise: f64,
    ambient: f64,
    on: bool,
    damage: Damage,
    duty: Duty,
}

/// Where pump curve and system curve meet.
#[derive(Debug, Clone, Copy)]
struct Duty {
    suction: f64,
    discharge: f64,
    /// Through the pump, m³/h.
    total: f64,
    /// To the process, m³/h.
    process: f64,
}

impl Pump {
    /// A pump that has been running for hours.
    pub(crate) fn new(
        rating: Rating,
        surroundings: Surroundings,
        random: &mut fastrand::Rng,
    ) -> Self {
        let demand = surroundings.demand;
        let mut pump = Self {
            rating,
            load: Load::new(demand, random),
            shaft: Shaft::turning(),
            roughness: Wander::new(0.035, Duration::from_secs(1), random),
            impacts: Wander::new(0.14, Duration::from_millis(800), random),
            vessel: Wander::new(0.012, Duration::from_secs(8), random),
            bearing: Bearing::settled(HEAT_PATH, friction(&rating, 1.0, demand, 0.0)),
            winding_rise: 0.0,
            ambient: surroundings.ambient,
            on: true,
            damage: Damage::default(),
            duty: Duty { suction: 0.0, discharge: 0.0, total: 0.0, process: 0.0 },
        };
        pump.duty = pump.solve(demand);
        pump.winding_rise = pump.winding_target();
        pump
    }

    pub(crate) fn step(&mut self, step: Step, random: &mut fastrand::Rng) {
        self.load.step(step.dt, step.surroundings.demand, random);
        self.roughness.step(step.dt, random);
        self.impacts.step(step.dt, random);
        self.vessel.step(step.dt, random);
        self.shaft.step(step.dt, step.on);
        self.ambient = step.surroundings.ambient;
        self.on = step.on;
        self.damage = step.damage;
        self.duty = self.solve(self.load.get());
        let watts = friction(&self.rating, self.shaft.get(), self.load.get(), self.damage.wear);
        self.bearing.step(step.dt, watts);
        self.winding_rise = follow(self.winding_rise, self.winding_target(), WINDING_S, step.dt);
    }

    pub(crate) fn signal(&self, signal: Signal) -> Option<f64> {
        let speed = self.shaft.get();
        Some(match signal {
            Signal::BearingTemp => self.bearing.celsius(self.ambient),
            Signal::WindingTemp => self.ambient + self.winding_rise,
            Signal::MotorCurrent => self.current(),
            Signal::Speed => {
                let share = self.shaft_kw() / self.rating.motor_kw;
                self.rating.synchronous_rpm * speed * (1.0 - self.rating.slip * share)
            }
            Signal::SuctionPressure => self.duty.suction,
            Signal::DischargePressure => self.duty.discharge,
            Signal::Flow => self.duty.process,
            Signal::Vibration => {
                self.rating.vibration
                    * speed
                    * speed
                    * (0.85 + 0.15 * self.load.get())
                    * (1.0 + self.roughness.get())
                    * (1.0 + WEAR_VIBRATION * self.damage.wear)
            }
            Signal::Kurtosis => {
                let grown = WEAR_KURTOSIS * self.damage.wear * speed + self.impacts.get();
                (KURTOSIS_SOUND + grown).clamp(1.5, KURTOSIS_MAX)
            }
            Signal::Running => f64::from(u8::from(self.on)),
            Signal::Airflow
            | Signal::PressureRise
            | Signal::OilTemp
            | Signal::OilPressure
            | Signal::Torque => return None,
        })
    }

    /// Finds the discharge pressure at which what the pump gives is what process and leak take.
    /// Demand opens the process valve; both curves are parabolas in the flow.
    fn solve(&self, load: f64) -> Duty {
        let rating = &self.rating;
        let speed = self.shaft.get();
        let feed = rating.feed + self.vessel.get();
        let gain = speed * speed * rating.shut_off;
        let steepness = (rating.shut_off - rating.rise + rating.suction_loss) / rating.flow.powi(2);
        let rated_discharge = rating.feed - rating.suction_loss + rating.rise;
        let valve = load * rating.flow / (rated_discharge - rating.back_pressure).max(0.1).sqrt();
        let hole = self.damage.leak * rating.flow / rated_discharge.sqrt();
        let flows = |pressure: f64| {
            let process = valve * (pressure - rating.back_pressure).max(0.0).sqrt();
            (process, process + hole * pressure.max(0.0).sqrt())
        };
        // The check valve closes when the pump cannot hold against the process.
        if feed + gain <= rating.back_pressure {
            return Duty {
                suction: feed,
                discharge: rating.back_pressure,
                total: 0.0,
                process: 0.0,
            };
        }
        let (mut low, mut high) = (0.0, feed + gain);
        for _ in 0..HALVINGS {
            let pressure = 0.5 * (low + high);
            let (_, total) = flows(pressure);
            if pressure < feed + gain - steepness * total * total {
                low = pressure;
            } else {
                high = pressure;
            }
        }
        let discharge = 0.5 * (low + high);
        let (process, total) = flows(discharge);
        let suction = feed - rating.suction_loss * (total / rating.flow).powi(2);
        Duty { suction, discharge, total, process }
    }

    /// Power on the shaft in kW: hydraulic power (bar × m³/h ÷ 36) over the efficiency, and friction.
    fn shaft_kw(&self) -> f64 {
        let hydraulic = (self.duty.discharge - self.duty.suction).max(0.0) * self.duty.total / 36.0;
        let watts = friction(&self.rating, self.shaft.get(), self.load.get(), self.damage.wear);
        hydraulic / self.rating.efficiency + watts / 1000.0
    }

    /// Magnetising and load current stand at a right angle.
    fn current(&self) -> f64 {
        if !self.on {
            return 0.0;
        }
        let rating = &self.rating;
        let rated_load = (rating.motor_amps.powi(2) - rating.idle_amps.powi(2)).sqrt();
        (rated_load * self.shaft_kw() / rating.motor_kw).hypot(rating.idle_amps)
    }

    fn winding_target(&self) -> f64 {
        WINDING_RISE
            * (self.current() / self.rating.motor_amps).powi(2)
            * (1.0 + self.damage.cooling)
    }
}

/// Bearing friction in W.
fn friction(rating: &Rating, speed: f64, load: f64, wear: f64) -> f64 {
    rating.friction_w * speed * (0.6 + 0.4 * load) * (1.0 + WEAR_FRICTION * wear)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pump() -> (Pump, fastrand::Rng) {
        let mut random = fastrand::Rng::with_seed(3);
        let surroundings = Surroundings { ambient: 22.0, demand: 1.0 };
        (Pump::new(FEED_PUMP, surroundings, &mut random), random)
    }

    fn run(pump: &mut Pump, random: &mut fastrand::Rng, seconds: u32, on: bool, damage: Damage) {
        let surroundings = Surroundings { ambient: 22.0, demand: 1.0 };
        for _ in 0..seconds * 10 {
            pump.step(Step { dt: 0.1, surroundings, on, damage }, random);
        }
    }

    #[test]
    fn at_rated_load_the_pump_gives_what_its_plate_says() {
        let (pump, _) = pump();
        let get = |signal| pump.signal(signal).unwrap();
        // Load and feed pressure wander by less than two per cent.
        assert!((get(Signal::Flow) / 120.0 - 1.0).abs() < 0.02, "{}", get(Signal::Flow));
        let rise = get(Signal::DischargePressure) - get(Signal::SuctionPressure);
        assert!((rise / 5.0 - 1.0).abs() < 0.02, "{rise}");
        assert!((1475.0..1490.0).contains(&get(Signal::Speed)));
        assert!((35.0..56.0).contains(&get(Signal::MotorCurrent)));
        assert!(get(Signal::BearingTemp) > 40.0 && get(Signal::BearingTemp) < 70.0);
    }

    #[test]
    fn a_leak_lowers_pressure_and_flow_and_costs_power() {
        let (mut pump, mut random) = pump();
        let sound = pump.solve(1.0);
        let sound_kw = {
            pump.duty = sound;
            pump.shaft_kw()
        };
        pump.damage.leak = 0.3;
        let leaking = pump.solve(1.0);
        pump.duty = leaking;
        assert!(leaking.process < 0.95 * sound.process, "{leaking:?} {sound:?}");
        assert!(leaking.discharge < sound.discharge);
        assert!(leaking.total > sound.total);
        assert!(leaking.suction < sound.suction);
        assert!(pump.shaft_kw().is_finite() && sound_kw > 0.0);
        run(&mut pump, &mut random, 1, true, Damage::default());
        assert!(pump.duty.process > leaking.process, "a mended seal gives the flow back");
    }

    #[test]
    fn a_stopped_pump_cools_and_moves_nothing() {
        let (mut pump, mut random) = pump();
        let warm = pump.signal(Signal::BearingTemp).unwrap();
        run(&mut pump, &mut random, 600, false, Damage::default());
        assert_eq!(pump.signal(Signal::Flow), Some(0.0));
        assert_eq!(pump.signal(Signal::MotorCurrent), Some(0.0));
        assert_eq!(pump.signal(Signal::Running), Some(0.0));
        assert_eq!(pump.signal(Signal::Speed), Some(0.0));
        let cold = pump.signal(Signal::BearingTemp).unwrap();
        assert!(cold < warm - 15.0 && cold > 22.0, "{warm} {cold}");
        run(&mut pump, &mut random, 3600, true, Damage::default());
        assert!((pump.signal(Signal::BearingTemp).unwrap() - warm).abs() < 1.0);
        assert!(pump.signal(Signal::Flow).unwrap() > 100.0);
    }
}
