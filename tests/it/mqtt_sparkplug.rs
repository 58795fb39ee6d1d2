//! Sparkplug B nodes behind mosquitto: births, aliases, gaps, deaths, and rebirth requests as a node
//! hears them.

use prost::Message as _;
use wheeltap::config::{MqttTag, Payload as Form};
use wheeltap::domain::reading::{Quality, RawBatch, RawReading, RawValue, Reason};
use wheeltap::sparkplug::payload::{Metric, Payload, datatype, metric::Value};

use crate::support::broker::Mosquitto;
use crate::support::engine_end::EngineEnd;
use crate::support::publisher::Publisher;
use crate::support::setting::{mqtt, payload_tag, setting};

fn tag(name: &str, topic: &str) -> MqttTag {
    let mut tag = payload_tag(name, topic, Form::Sparkplug { metric: name.to_owned() });
    tag.device_time = true;
    tag
}

fn metric(name: Option<&str>, alias: u64, value: f64) -> Metric {
    Metric {
        name: name.map(str::to_owned),
        alias: Some(alias),
        timestamp: Some(1_790_000_000_000),
        datatype: name.map(|_| datatype::DOUBLE),
        value: Some(Value::Double(value)),
        ..Metric::default()
    }
}

fn bytes(seq: Option<u64>, metrics: Vec<Metric>) -> Vec<u8> {
    let timestamp = Some(1_790_000_000_000);
    Payload { timestamp, seq, metrics, ..Payload::default() }.encode_to_vec()
}

fn birth() -> Vec<u8> {
    let number = Metric {
        name: Some("bdSeq".to_owned()),
        datatype: Some(datatype::INT64),
        value: Some(Value::Long(1)),
        ..Metric::default()
    };
    bytes(Some(0), vec![number, metric(Some("temp"), 1, 20.0)])
}

async fn reading(end: &mut EngineEnd) -> RawReading {
    let batch: RawBatch = end.batch().await;
    assert_eq!(batch.readings.len(), 1);
    batch.readings[0]
}

/// Waits for a request to the node and checks its form.
async fn asked(node: &mut Publisher) {
    let (topic, payload) = node.heard().await;
    assert_eq!(topic, "spBv1.0/g/NCMD/n");
    let request = Payload::decode(payload.as_slice()).unwrap();
    let metric = &request.metrics[0];
    assert_eq!(metric.name.as_deref(), Some("Node Control/Rebirth"));
    assert_eq!(metric.value, Some(Value::Boolean(true)));
    assert!(request.seq.is_none() && request.timestamp.is_some());
}

#[tokio::test]
async fn d06_a_node_is_asked_for_its_births_followed_and_mourned() {
    let Some(broker) = Mosquitto::start().await else { return };
    let mut node = Publisher::connect(broker.port).await;
    node.subscribe("spBv1.0/g/NCMD/n").await;
    let tags = vec![tag("temp", "spBv1.0/g/+/n"), tag("vib", "spBv1.0/g/+/n/{asset}")];
    let mut end = EngineEnd::start(&setting(vec![], vec![mqtt("cell", broker.port, tags)]));
    asked(&mut node).await;

    node.publish("spBv1.0/g/NBIRTH/n", birth(), 0).await;
    node.drain().await;
    let first = reading(&mut end).await;
    assert_eq!((end.name(&first).as_str(), first.value), ("temp", RawValue::Number(20.0)));
    assert_eq!(first.source_time.unwrap().micros(), 1_790_000_000_000_000);
    let device = bytes(Some(1), vec![metric(Some("vib"), 2, 1.0)]);
    node.publish("spBv1.0/g/DBIRTH/n/A", device, 0).await;
    node.drain().await;
    assert_eq!(reading(&mut end).await.value, RawValue::Number(1.0));
    // By alias; null, bad and late values.
    let null = Metric { is_null: Some(true), value: None, ..metric(None, 2, 0.0) };
    node.publish("spBv1.0/g/DDATA/n/A", bytes(Some(2), vec![metric(None, 2, 3.0)]), 0).await;
    node.publish("spBv1.0/g/DDATA/n/A", bytes(Some(3), vec![null]), 0).await;
    node.drain().await;
    let mut values = Vec::new();
    while values.len() < 2 {
        values.extend(end.batch().await.readings.iter().map(|reading| reading.value));
    }
    assert_eq!(values, [RawValue::Number(3.0), RawValue::Failed(Reason::Sentinel)]);
    let late = Metric { is_historical: Some(true), ..metric(None, 2, 9.0) };
    node.publish("spBv1.0/g/DDATA/n/A", bytes(Some(4), vec![late]), 0).await;
    node.drain().await;
    let batch = end.batch().await;
    assert!(batch.historical && batch.readings[0].value == RawValue::Number(9.0));

    // Garbage in between changes nothing; the device's death makes its value stale.
    for garbage in [&b"\xff\xff\xff"[..], &[0x12, 0x7f], &[0x12, 0x00].repeat(20_000)] {
        node.publish("spBv1.0/g/NDATA/n", garbage, 0).await;
    }
    node.publish("spBv1.0/g/DDEATH/n/A", bytes(Some(5), vec![]), 0).await;
    node.drain().await;
    let stale = RawValue::Scaled(3.0, Quality::Uncertain(Reason::Stale));
    assert_eq!(reading(&mut end).await.value, stale);
    let health = end.tasks[0].health.values().next().unwrap().borrow().clone();
    assert_eq!(health.failed, 3);
}

#[tokio::test]
async fn d06_what_no_tag_wants_is_listed() {
    let Some(broker) = Mosquitto::start().await else { return };
    let source = mqtt("cell", broker.port, vec![tag("temp", "spBv1.0/g/+/+")]);
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    end.condition("source-silent", "cell", false).await;
    let mut node = Publisher::connect(broker.port).await;
    let device = bytes(Some(1), vec![metric(Some("speed"), 2, 1.0)]);
    node.publish("spBv1.0/g/NBIRTH/n", birth(), 0).await;
    node.publish("spBv1.0/g/DBIRTH/n/d", device, 0).await;
    node.drain().await;
    assert_eq!(reading(&mut end).await.value, RawValue::Number(20.0));
    let mut health = end.tasks[0].health.values().next().unwrap().clone();
    let listed = health.wait_for(|health| !health.unknown.is_empty());
    let listed = tokio::time::timeout(std::time::Duration::from_secs(30), listed).await;
    let listed = listed.unwrap().unwrap();
    assert_eq!(listed.unknown[0].name, "g/n/d:speed");
}
