//! Learning a model from run-to-failure histories.

use super::bands::{Bands, Residual};
use super::prepare::Preparation;
use super::similar::{POINTS, STRIDE, Similar};
use super::window::{self, Window};
use super::{Method, Model, Scale, UNITS_FOR_LIKENESS, UNITS_FOR_TREES, Unit};
use crate::analytics::stats;
use crate::analytics::trees::{Binned, Boosting, Loss, Shape, Trees, boost};

/// Lives that differ by more than this are looked at as logarithms.
const MANIFOLD: f64 = 4.0;
/// The cap of remaining life, as a share of the median life of many units.
const CAP: f64 = 0.63;
/// Units whose plateau is taken to be nothing, so that few lives do not promise a long one.
const CAP_UNITS: f64 = 0.5;
/// Units of data that what the age alone says is worth.
const AGE_UNITS: f64 = 10.0;
/// Rows the trees are grown on at most; more are thinned evenly.
const ROWS_MAX: usize = 7000;
/// Up to so many units each is left out alone; beyond, a fifth at a time.
const ALONE_MAX: usize = 12;
const FOLDS: usize = 5;
/// Bins of a feature.
const BINS: usize = 63;

/// What learning shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learning {
    /// What is drawn follows from it.
    pub seed: u64,
}

fn how(seed: u64, rows: usize) -> Boosting {
    Boosting {
        rounds: 200,
        rate: 0.045,
        shape: Shape {
            leaves: 10,
            depth: 16,
            rows_min: (rows / 170).clamp(5, 40),
            curvature_min: 0.0,
            ridge: 0.0,
            gain_min: 1e-12,
            split_columns: 1.0,
        },
        row_share: 0.5,
        column_share: 0.5,
        seed,
    }
}

/// What a model that had not seen a unit said of one of its rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Which unit, counted from 0 over those that were counted.
    pub unit: usize,
    /// Its age, in units of time.
    pub age: f64,
    /// What was left.
    pub truth: f64,
    /// What was estimated.
    pub estimate: f64,
}

/// Learns a model. `columns` names the values of a row. Units of one row say nothing and are not
/// counted. Too few units, or none that varies, give a model that stays silent and says why.
/// Beside it, how models did on units they had not seen.
#[must_use]
pub fn learn(columns: &[String], units: &[Unit], learning: Learning) -> (Model, Vec<Trial>) {
    let units: Vec<&Unit> = units.iter().filter(|unit| unit.life() > 0.0).collect();
    let mut lives: Vec<f64> = units.iter().map(|unit| unit.life()).collect();
    let mut steps: Vec<f64> =
        units.iter().map(|unit| unit.life() / (unit.len() - 1) as f64).collect();
    let life_max = lives.iter().copied().fold(0.0, f64::max);
    let life_min = lives.iter().copied().fold(f64::INFINITY, f64::min);
    let step = if steps.is_empty() { 1.0 } else { stats::median(&mut steps) };
    let trust = units.len() as f64 / (units.len() as f64 + CAP_UNITS);
    let cap = if lives.is_empty() { 0.0 } else { CAP * trust * stats::median(&mut lives) };
    let scale = if life_max > MANIFOLD * life_min { Scale::Log(step) } else { Scale::Capped(cap) };
    let mut model = Model {
        columns: columns.to_vec(),
        units: u32::try_from(units.len()).unwrap_or(u32::MAX),
        scale,
        method: Method::Silent(String::new()),
        life_max,
        step,
        of_age: of_age(&units),
        age_weight: 0.0,
    };
    if units.len() < UNITS_FOR_LIKENESS {
        model.method = Method::Silent(format!(
            "{} units ran to failure, at least {UNITS_FOR_LIKENESS} are needed",
            units.len()
        ));
        return (model, Vec::new());
    }
    if let Scale::Log(_) = scale {
        model.age_weight = AGE_UNITS / (AGE_UNITS + units.len() as f64);
    }
    let everyone: Vec<usize> = (0..units.len()).collect();
    let Some((expert, preparation)) = Expert::learn(&model, &units, &everyone, learning) else {
        model.method = Method::Silent("no column varies".to_owned());
        return (model, Vec::new());
    };
    let (mut residuals, mut trials) = (Vec::new(), Vec::new());
    let folds = if units.len() <= ALONE_MAX { units.len() } else { FOLDS };
    for fold in 0..folds {
        let (held, others): (Vec<usize>, Vec<usize>) =
            everyone.iter().partition(|unit| **unit % folds == fold);
        let Some((expert, preparation)) = Expert::learn(&model, &units, &others, learning) else {
            continue;
        };
        for (number, unit) in held.iter().map(|unit| (*unit, units[*unit])) {
            let asked = expert.answers(&model, &preparation, unit, thinning(&units));
            let weight = 1.0 / asked.len().max(1) as f64;
            trials.extend(asked.iter().map(|(at, estimate)| Trial {
                unit: number,
                age: unit.times[*at] - unit.times[0],
                truth: unit.rest(*at),
                estimate: scale.back(*estimate),
            }));
            residuals.extend(asked.into_iter().map(|(at, estimate)| Residual {
                estimate,
                truth: scale.whole(unit.rest(at)),
                weight,
            }));
        }
    }
    let bands = Bands::fit(residuals, units.len());
    model.method = match expert {
        Expert::Likeness(similar) => Method::Likeness(similar, preparation, bands),
        Expert::Trees(trees) => Method::Trees(trees, preparation, bands),
    };
    (model, trials)
}

