//! Operating conditions: columns that jump between a few levels and take most other columns with
//! them. Wear is then seen only beside other rows of the same condition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Unit;

/// Levels a column of the conditions has at most.
const LEVELS_MAX: usize = 12;
/// Conditions at most.
const REGIMES_MAX: usize = 24;
/// Columns that together tell the condition.
const TOLD_BY_MAX: usize = 3;
/// Two levels are apart by at least this share of the column's span.
const GAP: f64 = 0.04;
/// Levels together are at most this wide, as a share of the column's span.
const TIGHT: f64 = 0.05;
/// A level is held by at least this share of the rows.
const HELD: f64 = 0.01;
/// Conditions count when they explain more than this share of the variance of half the columns.
const EXPLAINED: f64 = 0.5;

/// A level of a column: from, to.
type Level = (f64, f64);

/// The operating conditions of a fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Regimes {
    told_by: Vec<(u16, Vec<Level>)>,
    /// Number of each combination of levels.
    known: BTreeMap<Vec<u8>, u8>,
    /// Mean and deviation of each table column in each condition.
    standards: Vec<Vec<(f32, f32)>>,
}

impl Regimes {
    /// Looks for conditions in these columns; `None` when there are none that matter.
    pub(super) fn find(units: &[Unit], columns: &[usize]) -> Option<Self> {
        let mut candidates = Vec::new();
        for column in columns {
            if let Some((tightness, levels)) = levels_of(units, *column) {
                candidates.push((tightness, *column, levels));
            }
        }
        candidates.sort_by(|a, b| a.0.total_cmp(&b.0));
        candidates.truncate(TOLD_BY_MAX);
        let mut told_by = Vec::new();
        for (_, column, levels) in candidates {
            told_by.push((u16::try_from(column).ok()?, levels));
        }
        if told_by.is_empty() {
            return None;
        }
        let mut this = Self { told_by, known: BTreeMap::new(), standards: Vec::new() };
        let rows = || units.iter().flat_map(|unit| (0..unit.len()).map(move |at| unit.row(at)));
        for row in rows() {
            if let Some(key) = this.key(row) {
                let next = u8::try_from(this.known.len()).ok()?;
                this.known.entry(key).or_insert(next);
            }
            if this.known.len() > REGIMES_MAX {
                return None;
            }
        }
        if this.known.len() < 2 {
            return None;
        }
        let width = units.first()?.width();
        let mut explained = Vec::new();
        this.standards = vec![vec![(0.0, 0.0); width]; this.known.len()];
        for column in 0..width {
            let mut sums = vec![(0.0, 0.0, 0.0); this.known.len()];
            for row in rows().filter(|row| row[column].is_finite()) {
                if let Some(regime) = this.of(row) {
                    let (count, mean, squares) = &mut sums[regime];
                    // Welford's recurrence.
                    *count += 1.0;
                    let departure: f64 = row[column] - *mean;
                    *mean += departure / *count;
                    *squares += departure * (row[column] - *mean);
                }
            }
            let count: f64 = sums.iter().map(|sum| sum.0).sum();
            let mean = sums.iter().map(|sum| sum.0 * sum.1).sum::<f64>() / f64::max(count, 1.0);
            let within: f64 = sums.iter().map(|sum| sum.2).sum();
            let between: f64 = sums.iter().map(|sum| sum.0 * (sum.1 - mean).powi(2)).sum();
            for (regime, (count, mean, squares)) in sums.iter().enumerate() {
                let deviation = (squares / f64::max(*count, 1.0)).sqrt();
                let steady = deviation <= 1e-6 * mean.abs().max(1e-12);
                #[expect(clippy::cast_possible_truncation, reason = "a model needs no more digits")]
                let standard = (*mean as f32, if steady { 0.0 } else { deviation as f32 });
                this.standards[regime][column] = standard;
            }
            let telling = this.told_by.iter().any(|(told, _)| usize::from(*told) == column);
            if columns.contains(&column) && !telling && within + between > 0.0 {
                explained.push(between / (within + between));
            }
        }
        let middle = crate::analytics::stats::median(&mut explained);
        (middle > EXPLAINED).then_some(this)
    }

    fn key(&self, row: &[f64]) -> Option<Vec<u8>> {
        let mut key = Vec::with_capacity(self.told_by.len());
        for (column, levels) in &self.told_by {
            let value = row[usize::from(*column)];
            let near = levels.iter().position(|(from, to)| *from <= value && value <= *to)?;
            key.push(u8::try_from(near).ok()?);
        }
        Some(key)
    }

    /// The condition of a row of the table; `None` when it is like none on record.
    pub(super) fn of(&self, row: &[f64]) -> Option<usize> {
        self.known.get(&self.key(row)?).map(|regime| usize::from(*regime))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// Whether a column says more than the condition.
    pub(super) fn varies(&self, column: usize) -> bool {
        let telling = self.told_by.iter().any(|(told, _)| usize::from(*told) == column);
        !telling && self.standards.iter().any(|standards| standards[column].1 > 0.0)
    }

    /// A value beside others of its condition, in deviations.
    pub(super) fn standard(&self, regime: usize, column: usize, value: f64) -> f64 {
        let (mean, deviation) = self.standards[regime][column];
        if deviation > 0.0 { (value - f64::from(mean)) / f64::from(deviation) } else { 0.0 }
    }

    pub(super) fn is_sound(&self, table: usize) -> bool {
        self.told_by.iter().all(|(column, _)| usize::from(*column) < table)
            && self.known.values().all(|regime| usize::from(*regime) < self.standards.len())
            && self.standards.iter().all(|standards| standards.len() == table)
    }
}

/// The levels of a column and how tight they are; `None` when it has none.
fn levels_of(units: &[Unit], column: usize) -> Option<(f64, Vec<Level>)> {
    let mut values: Vec<f64> = units
        .iter()
        .flat_map(|unit| unit.column(column))
        .filter(|value| value.is_finite())
        .collect();
    values.sort_unstable_by(f64::total_cmp);
    let span = values.last()? - values.first()?;
    let mut groups: Vec<(f64, f64, usize)> = Vec::new();
    for value in &values {
        match groups.last_mut() {
            Some((_, to, count)) if value - *to <= GAP * span => {
                *to = *value;
                *count += 1;
            }
            _ => groups.push((*value, *value, 1)),
        }
        if groups.len() > LEVELS_MAX {
            return None;
        }
    }
    let held = groups.iter().all(|(_, _, count)| *count as f64 >= HELD * values.len() as f64);
    let width: f64 = groups.iter().map(|(from, to, _)| to - from).sum::<f64>() / span;
    if groups.len() < 2 || !held || width > TIGHT {
        return None;
    }
    // A level reaches a little beyond what was seen of it.
    let margin = GAP * span / 4.0;
    Some((width, groups.iter().map(|(from, to, _)| (from - margin, to + margin)).collect()))
}
