//! What a Modbus tag says of its registers: point, type, order; raw values that mean something
//! else than a number; and how its values are treated.

use crate::config::mistake::Place;
use crate::config::tree::{Raw, Section, Spot};
use crate::config::{ByteOrder, Point, PointType, Table, point as written};
use crate::domain::tag::{Form, Handling};

/// Names of states that one tag may have; more is a list of parts, not of states.
const STATES_MAX: usize = 1024;
/// Bytes in the name of a state.
const STATE_BYTES_MAX: usize = 64;
/// Decimals that a value may be rounded to; a number has no more than 15 that mean anything.
const DECIMALS_MAX: u8 = 15;

/// What a source says of the points of all its tags.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    pub(super) unit: u8,
    pub(super) base: u16,
    pub(super) order: Option<ByteOrder>,
    pub(super) max_registers: u16,
}

/// `point`, `type` and `order` of a tag.
pub(super) fn point(tag: &Section<'_>, habits: Habits) -> Option<Point> {
    let Habits { unit, max_registers, .. } = habits;
    let base = base(tag, habits.base);
    let place = tag.need("point", written::point);
    let kind = tag.read("type", written::point_type);
    let order = tag.read("order", written::order);
    let (table, at) = place?;
    let bits = matches!(table, Table::Coil | Table::Discrete);
    if !tag.has("type") && !bits {
        tag.missing("type");
    }
    let kind = match kind {
        Some(kind) => kind,
        None if bits => PointType::Bool,
        None => return None,
    };
    if bits && kind != PointType::Bool {
        tag.wrong("type", "a coil or discrete input is a `bool`");
    }
    let order = match order {
        Some(order) => {
            if let Err(what) = order.fits(kind) {
                tag.wrong("order", what);
            }
            order
        }
        // What the source says holds for the types that know such an order.
        None => habits.order.filter(|order| order.fits(kind).is_ok()).unwrap_or(ByteOrder::Abcd),
    };
    let Some(address) = at.checked_sub(u32::from(base)) else {
        tag.wrong("point", "addresses of this source begin at 1 (`address_base = 1`)");
        return None;
    };
    let registers = kind.registers();
    if address + u32::from(registers) > 0x1_0000 {
        tag.wrong("point", format!("{registers} registers from {at} on reach past 65535"));
    }
    // A burst may be read in pieces: its device keeps it still. Others must come in one answer.
    let pieces = matches!(kind, PointType::Waveform { .. });
    if registers > max_registers && !pieces {
        tag.wrong(
            "type",
            format!("takes {registers} registers, `max_registers` is {max_registers}"),
        );
    }
    // Mistaken addresses were reported; a number is needed to go on.
    let address = u16::try_from(address).unwrap_or(u16::MAX);
    Some(Point { unit, table, address, kind, order })
}

/// The base of a tag's addresses: the source's, or the profile's that brought the tag along.
fn base(tag: &Section<'_>, of_source: u16) -> u16 {
    if !tag.has("address_base") {
        return of_source;
    }
    if !matches!(tag.place("address_base"), Place::In(..)) {
        tag.wrong("address_base", "belongs to the source: one habit for all its addresses");
        return of_source;
    }
    tag.integer("address_base", 0, 1).unwrap_or(of_source)
}

/// Whether a tag is a state rather than a measurement when it does not say so itself.
pub(super) fn is_state(tag: &Section<'_>, kind: Option<PointType>) -> bool {
    let kind_is = match kind {
        Some(PointType::Bool | PointType::String { .. }) => true,
        Some(
            PointType::U8h
            | PointType::U8l
            | PointType::U16
            | PointType::I16
            | PointType::U32
            | PointType::I32
            | PointType::U64
            | PointType::I64
            | PointType::F16
            | PointType::F32
            | PointType::F64
            | PointType::Bcd16
            | PointType::Bcd32
            | PointType::Mod10k(_)
            | PointType::Bits { .. }
            | PointType::Waveform { .. },
        )
        | None => false,
    };
    // A total only ever grows: to statistics that is a drift without end.
    kind_is || tag.has("values") || tag.has("counter")
}

