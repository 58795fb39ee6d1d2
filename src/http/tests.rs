//! The real router behind a real socket and a real `state.db`; only the engine's end of its queue
//! is played by the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agents::{IdSource, Outbox, Setting};
use crate::config::{self, Config};
use crate::domain::alarm::{Alarm, AlarmCause, AlarmState, LimitKind};
use crate::domain::command::{Refusal, Verb};
use crate::domain::decision::Choice;
use crate::domain::event::{Body, Class, Event};
use crate::domain::ids::{Arrival, AssetId, EventId, SourceId, TagId, TagKey};
use crate::domain::reading::{Quality, RawValue, Reading, Reason};
use crate::domain::record::{Record, RecordKind};
use crate::domain::severity::Severity;
use crate::domain::time::{Now, Timestamp};
use crate::port::{
    Announcements, Committed, EngineHandle, EngineStatus, Input, SourceHealth, StageStatus,
    UplinkHealth,
};
use crate::store::{BootInfo, Commit, RingDb, StateDb};

use super::{ApiState, ReloadRequest, serve};

const CONFIG: &str = r#"
[gateway]
site = "plant-a"
id = "gw-01"

[[asset]]
id = "P-101"
class = "pump"

[[technician]]
id = "tech-1"
skills = ["mechanical"]

[[modbus]]
name = "plc1"
url = "tcp://127.0.0.1:5020"

  [[modbus.tag]]
  id = "temp"
  asset = "P-101"
  point = "holding:100"
  type = "f32"
  limits = { high = 85.0 }
"#;

/// 2026-05-01T10:20:30Z
const NOON: i64 = 1_777_630_830_000_000;

fn now() -> Now {
    Now { mono: Duration::from_secs(60), utc: Timestamp::from_micros(NOON), trusted: true }
}

pub(crate) struct Daemon {
    pub(crate) address: SocketAddr,
    inputs: mpsc::Receiver<Input>,
    journal: watch::Sender<u64>,
    events: broadcast::Sender<Arc<Committed>>,
    status: watch::Sender<Arc<EngineStatus>>,
    health: watch::Sender<SourceHealth>,
    reloads: mpsc::Receiver<ReloadRequest>,
    state: StateDb,
    ids: IdSource,
    sequence: AtomicU64,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    ring: RingDb,
    _setting: watch::Sender<Setting>,
    _dir: tempfile::TempDir,
}

fn status() -> EngineStatus {
    let stage = StageStatus {
        name: "detection",
        state: "running",
        handled: 7,
        failures: 0,
        last_error: None,
    };
    EngineStatus { stages: vec![stage], durable: true, ..EngineStatus::default() }
}

pub(crate) async fn daemon() -> Daemon {
    daemon_with(config::parse(CONFIG, "plant.toml".as_ref(), &BTreeMap::new()).unwrap()).await
}

async fn daemon_with(config: Config) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let now = now();
    let boot = BootInfo {
        id: uuid::Uuid::from_u128(1),
        utc: now.utc,
        mono: now.mono,
        trusted: now.trusted,
    };
    let (state, _) = StateDb::open(dir.path(), 64 << 20, &boot).unwrap();
    let (ring, _) = RingDb::open(dir.path(), 64 << 20, &boot).unwrap();
    let keys: BTreeMap<_, _> =
        config.tags().zip(0..).map(|((_, tag, _), key)| (tag.path.clone(), TagKey(key))).collect();
    let plant = Arc::new(config.plant(&keys));
    let (setting, setting_seen) = watch::channel(Setting { config: Arc::new(config), plant });
    let (engine, inputs) = EngineHandle::channel();
    let (journal, journal_seen) = watch::channel(0);
    let (events, _) = broadcast::channel(16);
    let (status, status_seen) = watch::channel(Arc::new(status()));
    let up = SourceHealth { state: "up".to_owned(), good: 3, ..SourceHealth::default() };
    let (health, health_seen) = watch::channel(up);
    let board = BTreeMap::from([(SourceId::new("plc1").unwrap(), health_seen)]);
    let (_, sources) = watch::channel(Arc::new(board));
    let (_, uplink) = watch::channel(UplinkHealth::default());
    let (reload, reloads) = mpsc::channel(1);
    let state_of_api = ApiState {
        engine,
        announcements: Announcements {
            journal: journal_seen,
            events: events.clone(),
            status: status_seen,
        },
        setting: setting_seen,
        sources,
        uplink,
        data_dir: dir.path().to_owned(),
        clock: Arc::new(self::now),
        started: Timestamp::from_micros(NOON - 60_000_000),
        reload: Some(reload),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let token = stop.clone();
    tasks.spawn(async move { serve(listener, state_of_api, token).await.unwrap() });
    Daemon {
        address,
        inputs,
        journal,
        events,
        status,
        health,
        reloads,
        state,
        ids: IdSource::new(7),
        sequence: AtomicU64::new(0),
        stop,
        tasks,
        ring,
        _setting: setting,
        _dir: dir,
    }
}

