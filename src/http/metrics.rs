//! `/metrics` in the Prometheus text format (version 0.0.4): names `wheeltap_*`, base units.

use std::fmt::{Display, Write};
use std::path::Path;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::domain::record::RecordKind;
use crate::port::SourceHealth;
use crate::store::RecordFilter;

use super::problem::Problem;
use super::{Api, health};

/// Text of one answer, each family with its help and type.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string cannot fail.
        write!(self.0, "# HELP wheeltap_{name} {help}\n# TYPE wheeltap_{name} {kind}\n").ok();
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        write!(self.0, "wheeltap_{name}").ok();
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(self.0, "{before}{label}=\"{text}\"").ok();
        }
        writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" }).ok();
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// What is counted outside memory.
struct Counted {
    alarms: Vec<String>,
    decisions: usize,
    orders: usize,
    files: Vec<(String, u64)>,
}

async fn counted(api: &Api) -> Result<Counted, Problem> {
    let dir = api.state.data_dir.clone();
    api.readers
        .state(move |reader| {
            let open = |kind| {
                reader.records(&RecordFilter { open: Some(true), ..RecordFilter::all(kind) })
            };
            let severity = |body: &serde_json::Value| {
                let severity = body.get("severity").or_else(|| body.get("alarm")?.get("severity"));
                severity.and_then(|word| word.as_str()).unwrap_or("unknown").to_owned()
            };
            let alarms = open(RecordKind::Alarm)?.items;
            Ok(Counted {
                alarms: alarms.iter().map(|record| severity(&record.body)).collect(),
                decisions: open(RecordKind::Decision)?.items.len(),
                orders: open(RecordKind::WorkOrder)?.items.len(),
                files: files(&dir),
            })
        })
        .await
}

/// Sizes of the files under the data directory, by name; directories in it as one.
fn files(dir: &Path) -> Vec<(String, u64)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<(String, u64)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let data = entry.metadata().ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name, if data.is_dir() { size_below(&entry.path()) } else { data.len() }))
        })
        .collect();
    files.sort();
    files
}

fn size_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Resident memory in bytes and processor time in seconds, from `/proc`.
fn process() -> Option<(u64, f64)> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")
        .ok()?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in brackets may hold spaces; fields are counted behind it (proc(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    let page = rustix::param::page_size() as u64;
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Some((pages * page, ticks / per_second))
}

pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let mut text = Text::default();
    let status = api.state.announcements.status.borrow().clone();
    let config = api.setting().config;

    text.family("build_info", "gauge", "Version of the program and hash of its configuration.");
    let hash = &config.hash;
    text.sample("build_info", &[("version", env!("CARGO_PKG_VERSION")), ("config", hash)], 1);
    let started = api.state.started.seconds();
    text.single("start_time_seconds", "gauge", "When the daemon was started.", started);
    let ready = u8::from(health::reasons(&api).is_empty());
    text.single("ready", "gauge", "Whether /readyz answers 200.", ready);
    let trusted = u8::from(api.now().trusted);
    text.single("clock_trusted", "gauge", "Whether the clock has been set.", trusted);

    let durable = u8::from(status.durable);
    text.single("store_durable", "gauge", "Whether the store commits.", durable);
    text.single("events_total", "counter", "Events committed since the start.", status.events);
    text.single("commits_total", "counter", "Commits since the start.", status.commits);
    let seen = status.seen.0;
    text.single("readings_total", "counter", "Readings taken in, over restarts.", seen);
    let depth = api.state.engine.depth();
    text.single("engine_queue_length", "gauge", "Inputs that wait for the engine.", depth);
    let refilling = u8::from(status.refilling);
    text.single("refilling", "gauge", "Whether windows are being refilled.", refilling);

    text.family("stage_up", "gauge", "Whether a stage runs.");
    for stage in &status.stages {
        let up = u8::from(stage.state == "running");
        text.sample("stage_up", &[("stage", stage.name)], up);
    }
    text.family("stage_events_total", "counter", "Events a stage has handled since the start.");
    for stage in &status.stages {
        text.sample("stage_events_total", &[("stage", stage.name)], stage.handled);
    }
    text.family("stage_failures_total", "counter", "Events a stage failed on since the start.");
    for stage in &status.stages {
        text.sample("stage_failures_total", &[("stage", stage.name)], stage.failures);
    }

    sources(&api, &mut text);
    uplink(&api, &mut text);

    match counted(&api).await {
        Ok(counted) => stored(&counted, &mut text),
        Err(_) => text.single("store_readable", "gauge", "Whether the store can be read.", 0),
    }
    let limit = config.store.max_disk;
    text.single("store_limit_bytes", "gauge", "Bound on all files of the store.", limit);
    if let Some((memory, processor)) = process() {
        let help = "Memory that is resident.";
        text.single("process_resident_memory_bytes", "gauge", help, memory);
        let help = "Processor time, user and system.";
        text.single("process_cpu_seconds_total", "counter", help, processor);
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text.0).into_response()
}

