//! The daemon as a process: started as systemd would, measured from outside.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use wheeltap::domain::ids::{Arrival, TagKey};
use wheeltap::domain::reading::{Quality, Reading};
use wheeltap::domain::time::Timestamp;

use crate::plant::pause;

/// What a process took while it was watched.
pub(crate) struct Usage {
    /// Share of one core.
    pub(crate) cpu: f64,
    /// Largest resident set seen, in MiB.
    pub(crate) rss_mib: f64,
    /// Bytes a second that reached the block layer.
    pub(crate) written_per_second: f64,
}

pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts the daemon and waits for `READY=1`.
    pub(crate) fn start(dir: &Path, configuration: &Path) -> Self {
        let socket = dir.join("notify");
        fs::remove_file(&socket).ok();
        let listener = UnixDatagram::bind(&socket).expect("a socket can be made");
        listener.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        let log = fs::File::create(dir.join("daemon.log")).expect("a log can be made");
        let mut child = Command::new(env!("CARGO_BIN_EXE_wheeltap"))
            .args(["run", "--config"])
            .arg(configuration)
            .env("NOTIFY_SOCKET", &socket)
            // As in systemd/wheeltap.service.
            .env("MALLOC_ARENA_MAX", "1")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        let mut message = [0_u8; 1024];
        loop {
            let Ok(length) = listener.recv(&mut message) else {
                child.kill().ok();
                child.wait().ok();
                let log = fs::read_to_string(dir.join("daemon.log")).unwrap_or_default();
                unreachable!("the daemon did not become ready in 30 s:\n{log}")
            };
            if message[..length].windows(7).any(|window| window == b"READY=1") {
                return Self { child };
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stop(mut self) {
        Command::new("kill").arg(self.pid().to_string()).status().ok();
        let status = self.child.wait().expect("the daemon ends");
        assert!(status.success(), "the daemon ended with {status}");
    }
}

#[derive(Clone, Copy)]
struct Counters {
    on_core_ns: u64,
    written: u64,
    rss_kib: u64,
    at: Instant,
}

fn counters(pid: u32) -> Counters {
    let find = |file: &str, key: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or("");
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    // Nanoseconds on a core, per thread: the ticks of /proc/PID/stat are too coarse for a poller.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    let on_core = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Counters {
        on_core_ns: on_core.sum(),
        written: find("io", "write_bytes:"),
        rss_kib: find("status", "VmRSS:"),
        at: Instant::now(),
    }
}

/// Watches a process for `span`, after `warm_up`.
pub(crate) fn measure(pid: u32, warm_up: Duration, span: Duration) -> Usage {
    pause(warm_up);
    let first = counters(pid);
    let mut rss = first.rss_kib;
    let mut last = first;
    while last.at - first.at < span {
        pause(Duration::from_millis(500));
        last = counters(pid);
        rss = rss.max(last.rss_kib);
    }
    let seconds = (last.at - first.at).as_secs_f64();
    Usage {
        cpu: last.on_core_ns.saturating_sub(first.on_core_ns) as f64 / 1e9 / seconds,
        rss_mib: rss as f64 / 1024.0,
        written_per_second: (last.written - first.written) as f64 / seconds,
    }
}

/// Messages of a topic with the moment each arrived.
pub(crate) fn subscribe(broker: u16, topic: &'static str) -> mpsc::Receiver<(Instant, String)> {
    let (sender, receiver) = mpsc::channel();
    let (subscribed, ready) = mpsc::channel();
    std::thread::spawn(move || {
        let mut options = rumqttc::MqttOptions::new("load-subscriber", "127.0.0.1", broker);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = rumqttc::Client::new(options, 10);
        client.subscribe(topic, rumqttc::QoS::AtLeastOnce).expect("the client takes requests");
        for event in connection.iter() {
            match event {
                Ok(rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_))) => {
                    subscribed.send(()).ok();
                }
                Ok(rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish))) => {
                    let text = String::from_utf8_lossy(&publish.payload).into_owned();
                    if sender.send((Instant::now(), text)).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    ready.recv_timeout(Duration::from_secs(10)).expect("the broker takes the subscription");
    receiver
}

/// Fills the ring up to its bound, as months of running would.
pub(crate) fn fill_ring(data: &Path, bytes: u64) {
    fs::remove_dir_all(data).ok();
    fs::create_dir_all(data).expect("the directory can be made");
    let boot = wheeltap::store::BootInfo {
        id: uuid::Uuid::from_u128(1),
        utc: Timestamp::from_micros(1_780_000_000_000_000),
        mono: Duration::ZERO,
        trusted: true,
    };
    let (mut ring, _) =
        wheeltap::store::ring::RingDb::open(data, bytes, &boot).expect("the ring opens");
    let mut random = fastrand::Rng::with_seed(5);
    let mut arrival = ring.last_arrival().0;
    let mut time = boot.utc;
    loop {
        for _ in 0..50 {
            time = time.after(Duration::from_secs(1));
            let row: Vec<Reading> = (1..=200)
                .map(|tag| {
                    arrival += 1;
                    Reading {
                        tag: TagKey(tag),
                        arrival: Arrival(arrival),
                        time,
                        value: 50.0 + random.f64(),
                        quality: Quality::Good,
                    }
                })
                .collect();
            ring.append(&row);
        }
        ring.commit().expect("the ring commits");
        let size = fs::metadata(data.join("ring.db")).map_or(0, |found| found.len());
        if size * 10 > bytes * 7 || arrival > 8_000_000 {
            return;
        }
    }
}
