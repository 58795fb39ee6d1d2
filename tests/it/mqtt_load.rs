//! Many messages, many topics and huge ones, through the daemon as a process.

#![allow(clippy::disallowed_methods, reason = "processes are watched on the wall clock")]

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::broker::Mosquitto;
use crate::support::daemon::{Daemon, Home};
use crate::support::publisher::Publisher;
use crate::support::wait;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn assets(count: usize) -> String {
    (0..count).map(|asset| format!("[[asset]]\nid = \"A{asset}\"\n")).collect()
}

/// A source with one tag `v` an asset under `plant/{asset}/{tag}`, and further keys.
fn source(port: u16, tags: usize, keys: &str, tag_keys: &str) -> String {
    let mut text =
        format!("[[mqtt]]\nname = \"hall\"\nurl = \"mqtt://127.0.0.1:{port}\"\n{keys}\n");
    for asset in 0..tags {
        text += &format!(
            "[[mqtt.tag]]\nid = \"v\"\nasset = \"A{asset}\"\ntopic = \"plant/{{asset}}/{{tag}}\"\n\
             payload = \"text\"\n{tag_keys}\n"
        );
    }
    text
}

fn is_up(daemon: &Daemon) {
    wait::until("the subscription", || {
        let (_, source) = daemon.http.get("/api/v1/sources/hall").unwrap();
        (source["state"] == "up").then_some(())
    });
}

