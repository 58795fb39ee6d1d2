use std::f64::consts::TAU;

use super::*;

/// A reproducible generator (the seed is part of the test).
struct Noise(fastrand::Rng);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let u = 1.0 - self.0.f64();
        (-2.0 * u.ln()).sqrt() * (TAU * self.0.f64()).cos()
    }

    /// Student's t with three degrees of freedom: heavy tails, variance 3.
    fn heavy(&mut self) -> f64 {
        let square: f64 = (0..3).map(|_| self.normal().powi(2)).sum();
        self.normal() / (square / 3.0).sqrt()
    }
}

const HOUR: f64 = 3600.0;

fn series(step: f64, values: &[f64]) -> Regular {
    let times: Vec<f64> = (0..values.len()).map(|i| i as f64 * step).collect();
    Regular::from_readings(&times, values).unwrap()
}

fn mean_error(forecast: &[f64], truth: &[f64]) -> f64 {
    forecast.iter().zip(truth).map(|(f, t)| (f - t).abs()).sum::<f64>() / truth.len() as f64
}

/// Share of `truth` inside the band.
fn coverage(band: &Band, truth: &[f64]) -> f64 {
    let inside = truth
        .iter()
        .zip(band.lower.iter().zip(&band.upper))
        .filter(|(v, (low, high))| (*low..=*high).contains(v))
        .count();
    inside as f64 / truth.len() as f64
}

/// Mean coverage of the 80 and 95 % bands over `runs` series made by `make(noise, points)`.
fn mean_coverage(
    points: usize,
    horizon: usize,
    runs: u64,
    make: impl Fn(&mut Noise, usize) -> Vec<f64>,
) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for seed in 0..runs {
        let values = make(&mut Noise::new(seed), points + horizon);
        let (past, truth) = values.split_at(points);
        let found = forecast(&series(HOUR, past), horizon, &[80.0, 95.0]).unwrap();
        for (sum, band) in sums.iter_mut().zip(&found.bands) {
            *sum += coverage(band, truth) / runs as f64;
        }
    }
    sums
}

#[test]
fn a_known_wave_is_forecast_to_within_its_noise() {
    let mut noise = Noise::new(1);
    let truth: Vec<f64> =
        (0..1000).map(|i| 50.0 + 10.0 * (TAU * f64::from(i) / 24.0).sin()).collect();
    let seen: Vec<f64> = truth.iter().map(|v| v + noise.normal()).collect();
    let found = forecast(&series(HOUR, &seen[..952]), 48, &[80.0]).unwrap();
    assert_eq!(found.season.period, Some(24));
    assert!(found.season.found);
    // The noise has mean absolute value 0.8 and cannot be forecast; the wave itself must be found
    // to a fraction of it.
    let error = mean_error(&found.mean, &truth[952..]);
    assert!(error < 0.4, "the wave is missed by {error}");
}

#[test]
fn the_season_is_found_and_not_told() {
    // No calendar fits steps of 7.3 s. Noise as large as the wave.
    for period in [7_u16, 13, 50, 144] {
        let mut noise = Noise::new(u64::from(period));
        let values: Vec<f64> = (0..1500)
            .map(|i| (TAU * f64::from(i) / f64::from(period)).sin() + 0.7 * noise.normal())
            .collect();
        let found = find_season(&values, 7.3);
        // With noise like this a period of 144 shows to within a point in ten of them.
        let off = found.period.map_or(usize::MAX, |found| found.abs_diff(usize::from(period)));
        assert!(found.found && off <= usize::from(period / 100), "{period}: {found:?}");
    }
}

#[test]
fn a_day_within_a_week_is_found_as_both() {
    let mut noise = Noise::new(5);
    let values: Vec<f64> = (0..1440)
        .map(|i| {
            let works = if i / 24 % 7 < 5 { 1.0 } else { 0.2 };
            works * (TAU * f64::from(i) / 24.0).sin().max(0.0) + 0.05 * noise.normal()
        })
        .collect();
    let found = find_season(&values, HOUR);
    assert_eq!((found.period, found.long, found.found), (Some(24), Some(168), true));
}

#[test]
fn noise_and_wandering_have_no_season() {
    let mut wrong = 0;
    for seed in 0..40 {
        let mut noise = Noise::new(seed);
        let mut level = 0.0;
        let values: Vec<f64> = (0..800)
            .map(|_| {
                if seed % 2 == 0 {
                    noise.normal()
                } else {
                    level += noise.normal();
                    level
                }
            })
            .collect();
        wrong += usize::from(find_season(&values, 7.3).found);
    }
    // What is found by chance is then weighed by the hold-outs.
    assert!(wrong <= 2, "{wrong} of 40 series without a season show one");
}

