//! Degradation: has a tag begun its way to its failure limit, and when will it be there?
//!
//! A life is normal until an unknown onset and wears afterwards, linearly or ever faster:
//! `y = b + a·g(t)` with `g = 0` before the onset `o` and `g = (exp(r(t−o)) − 1)/r` after it
//! (`r → 0`: a straight line). All onsets and rates of a grid are fitted and averaged by their
//! evidence, so that a doubtful onset or rate widens the band instead of hiding (Bayesian model
//! averaging: J. A. Hoeting et al., Statist. Sci. 14, 1999). The wear itself wanders as a Wiener
//! process in the transformed time `g` (G. A. Whitmore, F. Schenkelberg, Lifetime Data Anal. 3,
//! 1997), whose first passage over the limit is inverse Gaussian ([`super::survival`]).
//!
//! Neighbouring residuals resemble each other; evidence is therefore counted in effective
//! observations, `n(1−φ)/(1+φ)` with their lag-one correlation φ (G. V. Bayley, J. M. Hammersley,
//! J. R. Statist. Soc. Suppl. 8, 1946). The default answer is that no trend is proven.

use serde::{Deserialize, Serialize};

use super::survival::{first_passage_cdf, normal_cdf, quantile};
use crate::domain::event::JobSpec;
use crate::domain::reading::Reading;
use crate::domain::time::Timestamp;

/// Good readings below which nothing is said.
pub const READINGS_MIN: usize = 24;
/// Medians that a window is reduced to; more resolve nothing that the fit can use.
const BINS_MAX: usize = 160;
/// Shares of the history that are looked at, the longest first: a short trend at the end of a long
/// history is lost in the whole.
const WINDOWS: [f64; 3] = [1.0, 0.25, 1.0 / 16.0];
/// Onsets tried per window, evenly spaced.
const ONSETS: usize = 40;
/// Growth over the trend, as the exponent; zero is the straight line.
const RATES: [f64; 7] = [0.0, 0.7, 1.4, 2.2, 3.2, 4.5, 6.0];
/// Bins a trend needs.
const TREND_BINS_MIN: usize = 8;
/// A trend's log evidence over "nothing changes" (natural logarithm). The onset is searched for, so
/// more is needed than for one fixed hypothesis; set by the false alarms on correlated noise below.
const EVIDENCE_MIN: f64 = 12.0;
/// A trend's log evidence over "it jumped once and stays there".
const EVIDENCE_OVER_STEP_MIN: f64 = 1.5;
/// The same when too little is known of the time before the trend.
const EVIDENCE_ALONE_MIN: f64 = 20.0;
/// Rise in standard deviations of what is left over, and of what was before the trend …
const RISE_SIGMA_MIN: f64 = 4.0;
/// … and as a share of the way from normal to the limit.
const RISE_SHARE_MIN: f64 = 0.04;
/// Readings before the trend from which its scatter is known.
const BEFORE_MIN: usize = 40;
/// Slope of the trend's last part in standard errors: a trend that has stopped predicts nothing.
const LATE_SLOPE_MIN: f64 = 1.3;
/// Share of the trend that counts as its last part.
const LATE_SHARE: f64 = 0.4;
/// A median farther ahead than this multiple of the trend seen so far is a guess.
const AHEAD_MAX: f64 = 5.0;
/// Where the band is cut off, in lengths of the trend seen so far.
const HORIZON: f64 = 25.0;
/// Models whose weight is below this share of the best one's are left out of the average.
const WEIGHT_MIN: f64 = 0.01;
/// Models averaged at most.
const MODELS_MAX: usize = 24;
/// What no model of the past can know: that the wear changes its pace. Time is stretched by these
/// factors with these weights, for straight lines and for curves that get faster already. Set so
/// that the 80 % band covers about that on the lives of the calibration in the tests.
const PACES_STRAIGHT: [(f64, f64); 6] =
    [(0.1, 0.07), (0.22, 0.10), (0.4, 0.13), (0.65, 0.15), (1.0, 0.40), (1.3, 0.15)];