/// What is left, typically, as a multiple of the age: its median over rows evenly spread in time,
/// the first tenth of a life left out.
fn of_age(units: &[&Unit]) -> f64 {
    let mut ratios = Vec::new();
    for unit in units {
        let begin = unit.times[0];
        for at in (unit.len() / 10).max(1)..unit.len() - 1 {
            ratios.push(unit.rest(at) / (unit.times[at] - begin));
        }
    }
    if ratios.is_empty() { 1.0 } else { stats::median(&mut ratios).max(f64::MIN_POSITIVE) }
}

/// One row in so many is learnt from.
fn thinning(units: &[&Unit]) -> usize {
    let rows: usize = units.iter().map(|unit| unit.len()).sum();
    rows.div_ceil(ROWS_MAX).max(1)
}

impl Model {
    /// What the age alone says, on the model's scale.
    pub(super) fn by_age(&self, age: f64) -> f64 {
        self.scale.of(self.of_age * (age + self.step))
    }

    /// What the model says in the end.
    pub(super) fn blended(&self, estimate: f64, age: f64) -> f64 {
        estimate + self.age_weight * (self.by_age(age) - estimate)
    }
}

enum Expert {
    Likeness(Similar),
    Trees(Trees),
}

impl Expert {
    fn learn(
        model: &Model,
        units: &[&Unit],
        chosen: &[usize],
        learning: Learning,
    ) -> Option<(Self, Preparation)> {
        let own: Vec<Unit> = chosen.iter().map(|unit| units[*unit].clone()).collect();
        let target = |unit: usize, at: usize| model.scale.of(own[unit].rest(at));
        let preparation = Preparation::fit(&own, target)?;
        if units.len() < UNITS_FOR_TREES {
            let lines: Vec<(Vec<f64>, Vec<f64>)> = own
                .iter()
                .enumerate()
                .map(|(index, unit)| {
                    let rest = (0..unit.len()).map(|at| target(index, at)).collect();
                    (line(&preparation, unit), rest)
                })
                .collect();
            let similar = Similar::fit(lines.iter().map(|(line, rest)| (&line[..], &rest[..])));
            return Some((Self::Likeness(similar), preparation));
        }
        let thin = thinning(units);
        let width = window::width(preparation.width());
        let mut table: Vec<Vec<f64>> = vec![Vec::new(); width];
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        for (index, unit) in own.iter().enumerate() {
            walk(&preparation, unit, |at, age, window, features| {
                if !(unit.len() - 1 - at).is_multiple_of(thin) {
                    return;
                }
                window.features(age, features);
                for (column, value) in table.iter_mut().zip(features.iter()) {
                    column.push(*value);
                }
                targets.push(target(index, at));
                weights.push(1.0);
            });
        }
        let table = Binned::new(&table, BINS);
        let how = how(learning.seed, table.rows);
        Some((Self::Trees(boost(&table, &targets, &weights, Loss::Squared, &how)), preparation))
    }

    /// Estimates for one row in `thin` of a unit, as the model would give them.
    fn answers(
        &self,
        model: &Model,
        preparation: &Preparation,
        unit: &Unit,
        thin: usize,
    ) -> Vec<(usize, f64)> {
        let mut answers = Vec::new();
        let mut recent = Vec::new();
        walk(preparation, unit, |at, age, window, features| {
            if at % STRIDE == 0 {
                recent.push(window.slow(preparation.width() - 1));
            }
            if !(unit.len() - 1 - at).is_multiple_of(thin) {
                return;
            }
            let estimate = match self {
                Self::Trees(trees) => {
                    window.features(age, features);
                    Some(trees.one(features))
                }
                Self::Likeness(similar) => {
                    similar.estimate(&recent[recent.len().saturating_sub(POINTS)..])
                }
            };
            answers.extend(estimate.map(|estimate| (at, model.blended(estimate, age))));
        });
        answers
    }
}

/// Goes through a unit row by row: number, age, window and room for features.
fn walk(
    preparation: &Preparation,
    unit: &Unit,
    mut each: impl FnMut(usize, f64, &Window, &mut Vec<f64>),
) {
    let width = preparation.width();
    let mut window = Window::new(width);
    let mut row = vec![0.0; width];
    let mut features = vec![0.0; window::width(width)];
    for at in 0..unit.len() {
        preparation.apply(unit.row(at), &mut row);
        window.push(&row);
        each(at, unit.times[at] - unit.times[0], &window, &mut features);
    }
}

fn line(preparation: &Preparation, unit: &Unit) -> Vec<f64> {
    let mut line = Vec::with_capacity(unit.len());
    walk(preparation, unit, |_, _, window, _| line.push(window.slow(preparation.width() - 1)));
    line
}
