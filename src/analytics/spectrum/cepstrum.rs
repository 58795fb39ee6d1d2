//! Mel-frequency cepstra: what acoustic models of machines are fed with.
//!
//! Two conventions are in use and give different numbers: centred frames with decibels ([`Mel`],
//! as in librosa), and pre-emphasised frames with natural logarithms ([`SpeechFeatures`], as in
//! `python_speech_features`). Source of both: S. B. Davis, P. Mermelstein, IEEE TASSP 28(4), 1980.

use std::f64::consts::PI;

use super::{Transforms, hann};

/// Cepstral coefficients of a burst.
#[derive(Debug, Clone, PartialEq)]
pub struct Cepstra {
    /// By coefficient, over frames.
    pub coefficients: Vec<Vec<f64>>,
}

impl Cepstra {
    /// Mean of each coefficient over the frames.
    #[must_use]
    pub fn mean(&self) -> Vec<f64> {
        self.coefficients.iter().map(|frames| super::mean(frames)).collect()
    }

    /// Population standard deviation of each coefficient over the frames.
    #[must_use]
    pub fn std(&self) -> Vec<f64> {
        let deviation = |frames: &Vec<f64>| {
            let middle = super::mean(frames);
            let squares: f64 = frames.iter().map(|c| (c - middle).powi(2)).sum();
            (squares / frames.len() as f64).sqrt()
        };
        self.coefficients.iter().map(deviation).collect()
    }
}

/// Centred frames, power spectra, mel filters from 0 to half the rate, decibels with a floor 80 dB
/// below the loudest value of the burst, orthonormal DCT-II.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mel {
    /// Length of a frame, in samples.
    pub frame: usize,
    /// From one frame to the next, in samples.
    pub hop: usize,
    /// How many filters.
    pub filters: usize,
    /// How many coefficients.
    pub coefficients: usize,
    /// The HTK scale without normalisation, instead of Slaney's with filters of equal area.
    pub htk: bool,
}

/// Least power before the logarithm.
const POWER_LEAST: f64 = 1e-10;
/// Range below the loudest value, in dB.
const RANGE_DB: f64 = 80.0;

/// Cepstra of a burst; `None` when it is empty.
#[must_use]
pub fn cepstra(
    transforms: &mut Transforms,
    samples: &[f64],
    rate_hz: f64,
    mel: Mel,
) -> Option<Cepstra> {
    if samples.is_empty() || mel.hop == 0 || mel.frame < 2 {
        return None;
    }
    let weights = hann(mel.frame);
    let filters = mel_filters(mel, rate_hz);
    let frames = 1 + samples.len() / mel.hop;
    let mut decibels: Vec<Vec<f64>> = Vec::with_capacity(frames);
    for frame in 0..frames {
        // The frame is centred on its place; outside of the burst there are zeros.
        let start = frame * mel.hop;
        let half = mel.frame / 2;
        let at = |k: usize| {
            (start + k).checked_sub(half).and_then(|at| samples.get(at)).copied().unwrap_or(0.0)
        };
        let bins = transforms.real(weights.iter().enumerate().map(|(k, w)| w * at(k)));
        let level = |(from, taps): &(usize, Vec<f64>)| {
            let power: f64 =
                taps.iter().zip(&bins[*from..]).map(|(tap, bin)| tap * bin.norm_sqr()).sum();
            10.0 * power.max(POWER_LEAST).log10()
        };
        decibels.push(filters.iter().map(level).collect());
    }
    let loudest = decibels.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
    for frame in &mut decibels {
        frame.iter_mut().for_each(|level| *level = level.max(loudest - RANGE_DB));
    }
    let count = mel.coefficients.min(mel.filters);
    Some(Cepstra { coefficients: transposed(&decibels, count) })
}

/// The first `count` coefficients of each frame, by coefficient.
fn transposed(frames: &[Vec<f64>], count: usize) -> Vec<Vec<f64>> {
    let width = frames.first().map_or(0, Vec::len);
    let cosines = cosines(width, count);
    let dot = |row: &Vec<f64>, frame: &Vec<f64>| row.iter().zip(frame).map(|(c, x)| c * x).sum();
    cosines.iter().map(|row| frames.iter().map(|frame| dot(row, frame)).collect()).collect()
}

