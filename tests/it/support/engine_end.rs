//! The engine's end of the input queue: what the sources hand in, looked at with a deadline.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wheeltap::agents::Setting;
use wheeltap::domain::reading::{RawBatch, RawReading};
use wheeltap::domain::tag::Plant;
use wheeltap::port::{ConditionReport, EngineHandle, Input};
use wheeltap::runtime::clock::Clock;
use wheeltap::sources::{self, SourceError, SourceTask};

/// Nothing a test waits for takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Running source tasks, and what they hand in.
#[derive(Debug)]
pub(crate) struct EngineEnd {
    inputs: mpsc::Receiver<Input>,
    /// The plant the sources were made for.
    pub(crate) plant: std::sync::Arc<Plant>,
    /// The tasks as the supervisor gets them.
    pub(crate) tasks: Vec<SourceTask>,
    cancel: CancellationToken,
    running: Vec<JoinHandle<Result<(), SourceError>>>,
}

impl EngineEnd {
    /// Starts all sources of a setting.
    pub(crate) fn start(setting: &Setting) -> Self {
        Self::start_with(setting, &sources::notes::Notes::default())
    }

    /// The same with what an earlier run has found out about the devices.
    pub(crate) fn start_with(setting: &Setting, notes: &sources::notes::Notes) -> Self {
        let (engine, inputs) = EngineHandle::channel();
        let tasks = sources::tasks_with(setting, &engine, &Clock::system(), 1, notes);
        let plant = std::sync::Arc::clone(&setting.plant);
        let cancel = CancellationToken::new();
        let mut end = Self { inputs, plant, tasks, cancel, running: Vec::new() };
        end.run();
        end
    }

    #[expect(clippy::disallowed_methods, reason = "the test stands in for the supervisor")]
    fn run(&mut self) {
        self.cancel = CancellationToken::new();
        let cancel = &self.cancel;
        self.running =
            self.tasks.iter().map(|task| tokio::spawn((task.run)(cancel.child_token()))).collect();
    }

    /// Stops all tasks and drops what they still handed in.
    pub(crate) async fn stop(&mut self) {
        self.cancel.cancel();
        for task in self.running.drain(..) {
            let ended = tokio::time::timeout(PATIENCE, task).await;
            ended.expect("a cancelled task ends").expect("no task panics").expect("no error");
        }
        while self.inputs.try_recv().is_ok() {}
    }

    /// Stops all tasks and starts them again, as the supervisor does.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.run();
    }

    /// The next input.
    pub(crate) async fn input(&mut self) -> Input {
        for task in &self.running {
            assert!(!task.is_finished(), "a source task has ended");
        }
        let input = tokio::time::timeout(PATIENCE, self.inputs.recv()).await;
        input.expect("the sources hand something in").expect("the sources live")
    }

    /// The next batch of readings.
    pub(crate) async fn batch(&mut self) -> RawBatch {
        loop {
            if let Input::Readings(batch) = self.input().await {
                return batch;
            }
        }
    }

    /// The name of a reading's tag.
    pub(crate) fn name(&self, reading: &RawReading) -> String {
        self.plant.tag(reading.tag).expect("a known tag").path.tag.to_string()
    }

    /// Waits for a reading of this tag that is as wanted; every reading until then is shown to
    /// `look`, with its tag's name.
    pub(crate) async fn reading_with(
        &mut self,
        tag: &str,
        wanted: impl Fn(&RawReading) -> bool,
        mut look: impl FnMut(&str, &RawReading),
    ) -> RawReading {
        loop {
            for reading in self.batch().await.readings {
                let name = self.name(&reading);
                look(&name, &reading);
                if name == tag && wanted(&reading) {
                    return reading;
                }
            }
        }
    }

    /// Waits for a reading of this tag that is as wanted.
    pub(crate) async fn reading(
        &mut self,
        tag: &str,
        wanted: impl Fn(&RawReading) -> bool,
    ) -> RawReading {
        self.reading_with(tag, wanted, |_, _| {}).await
    }

    /// Waits for a condition to be reported as wanted.
    pub(crate) async fn condition(
        &mut self,
        condition: &str,
        subject: &str,
        active: bool,
    ) -> ConditionReport {
        loop {
            if let Input::Condition(report) = self.input().await
                && report.condition == condition
                && report.subject == subject
                && report.active == active
            {
                return report;
            }
        }
    }
}
