//! Trees small enough for a gateway: gradient boosting and random forests over histograms.
//!
//! Columns are cut into at most a few hundred bins once; a leaf is split where the sum of gradients
//! and curvatures in the bins says that the loss falls most, the leaf that gains most first, and
//! the histogram of the larger child is that of its parent less that of the smaller one.
//!
//! Sources: G. Ke et al., "LightGBM", NeurIPS 2017 (histograms, best leaf first); T. Chen, C.
//! Guestrin, "XGBoost", KDD 2016 (second-order gain, ridge on leaves, a learnt side for missing
//! values); L. Breiman, "Random Forests", 2001; J. Friedman, "Stochastic Gradient Boosting", 2002.
//! A seed decides everything that is drawn: the same rows and seed give the same trees.

mod bins;
mod boost;
mod explain;
mod forest;
mod grow;
#[cfg(test)]
mod tests;

pub use bins::{Binned, Edges};
pub use boost::{Boosting, Loss, boost, logistic};
pub use forest::{ForestSettings, forest};
pub use grow::Shape;

use serde::{Deserialize, Serialize};

/// A part of a tree; nodes stand in pre-order, so the left child of a node is the next one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Node {
    /// The value of a leaf, in steps of the tree's `scale`.
    Leaf(i16),
    /// A question.
    Split {
        /// Which column is asked.
        feature: u16,
        /// Which of its edges, times two; odd when missing values go left.
        cut: u16,
        /// Where the right child stands.
        right: u16,
        /// Share of the training weight that went left, in 255ths.
        share: u8,
    },
}

/// One tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// What one step of a leaf's value is worth.
    pub scale: f32,
    /// The nodes in pre-order; never empty.
    pub nodes: Vec<Node>,
}

/// A sum of trees over one set of columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trees {
    /// What the sum begins with, one for each output.
    pub base: Vec<f64>,
    /// Edges of each column that are asked for.
    pub edges: Vec<Edges>,
    /// The trees; tree `i` adds to output `i % outputs`.
    pub trees: Vec<Tree>,
}

impl Tree {
    /// The leaf's value for a row.
    #[must_use]
    pub fn value(&self, edges: &[Edges], row: &[f64]) -> f64 {
        let mut at = 0;
        loop {
            match self.nodes[at] {
                Node::Leaf(steps) => return f64::from(steps) * f64::from(self.scale),
                Node::Split { feature, cut, right, .. } => {
                    let left =
                        goes_left(&edges[usize::from(feature)], cut, row[usize::from(feature)]);
                    at = if left { at + 1 } else { usize::from(right) };
                }
            }
        }
    }

    fn is_sound(&self, edges: &[Edges]) -> bool {
        let last = self.nodes.len();
        let mut ends = Vec::new();
        if !self.scale.is_finite() || last == 0 {
            return false;
        }
        // In pre-order a right child begins exactly where the subtree left of it has ended.
        for (at, node) in self.nodes.iter().enumerate() {
            match *node {
                Node::Leaf(_) => {
                    let next = ends.pop().unwrap_or(last);
                    if next != at + 1 {
                        return false;
                    }
                }
                Node::Split { feature, cut, right, .. } => {
                    let known = edges
                        .get(usize::from(feature))
                        .is_some_and(|edges| usize::from(cut / 2) < edges.len());
                    if !known || usize::from(right) <= at + 1 || usize::from(right) >= last {
                        return false;
                    }
                    ends.push(usize::from(right));
                }
            }
        }
        ends.is_empty()
    }
}

fn goes_left(edges: &Edges, cut: u16, value: f64) -> bool {
    if value.is_nan() { cut % 2 == 1 } else { value <= edges.at(usize::from(cut / 2)) }
}

