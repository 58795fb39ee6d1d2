//! Classes learnt from labelled rows: which fault is this, or is it one at all?
//!
//! Boosted trees and a random forest answer; their probabilities are averaged, because the forest
//! is better where few columns tell all and boosting where they add up, and then calibrated on rows
//! neither had seen. Rare classes keep their weight: a reweighted model gives probabilities that
//! are not true, and a threshold of 0.5 then means nothing.
//!
//! Sources: those of [`crate::analytics::trees`]; J. Platt, "Probabilistic outputs for support
//! vector machines", 1999 (two numbers on the log odds of two classes); C. Guo et al., "On
//! calibration of modern neural networks", ICML 2017 (one temperature for several).

mod calibration;
mod figures;
mod learn;
#[cfg(test)]
mod tests;

pub use figures::{ClassFigures, Figures, average_precision};
pub use learn::{LearnError, learn};

use serde::{Deserialize, Serialize};

use self::calibration::Calibration;
use crate::analytics::trees::Trees;

/// Classes a label may have.
pub const CLASSES_MAX: usize = 50;
/// Texts of a column that are told apart; others count as unknown.
pub const TEXTS_MAX: usize = 16;
/// Rows that must have a text for it to be told apart.
pub const TEXT_ROWS_MIN: usize = 5;

/// A cell of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A number; NaN where missing.
    Number(f64),
    /// A text.
    Text(String),
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Numbers.
    Numbers,
    /// These texts, each an input of its own; others count as none of them.
    Texts(Vec<String>),
}

/// One column of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

impl Input {
    fn width(&self) -> usize {
        match &self.content {
            Content::Numbers => 1,
            Content::Texts(texts) => texts.len(),
        }
    }

    /// Writes the column's inputs for a cell. A text where numbers were is a missing value, a
    /// number where texts were is looked for among the texts as it is written.
    fn write(&self, cell: &Cell, out: &mut Vec<f64>) {
        match (&self.content, cell) {
            (Content::Numbers, Cell::Number(value)) => {
                out.push(if value.is_finite() { *value } else { f64::NAN });
            }
            (Content::Numbers, Cell::Text(_)) => out.push(f64::NAN),
            (Content::Texts(texts), cell) => {
                let written = match cell {
                    Cell::Text(text) => text.clone(),
                    Cell::Number(value) => value.to_string(),
                };
                out.extend(texts.iter().map(|text| f64::from(u8::from(*text == written))));
            }
        }
    }
}

/// A model of classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The columns, in the order rows have them.
    pub inputs: Vec<Input>,
    /// The classes; of two, the second is the rarer one.
    pub classes: Vec<String>,
    /// Rows it was learnt from.
    pub rows: u32,
    boosted: Trees,
    /// One output a class, or the second class's alone when there are two.
    forest: Vec<Trees>,
    calibration: Calibration,
}

impl Model {
    /// The inputs of a row.
    #[must_use]
    pub fn inputs_of(&self, cells: &[Cell]) -> Vec<f64> {
        let mut out = Vec::with_capacity(self.boosted.columns());
        for (input, cell) in self.inputs.iter().zip(cells) {
            input.write(cell, &mut out);
        }
        out
    }

    /// Probability of each class; they sum to 1. `inputs` are those of [`Self::inputs_of`].
    #[must_use]
    pub fn probabilities(&self, inputs: &[f64]) -> Vec<f64> {
        self.calibration.apply(&learn::raw(&self.boosted, &self.forest, inputs))
    }

    /// The class to print and its probability: of two, the second from `threshold` on; of several,
    /// the likeliest.
    #[must_use]
    pub fn decide(&self, probabilities: &[f64], threshold: f64) -> (usize, f64) {
        if let [first, second] = probabilities {
            return if *second >= threshold { (1, *second) } else { (0, *first) };
        }
        let best = probabilities.iter().enumerate().reduce(|a, b| if b.1 > a.1 { b } else { a });
        best.map_or((0, 0.0), |(class, probability)| (class, *probability))
    }

    /// Share of each column in what the trees tell apart; largest first.
    #[must_use]
    pub fn importances(&self) -> Vec<(String, f64)> {
        let mut sums = vec![0.0; self.boosted.columns()];
        let parts = std::iter::once(&self.boosted).chain(&self.forest);
        for trees in parts {
            for (sum, share) in sums.iter_mut().zip(trees.importances()) {
                *sum += share / (1 + self.forest.len()) as f64;
            }
        }
        let mut shares = self.by_column(&sums);
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares
    }

    /// What each column adds to the log odds of a class in the boosted part, and what is expected
    /// when nothing is known.
    #[must_use]
    pub fn contributions(&self, inputs: &[f64], class: usize) -> (f64, Vec<(String, f64)>) {
        let mut out = vec![0.0; self.boosted.columns()];
        let one = self.boosted.outputs() == 1;
        let expected = self.boosted.contributions(inputs, if one { 0 } else { class }, &mut out);
        // With one output the sum speaks for the second class.
        let sign = if one && class == 0 { -1.0 } else { 1.0 };
        out.iter_mut().for_each(|value| *value *= sign);
        (sign * expected, self.by_column(&out))
    }

    fn by_column(&self, inputs: &[f64]) -> Vec<(String, f64)> {
        let mut values = inputs.iter();
        self.inputs
            .iter()
            .map(|input| (input.name.clone(), values.by_ref().take(input.width()).sum()))
            .collect()
    }

    /// Whether all parts fit each other: what a file says is not believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let width: usize = self.inputs.iter().map(Input::width).sum();
        let outputs = if self.classes.len() == 2 { 1 } else { self.classes.len() };
        self.classes.len() >= 2
            && self.boosted.outputs() == outputs
            && self.forest.len() == outputs
            && self.calibration.is_sound()
            && std::iter::once(&self.boosted)
                .chain(&self.forest)
                .all(|trees| trees.is_sound() && trees.columns() == width)
    }
}
