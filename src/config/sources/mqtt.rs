//! `[[mqtt]]` and its tags.

use super::{POLL_LEAST, Taken, shared};
use crate::config::links::{self, Names};
use crate::config::mistake::Place;
use crate::config::parse::Declared;
use crate::config::tree::Section;
use crate::config::{Column, Intake, MqttSource, MqttTag, Payload, Samples, values};
use crate::domain::ids::SourceId;

const FORMS: &str = "json, text, csv, f32-le, i16-le, sparkplug-b";

/// `[[mqtt]]`, each with the place where mistakes of its connection belong.
pub(in crate::config) fn mqtt(
    root: &Section<'_>,
    declared: &mut Declared,
    taken: &mut Taken,
    names: &Names<'_>,
) -> Vec<(MqttSource, Place)> {
    let mut sources = Vec::new();
    for table in root.tables("mqtt") {
        let name = taken.source(&table);
        let broker = links::broker(&table, names, name.as_ref().map(SourceId::as_str));
        let intake = intake(&table);
        let tags = table.tables("tag");
        let tags = tags
            .iter()
            .filter_map(|tag| {
                let shared = shared(tag, &table, false, declared, taken);
                let topic = tag.need("topic", values::topic_filter);
                let payload = payload(tag, topic.as_deref());
                let expect_every = tag.read("expect_every", values::duration_from(POLL_LEAST));
                let device_time = device_time(tag, payload.as_ref());
                tag.finish();
                let (tag, topic) = (shared?, topic?);
                Some(MqttTag { tag, topic, payload: payload?, expect_every, device_time })
            })
            .collect();
        table.finish();
        if let (Some(name), Some(broker)) = (name, broker) {
            let source = MqttSource { name, broker, tags, intake };
            sources.push((source, table.place("client_id").clone()));
        }
    }
    sources
}

fn intake(table: &Section<'_>) -> Intake {
    let default = Intake::default();
    let (least, most) = Intake::PAYLOAD_MAX;
    let payload_max = table.read("payload_max", |text| {
        let size = values::size(text)?;
        let fits = usize::try_from(size).ok().filter(|size| (least..=most).contains(size));
        fits.ok_or_else(|| format!("`{text}` is out of bounds: 1KiB to 1MiB"))
    });
    let (shortest, longest) = Intake::KEEP_ALIVE;
    let keep_alive = table.read("keep_alive", |text| {
        let span = values::duration(text)?;
        let fits = (shortest..=longest).contains(&span);
        fits.then_some(span).ok_or_else(|| format!("`{text}` is out of bounds: 1s to 10m"))
    });
    let series_max = table.integer("series_max", 0, u32::try_from(Intake::SERIES_MAX).unwrap_or(0));
    let series_max = series_max.and_then(|most| usize::try_from(most).ok());
    Intake {
        payload_max: payload_max.unwrap_or(default.payload_max),
        series_max: series_max.unwrap_or(default.series_max),
        max_rate: table.integer("max_rate", 1, Intake::MAX_RATE).unwrap_or(default.max_rate),
        keep_alive: keep_alive.unwrap_or(default.keep_alive),
    }
}

fn payload(tag: &Section<'_>, topic: Option<&str>) -> Option<Payload> {
    let pointer = tag.read("pointer", values::json_pointer);
    let time_pointer = tag.read("time_pointer", values::json_pointer);
    let column = tag.word("column").map(|name| column_of(&name));
    let time_column = tag.word("time_column").map(|name| column_of(&name));
    let separator = tag.read("separator", |text| match text.as_bytes() {
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && *byte != b'"' => Ok(*byte),
        _ => Err(format!("`{text}` separates no cells: one character, no letter, digit or quote")),
    });
    let metric = tag.text("metric").map(|name| name.value.to_owned());
    let form = match tag.text("payload") {
        None => "json",
        Some(form) => form.value,
    };
    let belong: [(&'static str, &str); 6] = [
        ("pointer", "json"),
        ("time_pointer", "json"),
        ("column", "csv"),
        ("time_column", "csv"),
        ("separator", "csv"),
        ("metric", "sparkplug-b"),
    ];
    for (key, owner) in belong {
        if form != owner && tag.has(key) {
            tag.wrong(key, format!("belongs to payload `{owner}` alone"));
        }
    }
    match form {
        "json" => Some(Payload::Json { pointer: pointer.unwrap_or_default(), time_pointer }),
        "text" => Some(Payload::Text),
        "csv" => {
            if column.is_none() && !tag.has("column") {
                tag.missing("column");
            }
            let separator = separator.unwrap_or(b',');
            Some(Payload::Csv { column: column?, time_column, separator })
        }
        "f32-le" => Some(Payload::Binary(Samples::F32Le)),
        "i16-le" => Some(Payload::Binary(Samples::I16Le)),
        "sparkplug-b" => {
            if let Some(Err(what)) = topic.map(values::sparkplug_topic) {
                tag.wrong("topic", what);
            }
            // A metric is most often called like the tag it becomes.
            let metric = metric.or_else(|| tag.text("id").map(|id| id.value.to_owned()));
            Some(Payload::Sparkplug { metric: metric? })
        }
        _ => {
            tag.wrong("payload", format!("`{form}` is no payload: {FORMS}"));
            None
        }
    }
}

/// A column by its place when it is written as a number, else by its name.
fn column_of(name: &str) -> Column {
    name.parse().map_or_else(|_| Column::Name(name.to_owned()), Column::Index)
}

/// Whether the payload's own time counts; by default where there is one.
fn device_time(tag: &Section<'_>, payload: Option<&Payload>) -> bool {
    let has_time = match payload {
        Some(Payload::Json { time_pointer, .. }) => time_pointer.is_some(),
        Some(Payload::Csv { time_column, .. }) => time_column.is_some(),
        Some(Payload::Sparkplug { .. }) => true,
        Some(Payload::Text | Payload::Binary(_)) | None => false,
    };
    let wanted = tag.read("time", |text| match text {
        "device" => Ok(true),
        "arrival" => Ok(false),
        _ => Err(format!("`{text}` is no time: device, arrival")),
    });
    if wanted == Some(true) && !has_time && payload.is_some() {
        tag.wrong(
            "time",
            "there is no time in the payload: say where, by time_pointer or time_column",
        );
    }
    wanted.unwrap_or(has_time)
}