#[test]
fn a_level_shift_is_followed_at_once() {
    let mut noise = Noise::new(11);
    let level = |i: usize| if i < 940 { 20.0 } else { 60.0 };
    let truth: Vec<f64> =
        (0..1008).map(|i| level(i) + 3.0 * (TAU * i as f64 / 24.0).sin()).collect();
    let seen: Vec<f64> = truth.iter().map(|v| v + 0.5 * noise.normal()).collect();
    let found = forecast(&series(HOUR, &seen[..960]), 48, &[95.0]).unwrap();
    let shift = found.shift.expect("20 points after a shift of 13 amplitudes");
    assert!((shift.by - 40.0).abs() < 3.0 && shift.points_ago == 20, "{shift:?}");
    // Without the guard the seasonal members would pull back to 20.
    let error = mean_error(&found.mean, &truth[960..]);
    assert!(error < 1.0, "missed by {error}");
    assert!(coverage(&found.bands[0], &seen[960..]) > 0.9);
}

#[test]
fn nothing_is_shifted_where_nothing_happened() {
    for seed in 0..30 {
        let mut noise = Noise::new(seed);
        let mut level = 0.0;
        let values: Vec<f64> = (0..600)
            .map(|i| {
                level = 0.95 * level + noise.normal();
                level + (TAU * f64::from(i) / 24.0).sin()
            })
            .collect();
        let found = forecast(&series(HOUR, &values), 24, &[80.0]).unwrap();
        assert_eq!(found.shift, None, "seed {seed}");
    }
}

#[test]
fn bands_hold_on_correlated_noise() {
    let [low, high] = mean_coverage(700, 24, 60, |noise, points| {
        let mut level = 0.0;
        (0..points)
            .map(|_| {
                level = 0.8 * level + noise.normal();
                level
            })
            .collect()
    });
    // 60 windows of 24 dependent steps: about 0.02 of standard error.
    assert!((0.76..0.90).contains(&low), "80 % band holds {low}");
    assert!((0.91..0.99).contains(&high), "95 % band holds {high}");
}

#[test]
fn bands_hold_with_heavy_tails_around_a_season() {
    let [low, high] = mean_coverage(700, 24, 60, |noise, points| {
        (0..points).map(|i| 5.0 * (TAU * i as f64 / 24.0).cos() + noise.heavy()).collect()
    });
    assert!((0.76..0.90).contains(&low), "80 % band holds {low}");
    assert!((0.91..0.99).contains(&high), "95 % band holds {high}");
}

#[test]
fn bands_of_a_short_history_are_not_too_narrow() {
    let [low, high] = mean_coverage(72, 24, 100, |noise, points| {
        let mut level = 0.0;
        (0..points)
            .map(|_| {
                level = 0.8 * level + noise.normal();
                level
            })
            .collect()
    });
    assert!(low > 0.72, "80 % band holds {low}");
    assert!(high > 0.86, "95 % band holds {high}");
}

#[test]
fn bands_are_nested_around_the_mean_and_do_not_narrow() {
    let mut noise = Noise::new(3);
    let values: Vec<f64> = (0..500).map(|_| noise.heavy()).collect();
    let found = forecast(&series(HOUR, &values), 30, &[95.0, 50.0, 80.0]).unwrap();
    let mut widths = Vec::new();
    for step in 0..30 {
        let edge = |band: usize| (found.bands[band].lower[step], found.bands[band].upper[step]);
        let (wide, narrow, middle) = (edge(0), edge(1), edge(2));
        assert!(wide.0 <= middle.0 && middle.0 <= narrow.0 && narrow.0 <= found.mean[step]);
        assert!(wide.1 >= middle.1 && middle.1 >= narrow.1 && narrow.1 >= found.mean[step]);
        widths.push(wide.1 - wide.0);
    }
    assert!(widths.windows(2).all(|pair| pair[1] >= pair[0] - 1e-9));
}

#[test]
fn the_time_to_a_limit_is_right_as_often_as_it_says() {
    // A ramp with a wandering error: the limit lies 30 steps of drift ahead.
    let (mut by_p10, mut by_p50, mut by_p90, runs) = (0, 0, 0, 80);
    for seed in 0..runs {
        let mut noise = Noise::new(seed);
        let mut level = 0.0;
        let values: Vec<f64> = (0..400)
            .map(|_| {
                level += 1.0 + 2.0 * noise.normal();
                level
            })
            .collect();
        let (past, truth) = values.split_at(300);
        let limit = past[299] + 30.0;
        let found = forecast(&series(60.0, past), 90, &[80.0]).unwrap().time_to(limit);
        let actual = truth.iter().position(|v| *v >= limit).map_or(usize::MAX, |at| at + 1);
        let reached = |by: Option<usize>| usize::from(by.is_some_and(|by| actual <= by));
        by_p10 += reached(found.p10);
        by_p50 += reached(found.p50);
        by_p90 += reached(found.p90.or(Some(90)));
    }
    // Wanted 8, 40 and 72 of 80.
    assert!(by_p10 <= 22, "{by_p10} of {runs} before p10");
    assert!((24..=56).contains(&by_p50), "{by_p50} of {runs} before p50");
    assert!(by_p90 >= 60, "{by_p90} of {runs} before p90");
}

