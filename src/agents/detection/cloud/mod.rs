//! The multivariate score of an asset: how far its smoothed tags lie from where they were while it
//! was healthy, in the metric of their own covariance.
//!
//! Inputs are smoothed, not the score; the covariance is that of the smoothed rows, shrunk. The
//! limit comes from rows the model had not seen: the learning period is split twice, once each way
//! round. Afterwards the centre follows slowly, stands still while anything is suspicious, and
//! never leaves the neighbourhood of where it was learnt.

mod fit;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use self::fit::{is_trending, memory_of, metric_of, share_of, thin, unit_of, worst_unseen};
use crate::analytics::multivariate::{Cholesky, Components, Distances};
use crate::analytics::stats::{ewma_weight, median_and_sigma};

/// Time constant of the smoothing, in seconds. Machines fail over minutes and more; ten readings at
/// the usual one a second lower independent noise by more than four.
pub(super) const SMOOTH: f64 = 10.0;
/// Rows kept while learning; beyond, every second one is dropped and half as many are taken.
const KEPT_MAX: usize = 512;
/// Fewest rows a model is learnt from.
pub(super) const ROWS_LEAST: usize = 20;
/// Share of the learning rows a model is fitted on when the rest calibrates it: the last third is
/// what the rows to come resemble most, and two thirds still span the usual.
const FIT_SHARE: f64 = 2.0 / 3.0;
/// The centre at the end of learning is a mean that forgets over this share of the period: the same
/// third.
const CENTRE_SHARE: f64 = 1.0 / 3.0;
/// The limit lies this many times beyond the worst unseen healthy distance (squared), 1.6 times as
/// far. The maximum of χ² with a few degrees of freedom over a period a thousand times longer is 2
/// to 3 times that over a few dozen independent rows.
const LIMIT_MARGIN: f64 = 2.5;
/// Variance the kept principal components carry; the usual choice where SPE shall have something
/// left to measure (Jackson & Mudholkar, 1979).
const VARIANCE_KEPT: f64 = 0.9;
/// Quantile of the learning rows' distances that makes them comparable between models.
const UNIT_QUANTILE: f64 = 0.99;
/// The centre follows only while the distance is below this share of the limit.
const FREEZE: f64 = 0.5;
/// And never further from where it was learnt than this share of the limit.
const DRIFT_CAP: f64 = 0.25;
/// A model younger than a day knows nothing of movements slower than what it has seen: until then
/// its centre follows them freely with this time constant, in seconds. The day's course of a
/// temperature moves on by a hundredth of its range in it; machines that fail slower than this are
/// found once a day is known, or by their limits. Only the limit stops it, not half of it: what is
/// usual lies further out than so young a model knows.
const FOLLOW_YOUNG: f64 = 300.0;
/// Independent rows (two time constants apart) below which limits are wider.
const INDEPENDENT_ROWS: f64 = 20.0;
/// A column that is missing in more than this share of the rows is left out.
const MISSING_MAX: f64 = 0.2;
/// A column moves when its scatter is more than this share of its size.
const MOVES_LEAST: f64 = 1e-9;

/// Rows kept while learning.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Kept {
    smooth: Vec<f32>,
    raw: Vec<f32>,
    times: Vec<f64>,
    stride: u32,
    skipped: u32,
    taken: f64,
}

/// What was learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Model {
    /// Columns that move, by index.
    used: Vec<usize>,
    /// Per used column: robust mean and deviation of the raw values, in the tag's unit (the mean
    /// relative to the origin).
    middle: Vec<f64>,
    scale: Vec<f64>,
    /// Present centre of the smoothed values, in units of the scale.
    centre: Vec<f64>,
    /// Where it was learnt.
    reference: Vec<f64>,
    /// Shrunk covariance of the smoothed values in units of the scale, used × used.
    covariance: Vec<f64>,
    /// Squared distance at the limit.
    limit: f64,
    /// How long a time was learnt from, in seconds.
    span: f64,
    /// Principal components of the unsmoothed values, and their distances at the limit: a second
    /// opinion on single rows.
    components: Option<Components>,
    single: Limits,
}

