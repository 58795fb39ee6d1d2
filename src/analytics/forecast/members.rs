//! The members: forecasters so simple that each is right somewhere and cheap everywhere.
//!
//! Source: seasonal means, naive methods, exponential smoothing and the damped trend as in
//! R. J. Hyndman, G. Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., §5.2 and §8.

use super::ridge::Design;
use super::season::Season;

/// One forecaster of the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// The newest value, for ever.
    Last,
    /// The newest season again.
    Season,
    /// The newest long season (the week) again.
    LongSeason,
    /// Mean of the newest seven seasons, the newest weighing most.
    Recent,
    /// Shape of the season on a smoothed level.
    Profile,
    /// Shape of the season over many of them, through the newest value.
    Anchored,
    /// Shape of the season on a level with a damped trend.
    Trend,
    /// Shape of the season on a smoothed level that goes on along the line of the newest half.
    Drift,
    /// Shape of the long season on a smoothed level.
    LongProfile,
    /// Regression on the whole history.
    Regression,
    /// Regression on the newest few seasons.
    FastRegression,
}

/// All members, in the order in which [`all`] forecasts.
pub(super) const MEMBERS: [Member; 11] = [
    Member::Last,
    Member::Season,
    Member::LongSeason,
    Member::Recent,
    Member::Profile,
    Member::Anchored,
    Member::Trend,
    Member::Drift,
    Member::LongProfile,
    Member::Regression,
    Member::FastRegression,
];

impl Member {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Last => "last value",
            Self::Season => "last season",
            Self::LongSeason => "last long season",
            Self::Recent => "recent seasons",
            Self::Profile => "profile",
            Self::Anchored => "anchored profile",
            Self::Trend => "trend",
            Self::Drift => "drift",
            Self::LongProfile => "long profile",
            Self::Regression => "regression",
            Self::FastRegression => "fast regression",
        }
    }

    /// Whether it says something that the others do not, in a series of this season.
    pub(super) const fn fits(self, season: &Season) -> bool {
        match self {
            Self::Last
            | Self::Recent
            | Self::Profile
            | Self::Trend
            | Self::Drift
            | Self::Regression
            | Self::FastRegression => true,
            Self::Season | Self::Anchored => season.period.is_some(),
            Self::LongSeason | Self::LongProfile => season.long.is_some(),
        }
    }
}

/// What a season keeps of its weight in the mean of recent seasons, per season.
const RECENT_KEEP: f64 = 0.65;
/// Seasons in that mean.
const RECENT_SEASONS: usize = 7;
/// What a season keeps of its weight in the profile.
const PROFILE_KEEP: f64 = 0.7;
/// In the anchored profile, which shall not move with the weather.
const ANCHORED_KEEP: f64 = 0.95;
/// In the profile of the long season.
const LONG_KEEP: f64 = 0.8;
/// Seasons that a level is smoothed over when it is fitted.
const LEVEL_SEASONS: usize = 6;
/// Points that stand for a season where there is none.
const SEASON_WITHOUT: usize = 24;
/// Smoothing of a level, of which the best one-step forecaster is taken.
const LEVELS: [f64; 7] = [0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95];
/// Smoothing of level and trend, and damping, likewise.
const TRENDS: ([f64; 4], [f64; 2], [f64; 3]) =
    ([0.05, 0.2, 0.5, 0.9], [0.01, 0.1], [0.9, 0.98, 1.0]);

/// Forecasts of all members, `horizon` steps behind the first `origin` points of `z`; empty for
/// those that do not fit the season.
pub(super) fn all(
    z: &[f64],
    origin: usize,
    season: &Season,
    horizon: usize,
    regression: (&Design, [&[f64]; 2], (f64, f64)),
) -> Vec<Vec<f64>> {
    let past = &z[..origin];
    let period = season.period.unwrap_or(1);
    let window = LEVEL_SEASONS * season.period.unwrap_or(SEASON_WITHOUT);
    let profile = profile(past, season.period, PROFILE_KEEP);
    let rest = without(past, &profile, window);
    let (design, coefficients, within) = regression;
    MEMBERS
        .iter()
        .map(|member| match member {
            _ if !member.fits(season) => Vec::new(),
            Member::Last => vec![past[origin - 1]; horizon],
            Member::Season => again(past, period, horizon),
            Member::LongSeason => again(past, season.long.unwrap_or(period), horizon),
            Member::Recent => recent(past, period, horizon),
            Member::Profile => {
                let level = smoothed(&rest);
                on_top(&profile, origin, (0..horizon).map(|_| level))
            }
            Member::Anchored => {
                let shape = self::profile(past, season.period, ANCHORED_KEEP);
                let level = past[origin - 1] - shape[(origin - 1) % shape.len()];
                on_top(&shape, origin, (0..horizon).map(|_| level))
            }
            Member::Trend => {
                let (level, trend, damping) = trend(&rest);
                let (mut at, mut slope) = (level, trend);
                on_top(
                    &profile,
                    origin,
                    (0..horizon).map(|_| {
                        slope *= damping;
                        at += slope;
                        at
                    }),
                )
            }
            Member::Drift => {
                let (level, slope) = (smoothed(&rest), line(past, period));
                on_top(&profile, origin, (1..=horizon).map(|step| level + slope * step as f64))
            }
            Member::LongProfile => {
                let shape = self::profile(past, season.long, LONG_KEEP);
                let level = smoothed(&without(past, &shape, window));
                on_top(&shape, origin, (0..horizon).map(|_| level))
            }
            Member::Regression => design.predict(z, origin, coefficients[0], horizon, within),
            Member::FastRegression => design.predict(z, origin, coefficients[1], horizon, within),
        })
        .collect()
}

