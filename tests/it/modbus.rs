//! Modbus TCP against servers that lie, stall and break off. Ids are those of the failure
//! catalogue: each test stands for one row of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wheeltap::config::{PointType, Table};
use wheeltap::domain::reading::{RawReading, RawValue, Reason};
use wheeltap::port::Input;
use wheeltap::sources::breaker::handling;

use crate::support::engine_end::EngineEnd;
use crate::support::modbus_server::{Ask, Reply, ScriptedServer, framed, header};
use crate::support::setting::{modbus, point, register, setting};

fn good(reading: &RawReading) -> bool {
    matches!(reading.value, RawValue::Number(_))
}

fn is(value: f64) -> impl Fn(&RawReading) -> bool {
    move |reading| reading.value == RawValue::Number(value)
}

fn failed(reason: Reason) -> impl Fn(&RawReading) -> bool {
    move |reading| reading.value == RawValue::Failed(reason)
}

/// One source `plc` with registers of unit 1 at these addresses.
async fn plc(
    addresses: &[u16],
    script: impl FnMut(&Ask) -> Reply + Send + 'static,
) -> (ScriptedServer, EngineEnd) {
    let server = ScriptedServer::start(script).await;
    let tags = addresses.iter().map(|&address| register(1, address)).collect();
    let end = EngineEnd::start(&setting(vec![modbus("plc", server.address, tags)], vec![]));
    (server, end)
}

/// The first answer is a lie, told twice because of the second try; afterwards the truth. Every
/// register of the truth holds its address, so any other number is a value that was made up.
async fn a_lie_is_told_and_survived(lie: impl Fn(&Ask) -> Reply + Send + 'static) {
    let (_server, mut end) = plc(&[10, 11], move |ask| match ask.nth {
        0 | 1 => lie(ask),
        _ => Reply::addresses(ask),
    })
    .await;
    let mut bad = 0;
    let look = |tag: &str, reading: &RawReading| match reading.value {
        RawValue::Number(value) => assert_eq!(format!("1-{value}"), tag),
        RawValue::Failed(reason) => {
            bad += 1;
            assert_eq!(reason, Reason::Comm);
        }
        RawValue::Scaled(..) => panic!("nothing is scaled here"),
    };
    end.reading_with("1-11", good, look).await;
    assert!(bad >= 2, "both tags were told that nothing came");
}