/// The same for growth that gets faster.
const PACES_CURVED: [(f64, f64); 5] =
    [(0.65, 0.12), (0.85, 0.2), (1.0, 0.3), (1.3, 0.23), (2.0, 0.15)];
/// Normal quadrature, five nodes (Abramowitz, Stegun, table 25.10, rescaled).
const NODES: [(f64, f64); 5] = [
    (-2.856_970_0, 0.011_257_4),
    (-1.355_626_2, 0.222_075_9),
    (0.0, 0.533_333_3),
    (1.355_626_2, 0.222_075_9),
    (2.856_970_0, 0.011_257_4),
];

/// The same, three nodes.
const LEVEL_NODES: [(f64, f64); 3] =
    [(-1.732_050_8, 1.0 / 6.0), (0.0, 2.0 / 3.0), (1.732_050_8, 1.0 / 6.0)];

/// What can be said of a tag's way to its limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outlook")]
pub enum Outlook {
    /// A trend is proven.
    Predicted(Estimate),
    /// Nothing is.
    Abstained {
        /// Why, in words.
        reason: String,
        /// Time of the newest reading, when there was one.
        as_of: Option<Timestamp>,
    },
}

/// A time to the limit. Times in seconds from `as_of`, values in the tag's unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// One in ten is shorter.
    pub p10: f64,
    /// Half are shorter.
    pub p50: f64,
    /// Nine in ten are shorter.
    pub p90: f64,
    /// Time of the newest reading.
    pub as_of: Timestamp,
    /// When the trend began.
    pub onset: Timestamp,
    /// The value now, smoothed.
    pub value: f64,
    /// What was normal.
    pub normal: f64,
    /// 1 as normal, 0 at the limit.
    pub health: f64,
    /// Share of the evidence for growth that gets faster.
    pub accelerating: f64,
    /// Probability that the drift goes towards the limit at all.
    #[serde(default)]
    pub drift_probability: f64,
    /// How sure the method is, 0 to 1.
    pub confidence: f64,
    /// Probability of reaching the limit within 7, 30 and 90 days.
    pub probability_7_30_90_d: [f64; 3],
}

/// Computes a [`JobSpec::Degradation`]: follows the tag's good readings between `from` and `to`
/// (oldest first, any spacing) to the limit. The answer is an [`Outlook`] as JSON.
///
/// # Errors
/// When the limit is not finite.
pub fn run_job(spec: &JobSpec, readings: &[Reading]) -> Result<serde_json::Value, String> {
    let JobSpec::Degradation { limit, upward, from, to, .. } = spec else {
        return Err("not a way to a limit".to_owned());
    };
    if !limit.is_finite() {
        return Err(format!("a limit of {limit} cannot be reached"));
    }
    let points: Vec<(Timestamp, f64)> = readings
        .iter()
        .filter(|reading| reading.quality.is_good() && reading.value.is_finite())
        .filter(|reading| reading.time <= *to && from.is_none_or(|from| reading.time >= from))
        .map(|reading| (reading.time, reading.value))
        .collect();
    serde_json::to_value(follow(&points, *limit, *upward)).map_err(|error| error.to_string())
}

