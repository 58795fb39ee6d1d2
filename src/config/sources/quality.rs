//! What a tag says about its values: unit they come in, checks, and what is not stored. Where it
//! says nothing, the kind of quantity does ([`DEFAULTS`]).

use std::time::Duration;

use crate::config::tree::Section;
use crate::config::{units, values};
use crate::domain::tag::{Deadband, Handling};

/// How long a value that stays within its deadband is at most not stored again.
const MAX_SILENCE: Duration = Duration::from_secs(600);

/// What is known of every quantity of a kind, in SI units. Where physics says nothing, nothing is
/// checked.
struct Default {
    quantity: &'static str,
    /// No value lies outside.
    range: (f64, f64),
    /// No value changes faster, per second.
    rate: Option<f64>,
    /// A sensor that measures never repeats itself for so long, unless its value is 0.
    stuck: Option<Duration>,
}

const fn plain(quantity: &'static str, low: f64, high: f64) -> Default {
    Default { quantity, range: (low, high), rate: None, stuck: None }
}

/// The physical origin stands beside each number.
const DEFAULTS: [Default; 10] = [
    // Absolute zero; the highest a thermocouple measures is 2,320 °C (type C, ASTM E988). A bare
    // resistance thermometer that is put from ice into boiling oil moves with a time constant of
    // some 4 s (IEC 60751, half time in water 0.3 s … in air 10 s): below 50 K/s.
    Default { quantity: "temperature", range: (0.0, 3_500.0), rate: Some(50.0), stuck: None },
    // Gauge pressure ends at vacuum, 1.013 bar below the air's (and some error of the transmitter);
    // water jets work at 0.6 GPa. Water hammer rises in milliseconds, so no rate is impossible.
    plain("pressure", -110_000.0, 1.0e9),
    // ISO 20816 calls 11 mm/s dangerous; velocity sensors end below 1 m/s. The level of a running
    // machine never stands still in the last digit for a quarter of an hour; a stopped one shows 0.
    Default {
        quantity: "vibration",
        range: (-1.0, 1.0),
        rate: None,
        stuck: Some(Duration::from_secs(900)),
    },
    // Piezoelectric shock sensors end at 100,000 g.
    plain("acceleration", -1.0e6, 1.0e6),
    // The fastest rotors (dental turbines, 400,000 rpm) turn with 42,000 rad/s.
    plain("speed", -1.0e5, 1.0e5),
    // The largest river turbines take 1,000 m³/s, the largest pumps 50.
    plain("flow", -1.0e4, 1.0e4),
    // Aluminium smelters work at 500 kA.
    plain("current", -1.0e6, 1.0e6),
    // The highest transmission voltage is 1.1 MV.
    plain("voltage", -2.0e6, 2.0e6),
    // The largest generator gives 1.8 GW.
    plain("power", -5.0e9, 5.0e9),
    // Ultrasound of industrial sensors ends at tens of MHz.
    plain("frequency", 0.0, 1.0e10),
];

/// What the keys of a tag say, and what its quantity says besides.
pub(super) struct Said {
    pub(super) quantity: String,
    pub(super) scale: f64,
    pub(super) offset: f64,
    pub(super) range: Option<(f64, f64)>,
}

