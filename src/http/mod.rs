//! The HTTP API and the page for a browser on the same network: contract §4.
//!
//! A shell around [`crate::port`]: commands go to the engine and are answered after their commit,
//! questions go to read-only connections of the store on threads of their own. Nothing is decided
//! here.
//!
//! Bounds: [`CONNECTIONS_MAX`] connections, bodies of [`BODY_BYTES_MAX`], a head within
//! [`HEAD_TIMEOUT`], an answer within [`ANSWER_TIMEOUT`], [`STREAMS_MAX`] event streams,
//! [`readers::READERS_MAX`] questions to the store and [`forecast::FORECASTS_MAX`] forecast at a
//! time. What comes beyond waits in the
//! listener's queue, or is refused with 503.

mod actions;
mod forecast;
mod guard;
mod health;
mod history;
mod ingest;
mod json;
mod lists;
mod metrics;
mod models;
mod page;
mod problem;
mod query;
mod readers;
mod server;
mod sources;
mod stream;
mod views;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::agents::Setting;
use crate::domain::ids::SourceId;
use crate::domain::time::{Now, Timestamp};
use crate::port::{Announcements, EngineHandle, SourceHealth, UplinkHealth};

pub use server::serve;

use problem::Problem;
use readers::Readers;

/// Connections at a time; more wait in the listener's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// Event streams at a time, so that they leave connections to others.
pub const STREAMS_MAX: usize = 16;
/// Largest request body.
pub const BODY_BYTES_MAX: usize = 256 << 10;
/// How long a connection may take to send the head of a request, idle time between two included.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a request may take from its head to its answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How each source does; another map when the configuration's sources change.
pub type SourceBoard = Arc<BTreeMap<SourceId, watch::Receiver<SourceHealth>>>;

/// Asks the runtime to read the configuration file again; answered when it is in force, or with
/// what is wrong with it.
pub type ReloadRequest = oneshot::Sender<Result<String, String>>;

/// What the API needs of the daemon; `runtime` fills it in.
#[derive(Clone)]
pub struct ApiState {
    /// Takes commands and readings.
    pub engine: EngineHandle,
    /// What the engine tells.
    pub announcements: Announcements,
    /// The configuration in force.
    pub setting: watch::Receiver<Setting>,
    /// How the sources do.
    pub sources: watch::Receiver<SourceBoard>,
    /// How the uplink does.
    pub uplink: watch::Receiver<UplinkHealth>,
    /// Where `state.db` and `ring.db` lie.
    pub data_dir: PathBuf,
    /// Tells the time.
    pub clock: Arc<dyn Fn() -> Now + Send + Sync>,
    /// When the daemon was started.
    pub started: Timestamp,
    /// Reads the configuration anew; `None` where nobody can.
    pub reload: Option<mpsc::Sender<ReloadRequest>>,
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiState").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// What all handlers share.
#[derive(Clone)]
struct Api(Arc<Shared>);

struct Shared {
    state: ApiState,
    readers: Readers,
    streams: Arc<Semaphore>,
    forecasts: Arc<Semaphore>,
    keys: ingest::KnownKeys,
    /// Where we listen: decides which hosts are ours and whether metrics are open.
    address: SocketAddr,
    stop: tokio_util::sync::CancellationToken,
}

impl std::ops::Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    fn now(&self) -> Now {
        (self.state.clock)()
    }

    fn setting(&self) -> Setting {
        self.state.setting.borrow().clone()
    }
}

/// All routes, for a listener at `address`.
fn router(
    state: ApiState,
    address: SocketAddr,
    stop: tokio_util::sync::CancellationToken,
) -> Router {
    let api = Api(Arc::new(Shared {
        readers: Readers::new(state.data_dir.clone()),
        state,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        forecasts: Arc::new(Semaphore::new(forecast::FORECASTS_MAX)),
        keys: ingest::KnownKeys::default(),
        address,
        stop,
    }));
    let v1 = Router::new()
        .route("/status", get(health::status))
        .route("/stages", get(health::stages))
        .route("/sources", get(sources::list))
        .route("/sources/{name}", get(sources::one))
        .route("/assets", get(lists::assets))
        .route("/assets/{id}", get(lists::asset))
        .route("/tags", get(lists::tags))
        .route("/technicians", get(lists::technicians))
        .route("/alarms", get(lists::alarms))
        .route("/anomalies", get(lists::anomalies))
        .route("/predictions", get(lists::predictions))
        .route("/work-orders", get(lists::work_orders).post(actions::create_order))
        .route("/decisions", get(lists::decisions))
        .route("/dead-letters", get(lists::dead_letters))
        .route("/models", get(lists::models))
        .route("/models", post(models::import).layer(DefaultBodyLimit::max(models::BODY_BYTES_MAX)))
        .route("/models/{id}", get(lists::model))
        .route("/models/{id}/promote", post(models::promote))
        .route("/models/{id}/rollback", post(models::rollback))
        .route("/models/{id}/pin", post(models::pin))
        .route("/assets/{id}/train", post(models::train))
        .route("/events", get(lists::events))
        .route("/readings", get(history::list).post(ingest::take))
        .route("/forecast", get(forecast::one))
        .route("/stream", get(stream::stream))
        .route("/alarms/{id}/ack", post(actions::acknowledge))
        .route("/alarms/{id}/shelve", post(actions::shelve))
        .route("/alarms/{id}/unshelve", post(actions::unshelve))
        .route("/decisions/{id}", get(lists::decision).post(actions::decide))
        .route("/work-orders/{id}", get(lists::work_order))
        .route("/work-orders/{id}/complete", post(actions::complete))
        .route("/work-orders/{id}/reschedule", post(actions::reschedule))
        .route("/work-orders/{id}/cancel", post(actions::cancel))
        .route("/feedback", post(actions::feedback))
        .route("/assets/{id}/relearn", post(actions::relearn))
        .route("/dead-letters/{id}/retry", post(actions::retry))
        .route("/reload", post(actions::reload));
    Router::new()
        .route("/", get(page::html))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .nest("/api/v1", v1)
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(api.clone(), guard::guard))
        .with_state(api)
}
