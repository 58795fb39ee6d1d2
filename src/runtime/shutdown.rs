//! Signals: the first SIGTERM or SIGINT stops in order, the second ends the process at once; SIGHUP
//! reloads. SIGPIPE and SIGXFSZ are ignored: a closed log or a file limit is an error to handle,
//! not a reason to die.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Stop in order.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Requests that may wait; a repeated reload adds nothing.
const WAITING_MAX: usize = 4;

/// Listens for signals on a thread of its own.
///
/// # Errors
/// When the handlers cannot be installed or the thread cannot be started.
pub fn listen() -> io::Result<mpsc::Receiver<Asked>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGXFSZ])?;
    let (asked, receiver) = mpsc::channel(WAITING_MAX);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGTERM | SIGINT if stopping => {
                    // The person means it. State that was promised is on disk already.
                    std::process::exit(i32::from(crate::cli::Code::Failed as u8));
                }
                SIGTERM | SIGINT => {
                    stopping = true;
                    if asked.blocking_send(Asked::Stop).is_err() {
                        return;
                    }
                }
                SIGHUP => {
                    // Full means that a reload waits already.
                    asked.try_send(Asked::Reload).ok();
                }
                _ => {}
            }
        }
    })?;
    Ok(receiver)
}

/// A token that the first SIGINT or SIGTERM cancels, for commands that serve until they are stopped
/// and are not the daemon; the second one ends the process at once.
///
/// # Errors
/// As [`listen`].
pub fn token() -> io::Result<CancellationToken> {
    let mut asked = listen()?;
    let token = CancellationToken::new();
    let stop = token.clone();
    thread::Builder::new().name("stop".to_owned()).spawn(move || {
        while let Some(asked) = asked.blocking_recv() {
            match asked {
                Asked::Stop => stop.cancel(),
                // There is nothing to read again.
                Asked::Reload => {}
            }
        }
    })?;
    Ok(token)
}
