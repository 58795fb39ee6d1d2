//! A hundred units and more behind one Modbus TCP server: what 10,000 tags a second cost, whether
//! polls come on time, and what dead units do to the living.
//!
//! The server is written with nothing but the standard library. What a poll's lateness is the
//! daemon says itself (`wheeltap_poll_lateness_seconds`); the server checks it by the distance
//! between two polls of a unit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::Target;
use crate::process::{self, Daemon};

const TAGS_PER_UNIT: usize = 100;
/// A poll that comes later after its tick than this is late.
const LATE: Duration = Duration::from_millis(50);

/// How the tags of a unit lie in its registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One after the other: two requests a unit.
    Contiguous,
    /// In clusters with holes too wide to read along: some twenty requests a unit.
    Scattered,
}

/// What a run is about.
#[derive(Clone, Copy)]
pub(crate) struct Fleet {
    pub(crate) units: u8,
    pub(crate) dead: u8,
    pub(crate) layout: Layout,
}

type Polls = Arc<Mutex<BTreeMap<u8, Vec<Instant>>>>;

struct Server {
    port: u16,
    polls: Polls,
}

impl Server {
    fn start(alive: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let polls = Polls::default();
        let noted = polls.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let noted = noted.clone();
                std::thread::spawn(move || serve(stream, alive, &noted));
            }
        });
        Self { port, polls }
    }

    /// Share of polls whose distance from the one before is a period within [`LATE`].
    fn punctual(&self, from: Instant) -> f64 {
        let polls = self.polls.lock().expect("no thread panics");
        let (mut good, mut all) = (0_u32, 0_u32);
        for times in polls.values() {
            let times: Vec<_> = times.iter().filter(|at| **at >= from).collect();
            for pair in times.windows(2) {
                all += 1;
                let off = (pair[1].duration_since(*pair[0]).as_secs_f64() - 1.0).abs();
                good += u32::from(off <= LATE.as_secs_f64());
            }
        }
        f64::from(good) / f64::from(all.max(1))
    }
}

