//! Waiting for the thing itself, with a deadline; and saying what was not tested.

#![allow(clippy::disallowed_methods, reason = "processes are watched on the wall clock")]

use std::io::Write as _;
use std::time::{Duration, Instant};

/// Nothing a test waits for takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        pause(LOOK_EVERY);
    }
}

/// Lets time pass, where passing time is what is tested.
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Says that a test is skipped and why: past the harness, which hides what a passing test prints,
/// and in the file that `tests/run` counts.
pub(crate) fn skip(needs: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: needs {needs}");
    writeln!(std::io::stderr(), "{line} ({test})").ok();
    if let Some(path) = std::env::var_os("WHEELTAP_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).ok();
    }
}
