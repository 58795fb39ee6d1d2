//! `detect`: detection and validation on a recording. One asset, one column a tag; every row gets a
//! score and the debounced bit an operator would have got, from the rows up to it alone.
//!
//! The bit is on while an anomaly stands that was confirmed, from the row at which it was: what is
//! dismissed or remains inconclusive raises no alarm in the daemon either. One that was over when
//! it was confirmed shows in that row; the bit stays on while the next one waits for its verdict.

mod figures;
pub(super) mod table;

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use self::figures::Figures;
pub(super) use self::table::seconds;
use self::table::{Layout, Rows};
use super::{Code, Failure};
use crate::agents::acquisition::Acquisition;
use crate::agents::detection::{Detection, Learn};
use crate::agents::validation::Validation;
use crate::agents::{Acquire, IdSource, Outbox, Stage, StageError};
use crate::analytics::calibrate::bounded;
use crate::domain::anomaly::{Anomaly, Verdict};
use crate::domain::asset::{Asset, AssetClass};
use crate::domain::event::{Body, Event};
use crate::domain::ids::{AssetId, EventId, SourceId, TagId, TagKey, TagPath};
use crate::domain::reading::{RawBatch, RawReading, RawValue, Reading, Reason};
use crate::domain::severity::Criticality;
use crate::domain::tag::{Limits, Plant, Tag};
use crate::domain::time::{Now, Timestamp};

/// Columns a recording may have.
const COLUMNS_MAX: usize = 256;
/// `--online` learns this long when nothing is said.
const LEARN: Duration = Duration::from_secs(3600);
/// And this long when rows are at least [`SLOW`] apart: a day, because slow data follow the day.
const LEARN_SLOW: Duration = Duration::from_secs(86_400);
/// See [`LEARN_SLOW`].
const SLOW: Duration = Duration::from_secs(300);
/// Rows from whose distances it is told how far apart rows are.
const ROWS_TO_TELL: usize = 5;

/// Find anomalies in a recording: one asset, one column a tag
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints CSV `time,score,anomaly`, one row for every input row: score in [0,1] (0.5 at the \
limit, 0 while learning), anomaly 0 or 1. With --label, how well both met the labels is printed on stderr.\n\n\
Example: wheeltap detect --input run.csv --time-column time --train-rows 400 --output scores.csv"
)]
pub(super) struct Args {
    /// CSV with a header line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Learn from the first N rows, then score all
    #[arg(long, value_name = "N", conflicts_with = "online")]
    train_rows: Option<u32>,
    /// Score each row before learning from it (the default)
    #[arg(long)]
    online: bool,
    /// How long `--online` learns [default: 1h, or 1d when rows are 5 min apart or more]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    learn: Option<Duration>,
    /// Column with the time; without it rows are one second apart
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,
    /// What separates the cells
    #[arg(long, default_value = ",", value_parser = separator)]
    separator: u8,
    /// Columns that are left out
    #[arg(long, value_name = "COLUMN,COLUMN", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Column that says 1 where there is a fault; left out, and compared with the result
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Where the result goes; stdout without
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// One JSON line for every anomaly: time, fault, pattern, verdict, tags with contributions
    #[arg(long, value_name = "FILE")]
    explain: Option<PathBuf>,
    /// Leave the verdict out: the bit of detection alone
    #[arg(long)]
    no_validation: bool,
}

/// Reads `500ms`, `1s`, `5m`, `12h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("a duration is a number with ms, s, m, h or d, e.g. 12h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` has no number"))?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|span| !span.is_zero())
        .ok_or_else(|| format!("`{text}` is no usable duration"))
}

pub(super) fn separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ if text == "\\t" => Ok(b'\t'),
        _ => Err("the separator is one character".to_owned()),
    }
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let input: Box<dyn BufRead> = if args.input == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(&args.input)
            .map_err(|e| Failure::failed(format!("opening {}: {e}", args.input.display())))?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let name = args.input.display().to_string();
    let mut rows = Rows::open(input, name, args.separator).map_err(Failure::failed)?;
    let layout = rows
        .layout(args.time_column.as_deref(), args.label.as_deref(), &args.ignore)
        .map_err(Failure::failed)?;
    if layout.values.len() > COLUMNS_MAX {
        let found = layout.values.len();
        let message = format!("{found} columns are too many: at most {COLUMNS_MAX}");
        return Err(Failure::new(Code::Failed, message));
    }
    for column in rows.repeated() {
        let name = args.input.display();
        eprintln!(
            "wheeltap: {name}: line 1: the column `{column}` is there more than once: each is judged"
        );
    }
    let output: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(create(path)?),
        None => Box::new(std::io::stdout().lock()),
    };
    let explain = args.explain.as_deref().map(create).transpose()?;
    let mut session = Session::new(args, &layout, output, explain);
    session.write_header()?;
    session.carry_through(&mut rows, &layout)?;
    session.finish()
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|e| Failure::failed(format!("creating {}: {e}", path.display())))
}

