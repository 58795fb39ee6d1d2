//! `prognose`: remaining useful life, learnt from run-to-failure histories.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::detect::seconds;
use super::table::{self, Table};
use crate::analytics::model_file::{self, Kind};
use crate::analytics::prognosis::{self, Follower, Learning, Model, Said, Stored, Trial, Unit};

/// Remaining useful life, learnt from units that ran to failure
#[derive(Debug, clap::Args)]
pub(super) struct Prognose {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Train(Train),
    Predict(Predict),
}

/// Learn a model from run-to-failure histories
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each unit's last row is its failure. How models did on units they had not seen is printed on \
stderr. With fewer than 3 units a model is written that stays silent and says why.\n\n\
Example: wheeltap prognose train --input runs.csv --unit-column engine --time-column cycle --output life.model"
)]
struct Train {
    /// CSV with a header line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Column that names the unit
    #[arg(long, value_name = "COLUMN")]
    unit_column: String,
    /// Column with the time: a number, or a date and time
    #[arg(long, value_name = "COLUMN")]
    time_column: String,
    /// Columns that are left out
    #[arg(long, value_name = "COLUMN,COLUMN", value_delimiter = ',')]
    ignore: Vec<String>,
    /// What separates the cells
    #[arg(long, default_value = ",", value_parser = table::separator)]
    separator: u8,
    /// What is drawn follows from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the model goes
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Say how much life is left
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints CSV `unit,time,rul_p10,rul_p50,rul_p90` in the unit of the time column (seconds for dates): \
p10 to p90 is a band of 80 %. Empty cells: nothing can be said; why is printed on stderr.\n\n\
Example: wheeltap prognose predict --model life.model --input now.csv"
)]
struct Predict {
    /// What `train` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// CSV with a header line and the columns of the training; `-` is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// One row for every input row, each from that row and those before it
    #[arg(long)]
    all_rows: bool,
    /// What separates the cells
    #[arg(long, default_value = ",", value_parser = table::separator)]
    separator: u8,
    /// Where the result goes; stdout without
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// One JSON line for every output row: what each column contributes, or why nothing is said
    #[arg(long, value_name = "FILE")]
    explain: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(prognose: &Prognose) -> Result<(), Failure> {
    match &prognose.command {
        Command::Train(args) => train(args),
        Command::Predict(args) => predict(args),
    }
}

/// A unit's rows as they came.
#[derive(Default)]
struct Read {
    unit: Unit,
    /// Numbers of its rows in the table.
    rows: Vec<usize>,
}

/// Units in the order in which they first appear.
fn units(
    table: &Table,
    unit_column: usize,
    time_column: usize,
    values: &[usize],
) -> Result<Vec<(String, Read)>, Failure> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut units: Vec<(String, Read)> = Vec::new();
    for (number, row) in table.rows.iter().enumerate() {
        let name = &row.cells[unit_column];
        if table::is_missing(name) {
            return Err(table.fault(row, "no unit is named"));
        }
        let text = &row.cells[time_column];
        let time = seconds(text).ok_or_else(|| table.fault(row, format!("`{text}` is no time")))?;
        let at = *numbers.entry(name).or_insert(units.len());
        if at == units.len() {
            units.push((name.to_owned(), Read::default()));
        }
        let read = &mut units[at].1;
        if let Some(before) = read.unit.times.last()
            && time <= *before
        {
            let before = &table.rows[read.rows[read.rows.len() - 1]].cells[time_column];
            let what = format!("unit `{name}`: time {text} does not come after {before}");
            return Err(table.fault(row, what));
        }
        read.unit.times.push(time);
        read.rows.push(number);
        for column in values {
            read.unit.values.push(table.number(row, *column)?);
        }
    }
    Ok(units)
}

fn train(args: &Train) -> Result<(), Failure> {
    let table = Table::read(&args.input, args.separator)?;
    let asked = [args.unit_column.as_str(), args.time_column.as_str()];
    let known = table.find(asked)?;
    let ignored = table.find(args.ignore.iter().map(String::as_str).filter(|c| !c.is_empty()))?;
    let values: Vec<usize> = (0..table.header.len())
        .filter(|column| !known.contains(column) && !ignored.contains(column))
        .collect();
    if values.is_empty() {
        return Err(Failure::failed(format!(
            "{}: line 1: no column is left to learn from",
            args.input.display()
        )));
    }
    let columns: Vec<String> = values.iter().map(|column| table.header[*column].clone()).collect();
    let units: Vec<Unit> = units(&table, known[0], known[1], &values)?
        .into_iter()
        .map(|(_, read)| read.unit)
        .collect();
    let (model, trials) = prognosis::learn(&columns, &units, Learning { seed: args.seed });
    eprint!("{}", summary(&model, &trials));
    let stored = Stored {
        unit_column: args.unit_column.clone(),
        time_column: args.time_column.clone(),
        model,
    };
    let bytes = model_file::seal(Kind::Prognosis, &stored).map_err(Failure::failed)?;
    table::write_model(&args.output, &bytes)?;
    eprintln!("{}: {} bytes", args.output.display(), bytes.len());
    Ok(())
}

