//! Following one unit with a model, row by row.

use super::similar::{POINTS, STRIDE};
use super::window::{self, Window};
use super::{Method, Model, Scale};

/// Rows before anything is said: one a feature of the short window needs.
const ROWS_MIN: usize = 5;
/// And when lives differ manifold: the long window must be full.
const ROWS_MIN_LOG: usize = 30;
/// Share of the columns without a value from where on nothing is said.
const MISSING_MAX: f64 = 0.5;
/// Share of the columns far outside of what is on record from where on nothing is said.
const FOREIGN_MAX: f64 = 0.25;
/// Ages beyond this many times the longest life on record say nothing.
const OLD: f64 = 2.0;
/// Rows may be this many times as far apart, or as near to each other, as they were in training.
const STEP_FACTOR: f64 = 3.0;
/// Ends of the band may be apart by this factor.
const BAND_FACTOR_MAX: f64 = 200.0;

/// Remaining life, in units of time: an 80 % band and the estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// One in ten fails earlier.
    pub p10: f64,
    /// The estimate.
    pub p50: f64,
    /// One in ten fails later.
    pub p90: f64,
}

/// Why nothing is said.
#[derive(Debug, Clone, PartialEq)]
pub enum Silence {
    /// The model never answers.
    Model(String),
    /// Too few rows so far.
    Beginning {
        /// How many are needed.
        rows: usize,
    },
    /// Too many columns have no value.
    Missing {
        /// How many.
        columns: usize,
    },
    /// Too many columns are far from all that is on record.
    Foreign {
        /// How many.
        columns: usize,
    },
    /// Older than anything on record by far.
    Old,
    /// Rows come at another pace than in training.
    Pace {
        /// Time between rows.
        step: f64,
        /// The same in training.
        trained: f64,
    },
    /// The band would be so wide that it says nothing.
    Wide,
}

impl Silence {
    /// The reason without numbers, the same for all rows it applies to.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Model(why) => why,
            Self::Beginning { .. } => "too few rows so far",
            Self::Missing { .. } => "too many columns have no value",
            Self::Foreign { .. } => "too many columns are far outside of what is on record",
            Self::Old => "far older than the longest life on record",
            Self::Pace { .. } => "rows come at another pace than in training",
            Self::Wide => "the band would be too wide to say anything",
        }
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(why) => f.write_str(why),
            Self::Beginning { rows } => write!(f, "fewer than {rows} rows so far"),
            Self::Missing { columns } => write!(f, "{columns} columns have no value"),
            Self::Foreign { columns } => {
                write!(f, "{columns} columns are far outside of what is on record")
            }
            Self::Old => write!(f, "older than {OLD} times the longest life on record"),
            Self::Pace { step, trained } => {
                write!(f, "rows are {step} apart, in training they were {trained}")
            }
            Self::Wide => f.write_str("the band is too wide to say anything"),
        }
    }
}

/// What is said of a row.
pub type Said = Result<Answer, Silence>;

/// One unit under a model. A row's answer follows from it and the rows before it.
#[derive(Debug)]
pub struct Follower<'a> {
    model: &'a Model,
    window: Window,
    row: Vec<f64>,
    features: Vec<f64>,
    recent: Vec<f64>,
    seen: usize,
    begin: f64,
    age: f64,
}

