//! Remaining useful life, learnt from units that ran to failure.
//!
//! Rows of a unit become features of the rows so far ([`window`]); boosted trees answer with the
//! remaining life; the band round it is what models without a unit were off by on that unit
//! ([`bands`]). With three or four failed units on record the estimate is by likeness alone
//! ([`similar`]); with fewer there is none. Lives that differ manifold are looked at as logarithms,
//! and what the trees say is drawn towards what the age alone says; otherwise remaining life counts
//! only up to a cap, because a healthy unit does not show how long it will last.
//!
//! Where every constant comes from, and what was tried and dropped, stands in `docs/prognosis.md`.

mod bands;
mod follow;
mod learn;
mod prepare;
mod regime;
mod similar;
#[cfg(test)]
mod tests;
mod window;

pub use follow::{Answer, Follower, Said, Silence};
pub use learn::{Learning, Trial, learn};

use serde::{Deserialize, Serialize};

use self::bands::Bands;
use self::prepare::Preparation;
use self::similar::Similar;
use crate::analytics::trees::Trees;

/// Failed units that must be on record for an estimate by likeness.
pub const UNITS_FOR_LIKENESS: usize = 3;
/// And for a learnt one.
pub const UNITS_FOR_TREES: usize = 5;

/// A run to failure: the last row is the failure.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unit {
    /// Time of each row, ascending, in any unit.
    pub times: Vec<f64>,
    /// Values row by row, `width` a row, NaN where missing.
    pub values: Vec<f64>,
}

impl Unit {
    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    fn width(&self) -> usize {
        self.values.len() / self.len().max(1)
    }

    fn row(&self, at: usize) -> &[f64] {
        let width = self.width();
        &self.values[at * width..(at + 1) * width]
    }

    fn column(&self, column: usize) -> impl Iterator<Item = f64> + '_ {
        self.values.iter().skip(column).step_by(self.width().max(1)).copied()
    }

    fn life(&self) -> f64 {
        self.times.last().zip(self.times.first()).map_or(0.0, |(last, first)| last - first)
    }

    fn rest(&self, at: usize) -> f64 {
        self.times.last().map_or(0.0, |last| last - self.times[at])
    }
}

/// How remaining life is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Scale {
    /// As it is, up to this much.
    Capped(f64),
    /// Its logarithm; less than this counts as this.
    Log(f64),
}

impl Scale {
    fn of(self, rest: f64) -> f64 {
        match self {
            Self::Capped(cap) => rest.min(cap),
            Self::Log(least) => rest.max(least).ln(),
        }
    }

    /// The same without the cap: a healthy unit's band reaches as far as lives did.
    fn whole(self, rest: f64) -> f64 {
        match self {
            Self::Capped(_) => rest,
            Self::Log(_) => self.of(rest),
        }
    }

    fn back(self, value: f64) -> f64 {
        match self {
            Self::Capped(cap) => value.clamp(0.0, cap),
            Self::Log(_) => value.exp(),
        }
    }

    fn whole_back(self, value: f64) -> f64 {
        match self {
            Self::Capped(_) => value.max(0.0),
            Self::Log(_) => value.exp(),
        }
    }
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Method {
    /// Nothing does, and why.
    Silent(String),
    /// Failed peers that looked alike.
    Likeness(Similar, Preparation, Bands),
    /// Boosted trees.
    Trees(Trees, Preparation, Bands),
}

/// A model of remaining life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The table's columns, in the order rows have them.
    pub columns: Vec<String>,
    /// Failed units it was learnt from.
    pub units: u32,
    scale: Scale,
    method: Method,
    /// Longest life on record and typical time between rows, in units of time.
    life_max: f64,
    step: f64,
    /// What is left, typically, as a multiple of the age; how much it counts beside the trees.
    of_age: f64,
    age_weight: f64,
}

/// What a file of such a model holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The column that tells units apart.
    pub unit_column: String,
    /// The column of times.
    pub time_column: String,
    /// The model.
    pub model: Model,
}

impl Model {
    /// Why the model never answers; `None` when it does.
    #[must_use]
    pub fn silent(&self) -> Option<&str> {
        match &self.method {
            Method::Silent(why) => Some(why),
            Method::Likeness(..) | Method::Trees(..) => None,
        }
    }

    /// What answers: `likeness`, `trees` or `none`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self.method {
            Method::Silent(_) => "none",
            Method::Likeness(..) => "likeness",
            Method::Trees(..) => "trees",
        }
    }

    /// Up to where remaining life counts, in units of time; `None` when it is looked at as a
    /// logarithm.
    #[must_use]
    pub fn cap(&self) -> Option<f64> {
        match self.scale {
            Scale::Capped(cap) => Some(cap),
            Scale::Log(_) => None,
        }
    }

    /// Typical time between rows in training, in units of time.
    #[must_use]
    pub const fn step(&self) -> f64 {
        self.step
    }

    /// How many operating conditions were found; 0 when they do not matter.
    #[must_use]
    pub fn conditions(&self) -> usize {
        self.preparation().map_or(0, Preparation::regimes)
    }

    fn preparation(&self) -> Option<&Preparation> {
        match &self.method {
            Method::Silent(_) => None,
            Method::Likeness(_, preparation, _) | Method::Trees(_, preparation, _) => {
                Some(preparation)
            }
        }
    }

    /// Names of the columns the model sees; the last is `health line`.
    fn seen(&self) -> Vec<String> {
        let used = self.preparation().map_or(&[][..], |preparation| &preparation.columns);
        let name = |column: &u16| self.columns[usize::from(*column)].clone();
        used.iter().map(name).chain(["health line".to_owned()]).collect()
    }

    /// Share of each column in what the trees tell apart, `age` and `health line` among them;
    /// largest first. Empty without trees.
    #[must_use]
    pub fn importances(&self) -> Vec<(String, f64)> {
        let Method::Trees(trees, ..) = &self.method else { return Vec::new() };
        let mut shares = self.by_column(&trees.importances());
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares
    }

    /// Adds up what belongs to one column.
    fn by_column(&self, features: &[f64]) -> Vec<(String, f64)> {
        let seen = self.seen();
        let mut sums = vec![0.0; seen.len() + 1];
        let after = seen.len() * window::PER_COLUMN;
        for (index, value) in features.iter().enumerate() {
            let column = if index < after {
                index % seen.len()
            } else if index + 1 < features.len() {
                seen.len() - 1
            } else {
                seen.len()
            };
            sums[column] += value;
        }
        seen.into_iter().chain(["age".to_owned()]).zip(sums).collect()
    }

    /// Whether all parts fit each other: what a file says is not believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let numbers = [self.life_max, self.step, self.of_age, self.age_weight];
        let parts = match &self.method {
            Method::Silent(_) => true,
            Method::Likeness(similar, preparation, bands) => {
                similar.is_sound() && preparation.is_sound(self.columns.len()) && bands.is_sound()
            }
            Method::Trees(trees, preparation, bands) => {
                trees.is_sound()
                    && preparation.is_sound(self.columns.len())
                    && trees.columns() == window::width(preparation.width())
                    && bands.is_sound()
            }
        };
        parts && numbers.iter().all(|number| number.is_finite())
    }
}
