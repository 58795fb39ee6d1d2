//! What the rows of a unit say so far, as numbers a model can use; one row at a time, so that a row
//! can only know those before it.

/// Rows of the long window.
const LONG: usize = 30;
/// Rows of the short window.
const SHORT: usize = 10;
/// Rows at the beginning of a unit that say what is normal for it.
const FIRST: usize = 10;
/// Weight of a new row in the slow mean.
const SLOW: f64 = 0.1;
/// Features of one column.
pub(super) const PER_COLUMN: usize = 6;
/// Rows for which a missing value is taken to be the one before it.
const CARRIED: usize = 5;
/// Rows of the health line that are remembered.
const LINE: usize = 100;
/// Rows at the beginning of a health line that say what is normal.
const LINE_FIRST: usize = 20;
/// Features of the health line, beside those of a column.
pub(super) const PER_LINE: usize = 7;

/// What is remembered of one column.
#[derive(Debug, Clone)]
struct Column {
    ring: [f64; LONG],
    /// Rows with a value.
    seen: usize,
    slow: f64,
    first: f64,
    /// Rows since the last value.
    missing: usize,
}

/// The health line: the rows' projection on what falls as units wear.
#[derive(Debug, Clone)]
struct Line {
    ring: [f64; LINE],
    seen: usize,
    first: f64,
}

/// Follows one unit.
#[derive(Debug, Clone)]
pub(super) struct Window {
    columns: Vec<Column>,
    line: Line,
}

/// How many features a unit with so many columns (the health line among them) has.
pub(super) fn width(columns: usize) -> usize {
    columns * PER_COLUMN + PER_LINE + 1
}

impl Window {
    /// A unit of which nothing was seen, with so many columns; the last is the health line.
    pub(super) fn new(columns: usize) -> Self {
        let column =
            Column { ring: [0.0; LONG], seen: 0, slow: f64::NAN, first: f64::NAN, missing: 0 };
        let line = Line { ring: [0.0; LINE], seen: 0, first: 0.0 };
        Self { columns: vec![column; columns], line }
    }

    /// Takes the next row: one value a column, NaN where missing.
    pub(super) fn push(&mut self, row: &[f64]) {
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(*value);
        }
        if let Some(value) = row.last().filter(|value| value.is_finite()) {
            self.line.push(*value);
        }
    }

    /// Writes [`width`] features to `out`: [`PER_COLUMN`] kinds for all columns, those of the
    /// health line, the age.
    pub(super) fn features(&self, age: f64, out: &mut [f64]) {
        let width = self.columns.len();
        for (index, column) in self.columns.iter().enumerate() {
            for (feature, value) in column.features().into_iter().enumerate() {
                out[feature * width + index] = value;
            }
        }
        let after = width * PER_COLUMN;
        out[after..after + PER_LINE].copy_from_slice(&self.line.features());
        out[after + PER_LINE] = age;
    }

    /// Whether this column has had a value lately.
    pub(super) fn has(&self, column: usize) -> bool {
        self.columns[column].is_known()
    }

    /// The slow mean of a column; NaN when it has had no value lately.
    pub(super) fn slow(&self, column: usize) -> f64 {
        if self.has(column) { self.columns[column].slow } else { f64::NAN }
    }
}

impl Column {
    fn is_known(&self) -> bool {
        self.seen > 0 && self.missing <= CARRIED
    }

    fn push(&mut self, value: f64) {
        let value = if value.is_finite() {
            self.missing = 0;
            value
        } else {
            self.missing += 1;
            if !self.is_known() {
                return;
            }
            self.ring[(self.seen - 1) % LONG]
        };
        self.ring[self.seen % LONG] = value;
        if self.seen == 0 {
            (self.slow, self.first) = (value, value);
        } else {
            self.slow += SLOW * (value - self.slow);
        }
        self.seen += 1;
        if self.seen <= FIRST {
            self.first += (value - self.first) / self.seen as f64;
        }
    }

    fn features(&self) -> [f64; PER_COLUMN] {
        if !self.is_known() {
            return [f64::NAN; PER_COLUMN];
        }
        let count = self.seen.min(LONG);
        let middle = (count - 1) as f64 / 2.0;
        let (mut sum, mut squares, mut along, mut short) = (0.0, 0.0, 0.0, 0.0);
        let first = self.first;
        for back in 0..count {
            let value = self.ring[(self.seen - 1 - back) % LONG] - first;
            sum += value;
            squares += value * value;
            along += (middle - back as f64) * value;
            if back < SHORT {
                short += value;
            }
        }
        let rows = count as f64;
        let mean = sum / rows;
        let slope = if count > 4 { along / (rows * (rows * rows - 1.0) / 12.0) } else { 0.0 };
        [
            self.slow,
            first + mean,
            first + short / count.min(SHORT) as f64,
            slope * LONG as f64,
            (squares / rows - mean * mean).max(0.0).sqrt(),
            self.slow - first,
        ]
    }
}

impl Line {
    fn push(&mut self, value: f64) {
        self.ring[self.seen % LINE] = value;
        self.seen += 1;
        if self.seen <= LINE_FIRST {
            self.first += (value - self.first) / self.seen as f64;
        }
    }

    /// The mean of the values from `from` to `to` rows ago; of the oldest one when none is as old.
    fn mean(&self, from: usize, to: usize) -> f64 {
        let known = self.seen.min(LINE);
        let to = to.min(known);
        if from >= to {
            return self.ring[(self.seen - known) % LINE];
        }
        let sum: f64 = (from..to).map(|back| self.ring[(self.seen - 1 - back) % LINE]).sum();
        sum / (to - from) as f64
    }

    fn features(&self) -> [f64; PER_LINE] {
        if self.seen == 0 {
            return [f64::NAN; PER_LINE];
        }
        let (now, before) = (self.mean(0, 15), self.mean(15, 30));
        let recent = self.mean(0, 20);
        [
            self.mean(0, 5),
            self.mean(0, 60),
            now - before,
            recent - self.mean(40, 60),
            self.mean(0, 30) - self.mean(60, LINE),
            recent - self.first,
            now - 2.0 * before + self.mean(30, 45),
        ]
    }
}
