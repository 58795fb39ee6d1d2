//! `kill -9` at random moments under load: what was acknowledged is there afterwards, nothing is
//! missing upstream and nothing twice, and what people decided or were asked stands.

#![allow(clippy::disallowed_methods, reason = "a process is watched on the wall clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wheeltap::agents::promise::Promise;
use wheeltap::agents::{Chain, IdSource};
use wheeltap::domain::decision::{Choice, Decision};
use wheeltap::domain::event::{Body, Class, Event};
use wheeltap::domain::ids::{AssetId, EventId};
use wheeltap::domain::record::{Record, RecordKind};
use wheeltap::domain::severity::Severity;
use wheeltap::domain::time::{Now, Timestamp};
use wheeltap::domain::work_order::OrderRequest;
use wheeltap::store::state::{Commit, StateDb};
use wheeltap::store::{BootInfo, StateReader};

use crate::support::broker::Mosquitto;
use crate::support::daemon::{ASSET, Home, Http, modbus, upstream};
use crate::support::registers::Registers;
use crate::support::subscriber::{Subscriber, text};
use crate::support::wait;

/// Kills, unless `WHEELTAP_KILLS` says otherwise.
const KILLS: u32 = 100;
/// Requests that wait for their readings to be durable at one time.
const POSTERS: usize = 4;
/// One start in so many is killed before it is ready.
const EARLY: u32 = 8;

/// Readings that a client posts; each value is sent once and its answer noted.
struct Posting {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<u64>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Posting {
    fn start(http: &Http) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let next = Arc::new(AtomicU64::new(1));
        let threads: Vec<_> = (0..POSTERS)
            .map(|_| {
                let (http, stop, next) = (http.clone(), Arc::clone(&stop), Arc::clone(&next));
                let acknowledged = Arc::clone(&acknowledged);
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let value = next.fetch_add(1, Ordering::Relaxed);
                        let reading = json!({ "asset": "P-101", "tag": "counted", "value": value });
                        match http.post("/api/v1/readings", &reading) {
                            Ok((202, _)) => acknowledged.lock().unwrap().push(value),
                            Ok((status, answer)) => {
                                assert_eq!(status, 503, "{answer}");
                            }
                            // Killed: whether it was stored is open.
                            Err(_) => wait::pause(Duration::from_millis(10)),
                        }
                    }
                })
            })
            .collect();
        Self { stop, threads, acknowledged }
    }

    /// What was acknowledged since the last call.
    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.acknowledged.lock().unwrap())
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Three tags that cross their limit and come back, again and again, until told to stop.
fn crossings(plant: &Registers) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (plant, stopped) = (plant.clone(), Arc::clone(&stop));
    let thread = std::thread::spawn(move || {
        let mut turn = 0_u16;
        while !stopped.load(Ordering::Relaxed) {
            for tag in 0..3_u16 {
                let high = (turn + tag).is_multiple_of(3);
                plant.set(2 + 2 * tag, if high { 99.0 } else { 50.0 + f32::from(turn % 7) });
            }
            turn = turn.wrapping_add(1);
            wait::pause(Duration::from_millis(130));
        }
    });
    (stop, thread)
}

/// A question as the approval stage writes it, with the event that asks it.
fn ask(home: &Home) -> EventId {
    let utc = Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
    let now = Now { mono: Duration::ZERO, utc, trusted: true };
    let id = IdSource::new(11).next(now);
    let asset = AssetId::new("P-101").unwrap();
    let order = OrderRequest {
        asset: asset.clone(),
        task: "replace the bearing".to_owned(),
        skills: vec!["mechanical".to_owned()],
        duration_seconds: 3600.0,
        priority: Severity::High,
        not_before: None,
        due: None,
        technician: None,
        alarms: Vec::new(),
        anomaly: None,
    };
    let promise = Promise::new(now, Duration::from_secs(4 * 3600));
    let decision = Decision {
        id,
        asset: asset.clone(),
        order,
        question: "Shall the bearing be replaced?".to_owned(),
        severity: Severity::High,
        deadline: promise.utc,
        default: Choice::Defer,
        asked: 1,
        answer: None,
        correlation: id,
    };
    let mut body = serde_json::to_value(&decision).unwrap();
    body["promise"] = serde_json::to_value(promise).unwrap();
    body["resting"] = false.into();
    body["chain"] = serde_json::to_value(Chain { cause: id, correlation: id }).unwrap();
    let record = Record::new(RecordKind::Decision, id, utc, &body);
    let event = Event {
        id,
        cause: None,
        correlation: id,
        time: utc,
        clock_trusted: true,
        body: Body::DecisionRequested(decision),
    };
    let boot = BootInfo { id: uuid::Uuid::from_u128(7), utc, mono: Duration::ZERO, trusted: true };
    let (mut state, opened) = StateDb::open(home.data(), 16 << 20, &boot).unwrap();
    assert_eq!(opened.quarantined, None);
    state
        .commit(&Commit {
            events: vec![(event, Some((Class::Decision, 1)))],
            records: vec![record.about(&asset).in_state("requested", true)],
            ..Commit::default()
        })
        .unwrap();
    state.mark_clean_stop().unwrap();
    id
}