#[tokio::test]
async fn all_four_tables_are_read() {
    let server = ScriptedServer::start(|ask| match ask.function {
        1 | 2 => Reply::Bits((0..ask.count).map(|bit| (ask.address + bit) % 3 == 0).collect()),
        3 => Reply::same(ask, 3),
        4 => Reply::same(ask, 4),
        _ => Reply::Exception(1),
    })
    .await;
    let tags = vec![
        point("coil", 1, Table::Coil, 9, PointType::Bool),
        point("discrete", 1, Table::Discrete, 10, PointType::Bool),
        point("holding", 1, Table::Holding, 0, PointType::U16),
        point("input", 1, Table::Input, 0, PointType::U32),
    ];
    let mut end = EngineEnd::start(&setting(vec![modbus("plc", server.address, tags)], vec![]));
    let mut expected: BTreeMap<&str, f64> =
        [("coil", 1.0), ("discrete", 0.0), ("holding", 3.0), ("input", f64::from(0x0004_0004))]
            .into();
    while !expected.is_empty() {
        for reading in end.batch().await.readings {
            let name = end.name(&reading);
            if let Some(value) = expected.remove(name.as_str()) {
                assert_eq!(reading.value, RawValue::Number(value), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_comes_later_is_found() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let source = modbus("plc", address, vec![register(1, 5)]);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    end.reading("1-5", failed(Reason::Comm)).await;
    let silent = end.condition("source-silent", "plc", true).await;
    assert!(silent.message.contains("plc"), "{}", silent.message);
    let health = end.tasks[0].health.values().next().unwrap().clone();
    assert_eq!(health.borrow().state, "down");
    assert!(health.borrow().last_error.is_some());

    let _server = ScriptedServer::start_at(address, Reply::addresses).await;
    end.condition("source-silent", "plc", false).await;
    end.reading("1-5", is(5.0)).await;
    assert_eq!(health.borrow().state, "up");
}

#[tokio::test]
async fn f_c01_a_silent_unit_is_announced_and_stops_no_other() {
    let silent = Arc::new(AtomicBool::new(true));
    let script_silent = Arc::clone(&silent);
    let server = ScriptedServer::start(move |ask| {
        if ask.unit == 1 && script_silent.load(Ordering::Relaxed) {
            Reply::Silence
        } else {
            Reply::addresses(ask)
        }
    })
    .await;
    let dead = modbus("dead", server.address, vec![register(1, 100)]);
    let alive = modbus("alive", server.address, vec![register(2, 200)]);
    let mut end = EngineEnd::start(&setting(vec![dead, alive], vec![]));
    assert_eq!(end.tasks.len(), 1, "one server, one connection");

    end.reading("1-100", failed(Reason::Comm)).await;
    end.condition("source-silent", "dead", true).await;
    let look = |tag: &str, reading: &RawReading| {
        assert!(tag == "1-100" || good(reading), "{tag} suffers: {reading:?}");
    };
    for _ in 0..20 {
        end.reading_with("2-200", good, look).await;
    }
    silent.store(false, Ordering::Relaxed);
    end.condition("source-silent", "dead", false).await;
    end.reading("1-100", is(100.0)).await;
}

#[tokio::test]
async fn f_c02_a_late_answer_is_never_taken_for_the_next() {
    let seed = 0xC02;
    println!("SEED={seed}");
    let rng = Mutex::new(fastrand::Rng::with_seed(seed));
    let late = Arc::new(AtomicUsize::new(0));
    let count_late = Arc::clone(&late);
    let server = ScriptedServer::start(move |ask| {
        let mut rng = rng.lock().unwrap();
        if rng.u8(..) < 60 {
            count_late.fetch_add(1, Ordering::Relaxed);
            let pause = Duration::from_millis(rng.u64(30..60));
            Reply::After(pause, Box::new(Reply::addresses(ask)))
        } else {
            Reply::addresses(ask)
        }
    })
    .await;
    // Two requests of the same length, so that only the transaction tells their answers apart.
    let mut source = modbus("plc", server.address, vec![register(1, 10), register(1, 1010)]);
    source.timeout = Duration::from_millis(40);
    for tag in &mut source.tags {
        tag.poll = Duration::from_millis(5);
    }
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    let mut values = 0;
    while values < 150 || late.load(Ordering::Relaxed) < 10 {
        for reading in end.batch().await.readings {
            let name = end.name(&reading);
            if let RawValue::Number(value) = reading.value {
                assert_eq!(format!("1-{value}"), name, "an answer to another request");
                values += 1;
            }
        }
    }
}

#[tokio::test]
async fn f_c04_a_wrong_register_count_is_an_error() {
    for count in [0, 1, 3, 125] {
        a_lie_is_told_and_survived(move |_| Reply::Words(vec![10; count])).await;
    }
    // An odd number of bytes.
    a_lie_is_told_and_survived(|ask| {
        Reply::Raw(framed(ask.transaction, ask.unit, &[3, 3, 0, 10, 0]))
    })
    .await;
}

#[tokio::test]
async fn f_c04_a_wrong_number_of_coils_is_an_error() {
    let server = ScriptedServer::start(|ask| match ask.nth {
        0 | 1 => Reply::Bits(vec![true; 17]),
        _ => Reply::Bits(vec![false; usize::from(ask.count)]),
    })
    .await;
    let tags = vec![point("c", 1, Table::Coil, 0, PointType::Bool)];
    let mut end = EngineEnd::start(&setting(vec![modbus("plc", server.address, tags)], vec![]));
    end.reading("c", failed(Reason::Comm)).await;
    let reading = end.reading("c", good).await;
    assert_eq!(reading.value, RawValue::Number(0.0));
}

#[tokio::test]
async fn f_c06_impossible_headers_are_errors() {
    for length in [0, 1, 2, 255, u16::MAX] {
        a_lie_is_told_and_survived(move |ask| {
            let mut frame = header(ask.transaction, 0, length, ask.unit);
            frame.extend([3, 4, 0, 10, 0, 11]);
            Reply::Raw(frame)
        })
        .await;
    }
    a_lie_is_told_and_survived(|ask| {
        let mut frame = header(ask.transaction, 7, 7, ask.unit);
        frame.extend([3, 4, 0, 10, 0, 11]);
        Reply::Raw(frame)
    })
    .await;
    a_lie_is_told_and_survived(|_| Reply::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())).await;
}

#[tokio::test]
async fn f_c07_answers_that_do_not_belong_to_the_request_are_errors() {
    let pdu = [3, 4, 0, 99, 0, 99];
    a_lie_is_told_and_survived(move |ask| {
        Reply::Raw(framed(ask.transaction.wrapping_add(1), ask.unit, &pdu))
    })
    .await;
    a_lie_is_told_and_survived(move |ask| Reply::Raw(framed(ask.transaction, ask.unit + 1, &pdu)))
        .await;
    let other = [4, 4, 0, 99, 0, 99];
    a_lie_is_told_and_survived(move |ask| Reply::Raw(framed(ask.transaction, ask.unit, &other)))
        .await;
    // An exception to another function, and a function that nobody asked for.
    a_lie_is_told_and_survived(|ask| Reply::Raw(framed(ask.transaction, ask.unit, &[0x84, 2])))
        .await;
    a_lie_is_told_and_survived(|ask| Reply::Raw(framed(ask.transaction, ask.unit, &[0x55, 1])))
        .await;
}

#[tokio::test]
async fn f_c08_only_the_refused_register_goes_bad() {
    let (_server, mut end) = plc(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], |ask| {
        if (ask.address..ask.address + ask.count).contains(&7) {
            Reply::Exception(2)
        } else {
            Reply::addresses(ask)
        }
    })
    .await;
    let mut seen = BTreeMap::new();
    while seen.len() < 10 {
        for reading in end.batch().await.readings {
            let name = end.name(&reading);
            match reading.value {
                RawValue::Number(value) => assert_eq!(format!("1-{value}"), name),
                RawValue::Failed(reason) => {
                    assert_eq!((reason, name.as_str()), (Reason::Config, "1-7"));
                }
                RawValue::Scaled(..) => panic!("nothing is scaled here"),
            }
            seen.insert(name, reading.value);
        }
    }
    // The state stays so, and it is said which point it is.
    end.reading("1-7", failed(Reason::Config)).await;
    end.reading("1-9", good).await;
    end.reading("1-0", good).await;
    let health = end.tasks[0].health.values().next().unwrap().borrow().clone();
    assert_eq!(health.state, "degraded");
    end.restart().await;
    let refused = end.condition("point-refused", "A/1-7", true).await;
    assert!(refused.message.contains("holding:7"), "{}", refused.message);
}

#[tokio::test]
async fn f_c08_a_hole_that_cannot_be_read_costs_no_tag() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&asked);
    let (_server, mut end) = plc(&[0, 1, 20], move |ask| {
        note.lock().unwrap().push((ask.address, ask.count));
        if (ask.address..ask.address + ask.count).contains(&9) {
            Reply::Exception(2)
        } else {
            Reply::addresses(ask)
        }
    })
    .await;
    for _ in 0..5 {
        end.reading_with("1-20", good, |tag, reading| assert!(good(reading), "{tag}")).await;
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.iter().filter(|ask| **ask == (0, 21)).count(), 1, "{asked:?}");
    assert_eq!(asked[1..3], [(0, 2), (20, 1)]);
}

