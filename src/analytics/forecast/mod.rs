//! What a series will do next: a weighted mean of cheap forecasters, with bands that were right as
//! often as they say, and whole paths from which the time to a limit is read.
//!
//! In order: [`Regular::from_readings`] lays readings on an even grid; [`find_season`] looks for a
//! season; a level shift without precedent is taken out of the past; every member of
//! [`Member`] forecasts from some twenty origins inside the history and from its end; members are
//! weighted by how they did there, by distance; what their mean missed there makes the bands and
//! the paths.
//! There is no optimiser and no random number: the same series gives the same forecast.
//!
//! Bounds: [`POINTS_MAX`] points are looked at, [`HORIZON_MAX`] steps are forecast, twenty origins
//! at most. Cost grows with points × features of the regression; a month
//! of hours takes about 1 ms.
//!
//! Sources: the mean of forecasts, J. M. Bates, C. W. J. Granger, OR Quarterly 20, 1969; bands from
//! hold-out errors, V. Vovk et al., Algorithmic Learning in a Random World, 2005, and C. Xu, Y. Xie,
//! ICML 2021 (dependent data); joint paths, R. Schefzik, T. Thorarinsdottir, T. Gneiting, Statistical
//! Science 28(4), 2013. Where each constant comes from stands in `docs/forecasting.md`.

mod bands;
mod holdout;
mod members;
mod regrid;
mod ridge;
mod season;
mod shift;

#[cfg(test)]
mod tests;

pub use bands::{Band, Passage, Paths};
pub use members::Member;
pub use regrid::{Regular, SeriesError};
pub use season::{Season, find as find_season};
pub use shift::Shift;

use crate::analytics::stats;
use holdout::Trial;

/// Points that are looked at: the newest ones. Two weeks of five-minute values.
pub const POINTS_MAX: usize = 4096;
/// Steps that can be asked for.
pub const HORIZON_MAX: usize = 1024;
/// Points below which nothing is said: the shortest series with four origins and a regression.
pub const POINTS_MIN: usize = 24;
/// The history must be this many horizons long: one to learn from, two to be tested on.
pub const HORIZONS_MIN: usize = 3;

/// Why there is no forecast.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ForecastError {
    /// Nothing, or nothing usable, to learn from.
    #[error(transparent)]
    Series(#[from] SeriesError),
    /// The horizon is zero or too long.
    #[error("a horizon of {asked} steps: 1 to {HORIZON_MAX} can be forecast")]
    Horizon {
        /// Steps asked for.
        asked: usize,
    },
    /// The history is too short for this horizon.
    #[error(
        "{have} points of history are too few for {horizon} steps: at least {need}, so that the \
         forecast can be tested on the past"
    )]
    TooShort {
        /// Points there are.
        have: usize,
        /// Points needed.
        need: usize,
        /// Steps asked for.
        horizon: usize,
    },
    /// A level is not a percentage between 0 and 100.
    #[error("a band of {level} %: between 0 and 100 is possible")]
    Level {
        /// Level asked for, in percent.
        level: f64,
    },
}

/// What comes next, and how sure that is. All values are in the unit of the series, index 0 is one
/// step behind its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Expected value at each step.
    pub mean: Vec<f64>,
    /// One band a level, in the order of the levels asked for.
    pub bands: Vec<Band>,
    /// Equally likely futures.
    pub paths: Paths,
    /// The season that was used, if any.
    pub season: Season,
    /// A level shift that was taken out of the past.
    pub shift: Option<Shift>,
    /// Members with their mean weights over the horizon; the weights sum to 1.
    pub weights: Vec<(Member, f64)>,
    /// Origins inside the history that weights and bands come from.
    pub origins: usize,
    /// Mean absolute error of the mean forecast at those origins.
    pub error: f64,
    /// The series was forecast in logarithms: it grows by a share of itself.
    pub growth: bool,
    /// Newest known value of the series.
    pub last: f64,
}

impl Forecast {
    /// When the series will first be at `limit` or beyond it, seen from its newest value: steps at
    /// which 10, 50 and 90 % of the paths have been there.
    #[must_use]
    pub fn time_to(&self, limit: f64) -> Passage {
        self.paths.first_passage(self.last, limit)
    }
}