fn home(plant: &Registers, broker: &Mosquitto) -> Home {
    let limits = "limits = { high = 90.0 }";
    let tags = [("steady", 0, limits), ("t0", 2, limits), ("t1", 4, limits), ("t2", 6, limits)];
    let port = broker.port;
    Home::new(format!(
        "{}{ASSET}[[technician]]\nid = \"tech-1\"\nskills = [\"mechanical\"]\n\
         shifts = [{{ days = \"mon-sun\", from = \"00:00\", to = \"24:00\" }}]\n{}\
         [[mqtt]]\nname = \"lab\"\nurl = \"mqtt://127.0.0.1:{port}\"\n\
         [[mqtt.tag]]\nid = \"counted\"\nasset = \"P-101\"\ntopic = \"nobody/says\"\n\
         payload = \"text\"\ndiscrete = true\n",
        upstream(port),
        modbus(&plant.address.to_string(), &tags),
    ))
}

/// Acknowledges one open alarm, if there is one that nobody has; the steady one first.
fn acknowledge(http: &Http, acknowledged: &mut BTreeSet<String>) {
    let Ok((200, page)) = http.get("/api/v1/alarms?open=true&state=unacknowledged") else { return };
    let mut open: Vec<&Value> = page["items"].as_array().unwrap().iter().collect();
    open.sort_by_key(|alarm| alarm["tag"] != "steady");
    let Some(alarm) = open.first() else { return };
    let id = text(alarm, "id");
    if let Ok((200, _)) = http.post(&format!("/api/v1/alarms/{id}/ack"), &json!({ "by": "kim" })) {
        acknowledged.insert(id);
    }
}

/// What must hold after every start.
fn check(
    http: &Http,
    since: jiff::Timestamp,
    posted: &[u64],
    alarms: &BTreeSet<String>,
    question: EventId,
) {
    let mut stored: BTreeMap<u64, u32> = BTreeMap::new();
    for item in http.list(&format!("/api/v1/readings?asset=P-101&tag=counted&from={since}")) {
        let value = item["value"].as_f64().unwrap_or_else(|| panic!("{item}"));
        *stored.entry(format!("{value}").parse().unwrap()).or_default() += 1;
    }
    for value in posted {
        assert_eq!(stored.get(value), Some(&1), "value {value} was acknowledged with 202");
    }
    let asked = http.list("/api/v1/decisions?open=true");
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(text(&asked[0], "id"), question.to_string());
    assert_eq!(http.list("/api/v1/work-orders"), Vec::<Value>::new(), "nobody has approved");
    let known = http.list("/api/v1/alarms");
    for id in alarms {
        let alarm = known.iter().find(|alarm| alarm["id"] == *id.as_str());
        let alarm = alarm.unwrap_or_else(|| panic!("acknowledged alarm {id} is gone"));
        assert_eq!(alarm["acknowledged_by"], "kim", "{alarm}");
        assert_ne!(alarm["state"], "unacknowledged", "{alarm}");
    }
    let steady = known.iter().filter(|alarm| alarm["tag"] == "steady").count();
    assert!(steady <= 1, "one crossing, one alarm: {known:?}");
}

/// The class of a type, when its sequence must have no gaps.
fn class(kind: &str) -> Option<&'static str> {
    let kind = kind.strip_prefix("wheeltap.")?;
    let classes = [
        ("anomaly.", "anomaly"),
        ("alarm.", "alarm"),
        ("failure.", "prediction"),
        ("decision.", "decision"),
        ("work-order.", "work-order"),
        ("notification.", "notification"),
        ("model.", "model"),
        ("drift.", "model"),
        ("event.", "dead-letter"),
    ];
    classes.iter().find(|(begin, _)| kind.starts_with(begin)).map(|(_, class)| *class)
}

