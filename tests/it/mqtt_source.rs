//! MQTT in, against mosquitto.

use wheeltap::domain::reading::{RawBatch, RawValue};
use wheeltap::port::Input;

use crate::support::broker::Mosquitto;
use crate::support::engine_end::EngineEnd;
use crate::support::setting::{json, mqtt, setting};

fn value(batch: &RawBatch) -> f64 {
    match batch.readings[0].value {
        RawValue::Number(value) => value,
        other => panic!("{other:?}"),
    }
}

/// A broker and a source on `p/+/vib` that has subscribed.
async fn listening() -> Option<(Mosquitto, EngineEnd)> {
    let broker = Mosquitto::start().await?;
    let source = mqtt("shop", broker.port, vec![json("vib", "p/+/vib", "/rms")]);
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    end.condition("source-silent", "shop", false).await;
    Some((broker, end))
}

#[tokio::test]
async fn a_message_is_acknowledged_only_when_its_readings_are_durable() {
    let Some((broker, mut end)) = listening().await else { return };
    broker.publish("p/1/vib", br#"{"rms":1.5}"#, false);
    let batch = end.batch().await;
    assert_eq!(value(&batch).to_bits(), 1.5_f64.to_bits());
    assert!(batch.ack.is_some(), "somebody waits for it to be durable");

    // We go without having made it durable: the broker still has it.
    end.restart().await;
    let again = end.batch().await;
    assert_eq!(value(&again).to_bits(), 1.5_f64.to_bits());
    again.ack.unwrap().done();

    // Now it is durable: after another restart the next message comes first. The acknowledgement
    // is on its way once a later message, which is acknowledged after it, is not repeated either.
    broker.publish("p/1/vib", br#"{"rms":2.5}"#, false);
    let second = end.batch().await;
    assert_eq!(value(&second).to_bits(), 2.5_f64.to_bits());
    second.ack.unwrap().done();
    broker.publish("p/1/vib", br#"{"rms":3.5}"#, false);
    let third = end.batch().await;
    assert_eq!(value(&third).to_bits(), 3.5_f64.to_bits());
    end.restart().await;
    assert_eq!(value(&end.batch().await).to_bits(), 3.5_f64.to_bits());
}

#[tokio::test]
async fn an_acknowledgement_that_will_not_come_brings_the_message_again() {
    let Some((broker, mut end)) = listening().await else { return };
    broker.publish("p/1/vib", br#"{"rms":7}"#, false);
    let batch = end.batch().await;
    drop(batch);
    let again = end.batch().await;
    assert_eq!(value(&again).to_bits(), 7.0_f64.to_bits());
    again.ack.unwrap().done();
}

#[tokio::test]
async fn the_brokers_window_is_filled_and_emptied_in_order() {
    let Some((broker, mut end)) = listening().await else { return };
    for number in 0..50 {
        broker.publish("p/1/vib", format!("{{\"rms\":{number}}}").as_bytes(), false);
    }
    // Mosquitto has 20 messages under way at most: all of these come without any being durable.
    let mut waiting = Vec::new();
    for number in 0..20 {
        let batch = end.batch().await;
        assert_eq!(value(&batch).to_bits(), f64::from(number).to_bits());
        waiting.push(batch.ack.unwrap());
    }
    // Told in the wrong order; the broker hears of them in the right one and goes on.
    for ack in waiting.into_iter().rev() {
        ack.done();
    }
    for number in 20..50 {
        let batch = end.batch().await;
        assert_eq!(value(&batch).to_bits(), f64::from(number).to_bits());
        batch.ack.unwrap().done();
    }
}

#[tokio::test]
async fn f_d01_garbage_is_counted_acknowledged_and_stops_nothing() {
    let Some((broker, mut end)) = listening().await else { return };
    broker.publish("p/1/vib", b"\xff\xfe{", false);
    broker.publish("p/1/vib", br#"{"other":1}"#, false);
    // Longer than what is looked at, short enough to be taken in.
    broker.publish("p/1/vib", &vec![b'1'; 100_000], false);
    broker.publish("p/1/vib", br#"{"rms":8}"#, false);
    let batch = end.batch().await;
    assert_eq!(value(&batch).to_bits(), 8.0_f64.to_bits());
    batch.ack.unwrap().done();
    let health = end.tasks[0].health.values().next().unwrap().borrow().clone();
    assert_eq!((health.good, health.failed), (1, 3));
    assert!(health.last_error.unwrap().starts_with("p/1/vib: "));
}

#[tokio::test]
async fn f_b19_a_packet_too_large_to_take_in_ends_in_a_new_session() {
    let Some((broker, mut end)) = listening().await else { return };
    broker.publish("p/1/vib", &vec![b'x'; 1 << 20], false);
    // Three connections end on it; then the session that holds it is given up.
    end.condition("source-silent", "shop", true).await;
    end.condition("messages-discarded", "shop", true).await;
    end.condition("source-silent", "shop", false).await;
    broker.publish("p/1/vib", br#"{"rms":9}"#, false);
    assert_eq!(value(&end.batch().await).to_bits(), 9.0_f64.to_bits());
}

#[tokio::test]
async fn f_d10_what_the_broker_kept_is_marked_retained() {
    let Some(broker) = Mosquitto::start().await else { return };
    broker.publish("p/1/vib", br#"{"rms":1}"#, true);
    let source = mqtt("shop", broker.port, vec![json("vib", "p/+/vib", "/rms")]);
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    let kept = end.batch().await;
    assert!(kept.readings[0].retained);
    kept.ack.unwrap().done();
    broker.publish("p/1/vib", br#"{"rms":2}"#, false);
    assert!(!end.batch().await.readings[0].retained);
}

#[tokio::test]
async fn f_d11_a_broker_that_lost_the_session_is_subscribed_to_again() {
    let Some((mut broker, mut end)) = listening().await else { return };
    broker.restart().await;
    // Published again and again until the subscription is there: nobody says when that is.
    let arrived = loop {
        broker.publish("p/1/vib", br#"{"rms":4}"#, false);
        let input = tokio::time::timeout(std::time::Duration::from_millis(200), end.input());
        if let Ok(Input::Readings(batch)) = input.await {
            break batch;
        }
    };
    assert_eq!(value(&arrived).to_bits(), 4.0_f64.to_bits());
}
