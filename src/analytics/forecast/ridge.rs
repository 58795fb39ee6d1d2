//! The regression member: the next value from the newest ones, those of a season ago, and waves of
//! the season; forecast step by step on its own forecasts.
//!
//! Source: A. E. Hoerl, R. W. Kennard, Technometrics 12(1), 1970 (ridge); forgetting as in
//! recursive least squares, L. Ljung, System Identification, 2nd ed., §11.2.

use std::f64::consts::TAU;
use std::ops::Range;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, s};

use super::season::Season;
use crate::analytics::multivariate::Cholesky;

/// Harmonics of the season.
const WAVES_MAX: usize = 6;
/// Newest values that are used.
const NEAR: usize = 3;
/// And so many when there is no season.
const NEAR_WITHOUT_SEASON: usize = 6;
/// Points whose mean is a feature when there is no season.
const LEVEL_WITHOUT_SEASON: usize = 24;
/// A lag may be this share of the shortest history.
const LAG_SHARE: usize = 3;
/// Rows per feature that the shortest history must give.
const ROWS_PER_FEATURE: usize = 3;
/// Penalty of a coefficient, as a share of its feature's sum of squares.
const PENALTY: f64 = 1e-4;

/// Which values make the features, and all rows of them.
///
/// Row t is: 1, the values `lags` before t, the mean of `level` values before t, sines and cosines
/// of the season at t; and at the end the value at t itself.
pub(super) struct Design {
    lags: Vec<usize>,
    level: usize,
    /// Sine and cosine of each harmonic, for each phase.
    waves: Vec<Vec<f64>>,
    /// First point that has all its features.
    start: usize,
    /// n − start rows.
    rows: Array2<f64>,
}

impl Design {
    /// The design for `z`, of which at least `shortest` points are learnt from.
    pub(super) fn new(z: &[f64], season: &Season, shortest: usize) -> Self {
        let mut lags: Vec<usize> = Vec::new();
        let near = if season.period.is_some() { NEAR } else { NEAR_WITHOUT_SEASON };
        lags.extend(1..=near);
        if let Some(period) = season.period {
            lags.extend([period, period + 1, period - 1, 2 * period, 2 * period + 1]);
        }
        if let Some(long) = season.long {
            lags.extend([long, long + 1, long - 1]);
        }
        let mut kept: Vec<usize> = Vec::new();
        for lag in lags {
            if lag >= 1 && lag < shortest / LAG_SHARE && !kept.contains(&lag) {
                kept.push(lag);
            }
        }
        let lags = kept;
        let mut this = Self {
            lags,
            level: season.period.unwrap_or(LEVEL_WITHOUT_SEASON).min(shortest / LAG_SHARE),
            waves: Vec::new(),
            start: 0,
            rows: Array2::zeros((0, 0)),
        };
        let mut harmonics = season.period.map_or(0, |period| WAVES_MAX.min((period - 1) / 2));
        // A short history carries fewer features: waves go first, then the farthest lags.
        loop {
            let reach = this.lags.iter().copied().max().unwrap_or(0).max(this.level);
            let features = 2 + this.lags.len() + 2 * harmonics;
            if shortest.saturating_sub(reach) >= ROWS_PER_FEATURE * features {
                this.start = reach;
                break;
            }
            if harmonics > 0 {
                harmonics -= 1;
            } else if this.lags.len() > 1 {
                this.lags.pop();
            } else {
                this.level = this.level.min(4);
                this.start = this.level.max(1);
                break;
            }
        }
        if let Some(period) = season.period
            && harmonics > 0
        {
            this.waves = (0..period)
                .map(|phase| {
                    (1..=harmonics)
                        .flat_map(|k| {
                            let (sin, cos) =
                                (TAU * (k * phase % period) as f64 / period as f64).sin_cos();
                            [sin, cos]
                        })
                        .collect()
                })
                .collect();
        }
        this.fill(z);
        this
    }

    fn features(&self) -> usize {
        2 + self.lags.len() + self.waves.first().map_or(0, Vec::len)
    }