/// The newest `period` points again and again.
fn again(past: &[f64], period: usize, horizon: usize) -> Vec<f64> {
    let period = period.min(past.len());
    past[past.len() - period..].iter().copied().cycle().take(horizon).collect()
}

fn recent(past: &[f64], period: usize, horizon: usize) -> Vec<f64> {
    let mut mean = vec![0.0; period];
    let (mut weight, mut weights) = (1.0, 0.0);
    for season in past.rchunks_exact(period).take(RECENT_SEASONS) {
        for (mean, value) in mean.iter_mut().zip(season) {
            *mean += weight * value;
        }
        weights += weight;
        weight *= RECENT_KEEP;
    }
    mean.iter().map(|sum| sum / weights).cycle().take(horizon).collect()
}

/// Shape of the season by phase (point number modulo its length), around 0; a single 0 without a
/// season or a whole one.
fn profile(past: &[f64], period: Option<usize>, keep: f64) -> Vec<f64> {
    let Some(period) = period.filter(|period| *period <= past.len()) else { return vec![0.0] };
    let mut shape = vec![0.0; period];
    let (mut weight, mut weights) = (1.0, 0.0);
    // Seasons that end with the past, so that each begins at the phase of its end.
    for season in past.rchunks_exact(period) {
        let mean = season.iter().sum::<f64>() / period as f64;
        for (sum, value) in shape.iter_mut().zip(season) {
            *sum += weight * (value - mean);
        }
        weights += weight;
        weight *= keep;
        if weight < 1e-3 {
            break;
        }
    }
    for value in &mut shape {
        *value /= weights;
    }
    shape.rotate_right(past.len() % period);
    shape
}

/// The newest `window` points without their profile.
fn without(past: &[f64], profile: &[f64], window: usize) -> Vec<f64> {
    let first = past.len().saturating_sub(window);
    past[first..]
        .iter()
        .zip(first..)
        .map(|(value, at)| value - profile[at % profile.len()])
        .collect()
}

fn on_top(profile: &[f64], origin: usize, levels: impl Iterator<Item = f64>) -> Vec<f64> {
    levels.zip(origin..).map(|(level, at)| level + profile[at % profile.len()]).collect()
}

/// The level at the end of `rest`, by the smoothing that forecasts it best.
fn smoothed(rest: &[f64]) -> f64 {
    let mut best = (f64::INFINITY, rest[rest.len() - 1]);
    for share in LEVELS {
        let (mut level, mut missed) = (rest[0], 0.0);
        for value in rest {
            let off = value - level;
            missed += off.abs();
            level += share * off;
        }
        if missed < best.0 {
            best = (missed, level);
        }
    }
    best.1
}

/// Level, trend per step and damping at the end of `rest`, chosen likewise.
fn trend(rest: &[f64]) -> (f64, f64, f64) {
    let mut best = (f64::INFINITY, (rest[rest.len() - 1], 0.0, 1.0));
    let (levels, slopes, dampings) = TRENDS;
    for share in levels {
        for slope_share in slopes {
            for damping in dampings {
                let (mut level, mut slope, mut missed) = (rest[0], 0.0, 0.0);
                for value in rest {
                    let expected = level + damping * slope;
                    let off: f64 = value - expected;
                    missed += off.abs();
                    level = expected + share * off;
                    slope = damping * slope + share * slope_share * off;
                }
                if missed < best.0 {
                    best = (missed, (level, slope, damping));
                }
            }
        }
    }
    best.1
}

/// Slope per point of the least-squares line through the newest half of `past`, in whole seasons.
fn line(past: &[f64], period: usize) -> f64 {
    let seasons = (past.len() / 2 / period).max(1);
    let half = &past[past.len().saturating_sub(seasons * period)..];
    let middle = (half.len() as f64 - 1.0) / 2.0;
    let (mut cross, mut square) = (0.0, 0.0);
    for (at, value) in half.iter().enumerate() {
        let off = at as f64 - middle;
        cross += off * value;
        square += off * off;
    }
    if square > 0.0 { cross / square } else { 0.0 }
}
