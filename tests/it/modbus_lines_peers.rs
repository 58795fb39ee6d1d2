//! Our lines against devices of pymodbus: TLS, RTU over TCP, RTU over a pseudo-terminal.

use std::time::Duration;

use wheeltap::config::{Certificates, Host, LineOptions, Link, Table};
use wheeltap::sources::line::{Answer, Framing, Line, Stream, Timing};

use crate::peers::{Peer, python};
use crate::support::certificates::Authority;
use crate::support::rtu_server::Master;

const PATIENCE: Duration = Duration::from_secs(10);

/// Reads what pymodbus holds, refusals included.
async fn reads(mut line: Line) {
    line.connect().await.unwrap_or_else(|error| panic!("{}", error.chain()));
    for (address, count) in [(0, 1), (7, 3), (0, 100)] {
        let answer = line.read(1, Table::Holding, address, count, PATIENCE).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}", error.chain()));
        let expected = (address..address + count).map(|number| 1000 + number).collect();
        assert_eq!(answer, Answer::Registers(expected));
    }
    let refused = line.read(1, Table::Holding, 90, 20, PATIENCE).await.unwrap();
    assert_eq!(refused, Answer::Exception(2));
    assert_eq!(line.counters().connections, 1);
}

fn first_line(peer: &Peer) -> String {
    peer.wait("pymodbus", |lines| lines.first().cloned())
}

#[tokio::test]
async fn pymodbus_is_read_over_tls() {
    let Some(python) = python() else { return };
    let authority = Authority::new();
    let shown = authority.sign(&["127.0.0.1"]);
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, &shown.certificate).unwrap();
    std::fs::write(&key, &shown.key).unwrap();
    let arguments = ["tls", certificate.to_str().unwrap(), key.to_str().unwrap()];
    let peer = Peer::start(&python, "pymodbus_lines.py", &arguments);
    let port = first_line(&peer).parse().unwrap();
    let certificates = Certificates { ca: Some(authority.pem().into_bytes()), identity: None };
    let options = LineOptions { certificates, ..LineOptions::default() };
    let link = Link::Tls(Host { name: "127.0.0.1".to_owned(), port });
    reads(Line::new(&link, &options)).await;
}

#[tokio::test]
async fn pymodbus_is_read_on_rtu_over_tcp() {
    let Some(python) = python() else { return };
    let peer = Peer::start(&python, "pymodbus_lines.py", &["rtu-tcp"]);
    let port = first_line(&peer).parse().unwrap();
    let host = Host { name: "127.0.0.1".to_owned(), port };
    let link = Link::RtuOverTcp { host, baud: 115_200 };
    reads(Line::new(&link, &LineOptions::default())).await;
}

#[tokio::test]
async fn pymodbus_is_read_on_rtu_over_a_serial_port() {
    let Some(python) = python() else { return };
    let (master, path) = Master::open();
    let arguments = ["serial", path.to_str().unwrap(), "115200"];
    let peer = Peer::start(&python, "pymodbus_lines.py", &arguments);
    assert_eq!(first_line(&peer), "ready");
    let mut master = Some(master);
    let timing = Timing::serial(115_200, 11);
    let line = Line::over(Framing::Rtu, timing, &LineOptions::default(), move || {
        let stream: Box<dyn Stream> = Box::new(master.take().expect("opened once"));
        Ok(stream)
    });
    reads(line).await;
}
