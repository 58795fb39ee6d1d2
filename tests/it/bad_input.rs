//! Bad input gets a clear message, the rest goes on, and nothing that was stored is lost: the
//! configuration, devices, payloads, and the directory the daemon lives in.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::broker::Mosquitto;
use crate::support::daemon::{ASSET, Home, fill, modbus, stderr, upstream};
use crate::support::registers::Registers;
use crate::support::subscriber::{Subscriber, text};
use crate::support::wait;

const HIGH: &str = "limits = { high = 90.0 }";

fn plc(plant: &Registers, tags: &[(&str, u16, &str)]) -> String {
    modbus(&plant.address.to_string(), tags)
}

/// A source on a broker with one JSON tag a topic.
fn shopfloor(port: u16, tags: &[(&str, &str)]) -> String {
    let mut text = format!("[[mqtt]]\nname = \"shopfloor\"\nurl = \"mqtt://127.0.0.1:{port}\"\n");
    for (name, topic) in tags {
        text += &format!(
            "[[mqtt.tag]]\nid = \"{name}\"\nasset = \"P-101\"\ntopic = \"{topic}\"\n\
             pointer = \"/rms\"\n{HIGH}\n"
        );
    }
    text
}

/// The condition of a system alarm, as lists and events show it.
fn condition(alarm: &Value) -> &str {
    alarm["condition"].as_str().unwrap_or("")
}

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once_each_with_its_place() {
    let home = Home::new(
        "[[asset]]\nid = \"P-101\"\ncolour = \"red\"\n\
         [[asset]]\nid = \"P-101\"\n\
         [[modbus]]\nname = \"plc1\"\nurl = \"tcp://127.0.0.1:5020\"\nunit = 248\npoll = \"1 parsec\"\n\
         [[modbus.tag]]\nid = \"t\"\nasset = \"P-101\"\npoint = \"holding:1\"\ntype = \"u16\"\n\
         [[modbus.tag]]\nid = \"t\"\nasset = \"P-101\"\npoint = \"holding:2\"\ntype = \"u16\"\n",
    );
    let config = home.config().display().to_string();
    let mistakes = [
        ("12:1: asset.colour: ", "unknown"),
        ("14:6: asset.id: ", "`P-101`"),
        ("18:8: modbus.unit: ", "248"),
        ("19:8: modbus.poll: ", "1 parsec"),
        ("26:6: modbus.tag.id: ", "`P-101/t`"),
    ];
    for command in ["check", "run"] {
        let output = home.run(&[command, "--config", &config]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let said = stderr(&output);
        for (place, what) in mistakes {
            let start = format!("{config}:{place}");
            let found = said.lines().find_map(|line| line.split_once(start.as_str()));
            let (_, told) = found.unwrap_or_else(|| panic!("{command}: no {place} in\n{said}"));
            assert!(told.contains(what), "{command}: {told}");
        }
    }
    assert!(!home.data().exists(), "a bad configuration touches nothing");
}

#[test]
fn an_unreachable_device_is_bad_readings_and_an_alarm_and_the_others_go_on() {
    let plant = Registers::start();
    plant.set(0, 42.0);
    // A port that nobody listens on: taken and given back.
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut home = Home::new(format!(
        "{ASSET}{}[[modbus]]\nname = \"plc2\"\nurl = \"tcp://{dead}\"\npoll = \"100ms\"\n\
         timeout = \"100ms\"\n[[modbus.tag]]\nid = \"dead\"\nasset = \"P-101\"\n\
         point = \"holding:0\"\ntype = \"f32\"\n",
        plc(&plant, &[("alive", 0, "")])
    ));
    let mut daemon = home.start();
    let http = &daemon.http;
    let bad = http.reading("P-101", "dead", |_| true);
    assert_eq!(
        (&bad["value"], &bad["quality"], &bad["reason"]),
        (&Value::Null, &"bad".into(), &"comm".into()),
        "{bad}"
    );
    let alarm =
        http.wait_for("/api/v1/alarms?open=true", |alarm| condition(alarm) == "source-silent");
    assert!(text(&alarm, "message").contains("plc2"), "{alarm}");
    let good = http.reading("P-101", "alive", |reading| reading["quality"] == "good");
    assert_eq!(good["value"], 42.0);
    let (status, why) = http.get("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(why.to_string().contains("plc2"), "{why}");
    assert_eq!(http.get("/healthz").unwrap().0, 200);
    assert!(daemon.lives());
}

#[test]
fn a_register_that_is_not_a_number_is_a_bad_reading_and_null_everywhere() {
    let Some(broker) = Mosquitto::start_blocking() else { return };
    let ear = Subscriber::start(broker.port, "wheeltap/test/gw/readings/#");
    let plant = Registers::start();
    plant.set(0, f32::NAN);
    plant.set(2, f32::INFINITY);
    let mut home = Home::new(format!(
        "{}{ASSET}{}",
        upstream(broker.port),
        plc(&plant, &[("nan", 0, HIGH), ("infinite", 2, HIGH)])
    ));
    let daemon = home.start();
    for tag in ["nan", "infinite"] {
        let reading = daemon.http.reading("P-101", tag, |_| true);
        assert_eq!((&reading["value"], &reading["quality"]), (&Value::Null, &"bad".into()));
        assert_eq!(reading["reason"], "nan", "{reading}");
        let batch = wait::until("the batch upstream", || {
            let batches = ear.events();
            let mut rows = batches.iter().flat_map(|batch| batch["data"].as_array().unwrap());
            rows.find(|row| row["tag"] == tag).cloned()
        });
        assert_eq!((&batch["value"], &batch["reason"]), (&Value::Null, &"nan".into()), "{batch}");
    }
    plant.set(0, 99.0);
    daemon.http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["tag"] == "nan");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn garbage_and_ten_megabytes_over_mqtt_harm_no_other_topic() {
    let Some(broker) = Mosquitto::start_blocking() else { return };
    let mut home = Home::new(format!(
        "{ASSET}{}",
        shopfloor(broker.port, &[("vibration", "plant/p101/vib"), ("other", "plant/p101/other")])
    ));
    let mut daemon = home.start();
    let http = daemon.http.clone();
    wait::until("the subscription", || {
        // A message from before the subscription is lost, so it is said until it is heard.
        broker.publish("plant/p101/other", b"{\"rms\": 1.5}", false);
        let known = http.list("/api/v1/readings?asset=P-101&tag=other");
        (!known.is_empty()).then_some(())
    });
    for garbage in [
        &b"\xff\xfe not json"[..],
        b"{\"rms\": \"fast\"}",
        b"{\"rms\": 1e999}",
        b"",
        b"{\"rms\": [[[[",
        b"null",
    ] {
        broker.publish("plant/p101/vib", garbage, false);
    }
    broker.publish("plant/p101/vib", b"{\"rms\": 2.5}", false);
    http.reading("P-101", "vibration", |reading| reading["value"] == 2.5);
    let stored = http.list("/api/v1/readings?asset=P-101&tag=vibration");
    for reading in &stored {
        assert!(reading["value"] == 2.5 || reading["quality"] == "bad", "{reading}");
    }
    assert!(stored.iter().any(|reading| reading["reason"] == "device"), "{stored:?}");
    wait::until("the log", || home.log().contains("message could not be read").then_some(()));

    broker.publish("plant/p101/vib", &vec![b'x'; 10 << 20], false);
    // It is passed over and acknowledged: what waits behind it comes, on every topic.
    broker.publish("plant/p101/other", b"{\"rms\": 99.0}", false);
    http.reading("P-101", "other", |reading| reading["value"] == 99.0);
    http.wait_for("/api/v1/alarms", |alarm| alarm["tag"] == "other");
    broker.publish("plant/p101/vib", b"{\"rms\": 3.5}", false);
    http.reading("P-101", "vibration", |reading| reading["value"] == 3.5);
    assert!(daemon.lives());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn f_a14_a_second_daemon_on_the_directory_ends_with_75_and_says_who_holds_it() {
    let mut home = Home::new(ASSET);
    let mut first = home.start();
    let second = Home::new(ASSET).with_data(home.data(), "64MiB");
    assert_eq!(second.try_start().unwrap_err(), Some(75));
    let said = second.log();
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(said.contains(&home.data().display().to_string()), "{said}");
    assert!(first.lives());
    assert_eq!(first.http.get("/healthz").unwrap().0, 200);
}

#[test]
fn f_a13_a_directory_that_cannot_be_used_ends_with_78_and_is_named() {
    let home = Home::new(ASSET);
    fs::write(home.data(), "in the way").unwrap();
    assert_eq!(home.try_start().unwrap_err(), Some(78), "{}", home.log());
    assert!(home.log().contains(&home.data().display().to_string()), "{}", home.log());
}

#[test]
fn f_a13_a_read_only_directory_ends_with_78_and_keeps_what_it_holds() {
    let mut home = Home::new(ASSET);
    assert_eq!(home.start().stop().0, Some(0));
    let before = fs::read(home.data().join("state.db")).unwrap();
    let data = home.data().display().to_string();
    let mount = format!("mount --bind '{data}' '{data}' && mount -o remount,bind,ro '{data}'");
    let home = home.inside(&mount);
    let Some(home) = home else {
        wait::skip("unshare and mount (for a read-only directory)");
        return;
    };
    assert_eq!(home.try_start().unwrap_err(), Some(78), "{}", home.log());
    assert!(home.log().contains(&data), "{}", home.log());
    assert_eq!(fs::read(home.data().join("state.db")).unwrap(), before);
}

/// Crosses the limit once, waits for the alarm, and comes back; the alarm as it was heard.
fn cross(plant: &Registers, ear: &Subscriber, value: f32) -> Value {
    plant.set(0, value);
    let raised = ear
        .wait_with("alarm.raised", "P-101/t", |event| event["data"]["value"] == f64::from(value));
    plant.set(0, 20.0);
    let id = text(&raised["data"], "alarm_id");
    ear.wait_with("alarm.cleared", "P-101/t", |event| event["data"]["alarm_id"] == *id.as_str());
    raised
}

/// Crossings until the disk is really full: the log's file has room of its own for a while.
const CROSSINGS_MAX: u16 = 200;

#[test]
fn f_a01_on_a_full_disk_alarms_still_go_out_and_afterwards_all_is_written() {
    let Some(broker) = Mosquitto::start_blocking() else { return };
    let ear = Subscriber::start(broker.port, "wheeltap/test/gw/#");
    let plant = Registers::start();
    plant.set(0, 20.0);
    let home =
        Home::new(format!("{}{ASSET}{}", upstream(broker.port), plc(&plant, &[("t", 0, HIGH)])));
    let data = home.data().to_owned();
    fs::create_dir(&data).unwrap();
    let mount = format!("mount -t tmpfs -o size=24m none '{}'", data.display());
    let Some(mut home) = home.inside(&mount) else {
        wait::skip("unshare and mount (for a disk that fills up)");
        return;
    };
    let mut daemon = home.start();
    // The directory as the daemon sees it.
    let seen = format!("/proc/{}/root{}", daemon.pid(), data.display());
    let seen = Path::new(&seen);
    cross(&plant, &ear, 95.0);

    fill(&seen.join("filler")).unwrap();
    let mut raised = Vec::new();
    let mut early = None;
    for crossing in 1..CROSSINGS_MAX {
        let heard = cross(&plant, &ear, 100.0 + f32::from(crossing));
        let durable = heard["data"]["durable"] != false;
        raised.push(heard);
        if !durable {
            early = raised.last();
            break;
        }
    }
    let early = early.unwrap_or_else(|| panic!("the disk never was full:\n{}", home.log()));
    assert!(daemon.lives());
    let id = text(&early["data"], "alarm_id");
    let ack = format!("/api/v1/alarms/{id}/ack");
    let (status, refused) = daemon.http.post(&ack, &json!({ "by": "kim" })).unwrap();
    assert_eq!(status, 503, "{refused}");
    assert!(home.log().contains("does not commit"), "{}", home.log());

    fs::remove_file(seen.join("filler")).unwrap();
    for event in &raised {
        let id = text(event, "id");
        let kept = daemon
            .http
            .wait_for("/api/v1/events?kind=alarm-raised", |kept| kept["id"] == *id.as_str());
        assert_eq!(kept["data"]["alarm_id"], event["data"]["alarm_id"]);
        ear.wait_with("alarm.raised", "P-101/t", |event| {
            event["id"] == *id.as_str() && event["data"]["durable"] != false
        });
    }
    cross(&plant, &ear, 400.0);
    daemon.http.reading("P-101", "t", |reading| reading["value"] == 400.0);
    let mut numbers: Vec<String> = Vec::new();
    for event in ear.events() {
        if text(&event, "type").starts_with("wheeltap.alarm.") {
            numbers.push(text(&event, "sequence"));
        }
    }
    numbers.sort_unstable();
    let all = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), all, "a sequence was given twice");
    assert_eq!(numbers.last().unwrap().parse::<usize>().unwrap(), all, "a sequence is missing");
    assert_eq!(daemon.stop().0, Some(0));
}

/// Overwrites the pages of a database from a share of its length on.
fn damage(file: &Path, from_percent: u64, bytes: usize) {
    let length = fs::metadata(file).unwrap().len();
    let mut open = fs::OpenOptions::new().write(true).open(file).unwrap();
    open.seek(SeekFrom::Start(length * from_percent / 100)).unwrap();
    open.write_all(&vec![0xA5; bytes]).unwrap();
}

/// A home with a stopped daemon that has raised, and cleared, some alarms; their events' ids.
fn with_history(plant: &Registers, alarms: u16) -> (Home, Vec<String>) {
    plant.set(0, 20.0);
    let mut home = Home::new(format!("{ASSET}{}", plc(plant, &[("t", 0, HIGH)])));
    let daemon = home.start();
    let mut ids = Vec::new();
    for crossing in 0..alarms {
        let value = 100.0 + f32::from(crossing);
        plant.set(0, value);
        let raised = daemon.http.wait_for("/api/v1/events?kind=alarm-raised", |event| {
            event["data"]["value"] == f64::from(value)
        });
        ids.push(text(&raised, "id"));
        plant.set(0, 20.0);
        daemon.http.wait_for("/api/v1/alarms", |alarm| {
            alarm["value"] == f64::from(value) || alarm["open"] == false
        });
        wait::until("the end of the alarm", || {
            daemon.http.list("/api/v1/alarms?open=true").is_empty().then_some(())
        });
    }
    assert_eq!(daemon.stop().0, Some(0));
    (home, ids)
}

#[test]
fn f_a07_a_corrupt_ring_is_moved_away_aloud_and_the_events_stay() {
    let plant = Registers::start();
    let (mut home, ids) = with_history(&plant, 2);
    damage(&home.data().join("ring.db"), 10, 20_000);
    let daemon = home.start();
    let alarm = daemon
        .http
        .wait_for("/api/v1/alarms?open=true", |alarm| condition(alarm) == "storage-corrupt");
    assert!(text(&alarm, "message").contains("ring.db"), "{alarm}");
    let places: Vec<_> = fs::read_dir(home.data().join("corrupt")).unwrap().flatten().collect();
    assert_eq!(places.len(), 1);
    assert!(places[0].path().join("ring.db").exists());
    assert!(home.log().contains("was moved aside"), "{}", home.log());
    let events = daemon.http.list("/api/v1/events?kind=alarm-raised");
    for id in &ids {
        assert!(events.iter().any(|event| event["id"] == *id.as_str()), "event {id} is lost");
    }
    daemon.http.reading("P-101", "t", |reading| reading["quality"] == "good");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn f_a07_a_corrupt_state_is_moved_away_aloud_and_what_can_be_read_is_saved() {
    let plant = Registers::start();
    let (mut home, ids) = with_history(&plant, 40);
    damage(&home.data().join("state.db"), 85, 3_000);
    let mut daemon = home.start();
    let alarm = daemon
        .http
        .wait_for("/api/v1/alarms?open=true", |alarm| condition(alarm) == "storage-corrupt");
    let message = text(&alarm, "message");
    println!("{message}");
    assert!(message.contains("state.db"), "{alarm}");
    assert!(home.log().contains("was moved aside"), "{}", home.log());
    let places: Vec<_> = fs::read_dir(home.data().join("corrupt")).unwrap().flatten().collect();
    assert!(places[0].path().join("state.db").exists());
    let events = daemon.http.list("/api/v1/events?kind=alarm-raised");
    let saved =
        ids.iter().filter(|id| events.iter().any(|event| event["id"] == *id.as_str())).count();
    println!("{saved} of {} alarms saved", ids.len());
    assert!(saved * 2 >= ids.len(), "only {saved} of {} alarms were saved", ids.len());
    plant.set(0, 500.0);
    daemon.http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["value"] == 500.0);
    assert!(daemon.lives());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn f_a07_a_state_that_is_no_database_at_all_does_not_keep_the_daemon_from_starting() {
    let plant = Registers::start();
    let (mut home, _) = with_history(&plant, 1);
    fs::write(home.data().join("state.db"), vec![0x5A; 100_000]).unwrap();
    let daemon = home.start();
    daemon.http.wait_for("/api/v1/alarms?open=true", |alarm| condition(alarm) == "storage-corrupt");
    plant.set(0, 500.0);
    daemon.http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["value"] == 500.0);
    assert_eq!(daemon.stop().0, Some(0));
}
