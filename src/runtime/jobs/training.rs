//! The trainer: learns models from the ring, and asks the kept ones about machines.
//!
//! Memory is bounded by the pure code (rows and lives of a training) and by the pages the ring is
//! read in; the thread gives way to every other one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use tokio::sync::watch;

use crate::agents::Setting;
use crate::analytics::training::{self, History, Learnt, steps};
use crate::domain::event::JobSpec;
use crate::domain::ids::{AssetId, EventId, TagId, TagKey};
use crate::domain::tag::Plant;
use crate::domain::time::Timestamp;
use crate::port::{EngineHandle, Input};
use crate::store::{Resolution, RingReader, StateReader};

/// Readings taken from the ring at a time.
const PAGE: usize = 8192;
/// Rows of one series at most; no life is cut into more.
const ROWS_MAX: usize = 8_000;
/// From this step on roll-ups of minutes are enough, and from [`HOURS_FROM`] on those of hours.
const MINUTES_FROM: Duration = Duration::from_secs(120);
const HOURS_FROM: Duration = Duration::from_secs(7200);

pub(super) fn work(
    data_dir: &Path,
    setting: &watch::Receiver<Setting>,
    engine: &EngineHandle,
    jobs: &Receiver<(EventId, JobSpec)>,
) {
    for (job, spec) in jobs {
        let plant = setting.borrow().plant.clone();
        // A training that panics must not take the trainer along.
        let done = catch_unwind(AssertUnwindSafe(|| run(data_dir, plant, &spec)));
        let done = done.unwrap_or_else(|_| Err("the computation panicked".to_owned()));
        let input = match done {
            Ok(Done::Learnt(learnt)) => match serde_json::to_value(&learnt.facts) {
                Ok(facts) => Input::ModelLearnt { job, spec, facts, bytes: learnt.bytes },
                Err(error) => Input::JobFinished { job, spec, result: Err(error.to_string()) },
            },
            Ok(Done::Said(value)) => Input::JobFinished { job, spec, result: Ok(value) },
            Err(error) => Input::JobFinished { job, spec, result: Err(error) },
        };
        if engine.blocking_send(input).is_err() {
            return;
        }
    }
}

enum Done {
    Learnt(Learnt),
    Said(serde_json::Value),
}

fn run(data_dir: &Path, plant: Arc<Plant>, spec: &JobSpec) -> Result<Done, String> {
    let unreadable = |error: crate::store::StoreError| format!("the store cannot be read: {error}");
    let ring = RingReader::open(data_dir).map_err(unreadable)?;
    let state = StateReader::open(data_dir).map_err(unreadable)?;
    let history = Ring { ring, plant };
    match spec {
        JobSpec::Train(training) => {
            let active = match &training.active {
                Some((id, _)) => state.model(&id.to_string()).map_err(unreadable)?,
                None => None,
            };
            training::train(training, &history, active.as_deref()).map(Done::Learnt)
        }
        JobSpec::Consult { asset, models, from, to } => {
            let mut kept = Vec::new();
            for id in models {
                if let Some(bytes) = state.model(&id.to_string()).map_err(unreadable)? {
                    kept.push((*id, bytes));
                }
            }
            let said = training::consult(asset, &kept, *from, *to, &history)?;
            serde_json::to_value(said).map(Done::Said).map_err(|error| error.to_string())
        }
        JobSpec::Degradation { .. } => Err("not the trainer's work".to_owned()),
    }
}

struct Ring {
    ring: RingReader,
    plant: Arc<Plant>,
}

/// Sums and counts of the steps of a series.
struct Means {
    from: Timestamp,
    step: Duration,
    sums: Vec<(f64, f64)>,
}

impl Means {
    fn add(&mut self, time: Timestamp, value: f64, count: f64) {
        let at = time.since(self.from).as_micros() / self.step.as_micros().max(1);
        let sums = usize::try_from(at).ok().and_then(|at| self.sums.get_mut(at));
        if let Some((sum, total)) = sums {
            *sum += value * count;
            *total += count;
        }
    }
}

impl History for Ring {
    fn series(
        &self,
        asset: &AssetId,
        tag: &TagId,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<f64>, String> {
        let rows = steps(from, to, step);
        if rows > ROWS_MAX {
            return Err(format!("{rows} rows are wanted, at most {ROWS_MAX} are read"));
        }
        let mut means = Means { from, step, sums: vec![(0.0, 0.0); rows] };
        // A tag that is gone has no values; the life may still be told by the others.
        if let Some(key) = self.plant.find(asset.as_str(), tag.as_str()) {
            let resolution = if step >= HOURS_FROM {
                Some((Resolution::Hour, Duration::from_secs(3600)))
            } else if step >= MINUTES_FROM {
                Some((Resolution::Minute, Duration::from_secs(60)))
            } else {
                None
            };
            match resolution {
                Some((resolution, span)) => {
                    self.rolled(key, from, to, resolution, span, &mut means)?;
                }
                None => self.raw(key, from, to, &mut means)?,
            }
        }
        Ok(means
            .sums
            .into_iter()
            .map(|(sum, count)| if count > 0.0 { sum / count } else { f64::NAN })
            .collect())
    }
}

impl Ring {
    fn rolled(
        &self,
        key: TagKey,
        from: Timestamp,
        to: Timestamp,
        resolution: Resolution,
        span: Duration,
        means: &mut Means,
    ) -> Result<(), String> {
        let mut from = from;
        while from < to {
            let page = self
                .ring
                .rollups(key, from, to, resolution)
                .map_err(|error| format!("reading the history failed: {error}"))?;
            let Some(last) = page.last() else { break };
            from = last.start.after(span);
            for rollup in &page {
                means.add(rollup.start, rollup.mean, rollup.count as f64);
            }
        }
        Ok(())
    }

    fn raw(
        &self,
        key: TagKey,
        from: Timestamp,
        to: Timestamp,
        means: &mut Means,
    ) -> Result<(), String> {
        let mut cursor: Option<String> = None;
        loop {
            let page = self
                .ring
                .range(key, from, to, PAGE, cursor.as_deref())
                .map_err(|error| format!("reading the history failed: {error}"))?;
            for reading in page.items.iter().filter(|reading| reading.quality.is_good()) {
                means.add(reading.time, reading.value, 1.0);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}
