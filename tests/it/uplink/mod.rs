//! The uplink over real stores, against mosquitto and against brokers that misbehave.

use std::time::Duration;

use wheeltap::port::Lane;

use crate::support::broker::Mosquitto;

mod fake_broker;
mod gate;
mod gateway;
mod subscriber;

use fake_broker::{FakeBroker, Manners};
use gate::Gate;
use gateway::{Gateway, PATIENCE, fast};
use subscriber::Subscriber;

#[tokio::test]
async fn a_gateway_says_when_it_comes_and_how_it_went() {
    let Some(broker) = Mosquitto::start().await else { return };
    let mut gateway = Gateway::new(broker.port, fast());
    gateway.start();
    gateway.is("up").await;

    // Somebody who comes later finds the retained status.
    let mut subscriber = Subscriber::start(broker.port).await;
    let online = subscriber.event("gateway.online").await;
    assert!(online.retained || online.event["data"]["version"].is_string());
    assert_eq!(online.topic, "wheeltap/test/gw/status");
    for field in ["version", "started", "config_hash", "epoch"] {
        assert!(!online.event["data"][field].is_null(), "{field} is missing");
    }

    gateway.stop().await;
    let offline = subscriber.event("gateway.offline").await;
    assert_eq!(offline.event["data"]["reason"], "stopped");

    gateway.start();
    subscriber.event("gateway.online").await;
    gateway.crash().await;
    let will = subscriber.event("gateway.offline").await;
    assert_eq!(will.event["data"]["reason"], "connection lost");
    assert_ne!(will.event["id"], offline.event["id"]);
}

#[tokio::test]
async fn an_alarm_comes_once_and_in_its_shape() {
    let Some(broker) = Mosquitto::start().await else { return };
    let mut subscriber = Subscriber::start(broker.port).await;
    let mut gateway = Gateway::new(broker.port, fast());
    let early = gateway.alarm();
    gateway.start();
    let first = subscriber.event("alarm.raised").await;
    assert_eq!(first.event["id"], early.to_string());
    let id = gateway.alarm();
    let second = subscriber.event("alarm.raised").await;
    assert_eq!(second.event["id"], id.to_string());
    assert_eq!(second.topic, "wheeltap/test/gw/alarm/A");
    assert_eq!(second.event["subject"], "A/a");
    assert_eq!(second.event["sequence"], "000000000000000002");
    assert_eq!(second.event["replayed"], false);
    gateway.acknowledged(Lane::Events, 3).await;

    // What was acknowledged does not come again after a restart.
    gateway.stop().await;
    gateway.start();
    let third = gateway.alarm();
    assert_eq!(subscriber.event("alarm.raised").await.event["id"], third.to_string());
    assert_eq!(subscriber.repeats, 0);
}

#[tokio::test]
async fn readings_come_whole_over_restarts() {
    let Some(broker) = Mosquitto::start().await else { return };
    let mut subscriber = Subscriber::start(broker.port).await;
    let mut gateway = Gateway::new(broker.port, fast());
    gateway.readings(9_000);
    gateway.start();
    let mut total = 9_000;
    for _ in 0..5 {
        gateway.is("up").await;
        gateway.readings(700);
        total += 700;
        subscriber.event("readings.batch").await;
        gateway.take_all();
        gateway.crash().await;
        gateway.start();
    }
    while subscriber.readings.len() < total {
        subscriber.event("readings.batch").await;
    }
    gateway.acknowledged(Lane::Readings, total as u64 + 1).await;
    assert_eq!(subscriber.readings.len(), total);
    let numbers = &subscriber.sequences["readings"];
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
}

/// The broker is frozen, killed with all it knows, and started again, while alarms are raised.
#[tokio::test]
async fn f_b10_a_broker_that_forgets_everything_loses_no_alarm() {
    const RESTARTS: u32 = 10;
    let Some(mut broker) = Mosquitto::start().await else { return };
    let gate = Gate::to(broker.port).await;
    let mut subscriber = Subscriber::start(broker.port).await;
    let mut gateway = Gateway::new(gate.port, fast());
    gateway.start();
    gateway.is("up").await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // A steady load: a pause between alarms lets the uplink and the broker work meanwhile.
    let mut load = tokio::time::interval(Duration::from_millis(1));
    let mut raised = 0;
    for _ in 0..RESTARTS {
        let frozen_at = random.usize(50..150);
        for number in 0..200 {
            load.tick().await;
            gateway.alarm();
            raised += 1;
            if number == frozen_at {
                broker.freeze();
            }
            gateway.take_all();
        }
        // The gateway may come back only after the subscriber: a broker without persistence has
        // nobody to keep messages for before.
        gate.set(false);
        broker.restart().await;
        subscriber.subscribed().await;
        gate.set(true);
    }
    while subscriber.sequences.get("alarm").map_or(0, Vec::len) < raised {
        subscriber.event("alarm.raised").await;
        gateway.take_all();
    }
    let all: Vec<u64> = (1..=raised as u64).collect();
    assert_eq!(subscriber.sequences["alarm"], all, "lost or out of order");
    println!("{raised} alarms, {RESTARTS} restarts, {} repeats", subscriber.repeats);
}

