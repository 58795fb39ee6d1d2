//! `probe`: one poll of one source, and what came of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::{Code, Failure};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::sources::guess::Guess;
use crate::sources::probe::{self, Probed};

/// Ask one source once and show what comes: raw registers or payload, value, quality, round trip.
///
/// Needs no daemon, and changes nothing. A Modbus source is polled once; at an MQTT broker the first
/// message of each tag is awaited. Ends with 1 when the source cannot be reached or no tag has a
/// value, with 64 when the configuration has no such source.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the source, as in [[modbus]] or [[mqtt]]
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Show every register tag under every type and order instead, plausible ones marked with `*`
    ///
    /// Plausible is what, in three reads, stays within the tag's `range` and moves by less than
    /// half of it; without a range, what is zero or of a size that values in engineering units have
    /// (floats 0.0001 to 10 million, integers of 32 bits and more up to 10 million either way) and
    /// moves by less than half. `=` marks what is configured.
    #[arg(long)]
    all: bool,
    /// How long to wait for messages of an MQTT source, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
    /// How the rows are printed
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Columns for people
    Table,
    /// One JSON array
    Json,
    /// Comma-separated, with a header line
    Csv,
}

/// Asks, and prints what came.
///
/// # Errors
/// A configuration that is wrong, a source that is not there, cannot be reached, or has no value.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = config::load(&args.config)
        .map_err(|mistakes| Failure::new(Code::Config, mistakes.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    if args.all {
        return runtime.block_on(ask_all(args, &config));
    }
    let rows = runtime.block_on(ask(args, &config))?;
    let text = match args.format {
        Format::Table => table(&rows),
        Format::Json => {
            format!("{}\n", serde_json::to_string_pretty(&rows).map_err(Failure::failed)?)
        }
        Format::Csv => csv_lines(&rows)?,
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::failed)?;
    if rows.iter().any(|row| row.value.is_some()) {
        Ok(())
    } else {
        let why = rows.iter().find(|row| !row.note.is_empty());
        let why = why.map_or(String::new(), |row| format!(": {}", row.note));
        Err(Failure::failed(format!("no tag of source {} has a value{why}", args.source)))
    }
}

/// `--all`: every tag of registers under every type and order.
async fn ask_all(args: &Args, config: &Config) -> Result<(), Failure> {
    let source = config.modbus.iter().find(|source| source.name.as_str() == args.source);
    let Some(source) = source else {
        let what = format!("--all needs a Modbus source; `{}` is none", args.source);
        return Err(Failure::new(Code::Usage, what));
    };
    let guesses = probe::all_types(source, &Clock::system()).await.map_err(Failure::failed)?;
    let text = match args.format {
        Format::Json => {
            format!("{}\n", serde_json::to_string_pretty(&guesses).map_err(Failure::failed)?)
        }
        Format::Table => columns(&GUESS_HEADER, guesses.iter().map(guess_cells)),
        Format::Csv => separated(&GUESS_HEADER, guesses.iter().map(guess_cells))?,
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::failed)?;
    if guesses.is_empty() {
        return Err(Failure::failed(format!("no register of source {} answers", args.source)));
    }
    Ok(())
}

const GUESS_HEADER: [&str; 7] = ["tag", "raw", "type", "order", "value", "unit", "plausible"];

fn guess_cells(guess: &Guess) -> [String; 7] {
    let mark = match (guess.plausible, guess.configured) {
        (true, true) => "*=",
        (true, false) => "*",
        (false, true) => "=",
        (false, false) => "",
    };
    [
        guess.tag.clone(),
        guess.raw.clone(),
        guess.kind.clone(),
        guess.order.clone(),
        guess.value.map_or(String::new(), |value| value.to_string()),
        guess.unit.clone(),
        mark.to_owned(),
    ]
}

async fn ask(args: &Args, config: &Config) -> Result<Vec<Probed>, Failure> {
    let clock = Clock::system();
    let modbus = config.modbus.iter().find(|source| source.name.as_str() == args.source);
    if let Some(source) = modbus {
        return probe::modbus(source, &clock).await.map_err(Failure::failed);
    }
    let mqtt = config.mqtt.iter().find(|source| source.name.as_str() == args.source);
    if let Some(source) = mqtt {
        let patience = Duration::from_secs(args.wait);
        return probe::mqtt(source, patience, &clock).await.map_err(Failure::failed);
    }
    let modbus = config.modbus.iter().map(|source| source.name.as_str());
    let known: Vec<&str> =
        modbus.chain(config.mqtt.iter().map(|source| source.name.as_str())).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let what = format!("there is no source `{}`; there is: {known}", args.source);
    Err(Failure::new(Code::Usage, what))
}

const HEADER: [&str; 7] = ["tag", "raw", "value", "unit", "quality", "round_trip_ms", "note"];

fn cells(row: &Probed) -> [String; 7] {
    let quality = match row.reason {
        None => row.quality.to_owned(),
        Some(reason) => format!("{}/{reason}", row.quality),
    };
    [
        row.tag.clone(),
        row.raw.clone(),
        match (&row.state, row.value) {
            (Some(state), Some(value)) if row.unit.is_empty() => format!("{state} ({value})"),
            (Some(state), _) => state.clone(),
            (None, value) => value.map_or(String::new(), |value| value.to_string()),
        },
        row.unit.clone(),
        quality,
        row.round_trip_ms.map_or(String::new(), |ms| format!("{ms:.2}")),
        row.note.clone(),
    ]
}

fn table(rows: &[Probed]) -> String {
    columns(&HEADER, rows.iter().map(cells))
}

fn csv_lines(rows: &[Probed]) -> Result<String, Failure> {
    separated(&HEADER, rows.iter().map(cells))
}

/// Columns as wide as what is in them.
fn columns(header: &[&str; 7], rows: impl Iterator<Item = [String; 7]>) -> String {
    let lines: Vec<[String; 7]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for (cell, width) in line.iter().zip(widths) {
            write!(shown, "{cell:<width$}  ").expect("a string takes what is written");
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

fn separated(
    header: &[&str; 7],
    rows: impl Iterator<Item = [String; 7]>,
) -> Result<String, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(header).map_err(Failure::failed)?;
    for row in rows {
        writer.write_record(row).map_err(Failure::failed)?;
    }
    let bytes = writer.into_inner().map_err(|error| Failure::failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Probed {
        Probed {
            tag: "P-101/bearing_temp".to_owned(),
            raw: "42f6 e979".to_owned(),
            value: Some(123.5),
            state: None,
            unit: "°C".to_owned(),
            quality: "bad",
            reason: Some("range"),
            round_trip_ms: Some(1.25),
            note: String::new(),
        }
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let text = table(&[row()]);
        let lines: Vec<&str> = text.lines().collect();
        let column = |line: &str, text: &str| line.split(text).next().map(|s| s.chars().count());
        assert_eq!(column(lines[0], "value"), column(lines[1], "123.5"), "{text}");
        assert_eq!(column(lines[0], "quality"), column(lines[1], "bad/range"), "{text}");
    }

    #[test]
    fn csv_has_a_header_and_a_line_a_tag() {
        let text = csv_lines(&[row()]).unwrap();
        assert_eq!(
            text,
            "tag,raw,value,unit,quality,round_trip_ms,note\n\
             P-101/bearing_temp,42f6 e979,123.5,°C,bad/range,1.25,\n"
        );
    }
}
