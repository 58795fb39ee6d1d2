//! Long computations on a worker thread: fits and forecasts never delay the engine.
//!
//! The worker reads the ring through a connection of its own, hands the readings to the pure code
//! and the answer to the engine. A job that was open when the daemon stopped is handed out again by
//! the engine.

mod training;

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::{io, path::PathBuf};

use tokio::sync::watch;

use crate::agents::Setting;
use crate::analytics::degradation;
use crate::domain::event::JobSpec;
use crate::domain::ids::{EventId, TagKey};
use crate::domain::reading::Reading;
use crate::domain::time::Timestamp;
use crate::port::{EngineHandle, Input};
use crate::store::RingReader;

/// Jobs that may wait; the engine holds further ones.
pub const JOBS_MAX: usize = 64;
/// Readings handed to one job; longer histories are thinned evenly.
const JOB_READINGS_MAX: usize = 4096;
/// Readings taken from the ring at a time.
const PAGE: usize = 8192;

/// Trainings that may wait besides.
const TRAININGS_MAX: usize = 16;
/// How much the trainer gives way to every other thread: all it can.
const TRAINER_NICE: i32 = 19;

/// The workers' inboxes. Models are learnt by a thread of their own that gives way to all others:
/// neither the engine nor a prediction waits for one.
#[derive(Debug, Clone)]
pub struct Jobs {
    inbox: SyncSender<(EventId, JobSpec)>,
    trainings: SyncSender<(EventId, JobSpec)>,
}

impl Jobs {
    /// Starts the workers.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(
        data_dir: PathBuf,
        setting: watch::Receiver<Setting>,
        engine: EngineHandle,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (inbox, jobs) = sync_channel(JOBS_MAX);
        let (trainings, waiting) = sync_channel(TRAININGS_MAX);
        let trainer = (data_dir.clone(), setting.clone(), engine.clone());
        thread::Builder::new().name("trainer".to_owned()).spawn(move || {
            // On Linux this concerns the calling thread alone.
            if let Err(error) = rustix::process::nice(TRAINER_NICE) {
                tracing::warn!(%error, "models are learnt at the priority of everything else");
            }
            let (data_dir, setting, engine) = trainer;
            training::work(&data_dir, &setting, &engine, &waiting);
        })?;
        let worker = thread::Builder::new()
            .name("jobs".to_owned())
            .spawn(move || work(&data_dir, &setting, &engine, &jobs))?;
        Ok((Self { inbox, trainings }, worker))
    }

    /// Hands in a job; gives it back when too many wait.
    ///
    /// # Errors
    /// The job, when the inbox is full or the worker has ended.
    #[expect(clippy::result_large_err, reason = "the job itself comes back; it is rare")]
    pub fn offer(&self, job: EventId, spec: JobSpec) -> Result<(), (EventId, JobSpec)> {
        let inbox = match &spec {
            JobSpec::Degradation { .. } => &self.inbox,
            JobSpec::Train(_) | JobSpec::Consult { .. } => &self.trainings,
        };
        inbox.try_send((job, spec)).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }
}

fn work(
    ring_dir: &std::path::Path,
    setting: &watch::Receiver<Setting>,
    engine: &EngineHandle,
    jobs: &Receiver<(EventId, JobSpec)>,
) {
    let mut ring: Option<RingReader> = None;
    for (job, spec) in jobs {
        if ring.is_none() {
            ring = RingReader::open(ring_dir)
                .inspect_err(|error| tracing::warn!(%error, "a job cannot read the ring"))
                .ok();
        }
        let plant = setting.borrow().plant.clone();
        let result = match &spec {
            JobSpec::Degradation { asset, tag, from, to, .. } => {
                match (plant.find(asset.as_str(), tag.as_str()), &ring) {
                    (Some(key), Some(ring)) => history(ring, key, *from, *to)
                        .and_then(|readings| degradation::run_job(&spec, &readings)),
                    (None, _) => Err(format!("tag {asset}/{tag} is no longer configured")),
                    (_, None) => Err("the ring cannot be read".to_owned()),
                }
            }
            JobSpec::Train(_) | JobSpec::Consult { .. } => Err("the trainer's work".to_owned()),
        };
        if engine.blocking_send(Input::JobFinished { job, spec, result }).is_err() {
            return;
        }
    }
}

/// Good readings of a tag from `from` to `to`, oldest first, thinned to [`JOB_READINGS_MAX`].
fn history(
    ring: &RingReader,
    tag: TagKey,
    from: Option<Timestamp>,
    to: Timestamp,
) -> Result<Vec<Reading>, String> {
    let from = from.unwrap_or(Timestamp::from_micros(i64::MIN));
    let mut kept = Vec::new();
    let mut every = 1_usize;
    let mut count = 0_usize;
    let mut cursor: Option<String> = None;
    loop {
        let page = ring
            .range(tag, from, to, PAGE, cursor.as_deref())
            .map_err(|error| format!("reading the history failed: {error}"))?;
        for reading in page.items.iter().filter(|reading| reading.quality.is_good()) {
            if count.is_multiple_of(every) {
                kept.push(*reading);
            }
            count += 1;
            if kept.len() > 2 * JOB_READINGS_MAX {
                // Keep every other one: evenly thinned at any length, in bounded memory.
                let mut index = 0;
                kept.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                every *= 2;
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if kept.len() > JOB_READINGS_MAX {
        let newest = kept.last().copied();
        let mut index = 0;
        kept.retain(|_| {
            index += 1;
            index % 2 == 1
        });
        if let Some(newest) = newest
            && kept.last() != Some(&newest)
        {
            kept.push(newest);
        }
        kept.truncate(JOB_READINGS_MAX + 1);
    }
    Ok(kept)
}
