//! Names every task, restarts it within a budget, then gives up aloud.
//!
//! A task that returns an error or panics is started again after a pause that doubles. One that
//! fails more than [`RESTARTS_MAX`] times within [`RESTART_WINDOW`] is given up: the condition
//! `task-gave-up` is reported, and an essential task takes the daemon down with it, so that systemd
//! starts everything anew.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::clock::Clock;
use crate::domain::severity::Severity;
use crate::port::{ConditionReport, EngineHandle, Input};

/// A task that fails more often than this within [`RESTART_WINDOW`] is given up.
pub const RESTARTS_MAX: usize = 5;
/// Over how long restarts are counted.
pub const RESTART_WINDOW: Duration = Duration::from_secs(600);
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// One run of a task.
pub type Run = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Starts tasks and watches over them.
pub struct Supervisor {
    tasks: JoinSet<()>,
    engine: EngineHandle,
    clock: Clock,
    stop: CancellationToken,
    fatal: mpsc::Sender<String>,
}

/// Whether the daemon can go on without a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The daemon ends when the task is given up.
    Essential,
    /// The rest goes on.
    Expendable,
}

impl Supervisor {
    /// A supervisor; a message on `fatal` means that the daemon must end.
    #[must_use]
    pub fn new(
        engine: EngineHandle,
        clock: Clock,
        stop: CancellationToken,
        fatal: mpsc::Sender<String>,
    ) -> Self {
        Self { tasks: JoinSet::new(), engine, clock, stop, fatal }
    }

    /// Starts a task. `run` makes one run of it; it ends for good when it returns `Ok` or when the
    /// supervisor's token is cancelled and the run returns.
    pub fn start(
        &mut self,
        name: &str,
        weight: Weight,
        mut run: impl FnMut() -> Run + Send + 'static,
    ) {
        let (engine, clock) = (self.engine.clone(), self.clock.clone());
        let (stop, fatal) = (self.stop.clone(), self.fatal.clone());
        let task = name.to_owned();
        let span = tracing::info_span!("task", name = %task);
        let watch = async move {
            let mut failures: VecDeque<Duration> = VecDeque::new();
            let mut pause = PAUSE_MIN;
            loop {
                let error = match guarded(run()).await {
                    Ok(()) => return,
                    Err(error) => error,
                };
                if stop.is_cancelled() {
                    return;
                }
                let now = clock.now().mono;
                failures.push_back(now);
                while failures.front().is_some_and(|at| *at + RESTART_WINDOW < now) {
                    failures.pop_front();
                }
                if failures.len() > RESTARTS_MAX {
                    tracing::error!(error, "a task failed too often and is given up");
                    let report = ConditionReport {
                        condition: "task-gave-up".to_owned(),
                        subject: task.clone(),
                        active: true,
                        severity: Severity::Critical,
                        message: format!("task {task} failed too often and is given up: {error}"),
                    };
                    // A stopping engine needs no report.
                    engine.send(Input::Condition(report)).await.ok();
                    if weight == Weight::Essential {
                        fatal.send(format!("task {task} was given up: {error}")).await.ok();
                    }
                    return;
                }
                tracing::warn!(error, "a task failed and is started again");
                // Cancel-safe: neither branch holds anything.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => return,
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        };
        self.tasks.spawn(watch.instrument(span));
    }

    /// Waits until all tasks have ended, at most `patience`; then drops the rest.
    ///
    /// The caller cancels the token first. Returns whether all had ended.
    pub async fn join(mut self, patience: Duration) -> bool {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(patience, all).await.is_ok();
        self.tasks.abort_all();
        ended
    }
}

/// Runs to the end; a panic counts as an error.
async fn guarded(run: Run) -> Result<(), String> {
    let mut one = JoinSet::new();
    one.spawn(run);
    match one.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(match error.try_into_panic() {
            Ok(panic) => panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "panicked without a message".to_owned()),
            Err(error) => error.to_string(),
        }),
        None => Ok(()),
    }
}
