//! Which tag hears what, and what it makes of it.

use super::*;
use crate::config::{Column, Samples, TagConfig};
use crate::domain::ids::{AssetId, TagId, TagPath};
use crate::domain::tag::{Handling, Limits};

fn tag(asset: &str, name: &str, topic: &str, payload: Payload) -> MqttTag {
    let path = TagPath { asset: AssetId::new(asset).unwrap(), tag: TagId::new(name).unwrap() };
    let tag = TagConfig {
        path,
        unit: String::new(),
        quantity: String::new(),
        scale: 1.0,
        offset: 0.0,
        range: None,
        invalid: Vec::new(),
        limits: Limits::default(),
        discrete: false,
        handling: Handling::default(),
    };
    MqttTag { tag, topic: topic.to_owned(), payload, expect_every: None, device_time: true }
}

fn json(pointer: &str) -> Payload {
    Payload::Json { pointer: pointer.to_owned(), time_pointer: None }
}

fn routes(tags: &[MqttTag]) -> Routes {
    let mut routes = Routes::default();
    let source = routes.source(&Intake { series_max: 3, payload_max: 2048, ..Intake::default() });
    for (key, tag) in (0..).zip(tags) {
        routes.route(source, TagKey(key), tag);
    }
    routes.finish();
    routes
}

fn now() -> Now {
    Now { mono: Duration::from_secs(1), utc: Timestamp::from_micros(1_000_000), trusted: true }
}

fn message<'a>(topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    let (topic, length) = (topic.as_bytes(), payload.len());
    Message { topic, payload, length, qos: 1, retained: false, id: 1 }
}

fn hear(routes: &mut Routes, topic: &str, payload: &[u8]) -> Heard {
    let mut heard = Heard::default();
    routes.hear(&message(topic, payload), now(), &mut heard);
    heard
}

fn values(heard: &Heard) -> Vec<(u32, RawValue)> {
    heard.readings.iter().map(|reading| (reading.tag.0, reading.value)).collect()
}

fn number(tag: u32, value: f64) -> (u32, RawValue) {
    (tag, RawValue::Number(value))
}

fn bad(tag: u32, reason: Reason) -> (u32, RawValue) {
    (tag, RawValue::Failed(reason))
}

