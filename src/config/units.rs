//! Units of measurement: what a spelling means. The figures are those of `uom`'s SI tables, asked by
//! name; here are only the words people write instead of uom's, and which quantity a unit tells.

use uom::si::f64::{
    Acceleration, AngularVelocity, ElectricCurrent, ElectricPotential, Energy, Frequency, Length,
    Mass, MassRate, Power, Pressure, Ratio, ThermodynamicTemperature, Time, Torque, Velocity,
    VolumeRate,
};

/// A unit: a value in it is `factor` × value + `offset` in the SI unit of its kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    kind: Kind,
    pub(super) factor: f64,
    pub(super) offset: f64,
}

/// Kinds of quantity between whose units can be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Temperature,
    Pressure,
    Velocity,
    Acceleration,
    Rotation,
    Frequency,
    VolumeFlow,
    MassFlow,
    Power,
    Energy,
    Current,
    Voltage,
    Torque,
    Ratio,
    Length,
    Time,
    Mass,
}

/// Spellings of plants, of UCUM and of keyboards without special signs, and uom's own.
const SPELLINGS: [(&str, &str); 58] = [
    ("degC", "°C"),
    ("deg C", "°C"),
    ("Cel", "°C"),
    ("C", "°C"),
    ("℃", "°C"),
    ("degF", "°F"),
    ("deg F", "°F"),
    ("[degF]", "°F"),
    ("F", "°F"),
    ("℉", "°F"),
    ("degK", "K"),
    ("[psi]", "psi"),
    ("PSI", "psi"),
    ("Bar", "bar"),
    ("inH2O", "in H₂O"),
    ("mmHg", "mm Hg"),
    ("inHg", "in Hg"),
    ("ips", "in/s"),
    ("[in_i]/s", "in/s"),
    ("um/s", "µm/s"),
    ("kmh", "km/h"),
    ("kph", "km/h"),
    ("g", "g₀"),
    ("g0", "g₀"),
    ("gn", "g₀"),
    ("[g]", "g₀"),
    ("m/s2", "m/s²"),
    ("m/s^2", "m/s²"),
    ("m/s**2", "m/s²"),
    ("mm/s2", "mm/s²"),
    ("RPM", "rpm"),
    ("r/min", "rpm"),
    ("rev/min", "rpm"),
    ("U/min", "rpm"),
    ("min-1", "rpm"),
    ("min⁻¹", "rpm"),
    ("1/min", "rpm"),
    ("{rev}/min", "rpm"),
    ("hz", "Hz"),
    ("l/min", "L/min"),
    ("lpm", "L/min"),
    ("l/s", "L/s"),
    ("l/h", "L/h"),
    ("m3/h", "m³/h"),
    ("m^3/h", "m³/h"),
    ("m3/min", "m³/min"),
    ("m3/s", "m³/s"),
    ("gpm", "gal/min"),
    ("kwh", "kW · h"),
    ("kWh", "kW · h"),
    ("Wh", "W · h"),
    ("MWh", "MW · h"),
    ("KW", "kW"),
    ("Nm", "N · m"),
    ("N.m", "N · m"),
    ("um", "µm"),
    ("μm", "µm"),
    ("percent", "%"),
];

macro_rules! kinds {
    ($($kind:ident: $quantity:ident, $module:ident;)+) => {
        /// Every meaning of one of uom's own words.
        fn meanings(word: &str) -> Vec<Unit> {
            let (mut found, one, none) = (Vec::new(), format!("1 {word}"), format!("0 {word}"));
            $(
                if let (Ok(one), Ok(none)) = (one.parse::<$quantity>(), none.parse::<$quantity>()) {
                    found.push(Unit {
                        kind: Kind::$kind,
                        factor: one.value - none.value,
                        offset: none.value,
                    });
                }
            )+
            found
        }

        /// All short words that are known.
        fn words() -> Vec<&'static str> {
            let mut words: Vec<&str> = SPELLINGS.iter().map(|(word, _)| *word).collect();
            $(words.extend(uom::si::$module::units().map(|unit| unit.abbreviation()));)+
            words
        }
    };
}

