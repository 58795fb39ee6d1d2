//! Pure: what will be asked of each line, how long that takes, and whether it fits, before anything
//! is connected. The requests are those a bus makes that knows nothing yet of its devices.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Link, ModbusSource};
use crate::domain::ids::TagKey;
use crate::sources::modbus::read_rules;
use crate::sources::poll_class::{ClassPoint, PollClass, table_name};

/// From here on a line has little room for repetitions and probes.
const CROWDED: f64 = 0.8;

/// One request of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The connection, as its URL.
    pub connection: String,
    /// The source.
    pub source: String,
    /// Unit id.
    pub unit: u8,
    /// `coil`, `discrete`, `input` or `holding`.
    pub table: &'static str,
    /// First address, zero-based.
    pub from: u16,
    /// Registers or bits.
    pub count: u16,
    /// Tags it brings.
    pub tags: usize,
    /// How often it is made.
    pub every: Duration,
    /// What it takes of the line's time.
    pub takes: Duration,
}

/// What one connection has to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// The connection, as its URL.
    pub connection: String,
    /// Its requests, by source, unit and rate.
    pub requests: Vec<Request>,
    /// Share of its time that they take, 1 and more when they do not fit.
    pub load: f64,
    /// What will not work, or hardly, one sentence each.
    pub warnings: Vec<String>,
}

/// The outlook of each connection of these sources.
#[must_use]
pub fn outlooks(sources: &[ModbusSource]) -> Vec<Outlook> {
    let mut links: BTreeMap<&Link, Vec<&ModbusSource>> = BTreeMap::new();
    for source in sources {
        links.entry(&source.link).or_default().push(source);
    }
    links.into_iter().map(|(link, sources)| outlook(link, &sources)).collect()
}

fn outlook(link: &Link, sources: &[&ModbusSource]) -> Outlook {
    let connection = link.to_string();
    let (mut requests, mut warnings, mut load) = (Vec::new(), Vec::new(), 0.0);
    for source in sources {
        let mut classes: BTreeMap<(u8, Duration), Vec<ClassPoint>> = BTreeMap::new();
        for (tag, key) in source.tags.iter().zip(0..) {
            let key = TagKey(key);
            let point = ClassPoint { key, path: tag.tag.path.clone(), point: tag.point };
            classes.entry((tag.point.unit, tag.poll)).or_default().push(point);
        }
        for ((unit, every), points) in classes {
            let class = PollClass::new(0, 0, points, every, read_rules(source));
            let mut whole = Duration::ZERO;
            for read in class.plan() {
                let takes = Duration::from_nanos(class.cost_ns(read));
                whole += takes;
                requests.push(Request {
                    connection: connection.clone(),
                    source: source.name.to_string(),
                    unit,
                    table: table_name(read.table),
                    from: read.block.address,
                    count: read.block.count,
                    tags: read.block.points.len(),
                    every,
                    takes,
                });
            }
            load += whole.as_secs_f64() / every.as_secs_f64().max(1e-3);
            if whole > every {
                warnings.push(format!(
                    "source {} unit {unit}: a poll every {every:?} takes {:.0} ms of {connection}",
                    source.name,
                    whole.as_secs_f64() * 1e3
                ));
            }
        }
    }
    if load > 1.0 {
        warnings.push(format!(
            "{connection} is asked for {:.0} % of its time: polls will be left out; poll less \
             often, or fewer tags",
            load * 100.0
        ));
    } else if load > CROWDED {
        warnings.push(format!(
            "{connection} is asked for {:.0} % of its time: little is left for repetitions",
            load * 100.0
        ));
    }
    Outlook { connection, requests, load, warnings }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(url: &str, poll: &str, tags: u16) -> Vec<ModbusSource> {
        let mut text = format!(
            "[gateway]\nsite = \"s\"\nid = \"g\"\ndata_dir = \"d\"\n[[asset]]\nid = \"A\"\n\
             [[modbus]]\nname = \"plc\"\nurl = \"{url}\"\npoll = \"{poll}\"\n"
        );
        for tag in 0..tags {
            let point = tag * 300;
            text += &format!(
                "[[modbus.tag]]\nid = \"t{tag}\"\nasset = \"A\"\npoint = \"holding:{point}\"\n\
                 type = \"f32\"\n"
            );
        }
        let path = std::path::Path::new("test.toml");
        crate::config::parse(&text, path, &BTreeMap::new()).unwrap().modbus
    }

    #[test]
    fn a_plan_that_fits_has_no_warning() {
        let found = outlooks(&sources("tcp://h", "1s", 10));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].requests.len(), 10);
        assert!((found[0].load - 0.0308).abs() < 1e-6, "{}", found[0].load);
        assert!(found[0].warnings.is_empty(), "{:?}", found[0].warnings);
    }

    #[test]
    fn a_plan_that_does_not_fit_is_told_with_its_reason() {
        let found = outlooks(&sources("rtu:///dev/ttyS0?baud=9600", "500ms", 20));
        assert!(found[0].load > 1.8, "{}", found[0].load);
        assert_eq!(found[0].warnings.len(), 2, "{:?}", found[0].warnings);
        assert!(found[0].warnings[0].contains("plc unit 1"), "{:?}", found[0].warnings);
    }
}
