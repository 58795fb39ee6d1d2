//! `wheeltap spectrum`: vibration and acoustic features of one burst, as one JSON object.

use std::fs::File;
use std::io::{self, Read, Write};

use clap::Args as ClapArgs;
use serde::Serialize;

use super::{Code, Failure};
use crate::analytics::spectrum::{
    self, BandPass, Cepstra, FaultLines, Geometry, Mel, Transforms, line_amplitudes,
};

/// Lines of the envelope spectra that `--arrays` prints.
const ENVELOPE_LINES: usize = 200;
/// Window of `fft_hann2048`.
const FFT: usize = 2048;
/// Window of `welch512`.
const WELCH: usize = 512;
/// The band of `envelope_band`, as shares of the sampling rate.
const BAND: (f64, f64) = (0.15, 0.40);
/// Below it, lines of an envelope belong to the shaft and to slow changes, in Hz.
const ENVELOPE_FROM_HZ: f64 = 20.0;
/// One g, in m/s² (ISO 80000-3).
const STANDARD_GRAVITY: f64 = 9.806_65;
/// Settings of cepstra that may be asked for by name.
const CEPSTRA: [&str; 4] =
    ["librosa_default", "librosa_mel40", "librosa_mel26_htk", "python_speech_features"];

/// Vibration and acoustic features of one burst, as JSON
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The samples: CSV with a header line; `-` is stdin
    #[arg(long, value_name = "F.csv")]
    input: String,
    /// Samples a second
    #[arg(long, value_name = "HZ")]
    rate: f64,
    /// The column of the samples; needed when there is more than one
    #[arg(long, value_name = "C")]
    column: Option<String>,
    /// What separates columns
    #[arg(long, value_name = "C", default_value = ",")]
    separator: String,
    /// Unit of the samples, for the velocity of vibration
    #[arg(long, value_name = "U", value_parser = ["g", "m/s2", "mm/s"])]
    unit: Option<String>,
    /// Speed of the shaft, for the lines of the bearing
    #[arg(long, value_name = "N")]
    rpm: Option<f64>,
    /// Rolling elements, element and pitch diameter (in one unit), contact angle in degrees
    #[arg(long, value_name = "n,d,D,deg")]
    bearing: Option<String>,
    /// Prints spectra and cepstra whole
    #[arg(long)]
    arrays: bool,
    /// Cepstra by name: librosa_default, librosa_mel40, librosa_mel26_htk,
    /// python_speech_features; or none
    #[arg(long, value_name = "NAME,…", default_value = "librosa_mel40")]
    mfcc: String,
}

#[derive(Serialize)]
struct Answer {
    rate_hz: f64,
    n: usize,
    time: Time,
    fft_hann2048: Fft,
    welch512: Welch,
    spectral: Spectral,
    envelope_full: EnvelopeFull,
    envelope_band: EnvelopeBand,
    bearing: Option<Lines>,
    velocity: Velocity,
    mfcc: Named,
}

#[derive(Serialize)]
struct Time {
    mean: f64,
    rms_ac: f64,
    rms: f64,
    peak_ac: f64,
    p2p: f64,
    crest_ac: Option<f64>,
    kurtosis_pearson: Option<f64>,
    skewness: Option<f64>,
    shape_factor: Option<f64>,
    impulse_factor: Option<f64>,
    zero_crossings: usize,
}

#[derive(Serialize)]
struct Fft {
    df_hz: f64,
    argmax: Option<usize>,
    peak_hz: Option<f64>,
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amp: Option<Vec<f64>>,
}

#[derive(Serialize)]
struct Welch {
    df_hz: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    psd: Option<Vec<f64>>,
}

#[derive(Serialize)]
struct Spectral {
    centroid_hz: Option<f64>,
    spread_hz: Option<f64>,
    entropy_norm: Option<f64>,
    rolloff85_hz: Option<f64>,
    flatness: Option<f64>,
}

#[derive(Serialize)]
struct EnvelopeFull {
    df_hz: f64,
    env_mean: f64,
    env_rms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Vec<f64>>,
}

#[derive(Serialize)]
struct EnvelopeBand {
    lo_hz: f64,
    hi_hz: f64,
    df_hz: f64,
    peak_hz_above20: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Vec<f64>>,
}

#[derive(Serialize)]
struct Lines {
    shaft_hz: f64,
    ftf: Line,
    bpfo: Line,
    bpfi: Line,
    bsf: Line,
}

#[derive(Serialize)]
struct Line {
    hz: f64,
    amp: [Option<f64>; 3],
}

#[derive(Serialize)]
struct Velocity {
    rms_mm_s_10_1000: Option<f64>,
}

#[derive(Serialize)]
struct Mfcc {
    mean: Vec<f64>,
    std: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coef_by_frame: Option<Vec<Vec<f64>>>,
}

