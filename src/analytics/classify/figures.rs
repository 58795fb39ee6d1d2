//! How good a classifier is on rows it had not seen.

/// How well one class is found.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassFigures {
    /// Its name.
    pub class: String,
    /// Rows it has.
    pub rows: usize,
    /// Share of rows said to be of the class that are.
    pub precision: f64,
    /// Share of the class's rows that are found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Area under precision over recall.
    pub pr_auc: f64,
}

/// How well all are found.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Each class that matters: of two, the rarer alone.
    pub classes: Vec<ClassFigures>,
    /// Share of rows whose class was said.
    pub accuracy: f64,
    /// The same for always saying the most frequent class, whose F1 for every other one is 0.
    pub majority: f64,
    /// Threshold at which F1 of the second of two classes is largest.
    pub best_threshold: Option<f64>,
    /// Mean squared difference between probability and truth, summed over classes (Brier 1950).
    pub brier: f64,
}

impl Figures {
    /// Compares probabilities with the classes rows have.
    #[must_use]
    pub fn new(names: &[String], probabilities: &[Vec<f64>], truth: &[usize]) -> Self {
        let two = names.len() == 2;
        let said: Vec<usize> = probabilities
            .iter()
            .map(|p| {
                if two {
                    return usize::from(p[1] >= 0.5);
                }
                let best = p.iter().enumerate().reduce(|a, b| if b.1 > a.1 { b } else { a });
                best.map_or(0, |(class, _)| class)
            })
            .collect();
        let rows = truth.len().max(1) as f64;
        let count = |class: usize| truth.iter().filter(|it| **it == class).count();
        let of = |class: usize| {
            let is: Vec<bool> = truth.iter().map(|it| *it == class).collect();
            let chosen = said.iter().filter(|it| **it == class).count();
            let hit = said.iter().zip(&is).filter(|(said, is)| **said == class && **is).count();
            let (precision, recall) = (share(hit, chosen), share(hit, count(class)));
            let scores: Vec<f64> = probabilities.iter().map(|p| p[class]).collect();
            ClassFigures {
                class: names[class].clone(),
                rows: count(class),
                precision,
                recall,
                f1: harmonic(precision, recall),
                pr_auc: average_precision(&scores, &is),
            }
        };
        let right = said.iter().zip(truth).filter(|(said, truth)| said == truth).count();
        let most = (0..names.len()).map(count).max().unwrap_or(0);
        let brier: f64 = probabilities
            .iter()
            .zip(truth)
            .map(|(p, truth)| {
                let off = p.iter().enumerate().map(|(class, p)| {
                    let is = f64::from(u8::from(class == *truth));
                    (p - is).powi(2)
                });
                off.sum::<f64>()
            })
            .sum();
        Self {
            classes: if two { vec![of(1)] } else { (0..names.len()).map(of).collect() },
            accuracy: right as f64 / rows,
            majority: most as f64 / rows,
            best_threshold: two.then(|| best_threshold(probabilities, truth)),
            brier: brier / rows,
        }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn harmonic(a: f64, b: f64) -> f64 {
    if a + b > 0.0 { 2.0 * a * b / (a + b) } else { 0.0 }
}

/// Rows in falling order of score, with how many were found at each place where the score changes:
/// (score, rows so far, found so far).
fn steps(scores: &[f64], is: &[bool]) -> Vec<(f64, usize, usize)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut steps: Vec<(f64, usize, usize)> = Vec::new();
    let mut found = 0;
    for (at, row) in order.iter().enumerate() {
        found += usize::from(is[*row]);
        match steps.last_mut() {
            Some(last) if last.0 <= scores[*row] => *last = (last.0, at + 1, found),
            _ => steps.push((scores[*row], at + 1, found)),
        }
    }
    steps
}

/// Area under precision over recall, in steps; equal scores are one step. 0 without a row of the
/// class.
#[must_use]
pub fn average_precision(scores: &[f64], is: &[bool]) -> f64 {
    let all = is.iter().filter(|is| **is).count();
    let (mut area, mut before) = (0.0, 0.0);
    for (_, rows, found) in steps(scores, is) {
        let recall = share(found, all);
        area += (recall - before) * share(found, rows);
        before = recall;
    }
    area
}

fn best_threshold(probabilities: &[Vec<f64>], truth: &[usize]) -> f64 {
    let scores: Vec<f64> = probabilities.iter().map(|p| p[1]).collect();
    let is: Vec<bool> = truth.iter().map(|it| *it == 1).collect();
    let all = is.iter().filter(|is| **is).count();
    let steps = steps(&scores, &is);
    let f1 = |step: &(f64, usize, usize)| harmonic(share(step.2, step.1), share(step.2, all));
    let best = steps.iter().reduce(|a, b| if f1(b) > f1(a) { b } else { a });
    best.map_or(0.5, |best| best.0)
}