/// A whole answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

async fn send(address: SocketAddr, request: String) -> Reply {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

async fn get_with(address: SocketAddr, path: &str, headers: &str) -> Reply {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    send(address, request).await
}

async fn get(address: SocketAddr, path: &str) -> Reply {
    get_with(address, path, "").await
}

async fn post_with(address: SocketAddr, path: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    send(address, request).await
}

async fn post(address: SocketAddr, path: &str, body: Value) -> Reply {
    post_with(address, path, "", &body.to_string()).await
}

impl Daemon {
    pub(crate) fn alarm(&mut self) -> Alarm {
        let id = self.ids.next(now());
        Alarm {
            id,
            asset: Some(AssetId::new("P-101").unwrap()),
            tag: Some(TagId::new("temp").unwrap()),
            cause: AlarmCause::Limit { which: LimitKind::High, limit: 85.0 },
            severity: Severity::High,
            value: Some(86.5),
            message: "temp is 86.5, above 85".to_owned(),
            state: AlarmState::Unacknowledged,
            raised: now().utc,
            cleared: None,
            closed_by: None,
            acknowledged_by: None,
            shelved_until: None,
            correlation: id,
        }
    }

    pub(crate) fn save(&mut self, record: Record) {
        let commit = Commit { records: vec![record], ..Commit::default() };
        self.state.commit(&commit).unwrap();
    }

    /// Commits an event and announces it, as the engine does.
    fn happen(&mut self, body: Body) -> Arc<Committed> {
        let mut out = Outbox::new(now(), &mut self.ids, None);
        out.emit(body);
        let event: Event = out.events.remove(0);
        let number = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let sequence = event.body.class().map(|class| (class, number));
        let events = vec![(event.clone(), sequence)];
        let rows = self.state.commit(&Commit { events, ..Commit::default() }).unwrap();
        let committed = Arc::new(Committed { row: rows[0], sequence, event, durable: true });
        self.journal.send_replace(committed.row);
        self.events.send(Arc::clone(&committed)).ok();
        committed
    }

    /// Takes the next command and answers it.
    pub(crate) async fn answer(&mut self, result: Result<Value, Refusal>) -> (String, Verb) {
        let Input::Command { command, reply } = self.inputs.recv().await.unwrap() else {
            panic!("a command was expected")
        };
        reply.send(result).unwrap();
        (command.by, command.verb)
    }
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let daemon = daemon().await;
    assert_eq!(get(daemon.address, "/healthz").await.status, 200);
    assert_eq!(get(daemon.address, "/readyz").await.status, 200);
    daemon.health.send_modify(|health| {
        health.state = "down".to_owned();
        health.last_error = Some("connection refused".to_owned());
    });
    let reply = get(daemon.address, "/readyz").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["reasons"][0], "source plc1 is down: connection refused");
    daemon.health.send_modify(|health| health.state = "up".to_owned());
    let mut broken = status();
    broken.durable = false;
    daemon.status.send_replace(Arc::new(broken));
    let reply = get(daemon.address, "/readyz").await;
    assert_eq!(reply.json()["reasons"][0], "the store does not commit");
    assert_eq!(get(daemon.address, "/healthz").await.status, 200);
}

