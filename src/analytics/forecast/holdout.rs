//! Rolling hold-outs: every member forecasts from origins inside the history, where the answer is
//! known. Weights, bands and paths come from there.
//!
//! Source: L. J. Tashman, Int. J. Forecasting 16(4), 2000.

use super::members::{self, MEMBERS, Member};
use super::ridge::{self, Design, Memory};
use super::season::Season;

/// Origins at most, besides the end of the series.
pub(super) const ORIGINS_MAX: usize = 20;
/// Origins at least: they move closer together in a short history.
const ORIGINS_MIN: usize = 4;
/// Origins lie this share of the horizon apart.
const APART: usize = 2;
/// Weight of a member: its mean absolute error to this power, inverted.
const SHARPNESS: i32 = 3;
/// Parts of the horizon that have weights of their own.
const PARTS: usize = 4;
/// What a season keeps of its weight in the two regressions.
const KEEP: [f64; 2] = [0.98, 0.75];
/// Points that stand for a season where there is none.
const SEASON_WITHOUT: usize = 24;
/// A regression may leave the range of the history by this share of it.
const OUTSIDE: f64 = 0.5;

/// What all members did, and what their weighted mean does.
pub(super) struct Trial {
    /// The forecast.
    pub(super) mean: Vec<f64>,
    /// What was missed at each origin: true value minus forecast, NaN where not known.
    pub(super) missed: Vec<Vec<f64>>,
    /// What was forecast there.
    said: Vec<Vec<f64>>,
    /// How many horizons fit side by side into the span of the origins.
    pub(super) disjoint: f64,
    weights: Vec<Vec<f64>>,
}

impl Trial {
    /// Lets all members forecast `horizon` steps of `z` from all origins.
    ///
    /// `known` says which points are real; only those count as answers.
    pub(super) fn new(z: &[f64], known: &[bool], season: &Season, horizon: usize) -> Self {
        let origins = origins(z.len(), season, horizon);
        let shortest = origins.first().copied().unwrap_or(z.len());
        let design = Design::new(z, season, shortest);
        let low = z.iter().copied().fold(f64::INFINITY, f64::min);
        let high = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let within = (low - OUTSIDE * (high - low), high + OUTSIDE * (high - low));
        let block = season.period.unwrap_or(SEASON_WITHOUT);
        let mut memories = KEEP.map(|keep| Memory::new(&design, keep));
        let mut from = 0;
        let mut forecasts: Vec<Vec<Vec<f64>>> = Vec::with_capacity(origins.len() + 1);
        for origin in origins.iter().copied().chain([z.len()]) {
            ridge::learn(&design, &mut memories, (from, origin), block);
            from = origin;
            let [slow, fast] = [memories[0].coefficients(), memories[1].coefficients()];
            let regression = (&design, [slow.as_slice(), fast.as_slice()], within);
            forecasts.push(members::all(z, origin, season, horizon, regression));
        }
        let last = forecasts.pop().unwrap_or_default();
        let answer = |origin: usize, step: usize| {
            if known[origin + step] { z[origin + step] } else { f64::NAN }
        };
        let errors = Errors::new(&origins, &forecasts, horizon, answer);
        let weights = errors.weights(|_| true);
        let mean = combine(&last, &weights, horizon);
        let said: Vec<Vec<f64>> = origins
            .iter()
            .zip(&forecasts)
            .map(|(origin, forecasts)| {
                // What was missed counts for the bands only when it had no say in the weights;
                // in a short history the others overlap it, but are not the same.
                let far = |other: usize| origins[other].abs_diff(*origin) >= horizon;
                let apart = if (0..origins.len()).any(far) {
                    errors.weights(far)
                } else {
                    errors.weights(|other| origins[other] != *origin)
                };
                combine(forecasts, &apart, horizon)
            })
            .collect();
        let missed = origins
            .iter()
            .zip(&said)
            .map(|(origin, said)| {
                said.iter().enumerate().map(|(step, said)| answer(*origin, step) - said).collect()
            })
            .collect();
        let span = origins.last().zip(origins.first()).map_or(0, |(last, first)| last - first);
        Self { mean, missed, said, disjoint: 1.0 + span as f64 / horizon as f64, weights }
    }

    /// Origins inside the history.
    pub(super) fn origins(&self) -> usize {
        self.missed.len()
    }

    /// Mean absolute error of the combined forecast at the origins, in the unit that `back` leads
    /// to.
    pub(super) fn error(&self, back: impl Fn(f64) -> f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for (missed, said) in self.missed.iter().flatten().zip(self.said.iter().flatten()) {
            if !missed.is_nan() {
                sum += (back(said + missed) - back(*said)).abs();
                count += 1.0;
            }
        }
        if count > 0.0 { sum / count } else { f64::INFINITY }
    }

