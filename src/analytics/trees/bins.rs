//! Columns cut into bins.

use serde::{Deserialize, Serialize};

/// Where a column is cut, ascending. Single precision where that still tells the same values
/// apart, because most of a small model is edges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Edges {
    /// Single precision.
    Coarse(Vec<f32>),
    /// Where values are nearer to each other than that.
    Fine(Vec<f64>),
}

impl Edges {
    /// Edges of a column with at most `bins` bins: half-way between neighbouring values where there
    /// are few of them, else so that bins hold about as many rows.
    #[must_use]
    pub fn of(values: &[f64], bins: usize) -> Self {
        let mut sorted: Vec<f64> =
            values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let total = sorted.len();
        let mut groups: Vec<(f64, usize)> = Vec::new();
        for value in sorted {
            match groups.last_mut() {
                Some((last, count)) if *last >= value => *count += 1,
                _ => groups.push((value, 1)),
            }
        }
        let mut pairs = Vec::new();
        let (mut filled, mut seen, mut left) = (0, 0, bins.max(2));
        for pair in groups.windows(2) {
            filled += pair[0].1;
            seen += pair[0].1;
            let wanted = if groups.len() <= bins { 0 } else { (total - (seen - filled)) / left };
            if filled >= wanted.max(1) && left > 1 {
                pairs.push((pair[0].0, pair[1].0));
                filled = 0;
                left -= 1;
            }
        }
        let middle = |(low, high): (f64, f64)| low + (high - low) / 2.0;
        #[expect(clippy::cast_possible_truncation, reason = "looked at before it is used")]
        let coarse: Vec<f32> = pairs.iter().map(|pair| middle(*pair) as f32).collect();
        let apart = coarse.iter().zip(&pairs).all(|(edge, (low, high))| {
            let edge = f64::from(*edge);
            *low <= edge && edge < *high
        });
        if apart {
            Self::Coarse(coarse)
        } else {
            let exact =
                |pair: (f64, f64)| if middle(pair) < pair.1 { middle(pair) } else { pair.0 };
            Self::Fine(pairs.into_iter().map(exact).collect())
        }
    }

    /// How many edges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Coarse(edges) => edges.len(),
            Self::Fine(edges) => edges.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The edge with this number.
    #[must_use]
    pub fn at(&self, index: usize) -> f64 {
        match self {
            Self::Coarse(edges) => f64::from(edges[index]),
            Self::Fine(edges) => edges[index],
        }
    }

    /// The bin of a value: 0 for a missing one, else one more than the edges below it.
    #[must_use]
    pub fn bin(&self, value: f64) -> u16 {
        if value.is_nan() {
            return 0;
        }
        let below = match self {
            Self::Coarse(edges) => edges.partition_point(|edge| f64::from(*edge) < value),
            Self::Fine(edges) => edges.partition_point(|edge| *edge < value),
        };
        u16::try_from(below + 1).expect("bins are few")
    }

    /// Those for which `used` is true.
    pub(super) fn kept(&self, used: &[bool]) -> Self {
        fn pick<T: Copy>(edges: &[T], used: &[bool]) -> Vec<T> {
            edges.iter().zip(used).filter(|(_, used)| **used).map(|(edge, _)| *edge).collect()
        }
        match self {
            Self::Coarse(edges) => Self::Coarse(pick(edges, used)),
            Self::Fine(edges) => Self::Fine(pick(edges, used)),
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        (0..self.len()).all(|index| self.at(index).is_finite())
    }
}

/// A table of which only the bins are kept, column by column.
#[derive(Debug, Clone)]
pub struct Binned {
    /// Where each column is cut.
    pub edges: Vec<Edges>,
    /// The bin of each row, for each column.
    pub bins: Vec<Vec<u16>>,
    /// How many rows there are.
    pub rows: usize,
}

impl Binned {
    /// Cuts `columns` (each as long as the others, NaN where missing) into at most `bins` bins.
    #[must_use]
    pub fn new(columns: &[Vec<f64>], bins: usize) -> Self {
        let edges: Vec<Edges> = columns.iter().map(|column| Edges::of(column, bins)).collect();
        let bins = columns
            .iter()
            .zip(&edges)
            .map(|(column, edges)| column.iter().map(|value| edges.bin(*value)).collect())
            .collect();
        Self { edges, bins, rows: columns.first().map_or(0, Vec::len) }
    }

    /// Bins of a column, the one for missing values included.
    pub(super) fn width(&self, column: usize) -> usize {
        self.edges[column].len() + 2
    }
}