/// Follows `points` (in order of time) to `limit`, which lies above (`upward`) or below.
#[must_use]
pub fn follow(points: &[(Timestamp, f64)], limit: f64, upward: bool) -> Outlook {
    let as_of = points.iter().map(|(time, _)| *time).max();
    let abstained = |reason: String| Outlook::Abstained { reason, as_of };
    let Some(end) = as_of else { return abstained("there is no good reading".to_owned()) };
    // Everything below looks upward.
    let sign = if upward { 1.0 } else { -1.0 };
    let mut series: Vec<(f64, f64)> = points
        .iter()
        .map(|(time, value)| (-end.since(*time).as_secs_f64(), sign * value))
        .collect();
    series.sort_by(|one, other| one.0.total_cmp(&other.0));
    let limit = sign * limit;
    let recent = median(series.iter().rev().take(7).map(|(_, value)| *value).collect());
    if recent >= limit {
        return Outlook::Predicted(Estimate {
            p10: 0.0,
            p50: 0.0,
            p90: 0.0,
            as_of: end,
            onset: end,
            value: sign * recent,
            normal: sign * recent,
            health: 0.0,
            accelerating: 0.0,
            drift_probability: 1.0,
            confidence: 1.0,
            probability_7_30_90_d: [1.0; 3],
        });
    }
    if series.len() < READINGS_MIN {
        return abstained(format!(
            "{} good readings are too few, {READINGS_MIN} are needed",
            series.len()
        ));
    }
    let mut reason = String::new();
    for share in WINDOWS {
        // Cut by time, not by count: decimated history may be denser in places.
        let from = series[0].0 * share;
        let start = series.partition_point(|(time, _)| *time < from);
        let window = &series[start..];
        if window.len() < READINGS_MIN {
            break;
        }
        match Window::reduce(window).and_then(|window| window.estimate(limit, &series)) {
            Ok(found) => {
                let back = std::time::Duration::try_from_secs_f64(found.trend_seconds);
                return Outlook::Predicted(Estimate {
                    as_of: end,
                    onset: end.before(back.unwrap_or_default()),
                    value: sign * found.estimate.value,
                    normal: sign * found.estimate.normal,
                    ..found.estimate
                });
            }
            // The whole history's reason says most.
            Err(why) if reason.is_empty() => reason = why,
            Err(_) => {}
        }
    }
    abstained(reason)
}

/// A window of the history, reduced to medians. Times run from −1 to 0.
struct Window {
    x: Vec<f64>,
    y: Vec<f64>,
    seconds: f64,
}

/// What a window tells.
struct Found {
    estimate: Estimate,
    trend_seconds: f64,
}

/// One onset and rate, fitted.
#[derive(Debug, Clone, Copy)]
struct Model {
    onset: f64,
    rate: f64,
    level: f64,
    slope: f64,
    /// Sum of squared residuals.
    rest: f64,
    /// Inverse of the normal equations: variance of level, of slope, and their covariance.
    inverse: (f64, f64, f64),
}

impl Model {
    fn basis(&self, x: f64) -> f64 {
        basis(x, self.onset, self.rate)
    }

    fn at(&self, x: f64) -> f64 {
        self.level + self.slope * self.basis(x)
    }
}

fn basis(x: f64, onset: f64, rate: f64) -> f64 {
    let since = (x - onset).max(0.0);
    if rate > 0.0 { (rate * since).exp_m1() / rate } else { since }
}

impl Window {
    fn reduce(series: &[(f64, f64)]) -> Result<Self, String> {
        let seconds = -series[0].0;
        if seconds <= 0.0 {
            return Err("all readings have one time".to_owned());
        }
        let bins = series.len().min(BINS_MAX);
        let (mut x, mut y) = (Vec::with_capacity(bins), Vec::with_capacity(bins));
        for bin in 0..bins {
            let part = &series[bin * series.len() / bins..(bin + 1) * series.len() / bins];
            let time = part.iter().map(|(time, _)| time).sum::<f64>() / part.len() as f64;
            x.push(time / seconds);
            y.push(median(part.iter().map(|(_, value)| *value).collect()));
        }
        let constant = y.iter().all(|value| (value - y[0]).abs() <= 1e-12 * y[0].abs());
        if constant {
            Err("the value does not move".to_owned())
        } else {
            Ok(Self { x, y, seconds })
        }
    }

    fn fit(&self, onset: f64, rate: f64) -> Option<Model> {
        let n = self.x.len() as f64;
        let (mut sg, mut sgg, mut sy, mut sgy) = (0.0, 0.0, 0.0, 0.0);
        for (x, y) in self.x.iter().zip(&self.y) {
            let g = basis(*x, onset, rate);
            sg += g;
            sgg += g * g;
            sy += y;
            sgy += g * y;
        }
        let determinant = n * sgg - sg * sg;
        if determinant <= 1e-12 * n * sgg {
            return None;
        }
        let slope = (n * sgy - sg * sy) / determinant;
        let level = (sy - slope * sg) / n;
        let inverse = (sgg / determinant, n / determinant, -sg / determinant);
        let mut model = Model { onset, rate, level, slope, rest: 0.0, inverse };
        model.rest = self.residuals(&model).map(|rest| rest * rest).sum();
        Some(model)
    }