fn sources(api: &Api, text: &mut Text) {
    let sources: Vec<_> = api
        .state
        .sources
        .borrow()
        .iter()
        .map(|(name, health)| (name.to_string(), health.borrow().clone()))
        .collect();
    text.family("source_up", "gauge", "Whether a source answers (1 also when degraded).");
    for (name, health) in &sources {
        let up = u8::from(matches!(health.state.as_str(), "up" | "degraded"));
        text.sample("source_up", &[("source", name)], up);
    }
    text.family("source_polls_total", "counter", "Polls or messages by result, since the start.");
    for (name, health) in &sources {
        let results = [("good", health.good), ("failed", health.failed), ("missed", health.missed)];
        for (result, count) in results {
            text.sample("source_polls_total", &[("source", name), ("result", result)], count);
        }
    }
    text.family("source_last_answer_timestamp_seconds", "gauge", "When a source last answered.");
    for (name, health) in &sources {
        if let Some(last) = health.last_answer {
            let labels = [("source", name.as_str())];
            text.sample("source_last_answer_timestamp_seconds", &labels, last.seconds());
        }
    }
    lines(&sources, text);
}

/// What the time of the lines goes to, and how late polls are.
fn lines(sources: &[(String, SourceHealth)], text: &mut Text) {
    let loads: Vec<_> = sources
        .iter()
        .filter_map(|(name, health)| Some((name.as_str(), health.load.as_ref()?)))
        .collect();
    if loads.is_empty() {
        return;
    }
    let help = "Share of its line's time that requests take, of all sources on that line.";
    text.family("line_load_ratio", "gauge", help);
    for (name, load) in &loads {
        text.sample("line_load_ratio", &[("source", name)], load.line_share);
    }
    let help = "Share of its line's time that requests without an answer take.";
    text.family("line_dead_time_ratio", "gauge", help);
    for (name, load) in &loads {
        text.sample("line_dead_time_ratio", &[("source", name)], load.dead_share);
    }
    let help = "Time that requests to a unit took since the start.";
    text.family("bus_busy_seconds_total", "counter", help);
    for (name, load) in &loads {
        for (unit, of_unit) in &load.units {
            let labels = [("source", *name), ("unit", &unit.to_string())];
            text.sample("bus_busy_seconds_total", &labels, of_unit.busy_seconds);
        }
    }
    let help = "From the tick of a poll to its last answer.";
    text.family("poll_lateness_seconds", "histogram", help);
    for (name, load) in &loads {
        let (rows, sum) = load.lateness.cumulative();
        for (bound, polls) in rows {
            let labels = [("source", *name), ("le", &bound.to_string())];
            text.sample("poll_lateness_seconds_bucket", &labels, polls);
        }
        let polls = load.lateness.polls();
        text.sample("poll_lateness_seconds_bucket", &[("source", name), ("le", "+Inf")], polls);
        text.sample("poll_lateness_seconds_sum", &[("source", name)], sum);
        text.sample("poll_lateness_seconds_count", &[("source", name)], polls);
    }
}

fn uplink(api: &Api, text: &mut Text) {
    let uplink = api.state.uplink.borrow().clone();
    let up = u8::from(uplink.state == "up");
    text.single("uplink_up", "gauge", "Whether the broker upstream acknowledges.", up);
    text.family("uplink_waiting", "gauge", "Rows not yet acknowledged upstream.");
    text.sample("uplink_waiting", &[("lane", "events")], uplink.events_waiting);
    text.sample("uplink_waiting", &[("lane", "readings")], uplink.readings_waiting);
    if let Some(round_trip) = uplink.last_round_trip {
        let help = "Round trip of the last acknowledgement.";
        text.single("uplink_round_trip_seconds", "gauge", help, round_trip.as_secs_f64());
    }
}

fn stored(counted: &Counted, text: &mut Text) {
    text.single("store_readable", "gauge", "Whether the store can be read.", 1);
    text.family("alarms_open", "gauge", "Open alarms by severity.");
    for severity in ["low", "medium", "high", "critical"] {
        let count = counted.alarms.iter().filter(|known| *known == severity).count();
        text.sample("alarms_open", &[("severity", severity)], count);
    }
    text.single("decisions_open", "gauge", "Questions without an answer.", counted.decisions);
    text.single("work_orders_open", "gauge", "Work orders not yet closed.", counted.orders);
    text.family("store_file_bytes", "gauge", "Sizes of the files of the store.");
    for (name, bytes) in &counted.files {
        text.sample("store_file_bytes", &[("file", name)], bytes);
    }
}
