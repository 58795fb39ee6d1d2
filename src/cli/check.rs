//! `check`: reads a configuration, opens no connection, and says all that is wrong with it.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::{self, Config, ConfigErrors};
use crate::domain::event::Action;

use crate::sources::outlook::{Outlook, outlooks};

use super::{Code, Failure, records};

/// Check a configuration file and report all its mistakes.
///
/// Opens no connection and changes nothing. Prints what the configuration says, and the requests
/// that its Modbus sources will make with the time they take of their lines; warns, on stderr, when
/// they do not fit. `--format csv` prints the requests alone. Mistakes are printed on stderr, one a line, as
/// `FILE:LINE:COLUMN: table.key: what is wrong`; overrides from the environment
/// (WHEELTAP__SECTION__KEY) are checked too. Ends with 0, or with 78 when something is wrong.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How mistakes and the summary are printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Lines for people
    Table,
    /// One JSON document, on stdout in either case
    Json,
    /// The requests to Modbus devices, one a line
    Csv,
}

/// What is printed of a request.
const COLUMNS: [&str; 9] =
    ["connection", "source", "unit", "table", "from", "count", "tags", "every_ms", "ms"];

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match config::load(&args.config) {
        Ok(config) => {
            let plan = outlooks(&config.modbus);
            let out = match args.format {
                Format::Table => format!("{}{}", summary(&config), requests(&plan)),
                Format::Json => format!("{}\n", json_summary(&config, &plan)),
                Format::Csv => records::list(records::Format::Csv, &COLUMNS, &rows(&plan)),
            };
            for warning in plan.iter().flat_map(|line| &line.warnings) {
                eprintln!("warning: {warning}");
            }
            io::stdout().write_all(out.as_bytes()).map_err(Failure::failed)
        }
        Err(errors) => {
            match args.format {
                Format::Table | Format::Csv => eprintln!("{errors}"),
                // A program reads it, and so expects it where results are.
                Format::Json => println!("{}", json_errors(&errors)),
            }
            let (count, s) = (errors.mistakes.len(), plural(errors.mistakes.len()));
            let file = args.config.display();
            Err(Failure::new(Code::Config, format!("{count} mistake{s} in {file}")))
        }
    }
}

fn json_errors(errors: &ConfigErrors) -> serde_json::Value {
    serde_json::json!({ "ok": false, "mistakes": errors.mistakes })
}

fn json_summary(config: &Config, plan: &[Outlook]) -> serde_json::Value {
    let source = |kind: &str, name: &str, address: String, tags: usize| serde_json::json!({ "kind": kind, "name": name, "address": address, "tags": tags });
    let modbus = config.modbus.iter().map(|modbus| {
        source("modbus", modbus.name.as_str(), modbus_address(modbus), modbus.tags.len())
    });
    let mqtt = config.mqtt.iter().map(|mqtt| {
        source("mqtt", mqtt.name.as_str(), broker_address(&mqtt.broker), mqtt.tags.len())
    });
    let replay = config.replay.iter().map(|replay| {
        let file = replay.file.display().to_string();
        source("replay", replay.name.as_str(), file, replay.tags.len())
    });
    serde_json::json!({
        "ok": true,
        "site": config.gateway.site,
        "gateway": config.gateway.id,
        "hash": config.hash,
        "assets": config.assets.len(),
        "technicians": config.technicians.len(),
        "sources": modbus.chain(mqtt).chain(replay).collect::<Vec<_>>(),
        "upstream": config.upstream.as_ref().map(|upstream| broker_address(&upstream.broker)),
        "http": config.http.listen.map(|address| address.to_string()),
        "decisions": config.decisions.len(),
        "requests": rows(plan),
        "lines": plan
            .iter()
            .map(|line| serde_json::json!({ "connection": line.connection, "load": line.load }))
            .collect::<Vec<_>>(),
        "warnings": plan.iter().flat_map(|line| &line.warnings).collect::<Vec<_>>(),
    })
}

