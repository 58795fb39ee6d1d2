//! Wrong clocks, jumping clocks and machines that slept: the daemon as a process, its UTC faked by
//! libfaketime, the monotonic clock left alone.

#![allow(clippy::disallowed_methods, reason = "processes are watched on the wall clock")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;
use wheeltap::domain::time::Timestamp;

use crate::support::broker::Mosquitto;
use crate::support::daemon::{ASSET, Home, Http, modbus, upstream};
use crate::support::modbus_server::{Reply, ScriptedServer};
use crate::support::registers::Registers;
use crate::support::subscriber::{Subscriber, text};
use crate::support::wait;

/// A clock that the daemon sees instead of the machine's.
struct Fake {
    library: PathBuf,
    directory: tempfile::TempDir,
}

impl Fake {
    /// `None`, and a line saying so, where libfaketime is not installed.
    fn new() -> Option<Self> {
        let multiarch = ["x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf"];
        let library = multiarch
            .iter()
            .map(|place| PathBuf::from(format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1")))
            .find(|path| path.exists());
        let Some(library) = library else {
            wait::skip("libfaketime");
            return None;
        };
        Some(Self { library, directory: tempfile::tempdir().unwrap() })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("time")
    }

    /// From now on the clock is off by so many seconds.
    fn set(&self, seconds: i64) {
        let next = self.directory.path().join("next");
        std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(next, self.file()).unwrap();
    }

    fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

fn truth() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

fn micros(moment: &Value) -> i64 {
    Timestamp::parse_rfc3339(moment.as_str().unwrap()).unwrap().micros()
}

/// All readings of a tag, whatever their time.
fn readings(http: &Http, tag: &str) -> Vec<Value> {
    http.list(&format!(
        "/api/v1/readings?asset=P-101&tag={tag}&from=1960-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
    ))
}

fn clock_is_trusted(http: &Http) -> bool {
    let (code, status) = http.get("/api/v1/status").unwrap();
    assert_eq!(code, 200);
    status["clock_trusted"] == true
}

/// The daemon begins with a wrong clock, is set right, and everything it stored is right then.
/// `least_off`: how far, in microseconds, what it says before is behind the truth at least.
fn set_right_later(least_off: i64, wrong: impl FnOnce(&Fake, &mut Home)) {
    let (Some(fake), Some(broker)) = (Fake::new(), Mosquitto::start_blocking()) else { return };
    let heard = Subscriber::start(broker.port, "wheeltap/#");
    let plc = Registers::start();
    plc.set(0, 20.0);
    let tags = [("temp", 0, "unit = \"°C\"\nlimits = { high = 60.0 }")];
    let rest =
        format!("{ASSET}{}{}", modbus(&plc.address.to_string(), &tags), upstream(broker.port));
    let mut home = Home::new(rest).with_environment(fake.environment());
    wrong(&fake, &mut home);
    let daemon = home.start();
    let http = daemon.http.clone();
    let began = truth();
    wait::until("readings under the wrong clock", || {
        (readings(&http, "temp").len() > 20).then_some(())
    });
    assert!(!clock_is_trusted(&http));
    plc.set(0, 70.0);
    let raised = heard.wait_for("alarm.raised", "P-101/temp");
    assert_eq!(raised["clocktrusted"], false);
    let off = micros(&raised["time"]) - truth();
    assert!(off < -least_off, "said under the wrong clock: {off} µs");

    fake.set(0);
    wait::until("trust", || clock_is_trusted(&http).then_some(()));
    let set = truth();
    let corrected = heard.wait_for("gateway.clock-corrected", "gw");
    plc.set(0, 30.0);
    let cleared = heard.wait_for("alarm.cleared", "P-101/temp");
    assert!(cleared["clocktrusted"].is_null());
    wait::until("readings under the right clock", || {
        let found = readings(&http, "temp");
        found.iter().any(|reading| reading["value"] == 30.0).then_some(())
    });
    let found = readings(&http, "temp");
    let now = truth();
    let mut last = i64::MIN;
    for reading in &found {
        let time = micros(&reading["time"]);
        assert!(time > began - 20_000_000 && time < now + 1_000_000, "{reading}");
        assert!(time >= last, "in order of time");
        last = time;
    }
    // The poll every 100 ms leaves no hole and no overlap where the clock was set.
    let around: Vec<i64> = found
        .iter()
        .map(|reading| micros(&reading["time"]))
        .filter(|time| (time - set).abs() < 5_000_000)
        .collect();
    assert!(around.len() > 30, "{} readings around the setting", around.len());
    for pair in around.windows(2) {
        assert!(pair[1] - pair[0] < 1_000_000, "{pair:?}");
    }
    // What was said before is right by the correction, and right in the journal.
    let offset = corrected["data"]["offset"].as_f64().unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "seconds of some decades")]
    let right = micros(&raised["time"]) + (offset * 1e6) as i64;
    assert!(right > began && right < set + 1_000_000, "{right} {began} {set}");
    let alarms = &corrected["data"]["ranges"];
    let range = alarms.as_array().unwrap().iter().find(|range| range["class"] == "alarm").unwrap();
    let number: u64 = text(&raised, "sequence").parse().unwrap();
    assert!(range["from"].as_u64().unwrap() <= number && number <= range["to"].as_u64().unwrap());
    let journal = http.wait_for("/api/v1/events", |event| event["id"] == raised["id"]);
    assert!((micros(&journal["time"]) - right).abs() < 10_000, "{journal}");
    // Roll-ups of the time before are there.
    wait::until("roll-ups", || {
        let rows = http.list(
            "/api/v1/readings?asset=P-101&tag=temp&resolution=1d\
             &from=2025-01-01T00:00:00Z&to=2030-01-01T00:00:00Z",
        );
        let counted: u64 = rows.iter().filter_map(|row| row["count"].as_u64()).sum();
        (counted >= found.len() as u64).then_some(())
    });
    // Once and for all.
    let (code, _) = daemon.stop();
    assert_eq!(code, Some(0));
    let daemon = home.start();
    plc.set(0, 80.0);
    heard.wait_with("alarm.raised", "P-101/temp", |alarm| alarm["id"] != raised["id"]);
    let told = heard.events();
    let corrections =
        told.iter().filter(|event| event["type"] == "wheeltap.gateway.clock-corrected");
    assert_eq!(corrections.count(), 1);
    drop(daemon);
}

#[test]
fn e01_a_boot_in_1970_is_put_right_when_the_clock_is_set() {
    // Nothing is known but that it is later than this program.
    set_right_later(86_400_000_000, |fake, _| fake.set(10 - truth() / 1_000_000));
}

#[test]
fn e01_a_boot_at_the_last_shutdown_is_put_right_when_the_clock_is_set() {
    set_right_later(10_000, |fake, home| {
        // A run under the right clock, then a start with the time of yesterday: it counts on from the
        // last moment that was stored.
        fake.set(0);
        let daemon = home.start();
        wait::until("readings", || (readings(&daemon.http, "temp").len() > 3).then_some(()));
        assert_eq!(daemon.stop().0, Some(0));
        wait::pause(Duration::from_millis(200));
        fake.set(-86_400);
    });
}

/// A server that counts what it is asked, on a runtime of its own.
fn counted() -> (ScriptedServer, Arc<AtomicU64>, tokio::runtime::Runtime) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let server = runtime.block_on(ScriptedServer::start(move |ask| {
        count.fetch_add(1, Ordering::Relaxed);
        Reply::same(ask, 1)
    }));
    (server, asked, runtime)
}

