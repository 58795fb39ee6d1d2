use super::*;

fn shape() -> Shape {
    Shape {
        leaves: 8,
        depth: 8,
        rows_min: 5,
        curvature_min: 0.0,
        ridge: 0.0,
        gain_min: 1e-12,
        split_columns: 1.0,
    }
}

fn how(seed: u64) -> Boosting {
    Boosting { rounds: 60, rate: 0.2, shape: shape(), row_share: 0.8, column_share: 1.0, seed }
}

/// Three columns, the last one noise; some values of the first missing.
fn table(rows: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let mut random = fastrand::Rng::with_seed(5);
    let mut columns = vec![Vec::new(); 3];
    let mut targets = Vec::new();
    for row in 0..rows {
        let (a, b, noise) = (random.f64(), random.f64(), random.f64());
        let missing = row % 11 == 0;
        columns[0].push(if missing { f64::NAN } else { a });
        columns[1].push(b);
        columns[2].push(noise);
        let step = if missing {
            5.0
        } else if a > 0.5 {
            3.0
        } else {
            0.0
        };
        targets.push(step + 2.0 * b);
    }
    (columns, targets)
}

fn row(columns: &[Vec<f64>], at: usize) -> Vec<f64> {
    columns.iter().map(|column| column[at]).collect()
}

#[test]
fn a_step_a_slope_and_missing_values_are_learnt() {
    let (columns, targets) = table(1000);
    let binned = Binned::new(&columns, 63);
    let trees = boost(&binned, &targets, &vec![1.0; 1000], Loss::Squared, &how(1));
    let squares: f64 =
        (0..1000).map(|at| (trees.one(&row(&columns, at)) - targets[at]).powi(2)).sum();
    let error = (squares / 1000.0).sqrt();
    assert!(error < 0.1, "{error}");
    let shares = trees.importances();
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(shares[2] < 0.02, "noise tells nothing apart: {shares:?}");
}

#[test]
fn a_seed_decides_everything() {
    let (columns, targets) = table(400);
    let binned = Binned::new(&columns, 63);
    let grow = |seed| boost(&binned, &targets, &vec![1.0; 400], Loss::Squared, &how(seed));
    assert_eq!(grow(3), grow(3));
    assert_ne!(grow(3), grow(4));
}

#[test]
fn a_quantile_has_its_share_of_rows_below_it() {
    let mut random = fastrand::Rng::with_seed(9);
    let column: Vec<f64> = (0..3000).map(|_| random.f64()).collect();
    let targets: Vec<f64> = column.iter().map(|x| x * (1.0 + random.f64())).collect();
    let binned = Binned::new(std::slice::from_ref(&column), 63);
    for wanted in [0.1, 0.5, 0.9] {
        let trees = boost(&binned, &targets, &vec![1.0; 3000], Loss::Quantile(wanted), &how(1));
        let below =
            column.iter().zip(&targets).filter(|(x, y)| **y <= trees.one(&[**x])).count() as f64;
        assert!((below / 3000.0 - wanted).abs() < 0.03, "{wanted}: {}", below / 3000.0);
    }
}

#[test]
fn classes_get_probabilities_that_hold() {
    let mut random = fastrand::Rng::with_seed(2);
    let column: Vec<f64> = (0..4000).map(|_| random.f64()).collect();
    let targets: Vec<f64> = column.iter().map(|x| f64::from(u8::from(random.f64() < *x))).collect();
    let binned = Binned::new(&[column], 31);
    let trees = boost(&binned, &targets, &vec![1.0; 4000], Loss::Logistic, &how(1));
    for x in [0.2, 0.5, 0.8] {
        let p = logistic(trees.one(&[x]));
        assert!((p - x).abs() < 0.12, "at {x}: {p}");
    }
    let classes: Vec<f64> = (0..300).map(|row| f64::from(row % 3)).collect();
    let same: Vec<f64> = classes.iter().map(|class| class * 10.0).collect();
    let trees =
        boost(&Binned::new(&[same], 31), &classes, &vec![1.0; 300], Loss::Multiclass(3), &how(1));
    let mut sums = [0.0; 3];
    trees.sum(&[10.0], &mut sums);
    assert!(sums[1] > sums[0] + 2.0 && sums[1] > sums[2] + 2.0, "{sums:?}");
}

