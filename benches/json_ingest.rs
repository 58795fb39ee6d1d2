//! JSON messages from the bytes of a broker into the ring, on one thread: MQTT packets are taken
//! apart, matched with their tags, decoded, judged by all stages and stored.
//!
//! ```sh
//! cargo bench --bench json_ingest
//! ```
//!
//! A thousand tags on a thousand topics under one filter with captures, payloads of some 60 bytes
//! with a time; a batch for every 64 KiB received, a commit for every 10,000 messages, with
//! `synchronous=FULL` on disk. Fails only beyond three times the target.

#![expect(clippy::disallowed_methods, reason = "wall time is what is measured here")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wheeltap::agents::Setting;
use wheeltap::config;
use wheeltap::domain::reading::{RawBatch, RawReading};
use wheeltap::domain::time::{Now, Timestamp};
use wheeltap::port::Input;
use wheeltap::runtime::engine::{Engine, Start};
use wheeltap::runtime::stages;
use wheeltap::sources::mqtt::routes::{Heard, Routes};
use wheeltap::sources::mqtt::wire::{Inbox, Packet, Version};
use wheeltap::store::BootInfo;
use wheeltap::store::ring::RingDb;
use wheeltap::store::state::StateDb;

const ASSETS: usize = 100;
const TAGS_PER_ASSET: usize = 10;
const MESSAGES: usize = 600_000;
const PER_COMMIT: usize = 10_000;
/// Bytes that come at once.
const READ_SIZE: usize = 64 * 1024;
const TARGET: f64 = 50_000.0;
const BEGAN: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

fn main() -> ExitCode {
    let wire = wire();
    let decoded = MESSAGES as f64 / decode_only(&wire);
    let stored = MESSAGES as f64 / stored(&wire);
    println!("packets taken apart, matched and decoded: {decoded:.0} messages/s");
    println!("the same, judged by all stages and stored: {stored:.0} messages/s");
    let verdict = if stored >= TARGET { "met" } else { "MISSED" };
    println!("target {TARGET:.0} messages/s on one thread ({verdict})");
    if stored < TARGET / 3.0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn setting(keys: &mut StateDb) -> Setting {
    let mut text = String::from(
        "[gateway]\nsite = \"b\"\nid = \"g\"\ndata_dir = \"d\"\n[detection]\nlearn = \"2m\"\n",
    );
    for asset in 0..ASSETS {
        write!(text, "[[asset]]\nid = \"A{asset}\"\n").expect("memory takes text");
    }
    text.push_str("[[mqtt]]\nname = \"m\"\nurl = \"mqtt://127.0.0.1\"\n");
    for tag in 0..ASSETS * TAGS_PER_ASSET {
        write!(
            text,
            "[[mqtt.tag]]\nid = \"t{}\"\nasset = \"A{}\"\ntopic = \"plant/{{asset}}/{{tag}}/state\"\n\
             pointer = \"/value\"\ntime_pointer = \"/time\"\nrange = [-50.0, 500.0]\n\
             limits = {{ high = 90.0 }}\n",
            tag % TAGS_PER_ASSET,
            tag / TAGS_PER_ASSET,
        )
        .expect("memory takes text");
    }
    let config = config::parse(&text, Path::new("bench.toml"), &BTreeMap::new())
        .expect("the configuration is right");
    let paths: Vec<_> = config.tags().map(|(_, tag, _)| tag.path.clone()).collect();
    let keys = keys.tag_keys(&paths).expect("tags get numbers");
    Setting { plant: Arc::new(config.plant(&keys)), config: Arc::new(config) }
}

/// All messages as a broker sends them with QoS 1: every tag speaks in turn, all within a second.
fn wire() -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(9);
    let mut normal = move || (0..6).map(|_| random.f64()).sum::<f64>() - 3.0;
    let tags = ASSETS * TAGS_PER_ASSET;
    let mut wire = Vec::with_capacity(MESSAGES * 110);
    for message in 0..MESSAGES {
        let (tag, second) = (message % tags, message / tags);
        let topic = format!("plant/A{}/t{}/state", tag / TAGS_PER_ASSET, tag % TAGS_PER_ASSET);
        let value = 20.0 + (tag % 50) as f64 + 0.5 * normal();
        let time = BEGAN.micros() / 1000 + second as i64 * 1000;
        let payload =
            format!("{{\"value\":{value:.3},\"time\":{time},\"unit\":\"degC\",\"ok\":true}}");
        let length = 2 + topic.len() + 2 + payload.len();
        assert!(length < 128, "one byte holds the length");
        let id = u16::try_from(1 + message % 60_000).expect("below 65,536");
        let [id_high, id_low] = id.to_be_bytes();
        let byte = |n: usize| u8::try_from(n).expect("below 128");
        wire.extend([0x32, byte(length), 0, byte(topic.len())]);
        wire.extend(topic.as_bytes());
        wire.extend([id_high, id_low]);
        wire.extend(payload.as_bytes());
    }
    wire
}

