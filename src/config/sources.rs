//! Where readings come from: `[[modbus]]`, `[[mqtt]]` and their tags.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::ids::{SourceId, TagPath};
use crate::domain::tag::Limits;

use super::links::{self, Names};
use super::mistake::Place;
use super::parse::Declared;
use super::tree::{NOT_AVAILABLE, Section};
use super::{
    ByteOrder, ModbusSource, ModbusTag, MqttSource, MqttTag, Payload, Point, PointType, Table,
    TagConfig, values,
};

/// Fastest poll.
const POLL_LEAST: Duration = Duration::from_millis(100);
/// Most registers that one request may ask for (Modbus application protocol 1.1b3 §6.3).
const REGISTERS_MAX: u16 = 125;
/// Port of Modbus TCP.
const MODBUS_PORT: u16 = 502;

/// Names that are given away already.
#[derive(Debug, Default)]
pub(super) struct Taken {
    sources: BTreeSet<SourceId>,
    /// Which source declared a tag.
    tags: BTreeMap<TagPath, String>,
}

impl Taken {
    fn source(&mut self, table: &Section<'_>) -> Option<SourceId> {
        let name = table.need("name", values::source_id)?;
        if !self.sources.insert(name.clone()) {
            table.wrong("name", format!("source `{name}` is declared twice"));
        }
        Some(name)
    }
}

/// `[[modbus]]`
pub(super) fn modbus(
    root: &Section<'_>,
    declared: &mut Declared,
    taken: &mut Taken,
) -> Vec<ModbusSource> {
    let mut sources = Vec::new();
    for table in root.tables("modbus") {
        let name = taken.source(&table);
        let address = table.need("url", modbus_url);
        let unit = unit(&table);
        let poll = poll(&table).unwrap_or(Duration::from_secs(1));
        let timeout = timeout(&table, poll);
        let breaker_max = table.read("breaker_max", values::duration_from(Duration::from_secs(1)));
        let max_registers =
            table.integer("max_registers", 1, REGISTERS_MAX).unwrap_or(REGISTERS_MAX);
        let base = table.integer("address_base", 0, 1).unwrap_or(0_u16);
        let tags = table.tables("tag");
        let tags = tags
            .iter()
            .filter_map(|tag| {
                let point = point(tag, unit, base, max_registers);
                let discrete = point.is_some_and(|point| point.kind == PointType::Bool);
                let read = shared(tag, &table, discrete, declared, taken);
                let own_poll = self::poll(tag);
                if own_poll.is_some_and(|poll| poll < timeout) {
                    tag.wrong("poll", format!("is shorter than the source's timeout, {timeout:?}"));
                }
                tag.finish();
                Some(ModbusTag { tag: read?, point: point?, poll: own_poll.unwrap_or(poll) })
            })
            .collect();
        table.finish();
        let (Some(name), Some((host, port))) = (name, address) else { continue };
        let breaker_max = breaker_max.unwrap_or(Duration::from_mins(1));
        sources.push(ModbusSource {
            name,
            host,
            port,
            poll,
            timeout,
            breaker_max,
            max_registers,
            tags,
        });
    }
    sources
}

fn modbus_url(text: &str) -> Result<(String, u16), String> {
    if ["tls://", "rtu+tcp://", "rtu://"].iter().any(|scheme| text.starts_with(scheme)) {
        let scheme = text.split("://").next().unwrap_or(text);
        return Err(format!("{scheme}:// is {NOT_AVAILABLE}: tcp://"));
    }
    let url = values::url(text)?;
    if url.scheme != "tcp" {
        return Err(format!("`{text}` is no Modbus address: tcp://HOST:PORT"));
    }
    if !matches!(url.rest.as_str(), "" | "/") {
        return Err(format!("`{text}` has a path, which tcp:// does not have"));
    }
    Ok((url.host, url.port.unwrap_or(MODBUS_PORT)))
}

/// Unit ids (Modbus messaging on TCP/IP §4.4.2): 1 to 247 behind a gateway, 255 for a device that
/// is itself on TCP; 0 is a broadcast, to which nobody answers.
fn unit(table: &Section<'_>) -> u8 {
    let unit = table.integer("unit", 0, 255).unwrap_or(1);
    if unit == 0 || (248..=254).contains(&unit) {
        table.wrong("unit", format!("is {unit}, allowed are 1 to 247, and 255 on TCP"));
    }
    unit
}

