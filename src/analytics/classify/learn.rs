//! Learning classes from labelled rows.

use std::collections::BTreeMap;

use super::calibration::Calibration;
use super::{CLASSES_MAX, Cell, Content, Figures, Input, Model, TEXT_ROWS_MIN, TEXTS_MAX};
use crate::analytics::trees::{
    Binned, Boosting, ForestSettings, Loss, Shape, Trees, boost, forest, logistic,
};

/// Bins of a column: many, because faults begin at limits and rows on both sides of one must not
/// fall into the same bin; fewer when there are many columns.
const BINS: std::ops::RangeInclusive<usize> = 63..=1000;
/// Bins of all columns together.
const BINS_TOGETHER: usize = 20_000;
/// Parts rows are split into for cross-validation.
const FOLDS: usize = 5;
/// Trees of the forests together, at most; several classes share them.
const FOREST_TREES: usize = 70;
/// Rounds of boosting.
const ROUNDS: usize = 150;
/// Share of the columns offered to each split of the forest.
const SPLIT_COLUMNS: f64 = 0.8;
/// Share of the forest in the average.
const FOREST_SHARE: f64 = 0.6;

/// Rows nothing can be learnt from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LearnError {
    /// All rows have one class.
    #[error("every row is labelled `{0}`: there is nothing to tell apart")]
    OneClass(String),
    /// The label looks like a measurement.
    #[error("the label has {0} different values, at most {CLASSES_MAX} classes are possible")]
    TooManyClasses(usize),
    /// No column says anything.
    #[error("no column varies: there is nothing to learn from")]
    Constant,
}

/// Rows as the trees see them.
struct Rows {
    columns: Vec<Vec<f64>>,
    classes: Vec<usize>,
}

/// Learns a model of `labels` from `rows` of cells, one for each name; beside it, how models did on
/// rows they had not seen (stratified five-fold cross-validation).
///
/// # Errors
/// When nothing can be learnt.
pub fn learn(
    names: &[String],
    rows: &[Vec<Cell>],
    labels: &[String],
    seed: u64,
) -> Result<(Model, Figures), LearnError> {
    let classes = classes_of(labels)?;
    let inputs: Vec<Input> =
        names.iter().enumerate().map(|(at, name)| input(name, rows, at)).collect();
    let mut columns: Vec<Vec<f64>> = Vec::new();
    for row in rows {
        let mut values = Vec::new();
        for (input, cell) in inputs.iter().zip(row) {
            input.write(cell, &mut values);
        }
        columns.resize(values.len(), Vec::new());
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
    let number = |label: &String| classes.iter().position(|class| class == label).unwrap_or(0);
    let all = Rows { columns, classes: labels.iter().map(number).collect() };
    let varies = |column: &Vec<f64>| {
        let known = || column.iter().filter(|value| value.is_finite());
        known().zip(known().skip(1)).any(|(a, b)| a.total_cmp(b).is_ne())
            || (known().count() > 0 && known().count() < column.len())
    };
    if !all.columns.iter().any(varies) {
        return Err(LearnError::Constant);
    }
    let folds = folds(&all.classes, classes.len(), seed);
    let mut raws = vec![Vec::new(); rows.len()];
    for fold in 0..FOLDS {
        let chosen: Vec<usize> = (0..rows.len()).filter(|row| folds[*row] != fold).collect();
        if chosen.is_empty() || chosen.len() == rows.len() {
            continue;
        }
        let (boosted, forest) = grow(&all, &chosen, classes.len(), seed);
        let mut inputs = vec![0.0; all.columns.len()];
        for row in (0..rows.len()).filter(|row| folds[*row] == fold) {
            for (input, column) in inputs.iter_mut().zip(&all.columns) {
                *input = column[row];
            }
            raws[row] = raw(&boosted, &forest, &inputs);
        }
    }
    let asked: Vec<usize> = (0..rows.len()).filter(|row| !raws[*row].is_empty()).collect();
    let raws: Vec<Vec<f64>> = asked.iter().map(|row| std::mem::take(&mut raws[*row])).collect();
    let truth: Vec<usize> = asked.iter().map(|row| all.classes[*row]).collect();
    let calibration = Calibration::fit(&raws, &truth);
    let bent: Vec<Vec<f64>> = raws.iter().map(|raw| calibration.apply(raw)).collect();
    let figures = Figures::new(&classes, &bent, &truth);
    let everything: Vec<usize> = (0..rows.len()).collect();
    let (boosted, forest) = grow(&all, &everything, classes.len(), seed);
    let rows = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    Ok((Model { inputs, classes, rows, boosted, forest, calibration }, figures))
}

/// Classes in alphabetical order; of two, the more frequent one first.
fn classes_of(labels: &[String]) -> Result<Vec<String>, LearnError> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    let mut classes: Vec<String> = counts.keys().map(|class| (*class).clone()).collect();
    if classes.len() < 2 {
        return Err(LearnError::OneClass(classes.pop().unwrap_or_default()));
    }
    if classes.len() > CLASSES_MAX {
        return Err(LearnError::TooManyClasses(classes.len()));
    }
    if classes.len() == 2 {
        classes.sort_by_key(|class| std::cmp::Reverse(counts[class]));
    }
    Ok(classes)
}

