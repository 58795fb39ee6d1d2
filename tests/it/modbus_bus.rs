//! What is asked when on a Modbus line: exceptions, memory, budget, rates. Ids are those of the
//! failure catalogue (c) and of the feature table (r).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wheeltap::config::{Optimization, PointType, Polling, Table};
use wheeltap::domain::reading::{Quality, RawReading, RawValue, Reason};
use wheeltap::port::Input;

use crate::support::engine_end::EngineEnd;
use crate::support::modbus_server::{Ask, Reply, ScriptedServer};
use crate::support::setting::{modbus, point, register, setting};

type Asked = Arc<Mutex<Vec<(u8, u16, u16)>>>;

fn good(reading: &RawReading) -> bool {
    matches!(reading.value, RawValue::Number(_))
}

fn covers(ask: &Ask, address: u16) -> bool {
    address >= ask.address && address - ask.address < ask.count
}

/// A script that notes unit, address and count of every request.
fn noted(
    mut script: impl FnMut(&Ask) -> Reply + Send + 'static,
) -> (Asked, impl FnMut(&Ask) -> Reply + Send + 'static) {
    let asked = Asked::default();
    let note = Arc::clone(&asked);
    let script = move |ask: &Ask| {
        note.lock().unwrap().push((ask.unit, ask.address, ask.count));
        script(ask)
    };
    (asked, script)
}

async fn plc(
    addresses: &[u16],
    polling: Polling,
    script: impl FnMut(&Ask) -> Reply + Send + 'static,
) -> (ScriptedServer, EngineEnd) {
    let server = ScriptedServer::start(script).await;
    let tags = addresses.iter().map(|&address| register(1, address)).collect();
    let mut source = modbus("plc", server.address, tags);
    source.polling = polling;
    let end = EngineEnd::start(&setting(vec![source], vec![]));
    (server, end)
}

/// Every answer is the exception with the code in the cell, or the truth while it holds 0.
fn exceptional(code: &Arc<AtomicU8>) -> impl FnMut(&Ask) -> Reply + Send + 'static {
    let code = Arc::clone(code);
    move |ask| match code.load(Ordering::Relaxed) {
        0 => Reply::addresses(ask),
        code => Reply::Exception(code),
    }
}

/// Readings and reports until `enough` says so.
async fn until(end: &mut EngineEnd, mut enough: impl FnMut(&Input) -> bool) {
    while !enough(&end.input().await) {}
}

#[tokio::test]
async fn c08_the_rest_of_a_block_is_read_within_two_cycles_and_the_register_is_named() {
    for code in [2, 3] {
        let (_server, mut end) = plc(&[0, 1, 2, 3, 4, 5, 6, 7], Polling::default(), move |ask| {
            if covers(ask, 5) { Reply::Exception(code) } else { Reply::addresses(ask) }
        })
        .await;
        let mut told: BTreeMap<String, Vec<RawValue>> = BTreeMap::new();
        let mut named = false;
        while told.len() < 8 || told["1-5"].len() < 2 || !named {
            match end.input().await {
                Input::Readings(batch) => {
                    for reading in batch.readings {
                        told.entry(end.name(&reading)).or_default().push(reading.value);
                    }
                }
                Input::Condition(report) if report.condition == "point-refused" => {
                    assert!(report.active && report.message.contains("holding:5"), "{report:?}");
                    named = true;
                }
                Input::Condition(_) | Input::Note(_) => {}
                other => panic!("{other:?}"),
            }
        }
        for (tag, values) in told {
            let bad = values.iter().filter(|value| matches!(value, RawValue::Failed(_))).count();
            if tag == "1-5" {
                assert!(values.iter().all(|v| *v == RawValue::Failed(Reason::Config)));
            } else {
                assert!(bad <= 1, "{tag} was lost for more than one cycle: {values:?}");
            }
        }
    }
}