/// Forecasts `horizon` steps with a band for each of `levels` (percent, e.g. 80 and 95).
///
/// # Errors
/// [`ForecastError`], which says what was asked for and what there is.
pub fn forecast(
    series: &Regular,
    horizon: usize,
    levels: &[f64],
) -> Result<Forecast, ForecastError> {
    if horizon == 0 || horizon > HORIZON_MAX {
        return Err(ForecastError::Horizon { asked: horizon });
    }
    if let Some(&level) = levels.iter().find(|level| !(**level > 0.0 && **level < 100.0)) {
        return Err(ForecastError::Level { level });
    }
    let have = series.values().len();
    let need = POINTS_MIN.max(HORIZONS_MIN * horizon);
    if have < need {
        return Err(ForecastError::TooShort { have, need, horizon });
    }
    let mut view = View::new(series, Scale::plain(series.values())?, horizon);
    // What grows by a share of itself is straight in logarithms.
    if let Some(scale) = Scale::growth(series.values()) {
        let other = View::new(series, scale, horizon);
        if other.error() < view.error() {
            view = other;
        }
    }
    let View { scale, season, shift, trial } = &view;
    let known = series.known().iter().rposition(|known| *known).unwrap_or(have - 1);
    let back = |values: Vec<f64>| values.into_iter().map(|v| scale.back(v)).collect::<Vec<_>>();
    let edge = |half: &[f64], sign: f64| {
        back(trial.mean.iter().zip(half).map(|(mean, half)| mean + sign * half).collect())
    };
    let bands = levels
        .iter()
        .map(|level| {
            let half = bands::band(trial, *level / 100.0);
            Band { level: *level, lower: edge(&half, -1.0), upper: edge(&half, 1.0) }
        })
        .collect();
    Ok(Forecast {
        mean: back(trial.mean.clone()),
        bands,
        paths: Paths::new(bands::paths(trial).into_iter().map(back).collect()),
        season: *season,
        shift: *shift,
        weights: trial.mean_weights(),
        origins: trial.origins(),
        error: view.error(),
        growth: scale.growth,
        last: series.values()[known],
    })
}

/// One way to look at a series, and how it did in the hold-outs.
struct View {
    scale: Scale,
    season: Season,
    shift: Option<Shift>,
    trial: Trial,
}

impl View {
    fn new(series: &Regular, scale: Scale, horizon: usize) -> Self {
        let mut z: Vec<f64> = series.values().iter().map(|v| scale.forth(*v)).collect();
        let season = find_season(&z, series.step());
        regrid::fill_by_season(&mut z, series.known(), &season);
        let newest = z[z.len() - 1];
        let shift = shift::take_out(&mut z, &season)
            .map(|shift| Shift { by: scale.back(newest) - scale.back(newest - shift.by), ..shift });
        let trial = Trial::new(&z, series.known(), &season, horizon);
        Self { scale, season, shift, trial }
    }

    /// Mean absolute error at the origins, in the unit of the series.
    fn error(&self) -> f64 {
        self.trial.error(|z| self.scale.back(z))
    }
}

/// A growing (or shrinking) series is also looked at in logarithms: its newest quarter lies, in
/// the median, this many times above or below its oldest.
const GROWTH_LEAST: f64 = 2.0;

/// The series around its median, in units of its spread: sums of squares stay well conditioned
/// whatever unit a tag has.
#[derive(Debug, Clone, Copy)]
struct Scale {
    middle: f64,
    unit: f64,
    /// Of the logarithms.
    growth: bool,
}

impl Scale {
    fn plain(values: &[f64]) -> Result<Self, SeriesError> {
        let middle = stats::median(&mut values.to_vec());
        let mean_square =
            values.iter().map(|v| (v - middle) * (v - middle)).sum::<f64>() / values.len() as f64;
        let unit = mean_square.sqrt();
        // Differences in the last digits of a double are rounding, not movement.
        if unit.is_nan() || unit <= 1e-12 * middle.abs() || unit < f64::MIN_POSITIVE {
            return Err(SeriesError::Constant { value: middle });
        }
        if !unit.is_finite() {
            return Err(SeriesError::TooLarge);
        }
        Ok(Self { middle, unit, growth: false })
    }

    fn growth(values: &[f64]) -> Option<Self> {
        let quarter = values.len() / 4;
        let mut old = values[..quarter].to_vec();
        let mut new = values[values.len() - quarter..].to_vec();
        let ratio = stats::median(&mut new) / stats::median(&mut old);
        let grows = ratio >= GROWTH_LEAST || ratio <= 1.0 / GROWTH_LEAST;
        if !grows || values.iter().any(|value| *value <= 0.0) {
            return None;
        }
        let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
        Self::plain(&logs).ok().map(|scale| Self { growth: true, ..scale })
    }

    fn forth(&self, value: f64) -> f64 {
        ((if self.growth { value.ln() } else { value }) - self.middle) / self.unit
    }

    fn back(&self, value: f64) -> f64 {
        let value = self.middle + self.unit * value;
        // A forecast may leave the range of a double; a made-up infinity helps nobody.
        if self.growth { value.exp().min(f64::MAX) } else { value }
    }
}