#[tokio::test]
async fn f_c08_a_length_the_device_does_not_take_is_halved() {
    let addresses: Vec<u16> = (0..16).collect();
    let (_server, mut end) =
        plc(
            &addresses,
            |ask| {
                if ask.count > 5 { Reply::Exception(3) } else { Reply::addresses(ask) }
            },
        )
        .await;
    for _ in 0..3 {
        end.reading_with("1-15", good, |tag, reading| assert!(good(reading), "{tag}")).await;
    }
}

#[tokio::test]
async fn f_c08_an_unknown_function_is_a_configuration_fault() {
    let server = ScriptedServer::start(|ask| match ask.function {
        4 => Reply::Exception(1),
        _ => Reply::addresses(ask),
    })
    .await;
    let tags = vec![register(1, 3), point("input", 1, Table::Input, 3, PointType::U16)];
    let mut end = EngineEnd::start(&setting(vec![modbus("plc", server.address, tags)], vec![]));
    for _ in 0..5 {
        end.reading("input", failed(Reason::Config)).await;
        end.reading("1-3", good).await;
    }
}

#[tokio::test]
async fn f_c09_a_device_fault_is_announced_once() {
    let healed = Arc::new(AtomicBool::new(false));
    let script_healed = Arc::clone(&healed);
    let (_server, mut end) = plc(&[4], move |ask| {
        if script_healed.load(Ordering::Relaxed) {
            Reply::addresses(ask)
        } else {
            Reply::Exception(4)
        }
    })
    .await;
    end.reading("1-4", failed(Reason::Device)).await;
    end.condition("device-fault", "plc unit 1", true).await;
    // As it goes on nothing is announced again, and it does not count as silence.
    let mut more = 0;
    while more < 5 {
        match end.input().await {
            Input::Readings(batch) => {
                assert!(batch.readings.iter().all(failed(Reason::Device)), "{batch:?}");
                more += 1;
            }
            Input::Condition(report) => assert!(!report.active, "{report:?}"),
            other => panic!("{other:?}"),
        }
    }
    healed.store(true, Ordering::Relaxed);
    end.condition("device-fault", "plc unit 1", false).await;
    end.reading("1-4", is(4.0)).await;
}

