//! `wheeltap simulate`: the simulated plant alone, as a Modbus TCP server.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Code, Failure};
use crate::config;
use crate::runtime::shutdown;
use crate::sim::{COPIES_MAX, Plant, REGISTERS, Register, SCENARIOS, SPEED_MAX, Scenario, Server};

/// Serve the simulated plant over Modbus TCP until Ctrl-C.
///
/// Two pumps, a fan and a gearbox, each a unit of its own. The register map is printed first; where
/// the server listens stands on stderr.
///
/// Scenarios: healthy; demo (bearing wear on P-101, a stuck sensor on F-201, a seal leak on P-102,
/// all within the first minute); bearing-wear, seal-leak, stuck-sensor, noisy-sensor (one each, after
/// five minutes); dropout (sensors that answer exception 04 or a sentinel, 15 s of each minute);
/// shutdowns (each machine stands still for ten minutes an hour).
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Address to listen at; port 0 takes any free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5020")]
    listen: SocketAddr,
    /// What happens to the plant.
    #[arg(long, value_name = "NAME", default_value = "healthy", value_parser = scenario)]
    scenario: Scenario,
    /// One seed gives one course of things.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many times faster than real time the plant lives: wear, warmth and days.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// What goes wrong on the line: a TOML script like config/faults.toml
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// How many times the machines are there: four unit ids each time
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(COPIES_MAX)))]
    copies: u8,
    /// Print the names of the scenarios and end
    #[arg(long)]
    list_scenarios: bool,
    /// How the register map is printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Csv,
}

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::named(name)
        .ok_or_else(|| format!("no such scenario; there are {}", SCENARIOS.join(", ")))
}

/// A positive factor up to [`SPEED_MAX`].
pub(super) fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor > 0.0 && factor <= SPEED_MAX => Ok(factor),
        Ok(_) | Err(_) => Err(format!("a number above 0 and up to {SPEED_MAX} is wanted")),
    }
}

/// Runs the command.
pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { listen, scenario, seed, speed, faults, copies, list_scenarios, format } =
        arguments;
    if list_scenarios {
        let names = format!("{}\n", SCENARIOS.join("\n"));
        return io::stdout().write_all(names.as_bytes()).map_err(Failure::failed);
    }
    let faults = match faults {
        None => config::FaultScript::default(),
        Some(file) => {
            config::load_faults(&file).map_err(|mistakes| Failure::new(Code::Config, mistakes))?
        }
    };
    let stop = shutdown::token().map_err(Failure::failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::failed)?.block_on(async {
        let name = scenario.name;
        let plant = Plant::new(scenario, seed);
        let server = Server::bind(listen, plant, speed)
            .await
            .map_err(|error| Failure::failed(format!("listening at {listen}: {error}")))?;
        let rules = faults.rules.len();
        let server = server.with_faults(faults, seed).with_copies(copies);
        print_map(format, io::stdout().lock()).map_err(|error| {
            Failure::new(Code::Failed, format!("printing the register map: {error}"))
        })?;
        let rules = if rules == 0 { String::new() } else { format!(", {rules} fault rules") };
        eprintln!(
            "serving scenario `{name}`, seed {seed}, {speed} times real time{rules}, at tcp://{}",
            server.local_addr()
        );
        server.run(stop).await.map_err(Failure::failed)
    })
}

fn print_map(format: Format, mut out: impl Write) -> io::Result<()> {
    match format {
        Format::Table => {
            writeln!(
                out,
                "{:<26} {:>4}  {:<12} {:<5} {:<6} {:>6}  unit",
                "tag", "id", "point", "type", "order", "scale"
            )?;
            for register in REGISTERS {
                let Register { unit, encoding, scale, signal, .. } = register;
                writeln!(
                    out,
                    "{:<26} {unit:>4}  {:<12} {:<5} {:<6} {scale:>6}  {}",
                    register.path(),
                    register.point(),
                    encoding.kind(),
                    encoding.order().unwrap_or("-"),
                    signal.unit(),
                )?;
            }
        }
        Format::Csv => {
            writeln!(out, "asset,tag,unit_id,point,type,order,scale,unit")?;
            for register in REGISTERS {
                let Register { asset, unit, encoding, scale, signal, .. } = register;
                writeln!(
                    out,
                    "{asset},{},{unit},{},{},{},{scale},{}",
                    signal.tag(),
                    register.point(),
                    encoding.kind(),
                    encoding.order().unwrap_or_default(),
                    signal.unit(),
                )?;
            }
        }
        Format::Json => {
            let rows: Vec<_> = REGISTERS
                .iter()
                .map(|register| {
                    serde_json::json!({
                        "asset": register.asset,
                        "tag": register.signal.tag(),
                        "unit_id": register.unit,
                        "point": register.point(),
                        "type": register.encoding.kind(),
                        "order": register.encoding.order(),
                        "scale": register.scale,
                        "unit": register.signal.unit(),
                    })
                })
                .collect();
            writeln!(out, "{}", serde_json::Value::Array(rows))?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format) -> String {
        let mut out = Vec::new();
        print_map(format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_map_lists_every_register_in_every_format() {
        assert_eq!(printed(Format::Table).lines().count(), REGISTERS.len() + 1);
        let csv = printed(Format::Csv);
        assert_eq!(csv.lines().count(), REGISTERS.len() + 1);
        assert!(csv.lines().all(|line| line.split(',').count() == 8));
        let json: serde_json::Value = serde_json::from_str(&printed(Format::Json)).unwrap();
        assert_eq!(json.as_array().unwrap().len(), REGISTERS.len());
        assert_eq!(json[0]["point"], "holding:100");
    }

    #[test]
    fn speeds_that_make_no_sense_are_refused() {
        for bad in ["0", "-1", "NaN", "inf", "fast", "100000"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
        assert_eq!(speed("2.5"), Ok(2.5));
    }
}
