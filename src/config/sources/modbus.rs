//! `[[modbus]]` and its tags.

use std::time::Duration;

use super::{POLL_LEAST, Polling, Taken, polling, shared};
use crate::config::parse::Declared;
use crate::config::tree::{NOT_AVAILABLE, Section};
use crate::config::{ByteOrder, ModbusSource, ModbusTag, Point, PointType, Table, values};

/// Port of Modbus TCP.
const MODBUS_PORT: u16 = 502;

/// `[[modbus]]`
pub(in crate::config) fn modbus(
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
        let (polling, max_registers) = polling::polling(&table);
        let base = table.integer("address_base", 0, 1).unwrap_or(0_u16);
        let tags = table.tables("tag");
        let tags = tags
            .iter()
            .filter_map(|tag| {
                let point = point(tag, unit, base, max_registers);
                if let Some(point) = point {
                    reachable(tag, &point, &polling);
                }
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
            polling,
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

/// With coils read from 0 on, one request must reach them all.
fn reachable(tag: &Section<'_>, point: &Point, polling: &Polling) {
    let coil = point.table == Table::Coil;
    if polling.coils_from_zero && coil && point.address >= polling.max_coils {
        let most = polling.max_coils;
        tag.wrong(
            "point",
            format!(
                "`read_coils_starting_at_zero` reaches {most} coils in one request, not this one"
            ),
        );
    }
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
