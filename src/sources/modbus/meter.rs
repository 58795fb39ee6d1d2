//! Pure: what the time of a line goes to, and how late polls are.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::port::{BusLoad, Lateness, UnitLoad};

/// Shares are those of the last whole window of this length.
const WINDOW: Duration = Duration::from_secs(10);

/// What requests took, per source and unit, and in all.
#[derive(Debug)]
pub(super) struct Meter {
    since: Duration,
    /// Seconds busy in the running window, and of these without an answer.
    busy: f64,
    dead: f64,
    line: (f64, f64),
    units: BTreeMap<(usize, u8), Unit>,
    late: Vec<Lateness>,
}

#[derive(Debug, Default)]
struct Unit {
    window: f64,
    share: f64,
    total: f64,
}

impl Meter {
    /// A meter for so many sources.
    pub(super) fn new(sources: usize, now: Duration) -> Self {
        Self {
            since: now,
            busy: 0.0,
            dead: 0.0,
            line: (0.0, 0.0),
            units: BTreeMap::new(),
            late: vec![Lateness::default(); sources],
        }
    }

    /// A request to this unit took so long, and was answered or not.
    pub(super) fn request(&mut self, source: usize, unit: u8, took: Duration, answered: bool) {
        let took = took.as_secs_f64();
        self.busy += took;
        self.dead += if answered { 0.0 } else { took };
        let unit = self.units.entry((source, unit)).or_default();
        unit.window += took;
        unit.total += took;
    }

    /// The last answer of a poll came this long after its tick.
    pub(super) fn late(&mut self, source: usize, by: Duration) {
        self.late[source].count(by);
    }

    /// Closes the window when it is over.
    pub(super) fn turn(&mut self, now: Duration) {
        let span = now.saturating_sub(self.since);
        if span < WINDOW {
            return;
        }
        let span = span.as_secs_f64();
        self.since = now;
        self.line = (self.busy / span, self.dead / span);
        (self.busy, self.dead) = (0.0, 0.0);
        for unit in self.units.values_mut() {
            unit.share = std::mem::take(&mut unit.window) / span;
        }
    }

    /// What is published of a source.
    pub(super) fn load(&self, source: usize) -> BusLoad {
        let units = self.units.range((source, 0)..=(source, u8::MAX));
        let units = units
            .map(|(&(_, id), unit)| (id, UnitLoad { share: unit.share, busy_seconds: unit.total }));
        BusLoad {
            line_share: self.line.0,
            dead_share: self.line.1,
            units: units.collect(),
            lateness: self.late[source].clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r60_the_load_of_the_line_and_of_each_unit_is_known() {
        let mut meter = Meter::new(2, Duration::ZERO);
        for second in 1..=10 {
            meter.request(0, 1, Duration::from_millis(200), true);
            meter.request(0, 2, Duration::from_millis(100), false);
            meter.request(1, 1, Duration::from_millis(50), true);
            meter.turn(Duration::from_secs(second));
        }
        let load = meter.load(0);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(load.line_share, 0.35) && near(load.dead_share, 0.1), "{load:?}");
        assert!(near(load.units[&1].share, 0.2) && near(load.units[&2].share, 0.1), "{load:?}");
        assert!(near(load.units[&1].busy_seconds, 2.0), "{load:?}");
        assert_eq!(meter.load(1).units.len(), 1);
    }

    #[test]
    fn lateness_is_counted_by_its_bounds() {
        let mut meter = Meter::new(1, Duration::ZERO);
        for _ in 0..99 {
            meter.late(0, Duration::from_millis(3));
        }
        meter.late(0, Duration::from_secs(30));
        let lateness = meter.load(0).lateness;
        assert_eq!(lateness.polls(), 100);
        assert_eq!(lateness.quantile(0.99), Some(0.005), "seconds, the bound above");
        assert_eq!(lateness.quantile(1.0), Some(f64::INFINITY));
    }
}
