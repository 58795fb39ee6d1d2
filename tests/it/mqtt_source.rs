//! MQTT in, against mosquitto.

use std::time::Duration;

use wheeltap::domain::reading::{Ack, RawBatch, RawValue, Reason};
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
    let end = listen(&broker, false).await;
    Some((broker, end))
}

async fn listen(broker: &Mosquitto, v5: bool) -> EngineEnd {
    let mut source = mqtt("shop", broker.port, vec![json("vib", "p/+/vib", "/rms")]);
    source.broker.v5 = v5;
    source.broker.client_id = format!("wheeltap-test-{v5}");
    let mut end = EngineEnd::start(&setting(vec![], vec![source]));
    end.condition("source-silent", "shop", false).await;
    end
}

#[tokio::test]
async fn a_message_is_acknowledged_only_when_its_readings_are_durable() {
    for v5 in [false, true] {
        let Some(broker) = Mosquitto::start().await else { return };
        acknowledged_when_durable(&broker, listen(&broker, v5).await).await;
    }
}

async fn acknowledged_when_durable(broker: &Mosquitto, mut end: EngineEnd) {
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
    // No more than the usual 20 under way.
    let Some(broker) = Mosquitto::start_with("max_queued_messages 0").await else { return };
    let mut end = listen(&broker, false).await;
    let next = async |end: &mut EngineEnd, expected: &mut i32, acks: &mut Vec<Ack>| {
        let batch = end.batch().await;
        for reading in &batch.readings {
            let RawValue::Number(value) = reading.value else { panic!("{reading:?}") };
            assert_eq!(value.to_bits(), f64::from(*expected).to_bits());
            *expected += 1;
        }
        let ack = batch.ack.unwrap();
        assert_eq!(ack.senders(), batch.readings.len());
        acks.push(ack);
    };
    for number in 0..50 {
        broker.publish("p/1/vib", format!("{{\"rms\":{number}}}").as_bytes(), false);
    }
    // Mosquitto has 20 messages under way at most: all of these come without any being durable.
    let (mut expected, mut waiting) = (0, Vec::new());
    while expected < 20 {
        next(&mut end, &mut expected, &mut waiting).await;
    }
    assert_eq!(expected, 20);
    // Told in the wrong order; the broker hears of them in the right one and goes on.
    waiting.into_iter().rev().for_each(Ack::done);
    while expected < 50 {
        let mut acks = Vec::new();
        next(&mut end, &mut expected, &mut acks).await;
        acks.into_iter().for_each(Ack::done);
    }
}

#[tokio::test]
async fn d01_garbage_is_a_bad_reading_counted_acknowledged_and_stops_nothing() {
    let Some((broker, mut end)) = listening().await else { return };
    broker.publish("p/1/vib", b"\xff\xfe{", false);
    broker.publish("p/1/vib", br#"{"other":1}"#, false);
    // Longer than what is looked at, and longer than what is taken in.
    broker.publish("p/1/vib", &vec![b'1'; 100_000], false);
    broker.publish("p/1/vib", &vec![b'1'; 3 << 20], false);
    broker.publish("p/1/vib", br#"{"rms":8}"#, false);
    let mut bad = 0;
    'all: loop {
        let batch = end.batch().await;
        for reading in &batch.readings {
            match reading.value {
                RawValue::Failed(Reason::Device) => bad += 1,
                RawValue::Number(value) => {
                    assert_eq!(value.to_bits(), 8.0_f64.to_bits());
                    batch.ack.unwrap().done();
                    break 'all;
                }
                other => panic!("{other:?}"),
            }
        }
        batch.ack.unwrap().done();
    }
    assert_eq!(bad, 3, "a document without the value is no bad reading");
    let health = end.tasks[0].health.values().next().unwrap().borrow().clone();
    assert_eq!((health.good, health.failed), (1, 4));
    assert!(health.last_error.unwrap().starts_with("p/1/vib: "));
}

#[tokio::test]
async fn d02_a_huge_retained_message_is_passed_over_at_every_start() {
    let Some(broker) = Mosquitto::start().await else { return };
    broker.publish("p/1/vib", &vec![b'x'; 8 << 20], true);
    for round in 1..=2 {
        let mut end = listen(&broker, round == 2).await;
        let kept = end.batch().await;
        assert_eq!(kept.readings[0].value, RawValue::Failed(Reason::Device));
        assert!(kept.readings[0].retained);
        kept.ack.unwrap().done();
        broker.publish("p/1/vib", br#"{"rms":9}"#, false);
        let next = end.batch().await;
        assert_eq!(value(&next).to_bits(), 9.0_f64.to_bits());
        next.ack.unwrap().done();
        end.stop().await;
    }
}

#[tokio::test]
async fn d10_what_the_broker_kept_is_marked_retained() {
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
#[expect(clippy::disallowed_methods, reason = "how soon it is heard again is what is tested")]
async fn d11_a_broker_that_lost_the_session_is_subscribed_to_again_within_five_seconds() {
    let Some((mut broker, mut end)) = listening().await else { return };
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        broker.restart().await;
        let back = std::time::Instant::now();
        // Published again and again until the subscription is there: nobody says when that is.
        let arrived = loop {
            broker.publish("p/1/vib", format!("{{\"rms\":{round}}}").as_bytes(), false);
            let input = tokio::time::timeout(Duration::from_millis(200), end.input());
            if let Ok(Input::Readings(batch)) = input.await
                && value(&batch).to_bits() == f64::from(round).to_bits()
            {
                break batch;
            }
        };
        arrived.ack.unwrap().done();
        slowest = slowest.max(back.elapsed());
    }
    eprintln!("slowest of 10 restarts: {slowest:?}");
    assert!(slowest <= Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn d09_times_far_off_are_flagged_and_never_good() {
    use wheeltap::agents::Acquire as _;
    use wheeltap::agents::acquisition::Acquisition;
    use wheeltap::domain::ids::SourceId;
    use wheeltap::domain::reading::{Quality, RawReading};
    use wheeltap::domain::time::{Now, Timestamp};

    let setting = setting(vec![], vec![mqtt("shop", 1, vec![json("vib", "p", "/v")])]);
    let mut stage = Acquisition::for_plant(&setting.plant);
    let tag = setting.plant.tags().next().unwrap().key;
    let (seed, utc) = (fastrand::u64(..), Timestamp::from_micros(1_790_000_000_000_000));
    let mut rng = fastrand::Rng::with_seed(seed);
    let now = Now { mono: Duration::ZERO, utc, trusted: true };
    const YEARS: i64 = 50 * 365 * 86_400;
    for round in 0..20_000 {
        let off = rng.i64(-YEARS..YEARS) >> rng.u32(0..30);
        let source_time = Some(Timestamp::from_micros(utc.micros() + off * 1_000_000));
        let value = RawValue::Number(f64::from(round));
        let raw = RawReading { tag, source_time, arrived: utc, value, retained: false };
        let source = SourceId::new("shop").unwrap();
        let batch =
            RawBatch { source, readings: vec![raw], extras: None, ack: None, historical: false };
        let mut judged = Vec::new();
        stage.judge(now, &batch, &mut judged);
        let quality = judged[0].quality;
        assert_eq!(Some(judged[0].time), source_time, "the device's time is kept");
        let expected = match off {
            301.. => Quality::Bad(Reason::Clock),
            ..-600 => Quality::Uncertain(Reason::Stale),
            _ => Quality::Good,
        };
        assert_eq!(quality, expected, "off by {off} s, seed {seed}");
    }
}
