//! `db info|verify`: what the two database files hold, and whether they are whole.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Code, Failure};
use crate::store::inspect;

/// Look into the database files of a data directory, daemon running or not
#[derive(Debug, Args)]
pub struct Db {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Size, span and counts of the journal and of the ring.
    Info(Asked),
    /// Checks structure, checksums, bodies and sequences; exit code 1 when something is wrong.
    Verify(Asked),
}

#[derive(Debug, Args)]
struct Asked {
    #[command(flatten)]
    place: Where,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Which data directory.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// The configuration that names the data directory.
    #[arg(long, value_name = "FILE", required_unless_present = "data_dir")]
    config: Option<PathBuf>,
    /// The data directory itself.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Exit code 1 when a file cannot be read or `verify` found a fault, 78 when there is no such
/// directory.
pub fn run(db: &Db) -> Result<(), Failure> {
    match &db.action {
        Action::Info(asked) => info(asked),
        Action::Verify(asked) => verify(asked),
    }
}

impl Where {
    /// The directory.
    ///
    /// # Errors
    /// Exit code 78 when there is none, or the configuration is wrong.
    pub(super) fn directory(&self) -> Result<PathBuf, Failure> {
        let dir = match (&self.data_dir, &self.config) {
            (Some(dir), _) => dir.clone(),
            (None, Some(file)) => {
                let config = crate::config::load(file);
                config.map_err(|mistakes| Failure::new(Code::Config, mistakes))?.gateway.data_dir
            }
            (None, None) => return Err(Failure::new(Code::Usage, "--config or --data-dir")),
        };
        if dir.is_dir() {
            return Ok(dir);
        }
        Err(Failure::new(Code::Config, format!("{} is no directory", dir.display())))
    }
}

fn info(asked: &Asked) -> Result<(), Failure> {
    let dir = asked.place.directory()?;
    let files = inspect::info(&dir).map_err(Failure::failed)?;
    let mut text = String::new();
    match asked.format {
        Format::Json => {
            let file_json = |file: &inspect::FileInfo| {
                let name = serde_json::json!(file.file);
                let facts = file.facts.iter().map(|(fact, value)| {
                    let value = value.parse::<u64>().map_or_else(
                        |_| value.parse::<bool>().map_or(serde_json::json!(value), Into::into),
                        Into::into,
                    );
                    (fact.replace(' ', "_"), value)
                });
                let mut object: serde_json::Map<_, _> = facts.collect();
                object.insert("file".to_owned(), name);
                serde_json::Value::Object(object)
            };
            let all: Vec<_> = files.iter().map(file_json).collect();
            text = format!("{:#}\n", serde_json::json!({ "files": all }));
        }
        Format::Table => {
            for file in &files {
                text.push_str(&format!("{}\n", file.file.display()));
                for (fact, value) in &file.facts {
                    text.push_str(&format!("  {fact:<28} {value}\n"));
                }
            }
            if files.is_empty() {
                text.push_str("no database yet\n");
            }
        }
    }
    print(&text)
}

fn verify(asked: &Asked) -> Result<(), Failure> {
    let dir = asked.place.directory()?;
    let terminal = std::io::stderr().is_terminal();
    let files = inspect::verify(&dir, |checked| {
        if terminal {
            eprint!("\r{checked} rows checked");
        }
    })
    .map_err(Failure::failed)?;
    if terminal {
        eprintln!();
    }
    let faults: u64 = files.iter().map(|file| file.fault_count).sum();
    let mut text = String::new();
    match asked.format {
        Format::Json => {
            text = format!("{:#}\n", serde_json::json!({ "ok": faults == 0, "files": files }));
        }
        Format::Table => {
            for file in &files {
                let verdict = if file.fault_count == 0 {
                    "ok".into()
                } else {
                    format!("{} faults", file.fault_count)
                };
                let name = file.file.display();
                text.push_str(&format!("{name}: {} rows checked, {verdict}\n", file.checked));
                for fault in &file.faults {
                    text.push_str(&format!("  {fault}\n"));
                }
            }
        }
    }
    print(&text)?;
    if faults > 0 {
        return Err(Failure::failed(format!("{faults} faults found")));
    }
    Ok(())
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::failed)
}