#[test]
fn contributions_sum_to_the_answer_and_blame_the_column_that_counts() {
    let (columns, targets) = table(600);
    let binned = Binned::new(&columns, 63);
    let trees = boost(&binned, &targets, &vec![1.0; 600], Loss::Squared, &how(1));
    for at in 0..50 {
        let row = row(&columns, at);
        let mut out = vec![0.0; 3];
        let expected = trees.contributions(&row, 0, &mut out);
        let sum = expected + out.iter().sum::<f64>();
        assert!((sum - trees.one(&row)).abs() < 1e-9, "{sum} is not {}", trees.one(&row));
        assert!(out[2].abs() < 0.2, "noise contributes {}", out[2]);
    }
}

/// Shapley values by their definition: over all orders of two columns.
#[test]
fn contributions_are_shapley_values() {
    let nodes = vec![
        Node::Split { feature: 0, cut: 0, right: 4, share: 102 },
        Node::Split { feature: 1, cut: 0, right: 3, share: 51 },
        Node::Leaf(1),
        Node::Leaf(2),
        Node::Split { feature: 1, cut: 0, right: 6, share: 204 },
        Node::Leaf(10),
        Node::Leaf(40),
    ];
    let edges = vec![Edges::Coarse(vec![0.5]), Edges::Coarse(vec![0.5])];
    let trees = Trees { base: vec![0.0], edges, trees: vec![Tree { scale: 1.0, nodes }] };
    assert!(trees.is_sound());
    let (left, low, high) = (0.4, 0.2, 0.8);
    let (below, above) = (low * 1.0 + (1.0 - low) * 2.0, high * 10.0 + (1.0 - high) * 40.0);
    let nothing = left * below + (1.0 - left) * above;
    let first = above;
    let second = left * 2.0 + (1.0 - left) * 40.0;
    let both = 40.0;
    let wanted = [
        f64::midpoint(first - nothing, both - second),
        f64::midpoint(second - nothing, both - first),
    ];
    let mut out = vec![0.0; 2];
    let expected = trees.contributions(&[1.0, 1.0], 0, &mut out);
    assert!((expected - nothing).abs() < 1e-9);
    for (found, wanted) in out.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
    }
}

#[test]
fn a_forest_votes_with_shares_of_rows() {
    let mut random = fastrand::Rng::with_seed(8);
    let columns: Vec<Vec<f64>> =
        (0..4).map(|_| (0..2000).map(|_| random.f64()).collect()).collect();
    let is: Vec<f64> =
        (0..2000).map(|at| f64::from(u8::from(columns[0][at] + columns[1][at] > 1.0))).collect();
    let binned = Binned::new(&columns, 63);
    let settings = ForestSettings {
        trees: 20,
        shape: Shape { leaves: 100, depth: 16, rows_min: 2, split_columns: 0.5, ..shape() },
        seed: 1,
    };
    let forest = forest(&binned, &is, &vec![1.0; 2000], &settings);
    for (x, y, wanted) in [(0.9, 0.9, 1.0), (0.1, 0.1, 0.0)] {
        let share = forest.one(&[x, y, 0.5, 0.5]);
        assert!((share - wanted).abs() < 0.1, "{share}");
    }
}

#[test]
fn values_that_single_precision_cannot_tell_apart_are_told_apart() {
    let low = 8.6;
    let high = 8.6 + 1e-14;
    let column: Vec<f64> = (0..200).map(|row| if row % 2 == 0 { low } else { high }).collect();
    let targets: Vec<f64> = (0..200).map(|row| f64::from(row % 2)).collect();
    let binned = Binned::new(&[column], 63);
    let trees = boost(&binned, &targets, &vec![1.0; 200], Loss::Squared, &how(1));
    assert!(trees.one(&[high]) - trees.one(&[low]) > 0.9);
}

#[test]
fn trees_that_point_nowhere_are_not_sound() {
    let (columns, targets) = table(200);
    let binned = Binned::new(&columns, 63);
    let trees = boost(&binned, &targets, &vec![1.0; 200], Loss::Squared, &how(1));
    assert!(trees.is_sound());
    for at in 0..trees.trees[0].nodes.len() {
        let mut broken = trees.clone();
        if let Node::Split { right, .. } = &mut broken.trees[0].nodes[at] {
            *right += 1;
            assert!(!broken.is_sound());
        }
        let mut broken = trees.clone();
        if let Node::Split { feature, .. } = &mut broken.trees[0].nodes[at] {
            *feature = 99;
            assert!(!broken.is_sound());
        }
    }
    let written = postcard::to_allocvec(&trees).unwrap();
    assert_eq!(postcard::from_bytes::<Trees>(&written).unwrap(), trees);
}
