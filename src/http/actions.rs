//! Everything that changes something: each request becomes one [`Verb`], answered after its commit.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::oneshot;

use crate::config::values;
use crate::domain::command::{Command, Verb};
use crate::domain::decision::{Changes, Choice};
use crate::domain::ids::{AssetId, EventId, TechnicianId};
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;
use crate::domain::work_order::{Completion, OrderRequest, Outcome};

use super::Api;
use super::json::{Sent, readable};
use super::problem::Problem;

type Answer = Result<Json<Value>, Problem>;

/// Longest text that a person may put into one field, in bytes.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Longest name of a person.
const NAME_BYTES_MAX: usize = 128;
/// How long an alarm is shelved when the request does not say.
const SHELF_DEFAULT: f64 = 3_600.0;
/// Longest time on the shelf: what is put aside for longer ought to be configured away.
const SHELF_MAX: f64 = 30.0 * 86_400.0;
/// How long an order takes when the request does not say.
const ORDER_DEFAULT: f64 = 4.0 * 3_600.0;
/// Longest order: the scheduling horizon.
const ORDER_MAX: f64 = 14.0 * 86_400.0;

/// A moment as people send it.
#[derive(Debug, Clone, Copy)]
struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse_rfc3339(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is no moment like 2026-05-01T10:20:30Z"))
        })
    }
}

/// A span as people send it: seconds, or `"90m"`. Kept in seconds.
#[derive(Debug, Clone, Copy)]
struct Span(f64);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Seconds(f64),
            Text(String),
        }
        let seconds = match Form::deserialize(from)? {
            Form::Seconds(seconds) => seconds,
            Form::Text(text) => {
                values::duration(&text).map_err(serde::de::Error::custom)?.as_secs_f64()
            }
        };
        if seconds.is_finite() && seconds >= 0.0 {
            Ok(Self(seconds))
        } else {
            Err(serde::de::Error::custom(format!("{seconds} is no span of time")))
        }
    }
}

fn within(span: Option<Span>, usual: f64, longest: f64, key: &str) -> Result<f64, Problem> {
    let seconds = span.map_or(usual, |span| span.0);
    if seconds > 0.0 && seconds <= longest {
        Ok(seconds)
    } else {
        Err(Problem::invalid(format!("`{key}` must be more than 0 and at most {longest} s")))
    }
}

pub(super) fn id(text: &str) -> Result<EventId, Problem> {
    EventId::parse(text).map_err(|_| Problem::not_found(format!("`{text}` is no id")))
}

