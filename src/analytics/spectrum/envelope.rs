//! Envelopes: how the loudness of a band goes up and down. A bearing that is struck once a turn
//! rings at its resonance; the envelope of that band shows how often it is struck.

use std::f64::consts::PI;

use realfft::num_complex::Complex64;

use super::{Transforms, mean};

/// The envelope of a burst and its spectrum.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Distance of the lines, in Hz.
    pub df_hz: f64,
    /// Mean of the envelope, in the unit of the samples.
    pub mean: f64,
    /// Root mean square of the envelope.
    pub rms: f64,
    /// Amplitudes of the lines `k · df_hz`, `n / 2 + 1` of them, the mean taken out.
    pub lines: Vec<f64>,
}

/// The envelope |analytic signal| of samples whose mean was taken out, and its amplitudes
/// `2|FFT(env − mean env)| / n`; transforms have the burst's own length. `None` for an empty burst.
///
/// Source: R. B. Randall, J. Antoni, Mech. Syst. Signal Process. 25(2), 2011, §4.
#[must_use]
pub fn envelope(transforms: &mut Transforms, samples: &[f64], rate_hz: f64) -> Option<Envelope> {
    let n = samples.len();
    if n == 0 {
        return None;
    }
    transforms.real(samples.iter().copied());
    // Positive frequencies twice, negative ones not at all: S. L. Marple, IEEE TSP 47(9), 1999.
    let mut signal = std::mem::take(&mut transforms.signal);
    signal.clear();
    signal.resize(n, Complex64::default());
    let last = if n.is_multiple_of(2) { n / 2 } else { usize::MAX };
    for (k, bin) in transforms.bins.iter().enumerate() {
        let sided = if k == 0 || k == last { 1.0 } else { 2.0 };
        signal[k] = bin * sided;
    }
    transforms.signal = signal;
    let count = n as f64;
    let envelope: Vec<f64> = transforms.inverse().iter().map(|z| z.norm() / count).collect();
    let level = mean(&envelope);
    let square: f64 = envelope.iter().map(|e| e * e).sum::<f64>() / count;
    let bins = transforms.real(envelope.iter().map(|e| e - level));
    let lines = bins.iter().map(|bin| 2.0 * bin.norm() / count).collect();
    Some(Envelope { df_hz: rate_hz / count, mean: level, rms: square.sqrt(), lines })
}

/// A Butterworth band-pass in second-order sections, run forward from rest.
#[derive(Debug, Clone, PartialEq)]
pub struct BandPass {
    gain: f64,
    /// `a1`, `a2` of each section; its numerator is `1 − z⁻²`.
    sections: Vec<(f64, f64)>,
}

impl BandPass {
    /// A band-pass of prototype order `order` (1 to 8; slopes of 6·order dB an octave) from `low`
    /// to `high`, both as shares of the sampling rate: 0 < low < high < 0.5. `None` otherwise.
    ///
    /// Source: A. V. Oppenheim, R. W. Schafer, *Discrete-Time Signal Processing*, §7.1 (bilinear
    /// transform with prewarping) and the analogue low-pass to band-pass transform.
    #[must_use]
    pub fn butterworth(order: usize, low: f64, high: f64) -> Option<Self> {
        let band = 0.0 < low && low < high && high < 0.5;
        if !(band && (1..=8).contains(&order)) {
            return None;
        }
        // Analogue frequencies for a sampling rate of 2.
        let (warped_low, warped_high) = (4.0 * (PI * low).tan(), 4.0 * (PI * high).tan());
        let band = warped_high - warped_low;
        let centre = warped_low * warped_high;
        let mut gain = Complex64::new(1.0, 0.0);
        let mut sections = Vec::with_capacity(order);
        for k in 0..order {
            let angle = PI * (2 * k + order + 1) as f64 / (2 * order) as f64;
            let prototype = Complex64::from_polar(band / 2.0, angle);
            let root = (prototype * prototype - centre).sqrt();
            for pole in [prototype + root, prototype - root] {
                gain /= 4.0 - pole;
                let digital = (4.0 + pole) / (4.0 - pole);
                // Poles come in conjugate pairs; the upper one of each stands for both. Pairs on
                // the real axis would need a wider band than an octave at order 1.
                if digital.im > 0.0 {
                    sections.push((-2.0 * digital.re, digital.norm_sqr()));
                }
            }
        }
        if sections.len() != order {
            return None;
        }
        // `order` zeros at 0 become 1, as many at infinity −1; each of the former adds a factor 4.
        let numerator = (4.0 * band).powi(i32::try_from(order).expect("at most eight"));
        Some(Self { gain: numerator * gain.re, sections })
    }

    /// Filters `samples`, which begin at rest.
    #[must_use]
    pub fn run(&self, samples: &[f64]) -> Vec<f64> {
        let mut signal: Vec<f64> = samples.iter().map(|x| x * self.gain).collect();
        for &(a1, a2) in &self.sections {
            let (mut z1, mut z2) = (0.0, 0.0);
            for x in &mut signal {
                // Transposed direct form II with b = 1, 0, −1.
                let y = *x + z1;
                z1 = z2 - a1 * y;
                z2 = -*x - a2 * y;
                *x = y;
            }
        }
        signal
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sine;
    use super::*;

    #[test]
    fn a_modulated_tone_shows_how_often_it_swells() {
        let rate = 1000.0;
        let carrier = sine(1000, rate, 200.0, 1.0);
        let swell = sine(1000, rate, 7.0, 0.5);
        let samples: Vec<f64> = carrier.iter().zip(&swell).map(|(c, s)| c * (1.0 + s)).collect();
        let envelope = envelope(&mut Transforms::default(), &samples, rate).unwrap();
        assert!((envelope.mean - 1.0).abs() < 1e-9, "{}", envelope.mean);
        assert!((envelope.lines[7] - 0.5).abs() < 1e-9);
        assert!((envelope.rms - 1.125_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn a_band_pass_lets_the_band_pass() {
        let filter = BandPass::butterworth(4, 0.15, 0.40).unwrap();
        let loud = |share: f64| {
            let out = filter.run(&sine(4000, 1.0, share, 1.0));
            (out[2000..].iter().map(|y| y * y).sum::<f64>() / 1000.0).sqrt()
        };
        // Maximally flat by definition: 1/√(1 + x⁸) of the warped distance from the centre, half
        // the power at both ends of the band.
        let warp = |share: f64| (PI * share).tan();
        for share in [0.05, 0.15, 0.2, 0.25, 0.4, 0.48] {
            let band = warp(0.40) - warp(0.15);
            let x = (warp(share).powi(2) - warp(0.15) * warp(0.40)) / (warp(share) * band);
            let expected = 1.0 / (1.0 + x.powi(8)).sqrt();
            assert!((loud(share) - expected).abs() < 1e-3 * expected, "{share}: {}", loud(share));
        }
        assert_eq!(BandPass::butterworth(4, 0.4, 0.5), None);
        assert_eq!(BandPass::butterworth(0, 0.1, 0.2), None);
    }
}