/// One recording going through the stages.
struct Session<'a> {
    args: &'a Args,
    output: BufWriter<Box<dyn Write>>,
    explain: Option<BufWriter<File>>,
    stages: Option<Stages>,
    names: Vec<String>,
    /// Rows held back until the distance between rows is known.
    waiting: Vec<Row>,
    figures: Option<Figures>,
    scored_from: u64,
    row: u64,
    /// Time of the row before.
    last: f64,
    /// Rows that are earlier than the one before them, and the line of the first.
    backwards: (u64, u64),
}

/// One row of the input.
#[derive(Debug, Clone)]
struct Row {
    /// Counted from 1, the header included.
    line: u64,
    written: String,
    seconds: f64,
    values: Vec<f64>,
    label: bool,
}

impl<'a> Session<'a> {
    fn new(args: &'a Args, layout: &Layout, output: Box<dyn Write>, explain: Option<File>) -> Self {
        Self {
            args,
            output: BufWriter::with_capacity(1 << 16, output),
            explain: explain.map(BufWriter::new),
            stages: None,
            names: layout.names.clone(),
            waiting: Vec::new(),
            figures: args.label.as_ref().map(|_| Figures::default()),
            scored_from: u64::from(args.train_rows.unwrap_or(0)),
            row: 0,
            last: f64::NEG_INFINITY,
            backwards: (0, 0),
        }
    }

    fn write_header(&mut self) -> Result<(), Failure> {
        writeln!(self.output, "time,score,anomaly").map_err(writing)
    }

    fn carry_through(
        &mut self,
        rows: &mut Rows<Box<dyn BufRead>>,
        layout: &Layout,
    ) -> Result<(), Failure> {
        while let Some(row) = rows.next(layout).map_err(Failure::failed)? {
            if self.stages.is_some() {
                self.judge(row)?;
                continue;
            }
            let known = self.args.train_rows.is_some() || self.args.learn.is_some();
            self.waiting.push(row);
            if known || self.waiting.len() >= ROWS_TO_TELL {
                self.begin()?;
            }
        }
        if self.stages.is_none() {
            if self.waiting.is_empty() {
                return Err(Failure::failed(rows.empty()));
            }
            self.begin()?;
        }
        Ok(())
    }

    /// Makes the stages, now that it is known how long they learn.
    fn begin(&mut self) -> Result<(), Failure> {
        let mut steps: Vec<f64> =
            self.waiting.windows(2).map(|pair| pair[1].seconds - pair[0].seconds).collect();
        let apart = crate::analytics::stats::median(&mut steps);
        let learn = match (self.args.train_rows, self.args.learn) {
            (Some(rows), _) => Learn::Rows(rows),
            (None, Some(span)) => Learn::Seconds(span.as_secs_f64()),
            (None, None) if apart >= SLOW.as_secs_f64() => Learn::Seconds(LEARN_SLOW.as_secs_f64()),
            (None, None) => Learn::Seconds(LEARN.as_secs_f64()),
        };
        self.stages = Some(Stages::new(self.names.len(), learn, !self.args.no_validation));
        for row in std::mem::take(&mut self.waiting) {
            self.judge(row)?;
        }
        Ok(())
    }

