//! Puts plant, broker, daemon and narrator on one stage and takes them off again in order.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::narrator::Ear;
use super::story::Story;
use super::{Arguments, daemon};
use crate::cli::Failure;
use crate::runtime::shutdown;
use crate::sim::broker::Broker;
use crate::sim::{Plant, Scenario, Server};

/// The configuration of the demo, as it lies in the repository.
pub(super) const CONFIG: &str = include_str!("../../../config/demo.toml");
/// The sources of [`CONFIG`], all of them the one simulated plant.
const SOURCES: [&str; 4] = ["P101", "P102", "F201", "G301"];
/// One course of things, so that two demos can be compared.
const SEED: u64 = 1;
/// Without `--for`: as good as for ever (a year), yet a time that clocks can hold.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// Plays the demo; fails when the story was not told.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let stop = shutdown::token().map_err(Failure::failed)?;
    let directory = Scratch::new().map_err(|error| {
        Failure::failed(format!("making a directory for the demo's data: {error}"))
    })?;
    let broker = Broker::start()
        .map_err(|error| Failure::failed(format!("starting the embedded broker: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let points =
        runtime.map_err(Failure::failed)?.block_on(play(arguments, &directory, &broker, &stop))?;
    drop(broker);
    say("");
    for (point, done) in &points {
        say(&format!("{}  {point}", if *done { "told   " } else { "MISSING" }));
    }
    let missing = points.iter().filter(|(_, done)| !done).count();
    if missing > 0 {
        return Err(Failure::failed(format!(
            "the story was not told: {missing} of {} points are missing",
            points.len()
        )));
    }
    Ok(())
}

async fn play(
    arguments: &Arguments,
    directory: &Scratch,
    broker: &Broker,
    stop: &CancellationToken,
) -> Result<Vec<(String, bool)>, Failure> {
    let scenario = Scenario::named("demo")
        .expect("the scenario `demo` is listed")
        .with_wear_speed(arguments.speed);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let plant = Server::bind(any, Plant::new(scenario, SEED), 1.0)
        .await
        .map_err(|error| Failure::failed(format!("starting the simulated plant: {error}")))?;
    let http = arguments.http.unwrap_or(any);
    let changes = changes(directory.path(), plant.local_addr(), &broker.url(), http);
    say(&format!("plant      tcp://{}  (Modbus, units 1 to 4)", plant.local_addr()));
    say(&format!(
        "broker     {}  (mosquitto_sub -p {} -t 'wheeltap/#' -v)",
        broker.url(),
        broker.address().port()
    ));
    // The plant needs no farewell: it goes with this function.
    let living = plant.run(CancellationToken::new());
    let telling = tell(arguments, &changes, broker.address(), stop);
    tokio::select! {
        points = telling => points,
        ended = living => Err(Failure::failed(match ended {
            Ok(()) => "the simulated plant ended".to_owned(),
            Err(error) => format!("the simulated plant ended: {error}"),
        })),
    }
}

async fn tell(
    arguments: &Arguments,
    changes: &BTreeMap<String, String>,
    broker: SocketAddr,
    stop: &CancellationToken,
) -> Result<Vec<(String, bool)>, Failure> {
    let mut daemon = daemon::start(CONFIG, changes).await?;
    let url = daemon.url();
    say(&format!("dashboard  {url}/"));
    say("learning for 30 s; then a bearing wears, a sensor sticks and a seal leaks\n");
    let mut story = Story::new(format!("wheeltap ctl --url {url}"));
    let mut ear = Ear::new(broker);
    let end = tokio::time::sleep(arguments.length.unwrap_or(FOR_EVER));
    tokio::pin!(end);
    loop {
        // Cancel-safe: `next` and `ended` keep their place, the others hold nothing.
        tokio::select! {
            payload = ear.next() => story.take(&payload).iter().for_each(|line| say(line)),
            why = daemon.ended() => return Err(why),
            () = &mut end => break,
            () = stop.cancelled() => break,
        }
    }
    let points = story.check();
    // What the daemon still says while it stops is heard, but the story was over before.
    let farewell = async {
        loop {
            let payload = ear.next().await;
            story.take(&payload).iter().for_each(|line| say(line));
        }
    };
    tokio::select! {
        () = daemon.stop() => {}
        () = farewell => {}
    }
    Ok(points)
}

/// What differs from [`CONFIG`], in the form of environment overrides.
fn changes(
    directory: &Path,
    plant: SocketAddr,
    broker: &str,
    http: SocketAddr,
) -> BTreeMap<String, String> {
    let mut changes = BTreeMap::new();
    let mut set = |key: &str, value: String| changes.insert(format!("WHEELTAP__{key}"), value);
    set("GATEWAY__DATA_DIR", directory.display().to_string());
    set("HTTP__LISTEN", http.to_string());
    set("UPSTREAM__URL", broker.to_owned());
    for source in SOURCES {
        set(&format!("MODBUS__{source}__URL"), format!("tcp://{plant}"));
    }
    changes
}

/// Prints a line. Whoever closed the pipe wants no more lines, but the exit code still counts.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        tracing::debug!("nobody reads the demo's output");
    }
}

