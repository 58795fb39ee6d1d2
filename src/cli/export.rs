//! `export`: readings out of the ring, daemon running or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::db::Where;
use super::{Code, Failure};
use crate::domain::ids::{Arrival, TagKey, TagPath};
use crate::domain::reading::Reading;
use crate::domain::time::Timestamp;
use crate::sources::recording::moment;
use crate::store::{RingReader, StateReader};

/// Readings fetched at a time.
const PAGE: usize = 8192;
/// Positions kept under the data directory; with more outputs than these, the command refuses.
const POSITIONS_MAX: usize = 1000;
/// Folder of the positions in the data directory.
const POSITIONS: &str = "exports";

/// Write readings out: time, asset, tag, value, quality and reason, in order of arrival.
///
/// What `import` takes; a reading without a number has an empty value. With --since-last only what
/// arrived since the last time; each output (and choice of tags) has a position of its own, kept
/// under the data directory and moved on once everything has been written, so that an export that
/// breaks off is repeated rather than lost. A file is replaced whole, when all has been written.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Where,
    /// Only this tag: TAG of all assets, or ASSET/TAG; may be repeated
    #[arg(long, value_name = "T")]
    tag: Vec<String>,
    /// Only readings from this time on
    #[arg(long, value_name = "T", value_parser = time)]
    from: Option<Timestamp>,
    /// Only readings before this time
    #[arg(long, value_name = "T", value_parser = time)]
    to: Option<Timestamp>,
    /// How readings are written
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// Only what arrived since the last export to this output
    #[arg(long)]
    since_last: bool,
    /// Where they go; stdout without
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Comma-separated, with a header line
    Csv,
    /// One JSON array
    Json,
}

fn time(text: &str) -> Result<Timestamp, String> {
    moment(text).ok_or_else(|| format!("`{text}` is no moment like 2026-05-01T10:20:30Z"))
}

/// How far an output has been written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Position {
    /// For people.
    output: String,
    /// Numbers of arrivals begin anew with a new ring.
    epoch: u64,
    /// The last arrival that was written.
    arrival: u64,
}

/// Exports.
///
/// # Errors
/// Exit code 78 when there is no data directory, 1 when something cannot be read or written.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let dir = args.place.directory()?;
    let wrong = |what: &'static str| Failure::new(Code::Usage, what);
    if args.from.zip(args.to).is_some_and(|(from, to)| from >= to) {
        return Err(wrong("--from must be earlier than --to"));
    }
    let ring = RingReader::open(&dir).map_err(Failure::failed)?;
    let state = StateReader::open(&dir).map_err(Failure::failed)?;
    let names: BTreeMap<TagKey, TagPath> =
        state.known_tags().map_err(Failure::failed)?.into_iter().map(|(p, k)| (k, p)).collect();
    let tags = chosen(&args.tag, &names)?;
    let epoch = ring.epoch().map_err(Failure::failed)?;
    let place = position_file(&dir, args)?;
    let start = if args.since_last { begin(&place, epoch, &ring)? } else { Arrival(0) };

    let mut written = match &args.output {
        None => Output::new(Box::new(io::stdout().lock()), args.format),
        Some(path) => Output::new(Box::new(beside(path)?), args.format),
    };
    let mut export = || -> io::Result<Result<Arrival, Failure>> {
        written.begin()?;
        let terminal = io::stderr().is_terminal();
        let mut from = start;
        loop {
            let page = match ring.after(from, PAGE) {
                Ok(page) => page,
                Err(error) => return Ok(Err(Failure::failed(error))),
            };
            let Some(last) = page.last() else { break };
            from = last.arrival;
            for reading in &page {
                let wanted = tags.as_ref().is_none_or(|tags| tags.contains(&reading.tag))
                    && args.from.is_none_or(|from| reading.time >= from)
                    && args.to.is_none_or(|to| reading.time < to);
                if let Some(path) = names.get(&reading.tag).filter(|_| wanted) {
                    written.put(path, reading)?;
                }
            }
            if terminal {
                eprint!("\r\x1b[K{} readings", written.count);
            }
        }
        if terminal {
            eprintln!();
        }
        written.end()?;
        Ok(Ok(from))
    };
    let last =
        export().map_err(|error| Failure::failed(format!("writing readings: {error}")))??;
    drop(written);
    if let Some(path) = &args.output {
        let failed = |error| Failure::failed(format!("replacing {}: {error}", path.display()));
        let part = part_of(path);
        File::open(&part).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&part, path).map_err(failed)?;
    }
    if args.since_last {
        let output = output_name(args)?;
        keep(&place, &Position { output, epoch, arrival: last.0.max(start.0) })?;
    }
    Ok(())
}

