//! From the columns of a table to those a model sees: constant ones left out, logarithms where
//! values span decades, operating conditions taken out, and the health line added.

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::Unit;
use super::regime::Regimes;
use crate::analytics::multivariate::Cholesky;

/// A column whose largest value is more than this many times its smallest (positive) one is looked
/// at as a logarithm.
const DECADES: f64 = 10.0;
/// Ridge of the health line: as much as so many units with nothing to say (columns have variance 1).
const RIDGE_UNITS: f64 = 10.0;

/// What is done to a row before a model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Preparation {
    /// Which of the table's columns are used.
    pub(super) columns: Vec<u16>,
    /// Below what a logarithm takes no value, for each column; 0 where it is not taken.
    logs: Vec<f32>,
    regimes: Option<Regimes>,
    /// Of the prepared columns, without the health line.
    means: Vec<f32>,
    /// Weight of each prepared column in the health line.
    weights: Vec<f32>,
    bias: f32,
    /// Least and largest prepared value on record.
    low: Vec<f32>,
    high: Vec<f32>,
}

#[expect(clippy::cast_possible_truncation, reason = "a model needs no more digits")]
fn short(value: f64) -> f32 {
    value as f32
}

impl Preparation {
    /// Learns it from run-to-failure histories; `target` gives what the health line shall follow
    /// for a unit and row. `None` when no column varies.
    pub(super) fn fit(units: &[Unit], target: impl Fn(usize, usize) -> f64) -> Option<Self> {
        let width = units.first()?.width();
        let all = |column: usize| units.iter().flat_map(move |unit| unit.column(column));
        let finite = |column: usize| all(column).filter(|value| value.is_finite());
        let mut columns = Vec::new();
        for column in 0..width {
            let (low, high) = span(finite(column));
            if high - low > 1e-9 * low.abs().max(high.abs()) {
                columns.push(column);
            }
        }
        let logs: Vec<f32> = columns
            .iter()
            .map(|column| {
                let (low, high) = span(finite(*column));
                let spans = low > 0.0 && high > DECADES * low;
                if spans { short(low / DECADES).max(f32::MIN_POSITIVE) } else { 0.0 }
            })
            .collect();
        let regimes = Regimes::find(units, &columns);
        if let Some(regimes) = &regimes {
            // What the conditions say alone, or what is constant within each, says nothing of wear.
            let kept: Vec<bool> = columns.iter().map(|column| regimes.varies(*column)).collect();
            let mut kept = kept.iter();
            columns.retain(|_| *kept.next().expect("as many as columns"));
        }
        if columns.is_empty() {
            return None;
        }
        let logs = if regimes.is_some() { vec![0.0; columns.len()] } else { logs };
        let mut this = Self {
            columns: columns
                .iter()
                .map(|column| u16::try_from(*column).expect("columns are few"))
                .collect(),
            logs,
            regimes,
            means: vec![0.0; columns.len()],
            weights: vec![0.0; columns.len()],
            bias: 0.0,
            low: vec![f32::MAX; columns.len()],
            high: vec![f32::MIN; columns.len()],
        };
        this.fit_line(units, target);
        Some(this)
    }