fn poll(table: &Section<'_>) -> Option<Duration> {
    table.read("poll", values::duration_from(POLL_LEAST))
}

fn timeout(table: &Section<'_>, poll: Duration) -> Duration {
    let usual = Duration::from_millis(500).min(poll);
    let Some(timeout) = table.read("timeout", values::duration_from(Duration::from_millis(10)))
    else {
        return usual;
    };
    if timeout > poll {
        table.wrong("timeout", format!("{timeout:?} is longer than `poll`, which is {poll:?}"));
        return usual;
    }
    timeout
}

fn point(tag: &Section<'_>, unit: u8, base: u16, max_registers: u16) -> Option<Point> {
    let place = tag.need("point", values::point);
    let kind = tag.read("type", values::point_type);
    let order = tag.read("order", values::order);
    let (table, written) = place?;
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
    if let Some(order) = order {
        check_order(tag, order, kind);
    }
    let Some(address) = written.checked_sub(u32::from(base)) else {
        tag.wrong("point", "addresses of this source begin at 1 (`address_base = 1`)");
        return None;
    };
    let registers = kind.registers();
    if address + u32::from(registers) > 0x1_0000 {
        tag.wrong("point", format!("{registers} registers from {written} on reach past 65535"));
    }
    if registers > max_registers {
        tag.wrong(
            "type",
            format!("takes {registers} registers, `max_registers` is {max_registers}"),
        );
    }
    // Mistaken addresses were reported; a number is needed to go on.
    let address = u16::try_from(address).unwrap_or(u16::MAX);
    Some(Point { unit, table, address, kind, order: order.unwrap_or(ByteOrder::Abcd) })
}

/// Words can be swapped only where there are two, bytes only where a register is one number.
fn check_order(tag: &Section<'_>, order: ByteOrder, kind: PointType) {
    let swaps_words = matches!(order, ByteOrder::Cdab | ByteOrder::Dcba);
    match kind {
        PointType::Bool
        | PointType::U8h
        | PointType::U8l
        | PointType::Bits { .. }
        | PointType::Mod10k(_) => {
            if order != ByteOrder::Abcd {
                tag.wrong("order", "this type has no other order than ABCD");
            }
        }
        PointType::U16 | PointType::I16 | PointType::F16 | PointType::Bcd16 => {
            if swaps_words {
                tag.wrong("order", "one register has no words to swap: ABCD or BADC");
            }
        }
        PointType::U32
        | PointType::I32
        | PointType::F32
        | PointType::Bcd32
        | PointType::U64
        | PointType::I64
        | PointType::F64 => {}
    }
}

/// What all tags share. `discrete` is what the type says when the tag does not.
fn shared(
    tag: &Section<'_>,
    source: &Section<'_>,
    discrete: bool,
    declared: &mut Declared,
    taken: &mut Taken,
) -> Option<TagConfig> {
    let id = tag.need("id", values::tag_id);
    let asset = tag.need("asset", |text| declared.asset(text));
    let path = asset.zip(id).map(|(asset, tag)| TagPath { asset, tag });
    if let Some(path) = &path {
        let source = source.text("name").map_or("?", |name| name.value).to_owned();
        if let Some(other) = taken.tags.insert(path.clone(), source) {
            tag.wrong("id", format!("tag `{path}` is declared twice, first in source `{other}`"));
        }
        declared.tags.insert(path.clone());
    }
    let text = |key| tag.text(key).map_or(String::new(), |text| text.value.trim().to_owned());
    let unit = text("unit");
    let quantity = text("quantity");
    let scale = tag.number("scale").unwrap_or(1.0);
    if !scale.is_normal() {
        tag.wrong("scale", format!("must not be {scale}: every value would be the same"));
    }
    let offset = tag.number("offset").unwrap_or(0.0);
    let range = range(tag);
    let invalid = tag.numbers("invalid");
    let limits = tag.table("limits").map_or_else(Limits::default, |table| limits(&table, range));
    let discrete = tag.flag("discrete").unwrap_or(discrete);
    for key in ["values", "profile"] {
        tag.later(key);
    }
    let path = path?;
    Some(TagConfig { path, unit, quantity, scale, offset, range, invalid, limits, discrete })
}

