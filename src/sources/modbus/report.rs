//! What a bus says of its units: states, conditions, load, and what it wants to know again.

use std::time::Duration;

use serde_json::json;

use crate::domain::severity::Severity;
use crate::port::EngineStopped;
use crate::sources::SourceError;
use crate::sources::health::{DEGRADED, DOWN, UP};
use crate::sources::poll_class::{ClassPoint, Memo, table_name};

use super::{Bus, Unit};

/// What was published of a unit; while it stays so, nothing needs to be published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    open: bool,
    device: bool,
    healthy: bool,
    /// Units of the source with an open breaker.
    source_open: usize,
    refused: usize,
}

impl Bus {
    pub(super) async fn publish(
        &mut self,
        source: usize,
        place: usize,
        error: Option<&str>,
    ) -> Result<(), SourceError> {
        let units = || self.units.iter().filter(|unit| unit.source == source);
        let all = units().count();
        let open = units().filter(|unit| unit.breaker.is_open()).count();
        let faulty = units().filter(|unit| unit.breaker.is_open() && unit.device_says_so).count();
        let silent = open == all && faulty == 0;
        let refused = self.classes.iter().filter(|class| class.source == source);
        let refused: usize = refused.map(|class| class.refused().count()).sum();
        let Unit { id, ref breaker, device_says_so: device, .. } = self.units[place];
        let (is_open, healthy) = (breaker.is_open(), breaker.is_healthy());
        let told = Told { open: is_open, device, healthy, source_open: open, refused };
        if self.units[place].told.replace(told) == Some(told) {
            return Ok(());
        }

        let health = &mut self.sources[source].health;
        let state = match () {
            () if open == all => Some(DOWN),
            () if open > 0 || refused > 0 => Some(DEGRADED),
            () if healthy => Some(UP),
            () => None,
        };
        if let Some(state) = state {
            health.state(state);
        }
        let word = match (is_open, device) {
            (true, true) => "fault",
            (true, false) => "silent",
            (false, _) => "answers",
        };
        health.detail(&format!("unit {id}"), Some(word.to_owned()));
        let refused = (refused > 0).then(|| format!("{refused} refused"));
        health.detail("points", refused);

        let name = health.name().to_string();
        let why = error.unwrap_or("no answer").to_owned();
        let subject = format!("{name} unit {id}");
        health
            .condition(&self.engine, "source-silent", &name, silent, Severity::High, || {
                if silent {
                    format!("source {name} does not answer: {why}")
                } else {
                    format!("source {name} answers")
                }
            })
            .await?;
        let fault = is_open && device;
        health
            .condition(&self.engine, "device-fault", &subject, fault, Severity::High, || {
                if fault {
                    format!("{subject} reports a fault of its own: {why}")
                } else {
                    format!("{subject} reports no fault")
                }
            })
            .await?;
        // With a single unit the source's own condition says it all.
        let unit_silent = is_open && !device && all > 1 && !silent;
        health
            .condition(&self.engine, "unit-silent", &subject, unit_silent, Severity::Medium, || {
                if unit_silent {
                    format!("{subject} does not answer: {why}")
                } else {
                    format!("{subject} answers")
                }
            })
            .await?;
        Ok(())
    }

    pub(super) async fn report_refusal(
        &mut self,
        poll: usize,
        point: usize,
        refused: bool,
    ) -> Result<(), EngineStopped> {
        let class = &self.classes[poll];
        let ClassPoint { path, point, .. } = &class.points[point];
        let subject = path.to_string();
        let (table, address) = (table_name(point.table), point.address);
        let health = &mut self.sources[class.source].health;
        health
            .condition(&self.engine, "point-refused", &subject, refused, Severity::Low, || {
                let unit = point.unit;
                if refused {
                    format!("unit {unit} refuses {table}:{address}, the point of {subject}")
                } else {
                    format!("unit {unit} answers for {table}:{address}, the point of {subject}")
                }
            })
            .await
    }

    /// Writes down what is known of the unit of this class.
    pub(super) async fn remember(&mut self, poll: usize) -> Result<(), EngineStopped> {
        let place = self.classes[poll].unit;
        let mut memo = Memo::default();
        for class in self.classes.iter().filter(|class| class.unit == place) {
            memo.merge(class.memo());
        }
        let Unit { source, id, .. } = self.units[place];
        let link = &self.sources[source].link;
        let body = (!memo.is_empty()).then(|| json!({ "link": link, "memo": memo }));
        self.notes.put(&self.engine, &self.note_id(source, id), body).await
    }

    pub(super) fn publish_load(&mut self, now: Duration) {
        self.meter.turn(now);
        for (place, source) in self.sources.iter().enumerate() {
            source.health.load(self.meter.load(place));
        }
    }
}
