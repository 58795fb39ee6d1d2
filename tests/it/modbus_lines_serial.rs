//! Serial ports, as pseudo-terminals: polled through the bus, unplugged, and found again.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use wheeltap::config::{LineOptions, ModbusSource, ModbusTag, Table};
use wheeltap::domain::reading::{RawReading, RawValue, Reason};
use wheeltap::sources::line::{Answer, Line, Timing};

use crate::support::engine_end::EngineEnd;
use crate::support::modbus_server::{Ask, Reply};
use crate::support::rtu_server::{Adapter, script, serial};
use crate::support::setting::{modbus, register, setting};

/// A source on a serial port.
fn source(name: &str, path: &std::path::Path, tags: Vec<ModbusTag>) -> ModbusSource {
    let nowhere = "127.0.0.1:1".parse().unwrap();
    ModbusSource { link: serial(path, 115_200), ..modbus(name, nowhere, tags) }
}

fn is(value: f64) -> impl Fn(&RawReading) -> bool {
    move |reading| reading.value == RawValue::Number(value)
}

fn failed(reading: &RawReading) -> bool {
    reading.value == RawValue::Failed(Reason::Comm)
}

#[tokio::test]
async fn c01_on_a_serial_line_a_silent_unit_stops_no_other() {
    let silent = Arc::new(AtomicBool::new(true));
    let hush = Arc::clone(&silent);
    let adapter = Adapter::plug_in(
        script(move |ask| match ask.unit {
            1 if hush.load(Ordering::Relaxed) => Reply::Silence,
            _ => Reply::addresses(ask),
        }),
        None,
    );
    let dead = source("dead", &adapter.path, vec![register(1, 100)]);
    let alive = source("alive", &adapter.path, vec![register(2, 200)]);
    let mut end = EngineEnd::start(&setting(vec![dead, alive], vec![]));
    assert_eq!(end.tasks.len(), 1, "one port, one line");
    end.condition("source-silent", "dead", true).await;
    for _ in 0..10 {
        end.reading("2-200", is(200.0)).await;
    }
    silent.store(false, Ordering::Relaxed);
    end.reading("1-100", is(100.0)).await;
    end.condition("source-silent", "dead", false).await;
}

#[tokio::test]
async fn c19_an_adapter_that_comes_back_under_another_number_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let by_id = folder.path().join("usb-FTDI_FT232R-if00-port0");
    let mut adapter = Adapter::plug_in(script(Reply::addresses), None);
    symlink(&adapter.path, &by_id).unwrap();
    let mut end =
        EngineEnd::start(&setting(vec![source("plc", &by_id, vec![register(1, 7)])], vec![]));
    end.reading("1-7", is(7.0)).await;
    for _ in 0..3 {
        let held = std::fs::read_link(&by_id).unwrap();
        // The new one takes its number while the old one still has its own.
        let another = Adapter::plug_in(script(Reply::addresses), None);
        assert_ne!(another.path, held);
        std::fs::remove_file(&by_id).unwrap();
        adapter.unplug().await;
        end.reading("1-7", failed).await;
        end.condition("source-silent", "plc", true).await;

        symlink(&another.path, &by_id).unwrap();
        println!("{} -> {}", held.display(), another.path.display());
        adapter = another;
        let plugged_in = Instant::now();
        end.reading("1-7", is(7.0)).await;
        let took = plugged_in.elapsed();
        println!("resumed after {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        end.condition("source-silent", "plc", false).await;
    }
}

#[tokio::test]
async fn a_port_that_is_not_there_or_cannot_do_it_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut line = Line::new(&serial(&folder.path().join("tty"), 9_600), &LineOptions::default());
    let error = line.connect().await.unwrap_err();
    assert!(error.chain().contains("No such file"), "{}", error.chain());
    // A pseudo-terminal has no transceiver to switch.
    let adapter = Adapter::plug_in(script(Reply::addresses), None);
    let options =
        LineOptions { rs485: Some(wheeltap::config::Rs485::default()), ..LineOptions::default() };
    let mut line = Line::new(&serial(&adapter.path, 9_600), &options);
    let error = line.connect().await.unwrap_err();
    assert!(error.chain().contains("leave rs485 out"), "{}", error.chain());
}

/// What a paced pseudo-terminal at 9,600 baud carries of what the line could; the rest is the
/// scheduler's and the timers' of this machine.
#[tokio::test]
async fn a_paced_pseudo_terminal_is_used_well() {
    let timing = Timing::serial(9_600, 10);
    let turnaround = Duration::from_millis(5);
    let asked = Arc::new(Mutex::new(Vec::<Ask>::new()));
    let heard = Arc::clone(&asked);
    let adapter = Adapter::plug_in(
        script(move |ask| {
            heard.lock().unwrap().push(*ask);
            Reply::addresses(ask)
        }),
        Some(Timing { character: timing.character, ..timing }),
    );
    let mut line = Line::new(&serial(&adapter.path, 9_600), &LineOptions::default());
    line.connect().await.unwrap();
    let patience = Duration::from_millis(500) + turnaround;
    let mut began = Instant::now();
    let mut least = Duration::ZERO;
    for poll in 0..11_u16 {
        let (address, count) = (poll * 10, 40 + poll);
        let answer = line.read(1, Table::Holding, address, count, patience).await.unwrap();
        let Answer::Registers(words) = answer else { panic!("{answer:?}") };
        assert_eq!((words.len(), words[0]), (usize::from(count), address));
        if poll == 0 {
            // The first one waits for the silence that a fresh port gets.
            began = Instant::now();
        } else {
            least += timing.character * (13 + u32::from(count) * 2) + timing.silence;
        }
    }
    let share = least.as_secs_f64() / began.elapsed().as_secs_f64();
    println!("paced pseudo-terminal at 9600 baud: {:.1} % of the line", share * 100.0);
    assert_eq!(asked.lock().unwrap().len(), 11, "nothing was asked twice");
}
