//! Frequencies of one burst of evenly spaced samples: amplitudes, power densities, envelopes, lines
//! of bearings, orders of a shaft, mel cepstra.
//!
//! Bursts are finite samples in any unit at `rate_hz` samples a second. Frequencies are in Hz,
//! amplitudes in the unit of the samples, densities in unit²/Hz. What is not defined (kurtosis of
//! silence) is `None`, never NaN.

mod bearing;
mod cepstrum;
mod envelope;
mod orders;
mod shape;
mod vibration;

pub use bearing::{FaultLines, Geometry, line_amplitudes};
pub use cepstrum::{Cepstra, Mel, SpeechFeatures, cepstra, speech_features};
pub use envelope::{BandPass, Envelope, envelope};
pub use orders::order_amplitudes;
pub use shape::{SpectralShape, TimeShape, spectral_shape, time_shape};
pub use vibration::{Zone, ZoneLimits, octave_bands, velocity_rms_mm_s, zone_limits};

use std::sync::Arc;

use realfft::num_complex::Complex64;
use realfft::{RealFftPlanner, RealToComplex};
use rustfft::{Fft, FftPlanner};

/// Plans of transforms by length, with their buffers; one for each thread that transforms.
///
/// Any length is fast: mixed radix, Rader or Bluestein as it factors (`rustfft`).
pub struct Transforms {
    real: RealFftPlanner<f64>,
    complex: FftPlanner<f64>,
    samples: Vec<f64>,
    bins: Vec<Complex64>,
    signal: Vec<Complex64>,
    scratch: Vec<Complex64>,
}

impl std::fmt::Debug for Transforms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transforms").finish_non_exhaustive()
    }
}