/// T² and SPE at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Limits {
    t2: f64,
    spe: f64,
}

/// The factor for the columns that take part at present.
#[derive(Debug, Clone, PartialEq)]
struct Metric {
    /// Which of the used columns, by position.
    columns: Vec<usize>,
    factor: Cholesky,
    /// Share of the used columns.
    share: f64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cloud {
    origin: Vec<f64>,
    smooth: Vec<f64>,
    last: Option<f64>,
    kept: Kept,
    model: Option<Model>,
    /// The metric of all columns that measure, and of those whose sensors are beyond suspicion.
    metrics: [Option<Metric>; 2],
    /// Which of the two was used last.
    present: usize,
    departure: Vec<f64>,
    whitened: Vec<f64>,
    last_ratio: f64,
}

/// What is kept over restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedCloud {
    origin: Vec<f64>,
    smooth: Vec<f64>,
    last: Option<f64>,
    kept: Kept,
    model: Option<Model>,
}

/// Why a learning period teaches nothing, or little.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Weakness {
    /// No column moves.
    Constant,
    /// Too few rows.
    Short,
    /// These columns (by index) moved steadily in one direction.
    Trending(Vec<usize>),
}

/// One column's part in a distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    /// Index of the column.
    pub(super) column: usize,
    /// Share of the squared distance, 0 to 1.
    pub(super) share: f64,
    /// How far out the column is by itself, in deviations of the smoothed values.
    pub(super) far: f64,
}

impl Cloud {
    pub(super) fn new(columns: usize) -> Self {
        Self {
            origin: vec![f64::NAN; columns],
            smooth: vec![f64::NAN; columns],
            last: None,
            kept: Kept::default(),
            model: None,
            metrics: [None, None],
            present: 0,
            departure: Vec::with_capacity(columns),
            whitened: Vec::with_capacity(columns),
            last_ratio: 0.0,
        }
    }

    pub(super) fn save(&self) -> SavedCloud {
        SavedCloud {
            origin: self.origin.clone(),
            smooth: self.smooth.clone(),
            last: self.last,
            kept: self.kept.clone(),
            model: self.model.clone(),
        }
    }

    /// Takes up what was saved; `None` when it is about another number of columns.
    pub(super) fn load(saved: SavedCloud, columns: usize) -> Option<Self> {
        (saved.origin.len() == columns && saved.smooth.len() == columns).then(|| Self {
            origin: saved.origin,
            smooth: saved.smooth,
            last: saved.last,
            kept: saved.kept,
            model: saved.model,
            ..Self::new(columns)
        })
    }

    /// Whether something was learnt.
    pub(super) const fn is_fitted(&self) -> bool {
        self.model.is_some()
    }

    /// Rows learnt from so far.
    pub(super) const fn rows(&self) -> f64 {
        self.kept.taken
    }

    /// The clock was set back by so many seconds.
    pub(super) fn set_back(&mut self, by: f64) {
        self.last = self.last.map(|last| last - by);
        for time in &mut self.kept.times {
            *time -= by;
        }
    }

    /// Smooths one row (NaN: no value) at a time in seconds. Returns the step since the last one.
    pub(super) fn advance(&mut self, time: f64, row: &[f64]) -> f64 {
        let step = self.last.map_or(0.0, |last| time - last);
        self.last = Some(time);
        let weight = ewma_weight(step, SMOOTH);
        for ((smooth, origin), value) in self.smooth.iter_mut().zip(&mut self.origin).zip(row) {
            if value.is_nan() {
                continue;
            }
            if origin.is_nan() {
                *origin = *value;
            }
            let value = value - *origin;
            if smooth.is_nan() {
                *smooth = value;
            } else {
                *smooth += weight * (value - *smooth);
            }
        }
        step
    }