/// What was learnt and how models did on units they had not seen.
fn summary(model: &Model, trials: &[Trial]) -> String {
    let mut text = format!("{} units ran to failure\n", model.units);
    if let Some(why) = model.silent() {
        return text + &format!("predictions will abstain: {why}\n");
    }
    text += &format!("method: {}", model.method());
    if model.conditions() > 0 {
        text += &format!(", {} operating conditions taken out", model.conditions());
    }
    match model.cap() {
        Some(cap) => {
            let squares: f64 = trials.iter().map(|t| (t.estimate - t.truth.min(cap)).powi(2)).sum();
            let error = (squares / trials.len().max(1) as f64).sqrt();
            text += &format!(
                "\nremaining life counts up to {cap}\nunits not seen in training: RMSE {error:.4} \
                 (of what counts), {} rows\n",
                trials.len()
            );
        }
        None => {
            let logs =
                trials.iter().filter(|t| t.truth > 0.0).map(|t| (t.estimate / t.truth).ln().abs());
            let (sum, count) = logs.fold((0.0, 0.0), |(sum, count), log| (sum + log, count + 1.0));
            let factor = f64::exp(sum / f64::max(count, 1.0));
            text += &format!(
                "\nlives differ manifold\nunits not seen in training: wrong by a factor of {factor:.3} \
                 typically, {count} rows\n"
            );
        }
    }
    let shares = model.importances();
    if !shares.is_empty() {
        let most: Vec<String> = shares
            .iter()
            .take(6)
            .map(|(column, share)| format!("{column} {:.0} %", share * 100.0))
            .collect();
        text += &format!("told apart by: {}\n", most.join(", "));
    }
    text
}

fn predict(args: &Predict) -> Result<(), Failure> {
    let bytes = table::read_model(&args.model)?;
    let stored: Stored = model_file::open(Kind::Prognosis, &bytes)
        .map_err(|why| table::model_fault(&args.model, why))?;
    if !stored.model.is_sound() {
        return Err(table::model_fault(&args.model, "its parts do not fit each other"));
    }
    let table = Table::read(&args.input, args.separator)?;
    let wanted = [stored.unit_column.as_str(), stored.time_column.as_str()];
    let columns = stored.model.columns.iter().map(String::as_str);
    let found = table.find(wanted.into_iter().chain(columns))?;
    let units = units(&table, found[0], found[1], &found[2..])?;
    let mut session = Session {
        explain: args.explain.as_deref().map(table::create).transpose()?.map(BufWriter::new),
        silent: BTreeMap::new(),
    };
    // In the order of the input's rows, whatever units they belong to.
    let mut lines: BTreeMap<(usize, usize), (Said, Option<serde_json::Value>)> = BTreeMap::new();
    for (number, (name, read)) in units.iter().enumerate() {
        let mut follower = Follower::new(&stored.model);
        let width = stored.model.columns.len();
        for (at, row) in read.rows.iter().enumerate() {
            follower.push(read.unit.times[at], &read.unit.values[at * width..(at + 1) * width]);
            if !args.all_rows && at + 1 < read.rows.len() {
                continue;
            }
            let said = follower.answer();
            let why = session.explain.is_some().then(|| {
                explanation(name, &table.rows[*row].cells[found[1]], &said, &mut follower)
            });
            let order = if args.all_rows { (*row, 0) } else { (number, *row) };
            lines.insert(order, (said, why));
        }
    }
    let mut output = BufWriter::with_capacity(1 << 16, table::output(args.output.as_deref())?);
    let mut writer = csv::Writer::from_writer(&mut output);
    let wrong = |e: csv::Error| table::writing(e.into());
    writer.write_record(["unit", "time", "rul_p10", "rul_p50", "rul_p90"]).map_err(wrong)?;
    for (order, (said, why)) in lines {
        let row = &table.rows[if args.all_rows { order.0 } else { order.1 }];
        let cell = |value: f64| value.to_string();
        let cells = match &said {
            Ok(answer) => [cell(answer.p10), cell(answer.p50), cell(answer.p90)],
            Err(_) => [const { String::new() }; 3],
        };
        let first = [&row.cells[found[0]], &row.cells[found[1]]];
        writer
            .write_record(first.into_iter().chain(cells.iter().map(String::as_str)))
            .map_err(wrong)?;
        session.note(said, why)?;
    }
    writer.flush().map_err(table::writing)?;
    drop(writer);
    output.flush().map_err(table::writing)?;
    session.finish()
}

/// What is told beside the result.
struct Session {
    explain: Option<BufWriter<File>>,
    /// Rows of which nothing is said, by reason.
    silent: BTreeMap<String, usize>,
}

impl Session {
    fn note(&mut self, said: Said, why: Option<serde_json::Value>) -> Result<(), Failure> {
        if let Err(silence) = said {
            *self.silent.entry(silence.kind().to_owned()).or_default() += 1;
        }
        if let (Some(explain), Some(why)) = (&mut self.explain, why) {
            writeln!(explain, "{why}").map_err(table::writing)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        if let Some(explain) = &mut self.explain {
            explain.flush().map_err(table::writing)?;
        }
        for (why, rows) in &self.silent {
            eprintln!("abstained on {rows} rows: {why}");
        }
        Ok(())
    }
}

fn explanation(
    unit: &str,
    time: &str,
    said: &Said,
    follower: &mut Follower<'_>,
) -> serde_json::Value {
    match said {
        Err(why) => json!({ "unit": unit, "time": time, "abstained": why.to_string() }),
        Ok(answer) => {
            let mut line = json!({
                "unit": unit, "time": time, "method": follower.model().method(),
                "rul": { "p10": answer.p10, "p50": answer.p50, "p90": answer.p90 },
            });
            if let Some((expected, mut columns)) = follower.contributions() {
                columns.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
                columns.retain(|(_, value)| value.abs() > 0.0);
                let scale = if follower.model().cap().is_some() { "time" } else { "log" };
                let contributions: serde_json::Map<String, serde_json::Value> =
                    columns.into_iter().map(|(column, value)| (column, json!(value))).collect();
                line["scale"] = json!(scale);
                line["expected"] = json!(expected);
                line["contributions"] = json!(contributions);
            }
            line
        }
    }
}

#[cfg(test)]
mod tests;
