//! Modbus lines over networks: TLS, RTU through serial servers, devices that dial in, backups, and
//! what happens to bytes on the way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wheeltap::config::{
    Certificates, Host, LineOptions, Link, ModbusSource, Secret, Serial, Table,
};
use wheeltap::domain::reading::{RawReading, RawValue, Reason};
use wheeltap::sources::line::{Answer, Line, LineError};

use crate::support::certificates::{Authority, Signed, TlsDoor};
use crate::support::chaos::{Chaos, Proxy};
use crate::support::engine_end::EngineEnd;
use crate::support::modbus_server::{Reply, ScriptedServer};
use crate::support::rtu_server::{RtuServer, dial_in, script};
use crate::support::setting::{modbus, register, setting};

/// What a device gets to answer, where it is not silence that is tested.
const PATIENCE: Duration = Duration::from_secs(10);

fn host(address: SocketAddr) -> Host {
    Host { name: address.ip().to_string(), port: address.port() }
}

fn rtu(address: SocketAddr) -> Link {
    Link::RtuOverTcp { host: host(address), baud: Serial::BAUD }
}

fn over(link: Link, line: LineOptions) -> ModbusSource {
    let nowhere = "127.0.0.1:1".parse().unwrap();
    ModbusSource { link, line, ..modbus("plc", nowhere, vec![register(1, 5)]) }
}

fn is(value: f64) -> impl Fn(&RawReading) -> bool {
    move |reading| reading.value == RawValue::Number(value)
}

fn failed(reading: &RawReading) -> bool {
    reading.value == RawValue::Failed(Reason::Comm)
}

async fn read(line: &mut Line) -> Result<Answer, LineError> {
    if line.retry_at().is_some() {
        line.connect().await?;
    }
    line.read(1, Table::Holding, 5, 3, PATIENCE).await
}

fn right(answer: Result<Answer, LineError>) -> bool {
    matches!(answer, Ok(Answer::Registers(words)) if words == [5, 6, 7])
}

fn certificates(ca: &Authority, identity: Option<&Signed>) -> LineOptions {
    let identity = identity
        .map(|signed| (signed.certificate.clone().into_bytes(), Secret::new(signed.key.clone())));
    let certificates = Certificates { ca: Some(ca.pem().into_bytes()), identity };
    LineOptions { certificates, ..LineOptions::default() }
}

#[tokio::test]
async fn tls_is_spoken_and_certificates_are_checked() {
    let (ours, others) = (Authority::new(), Authority::new());
    let server = ScriptedServer::start(Reply::addresses).await;
    let door = TlsDoor::open(server.address, &ours.sign(&["127.0.0.1"]), None).await;
    let tls = Link::Tls(host(door.address));
    assert!(right(read(&mut Line::new(&tls, &certificates(&ours, None))).await));
    // Signed by somebody else.
    let error = read(&mut Line::new(&tls, &certificates(&others, None))).await.unwrap_err();
    assert!(error.chain().contains("invalid peer certificate"), "{}", error.chain());
    // Made out to somebody else.
    let door = TlsDoor::open(server.address, &ours.sign(&["other.example"]), None).await;
    let tls = Link::Tls(host(door.address));
    let error = read(&mut Line::new(&tls, &certificates(&ours, None))).await.unwrap_err();
    assert!(error.chain().contains("not valid for name"), "{}", error.chain());
    // No TLS at all.
    let plain = Link::Tls(host(server.address));
    let mut line = Line::new(&plain, &certificates(&ours, None));
    let error = tokio::time::timeout(PATIENCE, read(&mut line)).await.unwrap().unwrap_err();
    assert!(error.before_request(), "{}", error.chain());
}

