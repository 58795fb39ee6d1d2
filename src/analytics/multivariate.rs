//! How far a vector lies from a cloud of vectors: shrunk covariance, Mahalanobis distance, and
//! principal components with T² and SPE.

use linfa_linalg::eigh::{EigSort, Eigh};
use ndarray::{Array1, Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// Mean of the rows of `rows` (n × p).
#[must_use]
pub fn centre(rows: ArrayView2<'_, f64>) -> Array1<f64> {
    rows.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(rows.ncols()))
}

/// Covariance of the rows of `rows` (n × p, any unit) around `middle`, shrunk towards a multiple
/// of the identity; p × p. Also the weight of the identity, 0 to 1.
///
/// The columns should have like scales: the target has one variance for all of them.
///
/// Source: O. Ledoit, M. Wolf, J. Multivariate Analysis 88, 2004, lemma 3.2 to 3.4.
#[must_use]
pub fn ledoit_wolf(rows: ArrayView2<'_, f64>, middle: &Array1<f64>) -> (Array2<f64>, f64) {
    let (n, p) = rows.dim();
    if n == 0 || p == 0 {
        return (Array2::eye(p), 1.0);
    }
    let centred = &rows - middle;
    let sample = centred.t().dot(&centred) / n as f64;
    let scale = sample.diag().sum() / p as f64;
    let target = Array2::<f64>::eye(p) * scale;
    let distance = (&sample - &target).mapv(|v| v * v).sum();
    let squares = centred.mapv(|v| v * v);
    let fourth = squares.t().dot(&squares) / n as f64;
    let noise = (fourth - sample.mapv(|v| v * v)).sum() / n as f64;
    let share = if distance > 0.0 { (noise / distance).clamp(0.0, 1.0) } else { 0.0 };
    (sample * (1.0 - share) + target * share, share)
}

/// A positive-definite matrix as its lower triangle L, matrix = L Lᵀ, row by row.
///
/// Invariant: `lower.len() == size * (size + 1) / 2`, diagonal positive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cholesky {
    size: usize,
    lower: Vec<f64>,
}

impl Cholesky {
    /// Factors a symmetric matrix (p × p); `None` when it is not positive definite.
    #[must_use]
    pub fn new(matrix: ArrayView2<'_, f64>) -> Option<Self> {
        let size = matrix.nrows();
        let mut lower: Vec<f64> = Vec::with_capacity(size * (size + 1) / 2);
        for i in 0..size {
            let row = i * (i + 1) / 2;
            for j in 0..=i {
                let other = j * (j + 1) / 2;
                let sum: f64 = (0..j).map(|k| lower[row + k] * lower[other + k]).sum();
                let rest = matrix[[i, j]] - sum;
                if i == j {
                    if rest.is_nan() || rest <= 0.0 {
                        return None;
                    }
                    lower.push(rest.sqrt());
                } else {
                    lower.push(rest / lower[other + j]);
                }
            }
        }
        Some(Self { size, lower })
    }

    /// Side of the matrix.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Overwrites `vector` (length p) with L⁻¹ `vector` and returns the sum of its squares: the
    /// squared Mahalanobis distance. p²/2 multiplications, no allocation.
    pub fn whiten(&self, vector: &mut [f64]) -> f64 {
        let mut total = 0.0;
        let mut row = 0;
        for i in 0..self.size {
            let (done, rest) = vector.split_at_mut(i);
            let entries = &self.lower[row..row + i];
            let sum: f64 = entries.iter().zip(done.iter()).map(|(l, v)| l * v).sum();
            let value = (rest[0] - sum) / self.lower[row + i];
            rest[0] = value;
            total += value * value;
            row += i + 1;
        }
        total
    }

    /// Overwrites `vector` (length p) with matrix⁻¹ `vector`.
    pub fn solve(&self, vector: &mut [f64]) {
        self.whiten(vector);
        for i in (0..self.size).rev() {
            let value = vector[i] / self.lower[i * (i + 1) / 2 + i];
            vector[i] = value;
            let row = &self.lower[i * (i + 1) / 2..];
            for (entry, lower) in vector[..i].iter_mut().zip(row) {
                *entry -= lower * value;
            }
        }
    }

