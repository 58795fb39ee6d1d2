//! How each part of the daemon is put under the supervisor.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::daemon::{DaemonError, Part};
use super::deliveries;
use super::jobs::Jobs;
use super::supervisor::Weight;
use super::watchdog::{Heart, ROUND_IDLE, Watch};
use crate::agents::{Effect, Setting};
use crate::clock::Clock;
use crate::domain::ids::SourceId;
use crate::domain::severity::Severity;
use crate::port::{ConditionReport, EngineHandle, GapReport, Input, SourceHealth};
use crate::sources::notes::Notes;
use crate::store::ring_thread::{RingHandle, RingReport};
use crate::uplink::{self, Uplink};
use crate::{http, sources};

/// Starts a task per connection; returns how each source does.
pub(super) fn start_sources(
    part: &mut Part,
    setting: &watch::Receiver<Setting>,
    engine: &EngineHandle,
    clock: &Clock,
    notes: &Notes,
) -> BTreeMap<SourceId, watch::Receiver<SourceHealth>> {
    let mut health = BTreeMap::new();
    let setting = setting.borrow().clone();
    for task in sources::tasks_with(&setting, engine, clock, fastrand::u64(..), notes) {
        health.extend(task.health.clone());
        let stop = part.stop.clone();
        let name = task.name.clone();
        part.tasks.start(&name, Weight::Expendable, move || {
            let run = (task.run)(stop.clone());
            Box::pin(async move { run.await.map_err(|error| chain(&error)) })
        });
    }
    health
}

/// Starts the carrier of effects: messages and jobs.
pub(super) fn start_carrier(
    part: &mut Part,
    effects: mpsc::Receiver<Effect>,
    setting: &watch::Receiver<Setting>,
    engine: &EngineHandle,
    jobs: Jobs,
) {
    let effects = Arc::new(tokio::sync::Mutex::new(effects));
    let (setting, engine, stop) = (setting.clone(), engine.clone(), part.stop.clone());
    part.tasks.start("deliveries", Weight::Essential, move || {
        let (effects, setting, engine) = (effects.clone(), setting.clone(), engine.clone());
        let (jobs, stop) = (jobs.clone(), stop.clone());
        Box::pin(async move {
            // One run at a time holds the receiver; a restarted run takes it over.
            let mut effects = effects.lock().await;
            deliveries::carry(&mut effects, setting, engine, jobs, stop).await
        })
    });
}

/// Starts a task that beats as long as tasks come to run at all, and for the ring's thread as long
/// as its loop comes round.
pub(super) fn start_hearts(part: &mut Part, tasks: Heart, ring: Heart, thread: RingHandle) {
    let stop = part.stop.clone();
    part.tasks.start("hearts", Weight::Essential, move || {
        let (tasks, ring, thread) = (tasks.clone(), ring.clone(), thread.clone());
        let stop = stop.clone();
        Box::pin(async move {
            let mut every = tokio::time::interval(ROUND_IDLE);
            let mut rounds = None;
            loop {
                // Cancel-safe: a tick that is lost comes again.
                tokio::select! {
                    _ = every.tick() => {
                        tasks.beat();
                        let now = Some(thread.rounds());
                        if rounds != now {
                            ring.beat();
                        }
                        rounds = now;
                    }
                    () = stop.cancelled() => {
                        tasks.rest();
                        ring.rest();
                        return Ok(());
                    }
                }
            }
        })
    });
}

/// Starts the uplink; without an upstream in the configuration it idles until there is one.
pub(super) fn start_uplink(part: &mut Part, parts: uplink::Parts) {
    let uplink = Arc::new(tokio::sync::Mutex::new(Uplink::new(parts)));
    let stop = part.stop.clone();
    part.tasks.start("uplink", Weight::Essential, move || {
        let (uplink, stop) = (uplink.clone(), stop.clone());
        Box::pin(async move {
            // One run at a time holds it; a restarted run goes on from what the store knows.
            let mut uplink = uplink.lock().await;
            uplink.run(stop).await.map_err(|error| chain(&error))
        })
    });
}

/// Starts the HTTP server, if the configuration has an address; returns the one it got.
pub(super) async fn start_http(
    part: &mut Part,
    listen: Option<SocketAddr>,
    state: http::ApiState,
) -> Result<Option<SocketAddr>, DaemonError> {
    let Some(address) = listen else { return Ok(None) };
    let failed = |source| DaemonError::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let stop = part.stop.clone();
    part.tasks.start("http", Weight::Expendable, move || {
        let (listener, state, stop) = (listener.try_clone(), state.clone(), stop.clone());
        Box::pin(async move {
            let listener = listener.and_then(tokio::net::TcpListener::from_std);
            let served = match listener {
                Ok(listener) => http::serve(listener, state, stop).await,
                Err(error) => Err(error),
            };
            served.map_err(|error| error.to_string())
        })
    });
    Ok(Some(local))
}

/// Starts the feeding of systemd's watchdog.
pub(super) fn start_watchdog(part: &mut Part, watched: Watch) {
    let stop = part.stop.clone();
    part.tasks.start("watchdog", Weight::Expendable, move || {
        let (watched, stop) = (watched.clone(), stop.clone());
        Box::pin(async move {
            // Cancel-safe: the watchdog holds nothing.
            tokio::select! {
                () = watched.feed() => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        })
    });
}

/// What the ring's thread has to say becomes inputs of the engine.
pub(super) fn ring_reports(engine: EngineHandle) -> impl FnMut(RingReport) + Send + 'static {
    move |report| {
        let condition = |active, severity, message| {
            Input::Condition(ConditionReport {
                condition: "ring-not-committing".to_owned(),
                subject: "ring.db".to_owned(),
                active,
                severity,
                message,
            })
        };
        let input = match report {
            RingReport::Failing { kind, error } => condition(
                true,
                Severity::High,
                format!("readings are not being stored ({kind:?}): {error}"),
            ),
            RingReport::Recovered => {
                condition(false, Severity::High, "readings are being stored again".to_owned())
            }
            RingReport::Corrupt { error } => {
                condition(true, Severity::Critical, format!("ring.db is damaged: {error}"))
            }
            RingReport::Lost(lost) => Input::Gap(GapReport {
                lane: "readings".to_owned(),
                from: lost.from.0,
                to: lost.to.0,
                count: lost.count,
                reason: "the ring could not store them".to_owned(),
            }),
        };
        // An engine that has stopped needs no report.
        engine.blocking_send(input).ok();
    }
}

/// An error with all its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