    fn judge(&mut self, row: Row) -> Result<(), Failure> {
        let stages = self.stages.as_mut().expect("made before the first row is judged");
        let judged = stages.judge(&row)?;
        self.row += 1;
        if row.seconds < self.last {
            if self.backwards.0 == 0 {
                self.backwards.1 = row.line;
            }
            self.backwards.0 += 1;
        }
        self.last = row.seconds;
        writeln!(self.output, "{},{},{}", row.written, judged.score, u8::from(judged.anomalous))
            .map_err(writing)?;
        if let Some(explain) = &mut self.explain {
            for (anomaly, verdict) in &judged.risen {
                let tags: Vec<_> = anomaly
                    .evidence
                    .iter()
                    .map(|e| {
                        json!({
                            "tag": self.names[column_of(&e.tag)], "value": e.value,
                            "expected": e.expected, "sigma": e.sigma,
                            "contribution": e.contribution,
                        })
                    })
                    .collect();
                let line = json!({
                    "time": row.written, "fault": anomaly.fault, "pattern": anomaly.pattern,
                    "verdict": verdict, "score": anomaly.score, "severity": anomaly.severity,
                    "confidence": anomaly.confidence, "tags": tags,
                });
                writeln!(explain, "{line}").map_err(writing)?;
            }
        }
        if self.row > self.scored_from
            && let Some(figures) = &mut self.figures
        {
            figures.push(row.seconds, row.label, judged.score, judged.anomalous);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.output.flush().map_err(writing)?;
        if let Some(explain) = &mut self.explain {
            explain.flush().map_err(writing)?;
        }
        for warning in self.warnings() {
            eprintln!("wheeltap: {}: {warning}", self.args.input.display());
        }
        if let Some(figures) = &self.figures {
            eprint!("{}", figures.table());
        }
        Ok(())
    }
}

impl Session<'_> {
    /// What the result does not show by itself.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.row <= self.scored_from {
            warnings.push(format!(
                "all {} rows were learnt from (--train-rows {}): none was judged",
                self.row, self.scored_from
            ));
        }
        if let (count @ 1.., line) = self.backwards {
            warnings.push(format!(
                "time runs backwards in {count} rows, first at line {line}: they are judged in the \
                 order they stand, as if no time had passed"
            ));
        }
        warnings
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form map_err wants")]
fn writing(error: std::io::Error) -> Failure {
    Failure::failed(format!("writing the result: {error}"))
}

/// Tags are named by their column, because a header may hold any text.
fn tag_of(column: usize) -> TagId {
    TagId::new(&format!("c{column}")).expect("a letter and digits are an identifier")
}

fn column_of(tag: &TagId) -> usize {
    tag.as_str()[1..].parse().expect("made by tag_of")
}

/// The stages a recording goes through.
struct Stages {
    acquisition: Acquisition,
    detection: Detection,
    /// None: the bit of detection alone.
    validation: Option<Validation>,
    /// Anomalies that were confirmed and are not over.
    confirmed: BTreeSet<EventId>,
    /// Those without a verdict: they keep the bit on, they do not set it.
    waiting: BTreeSet<EventId>,
    on: bool,
    ids: IdSource,
    asset: AssetId,
    source: SourceId,
    start: Option<f64>,
    /// Never runs backwards, whatever the recording's times do.
    mono: Duration,
    raws: Vec<RawReading>,
    readings: Vec<Reading>,
}

/// What became of one row.
struct Judged {
    score: f64,
    anomalous: bool,
    /// Anomalies by which the bit rose, with their verdicts.
    risen: Vec<(Anomaly, Option<Verdict>)>,
}

impl Stages {
    fn new(columns: usize, learn: Learn, validated: bool) -> Self {
        let asset = AssetId::new("recording").expect("a plain word is an identifier");
        let source = SourceId::new("recording").expect("a plain word is an identifier");
        let tags = (0..columns).map(|column| Tag {
            key: TagKey(u32::try_from(column).expect("columns are few")),
            path: TagPath { asset: asset.clone(), tag: tag_of(column) },
            source: source.clone(),
            unit: String::new(),
            quantity: String::new(),
            scale: 1.0,
            offset: 0.0,
            range: None,
            invalid: Vec::new(),
            limits: Limits::default(),
            period: None,
            discrete: false,
            handling: crate::domain::tag::Handling::default(),
        });
        let machine = Asset {
            id: asset.clone(),
            name: asset.to_string(),
            class: AssetClass::Other,
            criticality: Criticality::DEFAULT,
            bearing: None,
            rated_rpm: None,
            iso20816_group: None,
        };
        let plant = Arc::new(Plant::new([machine], tags));
        Self {
            acquisition: Acquisition::for_plant(&plant),
            validation: validated.then(|| Validation::for_plant(Arc::clone(&plant))),
            detection: Detection::for_plant(plant, learn),
            confirmed: BTreeSet::new(),
            waiting: BTreeSet::new(),
            on: false,
            ids: IdSource::new(0),
            asset,
            source,
            start: None,
            mono: Duration::ZERO,
            raws: Vec::new(),
            readings: Vec::new(),
        }
    }

