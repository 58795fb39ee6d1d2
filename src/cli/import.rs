//! `import`: history in, through acquisition, as the daemon would have taken it.

use std::io::{BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Code, Failure};
use crate::clock::Clock;
use crate::config;
use crate::domain::reading::RawReading;
use crate::runtime::offline::Offline;
use crate::sources::recording::{Columns, Row, Rows, Wanted};
use crate::store::{ErrorKind, StoreError};

/// Readings taken in with one commit.
const BATCH: usize = 10_000;
/// Bad rows that are named; the rest is counted.
const NAMED_MAX: u64 = 100;

/// Take history into the store, through acquisition, marked historical: it is learnt from, it raises
/// no alarm, and a reading that is there already counts once.
///
/// Long files have the columns time, asset, tag, value and, where they like, quality (good,
/// uncertain or bad) and reason. Wide files, with --asset, have a time column and one column a tag.
/// A row that cannot be read is named by its line and left out; all others are taken in, and the
/// command ends with 1: put right what is wrong and import the whole file again. Refuses with 75
/// while a daemon holds the data directory. The ring keeps its bound: what is imported beyond it
/// overwrites what arrived first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file, CSV with a header line; `-` is stdin
    #[arg(long, value_name = "F.csv")]
    input: PathBuf,
    /// The configuration that declares the tags
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The file is wide: its columns are tags of this asset
    #[arg(long, value_name = "ASSET")]
    asset: Option<String>,
    /// Name of the time column
    #[arg(long, value_name = "C", default_value = "time")]
    time_column: String,
    /// Columns of a wide file that are no tags
    #[arg(long, value_name = "C,C", value_delimiter = ',', requires = "asset")]
    ignore: Vec<String>,
    /// What separates cells
    #[arg(long, value_name = "C", default_value = ",", value_parser = super::detect::separator)]
    separator: u8,
    /// Only read the file and name what is wrong with it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Default)]
struct Counts {
    readings: u64,
    new: u64,
    missing: u64,
    bad: u64,
}

/// Imports.
///
/// # Errors
/// Exit code 75 while a daemon runs, 78 for a wrong configuration, 74 when the disk fails, 1 when a
/// row was wrong.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config =
        config::load(&args.config).map_err(|mistakes| Failure::new(Code::Config, mistakes))?;
    let name = args.input.display().to_string();
    let input: Box<dyn Read> = if name == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = std::fs::File::open(&args.input);
        Box::new(opened.map_err(|error| Failure::failed(format!("opening {name}: {error}")))?)
    };
    let reader = BufReader::with_capacity(1 << 16, input);
    let asset = args.asset.as_deref();
    let columns = asset.map_or(Columns::Long, |asset| Columns::Asset(asset, &args.ignore));
    let layout = Wanted { time: &args.time_column, columns };
    let mut rows = Rows::open(reader, &name, args.separator, &layout).map_err(Failure::failed)?;
    let mut offline = Offline::open(&Arc::new(config), Clock::system())
        .map_err(|error| Failure::new(error.code(), error))?;
    let mut counts = Counts::default();
    let took = take_all(&mut rows, &mut offline, args.dry_run, &mut counts);
    // What was taken in is saved however it ended.
    let closed = offline.close().map_err(|error| disk(&error, "closing the store"));
    took?;
    closed?;
    let Counts { readings, new, missing, bad } = counts;
    if rows.count() == 0 {
        return Err(Failure::failed(format!("{name}: line 2: no rows")));
    }
    let what = if args.dry_run { "could be imported" } else { "imported" };
    let repeats = if args.dry_run { 0 } else { readings - new };
    println!(
        "{} readings {what}, {repeats} were there already, {missing} cells without a value, \
         {bad} bad rows",
        if args.dry_run { readings } else { new },
    );
    if bad > 0 {
        return Err(Failure::failed(format!("{bad} rows of {name} were left out")));
    }
    Ok(())
}

fn take_all<R: Read>(
    rows: &mut Rows<R>,
    offline: &mut Offline,
    dry_run: bool,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let plant = offline.plant();
    let terminal = std::io::stderr().is_terminal();
    let mut batch: Vec<RawReading> = Vec::with_capacity(BATCH);
    let now = offline.now().utc;
    let mut more = true;
    while more {
        more = match rows.next(&plant, now, &mut batch) {
            Row::End => false,
            Row::Taken { missing } => {
                counts.missing += missing;
                true
            }
            Row::Bad(what) => {
                counts.bad += 1;
                if counts.bad <= NAMED_MAX {
                    eprintln!("wheeltap: {what}");
                } else if counts.bad == NAMED_MAX + 1 {
                    eprintln!("wheeltap: further bad rows are only counted");
                }
                true
            }
        };
        if batch.len() < BATCH && more {
            continue;
        }
        counts.readings += batch.len() as u64;
        if dry_run {
            batch.clear();
        } else if !batch.is_empty() {
            let line = rows.line();
            let taken = offline.take(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)));
            counts.new += taken.map_err(|error| {
                disk(&error, &format!("storing what stands before line {line}"))
            })?;
        }
        if terminal {
            eprint!("\r\x1b[K{} readings, line {}", counts.readings, rows.line());
        }
    }
    if terminal {
        eprintln!();
    }
    Ok(())
}

fn disk(error: &StoreError, doing: &str) -> Failure {
    let code = match error.kind() {
        ErrorKind::IoFailed | ErrorKind::Corrupt => Code::Disk,
        ErrorKind::Full
        | ErrorKind::ReadOnly
        | ErrorKind::Busy
        | ErrorKind::TooNew
        | ErrorKind::Unusable
        | ErrorKind::Other => Code::Failed,
    };
    Failure::new(code, format!("{doing}: {error}"))
}
