//! Golden bytes of every CloudEvents type. `WHEELTAP_BLESS=1 cargo test --lib cloudevents` writes
//! them anew; the difference then shows in review what subscribers will see differently.

use serde_json::Value;

use std::sync::Arc;

use super::*;
use crate::config::Encoding;
use crate::domain::alarm::{Alarm, AlarmCause, AlarmState, LimitKind};
use crate::domain::anomaly::{
    Adjustment, Anomaly, DetectorScore, Evidence, Fault, Pattern, Validated, Verdict,
};
use crate::domain::decision::{Answer, Choice, Decision};
use crate::domain::event::{AssetState, Message as Notice, Phase};
use crate::domain::ids::{Arrival, AssetId, SourceId, TagId, TagKey, TagPath, TechnicianId};
use crate::domain::prognosis::{HealthIndex, Prediction, Quantiles};
use crate::domain::reading::{Quality, Reading, Reason};
use crate::domain::severity::Severity;
use crate::domain::tag::{Limits, Plant, Tag};
use crate::domain::work_order::{
    Booking, Completion, OrderRequest, OrderState, Outcome, WorkOrder,
};
use crate::uplink::readings;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/cloudevents.jsonl");

fn id(number: u128) -> EventId {
    EventId(uuid::Uuid::from_u128(0x0196_8b1e_9b7b_7000_8000_0000_0000_0000 + number))
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

fn happened() -> Timestamp {
    time("2026-05-01T10:20:30.123Z")
}

fn now() -> Now {
    Now {
        mono: Duration::from_secs(60),
        utc: happened().after(Duration::from_secs(1)),
        trusted: true,
    }
}

fn sender() -> Sender {
    Sender { site: "plant-a".to_owned(), gateway: "gw-01".to_owned() }
}

fn asset() -> AssetId {
    AssetId::new("P-101").unwrap()
}

fn tag() -> TagId {
    TagId::new("bearing_temp").unwrap()
}

fn birth() -> Birth {
    Birth {
        version: "0.1.0".to_owned(),
        started: time("2026-05-01T06:00:00Z"),
        config_hash: "9f86d081".to_owned(),
        epoch: 3,
    }
}

fn limit_alarm() -> Alarm {
    Alarm {
        id: id(1),
        asset: Some(asset()),
        tag: Some(tag()),
        cause: AlarmCause::Limit { which: LimitKind::High, limit: 85.0 },
        severity: Severity::High,
        value: Some(86.25),
        message: "bearing_temp of P-101 is 86.25 °C, above high 85 °C".to_owned(),
        state: AlarmState::Unacknowledged,
        raised: happened(),
        cleared: None,
        closed_by: None,
        acknowledged_by: None,
        shelved_until: None,
        correlation: id(1),
    }
}

fn score_alarm() -> Alarm {
    let cause = AlarmCause::Score {
        anomaly: id(2),
        score: 0.97,
        fault: Fault::Machine,
        pattern: Pattern::Drift,
    };
    Alarm { cause, ..limit_alarm() }
}

fn anomaly() -> Anomaly {
    Anomaly {
        asset: asset(),
        tags: vec![tag()],
        fault: Fault::Machine,
        pattern: Pattern::Drift,
        detectors: vec![DetectorScore { detector: "robust".to_owned(), score: 0.98 }],
        score: 0.97,
        confidence: 0.9,
        severity: Severity::High,
        evidence: vec![Evidence {
            tag: tag(),
            value: 86.25,
            expected: 71.0,
            sigma: 7.6,
            contribution: 1.0,
        }],
        since: happened(),
    }
}

fn request() -> OrderRequest {
    OrderRequest {
        asset: asset(),
        task: "replace the drive-end bearing".to_owned(),
        skills: vec!["mechanical".to_owned()],
        duration_seconds: 7200.0,
        priority: Severity::High,
        not_before: None,
        due: Some(time("2026-05-04T00:00:00Z")),
        technician: None,
        alarms: vec![id(1)],
        anomaly: Some(id(2)),
    }
}

fn decision(answer: Option<Answer>) -> Decision {
    Decision {
        id: id(3),
        asset: asset(),
        order: request(),
        question: "Plan the bearing of P-101 before Monday?".to_owned(),
        severity: Severity::High,
        deadline: time("2026-05-01T14:20:30.123Z"),
        default: Choice::Defer,
        asked: 1,
        answer,
        correlation: id(2),
    }
}

fn order(state: OrderState) -> WorkOrder {
    WorkOrder {
        id: id(4),
        request: request(),
        booking: Some(Booking {
            technician: TechnicianId::new("tech-1").unwrap(),
            start: time("2026-05-02T06:00:00Z"),
            end: time("2026-05-02T08:00:00Z"),
        }),
        state,
        late: false,
        reasons: vec!["earliest slot before it is due".to_owned()],
        authorised_by: "ada".to_owned(),
        correlation: id(2),
    }
}

fn completion() -> Completion {
    Completion {
        outcome: Outcome::Fixed,
        found: Some("outer race spalled".to_owned()),
        notes: None,
        duration: Some(5400.0),
        by: Some("tech-1".to_owned()),
    }
}

fn notice() -> Notice {
    Notice {
        channel: "mqtt".to_owned(),
        recipients: vec!["tech-1".to_owned()],
        template: "alarm-raised".to_owned(),
        severity: Severity::High,
        subject: "P-101 is hot".to_owned(),
        text: "bearing_temp 86.25 °C".to_owned(),
        attempts: 1,
    }
}

/// One body of every type of the table, and of every shape `data` can take.
fn bodies() -> Vec<Body> {
    let answer = Answer {
        choice: Choice::Approve,
        by: "ada".to_owned(),
        reason: None,
        changes: None,
        time: happened(),
    };
    vec![
        Body::AlarmRaised(limit_alarm()),
        Body::AlarmUpdated(Alarm {
            cause: AlarmCause::Limit { which: LimitKind::HighHigh, limit: 95.0 },
            ..limit_alarm()
        }),
        Body::AlarmAcknowledged(Alarm {
            state: AlarmState::Acknowledged,
            acknowledged_by: Some("ada".to_owned()),
            ..score_alarm()
        }),
        Body::AlarmShelved(Alarm {
            state: AlarmState::Shelved,
            shelved_until: Some(happened()),
            ..score_alarm()
        }),
        Body::AlarmUnshelved(score_alarm()),
        Body::AlarmCleared(Alarm {
            state: AlarmState::Cleared,
            cleared: Some(happened()),
            ..limit_alarm()
        }),
        Body::AlarmRaised(Alarm {
            asset: None,
            tag: None,
            value: None,
            cause: AlarmCause::System { condition: "source-silent".to_owned() },
            ..limit_alarm()
        }),
        Body::AnomalyDetected(anomaly()),
        Body::AnomalyValidated(Validated {
            anomaly_id: id(2),
            anomaly: anomaly(),
            verdict: Verdict::Confirmed,
            confidence: 0.95,
            adjustments: vec![Adjustment {
                reason: "correlated with vibration".to_owned(),
                amount: 0.05,
            }],
        }),
        Body::FailurePredicted(Prediction {
            asset: asset(),
            tag: tag(),
            failure_mode: "bearing-wear".to_owned(),
            rul: Quantiles::new(86_400.0, 172_800.0, 345_600.0).unwrap(),
            as_of: happened(),
            limit: 95.0,
            value: 86.0,
            method: "wiener-inverse-gaussian".to_owned(),
            confidence: 0.8,
            probability_7_30_90_d: [0.99, 1.0, 1.0],
            health: HealthIndex::new(0.4),
            actions: vec!["replace the bearing".to_owned()],
            skills: vec!["mechanical".to_owned()],
            repair_seconds: 7200.0,
            anomaly: Some(id(2)),
            track_record: crate::domain::prognosis::TrackRecord::default(),
            explanation: Default::default(),
        }),
        Body::DecisionRequested(decision(None)),
        Body::DecisionMade(decision(Some(answer))),
        Body::DecisionExpired(decision(None)),
        Body::WorkOrderPlanned(order(OrderState::Planned)),
        Body::WorkOrderStarted(order(OrderState::Started)),
        Body::WorkOrderRescheduled(order(OrderState::Planned)),
        Body::WorkOrderCancelled(order(OrderState::Cancelled)),
        Body::WorkOrderCompleted(order(OrderState::Completed), completion()),
        Body::WorkOrderFailed(order(OrderState::Failed), completion()),
        Body::WorkOrderUnschedulable(WorkOrder {
            booking: None,
            ..order(OrderState::Unschedulable)
        }),
        Body::NotificationSent(notice()),
        Body::NotificationFailed { message: notice(), error: "no route".to_owned() },
        Body::ModelTrained {
            asset: asset(),
            metrics: serde_json::json!({ "before": null, "after": { "tags": 4 } }),
        },
        Body::ModelPromoted {
            asset: asset(),
            model: id(7),
            replaces: Some(id(6)),
            reason: "better on held-back lives".to_owned(),
            metrics: serde_json::json!({ "before": 0.4, "after": 0.3 }),
        },
        Body::ModelRolledBack {
            asset: asset(),
            model: id(7),
            restores: Some(id(6)),
            reason: "a person asked".to_owned(),
            metrics: serde_json::json!({}),
        },
        Body::DriftDetected {
            asset: asset(),
            model: id(7),
            metrics: serde_json::json!({ "foreign": 3 }),
        },
        Body::AssetStateChanged(AssetState {
            asset: asset(),
            phase: Phase::Provisional,
            health: HealthIndex::new(0.4),
            worst_alarm: Some(Severity::High),
            work_order: Some(id(4)),
            rul_p50: Some(172_800.0),
            notes: Vec::new(),
        }),
        Body::EventSetAside {
            stage: "prediction".to_owned(),
            event: id(2),
            asset: Some(asset()),
            error: "no limit".to_owned(),
            attempts: 2,
        },
        Body::Gap {
            lane: "readings".to_owned(),
            from: 10,
            to: 20,
            count: 11,
            reason: "overwritten".to_owned(),
        },
    ]
}

fn committed(number: u64, body: Body) -> Committed {
    let sequence = body.class().map(|class| (class, 4711 + number));
    let event = Event {
        id: id(100 + u128::from(number)),
        cause: Some(id(9)),
        correlation: id(8),
        time: happened(),
        clock_trusted: true,
        body,
    };
    Committed { row: number, sequence, event, durable: true }
}

fn plant() -> Plant {
    Plant::new(
        [],
        [Tag {
            key: TagKey(0),
            path: TagPath { asset: asset(), tag: tag() },
            source: SourceId::new("plc1").unwrap(),
            unit: "°C".to_owned(),
            quantity: "temperature".to_owned(),
            scale: 1.0,
            offset: 0.0,
            range: None,
            invalid: Vec::new(),
            limits: Limits::default(),
            period: None,
            discrete: false,
            handling: crate::domain::tag::Handling::default(),
        }],
    )
}

fn some_readings() -> Vec<Reading> {
    let reading = |number: u64, value: f64, quality| Reading {
        tag: TagKey(0),
        arrival: Arrival(number),
        time: Timestamp::from_micros(happened().micros() + i64::try_from(number).unwrap() * 1000),
        value,
        quality,
    };
    vec![
        reading(0, 71.5, Quality::Good),
        reading(1, 250.0, Quality::Bad(Reason::Range)),
        reading(2, f64::NAN, Quality::Bad(Reason::Comm)),
        Reading {
            time: Timestamp::from_micros(happened().micros() + 3001),
            ..reading(3, 71.0, Quality::Uncertain(Reason::Stale))
        },
    ]
}

fn all_messages() -> Vec<Message> {
    let sender = sender();
    let mut messages = vec![
        sender.online(id(5), &birth(), now()),
        sender.offline(id(6), &birth(), "stopped", now()),
    ];
    for (number, body) in (0..).zip(bodies()) {
        let wire = sender.wire(&committed(number, body), now()).unwrap();
        messages.push(wire.event);
        messages.extend(wire.clearing);
    }
    for batch in
        readings::batches(&plant(), &some_readings(), &Arc::default(), readings::BATCH_BYTES_MAX)
    {
        let encoding = Encoding::Json;
        messages.push(readings::message(&sender, &plant(), &batch, encoding, id(7), 12, now()));
    }
    messages
}

#[test]
fn every_type_is_as_it_was_agreed() {
    let lines: Vec<String> = all_messages()
        .iter()
        .map(|message| {
            let event: Value = if message.payload.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&message.payload).unwrap()
            };
            serde_json::json!({ "topic": message.topic, "retain": message.retain, "event": event })
                .to_string()
        })
        .collect();
    if std::env::var_os("WHEELTAP_BLESS").is_some() {
        std::fs::write(GOLDEN, lines.join("\n") + "\n").unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    for (line, expected) in lines.iter().zip(golden.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(lines.len(), golden.lines().count());
}

#[test]
fn the_envelope_is_spelt_as_in_the_contract() {
    let json = sender().json(&committed(0, Body::AlarmRaised(limit_alarm())), now()).unwrap();
    let text = String::from_utf8(json).unwrap();
    let start = "{\"specversion\":\"1.0\",\"id\":\"01968b1e-9b7b-7000-8000-000000000064\",\
                 \"source\":\"/plant-a/gw-01\",\"type\":\"wheeltap.alarm.raised\",\
                 \"subject\":\"P-101/bearing_temp\",\"time\":\"2026-05-01T10:20:30.123Z\",\
                 \"datacontenttype\":\"application/json\",\"sequence\":\"000000000000004711\",\
                 \"correlationid\":\"01968b1e-9b7b-7000-8000-000000000008\",\
                 \"causationid\":\"01968b1e-9b7b-7000-8000-000000000009\",\"replayed\":false,\
                 \"data\":{";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn limit_alarms_have_a_limit_and_score_alarms_a_score_never_both() {
    for message in all_messages().iter().filter(|one| one.topic.contains("/alarm/")) {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let data = event["data"].as_object().unwrap();
        let kind = data["kind"].as_str().unwrap();
        assert_eq!(data.contains_key("limit"), kind == "limit");
        assert_eq!(data.contains_key("score"), kind == "score");
        assert_eq!(data.contains_key("fault"), kind == "score");
    }
}

#[test]
fn late_events_are_replayed_and_untrusted_clocks_are_named() {
    let mut one = committed(0, Body::AlarmRaised(limit_alarm()));
    one.event.clock_trusted = false;
    one.durable = false;
    for (seconds, replayed) in [(30, false), (31, true)] {
        let now = Now { utc: happened().after(Duration::from_secs(seconds)), ..now() };
        let event: Value = serde_json::from_slice(&sender().json(&one, now).unwrap()).unwrap();
        assert_eq!(event["replayed"], replayed);
        assert_eq!(event["clocktrusted"], false);
        assert_eq!(event["data"]["durable"], false);
    }
}

#[test]
fn an_answered_question_and_a_closed_order_clear_their_topic() {
    for body in bodies() {
        let kind = kind(&body).unwrap();
        let wire = sender().wire(&committed(1, body), now()).unwrap();
        let closes = [
            "decision.made",
            "decision.expired",
            "work-order.cancelled",
            "work-order.completed",
            "work-order.failed",
        ]
        .contains(&kind);
        let retains = kind == "asset.state"
            || (!closes && (kind.starts_with("decision") || kind.starts_with("work-order")));
        assert_eq!(wire.event.retain, retains, "{kind}");
        assert_eq!(wire.clearing.is_some(), closes, "{kind}");
        if let Some(clearing) = wire.clearing {
            assert!(clearing.retain && clearing.payload.is_empty());
            assert_eq!(clearing.topic, wire.event.topic);
        }
    }
}

#[test]
fn batches_stay_below_their_size_whatever_the_readings() {
    let readings: Vec<Reading> = (0..5000)
        .map(|number: u64| Reading {
            tag: TagKey(0),
            arrival: Arrival(number),
            time: Timestamp::from_micros(happened().micros() + 1 + i64::try_from(number).unwrap()),
            value: -1.234_567_890_123_456_7e-300,
            quality: Quality::Uncertain(Reason::SensorFault),
        })
        .collect();
    for bytes_max in [8 * 1024, readings::BATCH_BYTES_MAX] {
        let batches = readings::batches(&plant(), &readings, &Arc::default(), bytes_max);
        let cut: Vec<Reading> = batches.iter().flat_map(|batch| batch.readings.clone()).collect();
        assert_eq!(cut, readings);
        for batch in &batches {
            for encoding in [Encoding::Json, Encoding::Postcard] {
                let message =
                    readings::message(&sender(), &plant(), batch, encoding, id(1), 1, now());
                assert!(message.payload.len() <= bytes_max, "{}", message.payload.len());
            }
        }
    }
}

#[test]
fn a_binary_batch_reads_back() {
    type Wire = (u8, [u8; 16], u64, bool, i64, Vec<String>, Vec<(u16, i64, f64, u8)>);
    let batches =
        readings::batches(&plant(), &some_readings(), &Arc::default(), readings::BATCH_BYTES_MAX);
    let encoding = Encoding::Postcard;
    let message = readings::message(&sender(), &plant(), &batches[0], encoding, id(7), 12, now());
    assert_eq!(message.topic, "wheeltap/plant-a/gw-01/readings/P-101/bin");
    let wire: Wire = postcard::from_bytes(&message.payload).unwrap();
    assert_eq!((wire.0, wire.1, wire.2, wire.3), (1, id(7).0.into_bytes(), 12, false));
    assert_eq!(wire.4, happened().micros());
    assert_eq!(wire.5, ["bearing_temp"]);
    let times: Vec<i64> = wire.6.iter().map(|row| row.1).collect();
    assert_eq!(times, [0, 1000, 2000, 3001]);
    assert!(wire.6[2].2.is_nan());
    assert_eq!(Quality::from_byte(wire.6[3].3), Some(Quality::Uncertain(Reason::Stale)));
}