    /// What each entry of `departure` adds to its squared distance: dᵢ (matrix⁻¹ d)ᵢ. They sum to
    /// the distance; a negative one says that the entry makes the others more plausible.
    #[must_use]
    pub fn contributions(&self, departure: &[f64]) -> Vec<f64> {
        let mut solved = departure.to_vec();
        self.solve(&mut solved);
        for (share, d) in solved.iter_mut().zip(departure) {
            *share *= d;
        }
        solved
    }
}

/// Principal components of standardised rows, with the two distances that go with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Components {
    /// Kept directions, one a row of p.
    directions: Vec<Vec<f64>>,
    /// Variance along each.
    variances: Vec<f64>,
    /// Mean of the rows.
    mean: Vec<f64>,
}

/// T² and SPE of one row.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Distances {
    /// Hotelling's T²: squared distance within the kept directions, in variances.
    pub t2: f64,
    /// Squared prediction error: squared length of what the kept directions do not explain.
    pub spe: f64,
}

impl Components {
    /// Finds the directions that carry `share` of the variance of `rows` (n × p, standardised),
    /// but at least one is left out, so that SPE has something to measure. `None` below three
    /// rows or two columns, or when the decomposition fails.
    ///
    /// Source: J. E. Jackson, G. S. Mudholkar, Technometrics 21(3), 1979. Eigenvectors by
    /// `linfa-linalg`: the truncated decomposition of `linfa-reduction` 0.8 (LOBPCG, ten steps) does
    /// not converge on tables of a few columns.
    #[must_use]
    pub fn fit(rows: &Array2<f64>, share: f64) -> Option<Self> {
        let (n, p) = rows.dim();
        if n < 3 || p < 2 {
            return None;
        }
        let most = (p - 1).min(n - 1);
        let mean = centre(rows.view());
        let centred = rows - &mean;
        let covariance = centred.t().dot(&centred) / (n as f64 - 1.0);
        let total = covariance.diag().sum();
        let (found, vectors) = covariance.eigh().ok()?.sort_eig_desc();
        let (mut directions, mut variances, mut carried) = (Vec::new(), Vec::new(), 0.0);
        for (direction, variance) in vectors.columns().into_iter().zip(&found).take(most) {
            if carried >= share * total || !variance.is_finite() || *variance <= 1e-9 * total {
                break;
            }
            carried += variance;
            directions.push(direction.to_vec());
            variances.push(*variance);
        }
        (!directions.is_empty()).then(|| Self { directions, variances, mean: mean.to_vec() })
    }

    /// Both distances of one row of p.
    #[must_use]
    pub fn distances(&self, row: &[f64]) -> Distances {
        let square = |d: f64| d * d;
        let length: f64 = row.iter().zip(&self.mean).map(|(v, m)| square(v - m)).sum();
        let (mut t2, mut explained) = (0.0, 0.0);
        for (direction, variance) in self.directions.iter().zip(&self.variances) {
            let along: f64 = direction
                .iter()
                .zip(row.iter().zip(&self.mean))
                .map(|(a, (v, m))| a * (v - m))
                .sum();
            t2 += along * along / variance;
            explained += along * along;
        }
        Distances { t2, spe: (length - explained).max(0.0) }
    }