    fn residuals<'a>(&'a self, model: &'a Model) -> impl Iterator<Item = f64> + 'a {
        self.x.iter().zip(&self.y).map(|(x, y)| y - model.at(*x))
    }

    /// All onsets and rates.
    fn models(&self) -> Vec<Model> {
        let last = self.x.len().saturating_sub(TREND_BINS_MIN);
        let onsets = ONSETS.min(last);
        let mut models = Vec::with_capacity(onsets * RATES.len());
        for step in 0..onsets {
            let onset = self.x[step * last / onsets];
            for growth in RATES {
                models.extend(self.fit(onset, growth / -onset));
            }
        }
        models
    }

    /// Least squares of the best single jump.
    fn best_step(&self) -> f64 {
        let total: f64 = self.y.iter().sum();
        let squares: f64 = self.y.iter().map(|y| y * y).sum();
        let n = self.y.len() as f64;
        let (mut left, mut count) = (0.0, 0.0);
        let mut best = squares - total * total / n;
        for y in &self.y[..self.y.len() - 1] {
            left += y;
            count += 1.0;
            let right = total - left;
            best = best.min(squares - left * left / count - right * right / (n - count));
        }
        best.max(0.0)
    }

    /// `history`: all readings, of which the window is the end.
    fn estimate(&self, limit: f64, history: &[(f64, f64)]) -> Result<Found, String> {
        let no_trend = || "no trend is proven".to_owned();
        let mut models = self.models();
        models.sort_by(|one, other| one.rest.total_cmp(&other.rest));
        let best = *models.first().ok_or_else(no_trend)?;
        let n = self.x.len() as f64;
        // Rounding of registers bounds how well anything can fit.
        let floor = n * (1e-6 * (limit - best.level)).powi(2);
        let rest = best.rest.max(floor);
        let residuals: Vec<f64> = self.residuals(&best).collect();
        let phi = correlation(&residuals);
        let effective = (n * (1.0 - phi) / (1.0 + phi)).max(4.0);
        let sigma = (rest / (n - 4.0).max(1.0)).sqrt();

        let mean = self.y.iter().sum::<f64>() / n;
        let flat: f64 = self.y.iter().map(|y| (y - mean).powi(2)).sum();
        let evidence = |other: f64| 0.5 * effective * (other.max(rest) / rest).ln();
        if best.slope <= 0.0 {
            return Err("it does not move towards the limit".to_owned());
        }
        let step = self.best_step();
        if step <= rest && 0.5 * n * (flat / step.max(f64::MIN_POSITIVE)).ln() > EVIDENCE_MIN {
            return Err("it jumped to another level and stays there".to_owned());
        }
        if evidence(flat) < EVIDENCE_MIN {
            return Err(no_trend());
        }
        if best.level >= limit {
            return Err("what was normal lies beyond the limit".to_owned());
        }
        if evidence(step) < EVIDENCE_OVER_STEP_MIN {
            return Err("it jumped to another level and stays there".to_owned());
        }
        let rise = best.at(0.0) - best.level;
        let way = limit - best.level;
        // A slow wander looks like a trend for a while; that there were none before tells them
        // apart, and where nothing was before, only very much evidence does.
        let far = match before(history, best.onset * self.seconds) {
            Some((normal, scatter)) => best.at(0.0) - normal >= RISE_SIGMA_MIN * scatter,
            None => evidence(flat) >= EVIDENCE_ALONE_MIN,
        };
        if !far || rise < RISE_SIGMA_MIN * sigma || rise < RISE_SHARE_MIN * way {
            return Err("the trend is still too small to follow".to_owned());
        }
        if !self.goes_on(best.onset, effective / n) {
            return Err("the trend has stopped".to_owned());
        }
        self.predict(limit, &models, effective, phi, sigma)
    }