    /// Members that are used, with their weights averaged over the horizon.
    pub(super) fn mean_weights(&self) -> Vec<(Member, f64)> {
        let parts = self.weights.len() as f64;
        MEMBERS
            .iter()
            .enumerate()
            .map(|(index, member)| {
                (*member, self.weights.iter().map(|part| part[index]).sum::<f64>() / parts)
            })
            .filter(|(_, weight)| *weight > 0.0)
            .collect()
    }
}

/// The first origin leaves half of the history (and two seasons) to learn from, the last one the
/// horizon to be judged.
fn origins(points: usize, season: &Season, horizon: usize) -> Vec<usize> {
    let last = points - horizon;
    let first = (points / 2).max(2 * season.period.unwrap_or(0) + 1).min(last);
    let wide = (horizon / APART).max(1);
    let apart = wide.min(((last - first) / (ORIGINS_MIN - 1)).max(1));
    let count = ((last - first) / apart + 1).min(ORIGINS_MAX);
    (0..count).rev().map(|back| last - back * apart).collect()
}

/// Mean absolute error of each member at each origin in each part of the horizon.
struct Errors {
    /// By origin, part, member; NaN where nothing is known or the member does not fit.
    by: Vec<Vec<Vec<f64>>>,
    parts: usize,
}

impl Errors {
    fn new(
        origins: &[usize],
        forecasts: &[Vec<Vec<f64>>],
        horizon: usize,
        answer: impl Fn(usize, usize) -> f64,
    ) -> Self {
        let parts = PARTS.min(horizon);
        let by = origins
            .iter()
            .zip(forecasts)
            .map(|(origin, forecasts)| {
                (0..parts)
                    .map(|part| {
                        let steps = part * horizon / parts..(part + 1) * horizon / parts;
                        forecasts
                            .iter()
                            .map(|forecast| {
                                let (mut sum, mut count) = (0.0, 0.0);
                                for step in steps.clone() {
                                    let off = forecast
                                        .get(step)
                                        .map_or(f64::NAN, |value| answer(*origin, step) - value);
                                    if !off.is_nan() {
                                        sum += off.abs();
                                        count += 1.0;
                                    }
                                }
                                if count > 0.0 { sum / count } else { f64::NAN }
                            })
                            .collect()
                    })
                    .collect()
            })
            .collect();
        Self { by, parts }
    }

    /// Weights by part and member from the origins that `counts`; they sum to 1 in each part. The
    /// last value alone when no origin counts.
    fn weights(&self, counts: impl Fn(usize) -> bool) -> Vec<Vec<f64>> {
        let members = MEMBERS.len();
        (0..self.parts)
            .map(|part| {
                let mut mean = vec![0.0; members];
                let mut origins = vec![0.0; members];
                for (_, errors) in self.by.iter().enumerate().filter(|(at, _)| counts(*at)) {
                    for (member, error) in errors[part].iter().enumerate() {
                        if error.is_finite() {
                            mean[member] += error;
                            origins[member] += 1.0;
                        }
                    }
                }
                for (mean, origins) in mean.iter_mut().zip(&origins) {
                    *mean = if *origins > 0.0 { *mean / origins } else { f64::INFINITY };
                }
                // Below a millionth of the spread of the series errors are rounding.
                let best = mean.iter().copied().fold(f64::INFINITY, f64::min).max(1e-6);
                let mut weights: Vec<f64> =
                    mean.iter().map(|mean| (best / mean.max(1e-6)).powi(SHARPNESS)).collect();
                let sum: f64 = weights.iter().sum();
                if sum.is_finite() && sum > 0.0 {
                    weights.iter_mut().for_each(|weight| *weight /= sum);
                } else {
                    weights = vec![0.0; members];
                    weights[0] = 1.0;
                }
                weights
            })
            .collect()
    }
}

/// The weighted mean; weights go over from the middle of one part to the middle of the next.
fn combine(forecasts: &[Vec<f64>], weights: &[Vec<f64>], horizon: usize) -> Vec<f64> {
    let parts = weights.len();
    (0..horizon)
        .map(|step| {
            let place = (step as f64 + 0.5) * parts as f64 / horizon as f64 - 0.5;
            let place = place.clamp(0.0, (parts - 1) as f64);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 0 and the number of parts"
            )]
            let part = place.floor() as usize;
            let share = place - part as f64;
            let next = (part + 1).min(parts - 1);
            forecasts
                .iter()
                .enumerate()
                .filter(|(_, forecast)| !forecast.is_empty())
                .map(|(member, forecast)| {
                    let weight =
                        weights[part][member] * (1.0 - share) + weights[next][member] * share;
                    weight * forecast[step]
                })
                .sum()
        })
        .collect()
}