/// Rows of the orthonormal DCT-II.
fn cosines(width: usize, count: usize) -> Vec<Vec<f64>> {
    let length = width as f64;
    let row = |k: usize| {
        let scale = if k == 0 { 1.0 / length } else { 2.0 / length };
        let angle = PI * k as f64 / (2.0 * length);
        (0..width).map(|m| scale.sqrt() * (angle * (2 * m + 1) as f64).cos()).collect()
    };
    (0..count).map(row).collect()
}

fn mel_of(hz: f64, htk: bool) -> f64 {
    if htk {
        2595.0 * (1.0 + hz / 700.0).log10()
    } else if hz < 1000.0 {
        3.0 * hz / 200.0
    } else {
        15.0 + (hz / 1000.0).ln() * 27.0 / 6.4_f64.ln()
    }
}

fn hz_of(mel: f64, htk: bool) -> f64 {
    if htk {
        700.0 * (10.0_f64.powf(mel / 2595.0) - 1.0)
    } else if mel < 15.0 {
        200.0 * mel / 3.0
    } else {
        1000.0 * ((mel - 15.0) * 6.4_f64.ln() / 27.0).exp()
    }
}

/// Triangles over the bins of a frame, each as its first bin and its taps.
fn mel_filters(mel: Mel, rate_hz: f64) -> Vec<(usize, Vec<f64>)> {
    let top = mel_of(rate_hz / 2.0, mel.htk);
    let edge = |k: usize| hz_of(top * k as f64 / (mel.filters + 1) as f64, mel.htk);
    let df = rate_hz / mel.frame as f64;
    (0..mel.filters)
        .map(|k| {
            let (low, middle, high) = (edge(k), edge(k + 1), edge(k + 2));
            let area = if mel.htk { 1.0 } else { 2.0 / (high - low) };
            let tap = |bin: usize| {
                let hz = bin as f64 * df;
                area * ((hz - low) / (middle - low)).min((high - hz) / (high - middle)).max(0.0)
            };
            let bins = 0..=mel.frame / 2;
            let first = bins.clone().find(|bin| tap(*bin) > 0.0).unwrap_or(0);
            let taps = (first..=mel.frame / 2).map(tap).take_while(|tap| *tap > 0.0).collect();
            (first, taps)
        })
        .collect()
}

/// The settings of `python_speech_features`: frames of 25 ms every 10 ms, rectangular, pre-emphasis
/// 0.97, 26 HTK filters between whole bins, natural logarithms, lifter 22, the logarithm of the
/// energy as coefficient 0, 13 coefficients, samples × 32,768.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpeechFeatures;

const EMPHASIS: f64 = 0.97;
const FILTERS: usize = 26;
const COEFFICIENTS: usize = 13;
const LIFTER: f64 = 22.0;
/// Full scale of 16-bit samples.
const FULL_SCALE: f64 = 32_768.0;

impl SpeechFeatures {
    /// Length of the transform: 512, and 1,024 above 20 kHz, where a frame would not fit.
    const fn length(rate_hz: f64) -> usize {
        if rate_hz > 20_000.0 { 1024 } else { 512 }
    }
}