/// What tags of all sources may say: `decimals`, `values`, `sample_rate`.
pub(super) fn handling(tag: &Section<'_>) -> Handling {
    let decimals = tag.integer("decimals", 0, DECIMALS_MAX);
    let states = states(tag);
    Handling { decimals, states, ..Handling::default() }
}

/// What follows from the type: form, counter, and what then makes no sense.
pub(super) fn formed(tag: &Section<'_>, kind: Option<PointType>, handling: &mut Handling) {
    let rate_hz = tag.number_in("sample_rate", 0.001, 1e9);
    let counter = tag.flag("counter").unwrap_or(false);
    let Some(kind) = kind else { return };
    handling.form = match kind {
        PointType::String { .. } => Form::Text,
        PointType::Waveform { .. } => Form::Waveform { rate_hz },
        PointType::Bool
        | PointType::U8h
        | PointType::U8l
        | PointType::U16
        | PointType::I16
        | PointType::U32
        | PointType::I32
        | PointType::U64
        | PointType::I64
        | PointType::F16
        | PointType::F32
        | PointType::F64
        | PointType::Bcd16
        | PointType::Bcd32
        | PointType::Mod10k(_)
        | PointType::Bits { .. } => Form::Number,
    };
    if tag.has("sample_rate") && !matches!(kind, PointType::Waveform { .. }) {
        tag.wrong("sample_rate", "belongs to a `waveform` alone");
    }
    if counter {
        handling.counter = kind.modulus();
        if kind.modulus().is_none() {
            let name = kind.name();
            tag.wrong(
                "counter",
                format!("`{name}` does not count: u16, u32, u64, bcd16, bcd32, mod10k"),
            );
        }
    }
    if matches!(kind, PointType::String { .. }) {
        const NUMBERS: [&str; 8] =
            ["scale", "offset", "range", "invalid", "limits", "values", "decimals", "counter"];
        for key in NUMBERS {
            if tag.has(key) {
                tag.wrong(key, "a text is no number");
            }
        }
    }
    if matches!(kind, PointType::Waveform { .. }) {
        for key in ["values", "counter"] {
            if tag.has(key) {
                tag.wrong(key, "a waveform has neither states nor counts");
            }
        }
    }
    if tag.has("values") && kind.integers().is_none() && handling.form == Form::Number {
        tag.wrong("values", format!("`{}` has no states: an integer or bits", kind.name()));
    }
    if let Some((low, high)) = kind.integers() {
        for (value, name) in &handling.states {
            if !(low..=high).contains(&i128::from(*value)) {
                let kind = kind.name();
                tag.wrong("values", format!("`{name}` is {value}, which a `{kind}` never is"));
            }
        }
    }
}

/// `values = { 0 = "stopped", 1 = "running" }`, in order of the raw values.
fn states(tag: &Section<'_>) -> Vec<(i64, String)> {
    let mut states: Vec<(i64, String)> = Vec::new();
    for (key, name) in tag.named("values") {
        let number = match key.value.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => key.value.parse(),
        };
        let Ok(number) = number else {
            tag.wrong_at(key.at, "values", format!("`{}` is no raw value", key.value));
            continue;
        };
        let text = name.value.trim();
        if text.is_empty() || text.len() > STATE_BYTES_MAX || text.chars().any(char::is_control) {
            let what = format!("the name of {number} must have 1 to {STATE_BYTES_MAX} bytes");
            tag.wrong_at(name.at, "values", what);
            continue;
        }
        if states.iter().any(|(known, _)| *known == number) {
            tag.wrong_at(key.at, "values", format!("{number} is named twice"));
            continue;
        }
        states.push((number, text.to_owned()));
    }
    if states.len() > STATES_MAX {
        tag.wrong("values", format!("names {} states, at most {STATES_MAX}", states.len()));
    }
    states.sort();
    if !states.is_empty() {
        for key in ["scale", "offset", "decimals"] {
            if tag.has(key) {
                tag.wrong(key, "names in `values` stand for raw values: leave it out");
            }
        }
    }
    states
}

