//! `[[modbus]]` and its tags.

use std::time::Duration;

use super::point::{self as tag_point, Habits};
use super::{POLL_LEAST, Polling, Taken, modbus_link, polling, shared_with};
use crate::config::links::Names;
use crate::config::parse::Declared;
use crate::config::tree::Section;
use crate::config::{Link, ModbusSource, ModbusTag, Point, Table, point, profiles, values};

/// `[[modbus]]`
pub(in crate::config) fn modbus(
    root: &Section<'_>,
    declared: &mut Declared,
    taken: &mut Taken,
    names: &Names<'_>,
) -> Vec<ModbusSource> {
    let mut sources: Vec<ModbusSource> = Vec::new();
    for table in root.tables("modbus") {
        let name = taken.source(&table);
        let link = table.need("url", modbus_link::url);
        let mut line = modbus_link::options(&table, link.as_ref(), names);
        if let Some(link) = &link {
            modbus_link::share(&table, &sources, link, &mut line);
        }
        let unit = unit(&table, link.as_ref());
        let poll = poll(&table).unwrap_or(Duration::from_secs(1));
        let timeout = timeout(&table, poll);
        let breaker_max = table.read("breaker_max", values::duration_from(Duration::from_secs(1)));
        let (polling, max_registers) = polling::polling(&table);
        let base = table.integer("address_base", 0, 1).unwrap_or(0_u16);
        profiles::taken(&table);
        let order = table.read("order", point::order);
        let habits = Habits { unit, base, order, max_registers };
        let origin = table.text("name").map_or("?", |name| name.value);
        let origin = format!("source `{origin}`");
        let tags = table.tables("tag");
        let tags = tags
            .iter()
            .filter_map(|tag| {
                let point = tag_point::point(tag, habits);
                if let Some(point) = point {
                    reachable(tag, &point, &polling);
                }
                let kind = point.map(|point| point.kind);
                let discrete = tag_point::is_state(tag, kind);
                let invalid = tag_point::invalid(tag, kind);
                let mut read = shared_with(tag, &origin, discrete, invalid, declared, taken);
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
        let (Some(name), Some(link)) = (name, link) else { continue };
        let breaker_max = breaker_max.unwrap_or(Duration::from_mins(1));
        sources.push(ModbusSource {
            name,
            link,
            line,
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

/// Unit ids (Modbus messaging on TCP/IP §4.4.2): 1 to 247 behind a gateway, 255 for a device that
/// is itself on TCP; 0 is a broadcast, to which nobody answers.
fn unit(table: &Section<'_>, link: Option<&Link>) -> u8 {
    let unit = table.integer("unit", 0, 255).unwrap_or(1);
    let serial = link.is_some_and(Link::is_rtu);
    if unit == 0 || (248..=254).contains(&unit) || (serial && unit == 255) {
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
