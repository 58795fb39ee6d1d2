//! `forecast`: what one column of a recording will do next, with bands, and when it will reach a
//! limit.

mod series;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use self::series::{Column, TimeForm};
use super::detect::separator;
use super::{Code, Failure};
use crate::analytics::forecast::{self, Forecast, HORIZON_MAX, Passage, Regular};

/// Bands that can be asked for at a time.
const LEVELS_MAX: usize = 8;

/// Forecast one column of a recording, with bands that hold
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints CSV `step,time,mean,lower_80,upper_80,lower_95,upper_95`, one row a step; with --limit a \
second table `quantile,step,time` behind an empty line: when the limit is reached by 10, 50 and 90 % of the possible \
futures (empty: not within the horizon). The season is found in the values; what was found is said on stderr.\n\n\
Example: wheeltap forecast --input temperature.csv --column value --horizon 48 --limit 90"
)]
pub(super) struct Args {
    /// CSV with a header line; `-` is stdin
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Column that is forecast
    #[arg(long, value_name = "COLUMN")]
    column: String,
    /// Steps to forecast; a step is the median distance of the rows
    #[arg(long, value_name = "N", value_parser = horizon)]
    horizon: usize,
    /// Shares of future values that the bands hold, in percent
    #[arg(long, value_name = "P,P", value_delimiter = ',', default_value = "80,95", value_parser = level)]
    level: Vec<f64>,
    /// Also say when this value will be reached
    #[arg(long, value_name = "X", allow_hyphen_values = true, value_parser = finite)]
    limit: Option<f64>,
    /// Column with the time [default: `time`, else the first]
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,
    /// What separates the cells
    #[arg(long, default_value = ",", value_parser = separator)]
    separator: u8,
    /// Where the result goes; stdout without
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn horizon(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|steps| (1..=HORIZON_MAX).contains(steps))
        .ok_or_else(|| format!("1 to {HORIZON_MAX} steps can be forecast"))
}

fn level(text: &str) -> Result<f64, String> {
    finite(text.trim())
        .ok()
        .filter(|level| *level > 0.0 && *level < 100.0)
        .ok_or_else(|| "a band is a percentage between 0 and 100".to_owned())
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value: &f64| value.is_finite())
        .ok_or_else(|| format!("`{text}` is no number"))
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    check_levels(&args.level)?;
    let name = args.input.display().to_string();
    let input: Box<dyn BufRead> = if args.input == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let file =
            File::open(&args.input).map_err(|e| Failure::failed(format!("opening {name}: {e}")))?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let column =
        series::read(input, &name, args.separator, &args.column, args.time_column.as_deref())
            .map_err(Failure::failed)?;
    let of = |error: &dyn std::error::Error| {
        Failure::failed(format!("{name}: column `{}`: {error}", args.column))
    };
    let series = Regular::from_readings(&column.times, &column.values).map_err(|e| of(&e))?;
    let found = forecast::forecast(&series, args.horizon, &args.level).map_err(|e| of(&e))?;
    eprint!("{}", said(&column, &series, &found));
    let text = tables(&column, &series, &found, args.limit);
    let written = match &args.output {
        Some(path) => File::create(path).and_then(|file| write(file, &text)),
        None => write(std::io::stdout().lock(), &text),
    };
    written.map_err(|e| Failure::failed(format!("writing the result: {e}")))
}

fn check_levels(levels: &[f64]) -> Result<(), Failure> {
    let twice = levels
        .iter()
        .enumerate()
        .any(|(at, level)| levels[..at].iter().any(|earlier| earlier.total_cmp(level).is_eq()));
    if twice || levels.len() > LEVELS_MAX {
        let message = format!("--level: at most {LEVELS_MAX} different percentages");
        return Err(Failure::new(Code::Usage, message));
    }
    Ok(())
}

fn write(to: impl Write, text: &str) -> std::io::Result<()> {
    let mut to = BufWriter::new(to);
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// The table of the forecast and, with a limit, that of its quantiles.
fn tables(column: &Column, series: &Regular, found: &Forecast, limit: Option<f64>) -> String {
    let form = TimeForm::of(&column.newest, series.step());
    let time = |step: usize| form.write(series.end() + step as f64 * series.step());
    let mut text = String::from("step,time,mean");
    for band in &found.bands {
        text.push_str(&format!(",lower_{0},upper_{0}", band.level));
    }
    text.push('\n');
    for (at, mean) in found.mean.iter().enumerate() {
        text.push_str(&format!("{},{},{mean}", at + 1, time(at + 1)));
        for band in &found.bands {
            text.push_str(&format!(",{},{}", band.lower[at], band.upper[at]));
        }
        text.push('\n');
    }
    if let Some(limit) = limit {
        let Passage { p10, p50, p90, .. } = found.time_to(limit);
        text.push_str("\nquantile,step,time\n");
        for (name, step) in [("p10", p10), ("p50", p50), ("p90", p90)] {
            match step {
                Some(step) => text.push_str(&format!("{name},{step},{}\n", time(step))),
                None => text.push_str(&format!("{name},,\n")),
            }
        }
    }
    text
}

/// What was done to the rows and found in them, for stderr.
fn said(column: &Column, series: &Regular, found: &Forecast) -> String {
    let notes = series.notes();
    let mut text = String::new();
    let mut line = |said: String| text.push_str(&format!("wheeltap: {said}\n"));
    if notes.unsorted {
        line("rows were not in order of time: sorted".to_owned());
    }
    if notes.doubled > 0 {
        line(format!("{} rows repeat a time: their mean is used", notes.doubled));
    }
    if notes.missing > 0 {
        line(format!("{} rows have no value", notes.missing));
    }
    if notes.filled > 0 {
        let points = series.values().len();
        line(format!("{} of {points} points have no row and were filled", notes.filled));
    }
    let left_out = notes.left_out + column.left_out;
    if left_out > 0 {
        line(format!("the oldest {left_out} points were not looked at"));
    }
    let step = series.step();
    line(match (found.season.period, found.season.found) {
        (Some(period), true) => format!(
            "step {step} s, season of {period} points ({} s){}",
            period as f64 * step,
            found.season.long.map_or_else(String::new, |long| format!(" within {long}"))
        ),
        (Some(_), false) => format!("step {step} s, no season found: a day was tried"),
        (None, _) => format!("step {step} s, no season found"),
    });
    if let Some(shift) = found.shift {
        line(format!("the level moved by {} {} points ago", shift.by, shift.points_ago));
    }
    text
}