/// `invalid`: raw values of the type. Numbers are what the device gives before scaling; of a signed
/// type a number above its range is the pattern of its bits (0x8000 of an i16 is -32768). A string
/// "0x7F800000" is always the pattern, most significant digit first.
pub(super) fn invalid(tag: &Section<'_>, kind: Option<PointType>) -> Vec<f64> {
    let mut values = Vec::new();
    for Spot { value, at } in tag.raws("invalid") {
        // Without a type there is nothing to hold them against.
        let Some(kind) = kind else { continue };
        let found = match value {
            Raw::Integer(number) => integer(kind, number),
            Raw::Number(number) => real(kind, number),
            Raw::Text(text) => pattern(kind, text),
        };
        match found {
            Ok(value) => values.push(value),
            Err(what) => tag.wrong_at(at, "invalid", what),
        }
    }
    values
}

fn integer(kind: PointType, number: i64) -> Result<f64, String> {
    let Some((low, high)) = kind.integers() else { return Ok(number as f64) };
    let number = i128::from(number);
    let signed = low < 0;
    let number = if signed && number > high && number <= 2 * high + 1 {
        number - 2 * (high + 1)
    } else {
        number
    };
    if number < low || number > high {
        return Err(format!("{number} is no raw value of a `{}`: {low} to {high}", kind.name()));
    }
    Ok(number as f64)
}

fn real(kind: PointType, number: f64) -> Result<f64, String> {
    match kind.integers() {
        Some((low, high)) => {
            let whole = number.fract().abs() < f64::MIN_POSITIVE;
            if !whole || number < low as f64 || number > high as f64 {
                return Err(format!("{number} is no raw value of a `{}`", kind.name()));
            }
            Ok(number)
        }
        None => Ok(number),
    }
}

fn pattern(kind: PointType, text: &str) -> Result<f64, String> {
    let kind =
        if let PointType::Waveform { sample, .. } = kind { sample.point_type() } else { kind };
    let digits = usize::from(kind.registers()) * 4;
    let wrong = || {
        let kind = kind.name();
        format!("`{text}` is no pattern of a `{kind}`: 0x and {digits} hexadecimal digits")
    };
    let hex = text.strip_prefix("0x").filter(|hex| hex.len() == digits).ok_or_else(wrong)?;
    let bits = u64::from_str_radix(hex, 16).map_err(|_| wrong())?;
    let value = match kind {
        PointType::F32 => f64::from(f32::from_bits(u32::try_from(bits).map_err(|_| wrong())?)),
        PointType::F64 => f64::from_bits(bits),
        PointType::Bcd16 | PointType::Bcd32 => hex.parse::<u32>().map(f64::from).map_err(|_| {
            format!("`{text}` has digits that are none: such registers are bad anyway")
        })?,
        PointType::F16 | PointType::Mod10k(_) | PointType::String { .. } => {
            return Err(format!("patterns of a `{}` are not known: write the number", kind.name()));
        }
        PointType::Bool
        | PointType::U8h
        | PointType::U8l
        | PointType::U16
        | PointType::I16
        | PointType::U32
        | PointType::I32
        | PointType::U64
        | PointType::I64
        | PointType::Bits { .. }
        | PointType::Waveform { .. } => {
            let (low, high) = kind.integers().unwrap_or((0, 0));
            let bits = i128::from(bits);
            let number = if low < 0 && bits > high { bits - 2 * (high + 1) } else { bits };
            if number < low || number > high {
                return Err(wrong());
            }
            number as f64
        }
    };
    if value.is_nan() {
        return Err(format!("`{text}` is not a number, and bad without being listed"));
    }
    Ok(value)
}
