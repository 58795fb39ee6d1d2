//! `scan modbus URL`: what answers on a bus.

use std::io::{IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::records::{self, Format};
use super::{Code, Failure};
use crate::clock::Clock;
use crate::config::{LineOptions, modbus_link, unit_ranges, values};
use crate::sources::scan::{Found, Progress, Scan};

/// Look for what answers on a bus, without writing anything to it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    bus: Bus,
}

#[derive(Debug, Subcommand)]
enum Bus {
    Modbus(Modbus),
}

/// Find the unit ids that answer, who they are, which functions they know and what can be read.
///
/// Only reads are sent: functions 1 to 4, 17 (report server id) and 43 (device identification). A
/// pause before each request leaves the bus to others; a unit that keeps silent costs one timeout.
/// The boundaries of blocks are exact: what is not there is asked for one address at a time, so
/// large empty ranges take long. Ends with 1 when nothing answers.
#[derive(Debug, clap::Args)]
struct Modbus {
    /// Where the bus is, as in a configuration: tcp://HOST[:502], tls://HOST[:802],
    /// rtu+tcp://HOST:PORT?baud=9600, rtu:///dev/ttyUSB0?baud=19200&parity=even
    #[arg(value_name = "URL")]
    url: String,
    /// Unit ids: 5, 1-247 or 1-3,9
    #[arg(long, value_name = "IDS", default_value = "1-247", value_parser = units)]
    units: Units,
    /// Addresses looked at in each of the four tables, zero-based
    #[arg(long, value_name = "FROM-TO", default_value = "0-199", value_parser = registers)]
    registers: RangeInclusive<u16>,
    /// How long one answer may take
    #[arg(long, value_name = "SPAN", default_value = "300ms", value_parser = values::duration)]
    timeout: Duration,
    /// Pause before each request; `0` for none
    #[arg(long, value_name = "SPAN", default_value = "20ms", value_parser = pause)]
    pause: Duration,
    /// The adapter of a serial line hears what it sends
    #[arg(long)]
    local_echo: bool,
    /// CA certificates (PEM) for tls://; the system's without
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A list of its own, because clap takes a `Vec` for an option that may be repeated.
#[derive(Debug, Clone)]
struct Units(Vec<(u8, u8)>);

fn units(text: &str) -> Result<Units, String> {
    let ranges = unit_ranges(text)?;
    // 0 is a broadcast on serial lines, and 255 what devices on TCP have that need no unit id.
    Ok(Units(ranges))
}

fn registers(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("`{text}` is no range of addresses: write 0-199");
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let from: u16 = from.trim().parse().map_err(|_| wrong())?;
    let to: u16 = to.trim().parse().map_err(|_| wrong())?;
    if from > to { Err(format!("`{text}` ends before it begins")) } else { Ok(from..=to) }
}

fn pause(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { values::duration(text) }
}

/// Scans, and prints what was found.
///
/// # Errors
/// A server that cannot be reached, or on which nothing answers.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Bus::Modbus(args) = &args.bus;
    let usage = |what: String| Failure::new(Code::Usage, what);
    let link = modbus_link(&args.url).map_err(usage)?;
    let mut options = LineOptions { local_echo: args.local_echo, ..LineOptions::default() };
    if let Some(file) = &args.ca_file {
        let read = std::fs::read(file)
            .map_err(|error| Failure::failed(format!("reading {}: {error}", file.display())));
        options.certificates.ca = Some(read?);
    }
    let scan = Scan {
        link,
        options,
        units: args.units.0.clone(),
        registers: args.registers.clone(),
        timeout: args.timeout,
        pause: args.pause,
    };
    let (silent, answering) = scan.estimate();
    eprintln!(
        "asking {} units at {}: about {} when none answers, up to {} more for each that does",
        scan.unit_count(),
        args.url,
        span(silent),
        span(answering),
    );
    let terminal = std::io::stderr().is_terminal();
    let mut all = Vec::new();
    let runtime = super::run::runtime()?;
    let scanned = runtime.block_on(scan.run(
        &Clock::system(),
        |progress| {
            if terminal {
                bar(progress);
            }
        },
        |found| all.push(found),
    ));
    if terminal {
        // The bar's line is taken back.
        eprint!("\r\x1b[K");
    }
    // What was found before a connection was lost is worth having.
    let text = match args.format {
        Format::Json => format!("{:#}\n", json!(all)),
        Format::Table | Format::Csv => {
            let rows: Vec<Value> = all.iter().flat_map(rows).collect();
            records::list(args.format, &COLUMNS, &rows)
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::failed)?;
    scanned.map_err(Failure::failed)?;
    if all.is_empty() {
        let asked = scan.unit_count();
        return Err(Failure::failed(format!("none of {asked} units at {} answers", args.url)));
    }
    Ok(())
}

const COLUMNS: [&str; 11] = [
    "unit",
    "vendor",
    "product",
    "revision",
    "name",
    "functions",
    "table",
    "first",
    "last",
    "count",
    "note",
];

/// A row for each block; one without a block for a unit that has none.
fn rows(found: &Found) -> Vec<Value> {
    let functions = found.functions.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
    let row = json!({
        "unit": found.unit,
        "vendor": found.identity.vendor,
        "product": found.identity.product,
        "revision": found.identity.revision,
        "name": found.identity.name,
        "functions": functions,
        "note": found.notes.join("; "),
    });
    if found.blocks.is_empty() {
        return vec![row];
    }
    let blocks = found.blocks.iter().enumerate();
    blocks
        .map(|(index, readable)| {
            let mut row = row.clone();
            row["table"] = readable.table.into();
            row["first"] = readable.block.first.into();
            row["last"] = readable.block.last.into();
            row["count"] = readable.block.count().into();
            let mut notes: Vec<&str> = Vec::new();
            if readable.pairs {
                notes.push("only in pairs");
            }
            if index == 0 {
                notes.extend(found.notes.iter().map(String::as_str));
            }
            row["note"] = notes.join("; ").into();
            row
        })
        .collect()
}

/// Whole seconds are exact enough for an estimate.
fn span(span: Duration) -> String {
    let seconds = span.as_secs_f64().ceil();
    if seconds < 90.0 { format!("{seconds} s") } else { format!("{:.0} min", seconds / 60.0) }
}

/// Width of the bar.
const BAR: usize = 24;

fn bar(progress: Progress) {
    let Progress { unit, done, of, found, at } = progress;
    let full = done * BAR / of.max(1);
    let place = at.map_or(String::new(), |(table, address)| format!(" {table}:{address}"));
    eprint!(
        "\r\x1b[K[{}{}] {done} of {of} units, {found} answer; unit {unit}{place}",
        "#".repeat(full),
        "-".repeat(BAR - full),
    );
    std::io::stderr().flush().ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_mistakes_told() {
        assert_eq!(registers("0-199"), Ok(0..=199));
        assert_eq!(registers("40"), Ok(40..=40));
        for bad in ["", "9-3", "x-3", "0-65536", "-3"] {
            assert!(registers(bad).is_err(), "{bad}");
        }
        assert_eq!(units("1-3,9").map(|units| units.0), Ok(vec![(1, 3), (9, 9)]));
        assert!(units("0-300").is_err());
        assert_eq!(pause("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn an_estimate_is_said_in_words_people_use() {
        assert_eq!(span(Duration::from_millis(1200)), "2 s");
        assert_eq!(span(Duration::from_secs(600)), "10 min");
    }
}
