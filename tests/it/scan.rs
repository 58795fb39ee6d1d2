//! `wheeltap scan modbus` as a process: on the simulated plant, on pymodbus, and on a line where
//! units lie.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use wheeltap::config::Table;
use wheeltap::sim::{REGISTERS, RESERVED};

use crate::support::daemon::WHEELTAP;
use crate::support::wait;

/// A process that says where it listens, killed when dropped.
struct Served(Child, u16);

impl Served {
    /// `wheeltap simulate` with these arguments.
    fn plant(arguments: &[&str]) -> Self {
        let mut child = Command::new(WHEELTAP)
            .args(["simulate", "--listen", "127.0.0.1:0", "--speed", "0.001"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        let port = said.trim_end().rsplit(':').next().unwrap().parse();
        Self(child, port.unwrap_or_else(|_| panic!("no port in {said:?}")))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn scan(port: u16, arguments: &[&str]) -> Output {
    Command::new(WHEELTAP)
        .args(["scan", "modbus", &format!("tcp://127.0.0.1:{port}"), "--pause", "0"])
        .args(arguments)
        .output()
        .unwrap()
}

fn found(port: u16, arguments: &[&str]) -> Vec<Value> {
    let output = scan(port, &[arguments, &["--format", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Table, first and last address of every block of a unit.
fn blocks(unit: &Value) -> Vec<(String, u64, u64)> {
    let blocks = unit["blocks"].as_array().unwrap().iter();
    blocks
        .map(|block| {
            let address = |key: &str| block[key].as_u64().unwrap();
            (block["table"].as_str().unwrap().to_owned(), address("first"), address("last"))
        })
        .collect()
}

fn block(table: &str, first: u64, last: u64) -> (String, u64, u64) {
    (table.to_owned(), first, last)
}

/// The blocks of a unit of the simulated plant, from its map.
fn expected(unit: u8) -> Vec<(String, u64, u64)> {
    let tables = [
        (Table::Holding, "holding"),
        (Table::Input, "input"),
        (Table::Coil, "coil"),
        (Table::Discrete, "discrete"),
    ];
    let mut all: Vec<(String, u64, u64)> = Vec::new();
    for (table, name) in tables {
        let cells: BTreeSet<u64> = REGISTERS
            .iter()
            .filter(|register| register.unit == unit && register.table == table)
            .flat_map(|register| {
                let first = u64::from(register.address);
                first..first + u64::from(register.encoding.width())
            })
            .chain(
                RESERVED
                    .iter()
                    .filter(|(of, within, _)| *of == unit && *within == table)
                    .map(|(_, _, address)| u64::from(*address)),
            )
            .collect();
        for cell in cells {
            match all.last_mut() {
                Some((table, _, last)) if table == name && *last + 1 == cell => *last = cell,
                _ => all.push(block(name, cell, cell)),
            }
        }
    }
    all
}

#[test]
fn the_simulated_plant_is_found_block_by_block() {
    let plant = Served::plant(&[]);
    let units = found(plant.1, &["--units", "1-6", "--registers", "0-120"]);
    let ids: Vec<&Value> = units.iter().map(|unit| &unit["unit"]).collect();
    assert_eq!(ids, [1, 2, 3, 4], "the others do not answer");
    for (id, unit) in (1..).zip(&units) {
        assert_eq!(blocks(unit), expected(id), "unit {id}");
        assert_eq!(
            (&unit["vendor"], &unit["revision"]),
            (&"wheeltap".into(), &env!("CARGO_PKG_VERSION").into())
        );
        assert_eq!(unit["product"], format!("SIM-{id}"));
        let functions: Vec<u64> =
            unit["functions"].as_array().unwrap().iter().map(|f| f.as_u64().unwrap()).collect();
        assert_eq!(functions, [1, 2, 3, 4, 43]);
    }
    let output = scan(plant.1, &["--units", "3", "--registers", "0-20", "--format", "csv"]);
    let csv = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("unit,vendor,product,revision"), "{csv}");
    assert!(lines[1].starts_with("3,wheeltap,SIM-3,"), "{csv}");
    let output = scan(plant.1, &["--units", "50-60"]);
    assert_eq!(output.status.code(), Some(1), "nothing answers");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("none of 11 units"), "{said}");
}

#[test]
fn a_sparse_map_of_pymodbus_is_found_exactly() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    if !root.join("target/venv/ready").exists() || !python.exists() {
        wait::skip("target/venv with tests/peers/requirements.txt (tests/run makes it)");
        return;
    }
    let mut child = Command::new(python)
        .arg(root.join("tests/peers/pymodbus_sparse.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let peer = Served(child, port.trim().parse().unwrap());
    let units = found(peer.1, &["--units", "3,5,7", "--registers", "0-140", "--timeout", "5s"]);
    let unit = |id: u64| units.iter().find(|unit| unit["unit"] == id).unwrap();
    assert_eq!(
        blocks(unit(3)),
        [
            block("holding", 5, 9),
            block("holding", 12, 12),
            block("holding", 100, 130),
            block("input", 0, 3),
            block("input", 40, 41),
            block("coil", 16, 31),
            block("discrete", 0, 15),
        ]
    );
    assert_eq!(unit(3)["vendor"], "ACME");
    assert_eq!((&unit(3)["product"], &unit(3)["revision"]), (&"PM5".into(), &"1.7".into()));
    assert_eq!(blocks(unit(7))[0], block("holding", 0, 9));
    // pymodbus answers for units it does not have, but with nothing that could be read.
    assert!(blocks(unit(5)).is_empty());
}

#[test]
fn f_c07_units_that_lie_are_named_and_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("faults.toml");
    let lies = [
        (1, "what = \"transaction\""),
        (2, "what = \"registers\"\nby = 1"),
        (3, "what = \"garbage\"\nbytes = 40\npoints = \"holding:10-300\""),
        (4, "what = \"drop\"\npoints = \"input:0-300\""),
        (5, "what = \"exception\"\ncode = 6\nmost = 3"),
        (6, "what = \"drop\""),
    ];
    let rules =
        lies.map(|(unit, what)| format!("[[fault]]\n{what}\nunits = \"{unit}\"\n")).concat();
    std::fs::write(&script, rules).unwrap();
    let plant = Served::plant(&["--copies", "2", "--faults", script.to_str().unwrap()]);
    let arguments = ["--units", "1-8", "--registers", "0-20", "--timeout", "200ms"];
    let units = found(plant.1, &arguments);
    let ids: Vec<&Value> = units.iter().map(|unit| &unit["unit"]).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 7, 8], "only the silent one is not there");
    let notes = |index: usize| units[index]["notes"].to_string();
    assert!(notes(0).contains("another transaction"), "{}", notes(0));
    assert!(notes(1).contains("another number of values"), "{}", notes(1));
    for lying in [0, 1, 2] {
        assert_eq!(blocks(&units[lying]), [], "nothing a liar says is believed");
    }
    assert!(notes(2).contains("given up"), "{}", notes(2));
    assert!(notes(3).contains("given up"), "{}", notes(3));
    // Unit 5 shows what unit 1 does, after it had been busy.
    let within: Vec<_> = expected(1).into_iter().filter(|block| block.2 <= 20).collect();
    assert_eq!(blocks(&units[4]), within);
    assert_eq!(blocks(&units[5]), expected(3), "its neighbours' lies do not touch unit 7");
}

/// Unit and function code of each request.
type Heard = Arc<Mutex<Vec<(u8, u8)>>>;

/// Passes frames on to a server and keeps the function code of each request.
fn listening_in(server: SocketAddr) -> (u16, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut upstream = TcpStream::connect(server).unwrap();
            let frame = |from: &mut TcpStream| -> Option<Vec<u8>> {
                let mut head = [0; 6];
                from.read_exact(&mut head).ok()?;
                let mut body = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]]))];
                from.read_exact(&mut body).ok()?;
                Some([&head[..], &body].concat())
            };
            while let Some(request) = frame(&mut client) {
                all.lock().unwrap().push((request[6], request[7]));
                upstream.write_all(&request).unwrap();
                let Some(reply) = frame(&mut upstream) else { break };
                client.write_all(&reply).unwrap();
            }
        }
    });
    (port, heard)
}