/// Values by name, in the order asked for.
struct Named(Vec<(&'static str, Mfcc)>);

impl Serialize for Named {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, mfcc)| (name, mfcc)))
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let usage = |what: String| Failure::new(Code::Usage, what);
    if !(args.rate.is_finite() && args.rate > 0.0) {
        return Err(usage(format!("--rate: {} is no sampling rate", args.rate)));
    }
    let names = cepstra_names(&args.mfcc).map_err(usage)?;
    let bearing = match (&args.rpm, &args.bearing) {
        (Some(rpm), Some(text)) => Some(fault_lines(*rpm, text).map_err(usage)?),
        (None, Some(_)) => return Err(usage("--bearing needs --rpm".to_owned())),
        (_, None) => None,
    };
    let separator = separator(&args.separator).map_err(usage)?;
    let samples = if args.input == "-" {
        samples(io::stdin().lock(), "stdin", args.column.as_deref(), separator)
    } else {
        let file = File::open(&args.input)
            .map_err(|error| Failure::failed(format!("{}: {error}", args.input)))?;
        samples(file, &args.input, args.column.as_deref(), separator)
    };
    let samples = samples.map_err(Failure::failed)?;
    let answer = answer(&samples, args, bearing, &names);
    let mut out = io::stdout().lock();
    let written = match serde_json::to_string(&answer) {
        Ok(text) => writeln!(out, "{text}"),
        Err(error) => Err(error.into()),
    };
    written.map_err(|error| Failure::failed(format!("writing the answer: {error}")))
}

fn separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        _ if text == "\\t" => Ok(b'\t'),
        _ => Err(format!("--separator: `{text}` is not one character")),
    }
}

fn cepstra_names(text: &str) -> Result<Vec<&'static str>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|name| {
            let known = CEPSTRA.into_iter().find(|known| *known == name);
            known.ok_or_else(|| format!("--mfcc: `{name}` is none of {}", CEPSTRA.join(", ")))
        })
        .collect()
}

fn fault_lines(rpm: f64, text: &str) -> Result<FaultLines, String> {
    let numbers: Vec<f64> = text.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    let &[elements, element, pitch, contact_deg] = numbers.as_slice() else {
        return Err(format!("--bearing: `{text}` is not n,d,D,deg: four numbers"));
    };
    if !(rpm.is_finite() && rpm > 0.0) {
        return Err(format!("--rpm: {rpm} is no speed"));
    }
    let sound = elements >= 1.0 && element > 0.0 && pitch > element && pitch.is_finite();
    if !sound || !(0.0..90.0).contains(&contact_deg) {
        return Err(format!(
            "--bearing: `{text}` is no bearing: at least one element, smaller than the pitch \
             diameter, contact angle below 90"
        ));
    }
    Ok(FaultLines::new(Geometry { elements, element, pitch, contact_deg }, rpm))
}

/// The samples of one column; every cell must be a finite number, because a gap in a burst is no
/// sample.
fn samples(
    input: impl Read,
    name: &str,
    column: Option<&str>,
    separator: u8,
) -> Result<Vec<f64>, String> {
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(input);
    let header = reader.headers().map_err(|error| format!("{name}: {error}"))?.clone();
    let present = || header.iter().collect::<Vec<_>>().join(", ");
    let place = match column {
        Some(column) => {
            header.iter().position(|title| title.trim() == column).ok_or_else(|| {
                format!("{name}: line 1: no column `{column}`; there are: {}", present())
            })?
        }
        None if header.len() == 1 => 0,
        None if header.is_empty() => return Err(format!("{name}: line 1: no header")),
        None => return Err(format!("{name}: line 1: --column is needed, one of {}", present())),
    };
    let mut samples = Vec::new();
    let mut row = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut row) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(format!("{name}: {error}")),
        }
        let cell = row.get(place).unwrap_or_default().trim();
        match cell.parse::<f64>() {
            Ok(value) if value.is_finite() => samples.push(value),
            _ => {
                let line = row.position().map_or(0, csv::Position::line);
                return Err(format!("{name}: line {line}: `{cell}` is no number"));
            }
        }
    }
    if samples.is_empty() {
        return Err(format!("{name}: line 2: no samples"));
    }
    Ok(samples)
}

