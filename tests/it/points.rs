//! What registers mean, end to end: texts, states, bursts and counters from a Modbus server through
//! the daemon to HTTP, upstream and `probe`; and the decoder against another program's encoder.

use std::process::Command;

use serde_json::Value;
use wheeltap::config::{ByteOrder, PointType};
use wheeltap::sources::decode;

use crate::support::broker::Mosquitto;
use crate::support::daemon::{ASSET, Home, upstream};
use crate::support::registers::Registers;
use crate::support::subscriber::Subscriber;
use crate::support::wait;

/// The asset.
const ID: &str = "P-101";
/// Registers of the burst: more than one request may ask for.
const SAMPLES: u16 = 300;

fn plant() -> (Registers, String) {
    let server = Registers::start();
    let name: Vec<u16> =
        b"PUMP 7\0\0".chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
    server.put(0, name);
    server.put(10, [1, 65_530]);
    server.put(100, burst());
    let tags = format!(
        "{ASSET}[[modbus]]\nname = \"plc\"\nurl = \"tcp://{}\"\nasset = \"{ID}\"\npoll = \"200ms\"\n\
         timeout = \"200ms\"\nprofile = \"gauge\"\n\
         [[modbus.tag]]\nid = \"count\"\npoint = \"holding:11\"\ntype = \"u16\"\ncounter = true\n\
         [[modbus.tag]]\nid = \"burst\"\npoint = \"holding:100\"\ntype = \"waveform:i16:{SAMPLES}\"\n\
         poll = \"1s\"\nscale = 0.5\nsample_rate = 1000.0\n",
        server.address
    );
    (server, tags)
}

fn burst() -> impl Iterator<Item = u16> {
    (0..SAMPLES)
        .map(|place| if place % 2 == 0 { 200 } else { 200_i16.wrapping_neg().cast_unsigned() })
}

/// A profile of one's own beside the configuration.
fn with_profile(home: &Home) {
    let folder = home.config().parent().unwrap().join("assets");
    std::fs::create_dir(&folder).unwrap();
    let profile = "title = \"A gauge\"\naddress_base = 1\n\
         [[tag]]\nid = \"name\"\npoint = \"holding:1\"\ntype = \"string:4\"\n\
         [[tag]]\nid = \"mode\"\npoint = \"holding:11\"\ntype = \"bits:0-3\"\n\
         values = { 0 = \"stopped\", 1 = \"running\" }\n";
    std::fs::write(folder.join("gauge.toml"), profile).unwrap();
}

fn path(tag: &str) -> String {
    format!("/api/v1/readings?asset={ID}&tag={tag}")
}

#[test]
fn row16_row17_row57_c18_texts_states_bursts_and_counters_reach_people() {
    let Some(broker) = Mosquitto::start_blocking() else { return };
    let (server, tags) = plant();
    let mut home = Home::new(tags + &upstream(broker.port));
    with_profile(&home);
    let subscriber = Subscriber::start(broker.port, "#");
    let daemon = home.start();

    let named = daemon.http.wait_for(&path("name"), |row| row["text"] == "PUMP 7");
    assert_eq!(named["quality"], "good");
    daemon.http.wait_for(&path("mode"), |row| row["state"] == "running" && row["value"] == 1.0);
    let whole = daemon.http.wait_for(&path("burst"), |row| row["samples"].is_array());
    let samples = whole["samples"].as_array().unwrap();
    assert_eq!(samples.len(), usize::from(SAMPLES));
    assert_eq!((&samples[0], &samples[299]), (&Value::from(100.0), &Value::from(-100.0)));
    assert_eq!(whole["rate"], 1000.0);
    // The burst's ordinary reading is its RMS about the mean.
    let rollup = format!("{}&resolution=1m", path("burst"));
    daemon.http.wait_for(&rollup, |row| row["last"] == 100.0);

    daemon.http.wait_for(&path("count"), |row| row["value"] == 65_530.0);
    server.put(10, [7, 4]);
    daemon.http.wait_for(&path("count"), |row| row["value"] == 65_540.0);
    daemon.http.wait_for(&path("mode"), |row| {
        row["value"] == 7.0 && row["quality"] == "good" && row["state"].is_null()
    });

    wait::until("text and state upstream", || {
        let events = subscriber.events();
        let rows = events.iter().filter_map(|event| event["data"].as_array()).flatten();
        let (mut text, mut state) = (false, false);
        for row in rows {
            text |= row["tag"] == "name" && row["text"] == "PUMP 7";
            state |= row["tag"] == "mode" && row["state"] == "running";
        }
        (text && state).then_some(())
    });

    // Killed and started again: the old text is still known, and the counter goes on from its wrap.
    daemon.kill();
    server.put(10, [0, 9]);
    let daemon = home.start();
    daemon.http.wait_for(&path("count"), |row| row["value"] == 65_545.0);
    daemon.http.wait_for(&path("mode"), |row| row["state"] == "stopped");
    let rows = daemon.http.list(&path("name"));
    assert!(rows.iter().filter(|row| row["quality"] == "good").all(|row| row["text"] == "PUMP 7"));
    drop(daemon);
}

