//! What the daemon costs and how fast it is under the load it is made for, beside a bare poller that
//! does nothing with the values.
//!
//! ```sh
//! cargo bench --bench load            # 60 s measured
//! cargo bench --bench load -- 20      # 20 s measured
//! cargo bench --bench load -- fleet 20    # 100 units and 10,000 tags a second, 200 units, 40 dead
//! ```
//!
//! One Modbus TCP server with ten units of a hundred `f32` tags each, polled at 1 s, all readings
//! upstream through mosquitto. Fails only beyond three times a target.

#![expect(clippy::disallowed_methods, reason = "wall time is what is measured here")]

mod fleet;
mod plant;
mod process;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plant::{Plant, TAGS_PER_UNIT, UNITS};
use process::{Daemon, Usage};

const WARM_UP: Duration = Duration::from_secs(12);
const MEASURED: Duration = Duration::from_secs(60);
/// A crossing that is not at the subscriber by then counts as lost.
const LATENCY_MAX: Duration = Duration::from_secs(10);

struct Target {
    what: &'static str,
    measured: f64,
    target: f64,
    unit: &'static str,
}

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [flag, address] = arguments.as_slice()
        && flag == "--bare-poller"
    {
        plant::poll_for_ever(address);
    }
    if Command::new("mosquitto").arg("-h").output().is_err() {
        println!("skipped: needs mosquitto");
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|word| word == "fleet") {
        return fleet_runs(&arguments[1..]);
    }
    let seconds = arguments.first().and_then(|word| word.parse().ok());
    let measured = seconds.map_or(MEASURED, Duration::from_secs);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let plant = Arc::new(Plant::start());
    let (mut mosquitto, broker) = start_mosquitto(dir.path());

    let bare = bare_poller(&plant, measured.min(Duration::from_secs(20)));
    fs::write(dir.path().join("load.toml"), plant.configuration(broker, dir.path()))
        .expect("the configuration can be written");
    let (usage, latencies, lost) = load(&plant, broker, dir.path(), measured);
    let ready = ready_with_full_ring(dir.path());
    mosquitto.kill().ok();
    mosquitto.wait().ok();

    let mut sorted = latencies;
    sorted.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let last = sorted.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        sorted.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
    };
    println!("{UNITS} units x {TAGS_PER_UNIT} tags at 1 s, {} s measured", measured.as_secs());
    println!("bare poller (same requests, values dropped): {:.2} % of one core", bare * 100.0);
    println!(
        "daemon: {:.2} % of one core = {:.1} x the bare poller; {:.0} bytes written to disk per reading",
        usage.cpu * 100.0,
        usage.cpu / bare,
        usage.written_per_second / (UNITS * TAGS_PER_UNIT) as f64,
    );
    println!(
        "limit crossing, poll to subscriber: {} crossings, p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms, lost {lost}",
        sorted.len(),
        quantile(0.5) * 1e3,
        quantile(0.99) * 1e3,
        quantile(1.0) * 1e3,
    );
    let targets = [
        Target { what: "CPU", measured: usage.cpu * 100.0, target: 5.0, unit: "% of one core" },
        Target { what: "RSS", measured: usage.rss_mib, target: 40.0, unit: "MiB" },
        Target {
            what: "alarm latency p99",
            measured: quantile(0.99) * 1e3,
            target: 250.0,
            unit: "ms",
        },
        Target { what: "READY with a full ring", measured: ready, target: 1.0, unit: "s" },
    ];
    let mut failed = lost > 0 || sorted.is_empty();
    for Target { what, measured, target, unit } in targets {
        let verdict = if measured <= target { "met" } else { "MISSED" };
        println!("{what}: {measured:.2} {unit}, target {target} ({verdict})");
        failed |= measured.is_nan() || measured > 3.0 * target;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// 10,000 tags a second in two layouts, and two hundred units of which forty are dead. A second
/// word picks one of them.
fn fleet_runs(arguments: &[String]) -> ExitCode {
    use fleet::{Fleet, Layout};
    let seconds = arguments.iter().find_map(|word| word.parse().ok());
    let measured = seconds.map_or(MEASURED, Duration::from_secs);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (mut mosquitto, broker) = start_mosquitto(dir.path());
    let runs = [
        ("contiguous", Fleet { units: 100, dead: 0, layout: Layout::Contiguous }, 15),
        ("scattered", Fleet { units: 100, dead: 0, layout: Layout::Scattered }, 15),
        // Until the breakers of forty dead units have opened within the share of the line's time
        // that may be spent on them.
        ("dead", Fleet { units: 200, dead: 40, layout: Layout::Contiguous }, 90),
    ];
    let mut missed = false;
    for (name, run, warm_up) in runs {
        let picked = arguments.iter().find(|word| word.parse::<u64>().is_err());
        if picked.is_none_or(|picked| picked == name) {
            missed |= run.measure(broker, dir.path(), Duration::from_secs(warm_up), measured);
        }
    }
    mosquitto.kill().ok();
    mosquitto.wait().ok();
    if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Share of a core that polling alone takes.
fn bare_poller(plant: &Plant, span: Duration) -> f64 {
    let mut child = Command::new(std::env::current_exe().expect("we know our own path"))
        .args(["--bare-poller", &plant.address()])
        .spawn()
        .expect("we can be started once more");
    let usage = process::measure(child.id(), Duration::from_secs(3), span);
    child.kill().ok();
    child.wait().ok();
    usage.cpu
}

fn load(plant: &Arc<Plant>, broker: u16, dir: &Path, span: Duration) -> (Usage, Vec<f64>, usize) {
    let alarms = process::subscribe(broker, "wheeltap/load/gw/alarm/#");
    let daemon = Daemon::start(dir, &dir.join("load.toml"));
    let crossings = {
        let plant = plant.clone();
        std::thread::spawn(move || plant.cross_limits(WARM_UP, span))
    };
    let usage = process::measure(daemon.pid(), WARM_UP, span);
    let crossings = crossings.join().expect("the crossings were made");
    let patience = Instant::now() + LATENCY_MAX;
    let mut latencies = Vec::new();
    let mut lost = 0;
    let mut heard = Vec::new();
    for crossing in crossings {
        let subject = format!("{}/{}", crossing.asset, crossing.tag);
        let found = loop {
            let position = heard.iter().position(|(_, text): &(Instant, String)| {
                text.contains("alarm.raised") && text.contains(&subject)
            });
            if let Some(position) = position {
                break Some(heard.remove(position).0);
            }
            match alarms.recv_timeout(patience.saturating_duration_since(Instant::now())) {
                Ok(message) => heard.push(message),
                Err(_) => break None,
            }
        };
        match found {
            Some(at) => {
                latencies.push(at.saturating_duration_since(crossing.answered).as_secs_f64())
            }
            None => lost += 1,
        }
    }
    daemon.stop();
    (usage, latencies, lost)
}

/// Seconds from the start of the process to `READY=1` when the ring holds all it may.
fn ready_with_full_ring(dir: &Path) -> f64 {
    let data = dir.join("data");
    process::fill_ring(&data, 64 << 20);
    let began = Instant::now();
    let daemon = Daemon::start(dir, &dir.join("load.toml"));
    let ready = began.elapsed().as_secs_f64();
    daemon.stop();
    ready
}

fn start_mosquitto(dir: &Path) -> (std::process::Child, u16) {
    for _ in 0..20 {
        let port = plant::free_port();
        let file = dir.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n\
             max_inflight_messages 0\nlog_type none\n"
        );
        fs::write(&file, text).expect("the broker's configuration can be written");
        let mut child = Command::new("mosquitto")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto starts");
        while matches!(child.try_wait(), Ok(None)) {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (child, port);
            }
            plant::pause(Duration::from_millis(20));
        }
    }
    unreachable!("twenty free ports in a row were taken by others")
}
