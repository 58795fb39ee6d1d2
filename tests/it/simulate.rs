//! `wheeltap simulate` as a process, spoken to in bare bytes rather than by the library it is made of.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

struct Simulator {
    process: Child,
    address: SocketAddr,
    map: String,
}

impl Simulator {
    fn start(arguments: &[&str]) -> Self {
        let mut process = simulate(arguments)
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut said).unwrap();
        let address = said.trim_end().rsplit("tcp://").next().unwrap().parse();
        let address = address.unwrap_or_else(|_| panic!("no address in {said:?}"));
        Self { process, address, map: String::new() }
    }

    /// One request on a connection of its own; the reply's PDU.
    fn ask(&self, unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = u8::try_from(pdu.len() + 1).unwrap();
        stream.write_all(&[&[0x12, 0x34, 0, 0, 0, length, unit], pdu].concat()).unwrap();
        let mut header = [0; 7];
        stream.read_exact(&mut header).unwrap();
        assert_eq!((&header[..4], header[6]), (&[0x12, 0x34, 0, 0][..], unit));
        let mut reply = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
        stream.read_exact(&mut reply).unwrap();
        reply
    }

    fn end(mut self, signal: rustix::process::Signal) -> (Option<i32>, String) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, signal).unwrap();
        let mut out = self.process.stdout.take().unwrap();
        out.read_to_string(&mut self.map).unwrap();
        (self.process.wait().unwrap().code(), std::mem::take(&mut self.map))
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn simulate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wheeltap"));
    command.arg("simulate").args(arguments);
    command
}

#[test]
fn the_plant_prints_its_map_answers_and_ends_on_a_signal() {
    let plant = Simulator::start(&["--scenario", "healthy", "--seed", "9"]);
    let reply = plant.ask(1, &[3, 0, 100, 0, 2]);
    assert_eq!(reply[..2], [3, 4]);
    let celsius = f32::from_be_bytes([reply[2], reply[3], reply[4], reply[5]]);
    assert!((40.0..80.0).contains(&celsius), "{celsius}");
    assert_eq!(plant.ask(1, &[1, 0, 0, 0, 1]), [1, 1, 1], "the pump runs");
    assert_eq!(plant.ask(1, &[3, 0, 0, 0, 1]), [0x83, 2]);
    assert_eq!(plant.ask(77, &[3, 0, 100, 0, 1]), [0x83, 11]);
    assert_eq!(plant.ask(1, &[6, 0, 100, 0, 1]), [0x86, 1], "nothing can be written");
    let (code, map) = plant.end(rustix::process::Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(map.lines().any(|line| line.starts_with("G-301/torque")), "{map}");
}

#[test]
fn values_move_and_half_a_request_harms_nobody_else() {
    let plant = Simulator::start(&["--speed", "50"]);
    let mut rude = TcpStream::connect(plant.address).unwrap();
    rude.write_all(&[0, 1, 0, 0, 0]).unwrap();
    let first = plant.ask(1, &[3, 0, 100, 0, 8]);
    let moved = (0..10_000).any(|_| plant.ask(1, &[3, 0, 100, 0, 8]) != first);
    assert!(moved, "the plant stands still");
    assert_eq!(plant.end(rustix::process::Signal::INT).0, Some(0));
}

#[test]
fn what_cannot_be_is_said_with_its_code() {
    let code = |command: &mut Command| command.output().unwrap().status.code();
    assert_eq!(code(&mut simulate(&["--scenario", "flood"])), Some(64));
    assert_eq!(code(&mut simulate(&["--speed", "0"])), Some(64));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(code(&mut simulate(&["--listen", &address])), Some(1));
}

/// What comes back for one request, bare, until the connection rests or is closed.
fn bare(plant: &Simulator, unit: u8) -> Vec<u8> {
    let mut stream = TcpStream::connect(plant.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(&[0, 7, 0, 0, 0, 6, unit, 3, 0, 100, 0, 2]).unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        bytes.extend(&buffer[..count]);
    }
    bytes
}

#[test]
fn a_fault_script_breaks_the_answers_of_the_units_it_names() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("faults.toml");
    let faults = [
        "what = \"drop\"",
        "what = \"partial\"\nbytes = 8",
        "what = \"transaction\"",
        "what = \"exception\"\ncode = 6",
    ];
    let rules =
        (5..).zip(faults).map(|(unit, what)| format!("[[fault]]\n{what}\nunits = \"{unit}\"\n"));
    std::fs::write(&script, rules.collect::<String>()).unwrap();
    let plant = Simulator::start(&["--copies", "3", "--faults", script.to_str().unwrap()]);
    let whole = bare(&plant, 9);
    assert_eq!(whole[..9], [0, 7, 0, 0, 0, 7, 9, 3, 4], "unit 9 is a copy of unit 1");
    assert_eq!(whole.len(), 13);
    assert!(bare(&plant, 5).is_empty());
    assert_eq!(bare(&plant, 6), [0, 7, 0, 0, 0, 7, 6, 3], "cut after eight bytes");
    assert_eq!(bare(&plant, 7)[..2], [0, 8]);
    assert_eq!(bare(&plant, 8), [0, 7, 0, 0, 0, 3, 8, 0x83, 6]);
    assert_eq!(plant.ask(13, &[3, 0, 100, 0, 2]), [0x83, 11], "three copies end at unit 12");
}

#[test]
fn a_wrong_fault_script_is_told_with_file_line_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("faults.toml");
    std::fs::write(&script, "[[fault]]\nwhat = \"exeption\"\n").unwrap();
    let output = simulate(&["--faults", script.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("faults.toml:2:8: fault.what: `exeption`"), "{said}");
    assert!(said.contains("did you mean `exception`"), "{said}");
    let listed = simulate(&["--list-scenarios"]).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().lines().any(|line| line == "dropout"));
}