    /// Forgets the smoothing, not what was learnt: the next row begins it anew.
    pub(super) fn restart(&mut self) {
        self.smooth.fill(f64::NAN);
        self.last = None;
    }

    /// Keeps the row just smoothed for learning.
    pub(super) fn keep(&mut self, time: f64, row: &[f64]) {
        let kept = &mut self.kept;
        kept.taken += 1.0;
        kept.stride = kept.stride.max(1);
        kept.skipped += 1;
        if kept.skipped < kept.stride {
            return;
        }
        kept.skipped = 0;
        let columns = self.smooth.len();
        if kept.times.len() >= KEPT_MAX {
            thin(&mut kept.smooth, columns);
            thin(&mut kept.raw, columns);
            thin(&mut kept.times, 1);
            kept.stride = kept.stride.saturating_mul(2);
        }
        #[expect(clippy::cast_possible_truncation, reason = "kept relative to the origin, as f32")]
        for ((smooth, value), origin) in self.smooth.iter().zip(row).zip(&self.origin) {
            kept.smooth.push(*smooth as f32);
            kept.raw.push((value - origin) as f32);
        }
        kept.times.push(time);
    }

    /// How many rows were taken up to a time in seconds.
    pub(super) fn rows_until(&self, time: f64) -> f64 {
        let kept = self.kept.times.partition_point(|at| *at <= time);
        if kept == self.kept.times.len() {
            return self.kept.taken;
        }
        kept as f64 * f64::from(self.kept.stride.max(1))
    }

    /// Forgets the rows taken after a time in seconds.
    pub(super) fn forget_since(&mut self, time: f64) {
        if self.kept.times.last().is_none_or(|last| *last <= time) {
            return;
        }
        self.kept.taken = self.rows_until(time);
        let rows = self.kept.times.partition_point(|at| *at <= time);
        self.kept.times.truncate(rows);
        self.kept.smooth.truncate(rows * self.smooth.len());
        self.kept.raw.truncate(rows * self.smooth.len());
        self.kept.skipped = 0;
    }

    /// How long a time the model was learnt from, in seconds; 0 without one.
    pub(super) fn span(&self) -> f64 {
        self.model.as_ref().map_or(0.0, |model| model.span)
    }

