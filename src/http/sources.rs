//! How each source does, and what it hears that no tag is declared for.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::problem::Problem;
use super::query::{Params, page};
use super::{Api, health};
use crate::port::{SourceHealth, UnknownSeries};

fn view(name: &str, health: &SourceHealth) -> Value {
    let mut view = health::source(health);
    view["name"] = name.into();
    view["unknown_series"] = health.unknown.len().into();
    view
}

/// All sources; of unknown series only how many are listed.
pub(super) async fn list(State(api): State<Api>, params: Params) -> Result<Json<Value>, Problem> {
    params.only(&[])?;
    let sources = api.state.sources.borrow().clone();
    let items = sources.iter().map(|(name, health)| view(name.as_str(), &health.borrow()));
    Ok(page(items.collect(), None))
}

/// One source with its unknown series.
pub(super) async fn one(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let sources = api.state.sources.borrow().clone();
    let Some((_, health)) = sources.iter().find(|(known, _)| known.as_str() == name) else {
        return Err(Problem::not_found(format!("there is no source {name}")));
    };
    let health = health.borrow();
    let mut view = view(&name, &health);
    let series = |series: &UnknownSeries| {
        json!({
            "name": series.name,
            "messages": series.count,
            "last": series.last.to_string(),
            "sample": series.sample,
        })
    };
    view["unknown"] = health.unknown.iter().map(series).collect();
    Ok(Json(view))
}
