//! Orders: spectra over turns of the shaft instead of time, so that lines stand still while the
//! speed drifts.

use super::{Transforms, amplitudes};

/// Samples for each turn after resampling: lines up to the 16th order, at half the margin that
/// linear interpolation needs.
const SAMPLES_A_TURN: f64 = 64.0;

/// Amplitudes over orders of a burst during which the speed went evenly from `rpm_from` to
/// `rpm_to`, both positive: line `k` at order `k / turns`, with the `turns` (whole, ≥ 4) that the
/// lines rest on. `None` when the burst holds fewer turns, or the rate is too low for them.
///
/// Source: K. R. Fyfe, E. D. S. Munck, Mech. Syst. Signal Process. 11(2), 1997 (computed order
/// tracking, here with cubic interpolation).
#[must_use]
pub fn order_amplitudes(
    transforms: &mut Transforms,
    samples: &[f64],
    rate_hz: f64,
    rpm_from: f64,
    rpm_to: f64,
) -> Option<(f64, Vec<f64>)> {
    if !(rpm_from > 0.0 && rpm_to > 0.0 && rate_hz > 0.0) || samples.len() < 8 {
        return None;
    }
    let last = (samples.len() - 1) as f64;
    let (begin, end) = (rpm_from / 60.0, rpm_to / 60.0);
    let seconds = last / rate_hz;
    let turns = ((begin + end) / 2.0 * seconds).floor();
    if turns < 4.0 || rate_hz < 2.0 * begin.max(end) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "fewer turns than samples"
    )]
    let count = (turns * SAMPLES_A_TURN) as usize;
    let slope = (end - begin) / seconds;
    let resampled: Vec<f64> = (0..count)
        .map(|k| {
            // φ(t) = begin·t + slope·t²/2, solved for t without cancellation.
            let angle = k as f64 / SAMPLES_A_TURN;
            let root = (begin * begin + 2.0 * slope * angle).max(0.0).sqrt();
            let at = 2.0 * angle / (begin + root) * rate_hz;
            interpolate(samples, at.clamp(0.0, last))
        })
        .collect();
    Some((turns, amplitudes(transforms, &resampled, count)?))
}

/// Catmull–Rom between the four samples around `at`.
fn interpolate(samples: &[f64], at: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`at` lies within the samples"
    )]
    let index = (at as usize).min(samples.len() - 2);
    let t = at - index as f64;
    let p1 = samples[index];
    let p2 = samples[index + 1];
    let p0 = if index == 0 { 2.0 * p1 - p2 } else { samples[index - 1] };
    let p3 = samples.get(index + 2).copied().unwrap_or(2.0 * p2 - p1);
    let a = -p0 + 3.0 * p1 - 3.0 * p2 + p3;
    let b = 2.0 * p0 - 5.0 * p1 + 4.0 * p2 - p3;
    p1 + 0.5 * t * (p2 - p0 + t * (b + t * a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_stands_still_while_the_speed_runs_up() {
        // Twice the shaft's frequency while it runs up from 600 to 1,200 rpm within 2 s.
        let rate = 5000.0;
        let samples: Vec<f64> = (0..10_001)
            .map(|k| {
                let t = f64::from(k) / rate;
                let turns = 10.0 * t + 5.0 * t * t / 2.0;
                3.0 * (std::f64::consts::TAU * 2.0 * turns).sin()
            })
            .collect();
        let mut transforms = Transforms::default();
        let (turns, lines) =
            order_amplitudes(&mut transforms, &samples, rate, 600.0, 1200.0).unwrap();
        assert!((turns - 30.0).abs() < 1e-9);
        assert!((lines[60] - 3.0).abs() < 0.01, "{}", lines[60]);
        let rest = lines.iter().enumerate().filter(|(k, _)| k.abs_diff(60) > 2);
        assert!(rest.map(|(_, a)| *a).fold(0.0, f64::max) < 0.01);
        assert_eq!(order_amplitudes(&mut transforms, &samples, rate, 60.0, 60.0), None);
        assert_eq!(order_amplitudes(&mut transforms, &samples, rate, 0.0, 60.0), None);
    }
}