fn rss_kib(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What mosquitto has dropped since it started.
async fn dropped(port: u16) -> u64 {
    let mut ear = Publisher::connect(port).await;
    ear.subscribe("$SYS/broker/publish/messages/dropped").await;
    let (_, count) = ear.heard().await;
    String::from_utf8(count).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_messages_a_second_through_a_default_mosquitto_and_none_is_lost() {
    const TAGS: usize = 10;
    const MESSAGES: usize = 6_000;
    let runtime = runtime();
    // Its defaults: 20 messages under way, 1,000 waiting.
    let Some(broker) = runtime.block_on(Mosquitto::start_with("sys_interval 1")) else { return };
    let mut home = Home::new(assets(TAGS) + &source(broker.port, TAGS, "", ""));
    let daemon = home.start();
    is_up(&daemon);
    let took = runtime.block_on(async {
        let mut publisher = Publisher::connect(broker.port).await;
        let began = Instant::now();
        for message in 0..MESSAGES {
            // A thousand a second, in steps of ten milliseconds.
            let due = Duration::from_millis(message as u64 / 10 * 10);
            while began.elapsed() < due {
                tokio::time::timeout(Duration::from_millis(1), publisher.step()).await.ok();
            }
            let topic = format!("plant/A{}/v", message % TAGS);
            publisher.publish(&topic, message.to_string(), 1).await;
        }
        publisher.drain().await;
        began.elapsed()
    });
    let stored = |asset: usize| {
        let path = format!("/api/v1/readings?asset=A{asset}&tag=v");
        daemon.http.list(&path).iter().map(|row| row["value"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    for asset in 0..TAGS {
        let mut values = wait::until("all messages of a tag", || {
            let values = stored(asset);
            (values.len() >= MESSAGES / TAGS).then_some(values)
        });
        values.sort_by(f64::total_cmp);
        let expected: Vec<f64> =
            (0..MESSAGES / TAGS).map(|round| (round * TAGS + asset) as f64).collect();
        assert_eq!(values, expected, "each once");
    }
    assert_eq!(runtime.block_on(dropped(broker.port)), 0);
    eprintln!("{MESSAGES} messages of QoS 1 in {took:.1?}: none dropped, none lost");
}

#[test]
fn d07_topics_without_end_are_bounded_and_known_series_go_on() {
    const TOPICS: usize = 60_000;
    let runtime = runtime();
    let Some(broker) = runtime.block_on(Mosquitto::start()) else { return };
    let mut home = Home::new(assets(1) + &source(broker.port, 1, "", ""));
    let daemon = home.start();
    is_up(&daemon);
    let before = rss_kib(&daemon);
    runtime.block_on(async {
        let mut publisher = Publisher::connect(broker.port).await;
        for topic in 0..TOPICS {
            publisher.publish(&format!("plant/x{topic}/{topic}"), "1", 0).await;
            if topic % 1000 == 0 {
                publisher.publish("plant/A0/v", topic.to_string(), 1).await;
            }
        }
        publisher.drain().await;
    });
    let last = (TOPICS - 1000) as f64;
    daemon.http.reading("A0", "v", |row| row["value"] == last);
    let known = daemon.http.list("/api/v1/readings?asset=A0&tag=v").len();
    assert_eq!(known, TOPICS / 1000);
    let source = wait::until("the list", || {
        let (_, source) = daemon.http.get("/api/v1/sources/hall").unwrap();
        (source["unknown_series"] == 2_000).then_some(source)
    });
    assert_eq!(source["unknown"].as_array().unwrap().len(), 2_000);
    daemon.http.wait_for("/api/v1/alarms", |alarm| alarm["condition"] == "series-refused");
    let grown = rss_kib(&daemon).saturating_sub(before);
    eprintln!("{TOPICS} topics: {grown} KiB more");
    assert!(grown < 16 << 10, "{grown} KiB");
}

#[test]
fn d08_a_sensor_gone_wild_is_thinned_and_its_neighbours_lose_nothing() {
    const WILD: usize = 60_000;
    const PER_NEIGHBOUR: usize = 3_000;
    let runtime = runtime();
    let Some(broker) = runtime.block_on(Mosquitto::start()) else { return };
    let limits = "limits = { high = 1000.0 }";
    let mut home = Home::new(assets(2) + &source(broker.port, 2, "max_rate = 50", limits));
    let daemon = home.start();
    is_up(&daemon);
    runtime.block_on(async {
        let mut publisher = Publisher::connect(broker.port).await;
        for message in 0..WILD {
            // One value beyond the limit, in the midst of the flood.
            let value = if message == WILD / 2 { 5_000 } else { message % 7 };
            publisher.publish("plant/A0/v", value.to_string(), 0).await;
            if message % PER_NEIGHBOUR == 0 {
                let value = message / PER_NEIGHBOUR;
                publisher.publish("plant/A1/v", value.to_string(), 1).await;
            }
        }
        publisher.publish("plant/A1/v", "999", 1).await;
        publisher.drain().await;
    });
    daemon.http.reading("A1", "v", |row| row["value"] == 999.0);
    let quiet = daemon.http.list("/api/v1/readings?asset=A1&tag=v").len();
    assert_eq!(quiet, WILD / PER_NEIGHBOUR + 1, "the neighbour lost nothing");
    daemon.http.wait_for("/api/v1/alarms", |alarm| alarm["asset"] == "A0");
    let kept = daemon.http.list("/api/v1/readings?asset=A0&tag=v").len();
    eprintln!("{kept} of {WILD} readings kept");
    assert!(kept < WILD / 3, "{kept} of {WILD}");
    assert!(rss_kib(&daemon) < 128 << 10);
}

#[test]
fn d10_retained_values_beyond_a_limit_raise_no_alarm() {
    const TAGS: usize = 1_000;
    let runtime = runtime();
    let Some(broker) = runtime.block_on(Mosquitto::start()) else { return };
    let mut publisher = runtime.block_on(async {
        let mut publisher = Publisher::connect(broker.port).await;
        for asset in 0..TAGS {
            publisher.retain(&format!("plant/A{asset}/v"), "99").await;
        }
        publisher.drain().await;
        publisher
    });
    let limits = "limits = { high = 90.0 }";
    let mut home = Home::new(assets(TAGS) + &source(broker.port, TAGS, "", limits));
    let daemon = home.start();
    for asset in (0..TAGS).step_by(37).chain([TAGS - 1]) {
        let row = daemon.http.reading(&format!("A{asset}"), "v", |_| true);
        assert_eq!((&row["quality"], &row["reason"]), (&"uncertain".into(), &"retained".into()));
    }
    runtime.block_on(async {
        publisher.publish("plant/A7/v", "99", 1).await;
        publisher.drain().await;
    });
    daemon.http.wait_for("/api/v1/alarms", |alarm| alarm["asset"] == "A7");
    let alarms = daemon.http.list("/api/v1/alarms");
    let of_tags = alarms.iter().filter(|alarm| alarm["tag"] != Value::Null).count();
    assert_eq!(of_tags, 1, "{alarms:?}");
}

#[test]
fn d02_a_message_of_many_megabytes_costs_no_memory() {
    let runtime = runtime();
    let Some(broker) = runtime.block_on(Mosquitto::start()) else { return };
    let mut home = Home::new(assets(1) + &source(broker.port, 1, "", ""));
    let daemon = home.start();
    is_up(&daemon);
    broker.publish("plant/A0/v", b"1", false);
    daemon.http.reading("A0", "v", |row| row["value"] == 1.0);
    let before = rss_kib(&daemon);
    broker.publish("plant/A0/v", &vec![b'1'; 100 << 20], false);
    broker.publish("plant/A0/v", b"2", false);
    daemon.http.reading("A0", "v", |row| row["value"] == 2.0);
    let grown = rss_kib(&daemon).saturating_sub(before);
    eprintln!("100 MiB in one message: {grown} KiB more");
    assert!(grown <= 2 << 10, "{grown} KiB");
}