    /// Whether the last part of the trend still rises.
    fn goes_on(&self, onset: f64, effective_share: f64) -> bool {
        let first = self.x.partition_point(|x| *x < onset * LATE_SHARE);
        let first = first.min(self.x.len() - TREND_BINS_MIN / 2);
        let (x, y) = (&self.x[first..], &self.y[first..]);
        let n = x.len() as f64;
        let (mx, my) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
        let sxx: f64 = x.iter().map(|x| (x - mx).powi(2)).sum();
        let sxy: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
        let slope = sxy / sxx;
        let rest: f64 = x.iter().zip(y).map(|(x, y)| (y - my - slope * (x - mx)).powi(2)).sum();
        let freedom = (n * effective_share - 2.0).max(1.0);
        let error = (rest / freedom / sxx).sqrt();
        slope > LATE_SLOPE_MIN * error
    }

    fn predict(
        &self,
        limit: f64,
        models: &[Model],
        effective: f64,
        phi: f64,
        sigma: f64,
    ) -> Result<Found, String> {
        let best = models[0];
        let n = self.x.len() as f64;
        let inflation = n / effective;
        let floor = n * (1e-6 * (limit - best.level)).powi(2);
        let mut paths = Vec::new();
        let mut sum = 0.0;
        let (mut value, mut normal, mut onset) = (0.0, 0.0, 0.0);
        let (mut accelerating, mut towards) = (0.0, 0.0);
        for model in models.iter().take(MODELS_MAX) {
            let ratio = model.rest.max(floor) / best.rest.max(floor);
            let weight = (-0.5 * effective * ratio.ln()).exp();
            if weight < WEIGHT_MIN {
                break;
            }
            let residuals: Vec<f64> = self.residuals(model).collect();
            // What wandered off the curve stays off as far as residuals persist.
            let tail = residuals.len().min(4);
            let lately = residuals.iter().rev().take(tail).sum::<f64>() / tail as f64;
            let now = model.at(0.0) + phi * lately;
            let diffusion = self.diffusion(model, &residuals);
            let reach = model.basis(0.0);
            let (vb, va, vab) = model.inverse;
            let variance = sigma * sigma * inflation;
            // A drift that wanders is not known better for being measured often: only for having
            // been followed long.
            let slope_sd = (variance * va + diffusion * diffusion / reach.max(1e-12)).sqrt();
            let level_variance = variance * (vb + 2.0 * reach * vab + reach * reach * va);
            // The level's uncertainty that is not the slope's.
            let covariance = variance * (vab + reach * va);
            let along = covariance / slope_sd.max(f64::MIN_POSITIVE);
            let across = (level_variance - along * along).max(0.0).sqrt();
            for (z, slope_weight) in NODES {
                let slope = model.slope + z * slope_sd;
                for (u, level_weight) in LEVEL_NODES {
                    paths.push(Path {
                        weight: weight * slope_weight * level_weight,
                        distance: limit - (now + along * z + across * u),
                        slope,
                        diffusion,
                        rate: model.rate,
                        pace: (-model.rate * model.onset).exp(),
                    });
                }
            }
            sum += weight;
            value += weight * now;
            normal += weight * model.level;
            onset += weight * model.onset;
            towards += weight * normal_cdf(model.slope / slope_sd.max(f64::MIN_POSITIVE));
            accelerating += if model.rate > 0.0 { weight } else { 0.0 };
        }
        for path in &mut paths {
            path.weight /= sum;
        }
        let (value, normal, onset) = (value / sum, normal / sum, onset / sum);
        let trend = -onset;
        let cdf = |x: f64| paths.iter().map(|path| path.passed(x)).sum::<f64>();
        let horizon = HORIZON * trend;
        let p50 = quantile(cdf, 0.5, horizon).filter(|p50| *p50 <= AHEAD_MAX * trend);
        let p50 = p50.ok_or("the limit is too far ahead of so short a trend")?;
        let p10 = quantile(cdf, 0.1, p50).unwrap_or(p50);
        let p90 = quantile(cdf, 0.9, horizon).unwrap_or(horizon).max(p50);
        let within = |days: f64| cdf((days * 86_400.0 / self.seconds).min(horizon));
        // Ten to one between the ends of the band counts as not sure at all of the time.
        let vagueness = ((p90 / p10.max(1e-9)).ln() / 10.0_f64.ln()).clamp(0.0, 1.0);
        let health = ((limit - value) / (limit - normal)).clamp(0.0, 1.0);
        let estimate = Estimate {
            p10: p10 * self.seconds,
            p50: p50 * self.seconds,
            p90: p90 * self.seconds,
            as_of: Timestamp::default(),
            onset: Timestamp::default(),
            value,
            normal,
            health,
            accelerating: accelerating / sum,
            drift_probability: towards / sum,
            confidence: cdf(horizon) * (1.0 - 0.5 * vagueness),
            probability_7_30_90_d: [within(7.0), within(30.0), within(90.0)],
        };
        Ok(Found { estimate, trend_seconds: trend * self.seconds })
    }

