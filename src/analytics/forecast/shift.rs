//! A step of the level that has no precedent in the history is taken out of the past, so that all
//! members start from where the series is now.

use super::season::Season;
use crate::analytics::stats;

/// A step of the level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// Points since it.
    pub points_ago: usize,
    /// By how much the level moved, in the unit of the series.
    pub by: f64,
}

/// Points that stand for a season where there is none.
const SEASON_WITHOUT: usize = 24;
/// How many seasons ago a shift may be: what is older, the members have seen for themselves.
const SEASONS_AGO: usize = 3;
/// Least points behind a shift.
const POINTS_LEAST: usize = 6;
/// It must be this many times the largest move that the history shows between like spans.
const UNPRECEDENTED: f64 = 2.0;
/// And this many times the scatter behind it.
const CLEAR: f64 = 4.0;

/// Finds the shift and moves what lies before it to the new level.
///
/// `z` without gaps, any unit. Compared are medians: of all points since the candidate, and of as
/// many seasons before it; the largest difference of such medians in the earlier history is the
/// precedent. Values are taken without the mean shape of the season.
pub(super) fn take_out(z: &mut [f64], season: &Season) -> Option<Shift> {
    let period = season.period.unwrap_or(SEASON_WITHOUT);
    let before = 2 * period;
    let newest = (SEASONS_AGO * period).min(z.len() / 4);
    if newest < 2 * POINTS_LEAST || z.len() < 4 * before {
        return None;
    }
    let rest = without_season(z, season);
    let mut best: Option<(f64, usize, f64)> = None;
    // Spans double: a shift is seen by the span that is about as long as it is old.
    let mut span = POINTS_LEAST;
    while span <= newest {
        let from = rest.len() - span;
        let by = median(&rest[from..]) - median(&rest[from - before..from]);
        let mut precedent = 0.0_f64;
        let mut at = before;
        while at + span <= from.saturating_sub(newest) {
            let moved = median(&rest[at..at + span]) - median(&rest[at - before..at]);
            precedent = precedent.max(moved.abs());
            at += (span / 2).max(period / 4).max(1);
        }
        let scatter = scatter(&rest[from..]);
        let clear = by.abs() > UNPRECEDENTED * precedent && by.abs() > CLEAR * scatter;
        if clear && best.is_none_or(|(_, _, most)| by.abs() >= 0.8 * most) {
            best = Some((by, span, by.abs()));
        }
        span *= 2;
    }
    let (by, span, _) = best?;
    let from = begin(&rest, rest.len() - span, by);
    let level = median(&rest[from..]);
    let by = level - median(&rest[from.saturating_sub(before)..from]);
    for value in &mut z[..from] {
        *value += by;
    }
    Some(Shift { points_ago: z.len() - from, by })
}

/// Where the shift seen from `from` begins: as far back as values lie on its side.
fn begin(rest: &[f64], from: usize, by: f64) -> usize {
    let half = median(&rest[from..]) - by / 2.0;
    let mut begin = from;
    while begin > rest.len() / 2 && (rest[begin - 1] - half) * by > 0.0 {
        begin -= 1;
    }
    // The span may reach back beyond it as well.
    while begin + POINTS_LEAST < rest.len() && (rest[begin] - half) * by < 0.0 {
        begin += 1;
    }
    begin
}

fn median(values: &[f64]) -> f64 {
    stats::median(&mut values.to_vec())
}

fn scatter(values: &[f64]) -> f64 {
    stats::median_and_sigma(values, &mut Vec::new()).1
}

/// The values without the mean shape of their season.
fn without_season(z: &[f64], season: &Season) -> Vec<f64> {
    let Some(period) = season.period else { return z.to_vec() };
    let seasons = (z.len() / period).max(1) as f64;
    let mut shape = vec![0.0; period];
    for block in z.rchunks_exact(period) {
        let mean = block.iter().sum::<f64>() / period as f64;
        for (sum, value) in shape.iter_mut().zip(block) {
            *sum += (value - mean) / seasons;
        }
    }
    shape.rotate_right(z.len() % period);
    z.iter().enumerate().map(|(at, value)| value - shape[at % period]).collect()
}
