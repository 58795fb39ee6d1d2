//! `GET /api/v1/readings`: one tag's readings, bursts or roll-ups out of the ring.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::domain::reading::{Burst, Reading};
use crate::domain::tag::{Form, Plant};
use crate::domain::text::Words;
use crate::domain::time::Timestamp;
use crate::store::{PAGE_BURSTS_MAX, Resolution, Rollup, lexicon};
use crate::uplink::readings::said;

use super::Api;
use super::problem::Problem;
use super::query::{Params, page};

/// What is shown when the request gives no `from`.
const SPAN_DEFAULT: Duration = Duration::from_secs(3600);
/// Roll-ups a page may be cut from: `to` is moved closer when the span holds more, so that the
/// reader's own bound never cuts silently.
const ROLLUPS_MAX: i64 = 10_000;

pub(super) async fn list(State(api): State<Api>, params: Params) -> Result<Json<Value>, Problem> {
    params.only(&["asset", "tag", "from", "to", "resolution", "limit", "cursor"])?;
    let (Some(asset), Some(tag)) = (params.get("asset"), params.get("tag")) else {
        return Err(Problem::bad_request("`asset` and `tag` are needed"));
    };
    let Some(key) = api.setting().plant.find(asset, tag) else {
        return Err(Problem::not_found(format!("no source declares the tag {asset}/{tag}")));
    };
    let limit = params.limit()?;
    // The newest reading may carry this very moment.
    let to = params.moment("to")?.unwrap_or_else(|| api.now().utc.after(Duration::from_secs(1)));
    let from = params.moment("from")?.unwrap_or_else(|| to.before(SPAN_DEFAULT));
    if from >= to {
        return Err(Problem::bad_request("`from` must be earlier than `to`"));
    }
    let resolution = match params.get("resolution") {
        None | Some("raw") => None,
        Some("1m") => Some(Resolution::Minute),
        Some("1h") => Some(Resolution::Hour),
        Some("1d") => Some(Resolution::Day),
        Some(other) => {
            let detail = format!("`{other}` is no resolution: raw, 1m, 1h, 1d");
            return Err(Problem::bad_request(detail));
        }
    };
    let Some(resolution) = resolution else {
        let cursor = params.get("cursor").map(str::to_owned);
        let plant = Arc::clone(&api.setting().plant);
        let form = plant.tag(key).map_or(Form::Number, |tag| tag.handling.form);
        if let Form::Waveform { .. } = form {
            let limit = limit.min(PAGE_BURSTS_MAX);
            let found = api
                .readers
                .ring(move |reader| reader.bursts(key, from, to, limit, cursor.as_deref()))
                .await?;
            return Ok(page(found.items.iter().map(burst).collect(), found.next));
        }
        let found = api
            .readers
            .ring(move |reader| {
                let page = reader.range(key, from, to, limit, cursor.as_deref())?;
                Ok((page, reader.doubtful()?))
            })
            .await?;
        let (found, doubtful) = found;
        let mut words = Words::new();
        let mut items = found.items;
        if form == Form::Text {
            let plant = Arc::clone(&plant);
            (items, words) = api
                .readers
                .state(move |reader| {
                    lexicon::look_up(reader, &plant, &items, &mut words)?;
                    Ok((items, words))
                })
                .await?;
        }
        let rows = items.iter().map(|item| reading(&plant, item, &words, &doubtful)).collect();
        return Ok(page(rows, found.next));
    };
    let begin = match params.number("cursor")?.map(i64::try_from) {
        None => from,
        Some(Ok(micros)) => from.max(Timestamp::from_micros(micros)),
        Some(Err(_)) => to,
    };
    let end = begin.micros().saturating_add(resolution.micros().saturating_mul(ROLLUPS_MAX));
    let (cut, end) = (end < to.micros(), to.min(Timestamp::from_micros(end)));
    let mut rows =
        api.readers.ring(move |reader| reader.rollups(key, begin, end, resolution)).await?;
    let next = if rows.len() > limit {
        rows.truncate(limit);
        rows.last().map(|last| last.start.micros() + resolution.micros())
    } else {
        cut.then(|| end.micros())
    };
    Ok(page(rows.iter().map(rollup).collect(), next.map(|next| next.to_string())))
}

/// As in the batches upstream: no value where no number came, a reason where it is not good. Besides
/// the unit, and `clock_trusted` where no clock ever vouched for the time.
fn reading(plant: &Plant, reading: &Reading, words: &Words, doubtful: &[(u64, u64)]) -> Value {
    let mut item = json!({
        "time": reading.time.to_string(),
        "value": reading.value,
        "quality": reading.quality.as_str(),
    });
    if let Some(reason) = reading.quality.reason() {
        item["reason"] = reason.as_str().into();
    }
    if let Some(tag) = plant.tag(reading.tag).filter(|tag| !tag.unit.is_empty()) {
        item["unit"] = tag.unit.as_str().into();
    }
    if doubtful.iter().any(|(from, to)| (*from..=*to).contains(&reading.arrival.0)) {
        item["clock_trusted"] = false.into();
    }
    if let Some((kind, said)) = plant.tag(reading.tag).and_then(|tag| said(tag, reading, words)) {
        item[kind] = said.into();
    }
    item
}

/// One burst: when it began, samples a second where known, and the samples in the tag's unit (null
/// where no number came).
fn burst(burst: &Burst) -> Value {
    let samples: Vec<Value> = burst
        .samples
        .iter()
        // The shortest decimal that reads back as the same f32, not as the f64 beside it.
        .map(|sample| sample.to_string().parse::<f64>().map_or(Value::Null, Value::from))
        .collect();
    let mut item = json!({
        "time": burst.time.to_string(),
        "rate": burst.rate_hz,
        "quality": burst.quality.as_str(),
        "samples": samples,
    });
    if let Some(reason) = burst.quality.reason() {
        item["reason"] = reason.as_str().into();
    }
    item
}

fn rollup(rollup: &Rollup) -> Value {
    json!({
        "time": rollup.start.to_string(),
        "count": rollup.count,
        "min": rollup.min,
        "max": rollup.max,
        "mean": rollup.mean,
        "std": rollup.std,
        "last": rollup.last,
    })
}
