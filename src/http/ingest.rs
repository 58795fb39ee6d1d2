//! `POST /api/v1/readings`: readings are accepted once they are durable.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::domain::ids::SourceId;
use crate::domain::reading::{Ack, Quality, RawBatch, RawReading, RawValue, Reason};
use crate::domain::tag::Plant;
use crate::domain::time::Timestamp;
use crate::port::Input;

use super::Api;
use super::json::Sent;
use super::problem::Problem;

/// How long a sender waits for its readings to be durable before it is told to send them again.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The source that readings over HTTP are filed under.
const SOURCE: &str = "http";

/// One reading as it is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    asset: String,
    tag: String,
    time: Option<String>,
    #[serde(default)]
    value: Value,
    quality: Option<String>,
    reason: Option<String>,
}

pub(super) async fn take(
    State(api): State<Api>,
    headers: HeaderMap,
    Sent(body): Sent<Value>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, &body)?;
    if let Some(key) = &key
        && let Some(answer) = api.keys.answer(key, api.now().mono)?
    {
        return Ok(answered(&answer));
    }
    let items = match body {
        Value::Array(items) => items,
        Value::Object(_) => vec![body],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(Problem::invalid("the body must be a reading or an array of them"));
        }
    };
    let setting = api.setting();
    let now = api.now();
    let mut readings = Vec::with_capacity(items.len());
    let mut errors = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match raw(item, &setting.plant, now.utc) {
            Ok(reading) => readings.push(reading),
            Err((status, detail)) => errors.push(json!({
                "index": index,
                "status": status.as_u16(),
                "detail": detail,
            })),
        }
    }
    let accepted = readings.len();
    if accepted > 0 {
        durable(&api, readings).await?;
    }
    let answer = Answer { accepted, errors };
    let response = answered(&answer);
    if let Some(key) = key {
        api.keys.remember(key, answer, now.mono);
    }
    Ok(response)
}

/// What was answered; kept for repeats of the request.
#[derive(Debug, Clone)]
struct Answer {
    accepted: usize,
    errors: Vec<Value>,
}

fn answered(answer: &Answer) -> Response {
    let status =
        if answer.errors.is_empty() { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    let body = json!({ "accepted": answer.accepted, "errors": answer.errors });
    (status, Json(body)).into_response()
}

/// Hands the readings in and waits until they are durable.
async fn durable(api: &Api, readings: Vec<RawReading>) -> Result<(), Problem> {
    let (told, durable) = oneshot::channel();
    let batch = RawBatch {
        source: SourceId::new(SOURCE).expect("`http` is an id"),
        readings,
        extras: None,
        ack: Some(Ack::new(told)),
        historical: false,
    };
    let not_durable = || Problem::unavailable("the readings are not durable: send them again");
    let handed = async {
        api.state.engine.send(Input::Readings(batch)).await.map_err(|_| not_durable())?;
        durable.await.map_err(|_| not_durable())
    };
    tokio::time::timeout(DURABLE_TIMEOUT, handed).await.map_err(|_| not_durable())?
}

fn raw(item: Value, plant: &Plant, now: Timestamp) -> Result<RawReading, (StatusCode, String)> {
    let invalid = |what: String| (StatusCode::UNPROCESSABLE_ENTITY, what);
    let item: Item = serde_json::from_value(item).map_err(|error| invalid(error.to_string()))?;
    let Some(tag) = plant.find(&item.asset, &item.tag) else {
        let what = format!("no source declares the tag {}/{}", item.asset, item.tag);
        return Err((StatusCode::NOT_FOUND, what));
    };
    let source_time =
        match item.time {
            None => None,
            Some(text) => Some(Timestamp::parse_rfc3339(&text).ok_or_else(|| {
                invalid(format!("`{text}` is no moment like 2026-05-01T10:20:30Z"))
            })?),
        };
    let reason = match item.reason.as_deref() {
        None => None,
        Some(word) => Some(
            Reason::ALL
                .into_iter()
                .find(|reason| reason.as_str() == word)
                .ok_or_else(|| invalid(format!("`{word}` is no reason")))?,
        ),
    };
    // Who sends a doubtful value without saying why is a device that cannot tell.
    let why = reason.unwrap_or(Reason::Device);
    let quality = match item.quality.as_deref() {
        None if reason.is_some() => {
            return Err(invalid("`reason` needs `quality` uncertain or bad".to_owned()));
        }
        None => Quality::Good,
        Some("good") if reason.is_none() => Quality::Good,
        Some("good") => return Err(invalid("a good reading has no `reason`".to_owned())),
        Some("uncertain") => Quality::Uncertain(why),
        Some("bad") => Quality::Bad(why),
        Some(word) => return Err(invalid(format!("`{word}` is no quality: good, uncertain, bad"))),
    };
    let value = match &item.value {
        Value::Null => RawValue::Failed(why),
        Value::Bool(on) => RawValue::Scaled(f64::from(u8::from(*on)), quality),
        Value::Number(number) => match number.as_f64() {
            Some(number) => RawValue::Scaled(number, quality),
            None => return Err(invalid(format!("{number} is no value"))),
        },
        Value::String(_) | Value::Array(_) | Value::Object(_) => {
            return Err(invalid("`value` must be a number, true, false or null".to_owned()));
        }
    };
    Ok(RawReading { tag, source_time, arrived: now, value, retained: false })
}

/// Keys kept at a time.
const KEYS_MAX: usize = 100_000;
/// How long a key is kept.
const KEY_KEEP: Duration = Duration::from_secs(24 * 3600);
/// Most item errors that are kept with a key; answers with more are given anew.
const KEPT_ERRORS_MAX: usize = 16;
/// Longest key.
const KEY_BYTES_MAX: usize = 256;

/// A request with its key: the hash of the key, and of what was sent under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    name: u128,
    body: u128,
}

fn idempotency_key(headers: &HeaderMap, body: &Value) -> Result<Option<Key>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let detail = format!("Idempotency-Key must have 1 to {KEY_BYTES_MAX} bytes");
        return Err(Problem::bad_request(detail));
    }
    let hash = |bytes: &[u8]| {
        let digest = Sha256::digest(bytes);
        digest[..16].iter().fold(0_u128, |all, byte| all << 8 | u128::from(*byte))
    };
    Ok(Some(Key { name: hash(key.as_bytes()), body: hash(body.to_string().as_bytes()) }))
}

/// The keys of this run, the oldest given up first. After a restart a repeat is taken in again;
/// acquisition then drops readings that are exact repeats of stored ones.
#[derive(Default)]
pub(super) struct KnownKeys(Mutex<Known>);

#[derive(Default)]
struct Known {
    answers: HashMap<u128, (Key, Answer, Duration)>,
    order: VecDeque<u128>,
}

impl KnownKeys {
    fn answer(&self, key: &Key, now: Duration) -> Result<Option<Answer>, Problem> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.answers.get(&key.name) {
            Some((_, _, since)) if now.saturating_sub(*since) > KEY_KEEP => Ok(None),
            Some((earlier, _, _)) if earlier.body != key.body => {
                let detail = "this Idempotency-Key was used for another body";
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
            }
            Some((_, answer, _)) => Ok(Some(answer.clone())),
            None => Ok(None),
        }
    }

    fn remember(&self, key: Key, answer: Answer, now: Duration) {
        if answer.errors.len() > KEPT_ERRORS_MAX {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.answers.insert(key.name, (key, answer, now)).is_none() {
            known.order.push_back(key.name);
        }
        while known.order.len() > KEYS_MAX {
            if let Some(oldest) = known.order.pop_front() {
                known.answers.remove(&oldest);
            }
        }
    }
}