#[test]
fn growth_by_a_share_of_itself_is_followed() {
    let mut noise = Noise::new(17);
    let truth = |i: u32| 2.0 * (0.008 * f64::from(i)).exp();
    let values: Vec<f64> = (0..500).map(|i| truth(i) * (1.0 + 0.03 * noise.normal())).collect();
    let found = forecast(&series(HOUR, &values), 96, &[80.0]).unwrap();
    assert!(found.growth);
    let end = found.mean[95] / truth(595);
    assert!((0.8..1.25).contains(&end), "{end} of what it grows to");
    // Half again as much is reached after ln 1.5 / 0.008 = 51 steps.
    let passage = found.time_to(1.5 * truth(499));
    let (p10, p50, p90) = (passage.p10.unwrap(), passage.p50.unwrap(), passage.p90.unwrap());
    assert!(p10 <= 51 && p90 >= 51 && (38..=62).contains(&p50), "{passage:?}");
}

#[test]
fn a_limit_out_of_reach_is_not_reached_and_one_behind_us_is() {
    let mut noise = Noise::new(2);
    let values: Vec<f64> = (0..300).map(|_| 10.0 + noise.normal()).collect();
    let found = forecast(&series(HOUR, &values), 24, &[80.0]).unwrap();
    let far = found.time_to(100.0);
    assert_eq!((far.p10, far.p50, far.p90), (None, None, None));
    assert!(far.share.abs() < 1e-12);
    assert_eq!(found.time_to(found.last).p90, Some(0));
    // Downwards too.
    assert_eq!(found.time_to(-100.0).p10, None);
    assert!(found.time_to(found.mean[0].min(found.last) - 0.3).p50.is_some());
}

#[test]
fn paths_spread_as_the_bands_do() {
    let mut noise = Noise::new(8);
    let values: Vec<f64> = (0..600).map(|_| noise.normal()).collect();
    let found = forecast(&series(HOUR, &values), 24, &[80.0]).unwrap();
    let mut inside = 0.0;
    for path in found.paths.iter() {
        inside += coverage(&found.bands[0], path) / found.paths.count() as f64;
    }
    assert!((0.70..=0.90).contains(&inside), "{inside} of the paths' points lie in the 80 % band");
}

#[test]
fn gaps_uneven_steps_and_order_change_little() {
    let mut noise = Noise::new(21);
    let truth = |t: f64| 100.0 + 10.0 * (TAU * t / 86_400.0).sin();
    let rows: Vec<(f64, f64)> = (0..1008)
        .map(|i| {
            // Up to a quarter of a step early or late.
            let time = 600.0 * (f64::from(i) + 0.5 * (noise.0.f64() - 0.5));
            let value = truth(time) + 0.3 * noise.normal();
            (time, if noise.0.f64() < 0.1 { f64::NAN } else { value })
        })
        // Three hours are not there at all.
        .filter(|(time, _)| !(400_000.0..410_800.0).contains(time))
        .collect();
    let mut shuffled = rows.clone();
    noise.0.shuffle(&mut shuffled);
    let of = |rows: &[(f64, f64)]| {
        let (times, values): (Vec<f64>, Vec<f64>) = rows.iter().copied().unzip();
        let grid = Regular::from_readings(&times, &values).unwrap();
        (grid.notes(), grid.end(), grid.step(), forecast(&grid, 72, &[80.0]).unwrap())
    };
    let (notes, end, step, found) = of(&rows);
    assert!((step - 600.0).abs() < 10.0, "step {step}");
    assert!(notes.filled > 60 && notes.missing > 60 && !notes.unsorted);
    let expected: Vec<f64> = (1..=72).map(|i| truth(end + f64::from(i) * step)).collect();
    let error = mean_error(&found.mean, &expected);
    // A drifting grid (rows are 600 s apart on average, the median is a little off) costs phase.
    assert!(error < 2.0, "missed by {error}");
    let (notes, .., again) = of(&shuffled);
    assert!(notes.unsorted);
    assert_eq!(found.mean, again.mean);
}

