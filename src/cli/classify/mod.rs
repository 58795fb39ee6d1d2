//! `classify`: which class a row belongs to, learnt from labelled rows.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use serde_json::json;

use super::Failure;
use super::table::{self, Table};
use crate::analytics::classify::{self, Cell, Content, Figures, Model};
use crate::analytics::model_file::{self, Kind};

/// Failure classes, learnt from labelled rows
#[derive(Debug, clap::Args)]
pub(super) struct Classify {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Train(Train),
    Predict(Predict),
}

/// Learn a model from labelled rows
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Columns with text are categories. Precision, recall, F1 and PR-AUC by five-fold cross-validation are \
printed beside what always saying the most frequent class would reach.\n\n\
Example: wheeltap classify train --input runs.csv --label failure --ignore serial --output failure.model"
)]
struct Train {
    /// CSV with a header line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Column with the class
    #[arg(long, value_name = "COLUMN")]
    label: String,
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

/// Say which class each row belongs to
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints CSV `row,label,probability`, one row for every input row; the probability is that of the \
printed label.\n\nExample: wheeltap classify predict --model failure.model --input now.csv"
)]
struct Predict {
    /// What `train` wrote
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// CSV with a header line and the columns of the training; `-` is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// From which probability on the rarer of two classes is said
    #[arg(long, value_name = "P", default_value_t = 0.5, value_parser = probability)]
    threshold: f64,
    /// What separates the cells
    #[arg(long, default_value = ",", value_parser = table::separator)]
    separator: u8,
    /// Where the result goes; stdout without
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// One JSON line for every row: probabilities, and what each column adds to the log odds
    #[arg(long, value_name = "FILE")]
    explain: Option<PathBuf>,
}

fn probability(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("a probability is 0 to 1".to_owned()) }
}

/// Runs the command.
pub(super) fn run(classify: &Classify) -> Result<(), Failure> {
    match &classify.command {
        Command::Train(args) => train(args),
        Command::Predict(args) => predict(args),
    }
}

fn cell(text: &str) -> Cell {
    match table::number(text) {
        Some(value) => Cell::Number(value),
        None => Cell::Text(text.to_owned()),
    }
}

fn train(args: &Train) -> Result<(), Failure> {
    let table = Table::read(&args.input, args.separator)?;
    let label = table.find([args.label.as_str()])?[0];
    let ignored = table.find(args.ignore.iter().map(String::as_str).filter(|c| !c.is_empty()))?;
    let values: Vec<usize> = (0..table.header.len())
        .filter(|column| *column != label && !ignored.contains(column))
        .collect();
    if values.is_empty() {
        return Err(Failure::failed(format!(
            "{}: line 1: no column is left to learn from",
            args.input.display()
        )));
    }
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for row in &table.rows {
        let class = &row.cells[label];
        if table::is_missing(class) {
            return Err(table.fault(row, format!("no label in column `{}`", args.label)));
        }
        labels.push(class.to_owned());
        rows.push(values.iter().map(|column| cell(&row.cells[*column])).collect::<Vec<_>>());
    }
    let names: Vec<String> = values.iter().map(|column| table.header[*column].clone()).collect();
    let (model, figures) = classify::learn(&names, &rows, &labels, args.seed)
        .map_err(|why| table::model_fault(&args.input, why))?;
    let bytes = model_file::seal(Kind::Classification, &model).map_err(Failure::failed)?;
    table::write_model(&args.output, &bytes)?;
    print!("{}", report(&model, &figures));
    std::io::stdout().flush().map_err(table::writing)?;
    eprintln!("{}: {} bytes", args.output.display(), bytes.len());
    Ok(())
}