fn serve(mut stream: TcpStream, alive: u8, polls: &Polls) {
    stream.set_nodelay(true).ok();
    let mut noise = fastrand::Rng::with_seed(3);
    let mut request = [0_u8; 12];
    let mut answer = Vec::with_capacity(300);
    while stream.read_exact(&mut request).is_ok() {
        let (unit, count) = (request[6], u16::from_be_bytes([request[10], request[11]]));
        if unit > alive {
            continue;
        }
        if request[8..10] == [0, 0] {
            let mut polls = polls.lock().expect("no thread panics");
            polls.entry(unit).or_default().push(Instant::now());
        }
        answer.clear();
        answer.extend(&request[..4]);
        answer.extend((3 + count * 2).to_be_bytes());
        answer.extend([request[6], request[7]]);
        answer.push(u8::try_from(count * 2).expect("at most 250 bytes"));
        for _ in 0..count.div_ceil(2) {
            answer.extend((50.0 + noise.f32()).to_be_bytes());
        }
        answer.truncate(9 + usize::from(count) * 2);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

fn address(layout: Layout, tag: usize) -> usize {
    match layout {
        Layout::Contiguous => tag * 2,
        // Five tags of two registers, then a hole of 190.
        Layout::Scattered => tag / 5 * 200 + tag % 5 * 2,
    }
}

impl Fleet {
    fn configuration(&self, port: u16, http: u16, broker: u16, dir: &Path) -> String {
        let mut text = format!(
            "[gateway]\nsite = \"load\"\nid = \"gw\"\ndata_dir = \"{}\"\n\
             [store]\nmax_disk = \"256MiB\"\n[http]\nlisten = \"127.0.0.1:{http}\"\n\
             [upstream]\nurl = \"mqtt://127.0.0.1:{broker}\"\nreadings = \"none\"\n",
            dir.join("fleet").display()
        );
        for unit in 1..=self.units {
            write!(text, "[[asset]]\nid = \"U{unit}\"\n").expect("memory takes text");
        }
        // Two hundred units are asked for ten tags each: the line, not the daemon, is the subject.
        let tags = if self.dead > 0 { 10 } else { TAGS_PER_UNIT };
        for unit in 1..=self.units {
            write!(
                text,
                "[[modbus]]\nname = \"u{unit}\"\nurl = \"tcp://127.0.0.1:{port}\"\nunit = {unit}\n\
                 poll = \"1s\"\ntimeout = \"500ms\"\n",
            )
            .expect("memory takes text");
            for tag in 0..tags {
                write!(
                    text,
                    "[[modbus.tag]]\nid = \"t{tag}\"\nasset = \"U{unit}\"\n\
                     point = \"holding:{}\"\ntype = \"f32\"\nrange = [-50.0, 500.0]\n\
                     limits = {{ high = 90.0 }}\n",
                    address(self.layout, tag)
                )
                .expect("memory takes text");
            }
        }
        text
    }

    /// Runs the daemon against the fleet and prints what it costs beside the targets. Returns
    /// whether a target was missed by far.
    pub(crate) fn measure(
        &self,
        broker: u16,
        dir: &Path,
        warm_up: Duration,
        span: Duration,
    ) -> bool {
        let server = Server::start(self.units - self.dead);
        let http = crate::plant::free_port();
        let file = dir.join("fleet.toml");
        std::fs::remove_dir_all(dir.join("fleet")).ok();
        std::fs::write(&file, self.configuration(server.port, http, broker, dir))
            .expect("the configuration can be written");
        let daemon = Daemon::start(dir, &file);
        crate::plant::pause(warm_up);
        let (from, before) = (Instant::now(), lateness(http));
        let usage = process::measure(daemon.pid(), Duration::ZERO, span);
        let after = lateness(http);
        let punctual = server.punctual(from);
        daemon.stop();
        let within = |bound: &str| {
            let count = |map: &BTreeMap<String, f64>, le: &str| map.get(le).copied().unwrap_or(0.0);
            let polls = count(&after, "+Inf") - count(&before, "+Inf");
            (count(&after, bound) - count(&before, bound)) / polls * 100.0
        };
        let layout = match self.layout {
            Layout::Contiguous => "contiguous",
            Layout::Scattered => "scattered",
        };
        println!(
            "\n{} units ({} dead), {layout}, at 1 s, one connection, {} s measured, upstream \
             connected with readings = \"none\"",
            self.units,
            self.dead,
            span.as_secs()
        );
        println!(
            "polls within 10 ms of their tick: {:.2} %, within 50 ms: {:.2} %, within 1 s: {:.2} %; \
             seen by the server: {:.2} % a second apart within 50 ms",
            within("0.01"),
            within("0.05"),
            within("1"),
            punctual * 100.0
        );
        let cpu = match self.layout {
            Layout::Contiguous => 10.0,
            Layout::Scattered => 20.0,
        };
        let mut missed = false;
        let tell = |what, measured: f64, target: f64, unit, met: bool| {
            let Target { what, measured, target, unit } = Target { what, measured, target, unit };
            let verdict = if met { "met" } else { "MISSED" };
            println!("{what}: {measured:.2} {unit}, target {target} ({verdict})");
        };
        let used = usage.cpu * 100.0;
        tell("CPU", used, cpu, "% of one core", used <= cpu);
        tell("RSS", usage.rss_mib, 80.0, "MiB", usage.rss_mib <= 80.0);
        missed |= used > 3.0 * cpu || usage.rss_mib > 240.0;
        if self.dead == 0 {
            let on_time = within("0.05");
            tell("polls within 50 ms of their tick", on_time, 99.0, "%", on_time >= 99.0);
            missed |= on_time.is_nan() || on_time < 90.0;
        } else {
            let on_time = within("1");
            tell("live polls before their next tick", on_time, 99.0, "%", on_time >= 99.0);
            missed |= on_time.is_nan() || on_time < 90.0;
        }
        missed
    }
}

/// The histogram of all sources: polls by upper bound in seconds.
fn lateness(http: u16) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", http)) else { return found };
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("the daemon takes a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).ok();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("wheeltap_poll_lateness_seconds_bucket{") else {
            continue;
        };
        let Some((labels, count)) = rest.rsplit_once("} ") else { continue };
        let Some((_, bound)) = labels.split_once("le=\"") else { continue };
        let bound = bound.trim_end_matches('"').to_owned();
        *found.entry(bound).or_insert(0.0) += count.trim().parse().unwrap_or(0.0);
    }
    found
}
