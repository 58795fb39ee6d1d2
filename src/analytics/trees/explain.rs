//! What each column contributes to one answer: path-dependent TreeSHAP.
//!
//! Source: S. Lundberg, G. Erion, S.-I. Lee, "Consistent Individualized Feature Attribution for
//! Tree Ensembles", 2018, algorithm 2. The shares of rows that went left are kept in the nodes, to
//! 1/255; contributions and expectation use the same shares, so they sum to the answer exactly.

use super::{Edges, Node, Tree, goes_left};

/// One column on the way to a leaf.
#[derive(Debug, Clone, Copy)]
struct Step {
    column: usize,
    /// Share of subsets without the column that pass.
    zero: f64,
    /// 1 when the row itself passes, else 0.
    one: f64,
    weight: f64,
}

struct Walk<'a> {
    tree: &'a Tree,
    edges: &'a [Edges],
    row: &'a [f64],
}

/// No column: the root of the walk.
const NOBODY: usize = usize::MAX;

/// Adds the contributions of one tree to `out`; returns its expectation.
pub(super) fn contributions(tree: &Tree, edges: &[Edges], row: &[f64], out: &mut [f64]) -> f64 {
    let walk = Walk { tree, edges, row };
    let path = vec![Step { column: NOBODY, zero: 1.0, one: 1.0, weight: 1.0 }];
    walk.go(0, path, out);
    expectation(tree, 0)
}

fn expectation(tree: &Tree, at: usize) -> f64 {
    match tree.nodes[at] {
        Node::Leaf(steps) => f64::from(steps) * f64::from(tree.scale),
        Node::Split { right, share, .. } => {
            let left = f64::from(share) / 255.0;
            left * expectation(tree, at + 1) + (1.0 - left) * expectation(tree, usize::from(right))
        }
    }
}

/// How much the answers of the two sides of each question differ, in variance over the rows; 0 at
/// leaves.
pub(super) fn spread(tree: &Tree) -> Vec<f64> {
    let mut out = vec![0.0; tree.nodes.len()];
    spread_from(tree, 0, 1.0, &mut out);
    out
}

fn spread_from(tree: &Tree, at: usize, weight: f64, out: &mut [f64]) -> f64 {
    match tree.nodes[at] {
        Node::Leaf(steps) => f64::from(steps) * f64::from(tree.scale),
        Node::Split { right, share, .. } => {
            let left = f64::from(share) / 255.0;
            let low = spread_from(tree, at + 1, weight * left, out);
            let high = spread_from(tree, usize::from(right), weight * (1.0 - left), out);
            out[at] = weight * left * (1.0 - left) * (low - high) * (low - high);
            left * low + (1.0 - left) * high
        }
    }
}

impl Walk<'_> {
    fn go(&self, at: usize, path: Vec<Step>, out: &mut [f64]) {
        match self.tree.nodes[at] {
            Node::Leaf(steps) => {
                let value = f64::from(steps) * f64::from(self.tree.scale);
                for (index, step) in path.iter().enumerate().skip(1) {
                    let total = unwound_total(&path, index);
                    out[step.column] += total * (step.one - step.zero) * value;
                }
            }
            Node::Split { feature, cut, right, share } => {
                let column = usize::from(feature);
                let left = f64::from(share) / 255.0;
                let right = usize::from(right);
                let is_left = goes_left(&self.edges[column], cut, self.row[column]);
                let (hot, cold) = if is_left { (at + 1, right) } else { (right, at + 1) };
                let (hot_share, cold_share) =
                    if is_left { (left, 1.0 - left) } else { (1.0 - left, left) };
                let mut path = path;
                let (mut zero, mut one) = (1.0, 1.0);
                if let Some(before) = path.iter().position(|step| step.column == column) {
                    (zero, one) = (path[before].zero, path[before].one);
                    unwind(&mut path, before);
                }
                let with = |share: f64, one: f64| {
                    let mut longer = path.clone();
                    extend(&mut longer, zero * share, one, column);
                    longer
                };
                self.go(hot, with(hot_share, one), out);
                self.go(cold, with(cold_share, 0.0), out);
            }
        }
    }
}

fn extend(path: &mut Vec<Step>, zero: f64, one: f64, column: usize) {
    let length = path.len();
    path.push(Step { column, zero, one, weight: if length == 0 { 1.0 } else { 0.0 } });
    for i in (0..length).rev() {
        path[i + 1].weight += one * path[i].weight * (i + 1) as f64 / (length + 1) as f64;
        path[i].weight *= zero * (length - i) as f64 / (length + 1) as f64;
    }
}

fn unwind(path: &mut Vec<Step>, index: usize) {
    let last = path.len() - 1;
    let (zero, one) = (path[index].zero, path[index].one);
    let mut next = path[last].weight;
    for i in (0..last).rev() {
        if one > 0.5 {
            let weight = path[i].weight;
            path[i].weight = next * (last + 1) as f64 / ((i + 1) as f64 * one);
            next = weight - path[i].weight * zero * (last - i) as f64 / (last + 1) as f64;
        } else {
            path[i].weight *= (last + 1) as f64 / (zero * (last - i) as f64);
        }
    }
    for i in index..last {
        path[i].column = path[i + 1].column;
        path[i].zero = path[i + 1].zero;
        path[i].one = path[i + 1].one;
    }
    path.pop();
}

fn unwound_total(path: &[Step], index: usize) -> f64 {
    let last = path.len() - 1;
    let (zero, one) = (path[index].zero, path[index].one);
    let mut next = path[last].weight;
    let mut total = 0.0;
    for i in (0..last).rev() {
        if one > 0.5 {
            let weight = next * (last + 1) as f64 / ((i + 1) as f64 * one);
            total += weight;
            next = path[i].weight - weight * zero * (last - i) as f64 / (last + 1) as f64;
        } else {
            total += path[i].weight / (zero * (last - i) as f64 / (last + 1) as f64);
        }
    }
    total
}