#[tokio::test]
async fn c08_what_is_refused_is_remembered_over_a_restart_of_the_daemon() {
    let (asked, script) =
        noted(|ask| if covers(ask, 3) { Reply::Exception(2) } else { Reply::addresses(ask) });
    let server = ScriptedServer::start(script).await;
    let tags: Vec<_> = (0..6).map(|address| register(1, address)).collect();
    let source = modbus("plc", server.address, tags.clone());
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    let mut note = None;
    until(&mut end, |input| {
        if let Input::Note(found) = input {
            note = Some(found.clone());
        }
        note.is_some()
    })
    .await;
    end.stop().await;
    let note = note.unwrap();
    assert_eq!(note.id, "modbus/plc/1");

    // The record goes through the store and comes back to a daemon that knows nothing else.
    let record = wheeltap::domain::record::Record::new(
        wheeltap::domain::record::RecordKind::SourceNote,
        &note.id,
        wheeltap::domain::time::Timestamp::from_micros(0),
        note.body.as_ref().unwrap(),
    );
    let notes = wheeltap::sources::notes::Notes::from_records([&record]);
    asked.lock().unwrap().clear();
    let source = modbus("plc", server.address, tags);
    let mut end = EngineEnd::start_with(&setting(vec![source], vec![]), &notes);
    for _ in 0..3 {
        end.reading("1-5", good).await;
    }
    end.stop().await;
    let touched =
        asked.lock().unwrap().iter().any(|&(_, from, count)| from + count > 3 && from <= 3);
    assert!(!touched, "{:?}", asked.lock().unwrap());

    // Another point of the same name is another matter.
    asked.lock().unwrap().clear();
    let mut tags: Vec<_> = (0..6).map(|address| register(1, address)).collect();
    tags[3].point.kind = PointType::U32;
    let source = modbus("plc", server.address, tags);
    let mut end = EngineEnd::start_with(&setting(vec![source], vec![]), &notes);
    end.reading("1-5", good).await;
    assert!(asked.lock().unwrap().iter().any(|&(_, from, count)| from + count > 3 && from <= 3));
}

#[tokio::test]
async fn r30_r31_a_hole_and_a_length_are_remembered_too() {
    let server = ScriptedServer::start(|ask| match ask.function {
        3 if covers(ask, 9) => Reply::Exception(2),
        4 if ask.count > 4 => Reply::Exception(3),
        _ => Reply::addresses(ask),
    })
    .await;
    let mut tags = vec![register(1, 0), register(1, 20)];
    for address in 0..8 {
        tags.push(point(&format!("i{address}"), 1, Table::Input, address, PointType::U16));
    }
    let mut end = EngineEnd::start(&setting(vec![modbus("plc", server.address, tags)], vec![]));
    let mut last = serde_json::Value::Null;
    until(&mut end, |input| {
        if let Input::Note(note) = input {
            last = note.body.clone().unwrap_or_default();
        }
        last["memo"]["tables"].as_object().is_some_and(|tables| tables.len() == 2)
    })
    .await;
    let tables = &last["memo"]["tables"];
    assert_eq!(tables["holding"]["holes"], serde_json::json!([[1, 19]]));
    assert_eq!(tables["input"]["longest"], 4);
}

#[tokio::test]
async fn r31_r32_r33_requests_are_as_the_device_wants_them() {
    let asks = |polling: Polling, longest: u16, tags: Vec<wheeltap::config::ModbusTag>| async move {
        let (asked, script) = noted(|ask| match ask.function {
            1 => Reply::Bits(vec![true; usize::from(ask.count)]),
            _ => Reply::addresses(ask),
        });
        let server = ScriptedServer::start(script).await;
        let last = tags.last().unwrap().tag.path.tag.to_string();
        let mut source = modbus("plc", server.address, tags);
        source.polling = polling;
        source.max_registers = longest;
        let mut end = EngineEnd::start(&setting(vec![source], vec![]));
        end.reading(&last, good).await;
        end.reading(&last, good).await;
        let asked = asked.lock().unwrap();
        asked.iter().map(|&(_, from, count)| (from, count)).collect::<BTreeSet<_>>()
    };
    let registers = || (0..6).map(|address| register(1, address)).collect::<Vec<_>>();
    let coils =
        || [3_u16, 40].map(|at| point(&format!("c{at}"), 1, Table::Coil, at, PointType::Bool));
    let usual = Polling::default;
    assert_eq!(asks(usual(), 125, registers()).await, BTreeSet::from([(0, 6)]));
    assert_eq!(asks(usual(), 3, registers()).await, BTreeSet::from([(0, 3), (3, 3)]));
    let alone = Polling { one_request_per_field: true, ..usual() };
    assert_eq!(asks(alone, 125, registers()).await.len(), 6);
    let zero = Polling { coils_from_zero: true, ..usual() };
    assert_eq!(asks(zero, 125, coils().to_vec()).await, BTreeSet::from([(0, 41)]));
    let few = Polling { max_coils: 30, ..usual() };
    assert_eq!(asks(few, 125, coils().to_vec()).await, BTreeSet::from([(3, 1), (40, 1)]));
    let strict = Polling { optimization: Optimization::None, ..usual() };
    assert_eq!(asks(strict, 125, coils().to_vec()).await, BTreeSet::from([(3, 1), (40, 1)]));
    // r28, r29
    assert_eq!(asks(usual(), 125, coils().to_vec()).await, BTreeSet::from([(3, 38)]));
}

