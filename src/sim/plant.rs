//! The plant: machines in their surroundings, and the sensors that look at them.
//!
//! It has no clock: whoever owns it says how much time passes. Time moves in ticks of fixed length,
//! so that one seed gives one course of things, however the time was dealt out.

use std::time::Duration;

use super::fan::Fan;
use super::fault::{Away, FaultKind, Scenario};
use super::gearbox::Gearbox;
use super::machine::{Machine, Step, Surroundings};
use super::noise::normal;
use super::pump::{FEED_PUMP, Pump, TRANSFER_PUMP};
use super::registers::{REGISTERS, Register};

/// Length of a tick: sensors take a new value this often.
pub const TICK: Duration = Duration::from_millis(100);

/// What a sensor shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shown {
    /// A value in the signal's unit.
    Value(f64),
    /// Nothing.
    Nothing(Away),
}

/// A simulated plant of four machines; see [`REGISTERS`] for what can be seen of it.
#[derive(Debug, Clone)]
pub struct Plant {
    scenario: Scenario,
    random: fastrand::Rng,
    machines: Vec<(&'static str, Machine)>,
    /// One for each row of [`REGISTERS`].
    shown: Vec<Shown>,
    ticks: u64,
    /// Time that was handed in and is shorter than a tick.
    remainder: Duration,
}

impl Plant {
    /// A plant that has been running well for hours when the scenario begins. One seed, one course.
    #[must_use]
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let surroundings = Surroundings::at(scenario.start_of_day.as_secs_f64());
        let machines = vec![
            ("P-101", Machine::Pump(Pump::new(FEED_PUMP, surroundings, &mut random))),
            ("P-102", Machine::Pump(Pump::new(TRANSFER_PUMP, surroundings, &mut random))),
            ("F-201", Machine::Fan(Fan::new(surroundings, &mut random))),
            ("G-301", Machine::Gearbox(Gearbox::new(surroundings, &mut random))),
        ];
        let shown = vec![Shown::Value(0.0); REGISTERS.len()];
        let mut plant =
            Self { scenario, random, machines, shown, ticks: 0, remainder: Duration::ZERO };
        plant.look();
        plant
    }

    /// What happens to the plant.
    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// Time since the start, in whole ticks.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_secs_f64(self.seconds())
    }

    /// Lets `dt` pass. What is shorter than a tick is kept for the next call.
    pub fn step(&mut self, dt: Duration) {
        self.remainder += dt;
        while self.remainder >= TICK {
            self.remainder -= TICK;
            self.tick();
        }
    }

    /// What a sensor shows, in the signal's unit, before a register rounds it; `path` is
    /// `asset/tag`. `None` when there is no such tag or its sensor shows nothing.
    #[must_use]
    pub fn value(&self, path: &str) -> Option<f64> {
        match self.shown[index_of(path)?] {
            Shown::Value(value) => Some(value),
            Shown::Nothing(_) => None,
        }
    }

    /// What is really the case behind a sensor; `None` when there is no such tag.
    #[must_use]
    pub fn truth(&self, path: &str) -> Option<f64> {
        Some(self.truth_of(&REGISTERS[index_of(path)?]))
    }

    /// All registers with what their sensors show.
    pub fn shown(&self) -> impl Iterator<Item = (&'static Register, Shown)> {
        REGISTERS.iter().zip(self.shown.iter().copied())
    }

    fn seconds(&self) -> f64 {
        self.ticks as f64 * TICK.as_secs_f64()
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let seconds = self.seconds();
        let surroundings = Surroundings::at(self.scenario.start_of_day.as_secs_f64() + seconds);
        let count = self.machines.len();
        for (index, (asset, machine)) in self.machines.iter_mut().enumerate() {
            let step = Step {
                dt: TICK.as_secs_f64(),
                surroundings,
                on: self.scenario.is_on(index, count, seconds),
                damage: self.scenario.damage(asset, seconds),
            };
            machine.step(step, &mut self.random);
        }
        self.look();
    }

    /// Every sensor looks once. Each draws its noise whether or not it is shown, so that a sensor
    /// fault leaves the course of all other things as it was.
    fn look(&mut self) {
        let seconds = self.seconds();
        for (index, register) in REGISTERS.iter().enumerate() {
            let truth = self.truth_of(register);
            let noise = register.noise * normal(&mut self.random);
            let mut shown = Shown::Value(truth + noise);
            for fault in self.scenario.faults.iter().filter(|fault| fault.asset == register.asset) {
                let since = seconds - fault.onset.as_secs_f64();
                if since < 0.0 {
                    continue;
                }
                match fault.kind {
                    FaultKind::StuckSensor { signal } if signal == register.signal => {
                        shown = self.shown[index];
                    }
                    FaultKind::NoisySensor { signal, factor } if signal == register.signal => {
                        shown = Shown::Value(truth + factor * noise);
                    }
                    FaultKind::Dropout { signal, every, length, away }
                        if signal == register.signal
                            && since.rem_euclid(every.as_secs_f64()) < length.as_secs_f64() =>
                    {
                        shown = Shown::Nothing(away);
                    }
                    FaultKind::StuckSensor { .. }
                    | FaultKind::NoisySensor { .. }
                    | FaultKind::Dropout { .. }
                    | FaultKind::BearingWear { .. }
                    | FaultKind::Worn { .. }
                    | FaultKind::SealLeak { .. } => {}
                }
            }
            self.shown[index] = shown;
        }
    }

    fn truth_of(&self, register: &Register) -> f64 {
        let machine = self.machines.iter().find(|(asset, _)| *asset == register.asset);
        machine
            .and_then(|(_, machine)| machine.signal(register.signal))
            .expect("the register map lists only signals its machine has")
    }
}

