//! Readings as they come — late, twice, with gaps, at uneven times — laid on an even grid.

use super::POINTS_MAX;
use super::season::Season;
use crate::analytics::stats;

/// A series on an even grid.
///
/// Invariant: `values` and `known` have the same length, at least 1; values are finite; `step` is
/// positive.
#[derive(Debug, Clone, PartialEq)]
pub struct Regular {
    values: Vec<f64>,
    known: Vec<bool>,
    step: f64,
    end: f64,
    notes: Notes,
}

/// What was done to the readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notes {
    /// Readings without a usable value.
    pub missing: usize,
    /// Readings at a time that another one has; their mean is used.
    pub doubled: usize,
    /// They were not in order of time, and were sorted.
    pub unsorted: bool,
    /// Grid points without a reading, filled for computing.
    pub filled: usize,
    /// Grid points that are older than what is looked at.
    pub left_out: usize,
}

/// A series that nothing can be learnt from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SeriesError {
    /// Fewer than two usable values at different times.
    #[error("{values} usable values: a series needs at least two at different times")]
    Empty {
        /// Usable values there are.
        values: usize,
    },
    /// It never moves: there is nothing to learn, and a band of width 0 would be a lie.
    #[error("the series is constant at {value}: nothing can be learnt from it")]
    Constant {
        /// Its value.
        value: f64,
    },
    /// More gaps than data.
    #[error("only {known} of {points} points at a step of {step} s have a value: too many gaps")]
    Gaps {
        /// Points with a value.
        known: usize,
        /// Points of the grid.
        points: usize,
        /// Step of the grid in seconds.
        step: f64,
    },
    /// Values so large that their squares are not numbers any more.
    #[error("values are too large to compute with")]
    TooLarge,
}

/// This share of the grid points must have a reading.
const KNOWN_LEAST: f64 = 0.5;

impl Regular {
    /// Lays readings on a grid. `times` in seconds (any epoch), `values` in any unit, NaN where
    /// missing; both of the same length, in any order.
    ///
    /// The step is the median distance of neighbouring readings, the grid ends at the newest time
    /// (the newest usable value may lie before it). A grid point is the mean of the readings within half
    /// a step of it; what has none is filled from its neighbours and counts as not known. Only the
    /// newest [`POINTS_MAX`] points are kept.
    ///
    /// # Errors
    /// [`SeriesError::Empty`] and [`SeriesError::Gaps`].
    pub fn from_readings(times: &[f64], values: &[f64]) -> Result<Self, SeriesError> {
        let mut notes = Notes::default();
        let mut rows: Vec<(f64, f64)> = times
            .iter()
            .zip(values)
            .filter(|(time, _)| time.is_finite())
            .map(|(time, value)| (*time, *value))
            .collect();
        if rows.windows(2).any(|pair| pair[1].0 < pair[0].0) {
            notes.unsorted = true;
            rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        notes.missing = rows.iter().filter(|(_, value)| !value.is_finite()).count();
        let mut steps: Vec<f64> =
            rows.windows(2).map(|pair| pair[1].0 - pair[0].0).filter(|step| *step > 0.0).collect();
        notes.doubled = rows.len().saturating_sub(steps.len() + 1);
        let usable = rows.len() - notes.missing;
        let (Some(&(end, _)), false) = (rows.last(), steps.is_empty() || usable < 2) else {
            return Err(SeriesError::Empty { values: usable });
        };
        let step = stats::median(&mut steps);
        let back = |time: f64| ((end - time) / step).round();
        let whole = back(rows[0].0) + 1.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; a number of points too large saturates"
        )]
        let (all, points) = (whole as usize, whole.min(POINTS_MAX as f64) as usize);
        notes.left_out = all - points;
        let (mut sums, mut counts) = (vec![0.0; points], vec![0.0_f64; points]);
        for (time, value) in rows.iter().filter(|(_, value)| value.is_finite()) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "not negative; what lies too far back saturates and is left out"
            )]
            let back = back(*time) as usize;
            if back < points {
                sums[points - 1 - back] += value;
                counts[points - 1 - back] += 1.0;
            }
        }
        let known: Vec<bool> = counts.iter().map(|count| *count > 0.5).collect();
        let there = known.iter().filter(|known| **known).count();
        if there < 2 {
            return Err(SeriesError::Empty { values: there });
        }
        if (there as f64) < KNOWN_LEAST * points as f64 {
            return Err(SeriesError::Gaps { known: there, points, step });
        }
        notes.filled = points - there;
        let mut values: Vec<f64> =
            sums.iter().zip(&counts).map(|(sum, count)| sum / count.max(1.0)).collect();
        if values.iter().any(|value| !value.is_finite()) {
            return Err(SeriesError::TooLarge);
        }
        fill_straight(&mut values, &known);
        Ok(Self { values, known, step, end, notes })
    }

    /// Values on the grid, oldest first; filled where not known.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Whether a reading stands behind each value.
    #[must_use]
    pub fn known(&self) -> &[bool] {
        &self.known
    }

    /// Distance of neighbouring points in seconds.
    #[must_use]
    pub const fn step(&self) -> f64 {
        self.step
    }

    /// Time of the newest point in seconds.
    #[must_use]
    pub const fn end(&self) -> f64 {
        self.end
    }

    /// What was done to the readings.
    #[must_use]
    pub const fn notes(&self) -> Notes {
        self.notes
    }
}

/// Calls `fill(from, to)` for each run of points `from..to` that are not known.
fn each_gap(known: &[bool], mut fill: impl FnMut(usize, usize)) {
    let mut at = 0;
    while at < known.len() {
        if known[at] {
            at += 1;
            continue;
        }
        let to = known[at..].iter().position(|known| *known).map_or(known.len(), |more| at + more);
        fill(at, to);
        at = to;
    }
}

/// A straight line over each gap; the nearest value at the ends.
fn fill_straight(values: &mut [f64], known: &[bool]) {
    each_gap(known, |from, to| {
        let left = from.checked_sub(1).map(|at| values[at]);
        let right = values.get(to).copied();
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (Some(only), None) | (None, Some(only)) => (only, only),
            (None, None) => return,
        };
        for (place, value) in values[from..to].iter_mut().enumerate() {
            let share = (place + 1) as f64 / (to + 1 - from) as f64;
            *value = left + share * (right - left);
        }
    });
}

/// Longer gaps get the shape of the season before them on that line: a straight line over half a
/// day would teach the regression a flat day.
pub(super) fn fill_by_season(values: &mut [f64], known: &[bool], season: &Season) {
    let Some(period) = season.period else { return };
    each_gap(known, |from, to| {
        if to - from < period / 4 || from < period + 1 {
            return;
        }
        // From the season before, moved so that it meets both ends of the gap.
        let earlier = |at: usize| {
            let seasons = (at + 1 - from).div_ceil(period).max(1);
            values[at - seasons * period]
        };
        let shape: Vec<f64> = (from - 1..=to).map(earlier).collect();
        let last = shape.len() - 1;
        let first_off = values[from - 1] - shape[0];
        let last_off = values.get(to).map_or(first_off, |value| value - shape[last]);
        for (place, at) in (from..to).enumerate() {
            let share = (place + 1) as f64 / last as f64;
            values[at] = shape[place + 1] + first_off + share * (last_off - first_off);
        }
    });
}