/// The requests as records; times in milliseconds.
fn rows(plan: &[Outlook]) -> Vec<serde_json::Value> {
    let ms = |span: std::time::Duration| (span.as_secs_f64() * 1e5).round() / 100.0;
    let requests = plan.iter().flat_map(|line| &line.requests);
    requests
        .map(|request| {
            serde_json::json!({
                "connection": request.connection,
                "source": request.source,
                "unit": request.unit,
                "table": request.table,
                "from": request.from,
                "count": request.count,
                "tags": request.tags,
                "every_ms": ms(request.every),
                "ms": ms(request.takes),
            })
        })
        .collect()
}

/// The requests for people, with the load of each line; nothing without Modbus sources.
fn requests(plan: &[Outlook]) -> String {
    if plan.is_empty() {
        return String::new();
    }
    let table = records::list(records::Format::Table, &COLUMNS, &rows(plan));
    let loads = plan.iter().map(|line| {
        let (count, load) = (line.requests.len(), line.load * 100.0);
        let connection = &line.connection;
        format!("{connection}: {count} request{}, {load:.1} % of the line's time\n", plural(count))
    });
    format!("\n{table}{}", loads.collect::<String>())
}

fn modbus_address(source: &config::ModbusSource) -> String {
    source.link.to_string()
}

fn broker_address(broker: &config::Broker) -> String {
    let scheme = if broker.tls { "mqtts" } else { "mqtt" };
    format!("{scheme}://{}", authority(&broker.host, broker.port))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn summary(config: &Config) -> String {
    let mut lines = vec![format!("ok: gateway {}/{}", config.gateway.site, config.gateway.id)];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<12} {text}"));
    line("hash", config.hash[..12].to_owned());
    line("data", config.gateway.data_dir.display().to_string());
    for asset in &config.assets {
        let tags = config.tags().filter(|(_, tag, _)| tag.path.asset == asset.id).count();
        line(
            "asset",
            format!(
                "{} ({}, criticality {}): {tags} tag{}",
                asset.id,
                asset.class.as_str(),
                asset.criticality.level(),
                plural(tags)
            ),
        );
    }
    for source in &config.modbus {
        let tags = source.tags.len();
        let address = modbus_address(source);
        line("modbus", format!("{} {address}: {tags} tag{}", source.name, plural(tags)));
    }
    for source in &config.mqtt {
        let tags = source.tags.len();
        let address = broker_address(&source.broker);
        line("mqtt", format!("{} {address}: {tags} tag{}", source.name, plural(tags)));
    }
    for source in &config.replay {
        let (tags, file) = (source.tags.len(), source.file.display());
        line("replay", format!("{} {file}: {tags} tag{}", source.name, plural(tags)));
    }
    line("technicians", config.technicians.len().to_string());
    let upstream = config.upstream.as_ref();
    line("upstream", upstream.map_or("off".into(), |upstream| broker_address(&upstream.broker)));
    let tokens = config.http.tokens.len();
    let guarded = if tokens == 0 { "no token".into() } else { format!("{tokens} tokens") };
    let listen = config.http.listen;
    line("http", listen.map_or("off".into(), |address| format!("http://{address} ({guarded})")));
    line("notify", config.notify.len().to_string());
    line("decisions", "the first row that matches counts:".to_owned());
    for (index, row) in config.decisions.iter().enumerate() {
        line("", format!("{}. {}", index + 1, decision(row)));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn decision(row: &config::DecisionRow) -> String {
    let mut conditions = Vec::new();
    if let Some(within) = row.within {
        conditions.push(format!("limit within {}", days(within)));
    }
    if row.min_confidence > 0.0 {
        conditions.push(format!("confidence >= {}", row.min_confidence));
    }
    if row.min_criticality > 1 {
        conditions.push(format!("criticality >= {}", row.min_criticality));
    }
    if row.min_severity > crate::domain::severity::Severity::Low {
        conditions.push(format!("severity >= {}", row.min_severity));
    }
    if conditions.is_empty() {
        conditions.push("always".to_owned());
    }
    let action = match row.action {
        Action::Act => "act: plan an order",
        Action::Ask => "ask a person",
        Action::Watch => "watch",
    };
    format!("{} -> {action}", conditions.join(", "))
}

fn days(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{span:?}"),
    }
}
