//! The `wheeltap` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    wheeltap::cli::run()
}