#[tokio::test]
async fn f_b05_a_broker_that_never_answers_is_left_and_tried_again() {
    let mut broker = FakeBroker::start(Manners::Mute).await;
    let pace = gateway::fast();
    let pace =
        wheeltap::uplink::session::Pace { connect_within: Duration::from_millis(300), ..pace };
    let mut gateway = Gateway::new(broker.port, pace);
    gateway.start();
    for _ in 0..3 {
        let connect = tokio::time::timeout(PATIENCE, broker.connects.recv()).await;
        connect.expect("it connects again").unwrap();
    }
    assert!(gateway.is("connecting").await.last_error.unwrap().contains("no connection within"));
    gateway.stop().await;
}

#[tokio::test]
async fn f_b07_a_broker_that_never_acknowledges_is_left_and_reported() {
    let mut broker = FakeBroker::start(Manners::Hoards).await;
    let pace = wheeltap::uplink::session::Pace {
        acknowledge_within: Duration::from_millis(200),
        ..fast()
    };
    let mut gateway = Gateway::new(broker.port, pace);
    let id = gateway.alarm().to_string();
    gateway.start();
    let report = gateway.condition().await;
    assert!(report.active);
    assert_eq!(report.condition, "upstream-stalled");
    assert_eq!(gateway.position(Lane::Events).below, 1, "a row was passed without its PUBACK");
    // On every connection the alarm was sent again.
    let mut times = 0;
    while let Ok(published) = broker.published.try_recv() {
        times += u32::from(String::from_utf8_lossy(&published.payload).contains(&id));
    }
    assert!(times >= 3, "sent {times} times");
    gateway.stop().await;
}

#[tokio::test]
async fn f_b08_an_acknowledgement_of_something_else_passes_no_row() {
    let mut broker = FakeBroker::start(Manners::Confused(60)).await;
    let mut gateway = Gateway::new(broker.port, fast());
    for _ in 0..100 {
        gateway.alarm();
    }
    gateway.start();
    gateway.acknowledged(Lane::Events, 101).await;
    let mut sequences = Vec::new();
    while let Ok(published) = broker.published.try_recv() {
        if published.topic.contains("/alarm/") {
            let event: serde_json::Value = serde_json::from_slice(&published.payload).unwrap();
            let number: u64 = event["sequence"].as_str().unwrap().parse().unwrap();
            if !sequences.contains(&number) {
                sequences.push(number);
            }
        }
    }
    let all: Vec<u64> = (1..=100).collect();
    assert_eq!(sequences, all);
    gateway.stop().await;
}

#[tokio::test]
async fn f_b14_a_refusal_is_reported_and_not_hammered_at() {
    for code in 1..=5 {
        let mut broker = FakeBroker::start(Manners::Refuses(code)).await;
        let mut gateway = Gateway::new(broker.port, fast());
        gateway.start();
        let report = gateway.condition().await;
        assert_eq!(report.condition, "upstream-refused");
        let first = broker.connects.recv().await.unwrap();
        let second = tokio::time::timeout(PATIENCE, broker.connects.recv()).await;
        let second = second.expect("it tries again").unwrap();
        assert!(second - first >= fast().retry_max, "{:?} apart", second - first);
        gateway.stop().await;
    }
}

/// Not a gate, a figure: how long from the commit of an alarm to its subscriber.
#[tokio::test]
async fn an_alarm_goes_out_at_once() {
    let Some(broker) = Mosquitto::start().await else { return };
    let mut subscriber = Subscriber::start(broker.port).await;
    let mut gateway = Gateway::new(broker.port, fast());
    gateway.start();
    gateway.is("up").await;
    let mut spans = Vec::new();
    for _ in 0..200 {
        gateway.readings(100);
        let began = tokio::time::Instant::now();
        let id = gateway.alarm().to_string();
        subscriber.wait(|received| received.event["id"] == id.as_str()).await;
        spans.push(began.elapsed());
        gateway.take_all();
    }
    spans.sort();
    println!("commit to subscriber: median {:?}, p99 {:?}", spans[100], spans[198]);
}