fn range(tag: &Section<'_>) -> Option<(f64, f64)> {
    if !tag.has("range") {
        return None;
    }
    match tag.numbers("range").as_slice() {
        [low, high] if low < high => Some((*low, *high)),
        [low, high] => {
            tag.wrong("range", format!("is empty: {low} is not less than {high}"));
            None
        }
        _ => {
            tag.wrong("range", "must hold two numbers, the lower one first");
            None
        }
    }
}

fn limits(table: &Section<'_>, range: Option<(f64, f64)>) -> Limits {
    const KEYS: [&str; 4] = ["low_low", "low", "high", "high_high"];
    let given = KEYS.map(|key| table.number(key));
    let mut last: Option<(&str, f64)> = None;
    for (key, value) in KEYS.into_iter().zip(given) {
        let Some(value) = value else { continue };
        if let Some((lower, bound)) = last
            && value <= bound
        {
            table.wrong(key, format!("is {value}, not above `{lower}`, which is {bound}"));
        }
        if range.is_some_and(|(low, high)| value < low || value > high) {
            table.wrong(key, format!("{value} lies outside `range`: no good value reaches it"));
        }
        last = Some((key, value));
    }
    let [low_low, low, high, high_high] = given;
    let deadband = table.number_in("deadband", 0.0, f64::MAX).unwrap_or(0.0);
    let gap = low.or(low_low).zip(high.or(high_high)).map(|(low, high)| high - low);
    if gap.is_some_and(|gap| gap > 0.0 && deadband >= gap) {
        table.wrong("deadband", "is as wide as normal operation: the alarm would never clear");
    }
    let delay = |key| table.read(key, values::duration).unwrap_or(Duration::ZERO);
    let (on_delay, off_delay) = (delay("on_delay"), delay("off_delay"));
    table.finish();
    Limits { low_low, low, high, high_high, deadband, on_delay, off_delay }
}

/// `[[mqtt]]`, each with the place where mistakes of its connection belong.
pub(super) fn mqtt(
    root: &Section<'_>,
    declared: &mut Declared,
    taken: &mut Taken,
    names: &Names<'_>,
) -> Vec<(MqttSource, Place)> {
    let mut sources = Vec::new();
    for table in root.tables("mqtt") {
        let name = taken.source(&table);
        let broker = links::broker(&table, names, name.as_ref().map(SourceId::as_str));
        let tags = table.tables("tag");
        let tags = tags
            .iter()
            .filter_map(|tag| {
                let shared = shared(tag, &table, false, declared, taken);
                let topic = tag.need("topic", values::topic_filter);
                let payload = payload(tag);
                let expect_every = tag.read("expect_every", values::duration_from(POLL_LEAST));
                tag.finish();
                Some(MqttTag { tag: shared?, topic: topic?, payload: payload?, expect_every })
            })
            .collect();
        table.finish();
        if let (Some(name), Some(broker)) = (name, broker) {
            sources.push((MqttSource { name, broker, tags }, table.place("client_id").clone()));
        }
    }
    sources
}

fn payload(tag: &Section<'_>) -> Option<Payload> {
    let pointer = tag.read("pointer", values::json_pointer);
    let time_pointer = tag.read("time_pointer", values::json_pointer);
    let form = match tag.text("payload") {
        None => "json",
        Some(form) => form.value,
    };
    match form {
        "json" => Some(Payload::Json { pointer: pointer.unwrap_or_default(), time_pointer }),
        "text" => {
            for key in ["pointer", "time_pointer"] {
                if tag.has(key) {
                    tag.wrong(key, "belongs to payload `json` alone");
                }
            }
            Some(Payload::Text)
        }
        "f32-le" | "i16-le" | "sparkplug-b" => {
            tag.wrong("payload", format!("payload `{form}` is {NOT_AVAILABLE}: json, text"));
            None
        }
        _ => {
            tag.wrong("payload", format!("`{form}` is no payload: json, text"));
            None
        }
    }
}