/// Texts go into journal, logs and messages: bounded, without control characters but line ends.
fn text(key: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(Problem::invalid(format!("`{key}` is longer than {TEXT_BYTES_MAX} bytes")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(Problem::invalid(format!("`{key}` holds control characters")));
    }
    Ok(Some(text))
}

fn person(by: Option<String>) -> Result<String, Problem> {
    match text("by", by)? {
        None => Ok("operator".to_owned()),
        Some(name) if name.len() > NAME_BYTES_MAX || name.contains('\n') => {
            Err(Problem::invalid(format!("`by` must be one line of {NAME_BYTES_MAX} bytes")))
        }
        Some(name) => Ok(name),
    }
}

pub(super) async fn give(api: &Api, by: Option<String>, verb: Verb) -> Result<Value, Problem> {
    let command = Command { by: person(by)?, verb };
    Ok(readable(api.state.engine.command(command).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct By {
    pub(super) by: Option<String>,
}

pub(super) async fn acknowledge(
    State(api): State<Api>,
    Path(alarm): Path<String>,
    Sent(body): Sent<By>,
) -> Answer {
    let alarm = id(&alarm)?;
    Ok(Json(give(&api, body.by, Verb::Acknowledge { alarm }).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shelving {
    duration: Option<Span>,
    reason: Option<String>,
    by: Option<String>,
}

pub(super) async fn shelve(
    State(api): State<Api>,
    Path(alarm): Path<String>,
    Sent(body): Sent<Shelving>,
) -> Answer {
    let alarm = id(&alarm)?;
    let seconds = within(body.duration, SHELF_DEFAULT, SHELF_MAX, "duration")?;
    let span = Duration::from_secs_f64(seconds);
    let reason = text("reason", body.reason)?;
    Ok(Json(give(&api, body.by, Verb::Shelve { alarm, span, reason }).await?))
}

pub(super) async fn unshelve(
    State(api): State<Api>,
    Path(alarm): Path<String>,
    Sent(body): Sent<By>,
) -> Answer {
    let alarm = id(&alarm)?;
    Ok(Json(give(&api, body.by, Verb::Unshelve { alarm }).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decided {
    decision: Choice,
    by: Option<String>,
    reason: Option<String>,
    changes: Option<Changed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    technician: Option<TechnicianId>,
    not_before: Option<Moment>,
    due: Option<Moment>,
    duration: Option<Span>,
    duration_seconds: Option<Span>,
    skills: Option<Vec<String>>,
}

pub(super) async fn decide(
    State(api): State<Api>,
    Path(decision): Path<String>,
    Sent(body): Sent<Decided>,
) -> Answer {
    let decision = id(&decision)?;
    let changes = body.changes.map(|changed| Changes {
        technician: changed.technician,
        not_before: changed.not_before.map(|moment| moment.0),
        due: changed.due.map(|moment| moment.0),
        duration_seconds: changed.duration.or(changed.duration_seconds).map(|span| span.0),
        skills: changed.skills,
    });
    let reason = text("reason", body.reason)?;
    let verb = Verb::Decide { decision, choice: body.decision, reason, changes };
    Ok(Json(give(&api, body.by, verb).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewOrder {
    asset: AssetId,
    task: String,
    #[serde(default)]
    skills: Vec<String>,
    duration: Option<Span>,
    priority: Option<Severity>,
    not_before: Option<Moment>,
    due: Option<Moment>,
    technician: Option<TechnicianId>,
    by: Option<String>,
}

pub(super) async fn create_order(
    State(api): State<Api>,
    Sent(body): Sent<NewOrder>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let setting = api.setting();
    if !setting.config.assets.iter().any(|asset| asset.id == body.asset) {
        return Err(Problem::invalid(format!("there is no asset {}", body.asset)));
    }
    let task = text("task", Some(body.task))?;
    let request = OrderRequest {
        asset: body.asset,
        task: task.ok_or_else(|| Problem::invalid("`task` is empty"))?,
        skills: body.skills,
        duration_seconds: within(body.duration, ORDER_DEFAULT, ORDER_MAX, "duration")?,
        priority: body.priority.unwrap_or(Severity::Medium),
        not_before: body.not_before.map(|moment| moment.0),
        due: body.due.map(|moment| moment.0),
        technician: body.technician,
        alarms: Vec::new(),
        anomaly: None,
    };
    let made = give(&api, body.by, Verb::CreateOrder { request }).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Completed {
    outcome: Outcome,
    notes: Option<String>,
    duration: Option<Span>,
    found: Option<String>,
    by: Option<String>,
}

pub(super) async fn complete(
    State(api): State<Api>,
    Path(order): Path<String>,
    Sent(body): Sent<Completed>,
) -> Answer {
    let order = id(&order)?;
    let completion = Completion {
        outcome: body.outcome,
        found: text("found", body.found)?,
        notes: text("notes", body.notes)?,
        duration: body.duration.map(|span| span.0),
        by: body.by.clone(),
    };
    Ok(Json(give(&api, body.by, Verb::Complete { order, completion }).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Moved {
    not_before: Option<Moment>,
    technician: Option<TechnicianId>,
    by: Option<String>,
}

pub(super) async fn reschedule(
    State(api): State<Api>,
    Path(order): Path<String>,
    Sent(body): Sent<Moved>,
) -> Answer {
    let order = id(&order)?;
    let not_before = body.not_before.map(|moment| moment.0);
    let verb = Verb::Reschedule { order, not_before, technician: body.technician };
    Ok(Json(give(&api, body.by, verb).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Why {
    reason: Option<String>,
    by: Option<String>,
}

pub(super) async fn cancel(
    State(api): State<Api>,
    Path(order): Path<String>,
    Sent(body): Sent<Why>,
) -> Answer {
    let order = id(&order)?;
    let reason = text("reason", body.reason)?;
    Ok(Json(give(&api, body.by, Verb::Cancel { order, reason }).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Label {
    anomaly: EventId,
    label: bool,
    notes: Option<String>,
    by: Option<String>,
}

pub(super) async fn feedback(State(api): State<Api>, Sent(body): Sent<Label>) -> Answer {
    let notes = text("notes", body.notes)?;
    let verb = Verb::Feedback { anomaly: body.anomaly, real: body.label, notes };
    Ok(Json(give(&api, body.by, verb).await?))
}

pub(super) async fn relearn(
    State(api): State<Api>,
    Path(asset): Path<String>,
    Sent(body): Sent<By>,
) -> Answer {
    let asset = AssetId::new(&asset).map_err(|error| Problem::not_found(error.to_string()))?;
    Ok(Json(give(&api, body.by, Verb::Relearn { asset }).await?))
}

pub(super) async fn retry(
    State(api): State<Api>,
    Path(event): Path<String>,
    Sent(body): Sent<By>,
) -> Answer {
    let event = id(&event)?;
    Ok(Json(give(&api, body.by, Verb::Retry { event }).await?))
}

pub(super) async fn reload(State(api): State<Api>, Sent(_): Sent<By>) -> Answer {
    let Some(reload) = &api.state.reload else {
        return Err(Problem::unavailable("this daemon was started without a file to read again"));
    };
    let gone = |_| Problem::unavailable("the daemon is stopping");
    let (reply, answer) = oneshot::channel();
    reload.send(reply).await.map_err(|_| gone(()))?;
    match answer.await.map_err(|_| gone(()))? {
        Ok(hash) => Ok(Json(json!({ "hash": hash }))),
        Err(mistakes) => {
            let lines: Vec<&str> = mistakes.lines().collect();
            Err(Problem::invalid("the configuration was not applied")
                .with("mistakes", json!(lines)))
        }
    }
}