#[test]
fn a_long_gap_gets_the_shape_of_the_season() {
    let truth: Vec<f64> = (0..480).map(|i| (TAU * f64::from(i) / 24.0).sin()).collect();
    let mut seen = truth.clone();
    seen[300..318].fill(f64::NAN);
    let found = forecast(&series(HOUR, &seen), 24, &[80.0]).unwrap();
    let expected: Vec<f64> = (480..504).map(|i| (TAU * f64::from(i) / 24.0).sin()).collect();
    let error = mean_error(&found.mean, &expected);
    assert!(error < 0.02, "missed by {error}");
}

#[test]
fn series_that_teach_nothing_are_refused() {
    let refused = |times: &[f64], values: &[f64]| {
        Regular::from_readings(times, values)
            .map_err(ForecastError::from)
            .and_then(|series| forecast(&series, 10, &[80.0]))
            .unwrap_err()
    };
    let times: Vec<f64> = (0..200).map(f64::from).collect();
    let empty = ForecastError::Series(SeriesError::Empty { values: 0 });
    assert_eq!(refused(&[], &[]), empty);
    assert_eq!(refused(&times, &[f64::NAN; 200]), empty);
    // All at one time: there is no step.
    let same = ForecastError::Series(SeriesError::Empty { values: 200 });
    assert_eq!(refused(&[5.0; 200], &times), same);
    let constant = refused(&times, &[7.25; 200]);
    assert_eq!(constant, ForecastError::Series(SeriesError::Constant { value: 7.25 }));
    assert_eq!(
        constant.to_string(),
        "the series is constant at 7.25: nothing can be learnt from it"
    );
    let mut sparse = vec![f64::NAN; 200];
    (0..200).step_by(5).for_each(|i| sparse[i] = i as f64);
    assert!(matches!(refused(&times, &sparse), ForecastError::Series(SeriesError::Gaps { .. })));
    let short = refused(&times[..20], &times[..20]);
    assert!(matches!(short, ForecastError::TooShort { have: 20, need: 30, .. }), "{short:?}");
    let huge: Vec<f64> = times.iter().map(|t| t * 1e306).collect();
    assert_eq!(refused(&times, &huge), ForecastError::Series(SeriesError::TooLarge));
}

#[test]
fn doubled_rows_count_once() {
    let values: Vec<f64> = (0..200).map(|i| f64::from(i % 24)).collect();
    let times: Vec<f64> = (0..200).map(|i| f64::from(i) * HOUR).collect();
    let (twice_times, twice_values) = (times.repeat(2), values.repeat(2));
    let once = Regular::from_readings(&times, &values).unwrap();
    let twice = Regular::from_readings(&twice_times, &twice_values).unwrap();
    assert_eq!(once.values(), twice.values());
    assert_eq!(twice.notes().doubled, 200);
}

#[test]
fn units_do_not_matter() {
    let mut noise = Noise::new(4);
    let values: Vec<f64> =
        (0..400).map(|i| (TAU * f64::from(i) / 24.0).sin() + 0.3 * noise.normal()).collect();
    let scaled: Vec<f64> = values.iter().map(|v| 1e9 + 1e3 * v).collect();
    let plain = forecast(&series(HOUR, &values), 24, &[80.0]).unwrap();
    let other = forecast(&series(HOUR, &scaled), 24, &[80.0]).unwrap();
    for (plain, other) in plain.mean.iter().zip(&other.mean) {
        // 1e9 in a double resolves 1e-7, a ten-thousandth of the unit 1e3 after the fit.
        assert!((1e9 + 1e3 * plain - other).abs() < 0.1, "{plain} and {other}");
    }
}

#[test]
fn every_length_and_horizon_gives_finite_values() {
    let mut noise = Noise::new(13);
    let values: Vec<f64> = (0..400)
        .map(|i| if i % 37 == 0 { 50.0 } else { f64::from(i % 12) + 0.1 * noise.normal() })
        .collect();
    for points in [24, 25, 31, 48, 77, 100, 170, 400] {
        for horizon in [1, 2, 3, 5, 8, 33, 133] {
            for step in [1.0, 600.0, HOUR, 86_400.0] {
                let Ok(found) = forecast(&series(step, &values[..points]), horizon, &[80.0, 99.0])
                else {
                    assert!(points < HORIZONS_MIN * horizon, "{points} points, {horizon} steps");
                    continue;
                };
                let all =
                    found.mean.iter().chain(&found.bands[1].lower).chain(&found.bands[1].upper);
                assert!(all.clone().all(|v| v.is_finite()), "{points} points, {horizon} steps");
                let sum: f64 = found.weights.iter().map(|(_, weight)| weight).sum();
                assert!((sum - 1.0).abs() < 1e-9);
            }
        }
    }
}
