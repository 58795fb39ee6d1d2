//! Alarms of the gateway itself: conditions reported by the runtime, dead letters, stages that are
//! off.

use super::Orchestration;
use super::alarms::New;
use crate::agents::Outbox;
use crate::domain::alarm::AlarmCause;
use crate::domain::event::Body;
use crate::domain::ids::EventId;
use crate::domain::severity::Severity;
use crate::domain::time::Now;

/// Condition of the alarm about dead letters.
const SET_ASIDE: &str = "event-set-aside";
/// Condition of the alarm about a stage that is off.
const SWITCHED_OFF: &str = "stage-off";

impl Orchestration {
    pub(super) fn condition(&mut self, now: Now, body: &Body, out: &mut Outbox<'_>) {
        let Body::Condition { condition, subject, active, severity, message } = body else {
            return;
        };
        match (self.alarms.system(condition, subject), *active) {
            (None, true) => {
                self.system_alarm(now, condition, subject, *severity, message.clone(), out);
            }
            (Some(id), true) => self.alarms.update(id, *severity, message.clone(), out),
            (Some(id), false) => self.alarms.clear(now, id, None, out),
            (None, false) => {}
        }
    }

    pub(super) fn system_alarm(
        &mut self,
        now: Now,
        condition: &str,
        subject: &str,
        severity: Severity,
        message: String,
        out: &mut Outbox<'_>,
    ) -> EventId {
        let new = New {
            asset: None,
            tag: None,
            cause: AlarmCause::System { condition: condition.to_owned() },
            severity,
            value: None,
            message,
            subject: subject.to_owned(),
        };
        self.alarms.raise(now, out.context(), new, out)
    }

    pub(super) fn set_aside(
        &mut self,
        now: Now,
        stage: &str,
        event: EventId,
        error: &str,
        out: &mut Outbox<'_>,
    ) {
        let id = self.alarms.system(SET_ASIDE, stage).unwrap_or_else(|| {
            let message = format!("stage {stage} set event {event} aside: {error}");
            self.system_alarm(now, SET_ASIDE, stage, Severity::High, message, out)
        });
        self.alarms.add_event(id, event, out);
    }

    pub(super) fn switched(
        &mut self,
        now: Now,
        stage: &str,
        on: bool,
        reason: &str,
        out: &mut Outbox<'_>,
    ) {
        let id = self.alarms.system(SWITCHED_OFF, stage);
        match (id, on) {
            (None, false) => {
                let message = format!("stage {stage} is switched off: {reason}");
                self.system_alarm(now, SWITCHED_OFF, stage, Severity::Critical, message, out);
            }
            (Some(id), true) => self.alarms.clear(now, id, None, out),
            (Some(_), false) | (None, true) => {}
        }
    }
}
