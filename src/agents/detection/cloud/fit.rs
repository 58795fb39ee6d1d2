//! The arithmetic of learning from a table of rows.

use ndarray::{Array1, Array2};

use super::{CENTRE_SHARE, FIT_SHARE, SMOOTH, UNIT_QUANTILE};
use crate::analytics::multivariate::{Cholesky, ledoit_wolf};
use crate::analytics::stats::{quantile, slope};

/// Smoothing has settled after this many of its time constants: 95 % of its start is forgotten.
const SETTLED: f64 = 3.0;

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

/// Worst distance of rows that a model had not seen, over that model's own unit: the last part
/// judged by the first and the first by the last; the smaller one and the larger one. For the
/// larger one the rows at the beginning, whose smoothing had not settled, do not count.
pub(super) fn worst_unseen(table: &Array2<f64>, times: &[f64]) -> (f64, f64) {
    let rows = table.nrows();
    let part = share_of(rows, FIT_SHARE);
    let unseen = |fit: (usize, usize), test: (usize, usize)| -> Option<Vec<f64>> {
        let (centre, _, factor) = metric_of(table, times, fit.0, fit.1)?;
        let unit = unit_of(table, fit.0, fit.1, &centre, &factor);
        let far = distances(table, test.0, test.1, &centre, &factor);
        Some(far.into_iter().map(|distance| distance / unit).collect())
    };
    let worst = |far: &[f64]| far.iter().copied().fold(0.0, f64::max);
    let forward = unseen((0, part), (part, rows));
    let backward = unseen((rows - part, rows), (0, rows - part));
    let settled = times.partition_point(|time| *time < times[0] + SETTLED * SMOOTH);
    match (forward, backward) {
        (Some(a), Some(b)) => {
            let rest = b.get(settled..).map_or(0.0, worst);
            let (a, b) = (worst(&a), worst(&b));
            (a.min(b), a.max(rest))
        }
        (a, b) => {
            let known = a.or(b).map_or(1.0, |far| worst(&far));
            (known, known)
        }
    }
}

/// Time in seconds after which the slowest of the columns has forgotten where it was: the first lag
/// at which its autocorrelation is below 1/e.
pub(super) fn memory_of(table: &Array2<f64>, times: &[f64]) -> f64 {
    let rows = table.nrows();
    let spacing = (times[rows - 1] - times[0]) / rows as f64;
    let longest = table
        .columns()
        .into_iter()
        .map(|column| {
            let mean = column.sum() / rows as f64;
            let along = |lag: usize| -> f64 {
                (lag..rows).map(|i| (column[i] - mean) * (column[i - lag] - mean)).sum()
            };
            let forgotten = along(0) / std::f64::consts::E;
            (1..rows).find(|lag| along(*lag) < forgotten).unwrap_or(rows)
        })
        .max();
    longest.unwrap_or(rows) as f64 * spacing
}