/// The tags that are asked for; `None` for all.
fn chosen(
    asked: &[String],
    names: &BTreeMap<TagKey, TagPath>,
) -> Result<Option<BTreeSet<TagKey>>, Failure> {
    if asked.is_empty() {
        return Ok(None);
    }
    let mut all = BTreeSet::new();
    for text in asked {
        let fits = |path: &TagPath| path.to_string() == *text || path.tag.as_str() == text;
        let found: Vec<TagKey> =
            names.iter().filter(|(_, path)| fits(path)).map(|(key, _)| *key).collect();
        if found.is_empty() {
            return Err(Failure::failed(format!("the store knows no tag `{text}`")));
        }
        all.extend(found);
    }
    Ok(Some(all))
}

/// The output by its full name, with the tags that go there.
fn output_name(args: &Args) -> Result<String, Failure> {
    let mut name = match &args.output {
        None => "-".to_owned(),
        Some(path) => {
            let full = std::path::absolute(path);
            full.map_err(Failure::failed)?.display().to_string()
        }
    };
    let tags: BTreeSet<&String> = args.tag.iter().collect();
    for tag in tags {
        name.push('\n');
        name.push_str(tag);
    }
    Ok(name)
}

fn position_file(dir: &Path, args: &Args) -> Result<PathBuf, Failure> {
    let digest = Sha256::digest(output_name(args)?.as_bytes());
    let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(dir.join(POSITIONS).join(format!("{name}.json")))
}

/// Where an export since the last one begins.
fn begin(place: &Path, epoch: u64, ring: &RingReader) -> Result<Arrival, Failure> {
    let text = match fs::read_to_string(place) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arrival(0)),
        Err(error) => {
            return Err(Failure::failed(format!("reading {}: {error}", place.display())));
        }
    };
    let position: Position = serde_json::from_str(&text)
        .map_err(|error| Failure::failed(format!("{}: {error}", place.display())))?;
    if position.epoch != epoch {
        eprintln!("the ring is another one than at the last export: all of it is written");
        return Ok(Arrival(0));
    }
    let first = ring.first_arrival().map_err(Failure::failed)?.0;
    let overwritten = first.saturating_sub(position.arrival + 1);
    if overwritten > 0 {
        eprintln!("{overwritten} readings were overwritten since the last export");
    }
    Ok(Arrival(position.arrival))
}

/// Writes a position so that it is whole at any moment.
fn keep(place: &Path, position: &Position) -> Result<(), Failure> {
    let failed =
        |error| Failure::failed(format!("keeping the position in {}: {error}", place.display()));
    let folder = place.parent().expect("a position has a folder");
    fs::create_dir_all(folder).map_err(failed)?;
    let kept = fs::read_dir(folder).map_err(failed)?.count();
    if kept >= POSITIONS_MAX && !place.exists() {
        let what = format!("{kept} outputs have a position already, in {}", folder.display());
        return Err(Failure::failed(what));
    }
    let text = serde_json::to_vec(position).map_err(Failure::failed)?;
    let part = part_of(place);
    let mut file = File::create(&part).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&part, place).map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// What a file is written as until it is whole.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn beside(path: &Path) -> Result<File, Failure> {
    let part = part_of(path);
    File::create(&part)
        .map_err(|error| Failure::failed(format!("creating {}: {error}", part.display())))
}

/// Readings on their way out.
struct Output<'a> {
    out: BufWriter<Box<dyn Write + 'a>>,
    format: Format,
    count: u64,
}

impl<'a> Output<'a> {
    fn new(out: Box<dyn Write + 'a>, format: Format) -> Self {
        Self { out: BufWriter::with_capacity(1 << 16, out), format, count: 0 }
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.format {
            Format::Csv => writeln!(self.out, "time,asset,tag,value,quality,reason"),
            Format::Json => write!(self.out, "["),
        }
    }

    fn put(&mut self, path: &TagPath, reading: &Reading) -> io::Result<()> {
        let TagPath { asset, tag } = path;
        // In full: an export that rounded times could not be imported again.
        let time = reading.time.calendar();
        let quality = reading.quality.as_str();
        let reason = reading.quality.reason();
        match self.format {
            Format::Csv => {
                let (asset, tag) = (asset.as_str(), tag.as_str());
                write!(self.out, "{time},{asset},{tag},")?;
                if !reading.value.is_nan() {
                    write!(self.out, "{}", reading.value)?;
                }
                let reason = reason.map_or("", |reason| reason.as_str());
                writeln!(self.out, ",{quality},{reason}")?;
            }
            Format::Json => {
                let separator = if self.count == 0 { "\n" } else { ",\n" };
                let item = serde_json::json!({
                    "time": time.to_string(),
                    "asset": asset.as_str(),
                    "tag": tag.as_str(),
                    "value": reading.value,
                    "quality": quality,
                    "reason": reason.map(|reason| reason.as_str()),
                });
                write!(self.out, "{separator}{item}")?;
            }
        }
        self.count += 1;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if self.format == Format::Json {
            writeln!(self.out, "\n]")?;
        }
        self.out.flush()
    }
}