impl Trees {
    /// How many outputs there are.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.base.len()
    }

    /// How many columns a row has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.edges.len()
    }

    /// The sum of the trees for a row of [`Self::columns`] values (NaN where missing), written to
    /// `out`, one for each output.
    ///
    /// # Panics
    /// When `row` or `out` is shorter than it must be.
    pub fn sum(&self, row: &[f64], out: &mut [f64]) {
        out[..self.base.len()].copy_from_slice(&self.base);
        for (index, tree) in self.trees.iter().enumerate() {
            out[index % self.base.len()] += tree.value(&self.edges, row);
        }
    }

    /// The first output for a row.
    #[must_use]
    pub fn one(&self, row: &[f64]) -> f64 {
        let step = self.base.len();
        let sum: f64 =
            self.trees.iter().step_by(step).map(|tree| tree.value(&self.edges, row)).sum();
        self.base[0] + sum
    }

    /// Whether every node points to where it may: what a file says is not believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.base.is_empty()
            && self.base.iter().all(|base| base.is_finite())
            && self.edges.iter().all(Edges::is_sound)
            && self.trees.iter().all(|tree| tree.is_sound(&self.edges))
    }

    /// How often each column is asked, weighted with the share of rows that reach the question;
    /// scaled to a sum of 1 (all 0 without a question).
    #[must_use]
    pub fn importances(&self) -> Vec<f64> {
        let mut total = vec![0.0; self.edges.len()];
        for tree in &self.trees {
            let spread = explain::spread(tree);
            for (node, spread) in tree.nodes.iter().zip(spread) {
                if let Node::Split { feature, .. } = node {
                    total[usize::from(*feature)] += spread;
                }
            }
        }
        let sum: f64 = total.iter().sum();
        if sum > 0.0 {
            total.iter_mut().for_each(|value| *value /= sum);
        }
        total
    }

    /// Adds what each column contributes to output `output` for this row to `out` (one a column)
    /// and returns what is expected when nothing is known: their sum is the output.
    pub fn contributions(&self, row: &[f64], output: usize, out: &mut [f64]) -> f64 {
        let step = self.base.len();
        let trees = self.trees.iter().skip(output).step_by(step);
        let expected: f64 =
            trees.map(|tree| explain::contributions(tree, &self.edges, row, out)).sum();
        self.base[output] + expected
    }

    /// Keeps only the edges that are asked for.
    fn prune(&mut self) {
        for feature in 0..self.edges.len() {
            let mut used = vec![false; self.edges[feature].len()];
            let here = |node: &Node| match *node {
                Node::Split { feature: asked, cut, .. } if usize::from(asked) == feature => {
                    Some(cut)
                }
                Node::Split { .. } | Node::Leaf(_) => None,
            };
            for cut in self.trees.iter().flat_map(|tree| &tree.nodes).filter_map(here) {
                used[usize::from(cut / 2)] = true;
            }
            let mut next = 0u16;
            let numbers: Vec<u16> = used
                .iter()
                .map(|used| {
                    let number = next;
                    next += u16::from(*used);
                    number
                })
                .collect();
            for node in self.trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
                if let Node::Split { feature: asked, cut, .. } = node
                    && usize::from(*asked) == feature
                {
                    *cut = numbers[usize::from(*cut / 2)] * 2 + *cut % 2;
                }
            }
            self.edges[feature] = self.edges[feature].kept(&used);
        }
    }
}

/// A tree that is asked by bins, as while it is grown: a row of the table costs one look-up a
/// question, and answers are those of [`Tree::value`].
struct Lookup<'a> {
    tree: &'a Tree,
    table: &'a Binned,
}

impl<'a> Lookup<'a> {
    fn new(tree: &'a Tree, table: &'a Binned) -> Self {
        Self { tree, table }
    }

    fn value(&self, row: usize) -> f64 {
        let mut at = 0;
        loop {
            match self.tree.nodes[at] {
                Node::Leaf(steps) => return f64::from(steps) * f64::from(self.tree.scale),
                Node::Split { feature, cut, right, .. } => {
                    let bin = self.table.bins[usize::from(feature)][row];
                    let left = if bin == 0 { cut % 2 == 1 } else { bin <= cut / 2 + 1 };
                    at = if left { at + 1 } else { usize::from(right) };
                }
            }
        }
    }
}