    /// Learns from the rows kept up to a time in seconds. The model holds from then on; the rows
    /// stay, so that it can be learnt again from more. Returns what is weak about it; without a
    /// model when nothing moves.
    pub(super) fn fit(&mut self, until: f64, young: bool) -> Vec<Weakness> {
        let mut weak = Vec::new();
        let columns = self.smooth.len();
        let rows = self.kept.times.partition_point(|at| *at <= until);
        if rows < ROWS_LEAST {
            return vec![Weakness::Short];
        }
        let mut scratch = Vec::new();
        let (mut used, mut middle, mut scale, mut trending) = (vec![], vec![], vec![], vec![]);
        let column = |table: &[f32], index: usize| -> Vec<f64> {
            table.iter().skip(index).step_by(columns).take(rows).map(|v| f64::from(*v)).collect()
        };
        for index in 0..columns {
            let mut raw = column(&self.kept.raw, index);
            raw.retain(|v| v.is_finite());
            if (raw.len() as f64) < (1.0 - MISSING_MAX) * rows as f64 {
                continue;
            }
            let (centre, sigma) = median_and_sigma(&raw, &mut scratch);
            let n = raw.len() as f64;
            let mean = raw.iter().sum::<f64>() / n;
            let deviation = (raw.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            // Quantised series can have a MAD of 0 though they move.
            let sigma = if sigma > 0.05 * deviation { sigma } else { deviation };
            if sigma <= MOVES_LEAST * (1.0 + self.origin[index].abs()) {
                continue;
            }
            let smooth = column(&self.kept.smooth, index);
            if is_trending(&self.kept.times[..rows], &smooth) {
                trending.push(index);
            }
            used.push(index);
            middle.push(centre);
            scale.push(sigma);
        }
        if used.is_empty() {
            self.model = None;
            self.metrics = [None, None];
            return vec![Weakness::Constant];
        }
        if !trending.is_empty() {
            weak.push(Weakness::Trending(trending));
        }
        let table = Array2::from_shape_fn((rows, used.len()), |(i, j)| {
            let value = f64::from(self.kept.smooth[i * columns + used[j]]);
            if value.is_finite() { (value - middle[j]) / scale[j] } else { 0.0 }
        });
        let times = &self.kept.times[..rows];
        let Some((centre, covariance, factor)) = metric_of(&table, times, 0, rows) else {
            return vec![Weakness::Constant];
        };
        let unit = unit_of(&table, 0, rows, &centre, &factor);
        let (near, far) = worst_unseen(&table, times);
        let span = self.kept.times[rows - 1] - self.kept.times[0];
        let independent = span / (2.0 * SMOOTH).max(span / rows as f64);
        if independent < 0.9 * INDEPENDENT_ROWS {
            weak.push(Weakness::Short);
        }
        // What wanders over minutes has shown little of itself in ten of them. A recording, and a model
        // that has seen a day, are believed to hold what is usual.
        let seen = if young { span / (2.0 * memory_of(&table, times)) } else { independent };
        let wider = (INDEPENDENT_ROWS / seen.min(independent).max(1.0)).max(1.0);
        // A fault in one part of the rows must not make the detector blind: the smaller distance
        // counts. The rows of a young model have stood their probation.
        let worst = (near.max(1.0) * wider).max(if young { far } else { 0.0 });
        let reference = centre.to_vec();
        let mut centre = reference.clone();
        if let Some(old) = &self.model {
            // Where the centre has followed to since those rows it stays.
            for (i, column) in used.iter().enumerate() {
                if let Some(k) = old.used.iter().position(|used| used == column) {
                    let at = old.middle[k] + old.centre[k] * old.scale[k];
                    centre[i] = (at - middle[i]) / scale[i];
                }
            }
        }
        self.model = Some(Model {
            middle,
            scale,
            reference,
            centre,
            covariance: covariance.iter().copied().collect(),
            limit: LIMIT_MARGIN * worst * unit,
            span: span.max(SMOOTH),
            components: None,
            single: Limits::default(),
            used,
        });
        self.metrics = [None, None];
        self.fit_single(rows);
        weak
    }

    /// Learns the components of the unsmoothed rows; their limits come from the last third, which
    /// the fit has not seen.
    fn fit_single(&mut self, rows: usize) {
        let columns = self.smooth.len();
        let Some(model) = &mut self.model else { return };
        let table = Array2::from_shape_fn((rows, model.used.len()), |(i, j)| {
            let value = f64::from(self.kept.raw[i * columns + model.used[j]]);
            if value.is_finite() { (value - model.middle[j]) / model.scale[j] } else { 0.0 }
        });
        let part = share_of(rows, FIT_SHARE);
        let fitted = table.slice(ndarray::s![..part, ..]).to_owned();
        let Some(components) = Components::fit(&fitted, VARIANCE_KEPT) else { return };
        let mut worst = Limits::default();
        for row in table.outer_iter().skip(part) {
            let found = components.distances(&row.to_vec());
            worst.t2 = worst.t2.max(found.t2);
            worst.spe = worst.spe.max(found.spe);
        }
        model.single = Limits { t2: LIMIT_MARGIN * worst.t2, spe: LIMIT_MARGIN * worst.spe };
        model.components = Some(components);
    }

    /// T² and SPE of one unsmoothed row over their limits. Allocates: only for what is announced.
    pub(super) fn single(&self, row: &[f64]) -> Option<Distances> {
        let model = self.model.as_ref()?;
        let components = model.components.as_ref()?;
        let standard = |i: usize, column: usize| {
            let value = (row[column] - self.origin[column] - model.middle[i]) / model.scale[i];
            if value.is_finite() { value } else { 0.0 }
        };
        let scaled: Vec<f64> =
            model.used.iter().enumerate().map(|(i, column)| standard(i, *column)).collect();
        let found = components.distances(&scaled);
        let over = |value: f64, limit: f64| if limit > 0.0 { value / limit } else { 0.0 };
        Some(Distances {
            t2: over(found.t2, model.single.t2),
            spe: over(found.spe, model.single.spe),
        })
    }

    /// Frees the rows kept for learning.
    pub(super) fn settle(&mut self) {
        let taken = self.kept.taken;
        self.kept = Kept { taken, ..Kept::default() };
    }

    /// Squared distance of the row just smoothed over the limit; 0 without a model. `active` says
    /// which columns take part, `place` where their metric is remembered (0 or 1): it is worked out
    /// anew only when the columns change.
    pub(super) fn ratio(&mut self, active: &[bool], place: usize) -> f64 {
        self.present = place;
        self.last_ratio = 0.0;
        let Some(model) = &self.model else { return 0.0 };
        let takes_part = |column: usize| active[column] && !self.smooth[column].is_nan();
        let same = self.metrics[place].as_ref().is_some_and(|metric| {
            let mut present = metric.columns.iter();
            let mut next = present.next();
            model.used.iter().enumerate().all(|(position, column)| {
                let inside = next == Some(&position);
                if inside {
                    next = present.next();
                }
                inside == takes_part(*column)
            })
        });
        if !same {
            let columns: Vec<usize> =
                (0..model.used.len()).filter(|i| takes_part(model.used[*i])).collect();
            self.metrics[place] = reduced(model, columns);
        }
        let Some(metric) = &self.metrics[place] else { return 0.0 };
        self.departure.clear();
        for &i in &metric.columns {
            let value = (self.smooth[model.used[i]] - model.middle[i]) / model.scale[i];
            self.departure.push(value - model.centre[i]);
        }
        self.whitened.clear();
        self.whitened.extend_from_slice(&self.departure);
        self.last_ratio = metric.factor.whiten(&mut self.whitened) / (model.limit * metric.share);
        self.last_ratio
    }

    /// What [`Self::ratio`] said last.
    pub(super) const fn last_ratio(&self) -> f64 {
        self.last_ratio
    }

    /// Expected value of a column in its unit, and how far its smoothed value is from it in robust
    /// deviations; `None` for a column that is not judged.
    pub(super) fn expected(&self, column: usize) -> Option<(f64, f64)> {
        let model = self.model.as_ref()?;
        let i = model.used.iter().position(|used| *used == column)?;
        let expected = self.origin[column] + model.middle[i] + model.centre[i] * model.scale[i];
        let sigma = (self.smooth[column] - model.middle[i]) / model.scale[i] - model.centre[i];
        Some((expected, if sigma.is_nan() { 0.0 } else { sigma }))
    }

    /// Lets the centre follow the row last judged with `ratio`, `step` seconds after the one
    /// before; freely when the model is `young`.
    pub(super) fn follow(&mut self, step: f64, ratio: f64, young: bool) {
        let (Some(model), Some(metric)) = (&mut self.model, &self.metrics[self.present]) else {
            return;
        };
        if ratio >= if young { 1.0 } else { FREEZE } {
            return;
        }
        let memory = if young { FOLLOW_YOUNG } else { model.span };
        let weight = ewma_weight(step, memory);
        for (&i, d) in metric.columns.iter().zip(&self.departure) {
            model.centre[i] += weight * d;
        }
        if young {
            return;
        }
        self.whitened.clear();
        self.whitened.extend(metric.columns.iter().map(|&i| model.centre[i] - model.reference[i]));
        let drift = metric.factor.whiten(&mut self.whitened) / (model.limit * metric.share);
        if drift > DRIFT_CAP {
            let back = (DRIFT_CAP / drift).sqrt();
            for &i in &metric.columns {
                model.centre[i] =
                    model.reference[i] + back * (model.centre[i] - model.reference[i]);
            }
        }
    }

    /// The columns' parts in the distance last judged, the largest first. Allocates: only for what
    /// is announced.
    pub(super) fn parts(&self) -> Vec<Part> {
        let (Some(model), Some(metric)) = (&self.model, &self.metrics[self.present]) else {
            return Vec::new();
        };
        let shares = metric.factor.contributions(&self.departure);
        let total: f64 = shares.iter().filter(|share| **share > 0.0).sum();
        let mut parts: Vec<Part> = metric
            .columns
            .iter()
            .zip(shares)
            .zip(&self.departure)
            .map(|((&i, share), departure)| Part {
                far: departure.abs() / model.covariance[i * model.used.len() + i].sqrt(),
                column: model.used[i],
                share: if total > 0.0 { share.max(0.0) / total } else { 0.0 },
            })
            .collect();
        parts.sort_by(|a, b| b.share.total_cmp(&a.share));
        parts
    }

    /// The distance last judged over the limit when `column` is left out: small when it alone has
    /// departed. Allocates.
    pub(super) fn ratio_without(&self, column: usize) -> Option<f64> {
        let (model, metric) = (self.model.as_ref()?, self.metrics[self.present].as_ref()?);
        let columns: Vec<usize> =
            metric.columns.iter().copied().filter(|i| model.used[*i] != column).collect();
        let rest = reduced(model, columns)?;
        let mut departure: Vec<f64> = metric
            .columns
            .iter()
            .zip(&self.departure)
            .filter(|(i, _)| model.used[**i] != column)
            .map(|(_, d)| *d)
            .collect();
        Some(rest.factor.whiten(&mut departure) / (model.limit * rest.share))
    }

    /// Share of a column's variance that the other columns foretell (squared multiple
    /// correlation, 1 − 1 / (Σᵢᵢ Σ⁻¹ᵢᵢ)). Allocates.
    pub(super) fn foretold(&self, column: usize) -> Option<f64> {
        let (model, metric) = (self.model.as_ref()?, self.metrics[self.present].as_ref()?);
        let place = metric.columns.iter().position(|i| model.used[*i] == column)?;
        let i = metric.columns[place];
        let mut unit = vec![0.0; metric.columns.len()];
        unit[place] = 1.0;
        metric.factor.solve(&mut unit);
        let variance = model.covariance[i * model.used.len() + i];
        Some((1.0 - 1.0 / (variance * unit[place])).clamp(0.0, 1.0))
    }

    /// How many columns took part in the distance last judged.
    pub(super) fn taking_part(&self) -> usize {
        self.metrics[self.present].as_ref().map_or(0, |metric| metric.columns.len())
    }

    /// Robust middle and deviation of a column's raw values, in its unit.
    pub(super) fn usual(&self, column: usize) -> Option<(f64, f64)> {
        let model = self.model.as_ref()?;
        let i = model.used.iter().position(|used| *used == column)?;
        Some((self.origin[column] + model.middle[i], model.scale[i]))
    }
}

/// The metric of some of a model's columns; `None` when none is left.
fn reduced(model: &Model, columns: Vec<usize>) -> Option<Metric> {
    if columns.is_empty() {
        return None;
    }
    let (all, size) = (model.used.len(), columns.len());
    let matrix = Array2::from_shape_fn((size, size), |(i, j)| {
        model.covariance[columns[i] * all + columns[j]]
    });
    let factor = Cholesky::new(matrix.view())?;
    Some(Metric { columns, factor, share: size as f64 / all as f64 })
}
