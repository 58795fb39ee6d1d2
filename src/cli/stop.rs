//! Ctrl-C for the commands that serve until they are stopped and are not the daemon.

use std::io;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio_util::sync::CancellationToken;

use super::Code;

/// A token that the first SIGINT or SIGTERM cancels; the second one ends the process at once.
///
/// # Errors
/// When the handlers cannot be installed or the thread that waits for signals cannot be started.
pub(super) fn on_signal() -> io::Result<CancellationToken> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let token = CancellationToken::new();
    let stop = token.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            if stop.is_cancelled() {
                std::process::exit(i32::from(Code::Failed as u8));
            }
            stop.cancel();
        }
    })?;
    Ok(token)
}
