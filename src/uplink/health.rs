//! `gateway.health`: how the gateway itself does, each minute.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::ids::SourceId;
use crate::domain::time::Now;
use crate::port::{EngineStatus, SourceHealth, UplinkHealth};

/// How often it is sent.
pub const HEALTH_EVERY: Duration = Duration::from_secs(60);

/// CPU time of this process at a moment, for the share in between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuMark {
    /// Monotonic.
    pub at: Duration,
    /// User and system time used so far.
    pub used: Duration,
}

/// What a look at the machine costs: three files of `/proc`, one `statvfs`, one directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// CPU time used so far; `None` without `/proc`.
    pub cpu_used: Option<Duration>,
    /// Resident memory in bytes.
    pub rss_bytes: Option<u64>,
    /// Bytes under the data directory.
    pub data_bytes: u64,
    /// Bytes its file system has left for us.
    pub free_bytes: Option<u64>,
}

impl Machine {
    /// Looks. Blocks on the file system: call it where that is allowed.
    #[must_use]
    pub fn look(data_dir: &Path) -> Self {
        Self {
            cpu_used: cpu_used(),
            rss_bytes: rss_bytes(),
            data_bytes: bytes_under(data_dir),
            free_bytes: rustix::fs::statvfs(data_dir)
                .ok()
                .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        }
    }
}

/// Fields 14 and 15 of `/proc/self/stat`, in clock ticks (proc(5)). The name in field 2 may hold
/// spaces, so counting begins behind its closing bracket.
fn cpu_used() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis((user + system).saturating_mul(1000) / per_second))
}

fn rss_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

fn bytes_under(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => todo.push(entry.path()),
                Ok(meta) => bytes += meta.len(),
                // It went away in between.
                Err(_) => {}
            }
        }
    }
    bytes
}

/// What the health message is made of besides the machine.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The engine.
    pub engine: EngineStatus,
    /// Inputs that wait for it.
    pub engine_queue: usize,
    /// The sources, by name.
    pub sources: BTreeMap<SourceId, SourceHealth>,
    /// The uplink.
    pub uplink: UplinkHealth,
    /// Readings and events that could not be sent since the start.
    pub lost_readings: u64,
    /// Events that could not be sent since the start.
    pub lost_events: u64,
}

/// `data` of `gateway.health`. `before` is the mark of the message before.
#[must_use]
pub fn data(machine: &Machine, before: Option<CpuMark>, figures: &Figures, now: Now) -> Value {
    let cpu = before.zip(machine.cpu_used).and_then(|(before, used)| {
        let span = now.mono.saturating_sub(before.at).as_secs_f64();
        (span > 0.0).then(|| used.saturating_sub(before.used).as_secs_f64() / span)
    });
    let sources: BTreeMap<&str, Value> = figures
        .sources
        .iter()
        .map(|(name, health)| {
            let asked = health.good + health.failed + health.missed;
            let success = (asked > 0).then(|| health.good as f64 / asked as f64);
            let source = json!({
                "state": health.state,
                "success": success,
                "good": health.good,
                "failed": health.failed,
                "missed": health.missed,
                "last_answer": health.last_answer.map(|time| time.to_string()),
                "last_error": health.last_error,
                "load": health.load,
            });
            (name.as_str(), source)
        })
        .collect();
    json!({
        "cpu": cpu,
        "rss_bytes": machine.rss_bytes,
        "disk": { "data_bytes": machine.data_bytes, "free_bytes": machine.free_bytes },
        "queues": {
            "engine": figures.engine_queue,
            "events_waiting": figures.uplink.events_waiting,
            "readings_waiting": figures.uplink.readings_waiting,
        },
        "sources": sources,
        "clock": { "trusted": now.trusted, "uptime_seconds": now.mono.as_secs() },
        "store": {
            "durable": figures.engine.durable,
            "commits": figures.engine.commits,
            "events": figures.engine.events,
        },
        "stages_off": figures
            .engine
            .stages
            .iter()
            .filter(|stage| stage.state != "running")
            .map(|stage| stage.name)
            .collect::<Vec<_>>(),
        "lost": { "readings": figures.lost_readings, "events": figures.lost_events },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("corrupt")).unwrap();
        std::fs::write(dir.path().join("corrupt/a"), [0; 1000]).unwrap();
        std::fs::write(dir.path().join("b"), [0; 500]).unwrap();
        let machine = Machine::look(dir.path());
        assert_eq!(machine.data_bytes, 1500);
        assert!(machine.rss_bytes.unwrap() > 500_000);
        assert!(machine.cpu_used.is_some());
        assert!(machine.free_bytes.is_some());
    }
}
