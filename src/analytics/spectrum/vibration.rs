//! Vibration severity: velocity from acceleration, and the zones of ISO 20816.

use super::{Transforms, hann, mean};

/// The band of ISO 20816-1 §4.2.1 for machines above 600 rpm, in Hz.
const BAND_HZ: (f64, f64) = (10.0, 1000.0);
/// Shortest burst, in seconds: five periods of the lowest frequency.
const BURST_LEAST: f64 = 0.5;

/// Velocity of vibration from 10 to 1,000 Hz, in mm/s RMS, of a burst of accelerations in m/s²
/// (`is_velocity`: of velocities in mm/s). `None` for bursts under half a second, or sampled too
/// slowly for the band.
///
/// Integrated in the frequency domain under a Hann window of equal power; bins outside of the band
/// do not count. Source: ISO 20816-1:2016 §4.2; R. B. Randall, *Vibration-based Condition
/// Monitoring*, §3.3.
#[must_use]
pub fn velocity_rms_mm_s(
    transforms: &mut Transforms,
    samples: &[f64],
    rate_hz: f64,
    is_velocity: bool,
) -> Option<f64> {
    let n = samples.len();
    if (n as f64) < BURST_LEAST * rate_hz || rate_hz < 2.0 * BAND_HZ.1 {
        return None;
    }
    let middle = mean(samples);
    let weights = hann(n);
    let power: f64 = weights.iter().map(|w| w * w).sum();
    let df = rate_hz / n as f64;
    let bins = transforms.real(samples.iter().zip(&weights).map(|(x, w)| (x - middle) * w));
    let square: f64 = bins
        .iter()
        .enumerate()
        .map(|(k, bin)| (k as f64 * df, bin.norm_sqr()))
        .filter(|(hz, _)| (BAND_HZ.0..=BAND_HZ.1).contains(hz))
        .map(|(hz, square)| {
            let integral = if is_velocity { 1.0 } else { 1e3 / (std::f64::consts::TAU * hz) };
            2.0 * square * integral * integral
        })
        .sum();
    Some((square / (n as f64 * power)).sqrt())
}

/// Zones of vibration severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Zone {
    /// As newly commissioned.
    A,
    /// Fit for unrestricted running.
    B,
    /// Fit for a limited time, until it can be put right.
    C,
    /// Severe enough to do damage.
    D,
}

impl Zone {
    /// The letter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
        }
    }
}

/// Upper ends of zones A, B and C, in mm/s RMS.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ZoneLimits(pub [f64; 3]);

impl ZoneLimits {
    /// The zone of a velocity in mm/s RMS.
    #[must_use]
    pub fn zone(&self, velocity_mm_s: f64) -> Zone {
        let [a, b, c] = self.0;
        if velocity_mm_s <= a {
            Zone::A
        } else if velocity_mm_s <= b {
            Zone::B
        } else if velocity_mm_s <= c {
            Zone::C
        } else {
            Zone::D
        }
    }
}

/// The zones of a group of machines: 1 large (300 kW to 50 MW), 2 medium (15 to 300 kW), on a rigid
/// or a flexible support. `None` for other groups.
///
/// Source: ISO 20816-3:2022, tables A.1 and A.2 (velocity); the same numbers as ISO 10816-3:2009.
#[must_use]
pub const fn zone_limits(group: u8, flexible: bool) -> Option<ZoneLimits> {
    Some(ZoneLimits(match (group, flexible) {
        (1, false) => [2.3, 4.5, 7.1],
        (1, true) => [3.5, 7.1, 11.0],
        (2, false) => [1.4, 2.8, 4.5],
        (2, true) => [2.3, 4.5, 7.1],
        _ => return None,
    }))
}

/// Levels in bands of an octave divided by `fraction` (1, 3, …), as root mean square in the unit of
/// the burst: centre in Hz and level, for the bands that lie wholly inside the spectrum `power`
/// (densities in unit²/Hz, bin `k` at `k · df_hz`). Base ten, centred on 1 kHz.
///
/// Source: IEC 61260-1:2014 §5. Bins are shared between bands by their overlap.
#[must_use]
pub fn octave_bands(power: &[f64], df_hz: f64, fraction: u32) -> Vec<(f64, f64)> {
    // One octave to base ten is a ratio of 10^0.3.
    let ratio = 10.0_f64.powf(0.3 / f64::from(fraction.max(1)));
    let half = ratio.sqrt();
    let top = (power.len() as f64 - 0.5) * df_hz;
    // Below three bins a band says more about the window than about the machine.
    let least = 3.0 * df_hz / (half - 1.0 / half);
    let mut bands = Vec::new();
    let mut centre = 1000.0;
    while centre > ratio * least {
        centre /= ratio;
    }
    while centre < least {
        centre *= ratio;
    }
    while centre * half <= top {
        let (low, high) = (centre / half, centre * half);
        let square: f64 = power
            .iter()
            .enumerate()
            .map(|(k, density)| {
                let (from, to) = ((k as f64 - 0.5) * df_hz, (k as f64 + 0.5) * df_hz);
                density * (to.min(high) - from.max(low)).max(0.0)
            })
            .sum();
        bands.push((centre, square.sqrt()));
        centre *= ratio;
    }
    bands
}

#[cfg(test)]
mod tests {
    use super::super::tests::sine;
    use super::super::welch;
    use super::*;

    #[test]
    fn a_shaker_at_its_calibration_point() {
        // 10 m/s² RMS at 159.155 Hz (ω = 1,000/s) is 10 mm/s RMS: the point that hand-held
        // calibrators use.
        let hz = 1000.0 / std::f64::consts::TAU;
        let samples = sine(12_800, 12_800.0, hz, 10.0 * 2.0_f64.sqrt());
        let mut transforms = Transforms::default();
        let found = velocity_rms_mm_s(&mut transforms, &samples, 12_800.0, false).unwrap();
        assert!((found - 10.0).abs() < 0.01, "{found}");
        let below = sine(12_800, 12_800.0, 2.0, 10.0);
        assert!(velocity_rms_mm_s(&mut transforms, &below, 12_800.0, false).unwrap() < 1e-3);
        assert_eq!(velocity_rms_mm_s(&mut transforms, &samples[..1000], 12_800.0, false), None);
    }

    #[test]
    fn zones_end_where_the_table_says() {
        let limits = zone_limits(2, false).unwrap();
        let zones = [1.4, 1.41, 2.8, 4.5, 4.51].map(|v| limits.zone(v).as_str());
        assert_eq!(zones, ["A", "B", "B", "C", "D"]);
        assert_eq!(zone_limits(3, false), None);
    }

    #[test]
    fn octaves_hold_what_lies_in_them() {
        let samples = sine(16_384, 8192.0, 512.0, 2.0);
        let density = welch(&mut Transforms::default(), &samples, 8192.0, 2048).unwrap();
        let bands = octave_bands(&density, 4.0, 3);
        let loudest = bands.iter().max_by(|one, other| one.1.total_cmp(&other.1)).unwrap();
        assert!((loudest.0 - 501.187).abs() < 0.01, "{loudest:?}");
        assert!((loudest.1 - 2.0_f64.sqrt()).abs() < 1e-6, "{loudest:?}");
        let white = octave_bands(&vec![1.0; 1025], 4.0, 1);
        for (centre, level) in white {
            let width = centre * (10.0_f64.powf(0.15) - 10.0_f64.powf(-0.15));
            assert!((level * level - width).abs() < 1e-6 * width);
        }
    }
}