#[tokio::test]
async fn alarms_are_listed_as_they_go_upstream_and_paged() {
    let mut daemon = daemon().await;
    let mut ids = Vec::new();
    for index in 0..3 {
        let mut alarm = daemon.alarm();
        alarm.raised = alarm.raised.after(Duration::from_secs(index));
        let open = index > 0;
        let state = if open { "unacknowledged" } else { "cleared" };
        let asset = AssetId::new("P-101").unwrap();
        let record = Record::new(RecordKind::Alarm, alarm.id, alarm.raised, &alarm);
        daemon.save(record.about(&asset).in_state(state, open));
        ids.push(alarm.id.to_string());
    }
    let all = get(daemon.address, "/api/v1/alarms").await.json();
    let items = all["items"].as_array().unwrap();
    assert_eq!((items.len(), &all["next"]), (3, &Value::Null));
    assert_eq!(items[0]["id"], ids[2].as_str(), "the newest comes first");
    assert_eq!(items[0]["alarm_id"], ids[2].as_str());
    assert_eq!(items[0]["limit"], 85.0);
    assert_eq!(items[0]["raised"], "2026-05-01T10:20:32.000Z");
    let open = get(daemon.address, "/api/v1/alarms?open=true&asset=P-101").await.json();
    assert_eq!(open["items"].as_array().unwrap().len(), 2);

    let first = get(daemon.address, "/api/v1/alarms?limit=2").await.json();
    let cursor = first["next"].as_str().unwrap().to_owned();
    let second = get(daemon.address, &format!("/api/v1/alarms?limit=2&cursor={cursor}")).await;
    assert_eq!(second.json()["items"][0]["id"], ids[0].as_str());

    for wrong in ["colour=red", "limit=0", "limit=x", "from=yesterday", "open=maybe", "asset=a%20b"]
    {
        let reply = get(daemon.address, &format!("/api/v1/alarms?{wrong}")).await;
        assert_eq!(reply.status, 400, "{wrong}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
}

#[tokio::test]
async fn commands_reach_the_engine_and_answer_after_it() {
    let mut daemon = daemon().await;
    let id = daemon.alarm().id;
    let address = daemon.address;
    let path = format!("/api/v1/alarms/{id}/ack");
    let ack = post(address, &path, json!({ "by": "anna" }));
    let (reply, (by, verb)) = tokio::join!(ack, daemon.answer(Ok(json!({ "raised": NOON }))));
    assert_eq!((reply.status, by.as_str()), (200, "anna"));
    assert_eq!(reply.json()["raised"], "2026-05-01T10:20:30.000Z");
    assert_eq!(verb, Verb::Acknowledge { alarm: id });

    let path = format!("/api/v1/decisions/{id}");
    let body = json!({
        "decision": "modify", "by": "anna",
        "changes": { "technician": "tech-1", "due": "2026-05-01T10:20:30Z", "duration": "90m" },
    });
    let (reply, (_, verb)) = tokio::join!(post(address, &path, body), daemon.answer(Ok(json!({}))));
    assert_eq!(reply.status, 200);
    let Verb::Decide { choice: Choice::Modify, changes: Some(changes), .. } = verb else {
        panic!("{verb:?}")
    };
    assert_eq!(changes.due, Some(Timestamp::from_micros(NOON)));
    assert_eq!(changes.duration_seconds, Some(5400.0));

    let late = daemon.answer(Err(Refusal::Conflict {
        detail: "answered before".to_owned(),
        first: json!({ "by": "berta", "time": NOON }),
    }));
    let (reply, _) = tokio::join!(post(address, &path, json!({ "decision": "reject" })), late);
    assert_eq!(reply.status, 409);
    let problem = reply.json();
    assert_eq!(problem["first"]["by"], "berta");
    assert_eq!(problem["first"]["time"], "2026-05-01T10:20:30.000Z");
    assert_eq!(problem["status"], 409);
}

#[tokio::test]
async fn every_action_is_understood() {
    let mut daemon = daemon().await;
    let id = daemon.alarm().id;
    let cases = [
        (format!("/alarms/{id}/shelve"), json!({ "duration": "2h", "reason": "known" }), 200),
        (format!("/alarms/{id}/unshelve"), json!({}), 200),
        ("/work-orders".to_owned(), json!({ "asset": "P-101", "task": "Grease it" }), 201),
        (format!("/work-orders/{id}/complete"), json!({ "outcome": "no-fault-found" }), 200),
        (format!("/work-orders/{id}/reschedule"), json!({ "technician": "tech-1" }), 200),
        (format!("/work-orders/{id}/cancel"), json!({ "reason": "double" }), 200),
        ("/feedback".to_owned(), json!({ "anomaly": id, "label": false }), 200),
        (format!("/dead-letters/{id}/retry"), json!({}), 200),
        ("/assets/P-101/relearn".to_owned(), json!({}), 200),
    ];
    for (path, body, expected) in cases {
        let path = format!("/api/v1{path}");
        let address = daemon.address;
        let (reply, (by, _)) =
            tokio::join!(post(address, &path, body), daemon.answer(Ok(json!({ "ok": true }))));
        assert_eq!((reply.status, by.as_str()), (expected, "operator"), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn bad_requests_never_reach_the_engine() {
    let mut daemon = daemon().await;
    let id = daemon.alarm().id;
    let address = daemon.address;
    for (path, body, expected) in [
        (format!("/decisions/{id}"), "{\"decision\":\"maybe\"}", 422),
        (format!("/decisions/{id}"), "{\"decision\":\"approve\",\"extra\":1}", 422),
        (format!("/decisions/{id}"), "", 400),
        (format!("/decisions/{id}"), "not json", 400),
        ("/decisions/17".to_owned(), "{\"decision\":\"approve\"}", 404),
        (format!("/alarms/{id}/shelve"), "{\"duration\":\"90d\"}", 422),
        (format!("/alarms/{id}/ack"), "{\"by\":\"a\\u001bb\"}", 422),
        ("/work-orders".to_owned(), "{\"asset\":\"P-999\",\"task\":\"x\"}", 422),
        ("/work-orders".to_owned(), "{\"asset\":\"P-101\",\"task\":\" \"}", 422),
        ("/nowhere".to_owned(), "{}", 404),
        ("/status".to_owned(), "{}", 405),
    ] {
        let reply = post_with(address, &format!("/api/v1{path}"), "", body).await;
        assert_eq!(reply.status, expected, "{path} {body}: {reply:?}");
        assert_eq!(reply.json()["status"], expected, "{path}");
    }
    let large = format!("{{\"by\":\"{}\"}}", "x".repeat(300 << 10));
    let reply = post_with(address, &format!("/api/v1/alarms/{id}/ack"), "", &large).await;
    assert_eq!(reply.status, 413);
    assert!(daemon.inputs.try_recv().is_err(), "nothing was handed to the engine");
}

#[tokio::test]
async fn readings_are_accepted_only_when_durable() {
    let mut daemon = daemon().await;
    let address = daemon.address;
    let body = json!([
        { "asset": "P-101", "tag": "temp", "time": "2026-05-01T10:20:30Z", "value": 70.5 },
        { "asset": "P-101", "tag": "nothing", "value": 1 },
        { "asset": "P-101", "tag": "temp", "value": null },
        { "asset": "P-101", "tag": "temp", "value": 1, "quality": "uncertain", "reason": "stale" },
        { "asset": "P-101", "tag": "temp", "value": "high" },
    ]);
    let engine = async {
        let Input::Readings(batch) = daemon.inputs.recv().await.unwrap() else { panic!() };
        let values: Vec<RawValue> = batch.readings.iter().map(|raw| raw.value).collect();
        batch.ack.unwrap().done();
        (batch.readings[0].source_time, values)
    };
    let (reply, (time, values)) = tokio::join!(post(address, "/api/v1/readings", body), engine);
    assert_eq!(time, Some(Timestamp::from_micros(NOON)));
    assert_eq!(
        values,
        [
            RawValue::Scaled(70.5, Quality::Good),
            RawValue::Failed(Reason::Device),
            RawValue::Scaled(1.0, Quality::Uncertain(Reason::Stale)),
        ]
    );
    assert_eq!(reply.status, 207);
    let answer = reply.json();
    assert_eq!(answer["accepted"], 3);
    assert_eq!(answer["errors"][0]["index"], 1);
    assert_eq!(answer["errors"][0]["status"], 404);
    assert_eq!(answer["errors"][1]["index"], 4);

    let one = json!({ "asset": "P-101", "tag": "temp", "value": 71 });
    let refused = async {
        let Input::Readings(batch) = daemon.inputs.recv().await.unwrap() else { panic!() };
        drop(batch);
    };
    let (reply, ()) = tokio::join!(post(address, "/api/v1/readings", one), refused);
    assert_eq!(reply.status, 503, "an acknowledgement that never comes is no 202");
    assert_eq!(reply.header("retry-after"), Some("5"));
}

#[tokio::test]
async fn a_repeated_idempotency_key_is_not_taken_in_again() {
    let mut daemon = daemon().await;
    let address = daemon.address;
    let body = json!({ "asset": "P-101", "tag": "temp", "value": 71 }).to_string();
    let key = "Idempotency-Key: batch-1\r\n";
    let engine = async {
        let Input::Readings(batch) = daemon.inputs.recv().await.unwrap() else { panic!() };
        batch.ack.unwrap().done();
    };
    let (reply, ()) = tokio::join!(post_with(address, "/api/v1/readings", key, &body), engine);
    assert_eq!(reply.status, 202);
    let again = post_with(address, "/api/v1/readings", key, &body).await;
    assert_eq!((again.status, again.body), (202, reply.body));
    let other = body.replace("71", "72");
    let reply = post_with(address, "/api/v1/readings", key, &other).await;
    assert_eq!(reply.status, 422);
    assert!(daemon.inputs.try_recv().is_err());
}

#[tokio::test]
async fn readings_come_out_raw_and_rolled_up() {
    let mut daemon = daemon().await;
    let readings: Vec<Reading> = (0..180_u32)
        .map(|second| Reading {
            tag: TagKey(0),
            arrival: Arrival(u64::from(second) + 1),
            time: Timestamp::from_micros(NOON - 180_000_000 + i64::from(second) * 1_000_000),
            value: if second == 5 { f64::NAN } else { f64::from(second) },
            quality: if second == 5 { Quality::Bad(Reason::Comm) } else { Quality::Good },
        })
        .collect();
    daemon.ring.append(&readings);
    daemon.ring.commit().unwrap();
    let address = daemon.address;
    let path = "/api/v1/readings?asset=P-101&tag=temp";
    let first = get(address, &format!("{path}&limit=10")).await.json();
    assert_eq!(first["items"].as_array().unwrap().len(), 10);
    assert_eq!(
        first["items"][5],
        json!({
            "time": "2026-05-01T10:17:35.000Z", "value": null, "quality": "bad", "reason": "comm",
        })
    );
    let cursor = first["next"].as_str().unwrap();
    let second = get(address, &format!("{path}&limit=1000&cursor={cursor}")).await.json();
    assert_eq!(second["items"].as_array().unwrap().len(), 170);
    assert_eq!(second["next"], Value::Null);

    let rolled = format!("{path}&resolution=1m&from=2026-05-01T10:00:00Z&to=2026-05-01T11:00:00Z");
    let all = get(address, &rolled).await.json();
    let counts: u64 =
        all["items"].as_array().unwrap().iter().map(|row| row["count"].as_u64().unwrap()).sum();
    assert_eq!((counts, &all["next"]), (179, &Value::Null));
    let first = get(address, &format!("{rolled}&limit=1")).await.json();
    let cursor = first["next"].as_str().unwrap();
    let second = get(address, &format!("{rolled}&limit=1&cursor={cursor}")).await.json();
    assert_eq!(second["items"][0], all["items"][1]);

    for (query, status) in [
        ("asset=P-101", 400),
        ("asset=P-101&tag=nothing", 404),
        ("asset=P-101&tag=temp&resolution=2m", 400),
        ("asset=P-101&tag=temp&from=2026-05-02T00:00:00Z&to=2026-05-01T00:00:00Z", 400),
    ] {
        let reply = get(address, &format!("/api/v1/readings?{query}")).await;
        assert_eq!(reply.status, status, "{query}");
    }
}

#[tokio::test]
async fn a_tag_is_forecast_from_its_roll_ups_and_refused_without_history() {
    let mut daemon = daemon().await;
    let address = daemon.address;
    let path = "/api/v1/forecast?asset=P-101&tag=temp";
    let refused = get(address, &format!("{path}&horizon=4h")).await;
    assert_eq!(refused.status, 422);
    assert!(refused.json()["detail"].as_str().unwrap().contains("too little history"));
    // Three days of a day's wave, a reading every two minutes, up to now.
    let readings: Vec<Reading> = (0..2160_u32)
        .map(|number| {
            let micros = NOON - i64::from(2160 - number) * 120_000_000;
            let day = std::f64::consts::TAU * micros as f64 / 86.4e9;
            Reading {
                tag: TagKey(0),
                arrival: Arrival(u64::from(number) + 1),
                time: Timestamp::from_micros(micros),
                value: 70.0 + 10.0 * day.sin() + f64::from(number % 7) / 10.0,
                quality: Quality::Good,
            }
        })
        .collect();
    daemon.ring.append(&readings);
    daemon.ring.commit().unwrap();
    let reply = get(address, &format!("{path}&horizon=6h&limit=200")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let found = reply.json();
    assert_eq!(found["step_seconds"], json!(120.0));
    let steps = found["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &steps[0]["step"]), (180, &json!(1)));
    let middle = &steps[90];
    let time = Timestamp::parse_rfc3339(middle["time"].as_str().unwrap()).unwrap();
    let truth = 70.3 + 10.0 * (std::f64::consts::TAU * time.seconds() / 86_400.0).sin();
    // The saw-tooth of 0.6 on the wave is all that cannot be known.
    assert!((middle["mean"].as_f64().unwrap() - truth).abs() < 1.5, "{middle} not {truth}");
    assert!(middle["lower_95"].as_f64() <= middle["lower_80"].as_f64());
    let limits = found["limits"].as_array().unwrap();
    assert_eq!((&limits[0]["name"], &limits[1]["name"]), (&json!("high"), &json!("asked")));
    assert_eq!(limits[1]["p50"], Value::Null);

    for (query, status) in [
        ("asset=P-101&tag=temp", 400),
        ("asset=P-101&tag=nothing&horizon=1h", 404),
        ("asset=P-101&tag=temp&horizon=soon", 400),
        ("asset=P-101&tag=temp&horizon=1h&limit=x", 400),
        ("asset=P-101&tag=temp&horizon=30d", 422),
    ] {
        let reply = get(address, &format!("/api/v1/forecast?{query}")).await;
        assert_eq!(reply.status, status, "{query}");
    }
}

#[tokio::test]
async fn tokens_guard_all_but_health_and_the_page() {
    let mut config = config::parse(CONFIG, "plant.toml".as_ref(), &BTreeMap::new()).unwrap();
    let token = |secret: &str, scope| {
        use sha2::{Digest, Sha256};
        config::Token { sha256: Sha256::digest(secret).into(), scope }
    };
    config.http.tokens =
        vec![token("looks", config::Scope::Read), token("acts", config::Scope::Operate)];
    let mut daemon = daemon_with(config).await;
    let address = daemon.address;
    for open in ["/healthz", "/readyz", "/metrics", "/", "/page.js", "/page.css"] {
        assert_eq!(get(address, open).await.status, 200, "{open}");
    }
    let reply = get(address, "/api/v1/status").await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
    let bearer = |secret: &str| format!("Authorization: Bearer {secret}\r\n");
    for wrong in ["", "look", "lookss"] {
        assert_eq!(get_with(address, "/api/v1/status", &bearer(wrong)).await.status, 401);
    }
    assert_eq!(get_with(address, "/api/v1/status", &bearer("looks")).await.status, 200);
    let id = daemon.alarm().id;
    let ack = format!("/api/v1/alarms/{id}/ack");
    assert_eq!(post_with(address, &ack, &bearer("looks"), "{}").await.status, 403);
    let secret = bearer("acts");
    let (reply, _) =
        tokio::join!(post_with(address, &ack, &secret, "{}"), daemon.answer(Ok(json!({}))));
    assert_eq!(reply.status, 200);
    let retry = format!("/api/v1/dead-letters/{id}/retry");
    assert_eq!(post_with(address, &retry, &bearer("acts"), "{}").await.status, 403);
}

#[tokio::test]
async fn other_hosts_and_other_pages_are_refused() {
    let mut daemon = daemon().await;
    let address = daemon.address;
    let request =
        |host: &str| format!("GET /api/v1/status HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    assert_eq!(send(address, request("Host: evil.example:8480\r\n")).await.status, 421);
    assert_eq!(send(address, request("")).await.status, 400);
    for own in ["Host: localhost\r\n", "Host: [::1]:8480\r\n", "Host: 127.0.0.1:8480\r\n"] {
        assert_eq!(send(address, request(own)).await.status, 200, "{own}");
    }
    let path = format!("/api/v1/alarms/{}/ack", daemon.alarm().id);
    for foreign in
        ["Origin: http://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"]
    {
        assert_eq!(post_with(address, &path, foreign, "{}").await.status, 403, "{foreign}");
    }
    let own = format!("Origin: http://{address}\r\n");
    let (reply, _) =
        tokio::join!(post_with(address, &path, &own, "{}"), daemon.answer(Ok(json!({}))));
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn request_ids_come_back_and_headers_are_strict() {
    let daemon = daemon().await;
    let reply = get_with(daemon.address, "/", "X-Request-Id: abc-1\r\n").await;
    assert_eq!(reply.header("x-request-id"), Some("abc-1"));
    assert!(reply.header("content-security-policy").unwrap().contains("script-src 'self'"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let reply = get_with(daemon.address, "/nowhere", "X-Request-Id: a b\r\n").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("x-request-id").unwrap().len(), 32);
    for forbidden in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("] {
        assert!(!include_str!("page.js").contains(forbidden), "{forbidden}");
    }
}

#[tokio::test]
async fn events_are_listed_and_streamed_as_cloudevents() {
    let mut daemon = daemon().await;
    let first = daemon.alarm();
    let missed = daemon.happen(Body::AlarmRaised(first.clone()));
    daemon.happen(Body::AlarmAcknowledged(first));
    let list = get(daemon.address, "/api/v1/events?class=alarm&limit=1").await.json();
    assert_eq!(list["items"][0]["kind"], "alarm-acknowledged");
    assert_eq!(list["items"][0]["data"]["limit"], 85.0);
    assert!(list["next"].is_string());

    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let request = format!(
        "GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {}\r\n\r\n",
        missed.event.id
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "wheeltap.alarm.acknowledged").await;
    assert!(!text.contains("wheeltap.alarm.raised"), "what was seen is not sent again: {text}");

    // More than the live queue holds: the rest comes from the journal.
    for _ in 0..40 {
        let alarm = daemon.alarm();
        daemon.happen(Body::AlarmRaised(alarm));
    }
    let last = daemon.alarm();
    let last = daemon.happen(Body::AlarmCleared(last));
    read_until(&mut stream, &mut text, &format!("id: {}\n", last.event.id)).await;
    read_until(&mut stream, &mut text, "\n\n").await;
    assert_eq!(text.matches("event: wheeltap.alarm.raised\n").count(), 40);
    let data = text.rsplit("data: ").next().unwrap();
    let event: Value = serde_json::from_str(data.split('\n').next().unwrap()).unwrap();
    assert_eq!(
        (event["specversion"].as_str(), event["type"].as_str()),
        (Some("1.0"), Some("wheeltap.alarm.cleared"))
    );
    assert_eq!(last.sequence.unwrap().0, Class::Alarm);
}

async fn read_until(stream: &mut TcpStream, text: &mut String, wanted: &str) {
    let mut bytes = [0; 4096];
    while !text.contains(wanted) {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes));
        let count = read.await.unwrap_or_else(|_| panic!("no {wanted} in {text}")).unwrap();
        assert!(count > 0, "the stream ended without {wanted}: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

#[tokio::test]
async fn what_is_configured_is_shown() {
    let daemon = daemon().await;
    let asset = get(daemon.address, "/api/v1/assets/P-101").await.json();
    assert_eq!(
        (asset["class"].as_str(), asset["phase"].as_str()),
        (Some("pump"), Some("learning"))
    );
    assert_eq!(get(daemon.address, "/api/v1/assets/P-102").await.status, 404);
    let tags = get(daemon.address, "/api/v1/tags?asset=P-101").await.json();
    assert_eq!(tags["items"][0]["limits"]["high"], 85.0);
    let people = get(daemon.address, "/api/v1/technicians").await.json();
    assert_eq!(people["items"][0]["shifts"][0]["to"], "24:00");
    let stages = get(daemon.address, "/api/v1/stages").await.json();
    assert_eq!(stages["items"][0]["handled"], 7);
    let status = get(daemon.address, "/api/v1/status").await.json();
    assert_eq!((status["site"].as_str(), status["ready"].as_bool()), (Some("plant-a"), Some(true)));
    assert_eq!(status["uptime_seconds"], 60.0);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let daemon = daemon().await;
    let reply = get(daemon.address, "/metrics").await;
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let mut families = std::collections::BTreeSet::new();
    for line in reply.body.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert!(families.insert(kind.split(' ').next().unwrap().to_owned()), "twice: {line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(families.contains(name), "no type before {line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(reply.body.contains("wheeltap_source_up{source=\"plc1\"} 1"), "{}", reply.body);
    assert!(reply.body.contains("wheeltap_store_file_bytes{file=\"state.db\"}"), "{}", reply.body);
}

#[tokio::test]
async fn a_reload_is_asked_of_the_runtime() {
    let mut daemon = daemon().await;
    let address = daemon.address;
    let runtime = async {
        let reply: oneshot::Sender<_> = daemon.reloads.recv().await.unwrap();
        reply.send(Err("a.toml:1:1: gateway.site: is missing".to_owned())).unwrap();
    };
    let (reply, ()) = tokio::join!(post(address, "/api/v1/reload", json!({})), runtime);
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json()["mistakes"][0], "a.toml:1:1: gateway.site: is missing");
}

#[tokio::test]
async fn stopping_ends_streams_and_frees_the_address() {
    let mut daemon = daemon().await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    read_until(&mut stream, &mut text, ": wheeltap").await;
    daemon.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), daemon.tasks.join_next()).await;
    ended.expect("the server ends").unwrap().unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(daemon.address).await.is_err());
}

#[tokio::test]
async fn an_unknown_id_of_an_event_is_no_error_of_ours() {
    let daemon = daemon().await;
    let id = EventId(uuid::Uuid::nil());
    assert_eq!(get(daemon.address, &format!("/api/v1/decisions/{id}")).await.status, 404);
    assert_eq!(get(daemon.address, &format!("/api/v1/work-orders/{id}")).await.status, 404);
}
