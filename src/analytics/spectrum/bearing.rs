//! Fault frequencies of rolling-element bearings from their geometry.

/// A bearing: lengths in any one unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// How many rolling elements.
    pub elements: f64,
    /// Diameter of one.
    pub element: f64,
    /// Diameter of the circle through their centres.
    pub pitch: f64,
    /// Contact angle, in degrees.
    pub contact_deg: f64,
}

/// Fault frequencies at one speed, in Hz.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultLines {
    /// Turns of the shaft.
    pub shaft_hz: f64,
    /// Turns of the cage.
    pub cage_hz: f64,
    /// Elements passing a point of the outer race.
    pub outer_hz: f64,
    /// Elements passing a point of the inner race.
    pub inner_hz: f64,
    /// Turns of an element about itself.
    pub element_hz: f64,
}

/// How far a line may lie from its place: elements slip by 1 to 2 %.
const SLIP: f64 = 0.02;

impl FaultLines {
    /// The lines of a bearing whose inner race turns at `rpm`, without slip.
    ///
    /// Source: R. B. Randall, J. Antoni, Mech. Syst. Signal Process. 25(2), 2011, eq. 1–4.
    #[must_use]
    pub fn new(geometry: Geometry, rpm: f64) -> Self {
        let Geometry { elements, element, pitch, contact_deg } = geometry;
        let ratio = element / pitch * contact_deg.to_radians().cos();
        let shaft_hz = rpm / 60.0;
        Self {
            shaft_hz,
            cage_hz: shaft_hz * (1.0 - ratio) / 2.0,
            outer_hz: elements * shaft_hz * (1.0 - ratio) / 2.0,
            inner_hz: elements * shaft_hz * (1.0 + ratio) / 2.0,
            element_hz: pitch / (2.0 * element) * shaft_hz * (1.0 - ratio * ratio),
        }
    }
}

/// The largest of `lines` (line `k` at `k · df_hz`) within 2 % of the first three multiples of
/// `hz`, the nearest line at least; `None` where the spectrum ends before.
#[must_use]
pub fn line_amplitudes(lines: &[f64], df_hz: f64, hz: f64) -> [Option<f64>; 3] {
    [1.0, 2.0, 3.0].map(|multiple| {
        let place = multiple * hz / df_hz;
        if !place.is_finite() || place < 0.0 || place > lines.len() as f64 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of lines"
        )]
        let index = |value: f64| value as usize;
        let nearest = index(place.round_ties_even());
        let from = index(((1.0 - SLIP) * place).ceil()).min(nearest);
        let to = index(((1.0 + SLIP) * place).floor()).max(nearest);
        lines.get(from..=to).map(|part| part.iter().copied().fold(0.0, f64::max))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_known_bearing() {
        // SKF 6205-2RS at 1,797 rpm; multiples of the shaft as the CWRU bearing data centre gives
        // them: 3.5848 outer, 5.4152 inner, 0.39828 cage, 4.7135 / 2 element.
        let geometry = Geometry { elements: 9.0, element: 7.94, pitch: 39.04, contact_deg: 0.0 };
        let lines = FaultLines::new(geometry, 1797.0);
        let orders = [lines.outer_hz, lines.inner_hz, lines.cage_hz, lines.element_hz]
            .map(|hz| hz / lines.shaft_hz);
        for (found, expected) in orders.into_iter().zip([3.5848, 5.4152, 0.39828, 4.7135 / 2.0]) {
            assert!((found - expected).abs() < 2e-3, "{found} {expected}");
        }
    }

    #[test]
    fn a_slipping_line_is_found_and_a_missing_one_is_none() {
        let mut lines = vec![0.0; 310];
        lines[101] = 5.0;
        lines[200] = 3.0;
        let found = line_amplitudes(&lines, 1.0, 100.0);
        assert_eq!(found, [Some(5.0), Some(3.0), Some(0.0)]);
        assert_eq!(line_amplitudes(&lines, 1.0, 160.0)[1..], [None, None]);
        assert_eq!(line_amplitudes(&[], 1.0, 1.0), [None; 3]);
    }
}