fn answer(
    samples: &[f64],
    args: &Args,
    bearing: Option<FaultLines>,
    names: &[&'static str],
) -> Answer {
    let rate = args.rate;
    let transforms = &mut Transforms::default();
    let shape = spectrum::time_shape(samples).expect("there is at least one sample");
    let amplitudes = spectrum::amplitudes(transforms, samples, FFT);
    let peak = amplitudes.as_deref().and_then(highest);
    let density = spectrum::welch(transforms, samples, rate, WELCH);
    let welch_df = rate / WELCH as f64;
    let spectral = density.as_deref().and_then(|p| spectrum::spectral_shape(p, welch_df));
    let centred: Vec<f64> = samples.iter().map(|x| x - shape.mean).collect();
    let full = spectrum::envelope(transforms, &centred, rate).expect("there is a sample");
    let filter = BandPass::butterworth(4, BAND.0, BAND.1).expect("a band between 0 and 0.5");
    let band =
        spectrum::envelope(transforms, &filter.run(&centred), rate).expect("there is a sample");
    let velocity = args.unit.as_deref().and_then(|unit| {
        let scale = if unit == "g" { STANDARD_GRAVITY } else { 1.0 };
        let scaled: Vec<f64> = samples.iter().map(|x| x * scale).collect();
        spectrum::velocity_rms_mm_s(transforms, &scaled, rate, unit == "mm/s")
    });
    let line = |hz: f64| Line { hz, amp: line_amplitudes(&band.lines, band.df_hz, hz) };
    let arrays = |lines: &[f64], most: usize| {
        args.arrays.then(|| lines.iter().take(most).copied().collect::<Vec<f64>>())
    };
    let mfcc = names.iter().filter_map(|name| {
        let cepstra = named_cepstra(transforms, samples, rate, name)?;
        let (mean, std) = (cepstra.mean(), cepstra.std());
        Some((
            *name,
            Mfcc { mean, std, coef_by_frame: args.arrays.then_some(cepstra.coefficients) },
        ))
    });
    let mfcc = Named(mfcc.collect());
    let fft_df = rate / FFT as f64;
    Answer {
        rate_hz: rate,
        n: samples.len(),
        time: Time {
            mean: shape.mean,
            rms_ac: shape.rms_ac,
            rms: shape.rms,
            peak_ac: shape.peak_ac,
            p2p: shape.peak_to_peak,
            crest_ac: shape.crest,
            kurtosis_pearson: shape.kurtosis,
            skewness: shape.skewness,
            shape_factor: shape.shape_factor,
            impulse_factor: shape.impulse_factor,
            zero_crossings: shape.zero_crossings,
        },
        fft_hann2048: Fft {
            df_hz: fft_df,
            argmax: peak.map(|(bin, _)| bin),
            peak_hz: peak.map(|(bin, _)| bin as f64 * fft_df),
            max: peak.map(|(_, value)| value),
            amp: amplitudes.and_then(|amplitudes| arrays(&amplitudes, usize::MAX)),
        },
        welch512: Welch {
            df_hz: welch_df,
            psd: density.and_then(|density| arrays(&density, usize::MAX)),
        },
        spectral: Spectral {
            centroid_hz: spectral.map(|shape| shape.centroid_hz),
            spread_hz: spectral.map(|shape| shape.spread_hz),
            entropy_norm: spectral.map(|shape| shape.entropy),
            rolloff85_hz: spectral.map(|shape| shape.rolloff85_hz),
            flatness: spectral.map(|shape| shape.flatness),
        },
        envelope_full: EnvelopeFull {
            df_hz: full.df_hz,
            env_mean: full.mean,
            env_rms: full.rms,
            spec: arrays(&full.lines, ENVELOPE_LINES),
        },
        envelope_band: EnvelopeBand {
            lo_hz: BAND.0 * rate,
            hi_hz: BAND.1 * rate,
            df_hz: band.df_hz,
            peak_hz_above20: envelope_peak(&band.lines, band.df_hz, samples.len()),
            spec: arrays(&band.lines, ENVELOPE_LINES),
        },
        bearing: bearing.map(|lines| Lines {
            shaft_hz: lines.shaft_hz,
            ftf: line(lines.cage_hz),
            bpfo: line(lines.outer_hz),
            bpfi: line(lines.inner_hz),
            bsf: line(lines.element_hz),
        }),
        velocity: Velocity { rms_mm_s_10_1000: velocity },
        mfcc,
    }
}

/// The first of the highest, and its value.
fn highest(values: &[f64]) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f64)> = None;
    for (place, &value) in values.iter().enumerate() {
        if best.is_none_or(|(_, most)| value > most) {
            best = Some((place, value));
        }
    }
    best
}

/// Where the envelope's highest line lies, from 20 Hz to below an eighth of the burst's lines.
fn envelope_peak(lines: &[f64], df_hz: f64, n: usize) -> Option<f64> {
    let to = (n / 8).min(lines.len());
    let from = (0..to).find(|line| *line as f64 * df_hz >= ENVELOPE_FROM_HZ)?;
    let (line, value) = highest(&lines[from..to])?;
    (value > 0.0).then(|| (from + line) as f64 * df_hz)
}

fn named_cepstra(
    transforms: &mut Transforms,
    samples: &[f64],
    rate: f64,
    name: &str,
) -> Option<Cepstra> {
    let mel = match name {
        "librosa_default" => {
            Mel { frame: 2048, hop: 512, filters: 128, coefficients: 40, htk: false }
        }
        "librosa_mel40" => Mel { frame: 1024, hop: 512, filters: 40, coefficients: 13, htk: false },
        "librosa_mel26_htk" => {
            Mel { frame: 512, hop: 160, filters: 26, coefficients: 13, htk: true }
        }
        _ => return spectrum::speech_features(transforms, samples, rate),
    };
    spectrum::cepstra(transforms, samples, rate, mel)
}