#[tokio::test]
async fn mutual_tls_refuses_who_shows_no_certificate() {
    let (servers, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let server = ScriptedServer::start(Reply::addresses).await;
    let shown = servers.sign(&["127.0.0.1"]);
    let door = TlsDoor::open(server.address, &shown, Some(&clients)).await;
    let tls = Link::Tls(host(door.address));
    let known = clients.sign(&["gw-01"]);
    assert!(right(read(&mut Line::new(&tls, &certificates(&servers, Some(&known)))).await));
    let error = read(&mut Line::new(&tls, &certificates(&servers, None))).await.unwrap_err();
    assert!(error.chain().contains("CertificateRequired"), "{}", error.chain());
    let unknown = others.sign(&["gw-02"]);
    let error = read(&mut Line::new(&tls, &certificates(&servers, Some(&unknown)))).await;
    assert!(error.is_err(), "a certificate that nobody here signed opens nothing");

    // And through the bus, with a name in the place of an address.
    let options = certificates(&servers, Some(&known));
    let mut end = EngineEnd::start(&setting(vec![over(tls, options)], vec![]));
    end.reading("1-5", is(5.0)).await;
}

#[tokio::test]
async fn rtu_over_tcp_is_polled_and_other_units_share_the_connection() {
    let connections = Arc::new(AtomicU64::new(0));
    let server = RtuServer::start(|ask| match ask.unit {
        3 => Reply::Silence,
        _ => Reply::addresses(ask),
    })
    .await;
    let counted = Arc::clone(&connections);
    let proxy = Proxy::start(server.address, move |number| {
        counted.store(number + 1, Ordering::Relaxed);
        Chaos::Pass
    })
    .await;
    let units = [1, 2, 3].map(|unit| ModbusSource {
        link: rtu(proxy.address),
        ..modbus(&format!("unit{unit}"), proxy.address, vec![register(unit, 5)])
    });
    let mut end = EngineEnd::start(&setting(units.to_vec(), vec![]));
    assert_eq!(end.tasks.len(), 1, "one link, one connection");
    end.condition("source-silent", "unit3", true).await;
    for _ in 0..5 {
        end.reading("1-5", is(5.0)).await;
        end.reading("2-5", is(5.0)).await;
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1, "a dead unit costs no connection");
}

/// Reads through a proxy whose first connection suffers, until a read is right again. Returns how
/// many reads failed.
async fn through(server: SocketAddr, is_rtu: bool, chaos: Chaos) -> u32 {
    let decide = move |number| if number == 0 { chaos } else { Chaos::Pass };
    let proxy = Proxy::start(server, decide).await;
    let link = if is_rtu { rtu(proxy.address) } else { Link::Tcp(host(proxy.address)) };
    let mut line = Line::new(&link, &LineOptions::default());
    let mut rng = fastrand::Rng::with_seed(1);
    for failures in 0..20 {
        if line.retry_at().is_some() {
            line.connect().await.unwrap();
        }
        match line.read(1, Table::Holding, 5, 3, Duration::from_millis(40)).await {
            Ok(Answer::Registers(words)) => {
                assert_eq!(words, [5, 6, 7], "{chaos:?}");
                return failures;
            }
            Ok(answer) => panic!("{chaos:?}: {answer:?}"),
            Err(_) => line.drop_connection(Duration::ZERO, &mut rng),
        }
    }
    panic!("{chaos:?}: not one good answer");
}

#[tokio::test]
async fn c12_a_connection_that_ends_or_falls_silent_at_any_byte_is_made_again() {
    let tcp = ScriptedServer::start(Reply::addresses).await;
    let serial = RtuServer::start(Reply::addresses).await;
    // 3 registers: 15 bytes on TCP, 11 on RTU.
    for (server, is_rtu, length) in [(tcp.address, false, 15), (serial.address, true, 11)] {
        for after in 0..length {
            for reset in [false, true] {
                let failures = through(server, is_rtu, Chaos::Cut { after, reset }).await;
                assert_eq!(failures, 1, "rtu: {is_rtu}, byte {after}, reset: {reset}");
            }
        }
        for after in [0, 1, length / 2, length - 1] {
            let failures = through(server, is_rtu, Chaos::Swallow { after }).await;
            // Nothing but silence says that a serial server is gone.
            assert_eq!(failures, if is_rtu { 3 } else { 1 }, "rtu: {is_rtu}, byte {after}");
        }
    }
}

#[tokio::test]
async fn c05_c07_a_damaged_byte_is_noticed_wherever_it_matters() {
    let tcp = ScriptedServer::start(Reply::addresses).await;
    let serial = RtuServer::start(Reply::addresses).await;
    for byte in 0..11 {
        let failures = through(serial.address, true, Chaos::Damage { byte }).await;
        assert_eq!(failures, 1, "byte {byte}");
    }
    // On TCP the network vouches for the values; header, function and count are ours to check.
    for byte in 0..9 {
        let failures = through(tcp.address, false, Chaos::Damage { byte }).await;
        assert_eq!(failures, 1, "byte {byte}");
    }
}

#[tokio::test]
async fn slices_and_delays_change_no_value() {
    let tcp = ScriptedServer::start(Reply::addresses).await;
    let serial = RtuServer::start(Reply::addresses).await;
    for (server, is_rtu) in [(tcp.address, false), (serial.address, true)] {
        for chaos in
            [Chaos::Slice(Duration::from_millis(1)), Chaos::Delay(Duration::from_millis(10))]
        {
            let proxy = Proxy::start(server, move |_| chaos).await;
            let link = if is_rtu { rtu(proxy.address) } else { Link::Tcp(host(proxy.address)) };
            let mut line = Line::new(&link, &LineOptions::default());
            for _ in 0..3 {
                assert!(right(read(&mut line).await), "{chaos:?}");
            }
            assert_eq!(line.counters().connections, 1);
        }
    }
}

#[tokio::test]
async fn a_device_that_dials_in_is_polled_and_so_is_one_that_dials_again() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let options = LineOptions { listen: true, ..LineOptions::default() };
    let source = over(rtu(address), options);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    end.reading("1-5", failed).await;
    let first = dial_in(address, script(Reply::addresses));
    end.reading("1-5", is(5.0)).await;
    // The modem changed its address: the old connection is never closed, and silent.
    let second = dial_in(address, script(|ask| Reply::same(ask, 6)));
    end.reading("1-5", is(6.0)).await;
    assert!(!first.is_finished() || !second.is_finished());
    second.abort();
    end.reading("1-5", failed).await;
    let _third = dial_in(address, script(|ask| Reply::same(ask, 7)));
    end.reading("1-5", is(7.0)).await;
}