fn check_upstream(events: &[Value]) {
    let mut sequences: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut turns = BTreeSet::new();
    for event in events {
        let kind = text(event, "type");
        // Polled readings of the last moments may be lost, aloud; events may not.
        if kind == "wheeltap.gateway.gap" {
            assert_eq!(event["data"]["lane"], "readings", "{event}");
        }
        assert_ne!(kind, "wheeltap.event.set-aside", "{event}");
        let Some(class) = class(&kind) else { continue };
        sequences.entry(class).or_default().push(text(event, "sequence").parse().unwrap());
        // An alarm is raised, acknowledged and cleared once each, under whatever id.
        if class == "alarm" && kind != "wheeltap.alarm.updated" {
            let alarm = text(&event["data"], "alarm_id");
            assert!(turns.insert((kind.clone(), alarm)), "twice under two ids: {event}");
        }
    }
    for (class, mut numbers) in sequences {
        numbers.sort_unstable();
        let whole: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, whole, "sequence of class {class}");
        println!("{class}: {} events, no gap", numbers.len());
    }
}

/// Ids of all events in the journal that go upstream and are numbered.
fn journal(home: &Home) -> BTreeSet<String> {
    let reader = StateReader::open(home.data()).unwrap();
    let (mut row, mut ids) = (0, BTreeSet::new());
    loop {
        let page = reader.journal_after(row, 500).unwrap();
        let Some(last) = page.last() else { return ids };
        row = last.row;
        for one in page {
            let kept = matches!(one.sequence, Some((class, _)) if class != Class::Asset);
            if kept {
                ids.insert(one.event.id.to_string());
            }
        }
    }
}

#[test]
fn f_f01_a_hundred_kills_lose_nothing_and_double_nothing() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let kills = std::env::var("WHEELTAP_KILLS").ok().and_then(|count| count.parse().ok());
    let kills = kills.unwrap_or(KILLS);
    let mut random = fastrand::Rng::with_seed(seed);
    let Some(broker) = Mosquitto::start_blocking() else { return };
    let ear = Subscriber::start(broker.port, "wheeltap/test/gw/#");
    let plant = Registers::start();
    plant.set(0, 99.0);
    let mut home = home(&plant, &broker);

    let first = home.start();
    let http = first.http.clone();
    assert_eq!(first.stop().0, Some(0));
    let question = ask(&home);

    let posting = Posting::start(&http);
    let (calm, crossing) = crossings(&plant);
    let mut alarms = BTreeSet::new();
    let mut posted = Vec::new();
    // Answers may be noted late, so readings are looked for from the start of the life before.
    let mut since = jiff::Timestamp::now();
    let mut began_last = since;
    let (mut ready, mut stored) = (Vec::new(), 0);
    for _ in 0..kills {
        if random.u32(0..EARLY) == 0 {
            let daemon = home.spawn();
            wait::pause(Duration::from_millis(random.u64(0..200)));
            daemon.kill();
        }
        let began = Instant::now();
        let daemon = home.try_start().unwrap_or_else(|code| panic!("{code:?}:\n{}", home.log()));
        ready.push(began.elapsed());
        // Only now is the list of the last life complete: this one's answers come on top.
        check(&http, since, &posted, &alarms, question);
        stored += posted.len();
        posted.clear();
        since = std::mem::replace(&mut began_last, jiff::Timestamp::now());
        acknowledge(&http, &mut alarms);
        wait::pause(Duration::from_millis(random.u64(50..700)));
        daemon.kill();
        posted.append(&mut posting.take());
    }
    let mut daemon = home.start();
    check(&http, since, &posted, &alarms, question);
    posting.end();
    calm.store(true, Ordering::Relaxed);
    crossing.join().unwrap();

    let answer = json!({ "decision": "approve", "by": "kim" });
    let (status, told) = http.post(&format!("/api/v1/decisions/{question}"), &answer).unwrap();
    assert_eq!(status, 200, "{told}");
    let order = ear.wait_for("work-order.planned", "P-101");
    assert_eq!(order["data"]["technician"], "tech-1");
    assert_eq!(http.list("/api/v1/work-orders").len(), 1);

    let missing = || {
        let heard: BTreeSet<String> = ear.events().iter().map(|event| text(event, "id")).collect();
        journal(&home).difference(&heard).cloned().collect::<Vec<_>>()
    };
    wait::until("the whole journal at the subscriber", || missing().is_empty().then_some(()));
    assert!(daemon.lives());
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(missing(), Vec::<String>::new());
    check_upstream(&ear.events());
    let verified = home.run(&["db", "verify", "--data-dir", &home.data().display().to_string()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));

    ready.sort_unstable();
    println!(
        "{kills} kills; {stored} readings and {} alarms acknowledged before one; ready after {:?} \
         (median), {:?} (worst)",
        alarms.len(),
        ready.get(ready.len() / 2).unwrap_or(&Duration::ZERO),
        ready.last().unwrap_or(&Duration::ZERO),
    );
}