fn routes(setting: &Setting) -> Routes {
    let mut routes = Routes::default();
    for source in &setting.config.mqtt {
        let place = routes.source(&source.intake);
        for tag in &source.tags {
            let key = setting.plant.key(&tag.tag.path).expect("a declared tag");
            routes.route(place, key, tag);
        }
    }
    routes.finish();
    routes
}

fn at(message: usize) -> Now {
    let mono = Duration::from_micros(message as u64 * 1000);
    Now { mono, utc: BEGAN.after(mono), trusted: true }
}

/// Takes apart what comes at once; the readings of all its messages.
fn take_in(
    part: &[u8],
    inbox: &mut Inbox,
    routes: &mut Routes,
    heard: &mut Heard,
    message: &mut usize,
) -> Vec<RawReading> {
    let mut readings = Vec::new();
    inbox.bytes.extend_from_slice(part);
    while let Some(packet) = inbox.next_packet().expect("it is MQTT") {
        if let Packet::Message(said) = packet {
            routes.hear(&said, at(*message), heard);
            readings.append(&mut heard.readings);
            *message += 1;
        }
    }
    readings
}

/// Seconds for everything before the engine.
fn decode_only(wire: &[u8]) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (mut state, _) = StateDb::open(dir.path(), 1 << 26, &boot()).expect("state.db opens");
    let mut routes = routes(&setting(&mut state));
    let mut inbox = Inbox::new(Version::V4, 1 << 20);
    let (mut heard, mut message, mut found) = (Heard::default(), 0, 0);
    let began = Instant::now();
    for part in wire.chunks(READ_SIZE) {
        found += take_in(part, &mut inbox, &mut routes, &mut heard, &mut message).len();
    }
    let took = began.elapsed().as_secs_f64();
    assert_eq!(found, MESSAGES, "every message is a reading");
    took
}

fn boot() -> BootInfo {
    BootInfo { id: uuid::Uuid::from_u128(1), utc: BEGAN, mono: Duration::ZERO, trusted: true }
}

/// Seconds for everything.
fn stored(wire: &[u8]) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (mut state, _) = StateDb::open(dir.path(), 1 << 26, &boot()).expect("state.db opens");
    let (mut ring, _) = RingDb::open(dir.path(), 1 << 28, &boot()).expect("ring.db opens");
    let setting = setting(&mut state);
    let mut routes = routes(&setting);
    let source = setting.config.mqtt[0].name.clone();
    let start = Start { ring_last: ring.last_arrival(), fresh: true };
    let mut engine =
        Engine::start(setting, state, &stages(), start, 1, at(0)).expect("the engine starts");
    let mut inbox = Inbox::new(Version::V4, 1 << 20);
    let (mut heard, mut message, mut committed) = (Heard::default(), 0, 0);
    let began = Instant::now();
    for part in wire.chunks(READ_SIZE) {
        let readings = take_in(part, &mut inbox, &mut routes, &mut heard, &mut message);
        let now = at(message);
        let source = source.clone();
        let batch = RawBatch { source, readings, extras: None, ack: None, historical: false };
        engine.turn(now, Input::Readings(batch));
        engine.turn_deadlines(now);
        while let Some(batch) = engine.take_readings() {
            ring.append(&batch.readings);
        }
        if engine.must_commit() || message - committed >= PER_COMMIT {
            engine.commit(now).expect("the state commits");
        }
        if message - committed >= PER_COMMIT {
            committed = message;
            ring.advance(now.mono);
            ring.commit().expect("the ring commits");
        }
    }
    ring.commit().expect("the ring commits");
    let took = began.elapsed().as_secs_f64();
    assert_eq!(ring.last_arrival().0, MESSAGES as u64, "every message is stored");
    took
}
