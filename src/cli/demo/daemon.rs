//! The daemon as the demo sees it: started from a text, ended in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::cli::{Code, Failure};
use crate::config;
use crate::runtime::clock::Clock;
use crate::runtime::daemon::Ended;
use crate::runtime::shutdown::Asked;
use crate::runtime::{Daemon, DaemonOptions, telemetry};

/// Lines of the story go to stdout; stderr is for what is wrong. The broker calls every client that
/// leaves an error.
const LOG_FILTER: &str = "warn,rumqttd=off";

/// A running daemon.
pub(super) struct Running {
    url: String,
    ask: mpsc::Sender<Asked>,
    life: Pin<Box<dyn Future<Output = Result<(), Ended>>>>,
}

/// Starts the daemon with the configuration `text`, changed by `changes` as by the environment.
///
/// # Errors
/// When the configuration is wrong or the daemon cannot start.
pub(super) async fn start(
    text: &str,
    changes: &BTreeMap<String, String>,
) -> Result<Running, Failure> {
    telemetry::install(None, LOG_FILTER);
    let config = config::parse(text, Path::new("config/demo.toml"), changes)
        .map_err(|mistakes| Failure::new(Code::Config, mistakes))?;
    let options = DaemonOptions { config: Arc::new(config), config_path: None };
    let daemon = Daemon::start(options, Clock::system())
        .await
        .map_err(|error| Failure::new(error.code(), error))?;
    let address = daemon.http.ok_or_else(|| Failure::failed("the demo needs its HTTP API"))?;
    let (ask, mut asked) = mpsc::channel(1);
    let life = Box::pin(async move { daemon.run(&mut asked).await });
    Ok(Running { url: format!("http://{address}"), ask, life })
}

impl Running {
    /// Where its HTTP API is, e.g. `http://127.0.0.1:8480`.
    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// Why it ended although nobody asked it to; nothing is left to stop then. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Failure {
        match self.life.as_mut().await {
            Ok(()) => Failure::failed("the daemon ended"),
            Err(ended) => Failure::new(ended.code(), ended),
        }
    }

    /// Ends it in order.
    pub(super) async fn stop(self) {
        // Refused only when the daemon has ended already.
        self.ask.send(Asked::Stop).await.ok();
        if let Err(error) = self.life.await {
            tracing::warn!(%error, "the daemon did not end well");
        }
    }
}