impl Default for Transforms {
    fn default() -> Self {
        Self {
            real: RealFftPlanner::new(),
            complex: FftPlanner::new(),
            samples: Vec::new(),
            bins: Vec::new(),
            signal: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

impl Transforms {
    /// The first `n / 2 + 1` bins of the transform of `samples` (`n`, not empty), unscaled.
    fn real(&mut self, samples: impl Iterator<Item = f64>) -> &[Complex64] {
        self.samples.clear();
        self.samples.extend(samples);
        let plan: Arc<dyn RealToComplex<f64>> = self.real.plan_fft_forward(self.samples.len());
        self.bins.resize(plan.complex_len(), Complex64::default());
        self.scratch.resize(plan.get_scratch_len(), Complex64::default());
        plan.process_with_scratch(&mut self.samples, &mut self.bins, &mut self.scratch)
            .expect("the buffers were made for this plan");
        &self.bins
    }

    /// Transforms back in place, unscaled.
    fn inverse(&mut self) -> &[Complex64] {
        let plan: Arc<dyn Fft<f64>> = self.complex.plan_fft_inverse(self.signal.len());
        self.scratch.resize(plan.get_inplace_scratch_len(), Complex64::default());
        plan.process_with_scratch(&mut self.signal, &mut self.scratch);
        &self.signal
    }
}

/// The periodic Hann window of `n` samples: the symmetric one of `n + 1` without its last.
///
/// Source: F. J. Harris, Proc. IEEE 66(1), 1978.
#[must_use]
pub fn hann(n: usize) -> Vec<f64> {
    let turn = std::f64::consts::TAU / n as f64;
    (0..n).map(|k| 0.5 - 0.5 * (turn * k as f64).cos()).collect()
}

fn mean(samples: &[f64]) -> f64 {
    if samples.is_empty() { 0.0 } else { samples.iter().sum::<f64>() / samples.len() as f64 }
}

/// One-sided amplitudes of the first `window` samples minus their mean, under a periodic Hann
/// window divided by its coherent gain: a sine of amplitude `a` on an inner bin reads `a`. Bin `k`
/// of the `window / 2 + 1` lies at `k · rate / window`; the first and, for an even length, the
/// last are not doubled. `None` for a shorter burst.
///
/// Source: F. J. Harris, Proc. IEEE 66(1), 1978, table I.
#[must_use]
pub fn amplitudes(transforms: &mut Transforms, samples: &[f64], window: usize) -> Option<Vec<f64>> {
    let part = samples.get(..window).filter(|part| !part.is_empty())?;
    let middle = mean(part);
    let weights = hann(window);
    let gain: f64 = weights.iter().sum();
    let bins = transforms.real(part.iter().zip(&weights).map(|(x, w)| (x - middle) * w));
    let last = if window.is_multiple_of(2) { window / 2 } else { usize::MAX };
    let sided = |k: usize| if k == 0 || k == last { 1.0 } else { 2.0 };
    Some(bins.iter().enumerate().map(|(k, bin)| sided(k) * bin.norm() / gain).collect())
}

/// Averaged one-sided power density of segments of `window` samples that overlap by half, each
/// minus its mean, under a periodic Hann window: `window / 2 + 1` values in unit²/Hz, bin `k` at
/// `k · rate / window`. `None` for a shorter burst.
///
/// Source: P. D. Welch, IEEE Trans. Audio Electroacoust. 15(2), 1967.
#[must_use]
pub fn welch(
    transforms: &mut Transforms,
    samples: &[f64],
    rate_hz: f64,
    window: usize,
) -> Option<Vec<f64>> {
    if samples.len() < window || window < 2 {
        return None;
    }
    let weights = hann(window);
    let power: f64 = weights.iter().map(|w| w * w).sum();
    let mut density = vec![0.0; window / 2 + 1];
    let mut segments = 0.0;
    for start in (0..=samples.len() - window).step_by(window - window / 2) {
        let part = &samples[start..start + window];
        let middle = mean(part);
        let bins = transforms.real(part.iter().zip(&weights).map(|(x, w)| (x - middle) * w));
        for (sum, bin) in density.iter_mut().zip(bins) {
            *sum += bin.norm_sqr();
        }
        segments += 1.0;
    }
    let last = if window.is_multiple_of(2) { window / 2 } else { usize::MAX };
    for (k, value) in density.iter_mut().enumerate() {
        let sided = if k == 0 || k == last { 1.0 } else { 2.0 };
        *value *= sided / (rate_hz * power * segments);
    }
    Some(density)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sine(n: usize, rate: f64, hz: f64, amplitude: f64) -> Vec<f64> {
        let turn = std::f64::consts::TAU * hz / rate;
        (0..n).map(|k| amplitude * (turn * k as f64).sin()).collect()
    }

    #[test]
    fn a_sine_on_a_bin_reads_its_amplitude() {
        let samples = sine(2048, 2048.0, 100.0, 3.0);
        let amplitudes = amplitudes(&mut Transforms::default(), &samples, 2048).unwrap();
        assert_eq!(amplitudes.len(), 1025);
        assert!((amplitudes[100] - 3.0).abs() < 1e-9);
        assert!((amplitudes[99] - 1.5).abs() < 1e-9, "half of it in the neighbours");
        assert!(amplitudes[103] < 1e-9);
        assert_eq!(super::amplitudes(&mut Transforms::default(), &samples, 4096), None);
    }

    #[test]
    fn power_density_integrates_to_the_mean_square() {
        // Parseval: for whole periods on a bin the sum of densities × df is a²/2.
        let samples = sine(4096, 1024.0, 64.0, 2.0);
        let density = welch(&mut Transforms::default(), &samples, 1024.0, 512).unwrap();
        let power: f64 = density.iter().sum::<f64>() * 2.0;
        assert!((power - 2.0).abs() < 1e-9, "{power}");
        assert_eq!(welch(&mut Transforms::default(), &samples[..100], 1024.0, 512), None);
    }

    #[test]
    fn any_length_transforms() {
        for n in [1, 2, 3, 97, 1000, 3307] {
            let mut transforms = Transforms::default();
            let bins = transforms.real((0..n).map(|_| 1.0));
            assert!((bins[0].re - f64::from(n)).abs() < 1e-9, "{n}");
        }
    }
}
