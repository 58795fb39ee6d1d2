//! `run`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use sd_notify::NotifyState;

use super::{Code, Failure};
use crate::config;
use crate::runtime::clock::{Clock, PLAUSIBLE_FROM};
use crate::runtime::telemetry::{self, LogFormat};
use crate::runtime::watchdog::notify;
use crate::runtime::{Daemon, DaemonOptions, shutdown};
use crate::store::StateReader;

/// Run the daemon until SIGTERM or SIGINT; SIGHUP reads the configuration again
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The configuration; `wheeltap check` says whether it is right.
    #[arg(long, value_name = "FILE", default_value = "/etc/wheeltap/wheeltap.toml")]
    config: PathBuf,
    /// How logs look on stderr; by default text, or the journal under systemd.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Runs the daemon.
///
/// # Errors
/// What kept it from starting, or ended it.
pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    telemetry::install(args.log_format, telemetry::DAEMON_FILTER);
    let config =
        config::load(&args.config).map_err(|mistakes| Failure::new(Code::Config, mistakes))?;
    let mut asked = shutdown::listen().map_err(Failure::failed)?;
    let clock = clock(&config.gateway);
    runtime()?.block_on(async {
        let options =
            DaemonOptions { config: Arc::new(config), config_path: Some(args.config.clone()) };
        let config = options.config.clone();
        let daemon = Daemon::start(options, clock)
            .await
            .map_err(|error| Failure::new(error.code(), error))?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            site = config.gateway.site,
            gateway = config.gateway.id,
            data_dir = %config.gateway.data_dir.display(),
            tags = config.tags().count(),
            http = ?daemon.http,
            "ready"
        );
        notify(&[NotifyState::Ready, NotifyState::Status("running")]);
        daemon.run(&mut asked).await.map_err(|ended| Failure::new(ended.code(), ended))
    })?;
    tracing::info!("stopped");
    Ok(())
}

/// The machine's clock, believed as configured, and not before the last moment of an earlier run.
fn clock(gateway: &config::Gateway) -> Clock {
    // Without an earlier run there is nothing to know; a file that cannot be read is told of later.
    let last = StateReader::open(&gateway.data_dir).and_then(|state| state.last_moment());
    let floor = last.ok().flatten().unwrap_or(PLAUSIBLE_FROM);
    Clock::machine(gateway.clock.clone(), floor)
}

/// The one tokio thread on which all tasks run.
///
/// # Errors
/// When the system gives no thread or no event queue.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)
}
