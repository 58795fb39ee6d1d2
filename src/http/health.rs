//! `/healthz`, `/readyz`, `/api/v1/status`, `/api/v1/stages`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::port::{INPUTS_MAX, SourceHealth, UplinkHealth};

use super::json::readable;
use super::problem::Problem;
use super::{Api, Shared};

/// The process lives: this answer is the proof.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Why the daemon is not ready; empty when it is.
pub(super) fn reasons(api: &Shared) -> Vec<String> {
    let mut reasons = Vec::new();
    let status = api.state.announcements.status.borrow().clone();
    if status.stages.is_empty() {
        reasons.push("the engine has not said anything yet".to_owned());
    } else if !status.durable {
        reasons.push("the store does not commit".to_owned());
    }
    for stage in &status.stages {
        if stage.state != "running" {
            let why = stage.last_error.as_deref().unwrap_or("no reason given");
            reasons.push(format!("stage {} is {}: {why}", stage.name, stage.state));
        }
    }
    if api.state.engine.depth() >= INPUTS_MAX {
        reasons.push("the engine's queue is full".to_owned());
    }
    for (name, health) in api.state.sources.borrow().iter() {
        let health = health.borrow();
        if !matches!(health.state.as_str(), "up" | "degraded") {
            let why = match &health.last_error {
                Some(error) => format!(": {error}"),
                None => String::new(),
            };
            reasons.push(format!("source {name} is {}{why}", state_or_unknown(&health.state)));
        }
    }
    reasons
}

fn state_or_unknown(state: &str) -> &str {
    if state.is_empty() { "starting" } else { state }
}

pub(super) async fn readyz(State(api): State<Api>) -> (StatusCode, Json<Value>) {
    let reasons = reasons(&api);
    let (status, word) = if reasons.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    };
    (status, Json(json!({ "status": word, "reasons": reasons })))
}

fn source(health: &SourceHealth) -> Value {
    readable(serde_json::to_value(health).unwrap_or_default())
}

fn uplink(health: &UplinkHealth) -> Value {
    json!({
        "state": if health.state.is_empty() { "off" } else { &health.state },
        "since": health.since.map(|since| since.to_string()),
        "events_waiting": health.events_waiting,
        "readings_waiting": health.readings_waiting,
        "last_round_trip_seconds": health.last_round_trip.map(|span| span.as_secs_f64()),
        "last_error": health.last_error,
    })
}

pub(super) async fn status(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let setting = api.setting();
    let config = &setting.config;
    let engine = api.state.announcements.status.borrow().clone();
    let now = api.now();
    let sources: serde_json::Map<String, Value> = api
        .state
        .sources
        .borrow()
        .iter()
        .map(|(name, health)| (name.to_string(), source(&health.borrow())))
        .collect();
    let uplink = uplink(&api.state.uplink.borrow());
    let reasons = reasons(&api);
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "site": config.gateway.site,
        "gateway": config.gateway.id,
        "config_hash": config.hash,
        "started": api.state.started.to_string(),
        "time": now.utc.to_string(),
        "clock_trusted": now.trusted,
        "uptime_seconds": now.mono.as_secs_f64(),
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "engine": {
            "durable": engine.durable,
            "readings": engine.seen.0,
            "events": engine.events,
            "commits": engine.commits,
            "refilling": engine.refilling,
            "queue": api.state.engine.depth(),
        },
        "assets": config.assets.len(),
        "tags": config.tags().count(),
        "sources": sources,
        "uplink": uplink,
    })))
}

pub(super) async fn stages(State(api): State<Api>) -> Json<Value> {
    let engine = api.state.announcements.status.borrow().clone();
    let queue = api.state.engine.depth();
    let items: Vec<Value> = engine
        .stages
        .iter()
        .map(|stage| {
            json!({
                "name": stage.name,
                "state": stage.state,
                "handled": stage.handled,
                // All stages drain in one turn: what waits, waits in the engine's queue.
                "lag": queue,
                "attempts": stage.failures,
                "failures": stage.failures,
                "last_error": stage.last_error,
            })
        })
        .collect();
    Json(json!({ "items": items, "next": Value::Null }))
}