/// Reads the keys that concern quality into `handling`; what else changes comes back.
pub(super) fn read(
    tag: &Section<'_>,
    unit: &str,
    said: Said,
    discrete: bool,
    limits: &[f64],
    handling: &mut Handling,
) -> Said {
    let Said { mut quantity, mut scale, mut offset, mut range } = said;
    if quantity.is_empty() {
        quantity = units::quantity_of(unit).unwrap_or_default().to_owned();
    }
    if let Some(raw) = tag.text("raw_unit") {
        if unit.is_empty() {
            tag.wrong("raw_unit", "needs `unit` too: what shall values be converted to?");
        } else {
            match units::conversion(raw.value, unit) {
                Ok((factor, shift)) => {
                    scale *= factor;
                    offset = offset * factor + shift;
                }
                Err((units::Side::From, what)) => tag.wrong("raw_unit", what),
                Err((units::Side::To, what)) => tag.wrong("unit", what),
            }
        }
    }
    handling.deadband = deadband(tag, range);
    handling.rate_max = tag.number_in("rate_max", f64::MIN_POSITIVE, f64::MAX);
    handling.quantum = tag.number_in("quantum", 0.0, f64::MAX).unwrap_or(0.0);
    handling.stuck = tag.read("stuck", span);
    handling.gap = tag.read("gap", values::duration_from(Duration::from_secs(1)));
    let mut off = Vec::new();
    for word in tag.texts("unchecked") {
        match word.value {
            known @ ("range" | "rate" | "stuck") => off.push(known),
            other => tag.wrong_at(
                word.at,
                "unchecked",
                format!("`{other}` is no check: range, rate, stuck"),
            ),
        }
    }
    if discrete {
        for key in ["rate_max", "stuck"] {
            if tag.has(key) {
                tag.wrong(key, "is nothing for a state, which may change and stay as it likes");
            }
        }
        return Said { quantity, scale, offset, range };
    }
    let known = DEFAULTS.iter().find(|known| known.quantity.eq_ignore_ascii_case(&quantity));
    if let (Some(known), Some(unit)) = (known, units::find(unit))
        && units::quantity_of_unit(unit).is_some_and(|told| told.eq_ignore_ascii_case(&quantity))
    {
        let inside = |si: f64| (si - unit.offset) / unit.factor;
        let wide = (inside(known.range.0), inside(known.range.1));
        let fits = limits.iter().all(|limit| *limit >= wide.0 && *limit <= wide.1);
        if range.is_none() && fits && !off.contains(&"range") {
            range = Some(wide);
        }
        if handling.rate_max.is_none() && !off.contains(&"rate") {
            handling.rate_max = known.rate.map(|rate| rate / unit.factor);
        }
        if handling.stuck.is_none() && !off.contains(&"stuck") {
            handling.stuck = known.stuck;
        }
    }
    Said { quantity, scale, offset, range }
}

fn span(text: &str) -> Result<Duration, String> {
    let span = values::duration(text)?;
    if span.is_zero() { Err("0 s: every value would be stuck".to_owned()) } else { Ok(span) }
}