    fn fill(&mut self, z: &[f64]) {
        let width = self.features() + 1;
        let mut rows = Vec::with_capacity((z.len() - self.start) * width);
        let mut sum: f64 = z[self.start - self.level..self.start].iter().sum();
        for at in self.start..z.len() {
            self.row(z, at, at, sum, &mut rows);
            rows.push(z[at]);
            sum += z[at] - z[at - self.level];
        }
        self.rows = Array2::from_shape_vec((z.len() - self.start, width), rows)
            .expect("each row has the same width");
    }

    /// Appends the features of the point at `z[at]`, which is number `number` of the series.
    fn row(&self, z: &[f64], at: usize, number: usize, level_sum: f64, out: &mut Vec<f64>) {
        out.push(1.0);
        out.extend(self.lags.iter().map(|lag| z[at - lag]));
        out.push(level_sum / self.level.max(1) as f64);
        if !self.waves.is_empty() {
            out.extend_from_slice(&self.waves[number % self.waves.len()]);
        }
    }

    /// Products of all rows that end in `points` with each other, features + 1 square.
    fn products(&self, points: Range<usize>) -> Array2<f64> {
        let width = self.features() + 1;
        let mut products = Array2::zeros((width, width));
        let points = points.start.max(self.start)..points.end.max(self.start);
        let rows = self.rows.slice(s![points.start - self.start..points.end - self.start, ..]);
        general_mat_mul(1.0, &rows.t(), &rows, 0.0, &mut products);
        products
    }

    /// Forecasts `horizon` steps behind the first `origin` points of `z`, each within `within`.
    pub(super) fn predict(
        &self,
        z: &[f64],
        origin: usize,
        coefficients: &[f64],
        horizon: usize,
        within: (f64, f64),
    ) -> Vec<f64> {
        let reach = self.start;
        let mut path = Vec::with_capacity(reach + horizon);
        path.extend_from_slice(&z[origin - reach..origin]);
        let mut sum: f64 = path[reach - self.level..].iter().sum();
        let mut row = Vec::with_capacity(coefficients.len());
        for step in 0..horizon {
            row.clear();
            self.row(&path, reach + step, origin + step, sum, &mut row);
            let value: f64 = row.iter().zip(coefficients).map(|(a, b)| a * b).sum();
            let value = value.clamp(within.0, within.1);
            path.push(value);
            sum += value - path[reach + step - self.level];
        }
        path.split_off(reach)
    }
}

/// Products that forget: each new block of rows comes in after the old ones have lost weight.
pub(super) struct Memory {
    products: Array2<f64>,
    /// What the past keeps of its weight over one block.
    keep: f64,
}

impl Memory {
    pub(super) fn new(design: &Design, keep: f64) -> Self {
        let width = design.features() + 1;
        Self { products: Array2::zeros((width, width)), keep }
    }

    /// Coefficients of the ridge regression; zeros (the forecast is the mean) when they cannot be
    /// computed.
    pub(super) fn coefficients(&self) -> Vec<f64> {
        let features = self.products.nrows() - 1;
        let mut matrix = self.products.slice(s![..features, ..features]).to_owned();
        let rows = matrix[[0, 0]];
        for j in 0..features {
            let mean = matrix[[0, j]] / rows;
            let around = (matrix[[j, j]] - mean * mean * rows).max(0.0);
            // The intercept carries no penalty; the small constant keeps doubled features apart.
            let penalty = if j == 0 { 0.0 } else { PENALTY * around + 1e-9 * rows };
            matrix[[j, j]] += penalty;
        }
        let mut right: Vec<f64> = (0..features).map(|j| self.products[[j, features]]).collect();
        match Cholesky::new(matrix.view()) {
            Some(factor) => {
                factor.solve(&mut right);
                right
            }
            None => vec![0.0; features],
        }
    }
}

/// Takes the rows up to point `to` into all `memories`, from point `from` on, in blocks of `block`
/// points.
pub(super) fn learn(
    design: &Design,
    memories: &mut [Memory],
    (from, to): (usize, usize),
    block: usize,
) {
    let mut at = from.max(design.start);
    while at < to {
        let next = (at + block).min(to);
        let products = design.products(at..next);
        // A part of a block forgets a part.
        let share = (next - at) as f64 / block as f64;
        for memory in memories.iter_mut() {
            let keep = memory.keep.powf(share);
            memory.products.zip_mut_with(&products, |old, new| *old = keep * *old + new);
        }
        at = next;
    }
}
