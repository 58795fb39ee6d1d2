//! The daemon as the demo sees it: started from a text, ended in order.

use std::collections::BTreeMap;

use crate::cli::Failure;

/// A running daemon.
pub(super) enum Running {}

/// Starts the daemon with the configuration `text`, changed by `changes` as by the environment.
///
/// # Errors
/// When the configuration is wrong or the daemon cannot start.
pub(super) async fn start(
    text: &str,
    changes: &BTreeMap<String, String>,
) -> Result<Running, Failure> {
    tracing::debug!(bytes = text.len(), changes = changes.len(), "the demo's configuration");
    Err(Failure::failed("the daemon is not wired into this build"))
}

impl Running {
    /// Where its HTTP API is, e.g. `http://127.0.0.1:8480`.
    pub(super) fn url(&self) -> String {
        match *self {}
    }

    /// Why it ended although nobody asked it to; nothing is left to stop then. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Failure {
        match *self {}
    }

    /// Ends it in order.
    pub(super) async fn stop(self) {
        match self {}
    }
}