/// How long each clock is watched.
const WATCHED: Duration = Duration::from_secs(10);

#[test]
fn e02_steps_of_ten_years_neither_stop_nor_hurry_the_polls() {
    let Some(fake) = Fake::new() else { return };
    let (server, asked, _runtime) = counted();
    fake.set(0);
    let rest = format!("{ASSET}{}", modbus(&server.address.to_string(), &[("temp", 0, "")]));
    let mut home = Home::new(rest).with_environment(fake.environment());
    let daemon = home.start();
    wait::until("polls", || (asked.load(Ordering::Relaxed) > 5).then_some(()));
    let decade = 3650 * 86_400;
    for seconds in [decade, -decade, 0] {
        fake.set(seconds);
        let (before, began) = (asked.load(Ordering::Relaxed), Instant::now());
        wait::pause(WATCHED);
        let polls = asked.load(Ordering::Relaxed) - before;
        // Ten a second; a machine under load may be late, but nothing may be made up for.
        let expected = began.elapsed().as_millis() / 100;
        let (low, high) = (expected * 8 / 10, expected + 2);
        assert!((low..=high).contains(&u128::from(polls)), "{seconds}: {polls} of {expected}");
    }
    let found = readings(&daemon.http, "temp");
    let now = truth();
    for reading in &found {
        assert!((micros(&reading["time"]) - now).abs() < 600_000_000, "{reading}");
    }
    assert!(clock_is_trusted(&daemon.http));
    assert!(found.len() >= 250, "{} readings", found.len());
}

#[test]
fn e04_a_stopped_process_does_not_make_up_for_missed_polls() {
    let (server, asked, _runtime) = counted();
    let rest = format!("{ASSET}{}", modbus(&server.address.to_string(), &[("temp", 0, "")]));
    let daemon = Home::new(rest).start();
    wait::until("polls", || (asked.load(Ordering::Relaxed) > 5).then_some(()));
    daemon.signal(Signal::STOP);
    wait::pause(Duration::from_secs(15));
    let before = asked.load(Ordering::Relaxed);
    daemon.signal(Signal::CONT);
    let began = Instant::now();
    wait::until("the first poll", || (asked.load(Ordering::Relaxed) > before).then_some(()));
    wait::pause(Duration::from_secs(2));
    let polls = asked.load(Ordering::Relaxed) - before;
    let due = began.elapsed().as_millis() / 100;
    assert!(u128::from(polls) <= due + 1, "{polls} polls in {due} periods");
    // Skipped, and counted.
    let (_, status) = daemon.http.get("/api/v1/status").unwrap();
    let missed = status["sources"]["plc1"]["missed"].as_u64();
    assert!(missed.is_some_and(|missed| missed >= 100), "{status}");
}
