//! Southbound: what brings raw values in. One task per connection; sources that share a server or a
//! broker share the task.
//!
//! Pure: [`poll_plan`], [`poll_class`], [`decode`], [`breaker`], [`schedule`], [`payload`],
//! [`topics`], [`gather`], [`outlook`]. I/O: [`line`], [`long_read`], [`modbus`], [`mqtt`],
//! [`probe`], [`scan`].
//! [`topics`], [`gather`], [`guess`]. I/O: [`line`], [`long_read`], [`modbus`], [`mqtt`], [`probe`].
//! [`topics`]. I/O: [`line`], [`modbus`], [`mqtt`], [`probe`], [`scan`].

pub mod breaker;
pub mod decode;
pub mod gather;
pub mod guess;
pub mod health;
pub mod line;
pub mod long_read;
pub mod modbus;
pub mod mqtt;
pub mod notes;
pub mod outlook;
pub mod payload;
pub mod poll_class;
pub mod poll_plan;
pub mod probe;
pub mod recording;
pub mod replay;
pub mod scan;
pub mod schedule;
pub mod topics;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agents::Setting;
use crate::clock::Clock;
use crate::config::{Broker, Link, ModbusSource, MqttSource};
use crate::domain::ids::SourceId;
use crate::port::{EngineHandle, EngineStopped, SourceHealth};
use crate::sources::notes::Notes;

/// Why a source's task ended.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody takes readings any more.
    #[error(transparent)]
    Engine(#[from] EngineStopped),
    /// The keys or certificates of a broker cannot be used.
    #[error("preparing TLS for {broker}")]
    Tls {
        /// Host and port.
        broker: String,
        /// Why.
        source: crate::tls::TlsError,
    },
    /// The configuration asks for something this build cannot do.
    #[error("{broker}: {what} is not supported")]
    Unsupported {
        /// Host and port.
        broker: String,
        /// What it asks for.
        what: &'static str,
    },
}

impl SourceError {
    /// Whether starting the task again may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Engine(_) | Self::Tls { .. } | Self::Unsupported { .. } => false,
        }
    }
}

/// One run of a task.
pub type Run = Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send>>;

/// A task that the supervisor starts, and starts again should it end.
pub struct SourceTask {
    /// Name for logs and the supervisor, e.g. `modbus 10.0.0.5:502`.
    pub name: String,
    /// The sources it serves.
    pub sources: Vec<SourceId>,
    /// How each of them does.
    pub health: BTreeMap<SourceId, watch::Receiver<SourceHealth>>,
    /// Begins a run, which ends with `Ok` soon after the token is cancelled.
    pub run: Box<dyn Fn(CancellationToken) -> Run + Send + Sync>,
}

impl fmt::Debug for SourceTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceTask").field("name", &self.name).finish_non_exhaustive()
    }
}

type Published = BTreeMap<SourceId, Arc<watch::Sender<SourceHealth>>>;

/// The tasks of all sources of a configuration. `seed` feeds the jitter of pauses; nothing is known
/// of the devices.
#[must_use]
pub fn tasks(
    setting: &Setting,
    engine: &EngineHandle,
    clock: &Clock,
    seed: u64,
) -> Vec<SourceTask> {
    tasks_with(setting, engine, clock, seed, &Notes::default())
}

/// The same with what earlier runs have found out about the devices.
#[must_use]
pub fn tasks_with(
    setting: &Setting,
    engine: &EngineHandle,
    clock: &Clock,
    seed: u64,
    notes: &Notes,
) -> Vec<SourceTask> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut tasks = Vec::new();

    let mut servers: BTreeMap<Link, Vec<ModbusSource>> = BTreeMap::new();
    for source in &setting.config.modbus {
        servers.entry(source.link.clone()).or_default().push(source.clone());
    }
    for (link, sources) in servers {
        let names: Vec<SourceId> = sources.iter().map(|source| source.name.clone()).collect();
        let published = published(&names);
        let health = subscribed(&published);
        let (plant, engine, clock) = (Arc::clone(&setting.plant), engine.clone(), clock.clone());
        let seed = rng.u64(..);
        let notes = notes.clone();
        let run = move |cancel: CancellationToken| -> Run {
            let rng = fastrand::Rng::with_seed(seed);
            let (engine, clock, notes) = (engine.clone(), clock.clone(), notes.clone());
            let bus = modbus::Bus::new(&sources, &plant, &published, engine, clock, notes, rng);
            Box::pin(async move {
                tokio::select! {
                    () = cancel.cancelled() => Ok(()),
                    ended = bus.run() => ended,
                }
            })
        };
        let name = format!("modbus {}", link.address());
        tasks.push(SourceTask { name, sources: names, health, run: Box::new(run) });
    }

    let mut brokers: Vec<(Broker, Vec<MqttSource>)> = Vec::new();
    for source in &setting.config.mqtt {
        match brokers.iter_mut().find(|(broker, _)| same_broker(broker, &source.broker)) {
            Some((_, sources)) => sources.push(source.clone()),
            None => brokers.push((source.broker.clone(), vec![source.clone()])),
        }
    }
    for (broker, sources) in brokers {
        let names: Vec<SourceId> = sources.iter().map(|source| source.name.clone()).collect();
        let published = published(&names);
        let health = subscribed(&published);
        let name = format!("mqtt {}:{}", broker.host, broker.port);
        let (plant, engine, clock) = (Arc::clone(&setting.plant), engine.clone(), clock.clone());
        let seed = rng.u64(..);
        let run = move |cancel: CancellationToken| -> Run {
            let rng = fastrand::Rng::with_seed(seed);
            let (engine, clock) = (engine.clone(), clock.clone());
            let tap = mqtt::Tap::new(&broker, &sources, &plant, &published, engine, clock, rng);
            Box::pin(async move { tap?.run(cancel).await })
        };
        tasks.push(SourceTask { name, sources: names, health, run: Box::new(run) });
    }
    for source in setting.config.replay.clone() {
        let names = vec![source.name.clone()];
        let published = published(&names);
        let health = subscribed(&published);
        let name = format!("replay {}", source.file.display());
        let (plant, engine, clock) = (Arc::clone(&setting.plant), engine.clone(), clock.clone());
        let run = move |cancel: CancellationToken| -> Run {
            let player =
                replay::Player::new(&source, &plant, &published, engine.clone(), clock.clone());
            Box::pin(async move {
                tokio::select! {
                    () = cancel.cancelled() => Ok(()),
                    ended = player.run() => ended,
                }
            })
        };
        tasks.push(SourceTask { name, sources: names, health, run: Box::new(run) });
    }
    tasks
}

/// Sources with the same URL and user share a connection, whatever client ids they would use.
fn same_broker(one: &Broker, other: &Broker) -> bool {
    let other = Broker { client_id: one.client_id.clone(), ..other.clone() };
    *one == other
}

fn published(names: &[SourceId]) -> Published {
    let starting = || SourceHealth { state: health::STARTING.to_owned(), ..Default::default() };
    names.iter().map(|name| (name.clone(), Arc::new(watch::Sender::new(starting())))).collect()
}

fn subscribed(published: &Published) -> BTreeMap<SourceId, watch::Receiver<SourceHealth>> {
    published.iter().map(|(name, sender)| (name.clone(), sender.subscribe())).collect()
}
