//! How each part of the daemon is put under the supervisor.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};

use super::daemon::{DaemonError, Part};
use super::jobs::Jobs;
use super::supervisor::Weight;
use super::watchdog::{Heart, ROUND_IDLE, Watch};
use super::deliveries;
use crate::agents::{Effect, Setting};
use crate::clock::Clock;
use crate::domain::ids::{Arrival, SourceId};
use crate::domain::severity::Severity;
use crate::port::{ConditionReport, EngineHandle, GapReport, Input, SourceHealth};
use crate::store::StoreError;
use crate::store::ring::RingReader;
use crate::store::ring_thread::RingReport;
use crate::store::state::StateReader;
use crate::uplink::reading_lane::{Page, PageRequest};
use crate::uplink::{ReadJournal, ReadRing, Uplink};
use crate::{http, sources};

/// Starts a task per connection; returns how each source does.
pub(super) fn start_sources(
    part: &mut Part,
    setting: &watch::Receiver<Setting>,
    engine: &EngineHandle,
    clock: &Clock,
) -> BTreeMap<SourceId, watch::Receiver<SourceHealth>> {
    let mut health = BTreeMap::new();
    let setting = setting.borrow().clone();
    for task in sources::tasks(&setting, engine, clock, fastrand::u64(..)) {
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

/// Starts a task that beats as long as tasks come to run at all.
pub(super) fn start_loop_heart(part: &mut Part, heart: Heart) {
    let stop = part.stop.clone();
    part.tasks.start("heart", Weight::Essential, move || {
        let (heart, stop) = (heart.clone(), stop.clone());
        Box::pin(async move {
            let mut every = tokio::time::interval(ROUND_IDLE);
            loop {
                // Cancel-safe: a tick that is lost comes again.
                tokio::select! {
                    _ = every.tick() => heart.beat(),
                    () = stop.cancelled() => {
                        heart.rest();
                        return Ok(());
                    }
                }
            }
        })
    });
}

/// Starts the uplink, if the configuration has one.
pub(super) fn start_uplink(part: &mut Part, uplink: Uplink) {
    // Its lanes live in it: a run that panicked leaves nothing to go on from, so the daemon ends
    // and takes up from the saved positions.
    let mut uplink = Some(uplink);
    let stop = part.stop.clone();
    part.tasks.start("uplink", Weight::Essential, move || {
        let (uplink, stop) = (uplink.take(), stop.clone());
        Box::pin(async move {
            let Some(uplink) = uplink else {
                return Err("the uplink cannot be started twice in one process".to_owned());
            };
            uplink.run(stop).await;
            Ok(())
        })
    });
}

/// The uplink's way to the journal: each page on a connection of its own, opened when first needed.
pub(super) fn read_journal(dir: PathBuf) -> ReadJournal {
    let reader = Mutex::new(None);
    Arc::new(move |row, limit| {
        let mut reader = reader.lock().map_err(|_| "a reader panicked".to_owned())?;
        let opened: &mut StateReader = match &mut *reader {
            Some(opened) => opened,
            None => reader.insert(StateReader::open(&dir).map_err(|error| chain(&error))?),
        };
        opened.journal_after(row, limit).map_err(|error| chain(&error))
    })
}

/// The uplink's way to the ring.
pub(super) fn read_ring(dir: PathBuf) -> ReadRing {
    let reader = Mutex::new(None);
    Arc::new(move |request: PageRequest, limit| {
        let mut reader = reader.lock().map_err(|_| "a reader panicked".to_owned())?;
        let opened: &mut RingReader = match &mut *reader {
            Some(opened) => opened,
            None => reader.insert(RingReader::open(&dir).map_err(|error| chain(&error))?),
        };
        let read = |opened: &RingReader| -> Result<Page, StoreError> {
            let mut readings = opened.after(Arrival(request.after), limit)?;
            let full = readings.len() >= limit;
            let through = readings.partition_point(|one| one.arrival.0 <= request.through);
            let complete = !full || through < readings.len();
            readings.truncate(through);
            let first = opened.first_arrival()?.map(|arrival| arrival.0);
            Ok(Page { request, readings, complete, first })
        };
        read(opened).map_err(|error| chain(&error))
    })
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
    let state = Arc::new(state);
    let stop = part.stop.clone();
    part.tasks.start("http", Weight::Expendable, move || {
        let (listener, state, stop) = (listener.try_clone(), state.clone(), stop.clone());
        Box::pin(async move {
            let listener = listener.and_then(tokio::net::TcpListener::from_std);
            let served = match listener {
                Ok(listener) => http::serve(listener, (*state).clone(), stop).await,
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
            RingReport::Lost { from, to, count } => Input::Gap(GapReport {
                lane: "readings".to_owned(),
                from: from.0,
                to: to.0,
                count,
                reason: "the ring could not store them".to_owned(),
            }),
        };
        // An engine that has stopped needs no report.
        engine.blocking_send(input).ok();
    }
}

/// An error with all its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