kinds! {
    Temperature: ThermodynamicTemperature, thermodynamic_temperature;
    Pressure: Pressure, pressure;
    Velocity: Velocity, velocity;
    Acceleration: Acceleration, acceleration;
    Rotation: AngularVelocity, angular_velocity;
    Frequency: Frequency, frequency;
    VolumeFlow: VolumeRate, volume_rate;
    MassFlow: MassRate, mass_rate;
    Power: Power, power;
    Energy: Energy, energy;
    Current: ElectricCurrent, electric_current;
    Voltage: ElectricPotential, electric_potential;
    Torque: Torque, torque;
    Ratio: Ratio, ratio;
    Length: Length, length;
    Time: Time, time;
    Mass: Mass, mass;
}

/// Every meaning of a spelling: `g` is a standard gravity and a gram.
fn all(text: &str) -> Vec<Unit> {
    let text = text.trim();
    if text.is_empty() {
        return Vec::new();
    }
    let spelt = SPELLINGS.iter().filter(|(word, _)| *word == text).map(|(_, own)| *own);
    let mut found: Vec<Unit> = spelt.flat_map(meanings).collect();
    if text == "L/h" || text == "l/h" {
        // The one common unit of flow that uom does not have: a thousandth of a cubic metre an hour.
        found.extend(
            meanings("m³/h").into_iter().map(|unit| Unit { factor: unit.factor / 1000.0, ..unit }),
        );
    }
    for unit in meanings(text) {
        if !found.iter().any(|known| known.kind == unit.kind) {
            found.push(unit);
        }
    }
    found
}

/// What a spelling means first of all; `None` when nobody knows it.
pub(super) fn find(text: &str) -> Option<Unit> {
    all(text).first().copied()
}

/// Which quantity a unit tells, by the words the checks and the failure modes know; `None` where it
/// may be several (a percentage, a length).
pub(super) fn quantity_of(text: &str) -> Option<&'static str> {
    quantity_of_unit(find(text)?)
}

/// The same of a unit that was found.
pub(super) fn quantity_of_unit(unit: Unit) -> Option<&'static str> {
    Some(match unit.kind {
        Kind::Temperature => "temperature",
        Kind::Pressure => "pressure",
        // What machines are judged by (ISO 20816) is told in millimetres or inches a second; what
        // moves along, in metres.
        Kind::Velocity if unit.factor < 0.1 => "vibration",
        Kind::Velocity => "velocity",
        Kind::Acceleration => "acceleration",
        Kind::Rotation => "speed",
        Kind::Frequency => "frequency",
        Kind::VolumeFlow | Kind::MassFlow => "flow",
        Kind::Power => "power",
        Kind::Energy => "energy",
        Kind::Current => "current",
        Kind::Voltage => "voltage",
        Kind::Torque => "torque",
        Kind::Ratio | Kind::Length | Kind::Time | Kind::Mass => return None,
    })
}

/// Factor and offset that make a value in `to` of one in `from`.
///
/// # Errors
/// Which of the two is the mistake, and what about it.
pub(super) fn conversion(from: &str, to: &str) -> Result<(f64, f64), (Side, String)> {
    let (sources, targets) = (all(from), all(to));
    if sources.is_empty() {
        return Err((Side::From, unknown(from)));
    }
    if targets.is_empty() {
        return Err((Side::To, unknown(to)));
    }
    let pairs = sources.iter().flat_map(|from| targets.iter().map(move |to| (from, to)));
    for (source, target) in pairs {
        if source.kind == target.kind {
            let factor = source.factor / target.factor;
            return Ok((factor, (source.offset - target.offset) / target.factor));
        }
    }
    let kinds = |units: &[Unit]| {
        let mut words: Vec<String> =
            units.iter().map(|unit| format!("{:?}", unit.kind).to_lowercase()).collect();
        words.dedup();
        words.join(" or ")
    };
    let what = format!("`{from}` is {}, `{to}` is {}", kinds(&sources), kinds(&targets));
    Err((Side::From, format!("{what}: no value of one is a value of the other")))
}

