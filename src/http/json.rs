//! Times in JSON: the domain keeps microseconds, people and programs outside get RFC 3339.
//! Also the reading of request bodies.

use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::domain::time::Timestamp;

use super::problem::Problem;

/// Fields of the domain that are moments.
const MOMENTS: [&str; 17] = [
    "time",
    "raised",
    "cleared",
    "shelved_until",
    "since",
    "deadline",
    "not_before",
    "due",
    "start",
    "end",
    "as_of",
    "from",
    "to",
    "ended",
    "utc",
    "last_answer",
    "until",
];
/// Microseconds since 1970 are larger than any count that stands under one of these names.
const MOMENT_LEAST: i64 = 100_000_000_000_000;

/// The JSON of a domain type with its moments as RFC 3339.
pub(super) fn readable(mut value: Value) -> Value {
    walk(&mut value, &mut |moment| {
        let micros = moment.as_i64().filter(|micros| *micros >= MOMENT_LEAST)?;
        Some(Timestamp::from_micros(micros).to_string().into())
    });
    value
}

fn walk(value: &mut Value, turn: &mut impl FnMut(&Value) -> Option<Value>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match turn(value).filter(|_| MOMENTS.contains(&key.as_str())) {
                    Some(turned) => *value = turned,
                    None => walk(value, turn),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, turn)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A JSON body; an empty one counts as `{}`, so that an acknowledgement needs none.
pub(super) struct Sent<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let is_json = kind.and_then(|kind| kind.to_str().ok()).is_some_and(|kind| {
            let kind = kind.split(';').next().unwrap_or("").trim();
            kind.eq_ignore_ascii_case("application/json")
        });
        let stated = kind.is_some();
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejected| Problem::new(rejected.status(), rejected.body_text()))?;
        if body.is_empty() {
            return serde_json::from_str("{}")
                .map(Self)
                .map_err(|error| Problem::bad_request(format!("the body is empty: {error}")));
        }
        if !is_json {
            let detail = if stated {
                "the body must be application/json"
            } else {
                "Content-Type: application/json is missing"
            };
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| Problem::bad_request(format!("the body is no JSON: {error}")))?;
        serde_json::from_value(value)
            .map(Self)
            .map_err(|error| Problem::invalid(format!("the body cannot be used: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_turned_and_counts_are_not() {
        let inside = json!({
            "raised": 1_777_630_830_123_000_i64,
            "from": 17,
            "changes": [{ "due": 1_777_630_830_123_000_i64, "value": 1_777_630_830_123_000_i64 }],
        });
        let outside = readable(inside);
        assert_eq!(outside["raised"], "2026-05-01T10:20:30.123Z");
        assert_eq!(outside["from"], 17);
        assert_eq!(outside["changes"][0]["due"], "2026-05-01T10:20:30.123Z");
        assert!(outside["changes"][0]["value"].is_i64());
    }
}
