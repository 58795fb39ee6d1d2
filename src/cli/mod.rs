//! The command line: one file a subcommand. Results go to stdout, everything else to stderr.

mod check;
mod classify;
mod ctl;
mod demo;
mod detect;
mod export;
mod forecast;
mod import;
mod probe;
mod prognose;
mod records;
mod run;
mod scan;
mod simulate;
mod spectrum;
mod table;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod db;

/// A maintenance engineer on an industrial gateway.
#[derive(Debug, Parser)]
#[command(name = "wheeltap", version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Demo(demo::Arguments),
    Check(check::Args),
    Probe(probe::Args),
    Scan(scan::Args),
    Simulate(simulate::Arguments),
    Detect(detect::Args),
    Forecast(forecast::Args),
    Spectrum(spectrum::Args),
    Export(export::Args),
    Import(import::Args),
    Prognose(prognose::Prognose),
    Classify(classify::Classify),
    Ctl(Box<ctl::Args>),
    Db(db::Db),
}

/// Why a command ended, with the exit code it ends with.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What went wrong; printed with all its sources.
    pub error: Box<dyn std::error::Error + Send + Sync>,
}

/// Exit codes, after `sysexits.h`. systemd does not start again after 64, 75 and 78.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// It failed.
    Failed = 1,
    /// Bad arguments.
    Usage = 64,
    /// The disk failed; a new start verifies the store.
    Disk = 74,
    /// Another daemon holds the directory.
    Busy = 75,
    /// Bad configuration, or a directory that cannot be used.
    Config = 78,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: Code, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { code, error: error.into() }
    }

    /// A plain failure (exit code 1).
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Code::Failed, error)
    }
}

/// The whole chain of causes, once, on one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut source = self.error.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Runs the command line of this process and returns its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version are answers, not mistakes.
            let code = if usage.use_stderr() { Code::Usage as u8 } else { 0 };
            usage.print().ok();
            return ExitCode::from(code);
        }
    };
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("wheeltap: {failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Check(args) => check::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Scan(args) => scan::run(&args),
        Command::Simulate(arguments) => simulate::run(arguments),
        Command::Detect(args) => detect::run(&args),
        Command::Forecast(args) => forecast::run(&args),
        Command::Spectrum(args) => spectrum::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Prognose(prognose) => prognose::run(&prognose),
        Command::Classify(classify) => classify::run(&classify),
        Command::Ctl(args) => ctl::run(*args),
        Command::Db(db) => db::run(&db),
    }
}
