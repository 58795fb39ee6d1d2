//! Acquisition's part for bursts of samples: each becomes samples in the tag's unit, and one
//! ordinary reading: their RMS about the mean (the standard deviation of the burst), by which
//! limits and detection work on it like on any other tag.

use crate::domain::reading::{Burst, Quality, RawWaveform, Reason};
use crate::domain::tag::{Form, Tag};

/// Samples kept of one burst; a longer one is refused with reason `config`.
pub(super) const SAMPLES_MAX: usize = 65_536;

/// The reading of a burst in the tag's unit (NaN when it has none), its quality, and the burst,
/// its place in the order of arrival left open. Sentinels and samples that are no number make the
/// burst bad: its RMS would be theirs.
pub(crate) fn judge(
    tag: &Tag,
    raw: &RawWaveform,
    invalid: &[f64],
) -> (f64, Quality, Option<Burst>) {
    if raw.samples.is_empty() || raw.samples.len() > SAMPLES_MAX {
        return (f64::NAN, Quality::Bad(Reason::Config), None);
    }
    let samples = || raw.samples.iter().map(|sample| f64::from(*sample));
    let sentinel = |sample: f64| invalid.iter().any(|value| value.total_cmp(&sample).is_eq());
    let quality = if samples().any(|sample| !sample.is_finite()) {
        Quality::Bad(Reason::Nan)
    } else if samples().any(sentinel) {
        Quality::Bad(Reason::Sentinel)
    } else {
        Quality::Good
    };
    #[expect(clippy::cast_possible_truncation, reason = "samples are kept in single precision")]
    let scaled: Box<[f32]> =
        samples().map(|sample| (sample * tag.scale + tag.offset) as f32).collect();
    let rms = if quality.is_good() { rms(samples()) * tag.scale.abs() } else { f64::NAN };
    let rate_hz = match tag.handling.form {
        Form::Waveform { rate_hz } => rate_hz,
        Form::Number | Form::Text => None,
    };
    let burst = Burst {
        tag: raw.tag,
        arrival: crate::domain::ids::Arrival(0),
        time: raw.source_time.unwrap_or(raw.arrived),
        rate_hz,
        quality,
        samples: scaled,
    };
    (rms, quality, Some(burst))
}

/// Root mean square about the mean, in two passes: a large mean must not swallow a small vibration.
fn rms(samples: impl Iterator<Item = f64> + Clone) -> f64 {
    let (count, sum) = samples.clone().fold((0.0, 0.0), |(n, sum), x| (n + 1.0, sum + x));
    let mean = sum / count;
    let squares: f64 = samples.map(|sample| (sample - mean) * (sample - mean)).sum();
    (squares / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rms_of_a_sine_is_its_amplitude_over_root_two_whatever_the_mean() {
        let sine = |mean: f64| {
            (0..1000).map(move |i| mean + 3.0 * (f64::from(i) * std::f64::consts::TAU / 50.0).sin())
        };
        for mean in [0.0, -7.5, 1e6] {
            assert!((rms(sine(mean)) - 3.0 / 2.0_f64.sqrt()).abs() < 1e-6, "{mean}");
        }
    }
}
