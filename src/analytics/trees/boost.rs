//! Gradient boosting: each tree answers what those before it left over.

use super::grow::{Grown, Soil, part_of};
use super::{Binned, Shape, Trees};
use crate::analytics::stats;

/// What is made small.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Half the squared difference: the mean.
    Squared,
    /// The pinball loss: this quantile (0 to 1). Leaves are set to the quantile of what is left.
    Quantile(f64),
    /// The logarithmic loss of a target of 0 or 1; the sum is a log odds.
    Logistic,
    /// The same for targets 0, 1 … of so many classes; one output each, before the softmax.
    Multiclass(usize),
}

/// How a model is grown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boosting {
    /// Rounds; each adds one tree an output.
    pub rounds: usize,
    /// How much of each tree's answer is taken.
    pub rate: f64,
    /// How large each tree may be.
    pub shape: Shape,
    /// Share of the rows each tree is grown on.
    pub row_share: f64,
    /// Share of the columns each tree may ask.
    pub column_share: f64,
    /// What is drawn follows from it.
    pub seed: u64,
}

/// Grows trees for `targets`, each row counting `weights` (both as long as the table). Rows and
/// columns are drawn for each tree.
///
/// # Panics
/// When lengths differ.
#[must_use]
pub fn boost(
    table: &Binned,
    targets: &[f64],
    weights: &[f64],
    loss: Loss,
    how: &Boosting,
) -> Trees {
    assert!(targets.len() == table.rows && weights.len() == table.rows, "a target for each row");
    let outputs = if let Loss::Multiclass(classes) = loss { classes } else { 1 };
    let mut random = fastrand::Rng::with_seed(how.seed);
    let base = first(targets, weights, loss);
    let mut sums: Vec<Vec<f64>> = base.iter().map(|base| vec![*base; table.rows]).collect();
    let mut slopes = vec![0.0; table.rows];
    let mut curvatures = vec![0.0; table.rows];
    let mut trees = Trees { base, edges: table.edges.clone(), trees: Vec::new() };
    let rows = u32::try_from(table.rows).expect("rows are counted in 32 bits");
    for _ in 0..how.rounds {
        let mut order: Vec<u32> = (0..rows).collect();
        if how.row_share < 1.0 {
            order = random.choose_multiple(0..rows, part_of(table.rows, how.row_share));
            order.sort_unstable();
        }
        let mut columns: Vec<usize> = (0..table.bins.len()).collect();
        if how.column_share < 1.0 {
            columns = random.choose_multiple(columns, part_of(table.bins.len(), how.column_share));
            columns.sort_unstable();
        }
        // All outputs of a round answer the same state.
        let shares = softmax(&sums, loss);
        for output in 0..outputs {
            for row in 0..table.rows {
                let (sum, target) = (sums[output][row], targets[row]);
                let (slope, curvature) = match loss {
                    Loss::Squared => (sum - target, 1.0),
                    Loss::Quantile(at) => (if sum < target { -at } else { 1.0 - at }, 1.0),
                    Loss::Logistic => {
                        let p = logistic(sum);
                        (p - target, (p * (1.0 - p)).max(1e-12))
                    }
                    Loss::Multiclass(classes) => {
                        let p = shares[output][row];
                        let is = (target - output as f64).abs() < 0.5;
                        let stretch = classes as f64 / (classes as f64 - 1.0).max(1.0);
                        (p - f64::from(u8::from(is)), (stretch * p * (1.0 - p)).max(1e-12))
                    }
                };
                slopes[row] = slope * weights[row];
                curvatures[row] = curvature * weights[row];
            }
            let soil = Soil {
                table,
                slopes: &slopes,
                curvatures: &curvatures,
                columns: &columns,
                shape: how.shape,
            };
            let mut grown = soil.grow(&mut order, &mut random);
            if let Loss::Quantile(at) = loss {
                to_quantiles(&mut grown, &order, targets, &sums[output], at);
            }
            let tree = grown.finish(how.rate);
            let add = super::Lookup::new(&tree, table);
            for (row, sum) in sums[output].iter_mut().enumerate() {
                *sum += add.value(row);
            }
            trees.trees.push(tree);
        }
    }
    trees.prune();
    trees
}

fn first(targets: &[f64], weights: &[f64], loss: Loss) -> Vec<f64> {
    let total: f64 = weights.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let mean =
        targets.iter().zip(weights).map(|(target, weight)| target * weight).sum::<f64>() / total;
    match loss {
        Loss::Squared => vec![mean],
        Loss::Quantile(at) => vec![stats::quantile(&mut targets.to_vec(), at)],
        Loss::Logistic => {
            let share = mean.clamp(1e-6, 1.0 - 1e-6);
            vec![(share / (1.0 - share)).ln()]
        }
        Loss::Multiclass(classes) => {
            let share = |class: usize| {
                let rows = targets.iter().zip(weights);
                let of = rows.filter(|(target, _)| (**target - class as f64).abs() < 0.5);
                (of.map(|(_, weight)| weight).sum::<f64>() / total).max(1e-6).ln()
            };
            (0..classes).map(share).collect()
        }
    }
}

/// The probability that belongs to a log odds.
#[must_use]
pub fn logistic(odds: f64) -> f64 {
    1.0 / (1.0 + (-odds).exp())
}

fn softmax(sums: &[Vec<f64>], loss: Loss) -> Vec<Vec<f64>> {
    let Loss::Multiclass(classes) = loss else { return Vec::new() };
    let mut shares = sums.to_vec();
    for row in 0..shares[0].len() {
        let most = (0..classes).map(|class| sums[class][row]).fold(f64::MIN, f64::max);
        let total: f64 = (0..classes).map(|class| (sums[class][row] - most).exp()).sum();
        for share in &mut shares {
            share[row] = (share[row] - most).exp() / total;
        }
    }
    shares
}

fn to_quantiles(grown: &mut Grown, order: &[u32], targets: &[f64], sums: &[f64], at: f64) {
    for index in 0..grown.leaves.len() {
        let filled = grown.leaves[index];
        let rows = order[filled.from..filled.to].iter().map(|row| *row as usize);
        let mut left: Vec<f64> = rows.map(|row| targets[row] - sums[row]).collect();
        grown.set(index, stats::quantile(&mut left, at));
    }
}