    fn judge(&mut self, row: &Row) -> Result<Judged, Failure> {
        let start = *self.start.get_or_insert(row.seconds);
        #[expect(clippy::cast_possible_truncation, reason = "saturates at the ends of the range")]
        let utc = Timestamp::from_micros((row.seconds * 1e6).round() as i64);
        let mono =
            Duration::try_from_secs_f64(row.seconds - start).unwrap_or_default().max(self.mono);
        self.mono = mono;
        let now = Now { mono, utc, trusted: true };
        self.raws.clear();
        self.raws.extend(row.values.iter().zip(0..).map(|(value, column)| RawReading {
            tag: TagKey(column),
            source_time: None,
            arrived: utc,
            value: if value.is_nan() {
                RawValue::Failed(Reason::Nan)
            } else {
                RawValue::Number(*value)
            },
            retained: false,
        }));
        let readings = std::mem::take(&mut self.raws);
        let batch = RawBatch {
            source: self.source.clone(),
            readings,
            extras: None,
            ack: None,
            historical: false,
        };
        self.readings.clear();
        self.acquisition.judge(now, &batch, &mut self.readings);
        self.raws = batch.readings;
        let failed = |e: StageError| Failure::failed(e);
        let mut out = Outbox::new(now, &mut self.ids, None);
        self.detection.on_readings(now, &self.readings, false, &mut out).map_err(failed)?;
        if self.detection.next_deadline().is_some_and(|at| at <= now.mono) {
            self.detection.on_deadline(now, &mut out).map_err(failed)?;
        }
        let said = std::mem::take(&mut out.events);
        let latest = self.detection.assessment(&self.asset).unwrap_or_default();
        let score = bounded(latest.ratio);
        if self.validation.is_none() {
            let first = said.into_iter().filter(|event| event.cause.is_none());
            let risen = first.filter_map(|event| {
                let Body::AnomalyDetected(anomaly) = event.body else { return None };
                Some((anomaly, None))
            });
            return Ok(Judged { score, anomalous: latest.anomalous, risen: risen.collect() });
        }
        let risen = self.validate(now, said).map_err(failed)?;
        // One departure often goes over into the next (a sensor's into its machine's): no new alarm
        // begins while the next one is being looked at.
        let goes_on = self.on && !self.waiting.is_empty();
        let anomalous = !self.confirmed.is_empty() || !risen.is_empty() || goes_on;
        self.on = anomalous;
        Ok(Judged { score, anomalous, risen })
    }

    /// Lets validation see the row and what detection said of it; what was confirmed by that.
    fn validate(
        &mut self,
        now: Now,
        said: Vec<Event>,
    ) -> Result<Vec<(Anomaly, Option<Verdict>)>, StageError> {
        let Some(validation) = &mut self.validation else { return Ok(Vec::new()) };
        let mut risen = Vec::new();
        let mut waiting = VecDeque::from(said);
        let mut over = Vec::new();
        let mut out = Outbox::new(now, &mut self.ids, None);
        validation.on_readings(now, &self.readings, false, &mut out)?;
        if validation.next_deadline().is_some_and(|at| at <= now.mono) {
            validation.on_deadline(now, &mut out)?;
        }
        waiting.extend(out.events);
        while let Some(event) = waiting.pop_front() {
            let mut out = Outbox::new(now, &mut self.ids, None);
            validation.on_event(now, &event, &mut out)?;
            // A verdict at the end comes before the end.
            for event in out.events.into_iter().rev() {
                waiting.push_front(event);
            }
            if let Body::AnomalyDetected(_) = event.body
                && event.cause.is_none()
            {
                self.waiting.insert(event.id);
            } else if let Body::AnomalyValidated(said) = event.body {
                self.waiting.remove(&said.anomaly_id);
                if said.verdict == Verdict::Confirmed {
                    if !over.contains(&said.anomaly_id) {
                        self.confirmed.insert(said.anomaly_id);
                    }
                    risen.push((said.anomaly, Some(said.verdict)));
                } else {
                    self.confirmed.remove(&said.anomaly_id);
                }
            } else if let Body::AnomalyEnded { anomaly, .. } = event.body {
                self.confirmed.remove(&anomaly);
                self.waiting.remove(&anomaly);
                over.push(anomaly);
            }
        }
        Ok(risen)
    }
}

#[cfg(test)]
mod tests;