fn index_of(path: &str) -> Option<usize> {
    let (asset, tag) = path.split_once('/')?;
    REGISTERS.iter().position(|register| register.asset == asset && register.signal.tag() == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;

    fn plant(name: &str) -> Plant {
        Plant::new(Scenario::named(name).unwrap(), SEED)
    }

    fn course(plant: &mut Plant, path: &str, seconds: u64) -> Vec<f64> {
        (0..seconds)
            .map(|_| {
                plant.step(Duration::from_secs(1));
                plant.value(path).unwrap()
            })
            .collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    fn deviation(values: &[f64]) -> f64 {
        let mean = mean(values);
        (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn one_seed_gives_one_course_however_time_is_dealt_out() {
        let mut whole = plant("demo");
        let mut pieces = plant("demo");
        let mut other = Plant::new(Scenario::named("demo").unwrap(), SEED + 1);
        whole.step(Duration::from_secs(120));
        other.step(Duration::from_secs(120));
        for _ in 0..1_600 {
            pieces.step(Duration::from_millis(75));
        }
        assert_eq!(whole.elapsed(), pieces.elapsed());
        assert!(whole.shown().zip(pieces.shown()).all(|(a, b)| a == b));
        assert!(whole.shown().zip(other.shown()).any(|(a, b)| a != b));
    }

    #[test]
    fn a_healthy_plant_keeps_its_levels_over_an_hour() {
        let mut plant = plant("healthy");
        for register in REGISTERS.iter().filter(|register| !register.signal.is_state()) {
            let path = register.path();
            let mut plant = plant.clone();
            let early = course(&mut plant, &path, 120);
            plant.step(Duration::from_secs(3000));
            let late = course(&mut plant, &path, 120);
            let moved = (mean(&late) - mean(&early)).abs() / deviation(&early);
            // The slow wandering of the process is a third of the fast one.
            assert!(moved < 4.0, "{path} moved by {moved} deviations");
        }
        plant.step(Duration::from_secs(3600));
        assert!(plant.shown().all(|(_, shown)| matches!(shown, Shown::Value(v) if v.is_finite())));
    }

    #[test]
    fn the_day_cycle_shows_in_temperature_and_load() {
        let mut plant = plant("healthy");
        plant.step(Duration::from_secs(1800));
        let afternoon = mean(&course(&mut plant, "P-101/bearing_temp", 60));
        let busy = mean(&course(&mut plant, "P-101/flow", 60));
        plant.step(Duration::from_secs(11 * 3600));
        let night = mean(&course(&mut plant, "P-101/bearing_temp", 60));
        let idle = mean(&course(&mut plant, "P-101/flow", 60));
        assert!((5.0..15.0).contains(&(afternoon - night)), "{afternoon} {night}");
        assert!(idle < 0.93 * busy, "{busy} {idle}");
    }

    #[test]
    fn bearing_wear_grows_in_all_three_signs_and_leaves_the_rest_alone() {
        let mut plant = plant("demo");
        plant.step(Duration::from_secs(45));
        let mut sound = plant.clone();
        sound.scenario = Scenario::healthy();
        for tag in ["vibration", "kurtosis", "bearing_temp"] {
            let path = format!("P-101/{tag}");
            let mut plant = plant.clone();
            let means: Vec<f64> = (0..5).map(|_| mean(&course(&mut plant, &path, 30))).collect();
            assert!(means.windows(2).all(|pair| pair[1] > pair[0]), "{tag}: {means:?}");
        }
        let (mut plant, mut sound) = (plant, sound);
        let worn = course(&mut plant, "P-101/flow", 60);
        let well = course(&mut sound, "P-101/flow", 60);
        assert!(worn.iter().zip(&well).all(|(a, b)| (a - b).abs() < 1e-9));
        assert_eq!(plant.value("G-301/vibration"), sound.value("G-301/vibration"));
    }

    #[test]
    fn a_leaking_seal_lowers_pressure_and_flow_steadily() {
        let mut plant = plant("demo");
        plant.step(Duration::from_secs(60));
        for tag in ["flow", "discharge_pressure"] {
            let path = format!("P-102/{tag}");
            let mut plant = plant.clone();
            let means: Vec<f64> = (0..5).map(|_| mean(&course(&mut plant, &path, 30))).collect();
            assert!(means.windows(2).all(|pair| pair[1] < pair[0]), "{tag}: {means:?}");
        }
    }

    #[test]
    fn a_stuck_sensor_stays_exactly_constant_while_the_machine_goes_on() {
        let mut plant = plant("demo");
        let before = course(&mut plant, "F-201/vibration", 50);
        assert!(before.windows(2).all(|pair| (pair[0] - pair[1]).abs() > 0.0));
        plant.step(Duration::from_secs(10));
        let held = plant.value("F-201/vibration");
        let mut others = std::collections::BTreeSet::new();
        for _ in 0..600 {
            plant.step(TICK);
            assert_eq!(plant.value("F-201/vibration"), held);
            others.insert(plant.value("F-201/bearing_temp").unwrap().to_bits());
        }
        assert!(others.len() > 590);
        assert_ne!(plant.truth("F-201/vibration"), held);
    }

    #[test]
    fn a_noisy_sensor_scatters_around_the_truth() {
        let mut noisy = plant("noisy-sensor");
        let quiet = deviation(&course(&mut noisy, "F-201/bearing_temp", 200));
        noisy.step(Duration::from_secs(120));
        let values = course(&mut noisy, "F-201/bearing_temp", 400);
        assert!(deviation(&values) > 6.0 * quiet);
        let truth = noisy.truth("F-201/bearing_temp").unwrap();
        assert!((mean(&values) - truth).abs() < 0.5, "{} {truth}", mean(&values));
    }

    #[test]
    fn a_dropout_comes_and_goes() {
        let mut plant = plant("dropout");
        plant.step(Duration::from_secs(59));
        assert!(plant.value("F-201/bearing_temp").is_some());
        plant.step(Duration::from_secs(5));
        assert_eq!(plant.value("F-201/bearing_temp"), None);
        plant.step(Duration::from_secs(20));
        assert!(plant.value("F-201/bearing_temp").is_some());
    }
}