#[test]
fn f_c21_a_scan_sends_only_reads_and_asks_a_missing_unit_once() {
    let plant = Served::plant(&[]);
    let (port, heard) = listening_in(SocketAddr::from(([127, 0, 0, 1], plant.1)));
    let units = found(port, &["--units", "4-9", "--registers", "0-30"]);
    assert_eq!(units.len(), 1);
    let heard = heard.lock().unwrap();
    let functions: BTreeSet<u8> = heard.iter().map(|(_, function)| *function).collect();
    assert!(functions.iter().all(|function| [1, 2, 3, 4, 17, 43].contains(function)));
    assert_eq!(heard.iter().filter(|(unit, _)| *unit == 4).count(), units[0]["requests"]);
    for missing in 5..=9 {
        assert_eq!(heard.iter().filter(|(unit, _)| *unit == missing).count(), 1);
    }
}

#[test]
fn what_cannot_be_scanned_is_said_with_its_code() {
    let code = |arguments: &[&str]| {
        Command::new(WHEELTAP).args(["scan", "modbus"]).args(arguments).output().unwrap().status
    };
    assert_eq!(code(&["http://127.0.0.1:1"]).code(), Some(64));
    assert_eq!(code(&["tcp://127.0.0.1:1", "--units", "0-300"]).code(), Some(64));
    assert_eq!(code(&["tcp://127.0.0.1:1", "--registers", "9-3"]).code(), Some(64));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(code(&[&format!("tcp://{taken}")]).code(), Some(1), "nobody listens there");
}