/// Which of two units a mistake is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one values come in.
    From,
    /// The one they are wanted in.
    To,
}

/// An unknown unit, and the known ones that are most like it.
fn unknown(text: &str) -> String {
    let mut words = words();
    let mut near = Vec::new();
    while near.len() < 3
        && let Some(word) = super::tree::nearest(text, &words)
    {
        near.push(format!("`{word}`"));
        words.retain(|known| *known != word);
    }
    if near.is_empty() {
        format!("`{text}` is no unit that is known, e.g. °C, bar, mm/s, rpm, m³/h, kW, %")
    } else {
        format!("`{text}` is no unit that is known, did you mean {}?", near.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value, unit, and the same in another, from the definitions (BIPM SI brochure, 9th edition;
    /// NIST SP 811 appendix B).
    #[test]
    fn conversions_are_those_of_the_definitions() {
        for (value, from, to, expected) in [
            (212.0, "°F", "°C", 100.0),
            (-40.0, "degF", "degC", -40.0),
            (0.0, "°C", "K", 273.15),
            (14.503_773_773, "psi", "bar", 1.0),
            (1.0, "bar", "kPa", 100.0),
            (1.0, "MPa", "bar", 10.0),
            (1.0, "in/s", "mm/s", 25.4),
            (1.0, "ips", "mm/s", 25.4),
            (1.0, "g", "m/s2", 9.806_65),
            (1500.0, "rpm", "rad/s", 157.079_632_679),
            (50.0, "Hz", "kHz", 0.05),
            (60.0, "l/min", "m3/h", 3.6),
            (1.0, "m3/h", "L/h", 1000.0),
            (1.0, "kWh", "MJ", 3.6),
            (1.0, "MWh", "kWh", 1000.0),
            (1500.0, "mA", "A", 1.5),
            (0.4, "kV", "V", 400.0),
            (0.25, "ppm", "%", 0.000_025),
            (1.0, "kN · m", "Nm", 1000.0),
            (5.0, "g", "kg", 0.005),
        ] {
            let (factor, offset) = conversion(from, to).unwrap_or_else(|error| panic!("{error:?}"));
            let found = value * factor + offset;
            // uom's factors have seven digits or more.
            let close = (found - expected).abs() <= 1e-7 * expected.abs().max(1.0);
            assert!(close, "{value} {from} = {found} {to}, expected {expected}");
        }
    }

    #[test]
    fn every_spelling_means_something() {
        for (word, own) in SPELLINGS {
            assert!(find(word).is_some(), "{word} stands for {own}, which uom does not know");
        }
    }

    #[test]
    fn a_unit_tells_its_quantity() {
        for (unit, quantity) in [
            ("°C", Some("temperature")),
            ("bar", Some("pressure")),
            ("mm/s", Some("vibration")),
            ("in/s", Some("vibration")),
            ("m/s", Some("velocity")),
            ("rpm", Some("speed")),
            ("m³/h", Some("flow")),
            ("kW", Some("power")),
            ("kWh", Some("energy")),
            ("A", Some("current")),
            ("V", Some("voltage")),
            ("g", Some("acceleration")),
            ("Hz", Some("frequency")),
            ("%", None),
            ("", None),
            ("widgets", None),
        ] {
            assert_eq!(quantity_of(unit), quantity, "{unit}");
        }
    }

    #[test]
    fn mistakes_name_the_side_and_what_is_near() {
        let (side, what) = conversion("psx", "bar").unwrap_err();
        assert_eq!(side, Side::From);
        assert!(what.contains("`psi`"), "{what}");
        let (side, what) = conversion("psi", "baar").unwrap_err();
        assert_eq!(side, Side::To);
        assert!(what.contains("`bar`"), "{what}");
        let (_, what) = conversion("psi", "°C").unwrap_err();
        assert!(what.contains("pressure") && what.contains("temperature"), "{what}");
    }
}
