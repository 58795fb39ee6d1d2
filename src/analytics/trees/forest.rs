//! A random forest: trees on drawn rows and columns, averaged.

use super::grow::Soil;
use super::{Binned, Shape, Trees};

/// How a forest is grown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForestSettings {
    /// How many trees.
    pub trees: usize,
    /// How large each may be; `split_columns` is what makes it a random forest.
    pub shape: Shape,
    /// What is drawn follows from it.
    pub seed: u64,
}

/// Grows a forest for `targets` (0/1 for a class: the sum is then its share), each row counting
/// `weights`. Each tree is grown on as many rows as there are, drawn with replacement; rows count
/// as often as they were drawn. Squared loss on 0/1 targets splits by the Gini index.
///
/// # Panics
/// When lengths differ.
#[must_use]
pub fn forest(table: &Binned, targets: &[f64], weights: &[f64], how: &ForestSettings) -> Trees {
    assert!(targets.len() == table.rows && weights.len() == table.rows, "a target for each row");
    let mut random = fastrand::Rng::with_seed(how.seed);
    let columns: Vec<usize> = (0..table.bins.len()).collect();
    let mut trees = Trees { base: vec![0.0], edges: table.edges.clone(), trees: Vec::new() };
    let rows = u32::try_from(table.rows).expect("rows are counted in 32 bits");
    for _ in 0..how.trees {
        let mut drawn = vec![0u32; table.rows];
        for _ in 0..rows {
            drawn[random.usize(0..table.rows.max(1))] += 1;
        }
        let often = |row: usize| f64::from(drawn[row]) * weights[row];
        let slopes: Vec<f64> = (0..table.rows).map(|row| -targets[row] * often(row)).collect();
        let curvatures: Vec<f64> = (0..table.rows).map(often).collect();
        let mut order: Vec<u32> = (0..rows).filter(|row| drawn[*row as usize] > 0).collect();
        let soil = Soil {
            table,
            slopes: &slopes,
            curvatures: &curvatures,
            columns: &columns,
            shape: how.shape,
        };
        let grown = soil.grow(&mut order, &mut random);
        trees.trees.push(grown.finish(1.0 / how.trees as f64));
    }
    trees.prune();
    trees
}
