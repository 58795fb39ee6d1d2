//! Everything that is only looked at.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use crate::domain::event::Class;
use crate::domain::ids::{AssetId, EventId};
use crate::domain::record::{Record, RecordKind};
use crate::store::{JournalFilter, RecordFilter};

use super::Api;
use super::problem::Problem;
use super::query::{Params, page};
use super::views;

type Answer = Result<Json<Value>, Problem>;

async fn records(api: &Api, params: &Params, kind: RecordKind) -> Answer {
    params.only(&["asset", "state", "open", "from", "to", "limit", "cursor"])?;
    let filter = RecordFilter {
        asset: params.asset()?,
        state: params.get("state").map(str::to_owned),
        open: params.flag("open")?,
        from: params.moment("from")?,
        to: params.moment("to")?,
        cursor: params.get("cursor").map(str::to_owned),
        limit: params.limit()?,
        ..RecordFilter::all(kind)
    };
    let found = api.readers.state(move |reader| reader.records(&filter)).await?;
    Ok(page(found.items.iter().map(views::record).collect(), found.next))
}

pub(super) async fn alarms(State(api): State<Api>, params: Params) -> Answer {
    records(&api, &params, RecordKind::Alarm).await
}

pub(super) async fn anomalies(State(api): State<Api>, params: Params) -> Answer {
    records(&api, &params, RecordKind::Anomaly).await
}

pub(super) async fn predictions(State(api): State<Api>, params: Params) -> Answer {
    records(&api, &params, RecordKind::Prediction).await
}

pub(super) async fn work_orders(State(api): State<Api>, params: Params) -> Answer {
    records(&api, &params, RecordKind::WorkOrder).await
}

pub(super) async fn decisions(State(api): State<Api>, params: Params) -> Answer {
    records(&api, &params, RecordKind::Decision).await
}

pub(super) async fn dead_letters(State(api): State<Api>, params: Params) -> Answer {
    records(&api, &params, RecordKind::DeadLetter).await
}

pub(super) async fn models(State(api): State<Api>, params: Params) -> Answer {
    records(&api, &params, RecordKind::Model).await
}

pub(super) async fn model(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    one(&api, RecordKind::Model, id).await
}

async fn one(api: &Api, kind: RecordKind, id: String) -> Answer {
    let wanted = id.clone();
    let found = api.readers.state(move |reader| reader.record(kind, &wanted)).await?;
    match found {
        Some(record) => Ok(Json(views::record(&record))),
        None => Err(Problem::not_found(format!("there is no {} {id}", kind.as_str()))),
    }
}

pub(super) async fn decision(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    one(&api, RecordKind::Decision, id).await
}

pub(super) async fn work_order(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    one(&api, RecordKind::WorkOrder, id).await
}

pub(super) async fn events(State(api): State<Api>, params: Params) -> Answer {
    params.only(&["asset", "kind", "class", "correlation", "from", "to", "limit", "cursor"])?;
    let class = match params.get("class") {
        None => None,
        Some(word) => Some(
            Class::parse(word)
                .ok_or_else(|| Problem::bad_request(format!("`{word}` is no class of events")))?,
        ),
    };
    let correlation = match params.get("correlation") {
        None => None,
        Some(id) => Some(
            EventId::parse(id).map_err(|_| Problem::bad_request("`correlation` is no event id"))?,
        ),
    };
    let limit = params.limit()?;
    let filter = JournalFilter {
        asset: params.asset()?,
        kind: params.get("kind").map(str::to_owned),
        class,
        correlation,
        from: params.moment("from")?,
        to: params.moment("to")?,
        before: params.number("cursor")?,
        after: None,
        limit,
    };
    let rows = api.readers.state(move |reader| reader.journal(&filter)).await?;
    let last = rows.last().map(|last| last.row.to_string());
    let next = last.filter(|_| rows.len() == limit);
    Ok(page(rows.iter().map(views::event).collect(), next))
}

/// The newest state of every asset, by asset.
async fn states(api: &Api) -> Result<Vec<Record>, Problem> {
    let filter = RecordFilter::all(RecordKind::AssetState);
    Ok(api.readers.state(move |reader| reader.records(&filter)).await?.items)
}

fn state_of(states: &[Record], asset: &AssetId) -> Option<Value> {
    let record = states.iter().find(|record| record.asset.as_ref() == Some(asset))?;
    let Value::Object(mut state) = views::record(record) else { return None };
    for key in ["id", "open", "time", "state"] {
        state.remove(key);
    }
    Some(Value::Object(state))
}

pub(super) async fn assets(State(api): State<Api>, params: Params) -> Answer {
    params.only(&["asset", "limit", "cursor"])?;
    let wanted = params.asset()?;
    let (setting, states) = (api.setting(), states(&api).await?);
    let config = &setting.config;
    let items = config
        .assets
        .iter()
        .filter(|asset| wanted.as_ref().is_none_or(|wanted| *wanted == asset.id))
        .map(|asset| views::asset(asset, config, state_of(&states, &asset.id)))
        .collect();
    cut(&params, items)
}

pub(super) async fn asset(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let setting = api.setting();
    let config = &setting.config;
    let Some(asset) = config.assets.iter().find(|asset| asset.id.as_str() == id) else {
        return Err(Problem::not_found(format!("there is no asset {id}")));
    };
    let state = state_of(&states(&api).await?, &asset.id);
    Ok(Json(views::asset(asset, config, state)))
}

pub(super) async fn tags(State(api): State<Api>, params: Params) -> Answer {
    params.only(&["asset", "limit", "cursor"])?;
    let wanted = params.asset()?;
    let setting = api.setting();
    let items = setting
        .config
        .tags()
        .filter(|(_, tag, _)| wanted.as_ref().is_none_or(|wanted| *wanted == tag.path.asset))
        .map(|(source, tag, period)| {
            views::tag(source, tag, period.map(|period| period.as_secs_f64()))
        })
        .collect();
    cut(&params, items)
}

pub(super) async fn technicians(State(api): State<Api>, params: Params) -> Answer {
    params.only(&["limit", "cursor"])?;
    let setting = api.setting();
    let config = &setting.config;
    let people = config.technicians.iter();
    cut(&params, people.map(|person| views::technician(person, config)).collect())
}

/// One page of a list that is wholly in memory; the cursor is the place in it.
fn cut(params: &Params, items: Vec<Value>) -> Answer {
    let limit = params.limit()?;
    let from = params.number("cursor")?.unwrap_or(0);
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let more = items.len() > from.saturating_add(limit);
    let page_of: Vec<Value> = items.into_iter().skip(from).take(limit).collect();
    Ok(Json(json!({
        "items": page_of,
        "next": more.then(|| (from + limit).to_string()),
    })))
}
