//! Probabilities that come true as often as they say.

use serde::{Deserialize, Serialize};

/// Cases of the prior each side of the fit begins with, so that few rows do not decide alone.
const PRIOR: f64 = 1.0;
/// Probabilities nearer to 0 or 1 are not told apart.
const LEAST: f64 = 1e-6;

/// How raw probabilities are bent: log odds times `slope` plus `shift` (the shift of two classes
/// only).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Calibration {
    slope: f64,
    shift: f64,
}

impl Calibration {
    /// Learns it from raw probabilities of rows the model had not seen, and their classes.
    pub(super) fn fit(raw: &[Vec<f64>], classes: &[usize]) -> Self {
        let as_it_is = Self { slope: 1.0, shift: 0.0 };
        let two = raw.first().is_some_and(|p| p.len() == 2);
        // The loss is convex: a coarse descent by halving steps finds the bottom.
        let (mut best, mut least) = (as_it_is, as_it_is.loss(raw, classes));
        let mut step = 0.5;
        while step > 0.002 {
            let moves = [(step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step)];
            let mut moved = false;
            for (slope, shift) in moves {
                if !two && shift != 0.0_f64 {
                    continue;
                }
                let tried = Self {
                    slope: (best.slope * f64::exp(slope)).clamp(0.2, 5.0),
                    shift: best.shift + shift,
                };
                let loss = tried.loss(raw, classes);
                if loss < least - 1e-9 {
                    (best, least, moved) = (tried, loss, true);
                }
            }
            if !moved {
                step /= 2.0;
            }
        }
        best
    }

    fn loss(&self, raw: &[Vec<f64>], classes: &[usize]) -> f64 {
        let rows = raw.iter().zip(classes);
        let sum: f64 = rows.map(|(p, class)| -self.apply(p)[*class].max(LEAST).ln()).sum();
        sum + PRIOR * (self.slope.ln().powi(2) + self.shift.powi(2))
    }

    /// The probabilities, bent; they sum to 1.
    pub(super) fn apply(&self, raw: &[f64]) -> Vec<f64> {
        let log = |p: f64| p.clamp(LEAST, 1.0 - LEAST).ln();
        if let [first, second] = raw {
            let odds = self.slope * (log(*second) - log(*first)) + self.shift;
            let p = crate::analytics::trees::logistic(odds);
            return vec![1.0 - p, p];
        }
        let bent: Vec<f64> = raw.iter().map(|p| (self.slope * log(*p)).exp()).collect();
        let sum: f64 = bent.iter().sum();
        bent.into_iter().map(|p| p / sum).collect()
    }

    pub(super) fn is_sound(&self) -> bool {
        self.slope.is_finite() && self.slope > 0.0 && self.shift.is_finite()
    }
}
