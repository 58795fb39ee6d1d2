//! Logs: to the journal natively under systemd, else to stderr as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// How logs look on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the subscriber. `RUST_LOG` (`target=level,…`) refines it; the default is INFO for us and WARN for
/// libraries. Later calls change nothing.
pub fn install(format: Option<LogFormat>, default_filter: &str) {
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = asked.unwrap_or_else(|| {
        default_filter.parse().expect("the filters of this program are well-formed")
    });
    let journal = match format {
        // systemd sets it when our stderr is its journal.
        None if std::env::var_os("JOURNAL_STREAM").is_some() => tracing_journald::layer().ok(),
        None | Some(_) => None,
    };
    let stderr = journal.is_none().then(|| match format.unwrap_or_default() {
        LogFormat::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        }
    });
    // A second installation in one process (tests, demo) keeps the first.
    tracing_subscriber::registry().with(filter).with(journal).with(stderr).try_init().ok();
}

/// The filter of the daemon.
pub const DAEMON_FILTER: &str = "warn,wheeltap=info";