/// Cepstra of a burst by the settings of [`SpeechFeatures`]; `None` when it is empty.
#[must_use]
pub fn speech_features(
    transforms: &mut Transforms,
    samples: &[f64],
    rate_hz: f64,
) -> Option<Cepstra> {
    let (&first, _) = samples.split_first()?;
    let length = SpeechFeatures::length(rate_hz);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few thousand samples"
    )]
    let rounded = |seconds: f64| (seconds * rate_hz + 0.5).floor().max(1.0) as usize;
    let (frame, step) = (rounded(0.025), rounded(0.01));
    let frames = 1 + samples.len().saturating_sub(frame).div_ceil(step);
    let filters = whole_bin_filters(length, rate_hz);
    let emphasised = |k: usize| {
        let now = FULL_SCALE * samples.get(k).copied().unwrap_or(0.0);
        let before = k.checked_sub(1).and_then(|k| samples.get(k)).copied().unwrap_or(0.0);
        if k == 0 {
            FULL_SCALE * first
        } else if k < samples.len() {
            now - EMPHASIS * FULL_SCALE * before
        } else {
            0.0
        }
    };
    let mut energies = Vec::with_capacity(frames);
    let mut logarithms: Vec<Vec<f64>> = Vec::with_capacity(frames);
    for number in 0..frames {
        let at = |k: usize| if k < frame { emphasised(number * step + k) } else { 0.0 };
        let bins = transforms.real((0..length).map(at));
        let power = |k: usize| bins[k].norm_sqr() / length as f64;
        let energy: f64 = (0..bins.len()).map(power).sum();
        energies.push(at_least_epsilon(energy).ln());
        let level = |(from, taps): &(usize, Vec<f64>)| {
            let sum: f64 = taps.iter().enumerate().map(|(k, tap)| tap * power(from + k)).sum();
            at_least_epsilon(sum).ln()
        };
        logarithms.push(filters.iter().map(level).collect());
    }
    let mut coefficients = transposed(&logarithms, COEFFICIENTS);
    for (k, frames) in coefficients.iter_mut().enumerate() {
        let lift = 1.0 + LIFTER / 2.0 * (PI * k as f64 / LIFTER).sin();
        frames.iter_mut().for_each(|c| *c *= lift);
    }
    coefficients[0] = energies;
    Some(Cepstra { coefficients })
}

fn at_least_epsilon(value: f64) -> f64 {
    if value > 0.0 { value } else { f64::EPSILON }
}

/// HTK triangles whose corners are whole bins.
fn whole_bin_filters(length: usize, rate_hz: f64) -> Vec<(usize, Vec<f64>)> {
    let top = mel_of(rate_hz / 2.0, true);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a bin of the transform"
    )]
    let corner = |k: usize| {
        let hz = hz_of(top * k as f64 / (FILTERS + 1) as f64, true);
        ((length + 1) as f64 * hz / rate_hz).floor() as usize
    };
    (0..FILTERS)
        .map(|k| {
            let (low, middle, high) = (corner(k), corner(k + 1), corner(k + 2));
            let up = (low..middle).map(|bin| (bin - low) as f64 / (middle - low) as f64);
            let down = (middle..high).map(|bin| (high - bin) as f64 / (high - middle) as f64);
            (low, up.chain(down).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEL40: Mel = Mel { frame: 1024, hop: 512, filters: 40, coefficients: 13, htk: false };

    #[test]
    fn silence_is_finite_and_the_same_in_every_frame() {
        // −100 dB in each of 40 filters: √40 · −100 in the first coefficient.
        let found = cepstra(&mut Transforms::default(), &[0.0; 4096], 16_000.0, MEL40).unwrap();
        assert_eq!(found.coefficients.len(), 13);
        assert_eq!(found.coefficients[0].len(), 9);
        assert!((found.mean()[0] + 100.0 * 40.0_f64.sqrt()).abs() < 1e-9);
        assert!(found.mean()[1..].iter().all(|c| c.abs() < 1e-9));
        assert!(found.std().iter().all(|s| s.abs() < 1e-9));
        let speech = speech_features(&mut Transforms::default(), &[0.0; 4096], 16_000.0).unwrap();
        assert!(speech.coefficients.iter().flatten().all(|c| c.is_finite()));
    }

    #[test]
    fn scales_are_undone_and_triangles_cover_the_band() {
        for htk in [false, true] {
            for hz in [0.0, 440.0, 1000.0, 7999.0] {
                assert!((hz_of(mel_of(hz, htk), htk) - hz).abs() < 1e-9);
            }
        }
        // Without normalisation neighbouring triangles add up to one between the outer centres.
        let filters = mel_filters(
            Mel { frame: 2048, hop: 160, filters: 26, coefficients: 13, htk: true },
            16_000.0,
        );
        let mut sum = vec![0.0; 1025];
        for (from, taps) in filters {
            for (k, tap) in taps.into_iter().enumerate() {
                sum[from + k] += tap;
            }
        }
        assert!(sum[20..900].iter().all(|s| (s - 1.0).abs() < 1e-9));
    }

    #[test]
    fn nothing_has_no_cepstra() {
        assert_eq!(cepstra(&mut Transforms::default(), &[], 16_000.0, MEL40), None);
        assert_eq!(speech_features(&mut Transforms::default(), &[], 16_000.0), None);
    }
}