/// A serial server: RTU frames in, the plant's Modbus TCP behind.
fn serial_server(plant: SocketAddr) -> u16 {
    use wheeltap::sources::line::frame::crc;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut upstream = TcpStream::connect(plant).unwrap();
            let mut held: Vec<u8> = Vec::new();
            let mut buffer = [0; 256];
            while let Ok(count @ 1..) = client.read(&mut buffer) {
                held.extend(&buffer[..count]);
                let whole = match held.get(1) {
                    Some(17) => 4,
                    Some(43) => 7,
                    _ => 8,
                };
                if held.len() < whole {
                    continue;
                }
                let request: Vec<u8> = held.drain(..whole).collect();
                let (body, sum) = request.split_at(whole - 2);
                assert_eq!(crc(body).to_le_bytes(), sum, "{request:02x?}");
                let length = u16::try_from(body.len()).unwrap().to_be_bytes();
                upstream.write_all(&[&[0, 1, 0, 0, length[0], length[1]], body].concat()).unwrap();
                let mut head = [0; 6];
                upstream.read_exact(&mut head).unwrap();
                let mut reply = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]]))];
                upstream.read_exact(&mut reply).unwrap();
                reply.extend(crc(&reply).to_le_bytes());
                client.write_all(&reply).unwrap();
            }
        }
    });
    port
}

#[test]
fn a_bus_behind_a_serial_server_is_scanned_as_well() {
    let plant = Served::plant(&[]);
    let port = serial_server(SocketAddr::from(([127, 0, 0, 1], plant.1)));
    let url = format!("rtu+tcp://127.0.0.1:{port}?baud=115200");
    let output = Command::new(WHEELTAP)
        .args(["scan", "modbus", &url, "--pause", "0", "--units", "3-5", "--registers", "0-12"])
        .args(["--timeout", "5s", "--format", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let units: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(units.len(), 2, "the gateway answers that nothing is behind unit 5");
    assert_eq!(blocks(&units[0]), expected(3));
    assert_eq!(units[0]["vendor"], "wheeltap");
}