#[tokio::test]
async fn f_c11_every_exception_code_is_handled() {
    // Unit n answers everything with exception n.
    let server = ScriptedServer::start(|ask| Reply::Exception(ask.unit)).await;
    let tags = (0..=u8::MAX).map(|unit| register(unit, 0)).collect();
    let mut end = EngineEnd::start(&setting(vec![modbus("plc", server.address, tags)], vec![]));
    let mut told = BTreeMap::new();
    while told.len() < 256 {
        for reading in end.batch().await.readings {
            let RawValue::Failed(reason) = reading.value else { panic!("{reading:?}") };
            told.insert(end.name(&reading), reason);
        }
    }
    for code in 0..=u8::MAX {
        assert_eq!(told[&format!("{code}-0")], handling(code).reason, "exception {code}");
    }
}

#[tokio::test]
async fn f_c12_a_connection_cut_at_any_byte_is_made_again() {
    // The answer to a read of two registers has 13 bytes.
    let cuts: Vec<(usize, bool)> =
        (0..13).flat_map(|length| [(length, true), (length, false)]).collect();
    let all = cuts.len();
    let cut = Arc::new(Mutex::new((cuts.into_iter(), BTreeSet::new())));
    let script_cut = Arc::clone(&cut);
    let (_server, mut end) = plc(&[10, 11], move |ask| {
        let whole = Box::new(Reply::addresses(ask));
        if ask.nth % 2 == 1 {
            return *whole;
        }
        let (cuts, made) = &mut *script_cut.lock().unwrap();
        let Some((length, reset)) = cuts.next() else { return *whole };
        made.insert((length, reset));
        if reset { Reply::Reset(length, whole) } else { Reply::Finish(length, whole) }
    })
    .await;
    while cut.lock().unwrap().1.len() < all {
        let look = |tag: &str, reading: &RawReading| match reading.value {
            RawValue::Number(value) => assert_eq!(format!("1-{value}"), tag),
            RawValue::Failed(reason) => assert_eq!(reason, Reason::Comm),
            RawValue::Scaled(..) => panic!("nothing is scaled here"),
        };
        end.reading_with("1-10", good, look).await;
    }
    end.reading("1-10", good).await;
}

#[tokio::test]
async fn f_c13_a_byte_now_and_then_does_not_stretch_the_deadline() {
    let server = ScriptedServer::start(|ask| match ask.unit {
        // 11 bytes, each well within the deadline of 100 ms, together far beyond it.
        1 => Reply::Trickle(Duration::from_millis(50), Box::new(Reply::addresses(ask))),
        _ => Reply::addresses(ask),
    })
    .await;
    let tags = vec![register(1, 1), register(2, 2)];
    let mut end = EngineEnd::start(&setting(vec![modbus("plc", server.address, tags)], vec![]));
    let look = |tag: &str, reading: &RawReading| {
        assert_eq!(good(reading), tag == "2-2", "{tag}: {reading:?}");
    };
    end.reading_with("1-1", failed(Reason::Comm), look).await;
    end.condition("unit-silent", "plc unit 1", true).await;
    for _ in 0..5 {
        end.reading_with("2-2", good, look).await;
    }
}

#[tokio::test]
async fn a_full_engine_slows_the_polls_and_loses_none() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = ScriptedServer::start(move |ask| {
        let word = count.fetch_add(1, Ordering::Relaxed);
        Reply::same(ask, u16::try_from(word).unwrap())
    })
    .await;
    let mut source = modbus("plc", server.address, vec![register(1, 0)]);
    source.tags[0].poll = Duration::from_millis(1);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    // Nobody takes anything until more has been asked for than the queue holds.
    while asked.load(Ordering::Relaxed) <= wheeltap::port::INPUTS_MAX / 2 {
        tokio::task::yield_now().await;
    }
    for expected in 0..200 {
        let batch = end.batch().await;
        assert_eq!(batch.readings[0].value, RawValue::Number(f64::from(expected)));
    }
}
