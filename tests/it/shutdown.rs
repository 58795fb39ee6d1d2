//! Signals: an orderly end however dead the network is, and a reload that cannot do harm.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::{ASSET, Home, modbus, upstream};
use crate::support::registers::Registers;

/// What systemd is promised.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A broker that takes connections and never answers.
fn black_hole() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn configuration(plant: &Registers, broker: u16, keys: &str) -> String {
    let address = plant.address.to_string();
    format!("{}{ASSET}{}", upstream(broker), modbus(&address, &[("t", 0, keys)]))
}

#[test]
fn f_f02_sigterm_ends_in_order_within_ten_seconds_although_the_broker_never_answers() {
    let (_listener, port) = black_hole();
    let plant = Registers::start();
    plant.set(0, 99.0);
    let mut home = Home::new(configuration(&plant, port, "limits = { high = 90.0 }"));
    let daemon = home.start();
    daemon.http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["tag"] == "t");
    let (code, took) = daemon.stop();
    assert_eq!(code, Some(0), "{}", home.log());
    assert!(took < STOP_MAX, "it took {took:?}");
    let again = home.start();
    let open = again.http.list("/api/v1/alarms?open=true");
    assert_eq!(open.iter().filter(|alarm| alarm["tag"] == "t").count(), 1, "{open:?}");
}

#[test]
fn f_f03_a_second_sigterm_ends_at_once() {
    let (_listener, port) = black_hole();
    let plant = Registers::start();
    plant.set(0, 99.0);
    let mut home = Home::new(configuration(&plant, port, "limits = { high = 90.0 }"));
    let mut daemon = home.start();
    daemon.http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["tag"] == "t");
    daemon.signal(Signal::TERM);
    daemon.wait_told("STOPPING=1");
    daemon.signal(Signal::TERM);
    let code = daemon.ended();
    // It may have been done already.
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    drop(daemon);
    let again = home.start();
    again.http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["tag"] == "t");
}

#[test]
fn f_f14_a_bad_file_at_sighup_changes_nothing_and_a_good_one_does() {
    let (_listener, port) = black_hole();
    let plant = Registers::start();
    plant.set(0, 50.0);
    let mut home = Home::new(configuration(&plant, port, "limits = { high = 90.0 }"));
    let mut daemon = home.start();
    let http = daemon.http.clone();
    for bad in [
        "nonsense = 1\n".to_owned(),
        "this is no TOML [".to_owned(),
        configuration(&plant, port, "limits = { high = 90.0, higher = 91.0 }"),
    ] {
        home.rewrite(&bad);
        daemon.signal(Signal::HUP);
        daemon.wait_told("refused");
        assert!(daemon.lives());
        assert!(home.log().contains("was not reloaded"), "{}", home.log());
    }
    // A file that is good, but needs a restart.
    home.rewrite(&configuration(&plant, port, "limits = { high = 90.0 }"));
    home.set_max_disk("128MiB");
    daemon.signal(Signal::HUP);
    daemon.wait_told("refused");
    assert!(home.log().contains("store: a change needs a restart"), "{}", home.log());

    // The old limits hold all the while.
    plant.set(0, 95.0);
    http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["limit"] == 90.0);
    home.set_max_disk("64MiB");
    home.rewrite(&configuration(&plant, port, "limits = { high = 94.0 }"));
    daemon.signal(Signal::HUP);
    daemon.wait_told("READY=1");
    plant.set(0, 10.0);
    http.reading("P-101", "t", |reading| reading["value"] == 10.0);
    plant.set(0, 96.0);
    http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["limit"] == 94.0);
    assert_eq!(daemon.stop().0, Some(0));
}