/// A directory that is removed when it is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let name = format!("wheeltap-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // Fails when it is there already: nobody else's directory is ever removed.
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, directory = %self.0.display(), "the demo's data stay behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::REGISTERS;

    #[test]
    fn the_configuration_is_that_of_the_simulated_plant() {
        let config: toml::Table = CONFIG.parse().unwrap();
        let mut configured = BTreeMap::new();
        for source in config["modbus"].as_array().unwrap() {
            let name = source["name"].as_str().unwrap().to_uppercase();
            assert!(SOURCES.contains(&name.as_str()), "{name}");
            let unit = source["unit"].as_integer().unwrap();
            for tag in source["tag"].as_array().unwrap() {
                let text =
                    |key: &str| tag.get(key).and_then(toml::Value::as_str).map(str::to_owned);
                let path = format!("{}/{}", text("asset").unwrap(), text("id").unwrap());
                let scale = tag.get("scale").map_or(1.0, |scale| scale.as_float().unwrap());
                let row = (
                    unit,
                    text("point").unwrap(),
                    text("type").unwrap_or("bool".into()),
                    text("order"),
                    scale.to_string(),
                    text("unit").unwrap_or_default(),
                );
                assert!(configured.insert(path, row).is_none());
            }
        }
        for register in REGISTERS {
            let row = (
                i64::from(register.unit),
                register.point(),
                register.encoding.kind().to_owned(),
                register.encoding.order().map(str::to_owned),
                register.scale.to_string(),
                register.signal.unit().to_owned(),
            );
            assert_eq!(configured.remove(&register.path()), Some(row), "{}", register.path());
        }
        assert!(configured.is_empty(), "{configured:?}");
    }

    #[test]
    fn a_healthy_plant_keeps_clear_of_the_limits_and_the_story_crosses_them() {
        let config: toml::Table = CONFIG.parse().unwrap();
        let sources = config["modbus"].as_array().unwrap();
        let tags: Vec<&toml::Value> =
            sources.iter().flat_map(|source| source["tag"].as_array().unwrap()).collect();
        let beyond = |plant: &Plant| -> Vec<String> {
            let mut crossed = Vec::new();
            for tag in &tags {
                let path =
                    format!("{}/{}", tag["asset"].as_str().unwrap(), tag["id"].as_str().unwrap());
                let value = plant.value(&path).unwrap();
                if let Some(range) = tag.get("range") {
                    assert!(
                        (range[0].as_float().unwrap()..range[1].as_float().unwrap())
                            .contains(&value)
                    );
                }
                let Some(limits) = tag.get("limits") else { continue };
                let limit = |key: &str| limits.get(key).and_then(toml::Value::as_float);
                if limit("high").is_some_and(|high| value > high)
                    || limit("low").is_some_and(|low| value < low)
                {
                    crossed.push(path);
                }
            }
            crossed
        };
        let mut healthy = Plant::new(Scenario::healthy(), SEED);
        for _ in 0..24 * 12 {
            healthy.step(Duration::from_secs(300));
            assert_eq!(beyond(&healthy), Vec::<String>::new());
        }
        let mut story = Plant::new(Scenario::named("demo").unwrap(), SEED);
        story.step(Duration::from_secs(178));
        let crossed = beyond(&story);
        assert!(crossed.contains(&"P-101/vibration".to_owned()), "{crossed:?}");
        assert!(crossed.iter().all(|path| path.starts_with("P-10")), "{crossed:?}");
    }

    #[test]
    fn the_scratch_directory_goes_with_its_owner() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("ring.db"), b"x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