impl<'a> Follower<'a> {
    /// A unit of which nothing was seen.
    #[must_use]
    pub fn new(model: &'a Model) -> Self {
        let width = model.preparation().map_or(1, super::prepare::Preparation::width);
        Self {
            model,
            window: Window::new(width),
            row: vec![0.0; width],
            features: vec![0.0; window::width(width)],
            recent: Vec::new(),
            seen: 0,
            begin: 0.0,
            age: 0.0,
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &'a Model {
        self.model
    }

    /// Takes the next row: its time and one value for each of the model's columns (NaN where
    /// missing). Times must ascend.
    pub fn push(&mut self, time: f64, values: &[f64]) {
        if self.seen == 0 {
            self.begin = time;
        }
        self.seen += 1;
        self.age = time - self.begin;
        let Some(preparation) = self.model.preparation() else { return };
        preparation.apply(values, &mut self.row);
        self.window.push(&self.row);
        if let Method::Likeness(..) = self.model.method
            && (self.seen - 1).is_multiple_of(STRIDE)
        {
            if self.recent.len() == POINTS {
                self.recent.remove(0);
            }
            self.recent.push(self.window.slow(self.row.len() - 1));
        }
    }

    /// Remaining life after the newest row.
    ///
    /// # Errors
    /// Why nothing can be said.
    pub fn answer(&mut self) -> Said {
        let estimate = self.estimate()?;
        let bands = match &self.model.method {
            Method::Silent(why) => return Err(Silence::Model(why.clone())),
            Method::Likeness(_, _, bands) | Method::Trees(_, _, bands) => bands,
        };
        let (low, high) = bands.around(estimate);
        let back = |value: f64| self.model.scale.back(value);
        let answer =
            Answer { p10: back(low), p50: back(estimate), p90: self.model.scale.whole_back(high) };
        if let Scale::Log(_) = self.model.scale
            && answer.p90 > BAND_FACTOR_MAX * answer.p10
        {
            return Err(Silence::Wide);
        }
        Ok(answer)
    }

    fn estimate(&mut self) -> Result<f64, Silence> {
        self.can_speak()?;
        let estimate = match &self.model.method {
            Method::Silent(why) => return Err(Silence::Model(why.clone())),
            Method::Likeness(similar, ..) => similar.estimate(&self.recent),
            Method::Trees(trees, ..) => {
                self.window.features(self.age, &mut self.features);
                Some(trees.one(&self.features))
            }
        };
        let estimate = estimate.ok_or(Silence::Missing { columns: self.row.len() })?;
        Ok(self.model.blended(estimate, self.age))
    }

    fn can_speak(&self) -> Result<(), Silence> {
        let Some(preparation) = self.model.preparation() else {
            return Err(Silence::Model(self.model.silent().unwrap_or_default().to_owned()));
        };
        let rows = match self.model.scale {
            Scale::Capped(_) => ROWS_MIN,
            Scale::Log(_) => ROWS_MIN_LOG,
        };
        if self.seen < rows {
            return Err(Silence::Beginning { rows });
        }
        let (step, trained) = (self.age / (self.seen - 1) as f64, self.model.step);
        if step > STEP_FACTOR * trained || step * STEP_FACTOR < trained {
            return Err(Silence::Pace { step, trained });
        }
        if self.age > OLD * self.model.life_max {
            return Err(Silence::Old);
        }
        let width = preparation.width() - 1;
        let missing = (0..width).filter(|column| !self.window.has(*column)).count();
        if missing as f64 >= MISSING_MAX * width as f64 {
            return Err(Silence::Missing { columns: missing });
        }
        let foreign = |column: &usize| preparation.is_foreign(*column, self.window.slow(*column));
        let foreign = (0..width).filter(foreign).count();
        if foreign as f64 > FOREIGN_MAX * width as f64 {
            return Err(Silence::Foreign { columns: foreign });
        }
        Ok(())
    }

    /// What each column, `health line` and `age` add to the newest estimate, and what is expected
    /// when nothing is known. On the model's scale: units of time, or natural logarithms of them
    /// when lives differ manifold ([`Model::cap`]); together they sum to the estimate before it is
    /// kept within its limits. `None` without trees or before the first row.
    pub fn contributions(&mut self) -> Option<(f64, Vec<(String, f64)>)> {
        let Method::Trees(trees, ..) = &self.model.method else { return None };
        if self.seen == 0 {
            return None;
        }
        self.window.features(self.age, &mut self.features);
        let mut out = vec![0.0; self.features.len()];
        let expected = trees.contributions(&self.features, 0, &mut out);
        let kept = 1.0 - self.model.age_weight;
        out.iter_mut().for_each(|value| *value *= kept);
        let mut columns = self.model.by_column(&out);
        if let Some((_, age)) = columns.last_mut() {
            *age += self.model.age_weight * self.model.by_age(self.age);
        }
        Some((expected * kept, columns))
    }
}