#[tokio::test]
async fn exception_01_is_a_fault_of_the_configuration_and_is_not_repeated() {
    let (asked, script) = noted(|_| Reply::Exception(1));
    let (_server, mut end) = plc(&[4], Polling::default(), script).await;
    for _ in 0..6 {
        end.reading("1-4", |reading| reading.value == RawValue::Failed(Reason::Config)).await;
    }
    let health = end.tasks[0].health.values().next().unwrap().borrow().clone();
    assert_ne!(health.state, "down", "the breaker does not count it");
    let asked = asked.lock().unwrap().len();
    assert!((6..=7).contains(&asked), "one request a poll: {asked}");
}

#[tokio::test]
async fn c09_exceptions_04_and_08_are_repeated_once_and_raise_one_alarm_within_four_polls() {
    for fault in [4, 8] {
        let code = Arc::new(AtomicU8::new(0));
        let (asked, script) = noted(exceptional(&code));
        let (_server, mut end) = plc(&[4], Polling::default(), script).await;
        end.reading("1-4", good).await;
        code.store(fault, Ordering::Relaxed);
        asked.lock().unwrap().clear();
        end.reading("1-4", |reading| reading.value == RawValue::Failed(Reason::Device)).await;
        assert_eq!(asked.lock().unwrap().len(), 2, "asked once more at once");
        let (mut polls, mut alarms) = (1, 0);
        while polls < 12 {
            match end.input().await {
                Input::Readings(batch) => {
                    assert!(batch.readings.iter().all(|r| !good(r)), "{batch:?}");
                    polls += 1;
                }
                Input::Condition(report) if report.active => {
                    assert_eq!(report.condition, "device-fault");
                    assert!(polls <= 4, "after {polls} polls");
                    alarms += 1;
                }
                Input::Condition(_) | Input::Note(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(alarms, 1);
        code.store(0, Ordering::Relaxed);
        end.condition("device-fault", "plc unit 1", false).await;
    }
}

#[tokio::test]
async fn r35_a_lost_answer_is_asked_for_once_more_at_once() {
    let lost = Arc::new(AtomicU8::new(0));
    let swallow = Arc::clone(&lost);
    let (asked, script) = noted(move |ask| {
        let left = swallow.load(Ordering::Relaxed);
        if left == 0 {
            return Reply::addresses(ask);
        }
        swallow.store(left - 1, Ordering::Relaxed);
        Reply::Silence
    });
    let (_server, mut end) = plc(&[4], Polling::default(), script).await;
    end.reading("1-4", good).await;
    // One answer is lost: the second try brings the value, and no reading is bad.
    lost.store(1, Ordering::Relaxed);
    asked.lock().unwrap().clear();
    while lost.load(Ordering::Relaxed) > 0 || asked.lock().unwrap().len() < 4 {
        if let Input::Readings(batch) = end.input().await {
            assert!(batch.readings.iter().all(good), "{batch:?}");
        }
    }
    // Two are lost: the poll has failed, and says so.
    lost.store(2, Ordering::Relaxed);
    end.reading("1-4", |reading| reading.value == RawValue::Failed(Reason::Comm)).await;
    end.reading("1-4", good).await;
}

#[tokio::test]
async fn c10_exception_05_keeps_the_value_is_asked_again_and_is_no_failure() {
    let code = Arc::new(AtomicU8::new(0));
    let (asked, script) = noted(exceptional(&code));
    let wait = Duration::from_millis(5);
    let polling = Polling { busy_retries: 2, busy_retries_wait: wait, ..Polling::default() };
    let (_server, mut end) = plc(&[4], polling, script).await;
    end.reading("1-4", good).await;
    code.store(5, Ordering::Relaxed);
    asked.lock().unwrap().clear();
    let stale = RawValue::Scaled(4.0, Quality::Uncertain(Reason::Stale));
    end.reading("1-4", |reading| reading.value == stale).await;
    assert_eq!(asked.lock().unwrap().len(), 3, "once and twice again");
    for _ in 0..6 {
        end.reading("1-4", |reading| reading.value == stale).await;
    }
    let health = end.tasks[0].health.values().next().unwrap().borrow().clone();
    assert_eq!(health.state, "up", "no failure");
    code.store(0, Ordering::Relaxed);
    end.reading("1-4", good).await;
}

#[tokio::test]
async fn c10_r36_exception_06_recovers_within_its_retries_and_counts_when_they_all_fail() {
    let server_polling = Polling {
        busy_retries: 3,
        busy_retries_wait: Duration::from_millis(3),
        ..Polling::default()
    };
    // Busy for three requests of every four: the poll succeeds with its last retry.
    let (_server, mut end) = plc(&[4], server_polling.clone(), |ask| match ask.nth % 4 {
        3 => Reply::addresses(ask),
        _ => Reply::Exception(6),
    })
    .await;
    for _ in 0..5 {
        let batch = end.batch().await;
        assert!(batch.readings.iter().all(good), "{batch:?}");
    }
    let code = Arc::new(AtomicU8::new(0));
    let (_server, mut end) = plc(&[4], server_polling, exceptional(&code)).await;
    end.reading("1-4", good).await;
    code.store(6, Ordering::Relaxed);
    end.condition("device-fault", "plc unit 1", true).await;
    code.store(0, Ordering::Relaxed);
    end.condition("device-fault", "plc unit 1", false).await;
    end.reading("1-4", good).await;
}

#[tokio::test]
async fn r36_while_a_busy_device_is_waited_for_the_line_serves_others() {
    let (asked, script) = noted(|ask| match ask.unit {
        1 => Reply::Exception(6),
        _ => Reply::addresses(ask),
    });
    let server = ScriptedServer::start(script).await;
    let mut busy = modbus("busy", server.address, vec![register(1, 1)]);
    busy.polling.busy_retries_wait = Duration::from_secs(2);
    let other = modbus("other", server.address, vec![register(2, 2)]);
    let mut end = EngineEnd::start(&setting(vec![busy, other], vec![]));
    for _ in 0..20 {
        end.reading("2-2", good).await;
    }
    let busy = asked.lock().unwrap().iter().filter(|ask| ask.0 == 1).count();
    assert!(busy <= 2, "{busy}");
}

#[tokio::test]
async fn c11_a_gateway_without_a_path_backs_off_one_unit_and_keeps_the_connection() {
    for code in [0x0A, 0x0B] {
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let server = ScriptedServer::start(move |ask| {
            // A transaction id begins anew with every connection.
            count.fetch_max(usize::from(ask.transaction), Ordering::Relaxed);
            if ask.unit == 1 { Reply::Exception(code) } else { Reply::addresses(ask) }
        })
        .await;
        let dead = modbus("dead", server.address, vec![register(1, 1)]);
        let alive = modbus("alive", server.address, vec![register(2, 2)]);
        let mut end = EngineEnd::start(&setting(vec![dead, alive], vec![]));
        end.condition("source-silent", "dead", true).await;
        let look = |tag: &str, reading: &RawReading| {
            assert_eq!(good(reading), tag == "2-2", "{tag}: {reading:?}");
        };
        for _ in 0..20 {
            end.reading_with("2-2", good, look).await;
        }
        assert!(connections.load(Ordering::Relaxed) >= 22, "one connection all the time");
    }
}

#[tokio::test]
async fn r53_each_tag_is_read_at_its_own_rate() {
    let (asked, script) = noted(Reply::addresses);
    let server = ScriptedServer::start(script).await;
    let mut slow = register(1, 100);
    slow.poll = Duration::from_millis(200);
    let source = modbus("plc", server.address, vec![register(1, 0), slow]);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    for _ in 0..4 {
        end.reading("1-100", good).await;
    }
    let asked = asked.lock().unwrap();
    let (fast, slow): (Vec<_>, Vec<_>) = asked.iter().copied().partition(|ask| ask.1 == 0);
    assert!(slow.len() == 4 && (10..=45).contains(&fast.len()), "{} {}", fast.len(), slow.len());
}

#[tokio::test]
async fn r54_each_response_has_its_own_time_of_arrival() {
    // Two requests of one poll; the second answer comes 60 ms after the first.
    let server = ScriptedServer::start(|ask| match ask.address {
        0 => Reply::addresses(ask),
        _ => Reply::After(Duration::from_millis(60), Box::new(Reply::addresses(ask))),
    })
    .await;
    let source = modbus("plc", server.address, vec![register(1, 0), register(1, 5000)]);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    let first = end.reading("1-0", good).await;
    let second = end.reading("1-5000", good).await;
    let apart = second.arrived.since(first.arrived);
    assert!(apart >= Duration::from_millis(55), "{apart:?}");
    assert!(first.source_time.is_none(), "no device has said so");
}

#[tokio::test]
async fn r60_load_and_lateness_are_published() {
    let (_server, mut end) = plc(&[1], Polling::default(), Reply::addresses).await;
    let health = end.tasks[0].health.values().next().unwrap().clone();
    loop {
        end.reading("1-1", good).await;
        let load = health.borrow().load.clone();
        if let Some(load) = load
            && load.lateness.polls() > 3
        {
            assert!(load.units[&1].busy_seconds > 0.0, "{load:?}");
            assert!(load.lateness.quantile(0.5).is_some());
            break;
        }
    }
}

#[tokio::test]
async fn an_unreachable_source_says_why_it_is_not_connected() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let source = modbus("plc", address, vec![register(1, 5)]);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    let silent = end.condition("source-silent", "plc", true).await;
    assert!(silent.message.contains("refused"), "{}", silent.message);
    let health = end.tasks[0].health.values().next().unwrap().clone();
    let error = health.borrow().last_error.clone().unwrap();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn c21_no_request_but_the_four_reads_ever_goes_out() {
    // `Table` has four members and the line turns each into one function: nothing else can be
    // built. Here is the proof on the wire, with a device that provokes in every way it can.
    let functions = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&functions);
    let server = ScriptedServer::start(move |ask| {
        seen.lock().unwrap().insert(ask.function);
        match ask.nth % 7 {
            0 => Reply::Exception(u8::try_from(ask.nth % 256).unwrap()),
            _ if ask.function < 3 => Reply::Bits(vec![true; usize::from(ask.count)]),
            _ => Reply::addresses(ask),
        }
    })
    .await;
    let tags = vec![
        point("coil", 1, Table::Coil, 1, PointType::Bool),
        point("discrete", 1, Table::Discrete, 1, PointType::Bool),
        point("holding", 1, Table::Holding, 1, PointType::U16),
        point("input", 1, Table::Input, 1, PointType::U16),
    ];
    let mut source = modbus("plc", server.address, tags);
    source.polling.busy_retries_wait = Duration::from_millis(1);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    for _ in 0..30 {
        end.reading("input", good).await;
    }
    assert_eq!(*functions.lock().unwrap(), BTreeSet::from([1, 2, 3, 4]));
}

#[tokio::test]
async fn answers_of_one_poll_arrive_together() {
    let (_server, mut end) = plc(&[10, 1000, 2000], Polling::default(), Reply::addresses).await;
    // Now and then a busy machine takes longer for a request than anything is held.
    while end.batch().await.readings.len() < 3 {}
    end.stop().await;
}

#[tokio::test]
async fn what_came_before_a_device_fell_silent_does_not_wait_for_it() {
    let server = ScriptedServer::start(|ask| match ask.address {
        10 => Reply::addresses(ask),
        _ => Reply::Silence,
    })
    .await;
    let mut source = modbus("plc", server.address, vec![register(1, 10), register(1, 1000)]);
    // Longer than the test is willing to wait for a batch.
    source.timeout = Duration::from_secs(60);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    let batch = end.batch().await;
    assert_eq!(batch.readings.len(), 1);
    assert_eq!(end.name(&batch.readings[0]), "1-10");
    assert!(good(&batch.readings[0]));
    end.stop().await;
}
