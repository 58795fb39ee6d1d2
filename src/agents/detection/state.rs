//! Is the machine running? What stands still is neither judged nor learnt from.

use crate::domain::tag::Tag;

/// A speed below this share of the usual one counts as standing still.
const STANDING: f64 = 0.1;
/// After a start nothing is judged for at least this long, in seconds: run-up of motors on mains
/// and drives takes seconds, flows and pressures settle within a minute …
const HOLD_LEAST: f64 = 60.0;
/// … and until the tags were once where they usually are, but no longer than this: three thermal
/// time constants of a small motor (20 min, IEC 60034-1 duty type S1 reaches its temperature in
/// one to two hours).
const HOLD_MOST: f64 = 3600.0;

/// Whether the machine runs, as far as its tags tell.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Running {
    /// Index of a channel that is a speed.
    speed: Option<usize>,
    /// What a discrete tag says.
    switch: Option<bool>,
    on: bool,
    started: Option<f64>,
}

impl Running {
    pub(super) const fn new(speed: Option<usize>) -> Self {
        Self { speed, switch: None, on: true, started: None }
    }

    /// Takes a value of the discrete tag that says whether the machine runs.
    pub(super) fn switch(&mut self, value: f64) {
        self.switch = Some(value.abs() > 0.5);
    }

    pub(super) const fn speed_channel(&self) -> Option<usize> {
        self.speed
    }

    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    /// Whether it was started so lately that nothing is judged yet.
    pub(super) const fn is_holding(&self) -> bool {
        self.started.is_some()
    }

    /// Takes the newest speed and the usual one, when it is known.
    pub(super) fn update(&mut self, time: f64, speed: Option<(f64, Option<f64>)>) {
        let turning = speed.is_none_or(|(speed, usual)| {
            speed.is_nan() || usual.is_none_or(|usual| speed.abs() > STANDING * usual.abs())
        });
        let on = self.switch.unwrap_or(true) && turning;
        if on && !self.on {
            self.started = Some(time);
        }
        self.on = on;
    }

    /// Whether judgement is on hold; `usual` says that the tags are where they usually are.
    pub(super) fn hold(&mut self, time: f64, usual: bool) -> bool {
        let Some(started) = self.started else { return false };
        let since = time - started;
        if since >= HOLD_MOST || since >= HOLD_LEAST && usual {
            self.started = None;
        }
        self.started.is_some()
    }
}

/// Whether a discrete tag says that the machine runs: by its quantity or its name.
pub(super) fn is_run_switch(tag: &Tag) -> bool {
    let name = tag.path.tag.as_str().to_ascii_lowercase();
    let quantity = tag.quantity.to_ascii_lowercase();
    quantity == "running"
        || ["run", "running", "run_state", "motor_on", "on"].contains(&name.as_str())
        || name.contains("running")
        || name.starts_with("run_")
        || name.ends_with("_run")
}

/// Whether a measured tag is the machine's speed.
pub(super) fn is_speed(tag: &Tag) -> bool {
    let name = tag.path.tag.as_str().to_ascii_lowercase();
    tag.quantity.eq_ignore_ascii_case("speed")
        || tag.unit.eq_ignore_ascii_case("rpm")
        || ["speed", "rpm"].contains(&name.as_str())
}
