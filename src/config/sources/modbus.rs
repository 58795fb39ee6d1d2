//! `[[modbus]]` and its tags.

use std::time::Duration;

use super::point::{self as tag_point, Habits};
use super::{POLL_LEAST, Taken, shared_with};
use crate::config::parse::Declared;
use crate::config::tree::{NOT_AVAILABLE, Section};
use crate::config::{ModbusSource, ModbusTag, point, profiles, values};

/// Most registers that one request may ask for (Modbus application protocol 1.1b3 §6.3).
const REGISTERS_MAX: u16 = 125;
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
        let max_registers =
            table.integer("max_registers", 1, REGISTERS_MAX).unwrap_or(REGISTERS_MAX);
        let base = table.integer("address_base", 0, 1).unwrap_or(0_u16);
        profiles::taken(&table);
        let order = table.read("order", point::order);
        let habits = Habits { unit, base, order, max_registers };
        let tags = table.tables("tag");
        let tags = tags
            .iter()
            .filter_map(|tag| {
                let point = tag_point::point(tag, habits);
                let kind = point.map(|point| point.kind);
                let discrete = tag_point::is_state(tag, kind);
                let invalid = tag_point::invalid(tag, kind);
                let mut read = shared_with(tag, &table, discrete, invalid, declared, taken);
                if let Some(read) = &mut read {
                    tag_point::formed(tag, kind, &mut read.handling);
                }
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
