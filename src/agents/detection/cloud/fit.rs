//! The arithmetic of learning from a table of rows.

use ndarray::{Array1, Array2};

use super::{CENTRE_SHARE, FIT_SHARE, UNIT_QUANTILE};
use crate::analytics::multivariate::{Cholesky, ledoit_wolf};
use crate::analytics::stats::{quantile, slope};

/// A share of a number of rows.
pub(super) fn share_of(rows: usize, share: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the rows"
    )]
    {
        (rows as f64 * share) as usize
    }
}

/// Drops every second row.
pub(super) fn thin<T: Copy>(table: &mut Vec<T>, columns: usize) {
    let mut kept = 0;
    for row in (0..table.len() / columns.max(1)).step_by(2) {
        table.copy_within(row * columns..(row + 1) * columns, kept);
        kept += columns;
    }
    table.truncate(kept);
}

/// Whether a smoothed series moves so steadily that the period shows no level: the line explains
/// nine tenths of its variance.
pub(super) fn is_trending(times: &[f64], smooth: &[f64]) -> bool {
    let n = smooth.len() as f64;
    let mean_v = smooth.iter().sum::<f64>() / n;
    let mean_t = times.iter().sum::<f64>() / n;
    let slope = slope(times, smooth);
    let total: f64 = smooth.iter().map(|v| (v - mean_v).powi(2)).sum();
    let line: f64 = times.iter().map(|t| (slope * (t - mean_t)).powi(2)).sum();
    total > 0.0 && line > 0.9 * total
}

/// Centre, covariance and factor of the rows from `from` to `to`. The centre is where the rows are
/// at their end, and the covariance is around it: what moved while it was learnt may move on.
pub(super) fn metric_of(
    table: &Array2<f64>,
    times: &[f64],
    from: usize,
    to: usize,
) -> Option<(Array1<f64>, Array2<f64>, Cholesky)> {
    let rows = table.slice(ndarray::s![from..to, ..]);
    let (first, last) = (times[from], times[to - 1]);
    let memory = (CENTRE_SHARE * (last - first)).max(f64::MIN_POSITIVE);
    let mut middle = Array1::zeros(table.ncols());
    let mut total = 0.0;
    for (row, time) in rows.outer_iter().zip(&times[from..to]) {
        let weight = (-(last - time) / memory).exp();
        middle.scaled_add(weight, &row);
        total += weight;
    }
    middle /= total;
    let (mut covariance, _) = ledoit_wolf(rows, &middle);
    // Keeps columns that stood still in this part from having no variance at all.
    for i in 0..covariance.nrows() {
        covariance[[i, i]] += 1e-6;
    }
    let factor = Cholesky::new(covariance.view())?;
    Some((middle, covariance, factor))
}

fn distances(
    table: &Array2<f64>,
    from: usize,
    to: usize,
    centre: &Array1<f64>,
    factor: &Cholesky,
) -> Vec<f64> {
    let mut row = vec![0.0; table.ncols()];
    (from..to)
        .map(|i| {
            for (j, value) in row.iter_mut().enumerate() {
                *value = table[[i, j]] - centre[j];
            }
            factor.whiten(&mut row)
        })
        .collect()
}

pub(super) fn unit_of(
    table: &Array2<f64>,
    from: usize,
    to: usize,
    centre: &Array1<f64>,
    factor: &Cholesky,
) -> f64 {
    quantile(&mut distances(table, from, to, centre, factor), UNIT_QUANTILE).max(1e-12)
}

/// Worst distance of rows that a model had not seen, over that model's own unit: the first part
/// judged by the last and the last by the first; the smaller one and the larger one.
pub(super) fn worst_unseen(table: &Array2<f64>, times: &[f64]) -> (f64, f64) {
    let rows = table.nrows();
    let part = share_of(rows, FIT_SHARE);
    let worst = |fit: (usize, usize), test: (usize, usize)| -> Option<f64> {
        let (centre, _, factor) = metric_of(table, times, fit.0, fit.1)?;
        let unit = unit_of(table, fit.0, fit.1, &centre, &factor);
        let far = distances(table, test.0, test.1, &centre, &factor);
        Some(far.into_iter().fold(0.0, f64::max) / unit)
    };
    let forward = worst((0, part), (part, rows));
    let backward = worst((rows - part, rows), (0, rows - part));
    match (forward, backward) {
        (Some(a), Some(b)) => (a.min(b), a.max(b)),
        (a, b) => {
            let known = a.or(b).unwrap_or(1.0);
            (known, known)
        }
    }
}
