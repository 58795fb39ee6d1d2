//! Query strings: known parameters only, each checked.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde_json::{Value, json};

use crate::domain::ids::AssetId;
use crate::domain::time::Timestamp;

use super::problem::Problem;

/// Rows of a page when the request does not say.
const LIMIT_DEFAULT: usize = 100;
/// Most rows of a page.
pub(super) const LIMIT_MAX: usize = 1000;

/// The parameters of a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map(|Query(pairs)| Self(pairs))
            .map_err(|rejected| Problem::bad_request(rejected.body_text()))
    }
}

impl Params {
    /// Refuses parameters that are not among `known`: a filter that is not understood must not
    /// look as if it had matched.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        for (index, (key, _)) in self.0.iter().enumerate() {
            if !known.contains(&key.as_str()) {
                let known = known.join(", ");
                return Err(Problem::bad_request(format!("unknown parameter `{key}`: {known}")));
            }
            if self.0[..index].iter().any(|(earlier, _)| earlier == key) {
                return Err(Problem::bad_request(format!("parameter `{key}` is given twice")));
            }
        }
        Ok(())
    }

    /// A parameter as it was sent; an empty one counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == key)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn limit(&self) -> Result<usize, Problem> {
        match self.get("limit") {
            None => Ok(LIMIT_DEFAULT),
            Some(text) => match text.parse() {
                Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
                Ok(_) | Err(_) => {
                    Err(Problem::bad_request(format!("`limit` must be 1 to {LIMIT_MAX}")))
                }
            },
        }
    }

    pub(super) fn moment(&self, key: &str) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.get(key) else { return Ok(None) };
        match Timestamp::parse_rfc3339(text) {
            Some(moment) => Ok(Some(moment)),
            None => Err(Problem::bad_request(format!(
                "`{key}` must be a moment like 2026-05-01T10:20:30Z"
            ))),
        }
    }

    pub(super) fn asset(&self) -> Result<Option<AssetId>, Problem> {
        let Some(text) = self.get("asset") else { return Ok(None) };
        AssetId::new(text).map(Some).map_err(|error| Problem::bad_request(error.to_string()))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Problem::bad_request(format!("`{key}` must be true or false"))),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let wrong = || Problem::bad_request(format!("`{key}` is none that this API gave out"));
        text.parse().map(Some).map_err(|_| wrong())
    }
}

/// `{"items": […], "next": cursor or null}`
pub(super) fn page(items: Vec<Value>, next: Option<String>) -> axum::Json<Value> {
    axum::Json(json!({ "items": items, "next": next }))
}
