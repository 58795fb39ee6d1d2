//! Prints each alarm of a gateway exactly once.
//!
//! ```text
//! cargo run --example alarm_subscriber -- mqtt://127.0.0.1:1883 wheeltap/plant-a/gw-01 [STATE_FILE]
//! ```
//!
//! The broker keeps messages while we are away (persistent session, QoS 1) and may deliver some
//! twice. Every event has a stable id, so repeats are dropped by it; the last ids are remembered in
//! a small file, over our own restarts too. An alarm is acknowledged to the broker only once it is
//! printed and remembered. `sequence` has no gaps within a class: a hole is worth a warning unless
//! the gateway has announced it (`gateway.gap`) or begun a new epoch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Ids remembered; a gateway has at most 50 messages under way, so this is ample.
const IDS_MAX: usize = 10_000;

#[derive(Default, Serialize, Deserialize)]
struct Memory {
    ids: VecDeque<String>,
    last: BTreeMap<String, u64>,
    epoch: Option<u64>,
    #[serde(skip)]
    known: BTreeSet<String>,
}

impl Memory {
    fn load(path: &Path) -> Self {
        let mut memory: Self = fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        memory.known = memory.ids.iter().cloned().collect();
        memory
    }

    /// Written beside and renamed, so that a crash leaves the old file or the new one.
    fn save(&self, path: &Path) -> std::io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(beside, path)
    }

    /// Whether the event is new; it is remembered either way.
    fn is_new(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        self.ids.push_back(id.to_owned());
        if self.ids.len() > IDS_MAX
            && let Some(oldest) = self.ids.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "mqtt://127.0.0.1:1883".to_owned());
    let root = arguments.next().unwrap_or_else(|| "wheeltap/plant-a/gw-01".to_owned());
    let path = PathBuf::from(arguments.next().unwrap_or_else(|| "alarm_subscriber.json".into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(listen(&url, &root, &path))
}

async fn listen(url: &str, root: &str, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let address = url.strip_prefix("mqtt://").ok_or("the URL must begin with mqtt://")?;
    let (host, port) = address.trim_end_matches('/').rsplit_once(':').unwrap_or((address, "1883"));
    // A client id of its own per gateway and file: the broker knows our session by it.
    let client_id = format!("alarms-{}-{}", root.replace('/', "-"), path.display());
    let mut options = MqttOptions::new(client_id.replace(['/', '.'], "-"), host, port.parse()?);
    options.set_clean_session(false).set_manual_acks(true).set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = AsyncClient::new(options, 100);
    let mut memory = Memory::load(path);
    loop {
        match connection.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                for level in ["alarm/+", "gateway", "status"] {
                    client.subscribe(format!("{root}/{level}"), QoS::AtLeastOnce).await?;
                }
                eprintln!("connected to {url}, listening to {root}");
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                take(&publish.topic, &publish.payload, root, &mut memory);
                memory.save(path)?;
                client.ack(&publish).await?;
            }
            Ok(_) => {}
            Err(error) => {
                eprintln!("no connection ({error}); trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn take(topic: &str, payload: &[u8], root: &str, memory: &mut Memory) {
    // An empty message only clears a retained topic.
    if payload.is_empty() {
        return;
    }
    let Ok(event) = serde_json::from_slice::<Value>(payload) else {
        eprintln!("warning: no JSON on {topic}");
        return;
    };
    let Some(id) = event["id"].as_str() else { return };
    if !memory.is_new(id) {
        return;
    }
    let data = &event["data"];
    match event["type"].as_str().unwrap_or_default() {
        "wheeltap.gateway.online" => {
            let epoch = data["epoch"].as_u64();
            if epoch != memory.epoch {
                memory.last.clear();
                memory.epoch = epoch;
            }
            eprintln!("{root} is online");
        }
        "wheeltap.gateway.offline" => eprintln!("{root} is offline: {}", data["reason"]),
        "wheeltap.gateway.gap" => {
            eprintln!(
                "warning: the gateway gave up {} of {} ({} to {}): {}",
                data["count"], data["lane"], data["from"], data["to"], data["reason"]
            );
            if let (Some(lane), Some(to)) = (data["lane"].as_str(), data["to"].as_u64())
                && let Some(last) = memory.last.get_mut(lane)
            {
                *last = (*last).max(to);
            }
        }
        kind if kind.starts_with("wheeltap.alarm.") => {
            if let Some(number) = event["sequence"].as_str().and_then(|text| text.parse().ok()) {
                let last = memory.last.insert("alarm".to_owned(), number);
                if let Some(last) = last.filter(|last| number > last + 1) {
                    eprintln!("warning: alarms {} to {} are missing", last + 1, number - 1);
                }
            }
            println!(
                "{} {} {} {} {}",
                event["time"].as_str().unwrap_or("-"),
                kind.trim_start_matches("wheeltap."),
                event["subject"].as_str().unwrap_or("-"),
                data["severity"].as_str().unwrap_or("-"),
                data["message"].as_str().unwrap_or("-"),
            );
        }
        _ => {}
    }
}
