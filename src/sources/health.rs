//! How a source does: its published state and the conditions it reports, each only when it changes.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::domain::ids::SourceId;
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;
use crate::port::{BusLoad, ConditionReport, EngineHandle, EngineStopped, Input, SourceHealth};

/// Longest error text kept; a device chooses part of it.
const ERROR_LENGTH_MAX: usize = 300;

/// A source that has not answered yet.
pub const STARTING: &str = "starting";
/// All of it works.
pub const UP: &str = "up";
/// Some units, points or topics fail.
pub const DEGRADED: &str = "degraded";
/// Nothing works.
pub const DOWN: &str = "down";

/// The health of one source, published on a watch channel, and its open conditions.
#[derive(Debug)]
pub struct HealthCell {
    name: SourceId,
    published: std::sync::Arc<watch::Sender<SourceHealth>>,
    /// Whether each condition held when it was last reported.
    reported: BTreeMap<(&'static str, String), bool>,
}

impl HealthCell {
    /// A cell that publishes on `published`, beginning with `starting`.
    #[must_use]
    pub fn new(name: SourceId, published: std::sync::Arc<watch::Sender<SourceHealth>>) -> Self {
        published.send_replace(SourceHealth { state: STARTING.to_owned(), ..Default::default() });
        Self { name, published, reported: BTreeMap::new() }
    }

    /// Name of the source.
    #[must_use]
    pub const fn name(&self) -> &SourceId {
        &self.name
    }

    /// A poll or message brought values.
    pub fn good(&self, arrived: Timestamp) {
        self.published.send_modify(|health| {
            health.good += 1;
            health.last_answer = Some(arrived);
        });
    }

    /// Polls or messages failed.
    pub fn failed(&self, count: u64, error: &str) {
        self.published.send_modify(|health| {
            health.failed += count;
            health.last_error = Some(shortened(error));
        });
    }

    /// Polls were left out.
    pub fn missed(&self, count: u64) {
        if count > 0 {
            self.published.send_modify(|health| health.missed += count);
        }
    }

    /// Something went wrong that is no poll and no message.
    pub fn error(&self, error: &str) {
        self.published.send_modify(|health| health.last_error = Some(shortened(error)));
    }

    /// The state is now this one.
    pub fn state(&self, state: &str) {
        self.published.send_if_modified(|health| {
            let changed = health.state != state;
            if changed {
                health.state = state.to_owned();
            }
            changed
        });
    }

    /// What its line's time goes to.
    pub fn load(&self, load: BusLoad) {
        self.published.send_modify(|health| health.load = Some(load));
    }

    /// Notes something worth knowing; `None` removes it.
    pub fn detail(&self, name: &str, text: Option<String>) {
        self.published.send_if_modified(|health| match text {
            Some(text) if health.details.get(name) != Some(&text) => {
                health.details.insert(name.to_owned(), text);
                true
            }
            Some(_) => false,
            None => health.details.remove(name).is_some(),
        });
    }

    /// Reports that a condition holds or not, if that is news. The first report always is: an
    /// earlier run may have left the condition open.
    ///
    /// # Errors
    /// [`EngineStopped`].
    pub async fn condition(
        &mut self,
        engine: &EngineHandle,
        condition: &'static str,
        subject: &str,
        active: bool,
        severity: Severity,
        message: impl FnOnce() -> String,
    ) -> Result<(), EngineStopped> {
        let key = (condition, subject.to_owned());
        if self.reported.get(&key) == Some(&active) {
            return Ok(());
        }
        let report = ConditionReport {
            condition: condition.to_owned(),
            subject: subject.to_owned(),
            active,
            severity,
            message: message(),
        };
        if active {
            tracing::warn!(source = %self.name, condition, subject, "{}", report.message);
        } else {
            tracing::debug!(source = %self.name, condition, subject, "{}", report.message);
        }
        engine.send(Input::Condition(report)).await?;
        self.reported.insert(key, active);
        Ok(())
    }
}

fn shortened(error: &str) -> String {
    error.chars().take(ERROR_LENGTH_MAX).collect()
}
