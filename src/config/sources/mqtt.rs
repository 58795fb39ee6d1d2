//! `[[mqtt]]` and its tags.

use super::{POLL_LEAST, Taken, shared};
use crate::config::links::{self, Names};
use crate::config::mistake::Place;
use crate::config::parse::Declared;
use crate::config::tree::{NOT_AVAILABLE, Section};
use crate::config::{MqttSource, MqttTag, Payload, values};
use crate::domain::ids::SourceId;

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
        let tags = table.tables("tag");
        let tags = tags
            .iter()
            .filter_map(|tag| {
                let shared = shared(tag, &table, false, declared, taken);
                let topic = tag.need("topic", values::topic_filter);
                let payload = payload(tag);
                let expect_every = tag.read("expect_every", values::duration_from(POLL_LEAST));
                tag.finish();
                Some(MqttTag { tag: shared?, topic: topic?, payload: payload?, expect_every })
            })
            .collect();
        table.finish();
        if let (Some(name), Some(broker)) = (name, broker) {
            sources.push((MqttSource { name, broker, tags }, table.place("client_id").clone()));
        }
    }
    sources
}

fn payload(tag: &Section<'_>) -> Option<Payload> {
    let pointer = tag.read("pointer", values::json_pointer);
    let time_pointer = tag.read("time_pointer", values::json_pointer);
    let form = match tag.text("payload") {
        None => "json",
        Some(form) => form.value,
    };
    match form {
        "json" => Some(Payload::Json { pointer: pointer.unwrap_or_default(), time_pointer }),
        "text" => {
            for key in ["pointer", "time_pointer"] {
                if tag.has(key) {
                    tag.wrong(key, "belongs to payload `json` alone");
                }
            }
            Some(Payload::Text)
        }
        "f32-le" | "i16-le" | "sparkplug-b" => {
            tag.wrong("payload", format!("payload `{form}` is {NOT_AVAILABLE}: json, text"));
            None
        }
        _ => {
            tag.wrong("payload", format!("`{form}` is no payload: json, text"));
            None
        }
    }
}
