//! The shape of a burst in time, and of its spectrum.

use super::mean;

/// Moments and factors of one burst `x`, with `m = x − mean(x)`. Population moments; kurtosis after
/// Pearson, so that normal noise has 3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeShape {
    /// Mean, in the unit of the samples.
    pub mean: f64,
    /// √mean(m²)
    pub rms_ac: f64,
    /// √mean(x²)
    pub rms: f64,
    /// Largest |m|.
    pub peak_ac: f64,
    /// Largest less smallest x.
    pub peak_to_peak: f64,
    /// `peak_ac / rms_ac`; `None` for silence, as are the following.
    pub crest: Option<f64>,
    /// mean(m⁴) / mean(m²)²
    pub kurtosis: Option<f64>,
    /// mean(m³) / mean(m²)^1.5
    pub skewness: Option<f64>,
    /// `rms_ac / mean|m|`
    pub shape_factor: Option<f64>,
    /// `peak_ac / mean|m|`
    pub impulse_factor: Option<f64>,
    /// How often `m ≥ 0` changes from one sample to the next.
    pub zero_crossings: usize,
}

/// Moments and factors of a burst; `None` when it is empty.
///
/// Source: ISO 13373-2:2016 §5 for crest factor and kurtosis as signs of bearing faults.
#[must_use]
pub fn time_shape(samples: &[f64]) -> Option<TimeShape> {
    let count = samples.len() as f64;
    if samples.is_empty() {
        return None;
    }
    let middle = mean(samples);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let (mut square, mut second, mut third, mut fourth) = (0.0, 0.0, 0.0, 0.0);
    let (mut absolute, mut peak) = (0.0_f64, 0.0_f64);
    let mut zero_crossings = 0;
    let mut above = samples[0] >= middle;
    for &x in samples {
        let m = x - middle;
        let m2 = m * m;
        (low, high) = (low.min(x), high.max(x));
        square += x * x;
        second += m2;
        third += m2 * m;
        fourth += m2 * m2;
        absolute += m.abs();
        peak = peak.max(m.abs());
        zero_crossings += usize::from((m >= 0.0) != above);
        above = m >= 0.0;
    }
    let variance = second / count;
    let rms_ac = variance.sqrt();
    let defined = |value: f64| Some(value).filter(|value| value.is_finite());
    Some(TimeShape {
        mean: middle,
        rms_ac,
        rms: (square / count).sqrt(),
        peak_ac: peak,
        peak_to_peak: high - low,
        crest: defined(peak / rms_ac),
        kurtosis: defined(fourth / count / (variance * variance)),
        skewness: defined(third / count / (variance * rms_ac)),
        shape_factor: defined(rms_ac / (absolute / count)),
        impulse_factor: defined(peak / (absolute / count)),
        zero_crossings,
    })
}

/// Where the power of a spectrum lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpectralShape {
    /// Centre of gravity, in Hz.
    pub centroid_hz: f64,
    /// Standard deviation about it, in Hz.
    pub spread_hz: f64,
    /// Shannon entropy of the shares, over that of white noise: 0 a line, 1 white.
    pub entropy: f64,
    /// The first frequency below which 85 % of the power lies, in Hz.
    pub rolloff85_hz: f64,
    /// Geometric over arithmetic mean: 0 lines, 1 white.
    pub flatness: f64,
}

/// The shape of densities `power` (bin `k` at `k · df_hz`); `None` for silence.
///
/// Source: G. Peeters, *A large set of audio features*, IRCAM 2004, §6.
#[must_use]
pub fn spectral_shape(power: &[f64], df_hz: f64) -> Option<SpectralShape> {
    let total: f64 = power.iter().sum();
    if power.len() < 2 || total <= 0.0 || !total.is_finite() {
        return None;
    }
    let share = || power.iter().map(|p| p / total).enumerate();
    let at = |k: usize| k as f64 * df_hz;
    let centroid_hz: f64 = share().map(|(k, p)| p * at(k)).sum();
    let variance: f64 = share().map(|(k, p)| p * (at(k) - centroid_hz).powi(2)).sum();
    let bits: f64 = share().filter(|(_, p)| *p > 0.0).map(|(_, p)| -p * p.ln()).sum();
    let mut below = 0.0;
    let rolloff = share().find(|(_, p)| {
        below += p;
        below >= 0.85
    });
    let count = power.len() as f64;
    let logarithms: f64 = power.iter().map(|p| p.ln()).sum();
    Some(SpectralShape {
        centroid_hz,
        spread_hz: variance.sqrt(),
        entropy: bits / count.ln(),
        rolloff85_hz: at(rolloff.map_or(power.len() - 1, |(k, _)| k)),
        flatness: (logarithms / count).exp() / (total / count),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::sine;
    use super::*;

    #[test]
    fn a_sine_has_the_factors_of_the_textbook() {
        let shape = time_shape(&sine(1000, 1000.0, 10.0, 2.0)).unwrap();
        assert!((shape.rms_ac - 2.0_f64.sqrt()).abs() < 1e-9);
        assert!((shape.kurtosis.unwrap() - 1.5).abs() < 1e-9);
        // Largest sample of 100 a period: within 0.1 % of the crest.
        assert!((shape.crest.unwrap() - 2.0_f64.sqrt()).abs() < 2e-3);
        assert!((shape.shape_factor.unwrap() - 1.110_72).abs() < 1e-3);
        assert!(shape.skewness.unwrap().abs() < 1e-9);
    }

    #[test]
    fn silence_has_no_factors() {
        let shape = time_shape(&[5.0; 100]).unwrap();
        assert_eq!((shape.crest, shape.kurtosis, shape.skewness), (None, None, None));
        assert_eq!((shape.shape_factor, shape.impulse_factor), (None, None));
        assert_eq!(time_shape(&[]), None);
        assert_eq!(spectral_shape(&[0.0; 10], 1.0), None);
    }

    #[test]
    fn a_flat_spectrum_is_white() {
        let shape = spectral_shape(&[2.0; 101], 1.0).unwrap();
        assert!((shape.flatness - 1.0).abs() < 1e-12 && (shape.entropy - 1.0).abs() < 1e-12);
        assert!((shape.centroid_hz - 50.0).abs() < 1e-9);
        assert!((shape.rolloff85_hz - 85.0).abs() < 1e-9);
    }
}