    /// How many directions were kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.directions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn noise(n: usize, p: usize, seed: u64) -> Array2<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        // Sum of twelve uniforms: mean 0, variance 1.
        Array2::from_shape_fn((n, p), |_| (0..12).map(|_| random.f64()).sum::<f64>() - 6.0)
    }

    #[test]
    fn distance_in_a_known_metric() {
        // Inverse of [[4, 2], [2, 3]] is [[3, -2], [-2, 4]] / 8.
        let factor = Cholesky::new(array![[4.0, 2.0], [2.0, 3.0]].view()).unwrap();
        let mut d = [1.0, 2.0];
        assert!((factor.whiten(&mut d) - (3.0 - 8.0 + 16.0) / 8.0).abs() < 1e-12);
        let mut solved = [1.0, 2.0];
        factor.solve(&mut solved);
        assert!((solved[0] + 1.0 / 8.0).abs() < 1e-12 && (solved[1] - 6.0 / 8.0).abs() < 1e-12);
        let shares = factor.contributions(&[1.0, 2.0]);
        assert!((shares.iter().sum::<f64>() - 11.0 / 8.0).abs() < 1e-12);
    }

    #[test]
    fn a_matrix_that_is_not_definite_is_refused() {
        assert_eq!(Cholesky::new(array![[1.0, 2.0], [2.0, 1.0]].view()), None);
        assert_eq!(Cholesky::new(array![[f64::NAN]].view()), None);
    }

    #[test]
    fn shrinkage_matches_a_worked_example() {
        // Rows ±(1,0), ±(0,2): sample diag(.5, 2), scale 1.25, d² = 2 (.75²) = 1.125;
        // fourth moments diag(.5, 8), noise = (.5 − .25 + 8 − 4 + 0)/4 = 1.0625; share .9444….
        let rows = array![[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]];
        let (matrix, share) = ledoit_wolf(rows.view(), &Array1::zeros(2));
        assert!((share - 1.0625 / 1.125).abs() < 1e-12, "{share}");
        assert!((matrix[[0, 0]] - (0.5 * (1.0 - share) + 1.25 * share)).abs() < 1e-12);
        assert!(matrix[[0, 1]].abs() < 1e-12);
    }

    #[test]
    fn shrinkage_fades_with_many_rows() {
        let mut rows = noise(4000, 3, 5);
        rows.column_mut(0).mapv_inplace(|v| 3.0 * v);
        let middle = centre(rows.view());
        let (matrix, share) = ledoit_wolf(rows.view(), &middle);
        assert!(share < 0.01, "{share}");
        assert!((matrix[[0, 0]] - 9.0).abs() < 0.6);
    }

    #[test]
    fn t2_and_spe_split_the_distance() {
        let base = noise(500, 2, 9);
        // Columns 0 and 1 move together, column 2 is their sum with little noise.
        let rows = Array2::from_shape_fn((500, 3), |(i, j)| match j {
            0 => base[[i, 0]],
            1 => base[[i, 0]] + 0.1 * base[[i, 1]],
            _ => -base[[i, 0]] + 0.05 * base[[i, 1]],
        });
        let components = Components::fit(&rows, 0.9).unwrap();
        assert_eq!(components.kept(), 1);
        let along = components.distances(&[3.0, 3.0, -3.0]);
        let across = components.distances(&[1.0, -1.0, 0.0]);
        assert!(along.t2 > 6.0 && along.spe < 0.1, "{along:?}");
        assert!(across.t2 < 0.1 && across.spe > 1.8, "{across:?}");
    }

    #[test]
    fn all_components_together_are_the_mahalanobis_distance() {
        let mut rows = noise(200, 4, 11);
        for mut row in rows.outer_iter_mut() {
            row[1] += 2.0 * row[0];
        }
        // With all directions but the least one, T² misses only that one's share; the identity is
        // exact for a row within their span, such as a multiple of the first direction.
        let components = Components::fit(&rows, 1.0).unwrap();
        assert_eq!(components.kept(), 3);
        let middle = centre(rows.view());
        let centred = &rows - &middle;
        let factor = Cholesky::new((centred.t().dot(&centred) / 199.0).view()).unwrap();
        let direction = components.directions[0].clone();
        let row: Vec<f64> = direction.iter().zip(&middle).map(|(d, m)| m + 3.0 * d).collect();
        let mut departure: Vec<f64> = direction.iter().map(|d| 3.0 * d).collect();
        let distances = components.distances(&row);
        assert!((distances.t2 - factor.whiten(&mut departure)).abs() < 1e-9);
        assert!(distances.spe < 1e-9);
    }
}
