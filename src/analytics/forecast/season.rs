//! Which season a series has, found in its values.

/// The season of a series, in points.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Season {
    /// Points of the season that is used; `None`: none.
    pub period: Option<usize>,
    /// Points of a longer one above it, a multiple of `period`.
    pub long: Option<usize>,
    /// Whether the values show `period`. A day is also tried when they do not, because plants
    /// follow it; the hold-outs then say what it is worth.
    pub found: bool,
    /// Share of the shape within a period that the periods before it predict; 0 when none is.
    pub strength: f64,
}

/// Newest points that are looked at: twelve weeks of hours, a week of five-minute values.
const LOOK_MAX: usize = 2016;
/// Weight of a new period in the shape of the season while it is being looked for.
const NEW_PERIOD: f64 = 0.3;
/// Strength that a period must have, in the limit of many periods.
const STRENGTH_LEAST: f64 = 0.1;
/// And so much more, divided by the number of periods: few of them look alike by chance.
const STRENGTH_FEW: f64 = 1.0;
/// Whole periods that an unknown season must show.
const PERIODS_MIN: usize = 4;
/// Whole periods that a day must show.
const DAYS_MIN: usize = 3;
/// A shorter period is preferred when it has this share of the strength of the best one.
const SHORTER: f64 = 0.5;
/// A maximum is one among its neighbours, this share of it on either side.
const NEIGHBOURS: usize = 8;
/// A longer one is used beside it when it is stronger by this.
const LONGER: f64 = 0.05;
/// Whole weeks that must be there for the week to be used beside the day.
const WEEKS_MIN: usize = 2;
const DAY_S: f64 = 86_400.0;
const DAYS_OF_WEEK: usize = 7;

/// Looks for the season of `values` (any unit, finite, evenly spaced by `step_s` seconds).
///
/// Each period from 2 points to a quarter of the series is judged by how well the shape of one
/// period (its values around the line from mean to mean, so that a moving level does not count) is predicted
/// by those before it, with exponential forgetting. White noise has the strength −0.18, a pure
/// season 1. The shortest local maximum of at least half of the best strength wins; a stronger
/// multiple of it is used beside it. The calendar helps twice: the day wins over its multiples, and is tried
/// when nothing is found.
#[must_use]
pub fn find(values: &[f64], step_s: f64) -> Season {
    let looked = &values[values.len().saturating_sub(LOOK_MAX)..];
    let longest = looked.len() / DAYS_MIN;
    if longest < 2 {
        return Season::default();
    }
    let mut judge = Judge::new(looked);
    let unknown = looked.len() / PERIODS_MIN;
    let mut strength = vec![f64::NEG_INFINITY; longest + 1];
    for (period, strength) in strength.iter_mut().enumerate().take(unknown + 1).skip(2) {
        *strength = judge.strength(period);
    }
    let day = day_points(step_s).filter(|day| *day <= longest);
    if let Some(day) = day
        && day > unknown
    {
        strength[day] = judge.strength(day);
    }
    let enough = |period: usize| {
        let periods = (looked.len() / period) as f64;
        let few = if Some(period) == day { 0.0 } else { STRENGTH_FEW / periods };
        strength[period] > STRENGTH_LEAST + few
    };
    let best = (2..=longest)
        .filter(|period| enough(*period))
        .max_by(|a, b| strength[*a].total_cmp(&strength[*b]));
    let weeks =
        |day: usize| (values.len() >= WEEKS_MIN * DAYS_OF_WEEK * day).then_some(DAYS_OF_WEEK * day);
    let Some(best) = best else {
        return day.map_or_else(Season::default, |day| Season {
            period: Some(day),
            long: weeks(day),
            found: false,
            strength: strength[day].max(0.0),
        });
    };
    // The strength rises towards a period over some of its neighbours, and noise is on that slope.
    let peak = |period: usize| {
        let near = (period / NEIGHBOURS).max(1);
        let around = period.saturating_sub(near).max(2)..=(period + near).min(longest);
        around.into_iter().all(|other| strength[period] >= strength[other])
    };
    let mut period = (2..best)
        .find(|period| {
            strength[*period] > SHORTER * strength[best] && enough(*period) && peak(*period)
        })
        .unwrap_or(best);
    let mut long = None;
    if let Some(day) = day
        && period != day
        && period % day == 0
    {
        long = Some(period);
        period = day;
    }
    if best > period && best % period == 0 && strength[best] > strength[period] + LONGER {
        long = Some(best);
    }
    if Some(period) == day {
        long = weeks(period).or(long);
    }
    Season { period: Some(period), long, found: true, strength: strength[period].max(0.0) }
}

/// Points of a day, when a day is a whole number of steps.
fn day_points(step_s: f64) -> Option<usize> {
    let points = DAY_S / step_s;
    if !(2.0..=1e6).contains(&points) || (points - points.round()).abs() > 1e-6 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 2 and a million"
    )]
    Some(points.round() as usize)
}

/// Judges one period after the other on the same values.
struct Judge<'a> {
    values: &'a [f64],
    /// Sums of the values before each place.
    sums: Vec<f64>,
    shape: Vec<f64>,
}

impl<'a> Judge<'a> {
    fn new(values: &'a [f64]) -> Self {
        let mut sums = Vec::with_capacity(values.len() + 1);
        let mut sum = 0.0;
        sums.push(sum);
        for value in values {
            sum += value;
            sums.push(sum);
        }
        Self { values, sums, shape: Vec::new() }
    }

    fn strength(&mut self, period: usize) -> f64 {
        let periods = self.values.len() / period;
        let first = self.values.len() - periods * period;
        let (mut missed, mut moved) = (0.0, 0.0);
        for number in 0..periods {
            let from = first + number * period;
            let block = &self.values[from..from + period];
            let mean = (self.sums[from + period] - self.sums[from]) / period as f64;
            // A ramp looks the same in every period: the climb from mean to mean is no season.
            let near = if number == 0 { from + period } else { from - period };
            let other = (self.sums[near + period] - self.sums[near]) / period as f64;
            let climb = if number == 0 { other - mean } else { mean - other } / period as f64;
            let mut line = mean - climb * (period as f64 - 1.0) / 2.0;
            if number == 0 {
                self.shape.clear();
                self.shape.extend(block.iter().map(|value| {
                    let away = value - line;
                    line += climb;
                    away
                }));
                continue;
            }
            for (value, shape) in block.iter().zip(&mut self.shape) {
                let away = value - line;
                line += climb;
                let off = away - *shape;
                missed += off * off;
                moved += away * away;
                *shape += NEW_PERIOD * off;
            }
        }
        if moved > 0.0 { 1.0 - missed / moved } else { f64::NEG_INFINITY }
    }
}