    /// Diffusion of the wear per unit of transformed time: what residuals wander over several bins
    /// beyond what they jump from one to the next, which is noise of the measurement.
    fn diffusion(&self, model: &Model, residuals: &[f64]) -> f64 {
        let first = self.x.partition_point(|x| *x < model.onset);
        let count = self.x.len() - first;
        let lag = (count / 4).max(2);
        if count <= lag + 1 {
            return 0.0;
        }
        let wander = |lag: usize| {
            let pairs = first..self.x.len() - lag;
            let n = pairs.len() as f64;
            let (mut square, mut time) = (0.0, 0.0);
            for i in pairs {
                square += (residuals[i + lag] - residuals[i]).powi(2);
                time += model.basis(self.x[i + lag]) - model.basis(self.x[i]);
            }
            (square / n, time / n)
        };
        let (far, near) = (wander(lag), wander(1));
        1.7 * ((far.0 - near.0) / (far.1 - near.1).max(f64::MIN_POSITIVE)).max(0.0).sqrt()
    }
}

/// One way to the limit, with its weight.
struct Path {
    weight: f64,
    distance: f64,
    slope: f64,
    diffusion: f64,
    rate: f64,
    /// How fast transformed time runs now.
    pace: f64,
}

impl Path {
    /// Weighted probability that the limit is reached within `x`, whatever the pace becomes.
    fn passed(&self, x: f64) -> f64 {
        let paces: &[(f64, f64)] = if self.rate > 0.0 { &PACES_CURVED } else { &PACES_STRAIGHT };
        self.weight
            * paces.iter().map(|(pace, weight)| weight * self.passed_at_pace(x / pace)).sum::<f64>()
    }

    fn passed_at_pace(&self, x: f64) -> f64 {
        if self.distance <= 0.0 {
            return 1.0;
        }
        if self.slope <= 0.0 {
            return 0.0;
        }
        let time = if self.rate > 0.0 {
            self.pace * (self.rate * x).min(500.0).exp_m1() / self.rate
        } else {
            x
        };
        first_passage_cdf(time, self.distance, self.slope, self.diffusion)
    }
}

/// Lag-one correlation, 0 to 0.95.
fn correlation(residuals: &[f64]) -> f64 {
    let square: f64 = residuals.iter().map(|rest| rest * rest).sum();
    if square <= 0.0 {
        return 0.0;
    }
    let product: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    (product / square).clamp(0.0, 0.95)
}

/// Median and spread (a standard deviation, from the 5 % and 95 % quantiles) of the readings before
/// `onset`; `None` when they are too few.
fn before(history: &[(f64, f64)], onset: f64) -> Option<(f64, f64)> {
    let count = history.partition_point(|(time, _)| *time < onset);
    if count < BEFORE_MIN {
        return None;
    }
    let mut values: Vec<f64> = history[..count].iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    // 3.29 standard deviations of a normal distribution lie between the two.
    let spread = (values[count - 1 - count / 20] - values[count / 20]) / 3.29;
    Some((values[count / 2], spread))
}

/// The middle value; NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}

#[cfg(test)]
mod tests;
