//! Against programs we did not write: pymodbus, mosquitto, paho, mbpoll, the CloudEvents SDK.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::broker::Mosquitto;
use crate::support::daemon::{ASSET, Home, WHEELTAP, modbus, upstream};
use crate::support::subscriber::text;
use crate::support::wait;

/// A Python peer that takes lines and prints lines; killed when dropped.
pub(crate) struct Peer {
    child: Child,
    input: ChildStdin,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Python with the peers' libraries.
pub(crate) fn python() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    if root.join("target/venv/ready").exists() && python.exists() {
        return Some(python);
    }
    wait::skip("target/venv with tests/peers/requirements.txt (tests/run makes it)");
    None
}

fn script(python: &PathBuf, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(format!("{}/tests/peers/{name}", env!("CARGO_MANIFEST_DIR")));
    command
}

impl Peer {
    pub(crate) fn start(python: &PathBuf, name: &str, arguments: &[&str]) -> Self {
        let mut command = script(python, name);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (output, heard) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        Self { input: child.stdin.take().unwrap(), child, lines }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// Waits until the lines so far give what is wanted.
    pub(crate) fn wait<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        wait::until(what, || look(&self.lines.lock().unwrap()))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// pymodbus on a port (0: any), its register 0 set to a value.
fn plant(python: &PathBuf, port: u16, value: f32) -> (Peer, u16) {
    // Somebody may hold the port for a moment after its owner was killed.
    let (mut peer, port) = wait::until("pymodbus", || {
        let mut peer = Peer::start(python, "pymodbus_server.py", &[&port.to_string()]);
        let port = wait::until("pymodbus's port", || {
            let said = peer.lines.lock().unwrap().first().map(|line| line.parse::<u16>().unwrap());
            match (said, peer.child.try_wait().unwrap()) {
                (Some(port), _) => Some(Some(port)),
                (None, Some(_)) => Some(None),
                (None, None) => None,
            }
        })?;
        Some((peer, port))
    });
    set(&mut peer, value);
    (peer, port)
}

fn set(plant: &mut Peer, value: f32) {
    let line = format!("0 {value}");
    plant.tell(&line);
    plant.wait("the register", |lines| lines.last()?.ends_with(&line).then_some(()));
}

/// All CloudEvents that paho has received, in order.
fn events(lines: &[String]) -> Vec<Value> {
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let payloads =
        lines.filter(|line| line["topic"].is_string()).map(|line| text(&line, "payload"));
    let full = payloads.filter(|payload| !payload.is_empty());
    full.map(|payload| serde_json::from_str(&payload).unwrap()).collect()
}

/// Waits for an alarm that was raised at a value.
fn alarm(paho: &Peer, value: f64) -> Value {
    paho.wait("alarm.raised", |lines| {
        events(lines).into_iter().find(|event| {
            event["type"] == "wheeltap.alarm.raised"
                && event["subject"] == "P-101/t"
                && event["data"]["value"] == value
        })
    })
}

fn subscribed(paho: &Peer, times: usize) {
    paho.wait("paho's subscription", |lines| {
        let count = lines.iter().filter(|line| line.contains("\"subscribed\"")).count();
        (count >= times).then_some(())
    });
}

/// Whether the official SDK takes every event.
fn validate(python: &PathBuf, events: &[Value]) {
    let mut command = script(python, "validate_cloudevents.py");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    std::thread::spawn(move || input.write_all(lines.join("\n").as_bytes()).ok());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{}", said.trim());
}

#[test]
fn a_limit_crossing_is_an_alarm_also_after_broker_and_plant_were_killed() {
    let Some(python) = python() else { return };
    let Some(mut broker) = Mosquitto::start_blocking() else { return };
    let (mut machine, port) = plant(&python, 0, 50.0);
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    let mut home = Home::new(format!(
        "{}{ASSET}{}[[mqtt]]\nname = \"shopfloor\"\nurl = \"{url}\"\n\
         [[mqtt.tag]]\nid = \"vibration\"\nasset = \"P-101\"\ntopic = \"plant/p101/vib\"\n\
         pointer = \"/rms\"\nunit = \"mm/s\"\n",
        upstream(broker.port),
        modbus(&format!("127.0.0.1:{port}"), &[("t", 0, "limits = { high = 90.0 }")]),
    ));
    let broker_port = broker.port.to_string();
    let arguments = [broker_port.as_str(), "wheeltap/test/gw/#"];
    let mut paho = Peer::start(&python, "paho_subscriber.py", &arguments);
    subscribed(&paho, 1);
    let mut daemon = home.start();
    let http = daemon.http.clone();

    http.reading("P-101", "t", |reading| reading["value"] == 50.0);
    set(&mut machine, 95.5);
    let first = alarm(&paho, 95.5);
    assert_eq!((&first["data"]["limit"], &first["data"]["asset"]), (&90.0.into(), &"P-101".into()));

    let mut published = 0;
    wait::until("paho's reading", || {
        paho.tell("plant/p101/vib {\"rms\": 3.25}");
        published += 1;
        paho.wait("paho's PUBACK", |lines| {
            let acknowledged = lines.iter().filter(|line| line.contains("\"published\"")).count();
            (acknowledged == published).then_some(())
        });
        let known = http.list("/api/v1/readings?asset=P-101&tag=vibration");
        known.iter().any(|reading| reading["value"] == 3.25).then_some(())
    });

    drop(machine);
    broker.kill();
    http.reading("P-101", "t", |reading| reading["reason"] == "comm");
    http.wait_for("/api/v1/alarms?open=true", |alarm| alarm["condition"] == "source-silent");
    let (mut machine, _) = plant(&python, port, 51.0);
    http.reading("P-101", "t", |reading| reading["value"] == 51.0);
    http.wait_for("/api/v1/alarms", |alarm| {
        alarm["id"] == first["data"]["alarm_id"] && !alarm["cleared"].is_null()
    });
    broker.restart_blocking();
    subscribed(&paho, 2);
    set(&mut machine, 97.5);
    let second = alarm(&paho, 97.5);
    assert_ne!(second["data"]["alarm_id"], first["data"]["alarm_id"]);

    assert!(daemon.lives());
    assert_eq!(daemon.stop().0, Some(0));
    paho.wait("the farewell", |lines| {
        let last = events(lines).pop()?;
        (last["type"] == "wheeltap.gateway.offline").then_some(())
    });
    validate(&python, &events(&paho.lines.lock().unwrap()));
}

/// `wheeltap simulate`, killed when dropped.
struct Simulator(Child, u16);

impl Simulator {
    fn start() -> Self {
        let mut child = Command::new(WHEELTAP)
            .args(["simulate", "--listen", "127.0.0.1:0"])
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

impl Drop for Simulator {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn mbpoll_reads_the_simulated_plant() {
    if Command::new("mbpoll").arg("-h").output().is_err() {
        wait::skip("mbpoll");
        return;
    }
    let simulator = Simulator::start();
    // Table and form as mbpoll names them, address, and the values that are possible there.
    let points = [("4:float", "100", 5.0..150.0), ("3", "1", 0.0..20_000.0), ("0", "0", 0.0..1.5)];
    for (table, address, possible) in points {
        let output = Command::new("mbpoll")
            .args(["-m", "tcp", "-a", "1", "-p", &simulator.1.to_string(), "-0", "-B", "-1", "-q"])
            .args(["-t", table, "-r", address, "-c", "1", "127.0.0.1"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let start = format!("[{address}]:");
        let line = said.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("no {start} in {said}"));
        let value: f64 = line[start.len()..].trim().parse().unwrap();
        assert!(possible.contains(&value), "{table} {address}: {value}");
    }
}
