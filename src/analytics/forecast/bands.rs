//! Bands and paths from what was missed in the hold-outs.

use super::holdout::Trial;

/// A band around the mean, in the unit of the series.
#[derive(Debug, Clone, PartialEq)]
pub struct Band {
    /// Share of true values that it holds, in percent.
    pub level: f64,
    /// Lower edge at each step.
    pub lower: Vec<f64>,
    /// Upper edge at each step.
    pub upper: Vec<f64>,
}

/// When a limit is reached, in steps behind the end of the series; 0: it has been reached already.
/// `None`: not within the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Passage {
    /// One path in ten has been there by then.
    pub p10: Option<usize>,
    /// Half of them have.
    pub p50: Option<usize>,
    /// Nine in ten have.
    pub p90: Option<usize>,
    /// Share of the paths that get there within the horizon.
    pub share: f64,
}

/// Equally likely futures of a series: at each step they spread as the bands do, and each keeps
/// together as the errors of one hold-out did.
///
/// Invariant: at least two, all of the same length.
#[derive(Debug, Clone, PartialEq)]
pub struct Paths(Vec<Vec<f64>>);

/// Errors of neighbouring steps are pooled over this share of the horizon on either side.
const POOLED: usize = 8;
/// Widening for few disjoint hold-outs: the t distribution's 90 % quantile exceeds the normal one
/// by 0.6 / ν of it (within 2 % from ν = 3 on).
const FEW: f64 = 0.6;

/// Half-widths at each step of the band that holds the share `level` of true values: the
/// ⌈(n + 1) level⌉-th smallest of n absolute errors, never narrower than at the step before.
///
/// Source: J. Lei et al., JASA 113(523), 2018, split conformal intervals.
pub(super) fn band(trial: &Trial, level: f64) -> Vec<f64> {
    let widen = widening(trial);
    let mut widest = 0.0_f64;
    (0..trial.mean.len())
        .map(|step| {
            let mut pool = pool(trial, step);
            widest = widest.max(widen * conformal(&mut pool, level));
            widest
        })
        .collect()
}

fn widening(trial: &Trial) -> f64 {
    1.0 + FEW / trial.disjoint
}

/// Absolute errors at the steps around `step`.
fn pool(trial: &Trial, step: usize) -> Vec<f64> {
    let horizon = trial.mean.len();
    // Errors grow fastest at the start: what is far behind a step does not belong to it.
    let reach = (horizon / POOLED).min(step + 1);
    let steps = step.saturating_sub(reach)..(step + reach + 1).min(horizon);
    trial
        .missed
        .iter()
        .flat_map(|missed| missed[steps.clone()].iter())
        .filter(|off| !off.is_nan())
        .map(|off| off.abs())
        .collect()
}

fn conformal(errors: &mut [f64], level: f64) -> f64 {
    if errors.is_empty() {
        return 0.0;
    }
    let rank = ((errors.len() + 1) as f64 * level).ceil().max(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and the number of errors, which are few"
    )]
    let place = (rank as usize).min(errors.len()) - 1;
    *errors.select_nth_unstable_by(place, f64::total_cmp).1
}

/// Two paths for each hold-out: its errors and their mirror image, each replaced by the error of
/// the same rank among those that make the bands.
pub(super) fn paths(trial: &Trial) -> Vec<Vec<f64>> {
    let horizon = trial.mean.len();
    let mut up: Vec<Vec<f64>> = trial.missed.iter().map(|_| Vec::with_capacity(horizon)).collect();
    let widen = widening(trial);
    let mut widest: Vec<f64> = vec![0.0; up.len()];
    for step in 0..horizon {
        let mut pool = pool(trial, step);
        pool.sort_unstable_by(f64::total_cmp);
        let mut order: Vec<usize> = (0..up.len()).collect();
        let size = |origin: &usize| {
            let off = trial.missed[*origin][step];
            if off.is_nan() { 0.0 } else { off.abs() }
        };
        order.sort_by(|a, b| size(a).total_cmp(&size(b)));
        for (rank, origin) in order.into_iter().enumerate() {
            let level = (rank as f64 + 0.5) / up.len() as f64;
            // Never narrower than at the step before, rank by rank, as the bands are.
            widest[rank] = widest[rank].max(widen * conformal(&mut pool, level));
            let off = trial.missed[origin][step];
            up[origin].push(if off < 0.0 { -widest[rank] } else { widest[rank] });
        }
    }
    up.iter()
        .flat_map(|off| {
            [1.0, -1.0].map(|sign| {
                trial.mean.iter().zip(off).map(|(mean, off)| mean + sign * off).collect()
            })
        })
        .collect()
}

impl Paths {
    pub(super) const fn new(paths: Vec<Vec<f64>>) -> Self {
        Self(paths)
    }

    /// The paths, each with one value a step.
    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// When `limit` is first reached from `last`, upwards when it lies above, else downwards.
    #[must_use]
    pub fn first_passage(&self, last: f64, limit: f64) -> Passage {
        let upwards = limit >= last;
        let beyond = |value: f64| if upwards { value >= limit } else { value <= limit };
        if beyond(last) {
            return Passage { p10: Some(0), p50: Some(0), p90: Some(0), share: 1.0 };
        }
        let mut steps: Vec<usize> = self
            .0
            .iter()
            .filter_map(|path| path.iter().position(|value| beyond(*value)).map(|at| at + 1))
            .collect();
        steps.sort_unstable();
        let count = self.0.len();
        // The step by which at least this share of all paths has been there.
        let by = |tenths: usize| steps.get((count * tenths).div_ceil(10).max(1) - 1).copied();
        let share = steps.len() as f64 / count.max(1) as f64;
        Passage { p10: by(1), p50: by(5), p90: by(9), share }
    }
}