fn input(name: &str, rows: &[Vec<Cell>], at: usize) -> Input {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut is_text = false;
    for row in rows {
        match &row[at] {
            Cell::Text(text) => {
                is_text = true;
                *counts.entry(text.clone()).or_default() += 1;
            }
            Cell::Number(value) if value.is_finite() => {
                *counts.entry(value.to_string()).or_default() += 1;
            }
            Cell::Number(_) => {}
        }
    }
    let content = if is_text {
        let mut texts: Vec<(String, usize)> =
            counts.into_iter().filter(|(_, count)| *count >= TEXT_ROWS_MIN).collect();
        texts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        texts.truncate(TEXTS_MAX);
        Content::Texts(texts.into_iter().map(|(text, _)| text).collect())
    } else {
        Content::Numbers
    };
    Input { name: name.to_owned(), content }
}

/// The fold of each row: every class is spread evenly.
fn folds(classes: &[usize], count: usize, seed: u64) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut folds = vec![0; classes.len()];
    let mut next = 0;
    for class in 0..count {
        let mut rows: Vec<usize> =
            (0..classes.len()).filter(|row| classes[*row] == class).collect();
        random.shuffle(&mut rows);
        for row in rows {
            folds[row] = next % FOLDS;
            next += 1;
        }
    }
    folds
}

fn grow(rows: &Rows, chosen: &[usize], classes: usize, seed: u64) -> (Trees, Vec<Trees>) {
    let columns: Vec<Vec<f64>> =
        rows.columns.iter().map(|column| chosen.iter().map(|row| column[*row]).collect()).collect();
    let bins = (BINS_TOGETHER / columns.len().max(1)).clamp(*BINS.start(), *BINS.end());
    let table = Binned::new(&columns, bins);
    let targets: Vec<f64> = chosen.iter().map(|row| rows.classes[*row] as f64).collect();
    let weights = vec![1.0; chosen.len()];
    let two = classes == 2;
    let how = Boosting {
        rounds: ROUNDS,
        rate: 0.05,
        shape: Shape {
            leaves: 15,
            depth: 12,
            rows_min: (chosen.len() / 100).clamp(2, 20),
            curvature_min: 1e-3,
            ridge: 0.0,
            gain_min: 1e-9,
            split_columns: 1.0,
        },
        row_share: 0.8,
        column_share: 1.0,
        seed,
    };
    let loss = if two { Loss::Logistic } else { Loss::Multiclass(classes) };
    let boosted = boost(&table, &targets, &weights, loss, &how);
    let settings = ForestSettings {
        trees: if two { FOREST_TREES } else { (2 * FOREST_TREES / classes).max(10) },
        shape: Shape {
            leaves: 160,
            depth: 16,
            rows_min: 3,
            curvature_min: 0.0,
            ridge: 0.0,
            gain_min: 1e-9,
            split_columns: SPLIT_COLUMNS,
        },
        seed,
    };
    let asked: Vec<usize> = if two { vec![1] } else { (0..classes).collect() };
    let forests = asked
        .into_iter()
        .map(|class| {
            let is = |target: &f64| f64::from(u8::from((*target - class as f64).abs() < 0.5));
            let is: Vec<f64> = targets.iter().map(is).collect();
            forest(&table, &is, &weights, &settings)
        })
        .collect();
    (boosted, forests)
}

/// Probabilities before calibration; they sum to 1.
pub(super) fn raw(boosted: &Trees, forest: &[Trees], inputs: &[f64]) -> Vec<f64> {
    if boosted.outputs() == 1 {
        let share = forest.first().map_or(0.0, |forest| forest.one(inputs)).clamp(0.0, 1.0);
        let p = (1.0 - FOREST_SHARE) * logistic(boosted.one(inputs)) + FOREST_SHARE * share;
        return vec![1.0 - p, p];
    }
    let mut sums = vec![0.0; boosted.outputs()];
    boosted.sum(inputs, &mut sums);
    let most = sums.iter().copied().fold(f64::MIN, f64::max);
    sums.iter_mut().for_each(|sum| *sum = (*sum - most).exp());
    let total: f64 = sums.iter().sum();
    let votes: Vec<f64> = forest.iter().map(|forest| forest.one(inputs).max(0.0)).collect();
    let cast: f64 = votes.iter().sum::<f64>().max(1e-9);
    let both = sums.iter().zip(votes);
    both.map(|(p, vote)| (1.0 - FOREST_SHARE) * p / total + FOREST_SHARE * vote / cast).collect()
}