#[tokio::test]
async fn the_backup_serves_while_the_first_address_does_not() {
    let backup = RtuServer::start(|ask| Reply::same(ask, 9)).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let options = LineOptions { backup: Some(rtu(backup.address)), ..LineOptions::default() };
    let mut end = EngineEnd::start(&setting(vec![over(Link::Tcp(host(address)), options)], vec![]));
    end.reading("1-5", is(9.0)).await;
    let _first = ScriptedServer::start_at(address, Reply::addresses).await;
    drop(backup);
    // Now the backup is gone, and the first address is back.
    end.reading("1-5", is(5.0)).await;
}

#[tokio::test]
async fn a_connection_is_closed_after_each_gathering_where_that_is_wanted() {
    let server = ScriptedServer::start(Reply::addresses).await;
    let made = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&made);
    let proxy = Proxy::start(server.address, move |number| {
        counted.store(number + 1, Ordering::Relaxed);
        Chaos::Pass
    })
    .await;
    let options = LineOptions { close_connection_after_gather: true, ..LineOptions::default() };
    let source = over(Link::Tcp(host(proxy.address)), options);
    let mut end = EngineEnd::start(&setting(vec![source], vec![]));
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        let look = |_: &str, reading: &RawReading| assert!(is(5.0)(reading), "{reading:?}");
        end.reading_with("1-5", is(5.0), look).await;
        seen.insert(made.load(Ordering::Relaxed));
    }
    assert!(seen.len() >= 4, "each gathering has its own connection: {seen:?}");
}