#[test]
fn captured_names_lead_to_the_declared_tags_and_others_are_listed() {
    let topic = "plant/{asset}/{tag}/state";
    let mut routes = routes(&[
        tag("P-1", "vib", topic, json("/v")),
        tag("P-1", "temp", topic, json("/v")),
        tag("P-2", "vib", topic, json("/v")),
        tag("P-2", "flow", "plant/{asset}/flow", Payload::Text),
    ]);
    let filters = routes.subscriptions();
    let filters: Vec<&str> = filters.iter().map(Filter::as_str).collect();
    assert_eq!(filters, ["plant/+/+/state", "plant/+/flow"], "one subscription a filter");
    assert_eq!(values(&hear(&mut routes, "plant/P-1/temp/state", br#"{"v":3}"#)), [number(1, 3.0)]);
    assert_eq!(values(&hear(&mut routes, "plant/P-2/vib/state", br#"{"v":4}"#)), [number(2, 4.0)]);
    assert_eq!(values(&hear(&mut routes, "plant/P-2/flow", b"5")), [number(3, 5.0)]);
    for topic in ["plant/P-9/vib/state", "plant/P-2/temp/state", "plant/P-1/flow"] {
        for _ in 0..2 {
            let heard = hear(&mut routes, topic, br#"{"v":4}"#);
            assert!(heard.is_empty() && heard.error.is_none() && !heard.unknown);
        }
    }
    let list = routes.unknown(0).unwrap().news().unwrap();
    let listed: Vec<(&str, u64)> = list.iter().map(|s| (s.name.as_str(), s.count)).collect();
    let expected = [("plant/P-1/flow", 2), ("plant/P-2/temp/state", 2), ("plant/P-9/vib/state", 2)];
    assert_eq!(listed, expected);
    assert!(hear(&mut routes, "elsewhere", b"1").unknown);
}

#[test]
fn d07_random_topics_under_a_wildcard_leave_known_ones_alone() {
    let mut routes = routes(&[tag("P-1", "vib", "plant/{asset}/{tag}", Payload::Text)]);
    for topic in 0..50_000 {
        assert!(hear(&mut routes, &format!("plant/x/{topic}"), b"1").is_empty());
        if topic % 1000 == 0 {
            assert_eq!(values(&hear(&mut routes, "plant/P-1/vib", b"7")), [number(0, 7.0)]);
        }
    }
    let unknown = routes.unknown(0).unwrap();
    assert_eq!((unknown.news().unwrap().len(), unknown.refused()), (3, 50_000 - 3));
}

#[test]
fn one_message_feeds_all_its_tags_and_may_leave_some_out() {
    let mut routes = routes(&[
        tag("A", "a", "m", json("/a")),
        tag("A", "b", "m", json("/b")),
        tag("A", "c", "+", json("/c/0")),
    ]);
    let heard = hear(&mut routes, "m", br#"{"a":1,"b":2,"c":[3]}"#);
    let mut all = values(&heard);
    all.sort_by_key(|(tag, _)| *tag);
    assert_eq!(all, [number(0, 1.0), number(1, 2.0), number(2, 3.0)]);
    let heard = hear(&mut routes, "m", br#"{"b":2}"#);
    assert_eq!((values(&heard), heard.error), (vec![number(1, 2.0)], None));
    let heard = hear(&mut routes, "m", br#"{"z":2}"#);
    assert!(heard.is_empty() && heard.error.is_some(), "nothing of what is looked for");
}

#[test]
fn d01_garbage_on_a_known_topic_is_a_visible_bad_reading() {
    let mut routes = routes(&[
        tag("A", "a", "m", json("/a")),
        tag("A", "b", "m", json("/b")),
        tag("A", "t", "t", Payload::Text),
        tag("A", "f", "f", Payload::Binary(Samples::F32Le)),
        tag(
            "A",
            "c",
            "c",
            Payload::Csv { column: Column::Index(0), time_column: None, separator: b',' },
        ),
    ]);
    let device = Reason::Device;
    let heard = hear(&mut routes, "m", b"\xff\xfe{");
    assert_eq!(values(&heard), [bad(0, device), bad(1, device)]);
    assert!(heard.error.is_some());
    assert_eq!(values(&hear(&mut routes, "t", b"\xff")), [bad(2, device)]);
    assert_eq!(values(&hear(&mut routes, "t", b"hot")), [bad(2, device)]);
    assert_eq!(values(&hear(&mut routes, "f", b"123")), [bad(3, device)]);
    assert_eq!(values(&hear(&mut routes, "c", b"\xff\n")), [bad(4, device)]);
    // A cleared retained message says nothing.
    assert!(hear(&mut routes, "t", b"").is_empty());
    let mut heard = Heard::default();
    let odd = Message { topic: b"\xff\xfe", ..message("t", b"1") };
    routes.hear(&odd, now(), &mut heard);
    assert_eq!(heard.error, Some(MessageError::Topic));
}

#[test]
fn d02_what_is_longer_than_configured_is_not_looked_at() {
    let mut routes = routes(&[tag("A", "t", "t", Payload::Text)]);
    let long = vec![b'1'; 2049];
    let heard = hear(&mut routes, "t", &long);
    assert_eq!(values(&heard), [bad(0, Reason::Device)]);
    let most = 2048;
    assert_eq!(heard.error, Some(PayloadError::TooLong { length: 2049, most }.into()));
    let mut heard = Heard::default();
    let passed_over = Message { length: 1 << 28, ..message("t", b"") };
    routes.hear(&passed_over, now(), &mut heard);
    assert_eq!(values(&heard), [bad(0, Reason::Device)]);
}

#[test]
fn names_of_states_texts_and_bursts() {
    let mut state = tag("A", "s", "s", Payload::Text);
    state.tag.handling.states = vec![(0, "stopped".to_owned()), (2, "running".to_owned())];
    let mut words = tag("A", "w", "w", json("/w"));
    words.tag.handling.form = Form::Text;
    let burst = tag("A", "b", "b", Payload::Binary(Samples::I16Le));
    let mut routes = routes(&[state, words, burst]);
    assert_eq!(values(&hear(&mut routes, "s", b"Running")), [number(0, 2.0)]);
    assert_eq!(values(&hear(&mut routes, "s", b"0")), [number(0, 0.0)]);
    let heard = hear(&mut routes, "w", br#"{"w":"serial 12"}"#);
    assert_eq!((heard.readings.len(), &*heard.extras.texts[0].text), (0, "serial 12"));
    let heard = hear(&mut routes, "b", &[1, 0, 2, 0]);
    assert_eq!(&*heard.extras.waveforms[0].samples, [1.0, 2.0]);
    assert!(heard.readings.is_empty());
}

#[test]
fn the_payloads_time_counts_only_where_it_shall() {
    let payload = |time: Option<&str>| Payload::Json {
        pointer: "/v".to_owned(),
        time_pointer: time.map(str::to_owned),
    };
    let mut arrival = tag("A", "b", "m", payload(Some("/t")));
    arrival.device_time = false;
    let mut routes = routes(&[tag("A", "a", "m", payload(Some("/t"))), arrival]);
    let heard = hear(&mut routes, "m", br#"{"v":1,"t":1790000000}"#);
    let time = Some(Timestamp::from_micros(1_790_000_000_000_000));
    assert_eq!(heard.readings[0].source_time, time);
    assert_eq!(heard.readings[1].source_time, None);
    let heard = hear(&mut routes, "m", br#"{"v":1,"t":"noon"}"#);
    assert!(heard.bad_time);
    assert_eq!(heard.readings.len(), 2, "the arrival counts instead");
}

#[test]
fn d11_an_expected_tag_that_is_silent_for_two_intervals_is_stale_once() {
    let mut expected = tag("A", "a", "m", Payload::Text);
    expected.expect_every = Some(Duration::from_secs(1));
    (expected.tag.scale, expected.tag.offset) = (10.0, 1.0);
    let mut routes = routes(&[expected, tag("A", "b", "n", Payload::Text)]);
    let at = |routes: &mut Routes, millis: u64| {
        let mut found = Vec::new();
        let mono = Duration::from_millis(millis);
        routes.silent(Now { mono, ..now() }, |_, reading| found.push(reading.value));
        found
    };
    assert_eq!(at(&mut routes, 0), []);
    assert_eq!(at(&mut routes, 2_001), [RawValue::Failed(Reason::Comm)], "it never spoke");
    assert_eq!(at(&mut routes, 9_000), []);
    let mut heard = Heard::default();
    let spoken = Now { mono: Duration::from_secs(10), ..now() };
    routes.hear(&message("m", b"5"), spoken, &mut heard);
    assert_eq!(at(&mut routes, 12_000), []);
    let stale = RawValue::Scaled(51.0, Quality::Uncertain(Reason::Stale));
    assert_eq!(at(&mut routes, 12_001), [stale]);
    assert_eq!(at(&mut routes, 99_000), []);
}