/// `deadband = 0.5` in the tag's unit, or `"1%"` of its range.
fn deadband(tag: &Section<'_>, range: Option<(f64, f64)>) -> Option<Deadband> {
    let silence = tag.read("max_silence", values::duration_from(Duration::from_secs(1)));
    if !tag.has("deadband") {
        if silence.is_some() {
            tag.wrong("max_silence", "says nothing without a `deadband`");
        }
        return None;
    }
    let max_silence = silence.unwrap_or(MAX_SILENCE);
    let Some(percent) = tag.text_if_any("deadband") else {
        let width = tag.number_in("deadband", 0.0, f64::MAX)?;
        return Some(Deadband { width, max_silence });
    };
    let share = percent.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let Some(share) = share.filter(|share| (0.0..=100.0).contains(share)) else {
        tag.wrong("deadband", format!("`{percent}` is neither a number nor a share like \"1%\""));
        return None;
    };
    let Some((low, high)) = range else {
        tag.wrong("deadband", "a share needs a `range` to be a share of");
        return None;
    };
    Some(Deadband { width: (high - low) * share / 100.0, max_silence })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use crate::config::{TagConfig, parse};
    use crate::domain::tag::Deadband;

    fn tag(keys: &str) -> Result<TagConfig, Vec<String>> {
        let text = format!(
            "[gateway]\nsite = \"s\"\nid = \"g\"\n[[asset]]\nid = \"P\"\nclass = \"pump\"\n\
             criticality = 1\n[[modbus]]\nname = \"plc\"\nurl = \"tcp://127.0.0.1:5020\"\n\
             [[modbus.tag]]\nid = \"t\"\nasset = \"P\"\npoint = \"holding:0\"\ntype = \"f32\"\n{keys}\n"
        );
        let config = parse(&text, Path::new("x.toml"), &BTreeMap::new()).map_err(|mistakes| {
            mistakes.to_string().lines().map(str::to_owned).collect::<Vec<_>>()
        })?;
        Ok(config.modbus[0].tags[0].tag.clone())
    }

    fn mistake(keys: &str, part: &str) {
        let found = tag(keys).unwrap_err();
        assert!(found.iter().any(|mistake| mistake.contains(part)), "{keys}: {found:?}");
    }

    #[test]
    fn units_are_converted_by_scale_and_offset() {
        let found = tag("raw_unit = \"degF\"\nunit = \"°C\"\nscale = 0.1").unwrap();
        let value = |raw: f64| raw * found.scale + found.offset;
        assert!((value(2120.0) - 100.0).abs() < 1e-9);
        assert!((value(320.0)).abs() < 1e-9);
        assert_eq!(found.quantity, "temperature");
        mistake("raw_unit = \"degG\"\nunit = \"°C\"", "did you mean");
        mistake("raw_unit = \"psi\"\nunit = \"°C\"", "pressure");
        mistake("raw_unit = \"psi\"", "needs `unit`");
    }

    #[test]
    fn a_quantity_brings_its_checks_in_the_tags_own_unit() {
        let celsius = tag("unit = \"°C\"").unwrap();
        let (low, high) = celsius.range.unwrap();
        assert!((low + 273.15).abs() < 1e-9 && (high - 3226.85).abs() < 1e-9);
        let rate = tag("unit = \"°F\"").unwrap().handling.rate_max.unwrap();
        assert!((rate - 90.0).abs() < 1e-9, "50 K/s are 90 °F/s: {rate}");
        let bar = tag("unit = \"bar\"").unwrap();
        assert!((bar.range.unwrap().0 + 1.1).abs() < 1e-9);
        let vibration = tag("unit = \"mm/s\"").unwrap();
        assert_eq!(vibration.quantity, "vibration");
        assert_eq!(vibration.handling.stuck, Some(Duration::from_secs(900)));
        // Unknown units and quantities are checked by nothing that was not asked for.
        let unknown = tag("unit = \"widgets\"\nquantity = \"happiness\"").unwrap();
        assert_eq!(
            (unknown.range, unknown.handling.rate_max, unknown.handling.stuck),
            (None, None, None)
        );
        // What the tag says goes first.
        let own =
            tag("unit = \"°C\"\nrange = [0.0, 50.0]\nrate_max = 2.0\nstuck = \"1h\"").unwrap();
        assert_eq!(own.range, Some((0.0, 50.0)));
        assert_eq!(own.handling.rate_max, Some(2.0));
        assert_eq!(own.handling.stuck, Some(Duration::from_secs(3600)));
        let off = tag("unit = \"°C\"\nunchecked = [\"range\", \"rate\"]").unwrap();
        assert_eq!((off.range, off.handling.rate_max), (None, None));
        mistake("unchecked = [\"all\"]", "is no check");
        mistake("discrete = true\nrate_max = 1.0", "nothing for a state");
        mistake("rate_max = 0", "allowed are");
    }

    #[test]
    fn deadbands_are_a_width_or_a_share_of_the_range() {
        let found = tag("deadband = 0.5\nmax_silence = \"1m\"").unwrap();
        let minute = Duration::from_secs(60);
        assert_eq!(found.handling.deadband, Some(Deadband { width: 0.5, max_silence: minute }));
        let share =
            tag("deadband = \"1%\"\nrange = [0.0, 200.0]").unwrap().handling.deadband.unwrap();
        assert!((share.width - 2.0).abs() < 1e-12);
        assert_eq!(share.max_silence, Duration::from_secs(600));
        assert_eq!(tag("").unwrap().handling.deadband, None);
        mistake("deadband = \"1%\"", "needs a `range`");
        mistake("deadband = \"much\"", "neither a number nor a share");
        mistake("deadband = -1.0", "allowed are");
        mistake("max_silence = \"1m\"", "without a `deadband`");
        assert_eq!(tag("gap = \"30s\"").unwrap().handling.gap, Some(Duration::from_secs(30)));
    }
}