    /// The health line: ridge regression of the target on single rows.
    fn fit_line(&mut self, units: &[Unit], target: impl Fn(usize, usize) -> f64) {
        let width = self.columns.len();
        let mut rows = Vec::new();
        let mut row = vec![0.0; width + 1];
        for (index, unit) in units.iter().enumerate() {
            for at in 0..unit.len() {
                self.apply(unit.row(at), &mut row);
                for (column, value) in row[..width].iter().enumerate() {
                    if value.is_finite() {
                        self.low[column] = self.low[column].min(short(*value));
                        self.high[column] = self.high[column].max(short(*value));
                    }
                }
                // Neighbouring rows say the same.
                if at % 3 == 0 {
                    rows.push((row[..width].to_vec(), target(index, at)));
                }
            }
        }
        let count = rows.len().max(1) as f64;
        let mut means = vec![0.0; width];
        let mut deviations = vec![0.0; width];
        for column in 0..width {
            let values =
                || rows.iter().map(|(row, _)| row[column]).filter(|value| value.is_finite());
            let known = values().count().max(1) as f64;
            means[column] = values().sum::<f64>() / known;
            let squares: f64 = values().map(|value| (value - means[column]).powi(2)).sum();
            deviations[column] = (squares / known).sqrt();
        }
        let middle = rows.iter().map(|(_, target)| target).sum::<f64>() / count;
        let mut gram = Array2::<f64>::zeros((width, width));
        let mut right = vec![0.0; width];
        let mut z = vec![0.0; width];
        for (row, target) in &rows {
            for column in 0..width {
                let departure = (row[column] - means[column]) / deviations[column].max(1e-12);
                z[column] = if departure.is_finite() { departure } else { 0.0 };
            }
            for i in 0..width {
                right[i] += z[i] * (target - middle);
                for j in 0..=i {
                    gram[[i, j]] += z[i] * z[j];
                }
            }
        }
        for i in 0..width {
            for j in 0..i {
                gram[[j, i]] = gram[[i, j]];
            }
            gram[[i, i]] += RIDGE_UNITS / units.len() as f64 * count;
        }
        if let Some(factor) = Cholesky::new(gram.view()) {
            factor.solve(&mut right);
            for column in 0..width {
                self.weights[column] = short(right[column] / deviations[column].max(1e-12));
            }
            self.bias = short(middle);
        }
        self.means = means.into_iter().map(short).collect();
    }

    /// How many values a prepared row has, the health line included.
    pub(super) fn width(&self) -> usize {
        self.columns.len() + 1
    }

    /// Writes the prepared row, the health line last; NaN where nothing can be said.
    pub(super) fn apply(&self, row: &[f64], out: &mut [f64]) {
        let regime = self.regimes.as_ref().map(|regimes| (regimes, regimes.of(row)));
        let mut line = f64::from(self.bias);
        let mut known = false;
        for (index, column) in self.columns.iter().enumerate() {
            let column = usize::from(*column);
            let value = row[column];
            let value = match &regime {
                Some((regimes, regime)) => {
                    regime.map_or(f64::NAN, |regime| regimes.standard(regime, column, value))
                }
                None if self.logs[index] > 0.0 => value.max(f64::from(self.logs[index])).ln(),
                None => value,
            };
            // `max` above would turn a missing value into a number.
            let value = if row[column].is_finite() { value } else { f64::NAN };
            out[index] = value;
            if value.is_finite() {
                known = true;
                line += f64::from(self.weights[index]) * (value - f64::from(self.means[index]));
            }
        }
        out[self.columns.len()] = if known { line } else { f64::NAN };
    }

    /// Whether a prepared value lies far outside of what is on record: by more than the whole span
    /// of it.
    pub(super) fn is_foreign(&self, column: usize, value: f64) -> bool {
        let (low, high) = (f64::from(self.low[column]), f64::from(self.high[column]));
        let margin = (high - low).max(0.0);
        value < low - margin || value > high + margin
    }

    /// How many operating conditions were found; 0 when they do not matter.
    pub(super) fn regimes(&self) -> usize {
        self.regimes.as_ref().map_or(0, Regimes::count)
    }

    /// Whether lists are as long as each other: what a file says is not believed.
    pub(super) fn is_sound(&self, table: usize) -> bool {
        let width = self.columns.len();
        let lengths = [
            self.logs.len(),
            self.means.len(),
            self.weights.len(),
            self.low.len(),
            self.high.len(),
        ];
        width > 0
            && lengths.iter().all(|length| *length == width)
            && self.columns.iter().all(|column| usize::from(*column) < table)
            && self.regimes.as_ref().is_none_or(|regimes| regimes.is_sound(table))
    }
}

fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
}