/// The figures as a table.
fn report(model: &Model, figures: &Figures) -> String {
    let width = figures.classes.iter().map(|class| class.class.chars().count()).max().unwrap_or(0);
    let width = width.max("macro mean".len()).max("always the most frequent".len());
    let mut text = format!(
        "{:width$}  {:>7}  {:>9}  {:>6}  {:>6}  {:>6}\n",
        "class", "rows", "precision", "recall", "F1", "PR-AUC"
    );
    let count = figures.classes.len().max(1) as f64;
    let mut sums = [0.0; 4];
    for class in &figures.classes {
        let values = [class.precision, class.recall, class.f1, class.pr_auc];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value / count;
        }
        let [precision, recall, f1, pr_auc] = values;
        text += &format!(
            "{:width$}  {:>7}  {precision:>9.3}  {recall:>6.3}  {f1:>6.3}  {pr_auc:>6.3}\n",
            class.class, class.rows
        );
    }
    if figures.classes.len() > 1 {
        let [precision, recall, f1, pr_auc] = sums;
        text += &format!(
            "{:width$}  {:>7}  {precision:>9.3}  {recall:>6.3}  {f1:>6.3}  {pr_auc:>6.3}\n",
            "macro mean", model.rows
        );
    }
    // Of two classes it never finds the rarer one; of several it finds one, and its area under
    // precision over recall is each class's share of the rows.
    let found = if figures.classes.len() > 1 { 1.0 / count } else { 0.0 };
    let f1 = 2.0 * figures.majority / (1.0 + figures.majority);
    let rows: f64 = figures.classes.iter().map(|class| class.rows as f64).sum();
    let area = rows / count / f64::from(model.rows.max(1));
    text += &format!(
        "{:width$}  {:>7}  {:>9.3}  {found:>6.3}  {:>6.3}  {area:>6.3}\n",
        "always the most frequent",
        "",
        figures.majority * found,
        f1 * found,
    );
    text += &format!(
        "accuracy {:.4}, always the most frequent class {:.4}; Brier score {:.4}\n",
        figures.accuracy, figures.majority, figures.brier
    );
    if let Some(threshold) = figures.best_threshold {
        text += &format!("F1 would be largest at a threshold of {threshold:.2}\n");
    }
    let shares: Vec<String> = model
        .importances()
        .iter()
        .take(6)
        .map(|(column, share)| format!("{column} {:.0} %", share * 100.0))
        .collect();
    text + &format!("told apart by: {}\n", shares.join(", "))
}

fn predict(args: &Predict) -> Result<(), Failure> {
    let bytes = table::read_model(&args.model)?;
    let model: Model = model_file::open(Kind::Classification, &bytes)
        .map_err(|why| table::model_fault(&args.model, why))?;
    if !model.is_sound() {
        return Err(table::model_fault(&args.model, "its parts do not fit each other"));
    }
    let table = Table::read(&args.input, args.separator)?;
    let found = table.find(model.inputs.iter().map(|input| input.name.as_str()))?;
    let mut output = BufWriter::with_capacity(1 << 16, table::output(args.output.as_deref())?);
    let mut explain = args.explain.as_deref().map(table::create).transpose()?.map(BufWriter::new);
    let mut writer = csv::Writer::from_writer(&mut output);
    let wrong = |e: csv::Error| table::writing(e.into());
    writer.write_record(["row", "label", "probability"]).map_err(wrong)?;
    for (number, row) in table.rows.iter().enumerate() {
        let mut cells = Vec::with_capacity(found.len());
        for (input, column) in model.inputs.iter().zip(&found) {
            let text = &row.cells[*column];
            cells.push(match &input.content {
                Content::Numbers => Cell::Number(table.number(row, *column)?),
                Content::Texts(_) => cell(text),
            });
        }
        let inputs = model.inputs_of(&cells);
        let probabilities = model.probabilities(&inputs);
        let (class, p) = model.decide(&probabilities, args.threshold);
        let label = &model.classes[class];
        let number = (number + 1).to_string();
        writer.write_record([number.as_str(), label, &p.to_string()]).map_err(wrong)?;
        if let Some(explain) = &mut explain {
            let (expected, columns) = model.contributions(&inputs, class);
            let named = |values: Vec<(String, f64)>| {
                let values = values.into_iter().map(|(name, value)| (name, json!(value)));
                values.collect::<serde_json::Map<String, serde_json::Value>>()
            };
            let all = model.classes.iter().cloned().zip(probabilities).collect();
            let line = json!({
                "row": number, "label": label, "probabilities": named(all),
                "expected": expected, "contributions": named(columns),
            });
            writeln!(explain, "{line}").map_err(table::writing)?;
        }
    }
    writer.flush().map_err(table::writing)?;
    drop(writer);
    output.flush().map_err(table::writing)?;
    explain.map_or(Ok(()), |mut explain| explain.flush()).map_err(table::writing)
}

#[cfg(test)]
mod tests;
