//! What the lists show: the fields of the CloudEvents' `data`, and before them `id`, `open` and
//! `state`.

use serde_json::{Map, Value, json};

use crate::config::{Config, Shift, TagConfig, Technician};
use crate::domain::alarm::Alarm;
use crate::domain::anomaly::Anomaly;
use crate::domain::asset::Asset;
use crate::domain::decision::Decision;
use crate::domain::event::AssetState;
use crate::domain::ids::{EventId, SourceId};
use crate::domain::prognosis::Prediction;
use crate::domain::record::{Record, RecordKind};
use crate::domain::tag::Form;
use crate::domain::work_order::WorkOrder;
use crate::port::Committed;
use crate::uplink::data;

use super::json::readable;

/// A record as an item of a list.
pub(super) fn record(record: &Record) -> Value {
    let told = match record.kind {
        RecordKind::Alarm => inner::<Alarm>(record, "alarm").map(|alarm| data::alarm(&alarm)),
        RecordKind::Decision => {
            inner::<Decision>(record, "decision").map(|decision| data::decision(&decision))
        }
        RecordKind::WorkOrder => {
            inner::<WorkOrder>(record, "order").map(|order| data::work_order(&order, None))
        }
        RecordKind::Prediction => {
            inner::<Prediction>(record, "prediction").map(|made| data::prediction(&made))
        }
        RecordKind::AssetState => {
            inner::<AssetState>(record, "state").map(|state| data::asset_state(&state))
        }
        RecordKind::Anomaly => anomaly(record),
        RecordKind::Delay
        | RecordKind::Notification
        | RecordKind::LogEntry
        | RecordKind::Label
        | RecordKind::Prior
        | RecordKind::Report
        | RecordKind::CaseFile
        | RecordKind::Departure
        | RecordKind::Outlook
        | RecordKind::Text
        | RecordKind::Counter
        | RecordKind::SourceNote
        | RecordKind::Model
        | RecordKind::Lives
        | RecordKind::Job
        | RecordKind::DeadLetter => None,
    };
    let mut item = Map::new();
    item.insert("id".to_owned(), record.id.clone().into());
    item.insert("asset".to_owned(), json!(record.asset));
    item.insert("open".to_owned(), record.open.into());
    item.insert("time".to_owned(), record.time.to_string().into());
    if !record.state.is_empty() {
        item.insert("state".to_owned(), record.state.clone().into());
    }
    // What is not one of the known types is shown as the stage keeps it.
    let told = told.unwrap_or_else(|| readable(record.body.clone()));
    if let Value::Object(fields) = told {
        for (key, value) in fields {
            if !(value.is_null() && item.contains_key(&key)) {
                item.insert(key, value);
            }
        }
    }
    Value::Object(item)
}

/// The domain's type in a record: alone, among other fields, or under a name of its own.
fn inner<T: serde::de::DeserializeOwned>(record: &Record, name: &str) -> Option<T> {
    record.read().ok().or_else(|| serde_json::from_value(record.body.get(name)?.clone()).ok())
}

fn anomaly(record: &Record) -> Option<Value> {
    let found: Anomaly = inner(record, "anomaly")?;
    let id = EventId::parse(&record.id).ok()?;
    let mut told = data::anomaly(id, &found);
    for key in ["verdict", "confidence", "adjustments", "ended"] {
        if let Some(value) = record.body.get(key).filter(|value| !value.is_null()) {
            told[key] = value.clone();
        }
    }
    let reasons = record.body.get("adjustments").and_then(Value::as_array);
    if let Some(reasons) = reasons {
        told["reasons"] = reasons.iter().filter_map(|one| one.get("reason")).cloned().collect();
    }
    Some(readable(told))
}

