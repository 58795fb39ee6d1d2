//! How far estimates were off on units the model had not seen, as a band round the next one.
//!
//! Conformal by unit: residuals come from models that were grown without the unit, each unit counts
//! once however many rows it has, and the quantiles are moved
//! outwards by half of what n + 1 units ask for. The band depends on
//! the estimate, because the end is known better than the middle.
//!
//! Sources: V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005 (split
//! and Mondrian conformal); R. Foygel Barber et al., "Predictive inference with the jackknife+",
//! 2021 (residuals of models without the case).

use serde::{Deserialize, Serialize};

/// Estimates at which the band is kept.
const KNOTS: usize = 9;
/// Share of the residuals that speak for one knot.
const NEIGHBOURS: f64 = 0.25;
/// Share of units that shall lie below the lower and above the upper end.
const TAIL: f64 = 0.1;
/// How much of the correction for n units instead of endlessly many is made: 1 would promise 80 %
/// for every single unit, and with a dozen units that is their whole span.
const UNSEEN: f64 = 0.5;

/// Ends of the band, relative to the estimate, at some estimates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Bands {
    at: Vec<f32>,
    low: Vec<f32>,
    high: Vec<f32>,
}

/// What was estimated for a row of a unit the model had not seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Residual {
    pub(super) estimate: f64,
    pub(super) truth: f64,
    /// One divided by the rows of the unit.
    pub(super) weight: f64,
}

impl Bands {
    /// Learns the bands from residuals of `units` units.
    #[expect(clippy::cast_possible_truncation, reason = "a band needs no more digits")]
    pub(super) fn fit(mut residuals: Vec<Residual>, units: usize) -> Self {
        residuals.sort_by(|a, b| a.estimate.total_cmp(&b.estimate));
        let total: f64 = residuals.iter().map(|residual| residual.weight).sum();
        let n = units.max(1) as f64;
        let tail = (TAIL - UNSEEN * (1.0 - TAIL) / n).clamp(0.0, 0.5);
        let mut this = Self { at: Vec::new(), low: Vec::new(), high: Vec::new() };
        for knot in 0..KNOTS {
            let middle = (knot as f64 + 0.5) / KNOTS as f64;
            let from = (middle - NEIGHBOURS / 2.0).clamp(0.0, 1.0 - NEIGHBOURS) * total;
            let to = from + NEIGHBOURS * total;
            let (mut seen, mut near) = (0.0, Vec::new());
            for residual in &residuals {
                seen += residual.weight;
                if seen >= from && seen <= to {
                    near.push(*residual);
                }
            }
            if near.is_empty() {
                continue;
            }
            let weight: f64 = near.iter().map(|residual| residual.weight).sum();
            let at = near.iter().map(|it| it.estimate * it.weight).sum::<f64>() / weight;
            near.sort_by(|a, b| (a.truth - a.estimate).total_cmp(&(b.truth - b.estimate)));
            let quantile = |share: f64| {
                let mut seen = 0.0;
                for residual in &near {
                    seen += residual.weight;
                    if seen >= share * weight {
                        return residual.truth - residual.estimate;
                    }
                }
                near.last().map_or(0.0, |residual| residual.truth - residual.estimate)
            };
            this.at.push(at as f32);
            this.low.push(quantile(tail).min(0.0) as f32);
            this.high.push(quantile(1.0 - tail).max(0.0) as f32);
        }
        this
    }

    /// Lower and upper end of the band round an estimate.
    pub(super) fn around(&self, estimate: f64) -> (f64, f64) {
        let low = self.between(&self.low, estimate);
        let high = self.between(&self.high, estimate);
        (estimate + low, estimate + high)
    }

    fn between(&self, ends: &[f32], estimate: f64) -> f64 {
        let after = self.at.partition_point(|at| f64::from(*at) <= estimate);
        if after == 0 || after == self.at.len() {
            return ends.get(after.saturating_sub(1)).map_or(0.0, |end| f64::from(*end));
        }
        let (from, to) = (f64::from(self.at[after - 1]), f64::from(self.at[after]));
        let share = (estimate - from) / (to - from).max(f64::MIN_POSITIVE);
        f64::from(ends[after - 1]) * (1.0 - share) + f64::from(ends[after]) * share
    }

    pub(super) fn is_sound(&self) -> bool {
        self.at.len() == self.low.len()
            && self.at.len() == self.high.len()
            && self.at.iter().chain(&self.low).chain(&self.high).all(|value| value.is_finite())
    }
}