#[test]
fn probe_says_what_the_daemon_would_say() {
    let (server, tags) = plant();
    server.put(20, [0xe979, 0x42f6]);
    let wrong = "[[modbus.tag]]\nid = \"swapped\"\npoint = \"holding:20\"\ntype = \"f32\"\n\
                 range = [5.0, 500.0]\ndecimals = 1\n";
    let home = Home::new(tags + wrong);
    with_profile(&home);
    let config = home.config().display().to_string();
    let output = home.run(&["probe", "plc", "--format", "json", "--config", &config]);
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let row = |tag: &str| {
        let name = format!("{ID}/{tag}");
        rows.iter().find(|row| row["tag"] == name.as_str()).unwrap().clone()
    };
    assert_eq!(row("name")["state"], "PUMP 7");
    assert_eq!((&row("mode")["state"], &row("mode")["raw"]), (&"running".into(), &"0001".into()));
    assert_eq!(row("burst")["value"], 100.0);
    assert_eq!(row("swapped")["reason"], "range");

    let output = home.run(&["probe", "plc", "--all", "--format", "json", "--config", &config]);
    let guesses: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let floats: Vec<&Value> = guesses
        .iter()
        .filter(|one| one["type"] == "f32" && one["tag"] == format!("{ID}/swapped").as_str())
        .collect();
    let plausible: Vec<&Value> =
        floats.iter().filter(|one| one["plausible"] == true).copied().collect();
    assert_eq!(plausible.len(), 1, "{floats:#?}");
    assert_eq!(plausible[0]["order"], "CDAB");
    let output = home.run(&["probe", "plc", "--all", "--config", &config]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().any(|line| line.contains("CDAB") && line.trim_end().ends_with('*')));
}

/// Words that pymodbus makes of numbers and texts, big and little word order.
const ENCODER: &str = "
import json
from pymodbus.client import ModbusTcpClient as C
T = C.DATATYPE
cases = []
for name, kind, value in [
    ('i16', T.INT16, -12345), ('u16', T.UINT16, 54321), ('i32', T.INT32, -123456789),
    ('u32', T.UINT32, 4000000000), ('i64', T.INT64, -1234567890123), ('u64', T.UINT64, 9007199254740991),
    ('f32', T.FLOAT32, 123.5), ('f64', T.FLOAT64, -1234.5678),
]:
    for order, word in [('ABCD', 'big'), ('CDAB', 'little')]:
        cases.append([name, order, C.convert_to_registers(value, kind, word_order=word), value])
text = C.convert_to_registers('PUMP 7', T.STRING)
print(json.dumps({'cases': cases, 'text': text}))
";

#[test]
fn row06_to_row20_what_pymodbus_encodes_is_what_we_decode() {
    let root = env!("CARGO_MANIFEST_DIR");
    let python = ["target/venv", "../../main/target/venv"]
        .iter()
        .map(|venv| std::path::Path::new(root).join(venv).join("bin/python"))
        .find(|python| python.exists());
    let Some(python) = python else {
        wait::skip("target/venv with tests/peers/requirements.txt (tests/run makes it)");
        return;
    };
    let output = Command::new(python).args(["-c", ENCODER]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let words = |value: &Value| -> Vec<u16> { serde_json::from_value(value.clone()).unwrap() };
    for case in told["cases"].as_array().unwrap() {
        let name = case[0].as_str().unwrap();
        let kind = PointType::PLAIN.into_iter().find(|kind| kind.name() == name).unwrap();
        let one = kind.registers() == 1;
        let order = match case[1].as_str().unwrap() {
            "CDAB" if !one => ByteOrder::Cdab,
            _ => ByteOrder::Abcd,
        };
        let found = decode::registers(kind, order, &words(&case[2])).unwrap();
        assert!((found - case[3].as_f64().unwrap()).abs() < 1e-9, "{case}: {found}");
    }
    let text =
        decode::text(&words(&told["text"]), wheeltap::config::Packing::Both, ByteOrder::Abcd);
    assert_eq!(text, "PUMP 7");
}