/// A journal row as an item of `/events`.
pub(super) fn event(committed: &Committed) -> Value {
    let event = &committed.event;
    let told = match event.body.class() {
        Some(_) => data::of(event),
        None => {
            // `{"kind": {fields}}`: the kind is told beside it.
            let body = serde_json::to_value(&event.body).unwrap_or_default();
            let fields = body.as_object().and_then(|outer| outer.values().next()).cloned();
            readable(fields.unwrap_or_default())
        }
    };
    json!({
        "row": committed.row,
        "id": event.id,
        "kind": event.body.kind(),
        "time": event.time.to_string(),
        "asset": event.body.asset(),
        "cause": event.cause,
        "correlation": event.correlation,
        "class": committed.sequence.map(|(class, _)| class.as_str()),
        "sequence": committed.sequence.map(|(_, number)| number),
        "data": told,
    })
}

/// An asset of the configuration with its state, if one was announced.
pub(super) fn asset(asset: &Asset, config: &Config, state: Option<Value>) -> Value {
    let tags: Vec<&str> = config
        .tags()
        .filter(|(_, tag, _)| tag.path.asset == asset.id)
        .map(|(_, tag, _)| tag.path.tag.as_str())
        .collect();
    let mut item = json!({
        "id": asset.id,
        "name": asset.name,
        "class": asset.class.as_str(),
        "criticality": asset.criticality.level(),
        "rated_rpm": asset.rated_rpm,
        "iso20816_group": asset.iso20816_group,
        "bearing": asset.bearing,
        "tags": tags,
        // Until the first announcement nothing can be known yet.
        "phase": "learning",
        "health_index": Value::Null,
        "worst_alarm": Value::Null,
        "open_work_order": Value::Null,
        "rul_p50": Value::Null,
        "notes": [],
    });
    if let Some(Value::Object(state)) = state {
        for (key, value) in state {
            item[key] = value;
        }
    }
    item
}

/// A tag of the configuration.
pub(super) fn tag(source: &SourceId, tag: &TagConfig, period: Option<f64>) -> Value {
    let limits = &tag.limits;
    let states: Map<String, Value> = tag
        .handling
        .states
        .iter()
        .map(|(number, name)| (number.to_string(), name.clone().into()))
        .collect();
    json!({
        "id": tag.path.to_string(),
        "asset": tag.path.asset,
        "tag": tag.path.tag,
        "source": source,
        "unit": tag.unit,
        "quantity": tag.quantity,
        "scale": tag.scale,
        "offset": tag.offset,
        "range": tag.range.map(|(low, high)| [low, high]),
        "limits": {
            "low_low": limits.low_low,
            "low": limits.low,
            "high": limits.high,
            "high_high": limits.high_high,
            "deadband": limits.deadband,
            "on_delay_seconds": limits.on_delay.as_secs_f64(),
            "off_delay_seconds": limits.off_delay.as_secs_f64(),
        },
        "discrete": tag.discrete,
        "period_seconds": period,
        "decimals": tag.handling.decimals,
        "counter": tag.handling.counter.is_some(),
        "values": states,
        "form": match tag.handling.form {
            Form::Number => "number",
            Form::Text => "text",
            Form::Waveform { .. } => "waveform",
        },
    })
}

/// A technician of the configuration. Addresses are not shown: nothing here needs them.
pub(super) fn technician(person: &Technician, config: &Config) -> Value {
    let absences: Vec<Value> = config
        .absences
        .iter()
        .filter(|absence| absence.technician == person.id)
        .map(|absence| json!({ "from": absence.from.to_string(), "to": absence.to.to_string() }))
        .collect();
    json!({
        "id": person.id,
        "skills": person.skills,
        "shifts": person.shifts.iter().map(shift).collect::<Vec<_>>(),
        "absences": absences,
    })
}

fn shift(shift: &Shift) -> Value {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let days: Vec<&str> =
        DAYS.into_iter().zip(shift.days).filter(|(_, on)| *on).map(|(day, _)| day).collect();
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    json!({ "days": days, "from": clock(shift.from_minute), "to": clock(shift.to_minute) })
}
